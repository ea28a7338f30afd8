"""Django: the decorator below Django's own, middleware, and the database connections.

The project under test is in this file; it is set up only in the servers that serve it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.http import require_GET

from faye_wsgi import ConnectionClosed, WebSocket
from faye_wsgi.django import websocket

from .support import frames, postgres
from .support.peer import Peer
from .support.postgres import PostgresServer
from .support.servers import Server
from .support.servers import serve as run_server
from .support.waiting import wait_until

APP = "tests.test_django:application"
DATABASE = "FAYE_WSGI_TEST_DATABASE"
ATOMIC = "FAYE_WSGI_TEST_ATOMIC"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
seen: dict[str, Any] = {}


def database_descriptors() -> int:
    """Descriptors of this process that are open on the database's file."""
    name = os.environ[DATABASE]
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{descriptor}") == name
        except OSError:
            continue
    return found


def count_users() -> int:
    from django.contrib.auth.models import User

    return int(User.objects.count())


# Pages


def state(request: HttpRequest) -> JsonResponse:
    """Asks nothing of the database."""
    return JsonResponse({**seen, "descriptors": database_descriptors()})


def log_in(request: HttpRequest) -> HttpResponse:
    from django.contrib.auth import login
    from django.contrib.auth.models import User

    login(request, User.objects.get(username="alice"))
    return HttpResponse("welcome\n")


def users(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(count_users()))


# Connections


@websocket
def bare(request: HttpRequest, ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


@websocket(["chat", "echo"], headers={"X-Room": "a room"}, max_length=20)
def room(request: HttpRequest, ws: WebSocket, name: str) -> str:
    ws.send(f"{name} {ws.protocol} {request.GET.get('q')}")
    for message in ws:
        ws.send(message)
    return "what it returns is not used"


@login_required
@websocket
def guarded(request: HttpRequest, ws: WebSocket) -> None:
    """login_required has asked the database; what is open then is counted first."""
    ws.send(json.dumps([request.user.get_username(), database_descriptors()]))
    ws.receive()


@websocket
def asks_in_a_listener(request: HttpRequest, ws: WebSocket) -> None:
    def answer(event: Any) -> None:
        number = count_users()
        ws.send(json.dumps([number, database_descriptors()]))

    ws.on("message", answer)


@websocket
def fails_in_a_listener(request: HttpRequest, ws: WebSocket) -> None:
    def fail(event: Any) -> None:
        count_users()
        raise RuntimeError("raised by a listener")

    ws.on("message", fail)


@websocket
def writing(request: HttpRequest, ws: WebSocket) -> None:
    from django.contrib.auth.models import User

    for name in ws:
        User.objects.create(username=name)
        ws.send(str(User.objects.filter(username=name).count()))


def write(request: HttpRequest, name: str) -> HttpResponse:
    from django.contrib.auth.models import User

    User.objects.create(username=name)
    return HttpResponse("written")


@websocket
def own(request: HttpRequest, ws: WebSocket) -> None:
    try:
        while True:
            ws.receive()
    except ConnectionClosed as error:
        seen["own"] = error.code
        raise


@websocket
def other(request: HttpRequest, ws: WebSocket) -> None:
    error = ConnectionClosed(1006, "another socket")
    error.target = object()
    raise error


@websocket
def raising(request: HttpRequest, ws: WebSocket) -> None:
    ws.receive()
    raise RuntimeError("raised by a view")


@require_GET
def by_hand(request: HttpRequest) -> Any:
    ws = WebSocket(request)
    ws.on("message", lambda event: ws.send(event.data))
    return ws.response


@method_decorator(login_required, name="dispatch")
class Guarded(View):
    greeting = "hello"

    @method_decorator(websocket(protocols=["echo"]))
    def get(self, request: HttpRequest, ws: WebSocket, name: str) -> None:
        ws.send(f"{self.greeting} {name} {ws.protocol}")
        ws.receive()


urlpatterns = [
    path("state", state),
    path("login", log_in),
    path("users", users),
    path("bare", bare),
    path("rooms/<name>", room),
    path("guarded", guarded),
    path("listener", asks_in_a_listener),
    path("raise-in-listener", fails_in_a_listener),
    path("writing", writing),
    path("write/<name>", write),
    path("own", own),
    path("other", other),
    path("raise", raising),
    path("by-hand", by_hand),
    path("class/<name>", Guarded.as_view()),
]


def make_application() -> Any:
    import django

    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.environ[DATABASE],
                "CONN_MAX_AGE": 0,
                "ATOMIC_REQUESTS": ATOMIC in os.environ,
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
        ],
        # Errors go to standard error, as Python does without any settings for logging.
        LOGGING_CONFIG=None,
        LOGIN_URL="/login",
        MIDDLEWARE=MIDDLEWARE,
        ROOT_URLCONF=__name__,
        SECRET_KEY="for tests only",
        USE_TZ=True,
        WSGI_APPLICATION=APP.replace(":", "."),
    )
    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from django.db import connections

    call_command("migrate", verbosity=0)
    User.objects.get_or_create(username="alice")
    connections.close_all()
    return get_wsgi_application()


