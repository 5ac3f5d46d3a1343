"""Checks of lesson 03 (a time series)."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from workshop.exercises.boxes import check_layers, check_place, expect, read_box, recognize, row_km2
from workshop.exercises.lesson_02 import CITY
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import RESOLUTION, TEACHING_WINDOW, YEARS

_CITY_YEARS = (2000, 2010, 2020)
_CITY_CHUNKS = (1, 400, 400)
_AXES = ("year", "y", "x")


@exercise(
    "03-1",
    expects="the Zarr store that you wrote to",
    hint="""Fill the gaps:

```python
layers = []
for year in (____, ____, ____):
    tile = tiles.open_tile("50N_120W", year, chunks=____)
    window = tiles.select_box(tile, tiles.Box(west=____, south=____, east=____, north=____))
    layers.append(window.expand_dims(____))
city_years = xr.concat(layers, dim=____, join=____)

city_store = bucket.zarr("city-years.zarr")
encoding = {"lulc": {"chunks": ____, "fill_value": ____, "grid_mapping": "spatial_ref"}}
conventions.describe(city_years).to_zarr(____, encoding=____, mode="w", consolidated=False)
```""",
    more="""`expand_dims(year=[year])` needs the list: it becomes the labels of the new axis. `concat` keeps the
order of `layers`. If `to_zarr` says that Zarr chunks *would overlap multiple Dask chunks*, your Dask chunks don't hold
whole Zarr chunks: open with `chunks={"y": 1000}`, or load the cube before you write it.""",
)
def _city_years(answer: Any) -> str:
    group = _open_group(answer)
    array = _lulc(group)
    years = tuple(group["year"][:].tolist())
    if years != _CITY_YEARS:
        raise NotRightError(f"The years are {years}; we want {_CITY_YEARS}, in this order.")
    floats = {"scale_factor", "add_offset", "_FillValue"} & set(array.attrs)
    if array.dtype != np.uint8 or floats:
        raise NotRightError(
            f"The codes must stay uint8, and without attributes that make floats on reading; found {array.dtype} with "
            f"{sorted(floats) or 'none'}. masked=True makes floats, and so does a join that fills gaps; "
            "tiles.open_tile leaves the attributes out."
        )
    _check_labels(group)
    if array.chunks != _CITY_CHUNKS:
        deep = " A chunk must hold one year only." if array.chunks[0] > 1 else ""
        raise NotRightError(f"The Zarr chunks are {array.chunks}; set them to {_CITY_CHUNKS} in `encoding`.{deep}")
    if array.fill_value != 255:
        raise NotRightError(
            f"The fill value is {array.fill_value}: chunks that were never written would read as class "
            f"{array.fill_value}. Put 255 (no data) into `encoding`."
        )
    _check_georeference(group)
    check_layers(array, _CITY_YEARS, CITY)
    built = ", ".join(f"{year}: {100 * np.mean(read_box(year, CITY) == 250):.1f} %" for year in _CITY_YEARS)
    return f"All pixels equal those of the files, in {array.nchunks} Zarr chunks. Built-up land in the box: {built}."


def _open_group(answer: Any) -> zarr.Group:
    wanted = "the store that you wrote to, such as bucket.zarr('city-years.zarr')"
    expect(answer, zarr.abc.store.Store | str | Path, wanted)
    try:
        return zarr.open_group(answer, mode="r", use_consolidated=False)
    except FileNotFoundError:
        raise NotRightError(f"There is nothing here yet: write the cube with `to_zarr`, and give {wanted}.") from None


def _lulc(group: zarr.Group) -> zarr.Array:
    names = [name for name, _ in group.arrays()]
    if "lulc" not in names:
        raise NotRightError(f"The store has the arrays {', '.join(sorted(names)) or 'none'}; `lulc` is missing.")
    dims = tuple(group["lulc"].metadata.dimension_names or ())
    if dims != _AXES:
        raise NotRightError(
            f"The axes are {dims}; we want {_AXES}. expand_dims(year=[year]) gives each layer a year, before concat, "
            "and squeeze takes out a band."
        )
    if missing := [name for name in _AXES if name not in names]:
        raise NotRightError(
            f"The axis {missing[0]} has no labels. expand_dims({missing[0]}=[...]) makes an axis with labels, before "
            "concat."
        )
    return group["lulc"]


def _check_labels(group: zarr.Group) -> None:
    labels = {name: group[name][:] for name in ("y", "x")}
    for name, values in labels.items():
        if not values.size:
            raise NotRightError(
                f"The cube is empty along {name}: a slice ran against its coordinate, or the layers share no label."
            )
        if np.abs(np.diff(values)).min(initial=RESOLUTION) < 0.9 * RESOLUTION:
            raise NotRightError(
                f"There are {values.size} labels along {name}, closer together than pixels: the layers' labels differ, "
                'and the join kept them all. join="exact" would have told you.'
            )
    zeros = np.broadcast_to(np.uint8(0), (labels["y"].size, labels["x"].size))
    check_place(xr.DataArray(zeros, labels, ("y", "x")), CITY)


def _check_georeference(group: zarr.Group) -> None:
    if group["lulc"].attrs.get("grid_mapping") != "spatial_ref" or "spatial_ref" not in group:
        raise NotRightError(
            'The array does not say where its CRS is: add `"grid_mapping": "spatial_ref"` to `encoding`, which '
            "replaces what the array brought along."
        )
    found = [float(number) for number in str(group["spatial_ref"].attrs.get("GeoTransform", "")).split()]
    if not np.allclose(found or 0, [CITY.west, RESOLUTION, 0, CITY.north, 0, -RESOLUTION], rtol=0, atol=1e-7):
        raise NotRightError(
            "The GeoTransform in spatial_ref isn't that of the box, so GDAL would put the cube somewhere else. "
            "`tiles.select_box` writes the right one, and so does `conventions.describe`."
        )


@exercise(
    "03-2",
    expects="a number of km²",
    hint="""`street` is true where both conditions hold. Fill the gaps:

