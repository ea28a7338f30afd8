"""Ten seconds of mixed traffic with faults; and the check finds what it is there to find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ..support import servers
from ..support.servers import ROOT
from . import plot
from .traffic import COLUMNS, Record, check

SECONDS = 10
LIMIT = 110.0


def test_nothing_is_lost_or_out_of_order(tmp_path: Path) -> None:
    if not servers.MAY_START:
        pytest.skip("it starts a server")
    command: list[Any] = [sys.executable, "-W", "ignore", "-m", "tests.soak.traffic"]
    command += ["--seconds", str(SECONDS), "--seed", "1", "--output", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT
    )
    output = done.stdout.decode("utf-8", "replace")
    print(output)
    assert done.returncode == 0, output
    head, *rows = (tmp_path / "traffic.csv").read_text().splitlines()
    assert head.split(",") == list(COLUMNS) and len(rows) > SECONDS / 2
    assert ElementTree.parse(tmp_path / "traffic.svg").getroot().tag.endswith("svg")


def there(**counts: Any) -> dict[str, dict[str, Any]]:
    return {"a": {"begun": 5, "sent": 5, "received": 3, "wrong": "", "code": 1000, **counts}}


def test_a_connection_of_which_all_arrived() -> None:
    assert list(check([Record("a", 3, 5, 1000, 3)], there())) == []
    assert list(check([Record("a", 4, 5, 1001)], there())) == [], "ours were on their way"
    assert list(check([Record("a", 3, 2)], there())) == [], "it was cut"
    assert list(check([Record("a", 3, 6, 1001)], there(begun=6))) == [], "a send that has raised"


@pytest.mark.parametrize(
    "record, counts, said",
    [
        (Record("a", 3, 4, 1000, 3), {}, "lost messages of the server"),
        (Record("a", 3, 4, 1001), {}, "lost messages of the server"),
        (Record("a", 4, 5, 1000, 3), {}, "lost messages of the client"),
        (Record("a", 3, 5, 1000, 2), {}, "lost messages of the client"),
        (Record("a", 3, 6), {}, "more has come"),
        (Record("a", 2, 5), {}, "more has come"),
        (Record("a", 3, 5, wrong="2 came instead of 1; "), {}, "2 came instead of 1"),
        (Record("a", 3, 5), {"wrong": "2 came instead of 1; "}, "at the server: 2 came"),
        (Record("b", 3, 5, 1001), {}, "no record"),
        (Record("a", 3, 5, 1011), {}, "ended with 1011"),
    ],
)
def test_a_connection_that_has_lost_something(
    record: Record, counts: dict[str, Any], said: str
) -> None:
    (fault,) = check([record], there(**counts))
    assert said in fault


def test_a_picture_of_curves_with_gaps() -> None:
    chart = plot.Chart("a < b", {"x": [1.0, None, 3.0], "y": [0.0, 1.5, 2.0]})
    picture = ElementTree.fromstring(plot.draw([0.0, 1.0, 2.0], [chart], marks=[1.0]))
    lines = [one.get("points", "").split() for one in picture.iter() if "polyline" in one.tag]
    assert [len(points) for points in lines] == [2, 3]
    assert plot.draw([], [plot.Chart("nothing", {"": []})]).endswith("</svg>\n")
