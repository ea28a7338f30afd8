"""Runs the corpus: each case in one piece, byte by byte, and cut in two at every byte.

A file has cases, each of them sections that begin with a name and a colon::

    case: what it shows
    role: client                    # whose driver reads; server if not told
    options: max_length=10          # of the driver
    in:                             # hexadecimal bytes, "ASCII text", 61*126 for repetition
      81 85  37 fa 21 3d  7f 9f 4d 51 58
    then:                           # bytes after a fault that `in:` already has shown
    eof:                            # TCP ends here
    events:                         # type, then values as Python writes them; an error's
      message 'Hello'               # text and the reason of its close are left open
    out:                            # the frames that the driver then owes the peer
      pong b'Hello'
      close 1000                    # a reply has no reason; a failure's is left open

Everything after ``#`` is a comment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from faye_wsgi.driver.events import CloseEvent, Data, ErrorEvent, Event
from faye_wsgi.driver.hybi import Hybi

from ..support import frames

HERE = Path(__file__).parent
NAMES = {"case", "role", "options", "in", "then", "eof", "events", "out"}
SECTION = re.compile(r"([a-z]+):(.*)")
ITEM = re.compile(r'"(?P<text>[^"]*)"|(?P<byte>[0-9a-f]{2})(?:\*(?P<times>\d+))?(?!\S)')
OUT = {frames.PONG: "pong", frames.CLOSE: "close"}

Case = dict[str, list[str]]


def read_cases(path: Path) -> list[Case]:
    """The cases of a file: a list of lines for each section's name."""
    cases: list[Case] = []
    lines: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        line = line.partition("#")[0].rstrip()
        section = SECTION.fullmatch(line)
        if section:
            name, value = section.groups()
            assert name in NAMES, f"{path.name}: {name}"
            if name == "case":
                cases.append({})
            lines = cases[-1].setdefault(name, [])
            lines.extend(filter(None, [value.strip()]))
        elif line:
            assert line.startswith(" "), f"{path.name}: {line}"
            lines.append(line.strip())
    return cases


def read_bytes(lines: list[str]) -> bytes:
    """The bytes that the lines of a section spell."""
    data, text, pos = b"", " ".join(lines), 0
    while pos < len(text):
        item = ITEM.match(text, pos)
        assert item, f"neither bytes nor text: {text[pos:]!r}"
        if item["text"] is not None:
            data += item["text"].encode("ascii")
        else:
            data += bytes.fromhex(item["byte"]) * int(item["times"] or 1)
        pos = item.end()
        pos += len(text[pos:]) - len(text[pos:].lstrip())
    return data


def read_expected(line: str) -> list[Any]:
    """A line of ``events:`` or ``out:``: the type and the values."""
    name, _, value = line.partition(" ")
    if name == "close":
        code, _, reason = value.partition(" ")
        return [name, *([int(code)] if code else []), *([evaluate(reason)] if reason else [])]
    return [name, *([evaluate(value)] if value else [])]


def evaluate(value: str) -> Any:
    # The corpus is ours, and only literals and bytes(n) are in it.
    return eval(value, {"__builtins__": {"bytes": bytes}})


def seen(events: list[Data | Event]) -> list[list[Any]]:
    """Events as ``events:`` writes them."""
    found: list[list[Any]] = []
    failed = False
    for event in events:
        if isinstance(event, (str, bytes)):
            found.append(["message", event])
            continue
        values = [getattr(event, name) for name in type(event).__slots__]
        if isinstance(event, ErrorEvent):
            failed, values = True, []
        elif isinstance(event, CloseEvent) and failed:
            values = values[:1]
        found.append([event.type, *values])
    return found


def owed(driver: Hybi) -> list[list[Any]]:
    """What the driver says at the end, as ``out:`` writes it."""
    sent, rest = frames.parse(driver.output() + driver.closing_frame())
    assert rest == b""
    found: list[list[Any]] = []
    for frame in sent:
        if frame.opcode == frames.CLOSE:
            found.append(["close", *([frame.close_code] if frame.payload else [])])
        else:
            found.append([OUT[frame.opcode], frame.payload])
    return found


def run(case: Case, pieces: list[bytes]) -> tuple[list[list[Any]], list[list[Any]]]:
    """The events and the frames that ``pieces`` lead to."""
    options = dict(pair.split("=") for line in case.get("options", []) for pair in line.split())
    limits: Any = {name: int(value) for name, value in options.items()}
    driver = Hybi(client=case.get("role") == ["client"], **limits)
    events: list[Data | Event] = [event for piece in pieces for event in driver.receive_data(piece)]
    if "eof" in case:
        events += driver.receive_eof()
    return seen(events), owed(driver)


CASES = {
    f"{path.stem}: {case['case'][0]}": case
    for path in sorted(HERE.glob("*.txt"))
    for case in read_cases(path)
}
FAULTS = {title: case for title, case in CASES.items() if "error" in case["events"]}


def cases(chosen: dict[str, Case]) -> pytest.MarkDecorator:
    """Run a test for each of the chosen cases, by its title."""
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen.keys())


def data_of(case: Case) -> bytes:
    return read_bytes(case["in"]) + read_bytes(case.get("then", []))


def expected_of(case: Case) -> tuple[list[list[Any]], list[list[Any]]]:
    events, out = case["events"], case.get("out", [])
    return [read_expected(line) for line in events], [read_expected(line) for line in out]


@cases(CASES)
def test_in_one_piece(case: Case) -> None:
    assert run(case, [data_of(case)]) == expected_of(case)


@cases(CASES)
def test_byte_by_byte(case: Case) -> None:
    assert run(case, [bytes([byte]) for byte in data_of(case)]) == expected_of(case)


@cases(CASES)
def test_in_two_pieces(case: Case) -> None:
    data, expected = data_of(case), expected_of(case)
    places = range(len(data)) if len(data) < 500 else (1, 2, 5, 9, 13, 14, 15, len(data) - 1)
    for place in places:
        assert run(case, [data[:place], data[place:]]) == expected, place


@cases(FAULTS)
def test_a_fault_is_found_at_its_byte(case: Case) -> None:
    data = read_bytes(case["in"])
    assert run(case, [data]) == expected_of(case)
    assert ["error"] not in run(case, [data[:-1]])[0]


def test_the_corpus_is_whole() -> None:
    assert len(CASES) == sum(len(read_cases(path)) for path in HERE.glob("*.txt")) >= 40
    for case in CASES.values():
        assert {"case", "in", "events"} <= set(case)
