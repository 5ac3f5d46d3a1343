"""The glossary is in order and true to the lessons, and every link to it leads to a heading."""

import re

import pytest
from conftest import NOTEBOOKS, ROOT, SOLUTIONS, cells

PAGE = ROOT / "docs" / "glossary.md"
TERMS = dict(re.findall(r"^## (.+)\n\n((?:.+\n)+)", PAGE.read_text(encoding="utf-8") + "\n", flags=re.MULTILINE))
ANCHORS = {term.replace(" ", "-") for term in TERMS}  # so JupyterLab names headings; GitHub and the site find them, too
LINK = re.compile(r"\[([^\]]+)\]\(\.\./docs/glossary\.md#([^)]+)\)")


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def test_terms_are_in_order_and_unique():
    headings = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings == list(TERMS), "a term without a text, or twice"
    assert headings == sorted(headings, key=str.casefold)
    assert len(ANCHORS) == len(headings) > 80


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_explained_and_names_a_lesson_that_uses_it(term):
    text, label, name = re.fullmatch(
        r"(.+) \*First in \[(.+)\]\(\.\./notebooks/(.+)\.ipynb\)\.\*\n", TERMS[term]
    ).groups()
    assert label == (f"appendix {name[:2].upper()}" if name[0] == "a" else f"lesson {name[:2]}")
    assert 1 <= len(re.findall(r"[.?)](?= |$)", text)) <= 6 and len(text) < 420
    lesson = cells(ROOT / "notebooks" / f"{name}.ipynb")
    outputs = [output.get("text", "") for cell in lesson for output in cell.get("outputs", [])]
    used = set(words("\n".join([cell.source for cell in lesson if not cell.source.startswith("## Check")] + outputs)))
    # a plural or another form of the verb counts, too
    ends = ("", "s", "es", "d", "ed", "n", "ning", "ing", "ly")
    for word in words(term):
        forms = {word + end for end in ends} | {word.removesuffix("e") + "ing", word.removesuffix("y") + "ily"}
        assert forms & used, f"{word} is not in {name}"


@pytest.mark.parametrize("path", NOTEBOOKS + SOLUTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_links_to_the_glossary_lead_to_a_term(path):
    linked = []
    for cell in cells(path, "markdown"):
        assert cell.source.count("docs/glossary.md") == len(LINK.findall(cell.source)), cell.source
        for line in cell.source.splitlines():
            found = LINK.findall(line)
            assert not (found and line.startswith("#")), "no links in headings"
            linked += [anchor for _, anchor in found]
    assert set(linked) <= ANCHORS
    assert len(linked) == len(set(linked)), "a term is linked where it is used first, not again"
    if path in NOTEBOOKS:
        assert 5 <= len(linked) <= 15
