"""The cube of the world: one grid for all of GLAD's tiles and years, filled tile by tile, in parallel.

``datacube.py`` builds the cube of one box. Lesson 07 shows these library calls.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import icechunk
import numba
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
import zarr
from dask.system import CPU_COUNT
from icechunk.xarray import to_icechunk
from rasterio.windows import Window
from tqdm import tqdm
from zarr.codecs import BloscCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_utils import ChunkTransform, encode_or_elide_chunk
from zarr.core.sync import sync

from workshop import conventions, legend, repository, tiles
from workshop.repository import ARRAY, CubeError
from workshop.tiles import NORTH, RESOLUTION, SOUTH, TILE_SIZE, YEARS, Box, TileError

OUTCOMES = ("written", "there already", "outside the box")  # unless a tile failed
SHAPE = (round((NORTH - SOUTH) / RESOLUTION), round(360 / RESOLUTION))  # pixels along y and x: 560,000 x 1,440,000
CHUNK = 1000  # pixels along y and x; one year deep
PART = 10 * CHUNK  # rows of a tile per task, so that a few tiles keep many workers busy
LEVELS = (1, 8, 40, 200, CHUNK)  # groups 0 to 4: cube pixels along y and x per pixel of the level
MARKS = f"{LEVELS.index(CHUNK)}/ingested"  # same shape as the overview beside it, which has one pixel per chunk
UTAH_TILES = ("50N_120W", "50N_110W", "40N_120W", "40N_110W")
UTAH = Box(west=-114.06, south=36.99, east=-109.04, north=42.01)


def create(storage: icechunk.Storage, years: tuple[int, ...] = YEARS) -> icechunk.Repository:
    """Create the cube of the whole world, without pixels, and commit it on ``main``.

    Its levels are groups, following the convention ``multiscales``. ``0`` holds the array ``lulc (year, 560000,
    1440000)``, uint8, in chunks of 1000 x 1000 pixels, ``1`` to ``4`` the overviews. The coarsest also has the array
    ``ingested``, with one mark per chunk that :func:`ingest` wrote. Each tile's references are in their own manifest,
    so a commit rewrites only its own tiles' references.

    Raises
    ------
    CubeError
        If a year is not one of GLAD's or the years are not in order, because they cannot be changed later. If there is
        already a cube.
    """
    if not years or list(years) != [year for year in YEARS if year in years]:
        raise CubeError(f"creating the world: expected years of {YEARS} in order, each once, found {years}")
    repo = repository.open_or_create(storage, _settings())
    session = repo.writable_session("main")
    if there := repository.years(session.store):
        raise CubeError(
            f"creating the world: expected an empty place, found a cube of {there}; continue with world.ingest"
        )
    grids = [_write_grid(session, level, years) for level in range(len(LEVELS))]
    zarr.open_group(session.store, mode="a").attrs.update(conventions.pyramid(grids))
    session.commit("Create the cube of the world")
    return repo


def _settings() -> icechunk.RepositoryConfig:
    """Return the repository's settings, which put the references of each tile into their own manifest."""
    axis, per_tile = icechunk.ManifestSplitDimCondition.Axis, TILE_SIZE // CHUNK
    lulc = icechunk.ManifestSplitCondition.name_matches(ARRAY)
    split = icechunk.ManifestSplittingConfig.from_dict({lulc: {axis(1): per_tile, axis(2): per_tile}})
    return repository.settings(icechunk.ManifestConfig(splitting=split))


