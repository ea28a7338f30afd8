"""What the doctor sees through a public URL: what is between the clients and the server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import monotonic

from faye_wsgi.cli.checks import Finding, Result
from faye_wsgi.client import Client
from faye_wsgi.driver import client_handshake, eventstream_request
from faye_wsgi.errors import ConnectionClosed, HandshakeError
from faye_wsgi.eventsource_client import EventSourceClient
from faye_wsgi.http.headers import check_headers
from faye_wsgi.http.url import HTTP_SCHEMES, WEBSOCKET_SCHEMES, Url, parse_url, without_query

__all__ = ["check_url"]

Headers = Sequence[tuple[str, str]]

OPEN_TIMEOUT = 10.0  # seconds
GRACE = 1.0  # seconds
PING = 10.0  # seconds; that of an EventSource, by default
SILENT = "nothing came for"  # the reason of an end by ``idle_timeout``
MAX_SHOWN = 200  # characters of an answer's body


def check_url(text: str, *, origin: str | None, headers: Headers, wait: float) -> Iterator[Result]:
    """Connect to a WebSocket or an event stream, and watch it for ``wait`` seconds.

    ``origin`` is that of the page that would connect; None for one of the URL's own host.
    Opening takes 10 seconds at most, and so do a second try and the close. Raises ValueError for a
    wrong URL or header.
    """
    url = parse_url(text, (*WEBSOCKET_SCHEMES, *HTTP_SCHEMES))
    if url.scheme in HTTP_SCHEMES:
        check_headers(headers, eventstream_request.RESERVED_HEADERS)
        return _check_events(text, headers, wait)
    page = origin or f"{'https' if url.secure else 'http'}://{url.host_header}"
    check_headers(headers, (*client_handshake.RESERVED_HEADERS, "origin"))
    check_headers([("Origin", page)])
    return _check_websocket(text, url, page, headers, wait)


# A WebSocket


def _check_websocket(
    text: str, url: Url, origin: str, headers: Headers, wait: float
) -> Iterator[Result]:
    shown = without_query(str(url))
    try:
        with _connect(text, [*headers, ("Origin", origin)]) as ws:
            yield f"{shown} opens for a page of {origin}"
            yield _watch(ws, shown, wait)
    except HandshakeError as error:
        yield _explain(error, shown, origin, _opens(text, headers, error))


def _connect(text: str, headers: Headers) -> Client:
    return Client(text, headers=headers, open_timeout=OPEN_TIMEOUT, close_timeout=OPEN_TIMEOUT)


def _opens(text: str, headers: Headers, error: HandshakeError) -> bool:
    """Whether it is the origin that was refused."""
    if error.status_code != 403:
        return False
    try:
        with _connect(text, headers):
            return True
    except HandshakeError:
        return False


def _explain(error: HandshakeError, shown: str, origin: str, is_origin: bool) -> Finding:
    if is_origin:
        return Finding(
            f"a page of {origin} may not connect to {shown}: let the proxy pass Host on, or name "
            "the page in origins=[…]",
            "security.md",
        )
    if _is_stripped(error):
        return Finding(
            f"a proxy in front of {shown} does not pass the header Upgrade or Connection on: set "
            "it up as the page shows",
            "proxies.md",
        )
    return _closed(error, shown)


def _is_stripped(error: HandshakeError) -> bool:
    """Whether the server has seen an ordinary request: it says so.

    The endpoint of Channels answers with its script, as any GET.
    """
    has_script = error.status_code == 200 and _kind(error).startswith("text/javascript")
    return has_script or b"has lost its header Upgrade or Connection" in error.body


def _kind(error: HandshakeError) -> str:
    return error.headers.get("Content-Type") or ""


def _closed(error: HandshakeError, shown: str) -> Finding:
    body = error.body.decode("utf-8", "replace").strip().partition("\n")[0][:MAX_SHOWN]
    answer = f"{error} ({body})" if body and _kind(error).startswith("text/plain") else str(error)
    return Finding(
        f"{shown} does not open: {answer}: check the URL, what it needs to let one in (--header), "
        "and the proxy",
        "errors.md#in-front-of-the-server",
    )


def _watch(ws: Client, shown: str, wait: float) -> Result:
    """What happens to an open connection on which the client says nothing."""
    end = monotonic() + wait
    heard = monotonic()
    try:
        while (left := end - monotonic()) > 0:
            ws.receive(left)
            heard = monotonic()
    except TimeoutError:
        pass
    except ConnectionClosed:
        if ws.close_code == 1006:
            return _cut(shown, monotonic() - heard)
        return f"{shown} was closed by the application, with {ws.close_code}"
    return f"{shown} stays open for {wait:g} s"


def _cut(shown: str, silence: float) -> Finding:
    return Finding(
        f"{shown} was cut after {silence:.1f} s without a message: set ping below the shortest "
        "idle limit on the way",
        "deployment.md#time-limits",
    )


# An event stream


def _check_events(text: str, headers: Headers, wait: float) -> Iterator[Result]:
    es = EventSourceClient(
        text, headers=headers, reconnect=False, open_timeout=None, idle_timeout=wait
    )
    shown = without_query(es.url)
    try:
        es.wait_open(OPEN_TIMEOUT)
        yield f"{shown} opens"
        yield _follow(es, shown, wait)
    except TimeoutError:
        yield _held_back(shown, OPEN_TIMEOUT)
    except HandshakeError as error:
        yield _closed(error, shown)
    finally:
        es.close()


def _follow(es: EventSourceClient, shown: str, wait: float) -> Result:
    """What comes of an open stream.

    A byte is enough, as of ``retry`` at its beginning and of the pings. It is the client that
    finds the silence, by ``idle_timeout``: so this waits a little longer.
    """
    begun = heard = monotonic()
    has_events = False
    try:
        while (left := begun + wait + GRACE - monotonic()) > 0:
            es.receive(left)
            heard, has_events = monotonic(), True
    except TimeoutError:
        pass
    except ConnectionClosed as error:
        if error.code is None:
            return f"{shown} was ended by the application"
        if SILENT not in (error.reason or ""):
            return _cut(shown, monotonic() - heard)
        has_begun = has_events or es.retry is not None
        if wait > PING or not has_begun:
            return _held_back(shown, wait)
        return f"the beginning of {shown} comes at once; watch it for longer to see its pings"
    return f"{shown} brings its bytes at once"


def _held_back(shown: str, seconds: float) -> Finding:
    return Finding(
        f"nothing of the stream {shown} came for {seconds:g} s: turn off the buffering of the "
        "proxy for it, or choose a longer --wait than the ping of the view",
        "proxies.md",
    )
