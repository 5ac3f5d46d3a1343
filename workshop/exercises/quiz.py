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

from IPython.display import display

from workshop.exercises import record
from workshop.exercises.verdicts import NOT_ATTEMPTED, NOT_YET, RIGHT, Verdict


@dataclass(frozen=True)
class QuizResult:
    """What :func:`check_quiz` says; a notebook shows it."""

    verdicts: tuple[Verdict, ...]  # one for each question, in order
    questions: int  # how many the lesson has
    remark: str = ""  # on the answers as a whole

    @property
    def _count(self) -> str:
        return f"{sum(verdict.status == RIGHT for verdict in self.verdicts)} of {self.questions} right."

    def __repr__(self) -> str:
        return "\n".join([*map(repr, self.verdicts), f"{self._count} {self.remark}".strip()])

    def _repr_html_(self) -> str:
        blocks = [verdict._repr_html_() for verdict in self.verdicts]
        last = f'<div style="padding:0.3em 0.8em"><b>{self._count}</b> {escape(self.remark)}</div>'
        return "\n".join([*blocks, last])


@cache
def quizzes() -> dict[str, dict[int, dict[str, Any]]]:
    """Return the key: for each lesson and question ``right``, ``why`` and ``hints`` (by wrong letter)."""
    key = tomllib.loads(Path(__file__).with_name("quiz.toml").read_text(encoding="utf-8"))
    return {lesson: {int(number): question for number, question in key[lesson].items()} for lesson in key}


def _judge(name: str, question: dict[str, Any], answer: Any) -> Verdict:
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


def check_quiz(lesson: str, answers: Any) -> None:
    """Check the answers to a lesson's quiz, and show the verdicts.

    Parameters
    ----------
    lesson : str
        The lesson, such as ``"04"``; an appendix is ``"a1"``, as in the names of the exercises.
    answers
        A letter for each question, such as ``{1: "b", 2: "c"}``; ``...`` means not attempted.
    """
    result = judge_quiz(lesson, answers)
    for verdict in result.verdicts:
        if verdict.status != NOT_ATTEMPTED and isinstance(answers, dict):
            record.note("question", verdict.name, verdict.status == RIGHT, verdict.message)
    display(result)


def judge_quiz(lesson: str, answers: Any) -> QuizResult:
    """Return what :func:`check_quiz` shows."""
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
