"""Checks of lessons 01 (fundamentals), 02 (a single tile) and 03 (a time series)."""

from itertools import pairwise

import numpy as np
import rasterio
import xarray as xr
from rasterio.windows import Window

from workshop.exercises.boxes import as_class_codes, check_sides, is_at, is_close, read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import RESOLUTION, SAMPLE_TILE, TEACHING_WINDOW, TILE_SIZE, YEARS, Box, tile_path

# Lesson 01: fundamentals


@exercise(
    "01-1",
    expects="a pair (longitude, latitude) in degrees",
    hint="The transform maps (column, row) of a pixel's upper-left corner. Where is the middle of that pixel?",
)
def _pixel_centre(answer: tuple[float, float]) -> str:
    row, col = 36_600, 31_200
    lon, lat = answer
    right = (-120 + (col + 0.5) * RESOLUTION, 50 - (row + 0.5) * RESOLUTION)

    def is_at(x: float, y: float) -> bool:
        return is_close(lon, x) and is_close(lat, y)

    if is_at(*right[::-1]):
        raise NotRightError("These are (latitude, longitude): the first number must be the longitude, x.")
    if is_at(-120 + col * RESOLUTION, 50 - row * RESOLUTION):
        raise NotRightError(
            "This is the pixel's upper-left corner. Its centre lies half a pixel further east and south."
        )
    if is_at(-120 + (row + 0.5) * RESOLUTION, 50 - (col + 0.5) * RESOLUTION):
        raise NotRightError("Row and column are exchanged: columns count along x, rows along y.")
    if is_at(right[0] - RESOLUTION, right[1] + RESOLUTION):
        raise NotRightError("Off by one pixel in both directions: rows and columns are counted from 0.")
    if is_close(lat, 50 + (row + 0.5) * RESOLUTION) or is_close(lat, right[1] + RESOLUTION):
        raise NotRightError("Rows count downwards: latitude falls by one pixel size for each row.")
    if not is_at(*right):
        raise NotRightError(
            f"({lon}, {lat}) is not the centre of row {row}, column {col}: add half a pixel, then transform."
        )
    return "Half a pixel (about 14 m north to south) separates the corner from the centre."


@exercise(
    "01-2",
    expects="a number: decoded pixels for each pixel wanted",
    hint="Which strips does the window touch, and how many pixels does each of them hold?",
)
def _read_amplification(answer: float) -> str:
    size = 512
    right = TILE_SIZE / size
    if is_close(answer, 1):
        raise NotRightError(
            "A strip is compressed as a whole, so it must be decoded as a whole: more than the window is read."
        )
    if is_close(answer, (TILE_SIZE / size) ** 2):
        raise NotRightError("Only the strips that cross the window are decoded, not the whole tile.")
    if is_close(answer, 1 / right):
        raise NotRightError("Upside down: decoded pixels divided by wanted pixels is larger than 1.")
    if is_close(answer, size * TILE_SIZE) or is_close(answer, TILE_SIZE):
        raise NotRightError("This counts pixels; divide the decoded pixels by the 512 x 512 that are wanted.")
    if not abs(float(answer) - right) <= 0.5:
        raise NotRightError(f"{answer} is not it: 512 strips of {TILE_SIZE:,} pixels are decoded for 512 x 512 pixels.")
    return f"512 whole strips for a window 512 wide: {right} pixels decoded for each one wanted."


@exercise(
    "01-3",
    expects="a key such as 'c/0/0'",
    hint="Integer-divide row and column by the chunk's shape; the key lists them in the order of the array's axes.",
)
def _chunk_key(answer: str) -> str:
    row, col, chunk = 1234, 3410, 512
    right = f"c/{row // chunk}/{col // chunk}"
    answer = answer.strip("/").removeprefix("lulc/")
    if answer == f"c/{col // chunk}/{row // chunk}":
        raise NotRightError("The axes are exchanged: the array is (y, x), so the row's number comes first.")
    if answer == f"c/{row // chunk + 1}/{col // chunk + 1}":
        raise NotRightError("Chunks are counted from 0, not from 1.")
    if answer == f"c/{round(row / chunk)}/{round(col / chunk)}":
        raise NotRightError("The chunk that holds a pixel is found by integer division, not by rounding.")
    if answer.replace(".", "/") in (right, right.removeprefix("c/")):
        if answer != right:
            raise NotRightError("The numbers are right; a Zarr v3 key begins with 'c' and separates them with '/'.")
        return f"Row {row} lies in band {row // chunk} of {chunk} rows, column {col} in band {col // chunk}."
    raise NotRightError(
        f"{answer!r} does not hold row {row}, column {col}: how many whole chunks lie before it on each axis?"
    )


