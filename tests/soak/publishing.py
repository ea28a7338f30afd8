"""Publishers: several in each process, with and without keys, and some through a worker's view.

As a program it is a process of publishers, which ends at the end of its input:

    python -m tests.soak.publishing '{"name": …, "url": …, "records": FILE, …}'
"""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .records import Sent, now

PATIENCE = 30.0  # seconds for which a publication with a key is repeated
PAUSE = 0.05  # seconds between two attempts

# Publishes (channel, data, key), and returns the cursor; what it raises is the publisher's error.
Publish = Callable[[str, Any, "str | None"], str]


def publish(send: Publish, sent: Sent, padding: int = 0) -> Sent:
    """Publish once; with a key again and again, until it is acknowledged."""
    deadline = time.monotonic() + PATIENCE
    while True:
        began, error = now(), None
        try:
            data = [sent.value, "x" * padding]
            sent.cursor = send(sent.channel, data, sent.value if sent.is_keyed else None)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        sent.attempts.append((began, now(), error))
        if sent.cursor or not sent.is_keyed or time.monotonic() > deadline:
            return sent
        time.sleep(PAUSE)


def publish_all(
    send: Publish, name: str, rates: Mapping[str, Any], seed: str, stop: threading.Event
) -> list[Sent]:
    """Publish at random until ``stop``. ``rates``: channels, seconds between two, padding."""
    dice = random.Random(seed)
    sent: list[Sent] = []
    while not stop.wait(dice.expovariate(1 / rates["seconds"])):
        channel = dice.choice(rates["channels"])
        one = Sent(channel, f"{name}.{len(sent)}", dice.random() < 0.5)
        sent.append(publish(send, one, dice.randrange(rates["padding"] + 1)))
    return sent


def through(address: tuple[str, int]) -> Publish:
    """A publisher that asks a worker to publish."""

    def send(channel: str, data: Any, key: str | None) -> str:
        query = {"channel": channel, **({} if key is None else {"key": key})}
        connection = http.client.HTTPConnection(*address, timeout=10)
        try:
            connection.request("POST", f"/publish?{urlencode(query)}", json.dumps(data))
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            raise ConnectionError(f"{response.status} {text}")
        return text

    return send


class Process:
    """A process of publishers."""

    def __init__(self, folder: Path, name: str, *, patched: bool, **options: Any) -> None:
        self._records = folder / f"{name}.json"
        options.update(name=name, patched=patched, records=str(self._records))
        self._log = open(folder / f"{name}.log", "wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
        )

    def finish(self) -> list[Sent]:
        """Let it end, and take its records."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(PATIENCE + 10)
        finally:
            self.kill()
        log = Path(self._log.name).read_text("utf-8", "replace")
        assert status == 0, f"a process of publishers failed: {log}"
        return [Sent.from_json(one) for one in json.loads(self._records.read_text("utf-8"))]

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        self._log.close()


def main(options: Mapping[str, Any]) -> None:
    from faye_wsgi import Channels

    channels = Channels(options["url"], **options["channels_options"])
    stop = threading.Event()
    results: list[list[Sent]] = []

    def run(name: str) -> None:
        def send(channel: str, data: Any, key: str | None) -> str:
            return channels.publish(channel, data, key=key)

        seed = f"{options['seed']} {name}"
        results.append(publish_all(send, name, options["rates"], seed, stop))

    tasks = [
        threading.Thread(target=run, args=(f"{options['name']}.{number}",))
        for number in range(options["tasks"])
    ]
    for task in tasks:
        task.start()
    sys.stdin.read()
    stop.set()
    for task in tasks:
        task.join()
    records = [one.to_json() for result in results for one in result]
    Path(options["records"]).write_text(json.dumps(records), "utf-8")


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["patched"]:
        from gevent import monkey

        monkey.patch_all()
    main(given)
