"""What a test's client knows of the application: whom to call, the cookies, what goes around it.

``find_target`` makes a ``Target`` of a Flask, Werkzeug or Django test client, or of a WSGI
application. No framework is imported here that the test has not imported itself.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import Any, Callable
from urllib.parse import quote, urlsplit

__all__ = ["Target", "find_target"]

Note = Callable[[BaseException], None]
_SAFE = "/%:@!$&'()*+,;=~?"


class Target:
    """A WSGI application, and what a client of it brings to each request.

    ``url`` is where a WebSocket client connects to. ``environ`` goes below what the request itself
    says. ``around`` is entered in the application's thread.
    """

    raises = True  # whether the test gets what the application raises

    def __init__(
        self, application: Any, path: str, host: str = "localhost", root: str = ""
    ) -> None:
        self.application = application
        self.environ: dict[str, Any] = {}
        split = urlsplit(path)
        if split.scheme not in ("", "ws", "wss", "http", "https") or not split.path.startswith("/"):
            raise ValueError(f"the path begins with a slash, or is a URL with one: {path!r}")
        self.scheme = "https" if split.scheme in ("https", "wss") else "http"
        self.host = split.netloc or host
        self.script_name = root.rstrip("/")
        query = f"?{split.query}" if split.query else ""
        self.path = quote(self.script_name + split.path + query, _SAFE)

    @property
    def url(self) -> str:
        """The URL of the page, with ``ws`` for ``http``."""
        return f"{'wss' if self.scheme == 'https' else 'ws'}://{self.host}{self.path}"

    def cookie(self) -> str:
        """The Cookie header that the client sends; '' where it has none."""
        return ""

    def store_cookies(self, lines: list[str]) -> None:
        """Keep what the response's Set-Cookie headers say."""

    @contextmanager
    def around(self, note: Note) -> Iterator[None]:
        """``note`` gets what the application raises, where a framework catches it."""
        yield

    def close(self) -> None:
        """The request is over; in the test's thread."""


def find_target(client: Any, path: str) -> Target:
    """The target for a test client or an application."""
    if not isinstance(path, str):
        raise TypeError(f"the path is a str, not {type(path).__name__}")
    if _is_a(client, "django.test.client", "AsyncClient"):
        raise TypeError("the views are called through WSGI: pass Django's Client, not AsyncClient")
    if _is_a(client, "django.test.client", "Client"):
        return DjangoTarget(client, path)
    if _is_a(client, "flask", "Flask"):
        return FlaskTarget(client.test_client(), path)
    if _is_a(client, "flask.testing", "FlaskClient"):
        return FlaskTarget(client, path)
    if _is_a(client, "werkzeug.test", "Client"):
        return WerkzeugTarget(client, client.application, path)
    if callable(client):
        return Target(client, path)
    raise TypeError(
        "this takes a test client of Flask, Werkzeug or Django, or a WSGI application, not "
        f"{type(client).__name__}"
    )


