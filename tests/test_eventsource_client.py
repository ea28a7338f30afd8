"""EventSourceClient against real servers and proxies, and against some that do not behave."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import gevent
import gevent.socket
import pytest

from faye_wsgi import (
    ConnectionClosed,
    EventSourceClient,
    HandshakeError,
    ReadyState,
    ServerEvent,
)
from faye_wsgi.transport import hubs
from faye_wsgi.transport.backoff import Backoff

from .conftest import find_program
from .support.apps.streams import TEXTS
from .support.certs import Certificates
from .support.nginx import nginx
from .support.scripted import (
    Scripted,
    descriptors,
    header,
    proxy,
    read_head,
    says,
    scripted,
    server_context,
)
from .support.servers import Server
from .support.sse import Acknowledgements, notes
from .support.waiting import wait_until
from .test_client import nothing_leaks, old_objects

__all__ = ["nothing_leaks", "old_objects"]

TIMEOUT = 5.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
GONE = b"HTTP/1.1 204 No Content\r\n\r\n"
LATER = b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n"


class Delays(Backoff):
    """A backoff that only writes down how long it would have waited."""

    made: list[float] = []

    def __init__(self, first: float, most: float) -> None:
        super().__init__(first, most, random=lambda low, high: high, sleep=self.made.append)


@pytest.fixture(autouse=True)
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr("faye_wsgi.eventsource_client.Backoff", Delays)
    monkeypatch.setattr(Delays, "made", [])
    return Delays.made


@pytest.fixture
def start() -> Iterator[Callable[..., Scripted]]:
    """`start(script, ...)` runs a scripted HTTP server that ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(
            scripted(*args, scheme="http", **options)
        )


def in_turn(*answers: bytes) -> Callable[..., None]:
    """The script of a server that gives each connection the next answer; the last one again."""

    def script(sock: Any, server: Scripted) -> None:
        says(answers[min(server.connections, len(answers)) - 1])(sock, server)

    return script


def stay(sock: Any, server: Scripted) -> None:
    """The script of a stream with one event that stays open until the client has gone."""
    server.heads.append(read_head(sock))
    sock.sendall(HEAD + b"id: 1\ndata: here\n\n")
    assert not sock.recv(1)


def failure(url: str, **options: Any) -> HandshakeError:
    """The error of a client that must not open, in every way that there is."""
    es = EventSourceClient(url, **options)
    with pytest.raises(HandshakeError) as caught:
        es.wait_open(TIMEOUT)
    for call in (es.receive, es.wait_open, es.__next__, es.__enter__):
        with pytest.raises(HandshakeError):
            call()
    assert caught.value.target is es and es.ready_state == ReadyState.CLOSED
    return caught.value


# Real servers


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread", "gunicorn-sync"])
def test_all_that_our_event_source_sends(serve: Callable[..., Server], kind: str) -> None:
    """The last one has no socket to take, so that the body is chunked."""
    url = serve(kind).url("/es/texts")
    with EventSourceClient(url, reconnect=False) as es:
        assert es.ready_state == ReadyState.OPEN
        assert es.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert ("Transfer-Encoding" in es.headers) == (kind == "gunicorn-sync")
        events = list(es)
    normal = [text.replace("\r\n", "\n").replace("\r", "\n") for text in TEXTS]
    assert events == [
        *(ServerEvent(text, "message", str(number)) for number, text in enumerate(normal)),
        ServerEvent("with all", "named", "an id: 世界"),
        ServerEvent("the end", "message", "an id: 世界"),
    ]
    assert (es.last_event_id, es.retry) == ("an id: 世界", 5)
    assert es.ready_state == ReadyState.CLOSED


def test_events_come_one_by_one(serve: Callable[..., Server]) -> None:
    server = serve("gunicorn-gevent")
    with Acknowledgements() as acks:
        es = EventSourceClient(server.url(f"/es/step?n=3&ack={acks.path}"), reconnect=False)
        for number in range(3):
            event = es.receive(TIMEOUT)
            assert event == (f"event {number}", "step", str(number))
            acks.give(number)
        assert list(es) == []


