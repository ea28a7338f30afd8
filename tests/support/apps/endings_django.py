"""The same behind Django's `runserver`: what surrounds the application is the server's."""

from __future__ import annotations

from django.conf import settings

from .endings import application as application

settings.configure(
    ALLOWED_HOSTS=["*"],
    LOGGING_CONFIG=None,
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests only",
    WSGI_APPLICATION=f"{__name__}.application",
)
urlpatterns: list[object] = []
