"""The route of a request: what the application has written, and never the path."""

from __future__ import annotations

from typing import Any

import flask
import pytest
from django.conf import settings
from django.test import RequestFactory
from django.urls import path, resolve
from webob import Request

from faye_wsgi.wsgi.environ import environ_of
from faye_wsgi.wsgi.routes import ROUTE_KEY, route_of

from ..test_websocket import make_environ


def found(request: Any) -> str:
    return route_of(request, environ_of(request))


def test_flask() -> None:
    app = flask.Flask(__name__)
    routes = []

    @app.route("/rooms/<room>")
    def view(room: str) -> str:
        routes.extend([found(flask.request), found(flask.request.environ)])
        return ""

    app.test_client().get("/rooms/7")
    assert routes == ["/rooms/<room>", "/rooms/<room>"]


def test_django() -> None:
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"])
    request = RequestFactory().get("/rooms/7")
    assert found(request) == ""
    patterns = (path("rooms/<room>", lambda request, room: None),)
    urls = type("urls", (), {"urlpatterns": patterns})
    request.resolver_match = resolve("/rooms/7", urls)
    assert found(request) == "rooms/<room>"


@pytest.mark.parametrize("make", [dict, Request])
def test_plain_wsgi_says_it_itself(make: Any) -> None:
    environ = make_environ(None, PATH_INFO="/rooms/7")
    assert found(make(environ)) == ""
    environ[ROUTE_KEY] = "/rooms/<room>"
    assert found(make(environ)) == "/rooms/<room>"