def test_closing_is_noticed_by_the_server(serve: Callable[..., Server]) -> None:
    server = serve("gunicorn-gevent")
    key = f"{os.getpid()}-{time.monotonic_ns()}"
    with EventSourceClient(server.url(f"/es/listening?key={key}")) as es:
        assert es.receive(TIMEOUT).data == "ready"
    wait_until(lambda: [note[0] for note in notes(server, key)] == ["open", "close"])


def test_it_comes_back_with_the_last_id(serve: Callable[..., Server], delays: list[float]) -> None:
    server = serve("gunicorn-gevent")
    with EventSourceClient(server.url("/es/about?retry=0.25"), last_event_id="café") as es:
        for _ in range(2):
            assert '"last_event_id": "caf\\u00e9"' in es.receive(TIMEOUT).data
    assert delays[0] == 0.375
    assert (
        '"last_event_id": "7"'
        in EventSourceClient(server.url("/es/about"), last_event_id=7).receive(TIMEOUT).data
    )


def test_behind_nginx(serve: Callable[..., Server]) -> None:
    with nginx(find_program("nginx"), serve("gunicorn-gevent")) as front:
        url = f"http://{front.host_header}/es/texts"
        assert len(list(EventSourceClient(url, reconnect=False))) == len(TEXTS) + 2


def test_tls(serve: Callable[..., Server], certificates: Certificates) -> None:
    url = serve("gunicorn-gevent", tls=True).url("/es/texts")
    events = list(EventSourceClient(url, ca=certificates.ca, reconnect=False))
    assert len(events) == len(TEXTS) + 2
    error = failure(url)
    assert "certificate is not valid" in str(error)


# One connection


def test_no_reconnecting(start: Callable[..., Scripted], delays: list[float]) -> None:
    server = start(says(HEAD + b"data: x\n\ndata: half"))
    es = EventSourceClient(server.url(), reconnect=False)
    assert [event.data for event in es] == ["x"]
    with pytest.raises(ConnectionClosed, match="the server has ended the stream") as caught:
        es.receive(TIMEOUT)
    assert caught.value.code is None and caught.value.target is es
    assert (server.connections, delays) == (1, [])
    assert failure(start(says(LATER)).url(), reconnect=False).status_code == 503


def test_the_loss_of_the_only_connection_is_raised(start: Callable[..., Scripted]) -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    server = start(says(head + b"9\r\ndata: x\n\n\r\n"))
    es = EventSourceClient(server.url(), reconnect=False)
    assert next(es).data == "x"
    for call in (es.__next__, es.receive):
        with pytest.raises(ConnectionClosed, match="broken off") as caught:
            call()
        assert caught.value.code == 1006


# Waiting


def test_receive_in_time(start: Callable[..., Scripted]) -> None:
    with EventSourceClient(start(stay).url()) as es:
        assert es.receive(TIMEOUT).data == "here"
        for _ in range(2):
            with pytest.raises(TimeoutError):
                es.receive(0.01)
        for wrong in ("1", True):
            with pytest.raises(TypeError):
                es.receive(wrong)  # type: ignore[arg-type]
        assert es.ready_state == ReadyState.OPEN


def test_opening_in_time(start: Callable[..., Scripted]) -> None:
    es = EventSourceClient(start(lambda sock, server: sock.recv(65536) and sock.recv(1)).url())
    assert es.ready_state == ReadyState.CONNECTING
    with pytest.raises(TimeoutError):
        es.wait_open(0.01)
    es.close()
    assert es.ready_state == ReadyState.CLOSED


def test_reading_waits_for_the_user(start: Callable[..., Scripted]) -> None:
    """What is not received yet stays in TCP, and in the server."""
    event = b"data: " + b"x" * 1000 + b"\n\n"
    sent = [0]

    def flood(sock: Any, server: Scripted) -> None:
        read_head(sock)
        sock.sendall(HEAD)
        while True:
            sock.sendall(event)
            sent[0] += 1

    with EventSourceClient(start(flood).url()) as es:
        assert es.receive(TIMEOUT)
        before = -1
        while sent[0] != before:  # until the server has to wait, too
            before = sent[0]
            gevent.sleep(0.05)
        assert len(es._feed._events) <= 70
        for _ in range(1000):
            assert len(es.receive(TIMEOUT).data) == 1000


