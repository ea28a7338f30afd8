"""One round: everything is started, harmed, brought to an end, and checked."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gevent

from faye_wsgi import Channels

from ..support.redis import find_redis
from ..support.servers import Server, serve
from . import clients, faults, postgres, publishing
from .check import Fault, check, tell
from .clients import Browser
from .faults import Setup, World
from .presence import check_presence
from .records import Sent, Session

NAMES = [f"room:{number}" for number in range(6)] + ["große Räume", "bulk"]
QUIET = ["quiet:1", "quiet:2"]  # a message every few seconds
SETUPS = (*faults.SETUPS, *postgres.SETUPS)
ACTS = {**faults.FAULTS, **postgres.FAULTS}
BROWSERS = 32
PRESENCE = {"leave_seconds": 2.0, "worker_seconds": 15.0}
THROUGH_WORKERS = 3
END = 60.0  # seconds until all clients have everything, when there is no more harm
WORDS = 100_000  # characters of the server's log that are told
TOLD = 5  # faults that are told in full


class Round(NamedTuple):
    """What a round has shown."""

    faults: list[Fault]
    summary: str
    story: str


def rates_of(publisher: int) -> dict[str, Any]:
    """Most publish small messages, some large ones, some rarely."""
    if publisher % 4 == 0:
        return {"channels": ["bulk"], "seconds": 0.2, "padding": 8000}
    if publisher % 4 == 1:
        return {"channels": QUIET, "seconds": 3.0, "padding": 20}
    return {"channels": NAMES[:-1], "seconds": 0.05, "padding": 200}


def run_round(setup: Setup, seed: int, seconds: float) -> Round:
    """Run one; the harm lasts ``seconds``."""
    options = {"history": 10_000, "ttl": 3600, "high_water": 65_536, **PRESENCE, **setup.channels}
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(world_of(setup))
        environment = {"SOAK_URL": world.url, "SOAK_OPTIONS": json.dumps(options)}
        server = stack.enter_context(
            serve(
                setup.kind,
                "tests.soak.app:application",
                workers=3,
                options=setup.options,
                env=environment,
            )
        )
        channels = Channels(world.url, **options)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        browsers = list(make_browsers(server, channels, seed, setup.partitions))
        stack.callback(gevent.killall, [one.greenlet for one in browsers])
        with publishers(folder, world, server, options, seed) as finish:
            dice = random.Random(f"{seed} faults")
            faults.do_harm(setup, world, server, dice, seconds, ACTS)
            sent = finish()
        world.note("no more harm")
        sent += bring_to_an_end(channels, browsers)
        sessions = [session for browser in browsers for session in browser.sessions]
        found = check(sent, sessions, is_lossless=setup.is_lossless, partitions=setup.partitions)
        found += check_presence(sessions, PRESENCE["leave_seconds"], world.harm())
        found += [Fault("stuck", tell_of(one)) for one in browsers if not one.greenlet.successful()]
        found += find_strangers(browsers)
        if not any(session.got for session in sessions):
            found.append(Fault("silence", "no client has got anything"))
        found += find_complaints(server)
        if any(fault.kind == "stuck" for fault in found):
            for worker in server.worker_pids():
                os.kill(worker, signal.SIGTRAP)  # they say where their greenlets are
            gevent.sleep(2)
        story = "\n\n".join(tell(fault, sent, sessions, world.events) for fault in found[:TOLD])
        story += f"\n\nThe server's last words:\n{server.log()[-WORDS:]}"
        return Round(found, summarize(setup, seed, sent, sessions, world), story)


def world_of(setup: Setup) -> contextlib.AbstractContextManager[World]:
    """The broker's engine as a setup wants it."""
    if setup.engine != "redis":
        return postgres.postgres_of(setup)
    program = find_redis()
    assert program is not None, "redis-server is not installed"
    return faults.redis_of(setup, program)


def make_browsers(
    server: Server, channels: Channels, seed: int, partitions: int
) -> Iterator[Browser]:
    """The crowd. Two WebSockets are of one person; an event stream is of a person who comes and
    goes; slow WebSockets are present nowhere."""
    kinds = itertools.cycle(clients.KINDS)
    dice = random.Random(f"{seed} channels")
    for number in range(BROWSERS):
        names = dice.sample([*NAMES, *QUIET], dice.choice([1, 1, 2, 4]))
        kind = next(kinds)
        if kind is clients.slow_websocket:
            names = ["bulk", *names[:1]] if "bulk" not in names[:1] else ["bulk"]
        name = f"{kind.__name__} {number}"
        is_present = kind is not clients.slow_websocket
        member = f"person {number // 4} {kind.__name__}" if is_present else None
        browser = Browser(name, kind, server, names, str(seed), channels, partitions, member)
        browser.stays_away = kind is clients.eventsource
        yield browser


