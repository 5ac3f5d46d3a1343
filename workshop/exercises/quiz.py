"""Checks the answers to the five questions at the end of each lesson.

The questions are in the notebooks; ``quiz.toml`` has the right letter of each, why it is right, and a hint for each
wrong letter.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from reprlib import repr as short
from typing import Any

from workshop.exercises.verdicts import NOT_ATTEMPTED, NOT_YET, RIGHT, Verdict

_KEY = Path(__file__).with_name("quiz.toml")


@dataclass(frozen=True)
class QuizResult:
    """What :func:`check_quiz` says; a notebook shows it.

    Attributes
    ----------
    verdicts : tuple of Verdict
        One for each question, in order.
    questions : int
        How many questions the lesson has.
    remark : str
        A remark on the answers as a whole, often empty.
    """

    verdicts: tuple[Verdict, ...]
    questions: int
    remark: str = ""

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(verdict.status == RIGHT for verdict in self.verdicts)

    @property
    def _last_line(self) -> str:
        return f"{self.right} of {self.questions} right. {self.remark}".strip()

    def __repr__(self) -> str:
        return "\n".join([*map(repr, self.verdicts), self._last_line])

    def _repr_html_(self) -> str:
        blocks = [verdict._repr_html_() for verdict in self.verdicts]
        last = f"<b>{self.right} of {self.questions} right.</b> {escape(self.remark)}"
        return "\n".join([*blocks, f'<div style="padding:0.3em 0.8em">{last}</div>'])


@cache
def quizzes() -> dict[str, dict[int, dict[str, Any]]]:
    """Return the key: for each lesson and question ``right``, ``why`` and ``hints`` (by wrong letter)."""
    lessons = tomllib.loads(_KEY.read_text(encoding="utf-8"))
    return {
        lesson: {int(number): question for number, question in questions.items()}
        for lesson, questions in lessons.items()
    }


def _judge(name: str, question: dict[str, Any], answer: Any) -> Verdict:
    """Return the verdict on one answer."""
    if answer is ...:
        return Verdict(name, NOT_ATTEMPTED, "Put a letter in place of the ... and run the cell again.")
    letters = sorted([question["right"], *question["hints"]])
    letter = answer.strip(" \t\n.()'\"").lower() if isinstance(answer, str) else None
    if letter == question["right"]:
        return Verdict(name, RIGHT, question["why"])
    if letter in question["hints"]:
        return Verdict(name, NOT_YET, question["hints"][letter])
    # short() handles any answer, even one whose repr raises
    expected = ", ".join(f'"{one}"' for one in letters[:-1]) + f' or "{letters[-1]}"'
    return Verdict(name, NOT_YET, f"Expected {expected}, found {short(answer)}.")


def check_quiz(lesson: str, answers: Any) -> QuizResult:
    """Check the answers to a lesson's quiz.

    Parameters
    ----------
    lesson : str
        The lesson, such as ``"04"``; the appendix is ``"ap"``, as in the names of the exercises.
    answers
        A letter for each question, such as ``{1: "b", 2: "c"}``; ``...`` means not attempted.

    Returns
    -------
    QuizResult

    Raises
    ------
    KeyError
        When there is no such lesson.
    """
    if lesson not in quizzes():
        raise KeyError(f"{lesson!r}: no such quiz; there are {', '.join(quizzes())}")
    questions = quizzes()[lesson]
    if answers is ...:
        answers = {}
    if not isinstance(answers, dict):
        found = f"{type(answers).__name__} {short(answers)}"
        message = f'Expected a letter for each question, such as {{1: "b", 2: "c"}}, found {found}.'
        return QuizResult((Verdict(f"{lesson} quiz", NOT_YET, message),), len(questions))
    verdicts = [
        _judge(f"{lesson} question {number}", question, answers.get(number, ...))
        for number, question in questions.items()
    ]
    surplus = ", ".join(short(key) for key in answers if key not in questions)
    remark = f"Expected the questions 1 to {len(questions)}, found also {surplus}." if surplus else ""
    return QuizResult(tuple(verdicts), len(questions), remark)