def test_the_last_id_is_that_of_what_was_received(start: Callable[..., Scripted]) -> None:
    """A program that stores it and begins anew there misses nothing."""
    body = b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\n\n"

    def script(sock: Any, server: Scripted) -> None:
        read_head(sock)
        sock.sendall(HEAD + body)
        assert not sock.recv(1)

    with EventSourceClient(start(script).url(), last_event_id="0") as es:
        assert es.receive(TIMEOUT).data == "a"
        assert es.last_event_id == "1"
        assert es.receive(TIMEOUT).data == "b"
        assert es.last_event_id == "3"


# Reconnecting


def test_it_reconnects(
    start: Callable[..., Scripted], delays: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "faye_wsgi")
    server = start(
        in_turn(
            LATER,
            b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n",
            HEAD + b"id: 1\ndata: a\n\nid: 2\nevent: broken off",
            LATER,
            HEAD + b"retry: 3000\n\ndata: b\n\n",
            LATER,
            b"HTTP/1.1 429 x\r\n\r\n",
            GONE,
        )
    )
    es = EventSourceClient(server.url("/?token=secret"), headers=iter([("X-One", "1")]))
    assert list(es) == [ServerEvent("a", id="1"), ServerEvent("b", id="1")]
    assert delays == [1, 2, 1, 2, 4.5, 9, 18]
    ids = [header(head, "Last-Event-ID") for head in server.heads]
    assert ids == [None, None, None, "1", "1", "1", "1", "1"]
    assert all(header(head, "X-One") == "1" for head in server.heads)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "WARNING", "INFO", "WARNING", "INFO", "WARNING", "WARNING"]
    assert "503" in caplog.text and "again in 18.0 seconds" in caplog.text
    assert "secret" not in caplog.text
    assert (es.last_event_id, es.retry, es.ready_state) == ("1", 3, ReadyState.CLOSED)


def test_a_stream_without_events_backs_off(
    start: Callable[..., Scripted], delays: list[float]
) -> None:
    server = start(in_turn(*[HEAD + b"retry: 0\n\n:\n\n"] * 4, GONE))
    assert list(EventSourceClient(server.url(), max_delay=0.5)) == []
    assert delays == pytest.approx([0.15, 0.3, 0.6, 0.75])


def test_a_connection_that_is_reset(
    start: Callable[..., Scripted], caplog: pytest.LogCaptureFixture
) -> None:
    def script(sock: Any, server: Scripted) -> None:
        if server.connections == 1:
            read_head(sock)
            sock.sendall(HEAD + b"data: a\n\n")
            linger = b"\1\0\0\0\0\0\0\0"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.close()
        else:
            says(GONE)(sock, server)

    assert [event.data for event in EventSourceClient(start(script).url())] in (["a"], [])
    assert "the connection was lost: Connection reset by peer" in caplog.text


def test_a_server_that_is_away_for_a_while(
    monkeypatch: pytest.MonkeyPatch, delays: list[float]
) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

        def begin(delay: float) -> None:
            if len(delays) == 3:
                listener.listen()
                stack.callback(gevent.spawn(answer, listener.fileno()).kill)

        monkeypatch.setattr(Delays, "made", Recorded(delays, begin))
        with EventSourceClient(f"http://127.0.0.1:{port}/") as es:
            assert es.receive(TIMEOUT).data == "x"


class Recorded(list):  # type: ignore[type-arg]
    """Delays, and what happens in them."""

    def __init__(self, delays: list[float], then: Callable[[float], object]) -> None:
        self.append = lambda delay: (delays.append(delay), then(delay))  # type: ignore[assignment]


def answer(fd: int) -> None:
    with gevent.socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM) as listener:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            sock.sendall(HEAD + b"data: x\n\n")
            sock.recv(1)


def test_a_silent_stream(start: Callable[..., Scripted], caplog: pytest.LogCaptureFixture) -> None:
    def script(sock: Any, server: Scripted) -> None:
        if server.connections == 1:
            stay(sock, server)
        else:
            says(GONE)(sock, server)

    es = EventSourceClient(start(script).url(), idle_timeout=0.05)
    assert [event.data for event in es] == ["here"]
    assert "nothing came for 0.05 seconds" in caplog.text


class Dead:
    """A socket whose peer keepalive has found dead, when the head has been read."""

    def __init__(self, *way: Any) -> None:
        self._data = [HEAD]

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, size: int) -> bytes:
        if self._data:
            return self._data.pop()
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def close(self) -> None:
        pass


