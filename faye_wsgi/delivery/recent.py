"""The newest publications of a partition: those who come back get them without a reading.

After a deploy thousands of clients come back, with cursors of the same second. One reading brings
what the first of them has missed. It is kept here, with all that is delivered after it, so that the
broker need not be asked for the others. No I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable

from faye_wsgi.brokers.base import Publication

__all__ = ["Recent"]

OVERHEAD = 200  # characters that a publication counts for, besides its payload


class Recent:
    """What was delivered last of the channels that are delivered, up to ``size`` characters.

    Of each channel it is known from which number on nothing is missing.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._weight = 0
        self._numbers: list[int] = []  # rising
        self._kept: dict[int, Publication] = {}
        self._dropped = 0  # what has this number, or a lower one, may be gone
        self._floors: dict[str, int] = {}  # channel → all that is newer was added

    def since(self, channel: str, number: int) -> list[Publication] | None:
        """What was delivered of a channel after a number; None where some of it is not known."""
        floor = self._floors.get(channel)
        if floor is None or number < max(floor, self._dropped):
            return None
        later = self._numbers[bisect_right(self._numbers, number) :]
        return [self._kept[one] for one in later if self._kept[one].channel == channel]

    def begin(self, channel: str, number: int, publications: Iterable[Publication] = ()) -> None:
        """These are all publications of a channel after a number, up to what is delivered next."""
        floor = self._floors.get(channel)
        if floor is None or number < floor:
            self._floors[channel] = number
            for publication in publications:
                self.add(publication)

    def add(self, publication: Publication) -> None:
        """A publication is delivered."""
        number = publication.number
        if number in self._kept or number <= self._dropped:
            return
        if self._numbers and number < self._numbers[-1]:
            insort(self._numbers, number)
        else:
            self._numbers.append(number)
        self._kept[number] = publication
        self._weight += len(publication.payload) + OVERHEAD
        if self._weight > self._size:
            self._drop()

    def _drop(self) -> None:
        """Drop the older half: not one at each ``add``, for a list is slow at its beginning."""
        count = 0
        for number in self._numbers:
            if self._weight <= self._size // 2:
                break
            self._weight -= len(self._kept.pop(number).payload) + OVERHEAD
            count += 1
        self._dropped = self._numbers[count - 1]
        del self._numbers[:count]

    def lose(self, channel: str, number: int) -> None:
        """Something of a channel is lost: it begins again after a number."""
        self._floors[channel] = number

    def discard(self, channel: str) -> None:
        """A channel is delivered no more."""
        self._floors.pop(channel, None)

    def clear(self) -> None:
        """Another life of the broker's data: its numbers have nothing to do with these."""
        self._numbers.clear()
        self._kept.clear()
        self._weight = self._dropped = 0
