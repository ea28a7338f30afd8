"""What is measured. To add a scenario, add a line to SCENARIOS; loadgen.c says what a mode does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scenario:
    """One pattern of traffic."""

    key: str
    title: str
    mode: str = "echo"
    connections: int = 1
    size: int = 128
    window: int = 1
    binary: bool = False
    path: str = ""  # instead of the server's own path
    load: float = 0  # of what the server can do, at a steady rate; 0 is as fast as it goes
    options: tuple[str, ...] = ()  # more arguments for the load generator
    servers: tuple[str, ...] = ()  # only these, by name; empty is all that echo
    also: tuple[str, ...] = ()  # these, too
    baseline: str = "gevent recv/sendall"

    def arguments(self) -> list[str]:
        """The load generator's arguments for this scenario."""
        arguments = [
            "--mode",
            self.mode,
            "--connections",
            str(self.connections),
            "--size",
            str(self.size),
            "--window",
            str(self.window),
        ]
        arguments += ["--binary"] if self.binary else []
        arguments += ["--path", self.path] if self.path else []
        return arguments + list(self.options)


COMPRESSED = str(Path(__file__).resolve().parent / "build" / "message.deflate")
FEEDS = ("faye_wsgi feed", "Flask generator", "Node faye-websocket")
BROADCASTS = (
    "faye_wsgi, broadcast",
    "faye_wsgi, a loop of sends",
    "gevent-websocket",
    "flask-sock",
    "picows",
    "Node faye-websocket",
    "Node ws",
)
CLIENTS = (
    "faye_wsgi client",
    "websocket-client client",
    "websockets, sync, client",
    "websockets, asyncio, client",
    "aiohttp client",
    "picows client",
    "Node ws client",
)
UNDER_GUNICORN = (
    "gunicorn gevent, no library",
    "gunicorn gevent_pywsgi, no library",
    "faye_wsgi, gevent_pywsgi",
)
SECURE = ("faye_wsgi, wss", "gevent-websocket, wss", "flask-sock, wss", "uvicorn, wss")
CHANNELS = (
    "faye_wsgi, channels",
    "faye_wsgi, channels, Postgres",
    "Flask-SocketIO",
    "Django Channels",
    "Django Channels, Pub/Sub",
    "Django Channels, daphne",
    "Node Socket.IO",
)
PUBLISHERS = (
    "faye_wsgi publish",
    "faye_wsgi publish, Postgres",
    "faye_wsgi publish, durable",
)
DEFLATE = (
    "faye_wsgi, deflate",
    "uvicorn, deflate",
    "websockets, asyncio, deflate",
    "Node ws, deflate",
)

SCENARIOS = (
    Scenario("a", "1 connection, 32 bytes, one in flight", size=32),
    Scenario(
        "b",
        "100 connections, 128 bytes, one in flight",
        connections=100,
        also=("faye_wsgi, metrics",),
    ),
    Scenario("c", "100 connections, 128 bytes, 16 in flight", connections=100, window=16),
    Scenario(
        "d", "10 connections, 16 KiB binary, one in flight", connections=10, size=16384, binary=True
    ),
    Scenario(
        "e", "4 connections, 1 MiB binary, one in flight", connections=4, size=1 << 20, binary=True
    ),
    Scenario(
        "f",
        "connect, echo one message, close; 16 at a time",
        mode="churn",
        connections=16,
        also=UNDER_GUNICORN,
    ),
    Scenario("g", "memory of 2,000 idle connections", mode="idle", connections=2000),
    Scenario(
        "h",
        "EventSource: events of 100 bytes on one connection, as fast as they go",
        mode="receive",
        options=("--events",),
        path="/feed",
        servers=FEEDS,
        baseline="gevent feed",
    ),
    Scenario(
        "i",
        "one message of 128 bytes to 1,000 receivers, one in flight",
        mode="receive",
        connections=1000,
        options=("--publish",),
        path="/broadcast",
        servers=BROADCASTS,
        baseline="C broadcast",
    ),
    Scenario(
        "i16",
        "one message of 128 bytes to 1,000 receivers, 16 in flight",
        mode="receive",
        connections=1000,
        window=16,
        options=("--publish",),
        path="/broadcast",
        servers=BROADCASTS,
        baseline="C broadcast",
    ),
    Scenario(
        "i10",
        "one message of 128 bytes to 10,000 receivers, one in flight",
        mode="receive",
        connections=10000,
        options=("--publish",),
        path="/broadcast",
        servers=BROADCASTS,
        baseline="C broadcast",
    ),
    Scenario("g10", "memory of 10,000 idle connections", mode="idle", connections=10000),
    Scenario(
        "j",
        "a client: 16 messages of 128 bytes in flight on one connection",
        mode="client",
        window=16,
        servers=CLIENTS,
        baseline="gevent recv/sendall client",
    ),
    Scenario(
        "j1",
        "a client: one message of 128 bytes in flight on one connection",
        mode="client",
        servers=CLIENTS,
        baseline="gevent recv/sendall client",
    ),
    Scenario(
        "k",
        "wss: 100 connections, 128 bytes, one in flight",
        connections=100,
        servers=SECURE,
        baseline="gevent recv/sendall, TLS",
    ),
    Scenario(
        "l",
        "permessage-deflate: 100 connections, 1 KiB of JSON, one in flight "
        "(the yardstick: uncompressed)",
        connections=100,
        size=1024,
        options=("--deflate", COMPRESSED),
        servers=DEFLATE,
    ),
    Scenario(
        "m",
        "channels: one message of 128 bytes to 1,000 subscribers in 2 workers, one in flight",
        mode="receive",
        connections=1000,
        options=("--publish",),
        servers=CHANNELS,
        baseline="faye_wsgi, broadcast",
    ),
    Scenario(
        "m20",
        "channels: the same at 20 % of what each server can do with its processor",
        mode="receive",
        connections=1000,
        load=0.2,
        options=("--publish",),
        servers=CHANNELS,
        baseline="faye_wsgi, broadcast",
    ),
    *(
        Scenario(
            f"m{rate}r",
            f"channels: the same, {rate} messages a second",
            mode="receive",
            connections=1000,
            options=("--publish", "--rate", str(rate)),
            servers=CHANNELS,
            baseline="faye_wsgi, broadcast",
        )
        for rate in (2, 30)
    ),
    Scenario(
        "me",
        "channels: one event of 128 bytes to 999 EventSources in 2 workers, one in flight",
        mode="receive",
        connections=1000,
        options=("--publish", "--events"),
        servers=("django-eventstream",),
        baseline="faye_wsgi, channels, EventSource",
    ),
    Scenario(
        "mg",
        "channels: memory of 2,000 idle connections with a subscription each",
        mode="idle",
        connections=2000,
        servers=("faye_wsgi, subscribed",),
        baseline="faye_wsgi, events",
    ),
    Scenario(
        "n",
        "channels: a process publishes 128 bytes, one after the other",
        mode="client",
        servers=PUBLISHERS,
        baseline="redis-py PUBLISH + XADD",
    ),
    Scenario(
        "n100",
        "channels: a process publishes 128 bytes from 100 greenlets",
        mode="client",
        window=100,
        servers=PUBLISHERS,
        baseline="redis-py PUBLISH + XADD",
    ),
    Scenario(
        "o",
        "channels: a deploy with 5,000 clients, two workers replaced by two",
        mode="deploy",
        connections=5000,
        servers=(
            "faye_wsgi, resumed",
            "faye_wsgi, resumed, one channel each",
            "faye_wsgi, resumed, with presence",
        ),
        baseline="faye_wsgi, connected again",
    ),
)
