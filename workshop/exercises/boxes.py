"""Shared by several checks: reading a box of pixels, and comparing an answer with it."""

from functools import cache
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from rasterio.windows import from_bounds

from workshop.exercises.verdicts import NotRightError
from workshop.tiles import RESOLUTION, SAMPLE_TILE, Box, gdal_path, tile_path


@cache  # learners try several times, and strips are slow to decode
def read_box(year: int, box: Box) -> np.ndarray:
    """Return a box of the sample tile, read with rasterio alone, as a read-only array."""
    with rasterio.open(gdal_path(tile_path(SAMPLE_TILE, year))) as src:
        window = from_bounds(*box, transform=src.transform).round_offsets().round_lengths()
        pixels = src.read(1, window=window)
    pixels.flags.writeable = False
    return pixels


def is_at(answer: xr.DataArray, box: Box) -> bool:
    """Whether an array (y, x) has the centers of all the pixels in the box as its coordinates, in order."""
    height, width = (round(side / RESOLUTION) for side in (box.north - box.south, box.east - box.west))
    if answer.shape != (height, width):
        return False
    y = box.north - (np.arange(height) + 0.5) * RESOLUTION
    x = box.west + (np.arange(width) + 0.5) * RESOLUTION
    return np.allclose(answer.y, y, rtol=0, atol=1e-7) and np.allclose(answer.x, x, rtol=0, atol=1e-7)


def check_place(answer: xr.DataArray, box: Box) -> None:
    """Raise unless an array's pixels are those of the box; name the side where they are not."""
    if answer.y[0] < answer.y[-1]:
        raise NotRightError("The rows are upside down: keep y falling from north to south.")
    ends = {"north": answer.y[0], "south": answer.y[-1], "west": answer.x[0], "east": answer.x[-1]}
    for side, found in ends.items():
        outward = 1 if side in ("north", "east") else -1
        wanted = getattr(box, side) - outward * RESOLUTION / 2
        if pixels := round((float(found) - wanted) * outward / RESOLUTION):
            raise NotRightError(
                f"The box {misses(side, pixels)}: select by label with sel, not by position "
                "or with a method that rounds outwards."
            )
    if not is_at(answer, box):
        raise NotRightError("The outer rows and columns are right, but not those between them: take all, in order.")


def misses(side: str, pixels: int) -> str:
    """Say by how many rows or columns a box reaches beyond a side, or, below 0, does not reach it."""
    how = "reaches too far" if pixels > 0 else "stops short"
    return f"{how} in the {side} by {count(pixels, 'row' if side in ('north', 'south') else 'column')}"


def count(n: int, unit: str) -> str:
    """Return a number, without its sign, and its unit, such as ``"2 rows"``."""
    return f"{abs(n)} {unit}{'s' if abs(n) > 1 else ''}"


def is_close(found: float, expected: float, tolerance: float = 1e-9) -> bool:
    """Whether two numbers are the same up to rounding."""
    return abs(float(found) - expected) <= tolerance * max(1, abs(expected))


def recognize(answer: float, *mistakes: tuple) -> None:
    """Raise the hint of the first mistake that leads to this number: each is (number, hint) or with a tolerance."""
    for number, hint, *tolerance in mistakes:
        if is_close(answer, number, *tolerance):
            raise NotRightError(hint)


def as_class_codes(answer: Any, what: str) -> xr.DataArray:
    """Return the answer if it is an array of unchanged class codes, otherwise raise."""
    if not isinstance(answer, xr.DataArray):
        raise NotRightError(f"Expected {what} as an xarray.DataArray, found {type(answer).__name__}.")
    if "band" in answer.dims:
        raise NotRightError("The array still has a band dimension: squeeze it out.")
    if answer.dtype != np.uint8:
        raise NotRightError(
            f"The classes have become {answer.dtype}: codes must stay uint8, without mask, scale or offset."
        )
    return answer
