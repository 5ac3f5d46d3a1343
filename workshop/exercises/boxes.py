"""Shared by several checks: the type of an answer, its pixels, its place and the area of its pixels."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
import xarray as xr
import zarr
from pyproj import Geod
from rasterio.windows import from_bounds

from workshop.exercises.verdicts import NotRightError
from workshop.tiles import RESOLUTION, SAMPLE_TILE, TEACHING_WINDOW, YEARS, Box, gdal_path, tile_path


def expect(answer: Any, kind: Any, what: str) -> None:
    """Raise unless an answer is of a type; ``what`` names what was wanted."""
    if not isinstance(answer, kind):
        raise NotRightError(f"Expected {what}, found {type(answer).__name__}.")


@cache  # learners try several times, and strips are slow to decode
def read_box(year: int, box: Box, root: Path | None = None) -> np.ndarray:
    """Return a box of the sample tile, read with rasterio alone, as a read-only array."""
    with rasterio.open(gdal_path(tile_path(SAMPLE_TILE, year, root))) as src:
        window = from_bounds(*box, transform=src.transform).round_offsets().round_lengths()
        pixels = src.read(1, window=window)
    pixels.flags.writeable = False
    return pixels


def check_layers(lulc: zarr.Array, years: Sequence[int], box: Box) -> None:
    """Raise unless a stored array (year, y, x) has the pixels of a box in these years; say what went wrong."""
    expected = np.stack([read_box(year, box) for year in years])
    if (lulc.shape, lulc.dtype) != (expected.shape, np.uint8):
        raise NotRightError(f"lulc is {lulc.shape}, {lulc.dtype}; expected {expected.shape}, uint8.")
    for year, found, right in zip(years, lulc[:], expected, strict=True):
        if np.array_equal(found, right):
            continue
        if np.array_equal(found, right[::-1]):
            raise NotRightError(f"The year {year} is upside down.")
        for other in YEARS:
            if np.array_equal(found, read_box(other, box)):
                raise NotRightError(f"The label says {year}, but the pixels are those of {other}.")
        if (found == 255).all():
            raise NotRightError(
                f"The year {year} reads as 255 everywhere: it was described, but its chunks were never written. With "
                "compute=False, `to_zarr` only makes tasks."
            )
        wrong = int((found != right).sum())
        raise NotRightError(
            f"In {year}, {wrong:,} of {right.size:,} pixels differ from the tile's. Is it the right box?"
        )


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
    return f"{abs(n)} {unit}{'' if abs(n) == 1 else 's'}"


def pixel_km2(lat: float) -> float:
    """Return the area of a tile's pixel with its center at a latitude, as a polygon on the WGS 84 ellipsoid."""
    pixel = shapely.box(0, lat - RESOLUTION / 2, RESOLUTION, lat + RESOLUTION / 2)
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(pixel)[0]) / 1e6


@cache
def row_km2() -> np.ndarray:
    """Return the area of a pixel in each row of the teaching window."""
    rows = len(read_box(YEARS[0], TEACHING_WINDOW))
    return np.array([pixel_km2(TEACHING_WINDOW.north - (row + 0.5) * RESOLUTION) for row in range(rows)])


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
    expect(answer, xr.DataArray, f"{what} as an xarray.DataArray")
    if "band" in answer.dims:
        raise NotRightError("The array still has a band dimension: squeeze it out.")
    if answer.dtype != np.uint8:
        raise NotRightError(
            f"The classes have become {answer.dtype}: codes must stay uint8, without mask, scale or offset."
        )
    return answer
