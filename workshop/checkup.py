"""Is a cube sound? ``python -m workshop.checkup REPOSITORY [FILES…]`` prints one line per check, for any cube.

It writes nothing to the cube, and assumes nothing about GLAD. ``sources.py`` compares the cube with its files.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import icechunk
import numpy as np
import pandas as pd
import xarray as xr
import zarr
import zarr_cm
from botocore.exceptions import BotoCoreError
from obstore.exceptions import BaseError
from pyproj import CRS
from rasterio import Affine
from rasterio.warp import transform
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.errors import BaseZarrError

from workshop import repository, sources, stores
from workshop.sources import CF, FAIL, FEW, NOTE, PASS, PROJ, File, InputError, Problems, Raster, brief, line, more
from workshop.tiles import TOLERANCE, is_url

SAMPLE = 40  # chunks per array
SAMPLE_BYTES = 2**28  # of decoded chunks per array
LISTED = 100_000  # if there are more chunks, the sample is drawn without listing them
SMALL, LARGE = 2**15, 2**28  # bytes of a chunk: below, requests dominate; above, a pixel takes a second
NOISE = 1e-6  # of a pixel; rounding errors are a thousand times smaller
NAMES = {
    "y": {"y", "lat", "latitude", "northing", "projection_y_coordinate"},
    "x": {"x", "lon", "longitude", "easting", "projection_x_coordinate"},
    "time": {"time", "year", "date"},
}
CONVENTIONS = {"proj": zarr_cm.proj, "spatial": zarr_cm.spatial, "multiscales": zarr_cm.multiscales}
# The errors that stores and codecs raise if something is missing, unexpected, or cannot be listed
BROKEN = BaseError, BaseZarrError, icechunk.IcechunkError, OSError, RuntimeError, ValueError, KeyError, TypeError


class Finding(NamedTuple):
    """The result of a check: ``PASS``, ``FAIL``, or ``note`` if either is fine; its subject; and what to do."""

    kind: str
    subject: str
    found: str
    advice: str = ""


# The metadata of arrays


def _opened(raster: Raster) -> str:
    """Return the code that opens an array for corrections."""
    return f'zarr.open_array(store, path="{raster.array.path}", mode="r+")'


def _check_crs(raster: Raster) -> Problems:
    """Find a CRS that is missing, written in only one way, or not the CRS of the coordinates."""
    if CF not in raster.crs:
        again = (
            'write it again after `ds.rio.write_crs("EPSG:…")`, with `"grid_mapping": "spatial_ref"` in the encoding'
        )
        for name, variable in raster.dataset.variables.items():
            if "crs_wkt" in variable.attrs:
                again = f'`{_opened(raster)}.attrs["grid_mapping"] = "{name}"`, if that is its CRS'
        yield FAIL, f"grid_mapping names {raster.attrs.get('grid_mapping', 'nothing')}, which has no CRS", again
        return
    cf = raster.crs[CF]
    code = ":".join(cf.to_authority() or ())
    if PROJ not in raster.crs:
        said = f'code="{code}"' if code else "wkt2=ds.rio.crs.to_wkt()"
        call = f'`{_opened(raster)}.attrs.update(zarr_cm.create_many({{"proj": zarr_cm.proj.create({said})}}))`'
        yield NOTE, "only in CF's grid mapping, which some readers do not know", call
    elif not cf.equals(raster.crs[PROJ], ignore_axis_order=True):
        text = f"CF says {cf.name}, and the convention proj says {raster.crs[PROJ].name}"
        yield FAIL, text, "correct the one that is wrong"
    if raster.transform:
        x, y = raster.transform @ (raster.shape[1] / 2, raster.shape[0] / 2)
        (lon,), (lat,) = transform(cf.to_wkt(), "OGC:CRS84", [x], [y])
        area = CRS(code).area_of_use if code else None  # WKT has none
        west, south, east, north = area.bounds if area else (-180, -90, 180, 90)
        text = f"the middle of the raster, {x:g}, {y:g}, is not a place in {cf.name}"
        if not (abs(lon) <= 360 and abs(lat) <= 90):  # also true for NaN
            yield FAIL, text, "write the CRS of the pixels"
        elif west < east and not (west <= (lon + 180) % 360 - 180 <= east and south <= lat <= north):
            yield NOTE, f"{text}'s area of use", "is it the CRS of the pixels?"
    yield PASS, f"{cf.name}, in {' and '.join(raster.crs)}", ""


def _check_axis(raster: Raster, dim: str) -> Problems:
    """Find rows or columns whose labels are missing, duplicated, unsorted, or unevenly spaced."""
    if dim not in raster.dataset.variables:
        yield FAIL, "no coordinate", f"`ds.assign_coords({dim}=…)` with the centers of the pixels"
        return
    labels = raster.dataset.get_index(dim)
    if labels.size == 1 and not raster.transform:
        text = "a single label, and no GeoTransform that fits says how large its pixel is"
        yield NOTE, text, f"`ds.rio.write_transform(…)`, or keep two pixels along {dim}"
        return
    even, step = np.linspace(labels[0], labels[-1], labels.size, retstep=True)
    if not labels.is_unique:
        text = f"{labels.duplicated().sum()} labels are duplicates"
        yield FAIL, text, f'`ds.drop_duplicates("{dim}")`, and write it again'
    elif not (labels.is_monotonic_increasing or labels.is_monotonic_decreasing):
        yield FAIL, "not in order", f'`ds.sortby("{dim}", ascending={dim != raster.y})`, and write it again'
    elif (off := np.abs(labels - even).max()) > NOISE * abs(step):
        text = f"up to {off / abs(step):.1g} pixels off even steps, so the labels of other layers will not match"
        again = f"`ds.assign_coords({dim}=np.linspace({labels[0]:.15g}, {labels[-1]:.15g}, {labels.size}))`"
        yield FAIL if off > TOLERANCE * abs(step) else NOTE, f"{text} ({labels.dtype})", again
    if dim == raster.y and labels.is_monotonic_increasing and labels.size > 1:
        again = f"`ds.isel({dim}=slice(None, None, -1))`, and write it again"
        yield NOTE, "runs from south to north, so some readers draw it upside down", again
    yield PASS, f"{labels.size} even steps, {labels[0]:.10g} to {labels[-1]:.10g}", ""


def _check_place(raster: Raster, level: dict[str, Any]) -> Problems:
    """Compare the georeferencing in the attributes of the array, its group and its level with the coordinates."""
    here, (rows, cols) = raster.transform, raster.shape
    if not here:
        yield NOTE, "not compared with the coordinates, which are uneven or single", "correct the coordinates first"
        return
    again = "write these attributes again from the coordinates: `ds.rio.write_transform()`, `spatial:*` as in lesson 09"
    claims = {}
    if text := raster.mapping.get("GeoTransform"):
        claims["GeoTransform"] = Affine.from_gdal(*map(float, str(text).split()))
    for owner, attrs in {"its": raster.attrs, "its group's": raster.dataset.attrs, "its level's": level}.items():
        if "spatial:transform" in attrs:
            corner = (
                Affine.translation(-0.5, -0.5) if attrs.get("spatial:registration") == "node" else Affine.identity()
            )
            claims[f"{owner} spatial:transform"] = Affine(*attrs["spatial:transform"]) @ corner
        if list(attrs.get("spatial:shape", raster.shape)) != [rows, cols]:
            yield FAIL, f"{owner} spatial:shape is {attrs['spatial:shape']}, but the array is {[rows, cols]}", again
        if "spatial:bbox" in attrs:
            corners = np.sort([here @ (0, 0), here @ (cols, rows)], axis=0).ravel()
            if (np.abs(corners - attrs["spatial:bbox"]) > TOLERANCE * np.abs([here.a, here.e] * 2)).any():
                yield FAIL, f"{owner} spatial:bbox is {attrs['spatial:bbox']}, but should be {corners}", again
    for name, claimed in claims.items():
        off = max(np.abs(np.subtract(~here @ (claimed @ end), end)).max() for end in ((0, 0), (cols, rows)))
        if off > TOLERANCE:
            cause = "; does one of them mistake corners for centers?" if round(off, 2) == 0.5 else ""
            yield FAIL, f"{name} is up to {off:.3g} pixels off the coordinates{cause}", again
    yield PASS, f"the coordinates and {', '.join(claims)} agree" if claims else "only coordinates say where it is", ""


def _check_time(raster: Raster) -> Problems:
    """Find time labels that are missing, undecodable, duplicated, unsorted, or implausible."""
    dim, labels = raster.steps, raster.labels
    if dim not in raster.dataset.variables:
        yield FAIL, "no coordinate", f"`ds.assign_coords({dim}=[…])`"
        return
    if labels is None or labels.hasnans:
        units = raster.dataset[dim].attrs.get("units")
        yield FAIL, f"cannot be decoded with the units {units}", 'write units such as "seconds since 1970-01-01"'
        return
    other = "if nothing was appended in other units, "
    if not labels.is_unique:
        twice = labels[labels.duplicated()]
        yield FAIL, f"{brief(twice[0])}{more(twice)} is a duplicate", f'{other}`ds.drop_duplicates("{dim}")`'
    elif not labels.is_monotonic_increasing:
        k = int(np.argmax(labels[1:] < labels[:-1]))
        yield FAIL, f"{brief(labels[k + 1])} comes after {brief(labels[k])}", f'{other}`ds.sortby("{dim}")`'
    labels = labels.sort_values()
    text = f"{len(labels)} labels, {brief(labels[0])} to {brief(labels[-1])}"
    years = [getattr(label, "year", label) for label in labels[[0, -1]]]
    if not all(isinstance(year, int | np.integer) and 1700 < year < 2200 for year in years):
        yield FAIL, f"{text}: not from 1701 to 2199", f"compare `ds.{dim}.encoding` with the units of appended data"
    elif isinstance(labels, pd.DatetimeIndex) and len(labels) > 3:
        gaps = np.diff(labels)
        if gaps.max() > 20 * np.quantile(gaps, 0.25):
            gap = f"nothing between {brief(labels[gaps.argmax()])} and {brief(labels[gaps.argmax() + 1])}"
            yield NOTE, gap, "is this a gap, or was something appended in other units?"
    yield PASS, text, ""


def _check_conventions(nodes: dict[str, zarr.Group | zarr.Array]) -> Problems:
    """Validate the attributes of groups and arrays against the Zarr conventions that they declare or use."""
    valid = set()
    for (path, node), (name, module) in product(nodes.items(), CONVENTIONS.items()):
        declared = {entry.get("uuid") for entry in node.attrs.get("zarr_conventions", [])}
        if module.UUID in declared or any(key.split(":")[0] == name for key in node.attrs):
            try:
                module.validate_node_metadata(node.metadata.to_dict())
                valid.add(name)
            except (ValueError, TypeError, KeyError) as error:
                yield FAIL, f"{path}: {line(error)}", f"write these attributes with `zarr_cm.{name}.create`"
    if lacking := [key for key in ("Conventions", "license") if key not in nodes["/"].attrs]:
        yield NOTE, f"no attribute {' and no '.join(lacking)}", "name the conventions it follows, and its license"
    yield PASS, f"{', '.join(sorted(valid)) or 'none'} declared and valid", ""


def _check_chunks(raster: Raster) -> Problems:
    """Find chunks or shards whose size or depth makes reading or appending slow."""
    array, outer = raster.array, raster.array.shards or raster.array.chunks
    stored, decoded = (int(np.prod(size)) * array.dtype.itemsize for size in (outer, array.chunks))
    count = int(np.prod(np.ceil(np.divide(array.shape, outer))))
    text = f"{array.chunks}, {decoded:,} bytes before compression; {count:,} objects if all are written"
    again = f'write it again with `encoding={{"{array.basename}": {{"chunks": …}}}}`, about a million pixels each'
    if stored < SMALL and count >= 1000:
        yield (FAIL if count >= 10_000 else NOTE), f"too small: {text}", again
    if decoded > LARGE:
        yield (FAIL if decoded > 4 * LARGE else NOTE), f"too large: {text}", again
    for dim, length, depth in zip(raster.pixels.dims, array.shape, outer, strict=True):
        if dim == raster.steps and 1 < depth < length and length % depth:
            found = f"{length} steps in chunks of {depth}: an append rewrites the last chunk, or corrupts a virtual one"
            yield NOTE, found, "append whole chunks (as many steps as one is deep), or write it with a depth of 1"
    yield PASS, text, ""


# What its pixels say


def _stored(array: zarr.Array) -> np.ndarray | None:
    """Return the position of each object with chunks; None where that cannot be known, or takes too long."""
    prefix, found = f"{array.path}/".lstrip("/"), []

    async def look() -> None:
        async for key in array.store.list_prefix(prefix):
            if match := re.fullmatch(r"(?:c[/.])?(\d+(?:[/.]\d+)*)", key.removeprefix(prefix)):
                found.append(re.split("[/.]", match[1]))
            if len(found) > LISTED:
                return

    try:
        sync(look())
    except BROKEN:
        return None
    return np.array(found, int).reshape(-1, array.ndim) if len(found) <= LISTED else None


def _sample(raster: Raster, stored: np.ndarray | None, count: int | None) -> Iterator[dict[str, slice]]:
    """Yield the places of sampled chunks, spread over the steps (all if no count); only stored ones, if known."""
    array, rng, dims = raster.array, np.random.default_rng(0), raster.pixels.dims
    outer, inner = array.shards or array.chunks, array.chunks
    grid = np.ceil(np.divide(array.shape, outer)).astype(int)
    if count is not None:
        count = max(4, min(count, SAMPLE_BYTES // (int(np.prod(inner)) * array.dtype.itemsize)))
    if stored is None:
        stored = list(np.ndindex(*grid)) if count is None else rng.integers(0, grid, (4 * count, len(grid)))
    places = pd.DataFrame(stored, columns=dims).drop_duplicates().sample(frac=1, random_state=0)
    if raster.steps:
        places = places.iloc[np.argsort(places.groupby(raster.steps).cumcount(), kind="stable")]
    for place in places.to_numpy()[:count]:
        start, size = place * outer, outer
        if count is not None:  # one chunk of a shard
            inside = np.minimum(outer, np.subtract(array.shape, start)) // inner
            start, size = start + rng.integers(0, np.maximum(inside, 1)) * inner, inner
        stop = np.minimum(start + size, array.shape)
        yield dict(zip(dims, map(slice, start.tolist(), stop.tolist()), strict=True))


def _check_written(raster: Raster, stored: np.ndarray | None) -> Problems:
    """Find steps that were not written, or only partly."""
    if stored is None or not len(stored) or not raster.steps:
        return
    k = raster.pixels.dims.index(raster.steps)
    depth = (raster.array.shards or raster.array.chunks)[k]
    counts = np.bincount(stored[:, k], minlength=-(-raster.array.shape[k] // depth))
    usual = np.median(counts[counts > 0])
    if (empty := np.flatnonzero(counts == 0) * depth).size:
        text = f"{raster.step(empty[0])}{more(empty)}: no chunk is stored, so it reads as {raster.array.fill_value}"
        yield FAIL, text, f"write it, or leave it out: `ds.drop_isel({raster.steps}={empty.tolist()})`"
    if (partly := np.flatnonzero((counts > 0) & (counts < 0.6 * usual))).size:
        text = f"{raster.step(partly[0] * depth)}{more(partly)}: fewer chunks are stored than the usual {usual:g}"
        yield NOTE, text, "was it only partly written? Compare it with its files"
    yield PASS, f"all steps have about {usual:g} stored chunks", ""


def _check_blanks(raster: Raster) -> Problems:
    """Find scales and fill values that turn classes into floats, or contradict each other or the legend."""
    dtype, legend, fill, blanks = raster.array.dtype, raster.legend, raster.array.fill_value, raster.blanks
    whole, delete = dtype.kind in "iu", f"delete it from `{_opened(raster)}.attrs`"
    refill = f'write it again with `encoding={{"{raster.array.basename}": {{"fill_value": …}}}}`, a value that '
    if {"scale_factor", "add_offset"} & raster.attrs.keys() and raster.packing == (1, 0) and whole:
        yield FAIL, f"scale_factor 1 and add_offset 0 turn {dtype} into floats when read", delete
    for blank in blanks:
        if whole and not (np.isfinite(blank) and np.iinfo(dtype).min <= blank <= np.iinfo(dtype).max):
            yield FAIL, f"_FillValue {blank} does not fit into {dtype}", delete
        elif raster.is_class(blank):
            yield FAIL, f"_FillValue {blank} is a class ({legend[blank]}) and reads as NaN", delete
        elif legend and whole:
            yield NOTE, f"_FillValue {blank} turns classes into floats when read", f"{delete}; the legend includes it"
    if len({str(float(blank)) for blank in blanks}) > 1:
        yield FAIL, f"_FillValue, missing_value and nodata differ: {blanks}", f"keep one; for the others, {delete}"
    if raster.is_class(fill):
        yield FAIL, f"chunks never written read as {fill}, a class ({legend[fill]})", f"{refill}is no class"
    elif blanks and not any(np.array_equal([fill], [blank], equal_nan=True) for blank in blanks):
        text = f"chunks never written read as {fill}, but no data is {blanks[0]}"
        yield NOTE, text, f"{refill}is no data"
    elif whole and not blanks and not legend and fill == 0:
        text = "chunks never written read as 0, and no attribute says whether 0 is no data"
        yield NOTE, text, f"{refill}does not occur"


def _check_values(raster: Raster, stored: np.ndarray | None, count: int | None, floats: bool) -> Problems:
    """Read a sample; find broken or blank chunks, data types that are too wide, and values missing from the legend.

    If files are ``floats``, too, whole numbers in floats were not made here.
    """
    yield from _check_blanks(raster)
    found, broken = [np.array([], raster.array.dtype)], {}
    for place in _sample(raster, stored, count):
        try:
            found.append(np.unique(raster.pixels.isel(place))[:LISTED])
        except BROKEN as error:
            where = ", ".join(f"{dim} {side.start}:{side.stop}" for dim, side in place.items())
            broken.setdefault(_remedy(error), f"{where} cannot be read: {line(error)}")
    yield from ((FAIL, text, advice) for advice, text in broken.items())
    values = np.unique(np.concatenate(found))
    known = values[~raster.is_blank(values)]
    if not known.size:
        kind = NOTE if stored is None else FAIL  # the sample may have missed the stored chunks
        yield kind, f"the sample has only no data: {values.tolist()}", "was it written and committed?"
        return
    dtype, legend, attrs = raster.array.dtype, raster.legend, f"`{_opened(raster)}.attrs`"
    text = f"{dtype}, {known[0]:g} to {known[-1]:g} in the sample"
    if dtype.kind == "f" or dtype.itemsize == 8:
        least = np.result_type(*(np.min_scalar_type(int(number)) for number in known[[0, -1]]))
        if np.array_equal(known, known.round()) and least.itemsize < dtype.itemsize and known.size > 1:
            surely = dtype.kind == "f" and (legend or (least == np.uint8 and "units" not in raster.attrs))
            advice = f'if they are class codes, open the files without `masked=True`, and write `.astype("{least}")`'
            yield FAIL if surely and not floats else NOTE, f"only whole numbers: {text}", advice
    if legend and (unknown := np.setdiff1d(known, list(legend))).size:
        found = f"values missing from flag_values: {unknown[:10].tolist()}"
        yield FAIL, found, f"complete flag_values and flag_meanings in {attrs}, or correct the pixels"
    if legend and len(words := str(raster.attrs.get("flag_meanings", "")).split()) != len(legend):
        found = f"{len(legend)} flag_values, but {len(words)} words in flag_meanings"
        yield FAIL, found, f"write one word per value in {attrs}, with _ for spaces"
    said = legend or {"units", "flag_masks"} & raster.attrs.keys() or raster.packing != (1, 0)
    if dtype.kind in "iu" and not said and 1 < known.size <= FEW:
        found = f"{known.size} different whole numbers, and no attribute says what they mean"
        yield NOTE, found, f"if they are classes, add flag_values and flag_meanings to {attrs}"
    yield PASS, text, ""


def _check_level(fine: Raster, coarse: Raster, stored: np.ndarray | None, method: str, count: int | None) -> Problems:
    """Compare pixels of an overview with the pixels of the finest level that they cover."""
    again = "make the level again from the finest one, in the same commit as its pixels; for classes, take the mode"
    y, x, steps = coarse.y, coarse.x, coarse.steps
    unlike = (fine.array.dtype, fine.packing) != (coarse.array.dtype, coarse.packing)
    if unlike or (steps and not np.array_equal(fine.dataset[steps], coarse.dataset[steps])):
        yield FAIL, f"its data type, packing or {steps or 'steps'} differ from the finest level's", again
        return
    there = ~fine.transform @ coarse.transform
    high, wide = round(there.e), round(there.a)  # of a pixel, in pixels of the finest level
    off = max(abs(there.c), abs(there.f), *np.abs(np.subtract((there.e, there.a), (high, wide)) * coarse.shape))
    if min(high, wide) < 1 or off > TOLERANCE * max(high, wide):
        kind = FAIL if max(abs(there.c), abs(there.f)) > max(high, wide) else NOTE
        yield kind, "its pixels do not cover whole pixels of the finest level, so they were not compared", again
        return
    classes = fine.legend or method in ("mode", "nearest") or (not method and fine.has_classes)
    checked = wrong = 0
    for place in _sample(coarse, stored if stored is not None and len(stored) else None, count):
        rows, cols = (range(place[dim].start, place[dim].stop) for dim in (y, x))
        depth = np.prod([side.stop - side.start for side in place.values()]) / (len(rows) * len(cols))
        reach = int((1e6 / depth) ** 0.5)  # so that a block covers a million pixels
        parts = list(sources.blocks(rows, cols, max(1, reach // high), max(1, reach // wide)))
        for part in parts if count is None else [parts[len(parts) // 2]]:
            ends = zip((y, x), part, (high, wide), strict=True)
            whole = {dim: slice(side.start * factor, side.stop * factor) for dim, side, factor in ends}
            cells = fine.pixels.isel(place | whole).coarsen({y: high, x: wide}, boundary="pad")
            cells = cells.construct({y: (y, "down"), x: (x, "right")})
            pixels = coarse.pixels.isel(place | dict(zip((y, x), part, strict=True)))
            if classes:
                fits = (cells == pixels).any(["down", "right"])
            else:
                known = cells.where(~fine.is_blank(cells))
                slack = 1 if fine.array.dtype.kind in "iu" else 1e-5 * np.abs(known).max(["down", "right"])
                least, most = known.min(["down", "right"]) - slack, known.max(["down", "right"]) + slack
                within, gap = (pixels >= least) & (pixels <= most), known.isnull().any(["down", "right"])
                fits = within.where(~coarse.is_blank(pixels), gap)
            checked, wrong = checked + fits.size, wrong + int((~fits).sum())
    kind = "among" if classes else "between"
    if wrong:
        text = f"{wrong:,} of {checked:,} pixels are not {kind} the pixels of the finest level that they cover"
        yield FAIL, text, again
    yield PASS, f"{checked:,} pixels are {kind} the {high} x {wide} that each covers", ""


# Consolidated metadata and history


def _check_consolidated(root: zarr.Group, plain: zarr.Group, listed: bool) -> Problems:
    """Compare consolidated metadata with the metadata that they copy."""
    copies = root.metadata.consolidated_metadata.flattened_metadata
    stale = sorted({name for name, _ in plain.members(max_depth=None)} - copies.keys()) if listed else []
    for name, copy in copies.items():
        now, then = plain[name].metadata.to_dict() if name in plain else {}, copy.to_dict()
        if any(now.get(key) != then.get(key) for key in ("shape", "attributes", "data_type", "chunk_grid")):
            stale.append(name)
    if stale:
        text = f"out of date for {stale[0]}{more(stale)}: readers see an earlier state"
        yield FAIL, text, "`zarr.consolidate_metadata(store)`, as the last step of each update"
    yield PASS, f"agree with {len(copies)} arrays and groups", ""


def _check_history(repo: icechunk.Repository, snapshot: str) -> Problems:
    """Find many snapshots, and much storage that no branch or tag needs."""
    if (count := sum(1 for _ in repo.ancestry(snapshot_id=snapshot))) > 1000:
        yield NOTE, f"{count:,} snapshots", "`repo.expire_snapshots(older_than)`; tagged snapshots are kept"
    garbage = "not measured, because there are too many chunks"
    if sum(manifest.num_chunk_refs for manifest in repo.list_manifest_files(snapshot)) < LISTED:
        garbage = "unknown, because the server does not list objects"
        with suppress(*BROKEN):
            total = sum(entry.size_bytes for entry in repo.storage.list_objects_metadata())
            share = repo.garbage_collect(datetime.now(UTC), dry_run=True).bytes_deleted / max(total, 1)
            garbage = f"{share:.0%} of {total / 1e6:.1f} MB"
            if share > 0.2:
                advice = "`repo.garbage_collect(datetime.now(UTC) - timedelta(days=7))`, if no session is open longer"
                yield NOTE, f"no branch or tag needs {garbage}", advice
    yield PASS, f"{count:,} snapshots; garbage: {garbage}", ""


# Opening a cube


def _places(address: str) -> tuple[icechunk.Storage, Store]:
    """Return an address as Icechunk storage and as a Zarr store."""
    if address.startswith("s3://"):
        name, _, prefix = address.removeprefix("s3://").strip("/").partition("/")
        session = boto3.Session()
        keys, endpoint = session.get_credentials(), session.client("s3").meta.endpoint_url
        names = "access_key_id", "secret_access_key", "session_token"
        frozen = keys.get_frozen_credentials() if keys else ()
        known = {key: value for key, value in zip(names, frozen, strict=False) if value}
        own = None if "amazonaws.com" in endpoint else endpoint
        place = name, prefix, session.region_name or stores.LOCAL_REGION, own
        by_zarr = stores.Bucket(*place, known or {"skip_signature": True})
        return stores.Bucket(*place, known or {"anonymous": True}).icechunk(""), by_zarr.zarr("", read_only=True)
    if is_url(address):
        return icechunk.http_storage(address), zarr.storage.ObjectStore(stores.http_store(address), read_only=True)
    path = Path(address).resolve(strict=True)
    return icechunk.local_filesystem_storage(str(path)), zarr.storage.LocalStore(path, read_only=True)


def _access(prefix: str) -> Any:
    """Return credentials for the files behind virtual chunks."""
    if prefix.startswith("s3:"):
        known = boto3.Session().get_credentials()
        return icechunk.s3_from_env_credentials() if known else icechunk.s3_anonymous_credentials()
    return icechunk.credentials.HttpAccess if is_url(prefix) else icechunk.credentials.LocalFileSystemAccess


def _open(where: Any, branch: str, tag: str | None, follow: bool) -> tuple[Store, icechunk.Repository | None, str]:
    """Return the store to read, and for a repository also the repository and the snapshot."""
    if isinstance(where, Store):
        return where, None, ""
    repo = where
    if not isinstance(where, icechunk.Repository):
        config = repository.settings(tries=2)
        try:
            storage, plain = _places(str(where))
            if not icechunk.Repository.exists(storage, config.storage):
                zarr.open_group(plain, mode="r")
                return plain, None, ""
            repo = icechunk.Repository.open(storage, config=config)
            if follow and (prefixes := repo.config.virtual_chunk_containers):
                access = icechunk.containers_credentials({prefix: _access(prefix) for prefix in prefixes})
                repo = icechunk.Repository.open(storage, config=config, authorize_virtual_chunk_access=access)
        except (*BROKEN, BotoCoreError) as error:
            text = "expected a repository or a Zarr group in a folder, at s3://bucket/prefix or an http(s) URL"
            raise InputError(f"{where}: {text}, found none ({line(error)}); check the address") from error
    if repo.config.virtual_chunk_containers:
        from workshop import virtual  # noqa: F401, registers the decoder for references to TIFF files
    try:
        session = repo.readonly_session(tag=tag) if tag else repo.readonly_session(branch)
    except icechunk.IcechunkError as error:
        names = f"the branches {sorted(repo.list_branches())} and tags {sorted(repo.list_tags())}"
        raise InputError(f"{where}: expected {tag or branch}, found {names}; choose one of them") from error
    return session.store, repo, session.snapshot_id


def _levels(root: zarr.Group) -> dict[str, dict[str, Any]]:
    """Return the paths of a cube's levels, the finest first, with their entries in the convention multiscales."""
    known, members = root.attrs.get("multiscales"), dict(root.members())
    if isinstance(known, dict) and (layout := known.get("layout")):
        common = {"resampling_method": known.get("resampling_method", "")}
        return {f"{root.path}/{entry['asset']}".strip("/"): common | entry for entry in layout if "asset" in entry}
    if any(getattr(node, "ndim", 0) > 1 for node in members.values()):
        return {root.path: {}}
    found = {node.path: {} for name, node in sorted(members.items()) if re.fullmatch(r"\d", name)}
    if not found:
        advice = "choose another `--group`, or commit the arrays; over HTTP, run `zarr.consolidate_metadata(store)`"
        raise InputError(f"expected rows and columns in /{root.path}, found {sorted(members)}; {advice}")
    return found


