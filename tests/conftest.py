"""What all tests share: notebooks stay whole under xdist, and the run says how many cells it compared."""

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
SOLUTIONS = sorted(ROOT.glob("solutions/*.ipynb"))
MEMORY_LIMIT = 2e9  # bytes, for a kernel that runs a lesson


def pytest_configure(config):
    # Settings of whoever runs the tests must not reach them, nor the kernels they start.
    for name in list(os.environ):
        if name.startswith(("GLAD_", "CPL_", "VSI_", "GDAL_HTTP", "GDAL_DISABLE", "GDAL_CACHE")):
            del os.environ[name]
    _give_kernels_ports_of_their_own()
    # nbval kills its kernels, which leaves their scratch folders behind
    config.scratch = tempfile.mkdtemp(prefix="glad-workshop-tests-")
    os.environ["TMPDIR"] = config.scratch
    if not hasattr(config, "workerinput"):
        # before the workers start, which would all begin to write them
        from workshop import sample, world

        sample.ensure_tiles(world.UTAH_TILES)


def _give_kernels_ports_of_their_own():
    """Number the kernels' ports, below those that the system hands out.

    Jupyter asks the system for free ports and binds them a moment later; of two kernels or servers that start at
    once, one may find its port taken by then, and dies.
    """
    plain, first = KernelManager.__init__, itertools.count(20_000 + os.getpid() * 50 % 12_000, 5)

    def with_ports(self, *args, **kwargs):
        kinds = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
        plain(self, *args, **dict(zip(kinds, itertools.count(next(first)), strict=False)), **kwargs)

    KernelManager.__init__ = with_ports


def pytest_unconfigure(config):
    shutil.rmtree(config.scratch, ignore_errors=True)


class KeepNotebooksWhole(LoadScopeScheduling):
    """Give all cells of a notebook to one worker, because they share a kernel, and so the site; spread all else."""

    def _split_scope(self, nodeid):
        file = nodeid.split("::")[0]
        return file if file.endswith((".ipynb", "test_site.py")) else nodeid


def pytest_xdist_make_scheduler(config, log):
    return KeepNotebooksWhole(config, log)


def compared_cells():
    """Return how many cells print something, and how many of them nbval compares in substance."""
    printing = compared = 0
    for path in NOTEBOOKS + SOLUTIONS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "code" or not cell.outputs:
                continue
            printing += 1
            texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
            only_figure = all(text.startswith("<Figure") for text in texts)
            ignored = {"nbval-ignore-output", "nbval-skip"} & set(cell.metadata.get("tags", []))
            compared += not only_figure and not ignored
    return printing, compared


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"offline by {os.environ.get('OFFLINE_BY', 'nothing (`make test` is)')}")
    printing, compared = compared_cells()
    terminalreporter.write_line(
        f"notebooks: {printing} cells print something, the output of {compared} is compared ({compared / printing:.0%})"
    )


@pytest.fixture(scope="session")
def glad_tile():
    """Return a real GLAD tile, made smaller; it lies beside the project where the maintainers work."""
    path = ROOT.parent / "shared" / "data" / "glad" / "2000" / "40N_080W.tif"
    if not path.is_file():
        pytest.skip("the real GLAD tile (shared/data/glad/2000/40N_080W.tif) is not on this machine")
    return path


@pytest.fixture(scope="session", autouse=True)
def sample_world():
    from workshop import sample

    sample.ensure_tiles()


@pytest.fixture
def no_settings(monkeypatch):
    """Shield a test from the settings and credentials of whoever runs it."""
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
