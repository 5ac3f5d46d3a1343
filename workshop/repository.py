"""Icechunk repositories: settings, opening or creating, reading, and committing while others commit.

``datacube.py`` and ``world.py`` fill the cubes.
"""

import os
from collections.abc import Callable
from typing import Any

import icechunk
import xarray as xr
import zarr
from zarr.errors import GroupNotFoundError

ARRAY = "lulc"
ATTEMPTS = 1000  # to commit; each failure means that another writer's commit landed


class CubeError(Exception):
    """The cube cannot be read or written as requested; the message says why, and what to do."""


def settings(manifest: icechunk.ManifestConfig | None = None, tries: int = 5) -> icechunk.RepositoryConfig:
    """Return a repository's settings. With Icechunk's defaults, a call waits minutes for a store that is down."""
    storage = icechunk.StorageSettings(
        retries=icechunk.StorageRetriesSettings(max_tries=tries, initial_backoff_ms=100, max_backoff_ms=2000),
        timeouts=icechunk.StorageTimeoutSettings(connect_timeout_ms=5000, operation_attempt_timeout_ms=60_000),
    )
    return icechunk.RepositoryConfig(storage=storage, manifest=manifest)


def open_or_create(storage: icechunk.Storage, config: icechunk.RepositoryConfig | None = None) -> icechunk.Repository:
    """Open the repository or create it, even if an earlier creation was interrupted.

    Raises
    ------
    CubeError
        If other objects are stored there.
    """
    config = config or settings()
    try:
        return icechunk.Repository.open_or_create(storage, config=config)
    except (icechunk.InvalidInputError, icechunk.ConflictError):
        # Not empty: another process has just created it, or an earlier creation was interrupted. That leaves only
        # Icechunk's first snapshot and its log, whose names are always the same.
        found = [entry.key for entry in storage.list_objects_metadata(config.storage)]
    if "repo" in found:
        return icechunk.Repository.open(storage, config=config)
    if others := [key for key in found if not key.endswith("/1CECHNKREP0F1RSTCMT0")]:
        raise CubeError(
            f"expected a repository or an empty place, found {len(found)} other objects such as {others[0]}; "
            "choose another path"
        )
    return icechunk.Repository.create(storage, config=config, check_clean_root=False)


def read(repo: icechunk.Repository, group: str | None = None) -> xr.DataArray:
    """Open the cube at the tip of ``main`` lazily: ``(year, y, x)``, uint8. Later commits do not change the result."""
    return open_array(repo.readonly_session("main").store, group)


def open_array(store: icechunk.IcechunkStore, group: str | None = None) -> xr.DataArray:
    """Open the cube in a session's store lazily. If the cube has levels, open the finest.

    The georeferencing attributes are dropped, because a selection would not update them. Coordinates replace them.
    """
    group = finest(store) if group is None else group
    array = xr.open_zarr(store, group=group, consolidated=False, decode_coords="all", chunks=None)[ARRAY]
    array.attrs = {name: value for name, value in array.attrs.items() if not name.startswith(("proj:", "spatial:"))}
    array.attrs.pop("zarr_conventions", None)
    return array


def read_public(address: str) -> xr.DataArray:
    """Open a public cube of GLAD's classes lazily, at the tip of ``main``, without an account.

    Parameters
    ----------
    address : str
        ``s3://bucket/prefix`` (with ``AWS_REGION``, else us-east-1, and ``AWS_ENDPOINT_URL``, if set), or an http(s)
        URL. The cube need not be from this workshop. If it has levels, the finest is opened.

    Returns
    -------
    xarray.DataArray
        ``(year, y, x)``, uint8, with a CRS.

    Raises
    ------
    CubeError
        If there is no repository, no answer within seconds, or no such cube.
    """
    where = None
    if address.startswith("s3://"):
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        region, endpoint = (os.environ.get(f"AWS_{name}") for name in ("REGION", "ENDPOINT_URL"))
        own = {"endpoint_url": endpoint, "allow_http": True, "force_path_style": True} if endpoint else {}
        where = {"bucket": bucket, "prefix": prefix, "region": region or "us-east-1"} | own
    elif not address.startswith(("http://", "https://")):
        raise CubeError(f"{address}: expected an address such as s3://bucket/prefix or https://example.org/cube")
    try:
        storage = icechunk.s3_storage(**where, anonymous=True) if where else icechunk.http_storage(address)
        store = icechunk.Repository.open(storage, config=settings(tries=2)).readonly_session("main").store
        how = {"consolidated": False, "decode_coords": "all", "chunks": None, "mask_and_scale": False}
        dataset = xr.open_zarr(store, group=finest(store), **how)
    except (icechunk.IcechunkError, GroupNotFoundError, ValueError) as error:
        raise CubeError(
            f"{address}: expected a public cube, found none ({' '.join(str(error).split())[:200]}); check the address "
            "and the network"
        ) from error
    found = [array for array in dataset.data_vars.values() if array.ndim == 3 and array.dims[1:] == ("y", "x")]
    if len(found) != 1 or found[0].dtype != "uint8":
        raise CubeError(f"{address}: expected one array (year, y, x) of uint8, found {list(dataset.data_vars)}")
    cube = found[0].rename({found[0].dims[0]: "year"})
    return cube if cube.rio.crs else cube.rio.write_crs("EPSG:4326")  # the CRS of all GLAD data


def finest(store: icechunk.IcechunkStore) -> str:
    """Return the group of a cube's finest level by the convention ``multiscales``, or the root if it has no levels."""
    levels = zarr.open_group(store, mode="r").attrs.get("multiscales", {"layout": [{"asset": ""}]})
    return levels["layout"][0]["asset"]


def years(store: icechunk.IcechunkStore) -> list[int]:
    """Return the years of the cube in a session's store, or none if nothing is written yet."""
    try:
        group = zarr.open_group(store, path=finest(store), mode="r")
    except GroupNotFoundError:
        return []
    if "year" not in group:
        raise CubeError(f"expected a cube with years, found a group of {sorted(group)}; choose another path")
    return group["year"][:].tolist()


def commit(
    repo: icechunk.Repository, write: Callable[[icechunk.Session], tuple[str, dict[str, Any]] | None]
) -> str | None:
    """Write into a session of ``main`` and commit it. If another commit lands first, start again from that commit.

    A rebase would keep the written data, whose checks may no longer hold after the other commit.

    ``write`` takes the session and returns the commit's message and metadata, or None if there is nothing to commit.
    Returns the new snapshot's id.

    Raises
    ------
    CubeError
        If other commits landed first :data:`ATTEMPTS` times.
    """
    for _ in range(ATTEMPTS):
        session = repo.writable_session("main")
        if (note := write(session)) is None:
            return None
        try:
            return session.commit(*note)
        except icechunk.ConflictError:
            continue
    raise CubeError(f"other commits landed first {ATTEMPTS} times, so nothing was committed; run it again")
