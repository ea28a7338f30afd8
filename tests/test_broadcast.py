"""One message to many: who gets it, who does not, and that it is built once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest

from faye_wsgi import broadcast
from faye_wsgi.driver import hybi
from faye_wsgi.driver.hybi import Hybi
from faye_wsgi.endpoint import Endpoint
from faye_wsgi.extensions.base import Message
from faye_wsgi.extensions.negotiation import Pipeline, negotiate
from faye_wsgi.extensions.permessage_deflate import permessage_deflate
from faye_wsgi.transport.settings import Settings
from faye_wsgi.transport.stream import PlainSocket

from .extensions.fakes import Reverse
from .support import frames
from .support.peer import Peer
from .transport.harness import TIMEOUT, until

SLOW = 1 << 22  # more than a socket pair's buffers hold


class Receiver:
    """A connection, and the peer that reads it."""

    def __init__(self, pipeline: Pipeline | None = None) -> None:
        ours, theirs = socket.socketpair()
        sock = PlainSocket(fileno=ours.detach())
        sock.setblocking(False)
        self.peer = Peer(sock=gevent.socket.socket(fileno=theirs.detach()), timeout=TIMEOUT)
        self.ws = gevent.spawn(Endpoint, Settings()).get(timeout=TIMEOUT)
        self.ws._connection.open(Hybi(pipeline=pipeline), sock, b"")

    def finish(self) -> None:
        self.peer.close()
        self.ws.wait_closed(TIMEOUT)


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[Receiver] = []

    def receiver(pipeline: Pipeline | None = None) -> Receiver:
        made.append(Receiver(pipeline))
        return made[-1]

    yield receiver
    for one in made:
        one.finish()


def deflate(offer: str = "permessage-deflate", **options: Any) -> Pipeline:
    agreed = negotiate([permessage_deflate.configure(**options)], offer, 2**20)
    assert agreed is not None
    return agreed


def unpacker() -> Any:
    """What the client makes of a frame, with one context for all of them."""
    receiving = deflate()

    def unpack(frame: Any) -> bytes:
        rsv1 = bool(frame.rsv & 4)
        return receiving.process_incoming(Message(frame.opcode, frame.payload, rsv1)).data

    return unpack


@pytest.mark.parametrize("message", ["text", "tëxt", b"binary", bytearray(b"b"), "x" * 100_000])
def test_all_of_them_get_it(make: Any, message: Any) -> None:
    receivers = [make() for _ in range(5)]
    assert broadcast((one.ws for one in receivers), message) == []
    data = message.encode() if isinstance(message, str) else bytes(message)
    for one in receivers:
        frame = one.peer.read_frame()
        assert (frame.opcode, frame.payload) == (
            frames.TEXT if isinstance(message, str) else frames.BINARY,
            data,
        )


def test_its_frame_is_built_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    build = hybi.build_message
    monkeypatch.setattr(hybi, "build_message", lambda one: built.append(one) or build(one))
    broadcast([make().ws for _ in range(5)], "once")
    assert built == ["once"]


def test_who_is_not_open_is_passed_over(make: Any) -> None:
    closed, closing, open = make(), make(), make()
    closed.peer.close()
    closed.ws.wait_closed(TIMEOUT)
    closing.ws.close()
    assert broadcast([closed.ws, closing.ws, open.ws], "x") == []
    assert open.peer.read_frame().payload == b"x"
    assert closing.peer.read_frame().opcode == frames.CLOSE


def test_before_open_it_is_kept(make: Any) -> None:
    ws = gevent.spawn(Endpoint, Settings()).get(timeout=TIMEOUT)
    assert broadcast([ws], "early") == []
    assert ws.buffered_amount == 5
    ws.close()


def test_a_slow_one_is_told_of_and_holds_up_nobody(make: Any) -> None:
    slow, quick = make(), make()
    assert broadcast([slow.ws], b"x" * SLOW) == []
    assert broadcast([slow.ws, quick.ws], "next") == [slow.ws]
    assert quick.peer.read_frame().payload == b"next"
    drained = gevent.event.Event()
    slow.ws.on("drain", lambda event: drained.set())
    assert len(slow.peer.read_frame().payload) == SLOW
    assert drained.wait(TIMEOUT)
    assert broadcast([slow.ws], "again") == []
    assert slow.peer.read_frame().payload == b"again"


def test_between_the_fragments_of_a_message_it_waits(make: Any) -> None:
    one = make()

    def pieces() -> Iterator[str]:
        yield "first "
        assert broadcast([one.ws], "between") == []
        yield "second"

    one.ws.send(pieces())
    got = [one.peer.read_frame().payload for _ in range(3)]
    assert got == [b"first ", b"second", b"between"]


def test_from_another_thread(make: Any) -> None:
    receivers = [make() for _ in range(3)]
    result: list[Any] = []
    thread = threading.Thread(
        target=lambda: result.append(broadcast([one.ws for one in receivers], "far"))
    )
    thread.start()
    until(lambda: bool(result))
    thread.join(TIMEOUT)
    assert result == [[]]
    assert [one.peer.read_frame().payload for one in receivers] == [b"far"] * 3


@pytest.mark.parametrize("message", [None, 1, ["a", "b"]])
def test_what_is_no_message_raises(make: Any, message: Any) -> None:
    with pytest.raises(TypeError):
        broadcast([make().ws], message)


# permessage-deflate


def test_it_is_compressed_once_for_those_who_agreed_on_the_same(make: Any) -> None:
    text = "a message that is worth compressing " * 10
    receivers = [make(deflate()) for _ in range(3)] + [make(deflate(level=1)), make()]
    broadcast([one.ws for one in receivers], text)
    got = [one.peer.read_frame() for one in receivers]
    assert [frame.rsv for frame in got] == [4, 4, 4, 4, 0]
    assert got[0].payload == got[1].payload == got[2].payload
    for frame in got[:4]:
        assert unpacker()(frame) == text.encode()


@pytest.mark.parametrize("no_context_takeover", [False, True])
def test_messages_before_and_after_it_can_be_read(make: Any, no_context_takeover: bool) -> None:
    """Whatever a message refers to, the peer has it where it is referred to."""
    receivers = [
        (make(deflate(no_context_takeover=no_context_takeover)), unpacker()) for _ in range(3)
    ]
    texts = [f"message {number} resembles the others " * 5 for number in range(12)]
    for number, text in enumerate(texts):
        if number % 3 == 1:
            broadcast([one.ws for one, _ in receivers], text)
            continue
        for one, _ in receivers[number % 2 :]:  # so that their contexts differ
            one.ws.send(text)
    for index, (one, unpack) in enumerate(receivers):
        for number, text in enumerate(texts):
            if number % 3 != 1 and index < number % 2:
                continue
            assert unpack(one.peer.read_frame()) == text.encode()


def test_other_extensions_see_it_one_by_one(make: Any) -> None:
    agreed = [negotiate([Reverse()], Reverse.name, 2**20) for _ in range(2)]
    receivers = [make(pipeline) for pipeline in agreed]
    broadcast([one.ws for one in receivers], b"abc")
    assert [one.peer.read_frame().payload for one in receivers] == [b"cba", b"cba"]
