"""Checks the exercises' answers and gives hints.

A check never raises: it says *not attempted*, *not right yet* with a hint that names the likely mistake, or *right*.
What is right is worked out here from the tiles with rasterio and NumPy, never with the code a learner is to write.
The answers themselves stand in ``solutions/``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from rasterio.windows import Window, from_bounds

from workshop.tiles import RESOLUTION, SAMPLE_TILE, TEACHING_WINDOW, TILE_SIZE, YEARS, Box, tile_path

NOT_ATTEMPTED, NOT_YET, RIGHT = "not attempted yet", "not right yet", "right"
_MARKS = {NOT_ATTEMPTED: "○", NOT_YET: "✗", RIGHT: "✓"}  # in every font, unlike emoji
_COLOURS = {NOT_ATTEMPTED: "#888", NOT_YET: "#d97706", RIGHT: "#15803d"}


@dataclass(frozen=True)
class Verdict:
    """What a check says; a notebook shows it.

    Attributes
    ----------
    name : str
        The exercise's name, such as ``"02-1"``.
    status : str
        One of :data:`NOT_ATTEMPTED`, :data:`NOT_YET` and :data:`RIGHT`.
    message : str
        A hint, or what the right answer shows.
    """

    name: str
    status: str
    message: str

    def __repr__(self) -> str:
        return f"{_MARKS[self.status]} {self.name}: {self.status}. {self.message}"

    def _repr_html_(self) -> str:
        return (
            f'<div style="border-left:4px solid {_COLOURS[self.status]};padding:0.3em 0.8em">'
            f"{_MARKS[self.status]} <b>{self.name}: {self.status}.</b> {escape(self.message)}</div>"
        )


class _NotRightError(Exception):
    """The answer is not right; the message is the hint."""


@dataclass(frozen=True)
class _Exercise:
    check: Callable[..., str]
    expects: str
    hint: str


_EXERCISES: dict[str, _Exercise] = {}


def _exercise(name: str, *, expects: str, hint: str) -> Callable:
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

    Returns
    -------
    Verdict

    Raises
    ------
    KeyError
        When there is no exercise of this name.
    """
    exercise = _find(name)
    if any(part is ... for part in answer):
        return Verdict(name, NOT_ATTEMPTED, "Replace the ... above, run that cell, then this one.")
    if "number" in exercise.expects and any(isinstance(part, str | bytes) for part in answer):
        return Verdict(name, NOT_YET, f"Expected {exercise.expects}, found text: leave the quotes away.")
    try:
        return Verdict(name, RIGHT, exercise.check(*answer))
    except _NotRightError as hint:
        return Verdict(name, NOT_YET, str(hint))
    except Exception as error:  # whatever a learner's answer may be, Run All must reach the bottom
        found = ", ".join(type(part).__name__ for part in answer)
        return Verdict(name, NOT_YET, f"Expected {exercise.expects}, found {found}, which cannot be checked: {error}")


def hint(name: str) -> str:
    """Return a first hint for an exercise."""
    return _find(name).hint


def _read(year: int, box: Box) -> np.ndarray:
    """Return a box of the sample tile, read with rasterio alone."""
    with rasterio.open(tile_path(SAMPLE_TILE, year)) as src:
        window = from_bounds(*box, transform=src.transform).round_offsets().round_lengths()
        return src.read(1, window=window)


def _is_at(answer: xr.DataArray, pixels: np.ndarray, box: Box) -> bool:
    """Whether an array has the shape of the pixels, and their centres in the box as coordinates."""
    if answer.shape != pixels.shape:
        return False
    y = box.north - (np.arange(pixels.shape[0]) + 0.5) * RESOLUTION
    x = box.west + (np.arange(pixels.shape[1]) + 0.5) * RESOLUTION
    return np.allclose(answer.y, y, rtol=0, atol=1e-7) and np.allclose(answer.x, x, rtol=0, atol=1e-7)


def _close(found: float, expected: float, tolerance: float = 1e-9) -> bool:
    return abs(float(found) - expected) <= tolerance * max(1, abs(expected))


# Lesson 01: fundamentals


