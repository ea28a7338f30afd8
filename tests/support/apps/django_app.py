"""The test application in Django, settings included."""

from __future__ import annotations

from typing import Any, Callable

import django
from django.conf import settings

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DEBUG=False,
        # Errors go to standard error, as Python does without any settings for logging.
        LOGGING_CONFIG=None,
        MIDDLEWARE=MIDDLEWARE,
        ROOT_URLCONF=__name__,
        SECRET_KEY="for tests only",
        USE_TZ=True,
        WSGI_APPLICATION=f"{__name__}.application",
    )
    django.setup()

# Django wants its settings before most of its modules.
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from faye_wsgi import EventSource, WebSocket  # noqa: E402

from . import streams  # noqa: E402
from .stats import stats_json  # noqa: E402
from .views import PLAIN, VIEWS, Query, options  # noqa: E402


def connection(view: Callable[[WebSocket, Query], None]) -> Callable[[HttpRequest], Any]:
    def handle(request: HttpRequest) -> Any:
        values = request.GET.dict()
        ws = WebSocket(request, **options(values))
        view(ws, values)
        return ws.response

    return handle


def event_stream(request: HttpRequest, name: str) -> Any:
    values = request.GET.dict()
    if name in streams.EVENT_PAGES:
        return HttpResponse(streams.EVENT_PAGES[name](values))
    es = EventSource(request, **streams.options(values))
    streams.EVENT_VIEWS[name](es, values)
    return es.response


def stats(request: HttpRequest) -> HttpResponse:
    return HttpResponse(stats_json(), content_type="application/json")


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PLAIN, content_type="text/plain")


urlpatterns = [
    *(path(name, connection(view), name=name) for name, view in VIEWS.items()),
    path("es/<name>", event_stream),
    path("stats", stats),
    path("plain", plain),
]

application = app = get_wsgi_application()