@contextlib.contextmanager
def publishers(
    folder: Path, world: World, server: Server, options: dict[str, Any], seed: int
) -> Iterator[Any]:
    """Two processes, one with greenlets and one with threads, and some that ask the workers."""
    with contextlib.ExitStack() as stack:
        processes = []
        for number in range(4):
            process = publishing.Process(
                folder,
                f"process {number}",
                patched=number % 2 == 0,
                url=world.url,
                channels_options=options,
                tasks=4,
                rates=rates_of(number),
                seed=seed,
            )
            stack.callback(process.kill)
            processes.append(process)
        world.publishers = processes
        stop = threading.Event()
        stack.callback(stop.set)
        send = publishing.through((server.host, server.port))
        asking = [
            gevent.spawn(
                publishing.publish_all, send, f"asking {n}", rates_of(2), f"{seed} {n}", stop
            )
            for n in range(THROUGH_WORKERS)
        ]

        def finish() -> list[Sent]:
            stop.set()
            sent = [one for process in processes for one in process.finish()]
            for greenlet in asking:
                sent += greenlet.get(timeout=publishing.PATIENCE + 15)
            return sent

        yield finish


def bring_to_an_end(channels: Channels, browsers: list[Browser]) -> list[Sent]:
    """Publish an end in each channel, until each client has got one in all of its channels.

    Then each of those who come and go leaves for good, until all others see one another and no
    more.
    """

    def send(channel: str, data: Any, key: str | None) -> str:
        return channels.publish(channel, data, key=key)

    stayers = {one.member for one in browsers if one.member and not one.stays_away}
    for browser in browsers:
        browser.finish()
    sent: list[Sent] = []
    deadline = time.monotonic() + END
    while time.monotonic() < deadline:
        for channel in [*NAMES, *QUIET]:
            sent.append(publishing.publish(send, Sent(channel, f"end.{len(sent)}", True)))
        gevent.joinall([one.greenlet for one in browsers], timeout=1)
        for one in browsers:
            if one.stays_away and one.has_all:
                one.leave()
        if all(
            one.has_all and (one.member not in stayers or one.sessions[-1].here == stayers)
            for one in browsers
        ):
            break
    for browser in browsers:
        browser.leave()
    gevent.joinall([one.greenlet for one in browsers], timeout=5)
    return sent


def tell_of(browser: Browser) -> str:
    """What a client waits for, and how its last connections were."""
    lines = [f"{browser.name} waits for the end of {sorted(browser.missing or ())}"]
    for session in browser.sessions[-5:]:
        lines.append(
            f"  {session.began % 10**10 / 1e6:12.6f}  since {session.since}: "
            f"{len(session.got)} messages, recovered {session.recovered}; {session.ended}"
        )
    return "\n".join(lines)


def find_strangers(browsers: list[Browser]) -> Iterator[Fault]:
    """Who is shown at the end as present, and is not, or the other way round."""
    stayers = {one.member for one in browsers if one.member and not one.stays_away}
    for one in browsers:
        if one.member in stayers:
            here = one.sessions[-1].here
            if here != stayers:
                text = f"{one.name} sees {here - stayers} and not {stayers - here} at the end"
                yield Fault("presence", text, None, one.sessions[-1])


def find_complaints(server: Server) -> Iterator[Fault]:
    """Exceptions that nothing has caught."""
    log = server.log()
    if "Traceback" in log:
        start = log.index("Traceback")
        yield Fault("traceback", log[max(0, start - 300) : start + 3000])


def summarize(
    setup: Setup, seed: int, sent: list[Sent], sessions: list[Session], world: World
) -> str:
    received = [got for session in sessions for got in session.got]
    spans = [span for session in sessions for span in session.spans]
    turnouts = [turnout for session in sessions for turnout in session.turnouts]
    harm = Counter(text.split()[0] for _, text in world.events if text.endswith("begins"))
    return (
        f"{setup.name}, seed {seed}: "
        f"{len(sent)} publications ({sum(one.cursor is None for one in sent)} raised, "
        f"{sum(len(one.attempts) > 1 for one in sent)} repeated), "
        f"{len(received)} received, {sum(got.value is None for got in received)} resets, "
        f"{len(sessions)} sessions, {len(spans)} spans "
        f"({sum(one.recovered is True for one in spans)} recovered, "
        f"{sum(one.recovered is False for one in spans)} not), "
        f"{sum(len(one.joined) for one in turnouts)} joins, "
        f"{sum(len(one.left) for one in turnouts)} leaves; "
        + ", ".join(f"{count} {name}" for name, count in sorted(harm.items()))
    )
