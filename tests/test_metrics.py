"""Metrics from end to end: one process, several workers, statsd, and what channels count."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from faye_wsgi import Channels, Client, EventSource, WebSocket, metrics
from faye_wsgi.brokers.memory import MemoryBroker
from faye_wsgi.errors import BrokerError, HandshakeError, PublishError
from faye_wsgi.transport import served, tally

from .delivery.test_outlets import item, made
from .delivery.test_relay import end, join, make
from .support.metrics import Recorder, parse, recording
from .support.servers import Server, serve
from .support.waiting import wait_until
from .test_channels import Got
from .test_readme import ROOT, write
from .test_websocket import make_environ
from .transport.harness import until
from .wsgi.test_admission import Anything

APP = "tests.support.apps.measured:application"
PAGE = ROOT / "docs/metrics.md"
DASHBOARD = ROOT / "docs/grafana.json"
ROUTE = 'kind="websocket",route="/rooms/<room>"'


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recording() as made:
        yield made


def scrape(server: Server) -> dict[str, float]:
    status, body = server.get("/metrics")
    assert status == 200, server.log()
    return parse(body.decode())


# Prometheus


def test_one_process() -> None:
    pytest.importorskip("prometheus_client")
    with serve("gunicorn-gevent", APP) as server:
        with Client(server.url("/rooms/7", "ws")) as ws:
            ws.receive(10)
            ws.send("hello")
            assert ws.receive(10) == "hello"
            seen = scrape(server)
            assert seen[f"faye_wsgi_connections{{{ROUTE}}}"] == 1
            assert seen[f'faye_wsgi_messages_total{{direction="in",{ROUTE}}}'] == 1
            assert seen[f'faye_wsgi_messages_total{{direction="out",{ROUTE}}}'] == 2
            # A hub is looked at while it has connections.
            wait_until(lambda: scrape(server)["faye_wsgi_hub_lag_seconds_count"])
        origin = {"Origin": "https://evil.example"}
        with pytest.raises(HandshakeError):
            Client(server.url("/rooms/8", "ws"), headers=origin).wait_open()
        seen = wait_until(
            lambda: (now := scrape(server))[f"faye_wsgi_connections{{{ROUTE}}}"] == 0 and now
        )
        assert seen[f'faye_wsgi_closed_total{{code="1000",{ROUTE}}}'] == 1
        refused = 'kind="websocket",reason="origin",route="/rooms/<room>"'
        assert seen[f"faye_wsgi_refused_total{{{refused}}}"] == 1


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_workers_that_end(tmp_path: Path, options: tuple[str, ...]) -> None:
    """The figures of all workers, also of those that have gone; connections of the living."""
    pytest.importorskip("prometheus_client")
    write(PAGE, tmp_path, "app.py", "gunicorn.conf.py")
    (tmp_path / "tested.py").write_text(
        "from tests.support.apps import measured\n"
        "from app import app as application\n"
        "for rule, view in (('/tested/<room>', measured.room), ('/__ready__', measured.ready)):\n"
        "    application.add_url_rule(rule, f'tested {rule}', view, websocket='room' in rule)\n"
    )
    files = tmp_path / "metrics"
    files.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(
            serve(
                "gunicorn-gevent",
                "tested:application",
                workers=2,
                options=("-c", str(tmp_path / "gunicorn.conf.py"), *options),
                env={"PROMETHEUS_MULTIPROC_DIR": str(files)},
                cwd=tmp_path,
            )
        )
        workers: Counter[int] = Counter()
        while len(workers) < 2:
            assert sum(workers.values()) < 500, "one worker takes all connections"
            ws = stack.enter_context(Client(server.url("/tested/7", "ws")))
            workers[int(ws.receive(10))] += 1
        total = sum(workers.values())
        _await(server, {"connections": total, "opened_total": total})
        ended, killed = workers
        os.kill(ended, signal.SIGTERM)
        _await(server, {"connections": workers[killed], "opened_total": total})
        # What it has counted in its last moment is there.
        _await(server, {'closed_total{code="1001",': workers[ended]})
        os.kill(killed, signal.SIGKILL)
        _await(server, {"connections": 0, "opened_total": total})
        assert "metrics could not be reported" not in server.log()


def _await(server: Server, expected: dict[str, int]) -> None:
    seen: dict[str, float] = {}

    def is_so() -> bool:
        # A worker may just have ended, or prometheus_client have made a file with nothing in it.
        with suppress(OSError, AssertionError):
            seen.update(scrape(server))
        return all(seen.get(_full(name), 0) == value for name, value in expected.items())

    try:
        until(is_so, 30)  # in the hub: the clients answer meanwhile
    except AssertionError:
        ours = {name: value for name, value in seen.items() if "faye_wsgi" in name}
        raise AssertionError(f"{expected} is not in {ours}\n{server.log()}") from None


def _full(name: str) -> str:
    labels = ROUTE.replace("rooms", "tested")
    return f"faye_wsgi_{name}{labels}}}" if "{" in name else f"faye_wsgi_{name}{{{labels}}}"


# statsd


def test_statsd() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(30)
        host = ":".join(map(str, listener.getsockname()))
        with serve("gunicorn-gevent", APP, options=("--statsd-host", host)) as server:
            with Client(server.url("/rooms/7", "ws")) as ws:
                ws.receive(10)
                name = "faye_wsgi.{}.websocket.rooms_room"
                missing = {
                    f"{name.format('connections')}:+1|g",
                    f"{name.format('opened')}:1|c",
                    f"{name.format('messages')}.out:1|c",
                }
                _receive(listener, missing)
            missing = {f"{name.format('connections')}:-1|g", f"{name.format('closed')}.1000:1|c"}
            _receive(listener, missing)


def _receive(listener: socket.socket, missing: set[str]) -> None:
    while missing:
        missing.discard(listener.recv(1000).decode().replace("|@1.0", ""))


# enable


@pytest.fixture
def disabled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(metrics, "_enabled", [])
    yield
    for reporter in metrics._enabled:
        tally.turn_off(reporter)


def test_it_says_where_metrics_go_nowhere(
    disabled: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    metrics.enable()
    assert "metrics go nowhere" in caplog.text
    assert tally.is_on


def test_a_second_call_does_nothing(disabled: None) -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    metrics.enable(registry=registry)
    metrics.enable(registry=registry)  # a registry would refuse the same metrics
    tally.count(tally.RECONNECTS)
    assert registry.get_sample_value("faye_wsgi_broker_reconnects_total") == 1


# What is refused


def test_refusals(recorder: Recorder) -> None:
    WebSocket(make_environ(None, HTTP_SEC_WEBSOCKET_KEY="short"))
    WebSocket(make_environ(None, HTTP_SEC_WEBSOCKET_VERSION="7"))
    one = Anything()
    served.enter(one, [("address", "192.0.2.1")])
    WebSocket(make_environ(None), max_connections=1)
    EventSource(make_environ(None), max_connections=1)
    WebSocket(make_environ(None, REMOTE_ADDR="192.0.2.1"), max_per_address=1)
    served.leave(one)
    for kind, reason in (
        ("websocket", "handshake"),
        ("websocket", "upgrade"),
        ("websocket", "full"),
        ("websocket", "share"),
        ("eventsource", "full"),
    ):
        assert recorder["refused", kind, "", reason] == 1
    assert recorder["opened", "websocket", ""] == 0


# Channels


def test_publications_and_recoveries(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = Channels(history=1)
    cursor = channels.publish("room", 1)
    for number, result in enumerate(("complete", "reset")):
        channels.publish("room", number)
        with channels.subscribe(Got(), "room", since=cursor):
            assert recorder["recoveries", result] == 1
    assert recorder["publications", "taken"] == 3

    def fail(*args: Any, **options: Any) -> None:
        raise PublishError("the broker is away")

    monkeypatch.setattr(MemoryBroker, "publish", fail)
    with pytest.raises(PublishError):
        channels.publish("room", 9)
    assert recorder["publications", "failed"] == 1


@pytest.mark.parametrize("slow", ["close", "reset", "latest"])
def test_slow_subscribers(recorder: Recorder, slow: Any) -> None:
    target, outlet = made(slow, high_water=100)
    target.has_room = False
    outlet.push(item(1))
    assert recorder["slow_subscribers", "websocket", slow] == 0
    outlet.push(item(2, size=60))
    assert recorder["slow_subscribers", "websocket", slow] == 1


def test_a_feed_that_is_opened_again(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, relay = make()
    answers: list[Any] = [BrokerError("the broker is away")]

    def beat() -> int:
        if answers:
            raise answers.pop()
        return 1

    monkeypatch.setattr(broker, "beat", beat)
    outlet, wanted = join(relay)
    assert wanted.wait(30)
    wait_until(lambda: recorder["broker_reconnects",] == 1)
    end(relay, outlet)
    assert recorder["broker_reconnects",] == 1, "the first feed was opened, and not again"


# The page and the dashboard


SERIES = {
    f"faye_wsgi_{metric.name}{ending}": {*metric.labels, *more}
    for metric in tally.METRICS
    for ending, more in {
        "counter": [("_total", ())],
        "gauge": [("", ())],
        "histogram": [("_bucket", ("le",))],
    }[metric.kind]
}


def fault(expression: str) -> str:
    """What is wrong with a query; '' for nothing. It names one metric, or the same in a ratio."""
    names = set(re.findall(r"faye_wsgi_\w+", expression))
    if not names or not names <= SERIES.keys():
        return f"there is no metric of these: {names}"
    known = set.union(*(SERIES[name] for name in names))
    used = re.findall(r"(\w+)\s*=~?", expression)
    used += [one for group in re.findall(r"by \((.*?)\)", expression) for one in group.split(", ")]
    return "" if known.issuperset(used) else f"{names} have {known}, and not all of {used}"


def dashboard_queries() -> list[tuple[str, str]]:
    """The query of each line, and its legend."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    return [(one["expr"], one["legendFormat"]) for panel in panels for one in panel["targets"]]


