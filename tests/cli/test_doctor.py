"""`doctor` on the command line: with gunicorn's own settings, behind nginx, and with a Redis."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from faye_wsgi import WebSocket
from faye_wsgi.__main__ import main
from faye_wsgi.cli import public_url
from faye_wsgi.cli.checks import Finding
from faye_wsgi.cli.public_url import check_url
from faye_wsgi.flask import route

from ..conftest import find_program
from ..support.nginx import nginx
from ..support.redis import RedisServer
from ..support.servers import ROOT, Server, serve
from ..test_main import Terminal, command

flask_app = Flask(__name__)


@route(flask_app, "/")
def view(ws: WebSocket) -> None:
    """It is never reached here."""


TIMEOUT = 60.0
APP = """\
def application(environ, start_response):
    start_response("200 OK", [])
    return [b""]
"""
GEVENT = ("-k", "gevent")
PATCH = "from gevent import monkey; monkey.patch_all()\n"


def run(
    *arguments: str, limit: int = 4096, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    script = f'ulimit -n {limit}; exec "$@"'
    return subprocess.run(
        ["sh", "-c", script, "sh", *command("doctor", *arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def findings(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Each with its page; the status fits them."""
    assert "Traceback" not in result.stderr, result.stderr
    found = [line[7:] for line in result.stdout.splitlines() if not line.startswith("ok")]
    assert result.returncode == bool(found), result.stdout + result.stderr
    assert len(found) % 2 == 0
    return [f"{message} {page}" for message, page in zip(found[::2], found[1::2])]


Doctor = Callable[..., "list[str]"]


@pytest.fixture
def examine(tmp_path: Path) -> Doctor:
    """`examine(source, ...arguments)`: what is wrong with an application."""

    def examine(
        source: str, *arguments: str, config: str = "", target: str = "app", **options: object
    ) -> list[str]:
        (tmp_path / "app.py").write_text(source)
        (tmp_path / "gunicorn.conf.py").write_text(config)
        result = run(target, *arguments, cwd=tmp_path, **options)  # type: ignore[arg-type]
        return findings(result)

    return examine


# The application and its server


def test_all_is_well(examine: Doctor) -> None:
    assert examine(APP, *GEVENT) == []


@pytest.mark.parametrize(
    "arguments, environment",
    [((), ""), (("--worker-class", "sync"), "-k gevent"), ((), "-k sync"), (("-k", "nothing"), "")],
)
def test_the_worker_class(examine: Doctor, arguments: tuple[str, ...], environment: str) -> None:
    (found,) = examine(APP, *arguments, GUNICORN_CMD_ARGS=environment)
    assert "start gunicorn with -k gevent" in found
    assert found.endswith(" see docs/servers.md#which-servers")


def test_settings_come_from_where_gunicorn_has_them(examine: Doctor, tmp_path: Path) -> None:
    assert examine(APP, GUNICORN_CMD_ARGS="-k gevent") == []
    (tmp_path / "other.py").write_text("worker_class = 'gevent'\n")
    assert examine(APP, "--config", str(tmp_path / "other.py")) == []
    assert examine(APP, "-k", "gthread", "--threads", "4") == []


