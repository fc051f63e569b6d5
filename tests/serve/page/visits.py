"""The server's page in a real browser, for the tests."""

from __future__ import annotations

from playwright.sync_api import Browser, Locator, Page

from tests.browser import check_width, complaints_of


class Visit:
    """A page of the server in a browser, and what it has complained about or asked for."""

    def __init__(self, browser: Browser, address: str, hash: str = "", **options: object) -> None:
        options = {"viewport": {"width": 1200, "height": 850}, "reduced_motion": "reduce"} | options
        self.page: Page = browser.new_page(**options)  # pyright: ignore[reportArgumentType]
        self.complaints = complaints_of(self.page)
        self.requests: list[str] = []
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
        check_width(self.page)
        self.page.close()
