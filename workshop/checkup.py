"""Is a cube sound? ``python -m workshop.checkup REPOSITORY [FILES…]`` prints a line for each check, for anybody's cube.

The cube is an Icechunk repository or a Zarr store in a folder, on S3 or on the web; nothing is written to it. Nothing
here knows GLAD's grid or legend.
"""

import argparse
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import icechunk
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
import zarr
import zarr_cm
from botocore.exceptions import BotoCoreError
from obstore.exceptions import BaseError
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.errors import BaseZarrError

from workshop import repository, stores
from workshop.tiles import TOLERANCE, gdal_path, is_url

FAIL, NOTE, PASS = "FAIL", "note", "PASS"
SAMPLE = 40  # chunks of each array
SAMPLE_BYTES = 2**28  # of decoded chunks of each array
LISTED = 100_000  # where there are more chunks, they are sampled without a list of them
SMALL, LARGE = 2**15, 2**28  # bytes of a chunk: below, requests cost more than bytes; above, one pixel takes a second
EXPLAINED = 10  # steps that differ from their files
ALIKE = 0.1  # likeness of a file on another grid; on a real tile 0.3 where codes were averaged, 0.03 upside down
NOISE = 1e-6  # of a pixel; rounding leaves a thousandth of it
NAMES = {
    "y": {"y", "lat", "latitude", "northing", "projection_y_coordinate"},
    "x": {"x", "lon", "longitude", "easting", "projection_x_coordinate"},
}
TIMES = {"time", "year", "date"}
NO_DATA = re.compile(r"no.?data|fill|missing|outside", re.IGNORECASE)  # what legends call it
RASTERS = {".tif", ".tiff", ".jp2", ".vrt", ".img"}
DATES = (
    r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)",
    r"(?<!\d)((?:19|20)\d\d)[-_](0[1-9]|1[0-2])(?![0-9A-Za-z])",
    r"(?<!\d)((?:19|20)\d\d)(?!\d)",
)
UNLISTED = BaseError, OSError, NotImplementedError, icechunk.IcechunkError  # where a server does not list

CF, PROJ = "CF's grid mapping", "the convention proj"  # the ways in which a CRS is written

Problems = Iterator[tuple[str, str, str]]  # kind, what was found, what to do


class Finding(NamedTuple):
    """What a check found: ``PASS``, ``FAIL``, or ``note`` where either is fine; about what; and what to do."""

    kind: str
    subject: str
    found: str
    advice: str = ""


class InputError(Exception):
    """There is no cube, or no raster; the message says what was expected, what was found, and what to do."""


class Raster(NamedTuple):
    """An array with rows and columns, as it is stored: not masked, not scaled."""

    path: str
    array: zarr.Array
    attrs: dict[str, Any]
    group: zarr.Group
    dataset: xr.Dataset
    dims: tuple[str, ...]
    y: str
    x: str
    steps: str  # the axis of time, if there is one
    bands: str  # another axis
    shape: tuple[int, int]
    ways: dict[str, CRS]  # in which its CRS is written
    transform: Affine | None  # from the coordinates; None where they are not even
    packing: tuple[float, float]
    blanks: list[Any]  # what is declared to be no data
    legend: dict[int, str]

    def is_class(self, value: Any) -> bool:
        """Return whether the legend has a value as something other than no data."""
        return value in self.legend and not NO_DATA.search(self.legend[value])

    def is_blank(self, values: np.ndarray) -> np.ndarray:
        """Return where there is no data."""
        blank = np.isin(values, [value for value in [*self.blanks, self.array.fill_value] if not self.is_class(value)])
        return blank | np.isnan(values) if values.dtype.kind == "f" else blank

    def read(self, rows: slice, cols: slice, step: int = 0, band: int = 0) -> np.ndarray:
        """Return pixels ``(y, x)``."""
        where = {self.y: rows, self.x: cols, self.steps: step, self.bands: band}
        pixels = self.array[tuple(where.get(dim, 0) for dim in self.dims)]
        return pixels if self.dims.index(self.y) < self.dims.index(self.x) else pixels.T

    def labels(self, dim: str) -> pd.Index:
        """Return the decoded labels of an axis."""
        return xr.decode_cf(self.dataset[[dim]])[dim].to_index()

    def step(self, position: int) -> str:
        """Return what a step is called."""
        with suppress(ValueError, KeyError, OverflowError):
            return f"{self.steps} {_label(self.labels(self.steps)[position])}"
        return f"{self.steps} number {position}"

    @property
    def crs(self) -> CRS | None:
        """Return the CRS."""
        return next(iter(self.ways.values()), None)

    @property
    def opened(self) -> str:
        """Return the call that opens the array for mending."""
        return f'zarr.open_array(store, path="{self.path}", mode="r+")'


def _raster(path: str, group: zarr.Group, dataset: xr.Dataset) -> Raster | None:
    """Describe an array of a group; None where it has no rows and columns."""
    name = path.rsplit("/", 1)[-1]
    attrs, dims = dataset.variables[name].attrs, dataset.variables[name].dims
    y, x = (next((dim for dim in dims if _names(dataset, dim) & NAMES[kind]), "") for kind in "yx")
    if not (y and x) or name in NAMES["y"] | NAMES["x"]:  # coordinates of a swath are none
        return None
    others = [dim for dim in dims if dim not in (y, x)]
    steps = next((dim for dim in others if _is_time(dataset, dim)), "")
    written = {}
    if (mapping := dataset.variables.get(str(attrs.get("grid_mapping")).split(":")[0])) is not None:
        written[CF] = mapping.attrs
    for node in (group.attrs.asdict(), attrs):
        for key in ("proj:code", "proj:wkt2", "proj:projjson"):
            if key in node:
                written[PROJ] = node[key]
    ways = {}
    for way, text in written.items():
        with suppress(CRSError, KeyError):  # what cannot be read is not written
            ways[way] = CRS.from_cf(text) if way == CF else CRS(text)
    flags = np.atleast_1d(
        attrs.get("flag_values", []) if "flag_masks" not in attrs else []
    ).tolist()  # of bits, no list
    meanings = str(attrs.get("flag_meanings", "")).split() + [""] * len(flags)
    return Raster(
        path=path,
        array=group[name],
        attrs=attrs,
        group=group,
        dataset=dataset,
        dims=dims,
        y=y,
        x=x,
        steps=steps,
        bands=next((dim for dim in others if dim != steps), ""),
        shape=(dataset.sizes[y], dataset.sizes[x]),
        ways=ways,
        transform=_transform(_numbers(dataset, y), _numbers(dataset, x)),
        packing=(float(attrs.get("scale_factor", 1)), float(attrs.get("add_offset", 0))),
        blanks=[attrs[key] for key in ("_FillValue", "missing_value", "nodata") if key in attrs],
        legend=dict(zip(flags, meanings, strict=False)),
    )


def _names(dataset: xr.Dataset, dim: str) -> set[str]:
    attrs = dataset[dim].attrs if dim in dataset.variables else {}
    return {dim.lower(), str(attrs.get("axis", "")).lower(), str(attrs.get("standard_name", ""))}


def _is_time(dataset: xr.Dataset, dim: str) -> bool:
    units = dataset[dim].attrs.get("units", "") if dim in dataset.variables else ""
    return dim.lower() in TIMES or " since " in str(units)


def _numbers(dataset: xr.Dataset, dim: str) -> np.ndarray:
    """Return a coordinate as numbers; none where there is none, or it has others than finite ones."""
    if dim not in dataset.variables or dataset[dim].dtype.kind not in "iuf":
        return np.array([])
    numbers = dataset[dim].values.astype(float)
    return numbers if np.isfinite(numbers).all() else np.array([])


def _transform(y: np.ndarray, x: np.ndarray) -> Affine | None:
    numbers = []
    for centers in (x, y):
        step = (centers[-1] - centers[0]) / (centers.size - 1) if centers.size > 1 else 0
        if not step or np.abs(centers - np.linspace(centers[0], centers[-1], centers.size)).max() > TOLERANCE * abs(
            step
        ):
            return None
        numbers.append((step, centers[0] - step / 2))
    (right, left), (down, top) = numbers
    return Affine(right, 0, left, 0, down, top)


def _label(value: Any) -> str:
    return str(value).removesuffix(" 00:00:00")


def _more(items: Any) -> str:
    return f" and {len(items) - 1} more" if len(items) > 1 else ""


def _line(error: BaseException) -> str:
    known = error.__cause__ if "previous exception" in str(error) and error.__cause__ else error  # as rasterio says
    text = " ".join(str(known).split())
    return f"{text[:200]} …" if len(text) > 200 else text or type(error).__name__


# What a store says of its arrays


