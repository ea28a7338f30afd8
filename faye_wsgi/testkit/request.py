"""The server's part of a test: one request on one end of a socket pair, in a thread of its own.

``Request`` reads the request that the test's client has written to the other end, calls the
application as any server does, and writes what it returns. The thread is a greenlet where threads
are patched, and then the socket is gevent's: both are what the application would have under
``gunicorn -k gevent``. Elsewhere both are the interpreter's own, as under a threaded server.

The danger is a view that never ends: its thread cannot be stopped. So it is a daemon, the test
waits for it for a limited time, and ``where`` says what it is doing.
"""

from __future__ import annotations

import _socket
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable
from urllib.parse import unquote_to_bytes

import gevent
import gevent.socket
from gevent.event import Event
from gevent.monkey import get_original, is_module_patched
from greenlet import getcurrent

from faye_wsgi.testkit.frameworks import Target
from faye_wsgi.transport import fork, hubs
from faye_wsgi.transport.stream import PlainSocket
from faye_wsgi.wsgi.handover import TOKEN_KEY

__all__ = ["Line", "Request", "wait_until"]

MAX_LINE = 65536
_get_ident = get_original("_thread", "get_ident")
# The patched one, since gevent 25.8.1, closes in the loop's next turn and does not wake the loop:
# a view whose end the closing brings about would go on until something else wakes it.
_close = get_original("os", "close")
_OURS = str(Path(__file__).resolve().parent)
_POLL = 0.002


class Line(PlainSocket):
    """The client's end of the pair, which can end as a network does, too.

    ``manner`` says what ``close`` does: 'close' is the ordinary end; 'reset' closes with unread
    data, which resets a socket of a pair (Linux); 'vanish' keeps the descriptor open, so that the
    server hears nothing, until ``release``.
    """

    __slots__ = ("_kept", "manner")

    def __init__(self, fd: int) -> None:
        super().__init__(fileno=fd)
        self.setblocking(False)
        self.manner = "close"
        self._kept: int | None = None
        fork.watch(self)

    def close(self) -> None:
        """End it in its ``manner``."""
        if self.manner == "vanish":
            if self.fileno() >= 0:
                self._kept = self.detach()
        elif self.manner == "reset":
            _socket.socket.close(self)  # without a shutdown, which would send FIN first
        else:
            super().close()

    def release(self) -> None:
        """Close what ``close`` has kept open."""
        kept, self._kept = self._kept, None
        if kept is not None:
            _close(kept)


