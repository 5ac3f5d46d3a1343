"""The datacube of one box: build it year by year, or write a region. Each step is one commit.

A cube is an Icechunk repository with the array ``lulc (year, y, x)``, uint8. Lessons 04 and 05 show these calls.
"""

import hashlib
from typing import Any

import icechunk
import numpy as np
import xarray as xr
from icechunk.xarray import to_icechunk

from workshop import conventions, legend, repository, tiles
from workshop.repository import ARRAY, CubeError
from workshop.tiles import SAMPLE_TILE, TEACHING_WINDOW, TOLERANCE, YEARS, Box

# 0 is a class, so chunks never written must read as "no data"
ENCODING = {
    ARRAY: {"chunks": (1, 500, 500), "fill_value": legend.NODATA, "grid_mapping": "spatial_ref"},
    "year": {"chunks": (64,)},
}


def build(
    storage: icechunk.Storage, years: tuple[int, ...] = YEARS, tile: str = SAMPLE_TILE, box: Box = TEACHING_WINDOW
) -> icechunk.Repository:
    """Make the cube of a box, one commit per year, or continue where an earlier run stopped.

    Parameters
    ----------
    storage
        Such as ``bucket.icechunk("cube")``.
    years
        In ascending order.
    tile, box
        The tile that contains the box, and the box in degrees.

    Raises
    ------
    workshop.tiles.TileError
        If a tile is missing or damaged.
    CubeError
        If the repository holds a cube of another box, or later years.
    """
    box = tiles.check_box(box)
    repo = repository.open_or_create(storage)
    for year in years:

        def append(session: icechunk.Session, year: int = year) -> tuple[str, dict[str, Any]] | None:
            there = repository.years(session.store)
            if there:
                _check_box(repository.open_array(session.store), box)
            if year in there:
                return None
            if there and year < there[-1]:
                raise CubeError(
                    f"appending {year}: expected a year after {there[-1]}, the cube's last year; build another cube"
                )
            layer = tiles.select_box(tiles.open_tile(tile, year), box).load()
            _check_classes(layer)
            if there:
                layer = _on_grid_of(repository.open_array(session.store), layer)
            how = {"append_dim": "year", "mode": "a-"} if there else {"encoding": ENCODING}
            to_icechunk(conventions.describe(layer.expand_dims(year=[year])), session, **how)
            # the new year is encoded like the existing ones, and may read back as another number
            if (found := repository.years(session.store)) != [*there, year]:
                raise CubeError(f"appending {year}: expected the years {[*there, year]} afterwards, found {found}")
            source = {"source": tiles.tile_source(tile, year), "author": "workshop"}
            return f"Append {year}", source | _describe(year, layer)

        repository.commit(repo, append)
    return repo


def write_region(
    repo: icechunk.Repository, year: int, patch: xr.DataArray, *, message: str, metadata: dict[str, Any] | None = None
) -> str:
    """Write a rectangle of one year and commit it, even while others commit.

    If another commit lands first, the write starts again from that commit. Both edits survive, even in one chunk.

    Parameters
    ----------
    repo, year
        The cube's repository, and one of the cube's years.
    patch : xarray.DataArray
        ``(y, x)``, uint8, on part of the cube's grid and in its CRS, with values of the legend.
    message, metadata
        Message and metadata of the commit. The year and the SHA-256 of the pixels are added to the metadata.

    Returns
    -------
    str
        The new snapshot's id.

    Raises
    ------
    CubeError
        If the patch does not fit the cube, or another commit changed the same pixels in the meantime. For other
        dimensions and for gaps, xarray raises a ValueError.
    """
    if patch.dtype != np.uint8:
        raise CubeError(f"expected class codes as uint8, found {patch.dtype}; open without masking or scaling")
    if not patch.size:
        raise CubeError("expected a patch with pixels, found none; select y with a slice from north to south")
    patch = patch.transpose("y", "x").load()
    _check_classes(patch)
    before = None

    def write(session: icechunk.Session) -> tuple[str, dict[str, Any]]:
        nonlocal before
        cube = repository.open_array(session.store)
        if year not in cube.year:
            raise CubeError(f"expected one of the cube's years {cube.year.values.tolist()}, found {year}")
        piece = _on_grid_of(cube, patch)
        now = cube.sel(year=year, y=piece.y, x=piece.x).values
        if before is not None and not np.array_equal(before, now):
            raise CubeError(
                "another commit changed these pixels while this one was being written; look at the history, and write "
                "again if your pixels should replace them"
            )
        before = now
        piece = piece.drop_vars(set(piece.coords) - {"y", "x"}).expand_dims(year=[year])
        to_icechunk(piece.to_dataset(name=ARRAY), session, group=repository.finest(session.store), region="auto")
        return message, (metadata or {}) | _describe(year, patch)

    return repository.commit(repo, write)


def digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of an array's bytes, row by row, as hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()


def _describe(year: int, layer: xr.DataArray) -> dict[str, Any]:
    return {"year": int(year), "sha256": digest(layer.values)}


def _check_classes(layer: xr.DataArray) -> None:
    unknown = np.setdiff1d(layer, legend.table().index)
    if unknown.size:
        raise CubeError(f"expected values of the legend, found {unknown[:10].tolist()}; is this a land-cover layer?")


def _check_box(cube: xr.DataArray, box: Box) -> None:
    """Raise an error if the cube does not cover the box, rounded to pixel edges."""
    found = Box(*cube.rio.bounds(recalc=True))
    if tiles.pixel_slices(found) != tiles.pixel_slices(box):
        raise CubeError(f"expected the cube of {box}, found one of {found}; choose another path for this box")


def _on_grid_of(cube: xr.DataArray, layer: xr.DataArray) -> xr.DataArray:
    """Return the layer with the cube's coordinates, if its own are within a tenth of a pixel of them."""
    if layer.rio.crs != cube.rio.crs:
        raise CubeError(
            f"expected the CRS {cube.rio.crs}, found {layer.rio.crs}; reproject with nearest-neighbor resampling, or "
            "write the CRS if it was only lost"
        )
    for name in ("y", "x"):
        centers, step = cube[name].values, abs(tiles.axis(cube, name)[1])
        there = cube.indexes[name].get_indexer(layer[name], method="nearest", tolerance=TOLERANCE * step)
        if (there < 0).any():
            raise CubeError(
                f"expected pixel centers of the cube along {name}, from {centers[0]:.6f} to {centers[-1]:.6f} in steps "
                f"of {step:.6g}, found {float(layer[name][there < 0][0]):.6f}; clip the layer to the cube, or align it "
                "with nearest-neighbor resampling"
            )
        layer = layer.assign_coords({name: centers[there]})
    return layer