if DATABASE in os.environ:
    application = make_application()


# Tests


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("django").resolve() / "database.sqlite3"


# gunicorn's gevent worker, and Django's own server with its threads.
@pytest.fixture(scope="module", params=["gunicorn-gevent", "django"])
def server(request: pytest.FixtureRequest, database: Path) -> Iterator[Server]:
    with run_server(request.param, APP, env={DATABASE: str(database)}) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture(scope="module")
def cookie(server: Server) -> str:
    """The session of a user who has logged in."""
    with Peer(server) as client:
        client.send(f"GET /login HTTP/1.0\r\nHost: {server.host_header}\r\n\r\n".encode())
        head = client.read_head()
        assert head.status == 200
        return "; ".join(value.partition(";")[0] for value in head.get_all("Set-Cookie"))


def now_seen(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get("/state")[1])
    return found


def no_database_open(server: Server) -> bool:
    return bool(now_seen(server)["descriptors"] == 0)


@pytest.mark.parametrize("path_", ["/bare", "/by-hand"])
def test_echo(server: Server, peer: Callable[..., Peer], path_: str) -> None:
    client = peer(server).open(path_, {"Accept-Encoding": "gzip", "If-None-Match": '"a"'})
    for message in ("grüße", "x" * 5000):
        client.send_text(message)
        assert client.read_text() == message
    client.finish()


def test_options_and_the_paths_arguments(server: Server, peer: Callable[..., Peer]) -> None:
    client = peer(server).open("/rooms/blue?q=1", {"Sec-WebSocket-Protocol": "echo, chat"})
    assert client.head is not None
    assert client.head.get("Sec-WebSocket-Protocol") == "echo"
    assert client.head.get("X-Room") == "a room"
    assert client.read_text() == "blue echo 1"
    client.send_text("x" * 21)
    assert client.read_close().close_code == 1009


def test_plain_get(server: Server, peer: Callable[..., Peer]) -> None:
    client = peer(server)
    head = client.request("/bare", without=["Upgrade", "Connection", "Sec-WebSocket-Key"])
    assert head.status == 426
    assert b"ws://" in client.read_body()
    if server.kind != "django":  # whose server refuses hop-by-hop headers
        assert head.get("Upgrade") == "websocket"
    assert peer(server).request("/bare", {"Sec-WebSocket-Version": "8"}).status == 426
    assert peer(server).request("/bare", {"Origin": "http://evil.example"}).status == 403


def test_login_required(server: Server, peer: Callable[..., Peer], cookie: str) -> None:
    """Django answers who is not logged in with a redirect; no WebSocket is made."""
    head = peer(server).request("/guarded")
    assert head.status == 302
    assert (head.get("Location") or "").startswith("/login")
    client = peer(server).open("/guarded", {"Cookie": cookie})
    assert json.loads(client.read_text())[0] == "alice"
    client.finish()


def test_class_based_view(server: Server, peer: Callable[..., Peer], cookie: str) -> None:
    assert peer(server).request("/class/blue").status == 302
    headers = {"Cookie": cookie, "Sec-WebSocket-Protocol": "echo"}
    client = peer(server).open("/class/blue", headers)
    assert client.read_text() == "hello blue echo"
    client.finish()


def test_csrf_asks_nothing_of_a_handshake(server: Server, peer: Callable[..., Peer]) -> None:
    """It is a GET: `origins` is what guards it."""
    client = peer(server).open("/bare", {"Origin": f"http://{server.host_header}"})
    client.finish()


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "django"])
def test_views_are_not_in_a_transaction(
    kind: str, tmp_path: Path, peer: Callable[..., Peer]
) -> None:
    """ATOMIC_REQUESTS would close their database, or lock it for the others."""
    environment = {DATABASE: str(tmp_path.resolve() / "atomic.sqlite3"), ATOMIC: "1"}
    with run_server(kind, APP, env=environment) as server:
        client = peer(server).open("/writing")
        for number in range(2):
            client.send_text(f"one {number}")
            assert client.read_text() == "1"
            assert server.get(f"/write/other{number}") == (200, b"written")
        client.finish()
        assert "Traceback" not in server.log(), server.log()


