"""Checks the exercises' answers and gives hints.

A check never raises: it says *not attempted*, *not right yet* with a hint that names the likely mistake, or *right*.
What is right is worked out here from the tiles with rasterio and NumPy, never with the code a learner is to write.
The answers themselves stand in ``solutions/``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import icechunk
import numpy as np
import rasterio
import xarray as xr
import zarr
from rasterio.windows import Window, from_bounds
from zarr.errors import GroupNotFoundError

from workshop.sample import write_air
from workshop.tiles import DEFECT_BOX, RESOLUTION, SAMPLE_TILE, TEACHING_WINDOW, TILE_SIZE, YEARS, Box, tile_path

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


def _check_sides(answer: xr.DataArray, box: Box) -> None:
    if answer.y[0] < answer.y[-1]:
        raise _NotRightError("The rows are upside down: keep y falling from north to south.")
    sides = {
        "north": (float(answer.y[0]), box.north - RESOLUTION / 2),
        "south": (float(answer.y[-1]), box.south + RESOLUTION / 2),
        "west": (float(answer.x[0]), box.west + RESOLUTION / 2),
        "east": (float(answer.x[-1]), box.east - RESOLUTION / 2),
    }
    for side, (found, wanted) in sides.items():
        outward = (found - wanted) * (1 if side in ("north", "east") else -1)
        pixels = round(abs(outward) / RESOLUTION)
        if pixels:
            raise _NotRightError(
                f"The box {_misses(side, pixels, outward > 0)}: select by label with sel, not by position "
                "or with a method that rounds outwards."
            )


def _misses(side: str, pixels: int, outward: bool) -> str:
    unit = ("row" if side in ("north", "south") else "column") + ("s" if pixels > 1 else "")
    return f"{'reaches too far' if outward else 'stops short'} in the {side} by {pixels} {unit}"


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
    _check_sides(answer, CITY)
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


# Lesson 04: versions

BUSY_PIXEL = (12, 30)


def busy_repository(storage: icechunk.Storage) -> icechunk.Repository:
    """Make a repository with a dozen small edits of ``lulc`` (40, 40), for the exercise that looks for one of them."""
    edits = {  # message: (rows, columns, class)
        "Draw the fields": (slice(5, 35), slice(5, 35), 244),
        "Build the old town": (slice(10, 15), slice(28, 33), 250),
        "Dig a pond": (slice(30, 34), slice(6, 10), 207),
        "Give the old town back to the fields": (slice(9, 16), slice(27, 34), 244),
        "Plant a wood in the west": (slice(0, 40), slice(0, 4), 40),
        "Let the southern fields lie fallow": (slice(28, 35), slice(5, 35), 10),
        "Build a road": (slice(20, 21), slice(0, 40), 250),
        "Build the new town": (slice(11, 18), slice(26, 33), 250),
        "Plant an orchard": (slice(22, 26), slice(22, 30), 30),
        "Build houses around the new town": (slice(9, 20), slice(25, 34), 250),
        "Dry the pond out": (slice(30, 34), slice(6, 10), 100),
        "Widen the road": (slice(19, 22), slice(0, 40), 250),
    }
    repo = icechunk.Repository.create(storage)
    with repo.transaction("main", message="Make the array") as store:
        zarr.create_array(store, name="lulc", data=np.full((40, 40), 10, np.uint8), chunks=(40, 40), fill_value=255)
    for message, (rows, cols, value) in edits.items():
        with repo.transaction("main", message=message) as store:
            zarr.open_array(store, path="lulc", mode="r+")[rows, cols] = value
    return repo


@_exercise(
    "04-1",
    expects="a commit's message as text",
    hint="Walk from the newest snapshot to its parents, and open each with readonly_session(snapshot_id=...).",
)
def _culprit(answer: str) -> str:
    repo = busy_repository(icechunk.in_memory_storage())
    commits = [snapshot for snapshot in repo.ancestry(branch="main") if snapshot.parent_id]
    value = {}
    for snapshot in commits:
        store = repo.readonly_session(snapshot_id=snapshot.id).store
        value[snapshot.message] = int(zarr.open_array(store, path="lulc", mode="r")[BUSY_PIXEL])
    messages = list(value)  # newest first
    changes = [now for now, before in pairwise(messages) if value[now] != value[before]]
    right = changes[0]
    answer = answer.strip()
    if answer not in value:
        raise _NotRightError(f"{answer!r} is no commit's message there; expected one of those printed above, in full.")
    if answer == right:
        path = " -> ".join(str(value[message]) for message in reversed([*changes, messages[-1]]))
        return f"The pixel went {path}; most commits did not touch it."
    if answer == messages[0]:
        raise _NotRightError("This is the newest commit; the pixel was built-up before it, too.")
    if answer == messages[messages.index(right) + 1]:
        raise _NotRightError("In this version the pixel was not built-up yet; the commit after it made it so.")
    if answer in changes and value[answer] == 250:
        raise _NotRightError("It became built-up then, too, but not for the last time: it was a field again later.")
    if answer in changes:
        raise _NotRightError(f"This commit changed the pixel, but to {value[answer]}, not to 250.")
    raise _NotRightError(
        f"The pixel is {value[answer]} after this commit and was {value[answer]} before it: look for the commit "
        "whose parent has another value."
    )


@_exercise(
    "04-2",
    expects="a tag's name and a list of years",
    hint="Find the snapshot in repo.ancestry by its message, create_tag with its id, then readonly_session(tag=...).",
)
def _release(repo: icechunk.Repository, tag: str, years: list[int]) -> str:
    expected = [2000, 2005, 2010, 2015]
    if tag not in repo.list_tags():
        branch = " It is a branch, which would move on with the next commit." if tag in repo.list_branches() else ""
        raise _NotRightError(
            f"There is no tag {tag!r}; the repository has {sorted(repo.list_tags())}.{branch} "
            "(The name of a tag that was deleted cannot be used again.)"
        )
    store = repo.readonly_session(tag=tag).store
    try:
        group = zarr.open_group(store, mode="r")
        found = group["year"][:].tolist()
    except (GroupNotFoundError, KeyError):
        found = []
    if found != expected:
        raise _NotRightError(
            f"The tag {tag!r} leads to a version with the years {found}; the paper used {expected}. "
            "Tags cannot be moved, so take another name."
        )
    for k, year in enumerate(expected):
        if not np.array_equal(group["lulc"][k], _read(year, TEACHING_WINDOW)):
            raise _NotRightError(f"The years are right, but {year} is not what the tile holds.")
    years = [int(year) for year in np.asarray(years).ravel()]
    if years == [*expected, 2020]:
        raise _NotRightError("The tag is right. These are the years of main; read through the tag instead.")
    if years != expected:
        raise _NotRightError(f"The tag is right. Through it one finds four years, not {years}.")
    return "Whatever main becomes, this name stands for those four years."


@_exercise(
    "04-3",
    expects="the name of a branch",
    hint="A solver chooses whole chunks. What if Ben began again, from the branch as it is now?",
)
def _settled(repo: icechunk.Repository, branch: str) -> str:
    if not isinstance(branch, str):
        raise _NotRightError(f"Expected the name of a branch as text, found {type(branch).__name__}.")
    if branch not in repo.list_branches():
        raise _NotRightError(f"There is no branch {branch!r}; set the name that you gave to same_chunk.")
    if branch == "main":
        raise _NotRightError("Leave main as it is, and work on the branch that same_chunk makes.")
    session = repo.readonly_session(branch)
    found = zarr.open_array(session.store, path="lulc", mode="r")[4]
    messages = [snapshot.message for snapshot in repo.ancestry(branch=branch)]
    tile = _read(2020, TEACHING_WINDOW)
    anna, ben = np.s_[0:100, 0:100], np.s_[400:500, 0:100]
    hers, his = bool((found[anna] == 244).all()), bool((found[ben] == 250).all())
    if "Anna: cropland" not in messages and not (hers and his):
        raise _NotRightError("This branch is none that same_chunk made: its history has no commit 'Anna: cropland'.")
    if hers and not his:
        if messages[0].startswith("Ben"):
            raise _NotRightError("Ben's commit is there, his houses are not: the solver took Anna's chunk ('theirs').")
        raise _NotRightError("Anna's cropland is there; Ben's houses (rows 400 to 499) are not on the branch yet.")
    if his and not hers:
        raise _NotRightError("Ben's houses are there, but they took Anna's cropland with them ('ours').")
    if not his and not hers:
        raise _NotRightError("Neither edit is there: rows 0 to 99 should be 244, rows 400 to 499 should be 250.")
    others = np.ones(tile.shape, bool)
    others[anna] = others[ben] = False
    if not np.array_equal(found[others], tile[others]):
        raise _NotRightError("Both edits are there, but other pixels of 2020 changed, too.")
    if not any(message.startswith("Anna") for message in messages):
        raise _NotRightError("Both edits are there, but Anna's commit is gone: nobody's history should be rewritten.")
    if not messages[0].startswith("Ben"):
        raise _NotRightError("Both edits are there; let Ben's be a commit of his own (a message that begins with Ben).")
    return "Begin again from the new tip: the second edit sees the first. This is what cube.write_region does."


# Lesson 05: a patch

PATCH_CLASS, PATCH_YEAR = 10, 2020


@_exercise(
    "05-1",
    expects="a DataArray (y, x) of uint8",
    hint="Select year, y and x with sel (y from north to south), copy, then set all values. Watch the data type.",
)
def _patch(answer: xr.DataArray) -> str:
    if not isinstance(answer, xr.DataArray):
        raise _NotRightError(f"Expected the patch as an xarray.DataArray, found {type(answer).__name__}.")
    if answer.sizes.get("year", 1) > 1:
        raise _NotRightError(f"The patch has {answer.sizes['year']} years: only {PATCH_YEAR} is wrong, so select it.")
    if "year" in answer.coords and int(answer.year.item()) != PATCH_YEAR:
        raise _NotRightError(f"This is the year {int(answer.year.item())}; the defect is in {PATCH_YEAR}.")
    flat = answer.squeeze("year") if "year" in answer.dims else answer
    flat = _as_class_codes(flat, "the patch")
    if flat.dims == ("x", "y"):
        raise _NotRightError("The axes are exchanged: expected dimensions (y, x).")
    if flat.dims != ("y", "x") or not {"y", "x"} <= set(flat.coords):
        raise _NotRightError(f"Expected the dimensions (y, x) with their coordinates, found {answer.dims}.")
    if flat.size == 0:
        raise _NotRightError("No pixels: y runs from north to south, so its slice must start at the northern latitude.")
    _check_sides(flat, DEFECT_BOX)
    expected = np.full((1000, 400), PATCH_CLASS, np.uint8)
    if not _is_at(flat, expected, DEFECT_BOX):
        raise _NotRightError("The outer rows and columns are right, but not what lies between: take all, in order.")
    wrong = int((flat.values != PATCH_CLASS).sum())
    if wrong:
        raise _NotRightError(
            f"{wrong:,} of the {flat.size:,} pixels are not {PATCH_CLASS}: set every pixel of the box."
        )
    axis = "" if "year" in answer.dims else " For region='auto' the year must become an axis again."
    return f"{flat.size:,} pixels of class {PATCH_CLASS}, where they belong.{axis}"


def _check_patched(store: icechunk.IcechunkStore) -> None:
    """Compare all years of a store with the tiles and the patch, and name the first difference that explains it."""
    array = zarr.open_array(store, path="lulc", mode="r")
    if array.dtype != np.uint8:
        raise _NotRightError(
            f"lulc has become {array.dtype}: the array was written anew. Class codes stay uint8; write only the region."
        )
    if array.shape != (len(YEARS), 2000, 4000):
        raise _NotRightError(f"lulc has the shape {array.shape} now, expected (5, 2000, 4000): change values only.")
    found = array[:]
    before = np.stack([_read(year, TEACHING_WINDOW) for year in YEARS])
    box = np.s_[0:1000, 0:400]  # of the window's rows and columns
    changed = found != before
    if not changed.any():
        raise _NotRightError("Nothing was written: the cube is as it was.")
    years = [year for year, layer in zip(YEARS, changed, strict=True) if layer.any()]
    if years == list(YEARS):
        raise _NotRightError(f"All years were changed; only {PATCH_YEAR} is wrong.")
    others = [year for year in years if year != PATCH_YEAR]
    if others:
        raise _NotRightError(f"The year {others[0]} was changed; the defect is in {PATCH_YEAR}.")
    now = found[-1]
    outside = changed[-1].copy()
    outside[box] = False
    missing = now[box] != PATCH_CLASS
    if not changed[-1][box].any() and not outside[:1000].any():
        raise _NotRightError("The rows are upside down: this is the south of the window; row 0 is its northernmost.")
    if not outside.any() and not missing.any():
        return
    written = np.unique(now[box])
    if written.size == 1 and not outside.any():
        raise _NotRightError(f"The box is {written[0]} now; the experts say {PATCH_CLASS}.")
    if not outside.any():
        _check_edges(missing)
    if not missing.any():
        rows, cols = np.nonzero(outside)
        if rows.max() < 1000 and (now[:1000, : cols.max() + 1] == PATCH_CLASS).all():
            raise _NotRightError(f"The box {_misses('east', int(cols.max()) - 399, True)}.")
        if cols.max() < 400 and (now[: rows.max() + 1, :400] == PATCH_CLASS).all():
            raise _NotRightError(f"The box {_misses('south', int(rows.max()) - 999, True)}.")
    _check_shift(now, changed[-1])
    faults = [f"{int(outside.sum()):,} pixels outside the box were changed"] if outside.any() else []
    faults += [f"{int(missing.sum()):,} inside it are not {PATCH_CLASS}"] if missing.any() else []
    raise _NotRightError(f"Not quite: {', and '.join(faults)}.")


def _check_shift(now: np.ndarray, changed: np.ndarray) -> None:
    """Name the shift where a patch of the right size was written a few pixels beside its place."""
    for down, right in product(range(-5, 6), repeat=2):
        top, left = max(down, 0), max(right, 0)  # the box lies in the window's corner
        placed = np.s_[top : 1000 + down, left : 400 + right]
        beside = changed.copy()
        beside[placed] = False
        if not beside.any() and (now[placed] == PATCH_CLASS).all():
            rows = f"{abs(down)} row{'s' * (abs(down) > 1)} to the {'south' if down > 0 else 'north'}"
            cols = f"{abs(right)} column{'s' * (abs(right) > 1)} to the {'east' if right > 0 else 'west'}"
            raise _NotRightError(f"The patch is shifted: {' and '.join([rows] * bool(down) + [cols] * bool(right))}.")


def _check_edges(missing: np.ndarray) -> None:
    """Name the side at which whole rows or columns of the box were left out."""
    rows, cols = np.flatnonzero(missing.any(axis=1)), np.flatnonzero(missing.any(axis=0))
    height, width = missing.shape
    left_out = {
        "north": (rows, int(rows.max()) + 1),
        "south": (rows, height - int(rows.min())),
        "west": (cols, int(cols.max()) + 1),
        "east": (cols, width - int(cols.min())),
    }
    side, (_, pixels) = min(left_out.items(), key=lambda item: item[1][1])
    if pixels < 50:
        raise _NotRightError(f"The box {_misses(side, pixels, False)}.")
    for n in range(1, 50):
        if not missing[n:-n, n:-n].any():
            raise _NotRightError(f"The box stops short on more than one side, by up to {n} pixels.")


def _check_chunks(changes: icechunk.Diff) -> None:
    rewritten = sorted(changes.new_arrays | changes.deleted_arrays | changes.updated_arrays)
    chunks = [chunk for chunks in changes.updated_chunks.values() for chunk in chunks]
    if rewritten or len(chunks) > 2:
        what = f"{len(chunks)} chunks were written" + (f", and {', '.join(rewritten)} made anew" if rewritten else "")
        raise _NotRightError(
            f"The values are right, but {what}: the box overlaps two chunks. Write the region, not the whole array."
        )


@_exercise(
    "05-2",
    expects="a writable session of main, with the region written",
    hint="to_icechunk(..., region='auto') needs the year as an axis and no spatial_ref; or use zarr and positions.",
)
def _region(session: icechunk.Session) -> str:
    if not isinstance(session, icechunk.Session):
        raise _NotRightError(f"Expected a session, found {type(session).__name__}: repo.writable_session('main').")
    if session.read_only:
        raise _NotRightError("This session is read-only, or was committed already. Open a writable one; commit later.")
    if session.branch != "main":
        raise _NotRightError(f"This session would commit to the branch {session.branch!r}; expected 'main'.")
    if not session.has_uncommitted_changes:
        raise _NotRightError("Nothing was written. After an error, exercises.hint('05-2') says what the writers want.")
    _check_patched(session.store)
    _check_chunks(session.status())
    return "Two chunks changed, and only this session knows it."


@_exercise(
    "05-3",
    expects="the repository and the id of the new snapshot",
    hint="session.commit(...) returns the id. To start again: repo.reset_branch('main', v1).",
)
def _patched(repo: icechunk.Repository, snapshot: str) -> str:
    release, tip = repo.lookup_tag("v1.0"), repo.lookup_branch("main")
    if tip == release:
        for branch in sorted(repo.list_branches() - {"main"}):
            if snapshot == repo.lookup_branch(branch) != release:
                raise _NotRightError(f"This commit is on the branch {branch!r}; main is as it was.")
        raise _NotRightError("Nothing was committed: main is still at v1.0. What a session holds is lost with it.")
    try:
        _check_patched(repo.readonly_session("main").store)
        _check_chunks(repo.diff(from_tag="v1.0", to_branch="main"))
    except _NotRightError as error:
        raise _NotRightError(f"{error} To begin again: repo.reset_branch('main', v1).") from None
    if snapshot != tip:
        raise _NotRightError(f"The cube is right. But main points at {tip}, and you say {snapshot!r}.")
    return "All five years are what they should be, and the history keeps both versions."


# Lesson 06: references


@cache
def _air_file(first_year: int = 2013, last_year: int = 2014) -> tuple[int, np.ndarray]:
    """Return where the values begin in the lesson's netCDF file, and the stored integers (time, lat, lon)."""
    with TemporaryDirectory() as folder, h5py.File(write_air(Path(folder) / "air.nc", first_year, last_year)) as file:
        return file["air"].id.get_offset(), file["air"][:]


