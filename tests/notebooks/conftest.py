"""A real browser for the tests in this folder, and the folder where their pictures stay."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
sys.path.append(str(Path(__file__).parents[1] / "unit"))  # whose writers of small files serve here too


@pytest.fixture(scope="module")  # while it lives, nothing else in this process can run an event loop
def browser() -> Iterator[Browser]:
    """Chromium; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(
            f"no browser: none of {', '.join(NAMES)} is on the PATH; on Debian: apt-get install chromium"
        )
    with sync_playwright() as playwright:
        nowhere = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"  # no name leads anywhere
        yield playwright.chromium.launch(executable_path=program, args=[nowhere])


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Page]]:
    """A function that opens an address in a tab, which keeps what it asked for and what went wrong in it."""
    contexts = []

    def opened(address: str, width: int = 1280, offline: bool = True) -> Page:
        size = {"viewport": {"width": width, "height": 900}, "is_mobile": width <= 600}
        contexts.append(browser.new_context(offline=offline, **size))
        page = contexts[-1].new_page()
        page.set_default_timeout(240_000)  # other tests may take the processor meanwhile
        page.asked, page.problems = [], []
        page.on("request", lambda one: page.asked.append(one.url))
        page.on("requestfailed", lambda one: page.problems.append(f"{one.url}: {one.failure}"))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else None)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def pictures(project) -> Path:
    """Where screenshots stay to be looked at; git ignores runs/."""
    return project / "runs" / "screenshots"
