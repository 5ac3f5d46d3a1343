"""Bring the cube up to date: write what is new in the folder, one commit per date. Run it as often as you like."""

import hashlib
from datetime import UTC, datetime

import icechunk
import numpy as np
import pandas as pd
import xarray as xr
import zarr

import rasters


def sources(files: pd.DataFrame) -> dict[str, str]:
    """Return the names and the checksums of the files of a date."""
    return {name: hashlib.sha256((rasters.FOLDER / name).read_bytes()).hexdigest() for name in files["file"]}


def lost(made: dict[str, str], files: pd.DataFrame, stock: pd.DataFrame) -> list[str]:
    """Return the files that a date was made from and that are missing or broken now."""
    broken = {*stock.loc[stock["problem"] != "", "file"]}
    return [name for name in made if name in broken or rasters.processing(name)[0] not in {*files["scene"]}]


def outside(files: pd.DataFrame, grid: xr.Dataset) -> list[str]:
    """Return the files that reach beyond the grid, by more than a pixel."""
    (width, height), (west, south, east, north) = np.abs(grid.rio.resolution()), grid.rio.bounds()
    found = []
    for file in files.itertuples():
        left, bottom, right, top = rasters.box_in(grid.rio.crs.to_string(), file)
        if left < west - width or bottom < south - height or right > east + width or top > north + height:
            found.append(file.file)
    return found


def expect_fit(files: pd.DataFrame, cube: xr.Dataset) -> None:
    """Raise ValueError if the cube has to be built in another way for the files of a date."""
    for file in files.itertuples():
        for name in file.bands:
            if name not in cube:
                raise ValueError(f"{file.file} has the band {name}, expected {', '.join(cube)}: build another cube")
            if name not in rasters.CLASSES and (text := rasters.misfit(file, cube[name].encoding)):
                raise ValueError(text)
    step = cube.drop_vars({name for bands in files["bands"] for name in bands}).reindex(time=files["date"].iloc[:1])
    for name, band in step.items():
        if (band.notnull() & (band != cube[name].encoding["fill_value"])).any():
            raise ValueError(f"{name} of this date came from an older file: get one that has it, or build another cube")


def make_room(session: icechunk.Session, date: pd.Timestamp) -> None:
    """Insert an empty step where the date belongs. Chunks get new numbers; none of them is written again."""
    dates = rasters.read(session).indexes["time"].union([date])
    here = dates.get_loc(date)
    group = zarr.open_group(session.store)
    for name in [name for name, array in group.arrays() if array.ndim == 3]:
        group[name].resize((len(dates), *group[name].shape[1:]))
        session.reindex_array(
            f"/{name}",
            forward=lambda chunk: [chunk[0] + (chunk[0] >= here), *chunk[1:]],
            backward=lambda chunk: None if chunk[0] == here else [chunk[0] - (chunk[0] > here), *chunk[1:]],
        )
    group["time"].resize(len(dates))
    group["time"][:] = dates.astype("datetime64[s]").astype("int64")


def write(session: icechunk.Session, files: pd.DataFrame) -> icechunk.Session:
    """Write the files of a date into its step, and check that the cube reads back what was meant."""
    cube = rasters.read(session)
    step = rasters.step_of(files, cube)
    step.drop_vars(["x", "y"]).to_zarr(session.store, region={"time": "auto"}, consolidated=False)
    written = rasters.read(session).sel(time=step.time)
    for name, band in step.items():
        stored = written[name]
        half = 0.51 * stored.encoding.get("scale_factor", 1)
        if stored.encoding["dtype"].kind == "f":  # numbers were packed and unpacked, which rounds them
            half = 1e-6 * (abs(band) + abs(stored.encoding.get("add_offset", 0)))
        other = (abs(stored - band.astype(stored.dtype)) > half) | (stored.isnull() != band.isnull())
        if count := int(other.sum().compute(scheduler="threads")):  # chunk by chunk, here and not in other workers
            text = f"{name} of {list(files['file'])}: expected to read what was written, found {count} other numbers"
            raise ValueError(
                f"{text}: do they fit into {stored.encoding['dtype']}, and is none of them the number for no data?"
            )
    return session


def record(session: icechunk.Session, files: pd.DataFrame) -> dict:
    """Note in the cube which files a date was made from."""
    group = zarr.open_group(session.store)
    made = {files["date"].iloc[0].isoformat(): sources(files)}
    group.attrs["sources"] = group.attrs["sources"] | made
    return made


def tag(repo: icechunk.Repository) -> None:
    """Give the tip of main a name that stays, unless it has one."""
    tip = repo.lookup_branch("main")
    if tip not in [repo.lookup_tag(name) for name in repo.list_tags()]:
        repo.create_tag(f"{datetime.now(UTC):%Y-%m-%d.%H%M%S.%f}", tip)


def update(repo: icechunk.Repository, stock: pd.DataFrame) -> None:
    """Write each date whose files are new or have changed. Each is a commit, so a run that was killed can go on."""
    cube, refused = rasters.read(repo.readonly_session("main")), 0
    for date, day in stock.groupby("date"):
        session = repo.writable_session("main")
        try:
            files, made = rasters.usable(day), cube.attrs["sources"].get(date.isoformat(), {})
            if made == sources(files):
                continue
            if gone := lost(made, files, stock):
                raise ValueError(f"was made from files that are missing or broken now: {', '.join(gone)}")
            expect_fit(files, cube)
            if beyond := outside(files, cube):
                print("cut off:", date, "reaches beyond the cube in", *beyond)
            if date not in cube.indexes["time"]:
                make_room(session, date)
            write(session, files)
        except ValueError as error:  # the other dates are written all the same
            print("not changed:", date, error)
            refused += 1
            continue
        session.commit(f"Write {date}", metadata=record(session, files))
        print("written:", date)
    tag(repo)
    if refused:
        raise ValueError(f"expected to write all dates, found {refused} that were not changed: see the reasons above")


def main() -> None:
    """Open the cube and bring it up to date."""
    storage = rasters.storage()
    repo = icechunk.Repository.open(storage) if icechunk.Repository.exists(storage) else None
    if repo is None or len(list(repo.ancestry(branch="main"))) == 1:  # which is Icechunk's own commit
        raise SystemExit("there is no cube yet: build_cube.py builds it")
    stock = rasters.take_stock()
    for line in stock[stock["problem"] != ""].itertuples():
        print("left out:", line.file, line.problem)
    update(repo, stock)


if __name__ == "__main__":
    main()