def _rasters(store: Store, path: str, listed: bool) -> list[Raster]:
    """Return the arrays of a group that have rows and columns."""
    how = {"consolidated": False if listed else None, "chunks": None}
    undecoded = {"mask_and_scale": False, "decode_times": False, "decode_coords": False}
    dataset = xr.open_zarr(store, group=path or None, **how, **undecoded)
    group = zarr.open_group(store, path=path, mode="r", use_consolidated=how["consolidated"])
    found = []
    for name in sorted(dataset.variables, key=lambda name: [text.zfill(9) for text in re.split(r"(\d+)", name)]):
        axes = {}
        for dim in dataset[name].dims:
            attrs = dataset[dim].attrs
            names = {dim.lower(), str(attrs.get("axis", "")).lower(), str(attrs.get("standard_name", ""))}
            names |= {"time"} if " since " in str(attrs.get("units")) else set()
            axes[next((kind for kind, known in NAMES.items() if names & known), "other")] = dim
        if {"y", "x"} <= axes.keys() and name not in NAMES["y"] | NAMES["x"]:  # not the coordinates of a swath
            dims = axes["y"], axes["x"], axes.get("time", ""), axes.get("other", "")
            found.append(Raster(group[name], dataset, *dims))
    if not found:
        raise ValueError(f"expected dimensions y and x, or lat and lon, found {dict(dataset.sizes)}")
    return found