def test_a_peer_that_keepalive_finds_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventSourceClient, "_dial", Dead)
    es = EventSourceClient("http://example.com/", reconnect=False)
    with pytest.raises(ConnectionClosed, match="the connection was lost: Connection timed out"):
        es.receive(TIMEOUT)


def test_a_silent_server(start: Callable[..., Scripted]) -> None:
    server = start(lambda sock, server: sock.recv(65536) and sock.recv(1))
    error = failure(server.url(), open_timeout=0.05, reconnect=False)
    assert "did not open within 0.05 seconds" in str(error)


# What does not heal


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 201, 206, 300, 304])
def test_other_answers_are_final(
    start: Callable[..., Scripted], delays: list[float], status: int
) -> None:
    body = b"HTTP/1.1 %d x\r\nX-Why: it\r\nContent-Length: 2\r\n\r\nno" % status
    error = failure(start(says(body)).url())
    assert (error.status_code, error.headers["x-why"]) == (status, "it")
    assert error.body == (b"" if status == 304 else b"no") and delays == []


def test_a_page_is_no_event_stream(start: Callable[..., Scripted]) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"
    error = failure(start(says(page)).url())
    assert error.status_code == 200 and "no event stream" in str(error)


def test_what_comes_after_a_success_is_raised_too(start: Callable[..., Scripted]) -> None:
    server = start(in_turn(HEAD + b"data: a\n\n", b"HTTP/1.1 404 x\r\n\r\n"))
    es = EventSourceClient(server.url())
    assert next(es).data == "a"
    with pytest.raises(HandshakeError):
        next(es)
    es.wait_open()  # it has been open


def test_204_from_the_start(start: Callable[..., Scripted]) -> None:
    with pytest.raises(ConnectionClosed, match="204") as caught:
        with EventSourceClient(start(says(GONE)).url()) as es:
            assert list(es) == []
            es.receive(TIMEOUT)
    assert not isinstance(caught.value, HandshakeError)


def test_an_event_that_is_too_long(start: Callable[..., Scripted], delays: list[float]) -> None:
    server = start(says(HEAD + b"data: a\n\ndata: " + b"x" * 1000 + b"\n\n"))
    es = EventSourceClient(server.url(), max_length=100)
    assert next(es).data == "a"
    for call in (es.__next__, es.receive):
        with pytest.raises(ConnectionClosed, match="more than 100 characters") as caught:
            call()
        assert caught.value.code == 1009
    assert delays == []


# Redirects


def redirect(location: str, status: int = 302) -> Callable[..., None]:
    return says(f"HTTP/1.1 {status} x\r\nLocation: {location}\r\n\r\n".encode())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects(start: Callable[..., Scripted], status: int) -> None:
    target = start(says(HEAD + b"data: x\n\n"))
    server = start(redirect(target.url("/there"), status))
    secrets = {"Authorization": "Bearer x", "Cookie": "a=b", "User-Agent": "me"}
    es = EventSourceClient(
        server.url(), headers=secrets, last_event_id=7, reconnect=False, max_redirects=1
    )
    assert [event.data for event in es] == ["x"]
    assert header(server.heads[0], "Authorization") == "Bearer x"
    head = target.heads[0]
    assert head.startswith(b"GET /there ")
    assert [header(head, name) for name in secrets] == [None, None, "me"]
    assert (header(head, "Last-Event-ID"), header(head, "Accept")) == ("7", "text/event-stream")


def test_a_circle_of_redirects(start: Callable[..., Scripted]) -> None:
    server = start(redirect("/again"))
    error = failure(server.url())
    assert error.status_code == 302 and server.connections == 6
    assert "max_redirects" in str(error)


@pytest.mark.parametrize("location", ["ws://example.com/", "ftp://x/", "https://:0/"])
def test_redirects_to_nowhere(start: Callable[..., Scripted], location: str) -> None:
    assert "cannot be followed" in str(failure(start(redirect(location)).url()))


def test_tls_is_not_given_up(start: Callable[..., Scripted], certificates: Certificates) -> None:
    target = start(says(HEAD))
    server = start(redirect(target.url()), tls=server_context(certificates))
    assert "would lose TLS" in str(failure(server.url(), ca=certificates.ca))
    assert target.connections == 0


