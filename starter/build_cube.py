"""Build the cube from the folder, several dates at the same time. Run it once; update_cube.py does the rest."""

import dask.array
import icechunk
import numpy as np
import pandas as pd
import xarray as xr
from dask.distributed import Client

import rasters
import update_cube


def create(repo: icechunk.Repository, files: pd.DataFrame, grid: xr.Dataset) -> None:
    """Commit a cube that has the dates, the grid and the description, and no pixels yet."""
    if empty := [name for name, text in rasters.ABOUT.items() if not text]:
        raise ValueError(f"ABOUT: expected a title, a license and a source; found no {', no '.join(empty)}")
    dates, where = np.unique(files["date"]), rasters.describe(grid)
    shape, stored = (len(dates), grid.sizes["y"], grid.sizes["x"]), rasters.encodings(files)
    if unknown := {*rasters.CLASSES} - {*stored}:
        raise ValueError(f"CLASSES: expected bands of the files, such as {next(iter(stored))}; found {unknown}")
    bands = {}
    for name in [name for name in stored if name != "time"]:
        empty = dask.array.zeros(shape, dtype=stored[name]["dtype"], chunks=-1)  # nothing is computed
        bands[name] = ("time", "y", "x"), empty, where
    cube = grid.assign(bands).assign_coords(time=dates).assign_attrs(rasters.ABOUT | where | {"sources": {}})
    session = repo.writable_session("main")
    cube.to_zarr(session.store, encoding=stored, compute=False, consolidated=False)
    session.commit("Create the cube")


def main() -> None:
    """Create the cube; then Dask's workers write the dates, and one commit holds them all."""
    again = "to build again with other settings, delete the folder `cube`, or set another CUBE_PREFIX"
    stock = rasters.take_stock()
    files = rasters.usable(stock)
    print(stock[["file", "date", "version", "problem"]].to_string(na_rep=""))
    grid = rasters.choose_grid(files)
    repo = icechunk.Repository.open_or_create(rasters.storage())
    if len(list(repo.ancestry(branch="main"))) > 1:
        raise SystemExit(f"the cube exists: update_cube.py completes it; {again}")
    create(repo, files, grid)
    session = repo.writable_session("main")
    days = [day for _, day in files.groupby("date")]
    with Client(dashboard_address="127.0.0.1:0") as client:
        written = [client.submit(update_cube.write, session.fork(), day) for day in days]
        try:
            session.merge(*client.gather(written))
        except ValueError as error:
            raise SystemExit(f"{error}\nupdate_cube.py writes the other dates; {again}") from error
    for day in days:
        update_cube.record(session, day)
    session.commit(f"Write {len(days)} dates")
    update_cube.tag(repo)


if __name__ == "__main__":  # Dask's workers import this file, too
    main()
