"""Checks of lesson 10 (a cube from your own rasters), and the synthetic data that its exercises are about."""

from pathlib import Path
from typing import NamedTuple

import icechunk
import numpy as np
import pandas as pd
import rasterio
import rioxarray  # noqa: F401, registers the accessor
import xarray as xr
import zarr
from affine import Affine
from zarr.abc.store import Store
from zarr.errors import GroupNotFoundError

from workshop.exercises.verdicts import NotRightError, exercise

CODES, NODATA = (0, 10, 30, 207, 244, 250), 255  # of GLAD's legend
DEGREES, WEST, NORTH = 0.0025, -112.0, 41.0  # a pixel of the land cover, and where most of its maps begin
COLUMNS, ROWS = np.arange(-10, 131) + 0.5, np.arange(-6, 100) + 0.5  # of its grid: most maps fit, and all are inside


class _Map(NamedTuple):
    """A year of land cover; where it begins is given in pixels, east of WEST and south of NORTH."""

    year: int
    version: int = 1
    east: float = 0
    south: float = 0
    columns: int = 120
    rows: int = 100
    south_up: bool = False


MAPS = (
    _Map(2000),
    _Map(2004, south_up=True),
    _Map(2008, east=0.75, south=0.25, columns=110, rows=90),
    _Map(2012),
    _Map(2012, version=2),
    _Map(2016, east=30.75, south=20.25, columns=100, rows=60, south_up=True),
    _Map(2020, east=-10, south=-6),
)
NEWEST = {one.year: one for one in MAPS}