class Request:
    """One request, and the thread in which the application answers it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._hub = gevent.get_hub()
        self._ended = Event()
        self._greenlet: Any = None
        self._thread_id: int | None = None
        self.error: BaseException | None = None  # what the application has raised
        ours, theirs = _socket.socketpair()
        self._back = os.dup(theirs.fileno())  # to put bytes before the client, for a reset
        self.line = Line(ours.detach())
        # A gevent socket belongs to the hub in which it was made, so it is made in the thread.
        self._server_fd = theirs.detach()
        self.is_native = not is_module_patched("threading")
        self.thread = threading.Thread(target=self._run, name="faye_wsgi.testing", daemon=True)
        self.thread.start()

    # The test's side

    def wait(self, timeout: float) -> bool:
        """Wait until the application has ended, in the hub; False when the time is up."""
        return bool(self._ended.wait(timeout))

    def reset(self) -> None:
        """Have the next close of the line be a reset."""
        self.line.manner = "reset"
        try:
            os.write(self._back, b"\0")
        except OSError:  # the server has closed, or has filled the pair
            pass

    def release(self) -> None:
        """Close the descriptors that are left."""
        self.line.release()
        back, self._back = self._back, -1
        if back >= 0:
            _close(back)

    def where(self) -> str:
        """What the application is doing, as the lines of a traceback."""
        frame = getattr(self._greenlet, "gr_frame", None)
        if frame is None and self._thread_id is not None:
            frame = sys._current_frames().get(self._thread_id)
        if frame is None:
            return "  (it has just ended)\n"
        stack = traceback.extract_stack(frame)
        start = max((n for n, one in enumerate(stack) if one.filename.startswith(_OURS)), default=0)
        return "".join(traceback.format_list(stack[start + 1 :][-12:]))

    # The server's side, in its thread

    def _run(self) -> None:
        self._thread_id, self._greenlet = _get_ident(), getcurrent()
        try:
            self._serve()
        except BaseException as error:
            self.note(error)
        finally:
            self._greenlet = self._thread_id = None
            if self.is_native:  # a greenlet shares the hub of the test
                hubs.release_hub()
            loop = self._hub.loop
            if loop is not None:  # the test's thread has not ended
                loop.run_callback_threadsafe(self._ended.set)

    def is_current(self) -> bool:
        """Whether the caller runs in the application's thread."""
        if self.is_native:
            return bool(_get_ident() == self._thread_id)
        return getcurrent() is self._greenlet

    def note(self, error: BaseException) -> None:
        """The application has raised; the first error is the one that counts."""
        if self.error is None:
            self.error = error

    def _serve(self) -> None:
        kind = get_original("socket", "socket") if self.is_native else gevent.socket.socket
        sock = kind(fileno=self._server_fd)
        sock.setblocking(True)
        environ: dict[str, Any] = {}
        reader = sock.makefile("rb")
        try:
            read = _read_request(reader)
            if read is None:
                return  # the client has gone already
            environ.update(self._environ(sock, reader, *read))
            with self._target.around(self.note):
                _answer(sock, self._target.application, environ)
        except BaseException as error:
            self.note(error)
            _send(sock, b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n\r\n")
        finally:
            # The end of a socket has to be said, since ``_back`` is a copy of its descriptor. A
            # void takes it for the end of the response.
            _shut_down(sock)
            reader.close()
            sock.close()
            # On threads a connection whose view has raised ends when the server drops the environ.
            # The traceback of the error would keep it, so what is watched for that end goes.
            environ.pop(TOKEN_KEY, None)

    def _environ(
        self, sock: Any, reader: Any, target: str, headers: list[tuple[str, str]]
    ) -> dict[str, Any]:
        path, _, query = target.partition("?")
        path = unquote_to_bytes(path).decode("latin-1")  # PEP 3333
        root = self._target.script_name
        if not root or not (path == root or path.startswith(f"{root}/")):
            root = ""
        environ = {
            "REMOTE_ADDR": "127.0.0.1",
            "SERVER_SOFTWARE": "faye_wsgi.testing",
            **self._target.environ,
            "REQUEST_METHOD": "GET",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": root,
            "PATH_INFO": path[len(root) :],
            "QUERY_STRING": query,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": self._target.scheme,
            "wsgi.input": reader,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "faye_wsgi.testing.socket": sock,
        }
        wire: dict[str, str] = {}
        for name, value in headers:
            key = "HTTP_" + name.upper().replace("-", "_")
            wire[key] = f"{wire[key]}, {value}" if key in wire else value
        environ.update(wire)
        host, _, port = wire.get("HTTP_HOST", "").rpartition(":")
        if not port.isdigit():
            host, port = wire.get("HTTP_HOST", ""), ""
        environ.setdefault("SERVER_NAME", host)
        default = "443" if self._target.scheme == "https" else "80"
        environ.setdefault("SERVER_PORT", port or default)
        return environ


def _read_request(reader: Any) -> tuple[str, list[tuple[str, str]]] | None:
    """The target and the headers of the request that our own client has written."""
    line = reader.readline(MAX_LINE).decode("latin-1")
    if not line:
        return None
    target = line.split(" ")[1]
    headers = []
    line = reader.readline(MAX_LINE).decode("latin-1")
    while line.strip():
        name, _, value = line.partition(":")
        headers.append((name, value.strip()))
        line = reader.readline(MAX_LINE).decode("latin-1")
    return target, headers


def _answer(sock: Any, application: Callable[..., Iterable[bytes]], environ: Any) -> None:
    head: list[bytes] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[..., Any]:
        lines = [f"HTTP/1.1 {status}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() != "connection"]
        head[:] = ["\r\n".join([*lines, "", ""]).encode("latin-1")]
        return write

    def write(data: bytes) -> None:
        _send(sock, b"".join([*head, data]))
        head.clear()

    pieces = application(environ, start_response)
    try:
        for piece in pieces:
            write(piece)
        if head:
            write(b"")
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _send(sock: Any, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError:
        pass  # the client has gone: no fault of the application's


def _shut_down(sock: Any) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def wait_until(condition: Callable[[], object], timeout: float) -> bool:
    """Let the hub run until ``condition()`` holds; False when the time is up."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= end:
            return False
        gevent.sleep(_POLL)
    return True
