"""Checks of lesson 02 (a single tile)."""

import numpy as np
import xarray as xr

from workshop.exercises.boxes import as_class_codes, check_place, is_at, is_close, read_box, recognize
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import TEACHING_WINDOW, TILE_SIZE, Box

CITY = Box(west=-112.0, south=40.65, east=-111.8, north=40.85)


@exercise(
    "02-1",
    expects="a DataArray (y, x) of uint8",
    hint="sel takes labels: slice(west, east) for x, and for y the labels in the order in which they lie in the array.",
)
def _city_box(answer: xr.DataArray) -> str:
    if isinstance(answer, xr.DataArray) and answer.sizes.get("y") == 0:
        raise NotRightError("No rows: y runs from north to south, so the slice must start at the northern latitude.")
    answer = as_class_codes(answer, "the city's box")
    if answer.dims == ("x", "y"):
        raise NotRightError("The axes are exchanged: expected dimensions (y, x).")
    if answer.size == 0:
        raise NotRightError("No pixels: check that x runs from west to east.")
    check_place(answer, CITY)
    expected = read_box(2000, CITY)
    if not np.array_equal(answer.values, expected):
        raise NotRightError("The box is right, but not its pixels: is this the tile of the year 2000?")
    return f"{expected.shape[0]} x {expected.shape[1]} pixels, still uint8."


@exercise(
    "02-2",
    expects="a number: percent of the window",
    hint="(lulc == 250) marks the built-up pixels; what do True and False become in a mean?",
)
def _built_up_percent(answer: float) -> str:
    window = read_box(2000, TEACHING_WINDOW)
    built, crops = int((window == 250).sum()), int((window == 244).sum())
    right, of_tile = 100 * built / window.size, 100 * built / TILE_SIZE**2
    desert = "The denominator leaves out class 0: it is true desert here, not missing data."
    if abs(float(answer) - right) <= 0.005:  # first: on some tiles, a mistake leads to the same number
        return f"{built:,} of {window.size:,} pixels, {right:.2f} %."
    recognize(
        answer,
        (built, "This is the number of pixels; as a share of all pixels of the window it says more."),
        (right / 100, "This is a fraction; expected percent.", 1e-3),
        (of_tile, "This is the share of the whole tile; the question is about the teaching window.", 1e-6),
        (100 * crops / window.size, "This is cropland (244); built-up land is 250.", 1e-3),
        (100 * built / max(1, int((window > 0).sum())), desert, 1e-3),
    )
    if abs(float(answer) - right) <= 0.06:
        raise NotRightError(f"{float(answer):.4g} % is nearly it: give two decimals at least, or do not round at all.")
    raise NotRightError(
        f"{float(answer):.4g} % is not it: count the pixels equal to 250, divide by all pixels, times 100."
    )


@exercise(
    "02-3",
    expects="a DataArray (y, x) opened from the Zarr store",
    hint="Name the array with rename('lulc') if it has no name, clear its attributes, call rio.write_transform(), "
    "write it as a dataset with chunks and grid_mapping in the encoding, and open with decode_coords='all'.",
)
def _round_trip(answer: xr.DataArray) -> str:
    if not isinstance(answer, xr.DataArray):
        raise NotRightError(f"Expected the array read back, an xarray.DataArray; found {type(answer).__name__}.")
    if np.issubdtype(answer.dtype, np.floating):
        raise NotRightError(
            f"It came back as {answer.dtype}: a scale_factor, add_offset or _FillValue was written with the classes."
        )
    answer = as_class_codes(answer, "the array read back")
    if {"scale_factor", "add_offset", "_FillValue"} & set(answer.attrs):
        raise NotRightError(
            "The store holds a scale_factor, add_offset or _FillValue, and whoever opens it as usual "
            "gets floats: clear the attributes before writing."
        )
    expected = read_box(2000, CITY)
    if answer.shape != expected.shape or not np.array_equal(answer.values, expected):
        raise NotRightError("The values differ from the tile's: write the city's box of the year 2000.")
    if not is_at(answer, CITY):
        raise NotRightError("The values are right, but not their coordinates x and y.")
    chunks = answer.encoding.get("chunks")
    if chunks is None or "serializer" not in answer.encoding:
        raise NotRightError("This array was not opened from a Zarr store: read it back with xr.open_zarr.")
    if tuple(chunks) != (400, 400):
        raise NotRightError(f"Expected Zarr chunks of (400, 400), found {tuple(chunks)}: set them in the encoding.")
    if answer.rio.crs is None:
        raise NotRightError(
            "The CRS got lost: keep spatial_ref, name it as grid_mapping, and open with decode_coords='all'."
        )
    if answer.rio.crs != "EPSG:4326":
        raise NotRightError(f"Expected the CRS EPSG:4326, found {answer.rio.crs}.")
    stated = answer[answer.rio.grid_mapping].attrs.get("GeoTransform", "").split()  # column 0: west, 3: north
    west, north = CITY.west, CITY.north
    if stated and not (is_close(stated[0], west, 1e-6) and is_close(stated[3], north, 1e-6)):
        raise NotRightError(
            f"spatial_ref says that the raster begins at ({stated[0]}, {stated[3]}), x and y that it begins at "
            f"({west}, {north}): call rio.write_transform() after cutting."
        )
    return "Same values, same type, same chunks, CRS still there."