def _write_grid(session: icechunk.Session, level: int, years: tuple[int, ...]) -> xr.Dataset:
    """Write the coordinates, the CRS and an empty array of one level; return the grid."""
    factor = LEVELS[level]
    size = RESOLUTION * factor
    shape = tuple(pixels // factor for pixels in SHAPE)
    grid = xr.Dataset(
        coords={
            "year": np.array(list(years), np.int64),
            "y": NORTH - (np.arange(shape[0]) + 0.5) * size,
            "x": -180 + (np.arange(shape[1]) + 0.5) * size,
        }
    )
    grid = grid.rio.write_crs("EPSG:4326").rio.write_transform().rio.write_coordinate_system()
    where = conventions.georeference(grid)
    # neighboring coordinates differ only in their last bytes: shuffled, two million take 0.15 MB instead of 2.1
    shuffled = {"compressors": [BloscCodec(cname="zstd", shuffle="shuffle", typesize=8)]}
    encoding = {axis: shuffled | {"chunks": (min(TILE_SIZE, grid.sizes[axis]),)} for axis in ("y", "x")}
    to_icechunk(grid.assign_attrs(where), session, group=str(level), encoding=encoding)
    wide = min(TILE_SIZE, max(PART, 250 * factor))
    layout = {
        "shape": (len(years), *shape),
        # two workers must not write to one chunk, so an overview's chunk is at most what one worker writes
        "chunks": (1, CHUNK, CHUNK) if not level else (1, PART // factor, wide // factor),
        "dimension_names": ("year", "y", "x"),
    }
    group = zarr.open_group(session.store, path=str(level), mode="r+")
    attributes = {"long_name": "land cover class", "grid_mapping": "spatial_ref"} | legend.flags() | where
    # 0 is a class
    group.create_array(ARRAY, **layout, dtype="uint8", fill_value=legend.NODATA, attributes=attributes)
    if factor == CHUNK:
        attributes = {"long_name": "chunk of the cube was ingested", "grid_mapping": "spatial_ref"} | where
        group.create_array("ingested", **layout, dtype="bool", fill_value=False, attributes=attributes)
    return grid


def read_overview(repo: icechunk.Repository, factor: int) -> xr.DataArray:
    """Open an overview lazily: ``(year, y, x)``, uint8. Each pixel is the most frequent class of factor x factor.

    The factor is one of :data:`LEVELS`.

    If two classes are equally frequent, the lower value is used. No data counts as a class. Overviews show what
    :func:`ingest` wrote: :func:`workshop.datacube.write_region` does not update them.
    """
    return repository.read(repo, str(LEVELS.index(factor)))


def ingested(repo: icechunk.Repository) -> xr.DataArray:
    """Open the marks of the chunks that :func:`ingest` wrote lazily: ``(year, 560, 1440)``, bool.

    They are part of the cube, so expiring the history keeps them, and a reset to an earlier snapshot resets them.
    """
    store, (group, name) = repo.readonly_session("main").store, MARKS.split("/")
    return xr.open_zarr(store, group=group, consolidated=False, decode_coords="all", chunks=None)[name]


def build(storage: icechunk.Storage, years: tuple[int, ...] = YEARS, box: Box = UTAH) -> icechunk.Repository:
    """Make the cube of the world with a box of Utah's tiles, or continue where an earlier run stopped.

    Raises
    ------
    CubeError
        If a tile failed. :func:`create` and :func:`ingest` have more errors.
    """
    repo = repository.open_or_create(storage, _settings())
    if not repository.years(repo.readonly_session("main").store):
        repo = create(storage, years)
    report = ingest(repo, UTAH_TILES, years, box=box)
    failed = report[~report.outcome.isin(OUTCOMES)]
    if len(failed):
        raise CubeError(f"building the world: {len(failed)} tiles failed; the first: {failed.outcome.iloc[0]}")
    return repo


def ingest(
    repo: icechunk.Repository,
    names: Iterable[str],
    years: Iterable[int] = YEARS,
    *,
    box: Box | None = None,
    root: str | None = None,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: tqdm | None = None,
) -> pd.DataFrame:
    """Write tiles into the cube, many at a time, and commit each year once.

    Chunks that were ingested are left alone, including later edits. The same call therefore continues an interrupted
    one, and a larger box only adds what is missing. A tile that fails does not stop the others: nothing of it is
    committed, and the same call tries it again. A tile also fails if a chunk that was never ingested has pixels: they
    were written by other means. After an interrupt (Ctrl-C), the complete tiles are committed. After a kill, only the
    earlier years are.

    Parameters
    ----------
    repo : icechunk.Repository
        Made by :func:`create`.
    names, years : iterable
        Names of tiles, such as ``"50N_120W"``, and years of the cube.
    box : Box, optional
        In degrees. Only the chunks that the box touches are written.
    root : str, optional
        Folder or http(s) URL of the tiles; see :func:`workshop.tiles.tiles_root`.
    overwrite : bool
        Write all requested chunks, and replace ingested ones and all edits.
    executor : concurrent.futures.Executor, optional
        By default one thread per core, at most four. Alternatively, a Dask cluster's ``client.get_executor()``.
    progress : tqdm, optional
        Advanced by one per tile and year.

    Returns
    -------
    pandas.DataFrame
        One row per tile and year: ``year``, ``tile``, ``pixels`` (written) and ``outcome``, which is "written",
        "there already", "outside the box", or the error.

    Raises
    ------
    CubeError
        If the repository holds no such cube, or a year is not in it.
    workshop.tiles.TileError
        If a name is not one of GLAD's, or the box is invalid.
    """
    if box is not None:
        box = tiles.check_box(box)
        if not (-180 <= box.west < box.east <= 180 and SOUTH <= box.south < box.north <= NORTH):
            raise TileError(f"{box}: expected (west, south, east, north) in degrees, 180 W to 180 E and 60 S to 80 N")
    regions, years = {name: _region(name, box) for name in names}, list(dict.fromkeys(years))
    store = repo.readonly_session("main").store
    there = repository.years(store)
    if not there or MARKS not in zarr.open_group(store, mode="r"):
        raise CubeError(f"ingest: expected a cube made by world.create, found one without {MARKS}; create a new one")
    if set(years) - set(there):
        raise CubeError(f"ingest: expected years of the cube, {there}, found {years}")
    # each thread decodes its own band, and more threads would take too much of a laptop's memory
    own = None if executor else ThreadPoolExecutor(min(4, CPU_COUNT))
    try:
        how = root, overwrite, executor or own, progress
        rows = [row for year in years for row in _ingest_year(repo, regions, year, *how)]
    finally:
        if own:
            own.shutdown(cancel_futures=True)
    return pd.DataFrame(rows, columns=["year", "tile", "pixels", "outcome"])


def _ingest_year(
    repo: icechunk.Repository,
    regions: dict[str, tuple[list[int], list[int]]],
    year: int,
    root: str | None,
    overwrite: bool,
    executor: Executor,
    progress: tqdm | None,
) -> Iterable[tuple[int, str, int, str]]:
    """Write the missing chunks of a year and commit them; return the rows of the report."""
    outcomes: dict[str, tuple[int, str, int, str]] = {}
    interrupted = False

    def note(name: str, outcome: str, pixels: int = 0) -> None:
        if progress is not None and name not in outcomes:  # after a conflict, the year is tried again
            progress.update()
        outcomes[name] = year, name, pixels, outcome

    def write(session: icechunk.Session) -> tuple[str, dict[str, Any]] | None:
        nonlocal interrupted
        if interrupted:  # and another commit landed first, so stop
            return None
        marks = zarr.open_array(session.store, path=MARKS, mode="r")
        index = repository.years(session.store).index(year)
        parts: dict[str, tuple[int, list[Future]]] = {}  # with the number of missing chunks
        for name, (rows, cols) in regions.items():
            if not (rows[0] < rows[1] and cols[0] < cols[1]):
                note(name, "outside the box")
            elif not (missing := (overwrite | ~marks[_cells(index, rows, cols, CHUNK)]).sum()):
                note(name, "there already")
            else:
                tops = range(rows[0] // PART * PART, rows[1], PART)
                bands = [[max(top, rows[0]), min(top + PART, rows[1])] for top in tops]
                where = [(session.fork(), name, year, band, cols, root, overwrite) for band in bands]
                parts[name] = int(missing), [executor.submit(_attempt, *arguments) for arguments in where]
        records: dict[str, dict[str, Any]] = {}
        try:
            for name, (missing, futures) in parts.items():
                forks, errors = zip(*(future.result() for future in futures), strict=True)
                if any(errors):
                    note(name, next(filter(None, errors)))
                    continue
                session.merge(*forks)
                rows, cols = regions[name]
                records[name] = {"source": tiles.tile_source(name, year, root), "rows": rows, "cols": cols}
                note(name, "written", missing * CHUNK**2)
        except KeyboardInterrupt:
            interrupted = True
            for _, futures in parts.values():
                for future in futures:
                    future.cancel()
        if not records:
            return None
        cube = zarr.open_group(session.store, mode="r+")
        sources = {tiles.check_tile(tiles.tile_path(name, year, root), name, year) for name in records}
        cube.attrs["source"] = "\n".join(sorted(sources.union(cube.attrs.get("source", "").splitlines())))
        return f"Ingest {year}: {', '.join(sorted(records))}", {"year": year, "tiles": dict(sorted(records.items()))}

    repository.commit(repo, write)
    if interrupted:
        raise KeyboardInterrupt
    return [outcomes[name] for name in regions]


def _region(name: str, box: Box | None) -> tuple[list[int], list[int]]:
    """Return the first and last (exclusive) row and column of the cube that a tile fills, or its part in a box.

    The region has only whole chunks. Each chunk belongs to one tile, so two workers never write the same one.
    """
    lon, lat = tiles.tile_corner(name)
    tile = tiles.pixel_slices(Box(lon, lat - tiles.TILE_DEGREES, lon + tiles.TILE_DEGREES, lat))
    wanted = tile if box is None else tiles.pixel_slices(box)
    rows, cols = (
        [max(t.start, w.start // CHUNK * CHUNK), min(t.stop, -(-w.stop // CHUNK) * CHUNK)]
        for t, w in zip(tile, wanted, strict=True)
    )
    return rows, cols


def _cells(index: int, rows: list[int], cols: list[int], factor: int) -> tuple[int, slice, slice]:
    """Return where a part of the cube is in an array that has one cell per factor x factor pixels."""
    return index, slice(rows[0] // factor, rows[1] // factor), slice(cols[0] // factor, cols[1] // factor)


def _attempt(session: icechunk.Session, *args: Any) -> tuple[icechunk.Session | None, str]:
    """Write a tile; return the session, or the error as text. A cluster would print a raised error on each terminal."""
    try:
        return _write_tile(session, *args), ""
    except Exception as error:  # the other tiles continue
        return None, f"{type(error).__name__}: {error}"


def _write_tile(
    session: icechunk.Session,
    name: str,
    year: int,
    rows: list[int],
    cols: list[int],
    root: str | None,
    overwrite: bool,
) -> icechunk.Session:
    """Write a tile or part of it into a fork of a session, one row of chunks at a time; return the fork.

    Rows and columns are those of the cube, on chunk borders and inside the tile. If two forks will be merged, they must
    not both write rows of one tile between the same multiples of 10,000: they would overwrite each other's overviews
    and marks. Chunks that were ingested before are left alone, unless ``overwrite``.
    """
    label = f"{name} ({year})"
    (tile_top, _), (tile_left, _) = _region(name, None)
    path = tiles.tile_path(name, year, root)
    tiles.check_tile(path, name, year)  # checks the bounds against the name, which then says where the tile goes
    paths = (*(f"{level}/{ARRAY}" for level in range(len(LEVELS))), MARKS)
    array, *overviews, marks = (zarr.open_array(session.store, path=path, mode="r+") for path in paths)
    layout = array.dtype, array.chunks, array.shards
    if layout != (np.uint8, (1, CHUNK, CHUNK), None):
        raise CubeError(
            f"{label}: expected a cube of uint8 in chunks of {(1, CHUNK, CHUNK)} without shards, found {layout}; "
            "create a new one with world.create"
        )
    dense = array.with_config({"write_empty_chunks": True})
    known = legend.group_index() != 255
    index = repository.years(session.store).index(year)
    here = _cells(index, rows, cols, CHUNK)
    missing = overwrite | ~marks[here]
    for row, col in () if overwrite else np.argwhere(missing) + [part.start for part in here[1:]]:
        chunk = (index, int(row), int(col))
        # most have no object and need not be read
        if session.chunk_type(f"/0/{ARRAY}", chunk) == icechunk.ChunkType.uninitialized:
            continue
        if (array.blocks[chunk] != legend.NODATA).any():
            side = CHUNK * RESOLUTION
            box = Box(-180 + col * side, NORTH - (row + 1) * side, -180 + (col + 1) * side, NORTH - row * side)
            raise CubeError(
                f"{label}: expected only pixels that were ingested, found others in the chunk {tuple(map(float, box))} "
                "(west, south, east, north); choose a box without this chunk, or replace it with overwrite=True"
            )
    coarse = [overview[_cells(index, rows, cols, f)] for f, overview in zip(LEVELS[1:], overviews, strict=True)]
    with rasterio.open(tiles.gdal_path(path)) as src:
        if src.shape != (TILE_SIZE, TILE_SIZE):
            raise TileError(f"{label}: expected {TILE_SIZE} x {TILE_SIZE} pixels, found {src.height} x {src.width}")
        band = np.empty((CHUNK, cols[1] - cols[0]), np.uint8)
        for row in np.flatnonzero(missing.any(axis=1)):
            top = rows[0] + int(row) * CHUNK
            first = top - tile_top
            tiles.require_strips(src, label, (first, first + CHUNK))
            src.read(1, window=Window(cols[0] - tile_left, first, cols[1] - cols[0], CHUNK), out=band)
            counts, *modes = summarize(band)
            codes = np.flatnonzero(counts)
            if not known[codes].all():
                raise CubeError(f"{label}: expected values of the legend, found {codes[~known[codes]].tolist()}")
            # if no pixel is no data, no chunk is empty, and Zarr need not compare each one with the fill value
            target = array if counts[legend.NODATA] else dense
            _write_chunks(target, (index, top // CHUNK, cols[0] // CHUNK), band, missing[row])
            for f, overview, mode in zip(LEVELS[1:], coarse, modes, strict=True):
                gaps = np.repeat(missing[row], CHUNK // f)
                overview[(top - rows[0]) // f :][: CHUNK // f, gaps] = mode[:, gaps]
    for f, overview, pixels in zip(LEVELS[1:], overviews, coarse, strict=True):
        overview[_cells(index, rows, cols, f)] = pixels
    marks[here] = True
    return session


def _write_chunks(array: zarr.Array, first: tuple[int, int, int], pixels: np.ndarray, wanted: np.ndarray) -> None:
    """Write the wanted ones of a row of chunks, as ``array[...] = pixels`` would, starting at the chunk ``first``.

    Zarr has one event loop per process and copies each chunk there, so all threads wait for one. Here, each thread
    encodes its own chunks with the array's codecs and its rule for empty chunks. The loop only passes bytes on.
    """
    year, row, col = first
    prototype, metadata = default_buffer_prototype(), array.metadata
    spec = ArraySpec(array.chunks, metadata.data_type, metadata.fill_value, array.async_array.config, prototype)
    encode = ChunkTransform(codecs=tuple(array.async_array.codec_pipeline)).encode_chunk
    chunks = []
    for k in np.flatnonzero(wanted).tolist():
        chunk = prototype.nd_buffer.from_numpy_array(pixels[None, :, k * CHUNK : (k + 1) * CHUNK])
        place = array.store_path / metadata.encode_chunk_key((year, row, col + k))
        chunks.append((place, encode_or_elide_chunk(chunk, spec, encode)))

    async def store() -> None:
        await asyncio.gather(*(place.delete() if data is None else place.set(data) for place, data in chunks))

    sync(store())


def coarsen(cube: xr.DataArray, factor: int) -> xr.DataArray:
    """Return an overview of a small cube in memory: the most frequent class of factor x factor pixels.

    Parameters
    ----------
    cube : xarray.DataArray
        ``(year, y, x)``, uint8, with multiples of 1000 pixels along ``y`` and ``x``.
    factor : int
        One of :data:`LEVELS` except the first.
    """
    k = LEVELS.index(factor)
    tops = range(0, cube.sizes["y"], CHUNK)
    pixels = [np.concatenate([summarize(layer[top : top + CHUNK])[k] for top in tops]) for layer in cube.values]
    overview = cube.coarsen(y=factor, x=factor).max()  # for its coordinates
    return overview.copy(data=np.stack(pixels)).rio.write_transform()


@numba.njit(nogil=True, cache=True)
def summarize(band):  # numba infers the types
    """Count the values of a row of chunks, and find the most frequent value per overview pixel.

    Parameters
    ----------
    band : numpy.ndarray
        ``(1000, 1000 n)``, uint8, contiguous.

    Returns
    -------
    counts : numpy.ndarray
        Shape (256,), int64.
    by_8, by_40, by_200, by_1000 : numpy.ndarray
        The overviews, from shape (125, 125 n) to (1, n), uint8; the lowest of equally frequent values.
    """
    height, width = band.shape
    by_8, by_40 = np.empty((height // 8, width // 8), np.uint8), np.empty((height // 40, width // 40), np.uint8)
    by_200, by_1000 = np.empty((height // 200, width // 200), np.uint8), np.empty((1, width // 1000), np.uint8)
    counts, in_1000, in_200 = np.zeros(256, np.int64), np.zeros(256, np.int64), np.zeros((5, 256), np.int64)
    # A processor adds and compares many small numbers at once. In a cell of 8 x 8, a pixel counts as 256. This leaves
    # room for 255 minus the value, so the largest sum belongs to the mode, or to the lowest of equally frequent values.
    in_40, in_8 = np.zeros(256, np.uint16), np.zeros(256, np.uint16)
    below = (255 - np.arange(256)).astype(np.uint16)
    words = band.view(np.uint64)  # eight pixels each
    for chunk in range(width // 1000):
        in_1000[:] = 0
        for row in range(height // 40):
            for col in range(chunk * 25, (chunk + 1) * 25):
                in_40[:] = 0
                for top in range(row * 40, (row + 1) * 40, 8):
                    for word in range(col * 5, (col + 1) * 5):
                        first = band[top, word * 8]
                        even = words[top, word] == np.uint64(first) * np.uint64(0x0101010101010101)
                        for i in range(top + 1, top + 8):
                            even &= words[i, word] == words[top, word]
                        if even:
                            by_8[top // 8, word] = first
                            in_40[first] += np.uint16(64)
                            continue
                        for i in range(top, top + 8):
                            for j in range(word * 8, word * 8 + 8):
                                in_8[band[i, j]] += np.uint16(256)
                        most = np.uint16(0)
                        for value in range(256):
                            most = max(most, np.uint16(in_8[value] | below[value]))
                        for value in range(256):
                            in_40[value] += np.uint16(in_8[value] >> np.uint16(8))
                        in_8[:] = 0
                        by_8[top // 8, word] = 255 - (most & 255)
                by_40[row, col] = np.argmax(in_40)
                in_200[col % 25 // 5] += in_40
            if row % 5 == 4:
                for k in range(5):
                    by_200[row // 5, chunk * 5 + k] = np.argmax(in_200[k])
                    in_1000 += in_200[k]
                in_200[:] = 0
        by_1000[0, chunk] = np.argmax(in_1000)
        counts += in_1000
    return counts, by_8, by_40, by_200, by_1000
