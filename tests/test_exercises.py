"""The exercises: untouched, with wrong answers on purpose, and solved; each inside its own lesson's core path."""

import re
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import pytest
import xarray as xr
from conftest import MEMORY_LIMIT, NOTEBOOKS, ROOT
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from workshop import exercises, servers, tiles

PEAK_MEMORY = """
import sys
if sys.platform == "win32":
    import psutil
    peak = psutil.Process().memory_info().peak_wset
elif sys.platform == "linux":  # where getrusage begins with the memory of the process that started the kernel
    with open("/proc/self/status") as status:
        peak = int(status.read().split("VmHWM:")[1].split()[0]) * 1024
else:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
peak
"""


ANSWERS = tomllib.loads((Path(__file__).parent / "answers.toml").read_text(encoding="utf-8"))


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


def tagged(notebook, prefix):
    """Return the cells with a tag that begins with the prefix, by the rest of the tag."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith(prefix):
                name = tag.removeprefix(prefix)
                assert name not in found, f"two cells are tagged {tag}"
                found[name] = cell
    return found


def read(path):
    return nbformat.read(path, as_version=4)


def test_every_exercise_has_its_cells_and_its_wrong_answers():
    for path in NOTEBOOKS:
        lesson, answers = read(path), read(ROOT / "solutions" / path.name)
        names = set(tagged(lesson, "exercise-"))
        assert len(names) >= 2, path.name
        assert names == set(tagged(lesson, "check-")) == set(tagged(answers, "solution-"))
        assert all(name[:2] == path.name[:2] for name in names)
        assert {name for name in exercises.names() if name[:2] == path.name[:2]} == names
    assert set(ANSWERS) == set(exercises.names())
    assert all(len(answers["wrong"]) >= 4 for answers in ANSWERS.values())


@pytest.mark.parametrize("name", exercises.names())
def test_every_exercise_has_a_hint(name):
    assert exercises.hint(name)


def test_an_unknown_exercise_is_named():
    with pytest.raises(KeyError, match="no such exercise"):
        exercises.check("99-9", 1)


def core(cells):
    """Return the code cells of the core path: without sections marked *Deeper*, and without live views.

    That these can be skipped is promised in each lesson; whole lessons run in ``nbval`` and in the browser.
    """
    kept, deeper = [], None  # the level of the heading of a section to skip
    for cell in cells:
        if cell.cell_type == "code":
            if deeper is None and not re.search(r"leafmap\.Map\(|\.hvplot\.", cell.source):
                kept.append(cell)
            continue
        for marks, title in re.findall(r"^(##+) (.*)$", cell.source, flags=re.MULTILINE):
            if deeper is not None and len(marks) <= deeper:
                deeper = None
            if "Deeper" in title:
                deeper = len(marks)
    return kept


def verdict(cell):
    return next(o["data"]["text/plain"] for o in cell.outputs if "data" in o)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_in_their_lesson(path, monkeypatch):
    """Run a lesson's core with each exercise untouched, then wrong in many ways, then solved; on tiles behind a URL.

    That is one setting, as for the real tiles: the same cells, the same assertions, over HTTP.
    """
    lesson, answers = read(path), tagged(read(ROOT / "solutions" / path.name), "solution-")
    starters, checks = tagged(lesson, "exercise-"), tagged(lesson, "check-")
    expected = []  # (check cell, part of the verdict)
    cells = []

    def attempt(check, source, part):
        cells.append(new_code_cell(source))
        cells.append(new_code_cell(check.source))
        expected.append((cells[-1], source, part))

    for cell in core(lesson.cells):
        name = next((n for n, check in checks.items() if check is cell), None)
        if name is None:
            cells.append(cell)
            continue
        attempt(cell, starters[name].source, f"○ {name}: not attempted yet")
        for wrong in ANSWERS[name]["wrong"]:
            attempt(cell, wrong["code"], wrong["hint"])
        attempt(cell, answers[name].source, f"✓ {name}: right")

    assert {said.split()[1].rstrip(":") for _, _, said in expected if said.startswith("✓")} == set(checks)
    cells.append(new_code_cell(PEAK_MEMORY))
    lesson.cells = cells
    client = NotebookClient(lesson, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    with servers.serve_folder(tiles.DATA) as server:
        monkeypatch.setenv("GLAD_TILES", server.url)
        client.execute()
        assert any(request.status == 206 for request in server.requests)
    for cell, source, part in expected:
        said = verdict(cell)
        assert part in said, f"{source}\n  said: {said}\n  expected: {part}"
        assert said.startswith(("○", "✓")) == part.startswith(("○", "✓")), f"{source}\n  said: {said}"
    assert int(verdict(cells[-1])) < MEMORY_LIMIT
