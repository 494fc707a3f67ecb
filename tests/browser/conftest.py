"""A real browser for the tests in this folder, and the folder where their pictures stay."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import NAMES, Browser, Tab, chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """Chromium; the test is skipped where there is none."""
    if chromium() is None:
        pytest.skip(
            f"no browser: none of {', '.join(NAMES)} is on the PATH; on Debian: apt-get install chromium"
        )
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def tab(browser) -> Iterator[Tab]:
    tab = browser.tab()
    yield tab
    tab.close()


@pytest.fixture(scope="session")
def pictures(project) -> Path:
    """Where screenshots stay to be looked at; git ignores runs/."""
    return project / "runs" / "screenshots"
