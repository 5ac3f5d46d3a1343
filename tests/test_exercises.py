"""The exercises: untouched, with wrong answers, and solved; each inside the core path of its lesson."""

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


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, prefix):
    """Return the cells with a tag that begins with the prefix, by the rest of the tag."""
    found = [(tag, cell) for cell in notebook.cells for tag in cell.metadata.get("tags", []) if tag.startswith(prefix)]
    cells = {tag.removeprefix(prefix): cell for tag, cell in found}
    assert len(cells) == len(found), "two cells have the same tag"
    return cells


def test_every_exercise_has_its_cells_a_hint_and_wrong_answers():
    for path in NOTEBOOKS:
        lesson, answers = read(path), read(ROOT / "solutions" / path.name)
        names = set(tagged(lesson, "exercise-"))
        assert len(names) >= 2, path.name
        assert names == set(tagged(lesson, "check-")) == set(tagged(answers, "solution-"))
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
    are left out, too. Whole lessons run in ``nbval`` and in the browser.
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


def verdict(cell):
    return next(o["data"]["text/plain"] for o in cell.outputs if "data" in o)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_in_their_lesson(path, monkeypatch):
    """Run a lesson's core with each exercise untouched, then with its wrong answers, then solved.

    The tiles come from a URL, as the real ones do.
    """
    lesson, answers = read(path), tagged(read(ROOT / "solutions" / path.name), "solution-")
    starters, checks = tagged(lesson, "exercise-"), tagged(lesson, "check-")
    cells, expected, solved = [], [], set()
    for cell in core(lesson.cells):
        name = next((n for n, check in checks.items() if check is cell), None)
        if name is None:
            cells.append(cell)
            continue
        attempts = [(wrong["code"], "✗", wrong["hint"]) for wrong in ANSWERS[name]["wrong"]]
        attempts.insert(0, (starters[name].source, "○", f"{name}: not attempted yet"))
        attempts.append((answers[name].source, "✓", f"{name}: right"))
        for source, mark, part in attempts:
            cells += [new_code_cell(source), new_code_cell(cell.source)]
            expected.append((cells[-1], source, mark, part))
        solved.add(name)
    assert solved == set(checks)
    cells.append(new_code_cell(PEAK_MEMORY))
    lesson.cells = cells
    client = NotebookClient(lesson, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    with servers.serve_folder(tiles.DATA) as server:
        monkeypatch.setenv("GLAD_TILES", server.url)
        client.execute()
        assert any(request.status == 206 for request in server.requests)
    for cell, source, mark, part in expected:
        said = verdict(cell)
        assert said.startswith(mark) and part in said, f"{source}\n  said: {said}\n  expected: {mark} {part}"
    assert int(verdict(cells[-1])) < MEMORY_LIMIT
