"""The project's own files agree with each other."""

import re
import tomllib

from conftest import NOTEBOOKS, ROOT, SOLUTIONS
from packaging.requirements import Requirement

from tools import lock


def pins():
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.LOCK.read_text(), flags=re.MULTILINE))


def test_lock_is_of_this_pyproject():
    assert lock.LOCK.read_text().startswith(lock.header()), "pyproject.toml has changed: run `make lock`"


def test_environment_is_of_this_lock():
    expected = lock.environment(lock.LOCK.read_text())
    assert lock.ENVIRONMENT.read_text() == expected, "requirements.lock has changed: run `make lock`"


def test_lock_holds_every_dependency_with_hashes_and_no_address():
    pinned = pins()
    text = lock.LOCK.read_text()
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), line
    # a package may be pinned once for each Python
    pinned_lines = re.findall(r"^[\w.-]+==.*", text, flags=re.MULTILINE)
    assert all(line.endswith("\\") for line in pinned_lines), "a pin without a hash"
    assert "://" not in text


def test_lock_is_what_is_installed():
    from importlib.metadata import version

    for name in ("xarray", "zarr", "icechunk", "virtualizarr", "rioxarray", "leafmap"):
        assert version(name) == pins()[name]


def test_readme_lists_every_lesson():
    readme = (ROOT / "README.md").read_text()
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in readme
    assert [path.name for path in SOLUTIONS] == [path.name for path in NOTEBOOKS]
