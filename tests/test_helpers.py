"""On the page *From helper to library*, every helper that a lesson calls has a row, and no row is stale."""

import ast
import importlib
import re

from conftest import NOTEBOOKS, ROOT, cells

PAGE = (ROOT / "docs" / "helpers.md").read_text(encoding="utf-8")
MODULES = {path.stem for path in ROOT.glob("workshop/*.py")} - {"__init__"} | {"exercises"}


def listed():
    """Return the helpers in the first column of the page's tables."""
    cells = re.findall(r"^\| (`.*?) \|", PAGE, flags=re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]


def called():
    """Return the functions and classes of `workshop` that the lessons' code names, such as ``tiles.open_tile``."""
    found, methods = set(), set()
    for path in NOTEBOOKS:
        for cell in cells(path, "code"):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    found.add((node.value.id, node.attr))
                elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workshop."):
                    found |= {(node.module.removeprefix("workshop."), alias.name) for alias in node.names}
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    methods.add(node.func.attr)
    modules = {name: importlib.import_module(f"workshop.{name}") for name in MODULES}
    helpers = {f"{m}.{n}" for m, n in found if m in MODULES and callable(getattr(modules[m], n, None))}
    bucket = vars(modules["stores"].Bucket)
    return helpers | {f"stores.Bucket.{n}" for n in methods if n in bucket and n not in ("name", "prefix")}


def test_every_helper_that_a_lesson_calls_has_a_row_and_no_row_is_stale():
    rows, helpers = listed(), called()
    assert len(rows) == len(set(rows)), "a helper has two rows"
    assert helpers - set(rows) == set(), "without a row in docs/helpers.md"
    assert set(rows) - helpers == set(), "no lesson calls it"
