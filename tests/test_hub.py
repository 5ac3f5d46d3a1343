"""A lesson on a real JupyterHub with two users at once. ``make hub`` installs the hub, and ``make soak`` runs this."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from browser import PATIENCE, make_driver, needs_browser, severe
from conftest import NOTEBOOKS, ROOT
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from test_browser import PANEL_CDN, Page, keep, look_at_plot, look_at_web_map

HUB = ROOT / "build" / "hub"
USERS = ("anna", "ben")
(LESSON,) = (path for path in NOTEBOOKS if path.stem.startswith("02"))


class Hub:
    """A JupyterHub on 127.0.0.1 whose users all run as this user, each with a home and copies of the notebooks."""

    def __init__(self, folder):
        with contextlib.ExitStack() as held:  # until all three are known
            servers = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            port, hub_port, proxy_port = (server.getsockname()[1] for server in servers)
        self.url = f"http://127.0.0.1:{port}/"
        self.password = os.urandom(8).hex()
        for user in USERS:
            for name in ("notebooks", "solutions", "docs"):
                ignored = shutil.ignore_patterns(".ipynb_checkpoints")
                shutil.copytree(ROOT / name, folder / user / name, ignore=ignored)
        arguments = ["--LabApp.expose_app_in_browser=True"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            arguments.append("--allow-root")
        proxy = HUB / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
        settings = {
            "JupyterHub.bind_url": self.url,
            "JupyterHub.hub_bind_url": f"http://127.0.0.1:{hub_port}",
            "JupyterHub.db_url": f"sqlite:///{folder / 'hub.sqlite'}",
            "JupyterHub.authenticator_class": "dummy",
            "JupyterHub.spawner_class": "simple",
            "ConfigurableHTTPProxy.api_url": f"http://127.0.0.1:{proxy_port}",
            "ConfigurableHTTPProxy.command": ["node", str(proxy)],
            "DummyAuthenticator.password": self.password,
            "Authenticator.allowed_users": set(USERS),
            "SimpleLocalProcessSpawner.home_dir_template": f"{folder}/{{username}}",
            "Spawner.cmd": [sys.executable, "-m", "jupyterhub.singleuser"],
            "Spawner.args": arguments,
            "Spawner.default_url": "/lab",
            "Spawner.environment": {"TMPDIR": str(folder)},
            "Spawner.start_timeout": PATIENCE,
            "Spawner.http_timeout": PATIENCE,
        }
        config = folder / "jupyterhub_config.py"
        config.write_text("".join(f"c.{name} = {value!r}\n" for name, value in settings.items()))
        self.log = folder / "hub.log"
        packages = os.pathsep.join(filter(None, [str(HUB / "python"), os.environ.get("PYTHONPATH")]))
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", f"--config={config}"],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": packages},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in range(PATIENCE):
            try:
                with urllib.request.urlopen(f"{self.url}hub/api", timeout=10):
                    return
            except OSError:
                time.sleep(1)
        self.close()
        raise RuntimeError(f"JupyterHub did not start:\n{self.log.read_text()}")

    def close(self):
        """Stop the hub, and check that its proxy and the users' servers stop, too."""
        started = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)
        _, left = psutil.wait_procs(started, timeout=60)
        for process in left:
            process.kill()
        assert left == []


class UsersServer:
    """A user's JupyterLab, with the interface that test_browser.Page needs."""

    def __init__(self, hub, user):
        self.url, self.query = f"{hub.url}user/{user}/", ""


@pytest.fixture
def hub(tmp_path):
    hub = Hub(tmp_path)
    yield hub
    hub.close()


def log_in(driver, hub, user):
    """Log in with the form, which starts the user's server, and wait for JupyterLab."""
    driver.get(f"{hub.url}hub/login")
    driver.find_element(By.NAME, "username").send_keys(user)
    driver.find_element(By.NAME, "password").send_keys(hub.password)
    driver.find_element(By.ID, "login_submit").click()
    there = f"{hub.url}user/{user}/lab"
    WebDriverWait(driver, PATIENCE).until(lambda _: driver.current_url.startswith(there), "the server did not start")


def visit(hub, user, folder):
    """Run the lesson as a user does, check its map and plot, and return the addresses that the browser requested."""
    folder.mkdir()
    driver = make_driver(folder)
    try:
        log_in(driver, hub, user)
        page = Page(driver, UsersServer(hub, user), LESSON)
        page.run_all(900)
        look_at_web_map(page)
        look_at_plot(page)
        # Panel looks for style sheets in the internet behind a path, and does without
        errors = [error for error in severe(driver) if not (error.startswith(PANEL_CDN) and ".css" in error)]
        assert errors == []
        return [address for _, _, address in page.traffic() if address.startswith("http")]
    finally:
        keep(driver, f"hub-{user}")
        driver.quit()


@needs_browser
@pytest.mark.skipif(
    not (HUB / ".ready").is_file() and not os.environ.get("CI"),
    reason="no JupyterHub (`make hub` installs it, with npm)",
)
@pytest.mark.soak
def test_two_users_run_a_lesson_on_a_hub(hub, tmp_path):
    with ThreadPoolExecutor() as both:
        visits = [both.submit(visit, hub, user, tmp_path / f"browser-{user}") for user in USERS]
    for user, done in zip(USERS, visits, strict=True):
        addresses = done.result()
        assert [address for address in addresses if not address.startswith(hub.url)] == []
        # each has the tiles of a server of its own
        tiles = [address for address in addresses if "/api/tiles/" in address]
        assert tiles
        assert all(address.startswith(f"{hub.url}user/{user}/localtileserver-proxy/") for address in tiles)


def test_the_locks_of_the_hub_hold_the_same_versions_and_no_address():
    text = (ROOT / "tests" / "hub" / "requirements.lock").read_text()
    ours, hubs = (
        dict(re.findall(r"^([\w.-]+)==([^\s;\\]+).*\\$", lock, flags=re.MULTILINE))
        for lock in ((ROOT / "requirements.lock").read_text(), text)
    )
    assert "jupyterhub" in hubs
    assert {name: pin for name, pin in hubs.items() if ours.get(name, pin) != pin} == {}, "run `make lock`"
    assert len(re.findall(r"^[\w.-]+==", text, flags=re.MULTILINE)) == len(hubs), "a pin without a hash"
    assert "://" not in text
    packages = json.loads((ROOT / "tests" / "hub" / "package-lock.json").read_text())["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all("integrity" in package for name, package in packages.items() if name)
