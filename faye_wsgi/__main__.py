"""The command-line client: lines go out as messages, messages and events come in as lines.

python -m faye_wsgi ws://127.0.0.1:8000/echo
echo hi | python -m faye_wsgi wss://example.com/echo
python -m faye_wsgi http://127.0.0.1:8000/ticks

``listen``, ``publish`` and ``connections`` are for channels; see ``cli/channels.py``.
``doctor`` looks at how an application is run; see ``cli/doctor.py``.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import gevent
import gevent.socket

from faye_wsgi.cli import channels, doctor
from faye_wsgi.cli.arguments import INTERRUPTED, USAGE, Parser, printable, read_header
from faye_wsgi.client import Client
from faye_wsgi.driver.events import Data
from faye_wsgi.driver.eventstream import ServerEvent
from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.eventsource_client import EventSourceClient
from faye_wsgi.extensions.permessage_deflate import PermessageDeflate
from faye_wsgi.http.exchange import Exchange
from faye_wsgi.http.url import HTTP_SCHEMES, WEBSOCKET_SCHEMES, Url, parse_url
from faye_wsgi.transport import dial
from faye_wsgi.transport.settings import check_seconds
from faye_wsgi.transport.tls import make_client_tls

__all__ = ["exit_status", "failure_status", "main"]

PROMPT = "> "
_KEPT = "\n\t"  # what messages may have of control characters
CLOSE_TIMEOUT = 5.0
PROBE_TIMEOUT = 3.0

# Close codes take 1 to 14, 30 and 40. What comes before a connection is open lies in between:
# before there is an answer 15 to 17, then 20 and the first digit of the HTTP status.
UNKNOWN_HOST, UNREACHABLE, BAD_CERTIFICATE, REFUSED = 15, 16, 17, 20

STATUS_HELP = f"""exit status:
  0            closed with 1000, or without a code (1005); the event stream has ended
  1 to 14      closed with 1001 to 1014 (6, 1006: the connection was lost, or did not open)
  {UNKNOWN_HOST}           the host was not found
  {UNREACHABLE}           no connection to the host: refused, or no way there
  {BAD_CERTIFICATE}           the certificate of the server is not valid
  {REFUSED + 2} to {REFUSED + 5}     refused, with a status of 2xx (no event stream) to 5xx
  30, 40       closed with a code of 3000 to 3999, of 4000 to 4999
  {USAGE}           wrong arguments
  {INTERRUPTED}          interrupted with Ctrl-C

A proxy counts as a server here."""


def exit_status(code: int | None) -> int:
    """The process's exit status for a close code."""
    if code is None or code in (CloseCode.NORMAL_CLOSURE, CloseCode.NO_STATUS_RECEIVED):
        return 0
    return code - 1000 if code < 3000 else code // 1000 * 10


def failure_status(error: HandshakeError) -> int:
    """The process's exit status for a connection that did not open."""
    if dial.is_unknown(error):
        return UNKNOWN_HOST
    if dial.is_unreachable(error):
        return UNREACHABLE
    if dial.is_unverified(error):
        return BAD_CERTIFICATE
    if error.status_code is not None and error.status_code != 101:
        return REFUSED + error.status_code // 100
    return exit_status(error.code)


