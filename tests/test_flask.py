"""Flask: the decorator, and the routes, sessions and hooks around it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Callable

import gevent
import pytest
from flask import Blueprint, Flask, abort, request, session
from flask.views import MethodView

import faye_wsgi.flask
from faye_wsgi import Channels, ConnectionClosed, WebSocket
from faye_wsgi.flask import eventsource, release, route, websocket
from faye_wsgi.testing import connect

from .support import frames
from .support.peer import Peer
from .support.servers import Server
from .support.servers import serve as run_server
from .support.waiting import wait_until
from .test_websocket import Exchange, exchange

__all__ = ["exchange"]

APP = "tests.test_flask:app"

app = Flask(__name__)
app.secret_key = "for tests only"
seen: dict[str, Any] = {"after_request": []}


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """As an extension would have it: it knows nothing of WebSockets."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if request.args.get("user") != "alice":
            abort(401)
        return view(*args, **kwargs)

    return guarded


@app.after_request
def note(response: Any) -> Any:
    if request.path != "/seen":
        seen["after_request"].append([request.path, response.status_code])
    return response


@app.route("/seen")
def what_was_seen() -> dict[str, Any]:
    return seen


@app.route("/bare", websocket=True)
@websocket
def bare(ws: WebSocket) -> None:
    """The view of the decorator without options."""
    for message in ws:
        ws.send(message)


@app.route("/called", websocket=True)
@websocket()
def called(ws: WebSocket) -> str:
    for message in ws:
        ws.send(message)
    return "what it returns is not used"


@app.route("/rooms/<room>", websocket=True)
@websocket(["chat", "echo"], headers={"X-Room": "a room"}, max_length=20)
def room(ws: WebSocket, room: str) -> None:
    ws.send(f"{room} {ws.protocol}")
    for message in ws:
        ws.send(message)


@app.route("/named", websocket=True)
@websocket(protocols=["echo"])
def named(ws: WebSocket) -> None:
    ws.send(ws.protocol)
    ws.receive()


@app.route("/guarded", websocket=True)
@login_required
@websocket
def guarded(ws: WebSocket) -> None:
    ws.send("welcome")
    ws.receive()


@app.route("/listeners", websocket=True)
@websocket
def listeners(ws: WebSocket) -> None:
    ws.on("message", lambda event: ws.send(event.data))


@app.route("/session", websocket=True)
@websocket
def with_session(ws: WebSocket) -> None:
    session["touched"] = True
    ws.send(request.args["q"])
    ws.receive()


# One path, two rules: a page, and the WebSocket that the page opens.
@app.route("/both")
def page() -> str:
    return "a page\n"


@app.route("/both", websocket=True, endpoint="both-socket")
@websocket
def both(ws: WebSocket) -> None:
    ws.send("a socket")


# A rule without websocket=True is reached by plain requests, not by upgrades.
@app.route("/plain-rule")
@websocket
def plain_rule(ws: WebSocket) -> None:
    raise AssertionError("no WebSocket can come here")


@app.route("/own", websocket=True)
@websocket
def own(ws: WebSocket) -> None:
    """Leaves by the ConnectionClosed of its own socket."""
    try:
        while True:
            ws.receive()
    except ConnectionClosed as error:
        seen["own"] = error.code
        raise


@app.route("/own-send", websocket=True)
@websocket
def own_send(ws: WebSocket) -> None:
    ws.close(4000)
    ws.send("too late")


@app.route("/other", websocket=True)
@websocket
def other(ws: WebSocket) -> None:
    """Leaves by the ConnectionClosed of another socket, which is a fault like any."""
    error = ConnectionClosed(1006, "another socket")
    error.target = object()
    raise error


@app.route("/nobodys", websocket=True)
@websocket
def nobodys(ws: WebSocket) -> None:
    raise ConnectionClosed(1006, "of nobody")


