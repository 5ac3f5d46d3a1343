"""Turns a notebook into a page of the site: ``docs/conf.py`` names ``read`` as the reader of notebooks.

Nothing is executed. The page shows the stored outputs, adapted to a page without a kernel, and the folded answer from
``solutions/`` under each exercise.
"""

import re
from functools import cache
from html import escape
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

ROOT = Path(__file__).parent.parent
ANSWER = re.compile(r"## (?P<key>\w\w-\d+) (?P<title>.*)\n(?P<reasons>(?s:.*))")
# Begins the plain text of a widget, an ipyleaflet map, a HoloViews plot or an embedded page of a server.
LIVE = re.compile(r"Column\n|\w*Slider\(|Map\(|:\w+ +\[|IFrame\(")
LIVE_NOTE = (
    '<p class="live">Here a live view appears in JupyterLab. It needs a running kernel, which a page does not have.</p>'
)


def read(text: str) -> NotebookNode:
    """Return the notebook in this text, adapted to the site."""
    notebook = nbformat.reads(text, as_version=4)
    cells, exercise = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            adapt_outputs(cell)
        cells.append(cell)
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("check-"):
                exercise = tag.removeprefix("check-")
                cells += folded(exercise)
    keep_first_icons(cells)
    if cells[0].source.startswith("# Answers to"):
        # The lesson's page has the same answers, and a search should find that page.
        notebook.metadata.update(orphan=True, nosearch=True)
    else:
        number = exercise.split("-")[0].upper()  # 01, or A1 of an appendix
        cells[0].source = cells[0].source.replace("# ", f"# {number} ", 1)
    notebook.cells = cells
    return notebook


def slug(heading: str) -> str:
    """Return JupyterLab's anchor of a heading, so that a link works there, on the site, and on GitHub."""
    return heading.replace(" ", "-")


def adapt_outputs(cell: NotebookNode) -> None:
    """Adapt a cell's outputs to a page: add alt text to pictures, make tables scroll, and replace live views."""
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            # MyST-NB looks for alt text in the cell's metadata, Jupyter in the output's
            image = cell.metadata.setdefault("mystnb", NotebookNode()).setdefault("image", NotebookNode())
            if "alt" in image:
                raise ValueError(f"expected one picture per cell, found two; split the cell:\n{cell.source}")
            image.alt = output.metadata["image/png"]["alt"]
        elif "image/svg+xml" in data:
            # inside the page it keeps its label, as a file it would lose it
            output.data = NotebookNode({"text/html": f'<div class="picture">{data["image/svg+xml"]}</div>'})
        elif "text/html" in data:
            data["text/html"] = adapt_html(data["text/html"])
        elif LIVE.match(data.get("text/plain", "")):
            output.data = NotebookNode({"text/html": LIVE_NOTE})
    # a map and its slider are one view
    live = [output for output in cell.outputs if output.get("data", {}).get("text/html") == LIVE_NOTE]
    cell.outputs = [output for output in cell.outputs if not any(output is other for other in live[1:])]


def keep_first_icons(cells: list[NotebookNode]) -> None:
    """Drop the icons and styles that xarray puts before every array of a page, except the first."""
    icons, seen = re.compile(r"<svg style=.*?</svg>\s*<style>.*?</style>", re.DOTALL), set()

    def first(match: re.Match) -> str:
        return "" if match[0] in seen else seen.add(match[0]) or match[0]

    for output in (output for cell in cells for output in cell.get("outputs", [])):
        html = output.get("data", {}).get("text/html", "")
        if "xr-wrap" in html:
            output.data["text/html"] = icons.sub(first, html)


def adapt_html(html: str) -> str:
    """Return an output's HTML with tables that a keyboard can scroll, and without pandas' own style sheet."""
    html = re.sub(r"<style scoped>.*?</style>\s*", "", html, flags=re.DOTALL)
    if "xr-wrap" in html:
        return html
    html = html.replace("<th></th>", "<td></td>")  # a header that heads nothing
    html = html.replace("<table", '<div class="table" role="group" aria-label="Table" tabindex="0"><table')
    return html.replace("</table>", "</table></div>")


@cache
def answers() -> dict[str, tuple[str, list[NotebookNode]]]:
    """Return the title and the cells of the answer to each exercise."""
    found = {}
    for path in sorted(ROOT.glob("solutions/*.ipynb")):
        cells = []  # before the first answer, of none
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                adapt_outputs(cell)
                parts = [cell]
            else:
                parts = [new_markdown_cell(part) for part in re.split(r"(?m)^(?=## )", cell.source) if part.strip()]
            for part in parts:
                if part.cell_type == "code" or not part.source.startswith("## "):
                    cells.append(part)
                    continue
                cells = []  # of this answer, or of a section that is none
                if answer := ANSWER.match(part.source):
                    cells.append(new_markdown_cell(answer["reasons"]))
                    found[answer["key"]] = (answer["title"], cells)
    return found


def folded(exercise: str) -> list[NotebookNode]:
    """Return the cells of an exercise's answer, between a line that unfolds them and the end of the fold."""
    title, cells = answers()[exercise]
    summary = f'<details class="answer" id="answer-{exercise}"><summary>Answer to {exercise}: {escape(title)}</summary>'
    block = [new_markdown_cell(summary), *cells, new_markdown_cell("</details>")]
    for number, cell in enumerate(block):
        cell.id = f"answer-{exercise}-{number}"
    return block
