"""The application that a round serves: a WebSocket or an EventSource for channels, and a POST.

`/channels?channel=…&channel=…&since=…&member=…` subscribes, and enters the member in the lobby;
when it has, it says so with `started`. A WebSocket may send `{"add": channel, "since": cursor}`,
which is answered so, too, and `{"remove": channel}`.
`POST /publish?channel=…&value=…&key=…` publishes the body.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any, Callable
from urllib.parse import parse_qs

from gevent.util import format_run_info

from faye_wsgi import Channels, EventSource, WebSocket
from faye_wsgi.errors import BrokerError, ConnectionClosed, PublishError

StartResponse = Callable[..., Any]

LOBBY = "lobby"

channels = Channels(os.environ["SOAK_URL"], **json.loads(os.environ["SOAK_OPTIONS"]))


def say_where(*_: Any) -> None:
    """Tell where all threads and greenlets are."""
    sys.stderr.write("\n".join(format_run_info()) + "\n")


signal.signal(signal.SIGTRAP, say_where)


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    values = parse_qs(environ["QUERY_STRING"])
    if WebSocket.is_websocket(environ):
        return websocket(environ, start_response, values)
    if EventSource.is_eventsource(environ):
        return eventsource(environ, start_response, values)
    if environ["PATH_INFO"] == "/publish":
        return publish(environ, start_response, values)
    return answer(start_response, "404 Not Found", "")


def started(subscription: Any, recovered: bool | None, **more: Any) -> str:
    return json.dumps({"started": subscription.cursor, "recovered": recovered, **more})


def enter(connection: Any, values: Any) -> None:
    """Let a member be present."""
    for member in values.get("member", ()):
        channels.subscribe(connection, LOBBY, presence={"id": member})


def obey(subscription: Any, order: Any) -> str | None:
    """Add or remove a channel; what there is to say."""
    if "remove" in order:
        subscription.remove(order["remove"])
        return None
    recovered = subscription.add(order["add"], since=order["since"])
    return started(subscription, recovered, added=order["add"])


def websocket(environ: Any, start_response: StartResponse, values: Any) -> Iterable[bytes]:
    ws = WebSocket(environ)
    since = values.get("since", [None])[0]
    try:
        with channels.subscribe(ws, values["channel"], since=since) as subscription:
            enter(ws, values)
            ws.send(started(subscription, subscription.recovered))
            for text in ws:
                if said := obey(subscription, json.loads(text)):
                    ws.send(said)
    except BrokerError:
        ws.close(1013, "no broker")
    except ConnectionClosed:
        pass
    result: Iterable[bytes] = ws.response(environ, start_response)
    return result


def eventsource(environ: Any, start_response: StartResponse, values: Any) -> Iterable[bytes]:
    es = EventSource(environ)
    try:
        subscription = channels.subscribe(es, values["channel"], since=es.last_event_id)
        enter(es, values)
        es.send(started(subscription, subscription.recovered))
    except BrokerError:
        es.close()
    except ConnectionClosed:
        pass
    result: Iterable[bytes] = es.response(environ, start_response)
    return result


def publish(environ: Any, start_response: StartResponse, values: Any) -> Iterable[bytes]:
    data = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    key = values.get("key", [None])[0]
    try:
        cursor = channels.publish(values["channel"][0], data, key=key)
    except PublishError as error:
        return answer(start_response, "503 Service Unavailable", str(error))
    return answer(start_response, "200 OK", cursor)


def answer(start_response: StartResponse, status: str, text: str) -> list[bytes]:
    body = text.encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