@_exercise(
    "01-1",
    expects="a pair (longitude, latitude) in degrees",
    hint="The transform maps (column, row) of a pixel's upper-left corner. Where is the middle of that pixel?",
)
def _pixel_centre(answer: tuple[float, float]) -> str:
    row, col = 36_600, 31_200
    lon, lat = answer
    right = (-120 + (col + 0.5) * RESOLUTION, 50 - (row + 0.5) * RESOLUTION)

    def is_at(x: float, y: float) -> bool:
        return _close(lon, x) and _close(lat, y)

    if is_at(*right[::-1]):
        raise _NotRightError("These are (latitude, longitude): the first number must be the longitude, x.")
    if is_at(-120 + col * RESOLUTION, 50 - row * RESOLUTION):
        raise _NotRightError(
            "This is the pixel's upper-left corner. Its centre lies half a pixel further east and south."
        )
    if is_at(-120 + (row + 0.5) * RESOLUTION, 50 - (col + 0.5) * RESOLUTION):
        raise _NotRightError("Row and column are exchanged: columns count along x, rows along y.")
    if is_at(right[0] - RESOLUTION, right[1] + RESOLUTION):
        raise _NotRightError("Off by one pixel in both directions: rows and columns are counted from 0.")
    if _close(lat, 50 + (row + 0.5) * RESOLUTION) or _close(lat, right[1] + RESOLUTION):
        raise _NotRightError("Rows count downwards: latitude falls by one pixel size for each row.")
    if not is_at(*right):
        raise _NotRightError(
            f"({lon}, {lat}) is not the centre of row {row}, column {col}: add half a pixel, then transform."
        )
    return "Half a pixel (about 14 m north to south) separates the corner from the centre."


@_exercise(
    "01-2",
    expects="a number: decoded pixels for each pixel wanted",
    hint="Which strips does the window touch, and how many pixels does each of them hold?",
)
def _read_amplification(answer: float) -> str:
    size = 512
    right = TILE_SIZE / size
    if _close(answer, 1):
        raise _NotRightError(
            "A strip is compressed as a whole, so it must be decoded as a whole: more than the window is read."
        )
    if _close(answer, (TILE_SIZE / size) ** 2):
        raise _NotRightError("Only the strips that cross the window are decoded, not the whole tile.")
    if _close(answer, 1 / right):
        raise _NotRightError("Upside down: decoded pixels divided by wanted pixels is larger than 1.")
    if _close(answer, size * TILE_SIZE) or _close(answer, TILE_SIZE):
        raise _NotRightError("This counts pixels; divide the decoded pixels by the 512 x 512 that are wanted.")
    if not abs(float(answer) - right) <= 0.5:
        raise _NotRightError(
            f"{answer} is not it: 512 strips of {TILE_SIZE:,} pixels are decoded for 512 x 512 pixels."
        )
    return f"512 whole strips for a window 512 wide: {right} pixels decoded for each one wanted."


@_exercise(
    "01-3",
    expects="a key such as 'c/0/0'",
    hint="Integer-divide row and column by the chunk's shape; the key lists them in the order of the array's axes.",
)
def _chunk_key(answer: str) -> str:
    row, col, chunk = 1234, 3410, 512
    right = f"c/{row // chunk}/{col // chunk}"
    answer = answer.strip("/").removeprefix("lulc/")
    if answer == f"c/{col // chunk}/{row // chunk}":
        raise _NotRightError("The axes are exchanged: the array is (y, x), so the row's number comes first.")
    if answer == f"c/{row // chunk + 1}/{col // chunk + 1}":
        raise _NotRightError("Chunks are counted from 0, not from 1.")
    if answer == f"c/{round(row / chunk)}/{round(col / chunk)}":
        raise _NotRightError("The chunk that holds a pixel is found by integer division, not by rounding.")
    if answer.replace(".", "/") in (right, right.removeprefix("c/")):
        if answer != right:
            raise _NotRightError("The numbers are right; a Zarr v3 key begins with 'c' and separates them with '/'.")
        return f"Row {row} lies in band {row // chunk} of {chunk} rows, column {col} in band {col // chunk}."
    raise _NotRightError(
        f"{answer!r} does not hold row {row}, column {col}: how many whole chunks lie before it on each axis?"
    )


# Lesson 02: a single tile

CITY = Box(west=-112.0, south=40.65, east=-111.8, north=40.85)


def _as_class_codes(answer: Any, what: str) -> xr.DataArray:
    if not isinstance(answer, xr.DataArray):
        raise _NotRightError(f"Expected {what} as an xarray.DataArray, found {type(answer).__name__}.")
    if "band" in answer.dims:
        raise _NotRightError("The array still has a band dimension: squeeze it out.")
    if answer.dtype != np.uint8:
        raise _NotRightError(
            f"The classes have become {answer.dtype}: codes must stay uint8, without mask, scale or offset."
        )
    return answer


