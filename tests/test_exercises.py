"""The exercises as a whole; the attempts at each are in attempts.py. The core paths of the lessons."""

import re

import nbformat
import numpy as np
import pytest
import xarray as xr
from attempts import ANSWERS, tagged
from conftest import NOTEBOOKS, ROOT
from nbclient import NotebookClient

from workshop import exercises, servers, tiles


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


def core(cells):
    """Return the code cells of the core path: without sections marked *Deeper*, and without live views.

    Each lesson promises that these can be skipped. Lesson 07's measurements of manifests, 25 seconds without a tile,
    are left out, too. Whole lessons run in nbval.
    """
    kept, deeper = [], None  # the level of the heading of a section to skip
    for cell in cells:
        if cell.cell_type == "code":
            if deeper is None and not re.search(r"leafmap\.Map\(|\.hvplot\.|empty_world\(|\bgrowth\b", cell.source):
                kept.append(cell)
            continue
        for marks, title in re.findall(r"^(##+) (.*)$", cell.source, flags=re.MULTILINE):
            if deeper is not None and len(marks) <= deeper:
                deeper = None
            if "Deeper" in title:
                deeper = len(marks)
    return kept


@pytest.mark.parametrize(
    "path",
    [path if path.name[:2] == "02" else pytest.param(path, marks=pytest.mark.soak) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_the_core_of_a_lesson_runs_on_tiles_behind_a_url(path, monkeypatch):
    """That is one setting, as for the real tiles: the same cells, over HTTP."""
    lesson = nbformat.read(path, as_version=4)
    lesson.cells = core(lesson.cells)
    client = NotebookClient(lesson, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    with servers.serve_folder(tiles.DATA) as server:
        monkeypatch.setenv("GLAD_TILES", server.url)
        client.execute()
        assert any(request.status == 206 for request in server.requests)