def _check_crs(raster: Raster) -> Problems:
    crs, cf, proj = raster.crs, raster.ways.get(CF), raster.ways.get(PROJ)
    again = 'write it again after `ds.rio.write_crs("EPSG:…")`, with `"grid_mapping": "spatial_ref"` in the encoding'
    if cf is None:
        named = raster.attrs.get("grid_mapping", "nothing")
        there = [name for name, variable in raster.dataset.variables.items() if "crs_wkt" in variable.attrs]
        if there and named not in there:
            again = f'`{raster.opened}.attrs["grid_mapping"] = "{there[0]}"`'
        text = f"the attribute grid_mapping names {named}, {there or 'nothing'} has CF's crs_wkt"
        if named in there:
            text = f"{named} holds a CRS that cannot be read"
        yield FAIL, f"{'in the convention proj only' if proj else 'none'}; {text}", again
        return
    if proj is None:
        said = f'code="{":".join(cf.to_authority())}"' if cf.to_authority() else "wkt2=ds.rio.crs.to_wkt()"
        call = f'{raster.opened}.attrs.update(zarr_cm.create_many({{"proj": zarr_cm.proj.create({said})}}))'
        yield NOTE, "in CF's grid mapping only, which readers that do not know CF miss", f"`{call}`"
    elif not cf.equals(proj, ignore_axis_order=True):
        yield FAIL, f"CF says {cf.name}, the convention proj {proj.name}", "correct the one that is wrong"
    if raster.transform is not None:
        x, y = raster.transform @ (raster.shape[1] / 2, raster.shape[0] / 2)
        lon, lat = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(x, y)
        text = f"the middle of the raster, {x:g}, {y:g}, is no place in {crs.name}"
        area = (CRS(":".join(crs.to_authority())) if crs.to_authority() else crs).area_of_use  # which WKT lacks
        if not np.isfinite([lon, lat]).all() or (crs.is_geographic and (abs(y) > 90 or abs(x) > 360)):
            yield FAIL, text, "write the CRS that the pixels have"
        elif area and area.west < area.east:
            west, south, east, north = area.bounds
            if not (west <= (lon + 180) % 360 - 180 <= east and south <= lat <= north):
                yield NOTE, f"{text} as it is meant to be used", "is it the CRS that the pixels have?"
    yield PASS, f"{crs.name}, in {' and '.join(raster.ways)}", ""


def _check_axis(raster: Raster, dim: str) -> Problems:
    centers = _numbers(raster.dataset, dim)
    if not centers.size:
        yield FAIL, "no coordinate of finite numbers", f"`ds.assign_coords({dim}=…)` with the centers of the pixels"
        return
    steps, even = np.diff(centers), np.linspace(centers[0], centers[-1], centers.size)
    again = f"`ds.assign_coords({dim}=np.linspace({centers[0]:.15g}, {centers[-1]:.15g}, {centers.size}))`"
    if twice := centers.size - np.unique(centers).size:
        yield FAIL, f"{twice} labels occur again", f'`ds.drop_duplicates("{dim}")`, and write it again'
    elif (steps > 0).any() and (steps < 0).any():
        yield FAIL, "not in order", f'`ds.sortby("{dim}", ascending={dim != raster.y})`, and write it again'
    elif steps.size:
        off = np.abs(centers - even) / abs(steps.mean())
        worst, dtype = int(off.argmax()), raster.dataset[dim].dtype
        if off[worst] > TOLERANCE:
            cause = ": float32 has too few digits" if dtype == np.float32 else ""
            yield FAIL, f"not even: {centers[worst]:.10g} where {even[worst]:.10g} was due{cause}", again
        elif off[worst] > NOISE:
            text = (
                f"up to {off[worst]:.1g} of a pixel off even steps ({dtype}), so labels of other layers will not match"
            )
            yield NOTE, text, again
        if dim == raster.y and steps[0] > 0:
            text = "runs from south to north, which some readers draw upside down"
            yield NOTE, text, f"`ds.isel({dim}=slice(None, None, -1))`, and write it again"
    yield PASS, f"{centers.size} even steps, {centers[0]:.10g} to {centers[-1]:.10g}", ""


def _check_place(raster: Raster, layout: dict[str, Any]) -> Problems:
    """Compare what attributes say of the place with the coordinates."""
    here, (rows, cols) = raster.transform, raster.shape
    if here is None:
        yield NOTE, "attributes were not compared with coordinates, which are not even", "mend the coordinates first"
        return
    again = "write the place again from the coordinates: `ds.rio.write_transform()`, and `spatial:*` as lesson 09 does"
    owners = {"its": raster.attrs, "its group's": raster.group.attrs.asdict(), "its level's": layout}
    claims = {}
    for owner, attrs in owners.items():
        if len(attrs.get("spatial:transform", ())) == 6:  # which the convention's check asks for, too
            shift = -0.5 if attrs.get("spatial:registration") == "node" else 0
            claims[f"{owner} spatial:transform"] = Affine(*attrs["spatial:transform"]) @ Affine.translation(
                shift, shift
            )
        if list(attrs.get("spatial:shape", raster.shape)) != [rows, cols]:
            yield FAIL, f"{owner} spatial:shape is {attrs['spatial:shape']}, and it has {[rows, cols]}", again
        if "spatial:bbox" in attrs:
            corners = np.sort([here @ (0, 0), here @ (cols, rows)], axis=0).ravel()
            if (off := np.abs(corners - attrs["spatial:bbox"]) / np.abs([here.a, here.e] * 2)).max() > TOLERANCE:
                yield FAIL, f"{owner} spatial:bbox is {off.max():.3g} pixels off the coordinates", again
    mapping = raster.dataset.variables.get(str(raster.attrs.get("grid_mapping")).split(":")[0])
    if mapping is not None and (text := str(mapping.attrs.get("GeoTransform", ""))):
        numbers = [float(word) for word in text.split() if re.fullmatch(r"[-+.\deE]+", word)]
        if len(numbers) == 6:
            claims["GeoTransform"] = Affine.from_gdal(*numbers)
        else:
            yield FAIL, f"GeoTransform is {text!r}, not six numbers", again
    if raster.dims[-2:] != (raster.y, raster.x):
        text = f"the dimensions are {raster.dims}; GDAL takes the last two for rows and columns"
        yield NOTE, text, f'`ds.transpose(..., "{raster.y}", "{raster.x}")`, and write it again'
    for name, claimed in claims.items():
        off = [np.subtract(~here @ (claimed @ corner), corner) for corner in ((0, 0), (cols, rows))]
        if np.abs(off).max() > TOLERANCE:
            half = np.allclose(np.abs(off).max(axis=1), 0.5, atol=0.01)
            cause = "; half a pixel, so one of the two takes corners for centers" if half else ""
            yield FAIL, f"{name} is up to {np.abs(off).max():.3g} pixels off the coordinates{cause}", again
    yield PASS, f"the coordinates and {', '.join(claims)} agree" if claims else "told by the coordinates alone", ""


def _check_steps(raster: Raster, dim: str) -> Problems:
    time = dim == raster.steps
    if dim not in raster.dataset.variables:
        yield (FAIL if time else NOTE), "no coordinate, only positions", f"`ds.assign_coords({dim}=[…])`"
        return
    try:
        labels = raster.labels(dim)
    except (ValueError, OverflowError, ImportError) as error:
        yield FAIL, f"does not decode ({_line(error)})", 'write units such as "seconds since 1970-01-01"'
        return
    if not len(labels):
        yield FAIL, "empty", "append something"
        return
    other = "if nothing was appended in other units, "
    if not labels.is_unique:
        again = labels[labels.duplicated()]
        yield (
            FAIL,
            f"{len(again)} labels occur again, such as {_label(again[0])}",
            f'{other}`ds.drop_duplicates("{dim}")`',
        )
    elif time and not labels.is_monotonic_increasing:
        k = int(np.argmax(labels[1:] < labels[:-1]))
        yield FAIL, f"{_label(labels[k + 1])} comes after {_label(labels[k])}", f'{other}`ds.sortby("{dim}")`'
    if labels.hasnans:
        yield FAIL, f"{int(labels.isna().sum())} labels are missing", "give each step its label"
    elif isinstance(labels, pd.DatetimeIndex):
        if labels.year.min() < 1800 or labels.year.max() > datetime.now(UTC).year + 100:
            text = f"reaches from {_label(labels.min())} to {_label(labels.max())}"
            yield FAIL, text, f"compare `ds.{dim}.encoding` with the units of what was appended"
        ordered = labels.sort_values()
        gaps = np.diff(ordered)
        if len(gaps) > 2 and gaps.max() > 20 * np.quantile(gaps, 0.25):
            text = f"nothing between {_label(ordered[gaps.argmax()])} and {_label(ordered[gaps.argmax() + 1])}"
            yield NOTE, text, "a gap, or something was appended in other units"
    elif (
        time and not isinstance(labels, xr.CFTimeIndex) and (labels.dtype.kind not in "iu" or not 0 < labels[0] < 3000)
    ):
        text = f"{labels.dtype}, such as {_label(labels[0])}, is neither a year nor a time in units"
        yield FAIL, text, 'assign datetime64 labels, and write units such as "seconds since 1970-01-01"'
    yield PASS, f"{len(labels)} labels, {_label(labels[0])} to {_label(labels[-1])}", ""


