"""Event streams in Django, with the decorator; settings included."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        LOGGING_CONFIG=None,
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.gzip.GZipMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY="for tests only",
        WSGI_APPLICATION=f"{__name__}.application",
    )
    django.setup()

# Django wants its settings before most of its modules.
import gevent  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.http import require_GET  # noqa: E402

from faye_wsgi import EventSource  # noqa: E402
from faye_wsgi.django import eventsource  # noqa: E402

from . import streams  # noqa: E402
from .stats import stats_json  # noqa: E402


@eventsource
def bare(request: HttpRequest, es: EventSource) -> None:
    es.send("hello")


@eventsource(retry=0.5, ping=None, headers={"X-Room": "a room"})
def room(request: HttpRequest, es: EventSource, room: str) -> str:
    es.send(f"{room} {es.last_event_id}", event="room", id=1)
    es.end()
    return "what it returns is not used"


def login_required(view: Any) -> Any:
    def guarded(request: HttpRequest) -> Any:
        if request.GET.get("user") != "alice":
            return HttpResponse(status=401)
        return view(request)

    return guarded


@require_GET
@login_required
@eventsource
def guarded(request: HttpRequest, es: EventSource) -> None:
    es.send("welcome")


@eventsource
def loop(request: HttpRequest, es: EventSource) -> None:
    while True:
        es.send("tick")
        gevent.sleep(0.02)


@eventsource(ping=None)
def listeners(request: HttpRequest, es: EventSource) -> None:
    values = request.GET.dict()
    es.on("close", lambda event: streams.note(values, "close"))
    es.send("listening")


@eventsource
def raising(request: HttpRequest, es: EventSource) -> None:
    es.send("before")
    raise RuntimeError("raised by a view")


urlpatterns = [
    path("bare", bare),
    path("rooms/<room>", room),
    path("guarded", guarded),
    path("loop", loop),
    path("listeners", listeners),
    path("raise", raising),
    path("es/notes", lambda request: HttpResponse(streams.notes_json(request.GET))),
    path("stats", lambda request: HttpResponse(stats_json())),
]

application = app = get_wsgi_application()