@_exercise(
    "02-1",
    expects="a DataArray (y, x) of uint8",
    hint="sel takes labels: slice(west, east) for x, and for y the labels in the order in which they lie in the array.",
)
def _city_box(answer: xr.DataArray) -> str:
    answer = _as_class_codes(answer, "the city's box")
    expected = _read(2000, CITY)
    if answer.dims == ("x", "y"):
        raise _NotRightError("The axes are exchanged: expected dimensions (y, x).")
    if answer.sizes.get("y") == 0:
        raise _NotRightError("No rows: y runs from north to south, so the slice must start at the northern latitude.")
    if answer.size == 0:
        raise _NotRightError("No pixels: check that x runs from west to east.")
    if answer.y[0] < answer.y[-1]:
        raise _NotRightError("The rows are upside down: keep y falling from north to south.")
    sides = {
        "north": (float(answer.y[0]), CITY.north - RESOLUTION / 2),
        "south": (float(answer.y[-1]), CITY.south + RESOLUTION / 2),
        "west": (float(answer.x[0]), CITY.west + RESOLUTION / 2),
        "east": (float(answer.x[-1]), CITY.east - RESOLUTION / 2),
    }
    for side, (found, wanted) in sides.items():
        outward = (found - wanted) * (1 if side in ("north", "east") else -1)
        pixels = round(abs(outward) / RESOLUTION)
        if pixels:
            verb = "reaches too far" if outward > 0 else "stops short"
            unit = ("row" if side in ("north", "south") else "column") + ("s" if pixels > 1 else "")
            raise _NotRightError(
                f"The box {verb} in the {side} by {pixels} {unit}: select by label with sel, not by position "
                "or with a method that rounds outwards."
            )
    if not _is_at(answer, expected, CITY):
        raise _NotRightError("The outer rows and columns are right, but not what lies between: take all, in order.")
    if not np.array_equal(answer.values, expected):
        raise _NotRightError("The box is right, but not its pixels: is this the tile of the year 2000?")
    return f"{expected.shape[0]} x {expected.shape[1]} pixels, still uint8."


@_exercise(
    "02-2",
    expects="a number: percent of the window",
    hint="(window == 250) marks the built-up pixels; what do True and False become in a mean?",
)
def _built_up_percent(answer: float) -> str:
    window = _read(2000, TEACHING_WINDOW)
    built = int((window == 250).sum())
    right = 100 * built / window.size
    if _close(answer, built):
        raise _NotRightError("This is the number of pixels; as a share of all pixels of the window it says more.")
    if _close(answer, right / 100, 1e-3):
        raise _NotRightError("This is a fraction; expected percent.")
    if _close(answer, 100 * built / TILE_SIZE**2, 1e-6):
        raise _NotRightError("This is the share of the whole tile; the question is about the teaching window.")
    if _close(answer, 100 * int((window == 244).sum()) / window.size, 1e-3):
        raise _NotRightError("This is cropland (244); built-up land is 250.")
    if _close(answer, 100 * built / (window > 0).sum(), 1e-3):
        raise _NotRightError("The denominator leaves out class 0: it is true desert here, not missing data.")
    if not abs(float(answer) - right) <= 0.005:
        raise _NotRightError(
            f"{float(answer):.4g} % is not it: count the pixels equal to 250, divide by all pixels, times 100."
        )
    return f"{built:,} of {window.size:,} pixels, {right:.2f} %."


@_exercise(
    "02-3",
    expects="a DataArray (y, x) opened from the Zarr store",
    hint="Clear the attributes before you write; then open, and compare data type and values with what you wrote.",
)
def _round_trip(answer: xr.DataArray) -> str:
    if not isinstance(answer, xr.DataArray):
        raise _NotRightError(f"Expected the array read back, an xarray.DataArray; found {type(answer).__name__}.")
    if np.issubdtype(answer.dtype, np.floating):
        raise _NotRightError(
            f"It came back as {answer.dtype}: a scale_factor, add_offset or _FillValue was written with the classes."
        )
    answer = _as_class_codes(answer, "the array read back")
    if {"scale_factor", "add_offset", "_FillValue"} & set(answer.attrs):
        raise _NotRightError(
            "The store holds a scale_factor, add_offset or _FillValue, and whoever opens it as usual "
            "gets floats: clear the attributes before writing."
        )
    expected = _read(2000, CITY)
    if answer.shape != expected.shape or not np.array_equal(answer.values, expected):
        raise _NotRightError("The values differ from the tile's: write the city's box of the year 2000.")
    if not _is_at(answer, expected, CITY):
        raise _NotRightError("The values are right, but not their coordinates x and y.")
    chunks = answer.encoding.get("chunks")
    if chunks is None or "serializer" not in answer.encoding:
        raise _NotRightError("This array was not opened from a Zarr store: read it back with xr.open_zarr.")
    if tuple(chunks) != (400, 400):
        raise _NotRightError(f"Expected Zarr chunks of (400, 400), found {tuple(chunks)}: set them in the encoding.")
    if answer.rio.crs is None:
        raise _NotRightError(
            "The CRS got lost: keep spatial_ref, name it as grid_mapping, and open with decode_coords='all'."
        )
    if answer.rio.crs != "EPSG:4326":
        raise _NotRightError(f"Expected the CRS EPSG:4326, found {answer.rio.crs}.")
    return "Same values, same type, same chunks, CRS still there."


