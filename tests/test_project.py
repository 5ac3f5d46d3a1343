"""The project's files agree with each other."""

import json
import os
import re
import tomllib
from datetime import datetime
from itertools import pairwise

import pytest
from attempts import tagged
from conftest import NOTEBOOKS, ROOT, SOLUTIONS, cells
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tools import card, lock
from tools import minutes as model

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GUIDE = (ROOT / "docs" / "instructors.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def pins(path):
    """Return the versions in a lock, which has a hash for each and holds no address."""
    text = path.read_text()
    assert "://" not in text
    lines = re.findall(r"^([\w.-]+)==([^\s;\\]+)(.*)$", text, flags=re.MULTILINE)
    assert all(rest.endswith("\\") for _, _, rest in lines), "a pin without a hash"
    return {name: pin for name, pin, _ in lines}


def test_what_tools_write_is_of_these_sources():
    text = lock.LOCK.read_text()
    assert text.startswith(lock.header()), "pyproject.toml has changed: run `make lock`"
    assert lock.ENVIRONMENT.read_text() == lock.environment(text), "requirements.lock has changed: run `make lock`"
    assert card.PAGE.read_text(encoding="utf-8") == card.page(), "run `.venv/bin/python tools/card.py`"


def test_lock_holds_every_dependency_with_hashes_and_no_address():
    pinned = pins(lock.LOCK)
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), line


def test_the_hub_has_the_versions_of_the_lessons():
    ours, hubs = pins(lock.LOCK), pins(ROOT / "tests" / "hub" / "requirements.lock")
    assert "jupyterhub" in hubs
    assert {name: pin for name, pin in hubs.items() if ours.get(name, pin) != pin} == {}, "run `make lock`"


@pytest.mark.parametrize("folder", ["viewer", "tests/hub"])
def test_npm_gets_exact_versions_with_hashes_and_the_lock_holds_no_address(folder):
    text = (ROOT / folder / "package-lock.json").read_text()
    assert "resolved" not in text and "registry" not in text
    assert all("integrity" in package for name, package in json.loads(text)["packages"].items() if name)
    wanted = json.loads((ROOT / folder / "package.json").read_text())
    pinned = wanted["dependencies"] | wanted.get("devDependencies", {})
    assert all(re.fullmatch(r"[\d.]+", pin) for pin in pinned.values())


def test_readme_lists_every_lesson():
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in README
    assert [path.name for path in SOLUTIONS] == [path.name for path in NOTEBOOKS]


def minutes():
    """Return the README's minutes of each lesson: {"01": (core, exercises), ...}."""
    rows = re.findall(r"^\| \[(\w\w).*\| (\d+) \| (\d+) \|$", README, flags=re.MULTILINE)
    return {name.lower(): (int(core), int(exercises)) for name, core, exercises in rows}


def test_minutes_of_the_lessons_are_those_of_the_readme():
    for path in NOTEBOOKS:
        stated = re.search(r"(\d+) minutes .* (\d+) for the exercises", cells(path)[0].source)
        assert tuple(map(int, stated.groups())) == minutes()[path.stem[:2]], path.name


def schedule(title):
    """Return the rows (begin, minutes, what) of a schedule in the instructors' guide."""
    table = GUIDE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d\d:\d\d) \| (\d+) \| (.*) \|$", table, flags=re.MULTILINE)
    return [(datetime.strptime(begin, "%H:%M"), int(spent), what) for begin, spent, what in rows]


@pytest.mark.parametrize(("title", "hours"), [("Three hours", 3), ("A full day", 8), ("Your own rasters", 3)])
def test_schedules_add_up_and_give_each_lesson_its_minutes(title, hours):
    rows = schedule(title)
    for (begin, spent, what), (end, _, _) in pairwise(rows):
        assert (end - begin).seconds == 60 * spent, what
    assert (rows[-1][0] - rows[0][0]).seconds == 3600 * hours
    for _, spent, what in rows:
        if core := re.match(r"(?:Lesson )?(\w\w)\w*, core", what):
            assert spent == minutes()[core[1].lower()][0], what
        elif lesson := re.match(r"Lesson (\d\d), exercises", what):
            assert spent == minutes()[lesson[1]][1], what


