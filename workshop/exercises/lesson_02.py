"""Checks of lesson 02 (a single tile)."""

import numpy as np
import xarray as xr

from workshop.exercises.boxes import as_class_codes, check_place, is_close, pixel_km2, read_box, recognize, row_km2
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import TEACHING_WINDOW, Box

CITY = Box(west=-112.0, south=40.65, east=-111.8, north=40.85)


@exercise(
    "02-1",
    expects="a DataArray (y, x) of uint8",
    hint="`sel` takes labels: `slice(west, east)` for x, and for y the labels in the order of the array.",
    more="`tile.sel(x=slice(-112.0, -111.8), y=slice(..., ...))`, with the northern latitude first. "
    'Then drop the axis of length one with `squeeze("band", drop=True)`.',
)
def _city_box(answer: xr.DataArray) -> str:
    answer = as_class_codes(answer, "the city's box")
    if answer.dims == ("x", "y"):
        raise NotRightError("The axes are swapped: expected dimensions (y, x).")
    if answer.size == 0:
        raise NotRightError("No pixels: x runs from west to east, and y from north to south, so north comes first.")
    check_place(answer, CITY)
    expected = read_box(2000, CITY)
    if not np.array_equal(answer.values, expected):
        raise NotRightError("The box is right, but its pixels aren't: is this the tile of the year 2000?")
    return f"{expected.shape[0]} x {expected.shape[1]} pixels, still uint8."


@exercise(
    "02-2",
    expects="a number: km² of built-up land in the window",
    hint="`(window == 250)` marks the built-up pixels. How many are there, and how large is each of them?",
    more='The sum of `window == 250` is the count. `pixel_size(40.75)["area (m²)"]` is the area of a pixel, and a '
    "square kilometer has a million square meters.",
)
def _built_up_area(answer: float) -> str:
    window, middle = read_box(2000, TEACHING_WINDOW), (TEACHING_WINDOW.south + TEACHING_WINDOW.north) / 2
    built, crops = int((window == 250).sum()), int((window == 244).sum())
    if np.ndim(answer):
        raise NotRightError("This is an array, and we want one number: count its pixels with `sum()`.")
    right, by_row = built * pixel_km2(middle), float((window == 250).sum(axis=1) @ row_km2())
    if any(is_close(answer, number, 1e-3) for number in (right, by_row)):  # first: a mistake may lead to the same
        return f"{built:,} pixels, {right:.2f} km². Counted row by row, it would be {by_row:.2f} km²."
    recognize(
        answer,
        (built, "This is the number of pixels. Multiply it by the area of one of them."),
        (right * 1e6, "This is in square meters; we want km². A square kilometer has a million square meters.", 1e-3),
        (right * 1e3, "A thousand times too much: a square kilometer has a million square meters.", 1e-3),
        (built * 9e-4, "This takes a pixel as 30 m x 30 m, which it isn't anywhere.", 1e-3),
        (built * pixel_km2(0.0), "This is the pixel area at the equator. The window is at 40.75° north.", 1e-3),
        (built * pixel_km2(60.0), "This is the pixel area at 60° north. The window is at 40.75° north.", 1e-3),
        (crops * pixel_km2(middle), "This is cropland (244). Built-up land is 250.", 1e-3),
        (window.size * pixel_km2(middle), "This is the whole window. Count the pixels of class 250.", 1e-3),
        (built / window.size * 100, "This is the percentage of the window. We want an area, in km².", 1e-2),
    )
    raise NotRightError(
        f"{float(answer):.4g} km² isn't right: count the pixels equal to 250, and multiply by the area at 40.75° north."
    )


@exercise(
    "02-3",
    expects="a DataArray (y, x) opened from the Zarr store",
    hint="""Five steps. Sections 5 and 7 have a line for each:

```python
clean = my_city.rename(____)  # what is the array called?
clean = clean.rio.____  # the geotransform
del ____, ____  # the two attributes that make floats
clean.to_dataset().____  # where to, with which encoding and mode?
city_again = ____  # and how does the CRS come back?
```""",
    more='The encoding is `{"lulc": {"chunks": ..., "fill_value": 255, "grid_mapping": ...}}`. '
    "The method that writes a geotransform is `write_transform`, and the one that writes a Dataset is `to_zarr`. "
    'The chunks are `(400, 400)`, the grid mapping is `"spatial_ref"`, and `decode_coords` is `"all"`. '
    'Open the store you wrote: `bucket.zarr("city.zarr")`.',
)
def _round_trip(answer: xr.DataArray) -> str:
    floats = {"scale_factor", "add_offset", "_FillValue"}
    if isinstance(answer, xr.DataArray) and (answer.dtype.kind == "f" or floats & set(answer.attrs)):
        raise NotRightError(
            "A scale_factor, add_offset or _FillValue came with the classes, and anyone who opens such a store gets "
            "floats: delete these attributes before writing."
        )
    answer = as_class_codes(answer, "the array read back")
    expected = read_box(2000, CITY)
    if answer.shape != expected.shape or not np.array_equal(answer.values, expected):
        raise NotRightError("The values differ from the tile's: write the city's box of the year 2000.")
    check_place(answer, CITY)
    chunks = answer.encoding.get("chunks")
    if chunks is None or "serializer" not in answer.encoding:
        raise NotRightError("This array wasn't opened from a Zarr store: read it back with xr.open_zarr.")
    if tuple(chunks) != (400, 400):
        raise NotRightError(f"Expected Zarr chunks of (400, 400), found {tuple(chunks)}: set them in the encoding.")
    if answer.rio.crs != "EPSG:4326":
        raise NotRightError(
            f"Expected the CRS EPSG:4326, found {answer.rio.crs}: keep spatial_ref, name it as grid_mapping, and open "
            "with decode_coords='all'."
        )
    stated = answer[answer.rio.grid_mapping].attrs.get("GeoTransform", "").split()  # column 0: west, 3: north
    west, north = CITY.west, CITY.north
    if stated and not (is_close(stated[0], west, 1e-6) and is_close(stated[3], north, 1e-6)):
        raise NotRightError(
            f"spatial_ref says that the raster begins at ({stated[0]}, {stated[3]}), but x and y say that it begins at "
            f"({west}, {north}): call rio.write_transform() after selecting."
        )
    return "Same values, same type, same chunks, and the CRS is still there."
