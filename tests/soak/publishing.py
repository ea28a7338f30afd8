"""Publishers: several in each process, with and without keys, and some through a worker's view.

Each notes what it is about to send before it does, for it may be killed in the middle of it. One
that is started again repeats what has a key and was not acknowledged.

As a program it is a process of publishers, which ends at the end of its input:

    python -m tests.soak.publishing '{"name": …, "url": …, "records": FILE, …}'
"""

from __future__ import annotations

import http.client
import json
import os
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


Note = Callable[[Sent], object]  # keeps what is known of a publication


def publish(send: Publish, sent: Sent, padding: int = 0, note: Note = lambda sent: None) -> Sent:
    """Publish once; with a key again and again, until it is acknowledged."""
    deadline = time.monotonic() + PATIENCE
    while True:
        began, error = now(), None
        note(sent)
        try:
            data = [sent.value, "x" * padding]
            sent.cursor = send(sent.channel, data, sent.value if sent.is_keyed else None)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        sent.attempts.append((began, now(), error))
        note(sent)
        if sent.cursor or not sent.is_keyed or time.monotonic() > deadline:
            return sent
        time.sleep(PAUSE)


def publish_all(
    send: Publish,
    name: str,
    rates: Mapping[str, Any],
    seed: str,
    stop: threading.Event,
    note: Note = lambda sent: None,
) -> list[Sent]:
    """Publish at random until ``stop``. ``rates``: channels, seconds between two, padding."""
    dice = random.Random(seed)
    sent: list[Sent] = []
    while not stop.wait(dice.expovariate(1 / rates["seconds"])):
        channel = dice.choice(rates["channels"])
        one = Sent(channel, f"{name}.{len(sent)}", dice.random() < 0.5)
        sent.append(publish(send, one, dice.randrange(rates["padding"] + 1), note))
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
    """A process of publishers. It may be killed, and then goes on as another one."""

    def __init__(self, folder: Path, name: str, *, patched: bool, **options: Any) -> None:
        self._records = folder / f"{name}.json"
        self._log = open(folder / f"{name}.log", "wb")
        self._options = {"patched": patched, "records": str(self._records), **options}
        self._name, self._lives = name, 0
        self._start()

    def _start(self) -> None:
        self._lives += 1
        options = {**self._options, "name": f"{self._name} ({self._lives})"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
        )

    def kill_and_start(self) -> None:
        """Kill it, in the middle of whatever it does, and start it again."""
        self._end()
        self._start()

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
        return list(read_records(self._records).values())

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        assert self._process.stdin is not None
        self._process.stdin.close()

    def kill(self) -> None:
        self._end()
        self._log.close()


def read_records(path: Path) -> dict[str, Sent]:
    """What is known of each publication, by its value: the last line that tells of it."""
    if not path.exists():
        return {}
    lines = path.read_bytes().split(b"\n")[:-1]  # the last one may be cut
    records = [Sent.from_json(json.loads(line)) for line in lines]
    return {one.value: one for one in records}


def main(options: Mapping[str, Any]) -> None:
    from faye_wsgi import Channels

    channels = Channels(options["url"], **options["channels_options"])
    stop = threading.Event()
    path = Path(options["records"])
    unfinished = [one for one in read_records(path).values() if one.is_keyed and one.cursor is None]
    # One write for a line, and nothing kept back: a process that is killed has noted it.
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(sent: Sent) -> None:
        os.write(journal, json.dumps(sent.to_json()).encode() + b"\n")

    def send(channel: str, data: Any, key: str | None) -> str:
        return channels.publish(channel, data, key=key)

    def run(name: str) -> None:
        publish_all(send, name, options["rates"], f"{options['seed']} {name}", stop, note)

    def repeat() -> None:
        for one in unfinished:
            publish(send, one, note=note)

    tasks = [
        threading.Thread(target=run, args=(f"{options['name']}.{number}",))
        for number in range(options["tasks"])
    ]
    tasks.append(threading.Thread(target=repeat))
    for task in tasks:
        task.start()
    sys.stdin.read()
    stop.set()
    for task in tasks:
        task.join()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["patched"]:
        from gevent import monkey

        monkey.patch_all()
    main(given)
