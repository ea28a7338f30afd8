"""The command: rounds of all setups, until the time is up or a promise was not kept."""

from __future__ import annotations

import argparse
import sys
import time

from gevent import monkey

LENGTH = 60.0  # seconds of harm in a round, at most


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="in all (default 120)")
    parser.add_argument("--seed", type=int, help="of the first round (default: the time)")
    parser.add_argument("--setup", help="only this one")
    return parser.parse_args()


def main() -> int:
    monkey.patch_all()
    from . import rounds

    options = parse()
    setups = [one for one in rounds.SETUPS if options.setup in (None, one.name)]
    if not setups:
        names = ", ".join(one.name for one in rounds.SETUPS)
        raise SystemExit(f"there is no setup {options.setup}: there are {names}")
    seed = int(time.time()) if options.seed is None else options.seed
    deadline = time.monotonic() + options.seconds
    length = min(LENGTH, options.seconds / len(setups))
    number = 0
    while not number or time.monotonic() < deadline:
        setup = setups[number % len(setups)]
        print(f"{setup.name}, seed {seed + number}", flush=True)
        result = rounds.run_round(setup, seed + number, length)
        print(result.summary, flush=True)
        if result.faults:
            print(f"{len(result.faults)} promises were not kept\n\n{result.story}", flush=True)
            return 1
        number += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
