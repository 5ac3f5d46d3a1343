"""Compares a cube with the files it was made from: pixel by pixel if a file is on the cube's grid, else roughly.

``checkup.py`` checks the store's own metadata, and is the command.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from warnings import catch_warnings

import numpy as np
import pandas as pd
import rasterio
import xarray as xr
import zarr
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window

from workshop.tiles import TOLERANCE, TileError, axis, gdal_path, is_url

FAIL, NOTE, PASS = "FAIL", "note", "PASS"
Problems = Iterator[tuple[str, str, str]]  # kind, what was found, what to do
CF, PROJ = "CF's grid mapping", "the convention proj"  # the two ways of writing a CRS
NO_DATA = re.compile(r"no.?data|fill|missing|outside", re.IGNORECASE)  # its names in legends

RASTERS = {".tif", ".tiff", ".jp2", ".vrt", ".img"}
DATES = (
    r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)",
    r"(?<!\d)((?:19|20)\d\d)[-_](0[1-9]|1[0-2])(?![0-9A-Za-z])",
    r"(?<!\d)((?:19|20)\d\d)(?!\d)",
)
Date = tuple[datetime, str]  # with the strptime format that says how exact it is
ROWS, COLS = 64, 1024  # of a sampled window; few rows, because a strip is as wide as its file
PIXELS = 2**22  # read at once, if all pixels are compared
ROUGHLY = 16  # windows of a file on another grid
ALIKE = 0.1  # minimum likeness of a file on another grid; on a real tile, averaged codes gave 0.3, upside down 0.03
FEW = 32  # different whole numbers: they may be codes
MIXED = 0.01  # share of pixels between codes; fewer can be rare codes that the sample of the files lacks
OTHER_CRS, HALF = "in another CRS", "off by 0.5 of a pixel"


class InputError(Exception):
    """There is no cube, or no raster; the message says what was expected, what was found, and what to do."""


@dataclass(frozen=True, eq=False)
class Raster:
    """An array with rows and columns, as stored: neither masked nor scaled."""

    array: zarr.Array
    dataset: xr.Dataset  # its group, not decoded
    y: str
    x: str
    steps: str  # the time axis, or empty
    bands: str  # another axis, or empty

    @cached_property
    def pixels(self) -> xr.DataArray:
        """Return the array lazily, without coordinates."""
        return self.dataset.drop_vars(self.dataset.coords)[self.array.basename]

    @property
    def attrs(self) -> dict[str, Any]:
        """Return the attributes."""
        return self.pixels.attrs

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of rows and columns."""
        return self.pixels.sizes[self.y], self.pixels.sizes[self.x]

    @property
    def mapping(self) -> dict[str, Any]:
        """Return the attributes of the grid mapping, if there is one."""
        name = str(self.attrs.get("grid_mapping")).split(":")[0]
        return self.dataset.variables[name].attrs if name in self.dataset.variables else {}

    @cached_property
    def crs(self) -> dict[str, CRS]:
        """Return the CRS by each way of writing it, CF first, if it can be read."""
        known = {}
        with suppress(CRSError, KeyError):
            known[CF] = CRS.from_cf(self.mapping)
        for attrs, name in product((self.dataset.attrs, self.attrs), ("code", "wkt2", "projjson")):
            with suppress(CRSError):
                known[PROJ] = CRS(attrs.get(f"proj:{name}"))
        return known

    @property
    def wkt(self) -> str:
        """Return the CRS for GDAL."""
        return next(iter(self.crs.values())).to_wkt()

    @cached_property
    def transform(self) -> Affine | None:
        """Return the transform from the coordinates, or None if they are uneven."""
        with suppress(TileError, ValueError):
            (top, down), (left, right) = axis(self.dataset, self.y), axis(self.dataset, self.x)
            return Affine(right, 0, left - right / 2, 0, down, top - down / 2)
        return None

    @cached_property
    def labels(self) -> pd.Index | None:
        """Return the decoded time labels, or None if they cannot be decoded."""
        with suppress(ValueError, OverflowError, ImportError, KeyError):
            return xr.decode_cf(self.dataset[[self.steps]])[self.steps].to_index()
        return None

    @property
    def packing(self) -> tuple[float, float]:
        """Return scale and offset."""
        return float(self.attrs.get("scale_factor", 1)), float(self.attrs.get("add_offset", 0))

    @property
    def blanks(self) -> list[Any]:
        """Return the values declared as no data."""
        return [self.attrs[key] for key in ("_FillValue", "missing_value", "nodata") if key in self.attrs]

    @cached_property
    def legend(self) -> dict[int, str]:
        """Return the meanings of CF's flag values, except bit masks."""
        flags = [] if "flag_masks" in self.attrs else np.atleast_1d(self.attrs.get("flag_values", [])).tolist()
        meanings = str(self.attrs.get("flag_meanings", "")).split() + [""] * len(flags)
        return dict(zip(flags, meanings, strict=False))

    @property
    def has_classes(self) -> bool:
        """Return whether the numbers seem to be class codes."""
        return bool(self.legend) or (self.array.dtype == np.uint8 and self.packing == (1, 0))

    def is_class(self, value: Any) -> bool:
        """Return whether a value is in the legend, and not as no data."""
        return value in self.legend and not NO_DATA.search(self.legend[value])

    def is_blank(self, values: Any, *others: Any) -> Any:
        """Return where there is no data: declared as such, the fill value, or one of some other values."""
        blanks = [value for value in [*self.blanks, self.array.fill_value, *others] if not self.is_class(value)]
        return np.isin(values, blanks) | (values != values)

    def reads_as_blank(self, values: Any, *others: Any) -> Any:
        """Return where readers see no data: NaN, if they turn this array into floats."""
        if self.packing == (1, 0) and self.array.dtype.kind != "f":
            return self.is_blank(values) | np.isin(values, others)
        return np.isin(values, self.blanks) | (values != values)

    def read(self, rows: slice, cols: slice, step: int, band: int) -> np.ndarray:
        """Return pixels ``(y, x)``."""
        where = {self.y: rows, self.x: cols, self.steps: step, self.bands: band}
        return self.pixels.isel(where, missing_dims="ignore").transpose(self.y, self.x).values

    def step(self, position: int) -> str:
        """Return the name of a step for messages."""
        return f"{self.steps} {brief(self.labels[position]) if self.labels is not None else position}"


