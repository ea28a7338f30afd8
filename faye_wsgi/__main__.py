"""The command-line client: lines go out as messages, messages come in as lines.

python -m faye_wsgi ws://127.0.0.1:8000/echo
echo hi | python -m faye_wsgi wss://example.com/echo

``listen`` and ``publish`` are for channels; see ``commands.py``.
"""

from __future__ import annotations

import argparse
import codecs
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import gevent.socket

from faye_wsgi import commands
from faye_wsgi.client import Client
from faye_wsgi.driver.events import Data
from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.extensions.permessage_deflate import PermessageDeflate
from faye_wsgi.transport.settings import check_seconds

__all__ = ["exit_status", "main"]

PROMPT = "> "
USAGE = 64  # EX_USAGE of sysexits.h: argparse's own 2 would mean 1002
INTERRUPTED = 130
CLOSE_TIMEOUT = 5.0

STATUS_HELP = f"""exit status:
  0            closed with 1000, or without a code (1005)
  1 to 14      closed with 1001 to 1014 (6, 1006: no connection, or it was lost)
  30, 40       closed with a code of 3000 to 3999, of 4000 to 4999
  {USAGE}           wrong arguments"""


def exit_status(code: int | None) -> int:
    """The process's exit status for a close code."""
    if code is None or code in (CloseCode.NORMAL_CLOSURE, CloseCode.NO_STATUS_RECEIVED):
        return 0
    return code - 1000 if code < 3000 else code // 1000 * 10


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: {message}\n")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m faye_wsgi",
        description="Send lines of standard input to a WebSocket and print its messages.",
        epilog=f"{STATUS_HELP}\n\nchannels:\n{commands.HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("url", help="ws://, wss:// or ws+unix:/path/of/socket:/path/of/request")
    add(
        "--header",
        action="append",
        default=[],
        type=_read_header,
        metavar='"NAME: VALUE"',
        help="a header to add to the request; may be repeated",
    )
    add(
        "--protocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer; may be repeated",
    )
    add("--proxy", metavar="URL", help="an HTTP proxy; 'env' reads HTTP_PROXY and its kin")
    add("--insecure", action="store_true", help="do not verify the certificate of the server")
    add("--deflate", action="store_true", help="offer permessage-deflate")
    add("--ping", type=float, metavar="SECONDS", help="send a ping every so often")
    add(
        "--wait",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="when the input (not of a terminal) has ended, close after so long without "
        "a message; default 1",
    )
    return parser


def _read_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError('a header is "Name: value"')
    return name.strip(), value.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the client; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in commands.COMMANDS:
        return commands.main(arguments)
    parser = _make_parser()
    options = parser.parse_args(arguments)
    _open_streams()
    # The hub prints a traceback of what it raises in the main greenlet, but for these.
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
    try:
        check_seconds("--wait", options.wait)
        ws = _connect(options)
    except (TypeError, ValueError, OSError) as error:
        parser.error(str(error))
    try:
        return _run(ws, options.wait)
    except KeyboardInterrupt:
        _close(ws)
        _tell_closed(ws)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        _close(ws)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _open_streams() -> None:
    # A stream that the caller has closed is None.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def _connect(options: argparse.Namespace) -> Client:
    return Client(
        options.url,
        options.protocol,
        headers=options.header,
        proxy=options.proxy,
        tls={"verify": False} if options.insecure else None,
        extensions=PermessageDeflate() if options.deflate else (),
        ping=options.ping,
        close_timeout=CLOSE_TIMEOUT,
    )


def _run(ws: Client, wait: float) -> int:
    try:
        ws.wait_open()
    except HandshakeError as error:
        _tell(str(error))
        return exit_status(error.code)
    _tell(f"connected to {ws.url}" + (f", protocol {ws.protocol}" if ws.protocol else ""))
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    sender = gevent.spawn(_send_lines, ws, terminal)
    try:
        _print_messages(ws, sender, wait, terminal)
        ws.wait_closed()
    finally:
        sender.kill()
    _tell_closed(ws)
    return exit_status(ws.close_code)


def _tell_closed(ws: Client) -> None:
    reason = f" {_printable(ws.close_reason)}" if ws.close_reason else ""
    _tell(f"closed with {ws.close_code}{reason}")


def _print_messages(ws: Client, sender: Any, wait: float, terminal: bool) -> None:
    """Print until the close, or until the input has ended and no more answers come."""
    while True:
        try:
            message = ws.receive(timeout=wait if sender.dead else 0.25)
        except TimeoutError:
            if sender.dead:
                ws.close()
        except ConnectionClosed:
            return
        else:
            _print(message, terminal)


def _print(message: Data, terminal: bool) -> None:
    out = sys.stdout.buffer
    if terminal:
        text = message if isinstance(message, str) else f"<{len(message)} bytes> {message.hex()}"
        out.write(f"\r< {_printable(text)}\n{PROMPT}".encode(errors="replace"))
    else:
        out.write((message.encode() if isinstance(message, str) else message) + b"\n")
    out.flush()


def _printable(text: str) -> str:
    # Control characters are escaped: a peer must not send commands to the terminal.
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _send_lines(ws: Client, terminal: bool) -> None:
    try:
        for line in _read_lines(sys.stdin.fileno(), terminal):
            ws.send(line)
    except ConnectionClosed:
        return
    if terminal:
        ws.close()


def _read_lines(fd: int, terminal: bool) -> Iterator[str]:
    """The lines of a descriptor; other greenlets run while this waits."""
    # A regular file is always ready, and epoll refuses it (EPERM).
    ready = stat.S_ISREG(os.fstat(fd).st_mode)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while True:
        if terminal:
            os.write(sys.stdout.fileno(), PROMPT.encode())
        if not ready:
            gevent.socket.wait_read(fd)
        data = os.read(fd, 65536)
        rest += decoder.decode(data, not data)
        *lines, rest = rest.split("\n")
        yield from lines
        if not data:
            break
    if rest:
        yield rest


def _close(ws: Client) -> None:
    ws.close()
    try:
        ws.wait_closed(1.0)
    except TimeoutError:
        pass


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
