"""Which connections of this process have a member in a channel.

The engine knows it, too, until it loses its data or takes the process for dead. Then all are noted
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faye_wsgi.brokers.base import Change

__all__ = ["Present"]


class Present:
    """The connections, as a broker has been told of them.

    ``note`` tells the engine of changes, in order; False if it had not known this process. To note
    a change twice is to note it once. ``forget`` lets the engine forget those that it knows.
    """

    def __init__(
        self,
        note: Callable[[Sequence[Change]], bool],
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._note, self._forget = note, forget
        self.forget()

    def forget(self) -> None:
        """In the child of a fork: they are the parent's."""
        self._data: dict[tuple[str, str, str], str] = {}
        self._must_note = False  # they are not noted as they are

    @property
    def channels(self) -> list[str]:
        """The channels in which they are."""
        return sorted({channel for channel, _member, _connection in list(self._data)})

    def change(self, changes: Sequence[Change]) -> None:
        """Note changes."""
        was_empty = not self._data
        for channel, member, connection, data in changes:
            if data is None:
                self._data.pop((channel, member, connection), None)
            else:
                self._data[channel, member, connection] = data
        if changes and not self._note(changes) and not was_empty:
            self._note_all()

    def check(self, is_known: bool) -> None:
        """Note all again, if the engine does not know this process, or did not the last time."""
        if self._must_note or not is_known:
            self._note_all()

    def _note_all(self) -> None:
        """Note all again, and no others.

        The process was taken for dead; or the data are gone, or the last changes of them: then some
        that have come are missing, and some that have gone are there for ever.
        """
        self._must_note = True  # until it is done: an error ends it at any step
        self._forget()
        present = [Change(*names, data) for names, data in list(self._data.items())]
        if present:
            self._note(present)
        self._must_note = False
