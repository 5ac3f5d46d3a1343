"""Checks of lesson 08 (zonal statistics)."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache

import numpy as np
import rasterio
import shapely
from pyproj import Geod
from rasterio.features import rasterize
from rasterio.windows import Window

from workshop import legend, world
from workshop.exercises.boxes import is_close
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import DATA, RESOLUTION, YEARS, tile_path


@cache
def _shed(name: str) -> shapely.Geometry:
    features = json.loads((DATA / "areas.geojson").read_text())["features"]
    return next(shapely.geometry.shape(f["geometry"]) for f in features if f["properties"]["name"] == name)


def _bands(name: str, years: tuple[int, ...], whole_box: bool) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Yield a watershed's pixels band by band: their groups in each year, and their areas in km².

    GDAL burns the polygon onto the source tiles; 500 rows at a time, to spare memory.
    """
    shape = _shed(name).envelope if whole_box else _shed(name)
    for tile in world.UTAH_TILES:
        with ExitStack() as stack:
            sources = [stack.enter_context(rasterio.open(tile_path(tile, year))) for year in years]
            first = sources[0]
            part = shape.intersection(shapely.box(*first.bounds))
            if not part.area:
                continue
            frame = first.window(*part.bounds)
            top, bottom = int(frame.row_off), min(int(frame.row_off + frame.height) + 3, first.height)
            left = int(frame.col_off)
            width = min(int(frame.width) + 3, first.width - left)
            for row in range(top, bottom, 500):
                window = Window(left, row, width, min(500, bottom - row))
                place = first.window_transform(window)
                inside = rasterize([part], (window.height, width), transform=place) == 1
                ends = [_row_area(place.f), _row_area(place.f - window.height * RESOLUTION)]
                each = np.interp(np.arange(window.height), [0, window.height], ends)
                groups = [legend.group_index()[src.read(1, window=window)][inside] for src in sources]
                yield groups, np.broadcast_to(each[:, None], inside.shape)[inside]


def _row_area(north: float) -> float:
    """Return the area in km² of a pixel below a parallel, by the geodesic of its sides."""
    pixel = shapely.box(0, north - RESOLUTION, RESOLUTION, north)
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(pixel)[0]) / 1e6


@cache
def _km2(name: str, year: int, whole_box: bool = False) -> np.ndarray:
    """Return the area of each group of the legend."""
    n = len(legend.groups())
    return sum(np.bincount(groups, areas, n) for (groups,), areas in _bands(name, (year,), whole_box))


@cache
def _pixels(name: str, year: int, group: int) -> int:
    return sum(int((groups == group).sum()) for (groups,), _ in _bands(name, (year,), False))


@cache
def _transitions(name: str, before: int, after: int) -> np.ndarray:
    """Return the area in km² that was of one group (rows) and became another (columns)."""
    n = len(legend.groups())
    parts = (
        np.bincount(first.astype(int) * n + last, areas, n * n)
        for (first, last), areas in _bands(name, (before, after), False)
    )
    return sum(parts).reshape(n, n)


@exercise(
    "08-1",
    expects="a number of km²",
    hint="km2 of section 4 has it: select zone, year and group.",
)
def _cropland(answer: float) -> str:
    crop, name = legend.groups().index("Cropland"), "Salt Wash"
    answer = float(answer)
    if is_close(answer, _km2(name, 2015)[crop], 1e-3):
        return f"{answer:,.1f} km², each row of pixels weighed with its own area."
    for year in YEARS:
        if year != 2015 and is_close(answer, _km2(name, year)[crop], 1e-3):
            raise NotRightError(f"That is the year {year}; wanted is 2015.")
    if is_close(answer, _km2(name, 2015, True)[crop], 1e-3):
        raise NotRightError("That is the cropland in the box around Salt Wash, not in the watershed.")
    pixels = _pixels(name, 2015, crop)
    for square, what in ((900, "30 m x 30 m"), ((0.00025 * 111_320) ** 2, "square")):
        if is_close(answer, pixels * square / 1e6, 2e-3):
            raise NotRightError(f"The pixels are right, but taken as {what}: their width shrinks with the latitude.")
    if is_close(answer, pixels):
        raise NotRightError("That is the number of pixels; wanted is their area in km².")
    if is_close(answer, _km2(name, 2015)[crop] * 1e6, 1e-3):
        raise NotRightError("That is square metres; wanted are km².")
    raise NotRightError(f"Not {answer:,.1f} km²: the group is Cropland, the watershed Salt Wash, the year 2015.")


@exercise(
    "08-2",
    expects="a number, in percent",
    hint="Divide the water by the sum of all groups but No data, and take it times 100.",
)
def _share(answer: float) -> str:
    water, nodata = (legend.groups().index(group) for group in ("Open surface water", "No data"))
    answer = float(answer)

    def share(year: int, whole_box: bool = False, with_missing: bool = False) -> float:
        km2 = _km2("Lakeside", year, whole_box)
        return 100 * km2[water] / (km2.sum() - (0 if with_missing else km2[nodata]))

    right = share(2020)
    if is_close(answer, right, 0.005 / right):  # as precise as it takes to tell the denominators apart
        return f"{answer:.2f} % of what was seen."
    if is_close(answer, right / 100, 0.00005):
        raise NotRightError("That is the share as a fraction; wanted is percent.")
    if is_close(answer, share(2020, with_missing=True), 0.005 / right):
        raise NotRightError("Your denominator holds the pixels without data: nobody knows whether they are water.")
    if is_close(answer, share(2020, whole_box=True), 1e-3):
        raise NotRightError("That is the share in the box around Lakeside, not in the watershed.")
    for year in YEARS[:-1]:
        if is_close(answer, share(year), 1e-3):
            raise NotRightError(f"That is the year {year}; wanted is 2020.")
    if is_close(answer, _km2("Lakeside", 2020)[water], 1e-3):
        raise NotRightError("That is the water's area in km²; wanted is its share, in percent.")
    raise NotRightError(f"Not {answer:.3f} %: water in 2020, divided by everything but No data.")


@exercise(
    "08-3",
    expects="a tuple (group in 2000, group in 2020, a number of km²)",
    hint="Section 6, with another watershed: leave the diagonal out and take the largest.",
)
def _largest(answer: tuple[str, str, float]) -> str:
    before, after, km2 = answer
    names = legend.groups()
    if unknown := [name for name in (before, after) if name not in names]:
        raise NotRightError(f"{unknown[0]!r} is no group of the legend; they are called {', '.join(names)}.")
    matrix = _transitions("Aspen Plateau", 2000, 2020)
    changed = matrix * (1 - np.eye(len(names)))
    i, j = np.unravel_index(changed.argmax(), changed.shape)
    if before == after:
        raise NotRightError("That land did not change: leave the diagonal of the matrix out.")
    if (before, after) == (names[j], names[i]):
        raise NotRightError("The pair is right, but it went the other way: first the group in 2000.")
    if (before, after) != (names[i], names[j]):
        there = matrix[names.index(before), names.index(after)]
        raise NotRightError(f"{before} to {after} is {there:,.1f} km²; another change is larger.")
    if not is_close(float(km2), matrix[i, j], 1e-3):
        raise NotRightError(f"The pair is right; its area is not {float(km2):,.1f} km². Weigh each row of pixels.")
    return f"{before} became {after} over {float(km2):,.1f} km²."
