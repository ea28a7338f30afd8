"""The example chat under a real gunicorn: two browsers side by side.

Each test talks in a channel of its own, so the pages and the server can be shared.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ..conftest import find_program
from ..support.browser import Page, page
from ..support.nginx import Nginx, nginx
from ..support.redis import RedisServer
from ..support.servers import ROOT, Server, serve
from ..support.waiting import wait_until

EXAMPLE = ROOT / "examples" / "flask_app"
STATUS = "return document.documentElement.dataset.status"
ENTER = "\ue007"


def serve_chat(port: int = 0, env: dict[str, str] | None = None, workers: int = 1) -> Any:
    return serve("gunicorn-gevent", "app:app", cwd=EXAMPLE, port=port, env=env, workers=workers)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_chat() as running:
        yield running


@pytest.fixture(scope="module")
def ada(server: Server) -> Iterator[Page]:
    with page() as window:
        yield join(window, server, "Ada")
        assert window.console() == []


@pytest.fixture(scope="module")
def ben(server: Server) -> Iterator[Page]:
    with page() as window:
        yield join(window, server, "Ben")
        assert window.console() == []


def join(window: Page, server: Server | Nginx, name: str) -> Page:
    window.open(f"http://{server.host_header}/")
    window.find("#name-dialog[open] #name").send_keys(name + ENTER)
    wait_online(window, timeout=30)
    return window


def wait_online(window: Page, timeout: float = 10.0) -> None:
    window.wait(lambda w: w.run(STATUS) == "online", timeout, "the connection")


def enter(channel: str, *windows: Page) -> None:
    """Changes the channel, and waits until the server has said who is there."""
    for window in windows:
        window.run("location.hash = arguments[0]", channel)
        window.wait(lambda w: w.find("#channel-name").text == channel)
        window.find("#people li")
        wait_online(window)


def say(window: Page, text: str) -> None:
    window.find("#text").send_keys(text + ENTER)


def messages(window: Page, selector: str = ".message") -> list[str]:
    found = f"{selector} .bubble"
    return list(
        window.run(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", found
        )
    )


def people(window: Page) -> list[str]:
    script = "return [...document.querySelectorAll('.person')].map((e) => e.textContent)"
    return list(window.run(script))


def wait_messages(window: Page, expected: list[str], selector: str = ".message") -> None:
    window.wait(lambda w: messages(w, selector) == expected, what=f"{selector} to be {expected}")


def test_two_people_see_each_other(ada: Page, ben: Page) -> None:
    enter("meeting", ada, ben)
    for window in (ada, ben):
        window.wait(lambda w: people(w) == ["Ada", "Ben"])
    say(ada, "Good morning")
    wait_messages(ben, ["Good morning"])
    say(ben, "Hello, Ada")
    for window in (ada, ben):
        wait_messages(window, ["Good morning", "Hello, Ada"])
        wait_messages(window, [], ".message.unsent")
    assert messages(ada, ".message.own") == ["Good morning"]
    assert messages(ben, ".message.own") == ["Hello, Ada"]
    enter("elsewhere", ben)
    ada.wait(lambda w: people(w) == ["Ada"])


def press_escape(window: Page) -> None:
    """As a key for the whole page: an element could not take it while a dialog is open."""
    for type in ("rawKeyDown", "keyUp"):
        key = {"type": type, "key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27}
        window.driver.execute_cdp_cmd("Input.dispatchKeyEvent", key)


def is_open(window: Page) -> bool:
    return bool(window.run("return document.getElementById('name-dialog').open"))


@pytest.mark.parametrize("leave", [press_escape, lambda w: w.find("#name-cancel").click()])
def test_a_visitor_may_leave_the_question_for_a_name_open(
    server: Server, leave: Callable[[Page], None]
) -> None:
    with page() as window:
        window.open(server.url("/"))
        window.find("#name-dialog[open]")
        leave(window)
        window.wait(lambda w: not is_open(w), what="the dialog to close")
        assert window.run(STATUS) == "idle"
        assert window.run("return document.activeElement.id") == "enter"
        window.find("#text").send_keys("a draft" + ENTER)
        window.find("#name-dialog[open] #name").send_keys("  " + ENTER)
        assert is_open(window)
        window.find("#name").send_keys("Cleo" + ENTER)
        wait_online(window)
        assert not window.find("#enter").is_displayed()
        assert window.find("#text").get_attribute("value") == "a draft"


def test_escape_closes_the_dialog_and_then_the_menu_below_it(ada: Page) -> None:
    menu = "return document.body.classList.contains('sidebar-open')"
    ada.resize(390, 844)
    ada.find("#open-sidebar").click()
    ada.find("#me").click()
    ada.find("#name-dialog[open]")
    press_escape(ada)
    ada.wait(lambda w: not is_open(w), what="the dialog to close")
    assert ada.run(menu)
    press_escape(ada)
    ada.wait(lambda w: not w.run(menu), what="the menu to close")
    ada.resize(1280, 800)


def test_text_is_never_html(ada: Page, ben: Page) -> None:
    enter("markup", ada, ben)
    text = "<img src=x onerror=alert(1)> <b>bold</b> & http://127.0.0.1:9/a?b=1."
    say(ada, text)
    for window in (ada, ben):
        wait_messages(window, [text])
        assert window.find_all("#messages img, #messages b") == []
        link = window.find("#messages a")
        assert link.get_attribute("href") == "http://127.0.0.1:9/a?b=1"
        assert link.get_attribute("rel") == "noopener noreferrer"


def test_typing_is_shown_and_goes_away(ada: Page, ben: Page) -> None:
    enter("writing", ada, ben)
    ben.find("#text").send_keys("I thi")
    ada.wait(lambda w: w.find("#typing").text == "Ben is typing")
    ben.find("#text").send_keys("nk so" + ENTER)
    wait_messages(ada, ["I think so"])
    assert ada.find("#typing").text == ""


def test_history_on_joining_with_own_messages_marked(ada: Page, ben: Page) -> None:
    enter("past", ada)
    for text in ("one", "two", "three"):
        say(ada, text)
    wait_messages(ada, ["one", "two", "three"])
    enter("past", ben)
    wait_messages(ben, ["one", "two", "three"])
    ada.driver.refresh()
    wait_online(ada)
    assert ada.find("#channel-name").text == "past"
    wait_messages(ada, ["one", "two", "three"], ".message.own")
    ada.find("#people li")
    assert ada.find("#my-name").text == "Ada"


def test_unread_messages_of_another_channel_are_counted(ada: Page, ben: Page) -> None:
    enter("busy", ada, ben)
    say(ada, "seen")
    wait_messages(ben, ["seen"])
    enter("quiet", ben)
    say(ada, "first")
    say(ada, "second")
    ben.wait(lambda w: w.driver.title == "(2) #quiet · Parley")
    assert "2" in ben.find('.channels a[href="#busy"] .badge').text
    enter("busy", ben)
    wait_messages(ben, ["seen", "first", "second"])
    assert ben.find(".separator.new").text == "New"
    ben.wait(lambda w: w.driver.title == "#busy · Parley")


def test_it_comes_back_after_a_restart_and_sends_what_waited() -> None:
    with page() as ada, page() as ben:
        with serve_chat() as first:
            port = first.port
            join(ada, first, "Ada")
            join(ben, first, "Ben")
            say(ada, "before")
            wait_messages(ben, ["before"])
        for window in (ada, ben):
            window.wait(lambda w: w.run(STATUS) != "online")
            window.wait(lambda w: w.find("#banner").is_displayed())
        say(ada, "are you there?")
        wait_messages(ada, ["are you there?"], ".message.unsent")
        assert "Not sent yet" in ada.text()
        with serve_chat(port):
            for window in (ada, ben):
                wait_online(window, timeout=30)
            for window in (ada, ben):
                wait_messages(window, ["before", "are you there?"])
                wait_messages(window, [], ".message.unsent")
                assert not window.find("#banner").is_displayed()
                window.wait(lambda w: people(w) == ["Ada", "Ben"])


def test_try_now_does_not_wait(ada: Page) -> None:
    enter("retry", ada)
    ada.run("dispatchEvent(new Event('offline'))")  # the next attempt is in 30 seconds
    ada.wait(lambda w: w.find("#banner").is_displayed())
    say(ada, "kept")
    wait_messages(ada, ["kept"], ".message.unsent")
    ada.find("#retry").click()
    wait_online(ada)
    wait_messages(ada, ["kept"], ".message:not(.unsent)")


def test_a_new_name_is_seen_by_all(ada: Page, ben: Page) -> None:
    enter("names", ada, ben)
    say(ben, "as Ben")
    wait_messages(ada, ["as Ben"])
    for name in ("Benny", "Ben"):
        ben.find("#me").click()
        ben.find("#name-dialog[open] #name").clear()
        ben.find("#name").send_keys(name + ENTER)
        for window in (ada, ben):
            window.wait(lambda w: people(w) == ["Ada", name], 20)  # noqa: B023
    wait_messages(ben, ["as Ben"], ".message.own")


def test_it_works_where_no_websocket_passes(server: Server, ada: Page) -> None:
    enter("strict", ada)
    say(ada, "through")
    wait_messages(ada, ["through"], ".message:not(.unsent)")
    with page() as window:
        script = """window.WebSocket = class {
            constructor() { setTimeout(() => this.onclose({ code: 1006, reason: '' })); }
            close() {}
        };"""
        window.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        window.open(server.url("/#strict"))
        window.find("#name-dialog[open] #name").send_keys("Cleo" + ENTER)
        wait_online(window, timeout=30)
        wait_messages(window, ["through"])
        say(window, "by POST")
        for each in (ada, window):
            wait_messages(each, ["through", "by POST"], ".message:not(.unsent)")
            each.wait(lambda w: people(w) == ["Ada", "Cleo"])


def test_unsent_messages_survive_a_reload(ada: Page) -> None:
    enter("offline", ada)
    try:
        ada.run("WebSocket.prototype.send = () => {}")  # the line is dead, and nobody noticed
        say(ada, "hold this")
        wait_messages(ada, ["hold this"], ".message.unsent")
    finally:
        ada.driver.refresh()
    wait_messages(ada, ["hold this"], ".message:not(.unsent)")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_screen(
    ada: Page, tmp_path: Path, width: int, height: int, dark: bool
) -> None:
    ada.resize(width, height)
    ada.dark(dark)
    enter("wide", ada)
    say(ada, "a" * 300)
    ada.wait(lambda w: messages(w)[-1:] == ["a" * 300])
    ada.screenshot(tmp_path / f"chat-{width}-{'dark' if dark else 'light'}.png")
    assert ada.run("return document.documentElement.scrollWidth") <= width
    assert (
        ada.run(
            "const log = document.getElementById('log');return log.scrollWidth - log.clientWidth"
        )
        == 0
    )
    assert ada.run("return document.getElementById('sidebar').inert") is (width < 760)
    ada.resize(1280, 800)


def test_the_log_stays_at_its_end_when_the_window_changes(ada: Page) -> None:
    """A phone is turned: the browser may tell of the scrolling before the page knows the size."""
    ada.resize(1280, 800)
    enter("turning", ada)
    say(ada, "line after line")
    for number in range(12):
        say(ada, str(number))
    wait_messages(ada, ["line after line", *map(str, range(12))], ".message:not(.unsent)")
    gap = """
        const { scrollHeight, scrollTop, clientHeight } = document.getElementById("log");
        return scrollHeight - scrollTop - clientHeight;
    """
    try:
        ada.run("""
            const log = document.getElementById('log');
            log.style.height = '200px';
            log.dispatchEvent(new Event('scroll'));
        """)
        ada.wait(lambda w: w.run(gap) < 2, what="the log to be at its end")
        assert not ada.find("#jump").is_displayed()
    finally:
        ada.run("document.getElementById('log').style.height = ''")


# What a finger can hit, and how large it is; links in the middle of a text are left out. What
# comes and goes is shown for as long as it is measured.
TARGETS = """
const rare = [...document.querySelectorAll('#banner, #jump')].filter((e) => e.hidden);
for (const e of rare) e.hidden = false;
const inside = (e) => document.querySelector('dialog[open]')?.contains(e) ?? true;
const targets = [...document.querySelectorAll('a, button, input, textarea')]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest('p, .bubble'))
  .filter((e) => inside(e) && !e.closest('[inert]'))
  .map((e) => [e.id || e.textContent.trim(), e.getBoundingClientRect()])
  .map(([name, { width, height }]) => ({ name, width, height }));
