"""How much of each class lies inside polygons: exact counts and areas, in one pass over a cube.

Each chunk that a polygon touches is read once, however many polygons there are and whether they overlap. Dask does the
work, a task for each chunk: threads of this process, or a cluster where a ``distributed.Client`` is open. The cube may
be one of references (``virtual.py``): Dask sends it with its codecs, also to a cluster.
"""

from collections.abc import Iterator
from itertools import batched, product

import dask
import geopandas as gpd
import numba
import numpy as np
import rioxarray  # noqa: F401, for the accessor rio
import shapely
import xarray as xr
from dask.delayed import Delayed
from pyproj import CRS

BATCH = 1000  # tasks whose results are in memory together
CHUNK = (500, 500)  # pixels of a task where the cube has no chunks


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
        When the cube does not hold class codes on an even grid in degrees; when a zone is not a valid polygon, is
        empty, or is in another CRS; when two zones have the same name.
    """
    _check_grid(lulc)
    _check_zones(zones, lulc)
    cube = (lulc if "year" in lulc.dims else lulc.expand_dims("year")).variable.transpose("year", "y", "x")
    axes = [_axis(lulc, axis) for axis in ("y", "x")]
    row_area = pixel_area(lulc["y"].values, axes[0][1], axes[1][1])

    pixels = np.zeros((len(zones), cube.sizes["year"], 256), np.int64)
    areas = np.zeros(pixels.shape)
    for batch in batched(_tasks(cube, zones.geometry, axes, row_area), BATCH):
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
    """Return the area in km² of pixels on the WGS 84 ellipsoid, one per latitude of a center; all arguments in degrees.

    The area from the equator to a parallel, over a width of longitude, is that of Snyder, "Map projections: a working
    manual", USGS Professional Paper 1395 (1987), equation 3-12 (authalic latitude).
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
    if lulc.dtype != np.uint8:
        raise ZonalError(f"expected class codes as uint8, found {lulc.dtype}; open without masking or scaling")
    if lulc.rio.crs != "EPSG:4326":
        raise ZonalError(f"expected the cube in EPSG:4326, in degrees, found {lulc.rio.crs}; areas are for that")
    for axis in ("y", "x"):
        if axis in lulc.coords and lulc.sizes[axis] > 1:
            first, step = _axis(lulc, axis)
            even = first + step * np.arange(lulc.sizes[axis])
            if step and np.abs(lulc[axis].values - even).max() <= 0.01 * abs(step):
                continue
        raise ZonalError(f"expected at least two evenly spaced pixels along {axis}; give the cube as it is stored")


def _check_zones(zones: gpd.GeoDataFrame | gpd.GeoSeries, lulc: xr.DataArray) -> None:
    if zones.crs is None:
        raise ZonalError("expected zones with a CRS, found none; say which it is with zones.set_crs")
    if zones.crs != lulc.rio.crs:
        raise ZonalError(
            f"expected zones in {lulc.rio.crs}, found {zones.crs.to_string()}; zones.to_crs(lulc.rio.crs) moves them"
        )
    twice = zones.index[zones.index.duplicated()]
    if len(twice):
        raise ZonalError(f"expected one zone of each name, found {twice[0]!r} more than once; dissolve or rename them")
    fine = zones.geom_type.isin(["Polygon", "MultiPolygon"]) & zones.is_valid & ~zones.is_empty
    for name, geometry in zones.geometry[~fine].items():
        raise ZonalError(
            f"zone {name!r}: expected a valid polygon with an area, found {shapely.is_valid_reason(geometry)} in "
            f"{getattr(geometry, 'geom_type', None)}; shapely.make_valid repairs one, but look at the result"
        )


def _axis(lulc: xr.DataArray, axis: str) -> tuple[float, float]:
    """Return the first pixel's centre and the step to the next."""
    centres = lulc[axis].values
    return float(centres[0]), float((centres[-1] - centres[0]) / (centres.size - 1))