# The whole check


def _remedy(error: Exception) -> str:
    """Return the advice for data that cannot be read."""
    text = str(error).lower()
    if "authoriz" in text or "credential" in text:
        return "the pixels are in other files; if you trust the repository, run the check again with `--follow`"
    if "checksum" in text or "modified" in text:
        return "the file was replaced after the references were made; make the references again, in a new commit"
    return "bring back the missing objects, or write the data again from its source or from an old commit or tag"


def _checks(
    opened: tuple[Store, icechunk.Repository | None, str], group: str, files: dict[str, File], sample: int | None
) -> Iterator[tuple[str, Problems]]:
    """Yield subjects and their problems in printing order."""
    store, repo, snapshot = opened
    root = zarr.open_group(store, path=group, mode="r")
    plain = zarr.open_group(store, path=group, mode="r", use_consolidated=False)
    finest, listed, floats = {}, False, any("float" in file.dtype for file in files.values())
    with suppress(*BROKEN):
        listed = any(plain.members())
    seen = plain if listed else root
    levels = _levels(seen)
    if repo is not None:
        yield "repository", _check_history(repo, snapshot)
    if root.metadata.consolidated_metadata is not None:
        yield "consolidated metadata", _check_consolidated(root, plain, listed)
    yield f"{group}/ conventions", _check_conventions({"/": seen} | dict(seen.members(max_depth=None)))
    if len(levels) > 1 and not any(levels.values()):
        text = f"{len(levels)} levels that no attribute multiscales describes"
        yield "levels", iter([(NOTE, text, "write the result of `zarr_cm.multiscales.create`, as in lesson 09")])
    for path, said in levels.items():
        try:
            rasters = _rasters(store, path, listed)
        except BROKEN as error:
            yield path or "/", iter([(FAIL, f"xarray cannot open it ({line(error)})", _remedy(error))])
            continue
        for dim, raster in {raster.steps: raster for raster in rasters if raster.steps}.items():
            yield f"{path}/{dim}".strip("/"), _check_time(raster)
        for dim, raster in {dim: each for each in rasters for dim in (each.y, each.x)}.items():
            yield f"{path}/{dim}".strip("/"), _check_axis(raster, dim)
        for raster in rasters:
            stored, fine = _stored(raster.array) if listed else None, finest.setdefault(raster.array.basename, raster)
            yield f"{raster.array.path} CRS", _check_crs(raster)
            yield f"{raster.array.path} place", _check_place(raster, said)
            if fine is raster:
                yield f"{raster.array.path} chunks", _check_chunks(raster)
                yield f"{raster.array.path} steps", _check_written(raster, stored)
                yield f"{raster.array.path} values", _check_values(raster, stored, sample, floats)
            elif fine.transform and raster.transform:
                method = said.get("resampling_method", "")
                yield f"{raster.array.path} level", _check_level(fine, raster, stored, method, sample)
    if files:
        yield from sources.compare(list(finest.values()), files, sample)


