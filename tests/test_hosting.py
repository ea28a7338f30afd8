"""docs/hosting.md: what it shows is accepted by the programs that it is for.

gunicorn reads each of its command lines, and systemd its unit; the times in them fit together.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import find_program
from .support.servers import ROOT

PAGE = (ROOT / "docs/hosting.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def directive(name: str) -> str:
    """A line of the unit."""
    (value,) = re.findall(rf"^{name}=(.*)$", block("ini"), re.MULTILINE)
    return str(value)


def command_of_kubernetes() -> list[str]:
    (line,) = re.findall(r"^ +command: (\[.*\])$", block("yaml"), re.MULTILINE)
    return list(json.loads(line))


def command_of_docker() -> list[str]:
    return list(json.loads(block("dockerfile").partition("CMD ")[2]))


COMMANDS = {
    "systemd": shlex.split(directive("ExecStart")),
    "docker": command_of_docker(),
    "kubernetes": command_of_kubernetes(),
    "heroku": shlex.split(block("text").removeprefix("web: ")),
}
GRACE = {
    name: int(command[command.index("--graceful-timeout") + 1])
    for name, command in COMMANDS.items()
}


@pytest.mark.parametrize("name", COMMANDS)
def test_gunicorn_reads_the_command(name: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def app(environ, start_response): ...\n")
    program, *options = COMMANDS[name]
    assert Path(program).name == "gunicorn" and options[:2] == ["-k", "gevent"]
    command = [sys.executable, "-m", "gunicorn", "--check-config", *options]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_all_wait_longer_than_gunicorn() -> None:
    assert int(directive("TimeoutStopSec")) > GRACE["systemd"]
    (docker,) = re.findall(r"--stop-timeout (\d+)", block("sh"))
    assert int(docker) > GRACE["docker"]
    (period,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", block("yaml"))
    (pause,) = re.findall(r'"sleep", "(\d+)"', block("yaml"))
    assert int(period) > GRACE["kubernetes"] + int(pause)
    (heroku,) = re.findall(r"killed (\d+) seconds later", PAGE)
    assert int(heroku) > GRACE["heroku"]


def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    """It looks for the program, which is Python here."""
    program = find_program("systemd-analyze")
    unit = tmp_path / "app.service"
    unit.write_text(block("ini").replace(COMMANDS["systemd"][0], sys.executable))
    ran = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, timeout=60)
    said = [line for line in ran.stderr.splitlines() if "app.service" in line]
    assert ran.returncode == 0 and not said, ran.stderr


def test_the_yaml() -> None:
    if importlib.util.find_spec("yaml") is None:
        pytest.skip("PyYAML is not installed")
    import yaml

    deployment, service = yaml.safe_load_all(block("yaml"))
    template = deployment["spec"]["template"]
    assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    (container,) = template["spec"]["containers"]
    ports = [port["containerPort"] for port in container["ports"]]
    assert container["command"] == COMMANDS["kubernetes"] and ports == [8000]
    assert service["spec"]["ports"][0]["targetPort"] == ports[0]
