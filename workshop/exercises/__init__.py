"""Checks the answers to the exercises and gives hints.

A check never raises: it says *not attempted*, *not right yet* with a hint that names the likely mistake, or *right*.
The right answers are computed here from the files with rasterio, h5py and NumPy, never with the code that a learner is
to write. Solutions are in ``solutions/``.

``verdicts.py`` is the machinery, and ``boxes.py`` has what several checks share. Each other module holds the checks of
one lesson and registers them when it is imported. ``quiz.py`` checks the answers to the questions at the end of each
lesson against the key in ``quiz.toml``. ``record.py`` keeps what was solved at which try, on this machine only.
"""

# ruff: noqa: F401, what is imported here registers checks, or is for the lessons
from workshop.exercises import lesson_01, lesson_03, lesson_05, lesson_06, lesson_08, lesson_a1
from workshop.exercises.lesson_02 import CITY
from workshop.exercises.lesson_04 import broken_repository
from workshop.exercises.lesson_07 import world_with_gaps
from workshop.exercises.lesson_09 import store_with_two_truths
from workshop.exercises.lesson_10 import march_and_may, surface_temperature, write_land_cover
from workshop.exercises.lesson_a2 import shared_repository
from workshop.exercises.lesson_a3 import yearly_archive
from workshop.exercises.quiz import check_quiz, judge_quiz
from workshop.exercises.record import could, progress
from workshop.exercises.verdicts import NOT_ATTEMPTED, NOT_YET, RIGHT, Verdict, check, hint, judge, names
