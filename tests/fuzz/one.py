"""One target in a process of its own: ``python -m tests.fuzz.one hybi --seconds 60``."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import random
import sys
import time
from pathlib import Path
from typing import Any, Callable

from ..support.servers import ROOT
from .corpora import NAMES, seeds

try:
    import atheris
except ImportError:
    atheris = None

FOUND = ROOT / "build" / "fuzz"
MAX_LENGTH = 4096  # bytes of an input
PATIENCE = 60  # seconds for one input; an endless loop is a defect, too

Check = Callable[[bytes], None]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.one", description=__doc__)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--random", action="store_true", help="change the seeds without a guide")
    parser.add_argument("--found", type=Path, default=FOUND, help="where inputs are kept")
    return parser.parse_args()


def main() -> None:
    options = parse()
    corpus = options.found / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds(options.target):
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    if options.random or atheris is None:
        change_at_random(find_check(options.target), corpus, options.seconds)
    else:
        be_guided(options.target, corpus, options.seconds)


def find_check(name: str) -> Check:
    check: Check = importlib.import_module(f"tests.fuzz.targets.{name}").check
    return check


def be_guided(name: str, corpus: Path, seconds: int) -> None:
    """Let libFuzzer choose the inputs, by the lines of Python that they reach. Does not return."""
    with atheris.instrument_imports(include=["faye_wsgi", "h11"]):
        check = find_check(name)
    arguments = [
        str(corpus),
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LENGTH}",
        f"-timeout={PATIENCE}",
        f"-artifact_prefix={corpus}-",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *arguments], check)
    atheris.Fuzz()


def change_at_random(check: Check, corpus: Path, seconds: int) -> None:
    """All that was found before, and then changes of it, until the time is up."""
    inputs = [path.read_bytes() for path in sorted(corpus.iterdir())]
    dice: Any = random.Random(0)
    deadline = time.monotonic() + seconds
    # A sanitizer ends the process at once: the file then has the input.
    last = corpus.with_suffix(".last")
    runs = 0
    while runs < len(inputs) or time.monotonic() < deadline:
        data = inputs[runs] if runs < len(inputs) else changed(inputs, dice)
        last.write_bytes(data)
        check(data)
        runs += 1
    last.unlink()
    print(f"Done {runs} runs", file=sys.stderr)


def changed(inputs: list[bytes], dice: random.Random) -> bytes:
    data = bytearray(dice.choice(inputs))
    for _ in range(dice.randint(1, 6)):
        at = dice.randint(0, len(data))
        how = dice.randint(0, 5)
        if how == 0 and at < len(data):
            data[at] ^= 1 << dice.randint(0, 7)
        elif how == 1:
            data[at : at + 1] = bytes([dice.choice([0, 1, 125, 126, 127, 128, 254, 255])])
        elif how == 2:
            del data[at : at + dice.randint(1, 16)]
        elif how == 3:
            data[at:at] = dice.randbytes(dice.randint(1, 9))
        elif how == 4:
            data[at:at] = data[at : at + dice.randint(1, 64)]
        else:
            other = dice.choice(inputs)
            data[at:] = other[dice.randint(0, len(other)) :]
    return bytes(data[:MAX_LENGTH])


if __name__ == "__main__":
    main()