def brief(label: Any) -> str:
    """Return a label without its time, if that is midnight."""
    return str(label).removesuffix(" 00:00:00")


def more(items: Any) -> str:
    """Return a text that says how many there are besides the first one."""
    return f" and {len(items) - 1} more" if len(items) > 1 else ""


def line(error: BaseException) -> str:
    """Return the message of an error's cause, else of the error, in one line."""
    text = " ".join(str(error.__cause__ or error).split())
    return f"{text[:200]} …" if len(text) > 200 else text or type(error).__name__


# Which file belongs to which layer


class File(NamedTuple):
    """What is known of a file before its pixels are compared."""

    flaw: str  # why it cannot be read, or empty
    date: Date | None
    dtype: str = ""


def find(files: tuple[str | Path, ...], pattern: str | None, form: str | None) -> dict[str, File]:
    """Return the rasters at some paths, also in folders."""
    found = {}
    for given in map(str, files):
        inside = (str(path) for path in Path(given).rglob("*") if path.suffix.lower() in RASTERS)
        paths = [given] if is_url(given) or Path(given).is_file() else sorted(inside)
        if not paths:
            raise InputError(f"{given}: expected a raster or a folder of rasters, found none; check the path")
        top = Path(given) if Path(given).is_dir() else Path(given).parent
        for path in paths:
            date = _date(path, top, pattern, form)
            with catch_warnings(action="ignore", category=NotGeoreferencedWarning):
                try:
                    with rasterio.open(gdal_path(path)) as src:  # a truncated file lacks its last row
                        src.read(src.count, window=Window(0, src.height - 1, src.width, 1))
                        found[path] = File("", date, src.dtypes[0])
                except (RasterioError, IndexError) as error:
                    found[path] = File(line(error), date)
    if found and all(file.flaw for file in found.values()):
        raise InputError(f"{path}: expected a raster that GDAL reads, found: {found[path].flaw}; check the file")
    return found