def test_gevent_websockets_worker(examine: Doctor) -> None:
    pytest.importorskip("geventwebsocket")
    (found,) = examine(APP, "-k", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker")
    assert "answers handshakes before the application does" in found


@pytest.mark.parametrize(
    "arguments, limit, needed",
    [
        (GEVENT, 1099, 1100),
        ((*GEVENT, "--worker-connections", "3997"), 4096, 4097),
        (("-k", "gthread", "--threads", "20"), 199, 200),
    ],
)
def test_descriptors(examine: Doctor, arguments: tuple[str, ...], limit: int, needed: int) -> None:
    (found,) = examine(APP, *arguments, limit=limit)
    assert f"may need {needed} descriptors, and ulimit -n is {limit}" in found
    assert examine(APP, *arguments, limit=needed) == []


@pytest.mark.parametrize(
    "source, text",
    [
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("raise SystemExit('no key')", "SystemExit: no key"),
        ("1 / 0", "app.py:1"),
        ("other = 1", "'application'"),
    ],
)
def test_an_application_that_cannot_be_imported(examine: Doctor, source: str, text: str) -> None:
    (found,) = examine(source, *GEVENT)
    assert found.startswith("the application cannot be imported: ") and text in found


def test_preloading(examine: Doctor) -> None:
    config = "preload_app = True\n"
    (found,) = examine(APP, *GEVENT, config=config)
    assert found.startswith("preload_app imports the application before gunicorn patches")
    assert examine(APP, *GEVENT, config=PATCH + config) == []
    assert examine(PATCH + APP, *GEVENT, config=config) == []
    partial = "from gevent import monkey; monkey.patch_all(time=False, ssl=False)\n"
    (found,) = examine(APP, *GEVENT, config=partial + config)
    assert found.startswith("monkey patching has left out ssl, time: ")


def test_it_starts_nothing_and_sees_the_environment(examine: Doctor, tmp_path: Path) -> None:
    config = (
        "raw_env = ['OF_CONFIG=1']\n"
        "def mark(server): open('marked', 'w')\n"
        "on_starting = when_ready = mark\n"
    )
    source = f"import os, threading\nassert os.environ['OF_CONFIG']\n{APP}"
    source += "assert threading.active_count() == 1\n"
    assert examine(source, *GEVENT, config=config) == []
    assert not (tmp_path / "marked").exists()


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([], "No application module specified"),
        (["app", "--config", "nowhere.py"], "nowhere.py"),
        (["app", "--nonsense"], "--nonsense"),
        (["app", "--workers", "many"], "workers"),
    ],
)
def test_arguments_that_gunicorn_refuses(arguments: list[str], text: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2 and text in result.stderr and not result.stdout


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--url", "ftp://example.com/"], "ftp"),
        (["--url", "ws://example.com/", "--wait", "0"], "--wait"),
        (["--url", "ws://example.com/", "--wait", "nan"], "--wait"),
        (["--url", "ws://example.com/", "--header", "Upgrade: x"], "Upgrade"),
        (["--url", "ws://example.com/", "--header", "Origin: x"], "Origin"),
        (["--url", "ws://example.com/", "--origin", "\n"], "Origin"),
        (["--url", "http://example.com/", "--header", "TE: x"], "TE"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", *arguments])
    captured = capsys.readouterr()
    assert caught.value.code == 2 and text in captured.err and not captured.out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--help"])
    assert caught.value.code == 0 and "exit status" in capsys.readouterr().out


# Channels

CHANNELS = "from faye_wsgi import Channels\nchannels = Channels({url!r}, timeout={timeout})\n" + APP


def test_memory_for_many_workers(examine: Doctor) -> None:
    source = CHANNELS.format(url="memory://", timeout=20)
    assert examine(source, *GEVENT) == []
    (found,) = examine(source, *GEVENT, "-w", "2")
    assert found.startswith("Channels('memory://') is for one process, and gunicorn has 2 workers")


def test_channels_of_a_factory_are_found(examine: Doctor) -> None:
    """And looking for them runs no code of other objects, some of which raise."""
    source = """\
from faye_wsgi import Channels

class Proxy:
    @property
    def __class__(self):
        raise RuntimeError("outside of a request")

proxy = Proxy()

def make():
    return Channels().view()
"""
    (found,) = examine(source, *GEVENT, "-w", "2", target="app:make()")
    assert found.startswith("Channels('memory://') is for one process")


def test_channels_of_a_django_project_are_found(examine: Doctor, tmp_path: Path) -> None:
    """In its URLs, which the import leaves for the first request."""
    (tmp_path / "urls.py").write_text(
        "from django.urls import path\n"
        "from faye_wsgi.django import Channels\n"
        "urlpatterns = [path('channels', Channels(secret='x').view())]\n"
    )
    source = """\
from django.conf import settings
from django.core.wsgi import get_wsgi_application

settings.configure(ROOT_URLCONF="urls", SECRET_KEY="x")
application = get_wsgi_application()
"""
    (found,) = examine(source, *GEVENT, "-w", "2")
    assert found.startswith("Channels('memory://') is for one process")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer(find_program("redis-server"), "--maxmemory", "100mb") as running:
        yield running


def test_the_eviction_policy_of_redis(examine: Doctor, redis: RedisServer) -> None:
    source = CHANNELS.format(url=redis.url, timeout=20)
    assert examine(source, *GEVENT, "-w", "2") == []
    redis.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    try:
        (found,) = examine(source, *GEVENT)
        assert "maxmemory-policy is volatile-ttl: set it to noeviction" in found
    finally:
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_a_broker_that_is_away_or_silent(examine: Doctor, redis: RedisServer) -> None:
    (found,) = examine(CHANNELS.format(url="redis://127.0.0.1:1/0", timeout=0.5), *GEVENT)
    assert "<Channels redis://> cannot ask its broker: " in found and "refused" in found
    with redis.paused():
        (found,) = examine(CHANNELS.format(url=redis.url, timeout=0.5), *GEVENT)
    assert "cannot ask its broker: " in found


# Through the public URL


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("gunicorn-gevent") as running:
        yield running


Proxy = Callable[..., "tuple[str, str]"]


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """`proxy(strips_upgrade, directives)` starts nginx: its URLs, of ws and http."""
    with contextlib.ExitStack() as stack:

        def start(**options: object) -> tuple[str, str]:
            made = stack.enter_context(nginx(find_program("nginx"), server, **options))  # type: ignore[arg-type]
            return f"ws://{made.host_header}", f"http://{made.host_header}"

        yield start


def look(url: str, *arguments: str, wait: str = "1") -> list[str]:
    return findings(run("--url", url, "--wait", wait, *arguments))


def test_a_proxy_as_in_the_handbook(proxy: Proxy) -> None:
    ws, http = proxy()
    app = ("tests.support.apps.wsgi_app", *GEVENT)
    assert look(f"{ws}/echo", "--url", f"{http}/es/waiting?ping=0.3", *app) == []


@pytest.mark.parametrize(
    "app", ["tests.cli.test_doctor:flask_app", "tests.cli.test_channels:application"]
)
def test_a_proxy_that_strips_upgrade_for(app: str) -> None:
    """Each answers an ordinary request in its way."""
    with serve("gunicorn-gevent", app) as running:
        with nginx(find_program("nginx"), running, strips_upgrade=True) as proxy:
            (found,) = look(f"ws://{proxy.host_header}/")
    assert "does not pass the header Upgrade" in found


def test_a_proxy_that_strips_upgrade(proxy: Proxy) -> None:
    ws, http = proxy(strips_upgrade=True)
    (found,) = look(f"{ws}/echo?token=secret")
    assert f"a proxy in front of {ws}/echo does not pass the header Upgrade" in found
    assert "secret" not in found and found.endswith(" see docs/proxies.md")
    assert look(f"{http}/es/waiting") == []


def test_a_proxy_that_buffers(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    buffering = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"
    ws, http = proxy(timeout=buffering)
    monkeypatch.setattr(public_url, "OPEN_TIMEOUT", 1.0)
    (found,) = check_url(f"{http}/es/waiting", origin=None, headers=[], wait=1)
    assert isinstance(found, Finding) and "came for 1 s: turn off the buffering" in found.message
    assert look(f"{ws}/echo") == []


def test_a_stream_that_is_silent_behind_its_beginning(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url("/es/waiting?ping=none")

    def watch(url: str, wait: float = 0.5) -> object:
        return list(check_url(url, origin=None, headers=[], wait=wait))[-1]

    assert isinstance(watch(url), str), "a ping may still come"
    monkeypatch.setattr(public_url, "PING", 0.4)
    assert isinstance(watch(url), Finding)
    assert isinstance(watch(server.url("/es/texts?retry=none"), wait=20), str), "it has ended"


def test_an_idle_limit_before_the_ping(proxy: Proxy) -> None:
    ws, _ = proxy(timeout="proxy_read_timeout 3s;")
    (found,) = look(f"{ws}/echo", wait="20")
    assert "without a message: set ping below the shortest idle limit" in found
    assert look(f"{ws}/echo?ping=0.2", wait="4") == []


def test_the_origin(server: Server) -> None:
    url = server.url("/echo", "ws")
    other = ("--origin", "https://other.example")
    (found,) = look(url, *other)
    assert found.startswith(f"a page of https://other.example may not connect to {url}: ")
    assert look(f"{url}?origins=https://other.example", *other) == []
    (found,) = look(f"{url}?origins=https://other.example")
    assert found.startswith(f"a page of http://{server.host_header} may not connect")


def test_a_close_of_the_application_is_no_finding(server: Server) -> None:
    assert look(server.url("/push?n=1&size=1", "ws"), wait="20") == []


def test_what_does_not_open(server: Server) -> None:
    (found,) = look(server.url("/nowhere", "ws"))
    assert "404" in found and "no such page" in found and "errors.md" in found
    (found,) = look(server.url("/plain"))
    assert "no event stream" in found
    (found,) = look("ws://127.0.0.1:1/")
    assert "refused" in found


def test_ctrl_c(server: Server) -> None:
    terminal = Terminal("doctor", "--url", server.url("/echo", "ws"), "--wait", "50")
    try:
        terminal.expect("opens for a page")
        terminal.process.send_signal(signal.SIGINT)
    finally:
        assert terminal.end() == 130
    assert "Traceback" not in terminal.text