@_exercise(
    "06-1",
    expects="a whole number: a position in the file in bytes",
    hint="How many values come before it? How many bytes has each? And where in the file does the first one begin?",
)
def _position(answer: int) -> str:
    offset, values = _air_file()
    if float(answer) != int(answer):
        raise _NotRightError(f"{answer} is between two bytes: count whole values, then whole bytes.")
    answer, wanted = int(answer), (1000, 10, 20)
    index = int(np.ravel_multi_index(wanted, values.shape))
    if answer == offset + index * 2:
        stored = int(values[wanted])
        return f"There stands {stored.to_bytes(2, 'big').hex(' ')}, which is {stored} or {stored / 100} K."
    if answer == index:
        raise _NotRightError("So many values come before it. Each has two bytes, and the first is not at byte 0.")
    if answer == index * 2:
        raise _NotRightError("So many bytes after the first value; where in the file does that one begin?")
    if answer == offset + index:
        raise _NotRightError("Each value has two bytes: int16 is 16 bits.")
    if answer == offset + int(np.ravel_multi_index(wanted, values.shape, order="F")) * 2:
        raise _NotRightError("This is the place if time ran fastest; the last axis (longitude) does.")
    if not offset <= answer < offset + values.nbytes:
        raise _NotRightError(f"Not in the array, which has the bytes {offset:,} to {offset + values.nbytes - 1:,}.")
    if (answer - offset) % 2:
        raise _NotRightError("This is the middle of a value: each begins an even number of bytes after the first.")
    found = tuple(int(k) for k in np.unravel_index((answer - offset) // 2, values.shape))
    raise _NotRightError(f"There begins the value with the indices {found}; wanted is {wanted}.")


@_exercise(
    "06-2",
    expects="the repository",
    hint="open_virtual(file).vz.to_icechunk(session.store, group='2013'), and so on for the others; then commit.",
)
def _groups(repo: icechunk.Repository) -> str:
    if not isinstance(repo, icechunk.Repository):
        raise _NotRightError(f"Expected the repository, found {type(repo).__name__}.")
    session = repo.readonly_session("main")
    try:
        root = zarr.open_group(session.store, mode="r")
    except GroupNotFoundError:
        raise _NotRightError("main is empty: write the references in a session, then commit it.") from None
    years = (2013, 2014, 2015, 2016)
    for year in years:
        if str(year) not in root or "air" not in root[str(year)]:
            raise _NotRightError(f"There is no group {str(year)!r} with the array air; found {sorted(root.keys())}.")
        array = root[str(year)]["air"]
        _, expected = _air_file(year, year)
        if array.shape != expected.shape:
            raise _NotRightError(f"{year}: expected the shape {expected.shape}, found {array.shape}: another file?")
        kinds = {str(session.chunk_type(f"/{year}/air", [k, 0, 0])) for k in range(array.cdata_shape[0])}
        if kinds != {"ChunkType.virtual"}:
            raise _NotRightError(f"{year}: the values were copied; expected references (open_virtual, then vz).")
        try:
            found = array[:]
        except icechunk.IcechunkError as error:
            reason = "authorize" in str(error)
            raise _NotRightError(
                f"{year}: the references cannot be followed: "
                + ("create the repository with authorize_virtual_chunk_access=allowed." if reason else str(error))
            ) from None
        if not np.array_equal(found, expected):
            raise _NotRightError(f"{year}: the references lead to other values: is this the file of {year}?")
    return "Four groups, four chunk sizes, and no value copied."


@_exercise(
    "06-3",
    expects="the repository and a DataArray (y, x)",
    hint="Dataset({'lulc': (('y', 'x'), references)}, coords={'x': ..., 'y': ...}), then vz.to_icechunk and commit.",
)
def _own_references(repo: icechunk.Repository, answer: xr.DataArray) -> str:
    if not isinstance(repo, icechunk.Repository):
        raise _NotRightError(f"Expected the repository first, found {type(repo).__name__}.")
    answer = _as_class_codes(answer, "the pixels")
    if answer.dims != ("y", "x") or not {"y", "x"} <= set(answer.coords):
        raise _NotRightError(f"Expected the dimensions (y, x) with their coordinates, found {answer.dims}.")
    if answer.size == 0:
        raise _NotRightError("No pixels: y runs from north to south, so its slice must start at the northern latitude.")
    session = repo.readonly_session("main")
    try:
        stored = zarr.open_array(session.store, path="lulc", mode="r")
    except FileNotFoundError:
        raise _NotRightError("There is no array lulc on main: name it so, and commit.") from None
    if stored.shape != (TILE_SIZE, TILE_SIZE):
        raise _NotRightError(f"lulc has the shape {stored.shape}, expected ({TILE_SIZE}, {TILE_SIZE}): the whole tile.")
    if str(session.chunk_type("/lulc", [30_000, 0])) != "ChunkType.virtual":
        raise _NotRightError("The pixels were copied; expected references to the tile's strips.")
    half = RESOLUTION / 2
    if abs(abs((float(answer.x[0]) - DEFECT_BOX.west) / half % 2) - 1) > 0.1:
        raise _NotRightError("The coordinates are half a pixel off: they belong to the pixels' centres, not corners.")
    _check_sides(answer, DEFECT_BOX)
    expected = {year: _read(year, DEFECT_BOX) for year in YEARS}
    if not _is_at(answer, expected[PATCH_YEAR], DEFECT_BOX):
        raise _NotRightError("The outer rows and columns are right, but not what lies between: take all, in order.")
    same = [year for year, pixels in expected.items() if np.array_equal(answer.values, pixels)]
    if PATCH_YEAR in same:
        return f"The pixels of {PATCH_YEAR}, defect and all, out of the file itself."
    if same:
        raise _NotRightError(
            f"These are the pixels of {' or '.join(map(str, same))}; wanted are those of {PATCH_YEAR}."
        )
    raise _NotRightError("The place is right, the pixels are not: are the rows in the file's order?")


# Appendix: chunking

_WORLD = (5, 560_000, 1_440_000)


def _shape(answer: Any, what: str) -> tuple[int, int, int]:
    """Return a planned shape (year, y, x), once it is one that fits the world and its tiles."""
    parts = np.asarray(answer).ravel().tolist()
    if len(parts) != 3 or any(float(part) != int(part) or part < 1 for part in parts):
        raise _NotRightError(f"Expected {what} as three whole numbers (year, y, x), found {answer!r}.")
    year, y, x = (int(part) for part in parts)
    if year > _WORLD[0]:
        raise _NotRightError(f"The cube has five years, {what} {year}: the order is (year, y, x).")
    for axis, size in {"y": y, "x": x}.items():
        if TILE_SIZE % size:
            raise _NotRightError(
                f"Along {axis}, {TILE_SIZE:,} is no multiple of {size:,}: they would cross tile borders."
            )
    return year, y, x


def _most_touched(window: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    """Return the most chunks that a window meets, found by trying every offset."""
    most = 1
    for size, chunk in zip(window, chunks, strict=True):
        offsets = np.arange(chunk)
        most *= int(((offsets + size - 1) // chunk + 1).max())
    return most


@_exercise(
    "ap-1",
    expects="a shape (year, y, x)",
    hint="at_most((1, 1000, 1000), chunks) is 9 when a chunk is at least 500 high and wide. What has room in 1 MB?",
)
def _map_chunks(answer: tuple[int, int, int]) -> str:
    chunks = _shape(answer, "chunks")
    size, most = int(np.prod(chunks)), _most_touched((1, 1000, 1000), chunks)
    if size > 1_000_000:
        deep = " A map wants one year only: why hold more in a chunk?" if chunks[0] > 1 else ""
        raise _NotRightError(f"A chunk has {size:,} bytes, more than 1,000,000.{deep}")
    if most > 9:
        raise _NotRightError(
            f"A map that lies badly touches {most} chunks, more than 9: make them larger along y or x."
        )
    return f"At most {most} chunks of {size:,} bytes; the world has {_count(chunks):,} of them."


def _count(chunks: tuple[int, ...]) -> int:
    return int(np.prod([-(-size // chunk) for size, chunk in zip(_WORLD, chunks, strict=True)]))


@_exercise(
    "ap-2",
    expects="a shape (year, y, x)",
    hint="All years must be in the chunk. How many pixels along y and x are left of 64,000 bytes?",
)
def _series_chunks(answer: tuple[int, int, int]) -> str:
    chunks = _shape(answer, "chunks")
    size, most = int(np.prod(chunks)), _most_touched((1, 500, 500), chunks)
    if chunks[0] < 5:
        raise _NotRightError(f"A pixel through five years touches {-(-5 // chunks[0])} chunks: put all years into one.")
    if size > 64_000:
        raise _NotRightError(f"A chunk has {size:,} bytes, more than 64,000.")
    if most > 36:
        raise _NotRightError(f"A map of 500 x 500 may touch {most} chunks, more than 36: larger, or nearer to squares.")
    return f"One chunk of {size:,} bytes a pixel, at most {most} a map; the world has {_count(chunks):,} of them."


@_exercise(
    "ap-3",
    expects="two shapes (year, y, x)",
    hint="Multiply your chunks' y and x by a whole number until the product has 8 to 64 MB; 40,000 must be a multiple.",
)
def _series_shards(chunks: tuple[int, int, int], answer: tuple[int, int, int]) -> str:
    _series_chunks(chunks)
    chunks, shards = _shape(chunks, "chunks"), _shape(answer, "shards")
    for axis, chunk, shard in zip(("year", "y", "x"), chunks, shards, strict=True):
        if shard % chunk:
            raise _NotRightError(f"Along {axis}, a shard of {shard:,} does not hold whole chunks of {chunk:,}.")
    size = int(np.prod(shards))
    if not 8_000_000 <= size <= 64_000_000:
        raise _NotRightError(f"A shard has {size / 1e6:.3g} MB, which is too {'small' if size < 8e6 else 'large'}.")
    inside = int(np.prod(np.floor_divide(shards, chunks)))
    return f"{inside:,} chunks in a shard of {size / 1e6:.3g} MB: {_count(shards):,} objects, not {_count(chunks):,}."
