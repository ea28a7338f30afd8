"""Servers that the package does not know, and HTTP/2: where it streams through an iterable."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import urlencode

from .certs import certificates
from .servers import APPS, Server, _listen, _start, _wait_ready

TIMEOUT = 10.0


@contextlib.contextmanager
def waitress_server() -> Iterator[Server]:
    """Waitress, in a process of its own."""
    folder = Path(tempfile.mkdtemp(prefix="faye_wsgi-"))
    listener = _listen(folder, unix=False, port=0)
    command = [sys.executable, "-u", "-m", "tests.support.strangers", str(listener.fileno())]
    server = None
    try:
        process = _start(command, listener, folder, None, None)
        server = Server("waitress", listener.getsockname(), False, process, folder)
        listener.close()
        _wait_ready(server)
        yield server
    finally:
        listener.close()
        if server is not None:
            server.stop()
            server._keep_logs()
        shutil.rmtree(folder, ignore_errors=True)


def run_waitress(fd: int) -> None:
    import waitress

    from .launch import load

    waitress.serve(load(APPS["wsgi"]), sockets=[socket.socket(fileno=fd)], threads=8)


class Http2Client:
    """One HTTP/2 connection over TLS, with streams that are read by waiting for bytes."""

    def __init__(self, server: Server) -> None:
        import h2.config
        import h2.connection

        context = certificates().client_context()
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((server.host, server.port), TIMEOUT)
        self.sock = context.wrap_socket(plain, server_hostname=server.host)
        assert self.sock.selected_alpn_protocol() == "h2"
        self.server = server
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.connection = h2.connection.H2Connection(config=config)
        self.connection.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.heads: dict[int, dict[str, str]] = {}
        self.ended: set[int] = set()
        self._flush()

    def __enter__(self) -> Http2Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.sock.close()

    def get(self, path: str, **query: object) -> int:
        """Asks for an event stream; the number of the stream."""
        stream: int = self.connection.get_next_available_stream_id()
        headers = [
            (":method", "GET"),
            (":path", f"{path}?{urlencode(query)}"),
            (":scheme", "https"),
            (":authority", self.server.host_header),
            ("accept", "text/event-stream"),
        ]
        self.connection.send_headers(stream, headers, end_stream=True)
        self._flush()
        self.bodies[stream] = b""
        return stream

    def headers(self, stream: int) -> dict[str, str]:
        while stream not in self.heads:
            self._read()
        return self.heads[stream]

    def wait_for(self, stream: int, text: bytes) -> None:
        while text not in self.bodies[stream]:
            assert stream not in self.ended, self.bodies[stream]
            self._read()

    def wait_end(self, stream: int) -> None:
        while stream not in self.ended:
            self._read()

    def _read(self) -> None:
        from h2 import events

        data = self.sock.recv(65536)
        assert data, "the server has ended the connection"
        for event in self.connection.receive_data(data):
            if isinstance(event, events.ResponseReceived):
                self.heads[event.stream_id] = dict(event.headers)
            elif isinstance(event, events.DataReceived):
                self.bodies[event.stream_id] += event.data
                size = event.flow_controlled_length
                self.connection.acknowledge_received_data(size, event.stream_id)
            elif isinstance(event, (events.StreamEnded, events.StreamReset)):
                self.ended.add(event.stream_id)
        self._flush()

    def _flush(self) -> None:
        data = self.connection.data_to_send()
        if data:
            self.sock.sendall(data)


if __name__ == "__main__":
    run_waitress(int(sys.argv[1]))