@app.route("/raise", websocket=True)
@websocket
def raising(ws: WebSocket) -> None:
    ws.receive()
    raise RuntimeError("raised by a view")


@app.route("/abort", websocket=True)
@websocket
def aborting(ws: WebSocket) -> None:
    abort(403)


@app.route("/raise-in-listener", websocket=True)
@websocket
def raising_listener(ws: WebSocket) -> None:
    def fail(event: Any) -> None:
        raise RuntimeError("raised by a listener")

    ws.on("message", fail)


class Echo(MethodView):
    def get(self) -> Any:
        ws = WebSocket(request)
        with ws:
            ws.send(ws.receive())
        return ws.response


app.add_url_rule("/class", view_func=Echo.as_view("class"), websocket=True)


# Tests

# gunicorn's gevent worker, and Werkzeug's own server with its threads.
KINDS = ["gunicorn-gevent", "flask"]
ECHOES = ["/bare", "/called", "/listeners"]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with run_server(request.param, APP) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


def now_seen(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get("/seen")[1])
    return found


@pytest.mark.parametrize("path", ECHOES)
def test_decorator(server: Server, peer: Callable[..., Peer], path: str) -> None:
    client = peer(server).open(path)
    client.send_text("grüße")
    assert client.read_text() == "grüße"
    client.finish()


def test_options_and_the_routes_arguments(server: Server, peer: Callable[..., Peer]) -> None:
    client = peer(server).open("/rooms/blue", {"Sec-WebSocket-Protocol": "echo, chat"})
    assert client.head is not None
    assert client.head.get("Sec-WebSocket-Protocol") == "echo"
    assert client.head.get("X-Room") == "a room"
    assert client.read_text() == "blue echo"
    client.send_text("x" * 21)
    assert client.read_close().close_code == 1009


def test_protocols_by_name(server: Server, peer: Callable[..., Peer]) -> None:
    client = peer(server).open("/named", {"Sec-WebSocket-Protocol": "echo"})
    assert client.read_text() == "echo"
    client.finish()


def test_below_another_decorator(server: Server, peer: Callable[..., Peer]) -> None:
    refused = peer(server)
    assert refused.request("/guarded").status == 401
    client = peer(server).open("/guarded?user=alice")
    assert client.read_text() == "welcome"
    client.finish()


def test_request_and_session(server: Server, peer: Callable[..., Peer]) -> None:
    client = peer(server).open("/session?q=hello")
    assert client.read_text() == "hello"
    client.finish()


def test_one_path_with_a_page_and_a_socket(server: Server, peer: Callable[..., Peer]) -> None:
    assert server.get("/both") == (200, b"a page\n")
    client = peer(server).open("/both")
    assert client.read_text() == "a socket"
    assert client.read_close().close_code == 1000
    client.send_close()
    client.read_eof()


def test_plain_get(server: Server, peer: Callable[..., Peer]) -> None:
    """Ours is 426; on a rule for WebSockets alone Flask answers with 400 by itself."""
    client = peer(server)
    head = client.request("/plain-rule", without=["Upgrade", "Connection"])
    assert (head.status, head.get("Upgrade")) == (426, "websocket")
    assert server.get("/bare")[0] == 400
    assert peer(server).request("/plain-rule").status == 400


def test_a_page_of_another_origin(server: Server, peer: Callable[..., Peer]) -> None:
    assert peer(server).request("/bare", {"Origin": "http://evil.example"}).status == 403
    wait_until(lambda: "origins=['http://evil.example']" in server.log())
    peer(server).open("/bare", {"Origin": f"http://{server.host_header}"}).finish()


def test_after_request_sees_101(server: Server, peer: Callable[..., Peer]) -> None:
    peer(server).open("/own").finish(4001)
    wait_until(lambda: ["/own", 101] in now_seen(server)["after_request"])


