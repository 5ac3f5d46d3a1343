"""How much of each class lies inside polygons: exact counts and areas, in one pass over a cube.

Each chunk that a polygon touches is read once, however many polygons there are and whether they overlap. Dask does the
work: threads of this process, or a cluster where a ``distributed.Client`` is open.
"""

from collections.abc import Iterator
from itertools import batched

import dask
import geopandas as gpd
import numba
import numpy as np
import rioxarray  # noqa: F401, for the accessor rio
import shapely
import xarray as xr
from dask.delayed import Delayed
from pyproj import CRS

BLOCK = 4_000_000  # pixels of a year that a task reads at once, where chunks are smaller
BATCH = 1000  # tasks whose results are in memory together
KINDS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


class ZonalError(ValueError):
    """Zones or pixels are not what exact counting needs; the message says what to do."""


def count_classes(lulc: xr.DataArray, zones: gpd.GeoDataFrame | gpd.GeoSeries) -> xr.Dataset:
    """Count the pixels of each class inside each zone, and their area.

    A pixel belongs to a zone when its centre lies inside. A centre exactly on a border belongs to the zone that has
    the border on its first side (north and west, where y falls and x rises), so that neighbours with the same corners
    never share a pixel, nor lose one.

    Parameters
    ----------
    lulc : xarray.DataArray
        ``(year, y, x)`` or ``(y, x)``, uint8, on an even grid in degrees, lazy or in memory. Give the whole cube: only
        what the zones touch is read.
    zones : geopandas.GeoDataFrame or geopandas.GeoSeries
        Polygons and multipolygons in the same CRS; the index names them. They may overlap, have holes, and reach
        beyond the cube, where nothing is counted.

    Returns
    -------
    xarray.Dataset
        ``pixels (zone, year, class)``, int64, and ``area (zone, year, class)``, float64, in km²; classes 0 to 255.
        Without ``year`` where the cube has none.

    Raises
    ------
    ZonalError
        When the cube does not hold class codes on an even grid in degrees; when a zone is no polygon, empty, invalid,
        or in another CRS; when two zones have the same name.
    """
    _check_grid(lulc)
    _check_zones(zones, lulc)
    cube = lulc.variable if "year" in lulc.dims else lulc.variable.expand_dims("year")
    (v0, dv), (u0, du) = (_axis(lulc, axis) for axis in ("y", "x"))
    edges = _edges(zones.geometry, (u0, du), (v0, dv))
    row_area = pixel_area(lulc["y"].values, dv, du)

    pixels = np.zeros((len(edges), cube.sizes["year"], 256), np.int64)
    areas = np.zeros(pixels.shape)
    frames, part_of = _frames(zones.geometry, (u0, du), (v0, dv))
    for batch in batched(_tasks(cube, edges, frames, part_of, row_area), BATCH):
        for there, counted, area in dask.compute(*batch):
            pixels[there] += counted
            areas[there] += area

    dims = ("zone", "year", "class")
    result = xr.Dataset(
        {"pixels": (dims, pixels), "area": (dims, areas, {"units": "km²"})},
        coords={"zone": zones.index.to_numpy(), "class": np.arange(256)},
    )
    return result.assign_coords(year=lulc["year"].values) if "year" in lulc.dims else result.squeeze("year", drop=True)


