"""The datacube: create it, append a year, write a region. Each validates first and then makes one commit.

A cube is an Icechunk repository with the array ``lulc (year, y, x)``, uint8. The library calls are those that
lessons 04 and 05 write out; where an error leaves a function, the branch is as it was.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import icechunk
import numpy as np
import xarray as xr
import zarr
from icechunk.xarray import to_icechunk
from zarr.errors import ContainsArrayError, GroupNotFoundError

from workshop import legend
from workshop.tiles import SAMPLE_TILE, TEACHING_WINDOW, YEARS, Box, open_tile, select_box, tile_source

ARRAY = "lulc"
CHUNK = 500  # pixels along y and x; one year deep
ATTEMPTS = 100  # at a commit that others overtake


def config(manifest: icechunk.ManifestConfig | None = None) -> icechunk.RepositoryConfig:
    """Return a repository's settings; Icechunk's own ones wait for minutes when nobody answers."""
    storage = icechunk.StorageSettings(
        retries=icechunk.StorageRetriesSettings(max_tries=5, initial_backoff_ms=100, max_backoff_ms=2000),
        timeouts=icechunk.StorageTimeoutSettings(connect_timeout_ms=5000, operation_attempt_timeout_ms=60_000),
    )
    return icechunk.RepositoryConfig(storage=storage, manifest=manifest)


class CubeError(Exception):
    """The cube cannot be read or written as asked; the message says what was expected, found, and what to do."""


def create(storage: icechunk.Storage, like: xr.DataArray, *, chunk: int = CHUNK) -> icechunk.Repository:
    """Create a cube without any year, and commit it on ``main``.

    Parameters
    ----------
    storage : icechunk.Storage
        Where, such as ``bucket.icechunk("cube")``.
    like : xarray.DataArray
        ``(y, x)``, uint8, at least two evenly spaced pixels each way: gives the grid, the CRS and the attributes;
        its values are not written.
    chunk : int
        Pixels along y and x in a Zarr chunk.

    Raises
    ------
    CubeError
        When the layer cannot be a cube's grid, there is something at that place already, or the store does not let
        us write.
    """
    label = "creating the cube"
    _check_kind(label, like)
    for axis in ("y", "x"):
        _check_axis(label, like, axis)
        _step(label, like, axis)
    if like.rio.crs is None:
        raise CubeError(f"{label}: expected a CRS, found none; write it with rio.write_crs")
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1:
        raise CubeError(f"{label}: expected the chunk as a number of pixels, found {chunk!r}")
    grid = xr.DataArray(
        np.empty((0, *like.shape), np.uint8),
        dims=("year", "y", "x"),
        coords={"year": np.empty(0, np.int64), "y": like["y"].values, "x": like["x"].values},
        name=ARRAY,
        attrs=_attributes(label, like),
    )
    grid = grid.rio.write_crs(like.rio.crs).rio.write_transform()
    for axis in ("y", "x"):
        grid[axis].attrs = like[axis].attrs
    encoding = {
        # 0 is a class, so what was never written must read as "no data"
        ARRAY: {"chunks": (1, chunk, chunk), "fill_value": legend.NODATA, "grid_mapping": "spatial_ref"},
        "year": {"chunks": (64,)},
    }
    # A rehearsal in memory: what cannot be read back as a cube must not reach the store.
    rehearsal: dict[str, Any] = {}
    try:
        grid.to_dataset().to_zarr(rehearsal, encoding=encoding, zarr_format=3, consolidated=False)
    except (TypeError, ValueError) as error:
        raise CubeError(f"{label}: the grid or its attributes cannot be stored: {error}") from error
    open_session(rehearsal)
    return begin(storage, lambda session: to_icechunk(grid.to_dataset(), session, encoding=encoding), "Create the cube")


def begin(
    storage: icechunk.Storage,
    write: Callable[[icechunk.Session], None],
    message: str,
    settings: icechunk.RepositoryConfig | None = None,
) -> icechunk.Repository:
    """Open or create a repository that holds nothing yet, and commit what is written into a session of ``main``."""
    label = "creating the cube"
    with _clear_errors(label):
        repo = _open_or_create(storage, settings or config())
        session = repo.writable_session("main")
        if _holds_anything(session.store):
            raise CubeError(
                f"{label}: expected an empty repository, found one with data; open it with "
                "cube.open_repository, or choose another path"
            )
        write(session)
        session.commit(message)
    return repo


def begun(storage: icechunk.Storage) -> bool:
    """Whether there is a repository that holds something."""
    with _clear_errors("looking for the cube", outcome="nothing was read"):
        return icechunk.Repository.exists(storage, config().storage) and _holds_anything(
            icechunk.Repository.open(storage, config=config()).readonly_session("main").store
        )


def open_repository(storage: icechunk.Storage) -> icechunk.Repository:
    """Open a cube's repository, with an answer within seconds.

    Raises
    ------
    CubeError
        When there is none, or the store does not answer or refuses.
    """
    with _clear_errors("opening the cube", outcome="nothing was read"):
        return icechunk.Repository.open(storage, config=config())


def read(repo: icechunk.Repository, **version: Any) -> xr.DataArray:
    """Open a version of the cube lazily.

    Parameters
    ----------
    repo : icechunk.Repository
        The cube's repository.
    **version
        ``branch``, ``tag`` or ``snapshot_id``, or ``branch`` and ``as_of``, as for
        :meth:`icechunk.Repository.readonly_session`; the tip of ``main`` by default.

    Returns
    -------
    xarray.DataArray
        ``(year, y, x)``, uint8; it does not change when somebody commits.

    Raises
    ------
    CubeError
        When there is no such version, it holds no cube, or the store does not answer.
    """
    with _clear_errors("reading the cube", outcome="nothing was read"):
        try:
            session = repo.readonly_session(**(version or {"branch": "main"}))
        except (TypeError, ValueError) as error:
            raise CubeError(
                "reading the cube: expected one of branch, tag and snapshot_id, or branch and as_of (a datetime), "
                f"found {version}"
            ) from error
        return open_session(session.store)


def append_year(
    repo: icechunk.Repository,
    year: int,
    layer: xr.DataArray,
    *,
    metadata: dict[str, Any] | None = None,
    branch: str = "main",
) -> str:
    """Append one year to the cube and commit it.

    Parameters
    ----------
    repo : icechunk.Repository
        The cube's repository.
    year : int
        Later than the cube's last year.
    layer : xarray.DataArray
        ``(y, x)``, uint8, on the cube's grid and in its CRS, with values of the legend. It is loaded into memory.
    metadata : dict, optional
        Goes into the commit as JSON, beside the year and the SHA-256 of the pixels.
    branch : str
        The branch to commit to.

    Returns
    -------
    str
        The new snapshot's id.

    Raises
    ------
    CubeError
        When the layer or the year does not fit, or the store fails. The branch is then as it was; only when the
        store fails in the commit itself must one look whether it arrived.
    """
    label = f"appending {year!r}"
    pixels = None

    def write(session: icechunk.Session) -> None:
        nonlocal pixels
        cube = open_session(session.store)
        years = cube.year.values.tolist()
        if year in years:
            raise CubeError(f"{label}: the cube has this year already; to change it, write a region")
        if years and year < years[-1]:
            raise CubeError(f"{label}: expected a year after {years[-1]}, the cube's last one; append years in order")
        if layer.shape != cube.shape[1:]:
            raise CubeError(
                f"{label}: expected {cube.sizes['y']} x {cube.sizes['x']} pixels (y, x), found "
                f"{' x '.join(map(str, layer.shape))}; cut the layer to the cube's box"
            )
        locate(label, layer, cube)
        if pixels is None:
            pixels = _load(label, layer)
        added = xr.Dataset(
            {ARRAY: (cube.dims, pixels[np.newaxis])}, coords={"year": np.array([year], cube["year"].dtype)}
        )
        # "a-": leave what is there alone
        to_icechunk(added, session, append_dim="year", mode="a-")

    _check_year(label, year)
    _check_kind(label, layer)
    _check_metadata(label, metadata)
    return commit(repo, branch, label, write, lambda: f"Append {year}", lambda: _note(year, pixels, metadata))


def write_region(
    repo: icechunk.Repository,
    year: int,
    patch: xr.DataArray,
    *,
    message: str,
    metadata: dict[str, Any] | None = None,
    branch: str = "main",
) -> str:
    """Write a rectangle of one year and commit it, whoever else commits at the same time.

    Where somebody else's commit comes first, ours is moved on top of it. Where it changed the same chunk, the
    region is written again into the new chunk, so that both edits survive; where it changed the same pixels, the
    region is refused.

    Parameters
    ----------
    repo : icechunk.Repository
        The cube's repository.
    year : int
        One of the cube's years.
    patch : xarray.DataArray
        ``(y, x)``, uint8, on a part of the cube's grid and in its CRS, with values of the legend.
    message : str
        The commit's message.
    metadata : dict, optional
        Goes into the commit as JSON, beside the year and the SHA-256 of the pixels.
    branch : str
        The branch to commit to.

    Returns
    -------
    str
        The new snapshot's id.

    Raises
    ------
    CubeError
        As for :func:`append_year`, and when somebody else changed the same pixels meanwhile.
    """
    label = f"writing a region of {year!r}"
    before = pixels = None

    def write(session: icechunk.Session) -> None:
        nonlocal before, pixels
        cube = open_session(session.store)
        years = cube.year.values.tolist()
        if year not in years:
            raise CubeError(f"{label}: expected one of the cube's years {years}, found {year}; append it first")
        region = (years.index(year), *locate(label, patch, cube))
        if pixels is None:
            pixels = _load(label, patch)
        array = zarr.open_array(session.store, path=ARRAY, mode="r+")
        now = array[region]
        if before is not None and not np.array_equal(before, now):
            raise CubeError(
                f"{label}: somebody else committed other values for these pixels while this was being written; "
                "look at the history, then write again if yours are to win"
            )
        before = now
        array[region] = pixels

    _check_year(label, year)
    _check_kind(label, patch)
    _check_metadata(label, metadata)
    return commit(repo, branch, label, write, lambda: message, lambda: _note(year, pixels, metadata))


def build(
    storage: icechunk.Storage, years: tuple[int, ...] = YEARS, tile: str = SAMPLE_TILE, box: Box = TEACHING_WINDOW
) -> icechunk.Repository:
    """Make the cube of a box with these years, or complete it where an earlier run stopped.

    Parameters
    ----------
    storage : icechunk.Storage
        Where, such as ``bucket.icechunk("cube")``.
    years : tuple of int
        In order, at least one.
    tile : str
        The tile that the box lies on.
    box : Box
        In degrees.

    Returns
    -------
    icechunk.Repository
        One commit a year on ``main``, made by :func:`append_year`.

    Raises
    ------
    TileError
        When a tile is missing or damaged.
    CubeError
        When the store holds a cube of another box, or fails.
    """
    label = "building the cube"
    for year in years:
        _check_year(label, year)
    if not years or list(years) != sorted(set(years)):
        raise CubeError(f"{label}: expected years in order, each once, found {years}")

    def layer(year: int) -> xr.DataArray:
        return select_box(open_tile(tile, year), box)

    first = layer(years[0])
    repo = open_repository(storage) if begun(storage) else create(storage, first)
    cube = read(repo)
    if locate(label, first, cube) != tuple(slice(0, size) for size in cube.shape[1:]):
        raise CubeError(f"{label}: expected the cube of {box}, found a larger one; choose another path for this box")
    there = cube.year.values
    for year in years:
        if year not in there:
            append_year(repo, year, layer(year), metadata={"source": tile_source(tile, year), "author": "workshop"})
    return repo


def digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of an array's bytes, row by row, as hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()


def _open_or_create(storage: icechunk.Storage, settings: icechunk.RepositoryConfig) -> icechunk.Repository:
    """Open the repository, or create it, also where an earlier creation was cut off."""
    try:
        return icechunk.Repository.open_or_create(storage, config=settings)
    except (icechunk.InvalidInputError, icechunk.ConflictError):
        # Not empty: somebody else made one just now, or an earlier creation was cut off. That leaves Icechunk's first
        # snapshot and its log, which always have the same name.
        found = [thing.key for thing in storage.list_objects_metadata(settings.storage)]
    if "repo" in found:
        return icechunk.Repository.open(storage, config=settings)
    strange = [key for key in found if not key.endswith("/1CECHNKREP0F1RSTCMT0")]
    if strange:
        raise CubeError(
            f"creating the cube: expected an empty place, found {len(found)} objects such as {strange[0]}; "
            "choose another path"
        )
    return icechunk.Repository.create(storage, config=settings, check_clean_root=False)


def _holds_anything(store: Any) -> bool:
    try:
        zarr.open_group(store, mode="r")
    except GroupNotFoundError:
        return False
    except ContainsArrayError:
        return True
    return True


def open_session(store: Any) -> xr.DataArray:
    """Open a Zarr store's cube, once it is known to be one."""
    if not _holds_anything(store):
        raise CubeError("expected a cube, found an empty repository; create one with cube.create")
    expected = f"expected a cube with the array {ARRAY} (year, y, x)"
    try:
        data = xr.open_zarr(store, consolidated=False, decode_coords="all", chunks=None)
    except ContainsArrayError as error:
        raise CubeError(f"{expected}, found an array at the root; wrong path?") from error
    if ARRAY not in data or data[ARRAY].dims != ("year", "y", "x"):
        raise CubeError(f"{expected}, found {dict(data.sizes)}; wrong path?")
    cube = data[ARRAY]
    if cube.dtype != np.uint8:
        raise CubeError(f"{expected} as uint8 without scale or mask, found {cube.dtype}; make it with cube.create")
    if any(axis not in cube.coords for axis in cube.dims) or cube["year"].dtype.kind not in "iu":
        raise CubeError(f"{expected} and coordinates for each, years as integers, found {list(cube.coords)}")
    if cube.rio.crs is None:
        raise CubeError(f"{expected} and a CRS, found none")
    others = [name for name, variable in data.variables.items() if "year" in variable.dims]
    if set(others) != {ARRAY, "year"}:
        raise CubeError(f"{expected} as the only one with years, found {others}; they would fall behind")
    return cube


