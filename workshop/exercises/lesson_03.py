"""Checks of lesson 03 (a time series)."""

from itertools import pairwise

import numpy as np
import rasterio

from workshop.exercises.boxes import is_close, read_box, recognize
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import SAMPLE_TILE, TEACHING_WINDOW, TILE_SIZE, YEARS, gdal_path, tile_path


@exercise(
    "03-1",
    expects="a number of gigabytes (10^9 bytes)",
    hint="Pixels of a tile x tiles x bytes for one value. How many bytes has a float32?",
)
def _memory_of_floats(answer: float) -> str:
    pixels = len(YEARS) * TILE_SIZE**2
    right = 4 * pixels / 1e9
    recognize(
        answer,
        (pixels / 1e9, "This is uint8, one byte a value; masked=True makes float32, with four."),
        (8 * pixels / 1e9, "This is float64, eight bytes a value; masked=True makes float32, with four."),
        (right / len(YEARS), "This is one tile; the cube has five years."),
        (4 * pixels / 2**30, "This is GiB (2^30 bytes); expected GB (10^9 bytes).", 1e-2),
        (4 * pixels, "This is bytes; expected gigabytes."),
    )
    if not is_close(answer, right, 1e-6):
        raise NotRightError(f"{answer} is not it: 5 tiles x 40000 x 40000 pixels x 4 bytes, in 10^9 bytes.")
    return "Four times as much as the tiles hold, and more than most laptops have: open lazily, and stay uint8."


@exercise(
    "03-2",
    expects="a year such as 2005, or None",
    hint="Select the pixel with sel(..., method='nearest'), then look at its five values: is one of them 250?",
)
def _year_of_the_city(answer: int | None) -> str:
    at = {}
    for year in YEARS:
        with rasterio.open(gdal_path(tile_path(SAMPLE_TILE, year))) as src:
            at[year] = int(next(src.sample([(-111.8224, 40.8101)]))[0])
    built = [year for year in YEARS if at[year] == 250]
    praise = "The pixel's five classes are " + ", ".join(f"{year}: {at[year]}" for year in YEARS) + "."
    if answer is None and not built:
        return praise
    if answer is None:
        raise NotRightError("The pixel is built-up (250) in some of the years: look at all five values.")
    answer = int(np.asarray(answer).item())
    if answer in range(len(YEARS)):
        raise NotRightError("This is a position on the year axis; expected the year itself, from the coordinate.")
    if answer not in YEARS:
        raise NotRightError(f"{answer} is not one of the cube's years.")
    if answer not in built:
        raise NotRightError(f"In {answer} the pixel has class {at[answer]}, not 250 (built-up).")
    if answer != built[0]:
        raise NotRightError(f"In {answer} the pixel was built-up already; look for the first such year.")
    return praise


@exercise(
    "03-3",
    expects="a number of pixels",
    hint="Two conditions on the same pixel at two times: combine them with &.",
)
def _cropland_to_city(answer: int) -> str:
    years = [read_box(year, TEACHING_WINDOW) for year in YEARS]
    crops, built = ([int((pixels == code).sum()) for pixels in years] for code in (244, 250))
    steps = sum(int(((a == 244) & (b == 250)).sum()) for a, b in pairwise(years))
    before, after = years[0], years[-1]
    right = int(((before == 244) & (after == 250)).sum())
    if float(answer) == right:
        return f"{right:,} pixels, out of {crops[0]:,} that were cropland in 2000."
    wrong = {
        steps: "This adds up the steps between the years; compare 2000 and 2020 alone.",
        built[-1]: "This is all built-up land of 2020, whatever it was before.",
        built[-1] - built[0]: "This is how much built-up land grew; part of it grew on other land than cropland.",
        crops[0] - crops[-1]: (
            "This is how much cropland was lost; part of it became something else than built-up land."
        ),
        int(((before == 250) & (after == 244)).sum()): "This is the way back, from built-up land to cropland.",
        int(((before == 244) | (after == 250)).sum()): "One condition or the other; both must hold for a pixel: use &.",
        int((after - before == 250 - 244).sum()): (
            "A difference of 6 between two codes has many causes, and uint8 wraps around below 0; compare the codes."
        ),
    }
    other = f"{int(answer):,} is not it: count pixels that are 244 in 2000 and 250 in 2020."
    raise NotRightError(wrong.get(int(answer), other))
