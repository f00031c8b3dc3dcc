"""Headless Chromium for the browser tests: the system's own, or the tests are skipped by name."""

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def chromium_path() -> str | None:
    """From CHROMIUM or PATH."""
    return os.environ.get("CHROMIUM") or next((p for p in map(shutil.which, _NAMES) if p), None)


def chromium_or_skip(playwright: "Playwright") -> "Browser":
    """Launch Chromium, from CHROMIUM or PATH; skips the test when there is none."""
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium found in PATH: install chromium to run the browser tests")
    return playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