def _check_conventions(nodes: dict[str, tuple[zarr.Group | zarr.Array, tuple[str, ...]]], top: bool) -> Problems:
    valid = set()
    for path, (node, dims) in nodes.items():
        attrs = node.attrs.asdict()
        document: dict[str, Any] = {"zarr_format": 3, "attributes": attrs, "node_type": "group"}
        if isinstance(node, zarr.Array):
            document |= {"node_type": "array", "shape": list(node.shape), "dimension_names": list(dims)}
        declared = {entry.get("uuid") for entry in attrs.get("zarr_conventions", [])}
        for module in (zarr_cm.proj, zarr_cm.spatial, zarr_cm.multiscales):
            name = module.__name__.rsplit(".", 1)[-1]
            if module.UUID in declared or any(key.split(":")[0] == name for key in attrs):
                try:
                    module.validate_node_metadata(document)
                    valid.add(name)
                except (ValueError, TypeError, KeyError) as error:
                    yield FAIL, f"{path}: {_line(error)}", f"write these attributes with `zarr_cm.{name}.create`"
    first = next(iter(nodes.values()))[0].attrs
    if lacking := [key for key in ("Conventions", "license") if top and key not in first]:
        yield NOTE, f"no attribute {' and no '.join(lacking)}", "say by which rules it is written, under which license"
    yield PASS, f"{', '.join(sorted(valid)) or 'none'} declared and valid", ""


