"""docs/recipes.md, what test_readme.py cannot run: Django's admin, and a task of Celery."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from .test_layers import fresh_python
from .test_readme import ROOT, write

PAGE = ROOT / "docs/recipes.md"


def test_the_admin_shows_what_is_new(tmp_path: Path) -> None:
    write(PAGE, tmp_path, "notices.py", "urls.py")
    (template,) = re.findall(r"^```html\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin/base_site.html").write_text(template, "utf-8")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import django
from django.conf import settings
CONTRIB = "django.contrib."
PROCESSORS = [CONTRIB + "auth.context_processors.auth",
              CONTRIB + "messages.context_processors.messages",
              "django.template.context_processors.request"]
settings.configure(
    SECRET_KEY="a secret", ROOT_URLCONF="urls", ALLOWED_HOSTS=["testserver"], USE_TZ=True,
    STATIC_URL="static/",
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
    INSTALLED_APPS=[CONTRIB + name for name in
                    ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")],
    MIDDLEWARE=[CONTRIB + "sessions.middleware.SessionMiddleware",
                CONTRIB + "auth.middleware.AuthenticationMiddleware",
                CONTRIB + "messages.middleware.MessageMiddleware"],
    TEMPLATES=[{{"BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [{str(tmp_path)!r}], "APP_DIRS": True,
                "OPTIONS": {{"context_processors": PROCESSORS}}}}],
    SESSION_ENGINE=CONTRIB + "sessions.backends.signed_cookies",
    CHANNELS={{"history": 100}},
)
django.setup()
from django.core.management import call_command
from django.test import Client
from faye_wsgi import HandshakeError
from faye_wsgi.testing import connect_events
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
client = Client()
page = client.get("/admin/login/").content.decode()
assert "subscribe('admin'" not in page
ben = User.objects.create_user("ben")
client.force_login(ben)
try:
    with connect_events(client, "/channels?channel=admin"):
        raise AssertionError("a user who is not of the staff may subscribe")
except HandshakeError as error:
    assert error.status_code == 403
client.force_login(User.objects.create_superuser("ada"))
page = client.get("/admin/").content.decode()
assert "subscribe('admin'" in page and "Django administration" in page
with connect_events(client, "/channels?channel=admin") as es:
    assert "subscribed" in es.receive().data
    ben.save()  # is not new
    User.objects.create_user("cleo")
    assert "cleo is new" in es.receive().data
"""
    fresh_python(script)


def test_a_task_tells_how_far_it_is(tmp_path: Path) -> None:
    if importlib.util.find_spec("celery") is None:
        pytest.skip("celery is not installed")
    write(PAGE, tmp_path, "tasks.py", "web.py")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import tasks
tasks.celery.conf.task_always_eager = True
from web import app
from faye_wsgi.testing import connect
client = app.test_client()
given = client.post("/shrink").json
with connect(client, "/channels") as ws:
    ws.send_json({{"subscribe": given["channel"]}})
    assert ws.receive_json()["error"] == "forbidden"
    ws.send_json({{"subscribe": given["channel"], "token": given["token"], "last": 1}})
    while "data" not in (message := ws.receive_json()):
        assert "error" not in message, message
    assert message["data"] == {{"done": 3, "of": 3}}
"""
    fresh_python(script)
