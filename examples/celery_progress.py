"""The progress of a Celery task, in the page that has started it.

    celery --workdir examples -A celery_progress:celery worker
    gunicorn -k gevent --chdir examples celery_progress:app
    curl -d steps=5 http://127.0.0.1:8000/tasks
    python -m faye_wsgi http://127.0.0.1:8000/tasks/ID

For another Redis: REDIS=redis://…, for both of the first two. The task may have begun, or ended,
before the page listens: the history has what came before.
"""

from __future__ import annotations

import os
import time

from celery import Celery
from flask import Flask, request

from faye_wsgi import Channels, EventSource
from faye_wsgi.flask import eventsource

REDIS = os.environ.get("REDIS", "redis://localhost:6379/0")
app = Flask(__name__)
celery = Celery("celery_progress", broker=REDIS)
channels = Channels(REDIS, history=100)


@celery.task(bind=True)
def work(self, steps):
    for step in range(1, steps + 1):
        time.sleep(0.1)  # the work
        channels.publish(f"task:{self.request.id}", {"done": step, "of": steps})


@app.post("/tasks")
def start() -> dict[str, str]:
    return {"id": work.delay(int(request.form["steps"])).id}


@app.get("/tasks/<uuid:id>")
@eventsource
def progress(es: EventSource, id: object) -> None:
    channels.subscribe(es, f"task:{id}", since=es.last_event_id, last=100)
