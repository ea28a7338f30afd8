"""docs/channels.md and docs/channels-messages.md are true.

The chat runs on four workers with Redis, its test passes, the tables are those of the code, and the
code for Django publishes at the commit. tests/browser/test_tutorial.py opens the chat's page.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import pytest

from faye_wsgi import Channels, Client, Subscription
from faye_wsgi.brokers import engines
from faye_wsgi.brokers.base import Position
from faye_wsgi.cli.channels import _make_parser
from faye_wsgi.gateway import protocol, session
from faye_wsgi.gateway.protocol import Refusal, parse
from faye_wsgi.testing import connect

from .conftest import find_program
from .support.redis import RedisServer
from .support.servers import Server, serve
from .support.waiting import wait_until
from .test_layers import fresh_python
from .test_readme import ROOT, Block, blocks

PAGE = ROOT / "docs/channels.md"
TEXT = PAGE.read_text("utf-8")
BLOCKS = blocks(PAGE)
TIMEOUT = 10.0


def block(part: str) -> Block:
    """The only block with this part."""
    (found,) = (one for one in BLOCKS if part in one.code)
    return found


def file_of(name: str) -> str:
    """The first block that begins with the name of its file."""
    return next(one.code for one in BLOCKS if one.code.startswith(f"# {name}\n"))


def template() -> str:
    (found,) = re.findall(r"^```html\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


# The tutorial


def write_chat(folder: Path) -> Path:
    """Write the files of the tutorial into a folder."""
    (folder / "chat.py").write_text(block("def say():\n    if").code, "utf-8")
    (folder / "templates").mkdir()
    (folder / "templates/chat.html").write_text(template(), "utf-8")
    return folder


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """A folder with the files of the tutorial."""
    return write_chat(tmp_path)


class Visitor:
    """A browser without a page: its cookies, its WebSocket, and what has come."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.jar = CookieJar()
        self.opener: OpenerDirector = build_opener(HTTPCookieProcessor(self.jar))
        self.post("/enter", name=name)
        self.cursor = ""

    def post(self, path: str, **fields: str) -> None:
        body = urlencode(fields).encode()
        self.opener.open(self.server.url(path), body, timeout=TIMEOUT).close()

    def connect(self) -> Client:
        cookies = "; ".join(f"{one.name}={one.value}" for one in self.jar)
        ws = Client(self.server.url("/channels", "ws"), headers={"Cookie": cookies})
        ws.send_json({"subscribe": "chat", "since": self.cursor, "presence": True})
        return ws

    def hear(self, ws: Client, count: int) -> list[str]:
        """The texts of the next messages."""
        heard: list[str] = []
        while len(heard) < count:
            message = ws.receive_json(timeout=TIMEOUT)
            assert "error" not in message and "reset" not in message
            self.cursor = message.get("id", self.cursor)
            if "data" in message:
                heard.append(f"{message['data']['from']}: {message['data']['text']}")
        return heard

    def wait_subscribed(self, ws: Client) -> dict[str, Any]:
        while "subscribed" not in (message := ws.receive_json(timeout=TIMEOUT)):
            assert "error" not in message
        self.cursor = message["id"]
        return dict(message)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer(find_program("redis-server")) as server:
        yield server


SPY = """
import os, sys
from chat import app
from flask import request

@app.before_request
def tell():
    print(f"{request.path} is at {os.getpid()}", file=sys.stderr, flush=True)
"""


