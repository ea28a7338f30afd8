"""A publisher: ours, or redis-py's bare PUBLISH and XADD in a pipeline. `window` greenlets.

`ours` is on Redis; `postgres` and `durable` are on Postgres.

Called with the name, a port, the number of greenlets, the size of messages, and seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402
from meter import Meter  # noqa: E402

from faye_wsgi import Channels  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parent.parent / "servers"))
import with_postgres  # noqa: E402
import with_redis  # noqa: E402

HISTORY = 1000


def bare(url: str, message: str) -> Callable[[], object]:
    """What a publication is at least: sent, and kept."""
    import redis

    client = redis.Redis.from_url(url, max_connections=100)

    def publish() -> object:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.publish("bare", message)
            pipeline.xadd("bare-log", {"d": message}, maxlen=HISTORY, approximate=False)
            return pipeline.execute()

    return publish


def ours(url: str, message: str) -> Callable[[], object]:
    channels = Channels(url, history=HISTORY)
    return lambda: channels.publish("ours", message)


meter = Meter()
kind, port = sys.argv[1], str(meter.port)
if kind in ("bare", "ours"):
    publish = (bare if kind == "bare" else ours)(with_redis.url_of(port), meter.message)
else:
    url = with_postgres.url_of(port)
    publish = ours(f"{url}?durable=1" if kind == "durable" else url, meter.message)
is_over = False


def run() -> None:
    global is_over
    while not is_over:
        publish()
        if not is_over and not meter.goes_on():
            is_over = True


gevent.joinall([gevent.spawn(run) for _ in range(meter.window)], raise_error=True)
