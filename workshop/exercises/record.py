"""What was solved at which try, kept on this machine only: a line per try in ``work/progress.jsonl``.

Only a kernel that was started in ``work/``, where ``make lab`` puts the learner's copies, leaves a line.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown, display

COPIES = Path(__file__).parents[2] / "work"
STATEMENTS = (
    "open a GeoTIFF of any size and select a box in it",
    "stack rasters of several years into a cube, and choose its chunks",
    "write a cube to a bucket with a history, and undo a mistake in it",
    "find out what a query costs before I run it",
    "count a class in square kilometers inside a polygon",
)
_MOMENTS = ("before 01", "after 05", "after 08")


def note(kind: str, name: str, result: Any, message: str = "") -> None:
    """Add a line to the record, unless it would repeat the last one of that name (a cell that was run again)."""
    if Path.cwd() != COPIES:
        return
    line = [kind, name, result, message]
    if [entry for entry in _entries() if entry[:2] == line[:2]][-1:] != [line]:
        with (COPIES / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _entries() -> list[list]:
    file = COPIES / "progress.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def progress() -> pd.DataFrame:
    """Return a table of the exercises and quiz questions tried so far.

    ``solved at try`` is empty where there is no right answer yet, ``hints`` is the highest level that was asked for.
    What was tried after solving an exercise doesn't count.
    """
    rows = {}
    for kind, name, result, _ in _entries():
        if kind in ("exercise", "question", "hint"):
            row = rows.setdefault(name, {"tries": 0, "solved at try": pd.NA, "hints": 0})
            if row["solved at try"] is not pd.NA:
                continue  # what comes after solving it doesn't count
            if kind == "hint":
                row["hints"] = max(row["hints"], result)
            else:
                row["tries"] += 1
                row["solved at try"] = row["tries"] if result else pd.NA
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["tries", "solved at try", "hints"])
    return table.sort_index().astype("Int64").rename_axis("exercise")


def could(moment: str, answers: Sequence[Any]) -> None:
    """Show how sure the learner is of five things, now and before.

    Parameters
    ----------
    moment : str
        ``"before 01"``, ``"after 05"`` or ``"after 08"``.
    answers : sequence
        A number from 1 (not at all) to 5 (right now) for each of :data:`STATEMENTS`; ``...`` for none yet.
    """
    if moment not in _MOMENTS:
        raise ValueError(f"expected one of {', '.join(_MOMENTS)}, found {moment!r}")
    if len(answers) != len(STATEMENTS) or any(one is ... or one not in range(1, 6) for one in answers):
        display(Markdown(f"Put a number from 1 (not at all) to 5 (right now) in each of the {len(STATEMENTS)} places."))
        return
    note("could", moment, list(answers))
    given = {name: result for kind, name, result, _ in _entries() if kind == "could"} | {moment: list(answers)}
    given = {name: given[name] for name in _MOMENTS if name in given}
    import matplotlib.pyplot as plt  # only here: it would slow down every lesson's first import

    from workshop import maps

    figure, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
    for row, values in enumerate(zip(*given.values(), strict=True)):
        ax.hlines(row, min(values), max(values), color="0.7")
    for (name, values), color in zip(given.items(), ("#E69F00", "#0072B2", "#009E73"), strict=False):
        ax.scatter(values, range(len(values)), s=60, color=color, label=name, zorder=2)
    ax.set(yticks=range(len(STATEMENTS)), yticklabels=STATEMENTS, xticks=range(1, 6), xlim=(0.8, 5.2))
    ax.set(title="I could ...", xlabel="1: not at all, 5: right now")
    ax.invert_yaxis()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    maps.show(figure, "; ".join(f"{name}: {values}" for name, values in given.items()))
