"""Compare what clients got with what was published. No I/O, no clock.

1. **Order.** In a session, the number of each publication is above all that came before it, and
   above the cursor with which the client has come. So nothing comes twice, and since a number is
   of one value, all clients see one order.
2. **No silent loss.** A session covers what came after its cursor (or without one, after the place
   that the server named when it had subscribed), up to the last id that it got: that is the
   cursor with which the client comes back. Each publication in between has come before any
   message with a higher id, or else a ``reset`` of its channel has, which was made after it.
3. **Once.** A value has one place, whatever the publisher was told. With a key it may have
   another one in another epoch: the key was lost with the data.
4. **Never a false True.** Where the server says that a client has recovered, all that was published
   before the client asked has come before that, and none of it was a reset.
5. **No needless reset.** Where the faults lose no data, there is none.

What counts as published is what was acknowledged, and what any client got: a publication that
raised must reach all, or none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from faye_wsgi.brokers.base import Position

from .records import Got, Sent, Session

__all__ = ["Fault", "Taken", "check", "tell"]


class Taken(NamedTuple):
    """A publication that the broker has taken."""

    place: Position
    channel: str
    value: str


class Fault(NamedTuple):
    """A promise that was not kept."""

    kind: str
    text: str
    taken: Taken | None = None
    session: Session | None = None


def check(sent: Iterable[Sent], sessions: Sequence[Session], *, is_lossless: bool) -> list[Fault]:
    """All faults. ``is_lossless``: no data was lost, so that nothing may have been reset."""
    by_value = {one.value: one for one in sent}
    taken = find_taken(by_value.values(), sessions)
    faults = [*check_values(by_value, taken)]
    channels = by_channel(taken)
    for session in sessions:
        faults += check_order(session)
        faults += check_losses(session, channels)
        faults += check_recovered(session, channels)
        if is_lossless:
            faults += check_resets(session)
    return faults


def find_taken(sent: Iterable[Sent], sessions: Iterable[Session]) -> set[Taken]:
    """What was acknowledged, and what was received."""
    taken = {
        Taken(Position.parse(one.cursor), one.channel, one.value) for one in sent if one.cursor
    }
    for session in sessions:
        for got in session.got:
            if got.value is not None:
                taken.add(Taken(got.place, got.channel, got.value))
    return taken


def by_channel(taken: Iterable[Taken]) -> dict[str, list[Taken]]:
    """What was taken in each channel, by number."""
    channels: dict[str, list[Taken]] = defaultdict(list)
    for one in sorted(taken):
        channels[one.channel].append(one)
    return channels


def check_values(sent: dict[str, Sent], taken: Iterable[Taken]) -> Iterator[Fault]:
    """A value has one place, a place one value; and it was published there."""
    places: dict[Position, Taken] = {}
    values: dict[str, list[Taken]] = defaultdict(list)
    for one in sorted(taken):
        other = places.setdefault(one.place, one)
        if other is not one:
            yield Fault("two at one place", f"{other.value} has the same place", one)
        values[one.value].append(one)
    for value, found in values.items():
        publication = sent.get(value)
        if publication is None:
            yield Fault("unknown", "no publisher has sent it", found[0])
            continue
        for one in found:
            if one.channel != publication.channel:
                yield Fault("unknown", f"it was sent to {publication.channel}", one)
        epochs = {one.place.epoch for one in found}
        if len(found) > (len(epochs) if publication.is_keyed else 1):
            yield Fault("twice", f"it is also at {found[0].place}", found[-1])


def check_order(session: Session) -> Iterator[Fault]:
    """Numbers rise, and the channels are those that were asked for."""
    highest = -1 if session.since is None else session.since.number
    for got in session.got:
        if got.channel not in session.channels:
            yield Fault("not asked for", f"{got} came", None, session)
        if got.value is not None and got.place.number <= highest:
            text = f"{highest} had come before"
            yield Fault("order", text, Taken(got.place, got.channel, got.value), session)
        highest = max(highest, got.place.number)


def check_losses(session: Session, channels: dict[str, list[Taken]]) -> Iterator[Fault]:
    """Each publication that the session covers has come, or a reset instead."""
    start = session.since or session.started
    if start is None or not session.got:
        return
    highs = running_maximum(session.got)
    here = {(got.channel, got.place) for got in session.got if got.value is not None}
    for channel in session.channels:
        taken = channels.get(channel, [])
        resets = [
            (index, got.at)
            for index, got in enumerate(session.got)
            if got.value is None and got.channel == channel
        ]
        for one in taken[_after(taken, start.number) : _after(taken, highs[-1])]:
            if (channel, one.place) in here:
                continue
            overtaken = bisect_left(highs, one.place.number)
            if not any(i <= overtaken and one.place.number <= at for i, at in resets):
                text = f"the client got {session.got[overtaken].place} instead, and no reset"
                yield Fault("lost", text, one, session)


def running_maximum(got: Iterable[Got]) -> list[int]:
    """The highest number so far, after each message."""
    highs: list[int] = []
    for one in got:
        highs.append(max(one.place.number, highs[-1] if highs else -1))
    return highs


def _after(taken: Sequence[Taken], number: int) -> int:
    """The index of the first one above a number."""
    return bisect_left(taken, Taken(Position(number + 1, ""), "", ""))


def check_recovered(session: Session, channels: dict[str, list[Taken]]) -> Iterator[Fault]:
    """What recovered is True for has come before that was said."""
    if session.since is None or not session.recovered:
        return
    here = {got.place for got in session.got[: session.replayed]}
    for channel in session.channels:
        taken = channels.get(channel, [])
        for one in taken[_after(taken, session.since.number) : _after(taken, session.began)]:
            if one.place not in here:
                yield Fault("false True", "recovered is True", one, session)


def check_resets(session: Session) -> Iterator[Fault]:
    """There is no reset, and no recovered False."""
    for got in session.got:
        if got.value is None:
            yield Fault("needless reset", f"{got.channel} at {got.place}", None, session)
    if session.recovered is False:
        yield Fault("needless reset", "recovered is False", None, session)


# The story of a fault


def tell(
    fault: Fault,
    sent: Iterable[Sent],
    sessions: Iterable[Session],
    events: Iterable[tuple[int, str]] = (),
) -> str:
    """What happened around a fault, in the order of time. ``events`` are the harm that was done."""
    lines = [f"{fault.kind.upper()}: {fault.text}"]
    moments: list[tuple[int, str]] = []
    sessions = list(sessions)
    if fault.taken is not None:
        place, channel, value = fault.taken
        lines.append(f"the publication {value} of {channel} at {place}")
        moments.append((place.number, "<- its number"))
        publication = next((one for one in sent if one.value == value), None)
        if publication is not None:
            lines.append(f"its publisher was told {publication.cursor or 'nothing but errors'}")
            for began, ended, error in publication.attempts:
                moments.append((began, "it is published"))
                moments.append((ended, f"its publisher is told {error or publication.cursor}"))
        receivers = {one.client for one in sessions if any(got.value == value for got in one.got)}
        lines.append(f"clients that got it: {', '.join(sorted(receivers)) or 'none'}")
    if fault.session is not None:
        moments += session_story(fault, sessions)
    if not moments:
        return "\n".join(lines)
    times = [at for at, _ in moments]
    moments += [
        (at, f"*** {text}")
        for at, text in events
        if min(times) - 5_000_000 <= at <= max(times) + 1_000_000
    ]
    lines += [f"  {at % 10**10 / 1e6:12.6f}  {text}" for at, text in sorted(moments)]
    return "\n".join(lines)


def session_story(fault: Fault, sessions: Sequence[Session]) -> Iterator[tuple[int, str]]:
    """The session of a fault: its beginning, what came near the place of the fault, its end."""
    session = fault.session
    assert session is not None
    mine = [one for one in sessions if one.client == session.client]
    index = mine.index(session)
    if index:
        last = mine[index - 1]
        at = last.got[-1].at if last.got else last.began
        yield at, f"{last.client}: the session before ends at {last.last}: {last.ended}"
    names = ", ".join(session.channels)
    yield session.began, f"{session.client} asks for {names} since {session.since}"
    replayed = session.got[: session.replayed]
    at = replayed[-1].at if replayed else session.began
    said = f"recovered {session.recovered}, at {session.started}, after {len(replayed)} messages"
    yield at, f"{session.client} has subscribed: {said}"
    number = session.began if fault.taken is None else fault.taken.place.number
    highs = running_maximum(session.got)
    middle = bisect_left(highs, number)
    for got in session.got[max(0, middle - 3) : middle + 3]:
        yield got.at, f"{session.client} gets {got.value or 'RESET'} of {got.channel}: {got.place}"
    for got in session.got:
        if got.value is None:
            yield got.at, f"{session.client} gets RESET of {got.channel}: {got.place}"
    at = session.got[-1].at if session.got else session.began
    yield at, f"{session.client} ends after {len(session.got)} messages: {session.ended}"
