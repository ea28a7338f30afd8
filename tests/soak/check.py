"""Compare what clients got with what was published. No I/O, no clock.

1. **Order.** In a session, the number of each publication is above all that came before it, and
   above the cursor with which the client has come. So nothing comes twice, and since a number is
   of one value, all clients see one order. This holds in each partition of the broker. Where a
   channel was added with an older cursor, it holds in each span.
2. **No silent loss.** A client has a channel for a *span* of a session: all of it, or from when it
   added the channel until it removed it. A span covers what came after its cursor (or without one,
   after the place that the server named when it had subscribed), up to the highest id that the
   client got: that is the cursor with which it comes back. Each publication in between has come
   before any message with a higher id, or else a ``reset`` of its channel has, which was made after
   it.
3. **Once.** A value has one place, whatever the publisher was told. With a key it may have
   another one in another epoch: the key was lost with the data.
4. **Never a false True.** Where the server says that a client has recovered, all that was published
   before the client asked has come before that, up to the place that the server named, or a reset
   has. What is above that place was on its way to the worker: it comes as any other.
5. **No needless reset.** Where the faults lose no data, there is none.

What counts as published is what was acknowledged, and what any client got: a publication that
raised must reach all, or none.

An id is a position in each partition. The position in the partition of its channel is where a
publication is, but for a replay of several partitions: its ids are the cursor from before it.

Who is present is checked in ``presence.py``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from faye_wsgi.brokers.base import Cursor, Position
from faye_wsgi.brokers.engines import partition

from .records import Sent, Session, Span

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


def check(
    sent: Iterable[Sent], sessions: Sequence[Session], *, is_lossless: bool, partitions: int = 1
) -> list[Fault]:
    """All faults. ``is_lossless``: no data was lost, so that nothing may have been reset."""
    by_value = {one.value: one for one in sent}
    witnesses = find_taken(by_value.values(), sessions, partitions)
    taken = set(witnesses)
    faults = [*check_values(by_value, witnesses)]
    channels = by_channel(taken)
    places: dict[str, Position | None] = {}  # None where there are two
    for one in taken:
        places[one.value] = None if one.value in places else one.place
    for session in sessions:
        faults += check_order(session, places, partitions)
        for span in session.spans:
            here = partition(span.channel, partitions)
            published = channels.get(span.channel, [])
            faults += check_losses(session, span, published, here)
            faults += check_recovered(session, span, published, here)
        if is_lossless:
            faults += check_resets(session)
    return faults


def find_taken(
    sent: Iterable[Sent], sessions: Iterable[Session], partitions: int = 1
) -> dict[Taken, Session | None]:
    """What was acknowledged, and what was received: by whom, if it was not acknowledged."""
    taken: dict[Taken, Session | None] = {}
    for one in sent:
        if one.cursor:
            cursor = Cursor.parse(one.cursor, partitions)
            place = number_at(cursor, partition(one.channel, partitions))
            assert place is not None
            taken[Taken(place, one.channel, one.value)] = None
    for session in sessions:
        for index, got in enumerate(session.got):
            place = number_at(got.id, partition(got.channel, partitions))
            if got.value is not None and place and (partitions == 1 or is_live(session, index)):
                taken.setdefault(Taken(place, got.channel, got.value), session)
    return taken


def is_live(session: Session, index: int) -> bool:
    """Whether a message surely came when it was published, and not from a replay."""
    span = span_of(session, index)
    return span is not None and span.joined is not None and span.joined <= index


def span_of(session: Session, index: int) -> Span | None:
    """The latest span in which a message may have come."""
    channel = session.got[index].channel
    asked = [span for span in session.spans if span.channel == channel and span.first <= index]
    return asked[-1] if asked else None


def number_at(cursor: Cursor | None, index: int) -> Position | None:
    """The position of a cursor in a partition."""
    return None if cursor is None else cursor[index]


def by_channel(taken: Iterable[Taken]) -> dict[str, list[Taken]]:
    """What was taken in each channel, by number."""
    channels: dict[str, list[Taken]] = defaultdict(list)
    for one in sorted(taken):
        channels[one.channel].append(one)
    return channels


def check_values(sent: dict[str, Sent], taken: dict[Taken, Session | None]) -> Iterator[Fault]:
    """A value has one place, a place one value; and it was published there."""
    places: dict[Position, Taken] = {}
    values: dict[str, list[Taken]] = defaultdict(list)
    for one in sorted(taken):
        other = places.setdefault(one.place, one)
        if other is not one:
            text = f"{other.value} has the same place"
            yield Fault("two at one place", text, one, taken[one] or taken[other])
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
            witness = next((taken[one] for one in found if taken[one]), None)
            yield Fault("twice", f"it is also at {found[0].place}", found[-1], witness)


def check_order(
    session: Session, places: dict[str, Position | None], partitions: int = 1
) -> Iterator[Fault]:
    """Numbers rise, and the channels are those that were asked for."""
    has_old = any(span.first and span.since is not None for span in session.spans)
    highest: dict[object, int] = {}
    if session.since is not None:
        for index, start in enumerate(session.since):
            highest[index] = -1 if start is None else start.number
    for count, got in enumerate(session.got):
        index = partition(got.channel, partitions)
        if got.channel not in {span.channel for span in session.spans}:
            yield Fault("not asked for", f"{got} came", None, session)
        place = places.get(got.value or "") if partitions > 1 else got.id[index]
        if got.value is None or place is None:
            if partitions == 1 and not has_old:
                assert got.id[0] is not None
                highest[0] = max(highest.get(0, -1), got.id[0].number)
            continue
        line: object = index
        if has_old:
            # What came before a channel was given back may come again with its older cursor.
            span = span_of(session, count)
            if span is None or (span.first and not is_live(session, count)):
                continue
            line = got.channel, span.first
        if place.number <= highest.get(line, -1):
            text = f"{highest[line]} had come before"
            yield Fault("order", text, Taken(place, got.channel, got.value), session)
        highest[line] = max(highest.get(line, -1), place.number)


def check_losses(
    session: Session, span: Span, published: Sequence[Taken], index: int
) -> Iterator[Fault]:
    """Each publication that a span covers has come, or a reset instead."""
    start = number_at(span.since, index) or number_at(span.started, index)
    if start is None or (span.first and span.joined is None):
        return
    # A channel that was added is covered by the client's ids once the server has confirmed it.
    began = span.joined or 0 if span.first else 0
    ids = [number_at(got.id, index) for got in session.got[began : span.left]]
    confirmed = number_at(span.started, index) if span.first else None
    highs = running_maximum([confirmed, *ids])
    values = {got.value for got in session.got[span.first : span.left]}
    resets = [
        (position, got.at)
        for position, got in enumerate(session.got[: span.left])
        if got.value is None and got.channel == span.channel and position >= span.first
    ]
    for one in published[_after(published, start.number) : _after(published, highs[-1])]:
        if one.value in values:
            continue
        overtaken = began - 1 + bisect_left(highs, one.place.number)
        if not any(at <= overtaken and one.place.number <= when for at, when in resets):
            instead = session.got[overtaken].id if 0 <= overtaken < len(session.got) else "nothing"
            yield Fault("lost", f"the client got {instead} instead, and no reset", one, session)


def running_maximum(positions: Iterable[Position | None]) -> list[int]:
    """The highest number so far, after each position."""
    highs: list[int] = []
    for one in positions:
        highs.append(max(-1 if one is None else one.number, highs[-1] if highs else -1))
    return highs


def _after(taken: Sequence[Taken], number: int) -> int:
    """The index of the first one above a number."""
    return bisect_left(taken, Taken(Position(number + 1, ""), "", ""))


def check_recovered(
    session: Session, span: Span, published: Sequence[Taken], index: int
) -> Iterator[Fault]:
    """What recovered is True for has come before that was said."""
    start = number_at(span.since, index)
    if start is None or not span.recovered:
        return
    came = session.got[span.first : span.joined]
    here = {got.value for got in came}
    # The data may be lost after the server has found that all is there, and before it can say so.
    reset = max((g.at for g in came if g.value is None and g.channel == span.channel), default=0)
    named = number_at(span.started, index)
    end = span.began if named is None else min(span.began, named.number)
    for one in published[_after(published, start.number) : _after(published, end)]:
        if one.value not in here and one.place.number > reset:
            yield Fault("false True", "recovered is True", one, session)


def check_resets(session: Session) -> Iterator[Fault]:
    """There is no reset, and no recovered False."""
    for got in session.got:
        if got.value is None:
            yield Fault("needless reset", f"{got.channel} at {got.id}", None, session)
    if any(span.recovered is False for span in session.spans):
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
    for span in session.spans:
        yield span.began, f"{session.client} asks for {span.channel} since {span.since}"
        before = session.got[: span.joined]
        at = before[-1].at if before else span.began
        said = f"recovered {span.recovered}, at {span.started}, after {len(before)} messages"
        yield at, f"{session.client} has subscribed to {span.channel}: {said}"
        if span.left is not None:
            at = session.got[span.left - 1].at if span.left else span.began
            yield at, f"{session.client} gives {span.channel} back after {span.left} messages"
    when = session.began if fault.taken is None else fault.taken.place.number
    middle = bisect_left([got.at for got in session.got], when)
    near = session.got[max(0, middle - 3) : middle + 3]
    for got in session.got:
        if got.value is None or got in near:
            what = got.value or "RESET"
            yield got.at, f"{session.client} gets {what} of {got.channel}: {got.id}"
    for turnout in session.turnouts:
        yield turnout.at, f"{session.client} is told: {turnout.joined} came, {turnout.left} went"
    at = session.ended_at or (session.got[-1].at if session.got else session.began)
    yield at, f"{session.client} ends after {len(session.got)} messages: {session.ended}"
