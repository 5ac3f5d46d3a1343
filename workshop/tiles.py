"""GLAD tiles: their location and names, opening one, and selecting a box.

``sample.py`` writes the sample world's tiles, and ``maps.py`` draws them.
"""

import http.client
import os
import sys
import urllib.error
import urllib.request
from math import isfinite
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import rasterio
import rasterio.cache
import rioxarray
import xarray as xr
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioIOError

from workshop import legend

YEARS = (2000, 2005, 2010, 2015, 2020)
TILE_DEGREES = 10
TILE_SIZE = 40_000  # pixels along each side of a tile
RESOLUTION = 0.00025  # degrees per pixel
NORTH, SOUTH = 80, -60  # the tile grid's first and last edge, degrees

DATA = Path(__file__).parent.parent / "data"
ROOT_SETTING = "GLAD_TILES"
# The public root of GLAD GLCLUC2020 v2: https://glad.umd.edu/dataset/GLCLUC2020
GLAD_URL = "https://storage.googleapis.com/earthenginepartners-hansen/GLCLU2000-2020/v2"
TIMEOUT_SECONDS = 5
# of a pixel: rounding errors are smaller, shifts of the grid are larger
TOLERANCE = 0.1
# Set once, at import, because GDAL later reads the environment in other threads. Existing settings are kept.
GDAL_SETTINGS = {
    # By default, GDAL caches decoded strips in up to 5 % of the machine's or container's memory, so a lesson's memory
    # would depend on the machine. 128 MB are 3,200 strips of a tile.
    "GDAL_CACHEMAX": "128",
    "GDAL_HTTP_CONNECTTIMEOUT": str(TIMEOUT_SECONDS),
    "GDAL_HTTP_LOW_SPEED_TIME": "20",  # give up after 20 s without data
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
}
for _name, _value in GDAL_SETTINGS.items():
    os.environ.setdefault(_name, _value)


class TileError(Exception):
    """A tile, a raster or a box is not what the workshop needs."""


class Box(NamedTuple):
    """A rectangle in degrees; ``north`` is larger than ``south``."""

    west: float
    south: float
    east: float
    north: float


SAMPLE_TILE = "50N_120W"
TEACHING_WINDOW = Box(west=-112.5, south=40.5, east=-111.5, north=41.0)
DEFECT_BOX = Box(west=-112.5, south=40.75, east=-112.4, north=41.0)  # wrong in the sample's 2020 tile


def tile_corner(name: str) -> tuple[int, int]:
    """Return the upper-left corner (longitude, latitude), in degrees, that a name such as ``"50N_120W"`` states.

    Raises
    ------
    TileError
        If the name is malformed or not on the 10-degree grid from 80N to 60S.
    """
    for lat in range(NORTH, SOUTH, -TILE_DEGREES):
        for lon in range(-180, 180, TILE_DEGREES):
            if tile_name(lon, lat) == name:
                return lon, lat
    raise TileError(
        f"{name!r}: no such tile; names are upper-left corners like '50N_120W', from 80N to 50S and 180W to 170E, "
        "in steps of 10 degrees (00N_000E, not 00S_000W)"
    )