# Proxies, TLS and its absence


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_proxies(start: Callable[..., Scripted], certificates: Certificates, tls: bool) -> None:
    through = start(proxy())
    server = start(says(HEAD + b"data: x\n\n"), tls=server_context(certificates) if tls else None)
    es = EventSourceClient(
        server.url(),
        proxy=through.url().replace("//", "//us:pw@").rstrip("/"),
        ca=certificates.ca,
        reconnect=False,
    )
    assert [event.data for event in es] == ["x"]
    assert header(through.heads[0], "Proxy-Authorization") == "Basic dXM6cHc="
    assert header(server.heads[0], "Proxy-Authorization") is None
    refusing = start(proxy(b"HTTP/1.1 407 No\r\n\r\n"))
    assert failure(server.url(), proxy=refusing.url().rstrip("/")).status_code == 407


def test_a_204_of_the_proxy_is_no_end(start: Callable[..., Scripted]) -> None:
    """To CONNECT any 2xx opens the tunnel; a redirect of the proxy's is not followed."""
    through = start(proxy(b"HTTP/1.1 302 x\r\nLocation: /\r\n\r\n"))
    error = failure("http://127.0.0.1:1/", proxy=through.url().rstrip("/"))
    assert (error.status_code, through.connections) == (302, 1)


def test_tls_to_a_server_without_it(start: Callable[..., Scripted]) -> None:
    def script(sock: Any, server: Scripted) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    url = start(script).url().replace("http:", "https:")
    assert "write http://" in str(failure(url, reconnect=False))


def test_no_tls_to_a_server_with_it(serve: Callable[..., Server]) -> None:
    url = serve("gunicorn-gevent", tls=True).url().replace("https:", "http:")
    assert failure(url, reconnect=False)


# Closing


def test_closing_twice(start: Callable[..., Scripted]) -> None:
    es = EventSourceClient(start(stay).url())
    assert es.receive(TIMEOUT)
    es.close()
    es.close()
    assert list(es) == []
    with pytest.raises(ConnectionClosed, match="closed here"):
        es.receive(TIMEOUT)


def test_closing_before_it_has_begun(start: Callable[..., Scripted]) -> None:
    server = start(stay)
    es = EventSourceClient(server.url())
    es.close()
    assert list(es) == [] and server.connections == 0
    with pytest.raises(HandshakeError, match="closed before it was open"):
        es.wait_open(TIMEOUT)


def test_closing_from_another_thread(start: Callable[..., Scripted]) -> None:
    es = EventSourceClient(start(stay).url())
    assert es.receive(TIMEOUT)
    thread = threading.Thread(target=es.close)
    thread.start()
    assert list(es) == []
    thread.join(TIMEOUT)


def test_closing_from_another_greenlet(start: Callable[..., Scripted]) -> None:
    es = EventSourceClient(start(stay).url())
    assert es.receive(TIMEOUT)
    gevent.spawn(es.close)
    assert list(es) == []


