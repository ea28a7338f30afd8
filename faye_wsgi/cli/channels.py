"""Channels on the command line: listen to them, publish, and see who is connected.

python -m faye_wsgi listen https://example.com/channels room:42
python -m faye_wsgi publish redis://localhost:6379/0 room:42 '{"text": "hello"}'
python -m faye_wsgi connections redis://localhost:6379/0

The URL is that of the endpoint (``http``, ``https``, ``ws``, ``wss``), or of a broker; for
``connections`` it is the broker's.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import threading
from collections.abc import Sequence
from typing import Any, Callable

from faye_wsgi.channels import Channels
from faye_wsgi.cli import connections
from faye_wsgi.cli.arguments import INTERRUPTED, USAGE, Parser, printable, read_header
from faye_wsgi.client import Client
from faye_wsgi.delivery.messages import Message, to_json
from faye_wsgi.errors import BrokerError, ConnectionClosed, HandshakeError

__all__ = ["COMMANDS", "HELP", "main"]

COMMANDS = ("listen", "publish", "connections")
HELP = """  listen URL CHANNEL ...     print what is published, a line of JSON for each message
  publish URL CHANNEL DATA   publish; DATA is JSON, or else a text
  connections URL            who is connected, over all workers; drawn again on a terminal"""
FAILED = 1
TIMEOUT = 10.0


def main(arguments: Sequence[str]) -> int:
    """Run a command; the exit status: 0, 1 where it was refused or failed, 64 for a mistake."""
    options = _make_parser().parse_args(arguments)
    is_endpoint = options.url.partition(":")[0] in ("http", "https", "ws", "wss")
    try:
        run: Callable[[argparse.Namespace], int]
        if options.command == "connections":
            run = _show_connections
        elif options.command == "publish":
            run = _publish_to_endpoint if is_endpoint else _publish_to_broker
        else:
            run = _listen_to_endpoint if is_endpoint else _listen_to_broker
        return run(options)
    except (BrokerError, ConnectionClosed) as error:
        return _fail(str(error))
    except ValueError as error:
        _fail(str(error))
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m faye_wsgi")
    commands = parser.add_subparsers(dest="command", required=True)
    listen = commands.add_parser("listen", help="print what is published")
    publish = commands.add_parser("publish", help="publish a message")
    connected = commands.add_parser("connections", help="show who is connected")
    connected.add_argument("url", help="of the broker (redis://...)")
    connected.add_argument("--once", action="store_true", help="print the table once, and end")
    for one in (listen, publish):
        one.add_argument("url", help="of the endpoint, or of the broker (redis://...)")
        one.add_argument(
            "--header",
            action="append",
            default=[],
            type=read_header,
            metavar='"NAME: VALUE"',
            help="a header of the request to an endpoint; may be repeated",
        )
    for one in (listen, publish, connected):
        one.add_argument("--prefix", default="faye", help="as of Channels, for a broker")
    listen.add_argument("channels", nargs="+", metavar="CHANNEL")
    listen.add_argument("--since", metavar="CURSOR", help="what came after it is first")
    listen.add_argument("--last", type=int, default=0, metavar="N", help="the last N first")
    publish.add_argument("channel")
    publish.add_argument("data", help="JSON, or else a text")
    publish.add_argument("--key", help="published once, however often it is repeated")
    # Nothing is lost that others keep: they trim it again to what they want.
    publish.add_argument(
        "--history",
        type=int,
        default=10_000,
        metavar="N",
        help="to a broker: how many messages of the channel are kept; default 10000",
    )
    publish.add_argument(
        "--ttl",
        type=float,
        default=86_400,
        metavar="SECONDS",
        help="to a broker: how long they are kept; default 86400",
    )
    return parser


def _read_data(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# A broker


def _publish_to_broker(options: argparse.Namespace) -> int:
    channels = Channels(
        options.url, prefix=options.prefix, history=options.history, ttl=options.ttl
    )
    _print(channels.publish(options.channel, _read_data(options.data), key=options.key))
    return 0


def _listen_to_broker(options: argparse.Namespace) -> int:
    channels = Channels(options.url, prefix=options.prefix)
    ended = threading.Event()

    def show(message: Message) -> None:
        try:
            _print(to_json(message))
        except BrokenPipeError:
            ended.set()

    with channels.subscribe(show, options.channels, since=options.since, last=options.last):
        while not ended.wait(1.0):  # a wait without a bound could not be interrupted
            pass
    return 0


def _show_connections(options: argparse.Namespace) -> int:
    if options.url.startswith("memory:"):
        raise ValueError("memory:// is for one process: ask there, by channels.connections()")
    channels = Channels(options.url, prefix=options.prefix)
    return connections.show(channels, is_live=sys.stdout.isatty() and not options.once)


# An endpoint


def _connections(options: argparse.Namespace) -> Any:
    scheme, colon, rest = options.url.partition(":")
    url = scheme.replace("http", "ws") + colon + rest
    return Client.reconnecting(url, headers=options.header, ping=25)


def _publish_to_endpoint(options: argparse.Namespace) -> int:
    message = {
        "publish": options.channel,
        "data": _read_data(options.data),
        "key": options.key or secrets.token_hex(16),  # so that a repetition is safe
        "ref": 1,
    }
    for ws in _connections(options):
        try:
            ws.send_json(message)
            answer = ws.receive_json(TIMEOUT)
        except HandshakeError:
            raise
        except (ConnectionClosed, TimeoutError):
            continue
        if answer.get("error") == "unavailable":
            return _fail(answer["message"])
        if "error" in answer:
            return _fail(f"{answer['error']}: {answer['message']}")
        _print(answer["published"])
        return 0
    return FAILED


def _listen_to_endpoint(options: argparse.Namespace) -> int:
    since = options.since
    names = options.channels
    for ws in _connections(options):
        ws.send_json({"subscribe": names, "since": since, "last": 0 if since else options.last})
        pending = set(names)
        for text in ws:
            message = json.loads(text)
            pending.difference_update(message.get("subscribed", ()))
            if since is None or not pending:  # then the last id vouches for all channels
                since = message.get("id") or since
            if message.get("error") == "unavailable":
                break  # again, after a while
            if "error" in message:
                _fail(f"{message.get('channel', '')}: {message['error']}: {message['message']}")
                names = [name for name in names if name != message.get("channel")]
                pending.discard(message.get("channel"))
                if not names:
                    return FAILED
            elif "channel" in message:
                _print(text)
        if ws.close_code == 1008 or 4400 <= (ws.close_code or 0) < 4500:
            return _fail(f"closed with {ws.close_code} {ws.close_reason}")
    return FAILED


def _print(line: Any) -> None:
    print(line, flush=True)


def _fail(text: str) -> int:
    print(f"faye_wsgi: {printable(text)}", file=sys.stderr, flush=True)
    return FAILED
