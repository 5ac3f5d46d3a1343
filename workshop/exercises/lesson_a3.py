"""Checks of appendix A3 (when references break, and when to copy)."""

from pathlib import Path

import icechunk
import numpy as np
import xarray as xr
import zarr

from workshop.exercises.boxes import read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.sample import write_air
from workshop.tiles import YEARS, Box

# Each year is whole, in one chunk of 1460 times, except for the leap year.
MISFITS = {
    "air-2015.nc": "its scale_factor is 0.02, so its temperatures would read as half",
    "air-2016.nc": "it is a leap year, so its one chunk is larger",
    "air-2017.nc": "it is little-endian, which is another codec",
    "air-2019.nc": "it has the times of 2013, which concat does not compare",
}
FITTING = {"air-2014.nc", "air-2018.nc"}
STACK = Box(west=-112.5, south=40.625, east=-111.5, north=40.875)


def yearly_archive(folder: str | Path) -> list[Path]:
    """Write seven netCDF files, one per year from 2013, of which some do not fit the first; return their paths."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    paths = []
    for year in range(2013, 2020):
        path = write_air(folder / f"air-{year}.nc", *[2013 if year == 2019 else year] * 2)
        paths.append(path)
        if year in (2015, 2017):
            with xr.open_dataset(path, engine="h5netcdf", mask_and_scale=False) as file:
                other = file.load()
            if year == 2015:
                half = (other["air"] / 2).round().astype("int16")
                other["air"] = half.assign_attrs(other["air"].attrs, scale_factor=0.02)
            how = {"dtype": "<i2" if year == 2017 else ">i2", "contiguous": True}
            other.to_netcdf(path, engine="h5netcdf", encoding={"air": how})
    return paths


@exercise(
    "a3-1",
    expects="a set of file names",
    hint="""Try to concatenate each file with the first one, as `combine` does in this section. These lines are out of
order, and one check is missing:

```python
misfits.add(file.name)
except (ValueError, NotImplementedError):
misfits = set()
try:
for file in archive[1:]:
xr.concat([first, other], dim="time", coords="minimal", compat="equals", combine_attrs="no_conflicts")
other = open_virtual(file)
first = open_virtual(archive[0])
```""",
    more="`concat` compares type, codecs, chunks, attributes, `lat` and `lon`, but not the times. So also check "
    'whether `other["time"][0] > first["time"][-1]`.',
)
def _misfits(answer: set[str]) -> str:
    if not isinstance(answer, set | frozenset | list | tuple):
        raise NotRightError(f"Expected a set of names, such as {{'air-2014.nc'}}, found {type(answer).__name__}.")
    names = {Path(name).name for name in answer}
    if unknown := sorted(names - MISFITS.keys() - FITTING):
        raise NotRightError(f"Expected names of files that the first one is compared with, found {unknown[0]}.")
    if wrong := sorted(names & FITTING):
        raise NotRightError(f"{wrong[0]} fits: its type, codecs, chunks, attributes, lat, lon and times are all fine.")
    missing = sorted(MISFITS.keys() - names)
    if missing == ["air-2019.nc"]:
        raise NotRightError("One is missing. concat compares encodings and attributes. What about the times?")
    if missing == ["air-2015.nc"]:
        raise NotRightError("One is missing. Its type, codecs and chunks agree. Do its attributes?")
    if missing:
        raise NotRightError(f"{len(missing)} of 4 are missing. Compare everything that the task lists.")
    return "Four misfits: " + "; ".join(f"{name[4:8]}, {why}" for name, why in MISFITS.items()) + "."


@exercise(
    "a3-2",
    expects="the repository by_reference, with the copy committed on main",
    hint="""Fill in the gaps:

```python
pixels = xr.open_zarr(by_reference.readonly_session("main").store, consolidated=False, chunks=None)
session = by_reference.____("main")
how = {"chunks": (____), "fill_value": ____}
to_icechunk(pixels, session, group="____", mode="w", encoding={"lulc": how})
session.____("A copy for maps")
with_maps = by_reference
```""",
    more="A map of 500 pixels touches at most two chunks along an axis if a chunk is at least 499 pixels wide. 300,000 "
    "bytes are 547 x 547 pixels of one year.",
)
def _with_maps(repo: icechunk.Repository) -> str:
    session = repo.readonly_session("main")
    root = zarr.open_group(session.store, mode="r")
    if "maps/lulc" not in root:
        raise NotRightError(f"There is no group maps with the array lulc on main, found {sorted(root.keys())}.")
    if "lulc" not in root or str(session.chunk_type("/lulc", [0, 0, 0])) != "ChunkType.virtual":
        raise NotRightError("The copy is there, but the references are not. Add the copy to by_reference.")
    array = root["maps/lulc"]
    if array.dtype != np.uint8:
        raise NotRightError(f"The classes have become {array.dtype}: copy them as uint8, without masking.")
    size = int(np.prod(array.chunks))
    if size > 300_000:
        raise NotRightError(f"A chunk has {size:,} bytes uncompressed, more than 300,000.")
    touched = int(np.prod([-(-499 // chunk) + 1 for chunk in array.chunks[1:]]))
    if touched > 4:
        raise NotRightError(f"A map of 500 x 500 can touch {touched} chunks of {array.chunks[1:]}, more than 4.")
    if array.fill_value != 255:
        raise NotRightError(f"Chunks that were never written would read as {array.fill_value}: set the fill value.")
    if not np.array_equal(array[:], np.stack([read_box(year, STACK) for year in YEARS])):
        raise NotRightError("The pixels are others than in the tiles. Copy what you read from the references.")
    return "Maps are fast now, the references are still there, and readers choose by the group."
