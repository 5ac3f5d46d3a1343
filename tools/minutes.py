"""Estimate the minutes that a lesson's core path takes in a room: ``python tools/minutes.py [NOTEBOOK ...]``.

The core path leaves out exercises, the quiz and everything after it, and sections whose heading begins with *Deeper*.
The model: prose is read at 180 words per minute. A line of visible code takes 4 s, a cell 20 s, and a **Predict** 90 s.
The kernel takes its measured time, which ``make render`` stores. Folded code takes no time, but its cell does.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
WORDS_PER_MINUTE, LINE_SECONDS, CELL_SECONDS, PREDICT_SECONDS = 180, 4, 20, 90
LEFT_OUT = re.compile(r"Deeper|Exercise|Check yourself|On your own|Further reading")
HEADING = re.compile(r"^(#{2,4}) (.*)$", flags=re.MULTILINE)


@dataclass
class Core:
    """The contents of a notebook's core path."""

    words: int = 0
    lines: int = 0  # of visible code, without empty ones
    cells: int = 0
    predictions: int = 0
    kernel_seconds: float = 0.0

    @property
    def minutes(self) -> float:
        """The model's minutes."""
        seconds = self.lines * LINE_SECONDS + self.cells * CELL_SECONDS + self.predictions * PREDICT_SECONDS
        return self.words / WORDS_PER_MINUTE + (seconds + self.kernel_seconds) / 60


def is_folded(cell: nbformat.NotebookNode) -> bool:
    """Whether JupyterLab hides the cell's source until it is clicked."""
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def sections(notebook: nbformat.NotebookNode) -> list[tuple[str, Core]]:
    """Return the numbered sections of the core path, with ``""`` for the part before the first one.

    A part that is left out ends at the next heading of the same level or a higher one. *In practice* and *What you did*
    count as parts of the last section.
    """
    found, skipped_level = [("", Core())], 0
    found[0][1].kernel_seconds = notebook.metadata.get("kernel_seconds", 0)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for part in re.split(r"(?m)^(?=#{2,4} )", cell.source):
                if heading := HEADING.match(part):
                    level = len(heading[1])
                    if not skipped_level or level <= skipped_level:
                        skipped_level = level if LEFT_OUT.match(re.sub(r"^\d+ ", "", heading[2])) else 0
                    if not skipped_level and (number := re.match(r"## (\d+) ", part)):
                        found.append((number[1], Core()))
                if not skipped_level:
                    found[-1][1].words += len(part.split())
                    found[-1][1].predictions += part.count("**Predict")
        elif not skipped_level and not any(
            tag.startswith(("exercise-", "check-", "quiz-")) for tag in cell.metadata.get("tags", [])
        ):
            found[-1][1].cells += 1
            if not is_folded(cell):
                found[-1][1].lines += sum(bool(line.strip()) for line in cell.source.splitlines())
    return found


def core(notebook: nbformat.NotebookNode) -> Core:
    """Return the sum of the sections."""
    parts = [part for _, part in sections(notebook)]
    return Core(*(sum(getattr(part, name) for part in parts) for name in Core.__dataclass_fields__))


if __name__ == "__main__":
    paths = [Path(arg) for arg in sys.argv[1:]] or sorted(ROOT.glob("notebooks/*.ipynb"))
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        whole = core(notebook)
        print(
            f"{path.stem:26} {whole.minutes:4.0f} min: {whole.words:5} words, {whole.lines:4} lines "
            f"({whole.lines / whole.minutes:.1f} a minute), {whole.cells:3} cells, {whole.predictions} Predict, "
            f"kernel {whole.kernel_seconds:.0f} s"
        )
        if sys.argv[1:]:
            print(
                "  by section:",
                ", ".join(f"{name or 'before'}: {part.minutes:.1f}" for name, part in sections(notebook)),
            )
