"""A server in a thread of this process, and a real browser that looks at its page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Locator, Page

from groundup.serve.app import make_app
from groundup.serve.config import ServeConfig
from groundup.serve.listening import listen, server_of
from groundup.serve.models import Models, Served


@contextmanager
def serving(*served: Served, **options: object) -> Iterator[str]:
    """The address of a server with these models; they are closed afterwards."""
    config = ServeConfig(**options)  # pyright: ignore[reportArgumentType]
    server = server_of(make_app(Models(served), config), config)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=30)
    listener.close()


class Visit:
    """A page of the server in a browser, and what it has complained about or asked for."""

    def __init__(self, browser: Browser, address: str, hash: str = "", **options: object) -> None:
        options = {"viewport": {"width": 1200, "height": 850}, "reduced_motion": "reduce"} | options
        self.page: Page = browser.new_page(**options)  # pyright: ignore[reportArgumentType]
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = address
        self.page.goto(f"{address}/{hash}")

    def tab(self, name: str) -> Locator:
        """A tab's head."""
        return self.page.get_by_role("tab", name=name, exact=True)

    @property
    def panel(self) -> Locator:
        """What is shown of the chosen tab."""
        return self.page.locator("[role=tabpanel]:not([hidden])")

    def text(self) -> str:
        """All that can be read on the page."""
        return self.page.locator("body").inner_text()

    def check(self) -> None:
        """It was silent, asked nobody else, and nothing sticks out of it on the right."""
        assert self.complaints == []
        assert all(url.startswith(f"{self.address}/") for url in self.requests)
        wide, visible = self.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= visible
        self.page.close()
