"""Django Channels with channels_redis: a group, to which everybody's messages go."""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

LAYER = os.environ.get("CHANNEL_LAYER", "channels_redis.core.RedisChannelLayer")
# redis-py 8 waits for 5 s and opens 100 connections by default. The core layer waits for 5 s in
# Redis itself, and takes a connection for each subscriber that joins at the same time.
HOST = {"address": os.environ["CHANNELS_URL"], "socket_timeout": 30, "max_connections": 5000}
settings.configure(
    ALLOWED_HOSTS=["*"],
    CHANNEL_LAYERS={"default": {"BACKEND": LAYER, "CONFIG": {"hosts": [HOST]}}},
    ROOT_URLCONF=(),
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402


class Broadcast(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add("all", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("all", self.channel_name)

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        await self.channel_layer.group_send("all", {"type": "to.all", "text": text_data})

    async def to_all(self, event: Any) -> None:
        await self.send(text_data=event["text"])


application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("broadcast", Broadcast.as_asgi())]),
    }
)
