"""django-eventstream with its Redis: one channel, to which a view publishes."""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import include, path

settings.configure(
    ALLOWED_HOSTS=["*"],
    EVENTSTREAM_REDIS={"unix_socket_path": os.environ["CHANNELS_URL"].partition("://")[2]},
    INSTALLED_APPS=["django_eventstream"],
    ROOT_URLCONF=__name__,
)
django.setup()

import django_eventstream  # noqa: E402


def publish(request: Any) -> Any:
    django_eventstream.send_event("all", "message", request.body.decode(), json_encode=False)
    return HttpResponse(status=204)


urlpatterns = [
    path("events", include(django_eventstream.urls), {"channels": ["all"]}),
    path("publish", publish),
]
application = get_asgi_application()
