"""The servers under test, and how each is started.

A server is a small file in the folder `servers`, and a line here. `Server.start` is its command;
{port} and {python} are filled in, {python} with this interpreter, or for a peer with that of the
environment that the driver makes in `.peers`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "servers"
CLIENTS = HERE / "clients"
BUILD = HERE / "build"
PEERS = HERE / ".peers"
PEER_PYTHON = PEERS / "venv" / "bin" / "python"

BASELINE = "gevent recv/sendall"


@dataclass(frozen=True)
class Server:
    """A server that echoes, and what it needs."""

    name: str
    start: str
    path: str = "/echo"
    raw: bool = False  # plain TCP, no WebSocket
    tls: bool = False
    socketio: bool = False  # Socket.IO over WebSocket
    client: str = ""  # the command of a client, which is measured instead
    peer: bool = False  # measured with --peers only
    check: tuple[str, ...] = ()  # for the load generator: how to see that it answers
    special: bool = False  # only for the scenarios that name it
    environment: tuple[tuple[str, str], ...] = ()
    modules: tuple[str, ...] = ()  # must be importable here
    pip: tuple[str, ...] = ()  # installed into the peers' environment
    npm: tuple[str, ...] = ()  # installed into the peers' folder

    def command(self, port: int) -> list[str]:
        """The words of the command that serves on `port`."""
        # With a client, the server is ours, and the environment of the peers is the client's.
        return self._words(self.start, port, bool(self.pip) and not self.client)

    def client_command(self, port: int) -> list[str]:
        """The words of the command of the client."""
        return self._words(self.client, port, bool(self.pip))

    def _words(self, command: str, port: int, of_peers: bool) -> list[str]:
        python = str(PEER_PYTHON) if of_peers else sys.executable
        values = {"port": port, "python": python, "build": BUILD}
        return [word.format(**values) for word in command.split()]


def gunicorn(worker: str, application: str, more: str = "") -> str:
    """The command for one gunicorn worker; its limit on connections must not be what is found."""
    return (
        "{python} -m gunicorn --bind 127.0.0.1:{port} --workers 1 --worker-connections 20000 "
        f"--backlog 2048 --log-level warning --worker-class {worker} {more} {application}"
    )


WITH_REDIS = "{python} with_redis.py {port} "
WITH_POSTGRES = "{python} with_postgres.py {port} "
TWICE = "{python} twice.py {port} "


def with_redis(application: str, workers: int, beside: str = WITH_REDIS) -> str:
    """The command for gunicorn's workers with a Redis, or what else, beside them."""
    command = gunicorn("gevent", application, "--keep-alive 75").replace(
        "--workers 1", f"--workers {workers}"
    )
    return beside + command


FEED: dict[str, Any] = {"path": "/feed", "check": ("--mode", "receive", "--events")}
CHANNEL_EVENTS: dict[str, Any] = {
    "path": "/events",
    "special": True,
    "check": ("--mode", "receive", "--events", "--publish", "--connections", "2"),
}
GUNICORN = ("gevent", "gunicorn[gevent]")
FLASK = ("flask", "gevent", "gunicorn", "faye_wsgi")
WORKER = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"

CERTIFICATE = "--certfile {build}/cert.pem --keyfile {build}/key.pem"
UVICORN = (
    "{python} -m uvicorn --host 127.0.0.1 --port {port} --log-level warning "
    "--backlog 2048 --ws-ping-interval 3600 --loop asyncio --http h11 peer_uvicorn:application "
    "--ws-per-message-deflate "
)
UVLOOP = ("uvicorn[standard]", "websockets")
TWO_UVICORNS = (
    "{python} -m uvicorn --host 127.0.0.1 --port {port} --log-level warning --backlog 2048 "
    "--ws-ping-interval 3600 --timeout-keep-alive 75 --workers 2"
)
TWO_DAPHNES = (
    TWICE + "{python} -m daphne --verbosity 0 --fd {{fd}} --ping-interval 3600 "
    "--websocket_connect_timeout 60"
)
SOCKETIO: dict[str, Any] = {
    "path": "/socket.io/?EIO=4&transport=websocket",
    "socketio": True,
    "special": True,
    "peer": True,
}


def client(name: str, command: str, **values: Any) -> Server:
    """A client under test: it echoes with faye_wsgi's server."""
    values.setdefault("modules", FLASK)
    return Server(
        f"{name} client", gunicorn("gevent", "ours:app"), client=command, special=True, **values
    )


def publisher(name: str, kind: str, beside: str = WITH_REDIS, module: str = "redis") -> Server:
    """A publisher under test: its Redis, or Postgres, is the one beside a server."""
    return Server(
        name,
        with_redis("ours:app", 1, beside),
        client="{python} publish.py " + kind + " {port}",
        special=True,
        modules=(*FLASK, module),
    )


