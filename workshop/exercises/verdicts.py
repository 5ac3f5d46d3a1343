"""Registers checks and turns what they find into verdicts."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from inspect import signature
from typing import Any

from IPython.display import Markdown, display

from workshop.exercises import record

NOT_ATTEMPTED, NOT_YET, RIGHT = "not attempted yet", "not right yet", "right"
# signs in every font, unlike emoji
_LOOKS = {NOT_ATTEMPTED: ("○", "#888"), NOT_YET: ("✗", "#d97706"), RIGHT: ("✓", "#15803d")}


@dataclass(frozen=True)
class Verdict:
    """What a check says; a notebook shows it."""

    name: str  # the exercise's, such as "02-1"
    status: str  # NOT_ATTEMPTED, NOT_YET or RIGHT
    message: str  # a hint, or what the right answer shows

    def __repr__(self) -> str:
        return f"{_LOOKS[self.status][0]} {self.name}: {self.status}. {self.message}"

    def _repr_html_(self) -> str:
        mark, color = _LOOKS[self.status]
        message = re.sub("`(.+?)`", r"<code>\1</code>", escape(self.message))
        return (
            f'<div style="border-left:4px solid {color};padding:0.3em 0.8em">'
            f"{mark} <b>{self.name}: {self.status}.</b> {message}</div>"
        )


class NotRightError(Exception):
    """The answer is not right; the message is the hint."""


@dataclass(frozen=True)
class _Exercise:
    judge: Callable[..., str]
    expects: str
    hints: tuple[str, str]


_EXERCISES: dict[str, _Exercise] = {}


def exercise(name: str, *, expects: str, hint: str, more: str = "") -> Callable:
    """Register the decorated function, which returns praise or raises NotRightError, as the check of an exercise.

    Parameters
    ----------
    name : str
        Such as ``"02-1"``.
    expects : str
        What an answer is, for the verdict on one that can't be checked.
    hint, more : str
        The two levels of the hint, in Markdown; code goes between lines of three backticks.
    """

    def register(judge: Callable[..., str]) -> Callable[..., str]:
        _EXERCISES[name] = _Exercise(judge, expects, (hint, more))
        return judge

    return register


def names() -> list[str]:
    """Return the names of all exercises."""
    return sorted(_EXERCISES)


def _find(name: str) -> _Exercise:
    if name not in _EXERCISES:
        raise KeyError(f"{name!r}: no such exercise; there are {', '.join(names())}")
    return _EXERCISES[name]


def judge(name: str, *answer: Any) -> Verdict:
    """Return what :func:`check` shows."""
    found = _find(name)
    if any(part is ... for part in answer):
        return Verdict(name, NOT_ATTEMPTED, "Replace the ... above, run that cell, then this one.")
    if "number" in found.expects and any(isinstance(part, str | bytes) for part in answer):
        return Verdict(name, NOT_YET, f"Expected {found.expects}, found text: leave out the quotes.")
    wanted = len(signature(found.judge).parameters)
    if len(answer) != wanted:
        takes = f"the check takes {wanted} answer{'s' if wanted > 1 else ''}, found {len(answer)}."
        return Verdict(name, NOT_YET, f"Expected {found.expects}; {takes}")
    try:
        return Verdict(name, RIGHT, found.judge(*answer))
    except NotRightError as hint:
        return Verdict(name, NOT_YET, str(hint))
    except Exception:  # Run All must get past any answer
        kinds = ", ".join(type(part).__name__ for part in answer)
        return Verdict(name, NOT_YET, f"Expected {found.expects}, found {kinds}, which cannot be checked.")


def check(name: str, *answer: Any) -> None:
    """Check an answer, and show the verdict.

    Parameters
    ----------
    name : str
        The exercise's name, such as ``"02-1"``.
    *answer
        The learner's answer; ``...`` anywhere in it means that it was not attempted.
    """
    verdict = judge(name, *answer)
    if verdict.status != NOT_ATTEMPTED:
        record.note("exercise", name, verdict.status == RIGHT, verdict.message)
    display(verdict)


def hint(name: str, level: int = 1) -> None:
    """Show a hint for an exercise: a first one, or with ``level=2`` one that says more."""
    hints = _find(name).hints
    if level not in (1, 2):
        raise ValueError(f"expected hint 1 or 2, found {level!r}")
    record.note("hint", name, level)
    more = f'\n\n*More:* `exercises.hint("{name}", 2)`' if level == 1 else ""
    display(Markdown(hints[level - 1] + more))