def test_its_own_end_is_swallowed(server: Server, peer: Callable[..., Peer]) -> None:
    peer(server).open("/own").finish(4002)
    wait_until(lambda: now_seen(server).get("own") == 4002)
    client = peer(server).open("/own-send")
    assert client.read_close().close_code == 4000
    client.send_close(4000)
    client.read_eof()
    # The module's server must not have logged a traceback: see the fixture.


def test_class_based_view(server: Server, peer: Callable[..., Peer]) -> None:
    client = peer(server).open("/class")
    client.send_text("hello")
    assert client.read_text() == "hello"
    assert client.read_close().close_code == 1000


# Errors: a server of their own, since they leave tracebacks.

ERRORS = {
    "/raise": "RuntimeError: raised by a view",
    "/raise-in-listener": "RuntimeError: raised by a listener",
    "/other": "connection closed with 1006: another socket",
    "/nobodys": "connection closed with 1006: of nobody",
}


@pytest.mark.parametrize("kind", KINDS)
def test_exceptions(serve: Callable[..., Server], peer: Callable[..., Peer], kind: str) -> None:
    """1011 for the peer, one traceback for the operator."""
    server = serve(kind, APP)
    for count, (path, said) in enumerate(ERRORS.items(), 1):
        client = peer(server).open(path, first=frames.text("go on"))
        assert client.read_close().close_code == 1011
        client.send_close(1011)
        client.read_eof()
        wait_until(lambda said=said: said in server.log(), what=said)
        assert server.log().count(said) == 1
        assert server.log().count("Traceback") == count
    # It is too late for an HTTP error; Flask logs nothing of an abort.
    client = peer(server).open("/abort")
    assert client.read_close().close_code == 1011
    client.send_close(1011)
    client.read_eof()
    assert server.get("/both")[0] == 200
    assert server.log().count("Traceback") == len(ERRORS)


def test_the_test_clients_request_is_refused() -> None:
    """Flask's test client has no socket: a plain GET is answered all the same."""
    assert app.test_client().get("/plain-rule").status_code == 426
    gevent.sleep(0)


# Mistakes that explain themselves


ASKS = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": frames.KEY,
}


@pytest.fixture
def fresh() -> Flask:
    """An application; what is said once for each rule is said again."""
    for once in (faye_wsgi.flask._warn_rule, faye_wsgi.flask._warn_stripped):
        once.cache_clear()
    return Flask(__name__)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "faye_wsgi"]


