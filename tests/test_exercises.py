"""The exercises as a whole; the attempts at each are in attempts.py. The notebooks on tiles of other content."""

import re
import tempfile
from contextlib import nullcontext
from pathlib import Path

import nbformat
import numpy as np
import other_world
import pytest
import xarray as xr
from attempts import ANSWERS, tagged
from conftest import NOTEBOOKS, ROOT, SOLUTIONS
from nbclient import NotebookClient

from workshop import exercises, servers, tiles, world


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n in ANSWERS for a in ANSWERS[n].get("also_right", [])])
def test_a_right_answer_may_have_another_form(name, answer):
    verdict = exercises.check(name, eval(answer))
    assert verdict.status == exercises.RIGHT, verdict


@pytest.mark.parametrize("name", exercises.names())
@pytest.mark.parametrize(
    "answer",
    [None, "", "x", [], {}, (1, 2, 3), np.nan, np.arange(3), object(), xr.DataArray([1, 2]), float("inf"), 10**400],
)
def test_a_check_never_raises(name, answer):
    assert exercises.check(name, answer).status == exercises.NOT_YET


def test_every_exercise_has_its_cells_a_hint_and_wrong_answers():
    for path in NOTEBOOKS:
        names = set(tagged(path, "exercise-"))
        assert len(names) >= 2, path.name
        assert names == set(tagged(path, "check-")) == set(tagged(ROOT / "solutions" / path.name, "solution-"))
        assert all(name[:2] == path.name[:2] for name in names)
        assert {name for name in exercises.names() if name[:2] == path.name[:2]} == names
    assert set(ANSWERS) == set(exercises.names())
    assert all(len(answers["wrong"]) >= 4 for answers in ANSWERS.values())
    assert all(exercises.hint(name) for name in ANSWERS)


def test_an_unknown_exercise_is_named():
    with pytest.raises(KeyError, match="no such exercise"):
        exercises.check("99-9", 1)


@pytest.fixture(scope="session")
def other_tiles():
    """Return a folder for tiles with other content than the sample's, as a learner's own are."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


CASES = [
    pytest.param(
        path,
        over_http,
        marks=[] if over_http and path == NOTEBOOKS[1] else pytest.mark.soak,
        id=f"{path.parent.name}/{path.stem}-{'http' if over_http else 'folder'}",
    )
    for path in NOTEBOOKS + SOLUTIONS
    for over_http in (False, True)
    if not path.name.startswith("10")  # it reads no tiles
]


@pytest.mark.parametrize(("path", "over_http"), CASES)
def test_a_notebook_runs_whole_on_other_tiles(path, over_http, other_tiles, monkeypatch):
    """That is one setting: no cell fails, and the checks say of untouched exercises and of answers what is true."""
    other_world.write(other_tiles, world.UTAH_TILES if path.name[:2] in ("07", "08") else [tiles.SAMPLE_TILE])
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": path.parent}}
    with servers.serve_folder(other_tiles) if over_http else nullcontext() as server:
        monkeypatch.setenv("GLAD_TILES", server.url if over_http else str(other_tiles))
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
        if over_http and path in NOTEBOOKS:
            assert any(request.status == 206 for request in server.requests)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = "\n".join(output.get("data", {}).get("text/plain", "") for output in outputs)
    verdict = "○ {}: not attempted yet" if path in NOTEBOOKS else "✓ {}: right"
    names = tagged(ROOT / "notebooks" / path.name, "check-")
    assert re.findall(r"^([✓✗○] \S+: .*?)\.", shown, flags=re.MULTILINE) == [verdict.format(name) for name in names]
