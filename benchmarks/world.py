"""The cube of the world: the cost of commits as it fills, opening it, and how ingest speed grows with workers."""

import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from benchmarks.measure import Clock
from benchmarks.tile import NORTH, STEP, YEAR, Rows, box, tile

COLUMNS = 36  # of tiles
NAMES = [f"50N_{west:03d}W" for west in range(110, 0, -10)]  # the dense tile, and its copies to the east


def _storage(path: Path):
    import icechunk

    return icechunk.local_filesystem_storage(str(path))


def fill(clock: Clock, folder: Path, rows: int, split: bool) -> dict[str, Any]:
    """Commit references to all chunks of all years, one row of tiles at a time. The referenced files do not exist."""
    import icechunk
    import zarr

    from workshop import repository, world

    path = folder / ("full" if split else "one-manifest")
    if split:
        repo = world.create(_storage(path))
    else:
        repo = icechunk.Repository.create(_storage(path))
        with repo.transaction("main", message="lay out") as store:
            shape = (len(world.YEARS), *world.SHAPE)
            zarr.open_group(store, mode="a").create_array(
                repository.ARRAY, shape=shape, chunks=(1, world.CHUNK, world.CHUNK), dtype="uint8"
            )
    per_tile = world.TILE_SIZE // world.CHUNK
    grid = (len(world.YEARS), per_tile, COLUMNS * per_tile)
    seconds, written, before = [], [], 0
    for row in range(rows):
        files = np.array([f"s3://glad/{y}/{row:02d}_{col:02d}.tif" for y in world.YEARS for col in range(COLUMNS)])
        each = np.broadcast_to(files.reshape(grid[0], 1, COLUMNS), (grid[0], per_tile, COLUMNS)).repeat(
            per_tile, axis=2
        )
        session = repo.writable_session("main")
        session.store.set_virtual_refs_arr(
            array_path=f"{'/0' if split else ''}/{repository.ARRAY}",
            chunk_grid_shape=grid,
            locations=each.ravel().tolist(),
            offsets=np.arange(each.size, dtype=np.uint64) % 1600 * 250_000,
            lengths=np.full(each.size, 250_000, np.uint64),
            validate_containers=False,
            arr_offset=(0, row * per_tile, 0),
            checksum=None,
        )
        began = time.perf_counter()
        with clock:
            session.commit(f"Row {row}")
        seconds.append(time.perf_counter() - began)
        size = sum(file.stat().st_size for file in (path / "manifests").iterdir())
        written.append(size - before)
        before = size
    return {"seconds": seconds, "written": written, "references": rows * int(np.prod(grid))}


def add_pixels(clock: Clock, folder: Path) -> None:
    """Write the teaching window of the sample tile into the full cube, over references to missing files."""
    import icechunk

    from workshop import tiles, world

    repo = icechunk.Repository.open(_storage(folder / "full"))
    with clock:
        report = world.ingest(repo, [tiles.SAMPLE_TILE], [YEAR], box=tiles.TEACHING_WINDOW, overwrite=True)
    assert report.outcome.tolist() == ["written"], report


def open_and_draw(clock: Clock, folder: Path) -> None:
    """Open the full cube and save a map of the teaching window, in a new process, so nothing is cached."""
    import icechunk
    import matplotlib.pyplot as plt

    from workshop import maps, repository, tiles

    with clock:
        lulc = repository.read(icechunk.Repository.open(_storage(folder / "full")))
        part = tiles.select_box(lulc.sel(year=YEAR), tiles.TEACHING_WINDOW)
        figure, ax = plt.subplots(layout="constrained")
        maps.draw_land_cover(ax, part, "teaching window")
        figure.savefig(folder / "map.png")
    source = tiles.open_tile(tiles.SAMPLE_TILE, YEAR)
    np.testing.assert_array_equal(part.values, tiles.select_box(source, tiles.TEACHING_WINDOW).values)
    source.close()


def copy_tiles(clock: Clock, folder: Path, count: int) -> None:
    """Copy the dense tile to its neighbors to the east until there are ``count`` tiles."""
    for name in NAMES[1:count]:
        there = tile(folder).with_name(f"{name}.tif")
        with clock:
            shutil.copyfile(tile(folder), there)
            with rasterio.open(there, "r+") as dst:
                dst.transform = from_origin(-int(name[4:7]), NORTH, STEP, STEP)


def workers(
    clock: Clock, folder: Path, target: Path, rows: Rows, kind: str, count: int, tile_count: int
) -> dict[str, Any]:
    """Ingest the dense tiles with ``count`` threads or processes on as many cores."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if allowed:
        os.sched_setaffinity(0, sorted(allowed)[:count])  # new threads and processes inherit it
    try:
        from workshop import tiles, world

        repo, where = world.create(_storage(Path(target)), (YEAR,)), tiles.Box(*box(rows, tile_count))
        with _pool(kind, count) as pool:
            list(pool.map(abs, range(count)))  # waits until all workers have started
            with clock:
                report = world.ingest(repo, NAMES[:tile_count], [YEAR], box=where, root=str(folder), executor=pool)
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
    assert report.outcome.tolist() == ["written"] * tile_count, report
    return {"tiles": len(report)}


def _pool(kind: str, count: int) -> ThreadPoolExecutor | ProcessPoolExecutor:
    if kind == "threads":
        _warm_up()
        return ThreadPoolExecutor(count)
    # not a fork, which would lose Icechunk's threads
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, context, initializer=_warm_up, initargs=(context.Barrier(count),))


def _warm_up(others: Any = None) -> None:
    """Import and compile. In a process, wait until the other processes are ready, too."""
    from workshop import world

    world.summarize(np.zeros((1000, 1000), np.uint8))
    if others:
        others.wait(300)