def _draw(one: _Map) -> np.ndarray:
    """Return the classes of a map, north up, in patches of 4 x 4 pixels; some patches have no data."""
    random, size = np.random.default_rng([one.year, one.version]), (one.rows // 4 + 1, one.columns // 4 + 1)
    patches = random.choice(np.array([*CODES, NODATA], "uint8"), size)
    return np.kron(patches, np.ones((4, 4), "uint8"))[: one.rows, : one.columns]


def _on_grid(one: _Map) -> np.ndarray:
    """Return a map on the grid: for each center of a pixel, the pixel of the map that holds it, or no data."""
    row, col = np.floor(ROWS - one.south).astype(int), np.floor(COLUMNS - one.east).astype(int)
    inside = np.outer((row >= 0) & (row < one.rows), (col >= 0) & (col < one.columns))
    return np.where(inside, _draw(one)[np.ix_(row % one.rows, col % one.columns)], NODATA)


def write_land_cover(folder: str | Path) -> Path:
    """Write yearly maps of land cover, as awkward as real ones, into a folder, and return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for one in MAPS:
        pixels = _draw(one)
        place = Affine(DEGREES, 0, WEST + one.east * DEGREES, 0, -DEGREES, NORTH - one.south * DEGREES)
        if one.south_up:
            pixels, place = pixels[::-1], place @ Affine.translation(0, one.rows) @ Affine.scale(1, -1)
        path, shape = folder / f"cover_{one.year}_v{one.version}.tif", {"width": one.columns, "height": one.rows}
        with rasterio.open(path, "w", **shape, count=1, dtype="uint8", crs="EPSG:4326", transform=place) as dst:
            dst.write(pixels, 1)
            dst.descriptions = ("cover",)
    return folder


def surface_temperature() -> xr.Dataset:
    """Return the temperature of a valley on three days, in kelvin: snow melts, roofs are hot, clouds are NaN."""
    kelvin = np.random.default_rng(10).normal(290, 9, (3, 120, 200)).clip(250, 320)
    kelvin[0, :40], kelvin[1, 50:60, 90:110], kelvin[2, 20:70, 120:170] = 273.15, 333.4, np.nan
    days = pd.to_datetime(["2021-02-10", "2021-07-12", "2021-09-14"])
    return xr.Dataset({"kelvin": (("time", "y", "x"), kelvin.astype("float32"))}, {"time": days})


@exercise(
    "10-1",
    expects="a Zarr store or its path",
    hint="How many steps of 0.01 K fit between 250 and 334 K, and how far does int16 reach from 0? `add_offset` is the "
    "temperature that is stored as 0.",
    more="""Fill the gaps. The two fill values are the same number, which no temperature may have:

```python
half_as_large = scratch / "heat.zarr"
how = {"dtype": ____, "scale_factor": 0.01, "add_offset": ____, "_FillValue": ____, "fill_value": ____}
heat.to_zarr(half_as_large, mode="w", encoding={"kelvin": how}, consolidated=False)
```""",
)
def _packed(store: str | Path | Store) -> str:
    if not isinstance(store, str | Path | Store):
        raise NotRightError(f"Expected a path, such as `scratch / 'heat.zarr'`, found {type(store).__name__}.")
    try:
        array = zarr.open_array(store, path="kelvin", mode="r")
    except FileNotFoundError:
        raise NotRightError("There is no array `kelvin` in this store: expected what `to_zarr` wrote to.") from None
    dtype, right = array.dtype, surface_temperature()["kelvin"].values
    if dtype.itemsize != 2 or dtype.kind not in "iu" or array.shape != right.shape:
        raise NotRightError(f"Expected {right.shape} integers of two bytes (`dtype`), found {array.shape} of {dtype}.")
    kelvin = xr.open_zarr(store, consolidated=False)["kelvin"]
    step, offset = kelvin.encoding.get("scale_factor", 1), kelvin.encoding.get("add_offset", 0)
    if (fill := kelvin.encoding.get("_FillValue")) is None:
        raise NotRightError("There is no _FillValue, so the clouds have become numbers.")
    if array.fill_value != fill:
        none = array.fill_value * step + offset
        raise NotRightError(f"Chunks that aren't stored read as {none:g} K: _FillValue and `fill_value` must agree.")
    gaps = np.isnan(right)
    found, right = kelvin.values[~gaps], right[~gaps]
    if lost := np.isnan(found).sum():
        taken = f"{fill * step + offset:g} K, which occurs"
        raise NotRightError(f"{lost:,} measurements are lost: _FillValue {fill} means {taken}. Take another number.")
    off = found - right
    worst = np.abs(off).argmax()
    example = f"{right[worst]:.3f} K reads as {found[worst]:.3f} K"
    if np.isclose(np.abs(off[worst]), 65536 * step, rtol=1e-3):
        most = np.iinfo(dtype).max * step + offset
        raise NotRightError(f"{example}: it wrapped around, because {most:.2f} K is the most that fits.")
    if np.abs(off[worst]) > 0.0051:
        raise NotRightError(f"{example}. A step is {step:g} K, 0 is {offset:g} K; rounding errs by up to half a step.")
    if not np.isnan(kelvin.values[gaps]).all():
        raise NotRightError("Clouds read as numbers: they must be stored as _FillValue.")
    return "Two bytes per number, all true to 0.005 K, and gaps stay gaps, even where nothing was written."


DATES = pd.DatetimeIndex(["2021-03-10T10:32", "2021-04-11T10:41", "2021-05-13T10:32"])
SCENES = np.random.default_rng(3).integers(500, 9000, (3, 40, 60)) * 0.0001
SCENES[1, :, 40:] = np.nan  # April's scene is narrow


def march_and_may() -> tuple[icechunk.Repository, xr.Dataset]:
    """Return a repository with two scenes of a vegetation index, and a scene that was taken between them."""
    y, x = 4_342_000 - 20 * (np.arange(40) + 0.5), 752_000 + 20 * (np.arange(60) + 0.5)
    ndvi = xr.Dataset({"ndvi": (("time", "y", "x"), SCENES)}, {"time": DATES, "y": y, "x": x})
    packing = {"dtype": "int16", "scale_factor": 0.0001, "_FillValue": -9999, "fill_value": -9999}
    time = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    encoding = {"ndvi": packing | {"chunks": (1, 20, 30)}, "time": time}
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repo.writable_session("main")
    ndvi.isel(time=[0, 2]).to_zarr(session.store, encoding=encoding, consolidated=False)
    session.commit("March and May")
    return repo, ndvi.isel(time=[1], x=slice(40))


@exercise(
    "10-2",
    expects="the repository `valley` with three scenes",
    hint="One writable session does both: `make_room` at the scene's time, then `to_zarr` into the region, as in "
    "lesson 05. Then commit once.",
    more="""Fill the gaps. `region="auto"` finds the place by the coordinates time, y and x:

```python
session = valley.____("main")
make_room(session, april.indexes["time"][0])
april.to_zarr(session.store, region=____, consolidated=False)
session.____("Insert the scene of April 11")
inserted = valley
```""",
)
def _inserted(repo: icechunk.Repository) -> str:
    commits, session = [*repo.ancestry(branch="main")], repo.readonly_session("main")
    found = xr.open_zarr(session.store, consolidated=False)
    dates, again = found.indexes["time"], "Run the cell that makes `valley` again."
    if len(commits) == 2 and len(dates) == 2:
        raise NotRightError("main is as it was: changes that aren't committed are in no snapshot.")
    if [*dates] != [*DATES]:
        raise NotRightError(f"Expected the dates {[*map(str, DATES)]} in order, found {[*map(str, dates)]}. {again}")
    if np.isnan(found["ndvi"][1]).all():
        raise NotRightError(f"There is room for April, but no pixel: write `april` into its region. {again}")
    if not np.allclose(found["ndvi"], SCENES, rtol=0, atol=1e-6, equal_nan=True):
        raise NotRightError(f"These aren't the pixels of all three scenes. {again}")
    units, first = found["time"].encoding["units"], repo.readonly_session(snapshot_id=commits[-2].id)
    if units != "seconds since 1970-01-01" or session.get_node_id("/ndvi") != first.get_node_id("/ndvi"):
        raise NotRightError(f"The arrays aren't those of `valley` anymore: write only what is new. {again}")
    if len(commits) != 3:
        raise NotRightError(f"Expected one commit, found {len(commits) - 2}: readers saw the state in between. {again}")
    return "April is in its place, in one commit, and March and May weren't written again."


@exercise(
    "10-3",
    expects="a repository with the cube cover (time, y, x), committed on main",
    hint="""Fill the gaps. Six settings differ from those of section 1. The last two lines are calls of functions of \
sections 6 and 7:

```python
FOLDER, DATE, FORMAT, VERSION = cover_folder, ____, ____, ____
CLASSES, NODATA = ____, ____
cover_stock = take_stock()
cover_files = usable(cover_stock)
land_cover = icechunk.Repository.create(icechunk.in_memory_storage())
____  # the dates and the grid, without pixels
____  # every date that is missing
```""",
    more=r"The year is four digits between underscores, `_(\d{4})_`, and `strptime` calls it `%Y`. The version is the "
    r"number in `_v2`, so use `_v(\d+)`. The band is called `cover`, and 255 means no data. `create` takes "
    "`choose_grid(cover_files)` as its grid, and `update` takes the stock. If the functions refuse a file, their error "
    "names the setting. Begin again with a new repository when you change one.",
)
def _cover(repo: icechunk.Repository) -> str:
    try:
        store = repo.readonly_session("main").store
        cube = xr.open_zarr(store, consolidated=False, decode_coords="all", chunks=None)
    except (FileNotFoundError, GroupNotFoundError):
        raise NotRightError("Its branch main has no cube yet: `create` commits one.") from None
    cover, years = cube["cover"].transpose("time", "y", "x"), cube.indexes["time"].year.to_list()
    if cover.dtype != np.uint8:
        raise NotRightError(f"The classes have become {cover.dtype}: codes must stay uint8. Name the band in CLASSES.")
    if years != [*NEWEST]:
        raise NotRightError(f"Expected the years {[*NEWEST]}, in order and each once, found {years}.")
    if cube.rio.crs != "EPSG:4326":
        raise NotRightError(f"The CRS is {cube.rio.crs}: the grid has the right one, so create the cube from it.")
    for name, wanted in (("x", WEST + COLUMNS * DEGREES), ("y", NORTH - ROWS * DEGREES)):
        if (size := cube[name].size) != wanted.size or np.abs(cube[name].values - wanted).max() > 0.01 * DEGREES:
            raise NotRightError(
                f"{name} has {size} pixels from {cube[name].values[0]:.7g} on, expected {wanted.size} from "
                f"{wanted[0]:.7g} on: give `choose_grid` all files, and it returns the grid that most of them share."
            )
    for (year, one), found in zip(NEWEST.items(), cover.values, strict=True):
        right = _on_grid(one)
        if np.array_equal(found, right):
            continue
        if (found == found[0, 0]).all():
            raise NotRightError(f"There are no pixels of {year} in main: write the date, and commit the session.")
        if found[-1, -1] == 0:  # no map reaches this corner
            raise NotRightError(f"In {year}, there is 0 where there is no map, and 0 is a class: NODATA is 255 here.")
        for other in MAPS:
            if other != one and (found == _on_grid(other))[_on_grid(other) != NODATA].all():
                raise NotRightError(f"Under {year} are pixels of {other.year}, version {other.version}. Set VERSION.")
        raise NotRightError(f"{(found != right).sum():,} pixels of {year} aren't the nearest of its file.")
    return "Six years on one grid, in a repository, and no class that wasn't in a file."