def _date(path: str, top: Path, pattern: str | None, form: str | None) -> Date | None:
    """Return the date in a file's name, else in a folder above it; without a form, its groups are year, month, day.

    A pattern is searched in the path below ``top`` as a whole, from the left, and only then in the folders above.
    """
    parts = [Path(path).relative_to(top).as_posix(), path] if pattern else [*reversed(Path(path).parts)]
    for known, part in product([pattern] if pattern else DATES, parts):
        if match := re.search(known, part):
            named = [match.groupdict().get(name) for name in ("year", "month", "day")]
            groups = named if any(named) else match.groups() or [match[0]]
            digits = "".join(group.zfill(2) for group in groups if group and group not in "-_")
            with suppress(ValueError, KeyError):
                exact = form or {4: "%Y", 6: "%Y%m", 8: "%Y%m%d"}[len(digits)]
                return datetime.strptime((match.groups() or match)[0] if form else digits, exact), exact
    return None


def _bands(path: str, rasters: list[Raster]) -> dict[int, tuple[str, int]]:
    """Return the array, and the position along its band axis, of each band of a file: by name, else by order."""
    targets = {}
    for raster in rasters:
        labels = raster.dataset[raster.bands].values if raster.bands else [raster.array.basename]
        targets |= {(raster.array.path, k): str(label).lower() for k, label in enumerate(labels)}
    with rasterio.open(gdal_path(path)) as src:
        said = [str(text or f"band_{k}").lower() for k, text in enumerate(src.descriptions, 1)]
        if len(said) > len(targets) and src.colorinterp[-1] == ColorInterp.alpha:
            said.pop()
    if named := {k: target for k, text in enumerate(said, 1) for target, name in targets.items() if text == name}:
        return named
    words = set(re.split(r"[^a-z0-9]+", Path(path).stem.lower()))
    parts = {target: set(re.split(r"[^a-z0-9]+", name)) for target, name in targets.items()}
    sizes = {target: len(part) for target, part in parts.items() if part <= words}
    in_name = [target for target, size in sizes.items() if size == max(sizes.values())]  # NDVI_QA rather than NDVI
    if len(said) == len(in_name) == 1:
        return {1: in_name[0]}
    return dict(enumerate(targets, 1)) if len(said) == len(targets) or len(targets) == 1 else {}


def _positions(raster: Raster, date: Date | None) -> list[int]:
    """Return the steps of a date; for a cube without time, the only step."""
    if not raster.steps:
        return [0]
    if date is None:
        return []
    day, form = date
    found = np.flatnonzero(getattr(raster.labels, "year", raster.labels) == day.year)
    if isinstance(raster.labels, pd.DatetimeIndex):
        found = found[raster.labels[found].strftime(form) == day.strftime(form)]
    return found.tolist()