def tile_name(lon: float, lat: float) -> str:
    """Return the name of the tile that contains a point (in degrees). The upper and left edges belong to the tile.

    Raises
    ------
    TileError
        If the point is outside the tile grid.
    """
    left = int(lon // TILE_DEGREES) * TILE_DEGREES
    top = -int(-lat // TILE_DEGREES) * TILE_DEGREES
    if not SOUTH < top <= NORTH or not -180 <= left < 180:
        raise TileError(f"({lon}, {lat}): outside the tile grid, which spans 180W to 180E and 80N to 60S")
    return f"{abs(top):02d}{'N' if top >= 0 else 'S'}_{abs(left):03d}{'E' if left >= 0 else 'W'}"


def tiles_root(root: str | Path | None = None) -> str:
    """Return where tiles are read from: the argument, else the setting ``GLAD_TILES``, else ``data/``.

    A relative folder in the setting is relative to the project's folder, not to the notebook's.
    """
    chosen = str(root or os.environ.get(ROOT_SETTING) or DATA)
    if is_url(chosen):
        return chosen.rstrip("/")
    folder = Path(chosen).expanduser()
    return str(folder if root else DATA.parent / folder)


def is_url(path: str) -> bool:
    """Whether a root or a tile is on a web server rather than in a folder."""
    return path.startswith(("http://", "https://"))


def tile_path(name: str, year: int, root: str | Path | None = None) -> str:
    """Return the path or URL of a tile, ``{root}/{year}/{name}.tif``.

    Raises
    ------
    TileError
        If the year or the name is not one of GLAD's.
    """
    if year not in YEARS:
        raise TileError(f"{name} ({year}): no such year; GLAD has {', '.join(map(str, YEARS))}")
    tile_corner(name)
    return f"{tiles_root(root)}/{int(year)}/{name}.tif"


def tile_source(name: str, year: int, root: str | Path | None = None) -> str:
    """Return a tile's origin for metadata: its URL, or its path under the root, because a local root is private."""
    return tile_path(name, year, root) if is_url(tiles_root(root)) else f"{int(year)}/{name}.tif"


def open_tile(name: str, year: int, root: str | Path | None = None, chunks: dict | None = None) -> xr.DataArray:
    """Open one tile lazily, after checking the properties that the lessons need.

    Parameters
    ----------
    name, year
        Such as ``"50N_120W"``, and one of :data:`YEARS`.
    root : str or Path, optional
        Folder or http(s) URL; see :func:`tiles_root`.
    chunks : dict, optional
        Dask chunks, for example ``{"y": 1000}``. Without it, the array is lazy but not a Dask array.

    Returns
    -------
    xarray.DataArray
        Dimensions ``(y, x)``, uint8, pixel-center coordinates in degrees, CRS in ``spatial_ref``; no scale, offset
        or fill value.

    Raises
    ------
    TileError
        If the tile is missing, unreachable or truncated, or its band count, data type, CRS, orientation or extent is
        wrong.
    """
    path = tile_path(name, year, root)
    source = check_tile(path, name, year)
    opened = rioxarray.open_rasterio(gdal_path(path), chunks=chunks)
    raster = opened.squeeze("band", drop=True)
    # scale_factor=1.0 and add_offset=0.0 would turn a Zarr round trip into float
    raster.attrs = {"long_name": "land cover class", "source": source}
    raster.encoding = {"grid_mapping": "spatial_ref"}
    # Coordinates come from the name. A file's own may be off by a billionth of a degree, and tiles of several years
    # would then not stack.
    (lon, lat), (height, width) = tile_corner(name), raster.shape
    exact = Affine(TILE_DEGREES / width, 0, lon, 0, -TILE_DEGREES / height, lat)
    x, y = (exact.c + (np.arange(width) + 0.5) * exact.a, exact.f + (np.arange(height) + 0.5) * exact.e)
    raster = raster.assign_coords(x=x, y=y).rio.write_transform(exact)
    raster = raster.rename("lulc").rio.write_coordinate_system()  # CF names and units of x and y
    raster.set_close(opened.close)
    return raster


def gdal_path(path: str) -> str:
    """Return the name under which GDAL opens a file or URL, without requesting sidecar files from a server.

    A tile's ``.msk`` or ``.aux.xml`` is therefore only read from a folder.
    """
    return f"/vsicurl?empty_dir=yes&url={quote(path, safe='')}" if is_url(path) else path


def check_tile(path: str, name: str, year: int) -> str:
    """Check that a file or URL is complete and is the tile that its name promises, and return the data's source.

    The source is the TIFF's description, or GLAD if it has none. The year is only used in error messages.
    :func:`open_tile` lists the errors.
    """
    label = f"{name} ({year})"
    if is_url(path):
        size = _remote_size(path, label)
        rasterio.cache.invalidate(gdal_path(path))  # GDAL may have cached parts of a file that was replaced
    elif Path(path).is_file():
        size = Path(path).stat().st_size
    else:
        raise TileError(
            f"{label}: expected a file at {path}, found none; write the sample world with `python -m workshop.sample`, "
            f"or point {ROOT_SETTING} at a folder or an http(s) URL that has the tile"
        )
    try:
        with rasterio.open(gdal_path(path)) as src:
            _validate(src, name, label, size)
            return src.tags().get("TIFFTAG_IMAGEDESCRIPTION", "GLAD GLCLUC2020 v2")
    except RasterioIOError as error:
        raise TileError(
            f"{label}: {path} cannot be read as a GeoTIFF ({error}); fetch it again, or if it is a tile of "
            "the sample world, delete it and run `python -m workshop.sample`"
        ) from error


def _remote_size(url: str, label: str) -> int:
    # One HEAD request distinguishes 404 from an unreachable host, unlike GDAL's messages, and fails within seconds.
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return int(response.headers["Content-Length"] or sys.maxsize)  # unknown: reading finds a truncated file
    except urllib.error.HTTPError as error:
        if error.code in (405, 501):  # a server may refuse HEAD and still serve the file
            return sys.maxsize
        hint = "; not every tile of the grid has land" if error.code == 404 else ""
        raise TileError(f"{label}: {url} answered {error.code} {error.reason}{hint}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TileError(
            f"{label}: no answer from {url} within {TIMEOUT_SECONDS} s ({getattr(error, 'reason', error)}); "
            f"unset {ROOT_SETTING} to work offline with the sample world"
        ) from error


def _validate(src: rasterio.DatasetReader, name: str, label: str, size: int) -> None:
    def expect(what: str, expected: object, found: object, advice: str) -> None:
        if expected != found:
            raise TileError(f"{label}: expected {what} {expected}, found {found}; {advice}")

    expect("band count", 1, src.count, "choose the land-cover band first")
    expect("data type", "uint8", src.dtypes[0], "these are not GLAD's class codes as published")
    crs = "none" if src.crs is None else src.crs.to_string()
    how = "reproject first, with nearest-neighbor resampling" if src.crs else "write it, if it was only lost"
    expect("CRS", "EPSG:4326", crs, how)
    lon, lat = tile_corner(name)
    expected = (lon, lat - TILE_DEGREES, lon + TILE_DEGREES, lat)
    off = max(abs(a - b) for a, b in zip(src.bounds, expected, strict=True))
    if off > RESOLUTION * TOLERANCE or src.transform.b or src.transform.d or src.transform.e > 0:
        raise TileError(
            f"{label}: expected a north-up grid with bounds {expected} (west, south, east, north), "
            f"found {tuple(src.bounds)}; the name and the georeferencing disagree"
        )
    if src.nodata not in (None, legend.NODATA):
        meaning = legend.table()["class"].get(src.nodata, "not used")
        raise TileError(
            f"{label}: expected {legend.NODATA} as no data, found {src.nodata:g} declared, {meaning!r} in the legend; "
            f"if these pixels are invalid, write {legend.NODATA} there; in any case, remove the declaration: open "
            'the file with rasterio.open(path, "r+") and set its nodata to None'
        )
    # A web map's tile server stops GDAL from looking for a mask in a separate file, so look for that file, too
    if MaskFlags.per_dataset in src.mask_flag_enums[0] or os.path.exists(f"{src.name}.msk"):
        raise TileError(
            f"{label}: expected all pixels to be valid, found a mask beside them, which a cube of classes would lose; "
            f"write a file without a mask, with {legend.NODATA} where rasterio's read_masks(1) is 0"
        )
    # In a folder, looking at all strips takes a tenth of a second. Over HTTP, it would take more requests.
    require_strips(src, label, (src.height - 1 if _is_remote(src) else 0, src.height))
    # Strips are written from top to bottom, so a truncated file lacks the last one.
    height, width = src.block_shapes[0]
    block = f"{(src.width - 1) // width}_{(src.height - 1) // height}"
    start, length = (int(src.get_tag_item(f"BLOCK_{k}_{block}", "TIFF", bidx=1) or 0) for k in ("OFFSET", "SIZE"))
    if start + length > size:
        raise TileError(
            f"{label}: truncated; expected at least {start + length:,} bytes, found {size:,}; fetch it again"
        )


def _is_remote(src: rasterio.DatasetReader) -> bool:
    return src.name.startswith("/vsicurl")


def require_strips(src: rasterio.DatasetReader, label: str, rows: tuple[int, int]) -> None:
    """Raise a TileError if GDAL does not know where the pixels of rows (first, last + 1) are.

    GDAL would read them as class 0. It reads the index of the strips in parts, as needed. If the server stops answering
    in between, GDAL treats the strips as never written. Call this before reading the rows: GDAL then keeps the index of
    these rows.
    """
    if src.driver != "GTiff" or (src.nodata == legend.NODATA and not _is_remote(src)):
        return  # not a TIFF, or sparse: strips never written read as no data, as declared
    height, width = src.block_shapes[0]
    for down in range(rows[0] // height, -(-rows[1] // height)):
        for right in range(-(-src.width // width)):  # one, unless the TIFF is tiled
            if not all(src.get_tag_item(f"BLOCK_{what}_{right}_{down}", "TIFF", bidx=1) for what in ("OFFSET", "SIZE")):
                raise TileError(
                    f"{label}: expected the offset of the pixels of row {down * height}, found none: they were never "
                    "written, or the server stopped answering, and they would read as class 0; fetch it again (a "
                    f"sparse tile can only be read from a folder, and if it declares {legend.NODATA} as no data)"
                )


def check_box(box: Box) -> Box:
    """Return a box as a :class:`Box`, or raise a TileError if it is invalid."""
    if len(box) != 4 or not all(isfinite(side) for side in box):
        raise TileError(f"{box}: expected four finite numbers (west, south, east, north), in degrees")
    box = Box(*box)
    if box.south > box.north:
        raise TileError(f"{box}: upside down; expected south < north, found {box.south} > {box.north}")
    if box.west > box.east:
        raise TileError(f"{box}: reversed; expected west < east, found {box.west} > {box.east}")
    return box


def pixel_slices(box: Box, corner: tuple[float, float] = (-180, NORTH)) -> tuple[slice, slice]:
    """Return the rows and columns that a box covers, rounded to pixel edges.

    They are counted from the upper left corner (longitude, latitude) of a tile, or by default of the tile grid.
    """
    lon, lat = corner
    rows = slice(round((lat - box.north) / RESOLUTION), round((lat - box.south) / RESOLUTION))
    cols = slice(round((box.west - lon) / RESOLUTION), round((box.east - lon) / RESOLUTION))
    return rows, cols


def axis(raster: xr.DataArray, name: str) -> tuple[float, float]:
    """Return the center of the first pixel along ``"y"`` or ``"x"``, and the step to the next, from the coordinates.

    A raster may run in either direction and be thinned. Its GeoTransform may be left over from another raster. It is
    only used for the size of a single pixel, and only if it agrees with that pixel's position.

    Raises
    ------
    TileError
        If there are no coordinates, they are unevenly spaced, or the size of a single pixel is unknown.
    """
    if name not in raster.dims or name not in raster.coords or not raster.sizes[name]:
        raise TileError(
            f"expected a raster with pixels and a coordinate along {name}, found none; keep both dimensions"
        )
    centers = raster[name].values.astype(float)
    if centers.size == 1:
        text = raster.coords.get(raster.rio.grid_mapping, xr.DataArray()).attrs.get("GeoTransform", "nan " * 6)
        left, right, _, top, _, down = map(float, text.split())
        edge, step = (top, down) if name == "y" else (left, right)
        if not abs(edge + step / 2 - centers[0]) <= TOLERANCE * abs(step):
            raise TileError(
                f"expected two pixels along {name}, or one of known size, found one whose GeoTransform is missing or "
                "belongs to another raster; select it with tiles.select_box"
            )
        return float(centers[0]), step
    first, step = float(centers[0]), float((centers[-1] - centers[0]) / (centers.size - 1))
    off = np.abs(centers - (first + step * np.arange(centers.size)))
    if not step or not (off <= TOLERANCE * abs(step)).all():  # also true for NaN
        worst = int(np.argmax(off))
        raise TileError(
            f"expected pixels in even steps along {name}, found {centers[worst]:.6f} where {first + step * worst:.6f} "
            "was expected; sort the raster, or put it on an even grid"
        )
    return first, step


def place(raster: xr.DataArray) -> Affine:
    """Return the transform of a raster from its coordinates; see :func:`axis`."""
    return _transform(*axis(raster, "y"), *axis(raster, "x"))


def _transform(y: float, down: float, x: float, right: float) -> Affine:
    return Affine(*(round(number, 12) for number in (right, 0, x - right / 2, 0, down, y - down / 2)))


def north_up(raster: xr.DataArray) -> xr.DataArray:
    """Return a raster ``(y, x)`` with ``y`` descending, ``x`` ascending, and the transform of its coordinates."""
    (_, down), (_, right) = axis(raster, "y"), axis(raster, "x")
    raster = raster.transpose("y", "x")[:: 1 if down < 0 else -1, :: 1 if right > 0 else -1]
    return raster.rio.write_transform(place(raster))


def select_box(raster: xr.DataArray, box: Box) -> xr.DataArray:
    """Select a box from a raster by labels: the pixels whose centers are inside.

    Parameters
    ----------
    raster : xarray.DataArray
        With evenly spaced ``y`` and ``x`` in degrees, in either direction.
    box : Box
        In degrees.

    Returns
    -------
    xarray.DataArray
        In the raster's order, with the transform of the box.

    Raises
    ------
    TileError
        If the box is upside down, empty, or reaches beyond the raster, or the raster's pixels are unevenly spaced.
    """
    box = check_box(box)
    spans, grid = {}, {}
    for name, low, high in (("x", box.west, box.east), ("y", box.south, box.north)):
        first, step = axis(raster, name)
        edges = sorted((first - step / 2, first + (raster.sizes[name] - 0.5) * step))
        slack = TOLERANCE * abs(step)
        if low < edges[0] - slack or high > edges[1] + slack:
            raise TileError(
                f"{box}: reaches outside the raster, which spans {edges[0]:.5f} to {edges[1]:.5f} degrees along {name}"
            )
        inside = np.flatnonzero((raster[name] >= low) & (raster[name] <= high))
        if not inside.size:
            raise TileError(
                f"{box}: empty; it contains no pixel center along {name}, so make it at least one pixel "
                f"({abs(step):g}°) wide"
            )
        spans[name] = slice(inside[0], inside[-1] + 1)
        grid[name] = first + inside[0] * step, step
    # readers that trust the raster's transform would put the box at the raster's corner
    return raster.isel(spans).rio.write_transform(_transform(*grid["y"], *grid["x"]))
