"""The chat of docs/channels.md in two browsers, on two workers with Redis."""

from __future__ import annotations

import signal
from pathlib import Path

from ..conftest import find_program
from ..support.browser import Page, find_programs, page
from ..support.redis import RedisServer
from ..support.servers import Server, serve
from ..test_channels_guide import write_chat

ENTER = "\ue007"


def enter(window: Page, server: Server, name: str) -> None:
    window.open(server.url("/"))
    window.find("input[name=name]").send_keys(name + ENTER)
    wait_online(window)


def wait_online(window: Page) -> None:
    window.wait(lambda w: w.find("#state").text == "online", 20, "the connection")


def say(window: Page, text: str) -> None:
    window.find("#say input").send_keys(text + ENTER)


def heard(window: Page) -> list[str]:
    return [line.text for line in window.find_all("#messages li")]


def test_two_pages(tmp_path: Path) -> None:
    find_programs()
    chat = write_chat(tmp_path)
    with RedisServer(find_program("redis-server")) as redis:
        env = {"CHANNELS": redis.url}
        with serve("gunicorn-gevent", "chat:app", workers=2, env=env, cwd=chat) as server:
            with page() as ada, page() as ben:
                enter(ada, server, "Ada")
                say(ada, "hello")
                ada.wait_text("Ada: hello")
                enter(ben, server, "Ben")
                ben.wait_text("Ada: hello")  # one of the last messages
                for window in (ada, ben):
                    window.wait(lambda w: w.find("#members").text == "Ada, Ben", 10, "both")
                before = set(server.worker_pids())
                server.signal(signal.SIGHUP)
                ada.wait(lambda _: not before & set(server.worker_pids()), 20, "new workers")
                say(ben, "still there?")
                for window in (ada, ben):
                    window.wait_text("Ben: still there?", 20)
                assert heard(ada) == heard(ben) == ["Ada: hello", "Ben: still there?"]
                logged = ada.console() + ben.console()
                assert not [line for line in logged if "chat.html" in line or "Uncaught" in line]
