"""``python -m faye_wsgi doctor``: what is wrong with how an application is run, and the cure.

python -m faye_wsgi doctor app:app --config gunicorn.conf.py --url wss://example.com/chat

It takes the arguments of gunicorn's command line, besides its own. The exit status is 0 when all
is well, 1 when something is wrong, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain

from faye_wsgi.cli.arguments import INTERRUPTED, printable, read_header
from faye_wsgi.cli.checks import Finding, Result, check_application, read_settings
from faye_wsgi.cli.public_url import check_url
from faye_wsgi.transport.settings import check_seconds

__all__ = ["COMMAND", "HELP", "main"]

COMMAND = "doctor"
HELP = """  doctor APP                 what is wrong with how gunicorn runs APP, and what to change;
                             see doctor --help"""
PROG = f"python -m faye_wsgi {COMMAND}"
WRONG, USAGE = 1, 2  # argparse's own; the close codes of other commands do not come in here
PAGES = "docs"


def main(arguments: Sequence[str]) -> int:
    """Examine an application; the exit status."""
    parser = _make_parser()
    options, rest = parser.parse_known_args(arguments)
    try:
        check_seconds("--wait", options.wait)
        if not options.wait:
            raise ValueError("--wait is above 0")
        through = [_check_url(url, options) for url in options.url]
    except ValueError as error:
        parser.error(str(error))
    try:
        # A URL may be looked at from another machine, where the application is not.
        application = _examine(parser, rest) if rest or not options.url else iter(())
        return _report(chain(application, *through))
    except KeyboardInterrupt:
        return INTERRUPTED


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} [APP] [--url URL]... [options] [options of gunicorn]",
        description="Import an application, and look at what often goes wrong when gunicorn "
        "serves its WebSockets and event streams. All options of gunicorn's command line may "
        "stand here: --config FILE, --worker-class NAME, --workers N and so on.",
        epilog="exit status: 0 all is well, 1 something is wrong, 2 wrong arguments",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--url",
        action="append",
        default=[],
        help="of a WebSocket (wss://...) or an event stream (https://...), as clients have it: "
        "look at the proxies on the way; may be repeated",
    )
    add(
        "--wait",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="how long to watch each URL; default 15",
    )
    add(
        "--origin",
        metavar="ORIGIN",
        help="of the page that connects to a WebSocket; default: the URL's own host",
    )
    add(
        "--header",
        action="append",
        default=[],
        type=read_header,
        metavar='"NAME: VALUE"',
        help="a header to add to the requests to each URL; may be repeated",
    )
    return parser


def _check_url(url: str, options: argparse.Namespace) -> Iterator[Result]:
    return check_url(url, origin=options.origin, headers=options.header, wait=options.wait)


def _examine(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Iterator[Result]:
    try:
        settings = read_settings(arguments, PROG)
    except ImportError:
        parser.error("gunicorn is not installed here, and its settings cannot be read")
    except SystemExit as error:  # gunicorn has said what is wrong
        sys.exit(USAGE if error.code else 0)
    return check_application(settings)


def _report(results: Iterator[Result]) -> int:
    """Print each result when it is there."""
    status = 0
    for result in results:
        if isinstance(result, Finding):
            status = WRONG
            _print(f"WRONG  {result.message}", f"       see {PAGES}/{result.page}")
        else:
            _print(f"ok     {result}")
    return status


def _print(*lines: str) -> None:
    print("\n".join(map(printable, lines)), flush=True)
