"""A Django project with a WebSocket.

gunicorn -k gevent --chdir examples/django_project wsgi:application
python examples/django_project/manage.py runserver
python -m faye_wsgi ws://127.0.0.1:8000/rooms/tea
"""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
application = get_wsgi_application()