def _check_chunks(raster: Raster) -> Problems:
    array, size = raster.array, raster.array.dtype.itemsize
    outer = array.shards or array.chunks
    count = int(np.prod([-(-n // k) for n, k in zip(array.shape, outer, strict=True)]))
    stored, decoded = int(np.prod(outer)) * size, int(np.prod(array.chunks)) * size
    text = f"{array.chunks}, {decoded:,} bytes before compression; {count:,} objects, if all are written"
    again = f'write it again with `encoding={{"{array.basename}": {{"chunks": …}}}}`, of about a million pixels'
    if stored < SMALL and count >= 1000:
        yield (FAIL if count >= 10_000 else NOTE), f"too small: {text}", again
    if decoded > LARGE:
        yield (FAIL if decoded > 4 * LARGE else NOTE), f"too large: {text}", again
    for dim, length, depth in zip(raster.dims, array.shape, outer, strict=True):
        if dim == raster.steps and 1 < depth < length and length % depth:
            found = f"{length} steps in chunks of {depth}: an append rewrites the last chunk, or if virtual goes wrong"
            yield NOTE, found, "append as many steps at once as a chunk is deep, or write it with a depth of 1"
        if dim not in (raster.y, raster.x) and dim in raster.group and raster.group[dim].nchunks > 100:
            found = f"the labels of {dim} are in {raster.group[dim].nchunks} chunks, which each opening reads"
            yield NOTE, found, f'write it again with `encoding={{"{dim}": {{"chunks": (1024,)}}}}`'
    yield PASS, text, ""


# What its pixels say


def _stored(array: zarr.Array) -> np.ndarray | None:
    """Return the position of each object with chunks; None where that cannot be known, or takes too long."""
    path = array.path.strip("/")
    found = []

    async def look() -> None:
        async for key in array.store_path.store.list_prefix(f"{path}/" if path else ""):
            inner = key.removeprefix(array.store_path.path.strip("/")).strip("/")
            if re.fullmatch(r"(c[/.])?\d+([/.]\d+)*", inner):
                found.append([int(number) for number in re.findall(r"\d+", inner)])
            if len(found) > LISTED:
                return

    with suppress(*UNLISTED):
        sync(look())
        return np.array(found, int).reshape(-1, array.ndim) if len(found) <= LISTED else None
    return None


def _sample(raster: Raster, stored: np.ndarray | None, count: int | None) -> Iterator[tuple[slice, ...]]:
    """Yield the places of chunks, some of each step, of those that are stored if that is known; all if no count."""
    array, rng = raster.array, np.random.default_rng(0)
    if not array.size:
        return
    outer, inner = array.shards or array.chunks, array.chunks
    grid = [-(-n // k) for n, k in zip(array.shape, outer, strict=True)]
    if count is not None:
        count = max(4, min(count, SAMPLE_BYTES // (int(np.prod(inner)) * array.dtype.itemsize)))
    if stored is None:
        stored = list(np.ndindex(*grid)) if count is None else rng.integers(0, grid, (4 * count, len(grid)))
    places = pd.DataFrame(stored).drop_duplicates().sample(frac=1, random_state=0)
    if raster.steps:
        turn = places.groupby(raster.dims.index(raster.steps)).cumcount()
        places = places.iloc[np.argsort(turn, kind="stable")]
    for place in places.to_numpy()[:count]:
        start, size = place * outer, outer
        if count is not None:  # one chunk of a shard
            inside = np.minimum(outer, np.subtract(array.shape, start)) // inner
            start, size = start + rng.integers(0, np.maximum(inside, 1)) * inner, inner
        yield tuple(slice(int(a), int(min(a + k, n))) for a, k, n in zip(start, size, array.shape, strict=True))


def _check_written(raster: Raster, stored: np.ndarray | None) -> Problems:
    """Find steps that were not written, or only in part."""
    if stored is None or not len(stored) or not raster.steps:
        return
    axis = raster.dims.index(raster.steps)
    depth = (raster.array.shards or raster.array.chunks)[axis]
    counts = np.bincount(stored[:, axis], minlength=-(-raster.array.shape[axis] // depth))
    usual = np.median(counts[counts > 0])
    if (empty := np.flatnonzero(counts == 0) * depth).size:
        text = f"{raster.step(empty[0])}{_more(empty)}: nothing is stored, so it reads as {raster.array.fill_value}"
        yield FAIL, text, f"write it, or leave it out: `ds.drop_isel({raster.steps}={empty.tolist()})`"
    if (partly := np.flatnonzero((counts > 0) & (counts < 0.6 * usual))).size:
        text = (
            f"{raster.step(partly[0] * depth)}{_more(partly)}: {counts[partly[0]]} chunks are stored, usually {usual:g}"
        )
        yield NOTE, text, "was it written in part? Compare it with its files"
    yield PASS, f"all steps have about {usual:g} stored chunks", ""


def _check_values(raster: Raster, stored: np.ndarray | None, count: int | None) -> Problems:
    """Read a sample, and compare it with type, fill value, scale and legend."""
    if stored is not None and not len(stored):
        yield (
            FAIL,
            f"no chunk is stored, so all of it reads as {raster.array.fill_value}",
            "was it written, and committed?",
        )
    found, broken = [np.array([], raster.array.dtype)], {}
    for window in _sample(raster, stored, count):
        try:
            found.append(np.unique(raster.array[window])[:LISTED])
        except Exception as error:  # whatever storage and codecs come up with
            broken.setdefault(
                _remedy(error), f"{[f'{w.start}:{w.stop}' for w in window]} cannot be read: {_line(error)}"
            )
    for advice, text in broken.items():
        yield FAIL, text, advice
    values = np.unique(np.concatenate(found))
    known = values[~raster.is_blank(values)]
    dtype, legend, fill = raster.array.dtype, raster.legend, raster.array.fill_value
    attrs, again = f"`{raster.opened}.attrs`", f'write it again with `encoding={{"{raster.array.basename}": {{…}}}}`'
    whole = dtype.kind in "iu"

    if {"scale_factor", "add_offset"} & raster.attrs.keys() and raster.packing == (1, 0) and whole:
        yield FAIL, f"scale_factor 1 and add_offset 0 turn {dtype} into floats on reading", f"delete both from {attrs}"
    for blank in raster.blanks:
        if whole and not (np.isfinite(blank) and np.iinfo(dtype).min <= blank <= np.iinfo(dtype).max):
            yield FAIL, f"_FillValue {blank} does not fit into {dtype}", f"delete it from {attrs}"
        elif raster.is_class(blank):
            yield FAIL, f"_FillValue {blank} is a class ({legend[blank]}) and reads as NaN", f"delete it from {attrs}"
        elif legend and whole:
            text = f"_FillValue {blank} turns the classes into floats on reading"
            yield NOTE, text, f"delete it from {attrs}; the array's fill value and the legend say the same"
    if len({str(float(blank)) for blank in raster.blanks}) > 1:
        yield FAIL, f"_FillValue, missing_value and nodata are {raster.blanks}", f"keep one of them in {attrs}"
    if raster.is_class(fill):
        text = f"what was never written reads as {fill}, a class ({legend[fill]})"
        yield FAIL, text, f'{again}, and in it "fill_value": a value that is no class'
    elif raster.blanks and not any(np.array_equal([fill], [blank], equal_nan=True) for blank in raster.blanks):
        text = f"what was never written reads as {fill}, and no data is {raster.blanks[0]}"
        yield NOTE, text, f'{again}, and in it "fill_value": {raster.blanks[0]}'
    elif whole and not raster.blanks and not legend and fill == 0:
        text = "what was never written reads as 0, and nothing says whether 0 is no data"
        yield NOTE, text, f'{again}, and in it "fill_value": a value that does not occur'
    if dtype.kind == "f" and known.size > 1 and np.array_equal(known, known.round()) and np.abs(known).max() < 2**15:
        fits = np.result_type(*(np.min_scalar_type(int(number)) for number in (known[0], known[-1])))
        text = f"{dtype} holds whole numbers only, {known[0]:g} to {known[-1]:g}"
        kind = FAIL if legend or (fits == np.uint8 and "units" not in raster.attrs) else NOTE
        yield kind, text, f'open files without `masked=True`; write `.astype("{fits}")`, if they are class codes'
    if dtype in (np.int64, np.uint64) and known.size:
        fits = np.result_type(*(np.min_scalar_type(int(number)) for number in (known[0], known[-1])))
        yield NOTE, f"{dtype} holds {known[0]} to {known[-1]} in the sample", f'`.astype("{fits}")`, if all fit'
    if legend and (unknown := np.setdiff1d(known, list(legend))).size:
        text = f"values that flag_values do not have: {unknown[:10].tolist()}"
        yield FAIL, text, f"complete flag_values and flag_meanings in {attrs}, or correct the pixels"
    for key in ("flag_meanings", "flag_colors"):
        if legend and key in raster.attrs and len(words := str(raster.attrs[key]).split()) != len(legend):
            text = f"{len(legend)} flag_values, and {len(words)} words in {key}"
            yield FAIL, text, f"one word per value in {attrs}, with _ for blanks"
    said = legend or {"units", "flag_masks"} & raster.attrs.keys()
    if whole and not said and raster.packing == (1, 0) and 1 < known.size <= 32:
        text = f"{known.size} different whole numbers, and nothing says what they mean"
        yield NOTE, text, f"if they are classes, add flag_values and flag_meanings to {attrs}"
    if values.size and not known.size:
        kind = NOTE if stored is None else FAIL  # what is stored may be elsewhere
        yield kind, f"nothing but no data in the sample: {values.tolist()}", "was it written, and committed?"
    elif values.size:
        yield PASS, f"{dtype}, {known[0]:g} to {known[-1]:g} in the sample", ""


def _check_level(fine: Raster, coarse: Raster, stored: np.ndarray | None, method: str, count: int | None) -> Problems:
    """Compare pixels of an overview with those of the finest level that they stand for."""
    again = "make the level again from the finest one, in the same commit as its pixels; of classes, take the mode"
    if fine.array.dtype != coarse.array.dtype or fine.packing != coarse.packing:
        yield FAIL, f"{coarse.array.dtype}, the finest level is {fine.array.dtype}", again
        return
    if fine.steps and not np.array_equal(fine.dataset.get(fine.steps), coarse.dataset.get(fine.steps)):
        yield FAIL, f"{fine.steps} is not that of the finest level", again
        return
    if fine.transform is None or coarse.transform is None:
        yield NOTE, "not compared, since coordinates are not even", "mend the coordinates first"
        return
    there = ~fine.transform @ coarse.transform
    wide, high = round(there.a), round(there.e)  # of a pixel, in pixels of the finest level
    end = np.abs(np.subtract(there @ coarse.shape[::-1], (coarse.shape[1] * wide, coarse.shape[0] * high))).max()
    if min(wide, high) < 1 or max(abs(there.c), abs(there.f), end) > max(TOLERANCE, TOLERANCE * wide):
        text = f"a pixel stands for {there.e:.6g} x {there.a:.6g}, the first begins at {there.f:.3g}, {there.c:.3g}"
        far = min(wide, high) < 1 or max(abs(there.c), abs(there.f)) > max(wide, high)
        yield FAIL if far else NOTE, text, "not compared; begin at the same corner, with whole numbers of pixels"
        return
    classes = fine.legend or method in ("mode", "nearest") or (not method and fine.array.dtype == np.uint8)
    side = max(1, 1000 // high), max(1, 1000 // wide)  # of a block that stands for a million pixels
    checked = wrong = unusual = 0
    for window in _sample(coarse, stored if stored is not None and len(stored) else None, count):
        spans = dict(zip(coarse.dims, window, strict=True))
        rows, cols = spans[coarse.y], spans[coarse.x]
        others = [range(spans[dim].start, spans[dim].stop) if dim else [0] for dim in (coarse.steps, coarse.bands)]
        blocks = list(product(range(rows.start, rows.stop, side[0]), range(cols.start, cols.stop, side[1]), *others))
        for top, left, step, band in blocks if count is None else [blocks[len(blocks) // 2]]:
            bottom, right = min(top + side[0], rows.stop), min(left + side[1], cols.stop)
            cells = fine.read(slice(top * high, bottom * high), slice(left * wide, right * wide), step, band)
            n, m = cells.shape[0] // high, cells.shape[1] // wide  # whole ones
            pixels = coarse.read(slice(top, top + n), slice(left, left + m), step, band)
            cells = cells[: n * high, : m * wide].reshape(n, high, m, wide).swapaxes(1, 2).reshape(n, m, -1)
            if classes:
                share = (cells == pixels[..., None]).mean(-1)
                fits = share > 0
                most = np.max([(cells == value).mean(-1) for value in np.unique(cells)], axis=0, initial=0)
                unusual += int((fits & (share < most)).sum())
            else:
                blank = fine.is_blank(cells)
                least, most = np.where(blank, np.inf, cells).min(-1), np.where(blank, -np.inf, cells).max(-1)
                slack = 1 if fine.array.dtype.kind in "iu" else 1e-5 * np.maximum(np.abs(least), np.abs(most))
                within = (pixels >= least - slack) & (pixels <= most + slack)
                fits = np.where(coarse.is_blank(pixels), blank.any(-1), within)
            checked, wrong = checked + fits.size, wrong + int((~fits).sum())
    kind = "among" if classes else "between"
    if wrong:
        yield (
            FAIL,
            f"{wrong:,} of {checked:,} pixels are not {kind} those of the finest level that they stand for",
            again,
        )
    elif method == "mode" and unusual > 0.2 * checked:
        yield NOTE, f"{unusual:,} of {checked:,} pixels are not the mode of those that they stand for", again
    yield PASS, f"{checked:,} pixels are {kind} the {high} x {wide} that each stands for", ""


# What is kept beside


def _check_consolidated(root: zarr.Group, listed: bool) -> Problems:
    """Compare consolidated metadata with what they are a copy of."""
    plain = zarr.open_group(root.store_path, mode="r", use_consolidated=False)
    copies = root.metadata.consolidated_metadata.flattened_metadata
    stale = sorted({name for name, _ in plain.members(max_depth=None)} - copies.keys()) if listed else []
    for name, copy in copies.items():
        now, then = plain[name].metadata.to_dict() if name in plain else {}, copy.to_dict()
        if any(now.get(key) != then.get(key) for key in ("shape", "attributes", "data_type", "chunk_grid")):
            stale.append(name)
    if stale:
        text = f"out of date for {', '.join(stale[:5])}: readers see an earlier state"
        yield FAIL, text, "`zarr.consolidate_metadata(store)`, as the last step of each update"
    yield PASS, f"agree with {len(copies)} arrays and groups", ""


def _check_history(repo: icechunk.Repository, snapshot: str) -> Problems:
    """Find what makes a repository slow or dear."""
    references = [manifest.num_chunk_refs for manifest in repo.list_manifest_files(snapshot)]
    if max(references, default=0) > 10**6:
        text = f"a manifest has {max(references):,} references, which commits write again"
        yield NOTE, text, "split manifests as lesson 07 does, with `icechunk.ManifestSplittingConfig`"
    if (count := sum(1 for _ in repo.ancestry(snapshot_id=snapshot))) > 1000:
        yield NOTE, f"{count:,} snapshots", "`repo.expire_snapshots(older_than)`; tags keep what they name"
    collect = "`repo.garbage_collect(datetime.now(UTC) - timedelta(days=7))`, or more: as long as a session may be open"
    if sum(references) > LISTED:
        yield NOTE, "garbage was not looked for among so many chunks", collect.replace("))`", "), dry_run=True)`")
        return
    garbage = ""
    with suppress(*UNLISTED):
        total = sum(entry.size_bytes for entry in repo.storage.list_objects_metadata())
        share = repo.garbage_collect(datetime.now(UTC), dry_run=True).bytes_deleted / max(total, 1)
        garbage = f", {total / 1e6:.1f} MB, of which no branch or tag needs {share:.0%}"
        if share > 0.2:
            yield NOTE, garbage[2:], collect
    yield PASS, f"{count:,} snapshots{garbage}", ""


# The files


class Fit(NamedTuple):
    """How rows and columns of a cube become those of a file: the sign and the shift of each."""

    down: int
    top: int
    right: int
    left: int


class Source(NamedTuple):
    """A band of an open file, and how it fits the cube, or in words why it does not."""

    path: str
    src: rasterio.DatasetReader
    band: int
    fit: Fit | str

    @property
    def packing(self) -> tuple[float, float]:
        """Return scale and offset."""
        return self.src.scales[self.band - 1], self.src.offsets[self.band - 1]


def _find(files: tuple[str | Path, ...]) -> list[str]:
    """Return the paths of rasters, also of those in folders."""
    found = []
    for given in map(str, files):
        if is_url(given) or Path(given).is_file():
            found.append(given)
        elif Path(given).is_dir():
            found += sorted(str(path) for path in Path(given).rglob("*") if path.suffix.lower() in RASTERS)
        else:
            raise InputError(f"{given}: expected a raster file or a folder of them, found nothing; check the path")
    if files and not found:
        raise InputError(f"{files[0]}: expected a folder with rasters ({', '.join(sorted(RASTERS))}), found none")
    return found


def _opened(path: str) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # it is said in other words
        return rasterio.open(gdal_path(path))


def _unreadable(paths: list[str]) -> dict[str, str]:
    """Return which files cannot be read, and why."""
    lost = {}
    for path in paths:
        try:
            with _opened(path) as src:
                src.read(src.count, window=Window(0, src.height - 1, src.width, 1))  # which a file that was cut lacks
        except (RasterioIOError, IndexError) as error:
            lost[path] = _line(error)
    if len(lost) == len(paths) and lost:
        path, text = next(iter(lost.items()))
        raise InputError(f"{path}: expected a raster that GDAL reads, found: {text}; check the file")
    return lost


def _date(path: str, pattern: str | None) -> pd.Period | None:
    """Return the day, month or year that a file's name, else a folder above it, tells."""
    for known, part in product([pattern] if pattern else DATES, reversed(Path(path).parts)):
        if match := re.search(known, part):
            named = [match.groupdict().get(name) for name in ("year", "month", "day")]
            groups = named if any(named) else match.groups() or [match[0]]
            numbers = [group for group in groups if group and group not in "-_"]
            with suppress(ValueError):
                return pd.Period("-".join(numbers))
    return None


def _bands(src: rasterio.DatasetReader, path: str, rasters: list[Raster]) -> dict[int, tuple[str, int]]:
    """Find array and position along its axis of bands for each band of a file: by name, else by order."""
    targets: dict[tuple[str, int], str] = {}
    for raster in rasters:
        labels = [raster.array.basename]
        if raster.bands:
            known = raster.bands in raster.dataset.variables
            labels = raster.dataset[raster.bands].values if known else range(1, raster.dataset.sizes[raster.bands] + 1)
        targets |= {(raster.path, k): str(label).lower() for k, label in enumerate(labels)}
    said = {band: str(text).lower() for band, text in enumerate(src.descriptions, 1)}
    if named := {band: target for band, text in said.items() for target, name in targets.items() if text == name}:
        return named
    words = set(re.split(r"[^a-z0-9]+", Path(path).stem.lower()))
    in_name = [target for target, name in targets.items() if set(re.split(r"[^a-z0-9]+", name)) <= words]
    if src.count == 1 and len(in_name) == 1:
        return {1: in_name[0]}
    return dict(enumerate(targets, 1)) if src.count == len(targets) or len(targets) == 1 else {}


def _positions(raster: Raster, period: pd.Period | None) -> list[int]:
    """Return the steps of a date; of a cube without time, the only one."""
    if not raster.steps:
        return [0]
    if period is None:
        return []
    labels = raster.labels(raster.steps)
    if isinstance(labels, pd.DatetimeIndex):
        return np.flatnonzero((labels >= period.start_time) & (labels <= period.end_time)).tolist()
    return [k for k, label in enumerate(labels) if getattr(label, "year", label) == period.year]


def _fit(src: rasterio.DatasetReader, raster: Raster) -> Fit | str:
    if src.crs and not CRS(src.crs.to_wkt()).equals(raster.crs, ignore_axis_order=True):
        return "in another CRS"
    there = ~src.transform @ raster.transform
    if max(abs(abs(there.a) - 1), abs(abs(there.e) - 1), abs(there.b), abs(there.d)) * max(src.shape) > TOLERANCE:
        return "rotated or of another resolution"
    if (off := max(abs(shift - round(shift)) for shift in (there.c, there.f))) > TOLERANCE:
        return f"off by {off:.2g} of a pixel"
    return Fit(int(np.sign(there.e)), round(there.f), int(np.sign(there.a)), round(there.c))


def _read(file: Source, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a file's values for pixels of the cube, where it has data, and where it is at all."""
    r = file.fit.top + file.fit.down * rows - (file.fit.down < 0)
    c = file.fit.left + file.fit.right * cols - (file.fit.right < 0)
    in_r, in_c = (r >= 0) & (r < file.src.height), (c >= 0) & (c < file.src.width)
    here, r, c = np.ix_(in_r, in_c), r[in_r], c[in_c]
    values = np.zeros((len(rows), len(cols)), file.src.dtypes[file.band - 1])
    valid, inside = np.zeros((2, *values.shape), bool)
    if r.size and c.size:
        window = Window(c.min(), r.min(), np.ptp(c) + 1, np.ptp(r) + 1)
        there = np.ix_(r - r.min(), c - c.min())
        try:
            values[here] = file.src.read(file.band, window=window)[there]
            valid[here] = file.src.read_masks(file.band, window=window)[there] > 0
        except RasterioIOError as error:
            raise RasterioIOError(f"{file.path}: {_line(error)}") from error
        inside[here] = True
    return values, valid & ~np.isnan(values) if values.dtype.kind == "f" else valid, inside


def _same(raster: Raster, stored: np.ndarray, values: np.ndarray, packing: tuple[float, float]) -> np.ndarray:
    """Compare what numbers stand for; where both are packed alike, or the file does not say how, also the numbers."""
    (scale, offset), (its_scale, its_offset) = raster.packing, packing
    slack = 0.5001 * abs(scale) if raster.packing != (1, 0) else 0
    ours, theirs = stored * scale + offset, values * its_scale + its_offset
    same = np.isclose(ours, theirs, rtol=1e-6, atol=slack, equal_nan=True)
    if packing == raster.packing or (packing == (1, 0) and values.dtype.kind in "iu"):
        same |= stored == values
    return same


def _compare(
    raster: Raster, at: tuple[int, int], rows: np.ndarray, cols: np.ndarray, files: list[Source]
) -> np.ndarray:
    """Return 1 for pixels that are those of any of the files, 0 for others, and -1 where there is no file."""
    span = slice(rows.min(), rows.max() + 1), slice(cols.min(), cols.max() + 1)
    stored = raster.read(*span, *at)[np.ix_(rows - rows.min(), cols - cols.min())]
    blank = raster.is_blank(stored)
    fine, seen, empty, inside = np.zeros((4, *stored.shape), bool)
    for file in files:
        values, valid, within = _read(file, rows, cols)
        same = _same(raster, stored, values, file.packing)
        fine |= valid & same
        seen |= valid
        empty |= within & ~valid & (same | blank)
        inside |= within
    return np.where(inside, np.where(seen, fine, empty), -1)


def _footprint(file: Source, raster: Raster) -> tuple[range, range]:
    """Return the rows and columns of a cube that a file covers."""
    spans = []
    for sign, shift, size, limit in zip(file.fit[::2], file.fit[1::2], file.src.shape, raster.shape, strict=True):
        first, last = sorted((-sign * shift, sign * (size - shift)))
        spans.append(range(max(first, 0), min(last, limit)))
    return spans[0], spans[1]


def _windows(
    raster: Raster, at: tuple[int, int], spans: tuple[range, range], stored: np.ndarray | None, count: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows and columns of a few places that are written and one that is not, as far as known; all if no count."""
    rows, cols = spans
    if not rows or not cols:
        return
    outer = dict(zip(raster.dims, raster.array.shards or raster.array.chunks, strict=True))
    chunk = outer[raster.y], outer[raster.x]
    if count is None:
        wide = min(len(cols), 2**22)
        high = max(1, 2**22 // wide // chunk[0]) * chunk[0]  # whole rows, so that a strip is decoded once
        for row, col in product(rows[::high], cols[::wide]):
            yield np.arange(row, min(row + high, rows.stop)), np.arange(col, min(col + wide, cols.stop))
        return
    rng = np.random.default_rng(0)
    low, high = (rows.start // chunk[0], cols.start // chunk[1]), (rows[-1] // chunk[0] + 1, cols[-1] // chunk[1] + 1)
    places = rng.integers(low, high, (20, 2))
    if stored is not None:
        if raster.steps:
            stored = stored[stored[:, raster.dims.index(raster.steps)] == at[0] // outer[raster.steps]]
        written = stored[:, [raster.dims.index(raster.y), raster.dims.index(raster.x)]]
        written = rng.permutation(written[((written >= low) & (written < high)).all(axis=1)])
        known = set(map(tuple, written.tolist()))
        places = [*written[:count], *[place for place in places if tuple(place.tolist()) not in known][:1]]
    for place in places[: count + 1]:
        window = []
        for k, size, span, most in zip(place, chunk, spans, (64, 1024), strict=True):  # few rows: a strip is wide
            first, last = max(k * size, span.start), min((k + 1) * size, span.stop)
            start = rng.integers(first, max(first, last - most) + 1)
            window.append(np.arange(start, min(start + most, last)))
        yield window[0], window[1]


def _explain(
    raster: Raster,
    at: tuple[int, int],
    rows: np.ndarray,
    cols: np.ndarray,
    wrong: np.ndarray,
    file: Source,
    others: dict,
) -> str:
    """Say what the pixels of a window that are wrong are instead, and so what to do."""
    stored = raster.read(slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1), *at)
    if raster.is_blank(stored[wrong]).all():
        return "nothing is there; write it, or if it is left out on purpose, let this be"

    def is_of(file: Source, rows: np.ndarray, cols: np.ndarray) -> bool:
        values, valid, _ = _read(file, rows, cols)
        these = wrong & valid
        same = _same(raster, stored, values, file.packing)[these]
        return these.any() and np.ptp(values[these]) > 0 and same.mean() > 0.99

    for down, right in product((0, -1, 1, -2, 2), repeat=2):
        if is_of(file, rows + down, cols + right):
            return f"these are the pixels {down} rows and {right} columns on, so write them again in their place"
    if is_of(file, raster.shape[0] - 1 - rows, cols):
        return f"it is upside down; `ds.isel({raster.y}=slice(None, None, -1))` turns pixels and labels together"
    for path, band in list(others.items())[:20]:
        with _opened(path) as src:
            fit = _fit(src, raster)
            if isinstance(fit, Fit) and is_of(Source(path, src, band, fit), rows, cols):
                return f"these are the pixels of {path}; write each layer to its own date"
    return "write the layer again, or if it was corrected on purpose, let this be"


def _box(file: Source, raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower left and the upper right corner of a file, in the CRS of a cube."""
    left, bottom, right, top = file.src.bounds
    box = left, min(bottom, top), right, max(bottom, top)  # a file may have the south on top
    here = raster.crs.to_wkt()
    west, south, east, north = transform_bounds(file.src.crs or here, here, *box)
    return np.array([west, south]), np.array([east, north])


def _resample(raster: Raster, at: tuple[int, int], file: Source, stored: np.ndarray | None) -> tuple[float, float]:
    """Compare a file on another grid loosely.

    Returns
    -------
    covered, likeness
        Which share of the file's pixels the cube has, NaN where the file is outside. Kappa of classes, else the
        correlation: 1 where all is equal, about 0 where the two have nothing in common.
    """
    corners = np.sort([~raster.transform @ tuple(corner) for corner in _box(file, raster)], axis=0)
    (left, top), (right, bottom) = np.clip(corners.round(), 0, raster.shape[::-1]).astype(int)
    classes = bool(raster.legend) or (raster.array.dtype == np.uint8 and raster.packing == (1, 0))
    how = {"resampling": Resampling.nearest if classes else Resampling.average, "add_alpha": True}
    here, ours, theirs = raster.crs.to_wkt(), [np.array([])], [np.array([])]
    known = [np.array([], bool)]
    for rows, cols in _windows(raster, at, (range(top, bottom), range(left, right)), stored, 16):
        place = raster.transform @ Affine.translation(cols[0], rows[0])
        grid = {"crs": here, "transform": place, "height": len(rows), "width": len(cols)}
        with WarpedVRT(file.src, src_crs=file.src.crs or here, **grid, **how) as vrt:
            values, valid = vrt.read(file.band), vrt.read_masks(file.band) > 0
        valid &= (values != file.src.nodatavals[file.band - 1]) & (values == values)
        if values.dtype == raster.array.dtype:
            valid &= ~raster.is_blank(values)
        pixels = raster.read(slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1), *at)[valid]
        known.append(~raster.is_blank(pixels))
        for numbers, packing, found in ((pixels, raster.packing, ours), (values[valid], file.packing, theirs)):
            plain = file.packing == (1, 0) and values.dtype.kind in "iu"  # it may be packed without saying so
            found.append(numbers.astype(float) if plain else numbers * packing[0] + packing[1])
    ours, theirs, known = (np.concatenate(parts) for parts in (ours, theirs, known))
    covered, ours, theirs = known.mean() if known.size else np.nan, ours[known], theirs[known]
    if not ours.size or np.array_equal(ours, theirs):
        return covered, float(ours.size > 0)
    if classes:
        by_chance = sum((ours == value).mean() * (theirs == value).mean() for value in np.unique(ours))
        return covered, ((ours == theirs).mean() - by_chance) / (1 - by_chance)
    off = np.abs(np.median(ours) - np.median(theirs))
    if off > np.ptp(theirs) + 1e-6 * np.abs(theirs).max() or not np.ptp(ours) or not np.ptp(theirs):
        return covered, float(np.isclose(np.median(ours), np.median(theirs)))
    return covered, np.corrcoef(ours, theirs)[0, 1]


def _has_moved(raster: Raster, at: tuple[int, int], file: Source) -> bool:
    """Return whether a file has the cube's very pixels, though its place is a part of a pixel off."""
    there = ~file.src.transform @ raster.transform
    for row, col in product((np.floor(there.f), np.ceil(there.f)), (np.floor(there.c), np.ceil(there.c))):
        moved = file._replace(fit=Fit(int(np.sign(there.e)), int(row), int(np.sign(there.a)), int(col)))
        for rows, cols in _windows(raster, at, _footprint(moved, raster), None, 1):
            found = _compare(raster, at, rows, cols, [moved])
            if np.ptp(_read(moved, rows, cols)[0]) and (found == 1).sum() > 0.99 * (found >= 0).sum():
                return True
    return False


def _check_files(
    rasters: list[Raster], stored: dict[str, Any], files: dict[str, str], count: int | None, pattern: str | None
) -> Iterator[Finding]:
    """Find the place of each file in a cube, then compare."""
    for raster in rasters.copy():
        try:
            _positions(raster, pd.Period("2000"))
        except (ValueError, OverflowError, ImportError, KeyError):
            rasters.remove(raster)
            yield Finding(
                FAIL, f"{raster.path} pixels", f"not compared, as {raster.steps} does not decode", "mend it first"
            )
    if not rasters:
        return
    jobs: dict[str, dict[tuple[int, int], dict[str, int]]] = {raster.path: {} for raster in rasters}
    dates = {path: _date(path, pattern) for path in files}
    steps = {(raster.path, date): _positions(raster, date) for raster, date in product(rasters, set(dates.values()))}
    seen: dict[str, set[pd.Period | None]] = {raster.path: set() for raster in rasters}
    strange = []
    for path, date in dates.items():
        if text := files[path]:
            kind = FAIL if any(steps[raster.path, date] for raster in rasters) else NOTE
            yield Finding(kind, "files", f"{path} cannot be read ({text})", "fetch it again")
            continue
        with _opened(path) as src:
            bands = _bands(src, path, rasters)
        if not bands:
            strange.append(path)
        for band, (target, at) in bands.items():
            seen[target].add(date)
            if len(found := steps[target, date]) == 1:
                jobs[target].setdefault((found[0], at), {})[path] = band
    if strange:
        text = f"the bands of {len(strange)} files, such as {strange[0]}, fit no array by name or number"
        yield Finding(
            FAIL, "files", text, "name bands or files after the arrays, or after the labels of the cube's bands"
        )
    undated = [path for path, date in dates.items() if date is None]
    if undated and any(raster.steps for raster in rasters):
        text = f"no date in the names of {len(undated)} files, such as {undated[0]}"
        yield Finding(FAIL, "files", text, r"say where it is: `--date '(\d{4})_(\d\d)'`, groups for year, month, day")
    for raster in rasters:
        known = sorted(seen[raster.path] - {None}) if raster.steps else []
        if missing := [date for date in known if not steps[raster.path, date]]:
            path = next(path for path in dates if dates[path] == missing[0])
            text = f"{missing[0]}{_more(missing)} is missing, for which there is {path}"
            again = f'`layer.to_zarr(store, append_dim="{raster.steps}", mode="a-")`'
            yield Finding(FAIL, raster.path, text, again)
        if several := [date for date in known if len(steps[raster.path, date]) > 1]:
            text = f"{several[0]}{_more(several)}, in the names of files, fits more than one step and was not compared"
            yield Finding(FAIL, raster.path, text, "say where the rest of the date is: `--date REGEX`")
        its = jobs[raster.path]
        lacking = sorted(
            set(range(raster.dataset.sizes[raster.steps] if raster.steps else 1)) - {step for step, _ in its}
        )
        if lacking and its:
            text = f"no file for {len(lacking)} steps, such as {raster.step(lacking[0])}"
            yield Finding(NOTE, raster.path, text, "give their files, too, to compare them")
        if its and (not raster.crs or raster.transform is None):
            yield Finding(FAIL, f"{raster.path} pixels", "not compared without CRS and even coordinates", "mend these")
        elif its:
            each = count and max(1, min(32, 4 * count // len(dates)))
            yield from _report(f"{raster.path} pixels", _check_pixels(raster, its, stored.get(raster.path), each))


def _check_pixels(
    raster: Raster, jobs: dict[tuple[int, int], dict[str, int]], stored: np.ndarray | None, count: int | None
) -> Problems:
    """Compare an array with the files of each step and band: exactly where they are on one grid, else loosely."""
    compared, used, outside = 0, set(), set()
    loose: dict[str, list[float]] = {}
    unlike: list[str] = []
    for at, job in jobs.items():
        parts = [raster.step(at[0]) if raster.steps else "", f"{raster.bands} number {at[1]}" if raster.bands else ""]
        where = ", ".join(filter(None, parts)) or "all"
        with ExitStack() as stack:
            opened = {path: stack.enter_context(_opened(path)) for path in job}
            sources = [Source(path, src, job[path], _fit(src, raster)) for path, src in opened.items()]
            exact = [file for file in sources if isinstance(file.fit, Fit)]
            others = [file for file in sources if isinstance(file.fit, str)]
            for file in others:
                covered, likeness = _resample(raster, at, file, stored)
                text = f"{where}: {file.path} is {file.fit}"
                if file.fit.startswith("off") and _has_moved(raster, at, file):
                    yield FAIL, f"{text}, and has the same pixels", "assign the centers of pixels as coordinates"
                elif np.isnan(covered):
                    outside.add(file.path)
                elif covered < 0.5 or not likeness > ALIKE:
                    text = f"{text}; the cube has {covered:.0%} of it, with a likeness of {likeness:.2f} of 1"
                    yield FAIL, text, "check its place, date and scale, and that it is not upside down"
                else:
                    loose.setdefault(file.fit, []).append(likeness)
            total, wrong, first = 0, 0, None
            for k, file in enumerate(exact):
                spans = _footprint(file, raster)
                (used if all(spans) else outside).add(file.path)
                for rows, cols in _windows(raster, at, spans, stored, count):
                    found = _compare(raster, at, rows, cols, exact)
                    for other in exact[:k] if count is None else ():
                        found[_read(other, rows, cols)[2]] = -1  # which were compared already
                    for other in others:  # of which the cube may have a pixel
                        (west, south), (east, north) = _box(other, raster)
                        y, x = (_numbers(raster.dataset, dim)[k] for dim, k in ((raster.y, rows), (raster.x, cols)))
                        inside = ((y > south) & (y < north))[:, None] & ((x > west) & (x < east))
                        found[(found == 0) & inside] = -1
                    total, wrong = total + int((found >= 0).sum()), wrong + int((found == 0).sum())
                    if first is None and (found == 0).any():
                        first = file, rows, cols, found == 0
            compared += total
            if first is not None:
                unlike.append(where)
            if first is not None and len(unlike) <= EXPLAINED:
                file, rows, cols, these = first
                row, col = np.argwhere(these)[0] + (rows[0], cols[0])
                ours = raster.read(slice(row, row + 1), slice(col, col + 1), *at)[0, 0]
                theirs = _read(file, np.array([row]), np.array([col]))[0][0, 0]
                text = f"{where}: {wrong:,} of {total:,} pixels differ, such as row {row}, column {col}: {ours}"
                rest = {path: band for key, its in jobs.items() if key != at for path, band in its.items()}
                advice = _explain(raster, at, rows, cols, these, file, rest)
                yield FAIL, f"{text} instead of {theirs} in {file.path}", advice
    if rest := unlike[EXPLAINED:]:
        yield FAIL, f"{rest[0]}{_more(rest)}: pixels differ there, too", "begin with those above"
    for fit, likeness in loose.items():
        text = f"{len(likeness)} files are {fit}; resampled, their likeness with the cube is {min(likeness):.2f} of 1"
        yield NOTE, text, "give files on the cube's grid to compare each pixel"
    if outside:
        yield NOTE, f"{len(outside)} files are outside the cube, such as {min(outside)}", "leave them out"
    if compared:
        kind = "pixels" if count is None else "sampled pixels"
        yield PASS, f"{compared:,} {kind} are those of {len(used)} files", ""


# All of it


def _report(subject: str, problems: Problems) -> Iterator[Finding]:
    """Yield what a check found; that it passes only where nothing failed."""
    failed = False
    try:
        for kind, text, advice in problems:
            failed |= kind == FAIL
            if kind != PASS or not failed:
                yield Finding(kind, subject, text, advice)
    except Exception as error:  # whatever a broken store comes up with
        yield Finding(FAIL, subject, f"cannot be read ({_line(error)})", _remedy(error))


def _remedy(error: Exception) -> str:
    text = str(error).lower()
    if "authoriz" in text or "credential" in text:
        return "the pixels are in other files; if you trust the repository, run it again with `--follow`"
    if "checksum" in text or "modified" in text:
        return "the file was replaced after the references were made; make them again, in a new commit"
    if isinstance(error, icechunk.IcechunkError | OSError | BaseError):
        return "bring back what is missing, or write it again from its source; what an old commit has, a tag may keep"
    return "write it again from its source"


def _layout(group: zarr.Group) -> list[dict[str, Any]]:
    """Return the levels by the convention multiscales, if the attribute is of that kind."""
    known = group.attrs.get("multiscales")
    return [entry for entry in known.get("layout", []) if "asset" in entry] if isinstance(known, dict) else []


def _cubes(group: zarr.Group) -> list[list[str]]:
    """Return the groups of each cube, the finest level first."""
    if layout := _layout(group):
        return [[f"{group.path}/{entry['asset']}".strip("/") for entry in layout]]
    members = dict(group.members())
    found = [[group.path]] if any(isinstance(node, zarr.Array) and node.ndim > 1 for node in members.values()) else []
    groups = {name: node for name, node in members.items() if isinstance(node, zarr.Group)}
    if groups and set(groups) == {str(k) for k in range(len(groups))}:
        return [*found, [groups[str(k)].path for k in range(len(groups))]]
    return found + [cube for node in groups.values() for cube in _cubes(node)]


def _places(address: str) -> tuple[icechunk.Storage, Store]:
    """Return an address as Icechunk and Zarr take it."""
    if address.startswith("s3://"):
        name, _, prefix = address.removeprefix("s3://").strip("/").partition("/")
        try:
            session = boto3.Session()
            keys, meta = session.get_credentials(), session.client("s3").meta
            frozen = keys and keys.get_frozen_credentials()
        except (BotoCoreError, ValueError) as error:
            raise InputError(f"{address}: the AWS settings do not work ({_line(error)}); correct them") from error
        if not name:
            raise InputError(f"{address}: expected s3://bucket/prefix")
        named = ("access_key_id", "secret_access_key", "session_token")
        known = {key: value for key, value in zip(named, frozen or (), strict=False) if value}
        place = {
            "name": name,
            "prefix": prefix,
            "region": session.region_name or stores.LOCAL_REGION,
            "endpoint_url": None if "amazonaws.com" in meta.endpoint_url else meta.endpoint_url,
        }
        by_icechunk = stores.Bucket(**place, credentials=known or {"anonymous": True})
        by_zarr = stores.Bucket(**place, credentials=known or {"skip_signature": True})
        return by_icechunk.icechunk(""), by_zarr.zarr("", read_only=True)
    if is_url(address):
        return icechunk.http_storage(address), zarr.storage.ObjectStore(stores.http_store(address), read_only=True)
    path = Path(address).absolute()
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise InputError(f"{address}: expected a folder, s3://bucket/prefix or an http(s) URL, found {found}")
    return icechunk.local_filesystem_storage(str(path)), zarr.storage.LocalStore(path, read_only=True)


def _access(prefix: str) -> Any:
    if prefix.startswith("s3:"):
        known = boto3.Session().get_credentials()
        return icechunk.s3_from_env_credentials() if known else icechunk.s3_anonymous_credentials()
    return icechunk.credentials.HttpAccess if is_url(prefix) else icechunk.credentials.LocalFileSystemAccess


def _open(where: Any, branch: str, tag: str | None, follow: bool) -> tuple[Store, icechunk.Repository | None, str]:
    """Return the store to read; of a repository also that, and the snapshot."""
    if isinstance(where, Store):
        return where, None, ""
    repo, reason = where, "no repository"
    if not isinstance(where, icechunk.Repository):
        storage, plain = _places(str(where))
        config = repository.settings(tries=2)
        try:
            repo = None
            if icechunk.Repository.exists(storage, config.storage):
                repo = icechunk.Repository.open(storage, config=config)
            if repo and follow and (prefixes := repo.config.virtual_chunk_containers):
                access = icechunk.containers_credentials({prefix: _access(prefix) for prefix in prefixes})
                repo = icechunk.Repository.open(storage, config=config, authorize_virtual_chunk_access=access)
        except icechunk.IcechunkError as error:
            reason = _line(error)
        if repo is None:
            try:
                zarr.open_group(plain, mode="r")
            except (BaseZarrError, BaseError, OSError, ValueError) as error:
                text = f"{where}: expected a cube, found {reason} and no Zarr group ({_line(error)}); check the address"
                raise InputError(text) from error
            return plain, None, ""
    if repo.config.virtual_chunk_containers:
        from workshop import virtual  # noqa: F401, has the decoder of references to TIFF files
    try:
        session = repo.readonly_session(tag=tag) if tag else repo.readonly_session(branch)
    except icechunk.IcechunkError as error:
        names = f"the branches {sorted(repo.list_branches())} and tags {sorted(repo.list_tags())}"
        raise InputError(f"{where}: expected {tag or branch}, found {names}; choose one of them") from error
    return session.store, repo, session.snapshot_id


def check(
    where: Any,
    files: tuple[str | Path, ...] = (),
    *,
    branch: str = "main",
    tag: str | None = None,
    group: str = "",
    sample: int | None = SAMPLE,
    date: str | None = None,
    follow: bool = False,
) -> Iterator[Finding]:
    r"""Check a cube.

    Parameters
    ----------
    where : str, pathlib.Path, zarr.abc.store.Store or icechunk.Repository
        A folder, ``s3://bucket/prefix`` (with the credentials and endpoint of the usual AWS settings), an http(s) URL;
        or a store, such as that of a session before its commit.
    files
        Rasters that the cube was made from, or folders of them, to be compared with it.
    branch, tag, group
        Which version of a repository, and which group in it.
    sample
        How many chunks of each array are read, or None for all.
    date
        A regular expression that finds the date in a file's path, such as ``(\d{4})_(\d\d)``: with groups for year,
        month and day in this order, or with these names.
    follow
        Whether chunks in other files are read, to which a repository refers. Only if you trust it.

    Yields
    ------
    Finding
        At least one for each check.

    Raises
    ------
    InputError
        When there is no cube, or no raster among the files.
    """
    try:
        re.compile(date or "")
    except re.error as error:
        raise InputError(f"{date}: expected a regular expression, found an error in it: {error}; correct it") from error
    paths = _find(files)
    lost = _unreadable(paths)
    store, repo, snapshot = _open(where, branch, tag, follow)
    try:
        root = zarr.open_group(store, path=group, mode="r")
        copied = root.metadata.consolidated_metadata is not None
        plain = zarr.open_group(store, path=group, mode="r", use_consolidated=False)
        listed = False
        with suppress(*UNLISTED):
            listed = any(plain.members())
        cubes = _cubes(plain if listed else root)
    except (BaseZarrError, BaseError, ValueError, OSError, KeyError) as error:
        raise InputError(
            f"{where}: expected the group {group or '/'}, found none ({_line(error)}); check `--group`"
        ) from error
    if not cubes:
        raise InputError(
            f"{where}: expected arrays with rows and columns below {group or '/'}, found none; was it committed? Over "
            "HTTP, `zarr.consolidate_metadata(store)` tells readers what there is"
        )
    if files and len(cubes) > 1:
        names = [levels[0] or "/" for levels in cubes]
        raise InputError(f"{where}: expected one cube to compare with files, found {names}; choose one with `--group`")
    if repo is not None:
        yield from _report("repository", _check_history(repo, snapshot))
    if copied:
        yield from _report("consolidated metadata", _check_consolidated(root, listed))
    unlisted = "" if listed or copied else "`zarr.consolidate_metadata(store)`, so that readers know what there is"
    again = "write it again with xarray"
    for levels in cubes:
        layout = _layout(root)
        if len(levels) > 1 and not layout:
            text = f"{len(levels)} levels, and no convention multiscales that says so"
            yield Finding(
                NOTE, "levels", text, "write the attributes of `zarr_cm.multiscales.create`, as lesson 09 does"
            )
        finest, stored = {}, {}
        for k, path in enumerate(levels):
            group_of = {"group": path or None, "consolidated": False if listed else None}
            undecoded = {"mask_and_scale": False, "decode_times": False, "decode_coords": False, "chunks": None}
            try:
                dataset = xr.open_zarr(store, **group_of, **undecoded)
                node = zarr.open_group(store, path=path, mode="r", use_consolidated=group_of["consolidated"])
                names = [f"{path}/{name}".strip("/") for name in sorted(dataset.variables)]
                rasters = [raster for name in names if (raster := _raster(name, node, dataset))]
            except Exception as error:  # whatever a broken group comes up with
                yield Finding(FAIL, path or "/", f"xarray cannot open it ({_line(error)})", unlisted or again)
                continue
            if not rasters:
                text = f"no array has rows and columns, found {[(n, *v.dims) for n, v in dataset.variables.items()]}"
                yield Finding(FAIL, path or "/", text, unlisted or "name the dimensions y and x, or lat and lon")
                continue
            entry = layout[k] if layout else {}
            method = entry.get(
                "resampling_method", root.attrs["multiscales"].get("resampling_method", "") if layout else ""
            )
            top = {"root": (root, ())} if len(levels) > 1 and not k else {}
            nodes = top | {path or "/": (node, ())} | {raster.path: (raster.array, raster.dims) for raster in rasters}
            yield from _report(f"{path}/ conventions", _check_conventions(nodes, not k))
            for dim in dict.fromkeys(dim for raster in rasters for dim in raster.dims):
                raster = next(raster for raster in rasters if dim in raster.dims)
                problems = _check_axis(raster, dim) if dim in (raster.y, raster.x) else _check_steps(raster, dim)
                yield from _report(f"{path}/{dim}".strip("/"), problems)
            for raster in rasters:
                name, stored[raster.path] = raster.array.basename, _stored(raster.array) if listed else None
                yield from _report(f"{raster.path} CRS", _check_crs(raster))
                yield from _report(f"{raster.path} place", _check_place(raster, entry))
                if not k:
                    finest[name] = raster
                    yield from _report(f"{raster.path} chunks", _check_chunks(raster))
                    yield from _report(f"{raster.path} steps", _check_written(raster, stored[raster.path]))
                    yield from _report(f"{raster.path} values", _check_values(raster, stored[raster.path], sample))
                elif name in finest:
                    problems = _check_level(finest[name], raster, stored[raster.path], method, sample)
                    yield from _report(f"{raster.path} level", problems)
        if files:
            yield from _check_files(
                list(finest.values()), stored, {path: lost.get(path, "") for path in paths}, sample, date
            )


def main(argv: list[str] | None = None) -> int:
    """Print a line per finding; return 0 if nothing failed, 1 if something did, 2 if there is nothing to check."""
    parser = argparse.ArgumentParser(prog="python -m workshop.checkup", description=__doc__.split("``")[0])
    parser.add_argument("repository", help="a folder, s3://bucket/prefix or an http(s) URL: Icechunk or Zarr")
    parser.add_argument("files", nargs="*", help="rasters that the cube was made from, or folders of them")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--tag")
    parser.add_argument("--group", default="", help="where in the store the cube is")
    parser.add_argument("--sample", type=int, default=SAMPLE, metavar="N", help="chunks to read of each array")
    parser.add_argument("--all", action="store_true", help="read all chunks and files")
    parser.add_argument("--date", metavar="REGEX", help="finds the date in a path: groups for year, month, day")
    parser.add_argument("--follow", action="store_true", help="read chunks in other files, if you trust the repository")
    options = vars(parser.parse_args(argv))
    where, files, everything = (options.pop(name) for name in ("repository", "files", "all"))
    failed = 0
    try:
        for kind, subject, found, advice in check(where, files, **options | ({"sample": None} if everything else {})):
            failed += kind == FAIL
            print(f"{kind}  {subject}: {found}{'; ' if advice else ''}{advice}", flush=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print("sound" if not failed else f"{failed} to fix; the lines above say how")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
