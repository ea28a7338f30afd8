"""The views: a room over WebSockets, and what was said in it as JSON."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.urls import path

from faye_wsgi import WebSocket
from faye_wsgi.django import Channels, websocket

channels = Channels()


@websocket(ping=25, max_length=2**16)
def room(request: HttpRequest, ws: WebSocket, name: str) -> None:
    """What one member says, all of them get; who comes gets the last ten messages."""
    with channels.subscribe(ws, f"room:{name}", last=10):
        for text in ws:
            channels.publish(f"room:{name}", text)


def history(request: HttpRequest, name: str) -> JsonResponse:
    messages = channels.history(f"room:{name}")
    return JsonResponse({"messages": [message.data for message in messages]})


urlpatterns = [path("rooms/<slug:name>", room), path("rooms/<slug:name>/history", history)]