def test_the_chat_on_four_workers(chat: Path, redis_server: RedisServer) -> None:
    (chat / "spy.py").write_text(SPY, "utf-8")
    env = {"CHANNELS": redis_server.url}
    with serve("gunicorn-gevent", "spy:app", workers=4, env=env, cwd=chat) as server:
        ada, ben = Visitor(server, "Ada"), Visitor(server, "Ben")
        adas = ada.connect()
        assert ada.wait_subscribed(adas)["recovered"] is None
        (first,) = workers(server)
        os.kill(first, signal.SIGSTOP)  # so that another worker takes the next connection
        try:
            bens = ben.connect()
            ben.wait_subscribed(bens)
        finally:
            os.kill(first, signal.SIGCONT)
        assert len(workers(server)) == 2
        ada.post("/say", text="hello")
        assert ada.hear(adas, 1) == ben.hear(bens, 1) == ["Ada: hello"]
        # All workers are restarted. What is said before Ben is back comes when he is.
        before = set(server.worker_pids())
        server.signal(signal.SIGHUP)
        assert wait_end(bens) == 1001
        wait_until(lambda: not before & set(server.worker_pids()), what="new workers")
        ada.post("/say", text="are you there?")
        bens = ben.connect()
        assert ben.hear(bens, 1) == ["Ada: are you there?"]
        assert ben.wait_subscribed(bens)["recovered"] is True
        bens.close()
        bens.wait_closed(TIMEOUT)


def workers(server: Server) -> set[int]:
    """The workers that have a WebSocket of the chat."""
    return {int(pid) for pid in re.findall(r"^/channels is at (\d+)$", server.log(), re.M)}


def wait_end(ws: Client) -> int | None:
    for _ in ws:
        pass
    return ws.close_code


def test_a_refused_visitor(chat: Path) -> None:
    code = (
        block("def say():\n    if").code
        + """
from faye_wsgi.testing import connect

with connect(app.test_client(), '/channels') as ws:
    for wish in ({'subscribe': 'chat'}, {'publish': 'chat', 'data': 1}, {'presence': 'chat'}):
        ws.send_json(wish)
        assert ws.receive_json()['error'] == 'forbidden', wish
assert app.test_client().post('/say', data={'text': 'hello'}).status_code == 403
client = app.test_client()
client.post('/enter', data={'name': 'Ada'})
with connect(client, '/channels') as ws:
    ws.send_json({'publish': 'chat', 'data': {'from': 'Ben'}})
    assert ws.receive_json()['error'] == 'forbidden'
"""
    )
    fresh_python(code)


def test_the_tutorials_test(chat: Path) -> None:
    code = block("def test_what_is_said_arrives").code
    fresh_python(
        f"import sys; sys.path.insert(0, {str(chat)!r})\n{code}\ntest_what_is_said_arrives()"
    )


