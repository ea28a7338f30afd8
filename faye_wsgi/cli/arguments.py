"""What all commands share: the arguments, the exit statuses, and how foreign text is printed."""

from __future__ import annotations

import argparse
import sys
from typing import Any

__all__ = ["INTERRUPTED", "USAGE", "Parser", "printable", "read_header"]

USAGE = 64  # EX_USAGE of sysexits.h: argparse's own 2 would mean 1002
INTERRUPTED = 130  # 128 and SIGINT, as a shell has it


class Parser(argparse.ArgumentParser):
    """Ends with ``USAGE`` for wrong arguments."""

    def error(self, message: str) -> Any:
        """Say what is wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: {message}\n")


def read_header(text: str) -> tuple[str, str]:
    """A header's name and value."""
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError('a header is "Name: value"')
    return name.strip(), value.strip()


def printable(text: str, keep: str = "") -> str:
    """Text without control characters, but for those in ``keep``: they are escaped.

    A peer must not send commands to the terminal.
    """
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)