def test_its_own_end_is_swallowed(server: Server, peer: Callable[..., Peer]) -> None:
    peer(server).open("/own").finish(4002)
    wait_until(lambda: now_seen(server).get("own") == 4002)
    # The module's server must not have logged a traceback: see the fixture.


# The database


def test_the_pages_close_their_connections(server: Server) -> None:
    """What the others rely on: the count is right, and Django closes at a request's end."""
    assert server.get("/users") == (200, b"1")
    wait_until(lambda: no_database_open(server))


def test_an_idle_view_holds_no_database_connection(
    server: Server, peer: Callable[..., Peer], cookie: str
) -> None:
    """login_required has opened one; it is closed before the view serves."""
    wait_until(lambda: no_database_open(server))
    client = peer(server).open("/guarded", {"Cookie": cookie})
    name, descriptors = json.loads(client.read_text())
    assert (name, descriptors) == ("alice", 0)
    assert no_database_open(server), "while the view waits"
    client.finish()


def test_a_listener_leaves_no_database_connection(
    server: Server, peer: Callable[..., Peer]
) -> None:
    wait_until(lambda: no_database_open(server))
    client = peer(server).open("/listener")
    for _ in range(3):
        client.send_text("how many?")
        number, descriptors = json.loads(client.read_text())
        assert number == 1
        assert descriptors >= 1, "the listener asked the database"
        wait_until(lambda: no_database_open(server), what="no connection between messages")
    client.finish()


# Errors: a server of their own, since they leave tracebacks.

ERRORS = {
    "/raise": "RuntimeError: raised by a view",
    "/raise-in-listener": "RuntimeError: raised by a listener",
    "/other": "connection closed with 1006: another socket",
}


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "django"])
def test_exceptions(
    serve: Callable[..., Server], peer: Callable[..., Peer], database: Path, kind: str
) -> None:
    """1011 for the peer, one traceback for the operator, no database connection left."""
    server = serve(kind, APP, env={DATABASE: str(database)})
    for count, (path_, said) in enumerate(ERRORS.items(), 1):
        client = peer(server).open(path_, first=frames.text("go on"))
        assert client.read_close().close_code == 1011
        client.send_close(1011)
        client.read_eof()
        wait_until(lambda said=said: said in server.log(), what=said)
        wait_until(lambda: no_database_open(server))
        assert server.log().count(said) == 1
        assert server.log().count("Traceback") == count


def test_the_decorator_keeps_the_views_name() -> None:
    assert bare.__name__ == "bare"
    assert guarded.__doc__ and guarded.__name__ == "guarded"


@pytest.mark.parametrize("arguments", [(), (object(),)])
def test_a_view_that_is_called_without_a_request(arguments: Any) -> None:
    """Below a class, the first argument is the object: ``method_decorator`` is for that."""
    with pytest.raises(TypeError, match="gets the request first, not .*@method_decorator"):
        websocket(lambda request, ws: None)(*arguments)


COMMITS = """
import django
from django.conf import settings
settings.configure(
    SECRET_KEY='s', CHANNELS={'history': 9},
    DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}},
)
django.setup()
from django.db import transaction
from faye_wsgi.django import Channels
from faye_wsgi.errors import BrokerError
channels = Channels()
def kept():
    return [message.data for message in channels.history('a')]
assert channels.verify(channels.sign('a')) == 'a'
assert channels.publish('a', 'now')
with transaction.atomic():
    data = {'state': 'then'}
    assert channels.publish('a', data) is None
    data['state'] = 'later'
    assert channels.publish('a', 'at once', on_commit=False)
    assert kept() == ['now', 'at once']
assert kept() == ['now', 'at once', {'state': 'then'}], kept()
try:
    with transaction.atomic():
        channels.publish('a', 'never')
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    try:
        channels.publish('', 1)
    except ValueError:
        print('checked')
    channels.publish('a', 'after the broker has gone')
    def fails(*args, **options): raise BrokerError('gone')
    channels._brokers[0].publish = fails
print(kept()[2:])
"""