def _make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m faye_wsgi",
        description="Send lines of standard input to a WebSocket and print its messages, or "
        "print the events of an event stream.",
        epilog=f"{STATUS_HELP}\n\nchannels:\n{channels.HELP}\n\noperation:\n{doctor.HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "url",
        help="ws://, wss:// or ws+unix:/path/of/socket:/path/of/request for a WebSocket; "
        "http:// or https:// for an event stream",
    )
    add(
        "--header",
        action="append",
        default=[],
        type=read_header,
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
    add("--last-event-id", metavar="ID", help="of an event stream: the last event that was seen")
    add(
        "--wait",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="when the input (not of a terminal) has ended, close after so long without "
        "a message; default 1",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the client; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in channels.COMMANDS:
        return channels.main(arguments)
    if arguments and arguments[0] == doctor.COMMAND:
        return doctor.main(arguments[1:])
    parser = _make_parser()
    options = parser.parse_args(arguments)
    _open_streams()
    # The hub prints a traceback of what it raises in the main greenlet, but for these.
    hub = gevent.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
    is_stream = options.url.partition(":")[0].lower() in HTTP_SCHEMES
    connection: Client | EventSourceClient
    try:
        check_seconds("--wait", options.wait)
        _check_kind(options, is_stream)
        connection = _connect_events(options) if is_stream else _connect(options)
    except (TypeError, ValueError, OSError) as error:
        parser.error(str(error))
    try:
        if isinstance(connection, EventSourceClient):
            return _follow(connection)
        return _converse(connection, options.wait)
    except HandshakeError as error:
        _tell(str(error) + _scheme_hint(options, error))
        return failure_status(error)
    except KeyboardInterrupt:
        _close(connection)
        _tell_closed(connection)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        _close(connection)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _check_kind(options: argparse.Namespace, is_stream: bool) -> None:
    names = ("protocol", "deflate", "ping") if is_stream else ("last_event_id",)
    for name in names:
        if getattr(options, name):
            scheme = "ws" if is_stream else "http"
            raise ValueError(f"--{name.replace('_', '-')} goes with {scheme}:// and {scheme}s://")


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
        tls=_tls(options),
        extensions=PermessageDeflate() if options.deflate else (),
        ping=options.ping,
        close_timeout=CLOSE_TIMEOUT,
    )


def _connect_events(options: argparse.Namespace) -> EventSourceClient:
    return EventSourceClient(
        options.url,
        headers=options.header,
        last_event_id=options.last_event_id,
        proxy=options.proxy,
        tls=_tls(options),
        reconnect=False,
    )


def _tls(options: argparse.Namespace) -> dict[str, bool] | None:
    return {"verify": False} if options.insecure else None


def _scheme_hint(options: argparse.Namespace, error: HandshakeError) -> str:
    """What to write, where the scheme of the URL does not fit the port.

    Many servers end such a connection without a word. So this asks them, with the other scheme.
    """
    url = parse_url(options.url, (*WEBSOCKET_SCHEMES, *HTTP_SCHEMES))
    is_silent = error.code == 1006 and failure_status(error) == exit_status(1006)
    if not is_silent or url.path or options.proxy:
        return ""
    other = replace(url, scheme=url.scheme[:-1] if url.secure else f"{url.scheme}s")
    cure = f"write {other.scheme}://"
    if cure in str(error) or not _answers(other):
        return ""
    return f": the server {'speaks' if other.secure else 'does not speak'} TLS here: {cure}"


def _answers(url: Url) -> bool:
    """Whether a server speaks TLS, or HTTP without it, as ``url`` says. It gets nothing else."""
    request = Exchange(
        "the server", "OPTIONS", "*", [("Host", url.host_header)], is_wanted=lambda answer: True
    )
    try:
        with gevent.Timeout(PROBE_TIMEOUT):
            sock = dial.dial(url, lambda: make_client_tls({"verify": False}))
            with contextlib.closing(sock):
                return url.secure or dial.exchange(sock, request) is not None
    except (HandshakeError, gevent.Timeout):
        return False


def _follow(es: EventSourceClient) -> int:
    """Print events until the stream ends."""
    es.wait_open()
    if es.headers:  # not after a 204
        _tell(f"connected to {es.url}")
    terminal = sys.stdout.isatty()
    while True:
        try:
            event = es.receive()
        except ConnectionClosed as error:
            _tell(error.reason or "")
            return exit_status(error.code)
        _print_event(event, terminal)


def _print_event(event: ServerEvent, terminal: bool) -> None:
    text = event.data
    if terminal:
        kind = "" if event.event == "message" else event.event
        about = " ".join(filter(None, (kind, event.id and f"id {event.id}")))
        text = printable(f"< ({about}) {text}" if about else f"< {text}", _KEPT)
    sys.stdout.buffer.write(f"{text}\n".encode(errors="replace"))
    sys.stdout.buffer.flush()


def _converse(ws: Client, wait: float) -> int:
    ws.wait_open()
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


def _tell_closed(connection: Client | EventSourceClient) -> None:
    if isinstance(connection, EventSourceClient):
        _tell("closed")
        return
    reason = f" {printable(connection.close_reason)}" if connection.close_reason else ""
    _tell(f"closed with {connection.close_code}{reason}")


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
        out.write(f"\r< {printable(text, _KEPT)}\n{PROMPT}".encode(errors="replace"))
    else:
        out.write((message.encode() if isinstance(message, str) else message) + b"\n")
    out.flush()


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


def _close(connection: Client | EventSourceClient) -> None:
    connection.close()
    if isinstance(connection, Client):
        try:
            connection.wait_closed(1.0)
        except TimeoutError:
            pass


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