def _note(year: int, pixels: np.ndarray, metadata: dict[str, Any] | None) -> dict[str, Any]:
    return {**(metadata or {}), "year": int(year), "sha256": digest(pixels)}


def _attributes(label: str, layer: xr.DataArray) -> dict[str, Any]:
    """Return a layer's attributes without those that would make xarray decode class codes as something else."""
    plain = {"scale_factor": 1, "add_offset": 0, "_FillValue": legend.NODATA, "missing_value": legend.NODATA}
    for name, harmless in plain.items():
        if layer.attrs.get(name, harmless) != harmless:
            raise CubeError(
                f"{label}: expected class codes as they are, found the attribute {name} = {layer.attrs[name]}; "
                f"only {harmless} is the same as none"
            )
    return {name: value for name, value in layer.attrs.items() if name not in {*plain, "grid_mapping"}}


def _check_year(label: str, year: int) -> None:
    if not isinstance(year, int | np.integer) or isinstance(year, bool):
        raise CubeError(f"{label}: expected the year as an integer, found {type(year).__name__}")
    if not 0 < year < 10_000:
        raise CubeError(f"{label}: expected a year such as 2020")


def _check_metadata(label: str, metadata: dict[str, Any] | None) -> None:
    try:
        same = metadata is None or (
            isinstance(metadata, dict) and json.loads(json.dumps(metadata, allow_nan=False)) == metadata
        )
    except (TypeError, ValueError):
        same = False
    if not same:
        raise CubeError(f"{label}: expected metadata as a dictionary that JSON can hold, found {metadata!r}")


