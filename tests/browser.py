"""Chromium or Chrome, for tests of what a person sees. In CI, ``make test`` installs it."""

import io
import os
import shutil

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.support.wait import WebDriverWait
from selenium_axe_python import Axe

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
# GitHub's machines keep it outside PATH, and the driver finds their Chrome by itself
DRIVER = shutil.which("chromedriver") or shutil.which("chromedriver", path=os.environ.get("CHROMEWEBDRIVER", ""))
SCREENSHOTS = ROOT / "tests" / "screenshots"
LAPTOP = (1366, 768)
PATIENCE = 120  # seconds that a page may take for what it does by itself, on a busy machine
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]

needs_browser = pytest.mark.skipif(
    not DRIVER and not os.environ.get("CI"),
    reason="no chromedriver on this machine (Debian: apt install chromium chromium-driver)",
)


def make_driver(folder, size=LAPTOP):
    """Start a headless browser with its own profile in a folder. The caller quits it."""
    options = webdriver.ChromeOptions()
    if BROWSER:
        options.binary_location = BROWSER
    for flag in (
        "headless=new",
        "no-sandbox",  # containers have none
        "disable-gpu",
        "enable-unsafe-swiftshader",  # WebGL without a graphics card
        "disable-dev-shm-usage",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "no-first-run",
        f"window-size={size[0]},{size[1]}",
        f"user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(PATIENCE)
    return driver


def wait(driver, condition, message="", seconds=PATIENCE):
    """Wait until a condition is true, and return what it returned."""
    # pages take elements away and put them back while they load
    patient = WebDriverWait(driver, seconds, 0.2, [StaleElementReferenceException])
    return patient.until(lambda _: condition(), message)


def keep(driver, name):
    SCREENSHOTS.mkdir(exist_ok=True)
    driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


def pixels(png):
    """Return a screenshot as an array (row, column, color)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def severe(driver):
    """Return the errors on the browser's console since the last call."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def barriers(driver):
    """Return the barriers that axe finds on the page (WCAG 2.2, A and AA)."""
    axe = Axe(driver)
    axe.inject()
    result = axe.run(options={"runOnly": {"type": "tag", "values": WCAG}, "resultTypes": ["violations"]})
    assert "color-contrast" in {rule["id"] for rule in result["passes"]}
    return [(v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"]) for v in result["violations"]]