# Lesson 03: a time series


@_exercise(
    "03-1",
    expects="a number of gigabytes (10^9 bytes)",
    hint="Pixels of a tile x tiles x bytes for one value. How many bytes has a float32?",
)
def _memory_of_floats(answer: float) -> str:
    pixels = len(YEARS) * TILE_SIZE**2
    right = 4 * pixels / 1e9
    if _close(answer, pixels / 1e9):
        raise _NotRightError("This is uint8, one byte a value; masked=True makes float32, with four.")
    if _close(answer, 8 * pixels / 1e9):
        raise _NotRightError("This is float64, eight bytes a value; masked=True makes float32, with four.")
    if _close(answer, right / len(YEARS)):
        raise _NotRightError("This is one tile; the cube has five years.")
    if _close(answer, 4 * pixels / 2**30, 1e-2):
        raise _NotRightError("This is GiB (2^30 bytes); expected GB (10^9 bytes).")
    if _close(answer, 4 * pixels):
        raise _NotRightError("This is bytes; expected gigabytes.")
    if not _close(answer, right, 1e-6):
        raise _NotRightError(f"{answer} is not it: 5 tiles x 40000 x 40000 pixels x 4 bytes, in 10^9 bytes.")
    return "Four times as much as the tiles hold, and more than most laptops have: open lazily, and stay uint8."


@_exercise(
    "03-2",
    expects="a year such as 2005",
    hint="Select the pixel with sel(..., method='nearest'), then look at its five values: which is the first 250?",
)
def _year_of_the_city(answer: int) -> str:
    lon, lat = -111.8224, 40.8101
    at = {}
    for year in YEARS:
        with rasterio.open(tile_path(SAMPLE_TILE, year)) as src:
            row, col = src.index(lon, lat)
            at[year] = int(src.read(1, window=Window(col, row, 1, 1))[0, 0])
    built = [year for year in YEARS if at[year] == 250]
    answer = int(np.asarray(answer).item())
    if answer in range(len(YEARS)):
        raise _NotRightError("This is a position on the year axis; expected the year itself, from the coordinate.")
    if answer not in YEARS:
        raise _NotRightError(f"{answer} is not one of the cube's years.")
    if answer != built[0]:
        if answer in built:
            raise _NotRightError(f"In {answer} the pixel was built-up already; look for the first such year.")
        raise _NotRightError(f"In {answer} the pixel has class {at[answer]}, not 250 (built-up).")
    return "The pixel's five classes are " + ", ".join(f"{year}: {at[year]}" for year in YEARS) + "."


def _steps_from_cropland_to_city() -> int:
    years = [_read(year, TEACHING_WINDOW) for year in YEARS]
    return sum(int(((a == 244) & (b == 250)).sum()) for a, b in pairwise(years))


@_exercise(
    "03-3",
    expects="a number of pixels",
    hint="Two conditions on the same pixel at two times: combine them with &.",
)
def _cropland_to_city(answer: int) -> str:
    before, after = _read(2000, TEACHING_WINDOW), _read(2020, TEACHING_WINDOW)
    right = int(((before == 244) & (after == 250)).sum())
    wrong = {
        _steps_from_cropland_to_city(): "This adds up the steps between the years; compare 2000 and 2020 alone.",
        int((after == 250).sum()): "This is all built-up land of 2020, whatever it was before.",
        int((after == 250).sum()) - int((before == 250).sum()): (
            "This is how much built-up land grew; part of it grew on other land than cropland."
        ),
        int((before == 244).sum()) - int((after == 244).sum()): (
            "This is how much cropland was lost; part of it became something else than built-up land."
        ),
        int(((before == 250) & (after == 244)).sum()): "This is the way back, from built-up land to cropland.",
        int(((before == 244) | (after == 250)).sum()): "One condition or the other; both must hold for a pixel: use &.",
        int(((after - before) == 250 - 244).sum()): (
            "A difference of 6 between two codes has many causes, and uint8 wraps around below 0; compare the codes."
        ),
    }
    if float(answer) == right:
        return f"{right:,} pixels, {100 * right / int((before == 244).sum()):.0f} % of the cropland of 2000."
    raise _NotRightError(
        wrong.get(int(answer), f"{int(answer):,} is not it: count pixels that are 244 in 2000 and 250 in 2020.")
    )
