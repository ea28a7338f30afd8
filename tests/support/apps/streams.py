"""What the applications do with an EventSource, the same in all three, and what they notice.

Each view takes the stream and the query. What happens to a stream is written down under the
query's `key`; a test asks for it with `/es/notes?key=`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

import gevent

from faye_wsgi import ConnectionClosed, EventSource

Query = Mapping[str, str]

NUMBERS = ("retry", "ping", "close_timeout", "send_timeout")
SWITCHES = ("trust_forwarded",)

NOTES: dict[str, list[Any]] = {}
HELD: dict[str, EventSource] = {}
TEXTS = [
    "one line",
    "",
    "two\nlines",
    "two\rlines",
    "two\r\nlines",
    "\n",
    "a\n\r\nb\n",
    " a space first",
    ": no comment",
    "data: no field",
    "grüße, 世界 🎉",
    "no line ends: \x0b \x0c \x1c \x85 \u2028 \u2029",
    "x" * 70_000,
]
FORBIDDEN = ["a\nb", "a\rb", "a\r\nb", "a\0b", "\n", "x\n\ndata: injected"]


def options(values: Query) -> dict[str, Any]:
    """Options of EventSource out of a query: `?retry=0.5&ping=none&param=last`."""
    found: dict[str, Any] = {
        name: None if values[name] == "none" else float(values[name])
        for name in NUMBERS
        if name in values
    }
    found.update({name: values[name] == "1" for name in SWITCHES if name in values})
    for name in ("high_water", "max_connections"):
        if name in values:
            found[name] = int(values[name])
    if "param" in values:
        found["last_event_id_param"] = values["param"]
    if "header" in values:
        found["headers"] = [tuple(pair.split("=", 1)) for pair in values["header"].split(",")]
    return found


def note(values: Query, what: Any) -> None:
    NOTES.setdefault(values.get("key", ""), []).append(what)


def notes_json(values: Query) -> str:
    return json.dumps(NOTES.get(values.get("key", ""), []))


def wait_for(path: str, timeout: float = 10.0) -> None:
    """A file is a signal that reaches any process, and any kind of server."""
    deadline = time.monotonic() + timeout
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        gevent.sleep(0.005)


# Views


def step(es: EventSource, values: Query) -> None:
    """?n=&ack=: each event waits until the one before it has been acknowledged."""
    for number in range(int(values["n"])):
        es.send(f"event {number}", event="step", id=number)
        wait_for(f"{values['ack']}.{number}")
    es.close()


def step_later(es: EventSource, values: Query) -> None:
    """The same from a thread, while the view goes home: all that an iterable can do."""

    def run() -> None:
        try:
            for number in range(int(values["n"])):
                es.send(f"event {number}", event="step", id=number)
                wait_for_in_thread(f"{values['ack']}.{number}")
            es.close()
        except ConnectionClosed:
            note(values, "closed under the sender")

    es.on("close", lambda event: note(values, "close"))
    threading.Thread(target=run, daemon=True).start()


def wait_for_in_thread(path: str, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def texts(es: EventSource, values: Query) -> None:
    for number, text in enumerate(TEXTS):
        es.send(text, id=number)
    es.send("with all", event="named", id="an id: 世界")
    es.end("the end")


def refused(es: EventSource, values: Query) -> None:
    """Nothing of what raises may reach the client."""
    for text in FORBIDDEN:
        for field in ("event", "id"):
            with expect(values, ValueError):
                es.send("refused", **{field: text})  # type: ignore[arg-type]
    for wrong in (b"bytes", None, 5):
        with expect(values, TypeError):
            es.send(wrong)  # type: ignore[arg-type]
    es.end("fine")


@contextlib.contextmanager
def expect(values: Query, kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind:
        note(values, "raised")
    else:
        note(values, "not raised")


def about(es: EventSource, values: Query) -> None:
    names = ("url", "last_event_id", "ready_state", "closed")
    es.send(json.dumps({name: getattr(es, name) for name in names}))
    es.close()


def blank(es: EventSource, values: Query) -> None:
    """Sends nothing of its own, for ?seconds=."""
    with contextlib.suppress(TimeoutError):
        es.wait_closed(float(values.get("seconds", 1)))


def waiting(es: EventSource, values: Query) -> None:
    """Blocks in wait_closed; the client's disconnect must end it."""
    es.send("ready")
    es.wait_closed(20)
    note(values, ["waited", time.time(), es.ready_state])