def _is_a(thing: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(thing, kind)


class WerkzeugTarget(Target):
    """Werkzeug's test client: its cookies."""

    def __init__(self, client: Any, application: Any, *place: Any) -> None:
        super().__init__(application, *place)
        self._client = client

    def cookie(self) -> str:
        environ = self._cookie_environ()
        add = getattr(self._client, "_add_cookies_to_wsgi", None)
        if add is not None:
            add(environ)
        elif self._client.cookie_jar is not None:  # before Werkzeug 2.3
            self._client.cookie_jar.inject_wsgi(environ)
        return str(environ.get("HTTP_COOKIE", ""))

    def store_cookies(self, lines: list[str]) -> None:
        store = getattr(self._client, "_update_cookies_from_response", None)
        if store is not None:
            path = self.path.partition("?")[0]
            store(self.host.partition(":")[0], path, lines)
        elif self._client.cookie_jar is not None:
            headers = [("Set-Cookie", line) for line in lines]
            self._client.cookie_jar.extract_wsgi(self._cookie_environ(), headers)

    def _cookie_environ(self) -> dict[str, Any]:
        host, _, port = self.host.partition(":")
        return {
            "wsgi.url_scheme": self.scheme,
            "HTTP_HOST": self.host,
            "SERVER_NAME": host,
            "SERVER_PORT": port or ("443" if self.scheme == "https" else "80"),
            "SCRIPT_NAME": "",
            "PATH_INFO": self.path.partition("?")[0],
        }


class FlaskTarget(WerkzeugTarget):
    """Flask's test client: the cookies and with them the session, the server's name."""

    def __init__(self, client: Any, path: str) -> None:
        app = client.application
        host = app.config.get("SERVER_NAME") or "localhost"
        super().__init__(client, app, path, host, app.config.get("APPLICATION_ROOT") or "")
        if not urlsplit(path).scheme and app.config.get("PREFERRED_URL_SCHEME") == "https":
            self.scheme = "https"
        self.environ = dict(client.environ_base)

    @contextmanager
    def around(self, note: Note) -> Iterator[None]:
        # Without TESTING or PROPAGATE_EXCEPTIONS, Flask makes a 500 of what a view raises.
        signal = sys.modules["flask"].got_request_exception
        thread = threading.get_ident()

        def caught(sender: Any, exception: BaseException, **others: Any) -> None:
            if threading.get_ident() == thread:
                note(exception)

        signal.connect(caught, self._client.application)
        try:
            yield
        finally:
            signal.disconnect(caught, self._client.application)


class DjangoTarget(Target):
    """Django's test client: its cookies and headers, and the test's database connections."""

    def __init__(self, client: Any, path: str) -> None:
        super().__init__(self._answer, path, "testserver")
        self._client = client
        self.raises = client.raise_request_exception
        self.environ = dict(client.defaults)
        _share_connections(self)

    def close(self) -> None:
        _unshare_connections(self)

    def cookie(self) -> str:
        morsels = self._client.cookies.values()
        return "; ".join(sorted(f"{one.key}={one.coded_value}" for one in morsels))

    def store_cookies(self, lines: list[str]) -> None:
        for line in lines:
            self._client.cookies.update(SimpleCookie(line))

    @contextmanager
    def around(self, note: Note) -> Iterator[None]:
        from django.core.signals import got_request_exception

        thread = threading.get_ident()

        def caught(sender: Any, **others: Any) -> None:
            error = sys.exc_info()[1]
            if error is not None and threading.get_ident() == thread:
                note(error)

        got_request_exception.connect(caught, weak=False)
        try:
            yield
        finally:
            got_request_exception.disconnect(caught)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """What Django's ``WSGIHandler`` does, with the signals as its test client sends them."""
        from django.core.handlers.wsgi import WSGIRequest, get_script_name
        from django.core.signals import request_started
        from django.urls import set_script_prefix

        handler = self._client.handler
        if handler._middleware_chain is None:
            handler.load_middleware()
        set_script_prefix(get_script_name(environ))
        request_started.send(sender=type(handler), environ=environ)
        request = WSGIRequest(environ)
        request._dont_enforce_csrf_checks = not handler.enforce_csrf_checks
        response = handler.get_response(request)
        cookies = [("Set-Cookie", one.OutputString()) for one in response.cookies.values()]
        status = f"{response.status_code} {response.reason_phrase}"
        start_response(status, [*response.items(), *cookies])
        try:
            yield from response
        finally:
            response.close()


_sharing: list[DjangoTarget] = []
_of_threads: Any = None  # the connections that each thread has of its own, meanwhile


def _share_connections(target: DjangoTarget) -> None:
    """Give all threads and greenlets the test's database connections, as long as ``target`` lives.

    So the view sees what the test has written in the transaction of its ``TestCase``, and so do
    its listeners, which run in greenlets of their own, and the threads that it starts. Nothing
    may close these connections meanwhile, at the end of a request or after a listener: the test
    goes on with them, maybe in the middle of a query.
    """
    global _of_threads
    from django.db import connections

    _sharing.append(target)
    if len(_sharing) > 1:
        return
    test_has = {one.alias: one for one in connections.all()}
    _of_threads, connections._connections = connections._connections, SimpleNamespace(**test_has)
    for connection in test_has.values():
        connection.inc_thread_sharing()
        connection.close_if_unusable_or_obsolete = _stay_open


def _unshare_connections(target: DjangoTarget) -> None:
    global _of_threads
    from django.db import connections

    if target not in _sharing:
        return
    _sharing.remove(target)
    if _sharing:
        return
    for connection in connections.all():
        del connection.close_if_unusable_or_obsolete
        connection.dec_thread_sharing()
    connections._connections, _of_threads = _of_threads, None


def _stay_open() -> None:
    """In place of Django's method, which closes a connection that is too old."""