def pixel_area(latitude: np.ndarray, height: float, width: float) -> np.ndarray:
    """Return the area of pixels on the WGS 84 ellipsoid, between their parallels and meridians.

    The area from the equator to a parallel, over a width of longitude, is that of Snyder, "Map projections: a working
    manual", USGS Professional Paper 1395 (1987), equation 3-12 (authalic latitude).

    Parameters
    ----------
    latitude : numpy.ndarray
        Of the pixels' centres, in degrees.
    height, width : float
        Of a pixel, in degrees.

    Returns
    -------
    numpy.ndarray
        In km², one for each latitude.
    """
    ellipsoid = CRS("EPSG:4326").ellipsoid
    major, minor = ellipsoid.semi_major_metre / 1000, ellipsoid.semi_minor_metre / 1000
    e = np.sqrt(1 - (minor / major) ** 2)

    def from_equator(degrees: np.ndarray) -> np.ndarray:
        sine = np.sin(np.radians(degrees))
        q = (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
        return major**2 / 2 * q * np.radians(abs(width))

    latitude = np.asarray(latitude, float)
    return np.abs(from_equator(latitude + height / 2) - from_equator(latitude - height / 2))


def _check_grid(lulc: xr.DataArray) -> None:
    if not isinstance(lulc, xr.DataArray) or lulc.dims not in (("year", "y", "x"), ("y", "x")):
        found = getattr(lulc, "dims", type(lulc).__name__)
        raise ZonalError(f"expected a DataArray (year, y, x) or (y, x), found {found}")
    if lulc.dtype != np.uint8:
        raise ZonalError(f"expected class codes as uint8, found {lulc.dtype}; open without masking or scaling")
    if lulc.rio.crs != "EPSG:4326":
        raise ZonalError(
            f"expected the cube in EPSG:4326, in degrees, found {lulc.rio.crs}; areas are computed for that"
        )
    for axis in ("y", "x"):
        if axis not in lulc.coords or lulc.sizes[axis] < 2:
            raise ZonalError(f"expected pixel centres along {axis}, at least two, found {lulc.sizes[axis]}")
        first, step = _axis(lulc, axis)
        even = first + step * np.arange(lulc.sizes[axis])
        if not step or not np.abs(lulc[axis].values - even).max() <= 0.01 * abs(step):
            raise ZonalError(f"expected evenly spaced pixels along {axis}; give the cube as it is stored")


def _check_zones(zones: gpd.GeoDataFrame | gpd.GeoSeries, lulc: xr.DataArray) -> None:
    if not isinstance(zones, gpd.GeoDataFrame | gpd.GeoSeries):
        raise ZonalError(f"expected zones as a GeoDataFrame or GeoSeries, found {type(zones).__name__}")
    if zones.crs is None:
        raise ZonalError("expected zones with a CRS, found none; say which it is with zones.set_crs")
    if zones.crs != lulc.rio.crs:
        raise ZonalError(
            f"expected zones in {lulc.rio.crs}, found {zones.crs.to_string()}; zones.to_crs(lulc.rio.crs) moves them"
        )
    if not len(zones):
        raise ZonalError("expected at least one zone, found none; did a query match nothing?")
    if zones.index.nlevels > 1:
        raise ZonalError(f"expected one name for each zone, found {zones.index.nlevels}; join or reset the index")
    twice = zones.index[zones.index.duplicated()]
    if len(twice):
        raise ZonalError(f"expected one zone of each name, found {twice[0]!r} more than once; dissolve or rename them")
    for name, geometry in zones.geometry.items():
        if geometry is None or geometry.is_empty:
            raise ZonalError(f"zone {name!r}: expected a polygon, found an empty one; leave it out")
        if geometry.geom_type not in ("Polygon", "MultiPolygon"):
            raise ZonalError(
                f"zone {name!r}: expected a polygon, found a {geometry.geom_type}; buffer it, or leave it out"
            )
        if not geometry.is_valid:
            raise ZonalError(
                f"zone {name!r}: expected a valid polygon, found: {shapely.is_valid_reason(geometry)}; mend it with "
                "shapely.make_valid, and look at what that made of it"
            )


def _axis(lulc: xr.DataArray, axis: str) -> tuple[float, float]:
    """Return the first pixel's centre and the step to the next."""
    centres = lulc[axis].values
    return float(centres[0]), float((centres[-1] - centres[0]) / (centres.size - 1))


def _edges(zones: gpd.GeoSeries, across: tuple[float, float], down: tuple[float, float]) -> list[np.ndarray]:
    """Return each zone's edges in pixels, where centres are integers: rows of (v1, u1, v2, u2), v1 < v2.

    The order of the two ends is always the same, so that an edge of two neighbours gives the same crossings in both.
    """
    parts, zone = shapely.get_parts(zones.to_numpy(), return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    u, v = (
        _snap((coordinate - first) / step) for coordinate, (first, step) in zip(points.T, (across, down), strict=True)
    )
    ends = np.column_stack([v[:-1], u[:-1], v[1:], u[1:]])
    ends = np.where((ends[:, 0] > ends[:, 2])[:, None], ends[:, [2, 3, 0, 1]], ends)
    matter = (ring[:-1] == ring[1:]) & (ends[:, 0] < ends[:, 2])
    zone = zone[part][ring[:-1]][matter]
    return np.split(ends[matter], np.searchsorted(zone, np.arange(1, len(zones))))


def _snap(coordinate: np.ndarray) -> np.ndarray:
    """Make whole what is within a millionth of a pixel of a centre, so that rounding does not decide about a border."""
    whole = np.round(coordinate)
    return np.where(np.abs(coordinate - whole) < 1e-6, whole, coordinate)


def _frames(
    zones: gpd.GeoSeries, across: tuple[float, float], down: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounding box of each part of each zone in pixels, (top, bottom, left, right), and the part's zone."""
    parts, zone = shapely.get_parts(zones.to_numpy(), return_index=True)
    west, south, east, north = shapely.bounds(parts).T
    rows, cols = (np.array([south, north]) - down[0]) / down[1], (np.array([west, east]) - across[0]) / across[1]
    return np.vstack([np.sort(rows, axis=0), np.sort(cols, axis=0)]).T, zone


def _tasks(
    cube: xr.Variable, edges: list[np.ndarray], frames: np.ndarray, zone: np.ndarray, row_area: np.ndarray
) -> Iterator[Delayed]:
    """Yield a task for each block of the cube that the bounding box of a zone's part touches."""
    depth, *chunk = _chunk_shape(cube)
    height, width = _block_shape(cube, *chunk)
    count = dask.delayed(_count_block, pure=False)
    frames = frames.clip(-1, [*[cube.sizes["y"]] * 2, *[cube.sizes["x"]] * 2])
    touched: dict[tuple[int, int], list[int]] = {}
    for part, (top, bottom, left, right) in enumerate(frames):
        for row in range(int(max(top, 0)) // height, int(max(bottom, 0)) // height + 1):
            for col in range(int(max(left, 0)) // width, int(max(right, 0)) // width + 1):
                touched.setdefault((row, col), []).append(part)
    for (row, col), parts in sorted(touched.items()):
        # of the block, only the chunks that these parts may touch
        first, last = frames[parts][:, [0, 2]].min(axis=0), frames[parts][:, [1, 3]].max(axis=0) + 1
        (top, bottom), (left, right) = (
            (
                max(index * size, int(max(low, 0)) // step * step),
                min((index + 1) * size, int(-(-high // step)) * step),
            )
            for index, size, step, low, high in zip((row, col), (height, width), chunk, first, last, strict=True)
        )
        block = cube[:, top:bottom, left:right]
        if 0 in block.shape:
            continue
        found = np.unique(zone[parts])
        near = [edges[z][(edges[z][:, 2] > top) & (edges[z][:, 0] < bottom)] for z in found]
        yield count(block, depth, found, near, top, left, row_area[top:bottom])


def _chunk_shape(cube: xr.Variable) -> tuple[int, int, int]:
    if cube.chunks is not None:
        return tuple(sizes[0] for sizes in cube.chunks)
    stored = cube.encoding.get("chunks") or (500, 500)
    return (1, *stored)[-3:]


def _block_shape(cube: xr.Variable, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns that a task reads: whole chunks, several where they are small."""
    while height * width * 2 <= BLOCK:
        if (height <= width and height < cube.sizes["y"]) or width >= cube.sizes["x"]:
            if height >= cube.sizes["y"]:
                break
            height *= 2
        else:
            width *= 2
    return height, width


def _count_block(
    block: xr.Variable,
    depth: int,
    found: np.ndarray,
    edges: list[np.ndarray],
    top: int,
    left: int,
    row_area: np.ndarray,
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Count one block, as many years at once as a chunk is deep.

    Returns where the counts belong (zones, years and classes that occur, as an open mesh), the counts and the areas.
    """
    years, height, width = block.shape
    spans = [_spans(e, top, left, height, width) for e in edges]
    inside = [k for k, of_zone in enumerate(spans) if len(of_zone)]
    found, spans = found[inside], [spans[k] for k in inside]
    counts = np.zeros((len(found), years, 256), np.int64)
    areas = np.zeros(counts.shape)
    if spans:
        first = np.cumsum([0, *(len(of_zone) for of_zone in spans)])
        spans = np.concatenate(spans)
        for start in range(0, years, depth):
            for year, pixels in enumerate(np.asarray(block[start : start + depth]), start):
                _count_spans(pixels, spans, first, row_area, counts[:, year], areas[:, year])
    classes = np.flatnonzero(counts.any(axis=(0, 1)))
    return np.ix_(found, np.arange(years), classes), counts[..., classes], areas[..., classes]


@numba.njit(nogil=True, cache=True)
def _spans(edges, top, left, height, width):  # numba infers the types
    """Return where rows of a block cross a polygon: (row, first column, last column + 1), in the block's pixels."""
    per_row = np.zeros(height + 1, np.int64)
    for k in range(len(edges)):
        for row in range(max(np.ceil(edges[k, 0]), top), min(np.ceil(edges[k, 2]), top + height)):
            per_row[row - top + 1] += 1
    start = np.cumsum(per_row)
    crossings, filled = np.empty(start[-1]), start.copy()
    for k in range(len(edges)):
        v1, u1, v2, u2 = edges[k]
        for row in range(max(np.ceil(v1), top), min(np.ceil(v2), top + height)):
            crossings[filled[row - top]] = u1 + (row - v1) / (v2 - v1) * (u2 - u1)
            filled[row - top] += 1
    spans = np.empty((start[-1] // 2, 3), np.int64)
    n = 0
    for row in range(height):
        here = crossings[start[row] : start[row + 1]]
        if len(here) != 2:
            here.sort()
        elif here[0] > here[1]:  # by far the most frequent case, and much faster so
            here[0], here[1] = here[1], here[0]
        for k in range(0, len(here) - 1, 2):
            first = max(np.ceil(here[k]) - left, 0)
            last = min(np.ceil(here[k + 1]) - left, width)
            if first < last:
                spans[n, 0], spans[n, 1], spans[n, 2] = row, first, last
                n += 1
    return spans[:n]


@numba.njit(nogil=True, cache=True)
def _count_spans(pixels, spans, first, row_area, counts, areas):
    """Add the pixels of each zone's spans to its counts and areas."""
    in_row = np.zeros(256, np.int64)
    for zone in range(len(first) - 1):
        for k in range(first[zone], first[zone + 1]):
            row, begin, end = spans[k]
            area = row_area[row]
            if end - begin < 64:
                for col in range(begin, end):
                    counts[zone, pixels[row, col]] += 1
                    areas[zone, pixels[row, col]] += area
            else:
                for col in range(begin, end):
                    in_row[pixels[row, col]] += 1
                for value in range(256):
                    counts[zone, value] += in_row[value]
                    areas[zone, value] += in_row[value] * area
                    in_row[value] = 0
