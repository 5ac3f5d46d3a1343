"""Writes the sample world: synthetic tiles with the exact layout of GLAD's, and a small netCDF.

Run ``python -m workshop.sample`` to write the tiles that the lessons need. ``tiles.py`` reads them.

The landscape is computed only with integer hashes and single IEEE additions and multiplications (no sine, no
exponential, no library random numbers), so its pixels are the same on every platform.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
import xarray as xr
from rasterio.errors import RasterioIOError
from rasterio.transform import from_origin
from rasterio.windows import Window
from tqdm import tqdm

from workshop import legend, tiles

LABEL = "SYNTHETIC sample of the shape of GLAD GLCLUC2020 v2, not observed land cover; world 1"
CELL = 100  # pixels along a side of the coarse landscape's cells
BAND = 400  # rows written at once


def _hash(seed: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return reproducible noise in [0, 1), float32, for integer positions (i, j).

    The mixing steps and their two multipliers are those of ``lowbias32`` (C. Wellons, "Prospecting for hash
    functions", 2018, public domain).
    """
    h = i.astype(np.uint32) * np.uint32(0x9E3779B1) ^ j.astype(np.uint32) * np.uint32(0x85EBCA77)
    h ^= np.uint32(seed * 0x27D4EB2F & 0xFFFFFFFF)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def _noise(rows: np.ndarray, cols: np.ndarray, period: int, seed: int) -> np.ndarray:
    """Return smooth noise in [0, 1), float32, shape (rows, cols): a hashed lattice, smoothly interpolated."""

    def steps(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        t = (position % period).astype(np.float32) / np.float32(period)
        return position // period, t * t * (np.float32(3) - t - t)

    i, fi = steps(rows)
    j, fj = steps(cols)
    lattice = _hash(seed, np.arange(i[0], i[-1] + 2)[:, None], np.arange(j[0], j[-1] + 2)[None, :])
    i, j = i - i[0], j - j[0]
    bands = lattice[i] + (lattice[i + 1] - lattice[i]) * fi[:, None]
    return bands[:, j] + (bands[:, j + 1] - bands[:, j]) * fj


def _steps(first: int, last: int, fraction: np.ndarray) -> np.ndarray:
    """Spread a fraction over the legend values first..last."""
    span = np.float32(last - first + 1)
    return (first + np.clip(fraction * span, 0, last - first)).astype(np.uint8)


def coarse_landscape(tile: str, year: int) -> np.ndarray:
    """Return the coarse landscape of a tile, shape (400, 400): one class per cell of 100 x 100 pixels.

    It has few classes in wide regions, because each change of class in a row makes its LZW strip larger.
    """
    lon, lat = tiles.tile_corner(tile)
    n = tiles.TILE_SIZE // CELL
    per_degree = n // 10
    rows = (tiles.NORTH - lat) * per_degree + np.arange(n)
    cols = (lon + 180) * per_degree + np.arange(n)
    relief = _noise(rows, cols, 160, 1) * 8 + _noise(rows, cols, 40, 2) * 4 + _noise(rows, cols, 9, 4)
    relief /= np.float32(13)
    dryness = (_noise(rows, cols, 200, 3) * 7 + _noise(rows, cols, 16, 5)) / np.float32(8)
    step = np.float32(tiles.YEARS.index(year))
    land = np.full((n, n), 10, np.uint8)
    land[dryness > 0.66] = 1
    land[(relief > 0.3) & (relief < 0.42 + 0.01 * step) & (dryness < 0.35)] = 244
    land[relief > 0.6 + 0.004 * step] = 38
    land[relief > 0.86] = 241
    land[relief < 0.2 - 0.006 * step] = 207
    # More variety south of 40 degrees north and between 117 and 106 west, which covers most of Utah. It fades out
    # toward the area's borders, so the workshop's tiles meet without a seam.
    y = (rows.astype(np.float32) - (tiles.NORTH - 40) * per_degree)[:, None]  # cells south of 40 N
    x = (cols.astype(np.float32) - (180 - 117) * per_degree)[None, :]  # cells east of 117 W
    fade = np.clip(y / 6, 0, 1) * np.clip((5 * per_degree - y) / 60, 0, 1)
    fade = fade * np.clip(x / 60, 0, 1) * np.clip((11 * per_degree - x) / 60, 0, 1)
    half = np.float32(0.5)
    rugged = (_noise(rows, cols, 48, 31) - half) * np.float32(1.3) + (_noise(rows, cols, 11, 32) - half) * half
    height = half + fade * (rugged + np.float32(0.05) * (relief - half))
    climate = (_noise(rows, cols, 60, 33) - half) * np.float32(1.2) + np.float32(0.3) * (dryness - half)
    dry = half + fade * climate
    here = fade > 0
    land[here & (fade * (_noise(rows, cols, 7, 34) - half) > 0.16)] = 16
    land[here & (dry < 0.42 + 0.012 * step)] = 21
    land[here & (dry > 0.62)] = 4
    land[here & (dry > 0.74)] = 0
    land[here & (dry < 0.36) & (height > 0.3) & (height < 0.5 + 0.015 * step)] = 244
    trees = here & (height > 0.66 + 0.008 * step)
    land[trees] = 31
    land[trees & (height > 0.76)] = 44
    land[here & (height > 1.02 + 0.01 * step)] = 241
    land[here & (height < 0.25)] = 122
    land[here & (height < 0.22)] = 132
    land[here & (height < 0.2)] = 101
    land[here & (height < 0.18 - 0.012 * step)] = 206
    town = _noise(rows, cols, 9, 35) * (np.float32(1) - np.abs(height - np.float32(0.4)))
    land[here & (fade > 0.9) & (town > 0.83 - 0.015 * step)] = 250
    return land


def teaching_window(year: int) -> np.ndarray:
    """Return the detailed landscape of the teaching window: shape (2000, 4000), uint8, row 0 in the north."""
    step = np.float32(tiles.YEARS.index(year))
    r, c = np.arange(2000), np.arange(4000)
    y, x = r[:, None].astype(np.float32), c[None, :].astype(np.float32)

    def bowl(cy: float, cx: float, ry: float, rx: float) -> np.ndarray:
        """1 in the middle of an ellipse, 0 on its edge, negative outside."""
        dy, dx = (y - np.float32(cy)) / np.float32(ry), (x - np.float32(cx)) / np.float32(rx)
        return np.float32(1) - dy * dy - dx * dx

    # the terrain, which is the same in all years
    wide, middle, fine = _noise(r, c, 260, 11) - 0.5, _noise(r, c, 60, 12) - 0.5, _noise(r, c, 12, 13) - 0.5
    relief = np.clip((x - 2800) / 800, 0, 1) * np.float32(0.75) + wide * np.float32(0.5) + middle * np.float32(0.25)
    texture = np.float32(0.5) + middle * np.float32(0.5) + fine * np.float32(0.3)
    lake = bowl(820, 1250, 640, 720) + wide * np.float32(0.7) + middle * np.float32(0.16)
    river_row = np.float32(1050) + (_noise(np.zeros(1, int), c, 300, 14) - 0.5) * np.float32(360)
    river = np.abs(y - river_row) + fine * np.float32(8) + np.where((x > 1500) & (x < 3400), 0, 1000)
    # the plain: semi-arid, true desert in the south-west, denser towards the foothills
    land = _steps(2, 18, texture * np.float32(0.75) + np.clip((x - 600) / 4000, 0, 1) * np.float32(0.4))
    land[(y - 1150 + wide * 500 > 0) & (x < 1350 + middle * 500)] = 0
    land[(land == 0) & (texture > 0.55)] = 1
    # cropland in parcels, some of them fallow; every five years more of them
    farm = (x > 1980 + wide * 300) & (x < 2900 + wide * 200) & (lake < -0.15)
    farm &= (y > 120 + wide * 200) & (y < 1880 + wide * 200)
    parcel = _hash(16, r[:, None] // 44, c[None, :] // 64)
    land[farm] = 16
    land[farm & (parcel > np.float32(0.14) + np.float32(0.03) * step)] = 244
    land[farm & ((r % 44 < 2)[:, None] | (c % 64 < 2)[None, :])] = 20
    # foothills, forest, rock and snow
    land[relief > 0.30] = _steps(19, 24, texture)[relief > 0.30]
    forest = relief > 0.42
    trees = _steps(25, 48, texture * np.float32(0.7) + (relief - np.float32(0.42)) * np.float32(0.9))
    land[forest] = trees[forest]
    land[relief > 0.86] = 5
    land[relief > 0.93 + 0.012 * step] = 241
    # a fire between 2000 and 2005, and what grew back
    burnt = forest & (bowl(1480, 3420, 300, 260) + middle * np.float32(0.9) > 0) & (relief < 0.86)
    regrowth = {2005: (2, 6), 2010: (11, 18), 2015: (20, 24), 2020: (19, 31)}
    if year in regrowth:
        land[burnt] = _steps(*regrowth[year], texture)[burnt]
    # the river and the trees along it
    land[river < 46] = _steps(119, 124, texture)[river < 46]
    land[river < 30] = _steps(125, 148, texture)[river < 30]
    land[river < 5] = 203
    # the city grows in blocks, with gardens between them
    city = bowl(1050, 2420, 300, 270) + wide * np.float32(0.6) + middle * np.float32(0.3)
    city = (city + np.float32(0.42) * step > 0) & (lake < -0.1) & (relief < 0.42) & (river > 12)
    land[city] = 22
    land[city & (_hash(15, r[:, None] // 14, c[None, :] // 14) < 0.84)] = 250
    # the lake falls; salt stays in the west, wetland in the east where the river comes in
    bed = lake > 0
    wet = bed & (x > 1350 + wide * 500)
    depth = lake - (np.float32(0.08) + np.float32(0.09) * step)
    land[bed] = 100
    land[bed & (texture > 0.5)] = 101
    land[wet] = _steps(102, 118, texture)[wet]
    marsh = wet & (depth > -0.06)
    land[marsh] = _steps(119, 124, texture)[marsh]
    water = depth > 0
    land[water] = (207 - np.clip((np.float32(0.21) - depth[water]) / np.float32(0.03), 0, 7)).astype(np.uint8)
    # a processing defect: slanting stripes of no data and of a false ocean
    if year == 2020:
        rows, cols = tiles.pixel_slices(tiles.DEFECT_BOX, (tiles.TEACHING_WINDOW.west, tiles.TEACHING_WINDOW.north))
        stripe = (r[rows, None] * 2 + c[cols]) % 160
        land[rows, cols][stripe < 70] = legend.NODATA
        land[rows, cols][(stripe >= 70) & (stripe < 100)] = 254
    return land


def write_tile(name: str, year: int, root: str | Path = tiles.DATA) -> Path:
    """Write one tile of the sample world to ``{root}/{year}/{name}.tif``, and return its path.

    The tile has 40000 x 40000 pixels, uint8, one-row LZW strips and the legend's color table. Only ``50N_120W`` has the
    detailed teaching window. The file gets its name only when it is complete.

    Raises
    ------
    workshop.tiles.TileError
        If the year or the name is not one of GLAD's, or the written file is incomplete (a full disk).
    """
    path = Path(tiles.tile_path(name, year, root))
    path.parent.mkdir(parents=True, exist_ok=True)
    lon, lat = tiles.tile_corner(name)
    cells = coarse_landscape(name, year)
    rows, cols = tiles.pixel_slices(tiles.TEACHING_WINDOW, (lon, lat))
    window = teaching_window(year) if name == tiles.SAMPLE_TILE else None

    shape = {"width": tiles.TILE_SIZE, "height": tiles.TILE_SIZE, "count": 1, "dtype": "uint8"}
    place = {"crs": "EPSG:4326", "transform": from_origin(lon, lat, tiles.RESOLUTION, tiles.RESOLUTION)}
    layout = {"driver": "GTiff", "compress": "LZW", "blockysize": 1, "photometric": "palette"}
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with rasterio.open(partial, "w", **shape, **place, **layout) as dst:
            dst.write_colormap(1, legend.palette())
            dst.update_tags(TIFFTAG_IMAGEDESCRIPTION=LABEL)
            for top in range(0, tiles.TILE_SIZE, BAND):
                band = np.repeat(np.repeat(cells[top // CELL : (top + BAND) // CELL], CELL, axis=0), CELL, axis=1)
                if window is not None and rows.start <= top < rows.stop:
                    band[:, cols] = window[top - rows.start : top - rows.start + BAND]
                dst.write(band, 1, window=Window(0, top, tiles.TILE_SIZE, BAND))
        tiles.check_tile(str(partial), name, year)  # GDAL does not always report a full disk
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _is_current(name: str, year: int) -> bool:
    """Whether a tile is a complete one of this sample world, or a user's own tile, which we leave alone."""
    path = tiles.tile_path(name, year, tiles.DATA)
    try:
        with rasterio.open(path) as src:
            description = src.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
        if not description.startswith("SYNTHETIC"):
            return True
        tiles.check_tile(path, name, year)
    except (RasterioIOError, tiles.TileError):
        return False
    return description == LABEL


def ensure_tiles(names: tuple[str, ...] = (tiles.SAMPLE_TILE,), years: tuple[int, ...] = tiles.YEARS) -> None:
    """Write the tiles of the sample world that are not in ``data/`` yet, two at a time, with a progress bar.

    Tiles of an older sample world are written again. Real tiles are left alone.
    """
    wanted = [(name, year) for name in names for year in years if not _is_current(name, year)]
    if wanted:
        with ThreadPoolExecutor(2) as pool:
            written = pool.map(lambda job: write_tile(*job), wanted)
            list(tqdm(written, total=len(wanted), desc="writing the sample world", unit=" tiles"))


def _wave(phase: np.ndarray) -> np.ndarray:
    """Return a wave of period 1 made of parabolas: 0 at 0, 1 at a quarter, -1 at three quarters."""
    half = phase % 1 * 2
    rising = half % 1 * (1 - half % 1) * 4
    return np.where(half < 1, rising, -rising)


def write_air(path: str | Path, first_year: int = 2013, last_year: int = 2014) -> Path:
    """Write a netCDF with the shape and encoding of xarray's tutorial file ``air_temperature``, but synthetic values.

    Two years give ``air (time 2920, lat 25, lon 53)``: every six hours, 75 to 15 degrees north, 200 to 330 degrees
    east, in steps of 2.5 degrees. Values are kelvin times 100 as big-endian int16, uncompressed and contiguous.

    The first and last years are complete, and the same years give the same bytes.
    """
    times = pd.date_range(f"{first_year}-01-01", f"{last_year}-12-31T18", freq="6h")
    lat, lon = np.arange(75, 14, -2.5), np.arange(200, 331, 2.5)
    step = (times - pd.Timestamp("1970-01-01")) // pd.Timedelta("6h")
    summer = _wave((times.day_of_year.to_numpy() - 105) / 365.25)  # highest in the middle of July
    noon = _wave((times.hour.to_numpy()[:, None] + lon / 15) / 24 - 0.375)  # highest at three in the afternoon
    weather = _noise(step.to_numpy(), np.arange(lon.size), 12, 21)[:, None, :].astype(float)
    weather = weather + _noise(step.to_numpy(), np.arange(lat.size), 7, 22)[:, :, None] - 1
    kelvin = 300 - (lat - 15)[:, None] * 0.55 + summer[:, None, None] * (2 + (lat - 15)[:, None] * 0.28)
    kelvin = kelvin + 3 * noon[:, None, :] + 9 * weather
    dataset = xr.Dataset(
        {"air": (("time", "lat", "lon"), np.round(kelvin * 100).astype(">i2"), {"scale_factor": 0.01, "units": "K"})},
        coords={"time": times, "lat": lat.astype(np.float32), "lon": lon.astype(np.float32)},
        attrs={"title": "SYNTHETIC air temperature of the shape of xarray's tutorial file, not observed"},
    )
    dataset["air"].attrs["long_name"] = "air temperature"
    plain = {"_FillValue": None}
    encoding = {"air": plain | {"contiguous": True}, "lat": plain, "lon": plain}
    encoding["time"] = plain | {"units": "hours since 1800-01-01", "dtype": "float32"}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return Path(path)


if __name__ == "__main__":
    ensure_tiles()
