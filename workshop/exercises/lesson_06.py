"""Checks of lesson 06 (references)."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import icechunk
import numpy as np
import xarray as xr
import zarr
from zarr.errors import GroupNotFoundError

from workshop.exercises.boxes import as_class_codes, check_place, read_box, recognize
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.sample import write_air
from workshop.tiles import DEFECT_BOX, RESOLUTION, TILE_SIZE, YEARS


@cache
def _air_file(first_year: int = 2013, last_year: int = 2014) -> tuple[int, np.ndarray]:
    """Return where the values begin in the lesson's netCDF file, and the stored integers (time, lat, lon)."""
    with TemporaryDirectory() as folder, h5py.File(write_air(Path(folder) / "air.nc", first_year, last_year)) as file:
        return file["air"].id.get_offset(), file["air"][:]


@exercise(
    "06-1",
    expects="a whole number: a position in the file in bytes",
    hint="How many values come before it? How many bytes has each? And where in the file does the first one begin?",
)
def _position(answer: int) -> str:
    offset, values = _air_file()
    if float(answer) != int(answer):
        raise NotRightError(f"{answer} is between two bytes: count whole values, then whole bytes.")
    answer, wanted = int(answer), (1000, 10, 20)
    index, other_order = (int(np.ravel_multi_index(wanted, values.shape, order=order)) for order in "CF")
    if answer == offset + index * 2:
        stored = int(values[wanted])
        return f"There stands {stored.to_bytes(2, 'big').hex(' ')}, which is {stored} or {stored / 100} K."
    recognize(
        answer,
        (index, "So many values come before it. Each has two bytes, and the first is not at byte 0."),
        (index * 2, "So many bytes after the first value; where in the file does that one begin?"),
        (offset + index, "Each value has two bytes: int16 is 16 bits."),
        (offset + other_order * 2, "This is the place if time ran fastest; the last axis (longitude) does."),
    )
    if not offset <= answer < offset + values.nbytes:
        raise NotRightError(f"Not in the array, which has the bytes {offset:,} to {offset + values.nbytes - 1:,}.")
    if (answer - offset) % 2:
        raise NotRightError("This is the middle of a value: each begins an even number of bytes after the first.")
    found = tuple(int(k) for k in np.unravel_index((answer - offset) // 2, values.shape))
    raise NotRightError(f"There begins the value with the indices {found}; wanted is {wanted}.")


@exercise(
    "06-2",
    expects="the repository",
    hint="to_icechunk takes a group: write each of the years into a group of its own in one session, then commit.",
)
def _groups(repo: icechunk.Repository) -> str:
    if not isinstance(repo, icechunk.Repository):
        raise NotRightError(f"Expected the repository, found {type(repo).__name__}.")
    session = repo.readonly_session("main")
    try:
        root = zarr.open_group(session.store, mode="r")
    except GroupNotFoundError:
        raise NotRightError("main is empty: write the references in a session, then commit it.") from None
    for year in (2013, 2014, 2015, 2016):
        if str(year) not in root or "air" not in root[str(year)]:
            raise NotRightError(f"There is no group {str(year)!r} with the array air; found {sorted(root.keys())}.")
        array = root[str(year)]["air"]
        _, expected = _air_file(year, year)
        if array.shape != expected.shape:
            raise NotRightError(f"{year}: expected the shape {expected.shape}, found {array.shape}: another file?")
        kinds = {str(session.chunk_type(f"/{year}/air", [k, 0, 0])) for k in range(array.cdata_shape[0])}
        if kinds != {"ChunkType.virtual"}:
            raise NotRightError(f"{year}: the values were copied; expected references (open_virtual, then vz).")
        try:
            found = array[:]
        except icechunk.IcechunkError as error:
            reason = str(error)
            if "authorize" in reason:
                reason = "create the repository with authorize_virtual_chunk_access=allowed."
            raise NotRightError(f"{year}: the references cannot be followed: {reason}") from None
        if not np.array_equal(found, expected):
            raise NotRightError(f"{year}: the references lead to other values: is this the file of {year}?")
    return "Four groups, four chunk sizes, and no value copied."


@exercise(
    "06-3",
    expects="the repository and a DataArray (y, x)",
    hint="Dataset({'lulc': (('y', 'x'), references)}, coords={'x': ..., 'y': ...}), then vz.to_icechunk and commit.",
)
def _own_references(repo: icechunk.Repository, answer: xr.DataArray) -> str:
    if not isinstance(repo, icechunk.Repository):
        raise NotRightError(f"Expected the repository first, found {type(repo).__name__}.")
    answer = as_class_codes(answer, "the pixels")
    if answer.dims != ("y", "x") or not {"y", "x"} <= set(answer.coords):
        raise NotRightError(f"Expected the dimensions (y, x) with their coordinates, found {answer.dims}.")
    if answer.size == 0:
        raise NotRightError("No pixels: y runs from north to south, so its slice must start at the northern latitude.")
    session = repo.readonly_session("main")
    try:
        stored = zarr.open_array(session.store, path="lulc", mode="r")
    except FileNotFoundError:
        raise NotRightError("There is no array lulc on main: name it so, and commit.") from None
    if stored.shape != (TILE_SIZE, TILE_SIZE):
        raise NotRightError(f"lulc has the shape {stored.shape}, expected ({TILE_SIZE}, {TILE_SIZE}): the whole tile.")
    if str(session.chunk_type("/lulc", [0, 0])) != "ChunkType.virtual":
        raise NotRightError("The pixels were copied; expected references to the tile's strips.")
    if abs((float(answer.x[0]) - DEFECT_BOX.west) / RESOLUTION % 1 - 0.5) > 0.05:
        raise NotRightError(
            "The coordinates are half a pixel off: they belong to the pixels' centers. The tiepoint is a corner where "
            "raster_type is 1, and a center already where it is 2."
        )
    check_place(answer, DEFECT_BOX)
    same = [year for year in YEARS if np.array_equal(answer.values, read_box(year, DEFECT_BOX))]
    if 2020 in same:
        return "The pixels of 2020, out of the file itself."
    if same:
        raise NotRightError(f"These are the pixels of {' or '.join(map(str, same))}; wanted are those of 2020.")
    raise NotRightError("The place is right, the pixels are not: are the rows in the file's order?")