# Lesson 02: a single tile

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
    expected = read_box(2000, CITY)
    if answer.dims == ("x", "y"):
        raise NotRightError("The axes are exchanged: expected dimensions (y, x).")
    if answer.size == 0:
        raise NotRightError("No pixels: check that x runs from west to east.")
    check_sides(answer, CITY)
    if not is_at(answer, expected, CITY):
        raise NotRightError("The outer rows and columns are right, but not what lies between: take all, in order.")
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
    built = int((window == 250).sum())
    right = 100 * built / window.size
    if is_close(answer, built):
        raise NotRightError("This is the number of pixels; as a share of all pixels of the window it says more.")
    if is_close(answer, right / 100, 1e-3):
        raise NotRightError("This is a fraction; expected percent.")
    if is_close(answer, 100 * built / TILE_SIZE**2, 1e-6):
        raise NotRightError("This is the share of the whole tile; the question is about the teaching window.")
    if is_close(answer, 100 * int((window == 244).sum()) / window.size, 1e-3):
        raise NotRightError("This is cropland (244); built-up land is 250.")
    if is_close(answer, 100 * built / (window > 0).sum(), 1e-3):
        raise NotRightError("The denominator leaves out class 0: it is true desert here, not missing data.")
    if 0.005 < abs(float(answer) - right) <= 0.06:
        raise NotRightError(f"{float(answer):.4g} % is nearly it: give two decimals at least, or do not round at all.")
    if not abs(float(answer) - right) <= 0.005:
        raise NotRightError(
            f"{float(answer):.4g} % is not it: count the pixels equal to 250, divide by all pixels, times 100."
        )
    return f"{built:,} of {window.size:,} pixels, {right:.2f} %."


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
    if not is_at(answer, expected, CITY):
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


# Lesson 03: a time series


@exercise(
    "03-1",
    expects="a number of gigabytes (10^9 bytes)",
    hint="Pixels of a tile x tiles x bytes for one value. How many bytes has a float32?",
)
def _memory_of_floats(answer: float) -> str:
    pixels = len(YEARS) * TILE_SIZE**2
    right = 4 * pixels / 1e9
    if is_close(answer, pixels / 1e9):
        raise NotRightError("This is uint8, one byte a value; masked=True makes float32, with four.")
    if is_close(answer, 8 * pixels / 1e9):
        raise NotRightError("This is float64, eight bytes a value; masked=True makes float32, with four.")
    if is_close(answer, right / len(YEARS)):
        raise NotRightError("This is one tile; the cube has five years.")
    if is_close(answer, 4 * pixels / 2**30, 1e-2):
        raise NotRightError("This is GiB (2^30 bytes); expected GB (10^9 bytes).")
    if is_close(answer, 4 * pixels):
        raise NotRightError("This is bytes; expected gigabytes.")
    if not is_close(answer, right, 1e-6):
        raise NotRightError(f"{answer} is not it: 5 tiles x 40000 x 40000 pixels x 4 bytes, in 10^9 bytes.")
    return "Four times as much as the tiles hold, and more than most laptops have: open lazily, and stay uint8."


@exercise(
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
        raise NotRightError("This is a position on the year axis; expected the year itself, from the coordinate.")
    if answer not in YEARS:
        raise NotRightError(f"{answer} is not one of the cube's years.")
    if answer != built[0]:
        if answer in built:
            raise NotRightError(f"In {answer} the pixel was built-up already; look for the first such year.")
        raise NotRightError(f"In {answer} the pixel has class {at[answer]}, not 250 (built-up).")
    return "The pixel's five classes are " + ", ".join(f"{year}: {at[year]}" for year in YEARS) + "."


def _steps_from_cropland_to_city() -> int:
    years = [read_box(year, TEACHING_WINDOW) for year in YEARS]
    return sum(int(((a == 244) & (b == 250)).sum()) for a, b in pairwise(years))


@exercise(
    "03-3",
    expects="a number of pixels",
    hint="Two conditions on the same pixel at two times: combine them with &.",
)
def _cropland_to_city(answer: int) -> str:
    before, after = read_box(2000, TEACHING_WINDOW), read_box(2020, TEACHING_WINDOW)
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
    raise NotRightError(
        wrong.get(int(answer), f"{int(answer):,} is not it: count pixels that are 244 in 2000 and 250 in 2020.")
    )
