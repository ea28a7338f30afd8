"""Headless Chromium for tests: each page has a browser, and so a profile, of its own.

Two pages are two people. Both are ended when the test is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from .waiting import wait_until

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Page:
    """One browser window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> Page:
        self.driver.get(url)
        return self

    def run(self, script: str, *arguments: object) -> Any:
        """The value of a script's `return`."""
        return self.driver.execute_script(script, *arguments)

    def run_async(self, script: str, *arguments: object, timeout: float = 20.0) -> Any:
        """A script whose last argument is a function to call with the result."""
        self.driver.set_script_timeout(timeout)
        return self.driver.execute_async_script(script, *arguments)

    def find(self, selector: str, timeout: float = 10.0) -> Any:
        """The first element that fits, waited for."""
        return wait_until(lambda: self.find_all(selector), timeout, selector)[0]

    def find_all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def wait(self, condition: Callable[[Page], Any], timeout: float = 10.0, what: str = "") -> Any:
        return wait_until(lambda: condition(self), timeout, what)

    def wait_text(self, text: str, timeout: float = 10.0) -> None:
        wait_until(lambda: text in self.text(), timeout, f"the text {text!r}")

    def resize(self, width: int, height: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def dark(self, on: bool = True) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def offline(self, is_offline: bool) -> None:
        """As when the lid of a laptop is closed, and opened again."""
        self.driver.execute_cdp_cmd("Network.enable", {})
        conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions", {"offline": is_offline, **conditions}
        )

    def screenshot(self, path: Path) -> Path:
        self.driver.save_screenshot(str(path))
        return path

    def console(self) -> list[str]:
        """What the page has logged since the last call."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]


def find_programs() -> tuple[str, str]:
    """The browser and its driver, or the reason to skip."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("Chromium and chromedriver are not installed")
    return browser, driver


@contextlib.contextmanager
def page(ca: str | None = None) -> Iterator[Page]:
    """A browser of its own. With `ca`, certificates are not checked."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser, program = find_programs()
    profile = tempfile.mkdtemp(prefix="faye_wsgi-browser-")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    if ca:
        options.add_argument("--ignore-certificate-errors")
    try:
        driver = webdriver.Chrome(options=options, service=Service(program))
        try:
            driver.set_page_load_timeout(20)
            yield Page(driver)
        finally:
            driver.quit()
    finally:
        _remove(profile)


def _remove(profile: str) -> None:
    """The browser's last processes may still be writing there."""
    deadline = time.monotonic() + 5
    while os.path.exists(profile) and time.monotonic() < deadline:
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def new_page() -> Iterator[Callable[..., Page]]:
    """A function that opens another browser; all are ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(page(**options))