def check(
    where: Any,
    files: tuple[str | Path, ...] = (),
    *,
    branch: str = "main",
    tag: str | None = None,
    group: str = "",
    sample: int | None = SAMPLE,
    date: str | None = None,
    form: str | None = None,
    follow: bool = False,
) -> Iterator[Finding]:
    r"""Check a cube; yield at least one finding per check.

    Parameters
    ----------
    where : str, pathlib.Path, zarr.abc.store.Store or icechunk.Repository
        A folder, ``s3://bucket/prefix`` (with the credentials and endpoint of the usual AWS settings), an http(s) URL;
        or a store, such as the store of a session before its commit.
    files
        Rasters that the cube was made from, or folders of them. The cube is compared with them.
    branch, tag, group
        Which version of a repository, and which group in it.
    sample
        How many chunks to read per array, or None for all.
    date, form
        A regular expression that finds the date in a file's path, such as ``(\d{4})_(\d\d)``, with groups for year,
        month and day in this order or by these names. With a strptime format such as ``%Y%j``, one group is enough.
    follow
        Whether to read virtual chunks from other files. Do this only if you trust the repository.

    Raises
    ------
    InputError
        If there is no cube, or no raster among the files.
    """
    try:
        re.compile(date or "")
        found = sources.find(files, date, form)
        opened = _open(where, branch, tag, follow)
        zarr.open_group(opened[0], path=group, mode="r")
    except re.error as error:
        raise InputError(f"{date}: expected a regular expression, found an error in it: {error}; correct it") from error
    except BROKEN as error:
        text = f"{where}: expected the group {group or '/'}, found none ({line(error)}); check `--group`"
        raise InputError(text) from error
    for subject, problems in _checks(opened, group, found, sample):
        failed = False
        try:
            for kind, text, advice in problems:
                failed |= kind == FAIL
                if kind != PASS or not failed:  # a check that failed does not pass
                    yield Finding(kind, subject, text, advice)
        except Exception as error:  # a broken store can raise any error
            yield Finding(FAIL, subject, f"cannot be read ({line(error)})", _remedy(error))


