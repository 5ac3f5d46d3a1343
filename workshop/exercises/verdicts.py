"""Registers checks and turns what they find into verdicts."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

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
    check: Callable[..., str]
    expects: str
    hint: str


_EXERCISES: dict[str, _Exercise] = {}


def exercise(name: str, *, expects: str, hint: str) -> Callable:
    """Register the decorated function as the check of an exercise: it returns praise or raises NotRightError."""

    def register(check: Callable[..., str]) -> Callable[..., str]:
        _EXERCISES[name] = _Exercise(check, expects, hint)
        return check

    return register


def names() -> list[str]:
    """Return the names of all exercises."""
    return sorted(_EXERCISES)


def _find(name: str) -> _Exercise:
    if name not in _EXERCISES:
        raise KeyError(f"{name!r}: no such exercise; there are {', '.join(names())}")
    return _EXERCISES[name]


def check(name: str, *answer: Any) -> Verdict:
    """Check an answer.

    Parameters
    ----------
    name : str
        The exercise's name, such as ``"02-1"``.
    *answer
        The learner's answer; ``...`` anywhere in it means that it was not attempted.
    """
    found = _find(name)
    if any(part is ... for part in answer):
        return Verdict(name, NOT_ATTEMPTED, "Replace the ... above, run that cell, then this one.")
    if "number" in found.expects and any(isinstance(part, str | bytes) for part in answer):
        return Verdict(name, NOT_YET, f"Expected {found.expects}, found text: leave out the quotes.")
    try:
        return Verdict(name, RIGHT, found.check(*answer))
    except NotRightError as hint:
        return Verdict(name, NOT_YET, str(hint))
    except Exception as error:  # Run All must get past any answer
        kinds = ", ".join(type(part).__name__ for part in answer)
        return Verdict(name, NOT_YET, f"Expected {found.expects}, found {kinds}, which cannot be checked: {error}")


def hint(name: str) -> str:
    """Return a first hint for an exercise."""
    return _find(name).hint
