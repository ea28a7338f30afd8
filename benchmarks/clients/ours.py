"""faye_wsgi's client, blocking, as its README writes it."""

from __future__ import annotations

from meter import Meter

from faye_wsgi import Client

meter = Meter()
with Client(meter.url) as ws:
    for _ in range(meter.window):
        ws.send(meter.message)
    for _message in ws:
        if not meter.goes_on():
            break
        ws.send(meter.message)