def _check_kind(label: str, layer: xr.DataArray) -> None:
    if not isinstance(layer, xr.DataArray) or layer.dims != ("y", "x"):
        found = getattr(layer, "dims", type(layer).__name__)
        raise CubeError(f"{label}: expected a DataArray with the dimensions (y, x), found {found}")
    if layer.dtype != np.uint8:
        raise CubeError(f"{label}: expected class codes as uint8, found {layer.dtype}; open without masking or scaling")


def _load(label: str, layer: xr.DataArray) -> np.ndarray:
    """Return the pixels, once they are known to be classes."""
    pixels = layer.values
    codes = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))
    unknown = codes[legend.group_index()[codes] == 255]
    if unknown.size:
        raise CubeError(
            f"{label}: expected values of the legend, found {', '.join(map(str, unknown[:10]))}; "
            "is this a land-cover layer?"
        )
    return pixels


def _check_axis(label: str, layer: xr.DataArray, axis: str) -> None:
    if axis not in layer.coords:
        raise CubeError(f"{label}: expected pixel centres along {axis}, found no such coordinate")
    centres = layer[axis].values
    if not centres.size:
        raise CubeError(f"{label}: expected at least one pixel along {axis}, found none; does the box overlap?")
    if centres.dtype.kind not in "fiu" or not np.isfinite(centres).all():
        raise CubeError(f"{label}: expected {axis} as numbers, found {centres.dtype} {centres[:3]}")