```python
street = (cube.sel(year=____) == ____) & (cube.sel(year=____) == ____)
field_to_street = float((street * ____).sum())
```""",
    more="`street * row_km2` gives each pixel the area of its row where `street` is true, and 0 where it isn't.",
)
def _cropland_to_city(answer: float) -> str:
    years = [read_box(year, TEACHING_WINDOW) for year in YEARS]
    before, after = years[0], years[-1]
    crops, built = before == 244, after == 250
    right = _km2(crops & built)
    if abs(float(answer) - right) <= max(0.0101, 2e-5 * right):  # two decimals, rounded or cut off
        return f"{right:.2f} km², out of {_km2(crops):.1f} km² that were cropland in 2000."
    if float(answer) in (round(right), round(right, 1)):
        raise NotRightError(
            f"{answer} is the right number, rounded. Give at least two decimals, which show that each row has its own "
            "area."
        )
    pixels, steps = int((crops & built).sum()), sum(_km2((a == 244) & (b == 250)) for a, b in pairwise(years))
    grown, lost = _km2(built) - _km2(before == 250), _km2(crops) - _km2(after == 244)
    wraps = "A difference of 6 between two codes has many causes, and uint8 wraps around below 0; compare the codes."
    recognize(
        answer,
        (pixels, f"{pixels:,} is a number of pixels; we want km². Weight each row by the area of its pixels."),
        (1e6 * right, "That's in square meters; we want km².", 4e-4),
        (pixels * 900 / 1e6, "No pixel here covers 900 m² (30 m x 30 m): use the area of each row's pixels.", 4e-4),
        (pixels * row_km2()[0], "The northernmost row has the smallest pixels: give each row its own area.", 1e-4),
        (pixels * row_km2()[-1], "The southernmost row has the largest pixels: give each row its own area.", 1e-4),
        (pixels * row_km2().mean(), "One pixel area for all rows comes close; give each row its own area.", 5e-5),
        (steps, "This adds up the steps between the years; compare 2000 and 2020 alone.", 4e-4),
        (_km2(built), "This is all built-up land of 2020, whatever it was before.", 4e-4),
        (grown, "This is how much built-up land grew; part of it grew on land that wasn't cropland.", 4e-4),
        (lost, "This is how much cropland was lost; part of it became something other than built-up land.", 4e-4),
        (_km2((before == 250) & (after == 244)), "This is the way back, from built-up land to cropland.", 4e-4),
        (_km2(crops | built), "This takes one condition or the other; both must hold for a pixel: use &.", 4e-4),
        (_km2(after - before == 250 - 244), wraps, 4e-4),
    )
    raise NotRightError(f"{float(answer):,.2f} isn't right: take the pixels that are 244 in 2000 and 250 in 2020.")


def _km2(mask: np.ndarray) -> float:
    return float(row_km2() @ mask.sum(axis=1))
