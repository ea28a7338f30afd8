"""Stream: reading, the write buffer, gathering, and how it ends; on plain sockets and on TLS."""

from __future__ import annotations

import gc
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import gevent.socket
import gevent.ssl
import pytest

from faye_wsgi.transport.settings import GATHER
from faye_wsgi.transport.stream import PlainSocket, Stream, gathering
from faye_wsgi.wsgi.hijack import take
from faye_wsgi.wsgi.servers import Place

from ..support.certs import Certificates
from .harness import NOTHING_FOR, TIMEOUT, is_open, turn, until

MEGABYTE = 1 << 20


class Log:
    """A receiver that writes down what it is told, and closes a stream that is lost."""

    stream: Stream

    def __init__(self) -> None:
        self.data = b""
        self.calls: list[str] = []
        self.room = 0
        self.reading: Callable[[], object] | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.reading is not None:
            self.reading()

    def eof_received(self) -> None:
        self.calls.append("ended")

    def connection_lost(self, message: str, unread: bool = False) -> None:
        assert message
        self.calls.append("lost")
        self.stream.close()

    def pause_writing(self) -> None:
        self.calls.append("no room")

    def resume_writing(self) -> None:
        self.room += 1

    def failed(self, error: BaseException) -> None:
        self.calls.append(f"failed: {type(error).__name__}")
        self.stream.close()

    def guard(self, function: Callable[..., object], *args: Any) -> None:
        try:
            function(*args)
        except Exception as error:
            self.failed(error)


class Ends:
    """A stream, who is told, and the other end."""

    def __init__(self, stream: Stream, log: Log, peer: Any, fd: int) -> None:
        self.stream, self.log, self.peer, self.fd = stream, log, peer, fd

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.peer.recv(min(size - len(data), 65536))
            assert piece, f"the stream ended after {len(data)} bytes of {size}"
            data += piece
        return data

    def close(self) -> None:
        self.stream.close()
        self.peer.close()


def plain_ends(certificates: Certificates) -> Ends:
    ours, theirs = socket.socketpair()
    fd = ours.fileno()
    sock = PlainSocket(fileno=ours.detach())
    sock.setblocking(False)
    peer = gevent.socket.socket(fileno=theirs.detach())
    return finish(sock, peer, fd)


def tls_ends(certificates: Certificates) -> Ends:
    """TLS as a server has it: its session is taken out of the server's object."""
    ours, theirs = socket.socketpair()
    fd = ours.fileno()
    server = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.num_tickets = 0  # unread ones would make a reset of the end of a socket pair
    server.load_cert_chain(certificates.cert, certificates.key)
    client = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(certificates.ca)
    handshake = gevent.spawn(
        server.wrap_socket, gevent.socket.socket(fileno=ours.detach()), server_side=True
    )
    peer = client.wrap_socket(
        gevent.socket.socket(fileno=theirs.detach()), server_hostname="localhost"
    )
    wrapped = handshake.get(timeout=TIMEOUT)
    taken = take(Place("test", wrapped))
    wrapped.close()
    return finish(taken.socket, peer, fd)


def finish(sock: Any, peer: Any, fd: int) -> Ends:
    peer.settimeout(TIMEOUT)
    log = Log()
    log.stream = Stream(sock, gevent.get_hub().loop, log)
    return Ends(log.stream, log, peer, fd)


MAKERS = {"plain": plain_ends, "tls": tls_ends}


@pytest.fixture(params=MAKERS)
def ends(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Ends]:
    made = MAKERS[request.param](certificates)
    yield made
    made.close()


@pytest.fixture
def plain(certificates: Certificates) -> Iterator[Ends]:
    made = plain_ends(certificates)
    yield made
    made.close()


@pytest.fixture
def tls(certificates: Certificates) -> Iterator[Ends]:
    made = tls_ends(certificates)
    yield made
    made.close()


# In


def test_nothing_is_read_before_it_is_asked_for(ends: Ends) -> None:
    ends.peer.sendall(b"early")
    gevent.sleep(NOTHING_FOR)
    assert ends.log.data == b"" and not ends.stream.is_reading
    ends.stream.resume_reading()
    until(lambda: ends.log.data == b"early")


