"""Shared by all tests: their order, the choice of tests for `make soak`, and the memory limit of kernels."""

import functools
import itertools
import os
import shutil
import socket
import tempfile
from pathlib import Path

import nbformat
import psutil
import pytest
from attempts import Attempts, add_attempts
from jupyter_client.manager import KernelManager
from nbval.plugin import IPyNbCell, NbCellError
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
SOLUTIONS = sorted(ROOT.glob("solutions/*.ipynb"))
MEMORY_LIMIT = 2e9  # bytes, for a kernel that runs a lesson
NEED_NO_TILES = {"test_glossary.py", "test_project.py", "test_quiz.py", "test_site.py"}
# The longest start first, because otherwise the last one would run alone.
LONGEST_FIRST = (
    "test_browser.py",
    "test_site.py",
    "07-global-datacube.ipynb",
    ".ipynb",
    "test_a_killed_writer",
    "test_many_writers",
)


def pytest_configure(config):
    # The user's settings must not reach the tests or the kernels that they start.
    for name in list(os.environ):
        if name.startswith(("GLAD_", "CPL_", "VSI_", "GDAL_HTTP", "GDAL_DISABLE", "GDAL_CACHE")):
            del os.environ[name]
    _give_kernels_ports_of_their_own()
    config.pluginmanager.register(Notebooks())
    # nbval kills its kernels, which then leave their scratch folders behind
    config.scratch = tempfile.mkdtemp(prefix="glad-workshop-tests-")
    os.environ["TMPDIR"] = config.scratch
    files = {Path(argument.split("::")[0]).name for argument in config.args}
    if not hasattr(config, "workerinput") and not files <= NEED_NO_TILES:
        # before the workers start, because all of them would write the tiles
        from workshop import sample, world

        sample.ensure_tiles(world.UTAH_TILES)


def _give_kernels_ports_of_their_own():
    """Number the kernels' ports, with one block per worker, below the ports that the system assigns.

    Jupyter asks the system for free ports and binds them a moment later. If two kernels or servers start at the same
    time, one may find its port taken, and dies. Ports used by another test run on this machine are skipped.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    plain, first = KernelManager.__init__, itertools.count(12_000 + worker % 5 * 4_000, 5)

    def with_ports(self, *args, **kwargs):
        kinds = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
        block = next(ports for begin in first if all(map(_is_free, ports := range(begin, begin + len(kinds)))))
        plain(self, *args, **dict(zip(kinds, block, strict=True)), **kwargs)

    KernelManager.__init__ = with_ports


def _is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def pytest_unconfigure(config):
    shutil.rmtree(config.scratch, ignore_errors=True)


class KeepNotebooksWhole(LoadScopeScheduling):
    """Run tests that share a kernel, a browser or the built site on one worker, and spread the others."""

    def _split_scope(self, nodeid):
        file = nodeid.split("::")[0]
        return file if file.endswith((".ipynb", "test_browser.py", "test_site.py", "test_viewer.py")) else nodeid


def pytest_xdist_make_scheduler(config, log):
    return KeepNotebooksWhole(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: [part not in item.nodeid for part in LONGEST_FIRST])
    add_attempts(items)


@functools.cache
def cells(path, kind=None):
    """Return a notebook's cells, or those of a kind (code, markdown), which the caller leaves as they are."""
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if kind in (None, cell.cell_type)]


def peak_memory(pid):
    """Return the peak memory of a process in bytes, or its current memory if the system does not record the peak."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    now = psutil.Process(pid).memory_info()
    return getattr(now, "peak_wset", now.rss)


class Notebooks:
    """Hooks that also see notebook cells. Hooks in this file itself see only the tests beside it."""

    def pytest_itemcollected(self, item):
        # attempts.py runs the answers in their lessons
        if item.path in SOLUTIONS and not item.path.name.startswith("05"):
            item.add_marker(pytest.mark.soak)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        """Fail the cell or the attempts after which the kernel has used too much memory."""
        result = yield
        if isinstance(item, IPyNbCell | Attempts):
            memory = peak_memory(item.parent.kernel.km.provisioner.pid)
            if memory > MEMORY_LIMIT:
                number, source = (item.cell_num, item.cell.source) if isinstance(item, IPyNbCell) else (item.name, "")
                raise NbCellError(number, f"The kernel has used {memory / 1e9:.2f} GB", source)
        return result


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "figure":
                terminalreporter.write_line(text)
    terminalreporter.write_line(f"offline by {os.environ.get('OFFLINE_BY', 'nothing (`make test` is)')}")


@pytest.fixture(scope="session")
def glad_tile():
    """Return a smaller copy of a real GLAD tile, which maintainers keep beside the project."""
    path = ROOT.parent / "shared" / "data" / "glad" / "2000" / "40N_080W.tif"
    if not path.is_file():
        pytest.skip("the real GLAD tile (shared/data/glad/2000/40N_080W.tif) is not on this machine")
    return path


@pytest.fixture(scope="module")
def bucket():
    """Return a bucket on this machine, one per test module."""
    from workshop import stores  # not before the workers start

    return stores.open_bucket()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Return a headless browser, one per test module."""
    from browser import make_driver  # few test modules need it

    with make_driver(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


def history(repo):
    return [snapshot.id for snapshot in repo.ancestry(branch="main")]


@pytest.fixture
def no_settings(monkeypatch):
    """Remove the user's settings and credentials from the environment."""
    for name in (
        "GLAD_TILES",
        "GLAD_BUCKET",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
    ):
        monkeypatch.delenv(name, raising=False)
