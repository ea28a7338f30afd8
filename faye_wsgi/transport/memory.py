"""What the C library keeps of the memory of large messages.

glibc gives the memory of a large message back to the kernel. For the next one the kernel provides
it again, page by page, which takes three times as long as the message itself. So glibc is told to
keep some (``prepare_for_large``). What it keeps is not bounded where many large messages arrive at
the same time: their pieces lie between each other. So it is given back when no large message has
come for a while (``give_back``). Other C libraries do neither.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from gevent.monkey import get_original

__all__ = ["give_back", "prepare_for_large"]

_start_new_thread = get_original("_thread", "start_new_thread")

LARGE_BLOCK = 2**24


@cache
def prepare_for_large() -> None:
    """Let glibc keep some memory, once in a process (mallopt(3), M_TRIM_THRESHOLD)."""
    # It does so when a larger block was allocated and freed. Zeros: their pages are never touched,
    # so this costs no memory.
    bytes(LARGE_BLOCK)


def give_back() -> None:
    """Give all that is free back to the kernel, in a thread of its own.

    For a gigabyte that takes dozens of milliseconds. ctypes releases the GIL meanwhile.
    """
    trim = _find_trim()
    if trim is not None:
        with suppress(RuntimeError):  # the interpreter ends, or has no threads left
            _start_new_thread(trim, (0,))


@cache
def _find_trim() -> Any:
    import ctypes  # which takes a megabyte, and most processes never need it

    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
