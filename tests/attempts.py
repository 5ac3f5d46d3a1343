"""Attempts at exercises (untouched, wrong in many ways, solved) in the kernel in which nbval just ran the lesson."""

import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
ANSWERS = tomllib.loads((ROOT / "tests" / "answers.toml").read_text(encoding="utf-8"))


def tagged(path, prefix):
    """Return the sources of cells with a tag that begins with the prefix, keyed by the rest of the tag."""
    cells = nbformat.read(path, as_version=4).cells
    found = [(tag, cell) for cell in cells for tag in cell.metadata.get("tags", []) if tag.startswith(prefix)]
    sources = {tag.removeprefix(prefix): cell.source for tag, cell in found}
    assert len(sources) == len(found), "two cells have the same tag"
    return sources


class Attempts(pytest.Item):
    """All attempts at one exercise. They run after the last cell of its lesson."""

    def runtest(self):
        path = self.parent.path
        check = tagged(path, "check-")[self.name]
        attempts = [(wrong["code"], "✗", wrong["hint"]) for wrong in ANSWERS[self.name]["wrong"]]
        attempts.insert(0, (tagged(path, "exercise-")[self.name], "○", f"{self.name}: not attempted yet"))
        answer = tagged(ROOT / "solutions" / path.name, "solution-")[self.name]
        attempts.append((answer, "✓", f"{self.name}: right"))
        for source, mark, part in attempts:
            said = self.run_cell(f"{source}\n{check}")
            assert said.startswith(mark) and part in said, f"{source}\n  said: {said}\n  expected: {mark} {part}"

    def run_cell(self, source):
        """Return the text of the cell's last expression."""
        shown = []

        def note(message):
            if "data" in message["content"]:
                shown.append(message["content"]["data"]["text/plain"])

        client = self.parent.kernel.kc
        reply = client.execute_interactive(source, timeout=300, output_hook=note, allow_stdin=False)["content"]
        assert reply["status"] == "ok", f"{source}\n{reply.get('ename')}: {reply.get('evalue')}"
        return shown[-1]

    def repr_failure(self, excinfo):
        return str(excinfo.value)

    def reportinfo(self):
        return self.path, 0, f"exercise {self.name}"


class Stores(Attempts):
    """The stores in the lesson's bucket have valid and true metadata. Runs before the attempts."""

    def runtest(self):
        code = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); from described import check_bucket"
        found = self.run_cell(f"{code}\ncheck_bucket(globals().get('bucket'))")
        assert found == "[]", found

    def reportinfo(self):
        return self.path, 0, self.name


def add_attempts(items):
    """Insert a check of a lesson's stores, and the attempts at its exercises, after its last cell."""
    for last in [item for item, following in zip(items, [*items[1:], None], strict=True) if ends(item, following)]:
        at = items.index(last) + 1
        names = tagged(last.path, "check-")
        stores = Stores.from_parent(last.parent, name="the stores describe themselves")
        items[at:at] = [stores, *(Attempts.from_parent(last.parent, name=name) for name in names)]


def ends(item, following):
    whole = item.path.suffix == ".ipynb" and item.path.parent.name == "notebooks"
    return whole and (following is None or following.path != item.path)
