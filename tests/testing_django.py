"""The testing kit under Django's own test cases, with SQLite in memory: run by test_testing.py.

It is run in a process of its own, `python -m tests.testing_django [patched]`, since a process has
one set of Django's settings, and threads are patched before anything is imported.
"""

from __future__ import annotations

import sys

if "patched" in sys.argv:
    import gevent.monkey

    gevent.monkey.patch_all()

import contextlib
import threading
import unittest
from typing import Any
from unittest import mock

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="a secret",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["testserver"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    USE_TZ=True,
    STATIC_URL="/static/",
    MEDIA_URL="/media/",
)
django.setup()

from django.contrib.auth.decorators import login_required  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.db import close_old_connections, connection, connections  # noqa: E402
from django.http import HttpRequest  # noqa: E402
from django.test import Client as DjangoClient  # noqa: E402
from django.test import LiveServerTestCase, TestCase, TransactionTestCase  # noqa: E402
from django.test.utils import get_runner  # noqa: E402
from django.urls import path  # noqa: E402

from faye_wsgi import Client, HandshakeError, WebSocket  # noqa: E402
from faye_wsgi.django import websocket  # noqa: E402
from faye_wsgi.testing import connect, ws_url  # noqa: E402

from .test_readme import django_blocks  # noqa: E402


@login_required
@websocket
def rename(request: HttpRequest, ws: WebSocket) -> None:
    for name in ws:
        request.session["renamed"] = True
        request.session.save()
        User.objects.filter(pk=request.user.pk).update(first_name=name)
        ws.send_json([request.user.username, User.objects.count()])


@websocket
def broken(request: HttpRequest, ws: WebSocket) -> None:
    raise KeyError("a mistake of the view's")


@websocket
def agent(request: HttpRequest, ws: WebSocket) -> None:
    ws.send_json([request.headers["User-Agent"], request.get_host()])


@websocket
def count(request: HttpRequest, ws: WebSocket) -> None:
    ws.on("message", lambda event: ws.send_json(User.objects.count()))


@websocket
def count_in_thread(request: HttpRequest, ws: WebSocket) -> None:
    counts: list[int] = []
    thread = threading.Thread(target=lambda: counts.append(User.objects.count()))
    thread.start()
    thread.join()
    ws.send_json(counts)


for block in django_blocks():
    exec(block.code)  # a view, chat, and a test case

urlpatterns = [
    path("rooms/<room>", chat),  # noqa: F821
    path("rename", rename),
    path("broken", broken),
    path("agent", agent),
    path("count", count),
    path("thread", count_in_thread),
]


class Views:
    """The same for each kind of test case."""

    client: Any

    def check_rename(self, name: str) -> None:
        user = User.objects.create(username=name)
        self.client.force_login(user)
        with connect(self.client, "/rename") as ws:
            ws.send("Ada")
            assert ws.receive_json() == [name, User.objects.count()]
            assert User.objects.get(pk=user.pk).first_name == "Ada"  # not seen by a copy
            User.objects.create(username=f"{name}-friend")
            ws.send("Grace")
            assert ws.receive_json() == [name, 2]
        assert self.client.session["renamed"]
        user.refresh_from_db()
        assert user.first_name == "Grace"

    def test_listeners_and_threads_of_the_view(self) -> None:
        """They run in greenlets and threads of their own, and see the same database."""
        User.objects.create(username="ada")
        with connect(self.client, "/count") as ws:
            ws.send("first")
            assert ws.receive_json() == 1
            with connect(self.client, "/thread") as other:
                assert other.receive_json() == [1]
            User.objects.create(username="grace")
            ws.send("second")
            assert ws.receive_json() == 2

    def test_the_connections_of_the_test_stay_open(self) -> None:
        with mock.patch.object(connection, "close") as close:
            with connect(self.client, "/count") as ws:
                ws.send("x")
                ws.receive_json()
            close.assert_not_called()
            close_old_connections()  # Django's own is back
            close.assert_called_once_with()

    def test_other_threads_have_connections_of_their_own_again(self) -> None:
        one, two = connect(self.client, "/count"), connect(self.client, "/count")
        with contextlib.ExitStack() as stack:
            with one:
                stack.enter_context(two)
                assert connection_of_a_thread() is connections["default"]
            assert connection_of_a_thread() is connections["default"]
        assert connection_of_a_thread() is not connections["default"]


def connection_of_a_thread() -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(connections["default"]))
    thread.start()
    thread.join()
    return found[0]


class InATransaction(Views, TestCase):
    def test_one(self) -> None:
        self.check_rename("one")

    def test_two(self) -> None:
        assert User.objects.count() == 0, "the other test was rolled back"
        self.check_rename("two")

    def test_who_is_not_logged_in(self) -> None:
        with self.assertRaises(HandshakeError) as caught:
            connect(self.client, "/rename").__enter__()
        assert caught.exception.status_code == 302

    def test_what_the_view_raises(self) -> None:
        for client in (self.client, DjangoClient(raise_request_exception=True)):
            with self.assertRaisesRegex(KeyError, "a mistake"):
                with connect(client, "/broken") as ws:
                    ws.receive()

    def test_headers_of_the_client(self) -> None:
        client = DjangoClient(HTTP_USER_AGENT="a browser")
        with connect(client, "/agent") as ws:
            assert ws.receive_json() == ["a browser", "testserver"]


class WithoutATransaction(Views, TransactionTestCase):
    def test_one(self) -> None:
        self.check_rename("one")

    def test_two(self) -> None:
        self.check_rename("two")


def check_threads(earlier: list[threading.Thread]) -> None:
    for thread in set(threading.enumerate()).difference(earlier):
        thread.join(5)
        assert not thread.is_alive(), thread


class Live(LiveServerTestCase):
    """With views that use the database, and must have ended when Django stops its server.

    Django does not wait for the threads of the requests. One that ends later closes the test's
    database connection, which is no longer shared, and four tracebacks are printed; so it is
    with any response that goes on. A client's ``close`` begins the end, and its ``wait_closed``
    waits for it.
    """

    @classmethod
    def setUpClass(cls) -> None:
        cls.addClassCleanup(check_threads, threading.enumerate())  # after the end of the server
        super().setUpClass()

    def check_count(self, ws: Client) -> None:
        User.objects.create(username="ada")
        ws.send("x")
        assert ws.receive_json(5) == 1

    def test_in_a_block(self) -> None:
        with Client(ws_url(self, "/count")) as ws:
            self.check_count(ws)

    def test_with_cleanups(self) -> None:
        ws = Client(ws_url(self, "/count"))
        self.addCleanup(ws.wait_closed)
        self.addCleanup(ws.close)
        self.check_count(ws)


if __name__ == "__main__":
    settings.ROOT_URLCONF = "__main__"
    runner = get_runner(settings)(verbosity=0)
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    runner.setup_test_environment()
    settings.ALLOWED_HOSTS += ["localhost"]
    databases = runner.setup_databases()
    try:
        result = unittest.TextTestRunner(verbosity=2).run(suite)
    finally:
        runner.teardown_databases(databases)
    print(result.testsRun, "tests")
    sys.exit(not result.wasSuccessful())