def _step(label: str, grid: xr.DataArray, axis: str) -> float:
    """Return the distance between pixel centres along an axis, once it is known to be always the same."""
    centres = grid[axis].values
    if centres.size < 2:
        raise CubeError(f"{label}: expected at least two pixels along {axis}, found {centres.size}")
    step = (centres[-1] - centres[0]) / (centres.size - 1)
    even = centres[0] + step * np.arange(centres.size)
    if not step or np.abs(centres - even).max() > 0.1 * abs(step):
        raise CubeError(f"{label}: expected evenly spaced pixels along {axis}, found steps that differ")
    return float(step)


def locate(label: str, layer: xr.DataArray, cube: xr.DataArray) -> tuple[slice, slice]:
    """Return the rows and columns of the cube whose pixel centres are the layer's, in the same CRS."""
    if layer.rio.crs != cube.rio.crs:
        raise CubeError(
            f"{label}: expected the CRS {cube.rio.crs}, found {layer.rio.crs}; reproject with nearest-neighbour "
            "resampling, or write the CRS where it only got lost"
        )

    def along(axis: str) -> slice:
        _check_axis(label, layer, axis)
        mine, grid, step = layer[axis].values, cube[axis].values, _step(label, cube, axis)
        if mine.size > 1 and (mine[-1] - mine[0]) * step < 0:
            raise CubeError(f"{label}: {axis} runs the wrong way; expected it as in the cube, {grid[0]:.5f} first")
        start = round((mine[0] - grid[0]) / step)
        there = slice(start, start + mine.size)
        if start < 0 or there.stop > grid.size:
            raise CubeError(
                f"{label}: {axis} from {mine[0]:.5f} to {mine[-1]:.5f} reaches outside the cube, whose pixel centres "
                f"go from {grid[0]:.5f} to {grid[-1]:.5f}; cut it first"
            )
        off = np.abs(mine - grid[there]).max() / abs(step)
        if off > 0.1:
            raise CubeError(
                f"{label}: {axis} is off the cube's grid by up to {off:.3g} pixels; expected pixel centres such as "
                f"{grid[start]:.6f}, found {mine[0]:.6f}; align it with nearest-neighbour resampling"
            )
        return there

    return along("y"), along("x")


