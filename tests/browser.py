"""A real Chromium for the tests of pages; where there is none they are skipped, but not in CI."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserType, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; Playwright's own is never downloaded."""
    found = executable()
    with sync_playwright() as playwright:
        browser = launched(playwright.chromium, found)
        yield browser
        browser.close()


@contextmanager
def without_javascript(beside: Browser) -> Iterator[Browser]:
    """A Chromium that runs no JavaScript, beside another one."""
    browser = launched(beside.browser_type, executable(), "--blink-settings=scriptEnabled=false")
    yield browser
    browser.close()


def executable() -> str:
    """Where it is; the test is skipped if it is missing."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing = "no chromium here; install the package `chromium`, so that pages are tested"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return found


def launched(kind: BrowserType, path: str, *flags: str) -> Browser:
    # In a container Chromium's sandbox has no place; pages here are our own.
    return kind.launch(executable_path=path, args=["--no-sandbox", *flags])


def complaints_of(page: Page) -> list[str]:
    """What a page will complain about: in its console, by errors, by dialogs that it opens."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text))
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("dialog", lambda dialog: found.append(dialog.message))
    return found


def check_width(page: Page) -> None:
    """Nothing sticks out of it on the right."""
    wide, visible = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= visible


class Opened:
    """A page that was opened from a file, and what it has complained about or asked for."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.complaints = complaints_of(page)
        self.requests: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())
        assert self.requests == [path.as_uri()]

    def check(self) -> None:
        """It was silent and asked for nothing, and nothing sticks out of it on the right."""
        assert self.complaints == []
        assert len(self.requests) == 1
        check_width(self.page)
