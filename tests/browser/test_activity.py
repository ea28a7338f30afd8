"""The example's page of live activity, while somebody chats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.browser import Page, page
from ..support.servers import ROOT, Server, serve

EXAMPLE = ROOT / "examples" / "flask_app"
STATUS = "return document.documentElement.dataset.status"
ROWS = """return [...document.querySelectorAll('#entries li p')].map((row) => row.textContent)"""
# How much of the picture is blocks and discs: they have a colour, the grid is grey.
PAINTED = """
const { width, height } = document.getElementById('plot');
const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
copy.drawImage(document.getElementById('plot'), 0, 0);
const { data } = copy.getImageData(0, 0, width, height);
let painted = 0;
for (let i = 0; i < data.length; i += 4) {
  const [low, high] = [Math.min(data[i], data[i + 1], data[i + 2]),
                       Math.max(data[i], data[i + 1], data[i + 2])];
  if (data[i + 3] > 128 && high - low > 40) painted += 1;
}
return painted"""
# How much of the picture has the colour of a legend's mark, and whether that colour is a grey.
MARKED = """
const [selector, property] = arguments;
const pixels = (source, width, height) => {
  const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  if (typeof source === 'string') {
    copy.fillStyle = source;
    copy.fillRect(0, 0, width, height);
  } else copy.drawImage(source, 0, 0);
  return copy.getImageData(0, 0, width, height).data;
};
const plot = document.getElementById('plot');
const drawn = pixels(plot, plot.width, plot.height);
return Object.fromEntries([...document.querySelectorAll(selector)].map((key) => {
  const [red, green, blue] = pixels(getComputedStyle(key, '::before')[property], 1, 1);
  let count = 0;
  for (let i = 0; i < drawn.length; i += 4)
    if (drawn[i] === red && drawn[i + 1] === green && drawn[i + 2] === blue) count += 1;
  const isGrey = Math.max(red, green, blue) - Math.min(red, green, blue) <= 40;
  return [key.textContent, { count, isGrey }];
}));
"""
PICTURE = "return document.getElementById('plot').toDataURL()"
ENTER = "\ue007"


def serve_chat(port: int = 0) -> Any:
    return serve("gunicorn-gevent", "app:app", cwd=EXAMPLE, port=port)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_chat() as running:
        yield running


@pytest.fixture(scope="module")
def watcher(server: Server) -> Iterator[Page]:
    with page() as window:
        yield watch(window, server)
        assert window.console() == []


@pytest.fixture(scope="module")
def ada(server: Server) -> Iterator[Page]:
    with page() as window:
        yield join(window, server, "Ada")


def watch(window: Page, server: Server) -> Page:
    window.open(server.url("/activity"))
    wait_online(window)
    return window


def join(window: Page, server: Server, name: str) -> Page:
    window.open(server.url("/"))
    window.find("#name-dialog[open] #name").send_keys(name + ENTER)
    wait_online(window)
    return window


def wait_online(window: Page, timeout: float = 10.0) -> None:
    window.wait(lambda w: w.run(STATUS) == "online", timeout, "the connection")


def enter(window: Page, channel: str) -> None:
    window.run("location.hash = arguments[0]", channel)
    window.wait(lambda w: w.find("#channel-name").text == channel)
    window.find("#people li")
    wait_online(window)


def say(window: Page, text: str) -> None:
    window.find("#text").send_keys(text + ENTER)


def rows(window: Page) -> list[str]:
    return list(window.run(ROWS))


def wait_rows(window: Page, *expected: str) -> None:
    """The newest rows of the list, the newest first."""
    wanted = list(expected)
    window.wait(lambda w: rows(w)[: len(wanted)] == wanted, what=f"{wanted} in the list")


def move(person: Page, watcher: Page, channel: str) -> None:
    """Changes the channel, and waits until the other page tells so: leaving is told 5 s late."""
    left = person.find("#channel-name").text
    enter(person, channel)
    expected = {f"Ada joined #{channel}", f"Ada left #{left}"}
    watcher.wait(lambda w: set(rows(w)[:2]) == expected, 20, what=f"{expected} in the list")


def number(window: Page, id: str) -> int:
    return int(window.find(f"#{id}").text.replace(",", ""))


def test_a_page_shows_what_happens_on_another(watcher: Page, ada: Page) -> None:
    move(ada, watcher, "meeting")
    watcher.wait(lambda w: number(w, "people") == 1)
    before, painted = number(watcher, "messages"), watcher.run(PAINTED)
    say(ada, "one")
    wait_rows(watcher, "Ada wrote a message in #meeting")
    say(ada, "two")
    wait_rows(watcher, "Ada wrote 2 messages in #meeting")
    watcher.wait(lambda w: number(w, "messages") == before + 2)
    watcher.wait(lambda w: w.run(PAINTED) > painted + 50, what="two blocks in the picture")
    assert "messages in the last two minutes" in watcher.find("#plot").get_attribute("aria-label")
    assert "1 here, 2 messages" in watcher.find("#channels").text
    move(ada, watcher, "elsewhere")


def test_the_legend_names_the_colours_and_gives_the_shapes_none(watcher: Page, ada: Page) -> None:
    move(ada, watcher, "legend")
    say(ada, "hello")

    def painted(window: Page) -> bool:
        authors = window.run(MARKED, "#authors li", "backgroundColor")
        return "Ada" in authors and authors["Ada"]["count"] > 50

    for dark in (True, False):
        watcher.dark(dark)
        watcher.wait(painted, what="blocks in the colour that the legend gives to Ada")
        shapes = watcher.run(MARKED, ".legend span", "borderTopColor")
        assert set(shapes) == {"message", "joined", "left"}
        assert all(shape["isGrey"] for shape in shapes.values())


def test_the_legend_names_the_busiest_and_counts_the_others() -> None:
    with serve_chat() as server, page() as window:
        window.open(server.url("/activity"))
        wait_online(window)
        window.run("""
            const Source = EventSource;
            window.EventSource = class extends Source {
              constructor(url) { super(url); window.source = this; }
            };
        """)
        see(window, False)
        see(window, True)
        wait_online(window)
        window.run(
            """
            const time = Date.now();
            for (const name of arguments[0]) {
              const data = { channel: 'room:general', data: { name, time } };
              source.onmessage({ data: JSON.stringify(data), lastEventId: '' });
            }
            """,
            ["G", *"FEDCBA", "H", *"ABCDEF"],
        )
        legend = "return [...document.querySelectorAll('#authors li')].map((e) => e.textContent)"
        assert window.run(legend) == [*"ABCDEF", "2 others"]


def test_the_picture_moves(watcher: Page, ada: Page) -> None:
    move(ada, watcher, "moving")
    say(ada, "hello")
    wait_rows(watcher, "Ada wrote a message in #moving")
    first = watcher.run(PICTURE)
    watcher.wait(lambda w: w.run(PICTURE) != first, what="the picture to move")


def test_the_texts_themselves_are_not_told(server: Server, watcher: Page, ada: Page) -> None:
    move(ada, watcher, "private")
    say(ada, "between us")
    wait_rows(watcher, "Ada wrote a message in #private")
    assert "between us" not in watcher.text()


def test_the_pages_link_to_each_other(server: Server) -> None:
    with page() as window:
        window.open(server.url("/"))
        window.run("document.querySelector('#links a').click()")
        wait_online(window)
        assert window.find("h1").text == "Activity"
        window.find("#links a").click()
        window.find("#name-dialog[open]")


def test_it_comes_back_after_a_restart() -> None:
    with page() as watcher, page() as ada:
        with serve_chat() as first:
            port = first.port
            join(ada, first, "Ada")
            watch(watcher, first)
            say(ada, "before")
            wait_rows(watcher, "Ada wrote a message in #general")
        assert "Traceback" not in first.log()
        watcher.wait(lambda w: w.run(STATUS) == "waiting")
        with serve_chat(port):
            wait_online(ada, timeout=30)
            wait_online(watcher, timeout=30)
            say(ada, "after")
            watcher.wait(lambda w: number(w, "messages") == 2, what="both messages")


def test_it_misses_nothing_while_it_is_away(watcher: Page, ada: Page) -> None:
    move(ada, watcher, "away")
    # No stream while the page is hidden, and the rest of it when it is seen again.
    see(watcher, False)
    say(ada, "missed")
    say(ada, "missed too")
    ada.wait(lambda w: len(w.find_all(".message:not(.unsent)")) == 2)
    assert "Ada wrote" not in rows(watcher)[0]
    see(watcher, True)
    wait_rows(watcher, "Ada wrote 2 messages in #away")


def see(window: Page, visible: bool) -> None:
    window.run(
        "Object.defineProperty(document, 'visibilityState', {value: arguments[0], "
        "configurable: true}); document.dispatchEvent(new Event('visibilitychange'))",
        "visible" if visible else "hidden",
    )


def test_after_an_http_error_the_page_itself_tries_again(watcher: Page, ada: Page) -> None:
    """As behind a proxy that says 502 while the server starts: browsers give up then."""
    move(ada, watcher, "gone")
    watcher.run("""
        window.RealSource = EventSource;
        let failed = false;
        window.EventSource = class extends RealSource {
          constructor(url) {
            super(failed ? url : url.replace('events', 'no-events'));
            failed = true;
          }
        };
    """)
    see(watcher, False)
    see(watcher, True)
    watcher.wait(lambda w: w.run(STATUS) == "waiting")
    say(ada, "unseen")
    wait_online(watcher)
    wait_rows(watcher, "Ada wrote a message in #gone")
    watcher.run("window.EventSource = RealSource")
    assert [line for line in watcher.console() if "404" not in line] == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_screen(
    watcher: Page, ada: Page, tmp_path: Path, width: int, height: int, dark: bool
) -> None:
    enter(ada, "a-channel-of-a-long-name")
    say(ada, "hello")
    for window, name in ((watcher, "activity"), (ada, "chat")):
        window.resize(width, height)
        window.dark(dark)
        window.screenshot(tmp_path / f"{name}-{width}-{'dark' if dark else 'light'}.png")
        assert window.run("return document.documentElement.scrollWidth") <= width
        window.resize(1280, 800)
        window.dark(False)


def test_with_reduced_motion_it_stands_still_between_two_beats(server: Server, ada: Page) -> None:
    enter(ada, "calm")
    say(ada, "hello")
    with page() as window:
        feature = {"name": "prefers-reduced-motion", "value": "reduce"}
        window.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        watch(window, server)
        window.wait(lambda w: "Ada wrote a message in #calm" in rows(w), what="the message")
        drawn = (
            "return new Promise((done) => { const seen = new Set(); let left = 60;"
            "const look = () => { seen.add(document.getElementById('plot').toDataURL());"
            "left-- ? requestAnimationFrame(look) : done(seen.size) }; look() })"
        )
        assert window.run(drawn) <= 3
        assert window.run(PAINTED) > 50


def test_its_logs_are_clean(server: Server) -> None:
    assert "Traceback" not in server.log()
    assert "ERROR" not in server.log()
