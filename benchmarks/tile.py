"""Write a whole tile to Zarr and to Icechunk, in common ways.

``rows`` are the first and last (exclusive) row of the tile that a case works on, as multiples of 1000. A quick run uses
fewer than all.
"""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from benchmarks.measure import Clock

NAME, YEAR, SIZE, BAND = "50N_110W", 2020, 40_000, 1000
WEST, NORTH, STEP = -110, 50, 0.00025  # degrees
Rows = tuple[int, int]


def tile(folder: Path) -> Path:
    return folder / str(YEAR) / f"{NAME}.tif"


def box(rows: Rows, tiles: int = 1) -> tuple[float, float, float, float]:
    """Return west, south, east, north of these rows of the tile, and of its neighbors to the east."""
    return WEST, NORTH - rows[1] * STEP, WEST + 10 * tiles, NORTH - rows[0] * STEP


def write_dense_tile(clock: Clock, folder: Path, rows: Rows) -> dict[str, Any]:
    """Write a tile with GLAD's layout in which every pixel is textured, about as large as the largest real tiles.

    It has classes 0 to 48: waves over hundreds of pixels, plus noise in runs of two pixels. Outside ``rows``, the tile
    is sparse.
    """
    rng = np.random.default_rng(2020)
    path = tile(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": SIZE, "height": SIZE, "crs": "EPSG:4326"}
    layout = {"transform": from_origin(WEST, NORTH, STEP, STEP), "compress": "lzw", "blockysize": 1}
    if rows != (0, SIZE):
        layout |= {"nodata": 255, "sparse_ok": True}  # GLAD's tiles declare none, but sparse tiles must
    y, x = np.arange(SIZE)[:, None], np.arange(SIZE)[None]
    noise = rng.geometric(0.53, size=(BAND, SIZE // 2)).astype(np.uint8).repeat(2, axis=1)
    with clock, rasterio.open(path, "w", **profile, **layout, NUM_THREADS="ALL_CPUS") as dst:
        for top in range(*rows, BAND):
            down = y[top : top + BAND]
            waves = 11 * np.sin(x / 900 + np.sin(down / 700), dtype=np.float32) + 10 * np.cos(down / 500)
            shift = rng.integers(SIZE)  # shifts the noise, so that bands differ without drawing it again
            classes = (12 + waves).astype(np.int8) + np.roll(noise, shift, axis=1)
            dst.write(classes.clip(0, 48).astype(np.uint8), 1, window=Window(0, top, SIZE, BAND))
    return {"bytes": path.stat().st_size}


def bands(path: Path, rows: Rows):
    """Yield the rows of the tile in bands."""
    with rasterio.Env(GDAL_CACHEMAX=16), rasterio.open(path) as src:
        for top in range(*rows, BAND):
            yield top, src.read(1, window=Window(0, top, SIZE, BAND))


def decode(clock: Clock, folder: Path, rows: Rows) -> None:
    """Only decode the strips, on one core."""
    with clock:
        for _ in bands(tile(folder), rows):
            pass


def encode(clock: Clock, folder: Path, rows: Rows) -> None:
    """Only encode the chunks, on one core, with Zarr's default codec."""
    from numcodecs import Zstd

    codec = Zstd(level=0)
    for _, band in bands(tile(folder), rows):
        chunks = [np.ascontiguousarray(band[:, left : left + BAND]) for left in range(0, SIZE, BAND)]
        with clock:
            for chunk in chunks:
                codec.encode(chunk)


def zarr_alone(clock: Clock, folder: Path, rows: Rows) -> None:
    """Write the chunks with Zarr into memory, to measure what its pipeline adds to the codec."""
    import zarr

    array = zarr.create_array({}, shape=(BAND, SIZE), chunks=(BAND, BAND), dtype="uint8", fill_value=255)
    array = array.with_config({"write_empty_chunks": True})
    for _, band in bands(tile(folder), rows):
        with clock:
            array[:] = band


def overviews(clock: Clock, folder: Path, rows: Rows) -> None:
    """Only count the classes and find the overviews' pixels."""
    from workshop import world

    for top, band in bands(tile(folder), rows):
        if top == rows[0]:
            world.summarize(band)  # compiles, if that was never done
        with clock:
            world.summarize(band)


def _check(array: Any, folder: Path, rows: Rows) -> None:
    """Compare an array (y, x) with all of these rows of the tile."""
    for top, band in bands(tile(folder), rows):
        np.testing.assert_array_equal(np.asarray(array[top - rows[0] : top - rows[0] + BAND]), band)


def _icechunk(target: Path):
    import icechunk

    return icechunk.Repository.create(icechunk.local_filesystem_storage(str(target)))


def _layer(folder: Path, rows: Rows, chunks: dict[str, int] | None):
    """Open the tile as lessons 02 and 03 do: unmasked class codes, without the band."""
    import rioxarray

    path = tile(folder)
    layer = rioxarray.open_rasterio(path, chunks=chunks, lock=False if chunks else None).squeeze("band", drop=True)
    layer = layer[slice(*rows)]
    layer.attrs = {}
    return layer.rename("lulc").to_dataset()


ENCODING = {"lulc": {"chunks": (BAND, BAND), "fill_value": 255}}


def ours(clock: Clock, folder: Path, target: Path, rows: Rows) -> None:
    """Write the tile into the cube of the world with ``workshop.world.ingest``, including overviews."""
    import icechunk

    from workshop import repository, tiles, world

    repo = world.create(icechunk.local_filesystem_storage(str(target)), (YEAR,))
    with clock:
        report = world.ingest(repo, [NAME], [YEAR], box=tiles.Box(*box(rows)), root=str(folder))
    assert report.outcome.tolist() == ["written"], report
    _check(repository.read(repo)[0, 120_000 + rows[0] : 120_000 + rows[1], 280_000:320_000], folder, rows)


def _save(clock: Clock, folder: Path, target: Path, rows: Rows, to: str, data: Any, encoding: dict[str, Any]) -> None:
    import xarray as xr
    from icechunk.xarray import to_icechunk

    if to == "Zarr":
        with clock:
            data().to_zarr(target, mode="w", encoding=encoding, consolidated=False, zarr_format=3)
        store = target
    else:
        repo = _icechunk(target)
        with clock:
            session = repo.writable_session("main")
            to_icechunk(data(), session, encoding=encoding)
            session.commit("tile")
        store = repo.readonly_session("main").store
    back = xr.open_zarr(store, consolidated=False, chunks=None, mask_and_scale=False, decode_coords="all")
    _check(back["lulc"], folder, rows)


def dask_bands(clock: Clock, folder: Path, target: Path, rows: Rows, to: str) -> None:
    """Write with Dask, in bands of whole rows, as lesson 03 and the appendix teach."""
    _save(clock, folder, target, rows, to, lambda: _layer(folder, rows, {"y": BAND, "x": SIZE}), ENCODING)


def dask_squares(clock: Clock, folder: Path, target: Path, rows: Rows, to: str) -> None:
    """Write with Dask, in squares of 5000 x 5000 pixels."""
    _save(clock, folder, target, rows, to, lambda: _layer(folder, rows, {"y": 5000, "x": 5000}), ENCODING)


def load_whole(clock: Clock, folder: Path, target: Path, rows: Rows, to: str, masked: bool = False) -> None:
    """Write with the shortest code: load the whole tile, use default chunks. If masked, class codes become float32."""
    import rioxarray
    import xarray as xr

    def data() -> xr.Dataset:
        layer = rioxarray.open_rasterio(tile(folder), masked=masked)[:, slice(*rows)]
        return layer.squeeze("band", drop=True).to_dataset(name="lulc").load()

    _save(clock, folder, target, rows, to, data, {})


def documented(clock: Clock, folder: Path, target: Path, rows: Rows) -> None:
    """Write as Icechunk's page on GLAD does: create the array first, then write the whole tile to its region."""
    import xarray as xr

    repo = _icechunk(target)
    session = repo.writable_session("main")
    template = _layer(folder, rows, {"y": BAND, "x": SIZE}).drop_vars("spatial_ref")
    template.to_zarr(session.store, compute=False, encoding=ENCODING, consolidated=False)
    session.commit("lay out")
    session = repo.writable_session("main")
    with clock:
        whole = {"y": slice(0, rows[1] - rows[0]), "x": slice(0, SIZE)}
        _layer(folder, rows, None).drop_vars("spatial_ref").to_zarr(session.store, region=whole, consolidated=False)
        session.commit("tile")
    back = xr.open_zarr(repo.readonly_session("main").store, consolidated=False, chunks=None, mask_and_scale=False)
    _check(back["lulc"], folder, rows)
