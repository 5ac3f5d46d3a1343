"""The exercises as a whole, and the notebooks on tiles with different content. attempts.py tests each exercise."""

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

from workshop import exercises, maps, servers, tiles, world
from workshop.exercises import record, verdicts


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n in ANSWERS for a in ANSWERS[n].get("also_right", [])])
def test_a_right_answer_may_have_another_form(name, answer):
    verdict = exercises.judge(name, eval(answer))
    assert verdict.status == exercises.RIGHT, verdict


@pytest.mark.parametrize("name", exercises.names())
@pytest.mark.parametrize(
    "answer",
    [None, "", "x", [], {}, (1, 2, 3), np.nan, np.arange(3), object(), xr.DataArray([1, 2]), float("inf"), 10**400],
)
def test_a_check_never_raises(name, answer):
    assert exercises.judge(name, answer).status == exercises.NOT_YET


def test_every_exercise_has_its_cells_a_hint_and_wrong_answers():
    for path in NOTEBOOKS:
        names = set(tagged(path, "exercise-"))
        assert len(names) >= 2, path.name
        assert names == set(tagged(path, "check-")) == set(tagged(ROOT / "solutions" / path.name, "solution-"))
        assert all(name[:2] == path.name[:2] for name in names)
        assert {name for name in exercises.names() if name[:2] == path.name[:2]} == names
    assert set(ANSWERS) == set(exercises.names())
    assert all(len(answers["wrong"]) >= 4 for answers in ANSWERS.values())


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Keep the record in this test's folder, as in a learner's copies."""
    monkeypatch.setattr(record, "COPIES", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", exercises.names())
def test_a_hint_has_two_levels_and_shows_by_itself(name, capsys):
    exercises.hint(name)
    exercises.hint(name, 2)
    assert capsys.readouterr().out.count("Markdown") == 2
    first, more = verdicts._EXERCISES[name].hints
    assert len(first) > 20 and len(more) > 20 and first != more
    with pytest.raises(ValueError, match="expected hint 1 or 2, found 3"):
        exercises.hint(name, 3)


def test_a_wrong_number_of_answers_is_named():
    assert "the check takes 2 answers, found 1" in exercises.judge("01-3", "c/0/0").message


def test_progress_counts_tries_until_an_exercise_is_solved(copies, capsys):
    assert exercises.progress().empty
    for answer in (..., (0, 0), (0, 0), 40.85, (-112.199875, 40.849875), (0, 0)):  # a cell run twice counts once
        exercises.check("01-1", answer)
    exercises.hint("01-2", 2)
    exercises.hint("01-2")
    exercises.hint("01-1", 2)  # after solving it
    exercises.check_quiz("02", {1: "a", 2: "d"})
    exercises.check_quiz("01", "abcde")  # not answers to any question
    assert capsys.readouterr().out.count("01-1: not right yet") == 4
    table = exercises.progress()
    assert list(table.index) == ["01-1", "01-2", "02 question 1", "02 question 2"]
    assert table.loc["01-1"].to_list() == [3, 3, 0]
    assert table.fillna(-1).loc["01-2"].to_list() == [0, -1, 2]
    assert table.fillna(-1).loc["02 question 1"].to_list() == [1, -1, 0]
    assert table.loc["02 question 2"].to_list() == [1, 1, 0]


def test_nothing_is_kept_of_lessons_that_are_not_a_learners_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "COPIES", tmp_path)
    exercises.check("01-1", (0, 0))
    assert exercises.progress().empty and not list(tmp_path.iterdir())


def test_the_difference_between_before_and_after_is_drawn(copies, monkeypatch):
    drawn = []
    monkeypatch.setattr(maps, "show", lambda figure, alt: drawn.append((figure, alt)))
    exercises.could("before 01", [...] * 5)
    assert not drawn
    exercises.could("before 01", [1, 1, 2, 1, 3])
    exercises.could("after 05", [5, 4, 4, 3, 3])
    figure, alt = drawn[-1]
    assert alt == "before 01: [1, 1, 2, 1, 3]; after 05: [5, 4, 4, 3, 3]"
    assert [list(dots.get_offsets()[:, 0]) for dots in figure.axes[0].collections[-2:]] == [
        [1, 1, 2, 1, 3],
        [5, 4, 4, 3, 3],
    ]
    with pytest.raises(ValueError, match="expected one of before 01, after 05, after 08, found 'now'"):
        exercises.could("now", [1] * 5)


def test_an_unknown_exercise_is_named():
    with pytest.raises(KeyError, match="no such exercise"):
        exercises.judge("99-9", 1)


@pytest.fixture(scope="session")
def other_tiles():
    """Return a folder for tiles with different content from the sample's, like a learner's own tiles."""
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
    """With one setting, no cell fails, and the checks give true verdicts on untouched exercises and on answers."""
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