def test_closing_while_it_waits_to_reconnect(
    start: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faye_wsgi.eventsource_client.Backoff", Backoff)
    es = EventSourceClient(start(says(HEAD + b"data: x\n\n")).url(), first_delay=60)
    assert next(es).data == "x"
    while es.ready_state == ReadyState.OPEN:
        gevent.sleep(0)
    es.close()
    assert list(es) == []


def test_what_is_dropped_is_closed(start: Callable[..., Scripted]) -> None:
    """A loop that is left, without a ``with`` around it: ``nothing_leaks`` looks."""
    closed = gevent.event.Event()

    def script(sock: Any, server: Scripted) -> None:
        stay(sock, server)
        closed.set()

    url = start(script).url()
    for event in EventSourceClient(url):
        assert event.data == "here"
        break
    gc.collect()
    assert closed.wait(TIMEOUT)


def test_an_exception_in_the_block_closes(start: Callable[..., Scripted]) -> None:
    with pytest.raises(KeyError):
        with EventSourceClient(start(stay).url()) as es:
            raise KeyError
    assert es.ready_state == ReadyState.CLOSED


def test_it_belongs_to_its_thread(start: Callable[..., Scripted]) -> None:
    raised: list[Any] = []

    def run() -> None:
        for call in (es.receive, es.wait_open, es.__next__):
            with pytest.raises(RuntimeError, match="belongs to the thread"):
                call()
            raised.append(call)

    with EventSourceClient(start(stay).url()) as es:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(TIMEOUT)
    assert len(raised) == 3


@pytest.mark.parametrize("how", ["block", "closed", "left"])
def test_a_thread_leaves_nothing_behind(serve: Callable[..., Server], how: str) -> None:
    """The thread's own hub is closed with it, and so is a client that it has not closed."""
    url = serve("gunicorn-gevent").url("/es/listening")
    kept: list[Any] = []

    def run() -> None:
        es = EventSourceClient(url)
        kept.append(es)
        assert es.receive(TIMEOUT).data == "ready"
        if how == "block":
            with es:
                pass
        elif how == "closed":
            es.close()

    def in_threads(number: int) -> int:
        for _ in range(number):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        gc.collect()
        return descriptors()

    assert in_threads(2) == in_threads(5), "descriptors"
    assert len(kept) == 7
    assert {es.ready_state for es in kept} == {ReadyState.CLOSED}


def test_a_process_that_stops_closes(start: Callable[..., Scripted]) -> None:
    es = EventSourceClient(start(stay).url())
    assert es.receive(TIMEOUT)
    hubs.go_away()
    assert list(es) == []
    with pytest.raises(ConnectionClosed, match="the process stops"):
        es.receive(TIMEOUT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_leaves_it_to_the_parent(serve: Callable[..., Server]) -> None:
    """The child has no connection, and makes none; the parent's goes on."""
    server = serve("gunicorn-gevent")
    with Acknowledgements() as acks:
        with EventSourceClient(server.url(f"/es/step?n=2&ack={acks.path}")) as es:
            assert es.receive(TIMEOUT).data == "event 0"
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    gevent.sleep(0.05)
                    with pytest.raises(ConnectionClosed, match="parent"):
                        es.receive(TIMEOUT)
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
            acks.give(0)
            assert es.receive(TIMEOUT).data == "event 1"
            acks.give(1)


# Arguments


@pytest.mark.parametrize(
    "url, options, error, says",
    [
        ("ws://example.com/", {}, ValueError, "must begin with http, https"),
        ("example.com", {}, ValueError, "must begin with http, https"),
        (5, {}, TypeError, "a URL is a str"),
        ("http://x/", {"first_delay": "1"}, TypeError, "first_delay"),
        ("http://x/", {"max_delay": -1}, ValueError, "max_delay"),
        ("http://x/", {"idle_timeout": float("inf")}, ValueError, "idle_timeout"),
        ("http://x/", {"open_timeout": True}, TypeError, "open_timeout"),
        ("http://x/", {"max_length": 0}, ValueError, "max_length"),
        ("http://x/", {"max_redirects": -1}, ValueError, "max_redirects"),
        ("http://x/", {"last_event_id": 1.5}, TypeError, "last_event_id"),
        ("http://x/", {"last_event_id": True}, TypeError, "last_event_id"),
        ("http://x/", {"headers": {"Last-Event-ID": "1"}}, ValueError, "Last-Event-ID"),
        ("http://x/", {"headers": {"Accept-Encoding": "gzip"}}, ValueError, "Accept-Encoding"),
        ("http://x/", {"headers": ["Cookie: a"]}, TypeError, "write headers="),
        ("http://x/", {"proxy": "socks5://x"}, ValueError, "http"),
        ("http://x/", {"tls": {"nothing": 1}}, TypeError, "nothing"),
        ("http://x/", {"backoff": 1}, TypeError, "did you mean 'first_delay'"),
        ("http://x/", {"reconnekt": 1}, TypeError, "did you mean 'reconnect'"),
    ],
)
def test_wrong_arguments(
    url: Any, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        EventSourceClient(url, **options)


def test_nothing_secret_is_shown(start: Callable[..., Scripted]) -> None:
    url = start(stay).url("/feed?token=x").replace("//", "//us:pw@")
    with EventSourceClient(url) as es:
        assert "token" not in repr(es) and "pw" not in repr(es) and "OPEN" in repr(es)
        assert es.url == url.replace("us:pw@", "")