@pytest.mark.parametrize(("title", "lessons"), [("Three hours", range(1, 6)), ("A full day", range(1, 10))])
def test_a_schedule_holds_every_lesson_with_an_exercise_a_quiz_and_slack(title, lessons):
    rows = schedule(title)
    content = [(spent, what) for _, spent, what in rows if re.match("Lesson|Exercise|Quiz", what)]
    found = [re.sub(r"Exercises? (\d\d)-\d.*", r"Exercise \1", what) for _, what in content]
    assert found == [part for n in lessons for part in (f"Lesson {n:02}, core", f"Exercise {n:02}", f"Quiz {n:02}")]
    assert all(spent >= 6 for spent, what in content if what.startswith("Exercise"))
    assert all(spent == 4 for spent, what in content if what.startswith("Quiz"))
    slack = sum(spent for _, spent, what in rows if what.startswith("Slack"))
    assert slack >= 0.15 * sum(spent for spent, _ in content)
    rest = sum(spent for _, spent, what in rows if what.startswith(("Break", "Lunch")))
    assert rest >= (20 if len(lessons) == 5 else 90)
    exercises = {f"{n}-{k}" for _, what in content for n, k in re.findall(r"(\d\d)-(\d)", what)}
    assert exercises <= {name for path in NOTEBOOKS for name in tagged(path, "exercise-")}


def test_the_guide_says_how_the_model_counts_minutes():
    for said in (
        f"{model.WORDS_PER_MINUTE} words of prose per minute",
        f"{model.LINE_SECONDS} seconds per line of visible code",
        f"{model.CELL_SECONDS} seconds per cell",
        f"{model.PREDICT_SECONDS} seconds per **Predict**",
    ):
        assert said in GUIDE


def test_checkpoints_are_on_the_screen_and_fill_the_core_path():
    for path, (name, rows) in zip(NOTEBOOKS, card.checkpoints().items(), strict=True):
        assert path.stem.startswith(name.lower())
        assert sum(int(spent) for _, spent, _ in rows) == minutes()[path.stem[:2]][0], name
        shown = ""
        for cell in cells(path):
            if cell.cell_type == "code":
                for output in cell.outputs:
                    shown += output.get("text", "") + output.get("data", {}).get("text/plain", "") + "\n"
            elif heading := re.search(r"^## (\d+) ", cell.source, flags=re.MULTILINE):
                shown += f"\n## {heading[1]}\n"
        for section, _, screen in rows:
            here = shown.split(f"\n## {section}\n")[1].split("\n## ")[0]
            for text in re.findall(r"`(.+?)`", screen):
                assert text in here, f"{path.stem}, section {section}: {text}"


def test_one_version():
    version = PROJECT["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1] == version


def test_every_way_in_makes_the_copies_and_opens_them():
    rows = dict(re.findall(r"^\| (\w+).*? \| (.*) \| .* \|$", README.split("## Elsewhere")[1], flags=re.MULTILINE))
    spelled_out = README.split("```powershell")[1].split("```")[0].replace("\\", "/")
    for way in (spelled_out, rows["conda"], rows["JupyterHub"]):
        assert "python tools/copies.py" in way and "work" in way.replace("workshop", "")
    assert "postBuild" in rows["Binder"] and "lab/tree/work" in rows["Binder"]
    assert "`work/`" in rows["Codespaces"]


def test_a_dev_container_does_what_the_readme_says():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make setup && .venv/bin/python tools/copies.py"
    assert SpecifierSet(PROJECT["requires-python"]).contains(container["image"].split(":")[1])


def test_binder_finds_the_environment_and_prepares_the_sample_world():
    # Binder looks into these folders first, and then nowhere else
    assert not (ROOT / "binder").exists() and not (ROOT / ".binder").exists()
    pip = re.findall(r'^      - "(.*)"$', lock.ENVIRONMENT.read_text(), flags=re.MULTILINE)
    assert pip[-1] == "--editable ."
    assert os.access(ROOT / "postBuild", os.X_OK)
    commands = re.findall(r"^python (.*)$", (ROOT / "postBuild").read_text(), flags=re.MULTILINE)
    assert commands == ["-m workshop.sample", "tools/copies.py"]
