"""Check what clients were told of who is there. No I/O, no clock.

1. **A member that stays is never shown as left.** A leave may be announced only of a member that
   was away for as long as leaves are announced late, less what a busy machine needs.
2. **Once.** A client is told of a join only of members that are not there for it, and of a leave
   only of those that are.

Away is a member while none of its clients has a connection that the server has confirmed. While the
broker cannot be asked, a worker cannot tell it who has come back: so that counts as away, too, if
the member was away when it began or came back meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from .check import Fault
from .records import Session

__all__ = ["check_presence"]

SLACK = 500_000  # µs that a client may notice the end of its connection late
LATE = 30_000_000  # µs that a leave may be announced late, while the broker is away
AFTER_HARM = 8_000_000  # µs until the workers are back at a broker that was away

Times = list[tuple[int, int]]


def check_presence(
    sessions: Sequence[Session], leave_seconds: float, harm: Iterable[tuple[int, int]] = ()
) -> Iterator[Fault]:
    """All faults. ``harm`` are the times in which the broker could not be asked."""
    absences = find_absences(sessions, [(begin, end + AFTER_HARM) for begin, end in harm])
    grace = round(leave_seconds * 1e6) - SLACK
    for session in sessions:
        here: set[str] = set()
        for turnout in session.turnouts:
            for member in turnout.joined:
                if member in here:
                    yield Fault("presence", f"{member} joins twice at {turnout.at}", None, session)
            for member in turnout.left:
                if member not in here:
                    text = f"{member}, who was not there, leaves at {turnout.at}"
                    yield Fault("presence", text, None, session)
                if not any(
                    end - begin >= grace and begin + grace <= turnout.at <= end + LATE
                    for begin, end in absences.get(member, ())
                ):
                    text = f"{member} stays, and leaves at {turnout.at}: {absences.get(member)}"
                    yield Fault("presence", text, None, session)
            here = (here | {*turnout.joined}) - {*turnout.left}


def find_absences(sessions: Iterable[Session], harm: Times) -> dict[str, Times]:
    """When each member was away."""
    stays: dict[str, Times] = defaultdict(list)
    for session in sessions:
        if session.member is not None and session.present is not None:
            end = session.ended_at or 2**62
            stays[session.member].append((session.present, end))
    return {member: gaps(sorted(times), harm) for member, times in stays.items()}


def gaps(stays: Times, harm: Times) -> Times:
    """What lies between stays; where harm touches it, to the end of that."""
    found: Times = []
    end = 0
    for begin, until in stays:
        if begin > end:
            found.append((end, begin))
        end = max(end, until)
    found.append((end, 2**62))
    return [(begin, _prolong(until, harm)) for begin, until in found]


def _prolong(end: int, harm: Times) -> int:
    for first, last in sorted(harm):
        if first <= end + SLACK and end < last:
            end = last
    return end
