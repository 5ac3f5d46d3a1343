"""The quizzes: questions and key agree, each answer gets its sentence, and no answer raises. No tiles are needed."""

import re
from collections import Counter
from functools import cache
from html import unescape

import nbformat
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
import zarr
from conftest import NOTEBOOKS

from workshop import exercises, tiles, zonal
from workshop.exercises import quiz

LESSONS = {path.stem[:2]: path for path in NOTEBOOKS}
QUESTIONS = {(lesson, number): question for lesson, key in quiz.quizzes().items() for number, question in key.items()}


@cache
def asked(lesson):
    """Return the options that the notebook offers, as {number: {letter: text}}."""
    cells = nbformat.read(LESSONS[lesson], as_version=4).cells
    (section,) = [cell.source for cell in cells if cell.source.startswith("## Check yourself")]
    parts = re.split(r"^\*\*(\d)\.\*\* ", section, flags=re.MULTILINE)[1:]
    return {
        int(number): dict(re.findall(r"^- \*\*([a-z])\)\*\* (.+)$", part, flags=re.MULTILINE))
        for number, part in zip(parts[::2], parts[1::2], strict=True)
    }


def one(lesson, number, answer):
    return exercises.judge_quiz(lesson, {number: answer}).verdicts[number - 1]


def test_the_notebooks_ask_what_the_key_answers():
    assert list(quiz.quizzes()) == list(LESSONS)
    assert list(QUESTIONS) == [(lesson, number) for lesson in LESSONS for number in range(1, 6)]
    assert all(list(asked(lesson)) == [1, 2, 3, 4, 5] for lesson in LESSONS)
    for (lesson, number), question in QUESTIONS.items():
        options = asked(lesson)[number]
        assert list(options) == sorted([question["right"], *question["hints"]])
        assert "".join(options) in ("abc", "abcd")
        assert len(set(options.values())) == len(options)


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_quiz_stands_in_its_place_and_is_untouched(lesson):
    cells = nbformat.read(LESSONS[lesson], as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    headings = " / ".join(re.findall(r"^## (.+)$", text, re.MULTILINE))
    assert re.search("(^| / )What you did / Check yourself / (.+ / )?On your own( / |$)", headings)
    (where,) = [k for k, cell in enumerate(cells) if f"quiz-{lesson}" in cell.metadata.get("tags", [])]
    assert cells[where - 1].source.startswith("## Check yourself")
    names = {"exercises": exercises}
    exec(cells[where].source.rsplit("\n", 1)[0], names)
    last = cells[where].source.rsplit("\n", 1)[1]
    assert last == f'exercises.check_quiz("{lesson}", answers)'
    shown = exercises.judge_quiz(lesson, names["answers"])
    untouched = [(f"{lesson} question {number}", exercises.NOT_ATTEMPTED) for number in range(1, 6)]
    assert [(verdict.name, verdict.status) for verdict in shown.verdicts] == untouched
    assert repr(shown).endswith("\n0 of 5 right.")
    first = next(cell for cell in cells if cell.cell_type == "code")
    assert re.search(r"^from workshop import .*\bexercises\b", first.source, re.MULTILINE)


@pytest.mark.parametrize(("lesson", "number"), QUESTIONS)
def test_the_right_letter_is_right_and_each_wrong_one_has_its_hint(lesson, number):
    question = QUESTIONS[lesson, number]
    verdict = one(lesson, number, question["right"])
    assert verdict == exercises.Verdict(f"{lesson} question {number}", exercises.RIGHT, question["why"])
    for letter, hint in question["hints"].items():
        verdict = one(lesson, number, letter)
        assert (verdict.status, verdict.message) == (exercises.NOT_YET, hint)
    assert one(lesson, number, ...).status == exercises.NOT_ATTEMPTED
    assert exercises.judge_quiz(lesson, {}).verdicts[number - 1].status == exercises.NOT_ATTEMPTED


def test_texts_are_distinct_sentences_and_no_hint_gives_the_answer_away():
    said = [text for question in QUESTIONS.values() for text in (question["why"], *question["hints"].values())]
    assert [text for text, count in Counter(said).items() if count > 1] == []
    for text in said:
        assert re.fullmatch(r"[A-Z0-9`\"\[\(].{20,300}[.?!)]", text), text
    for (lesson, number), question in QUESTIONS.items():
        right = re.escape(asked(lesson)[number][question["right"]].lower())
        for hint in question["hints"].values():
            assert not re.search(rf"(?<!\w){right}(?!\w)", hint.lower()), hint
            assert not re.search(r"\b[a-d]\)|\b(answer|option) [a-d]\b", hint), hint


def met(start, size, chunk):
    """Return the number of chunks that some pixels touch along an axis."""
    return (start + size - 1) // chunk - start // chunk + 1


@cache
def hollow_tile():
    """Write a tile of the right shape, in memory and without strips, because these tests need no sample tiles."""
    profile = {"width": 40_000, "height": 40_000, "count": 1, "dtype": "uint8", "crs": "EPSG:4326", "compress": "LZW"}
    transform = rasterio.transform.from_origin(-120, 50, tiles.RESOLUTION, tiles.RESOLUTION)
    path = "/vsimem/hollow.tif"
    rasterio.open(path, "w", driver="GTiff", transform=transform, blockysize=1, SPARSE_OK=True, **profile).close()
    return path


def open_tile(x=slice(-112.5, -111.5), **options):
    return rioxarray.open_rasterio(hollow_tile(), **options).sel(x=x, y=slice(41.0, 40.5))


def mean_elevation(**options):
    with rasterio.MemoryFile() as file:
        profile = {"width": 2, "height": 1, "count": 1, "dtype": "int16", "nodata": -9999}
        with file.open(driver="GTiff", transform=rasterio.transform.from_origin(0, 1, 1, 1), **profile) as dst:
            dst.write(np.array([[[5005, -9999]]], "int16"))
        return rioxarray.open_rasterio(file.name, **options).mean().item()


def joined(join):
    y = 41 - (np.arange(2000) + 0.5) * 0.00025
    layers = [xr.DataArray(np.zeros(2000), {"y": y + shift}, dims="y") for shift in (0, 0.000125)]
    return xr.concat(layers, dim="year", join=join)


def region_without_year():
    store = zarr.storage.MemoryStore()
    cube = xr.Dataset({"lulc": (("year", "y"), np.zeros((2, 4), "uint8"))}, {"year": [2015, 2020], "y": [3, 2, 1, 0]})
    cube.to_zarr(store, consolidated=False)
    with pytest.raises(ValueError, match="year"):
        cube.sel(year=2020, y=slice(3, 2)).to_zarr(store, region="auto", consolidated=False)
    return "it's refused"


def packed(value, **fill):
    """Return a value packed with a scale of 0.0001, and the value that a chunk never written reads as."""
    store, packing = zarr.storage.MemoryStore(), {"dtype": "int16", "scale_factor": 0.0001, "chunks": (1,)}
    one = xr.Dataset({"red": ("time", [value])})
    one.to_zarr(store, encoding={"red": packing | fill}, consolidated=False)
    zarr.open_array(store, path="red").resize((2,))
    return xr.open_zarr(store, consolidated=False)["red"].values


# The beginning of some right options, computed.
COMPUTED = {
    ("02", 5): lambda: f"{2000 // 1000 * (4000 // 1000) + 1}, one per chunk and the metadata",
    ("03", 3): lambda: f"1 and {2000 // 1000 * (4000 // 1000)}",
    ("05", 1): lambda: f"{met(0, 1000, 500) * met(400, 400, 500)}",
    ("06", 1): lambda: f"{8192 + np.dtype('>i2').itemsize}",
    ("07", 5): lambda: f"{40 * 40 * 5:,}",
    ("08", 3): lambda: f"{219_991 * 900 / (1e6 * zonal.pixel_area(39.5, 0.00025, 0.00025)):,.0f}"[:2],
    ("10", 1): lambda: f"{(752_010 - 751_400) / 20:g} pixels",
    ("10", 2): lambda: f"{packed(0.1, _FillValue=-9999)[1]:g}, as if",
    ("10", 3): lambda: f"{packed(3.5, _FillValue=-9999)[0]:.4f}",
    ("a1", 1): lambda: f"{max(met(at, 500, 1000) for at in range(1000)) ** 2 * 5 * 1000**2 / 500**2:g}",
    ("a1", 2): lambda: f"{max(met(start, 500, 250) for start in range(250)) ** 2}",
    ("02", 1): lambda: "8" if open_tile().variable._in_memory else "none",
    ("02", 2): lambda: "{y} rows and no columns".format(**open_tile(x=slice(-111.5, -112.5)).sizes),
    ("02", 3): lambda: "with `masked=True`" if mean_elevation(masked=True) == 5005 != mean_elevation() else "as it is",
    ("03", 2): lambda: {0: "none", 2000: "2000,", 4000: "4000,"}[joined("inner").sizes["y"]],
    ("05", 4): region_without_year,
}


@pytest.mark.parametrize(("lesson", "number"), COMPUTED)
def test_what_can_be_worked_out_is_right(lesson, number):
    expected = COMPUTED[lesson, number]()
    begin_so = [letter for letter, text in asked(lesson)[number].items() if text.startswith(expected)]
    assert begin_so == [QUESTIONS[lesson, number]["right"]]


def test_the_right_option_is_not_told_by_its_letter_or_its_length():
    for lesson, key in quiz.quizzes().items():
        assert max(Counter(question["right"] for question in key.values()).values()) <= 2, lesson
    letters = [question["right"] for question in QUESTIONS.values()]
    assert set(letters) == set("abcd") and max(Counter(letters).values()) < len(letters) / 3
    options = [asked(lesson)[number] for lesson, number in QUESTIONS]
    longest = [max(texts, key=lambda letter, texts=texts: len(texts[letter])) for texts in options]
    assert sum(map(str.__eq__, longest, letters)) < len(letters) * 0.45


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("answer", ["B", " b ", "b)", "(b)", "'b'", "\tB.\n", np.str_("b")])
def test_case_and_blanks_do_not_matter(answer):
    assert quiz.quizzes()["02"][1]["right"] == "b"
    assert one("02", 1, answer).status == exercises.RIGHT


ODD = {"2.": 2, "None.": None, "''.": "", "'e'.": "e", "'none:": "none: both lines only describe", "b'b'.": b"b"}
ODD |= {"['b'].": ["b"], "array([0, 1, 2]).": np.arange(3), "nan.": float("nan"), "<Unprintable inst": Unprintable()}


@pytest.mark.parametrize("found", ODD)
def test_an_odd_answer_gets_a_sentence(found):
    verdict = one("02", 1, ODD[found])
    assert verdict.status == exercises.NOT_YET
    assert verdict.message.startswith(f'Expected "a", "b", "c" or "d", found {found}')
    assert verdict.message.endswith(".")


@pytest.mark.parametrize("answers", [None, 5, "bdca", list("badac"), {"b"}, np.array(["b"]), Unprintable(), print])
def test_what_is_no_dictionary_gets_a_sentence(answers):
    result = exercises.judge_quiz("02", answers)
    (verdict,) = result.verdicts
    assert verdict.status == exercises.NOT_YET
    assert verdict.message.startswith('Expected a letter for each question, such as {1: "b", 2: "c"}, found ')
    assert repr(result).endswith("\n0 of 5 right.")


def test_the_last_line_counts_the_right_answers_and_names_surplus_questions():
    right = {number: question["right"] for number, question in quiz.quizzes()["02"].items()}
    assert repr(exercises.judge_quiz("02", right)).endswith("\n5 of 5 right.")
    result = exercises.judge_quiz("02", right | {4: ..., 5: ...})
    expected = [exercises.RIGHT] * 3 + [exercises.NOT_ATTEMPTED] * 2
    assert [verdict.status for verdict in result.verdicts] == expected
    assert exercises.judge_quiz("02", ...) == exercises.judge_quiz("02", {})
    for key in (6, 0, "six", None, 1.5, "2"):
        last = repr(exercises.judge_quiz("02", {1: "b", key: "a"})).splitlines()[-1]
        assert last == f"1 of 5 right. Expected the questions 1 to 5, found also {key!r}."


def test_what_a_notebook_shows_says_the_same_in_both_forms():
    result = exercises.judge_quiz("02", {1: "b", 2: "<b>", 3: ..., "<i>": 1})
    html = result._repr_html_()
    assert "<i>" not in html and "'<b>'" not in html
    assert "<code>" in html
    plain = unescape(re.sub(r"<(?!b>'|i>').*?>", "", re.sub("</?code>", "`", html)))
    assert plain.splitlines() == repr(result).splitlines()


def test_an_unknown_lesson_is_named():
    with pytest.raises(KeyError, match="no such quiz; there are 01, 02, 03, 04, 05, 06, 07, 08, 09, 10, a1"):
        exercises.judge_quiz("99", {})