def test_reading_stops_and_goes_on(ends: Ends) -> None:
    ends.stream.resume_reading()
    ends.stream.pause_reading()
    ends.peer.sendall(b"one")
    gevent.sleep(NOTHING_FOR)
    assert ends.log.data == b""
    ends.stream.resume_reading()
    ends.stream.resume_reading()
    until(lambda: ends.log.data == b"one")


def test_reading_may_stop_while_bytes_are_handed_over(ends: Ends) -> None:
    ends.log.reading = ends.stream.pause_reading
    ends.stream.resume_reading()
    sender = gevent.spawn(ends.peer.sendall, b"x" * MEGABYTE)
    until(lambda: ends.log.data)
    gevent.sleep(NOTHING_FOR)
    assert 0 < len(ends.log.data) <= 2 * 65536, "one read, then none"
    ends.log.reading = None
    ends.stream.resume_reading()
    until(lambda: len(ends.log.data) == MEGABYTE)
    sender.join(TIMEOUT)


def test_the_stream_may_be_closed_while_bytes_are_handed_over(ends: Ends) -> None:
    ends.log.reading = ends.stream.close
    ends.stream.resume_reading()
    ends.peer.sendall(b"bye")
    until(lambda: ends.stream.closed)
    gevent.sleep(NOTHING_FOR)
    assert ends.log.data == b"bye" and ends.log.calls == []


def test_the_peers_end_is_told_once(ends: Ends) -> None:
    ends.stream.resume_reading()
    ends.peer.close()
    until(lambda: ends.log.calls)
    gevent.sleep(NOTHING_FOR)
    assert ends.log.calls == ["ended"]


def test_half_close_lets_us_go_on_sending(plain: Ends) -> None:
    plain.stream.resume_reading()
    plain.peer.shutdown(socket.SHUT_WR)
    until(lambda: plain.log.calls == ["ended"])
    plain.stream.write(b"still here")
    assert plain.read(10) == b"still here"


def test_tls_bytes_that_the_kernel_does_not_tell_of(tls: Ends) -> None:
    """All records are in one segment: what one read leaves must not wait for more."""
    tls.peer.sendall(b"a" * 16384 + b"b" * 16384 + b"c")
    gevent.sleep(NOTHING_FOR)
    assert tls.stream._socket.recv(10) == b"a" * 10
    assert tls.stream._socket.pending()
    tls.stream.resume_reading()
    until(lambda: len(tls.log.data) == 2 * 16384 + 1 - 10)


def test_tls_a_record_that_comes_in_pieces_is_waited_for(tls: Ends) -> None:
    """Readable for the kernel, and nothing to read yet: no error, no end."""
    tls.stream.resume_reading()
    with pytest.raises(BlockingIOError):
        tls.stream._socket.recv(10)
    tls.peer.sendall(b"whole")
    until(lambda: tls.log.data == b"whole")
    assert tls.log.calls == []


# Out


def test_what_the_kernel_takes_does_not_wait(ends: Ends) -> None:
    ends.stream.write(b"hello")
    assert ends.stream.buffered == 0 and not ends.stream.is_blocked
    assert ends.read(5) == b"hello"