def compare(rasters: list[Raster], files: dict[str, File], count: int | None) -> Iterator[tuple[str, Problems]]:
    """Yield subjects and their problems: first the files, as :func:`find` returns them, then each array."""
    able = [r for r in rasters if r.crs and r.transform and not (r.steps and r.labels is None)]
    for raster in (r for r in rasters if r not in able):
        text = "not compared with files; that needs a CRS, even coordinates, and time that decodes"
        yield f"{raster.array.path} pixels", iter([(FAIL, text, "correct these first")])
    bands = {path: _bands(path, able) for path, file in files.items() if able and not file.flaw}
    yield "files", _check_files(able, files, bands)
    each = None if count is None else max(1, min(32, 4 * count // len(files)))
    for raster in able:
        steps: dict[Date | None, list[int]] = {}  # per date
        layers: dict[tuple[int, int], dict[str, int]] = {}  # files and their bands, per step and band
        for path, found in bands.items():
            for band, (target, position) in found.items():
                if target == raster.array.path:
                    here = steps[files[path].date] = _positions(raster, files[path].date)
                    if len(here) == 1:
                        layers.setdefault((here[0], position), {})[path] = band
        yield raster.array.path, _check_dates(raster, steps)
        yield f"{raster.array.path} pixels", _check_pixels(raster, layers, each)


def _check_files(rasters: list[Raster], files: dict[str, File], bands: dict[str, dict]) -> Problems:
    """Find files that cannot be read, have no date, or have bands that the cube lacks."""
    for path, (flaw, date, _) in files.items():
        if flaw:
            due = any(_positions(raster, date) for raster in rasters)
            yield FAIL if due else NOTE, f"{path} cannot be read ({flaw})", "fetch it again"
    if strange := [path for path, found in bands.items() if not found]:
        text = f"the bands of {strange[0]}{more(strange)} fit no array, neither by name nor by number"
        yield FAIL, text, "name bands or files after the arrays, or after the labels of the cube's bands"
    undated = [path for path, file in files.items() if file.date is None]
    if undated and any(raster.steps for raster in rasters):
        text = f"no date in the names of {len(undated)} files, such as {undated[0]}"
        advice = r"say where the date is: `--date '(\d{4})_(\d\d)'`, groups for year, month, day in digits"
        yield FAIL, text, f"{advice}; for other dates, such as 2024-May, also its strptime format: `--format '%Y-%b'`"


def _check_dates(raster: Raster, steps: dict[Date | None, list[int]]) -> Problems:
    """Find dates that are only in the files, only in the cube, or that fit several steps."""
    dates = sorted(steps.keys() - {None}) if raster.steps else []
    if missing := [f"{day:{form}}" for day, form in dates if not steps[day, form]]:
        text = f"{missing[0]}{more(missing)} is missing, but there are files for it"
        yield FAIL, text, f'`layer.to_zarr(store, append_dim="{raster.steps}", mode="a-")`'
    if several := [f"{day:{form}}" for day, form in dates if len(steps[day, form]) > 1]:
        text = f"{several[0]}{more(several)}, in the names of files, fits more than one step and was not compared"
        yield FAIL, text, "find the whole date with `--date REGEX`, and give its strptime format with `--format`"
    if dates and (lacking := sorted(set(range(len(raster.labels))).difference(*steps.values()))):
        text = f"no file for {raster.step(lacking[0])}{more(lacking)}"
        yield NOTE, text, "to compare them, give their files, too"


# Comparing pixels


class Source(NamedTuple):
    """A band of an open file, and the array to compare it with."""

    path: str
    src: rasterio.DatasetReader
    band: int
    raster: Raster
    misfit: str  # why it is not on the cube's grid, or empty
    packing: tuple[float, float]
    plain: bool  # whole numbers without declared packing
    nodata: float  # or NaN


Part = tuple[slice, slice]  # rows and columns of the cube


def _source(path: str, src: rasterio.DatasetReader, band: int, raster: Raster) -> Source:
    there, misfit = ~src.transform @ raster.transform, ""
    off = max(abs(shift - round(shift)) for shift in (there.c, there.f))
    if src.crs and not CRS(src.crs.to_wkt()).equals(CRS(raster.wkt), ignore_axis_order=True):
        misfit = OTHER_CRS
    elif max(abs(abs(there.a) - 1), abs(abs(there.e) - 1), abs(there.b), abs(there.d)) * max(src.shape) > TOLERANCE:
        misfit = "rotated or of another resolution"
    elif off > TOLERANCE:
        misfit = f"off by {off:.2g} of a pixel"
    packing = src.scales[band - 1], src.offsets[band - 1]
    plain = packing == (1, 0) and np.dtype(src.dtypes[0]).kind in "iu"
    nodata = src.nodatavals[band - 1]
    return Source(path, src, band, raster, misfit, packing, plain, np.nan if nodata is None else nodata)


def _footprint(file: Source) -> tuple[range, range]:
    """Return the rows and columns of a cube that a file covers."""
    raster, (left, bottom, right, top) = file.raster, file.src.bounds
    box = transform_bounds(file.src.crs or raster.wkt, raster.wkt, left, min(bottom, top), right, max(bottom, top))
    corners = np.sort([~raster.transform @ box[:2], ~raster.transform @ box[2:]], axis=0)
    (west, north), (east, south) = np.clip(corners.round(), 0, raster.shape[::-1]).astype(int).tolist()
    return range(north, south), range(west, east)


def _parts(raster: Raster, spans: tuple[range, range], count: int | None) -> Iterator[Part]:
    """Yield random parts inside chunks, or blocks that cover everything if no count."""
    chunk, rng = dict(zip(raster.pixels.dims, raster.array.chunks, strict=True)), np.random.default_rng(0)
    if count is None:
        high = min(chunk[raster.y], ROWS * 32)
        yield from blocks(*spans, high, PIXELS // high)
    for _ in range(count or 0):
        part = []
        for span, size, most in zip(spans, (chunk[raster.y], chunk[raster.x]), (ROWS, COLS), strict=True):
            start = int(rng.integers(span.start, span.stop))
            part.append(slice(start, min(start + most, span.stop, start - start % size + size)))
        yield part[0], part[1]


def blocks(rows: range, cols: range, high: int, wide: int) -> Iterator[Part]:
    """Yield blocks of rows and columns that together cover everything."""
    for row, col in product(rows[::high], cols[::wide]):
        yield slice(row, min(row + high, rows.stop)), slice(col, min(col + wide, cols.stop))


def _read(file: Source, part: Part, by: tuple = (0, 0), how: Resampling = Resampling.nearest) -> np.ndarray:
    """Return a file's values at pixels of the cube, shifted by some pixels, as floats; NaN where there is no data."""
    (rows, cols), crs = part, file.raster.wkt
    shape = rows.stop - rows.start, cols.stop - cols.start
    values = np.empty(shape, np.result_type(file.src.dtypes[file.band - 1], np.float32))
    place = file.raster.transform @ Affine.translation(cols.start + by[1], rows.start + by[0])
    grid = {"dst_crs": crs, "dst_transform": place, "dst_nodata": np.nan, "resampling": how}
    there = file.src.crs if file.misfit == OTHER_CRS else crs
    try:
        colors = file.src.colorinterp
        alpha = colors.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in colors else 0
        reproject(
            rasterio.band(file.src, file.band), values, src_crs=there, src_alpha=alpha * (alpha != file.band), **grid
        )
    except RasterioError as error:
        raise RasterioIOError(f"{file.path}: {line(error)}") from None
    return values


def _same(file: Source, stored: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return where the unpacked values are equal, or the packed ones if the file may be packed like the cube."""
    packing, packed = file.raster.packing, file.raster.packing != (1, 0)
    same = (stored == values) & (file.plain or file.packing == packing)
    whole = stored.dtype.kind in "iu" and not (packed and np.dtype(file.src.dtypes[file.band - 1]).kind == "f")
    slack = 0.5001 * abs(packing[0]) if packed else 1e-6 * whole
    ours, theirs = (x * scale + offset for x, (scale, offset) in ((stored, packing), (values, file.packing)))
    return same if same.all() else same | np.isclose(ours, theirs, rtol=0 if whole else 1e-6, atol=slack)


def _compare(files: list[Source], part: Part, stored: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Return where a cube's pixel is of none of the files, and how many pixels differ from each file."""
    right, known, differ = np.zeros(stored.shape, bool), np.zeros(stored.shape, bool), {}
    for file in files:
        values = _read(file, part)
        there = same = values == values
        if not file.misfit:  # else the cube may have its resampled pixel
            same = there & _same(file, stored, values)
        known, right, differ[file.path] = known | there, right | same, int((there & ~same).sum())
    empty = files[0].raster.reads_as_blank(stored, *(file.nodata for file in files if not file.misfit))
    return ~np.where(known, right, empty), differ


def _shift(file: Source, part: Part, stored: np.ndarray, these: np.ndarray, by: tuple) -> tuple | None:
    """Return the shift in rows and columns at which a file has these pixels, if they have more than one value."""
    for shift in product(by, repeat=2):
        values = _read(file, part, shift)
        known = these & (values == values)
        if known.any() and np.ptp(values[known]) and _same(file, stored, values)[known].mean() > 0.99:
            return shift
    return None


def _explain(file: Source, part: Part, stored: np.ndarray, wrong: np.ndarray) -> str:
    """Return a probable cause of the wrong pixels in a part, and what to do."""
    raster, (rows, cols) = file.raster, part
    if raster.is_blank(stored[wrong], file.nodata).all():
        if np.isnan(_read(file, part)[wrong]).all():
            return f"readers take {stored[wrong][0]} for a number; give the array the attribute `_FillValue` with it"
        return "nothing is there; write the pixels, or ignore this if they are left out on purpose"
    if by := _shift(file, part, stored, wrong, (0, -1, 1, -2, 2)):
        return f"these are the pixels from {by[0]} rows and {by[1]} columns on; write them again in their place"
    mirrored = slice(raster.shape[0] - rows.stop, raster.shape[0] - rows.start)
    if _shift(file, (mirrored, cols), stored[::-1], wrong[::-1], (0,)):
        return f"it is upside down; `ds.isel({raster.y}=slice(None, None, -1))` flips pixels and labels together"
    return "is it the layer of another date? Write it again, or ignore this if it was corrected on purpose"


def _resemble(
    file: Source, files: list[Source], at: tuple[int, int], spans: tuple[range, range]
) -> tuple[float, float, bool, bool]:
    """Compare a file on another grid roughly.

    Returns
    -------
    covered, likeness, moved, mixed
        The share of the file's pixels that the cube has. How much closer the two are than if one were shuffled: 1 if
        all is equal, about 0 if they have nothing in common. Whether they are equal, but half a pixel apart. Whether
        the file seems to have codes, and the cube has numbers between them, which none of the files has.
    """
    raster, ours, theirs, moved = file.raster, [], [], False
    parts = list(_parts(raster, spans, ROUGHLY))

    def numbers(of: list[Source]) -> np.ndarray:
        return np.unique(np.concatenate([_read(each, part).ravel() for each, part in product(of, parts)]))

    own = numbers([file])
    few = own.size <= FEW and raster.array.dtype.kind in "iu" and raster.packing == file.packing == (1, 0)
    codes = bool(raster.legend) or (few and "units" not in raster.attrs and not np.nansum(own % 1))
    how = Resampling.nearest if codes else Resampling.average
    scale, offset = (1, 0) if file.plain else raster.packing
    for part in parts:
        stored, values = raster.read(*part, *at), _read(file, part, how=how)
        known, blank = (values == values) & ~np.isin(values, raster.blanks), raster.is_blank(stored)
        ours.append(np.where(blank, np.nan, stored * scale + offset)[known])
        theirs.append(values[known] * file.packing[0] + file.packing[1])
        if file.misfit == HALF:
            moved |= _shift(file, part, stored, ~blank, (-0.5, 0, 0.5)) is not None
    a, b = np.concatenate(ours), np.concatenate(theirs)
    there = a == a
    if not there.any():
        return float(not a.size), float(not a.size), moved, False
    a, b, shuffled = a[there], b[there], np.random.default_rng(0).permutation(b[there])
    among = ([file], files) if codes else ()  # the other files are only read if it matters
    mixed = bool(among) and all(np.isin(a, numbers(of), invert=True).mean() > MIXED for of in among)
    apart, by_chance = ((a != x).mean() if codes else np.abs(a - x).mean() for x in (b, shuffled))
    return there.mean(), 1 - apart / by_chance if by_chance else 1.0, moved, mixed


def _check_pixels(raster: Raster, layers: dict[tuple[int, int], dict[str, int]], count: int | None) -> Problems:
    """Compare an array with the files of each step and band: exactly if they are on its grid, else roughly."""
    compared, used, outside, half, averaged, unused, unlike, example = 0, set(), set(), [], [], [], [], ""
    alike: dict[str, list[float]] = {}
    for at, job in layers.items():
        names = [raster.step(at[0])] * bool(raster.steps) + [f"{raster.bands} number {at[1]}"] * bool(raster.bands)
        where, wrong, total = ", ".join(names) or "all", 0, 0
        with ExitStack() as stack:
            opened = {path: stack.enter_context(rasterio.open(gdal_path(path))) for path in job}
            files = [_source(path, src, job[path], raster) for path, src in opened.items()]
            for file in files:
                spans, differ, pixels = _footprint(file), 0, 0
                if not all(spans):
                    outside.add(file.path)
                elif file.misfit:
                    covered, likeness, moved, mixed = _resemble(file, files, at, spans)
                    text = f"{where}: {file.path} is {file.misfit}"
                    half += [text] * moved
                    averaged += [text] * mixed
                    if covered < 0.5 or likeness < ALIKE:
                        text = f"{text}; the cube has {covered:.0%} of it, with a likeness of {likeness:.2f} of 1"
                        yield FAIL, text, "check its location, date and scale, and whether it is upside down"
                    else:
                        alike.setdefault(file.misfit, []).append(likeness)
                else:
                    for part in _parts(raster, spans, count):
                        stored = raster.read(*part, *at)
                        bad, others = _compare(files, part, stored)
                        wrong, pixels, differ = wrong + int(bad.sum()), pixels + bad.size, differ + others[file.path]
                        if bad.any() and not example:
                            row, col = np.argwhere(bad)[0]
                            example = f"row {part[0].start + row}, column {part[1].start + col}: {stored[row, col]}"
                            example += f" instead of {_read(file, part)[row, col]:.10g} in {file.path}"
                            advice = _explain(file, part, stored, bad)
                    total += pixels
                    if differ > pixels / 2:
                        unused.append(f"{where}: {file.path}")
                    else:
                        used.add(file.path)
        compared += total
        if wrong:
            unlike.append(f"{where}: {wrong:,} of {total:,} pixels differ")
    if half and not used:  # otherwise they may have been moved to the other files' grid
        yield FAIL, f"{half[0]}, and has the same pixels{more(half)}", "assign the centers of pixels as coordinates"
    if averaged:
        text = f"{averaged[0]}, and the cube has numbers there that no file has{more(averaged)}"
        yield FAIL, text, "averaged codes? Resample them again, with nearest"
    if unlike:  # in one finding, because they probably have one cause
        yield FAIL, f"{unlike[0]}, such as {example}{more(unlike)}", advice
    for misfit, found in alike.items():
        text = f"{len(found)} files are {misfit}; resampled, their likeness with the cube is {min(found):.2f} of 1"
        yield NOTE, text, "give files on the cube's grid to compare each pixel"
    if unused and not unlike:
        text = f"the pixels of {unused[0]}{more(unused)} are not in the cube, which has another file's pixels there"
        yield NOTE, text, "is it an older or newer processing? If not, distinguish the two when you build the cube"
    if outside:
        kind, advice = (NOTE, "leave it out") if compared or alike else (FAIL, "is the CRS that of the pixels?")
        yield kind, f"{min(outside)}{more(outside)} is outside the cube", advice
    if compared:
        kind = "pixels" if count is None else "sampled pixels"
        yield PASS, f"{compared:,} {kind} are those of {len(used)} files", ""
