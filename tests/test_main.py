"""The command-line client, as a process of its own: in pipes and on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from faye_wsgi.__main__ import (
    BAD_CERTIFICATE,
    UNKNOWN_HOST,
    UNREACHABLE,
    exit_status,
    failure_status,
    main,
)
from faye_wsgi.errors import HandshakeError

from .support.certs import Certificates
from .support.servers import ROOT, Server

TIMEOUT = 15.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "faye_wsgi", *arguments]


def run(*arguments: str, text: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=ROOT,
        **options,
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    from .support.servers import serve

    with serve("gunicorn-gevent") as running:
        yield running


def test_it_pipes(server: Server) -> None:
    result = run(server.url("/echo", "ws"), "--wait", "0.3", text="one\ntwo\n\nlast")
    assert (result.stdout, result.returncode) == ("one\ntwo\n\nlast\n", 0)
    assert result.stderr == f"connected to {server.url('/echo', 'ws')}\nclosed with 1000\n"


def test_much_and_unicode(server: Server) -> None:
    text = "".join(f"{number} é€😀\n" for number in range(20_000))
    result = run(server.url("/echo", "ws"), "--wait", "1", text=text)
    assert result.stdout == text and result.returncode == 0


@pytest.mark.parametrize("source", ["file", "null"])
def test_other_inputs(server: Server, tmp_path: Any, source: str) -> None:
    path = tmp_path / "input" if source == "file" else "/dev/null"
    if source == "file":
        path.write_text("from a file\n")
    with open(path) as file:
        result = subprocess.run(
            command(server.url("/echo", "ws"), "--wait", "0.2"),
            stdin=file,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            cwd=ROOT,
        )
    assert result.stdout == ("from a file\n" if source == "file" else "")
    assert result.returncode == 0


@pytest.mark.parametrize(
    "closed, output", [("<&-", "x\n"), (">&-", ""), ("2>&-", "x\n"), ("<&- >&- 2>&-", "")]
)
def test_closed_streams(server: Server, closed: str, output: str) -> None:
    path = "/push?n=1&size=1" if "<" in closed else "/echo"
    line = f"exec {shlex.join(command(server.url(path, 'ws'), '--wait', '0.3'))} {closed}"
    result = subprocess.run(
        ["sh", "-c", line], input="x\n", capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT
    )
    assert (result.stdout, result.returncode) == (output, 0)
    assert "Traceback" not in result.stderr


def test_messages_without_input(server: Server) -> None:
    result = run(server.url("/push?n=3&size=2", "ws"))
    assert (result.stdout, result.returncode) == ("xx\nxx\nxx\n", 0)


def test_the_close_code_is_told(server: Server) -> None:
    result = run(server.url("/raise_in_view", "ws"), text="x\n")
    assert result.returncode == 11
    assert "closed with 1011" in result.stderr


@pytest.mark.parametrize(
    "code, status",
    [
        (1000, 0),
        (1005, 0),
        (None, 0),
        (1001, 1),
        (1002, 2),
        (1006, 6),
        (1009, 9),
        (1014, 14),
        (3000, 30),
        (3999, 30),
        (4000, 40),
        (4999, 40),
    ],
)
def test_exit_status(code: int | None, status: int) -> None:
    assert exit_status(code) == status


@pytest.mark.parametrize(
    "error, cause, status",
    [
        (HandshakeError("x", code=1006), socket.gaierror(socket.EAI_NONAME, "no"), 15),
        (HandshakeError("x", code=1006), ConnectionRefusedError(111, "no"), 16),
        (HandshakeError("x", code=1006), ssl.SSLCertVerificationError(1, "no"), 17),
        (HandshakeError("x", code=1006), ssl.SSLError(1, "no"), 6),
        (HandshakeError("x", code=1006), None, 6),
        (HandshakeError("x"), None, 2),
        (HandshakeError("x", status_code=101), None, 2),
        (HandshakeError("x", status_code=200), None, 22),
        (HandshakeError("x", status_code=302), None, 23),
        (HandshakeError("x", status_code=404), None, 24),
        (HandshakeError("x", status_code=407, code=1006), None, 24),
        (HandshakeError("x", status_code=503), None, 25),
    ],
)
def test_failure_status(error: HandshakeError, cause: Any, status: int) -> None:
    error.__cause__ = cause
    assert failure_status(error) == status


def test_an_unknown_host() -> None:
    """RFC 6761 §6.4: there is no such name."""
    result = run("ws://nothing.invalid/")
    assert result.returncode == 15 and "nothing.invalid was not found" in result.stderr


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread"])
@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_tls_is_missing_in_the_url(serve: Callable[..., Server], kind: str, scheme: str) -> None:
    """These servers give no answer at all to a plain request."""
    url = serve(kind, tls=True).url("/echo", scheme).replace("s:", ":", 1)
    result = run(url)
    assert f"the server speaks TLS here: write {scheme}s://" in result.stderr
    assert (result.returncode, result.stderr.count("\n")) == (6, 1)


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_tls_is_too_much_in_the_url(server: Server, scheme: str) -> None:
    result = run(server.url("/echo", scheme).replace(":", "s:", 1))
    assert re.search(f"does not speak TLS .*: write {scheme}://", result.stderr)
    assert (result.returncode, result.stderr.count("\n")) == (6, 1)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 x\r\n\r\n", b"220 mail.example ESMTP\r\n"])
def test_a_server_without_tls_that_hangs_up(answer: bytes) -> None:
    """The command line asks once more; what is no HTTP is not named so."""
    asked: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            sock = listener.accept()[0]
            with sock:
                asked.append(sock.recv(65536))
                if asked[-1].startswith(b"OPTIONS"):
                    sock.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        result = run(f"wss://us:secret@{place}/?token=secret", "--header", "X: secret")
        thread.join(TIMEOUT)
    assert asked[1] == f"OPTIONS * HTTP/1.1\r\nHost: {place}\r\n\r\n".encode()
    says = "the server does not speak TLS here: write ws://"
    assert (says in result.stderr) == answer.startswith(b"HTTP")
    assert result.returncode == 6


def test_options(server: Server) -> None:
    result = run(
        server.url("/echo?protocols=irc", "ws"),
        "--protocol",
        "amqp",
        "--protocol",
        "irc",
        "--header",
        "X-One: 1",
        "--ping",
        "0.1",
        "--deflate",
        "--wait",
        "0.3",
        text="x\n",
    )
    assert result.stdout == "x\n" and "protocol irc" in result.stderr


def test_headers_are_sent(server: Server) -> None:
    result = run(server.url("/echo", "ws"), "--header", "Origin: http://elsewhere.example")
    assert result.returncode == 24 and "403" in result.stderr


def test_certificates(serve: Callable[..., Server], certificates: Certificates) -> None:
    url = serve("gunicorn-gevent", tls=True).url("/echo", "ws")
    result = run(url, text="x\n")
    assert result.returncode == 17 and "certificate" in result.stderr
    result = run(url, "--insecure", "--wait", "0.3", text="x\n")
    assert (result.stdout, result.returncode) == ("x\n", 0)


def test_no_connection() -> None:
    result = run("ws://127.0.0.1:1/")
    assert result.returncode == 16 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "refused" in result.stderr
    result = run("ws://127.0.0.1:2/", "--proxy", "http://127.0.0.1:1")
    assert result.returncode == 16


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ftp://example.com/"],
        ["http://example.com/", "--ping", "1"],
        ["http://example.com/", "--deflate"],
        ["https://example.com/", "--protocol", "x"],
        ["ws://example.com/", "--last-event-id", "1"],
        ["ws://example.com/", "--header", "nonsense"],
        ["ws://example.com/", "--header", "Upgrade: x"],
        ["ws://example.com/", "--ping", "often"],
        ["ws://example.com/", "--ping", "-1"],
        ["ws://example.com/", "--wait", "nan"],
        ["ws://example.com/", "--proxy", "socks5://x"],
        ["ws://example.com/", "--protocol", "a b"],
        ["ws://example.com/", "--unknown"],
    ],
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 64
    captured = capsys.readouterr()
    assert "usage:" in captured.err and captured.out == ""


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0 and "exit status" in shown
    for status in (0, UNKNOWN_HOST, UNREACHABLE, BAD_CERTIFICATE, 22, 25, 30, 40, 64, 130):
        assert re.search(rf"\b{status}\b", shown.partition("exit status")[2])


def test_a_reader_that_goes_away(server: Server) -> None:
    with subprocess.Popen(
        command(server.url("/push?n=20000&size=1000", "ws")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(TIMEOUT) == 0
        assert b"Traceback" not in process.stderr.read()


class Terminal:
    """The client on a terminal."""

    def __init__(self, *arguments: str, program: list[str] | None = None) -> None:
        self.fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            program or command(*arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            start_new_session=True,
            # Whoever was started in the background by a shell ignores it, and so do its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)
        self.text = ""

    def expect(self, text: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while text not in self.text:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], self.text
            self.text += os.read(self.fd, 65536).decode()

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        try:
            return self.process.wait(TIMEOUT)
        finally:
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait(TIMEOUT)
            os.close(self.fd)


def test_on_a_terminal(server: Server) -> None:
    terminal = Terminal(server.url("/echo", "ws"))
    terminal.expect("> ")
    terminal.type("hello\n")
    terminal.expect("< hello")
    terminal.type("a\x1b[31mb\n")
    terminal.expect("< a\\x1b[31mb")  # what comes from the peer does not steer it
    terminal.type("\x04")
    terminal.expect("closed with 1000")
    assert terminal.end() == 0


def test_interrupted(server: Server) -> None:
    terminal = Terminal(server.url("/echo", "ws"))
    terminal.expect("> ")
    terminal.process.send_signal(signal.SIGINT)
    terminal.expect("closed with 1000")
    assert "Traceback" not in terminal.text and "KeyboardInterrupt" not in terminal.text
    assert terminal.end() == 130


# Event streams


def test_events(server: Server) -> None:
    url = server.url("/es/texts?n=1")
    result = run(url, encoding="utf-8")
    assert result.stdout.startswith("one line\n\ntwo\nlines\n")
    assert result.stdout.endswith("with all\nthe end\n")
    assert result.stderr == f"connected to {url}\nthe server has ended the stream\n"
    assert result.returncode == 0


def test_the_last_event_id(server: Server) -> None:
    result = run(server.url("/es/about"), "--last-event-id", "7", "--header", "X-One: 1")
    assert '"last_event_id": "7"' in result.stdout and result.returncode == 0


def test_no_event_stream(server: Server) -> None:
    result = run(server.url("/stats"))
    assert result.returncode == 22 and "no event stream" in result.stderr
    result = run(server.url("/nowhere"))
    assert result.returncode == 24 and "404" in result.stderr


def test_events_over_tls(serve: Callable[..., Server]) -> None:
    url = serve("gunicorn-gevent", tls=True).url("/es/write")
    assert run(url).returncode == 17
    assert run(url, "--insecure").stdout == "written\nended\n"


def test_events_on_a_terminal(server: Server) -> None:
    terminal = Terminal(server.url("/es/step?n=1&ack=/nowhere"))
    terminal.expect("< (step id 0) event 0")
    terminal.process.send_signal(signal.SIGINT)
    terminal.expect("closed")
    assert "Traceback" not in terminal.text and "KeyboardInterrupt" not in terminal.text
    assert terminal.end() == 130


def test_events_that_steer_a_terminal() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        terminal = Terminal(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        listener.settimeout(TIMEOUT)
        sock = listener.accept()[0]
        with sock:
            sock.recv(65536)
            sock.sendall(answer + b"event: \x1b[1m\nid: \x1b[2m\ndata: a\x1b[31mb\n\n")
            terminal.expect("< (\\x1b[1m id \\x1b[2m) a\\x1b[31mb")
    terminal.expect("the server has ended the stream")
    assert terminal.end() == 0


HASTY = """
import sys, faye_wsgi.__main__ as client

class Os:
    def __getattr__(self, name):
        return getattr(sys.modules['os'], name)

    def write(self, fd, data):
        sys.modules['os'].write(fd, data)
        if data == b'> ':
            raise KeyboardInterrupt

client.os = Os()
sys.exit(client.main(sys.argv[1:]))
"""


def test_interrupted_while_it_prompts(server: Server) -> None:
    """The greenlet that reads the terminal is hit, not the main one."""
    program = [sys.executable, "-c", HASTY, server.url("/echo", "ws")]
    assert Terminal(program=program).end() == 130