def _edges(zones: gpd.GeoSeries, axes: list[tuple[float, float]]) -> list[np.ndarray]:
    """Return each zone's edges in pixels, where centres are integers: rows of (v1, u1, v2, u2), v1 < v2.

    The order of the two ends is always the same, so that an edge of two neighbours gives the same crossings in both.
    """
    parts, zone = shapely.get_parts(zones.to_numpy(), return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    u, v = (_snap((along - first) / step) for along, (first, step) in zip(points.T, axes[::-1], strict=True))
    ends = np.column_stack([v[:-1], u[:-1], v[1:], u[1:]])
    ends = np.where((ends[:, 0] > ends[:, 2])[:, None], ends[:, [2, 3, 0, 1]], ends)
    matter = (ring[:-1] == ring[1:]) & (ends[:, 0] < ends[:, 2])
    zone = zone[part][ring[:-1]][matter]
    return np.split(ends[matter], np.searchsorted(zone, np.arange(1, len(zones))))


def _snap(coordinate: np.ndarray) -> np.ndarray:
    """Make whole what is within a millionth of a pixel of a centre, so that rounding does not decide about a border."""
    whole = np.round(coordinate)
    return np.where(np.abs(coordinate - whole) < 1e-6, whole, coordinate)


def _tasks(
    cube: xr.Variable, zones: gpd.GeoSeries, axes: list[tuple[float, float]], row_area: np.ndarray
) -> Iterator[Delayed]:
    """Yield a task for each chunk, with all its years, that the bounding box of a zone's part touches."""
    stored = cube.encoding.get("chunks") or CHUNK
    height, width = stored[-2:] if cube.chunks is None else (sizes[0] for sizes in cube.chunks[1:])
    edges = _edges(zones, axes)
    count = dask.delayed(_count_chunk, pure=False)
    for (row, col), found in sorted(_touched(zones, axes, cube.shape[1:], (height, width)).items()):
        top, left = row * height, col * width
        chunk = cube[:, top : top + height, left : left + width]
        near = [edges[z][(edges[z][:, 2] > top) & (edges[z][:, 0] < top + height)] for z in found]
        yield count(chunk, np.array(found), near, top, left, row_area[top : top + height])


def _touched(
    zones: gpd.GeoSeries, axes: list[tuple[float, float]], shape: tuple[int, int], chunk: tuple[int, int]
) -> dict[tuple[int, int], list[int]]:
    """Return the zones for each chunk (row, column) that the bounding box of one of their parts touches."""
    parts, zone = shapely.get_parts(zones.to_numpy(), return_index=True)
    west, south, east, north = shapely.bounds(parts).T
    first, last = [], []
    for ends, (origin, step), length, size in zip(((south, north), (west, east)), axes, shape, chunk, strict=True):
        low, high = np.sort((np.array(ends) - origin) / step, axis=0)
        first.append(np.floor(low).clip(min=0).astype(int) // size)
        last.append(np.ceil(high).clip(max=length - 1).astype(int) // size)
    touched: dict[tuple[int, int], dict[int, None]] = {}
    for z, top, left, bottom, right in zip(zone, *first, *last, strict=True):
        for here in product(range(top, bottom + 1), range(left, right + 1)):
            touched.setdefault(here, {})[z] = None
    return {here: list(found) for here, found in touched.items()}


def _count_chunk(
    chunk: xr.Variable, found: np.ndarray, edges: list[np.ndarray], top: int, left: int, row_area: np.ndarray
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Return where a chunk's counts belong (an open mesh of zones, years and classes that occur), counts and areas."""
    years, height, width = chunk.shape
    spans = [_spans(e, top, left, height, width) for e in edges]
    counts = np.zeros((years, len(found), 256), np.int64)  # this way round, numba's loops are much faster
    areas = np.zeros(counts.shape)
    first = np.cumsum([0, *map(len, spans)])
    if first[-1]:
        spans = np.concatenate(spans)
        # all years at once, as a chunk may hold several; of a copy, since a variable keeps what it has loaded
        for year, pixels in enumerate(chunk[:].to_numpy()):
            _count_spans(pixels, spans, first, row_area, counts[year], areas[year])
    inside = np.flatnonzero(np.diff(first))
    classes = np.flatnonzero(counts.any(axis=(0, 1)))
    there = np.ix_(np.arange(years), inside, classes)
    counts, areas = counts[there].swapaxes(0, 1), areas[there].swapaxes(0, 1)
    return np.ix_(found[inside], np.arange(years), classes), counts, areas


@numba.njit(nogil=True, cache=True)
def _spans(edges, top, left, height, width):  # numba infers the types
    """Return where rows of a chunk cross a polygon: (row, first column, last column + 1), in the chunk's pixels."""
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
        elif here[0] > here[1]:  # by far the most frequent case, and much faster this way
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