def commit(
    repo: icechunk.Repository,
    branch: str,
    label: str,
    write: Callable[[icechunk.Session], bool | None],
    message: Callable[[], str],
    metadata: Callable[[], dict[str, Any]],
) -> str | None:
    """Write in a session of its own and commit, unless ``write`` says False: there is nothing to commit.

    Where somebody else was faster, ours is rebased as long as theirs changed pixels only; otherwise what was checked
    may no longer hold, and it starts again from the new tip.
    """
    session = None
    for _ in range(ATTEMPTS):
        if session is None:
            with _clear_errors(label):
                session = repo.writable_session(branch)
                if write(session) is False:
                    return None
        with _clear_errors(
            label, outcome="if the commit arrived, it is there as a whole: look before you run it again"
        ):
            try:
                return session.commit(message(), metadata())
            except icechunk.ConflictError:
                session = _rebase(repo, session)
    raise CubeError(f"{label}: others committed first {ATTEMPTS} times; nothing was committed, run it again")


def _rebase(repo: icechunk.Repository, session: icechunk.Session) -> icechunk.Session | None:
    """Rebase a session; None where that is not possible, or where others changed more than pixels since its base."""
    base = session.snapshot_id
    try:
        session.rebase(icechunk.ConflictDetector())
        theirs = repo.diff(from_snapshot_id=base, to_snapshot_id=session.snapshot_id)
    except (icechunk.ConflictError, icechunk.InvalidInputError):  # the latter: the branch was reset
        return None
    nodes = ("new_groups", "new_arrays", "deleted_groups", "deleted_arrays", "updated_groups", "updated_arrays")
    if any(getattr(theirs, kind) for kind in (*nodes, "moved_nodes")) or any(
        path.rsplit("/", 1)[-1] != ARRAY for path in theirs.updated_chunks
    ):
        return None
    return session


@contextmanager
def _clear_errors(label: str, outcome: str = "nothing was committed") -> Iterator[None]:
    """Turn the store's errors into one that says what to do."""
    try:
        yield
    except icechunk.RepositoryNotFoundError as error:
        raise CubeError(
            f"{label}: found no repository there, or no such bucket; check both, or make one with cube.create"
        ) from error
    except icechunk.StorageError as error:
        raise CubeError(
            f"{label}: the store does not answer or refuses ({_first_line(error)}); check its address, the bucket "
            f"and the credentials; {outcome}"
        ) from error
    except icechunk.IcechunkError as error:
        raise CubeError(f"{label}: {_first_line(error)}; {outcome}") from error


def _first_line(error: icechunk.IcechunkError) -> str:
    return str(error).strip().splitlines()[0]