for (const e of rare) e.hidden = true;
return targets;
"""


def check_targets(window: Page, *expected: str) -> None:
    targets = window.run(TARGETS)
    assert set(expected) <= {target["name"] for target in targets}
    assert [t for t in targets if min(t["width"], t["height"]) < 44] == []


def test_a_finger_can_hit_everything_on_a_phone(server: Server, ada: Page) -> None:
    enter("fingers", ada)
    ada.resize(390, 844)
    ada.wait(lambda w: w.find("#text").size["height"] >= 44, what="the message box to grow")
    check_targets(ada, "open-sidebar", "send", "text", "jump", "retry", "Activity")
    ada.find("#open-sidebar").click()
    check_targets(ada, "add-channel", "close-sidebar", "me", "#fingers")
    ada.find("#me").click()
    check_targets(ada, "name", "name-cancel", "join")
    ada.find("#name-cancel").click()
    ada.find("#add-channel").click()
    check_targets(ada, "new-channel", "channel-cancel", "Open")
    ada.find("#channel-cancel").click()
    ada.find("#close-sidebar").click()
    ada.resize(1280, 800)
    with page() as window:
        window.resize(390, 844)
        window.open(server.url("/"))
        window.find("#name-dialog[open]")
        press_escape(window)
        window.wait(lambda w: not is_open(w))
        check_targets(window, "enter")
        window.open(server.url("/activity"))
        wait_online(window)
        window.find("#channels a")
        check_targets(window, "Chat", "#general")


# How far each line of the last message reaches, the last line left out: 1 is its bubble's edge.
LINES = """
const bubble = [...document.querySelectorAll('.bubble')].at(-1);
const range = document.createRange();
range.selectNodeContents(bubble);
const { left, right } = bubble.getBoundingClientRect();
const padding = parseFloat(getComputedStyle(bubble).paddingLeft);
const ends = new Map();
for (const part of range.getClientRects()) {
  const line = Math.round(part.bottom);
  ends.set(line, Math.max(ends.get(line) ?? 0, part.right - left - padding));
}
const lines = [...ends].sort(([a], [b]) => a - b).slice(0, -1);
return lines.map(([, end]) => end / (right - left - 2 * padding));
"""


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
@pytest.mark.parametrize("path", ["s/" + "aB3dE5fG7h" * 12, "guides/" + "first-steps.html?a=" * 8])
def test_a_long_link_fills_its_bubble(ada: Page, width: int, height: int, path: str) -> None:
    ada.resize(width, height)
    enter("links", ada)
    text = f"See https://example.com/{path}x"
    say(ada, text)
    ada.wait(lambda w: messages(w)[-1:] == [text])
    lines = ada.run(LINES)
    assert lines and min(lines) > 0.6
    ada.resize(1280, 800)


def test_its_logs_are_clean(server: Server, ada: Page) -> None:
    enter("log", ada)
    enter("log-two", ada)
    ada.wait(lambda w: '/channels HTTP/1.1" 101' in server.access_log(), what="the 101")
    assert "Traceback" not in server.log()
    assert "ERROR" not in server.log()


# Several workers and a Redis


# When the connection is lost, the page must not be back before something was missed.
STAY_AWAY = """
const observer = new MutationObserver(() => {
  if (document.documentElement.dataset.status === 'online') return;
  observer.disconnect();
  dispatchEvent(new Event('offline'));
});
observer.observe(document.documentElement, { attributes: true });
"""


def test_nothing_is_lost_while_workers_are_restarted() -> None:
    # Two servers, so that it is known which worker has which window.
    with RedisServer(find_program("redis-server")) as redis, page() as ada, page() as ben:
        env = {"CHANNELS": redis.url}
        with serve_chat(env=env) as first, serve_chat(env=env) as second:
            join(ada, first, "Ada")
            join(ben, second, "Ben")
            expected: list[str] = []

            def count(window: Page, last: int) -> None:
                while len(expected) < last:
                    expected.append(str(len(expected) + 1))
                    say(window, expected[-1])

            count(ada, 3)
            wait_messages(ben, expected)
            restarts = (
                (ben, second, ada, signal.SIGTERM),
                (ada, first, ben, signal.SIGKILL),
            )
            for window, server, other, number in restarts:
                (worker,) = server.worker_pids()
                window.run(STAY_AWAY)
                os.kill(worker, number)
                count(other, len(expected) + 4)
                window.wait(lambda w: w.run(STATUS) == "offline", what=f"the loss after {number!r}")
                before = messages(window)
                count(other, len(expected) + 4)
                wait_gone(worker, server)
                wait_messages(other, expected, ".message:not(.unsent)")
                assert messages(window) == before
                window.run("dispatchEvent(new Event('online'))")
                for each in (ada, ben):
                    wait_online(each, timeout=30)
                    wait_messages(each, expected, ".message:not(.unsent)")
            assert len(expected) == 19
            for window in (ada, ben):
                window.wait(lambda w: people(w) == ["Ada", "Ben"])
        assert "Traceback" not in first.log() + second.log()


def wait_gone(worker: int, server: Server) -> None:
    wait_until(lambda: worker not in server.worker_pids(), what=f"the end of worker {worker}")


# Say the next number every 300 ms, which is less than the chat's rate.
COUNT = """
window.count = 0;
window.counter = setInterval(() => {
  document.getElementById('text').value = String(++window.count);
  document.getElementById('composer').requestSubmit();
}, 300);
"""


def test_all_numbers_come_whatever_happens() -> None:
    """One counts, on two workers. All are restarted, one is killed, Redis is restarted with its
    data, a lid is closed; and one has a proxy that lets no WebSocket pass."""
    keeps_all = ("--appendonly", "yes", "--appendfsync", "always")
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        redis = enter(RedisServer(find_program("redis-server"), *keeps_all))
        server = enter(serve_chat(env={"CHANNELS": f"{redis.url}?durable=1"}, workers=2))
        proxy = enter(nginx(find_program("nginx"), server, strips_upgrade=True))
        ada = join(enter(page()), server, "Ada")
        ben = join(enter(page()), server, "Ben")
        cleo = join(enter(page()), proxy, "Cleo")
        ada.run(COUNT)

        def wait_more(*windows: Page) -> None:
            """Wait until windows show what is said from now on."""
            last = ada.run("return count")
            for window in windows:
                window.wait(lambda w: str(last + 3) in messages(w), 40, f"{last + 3}")

        wait_more(ada, ben, cleo)
        before = set(server.worker_pids())
        server.signal(signal.SIGHUP)
        wait_until(lambda: not before & set(server.worker_pids()), 20, "other workers")
        wait_more(ada, ben, cleo)

        os.kill(max(server.worker_pids(), key=count_descriptors), signal.SIGKILL)
        wait_more(ada, ben, cleo)

        redis.restart()
        wait_more(ada, ben, cleo)

        ben.offline(True)
        ben.wait(lambda w: w.run(STATUS) == "offline", what="the loss")
        wait_more(ada, cleo)
        ben.offline(False)
        wait_more(ben)

        said = [
            str(number + 1) for number in range(ada.run("clearInterval(counter); return count"))
        ]
        for window in (ada, ben, cleo):
            window.wait(lambda w: len(messages(w, ".message:not(.unsent)")) >= len(said), 20)
        assert sorted(messages(ada), key=int) == said
        assert messages(ada) == messages(ben) == messages(cleo)


def count_descriptors(pid: int) -> int:
    """Most are connections."""
    return len(os.listdir(f"/proc/{pid}/fd"))
