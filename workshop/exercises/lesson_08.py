"""Checks of lesson 08 (zonal statistics)."""

from contextlib import ExitStack
from functools import cache
from math import prod

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from pyproj import Geod
from rasterio.features import geometry_window, rasterize
from rasterio.windows import Window

from workshop import legend, world
from workshop.exercises.boxes import is_close, recognize
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import DATA, RESOLUTION, YEARS, gdal_path, tile_path


@cache
def _count(name: str, *years: int, whole_box: bool = False) -> np.ndarray:
    """Return how many pixels, and how many km², of a watershed have each group, or groups one year after another.

    GDAL burns the polygon onto the source tiles; 500 rows at a time, to spare memory.
    """
    groups = (len(legend.groups()),) * len(years)
    found = np.zeros((2, prod(groups)))
    shed = gpd.read_file(DATA / "areas.geojson").set_index("name").geometry[name]
    shape = shed.envelope if whole_box else shed
    for tile in world.UTAH_TILES:
        with ExitStack() as stack:
            sources = [stack.enter_context(rasterio.open(gdal_path(tile_path(tile, year)))) for year in years]
            part = shape.intersection(shapely.box(*sources[0].bounds))
            if not part.area:
                continue
            frame = geometry_window(sources[0], [part], 1, 1)
            for row in range(0, frame.height, 500):
                height = min(500, frame.height - row)
                window = Window(frame.col_off, frame.row_off + row, frame.width, height)
                place = sources[0].window_transform(window)
                inside = rasterize([part], (height, frame.width), transform=place, dtype="uint8").astype(bool)
                ends = [_row_area(place.f), _row_area(place.f - height * RESOLUTION)]
                areas = np.repeat(np.interp(np.arange(height), [0, height], ends), inside.sum(axis=1))
                codes = [legend.group_index()[src.read(1, window=window)[inside]] for src in sources]
                cells = np.ravel_multi_index(codes, groups)
                found += [np.bincount(cells, weights, found.shape[1]) for weights in (None, areas)]
    return found.reshape(2, *groups)


def _row_area(north: float) -> float:
    """Return the area in km² of a pixel below a parallel, by the geodesic of its sides."""
    pixel = shapely.box(0, north - RESOLUTION, RESOLUTION, north)
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(pixel)[0]) / 1e6


@exercise(
    "08-1",
    expects="a number of km²",
    hint="km2 of section 4 has it: select zone, year and group.",
)
def _cropland(answer: float) -> str:
    crop, name = legend.groups().index("Cropland"), "Salt Wash"
    answer = float(answer)
    pixels, km2 = _count(name, 2015)[:, crop]
    if is_close(answer, km2, 1e-3):
        return f"{answer:,.1f} km², each row of pixels weighed with its own area."
    for year in YEARS:
        recognize(answer, (_count(name, year)[1, crop], f"That is the year {year}; wanted is 2015.", 1e-3))
    in_box = _count(name, 2015, whole_box=True)[1, crop]
    recognize(answer, (in_box, "That is the cropland in the box around Salt Wash, not in the watershed.", 1e-3))
    for side, what in ((30, "30 m x 30 m"), (RESOLUTION * 111_320, "square")):
        hint = f"The pixels are right, but taken as {what}: their width shrinks with the latitude."
        recognize(answer, (pixels * side**2 / 1e6, hint, 2e-3))
    recognize(answer, (pixels, "That is the number of pixels; wanted is their area in km²."))
    recognize(answer, (km2 * 1e6, "That is square metres; wanted are km².", 1e-3))
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
        km2 = _count("Lakeside", year, whole_box=whole_box)[1]
        with np.errstate(invalid="ignore"):  # nothing was seen
            return 100 * km2[water] / (km2.sum() - (0 if with_missing else km2[nodata]))

    right = share(2020)
    # as precise as it takes to tell the denominators apart
    if np.isclose(answer, right, rtol=0, atol=0.005, equal_nan=True):
        return f"{answer:.2f} % of what was seen."
    missing = "Your denominator holds the pixels without data: nobody knows whether they are water."
    water_km2 = _count("Lakeside", 2020)[1, water]
    recognize(
        answer,
        (right / 100, "That is the share as a fraction; wanted is percent.", 0.00005),
        (share(2020, with_missing=True), missing, 0.005 / max(1, right)),
        (share(2020, whole_box=True), "That is the share in the box around Lakeside, not in the watershed.", 1e-3),
        (water_km2, "That is the water's area in km²; wanted is its share, in percent.", 1e-3),
    )
    for year in YEARS:
        recognize(answer, (share(year), f"That is the year {year}; wanted is 2020.", 1e-3))
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
    matrix = _count("Aspen Plateau", 2000, 2020)[1]
    changed = matrix * (1 - np.eye(len(names)))
    i, j = np.unravel_index(changed.argmax(), changed.shape)
    if not changed[i, j] and not km2:
        return "No land changed in these tiles, from whatever to whatever: 0 km²."
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