def test_a_rule_without_websocket_is_explained_once(
    fresh: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    @fresh.route("/rooms/<room>")
    @login_required
    @websocket
    def chat(ws: WebSocket, room: str) -> None: ...

    for room in ("blue", "red"):
        assert fresh.test_client().get(f"/rooms/{room}", headers=ASKS).status_code == 400
    (said,) = warnings(caplog)
    assert "400 to a WebSocket request for '/rooms/<room>'" in said
    assert "@app.route('/rooms/<room>', websocket=True)" in said
    assert "@faye_wsgi.flask.route(app, '/rooms/<room>')" in said


def test_a_page_is_no_rule_without_websocket(
    fresh: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    fresh.add_url_rule("/page", "page", lambda: "a page")
    client = fresh.test_client()
    assert client.get("/page", headers=ASKS).status_code == 400
    assert client.get("/nowhere", headers=ASKS).status_code == 404
    assert client.get("/page").status_code == 200
    assert warnings(caplog) == []


def test_a_proxy_that_drops_upgrade_is_named(
    fresh: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    route(fresh, "/chat")(lambda ws: None)
    client = fresh.test_client()
    assert client.get("/chat").status_code == 400
    assert warnings(caplog) == []
    assert client.get("/chat", headers={"Sec-WebSocket-Key": frames.KEY}).status_code == 400
    (said,) = warnings(caplog)
    assert "'/chat'" in said and "proxy_set_header Upgrade $http_upgrade" in said


def test_a_plain_request_for_a_websocket_is_told_what_it_is(fresh: Flask) -> None:
    route(fresh, "/chat")(lambda ws: None)
    fresh.add_url_rule("/theirs", "theirs", lambda: "", websocket=True)
    client = fresh.test_client()
    answer = client.get("/chat")
    assert answer.status_code == 400
    assert "this is a WebSocket: connect with ws:// or wss://" in answer.text
    answer = client.get("/chat", headers={"Sec-WebSocket-Key": frames.KEY})
    assert answer.status_code == 400 and "proxy_set_header Upgrade" in answer.text
    assert "connect with" not in client.get("/theirs").text, "another package's view"


def test_a_plain_request_for_a_websocket_goes_to_the_applications_handler(fresh: Flask) -> None:
    route(fresh, "/chat")(lambda ws: None)
    fresh.register_error_handler(400, lambda error: ({"why": error.description}, 400))
    answer = fresh.test_client().get("/chat")
    assert answer.status_code == 400 and answer.json["why"].startswith("this is a WebSocket")


def test_a_decorator_above_the_route_is_explained(fresh: Flask) -> None:
    @websocket
    @fresh.route("/chat", websocket=True)
    def chat(ws: WebSocket) -> None: ...

    fresh.testing = True
    with pytest.raises(TypeError, match=r"missing 1 .*'ws'. @websocket .* go below @app.route"):
        fresh.test_client().get("/chat", base_url="ws://localhost")


def test_a_type_error_of_a_view_is_left_as_it_is(fresh: Flask) -> None:
    def chat(ws: Any = None) -> None:
        raise TypeError("of the view")

    fresh.add_url_rule("/chat", view_func=chat)
    websocket(chat)
    fresh.testing = True
    with pytest.raises(TypeError, match="^of the view$"):
        fresh.test_client().get("/chat")


def test_a_view_that_is_called_without_a_request() -> None:
    with pytest.raises(RuntimeError, match="called by Flask, for a request: register it"):
        bare()


# What a request holds


class Session:
    """As Flask-SQLAlchemy's scoped session, which holds a connection until it is removed."""

    def __init__(self) -> None:
        self.held = False

    def remove(self) -> None:
        self.held = False


@pytest.mark.parametrize("wrap", [lambda db: db, lambda db: SimpleNamespace(db=db)])
@pytest.mark.parametrize("decorator", [websocket, eventsource])
def test_the_session_of_a_login_is_removed_before_the_view(
    fresh: Flask, exchange: Callable[..., Exchange], decorator: Any, wrap: Any
) -> None:
    session = Session()
    fresh.extensions["sqlalchemy"] = wrap(SimpleNamespace(session=session))
    held: list[bool] = []

    @fresh.before_request
    def load_user() -> None:
        session.held = True

    fresh.add_url_rule(
        "/chat", "chat", decorator(lambda one: held.append(session.held)), websocket=True
    )
    made = exchange()
    made.answer(fresh)
    made.peer.read_head()
    assert held == [False]


def test_a_hook_runs_before_the_view_and_after_each_listener(
    fresh: Flask, exchange: Callable[..., Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faye_wsgi.flask, "_hooks", [])
    ran: list[str] = []
    assert release(lambda: ran.append("hook"))() is None
    ran.clear()

    @route(fresh, "/chat")
    def chat(ws: WebSocket) -> None:
        ran.append("view")
        ws.on("message", lambda event: (ran.append("listener"), ws.send("done")))

    made = exchange(read_ahead=frames.text("go"))
    made.answer(fresh)
    made.peer.read_head()
    assert made.peer.read_text() == "done"
    wait_until(lambda: len(ran) == 4)
    assert ran == ["hook", "view", "listener", "hook"]
    made.peer.send_close()


# Logging out


def test_logging_out_disconnects() -> None:
    flask_login = pytest.importorskip("flask_login")
    channels = Channels(history=10)
    flask_login.user_logged_out.connect(channels.user_logged_out)
    application = Flask(__name__)
    application.secret_key = "for tests only"
    manager = flask_login.LoginManager(application)

    class User(flask_login.UserMixin):  # type: ignore[name-defined,misc]
        def __init__(self, id: str) -> None:
            self.id = id

    manager.user_loader(User)

    @application.route("/enter/<name>")
    def enter(name: str) -> str:
        return str(flask_login.login_user(User(name)))

    @application.route("/leave")
    def leave() -> str:
        return str(flask_login.logout_user())

    @route(application, "/")
    @flask_login.login_required
    @websocket
    def view(ws: WebSocket) -> None:
        channels.subscribe(ws, "a", user=flask_login.current_user.get_id())
        ws.send("ready")

    ada, eve = application.test_client(), application.test_client()
    ada.get("/enter/ada")
    eve.get("/enter/eve")
    with connect(ada, "/") as ws, connect(eve, "/") as other:
        assert ws.receive() == other.receive() == "ready"
        ada.get("/leave")
        assert ws.wait_closed() == 4401
        ada.get("/leave")  # as one who is not logged in
        channels.publish("a", 1)
        assert other.receive_json()["data"] == 1


# route


@pytest.mark.parametrize("place", [Flask, lambda name: Blueprint("blue", name)])
def test_a_route_of_an_application_and_of_a_blueprint(
    place: Any, exchange: Callable[..., Exchange]
) -> None:
    app = place(__name__)

    @route(app, "/<room>", ["irc"], endpoint="mine", defaults={"extra": "e"}, max_length=20)
    def chat(ws: WebSocket, room: str, extra: str) -> None:
        ws.send(f"{room} {extra} {ws.protocol}")

    if isinstance(app, Blueprint):
        outer = Flask(__name__)
        outer.register_blueprint(app)
        app = outer
    made = exchange(HTTP_SEC_WEBSOCKET_PROTOCOL="irc")
    assert made.answer(app).startswith("101 ")
    made.peer.read_head()
    assert made.peer.read_text() == "chat e irc"
    made.peer.send_close()


def test_a_route_above_other_decorators(fresh: Flask, exchange: Callable[..., Exchange]) -> None:
    @route(fresh, "/chat")
    @login_required
    @websocket(ping=25)
    def chat(ws: WebSocket) -> None:
        ws.send("welcome")

    made = exchange()
    assert made.answer(fresh).startswith("401 ")
    made = exchange(QUERY_STRING="user=alice")
    assert made.answer(fresh).startswith("101 ")
    made.peer.read_head()
    assert made.peer.read_text() == "welcome"
    made.peer.send_close()


def test_a_route_refuses_what_would_go_wrong(fresh: Flask) -> None:
    with pytest.raises(TypeError, match="put @websocket below them"):
        route(fresh, "/chat")(login_required(lambda ws: None))
    with pytest.raises(TypeError, match="@websocket of its own: give it the options"):
        route(fresh, "/chat", ping=25)(websocket(lambda ws: None))
    with pytest.raises(TypeError, match="did you mean 'ping'"):
        route(fresh, "/chat", ping_interval=25)(lambda ws: None)
    with pytest.raises(TypeError, match="needs the application or the Blueprint"):
        route("/chat", "/chat")


def test_views_that_would_never_run_are_refused_at_once() -> None:
    def generator(ws: Any) -> Any:
        yield "data: 1"

    async def coroutine(ws: Any) -> None:
        pass

    for decorator in (websocket, eventsource, websocket(ping=5)):
        for view in (generator, coroutine):
            with pytest.raises(TypeError, match="ordinary function"):
                decorator(view)


def test_misspelt_options_are_refused_at_once() -> None:
    for decorator in (websocket, eventsource):
        with pytest.raises(TypeError, match="pign"):
            decorator(pign=5)(lambda ws: None)


def test_the_decorator_keeps_the_views_name() -> None:
    assert bare.__name__ == "bare" and bare.__doc__
    assert app.view_functions["room"].__name__ == "room"
