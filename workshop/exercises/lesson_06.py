"""Checks of lesson 06 (references)."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import icechunk
import numpy as np
import rasterio
import zarr
from zarr.errors import GroupNotFoundError

from workshop.exercises.boxes import read_box, recognize
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.sample import write_air
from workshop.tiles import DEFECT_BOX, RESOLUTION, SAMPLE_TILE, TILE_SIZE, gdal_path, tile_path


@cache
def _air_file(first_year: int = 2013, last_year: int = 2014) -> tuple[int, np.ndarray]:
    """Return where the values begin in the lesson's netCDF file, and the stored integers (time, lat, lon)."""
    with TemporaryDirectory() as folder, h5py.File(write_air(Path(folder) / "air.nc", first_year, last_year)) as file:
        return file["air"].id.get_offset(), file["air"][:]


@exercise(
    "06-1",
    expects="a whole number: a position in the file in bytes",
    hint="How many values come before it? How many bytes does each take? And where does the first one begin?",
    more="1000 whole time steps (25 x 53 values each), 10 whole rows of 53 values, and 20 values of its own row come "
    "before it. The manifest has the position of the first one.",
)
def _position(answer: int) -> str:
    offset, values = _air_file()
    answer, wanted = float(answer), (1000, 10, 20)
    index, other_order = (int(np.ravel_multi_index(wanted, values.shape, order=order)) for order in "CF")
    if answer == offset + index * 2:
        stored = int(values[wanted])
        return f"The bytes there are {stored.to_bytes(2, 'big').hex(' ')}, which is {stored} or {stored / 100} K."
    recognize(
        answer,
        (index, "That many values come before it. Each takes two bytes, and the first is not at byte 0."),
        (index * 2, "That is the distance from the first value. Where in the file does that one begin?"),
        (offset + index, "Each value takes two bytes: int16 is 16 bits."),
        (offset + other_order * 2, "That is the place if time varied fastest. The last axis (longitude) does."),
    )
    if not offset <= answer < offset + values.nbytes:
        raise NotRightError(f"That is outside the array, the bytes {offset:,} to {offset + values.nbytes - 1:,}.")
    if (answer - offset) % 2:
        raise NotRightError("That is the middle of a value: each begins an even number of bytes after the first.")
    found = tuple(int(k) for k in np.unravel_index(int(answer - offset) // 2, values.shape))
    raise NotRightError(f"That is where the value at the indices {found} starts. We want {wanted}.")


def _open(repo: icechunk.Repository) -> tuple[icechunk.Session, zarr.Group]:
    """Return a session of main, and the group that was committed there."""
    session = repo.readonly_session("main")
    try:
        return session, zarr.open_group(session.store, mode="r")
    except GroupNotFoundError:
        raise NotRightError("main is empty: write the references in a session, then commit it.") from None


def _follow(session: icechunk.Session, path: str, place: tuple[slice, ...] = ()) -> np.ndarray:
    """Return values of an array, which must be references, or raise why they cannot be read."""
    array = zarr.open_array(session.store, path=path, mode="r")
    kinds = {str(session.chunk_type(f"/{path}", [k, 0, 0])) for k in range(array.cdata_shape[0])}
    if kinds != {"ChunkType.virtual"}:
        raise NotRightError(f"{path}: the values were copied. Expected references (`open_virtual_dataset`, then `vz`).")
    try:
        return array[place]
    except icechunk.IcechunkError as error:
        reason = str(error)
        if "authorize" in reason:
            reason = "create or open the repository with authorize_virtual_chunk_access, as in the lesson."
        raise NotRightError(f"{path}: the references cannot be followed: {reason}") from None


@exercise(
    "06-2",
    expects="the repository",
    hint="Create the repository, open one session, write each year's references into a group of its own, and commit "
    "once, after the loop.",
    more='In the loop over the years: `open_virtual(folder / f"air-{year}.nc").vz.to_icechunk(session.store, '
    "group=str(year))`.",
)
def _groups(repo: icechunk.Repository) -> str:
    session, root = _open(repo)
    if sorted(root.keys()) == ["2013"]:
        raise NotRightError("Only 2013 was committed, and a session ends with its commit: commit once, after the loop.")
    for year in (2013, 2014, 2015, 2016):
        if f"{year}/air" not in root:
            raise NotRightError(f"There is no group {str(year)!r} with the array air; found {sorted(root.keys())}.")
        if not np.array_equal(_follow(session, f"{year}/air"), _air_file(year, year)[1]):
            raise NotRightError(f"{year}: the references lead to other values. Is this the file of {year}?")
    return "Four groups, two chunk sizes, and no value copied."


@exercise(
    "06-3",
    expects="the repository",
    hint="""Fill in the gaps:

```python
def references_of(year):
    url, registry = virtual.locate_tile("50N_120W", year)
    raw = open_virtual_dataset(url, registry=registry, parser=____)
    return raw.rename({"0": "lulc"}).assign_coords(x=x, y=y).expand_dims(____)


mine = icechunk.Repository.create(bucket.icechunk("mine"), tile_config, authorize_virtual_chunk_access=tile_access)
session = mine.writable_session("main")
references_of(2015).vz.to_icechunk(session.store)
session.commit("References into 2015")
session = mine.writable_session("main")
references_of(2020).vz.to_icechunk(session.store, ____)
session.commit("References into 2020")
```""",
    more="The parser is the one section 6 uses. `expand_dims(year=[year])` makes the year an axis. An append names the "
    "axis that grows: `append_dim=...`, as in section 5.",
)
def _own_references(repo: icechunk.Repository) -> str:
    session, root = _open(repo)
    if "lulc" not in root:
        raise NotRightError(f"There is no array lulc on main, found {sorted(root.keys())}. Rename the array 0.")
    if "source_digest" in root:
        raise NotRightError("`virtual.open_virtual_tile` made these references: call `open_virtual_dataset` yourself.")
    array = root["lulc"]
    axes = array.metadata.dimension_names or ()
    if axes != ("year", "y", "x"):
        raise NotRightError(f"Expected the axes (year, y, x), found ({', '.join(map(str, axes))}): see expand_dims.")
    if missing := [name for name in axes if name not in root]:
        raise NotRightError(f"Coordinates are missing: {', '.join(missing)}. Assign them before you write.")
    if (years := root["year"][:].tolist()) != [2015, 2020]:
        raise NotRightError(f"Expected the years [2015, 2020], found {years}: write 2015 first, then append 2020 once.")
    if array.shape[1:] != (TILE_SIZE, TILE_SIZE):
        raise NotRightError(f"Expected the whole tile, {TILE_SIZE} x {TILE_SIZE} pixels, found {array.shape[1:]}.")
    _check_centers(root["x"][:], root["y"][:])
    found = _follow(session, "lulc", np.s_[:, 36_000:37_000, 30_000:30_400])  # the box of lesson 05
    for k, year in enumerate((2015, 2020)):
        if not np.array_equal(found[k], read_box(year, DEFECT_BOX)):
            raise NotRightError(f"The pixels of {year} differ from those of its file. Does locate_tile get the year?")
    if len(list(repo.ancestry(branch="main"))) < 3:  # the first one is empty
        raise NotRightError("Both years came in one commit. Commit 2015 first, then append 2020 in a new session.")
    return "Two years, two commits, and no pixel copied."


def _check_centers(x: np.ndarray, y: np.ndarray) -> None:
    """Raise unless these are the centers of the sample tile's pixels, as rasterio has them."""
    with rasterio.open(gdal_path(tile_path(SAMPLE_TILE, 2015))) as src:
        place = src.transform
    centers = np.arange(TILE_SIZE) + 0.5
    for found, wanted in ((x, place.c + centers * place.a), (y, place.f + centers * place.e)):
        if not np.allclose(found, wanted, rtol=0, atol=0.05 * RESOLUTION):
            raise NotRightError(f"x and y begin at {x[0]}, {y[0]}. Take those of section 6, the pixels' centers.")