def test_the_page_names_what_the_script_has() -> None:
    script = (ROOT / "faye_wsgi/static/channels.js").read_text("utf-8")
    part = TEXT.partition("## The page's side")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", part, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"\b(\w+)(?=[(`])", row)} - {"connect"}
    assert {"subscribe", "onReset", "history", "close", "members", "state"} <= names
    for name in names:
        assert re.search(rf"^  (async |get |)({name})\b(\(| =|;)", script, re.MULTILINE), name


# The endpoint


MESSAGES = (ROOT / "docs/channels-messages.md").read_text("utf-8")


def test_the_endpoints_messages() -> None:
    part = MESSAGES.partition("| message | details | answer |")[2].partition("\n\n")[0]
    named = {}
    for row in part.splitlines()[2:]:
        message, details = row.split("|")[1:3]
        action, *others = re.findall(r'"(\w+)": ', message)
        named[action] = {"ref", *others, *re.findall(r"`(\w+)`", details)}
    assert named == protocol._DETAILS


def test_the_codes_of_refusals() -> None:
    part = MESSAGES.partition("| code of a refusal | |")[2].partition("\n\n")[0]
    codes = re.findall(r"^\| `(\w+)`", part, re.MULTILINE)
    assert codes == re.findall(r"'(\w+)'", str(inspect.getdoc(Refusal)))


def answers_to(messages: list[tuple[dict[str, Any], int]]) -> list[dict[str, Any]]:
    """What the endpoint sends after each message: so many answers."""
    channels = Channels(history=10)
    view = channels.view(lambda request, action, channel: {"presence": {"id": 7, "name": "Ada"}})
    with connect(view, "/") as ws:
        answers = []
        for message, count in messages:
            ws.send_json(message)
            answers += [ws.receive_json() for _ in range(count)]
        return answers


def test_the_answers() -> None:
    shown = [set(re.findall(r'"(\w+)"', code)) for code in re.findall(r"`(\{.*?\})`", MESSAGES)]
    answers = answers_to(
        [
            ({"subscribe": "a"}, 2),
            ({"publish": "a", "data": 1}, 2),
            ({"history": "a"}, 1),
            ({"presence": "a"}, 1),
            ({"ping": 1}, 1),
            ({"unsubscribe": "a"}, 1),
            ({"dance": "a"}, 1),
        ]
    )
    assert answers[-1]["error"] == "invalid"
    for answer in answers:
        assert any(answer.keys() <= names for names in shown), answer


def test_the_conversation() -> None:
    part = TEXT.partition("```text\n→")[2].partition("```")[0]
    lines = ("→" + part).splitlines()
    for line in lines:
        message = json.loads(line[2:])
        if line[0] == "→":
            parse(message, 128)
        for name in message.keys() & {"id", "since", "published"}:
            assert Position.parse(message[name])
    assert {line[0] for line in lines} == {"→", "←"}


def test_the_commands() -> None:
    commands = re.findall(r"^python -m faye_wsgi (\w+) (.*)$", TEXT, re.MULTILINE)
    assert {name for name, _ in commands} == {"listen", "publish"}
    for name, rest in commands:
        _make_parser().parse_args([name, *shlex.split(rest)])


# Limits and names


def test_the_limits() -> None:
    defaults = {
        name: one.default for name, one in inspect.signature(Channels.configure).parameters.items()
    }
    assert defaults["max_message"] == 65_536 and "64 KiB at most" in TEXT
    assert defaults["max_name"] == 255 and "1 to 255 bytes" in TEXT
    assert defaults["max_channels"] == 128 and "128 channels at most" in TEXT
    assert defaults["high_water"] == 2**20 and "`high_water` (1 MiB)" in TEXT
    assert defaults["timeout"] == 2 and "`timeout` (2 s)" in TEXT
    assert session.MAX_NAMED == 1000 and "Above 1,000 members" in TEXT
    view = inspect.signature(Channels.view).parameters
    assert (view["rate"].default, view["burst"].default) == (50, 256)
    assert "a `rate` of 50 messages a second after a `burst` of 256" in TEXT


def test_the_calls() -> None:
    part = TEXT.partition("| call | |\n")[2].partition("\n\n")[0]
    calls = re.findall(r"(\w+)\(([^)]*)\)", part)
    assert len(calls) > 9
    for name, arguments in calls:
        known = inspect.signature(getattr(Channels, name)).parameters
        for argument in re.findall(r"\w+(?==)", arguments):
            assert argument in known, (name, argument)
    for name in ("cursor", "channels", "add", "remove", "close"):
        assert f"`{name}`" in part and hasattr(Subscription, name)


def test_the_urls() -> None:
    named = set(re.findall(r"`([a-z+]+)://", TEXT.partition("### Which broker")[2]))
    assert named == set(engines.SCHEMES)


# Django


def test_django_publishes_at_the_commit(tmp_path: Path) -> None:
    (tmp_path / "live.py").write_text(file_of("live.py"), "utf-8")
    (tmp_path / "urls.py").write_text(file_of("urls.py"), "utf-8")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="a secret", ROOT_URLCONF="urls", ALLOWED_HOSTS=["testserver"], USE_TZ=True,
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes",
                    "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    CHANNELS={{"history": 100}},
)
django.setup()
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from live import channels
{file_of("anywhere")}

class Order:
    pk, status = 7, "new"
    def save(self):
        assert channels.history("orders") == []

pay(Order())
(message,) = channels.history("orders")
assert message.data == {{"order": 7, "status": "paid"}}

from faye_wsgi.testing import connect_events
from faye_wsgi import HandshakeError
client = Client()
try:
    with connect_events(client, "/channels?channel=orders") as es:
        raise AssertionError("a visitor may subscribe")
except HandshakeError as error:
    assert error.status_code == 403
client.force_login(User.objects.create_user("ada"))
with connect_events(client, "/channels?channel=orders&last=1") as es:
    assert '"status":"paid"' in es.receive().data
"""
    fresh_python(script)
