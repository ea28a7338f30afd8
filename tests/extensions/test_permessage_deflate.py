"""permessage-deflate: the RFC's examples, its parameters, limits, and zlib on the other side."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faye_wsgi.driver.frames import build_frame
from faye_wsgi.driver.hybi import Hybi
from faye_wsgi.errors import ExtensionError
from faye_wsgi.extensions.base import Message
from faye_wsgi.extensions.negotiation import ClientNegotiation, Pipeline, negotiate
from faye_wsgi.extensions.permessage_deflate import PermessageDeflate, permessage_deflate

from .fakes import Reverse

examples = settings(
    max_examples=100,
    database=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)

LIMIT = 2**26 - 1
TAIL = b"\x00\x00\xff\xff"
NAME = "permessage-deflate"
RANDOM = random.Random(7)
NOISE = bytes(RANDOM.getrandbits(8) for _ in range(300_000))


def server(params: str = "", max_length: int = LIMIT, **options: Any) -> Pipeline:
    """The pipeline of a server whose client offers ``params``."""
    offer = f"{NAME}; {params}" if params else NAME
    pipeline = negotiate([PermessageDeflate(**options)], offer, max_length)
    assert pipeline is not None
    return pipeline


def client(params: str = "", max_length: int = LIMIT, **options: Any) -> Pipeline:
    """The pipeline of a client whose server answers ``params``."""
    response = f"{NAME}; {params}" if params else NAME
    pipeline = ClientNegotiation([PermessageDeflate(**options)]).activate(response, max_length)
    assert pipeline is not None
    return pipeline


def read(pipeline: Pipeline, data: bytes) -> bytes:
    return pipeline.process_incoming(Message(2, data, rsv1=True)).data


def send(pipeline: Pipeline, data: bytes) -> bytes:
    message = pipeline.process_outgoing(Message(2, data))
    assert message.rsv == 0x40
    return message.data


def fails(pipeline: Pipeline, data: bytes) -> int:
    with pytest.raises(ExtensionError) as caught:
        read(pipeline, data)
    return caught.value.code


class Zlib:
    """The other side, of zlib alone: compresses and reads as RFC 7692 §7.2 says."""

    def __init__(self, bits: int = 15, takeover: bool = True, level: int = -1) -> None:
        self.bits, self.takeover, self.level = bits, takeover, level
        self.deflater = self.inflater = None

    def compress(self, data: bytes) -> bytes:
        if not (self.deflater and self.takeover):
            self.deflater = zlib.compressobj(self.level, zlib.DEFLATED, -max(self.bits, 9))
        packed = self.deflater.compress(data) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        assert packed.endswith(TAIL)
        return packed[:-4]

    def decompress(self, data: bytes) -> bytes:
        if not (self.inflater and self.takeover):
            self.inflater = zlib.decompressobj(-self.bits)
        return self.inflater.decompress(data + TAIL)


# RFC 7692 §7.2.3: the examples


@pytest.mark.parametrize(
    ("packed", "data"),
    [
        ("f2 48 cd c9 c9 07 00", b"Hello"),  # §7.2.3.1, in one block
        ("00 05 00 fa ff 48 65 6c 6c 6f 00", b"Hello"),  # §7.2.3.3, without compression
        ("f3 48 cd c9 c9 07 00 00", b"Hello"),  # §7.2.3.4, a final block
        ("f3 48 cd c9 c9 07 00", b"Hello"),  # the same, without the byte after it
        ("f2 48 05 00 00 00 ff ff ca c9 c9 07 00", b"Hello"),  # §7.2.3.5, two blocks
        ("00", b""),  # §7.2.3.6
        ("", b""),  # not the RFC's, and harmless
    ],
)
def test_examples_of_the_rfc(packed: str, data: bytes) -> None:
    for pipeline in (server(), client()):
        assert read(pipeline, bytes.fromhex(packed)) == data
        assert read(pipeline, bytes.fromhex("f2 48 cd c9 c9 07 00")) == b"Hello"


def test_context_takeover() -> None:
    # §7.2.3.2: the second Hello is a reference to the first one
    first, second = bytes.fromhex("f2 48 cd c9 c9 07 00"), bytes.fromhex("f2 00 11 00 00")
    for pipeline in (server(), client()):
        assert [send(pipeline, b"Hello"), send(pipeline, b"Hello")] == [first, second]
        assert [read(pipeline, first), read(pipeline, second)] == [b"Hello", b"Hello"]


def test_no_context_takeover() -> None:
    hello = bytes.fromhex("f2 48 cd c9 c9 07 00")
    pipeline = server(no_context_takeover=True, request_no_context_takeover=True)
    for _ in range(3):
        assert send(pipeline, b"Hello") == hello
        assert read(pipeline, hello) == b"Hello"
    # the second message would need the first one
    assert fails(pipeline, bytes.fromhex("f2 00 11 00 00")) == 1007


def test_a_message_that_is_not_compressed() -> None:
    for opcode in (1, 2):
        message = server().process_incoming(Message(opcode, b"\xff\xffplain"))
        assert (message.data, message.opcode) == (b"\xff\xffplain", opcode)


def test_plain_messages_leave_the_context_alone() -> None:
    pipeline, peer = server(), Zlib()
    one, two = peer.compress(b"Hello, Hello"), peer.compress(b"Hello again")
    assert read(pipeline, one) == b"Hello, Hello"
    assert pipeline.process_incoming(Message(1, b"plain")).data == b"plain"
    assert read(pipeline, two) == b"Hello again"


def test_empty_messages_are_sent_as_they_are() -> None:
    pipeline, peer = server(), Zlib()
    for _ in range(3):
        message = pipeline.process_outgoing(Message(1, b""))
        assert (message.data, message.rsv) == (b"", 0)
        assert peer.decompress(send(pipeline, b"Hello")) == b"Hello"


def test_threshold() -> None:
    pipeline, peer = server(threshold=5), Zlib()
    short = pipeline.process_outgoing(Message(1, b"abcd"))
    assert (short.data, short.rsv) == (b"abcd", 0)
    assert peer.decompress(send(pipeline, b"abcde")) == b"abcde"


def test_all_buffers_are_read() -> None:
    hello = bytes.fromhex("f2 48 cd c9 c9 07 00")
    for kind in (bytes, bytearray, memoryview):
        data: Any = kind(hello)
        assert read(server(), data) == b"Hello"


# Final blocks, RFC 7692 §7.2.3.4


def finished(data: bytes) -> bytes:
    deflater = zlib.compressobj(-1, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush(zlib.Z_FINISH)


@pytest.mark.parametrize("filler", [b"", b"\x00"])
def test_final_blocks_of_all_sizes(filler: bytes) -> None:
    for size in (1, 65535, 65536, 65537, 200_000):
        pipeline = server()
        for data in (NOISE[:size], b"a" * size, NOISE[:size] + b"a" * size):
            assert read(pipeline, finished(data) + filler) == data
            assert read(pipeline, Zlib().compress(data)) == data


def test_several_final_blocks_in_a_message() -> None:
    pipeline = server()
    parts = [NOISE[:70_000], b"", b"b" * 70_000, b"c"]
    packed = b"".join(finished(part) for part in parts)
    assert read(pipeline, packed + Zlib().compress(b"end")) == b"".join(parts) + b"end"


def test_too_many_final_blocks() -> None:
    began = time.monotonic()
    assert fails(server(), finished(b"") * 1_000_000) == 1007
    assert time.monotonic() - began < 2  # each one costs a context, so there is a limit


# Parameters, a server's


@pytest.mark.parametrize(
    ("offer", "options", "response"),
    [
        # nothing asked
        ("", {}, ""),
        ("", {"no_context_takeover": True}, "server_no_context_takeover"),
        ("", {"request_no_context_takeover": True}, "client_no_context_takeover"),
        ("", {"max_window_bits": 9}, ""),
        ("", {"request_max_window_bits": 9}, ""),  # the client cannot do it
        # server_no_context_takeover
        ("server_no_context_takeover", {}, "server_no_context_takeover"),
        ("client_no_context_takeover", {}, "client_no_context_takeover"),
        (
            "server_no_context_takeover; client_no_context_takeover",
            {"no_context_takeover": True, "request_no_context_takeover": True},
            "server_no_context_takeover; client_no_context_takeover",
        ),
        # server_max_window_bits
        ("server_max_window_bits=8", {}, "server_max_window_bits=8"),
        ("server_max_window_bits=15", {}, "server_max_window_bits=15"),
        ('server_max_window_bits="10"', {}, "server_max_window_bits=10"),
        ("server_max_window_bits=12", {"max_window_bits": 10}, "server_max_window_bits=10"),
        ("server_max_window_bits=12", {"max_window_bits": 13}, "server_max_window_bits=12"),
        # client_max_window_bits
        ("client_max_window_bits", {}, ""),
        ("client_max_window_bits", {"request_max_window_bits": 9}, "client_max_window_bits=9"),
        ("client_max_window_bits=8", {}, "client_max_window_bits=8"),
        ("client_max_window_bits=15", {}, ""),
        (
            "client_max_window_bits=10",
            {"request_max_window_bits": 12},
            "client_max_window_bits=10",
        ),
        (
            "client_max_window_bits=12",
            {"request_max_window_bits": 10},
            "client_max_window_bits=10",
        ),
        # all of them
        (
            "client_max_window_bits; server_max_window_bits=11; server_no_context_takeover",
            {"request_max_window_bits": 9, "request_no_context_takeover": True},
            "server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=11; client_max_window_bits=9",
        ),
    ],
)
def test_the_servers_response(offer: str, options: dict[str, Any], response: str) -> None:
    assert server(offer, **options).header == (f"{NAME}; {response}" if response else NAME)


WRONG = [
    "unknown",
    "unknown=1",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=08",
    "server_max_window_bits=9.0",
    "server_max_window_bits=+9",
    "server_max_window_bits=x",
    "server_max_window_bits",
    "client_max_window_bits=7",
    "client_max_window_bits=16",
    "client_max_window_bits=015",
    "client_max_window_bits=1e1",
    "Server_No_Context_Takeover",
]


@pytest.mark.parametrize("params", WRONG)
def test_an_offer_that_is_declined(params: str) -> None:
    assert negotiate([permessage_deflate], f"{NAME}; {params}", LIMIT) is None
    # the next one is taken
    both = f"{NAME}; {params}, {NAME}; server_max_window_bits=10"
    pipeline = negotiate([permessage_deflate], both, LIMIT)
    assert pipeline is not None and pipeline.header == f"{NAME}; server_max_window_bits=10"


def test_the_first_good_offer_is_taken() -> None:
    offers = f"{NAME}; server_max_window_bits=11, {NAME}"
    pipeline = negotiate([permessage_deflate], offers, LIMIT)
    assert pipeline is not None and pipeline.header == f"{NAME}; server_max_window_bits=11"


def test_repeated_parameters_are_declined() -> None:
    offers: Any = [{"server_max_window_bits": ["9", "10"]}, {"server_no_context_takeover": [True]}]
    assert permessage_deflate.create_server_session(offers) is None


# Parameters, a client's


@pytest.mark.parametrize(
    ("options", "offer"),
    [
        ({}, "client_max_window_bits"),
        ({"max_window_bits": 9}, "client_max_window_bits=9"),
        ({"no_context_takeover": True}, "client_no_context_takeover; client_max_window_bits"),
        (
            {"request_no_context_takeover": True},
            "server_no_context_takeover; client_max_window_bits",
        ),
        (
            {"request_max_window_bits": 8},
            "server_max_window_bits=8; client_max_window_bits",
        ),
        ({"level": 9, "mem_level": 1, "threshold": 100}, "client_max_window_bits"),
    ],
)
def test_the_clients_offer(options: dict[str, Any], offer: str) -> None:
    assert ClientNegotiation([PermessageDeflate(**options)]).header == f"{NAME}; {offer}"


@pytest.mark.parametrize(
    ("options", "response", "fits"),
    [
        ({}, "", True),
        ({}, "server_no_context_takeover", True),  # §7.1.1.1: asked or not
        ({}, "client_no_context_takeover", True),  # §7.1.1.2: asked or not
        ({}, "server_max_window_bits=8", True),  # §7.1.2.1: asked or not
        ({}, "client_max_window_bits=8", True),
        ({"request_no_context_takeover": True}, "", False),
        ({"request_no_context_takeover": True}, "server_no_context_takeover", True),
        ({"no_context_takeover": True}, "", True),  # §7.1.1.2: a hint
        ({"request_max_window_bits": 10}, "", False),
        ({"request_max_window_bits": 10}, "server_max_window_bits=11", False),
        ({"request_max_window_bits": 10}, "server_max_window_bits=10", True),
        ({"request_max_window_bits": 10}, "server_max_window_bits=8", True),
        ({"max_window_bits": 10}, "", True),  # §7.1.2.2: a hint
        ({"max_window_bits": 10}, "client_max_window_bits=11", False),
        ({"max_window_bits": 10}, "client_max_window_bits=10", True),
        ({"max_window_bits": 10}, "client_max_window_bits=9", True),
    ],
)
def test_the_servers_answer(options: dict[str, Any], response: str, fits: bool) -> None:
    if fits:
        client(response, **options)
        return
    with pytest.raises(ExtensionError, match="do not fit"):
        client(response, **options)


@pytest.mark.parametrize("params", [*WRONG, "client_max_window_bits"])
def test_an_answer_that_breaks_the_rfc(params: str) -> None:
    with pytest.raises(ExtensionError, match="do not fit"):
        client(params)


def test_an_answer_with_a_repeated_parameter() -> None:
    with pytest.raises(ExtensionError):
        client("server_max_window_bits=9; server_max_window_bits=9")


SERVER_PARAMETERS = st.fixed_dictionaries(
    {
        "level": st.sampled_from([-1, 0, 1, 9]),
        "mem_level": st.integers(1, 9),
        "strategy": st.integers(0, 4),
        "no_context_takeover": st.booleans(),
        "max_window_bits": st.integers(8, 15),
        "request_no_context_takeover": st.booleans(),
        "request_max_window_bits": st.integers(8, 15),
        "threshold": st.sampled_from([0, 0, 100]),
    }
)
TEXTS = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.text("ab", max_size=2000).map(str.encode),
        st.builds(
            lambda start, size, times: NOISE[start : start + size] * times,
            st.integers(0, 1000),
            st.integers(0, 1000),
            st.integers(0, 300),
        ),
    ),
    max_size=6,
)


@examples
@given(SERVER_PARAMETERS, SERVER_PARAMETERS, TEXTS)
def test_both_roles_together(
    ours: dict[str, Any], theirs: dict[str, Any], texts: list[bytes]
) -> None:
    """Whatever both are configured to, they agree, and understand one another."""
    negotiation = ClientNegotiation([PermessageDeflate(**theirs)])
    one = negotiate([PermessageDeflate(**ours)], negotiation.header, LIMIT)
    assert one is not None
    two = negotiation.activate(one.header, LIMIT)
    assert two is not None
    for data in texts:
        for sender, receiver in ((one, two), (two, one)):
            sent = sender.process_outgoing(Message(2, data))
            assert receiver.process_incoming(Message(2, sent.data, sent.rsv1)).data == data


# zlib on the other side


@examples
@given(st.integers(9, 15), st.booleans(), st.sampled_from([-1, 0, 1, 6, 9]), TEXTS)
def test_what_zlib_compresses_is_read(
    bits: int, takeover: bool, level: int, texts: list[bytes]
) -> None:
    params = f"server_max_window_bits={bits}" + ("; server_no_context_takeover" * (not takeover))
    pipeline, peer = client(params), Zlib(bits, takeover, level)
    for data in texts:
        assert read(pipeline, peer.compress(data)) == data


@examples
@given(st.integers(8, 15), st.booleans(), st.integers(0, 9), st.integers(1, 9), TEXTS)
def test_what_is_compressed_zlib_reads(
    bits: int, takeover: bool, level: int, mem_level: int, texts: list[bytes]
) -> None:
    pipeline = server(
        f"server_max_window_bits={bits}",
        level=level,
        mem_level=mem_level,
        no_context_takeover=not takeover,
    )
    peer = Zlib(bits, takeover)
    for data in texts:
        assert not data or peer.decompress(send(pipeline, data)) == data


# What has matches at every distance: short phrases out of few, in no order.
PHRASES = b"".join(NOISE[i : i + 5] for i in (RANDOM.randrange(0, 500) for _ in range(20_000)))
REPEATS = [NOISE[:250] * 40, NOISE[:256] * 40, NOISE[:257] * 40, NOISE[:400] * 40, PHRASES]


@pytest.mark.parametrize("bits", [8, 9, 10, 15])
@pytest.mark.parametrize("level", range(1, 10))
def test_no_reference_leaves_the_agreed_window(bits: int, level: int) -> None:
    """The reader gets its output byte by byte, so that it has its window and no more."""
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_RLE, zlib.Z_FIXED):
        pipeline = server(f"server_max_window_bits={bits}", level=level, strategy=strategy)
        inflater = zlib.decompressobj(-bits)
        for data in REPEATS if strategy == zlib.Z_DEFAULT_STRATEGY else REPEATS[-1:]:
            rest = send(pipeline, data[:10_000]) + TAIL
            read = bytearray()
            while rest:
                read += inflater.decompress(rest, 1)
                rest = inflater.unconsumed_tail
            assert read + inflater.decompress(b"") == data[:10_000]


def test_that_the_test_above_would_notice() -> None:
    deflater, inflater = zlib.compressobj(9, zlib.DEFLATED, -10), zlib.decompressobj(-8)
    rest = deflater.compress(NOISE[:400] * 3) + deflater.flush()
    with pytest.raises(zlib.error, match="too far back"):
        while rest:
            inflater.decompress(rest, 1)
            rest = inflater.unconsumed_tail


def test_a_smaller_window_than_the_peer_uses() -> None:
    # What was agreed is held, too: a peer that looks back further is found out.
    packed = Zlib(15).compress(NOISE[:20_000] * 2)
    pipeline = client("server_max_window_bits=8")
    assert fails(pipeline, packed) == 1007


# Limits


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072, 300_000])
def test_the_limit_is_exact(size: int) -> None:
    for data in (b"z" * size, NOISE[:size]):
        packed = Zlib().compress(data) if data else b"\x00"
        assert read(server(max_length=size), packed) == data
        if size:
            assert fails(server(max_length=size - 1), packed) == 1009


def bomb(size: int) -> bytes:
    return Zlib(level=9).compress(bytes(size))


@pytest.mark.parametrize("max_length", [1000, 2**20, 2**22])
def test_a_bomb_costs_no_more_than_the_limit(max_length: int) -> None:
    packed = bomb(2**26)
    assert len(packed) < 2**16 + 200
    pipeline, message, code = server(max_length=max_length), Message(2, packed, rsv1=True), 0
    tracemalloc.start()
    try:
        try:
            pipeline.process_incoming(message)
        except ExtensionError as error:
            code = error.code
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert code == 1009
    # What the output has in advance (an eighth), contexts, and the pieces of input at hand.
    assert peak < max_length * 9 // 8 + 2**19
    assert now < 2**13


def test_a_bomb_out_of_final_blocks() -> None:
    assert fails(server(max_length=2**20), finished(bytes(2**18)) * 5) == 1009


def test_a_bomb_in_many_messages() -> None:
    pipeline, peer = server(max_length=2**20), Zlib(level=9)
    for _ in range(5):
        assert read(pipeline, peer.compress(bytes(2**20))) == bytes(2**20)
    assert fails(pipeline, peer.compress(bytes(2**20 + 1))) == 1009


@pytest.mark.parametrize("size", [1, 100, 1000, 60_000, 300_000])
@pytest.mark.parametrize("cuts", [0, 3])
def test_what_does_not_compress_may_be_longer_in_its_frames(size: int, cuts: int) -> None:
    """The limit is that of the message: RFC 7692 §7.2.3.2 makes such ones longer."""
    packed = Zlib(level=1).compress(NOISE[:size])
    assert len(packed) > size
    step = len(packed) // (cuts + 1) + 1
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
    data = b"".join(
        build_frame((0x42 if not n else 0) | (0x80 if n == len(pieces) - 1 else 0), piece, b"abcd")
        for n, piece in enumerate(pieces)
    )
    for max_length, expected in ((size, "message"), (size - 1, "error")):
        if max_length:
            driver = Hybi(pipeline=server(max_length=max_length), max_length=max_length)
            first = driver.receive_data(data)[0]
            assert getattr(first, "type", "message") == expected
    plain = Hybi(pipeline=server(max_length=size), max_length=size)
    too_long = plain.receive_data(build_frame(0x82, NOISE[:size] + b"x", b"abcd"))
    assert too_long[0].type == "error" and too_long[1].code == 1009


# Data that cannot be read


@pytest.mark.parametrize(
    "packed",
    [
        b"\xff" * 10,  # a block of the reserved type
        b"\x00\x05\x00\x00\x00Hello\x00",  # LEN and NLEN do not match
        bytes.fromhex("f2 00 11 00 00"),  # a reference to before the beginning
        b"\x00\x09\x00\xf6\xffHello",  # a stored block that is cut off
        b"\xec" + NOISE[:50],
    ],
)
def test_malformed_data(packed: bytes) -> None:
    for pipeline in (server(), client()):
        assert fails(pipeline, packed) == 1007


@examples
@given(st.binary(max_size=200))
def test_any_bytes_give_data_or_an_error(data: bytes) -> None:
    pipeline = server(max_length=1000)
    try:
        assert len(read(pipeline, data)) <= 1000
    except ExtensionError as error:
        assert error.code in (1007, 1009)
        assert len(str(error).encode()) <= 123


# In steps


def read_in_steps(pipeline: Pipeline, data: bytes) -> tuple[bytes, int]:
    """The message, and the number of its steps."""
    steps, number = pipeline.process_in_steps(Message(2, data, rsv1=True)), 1
    try:
        while True:
            next(steps)
            number += 1
    except StopIteration as end:
        return end.value.data, number


@examples
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.integers(0, 400_000).map(lambda size: Zlib().compress(NOISE[:size] + bytes(size))),
            st.integers(0, 300_000).map(lambda size: finished(bytes(size))),
        ),
        max_size=4,
    )
)
def test_in_steps_a_message_is_what_it_is_at_once(messages: list[bytes]) -> None:
    at_once, in_steps = server(max_length=500_000), server(max_length=500_000)
    for packed in messages:
        try:
            data = read(at_once, packed)
        except ExtensionError as error:
            with pytest.raises(ExtensionError, match=f"^{re.escape(str(error))}$") as caught:
                read_in_steps(in_steps, packed)
            assert caught.value.code == error.code
        else:
            assert read_in_steps(in_steps, packed)[0] == data


def test_a_step_is_128_kib_at_most() -> None:
    data, steps = read_in_steps(server(), bomb(2**22))
    assert len(data) == 2**22 and steps >= 32
    assert read_in_steps(server(), b"\x00") == (b"", 1)


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_message_that_is_cut_off_gives_no_more_than_it_had(cut: int) -> None:
    data = b"the quick brown fox, the lazy dog, the quick brown dog, the lazy fox"
    packed = Zlib().compress(data)
    try:
        result = read(server(), packed[: -min(cut, len(packed))])
    except ExtensionError as error:
        assert error.code == 1007
    else:
        assert data.startswith(result)


# Contexts


def session_of(pipeline: Pipeline) -> Any:
    return pipeline._outgoing[0].session


def test_contexts_are_made_when_first_used() -> None:
    pipeline = server()
    session = session_of(pipeline)
    assert session._deflater is None and session._inflater is None
    send(pipeline, b"Hello")
    assert session._deflater is not None and session._inflater is None
    read(pipeline, b"\x00")
    assert session._inflater is not None
    pipeline.close()
    assert session._deflater is None and session._inflater is None


def test_contexts_are_dropped_without_takeover() -> None:
    pipeline = server("server_no_context_takeover; client_no_context_takeover")
    session = session_of(pipeline)
    read(pipeline, send(pipeline, b"Hello"))
    assert session._deflater is None and session._inflater is None


def test_contexts_are_dropped_after_an_error() -> None:
    pipeline = server()
    send(pipeline, b"Hello")
    assert fails(pipeline, b"\xff") == 1007
    session = session_of(pipeline)
    assert session._deflater is None and session._inflater is None


# Options


def test_configure_gives_another_one() -> None:
    fast = permessage_deflate.configure(level=1)
    small = fast.configure(max_window_bits=9)
    assert (permessage_deflate.level, fast.level, small.level) == (-1, 1, 1)
    assert (fast.max_window_bits, small.max_window_bits) == (15, 9)
    assert permessage_deflate == PermessageDeflate()
    with pytest.raises(dataclasses.FrozenInstanceError):
        fast.level = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"unknown": 1}, TypeError),
        ({"level": "high"}, TypeError),
        ({"level": True}, TypeError),
        ({"level": 10}, ValueError),
        ({"level": -2}, ValueError),
        ({"mem_level": 0}, ValueError),
        ({"mem_level": 10}, ValueError),
        ({"strategy": 5}, ValueError),
        ({"max_window_bits": 7}, ValueError),
        ({"max_window_bits": 16}, ValueError),
        ({"max_window_bits": None}, TypeError),
        ({"request_max_window_bits": 7}, ValueError),
        ({"request_max_window_bits": 9.0}, TypeError),
        ({"no_context_takeover": 1}, TypeError),
        ({"request_no_context_takeover": "yes"}, TypeError),
        ({"threshold": -1}, ValueError),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        PermessageDeflate(**options)
    with pytest.raises(error):
        permessage_deflate.configure(**options)


# Together with an extension of somebody else


@pytest.mark.parametrize("deflate_first", [True, False])
def test_with_another_extension(deflate_first: bool) -> None:
    ours: list[Any] = [permessage_deflate, Reverse()][:: 1 if deflate_first else -1]
    negotiation = ClientNegotiation([Reverse(), permessage_deflate])
    one = negotiate(ours, negotiation.header, LIMIT)
    assert one is not None and one.rsv_mask == 0x60
    two = negotiation.activate(one.header, LIMIT)
    assert two is not None
    for data in (b"Hello", b"", NOISE[:1000] * 3):
        for sender, receiver in ((one, two), (two, one)):
            sent = sender.process_outgoing(Message(1, data))
            assert sent.rsv2 and sent.rsv1 == bool(data)
            first = 0x81 | sent.rsv
            assert receiver.process_incoming(Message.from_frame(first, sent.data)).data == data


def test_the_order_of_two_is_seen_on_the_wire() -> None:
    deflated = bytes.fromhex("f2 48 cd c9 c9 07 00")
    both = f"{NAME}, permessage-x"
    one = negotiate([permessage_deflate, Reverse()], both, LIMIT)
    two = negotiate([Reverse(), permessage_deflate], both, LIMIT)
    assert one is not None and two is not None
    assert one.process_outgoing(Message(1, b"Hello")).data == deflated[::-1]
    assert two.process_outgoing(Message(1, b"olleH")).data == deflated
