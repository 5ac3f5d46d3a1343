"""Make the learner's copies of the notebooks, without outputs: ``python tools/copies.py [--fresh]``, into ``work/``.

Existing copies are kept. With ``--fresh``, the whole folder is first renamed.
"""

import hashlib
import sys
from datetime import datetime
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
RECORD = "progress.jsonl"  # of workshop/exercises/record.py


def copy(notebook: Path, folder: Path) -> bool:
    """Write a notebook without outputs into the folder, unless it exists there.

    Returns whether the copy there was made from another version of the lesson.
    """
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    version = hashlib.sha256("\0".join(cell.source for cell in content.cells).encode()).hexdigest()[:12]
    content.metadata["lesson_version"] = version
    there = folder / notebook.name
    if there.is_file():
        return nbformat.read(there, as_version=4).metadata.get("lesson_version") != version
    nbformat.write(content, there)
    return False


def main(root: Path = ROOT, *, fresh: bool = False) -> str:
    """Make the copies in ``work/`` under the root, and return a message for the learner."""
    folder = root / "work"
    said = ""
    if fresh and folder.is_dir():
        aside = folder.rename(root / f"work-{datetime.now():%Y%m%d-%H%M%S}")
        said = f"Your earlier copies are in {aside.name}/. "
        folder.mkdir()
        if (aside / RECORD).is_file():
            (aside / RECORD).rename(folder / RECORD)
    folder.mkdir(exist_ok=True)
    older = [path.name for path in sorted(root.glob("notebooks/*.ipynb")) if copy(path, folder)]
    if older:
        said += (
            f"The lesson has changed since your copy was made: {', '.join(older)}. "
            "`make fresh` makes new copies and keeps yours. "
        )
    return said + "The notebooks to work in are in work/."


if __name__ == "__main__":
    print(main(fresh="--fresh" in sys.argv[1:]))