def listening(es: EventSource, values: Query) -> None:
    """The view goes home, its listeners stay."""
    es.on("open", lambda event: note(values, ["open", event.target is es]))
    es.on("close", lambda event: note(values, ["close", time.time(), event.code]))
    es.send("ready")


def late(es: EventSource, values: Query) -> None:
    """Listens for the end when the client has gone."""
    es.send("ready")
    es.wait_closed(20)
    taken_back = es.on("close", lambda event: note(values, "in vain"))
    listen_late(es, values)
    es.remove_listener("close", taken_back)


def listen_late(es: EventSource, values: Query) -> None:
    for number in range(2):
        es.on("close", lambda event, n=number: note(values, n))


def late_elsewhere(es: EventSource, values: Query) -> None:
    """The same from a thread, when the response has ended."""

    def run() -> None:
        es.wait_closed(20)
        listen_late(es, values)

    es.send("ready")
    threading.Thread(target=run, daemon=True).start()


def looping(es: EventSource, values: Query) -> None:
    count = 0
    while not es.closed:
        count += 1
        try:
            es.send(f"tick {count}")
        except ConnectionClosed:
            break
        gevent.sleep(0.05)
    with expect(values, ConnectionClosed):
        es.send("too late")
    note(values, ["over", es.ping(), es.close()])


def held(es: EventSource, values: Query) -> None:
    """Somebody else sends: see `send_held`."""
    HELD[values["key"]] = es
    es.send("held")


def dropped(es: EventSource, values: Query) -> None:
    """Nobody holds it, nobody listens."""
    es.send("alone")


def flood(es: EventSource, values: Query) -> None:
    """Sends until a client that does not read makes it wait too long."""
    piece, sent = "x" * 10_000, 0
    try:
        while sent < 64 * 2**20:
            es.send(piece, timeout=0.5)
            sent += len(piece)
    except TimeoutError:
        note(values, ["timeout", sent, es.buffered_amount, es.ready_state])
    es.on("drain", lambda event: note(values, ["drain"]))
    es.wait_closed(10)
    note(values, ["closed"])


def amount(es: EventSource, values: Query) -> None:
    """?n=&size=: so many events of so many characters, through a slow reader."""
    with contextlib.suppress(ConnectionClosed):
        for number in range(int(values["n"])):
            es.send("x" * int(values["size"]), id=number)
            if number % 50 == 0:
                note(values, es.buffered_amount)
    es.close()


def close_twice(es: EventSource, values: Query) -> None:
    es.send("last")
    note(values, [es.close(), es.close(), es.closed])
    with expect(values, ConnectionClosed):
        es.send("too late")


def write(es: EventSource, values: Query) -> None:
    note(values, es.write("written"))
    es.end("ended")


def comment(es: EventSource, values: Query) -> None:
    note(values, es.ping())
    es.end("after the comment")


def raise_(es: EventSource, values: Query) -> None:
    es.send("before")
    raise RuntimeError("raised by a view")


def raise_in_with(es: EventSource, values: Query) -> None:
    with es:
        es.send("before")
        raise RuntimeError("raised by a view")


def raise_in_listener(es: EventSource, values: Query) -> None:
    def fail(event: Any) -> None:
        raise RuntimeError("raised by a listener")

    es.on("open", fail)


EVENT_VIEWS: dict[str, Callable[[EventSource, Query], None]] = {
    "step": step,
    "step_later": step_later,
    "texts": texts,
    "refused": refused,
    "about": about,
    "blank": blank,
    "waiting": waiting,
    "listening": listening,
    "late": late,
    "late_elsewhere": late_elsewhere,
    "looping": looping,
    "held": held,
    "dropped": dropped,
    "flood": flood,
    "amount": amount,
    "close_twice": close_twice,
    "write": write,
    "comment": comment,
    "raise": raise_,
    "raise_in_with": raise_in_with,
    "raise_in_listener": raise_in_listener,
}


def send_held(values: Query) -> str:
    """?key=&message=: from another request, so on some servers from another thread."""
    HELD[values["key"]].send(values["message"])
    return "sent\n"


def close_held(values: Query) -> str:
    HELD.pop(values["key"]).close()
    return "closed\n"


def drop_held(values: Query) -> str:
    """Lets go of it without closing."""
    del HELD[values["key"]]
    return "dropped\n"


# Ordinary pages beside them.
EVENT_PAGES: dict[str, Callable[[Query], str]] = {
    "notes": notes_json,
    "send": send_held,
    "close": close_held,
    "drop": drop_held,
}