@pytest.mark.parametrize("query, legend", dashboard_queries())
def test_the_dashboard_shows_what_there_is(query: str, legend: str) -> None:
    assert not fault(query)
    kept = {one for group in re.findall(r"by \((.*?)\)", query) for one in group.split(", ")}
    assert kept >= set(re.findall(r"{{(\w+)}}", legend))


def test_the_dashboard_shows_everything() -> None:
    shown = " ".join(query for query, _ in dashboard_queries())
    assert [name for name in SERIES if name not in shown] == []


def test_a_wrong_query_is_found() -> None:
    assert fault("rate(faye_wsgi_messages[5m])")
    assert fault('rate(faye_wsgi_messages_total{path="/"}[5m])')
    assert fault("sum by (route) (faye_wsgi_publications_total)")


def test_the_page_has_all_metrics_and_labels() -> None:
    rows = re.findall(r"^\| `(faye_wsgi_\w+)` \| (\w+) \| (.*?) \|", PAGE.read_text("utf-8"), re.M)
    listed = {(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert listed == {
        (
            f"faye_wsgi_{metric.name}{'_total' if metric.kind == 'counter' else ''}",
            metric.kind,
            metric.labels,
        )
        for metric in tally.METRICS
    }


def test_the_alerts_name_what_there_is() -> None:
    section = PAGE.read_text("utf-8").partition("## What to watch")[2]
    alerts = re.findall(r"^\|.*\| `(.*)` \|$", section, re.MULTILINE)
    assert len(alerts) == 5
    assert [fault(alert) for alert in alerts] == [""] * 5