def main(argv: list[str] | None = None) -> int:
    """Print a line per finding; return 0 if nothing failed, 1 if something did, 2 if there is nothing to check."""
    parser = argparse.ArgumentParser(prog="python -m workshop.checkup", description=__doc__.split("``")[0])
    parser.add_argument("repository", help="a folder, s3://bucket/prefix or an http(s) URL: Icechunk or Zarr")
    parser.add_argument("files", nargs="*", help="rasters that the cube was made from, or folders of them")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--tag")
    parser.add_argument("--group", default="", help="path of the cube in the store")
    parser.add_argument("--sample", type=int, default=SAMPLE, metavar="N", help="chunks to read per array")
    parser.add_argument("--all", action="store_const", const=None, dest="sample", help="read all chunks and files")
    parser.add_argument("--date", metavar="REGEX", help="finds the date in a path; groups for year, month, day")
    parser.add_argument("--format", dest="form", metavar="FORMAT", help="strptime format of that date, such as %%Y%%j")
    parser.add_argument("--follow", action="store_true", help="read chunks in other files, if you trust the repository")
    options = vars(parser.parse_args(argv))
    failed = 0
    try:
        for kind, subject, found, advice in check(options.pop("repository"), options.pop("files"), **options):
            failed += kind == FAIL
            print(f"{kind}  {subject}: {found}{'; ' if advice else ''}{advice}", flush=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print("sound" if not failed else f"{failed} to fix; the lines above say how")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
