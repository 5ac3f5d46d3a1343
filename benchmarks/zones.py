"""Class counts inside zones, compared with only decoding the chunks.

They are counted in a square of the dense tile. Its side has as many pixels as there are ``rows``, at most 16,000.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Clock
from benchmarks.tile import NAME, NORTH, STEP, WEST, YEAR, Rows, bands, tile


def side_of(rows: Rows) -> int:
    """Return the pixels along the sides of the square."""
    return min(16_000, rows[1] - rows[0])


def prepare(clock: Clock, folder: Path, rows: Rows) -> None:
    """Write the corner of the dense tile into a cube."""
    import icechunk

    from workshop import tiles, world

    length, north = side_of(rows) * STEP, NORTH - rows[0] * STEP
    box = tiles.Box(WEST, north - length, WEST + length, north)
    repo = world.create(icechunk.local_filesystem_storage(str(folder / "zones")), (YEAR,))
    with clock:
        report = world.ingest(repo, [NAME], [YEAR], box=box, root=str(folder))
    assert report.pixels.tolist() == [side_of(rows) ** 2]


def _cube(folder: Path, rows: Rows):
    import icechunk

    from workshop import repository

    lulc = repository.read(icechunk.Repository.open(icechunk.local_filesystem_storage(str(folder / "zones"))))
    row, col, side = round((80 - NORTH) / STEP) + rows[0], round((WEST + 180) / STEP), side_of(rows)
    return lulc[:, row : row + side, col : col + side]


def _chunks(lulc: Any) -> list[Any]:
    """Return the cube's chunks, which ``workshop.zonal`` reads in the same order."""
    height, width = lulc.encoding["chunks"][1:]
    corners = ((row, col) for row in range(0, lulc.sizes["y"], height) for col in range(0, lulc.sizes["x"], width))
    return [lulc.variable[:, row : row + height, col : col + width] for row, col in corners]


def _by_chunk(clock: Clock, folder: Path, rows: Rows, function: Any) -> list[Any]:
    import dask

    lulc = _cube(folder, rows)
    dask.compute(dask.delayed(function)(lulc.variable[:, :1000, :1000]))  # imports, threads
    tasks = [dask.delayed(function)(chunk) for chunk in _chunks(lulc)]
    with clock:
        return dask.compute(*tasks)


def decode(clock: Clock, folder: Path, rows: Rows) -> None:
    """Only read the chunks, on the threads that the other cases count with."""
    sizes = _by_chunk(clock, folder, rows, lambda chunk: np.asarray(chunk[0]).size)
    assert sum(sizes) == side_of(rows) ** 2


def bincount(clock: Clock, folder: Path, rows: Rows) -> None:
    """Count everything as one zone with ``numpy.bincount``."""
    counts = _by_chunk(clock, folder, rows, lambda chunk: np.bincount(np.asarray(chunk[0]).ravel(), minlength=256))
    np.testing.assert_array_equal(sum(counts), _expected(folder, rows))


def _expected(folder: Path, rows: Rows) -> np.ndarray:
    """Count the source tile."""
    side = side_of(rows)
    square = bands(tile(folder), (rows[0], rows[0] + side))
    return sum(np.bincount(band[:, :side].ravel(), minlength=256) for _, band in square)


def ours(clock: Clock, folder: Path, rows: Rows, side: int) -> None:
    """Call ``workshop.zonal.count_classes`` with side x side zones that tile the square, ragged if more than one."""
    import geopandas as gpd
    import shapely

    from workshop import zonal

    lulc = _cube(folder, rows)
    length = side_of(rows) * STEP
    rng = np.random.default_rng(0)
    where = np.linspace(0, length, side + 1)
    x, y = np.meshgrid(WEST + where, NORTH - rows[0] * STEP - where)
    jitter = rng.uniform(-0.2, 0.2, (2, side + 1, side + 1)) * length / side
    x[1:-1, 1:-1] += jitter[0, 1:-1, 1:-1]
    y[1:-1, 1:-1] += jitter[1, 1:-1, 1:-1]
    corners = [
        [(x[i, j], y[i, j]) for i, j in ((r, c), (r, c + 1), (r + 1, c + 1), (r + 1, c))]
        for r in range(side)
        for c in range(side)
    ]
    zones = gpd.GeoSeries([shapely.Polygon(ring) for ring in corners], crs="EPSG:4326")
    zonal.count_classes(lulc[:, :1000, :1000], zones[:1])  # compiles, if that was never done
    with clock:
        found = zonal.count_classes(lulc, zones)
    np.testing.assert_array_equal(found.pixels.sum(("zone", "year")), _expected(folder, rows))


def flox(clock: Clock, folder: Path, rows: Rows, side: int) -> dict[str, Any]:
    """Group by class with xarray and flox as installed, in a square with this side. It takes a lot of memory."""
    from xarray.groupers import BinGrouper

    lulc = _cube(folder, rows)[0, :side, :side].rename("lulc").drop_vars("year")
    np.asarray(lulc[:1, :1])
    with clock:
        pixels = lulc.load()
        groups = pixels.assign_coords(classes=pixels).groupby(classes=BinGrouper(bins=np.arange(-1, 256)))
        found = groups.count().values
    by_hand = np.bincount(pixels.values.ravel(), minlength=256)
    return {"pixels": side**2, "right": bool((np.nan_to_num(found) == by_hand).all())}
