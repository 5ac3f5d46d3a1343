"""The browser of the tests that need one."""

import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

# by name, then where macOS and Windows install it
BROWSERS = (
    "chromium",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
# GitHub's machines name the folder of the driver
DRIVER = shutil.which("chromedriver") or shutil.which("chromedriver", path=os.environ.get("CHROMEWEBDRIVER", ""))

# Continuous integration must not pass without a browser.
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER) and "CI" not in os.environ, reason="no Chromium or Chrome with its chromedriver here"
)


def make_driver(folder: Path) -> webdriver.Chrome:
    """Start a browser without a window, with its profile in a folder; whoever starts it calls ``quit``."""
    assert BROWSER and DRIVER, "install Chromium or Chrome, and chromedriver"
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (
        "headless=new",
        "no-sandbox",  # which containers lack
        "disable-dev-shm-usage",
        "disable-gpu",
        "disable-quic",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "no-first-run",
        "window-size=1366,768",
        f"user-data-dir={folder}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))