def test_what_the_kernel_does_not_take_waits_and_keeps_its_order(ends: Ends) -> None:
    payload = bytes(range(256)) * (4 * MEGABYTE // 256)
    ends.stream.write(payload)
    ends.stream.write(b"tail")
    assert 0 < ends.stream.buffered <= len(payload) + 4
    assert ends.stream.is_blocked
    assert ends.read(len(payload) + 4) == payload + b"tail"
    until(lambda: not ends.stream.is_blocked)
    assert ends.stream.buffered == 0 and ends.log.room > 0


def test_both_directions_at_once(ends: Ends) -> None:
    ends.stream.resume_reading()
    payload = b"y" * (2 * MEGABYTE)
    sender = gevent.spawn(ends.peer.sendall, payload)
    ends.stream.write(payload)
    assert ends.read(len(payload)) == payload
    sender.join(TIMEOUT)
    until(lambda: ends.log.data == payload)


def in_a_batch(ends: Ends, action: Callable[[], object]) -> None:
    """Runs `action` while the bytes of one read are being dealt with."""
    ends.log.reading = action
    ends.stream.resume_reading()
    ends.peer.sendall(b"go")
    until(lambda: ends.log.data == b"go")


def test_what_is_written_in_a_batch_goes_out_together(plain: Ends) -> None:
    sent = count_sends(plain.stream)

    def write() -> None:
        for _ in range(10):
            plain.stream.write(b"x" * 10)
        assert sent == [] and plain.stream.buffered == 100

    in_a_batch(plain, write)
    assert sent == [100] and plain.read(100) == b"x" * 100


def test_a_greenlet_can_gather(plain: Ends) -> None:
    sent = count_sends(plain.stream)
    with pytest.raises(KeyError), gathering():
        with gathering():
            plain.stream.write(b"one")
        plain.stream.write(b"two")
        assert sent == []
        raise KeyError
    assert sent == [6] and plain.read(6) == b"onetwo"
    plain.stream.write(b"three")
    assert sent == [6, 5]


def test_other_streams_of_the_batch_go_out_with_it(plain: Ends, certificates: Certificates) -> None:
    others = [plain_ends(certificates) for _ in range(3)]
    sent = [count_sends(other.stream) for other in others]

    def write() -> None:
        for other in others:
            other.stream.write(b"one")
            other.stream.write(b"two")
        others[2].stream.close()
        assert sent == [[], [], []]

    in_a_batch(plain, write)
    assert sent == [[6], [6], []], "and a closed one swallows what it was given"
    for other in others:
        other.close()


def test_a_flush_that_raises_strands_no_other_stream(plain: Ends, tls: Ends) -> None:
    def fail(data: bytes) -> int:
        raise MemoryError

    def write() -> None:
        plain.stream._send = fail
        plain.stream.write(b"lost")
        tls.stream.write(b"one")

    plain.log.reading = write
    plain.peer.sendall(b"go")
    plain.stream.readable()
    assert plain.log.calls == ["failed: MemoryError"] and tls.log.calls == []
    assert tls.read(3) == b"one"
    in_a_batch(tls, lambda: tls.stream.write(b"two"))
    assert tls.read(3) == b"two"


def test_a_batch_that_is_large_goes_out_in_parts(plain: Ends) -> None:
    sent = count_sends(plain.stream)

    def write() -> None:
        for _ in range(5):
            plain.stream.write(b"x" * (GATHER // 4))
        assert len(sent) == 1 and sent[0] >= GATHER

    in_a_batch(plain, write)
    assert sum(sent) == 5 * GATHER // 4


def test_a_batch_does_not_push_a_blocked_socket(plain: Ends) -> None:
    plain.stream.write(b"x" * (4 * MEGABYTE))
    sent = count_sends(plain.stream)
    in_a_batch(plain, lambda: plain.stream.write(b"tail"))
    assert sent == [], "the watcher tells when there is room"


def test_a_receiver_that_raises_does_not_hold_back_what_it_wrote(plain: Ends) -> None:
    def fail() -> None:
        plain.stream.write(b"x")
        raise LookupError

    plain.log.reading = fail
    plain.stream.resume_reading()
    plain.stream.pause_reading()
    plain.peer.sendall(b"go")
    plain.stream.readable()
    assert plain.read(1) == b"x"
    assert plain.log.calls == ["failed: LookupError"]


def test_what_the_buffer_cannot_keep_is_a_failure(plain: Ends) -> None:
    """The peer would take the next frame for the rest of this one."""

    class Loop:
        run_callback = plain.stream._loop.run_callback

        def io(self, *args: Any) -> None:
            raise MemoryError

    plain.stream._loop = Loop()
    with pytest.raises(MemoryError):
        plain.stream.write(b"x" * (4 * MEGABYTE))
    plain.stream.write(b"after")
    until(lambda: plain.log.calls == ["failed: MemoryError"])
    data = b""
    while piece := plain.peer.recv(MEGABYTE):
        data += piece
    assert data.strip(b"x") == b"", "nothing follows the part that went out"


def count_sends(stream: Stream) -> list[int]:
    counts: list[int] = []
    send = stream._send

    def counting(data: bytes) -> int:
        taken: int = send(data)
        counts.append(taken)
        return taken

    stream._send = counting
    return counts


# End


def test_fin_after_what_was_written(ends: Ends) -> None:
    ends.stream.write(b"last words")
    ends.stream.shutdown_write()
    assert ends.read(10) == b"last words"
    assert ends.peer.recv(1) == b""


def test_close_releases_the_descriptor_at_once_and_twice_is_once(ends: Ends) -> None:
    ends.stream.resume_reading()
    ends.stream.write(b"x" * (4 * MEGABYTE))
    ends.stream.close()
    assert not is_open(ends.fd) and ends.stream.buffered == 0
    ends.stream.close()
    ends.stream.resume_reading()
    ends.stream.write(b"nobody")
    turn()
    assert not ends.stream.is_reading and ends.log.calls == ["no room"]


def test_a_closed_stream_leaves_its_old_descriptor_alone(plain: Ends) -> None:
    """By then it may be somebody else's."""
    other, peer = socket.socketpair()
    plain.stream.resume_reading()
    plain.stream.close()
    os.dup2(other.fileno(), plain.fd)
    peer.send(b"not for the stream")
    plain.stream.readable()
    plain.stream.write(b"nobody")
    plain.stream.flush()
    peer.settimeout(NOTHING_FOR)
    with pytest.raises((TimeoutError, socket.timeout)):
        peer.recv(1)
    assert other.recv(100) == b"not for the stream" and plain.log.data == b""
    os.close(plain.fd)
    other.close()
    peer.close()


def test_large_reads_and_small_ones(ends: Ends) -> None:
    ends.stream.resume_reading()
    sizes = [1, 5000, 100, 70_000, 65_536, 4096, 4097, 1]
    for size in sizes:
        before = len(ends.log.data)
        ends.peer.sendall(bytes([size % 251]) * size)
        until(lambda: len(ends.log.data) == before + size)  # noqa: B023
        assert ends.log.data[before:] == bytes([size % 251]) * size


def test_close_sends_fin_although_a_copy_of_the_descriptor_lives(plain: Ends) -> None:
    copy = socket.socket(fileno=os.dup(plain.fd))
    plain.stream.close()
    assert plain.peer.recv(1) == b""
    copy.close()


def test_a_broken_socket_is_told_from_the_hub_not_from_the_send(plain: Ends) -> None:
    plain.peer.close()
    plain.stream.write(b"x")
    plain.stream.write(b"y")
    assert plain.stream.broken and plain.log.calls == []
    until(lambda: plain.log.calls == ["lost"])


def test_the_peers_last_words_are_read_from_a_broken_socket(plain: Ends) -> None:
    plain.peer.sendall(b"z" * 200_000)
    plain.peer.close()
    plain.stream.write(b"x")
    assert plain.stream.broken
    until(lambda: plain.log.calls)
    assert plain.log.data == b"z" * 200_000 and plain.log.calls == ["lost"]


def test_a_broken_socket_while_reading_is_paused(plain: Ends) -> None:
    plain.stream.resume_reading()
    plain.stream.pause_reading()
    plain.peer.sendall(b"goodbye")
    plain.peer.close()
    plain.stream.write(b"x")
    until(lambda: plain.log.calls)
    assert plain.log.data == b"goodbye" and plain.log.calls == ["lost"]


def test_a_reset_is_told(plain: Ends) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    fd = accepted.fileno()
    sock = PlainSocket(fileno=accepted.detach())
    sock.setblocking(False)
    log = Log()
    log.stream = Stream(sock, gevent.get_hub().loop, log)
    log.stream.resume_reading()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    until(lambda: log.calls)
    assert log.calls == ["lost"] and not is_open(fd)
    server.close()


def test_a_stream_leaves_nothing_behind(certificates: Certificates) -> None:
    def watchers() -> int:
        gc.collect()
        kind = type(gevent.get_hub().loop.io(0, 1))
        return sum(issubclass(type(thing), kind) and thing.active for thing in gc.get_objects())

    before = watchers()
    for _ in range(20):
        made = plain_ends(certificates)
        made.stream.resume_reading()
        made.stream.write(b"x" * MEGABYTE)
        turn()
        made.close()
    assert watchers() == before
