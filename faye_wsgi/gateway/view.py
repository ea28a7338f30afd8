"""One URL for everything: WebSocket, event stream, single requests, and the browser's script.

- A WebSocket handshake: messages in both directions.
- GET that accepts ``text/event-stream``: ``?channel=a&channel=b&since=…``, for an EventSource.
- POST that accepts it, with a list of messages that subscribe: the same stream, without their names
  and signatures in the URL. The script does this, so it may be empty, and all may be refused.
- POST of one message that publishes or asks: its answer, as JSON.
- Any other GET: the script itself, so that a page imports it from here.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, Callable
from urllib.parse import parse_qs

from faye_wsgi.driver.frames import CloseCode
from faye_wsgi.errors import ConnectionClosed
from faye_wsgi.eventsource import EventSource
from faye_wsgi.gateway.protocol import (
    Budget,
    Budgets,
    Command,
    Refusal,
    encode,
    parse,
    parse_json,
)
from faye_wsgi.gateway.session import Session, Site
from faye_wsgi.http.headers import split_list
from faye_wsgi.http.origins import Origins
from faye_wsgi.websocket import WebSocket
from faye_wsgi.wsgi.admission import is_from, is_from_allowed_page
from faye_wsgi.wsgi.environ import Environ, environ_of, is_websocket
from faye_wsgi.wsgi.responses import responses_for

__all__ = ["SCRIPT", "ViewOptions", "make_view"]

log = logging.getLogger("faye_wsgi")

SCRIPT = Path(__file__).resolve().parents[1] / "static" / "channels.js"
_STATUS = {"invalid": 400, "forbidden": 403, "limit": 413, "rate": 429, "unavailable": 503}
# The options of a WebSocket that apply to an event stream, too.
SHARED = ("max_connections", "max_per_address", "max_per_user", "check", "check_every")
_BLOCK = 65_536  # bytes that are read at once of a body that is not wanted
Headers = list[tuple[str, str]]


class ViewOptions:
    """The options of a view, beside those of its ``Site``."""

    def __init__(
        self,
        *,
        origins: Origins,
        trust_forwarded: bool,
        rate: float,
        burst: float,
        release: Callable[[], object] | None,
        websocket: dict[str, Any],
    ) -> None:
        self.origins = origins
        self.trust_forwarded = trust_forwarded
        self.rate = rate
        self.burst = burst
        self.budgets = Budgets(rate, burst)  # of single requests
        self.release = release
        self.websocket = websocket


def make_view(site: Site, options: ViewOptions) -> Callable[..., Any]:
    """A view for WSGI, WebOb, Flask and Django, which are told apart by their arguments."""

    def channels(*args: Any, **kwargs: Any) -> Any:
        if len(args) > 1 and isinstance(args[0], dict):
            environ, start_response = args
            return _serve(site, options, environ)(environ, start_response)
        return _serve(site, options, args[0] if args else _flask_request())

    # Django's check is of cookies and forms. Here the origin and the type of the body are checked.
    channels.csrf_exempt = True  # type: ignore[attr-defined]
    return channels


def _flask_request() -> Any:
    flask = sys.modules.get("flask")
    if flask is None or not flask.request:
        raise TypeError("this view is called with a request, or with an environ")
    return flask.request._get_current_object()


def _serve(site: Site, options: ViewOptions, request: Any) -> Any:
    environ = environ_of(request)
    if is_websocket(environ) or "HTTP_SEC_WEBSOCKET_KEY" in environ:
        return _serve_websocket(site, options, request)
    answer = _Answer(request, _cross_origin(environ, options))
    if answer.headers is None:
        _discard_body(environ)
        return answer.page(403, {"error": "forbidden", "message": "this origin may not connect"})
    method = environ.get("REQUEST_METHOD")
    accepts_events = "text/event-stream" in environ.get("HTTP_ACCEPT", "")
    try:
        if method == "POST" and accepts_events:
            messages = _as_list(_read_body(site, request, environ), site)
            commands = [parse(one, site.max_channels) for one in messages]
            return _serve_events(site, options, request, answer, commands)
        if method == "POST":
            client = _client_of(environ, options.trust_forwarded)
            seconds = options.budgets.spend(client, time.monotonic())
            if seconds:
                _discard_body(environ)
                return answer.wait(seconds)
            return _serve_post(site, options, request, answer, _read_body(site, request, environ))
        if method in ("GET", "HEAD"):
            if accepts_events:
                commands = [_read_query(site, environ)]
                return _serve_events(site, options, request, answer, commands)
            return answer.script(environ.get("HTTP_IF_NONE_MATCH", ""))
    except Refusal as refusal:
        return answer.refuse(refusal)
    if method == "OPTIONS":
        return answer.preflight()
    return answer.page(405, {"error": "invalid", "message": "GET, POST or a WebSocket"})


# WebSocket


def _serve_websocket(site: Site, options: ViewOptions, request: Any) -> Any:
    ws = WebSocket(
        request,
        origins=options.origins,
        trust_forwarded=options.trust_forwarded,
        max_length=site.max_length,
        **options.websocket,
    )
    session = Session(site, request, ws)
    try:
        _converse(ws, session, site, options)
    except ConnectionClosed:
        pass
    except BaseException as error:
        # The peer gets 1011, and the server or the framework logs the exception.
        ws.__exit__(type(error), error, error.__traceback__)
        raise
    finally:
        session.close()
    return ws.response


def _converse(ws: WebSocket, session: Session, site: Site, options: ViewOptions) -> None:
    release = _release_for(options, ws)
    budget = Budget(options.rate, options.burst, time.monotonic())
    for message in ws:
        try:
            if not isinstance(message, str):
                raise Refusal("invalid", "a message is text")
            command = parse(message, site.max_channels)
        except Refusal as refusal:
            _wait(ws, budget.spend(1, time.monotonic()))
            ws.send(encode(refusal.answer))
            continue
        _wait(ws, budget.spend(max(1, len(command.channels)), time.monotonic()))
        if budget.is_flooded and command.action in ("subscribe", "unsubscribe"):
            log.debug("%r is closed: it subscribes and unsubscribes without an end", ws)
            ws.close(CloseCode.POLICY_VIOLATION, "too many subscriptions")
            return
        for answer in session.obey(command):
            ws.send(encode(answer))
        if release is not None:
            release()


def _release_for(options: ViewOptions, connection: Any) -> Callable[[], object] | None:
    return options.release or connection._after_listeners


def _wait(ws: WebSocket, seconds: float) -> None:
    if seconds > 0:
        try:
            ws.wait_closed(seconds)  # which waits in every kind of server
        except TimeoutError:
            pass


# Event streams


def _serve_events(
    site: Site, options: ViewOptions, request: Any, answer: _Answer, commands: list[Command]
) -> Any:
    if any(command.action != "subscribe" for command in commands):
        raise Refusal("invalid", "an event stream takes messages that subscribe")
    session = Session(site, request)
    plans = []
    count = 0
    for command in commands:
        plans.append(session.plan(command))
        count += len(command.channels)
    if count > site.max_channels:
        raise Refusal("limit", f"a connection may have {site.max_channels} channels at most")
    is_script = environ_of(request).get("REQUEST_METHOD") == "POST"
    if not is_script and not plans[0].groups:
        raise plans[0].refusals[0]
    es = EventSource(
        request,
        headers=answer.headers,
        trust_forwarded=options.trust_forwarded,
        **{name: options.websocket[name] for name in SHARED if name in options.websocket},
    )
    es.on("close", _ignore)  # a listener keeps the stream open, also where it has no channels
    header = es.last_event_id
    try:
        for plan in plans:
            if header:  # a browser that comes back by itself
                plan = plan._replace(command=plan.command._replace(since=header))
            for refused_one in session.subscribe(es, plan):
                es.send(encode(refused_one))
                if refused_one["error"] == "unavailable":
                    es.close()  # the client comes back
    except ConnectionClosed:
        pass
    release = _release_for(options, es)
    if release is not None:
        release()
    return es.response


def _ignore(event: Any) -> None:
    """No more than a listener."""


def _read_query(site: Site, environ: Environ) -> Command:
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=1024)
    message: dict[str, Any] = {"subscribe": query.get("channel", [])}
    if "since" in query:
        message["since"] = query["since"][0]
    if "token" in query:
        message["token"] = query["token"]
    if "last" in query:
        last = query["last"][0]
        message["last"] = int(last) if last.isascii() and last.isdigit() and len(last) < 8 else -1
    message["presence"] = query.get("presence", ["0"])[0] not in ("", "0", "false")
    return parse(message, site.max_channels)


# Single requests


def _serve_post(
    site: Site, options: ViewOptions, request: Any, answer: _Answer, message: Any
) -> Any:
    command = parse(message, site.max_channels)
    if command.action in ("subscribe", "unsubscribe"):
        raise Refusal("invalid", "only a WebSocket or an event stream subscribes")
    answers = Session(site, request).obey(command)
    release = options.release or responses_for(request).after_listeners
    if release is not None:
        release()
    return answer.page(_STATUS.get(answers[0].get("error", ""), 200), answers[0])


def _client_of(environ: Environ, trust_forwarded: bool) -> str:
    """The address of the client: what all that it sends has in common."""
    forwarded = environ.get("HTTP_X_FORWARDED_FOR", "") if trust_forwarded else ""
    # The last one is the one that our proxy has seen. Others are what it was told.
    return (split_list(forwarded) or [environ.get("REMOTE_ADDR", "")])[-1][:64]


def _read_body(site: Site, request: Any, environ: Environ) -> Any:
    # Another type could be sent by a form of any page, and without a preflight request.
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        _discard_body(environ)
        raise Refusal("invalid", "the Content-Type of a message is application/json")
    length = environ.get("CONTENT_LENGTH") or ""
    if not (length.isascii() and length.isdigit()):
        raise Refusal("invalid", "a message needs a Content-Length")
    if len(length) > 18 or int(length) > site.max_length:
        _discard_body(environ)
        raise Refusal("limit", f"a message has {site.max_length} bytes at most")
    if hasattr(request, "get_data"):  # Flask's and Werkzeug's
        body = request.get_data()
    elif request is environ:
        body = environ["wsgi.input"].read(int(length))
    else:
        body = request.body
    return parse_json(body)


def _discard_body(environ: Environ) -> None:
    """Read a body that is not wanted, and let others run between its blocks.

    Else gunicorn does it, in one go and a KiB at a time: 10 MB stopped a gevent worker for a
    second.
    """
    if "HTTP_EXPECT" in environ:
        return  # the client sends it only if it is asked to
    length = environ.get("CONTENT_LENGTH") or ""
    left = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else 0
    stream = environ["wsgi.input"]
    while left > 0 and (block := stream.read(min(left, _BLOCK))):
        left -= len(block)
        time.sleep(0)


def _as_list(messages: Any, site: Site) -> list[Any]:
    found = messages if isinstance(messages, list) else [messages]
    if len(found) > site.max_channels:
        raise Refusal("limit", f"a connection may have {site.max_channels} channels at most")
    return found


# Answers


def _cross_origin(environ: Environ, options: ViewOptions) -> Headers | None:
    """The headers for a page of another origin, where it may connect; None where it may not."""
    origin = environ.get("HTTP_ORIGIN")
    if not is_from_allowed_page(environ, options.origins, options.trust_forwarded):
        return None
    if origin is None:
        # A browser that sends no Origin says so in another way, or it is not a page's request.
        is_foreign = environ.get("HTTP_SEC_FETCH_SITE") == "cross-site"
        return None if is_foreign and options.origins is not None else []
    if is_from(environ, "same", options.trust_forwarded):
        return []
    return [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Credentials", "true"),
        ("Vary", "Origin"),
    ]


class _Answer:
    """The answers to one request that are not streams."""

    def __init__(self, request: Any, headers: Headers | None) -> None:
        self.headers = headers
        self._responses = responses_for(request)

    def page(self, status: int, value: dict[str, Any], *more: tuple[str, str]) -> Any:
        headers = [
            *more,
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
            *(self.headers or []),
        ]
        return self._responses.page(status, headers, encode(value).encode())

    def refuse(self, refusal: Refusal) -> Any:
        return self.page(_STATUS[refusal.code], refusal.answer)

    def wait(self, seconds: float) -> Any:
        refusal = Refusal("rate", "too many requests: try again later")
        return self.page(429, refusal.answer, ("Retry-After", str(math.ceil(seconds))))

    def preflight(self) -> Any:
        headers = [
            ("Access-Control-Allow-Methods", "GET, POST"),
            ("Access-Control-Allow-Headers", "Content-Type"),
            *(self.headers or []),
        ]
        return self._responses.page(204, headers, b"")

    def script(self, known: str) -> Any:
        body, tag = _read_script()
        headers = [
            ("Content-Type", "text/javascript; charset=utf-8"),
            ("Cache-Control", "no-cache"),
            ("ETag", tag),
            ("X-Content-Type-Options", "nosniff"),
            *(self.headers or []),
        ]
        if tag in known:
            return self._responses.page(304, headers, b"")
        return self._responses.page(200, headers, body)


@cache
def _read_script() -> tuple[bytes, str]:
    body = SCRIPT.read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'
