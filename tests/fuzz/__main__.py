"""All targets, or those that are named, one after the other: ``python -m tests.fuzz``."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ..support.servers import ROOT
from ..test_native import build_with_sanitizers
from .corpora import NAMES, escape
from .one import FOUND, PATIENCE

WORDS = 3000  # characters of what a failed run has said
BUSY = 600  # seconds more than it was asked to run: for a machine that does other things, too


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument(
        "--sanitized",
        action="store_true",
        help="compile with ASan and UBSan; run all that was found, and changes of it",
    )
    options = parser.parse_args()
    for name in options.targets:
        if name not in NAMES:
            parser.error(f"there is no target {name}: there are {', '.join(NAMES)}")
    return options


def main() -> int:
    options = parse()
    command = [sys.executable, "-m", "tests.fuzz.one", "--seconds", str(options.seconds)]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        environment, cwd = dict(os.environ), ROOT
        if options.sanitized:
            added = build_with_sanitizers(Path(folder))
            if added is None:
                raise SystemExit("the compiler has no sanitizers")
            environment.update(added, PYTHONPATH=folder)
            command += ["--random", "--found", str(FOUND)]
            cwd = Path(folder)
        failed = 0
        for name in options.targets or NAMES:
            try:
                done = subprocess.run(
                    [*command, name],
                    cwd=cwd,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=2 * options.seconds + PATIENCE + BUSY,
                )
            except subprocess.TimeoutExpired as error:
                done = subprocess.CompletedProcess(command, 1, error.stdout or b"it does not end")
            if done.returncode:
                failed += 1
                tell(name, done.stdout)
            else:
                print(f"{name}: {summary(done.stdout.decode('utf-8', 'replace'))}", flush=True)
    return min(failed, 1)


def summary(output: str) -> str:
    runs = re.findall(r"Done (\d+) runs", output)
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", output)
    told = f"{runs[-1]} runs"
    if covered:
        told += ", {} edges and {} features covered by {} inputs".format(*covered[-1])
    return told


def tell(name: str, output: bytes) -> None:
    """Say what was found, and which line of the corpus shows it again."""
    print(output.decode("utf-8", "replace")[-WORDS:])
    for path in sorted(FOUND.glob(f"{name}-*")) + sorted(FOUND.glob(f"{name}.last")):
        print(f"\n{name}, {path.name}: the line for tests/fuzz/corpus/{name}.txt is")
        print(escape(path.read_bytes()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
