"""Estimate the minutes that a lesson's core path takes in a room: ``python tools/minutes.py [NOTEBOOK ...]``.

The core path leaves out exercises, the quiz and everything after it, and sections whose heading begins with *Deeper*.
The model: prose is read at 180 words per minute. A line of visible code takes 4 s, a cell 20 s, and a **Predict** 90 s.
The kernel takes its measured time, which ``make render`` stores. Folded code takes no time, but its cell does.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
WORDS_PER_MINUTE, LINE_SECONDS, CELL_SECONDS, PREDICT_SECONDS = 180, 4, 20, 90
HEADING = re.compile(r"(#{2,4}) (?:(\d+) )?(.*)")
LEFT_OUT = re.compile(r"Deeper|Exercise|Check yourself|On your own|Further reading")


def minutes(part: Counter) -> float:
    """Return the model's minutes for the counts of a part."""
    seconds = part["lines"] * LINE_SECONDS + part["cells"] * CELL_SECONDS + part["predictions"] * PREDICT_SECONDS
    return part["words"] / WORDS_PER_MINUTE + (seconds + part["kernel_seconds"]) / 60


def is_folded(cell: nbformat.NotebookNode) -> bool:
    """Whether JupyterLab hides the cell's source until it is clicked."""
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def sections(notebook: nbformat.NotebookNode) -> dict[str, Counter]:
    """Count the core path's words, lines, cells and predictions in each numbered section.

    The part before the first section is called *before*, and has the ``kernel_seconds`` of the whole notebook. A part
    that is left out ends at the next heading of the same level or a higher one. *In practice* and *What you did* count
    as parts of the last section.
    """
    here = Counter(kernel_seconds=notebook.metadata.get("kernel_seconds", 0))
    found, skipped_level = {"before": here}, 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for part in re.split(r"(?m)^(?=#{2,4} )", cell.source):
                if heading := HEADING.match(part):
                    level, number, title = len(heading[1]), heading[2], heading[3]
                    if not skipped_level or level <= skipped_level:
                        skipped_level = level if LEFT_OUT.match(title) else 0
                    if level == 2 and number and not skipped_level:
                        here = found[number] = Counter()
                if not skipped_level:
                    here.update(words=len(part.split()), predictions=part.count("**Predict"))
        elif not skipped_level and not any(
            tag.startswith(("exercise-", "check-", "quiz-")) for tag in cell.metadata.get("tags", [])
        ):
            lines = 0 if is_folded(cell) else sum(bool(line.strip()) for line in cell.source.splitlines())
            here.update(cells=1, lines=lines)
    return found


def core(notebook: nbformat.NotebookNode) -> Counter:
    """Return the sum of the sections."""
    return sum(sections(notebook).values(), Counter())


if __name__ == "__main__":
    for path in [Path(arg) for arg in sys.argv[1:]] or sorted(ROOT.glob("notebooks/*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        whole = core(notebook)
        print(
            f"{path.stem:26} {minutes(whole):4.0f} min: {whole['words']:5} words, {whole['lines']:4} lines "
            f"({whole['lines'] / minutes(whole):.1f} a minute), {whole['cells']:3} cells, "
            f"{whole['predictions']} Predict, kernel {whole['kernel_seconds']:.0f} s"
        )
        if sys.argv[1:]:
            by_section = [f"{name}: {minutes(part):.1f}" for name, part in sections(notebook).items()]
            print("  by section:", ", ".join(by_section))
