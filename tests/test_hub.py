"""A lesson on a real JupyterHub with two users at once. ``make hub`` installs the hub, and ``make soak`` runs this."""

import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pytest
from browser import PATIENCE, keep, make_driver, needs_browser, wait
from conftest import NOTEBOOKS, ROOT
from selenium.webdriver.common.by import By
from test_browser import LAB_FLAGS, Page, copy_notebooks, failures, free_ports, look_at_plot, look_at_web_map, start

HUB = ROOT / "build" / "hub"
USERS = ("anna", "ben")
(LESSON,) = (path for path in NOTEBOOKS if path.stem.startswith("02"))


class Hub:
    """A JupyterHub on 127.0.0.1 whose users all run as this user, each with a home and copies of the notebooks."""

    def __init__(self, folder):
        port, hub_port, proxy_port = free_ports(3)
        self.url = f"http://127.0.0.1:{port}/"
        self.password = os.urandom(8).hex()
        for user in USERS:
            copy_notebooks(folder / user)
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
            "Spawner.args": LAB_FLAGS,
            "Spawner.default_url": "/lab",
            "Spawner.environment": {"TMPDIR": str(folder)},
            "Spawner.start_timeout": PATIENCE,
            "Spawner.http_timeout": PATIENCE,
        }
        config = folder / "jupyterhub_config.py"
        config.write_text("".join(f"c.{name} = {value!r}\n" for name, value in settings.items()))
        packages = os.pathsep.join(filter(None, [str(HUB / "python"), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "jupyterhub", f"--config={config}"]
        self._process = start(command, folder, f"{self.url}hub/api", os.environ | {"PYTHONPATH": packages})

    def close(self):
        """Stop the hub, and check that its proxy and the users' servers stop, too."""
        started = self._process.children(recursive=True)
        self._process.terminate()
        self._process.wait(timeout=60)
        _, left = psutil.wait_procs(started, timeout=60)
        for process in left:
            process.kill()
        assert left == []


def visit(hub, user, folder):
    """Run the lesson as a user does, check its map and plot, and return the addresses that the browser requested."""
    folder.mkdir()
    lab = SimpleNamespace(url=f"{hub.url}user/{user}/", query="")
    driver = make_driver(folder)
    try:
        driver.get(f"{hub.url}hub/login")
        driver.find_element(By.NAME, "username").send_keys(user)
        driver.find_element(By.NAME, "password").send_keys(hub.password)
        driver.find_element(By.ID, "login_submit").click()
        wait(driver, lambda: driver.current_url.startswith(f"{lab.url}lab"), "the user's server did not start")
        page = Page(driver, lab, LESSON)
        page.run_all(900)
        look_at_web_map(page)
        look_at_plot(page)
        assert failures(driver) == []
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
def test_two_users_run_a_lesson_on_a_hub(tmp_path):
    with contextlib.closing(Hub(tmp_path)) as hub, ThreadPoolExecutor() as both:
        visits = [both.submit(visit, hub, user, tmp_path / f"browser-{user}") for user in USERS]
    for user, done in zip(USERS, visits, strict=True):
        addresses = done.result()
        assert [address for address in addresses if not address.startswith(hub.url)] == []
        # each has the tiles of a server of its own
        tiles = [address for address in addresses if "/api/tiles/" in address]
        assert tiles
        assert all(address.startswith(f"{hub.url}user/{user}/localtileserver-proxy/") for address in tiles)