def deployed(name: str, path: str) -> Server:
    """Two workers that are replaced while clients are connected."""
    return Server(
        name,
        with_redis("ours_channels:app", 2),
        client="{python} deploy.py {port} " + path,
        special=True,
        modules=(*FLASK, "redis"),
        check=("--path", "/subscribed"),
    )


def django_channels(name: str, start: str, layer: str, *pip: str) -> Server:
    """Django Channels in two processes, with one of the two layers of channels_redis."""
    return Server(
        name,
        WITH_REDIS + start + " peer_channels:application",
        path="/broadcast",
        special=True,
        peer=True,
        pip=("django", "channels", "channels_redis", *pip),
        environment=(("CHANNEL_LAYER", f"channels_redis.{layer}"),),
    )


SERVERS = (
    Server(BASELINE, "{python} raw_gevent.py {port}", raw=True, modules=("gevent",)),
    Server("faye_wsgi, blocking", gunicorn("gevent", "ours:app"), modules=FLASK),
    Server("faye_wsgi, events", gunicorn("gevent", "ours:app"), path="/events", modules=FLASK),
    Server(
        "faye_wsgi, pure",
        gunicorn("gevent", "ours:app"),
        modules=FLASK,
        environment=(("FAYE_WSGI_PURE", "1"),),
    ),
    Server(
        "faye_wsgi, metrics",
        gunicorn("gevent", "ours_metrics:app"),
        special=True,
        modules=(*FLASK, "prometheus_client"),
    ),
    Server("faye_wsgi, plain WSGI", gunicorn("gevent", "ours:application"), modules=FLASK),
    Server("faye_wsgi feed", gunicorn("gevent", "ours:app"), special=True, modules=FLASK, **FEED),
    Server(
        "faye_wsgi, broadcast",
        gunicorn("gevent", "ours:app"),
        path="/broadcast",
        special=True,
        modules=FLASK,
    ),
    Server(
        "faye_wsgi, a loop of sends",
        gunicorn("gevent", "ours_loop:app"),
        path="/broadcast",
        special=True,
        modules=FLASK,
    ),
    Server(
        "gevent feed",
        "{python} raw_gevent.py {port} feed",
        special=True,
        modules=("gevent",),
        **FEED,
    ),
    Server(
        "Flask generator", gunicorn("gevent", "peer_flask:app"), special=True, modules=FLASK, **FEED
    ),
    Server(
        "faye_wsgi, gevent_pywsgi",
        gunicorn("gevent_pywsgi", "ours:application"),
        special=True,
        modules=FLASK,
    ),
    Server(
        "gunicorn gevent, no library",
        gunicorn("gevent", "raw_gunicorn:application"),
        special=True,
        modules=FLASK,
    ),
    Server(
        "gunicorn gevent_pywsgi, no library",
        gunicorn("gevent_pywsgi", "raw_gunicorn:application"),
        special=True,
        modules=FLASK,
    ),
    Server("C broadcast", "{build}/echo {port} broadcast", raw=True, special=True),
    Server("C epoll, no WebSocket", "{build}/echo {port}", raw=True, peer=True),
    Server(
        "gevent-websocket",
        gunicorn(WORKER, "peer_gevent_websocket:application"),
        peer=True,
        pip=(*GUNICORN, "gevent-websocket", "wsaccel"),
    ),
    Server(
        "flask-sock",
        gunicorn("gevent", "peer_flask_sock:app"),
        peer=True,
        pip=(*GUNICORN, "flask", "flask-sock"),
    ),
    Server(
        "websockets, sync",
        "{python} peer_websockets_sync.py {port}",
        peer=True,
        pip=("websockets",),
    ),
    Server(
        "websockets, asyncio",
        "{python} peer_websockets_asyncio.py {port}",
        peer=True,
        pip=("websockets",),
    ),
    Server("uvicorn", UVICORN + "false", peer=True, pip=("uvicorn", "websockets")),
    Server("aiohttp", "{python} peer_aiohttp.py {port}", peer=True, pip=("aiohttp",)),
    Server("picows", "{python} peer_picows.py {port}", peer=True, pip=("picows",)),
    Server(
        "Node faye-websocket",
        "node peer_faye_websocket.js {port}",
        peer=True,
        npm=("faye-websocket",),
    ),
    Server("Node ws", "node peer_ws.js {port}", peer=True, npm=("ws",)),
    # Channels
    Server(
        "faye_wsgi, channels",
        with_redis("ours_channels:app", 2),
        path="/broadcast",
        special=True,
        modules=(*FLASK, "redis"),
    ),
    Server(
        "faye_wsgi, channels, Postgres",
        with_redis("ours_channels:app", 2, WITH_POSTGRES),
        path="/broadcast",
        special=True,
        modules=(*FLASK, "psycopg"),
    ),
    Server(
        "Flask-SocketIO",
        WITH_REDIS
        + TWICE
        + gunicorn(WORKER, "peer_flask_socketio:app").replace("127.0.0.1:{port}", "fd://{{fd}}"),
        pip=(*GUNICORN, "flask-socketio", "redis", "gevent-websocket", "wsaccel"),
        **SOCKETIO,
    ),
    django_channels("Django Channels", TWO_UVICORNS, "core.RedisChannelLayer", *UVLOOP),
    django_channels(
        "Django Channels, Pub/Sub", TWO_UVICORNS, "pubsub.RedisPubSubChannelLayer", *UVLOOP
    ),
    django_channels("Django Channels, daphne", TWO_DAPHNES, "core.RedisChannelLayer", "daphne"),
    Server(
        "faye_wsgi, channels, EventSource",
        with_redis("ours_channels:app", 2),
        modules=(*FLASK, "redis"),
        **CHANNEL_EVENTS,
    ),
    Server(
        "django-eventstream",
        WITH_REDIS + TWO_UVICORNS + " peer_eventstream:application",
        peer=True,
        pip=("django", "django-eventstream", "redis", *UVLOOP),
        **CHANNEL_EVENTS,
    ),
    Server(
        "Node Socket.IO",
        WITH_REDIS + "node peer_socketio.js {port}",
        npm=("socket.io", "@socket.io/redis-adapter", "redis"),
        **SOCKETIO,
    ),
    Server(
        "faye_wsgi, subscribed",
        with_redis("ours_channels:app", 2),
        path="/subscribed",
        special=True,
        modules=(*FLASK, "redis"),
    ),
    deployed("faye_wsgi, resumed", "/resume"),
    deployed("faye_wsgi, resumed, one channel each", "/resume_own"),
    deployed("faye_wsgi, resumed, with presence", "/resume_present"),
    deployed("faye_wsgi, connected again", "/connect"),
    publisher("faye_wsgi publish", "ours"),
    publisher("redis-py PUBLISH + XADD", "bare"),
    publisher("faye_wsgi publish, Postgres", "postgres", WITH_POSTGRES, "psycopg"),
    publisher("faye_wsgi publish, durable", "durable", WITH_POSTGRES, "psycopg"),
    # wss
    Server(
        "gevent recv/sendall, TLS",
        "{python} raw_gevent.py {port} tls {build}/cert.pem {build}/key.pem",
        raw=True,
        tls=True,
        special=True,
        modules=("gevent",),
    ),
    Server(
        "faye_wsgi, wss",
        gunicorn("gevent", "ours:app", CERTIFICATE),
        tls=True,
        special=True,
        modules=FLASK,
    ),
    Server(
        "gevent-websocket, wss",
        gunicorn(WORKER, "peer_gevent_websocket:application", CERTIFICATE),
        tls=True,
        special=True,
        peer=True,
        pip=(*GUNICORN, "gevent-websocket", "wsaccel"),
    ),
    Server(
        "flask-sock, wss",
        gunicorn("gevent", "peer_flask_sock:app", CERTIFICATE),
        tls=True,
        special=True,
        peer=True,
        pip=(*GUNICORN, "flask", "flask-sock"),
    ),
    Server(
        "uvicorn, wss",
        UVICORN + "false --ssl-certfile {build}/cert.pem --ssl-keyfile {build}/key.pem",
        tls=True,
        special=True,
        peer=True,
        pip=("uvicorn", "websockets"),
    ),
    # permessage-deflate
    Server(
        "faye_wsgi, deflate",
        gunicorn("gevent", "ours:app"),
        path="/deflate",
        special=True,
        modules=FLASK,
    ),
    Server(
        "uvicorn, deflate", UVICORN + "true", special=True, peer=True, pip=("uvicorn", "websockets")
    ),
    Server(
        "websockets, asyncio, deflate",
        "{python} peer_websockets_asyncio.py {port} deflate",
        special=True,
        peer=True,
        pip=("websockets",),
    ),
    Server(
        "Node ws, deflate", "node peer_ws.js {port} deflate", special=True, peer=True, npm=("ws",)
    ),
    # Clients
    Server(
        "gevent recv/sendall client",
        "{build}/echo {port}",
        raw=True,
        special=True,
        client="{python} raw.py {port}",
        modules=("gevent",),
    ),
    client("faye_wsgi", "{python} ours.py {port}"),
    client(
        "websocket-client",
        "{python} peer.py websocket-client {port}",
        peer=True,
        pip=("websocket-client", "wsaccel"),
    ),
    client(
        "websockets, sync,",
        "{python} peer.py websockets-sync {port}",
        peer=True,
        pip=("websockets",),
    ),
    client(
        "websockets, asyncio,",
        "{python} peer.py websockets-asyncio {port}",
        peer=True,
        pip=("websockets",),
    ),
    client("aiohttp", "{python} peer.py aiohttp {port}", peer=True, pip=("aiohttp",)),
    client("picows", "{python} peer.py picows {port}", peer=True, pip=("picows",)),
    client("Node ws", "node peer_ws.js {port}", peer=True, npm=("ws",)),
)