def test_publications_wait_for_the_commit() -> None:
    result = subprocess.run(
        [sys.executable, "-c", COMMITS],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n") == ["checked", "[{'state': 'then'}]", ""]
    assert "after its transaction was committed" in result.stderr


LOGS_OUT = """
import django
from django.conf import settings
CONTRIB = 'django.contrib.'
settings.configure(
    SECRET_KEY='s', ALLOWED_HOSTS=['testserver'], ROOT_URLCONF='urls_of_logout', USE_TZ=True,
    CHANNELS={'history': 9},
    DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}},
    INSTALLED_APPS=[CONTRIB + 'auth', CONTRIB + 'contenttypes', CONTRIB + 'sessions'],
    MIDDLEWARE=[CONTRIB + 'sessions.middleware.SessionMiddleware',
                CONTRIB + 'auth.middleware.AuthenticationMiddleware'],
)
django.setup()
import sys, types
from django.contrib.auth import get_user_model, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.signals import user_logged_out
from django.core.management import call_command
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from faye_wsgi.brokers.base import Request
from faye_wsgi.delivery.control import CHANNEL
from faye_wsgi.django import Channels, websocket
from faye_wsgi.testing import connect
channels = Channels()
user_logged_out.connect(channels.user_logged_out)

@login_required
@websocket
def view(request, ws):
    channels.subscribe(ws, 'a', user=request.user.pk)
    ws.send('ready')

def log_out(request):
    with transaction.atomic():
        logout(request)
        kept = channels._brokers[0].read([Request(CHANNEL, None, 9)]).replays[0]
        orders.append(len(kept.publications))
    return HttpResponse()

orders = []
urls = types.ModuleType('urls_of_logout')
urls.urlpatterns = [path('', view), path('out', log_out)]
sys.modules['urls_of_logout'] = urls
call_command('migrate', verbosity=0)
ada, eve = [get_user_model().objects.create_user(name) for name in ('ada', 'eve')]
client, other = Client(), Client()
client.force_login(ada)
other.force_login(eve)
with connect(client, '/') as ws, connect(other, '/') as second:
    assert ws.receive() == second.receive() == 'ready'
    client.get('/out')
    print(ws.wait_closed(20), orders)
    channels.publish('a', 1)
    print(second.receive_json()['data'])
"""


def test_logging_out_disconnects_at_the_commit() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOGS_OUT],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n") == ["4401 [0]", "1", ""]


ON_POSTGRES = """
import sys, django
from django.conf import settings
port = sys.argv[1]
settings.configure(
    SECRET_KEY='s', CHANNELS={'url': 'django://default?max_connections=2', 'history': 9},
    DATABASES={
        'default': {
            'ENGINE': 'django.db.backends.postgresql', 'NAME': 'my db', 'USER': 'ada+1',
            'PASSWORD': 'a&b c', 'HOST': '127.0.0.1', 'PORT': port,
            'OPTIONS': {
                'isolation_level': 4, 'server_side_binding': True, 'application_name': 'x y',
                'connect_timeout': 5,
            },
        },
        'other': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'},
    },
)
django.setup()
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from faye_wsgi.django import Channels
channels = Channels()
with transaction.atomic():
    channels.publish('a', 'at the commit')
    channels.publish('a', 'now', on_commit=False)
    transaction.set_rollback(True)
with transaction.atomic():
    channels.publish('a', 'at the commit')
print([message.data for message in channels.history('a')])
with connection.cursor() as cursor:
    cursor.execute(
        "SELECT DISTINCT usename, application_name FROM pg_stat_activity"
        " WHERE query LIKE '%v1_read%' AND pid <> pg_backend_pid()")
    print(cursor.fetchall())
try:
    Channels('django://other')
except ImproperlyConfigured as error:
    print(error)
"""


def test_channels_use_the_database_of_the_settings() -> None:
    """With all that its URL must escape, and without what is only Django's."""
    with PostgresServer(postgres.programs()) as server:
        server.ask("CREATE ROLE \"ada+1\" LOGIN SUPERUSER PASSWORD 'a&b c'")
        server.ask('CREATE DATABASE "my db"')
        result = subprocess.run(
            [sys.executable, "-c", ON_POSTGRES, str(server.port)],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).resolve().parents[1],
        )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n") == [
        "['now', 'at the commit']",
        "[('ada+1', 'x y')]",
        "django://other is for Postgres, and that database is SQLite",
        "",
    ]
