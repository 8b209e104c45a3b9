"""The page in a real, headless Chromium, over a real service."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect, sync_playwright

from app.main import create_app
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Locator, Page

    from app.core.settings import Settings
    from tests.integration.conftest import Service

ROOT = Path(__file__).resolve().parents[3]
# Chromium's own calls home are left out: a test must see every request, and this machine may reach nobody.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *(["--no-sandbox"] if os.getuid() == 0 else []),
]
PATIENCE_MS = 15_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """A browser for these tests, and not a moment longer: while it lives, this thread can run no event loop."""
    found = subprocess.run(["scripts/browser.sh"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.fail(found.stderr.strip(), pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found.stdout.strip(), args=FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Site:
    """The page of a service, and a worker to turn to."""

    url: str
    page: Page
    service: Service

    def open(self, fragment: str = "#/") -> Page:
        """Go to a view."""
        self.page.goto(f"{self.url}/{fragment}")
        return self.page

    def work_until(self, there: Locator) -> None:
        """Run the worker until something shows on the page: what the page asks for next it asks in its own time."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not there.is_visible():
            assert time.monotonic() < deadline, f"{there} did not show: {self.page.locator('main').inner_text()[:2000]}"
            self.service.work()
            self.page.wait_for_timeout(100)


@pytest.fixture
def site_settings(request: pytest.FixtureRequest, service_settings: Settings) -> Settings:
    """Of the API that serves the page; a test may ask for keys."""
    return service_settings.model_copy(update={"auth": getattr(request, "param", "off")})


@pytest.fixture
def context_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Of the browser's window; a test may ask for others."""
    return getattr(request, "param", {"viewport": {"width": 1280, "height": 900}})


@pytest.fixture
def site(
    chromium: Browser, service: Service, site_settings: Settings, context_options: dict[str, Any]
) -> Iterator[Site]:
    """A fresh window on the page. Afterwards: nobody else was called, and the page met with no fault."""
    with served(create_app(site_settings)) as url:
        context = chromium.new_context(accept_downloads=True, **context_options)
        context.set_default_timeout(PATIENCE_MS)
        faults = watch(context, url)
        page = context.new_page()
        yield Site(url, page, service)
        context.close()
        assert faults() == []


def watch(context: BrowserContext, url: str) -> Callable[[], list[str]]:
    """Note requests to other hosts, errors of scripts and breaches of the content security policy."""
    faults: list[str] = []
    context.on(
        "request",
        lambda request: (
            None if request.url.startswith((url, "blob:", "data:")) else faults.append(f"asked {request.url}")
        ),
    )
    context.on("weberror", lambda error: faults.append(f"threw {error.error}"))

    def on_console(message: Any) -> None:
        # What the API refuses (a field at fault, a key that is missing) Chromium reports as an error, too.
        if message.type == "error" and "Failed to load resource" not in message.text:
            faults.append(message.text)

    context.on("console", on_console)
    return lambda: faults
