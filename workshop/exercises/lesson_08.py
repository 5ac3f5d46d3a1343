"""Checks of lesson 08 (zonal statistics)."""

from contextlib import ExitStack
from functools import cache
from math import prod

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from pyproj import Geod
from rasterio.features import geometry_mask, geometry_window
from rasterio.windows import Window

from workshop import legend, world
from workshop.exercises.boxes import is_close, recognize
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import DATA, RESOLUTION, YEARS, gdal_path, tile_path


@cache
def _count(shape: shapely.Geometry, *years: int, all_touched: bool = False) -> np.ndarray:
    """Return how many pixels, and how many km², of a polygon have each group, or groups one year after another.

    GDAL burns the polygon onto the source tiles; 500 rows at a time, to spare memory.
    """
    groups = (len(legend.groups()),) * len(years)
    found = np.zeros((2, prod(groups)))
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
                inside = geometry_mask([part], (height, frame.width), place, all_touched, invert=True)
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


SURVEY = [(404, 4492), (417, 4488), (428, 4494), (431, 4507), (422, 4502), (415, 4513), (406, 4506)]  # km, UTM zone 12
SKELETON = """
Fill in the gaps:

```python
moved = survey.to_crs(____)
box = lulc.sel(year=____).rio.clip_box(*moved.____).load()
inside = rasterize(moved.geometry, box.shape, transform=____, dtype="uint8") == 1
per_row = (inside & (box.values == ____)).sum(axis=1)
built_up = float((per_row * ____).sum())
```
"""


@exercise(
    "08-1",
    expects="a number of km²",
    hint=SKELETON,
    more="`lulc.rio.crs` is the cube's CRS, `moved.total_bounds` is the box, and `box.rio.transform()` says where it "
    "is. `per_row` has one number per row, and so does `zonal.pixel_area(box.y, 0.00025, 0.00025)`, in km². Multiply "
    "them, then add up.",
)
def _built_up(answer: float) -> str:
    survey = gpd.GeoSeries([shapely.Polygon(np.array(SURVEY) * 1000)], crs="EPSG:32612")
    group, year = legend.groups().index("Built-up"), 2010
    shape = survey.to_crs("EPSG:4326")[0]
    answer = float(answer)
    pixels, km2 = _count(shape, year)[:, group]
    if is_close(answer, km2, 1e-3):
        return f"{answer:,.2f} km², each row of pixels with its own area."
    if answer == 0:
        raise NotRightError("No pixel is inside: is the outline still in meters? The cube is in degrees (`to_crs`).")
    if answer in (int(km2), round(km2), round(km2, 1)):
        raise NotRightError("That's rounded: give all digits, because a tenth of a percent counts.")
    touched, in_box = (_count(part, year, all_touched=True)[1, group] for part in (shape, shape.envelope))
    narrow = "The pixels are right, but taken as {}: they get narrower toward the poles."
    recognize(
        answer,
        (touched, "That's with every pixel that the border touches: leave out `all_touched`.", 1e-3),
        *((_count(shape, other)[1, group], f"That's the year {other}; we want {year}.", 1e-3) for other in YEARS),
        (in_box, "That's the box around the outline: keep only the pixels inside the polygon.", 5e-3),
        (pixels * 30**2 / 1e6, narrow.format("30 m x 30 m"), 2e-3),
        (pixels * (RESOLUTION * 111_320) ** 2 / 1e6, narrow.format("square"), 2e-3),
        (pixels, "That's the number of pixels; we want their area in km²."),
        (km2 * 1e6, "That's in square meters; we want km².", 1e-3),
        (_count(shape, year)[1].sum(), "That's all of the outline: keep only the pixels equal to 250.", 5e-3),
    )
    low, high = sorted(pixels * _row_area(shape.buffer(RESOLUTION).bounds[edge]) for edge in (1, 3))
    if low <= answer <= high:
        raise NotRightError("Very close: that's one row's pixel area for all rows. Give each row its own.")
    raise NotRightError(f"Not {answer:,.2f} km²: count the pixels equal to 250, inside `survey`, in {year}.")


THREE_YEARS = """
Fill in the gaps:

```python
outline = areas.loc[["Salt Wash"]]
three = lulc.sel(year=____).rio.clip_box(*outline.total_bounds).load()
inside = rasterize(outline.geometry, three.shape[1:], transform=____, dtype="uint8") == 1
row_area = zonal.pixel_area(three.y, 0.00025, 0.00025)
groups, index = legend.groups(), legend.group_index()
n, km2_of = len(groups), np.zeros(len(groups) ** 2)
for *codes, mask, area in zip(*three.values, inside, row_area):
    first, middle, last = index[codes]
    kept = mask & (first ____ middle) & (middle ____ last)
    km2_of += np.bincount(first[____] * n + middle[____], minlength=n * n) * ____
k = km2_of.argmax()
largest = (groups[k // n], groups[k % n], ____)
```
"""


@exercise(
    "08-2",
    expects="a tuple (group in 2000, group in 2010 and 2020, a number of km²)",
    hint=THREE_YEARS,
    more="A pixel counts if it's inside, if its group of 2010 differs from that of 2000, and if its group of 2020 is "
    "that of 2010: `mask & (first != middle) & (middle == last)`. Count the pairs of each row, and multiply them by "
    "the row's pixel area.",
)
def _largest(answer: tuple[str, str, float]) -> str:
    if not isinstance(answer, tuple | list):
        raise TypeError  # it has no order, or is a table
    (before, after, km2), names = answer, legend.groups()
    if unknown := [name for name in (before, after) if name not in names]:
        raise NotRightError(f"`{unknown[0]}` isn't a group of the legend; they are {', '.join(names)}.")
    if isinstance(km2, str):
        raise NotRightError("Expected a number of km², found text: leave out the quotes.")
    outline = gpd.read_file(DATA / "areas.geojson").set_index("name").geometry["Salt Wash"]
    cells = _count(outline, 2000, 2010, 2020)[1]
    lasting = np.einsum("ijj->ij", cells) * (1 - np.eye(len(names)))
    i, j = np.unravel_index(lasting.argmax(), lasting.shape)
    if not lasting[i, j] and not km2:
        return "No land changed in these tiles: 0 km²."
    if before == after:
        raise NotRightError("That land didn't change: leave out pixels with the same group in 2000 and 2010.")
    if (before, after) != (names[i], names[j]):
        there = lasting[names.index(before), names.index(after)]
        raise NotRightError(f"{before} to {after} lasted on {there:,.1f} km²; another change is larger.")
    if is_close(float(km2), lasting[i, j], 1e-3):
        return f"{before} became {after} on {float(km2):,.1f} km² by 2010, and stayed it."
    recognize(
        float(km2),
        (cells.sum(axis=2)[i, j], "That's 2000 to 2010: some of this land had changed again by 2020.", 1e-3),
        (cells.sum(axis=1)[i, j], "That's 2000 to 2020: some of this land changed only after 2010.", 1e-3),
    )
    raise NotRightError(f"The pair is right; its area isn't {float(km2):,.1f} km². Weight each row by its pixel area.")
