"""How much of each class is inside polygons: exact counts and areas, in one pass over a cube.

Each chunk that a polygon touches is read once, even if many polygons touch it or overlap. Dask does the work, one task
per chunk, with threads of this process, or with a cluster if a ``distributed.Client`` is open. The cube may be virtual
(``virtual.py``): Dask sends it with its codecs, also to a cluster.
"""

from collections import defaultdict
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
from shapely.affinity import translate

from workshop import tiles

BATCH = 1000  # tasks whose results are in memory at the same time
CHUNK = (500, 500)  # pixels per task if the cube has no chunks
DEGREES = CRS("EPSG:4326")
FARTHEST = 540  # degrees; no valid zone has a larger coordinate, in any convention of longitudes
TURNS = 360 * np.arange(-2, 3)  # degrees by which a zone is shifted to the cube's convention of longitudes


class ZonalError(ValueError):
    """Zones or pixels cannot be counted exactly; the message says what to do."""


def count_classes(lulc: xr.DataArray, zones: gpd.GeoDataFrame | gpd.GeoSeries) -> xr.Dataset:
    """Count the pixels of each class inside each zone, and their area.

    A pixel belongs to a zone if its center is inside. A center exactly on a border belongs to the zone that has the
    border on its first side (north and west, if y descends and x ascends). Neighbors with the same corners therefore
    never share or lose a pixel.

    Parameters
    ----------
    lulc : xarray.DataArray
        ``(year, y, x)`` or ``(y, x)``, uint8, on an even grid in degrees, lazy or in memory. Pass the whole cube: only
        chunks that the zones touch are read.
    zones : geopandas.GeoDataFrame or geopandas.GeoSeries
        Polygons and multipolygons in the same CRS; the index names them. They may overlap, have holes, and reach
        beyond the cube, where nothing is counted. Longitudes repeat every 360 degrees: a zone across the antimeridian
        runs from 170 to 190, or has a part on each side.

    Returns
    -------
    xarray.Dataset
        ``pixels (zone, year, class)``, int64, and ``area (zone, year, class)``, float64, in km²; classes 0 to 255.
        Without ``year`` if the cube has none.

    Raises
    ------
    ZonalError
        If the cube does not hold class codes in degrees; if a zone is not a valid polygon, is in another CRS, does not
        touch the cube, or has an edge that may go either way around the globe; if two zones have the same name.
    workshop.tiles.TileError
        If the cube has no even grid.
    """
    axes = _check_grid(lulc)
    (south, north), (west, east) = (
        sorted((first - step / 2, first + (lulc.sizes[name] - 0.5) * step))
        for name, (first, step) in zip("yx", axes, strict=True)
    )
    extent = west, south, east, north  # of the outer pixel edges
    _check_zones(zones, extent)
    shapes = _turn(zones.geometry.to_numpy(), extent)
    cube = (lulc if "year" in lulc.dims else lulc.expand_dims("year")).variable.transpose("year", "y", "x")
    row_area = pixel_area(lulc["y"].values, axes[0][1], axes[1][1])

    pixels = np.zeros((len(zones), cube.sizes["year"], 256), np.int64)
    areas = np.zeros(pixels.shape)
    for batch in batched(_tasks(cube, shapes, axes, row_area), BATCH):
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
    """Return the area in km² of pixels on the WGS 84 ellipsoid, per center latitude; all arguments are in degrees.

    The area between the equator and a parallel, over a width of longitude, is from Snyder, "Map projections: a working
    manual", USGS Professional Paper 1395 (1987), equation 3-12 (authalic latitude).
    """
    ellipsoid = DEGREES.ellipsoid
    major, minor = ellipsoid.semi_major_metre / 1000, ellipsoid.semi_minor_metre / 1000
    e = np.sqrt(1 - (minor / major) ** 2)

    def from_equator(degrees: np.ndarray) -> np.ndarray:
        sine = np.sin(np.radians(np.clip(degrees, -90, 90)))  # a pixel centered on a pole has only one half
        q = (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
        return major**2 / 2 * q * np.radians(abs(width))

    latitude = np.asarray(latitude, float)
    return np.abs(from_equator(latitude + height / 2) - from_equator(latitude - height / 2))


def _check_grid(lulc: xr.DataArray) -> list[tuple[float, float]]:
    """Return the center of the first pixel and the step to the next, along y and along x."""
    if lulc.dtype != np.uint8:
        raise ZonalError(f"expected class codes as uint8, found {lulc.dtype}; open without masking or scaling")
    if not _in_degrees(lulc.rio.crs):
        raise ZonalError(
            f"expected the cube in EPSG:4326, in degrees, found {lulc.rio.crs}; "
            + (
                'lulc.rio.reproject("EPSG:4326") reprojects it with nearest-neighbor resampling'
                if lulc.rio.crs
                else 'lulc.rio.write_crs("EPSG:4326") declares it, if it is in degrees'
            )
        )
    axes = [tiles.axis(lulc, name) for name in ("y", "x")]
    width, highest = abs(axes[1][1]) * lulc.sizes["x"], np.abs(lulc["y"].values).max()
    if width > 360 + tiles.TOLERANCE * abs(axes[1][1]) or highest > 90 + tiles.TOLERANCE * abs(axes[0][1]):
        raise ZonalError(
            f"expected a cube of at most 360 degrees of longitude, and latitudes of at most 90, found {width:g} and "
            f"{highest:g}; use isel to drop columns that repeat, and rows beyond a pole"
        )
    return axes


def _in_degrees(crs: object) -> bool:
    """Whether a CRS is EPSG:4326, in any notation and axis order; GeoPandas always puts longitudes first."""
    return crs is not None and CRS.from_user_input(crs).to_2d().equals(DEGREES, ignore_axis_order=True)


def _check_zones(zones: gpd.GeoDataFrame | gpd.GeoSeries, extent: tuple[float, ...]) -> None:
    """Raise an error for a zone that cannot be counted in a cube with this extent (west, south, east, north)."""
    if zones.crs is None:
        raise ZonalError(
            'expected zones with a CRS, found none; if they are in degrees, zones.set_crs("EPSG:4326") declares it; '
            'otherwise, declare their CRS with zones.set_crs and reproject them with .to_crs("EPSG:4326")'
        )
    if not _in_degrees(zones.crs):
        raise ZonalError(
            f'expected zones in EPSG:4326, found {zones.crs.to_string()}; zones.to_crs("EPSG:4326") reprojects them'
        )
    twice = zones.index[zones.index.duplicated()]
    if len(twice):
        raise ZonalError(f"expected unique zone names, found {twice[0]!r} more than once; dissolve or rename them")

    shapes, kinds, bounds = zones.geometry.to_numpy(), zones.geom_type.to_numpy(), zones.bounds.to_numpy()
    column = "" if isinstance(zones, gpd.GeoSeries) else f", {zones.geometry.name!r}"
    span = "longitudes {0:g} to {2:g} and latitudes {1:g} to {3:g}"
    cube, cut = span.format(*extent), "{0:g}:{2:g}, {1:g}:{3:g}".format(*extent)
    swap = "zones.geometry.transform(lambda xy: xy[:, ::-1]) swaps them back"

    def refuse(wrong: np.ndarray, message: str) -> None:
        for z in np.flatnonzero(wrong)[:1]:
            drop, here = f"zones.drop(zones.index[{z}]) leaves it out", f"zones.loc[zones.index[{z}]{column}]"
            words = {"drop": drop, "here": here, "span": span.format(*bounds[z]), "cube": cube, "cut": cut}
            words |= {"text": str(shapes[z])[:30], "reason": shapely.is_valid_reason(shapes[z]), "swap": swap}
            raise ZonalError(f"zone {zones.index.tolist()[z]!r}: expected " + message.format(**words))

    refuse(
        ~np.isin(kinds, ["Polygon", "MultiPolygon", "GeometryCollection"]) | zones.is_empty,
        "a polygon with an area, found {text}; {drop}",
    )
    refuse(
        (np.abs(bounds) > [FARTHEST, 91, FARTHEST, 91]).any(axis=1),
        "degrees, found {span}; perhaps swapped, and {swap}; perhaps in meters with a wrong CRS: geopandas.read_file "
        'reads the CRS of the file, and zones.set_crs(CRS, allow_override=True).to_crs("EPSG:4326") corrects it; '
        "{drop}",
    )
    refuse(
        [bounds[z, 2] - bounds[z, 0] > 180 and _jumps(shape) for z, shape in enumerate(shapes)],
        "edges that span at most 180 degrees of longitude, or all 360 between two meridians, found {span} and an edge "
        "that may go either way around the globe; if the zone crosses the antimeridian, {here} = "
        "shapely.transform({here}, lambda xy: xy + (xy < 0) * [360, 0]) adds 360 to negative longitudes (where it also "
        "crosses Greenwich, split it at the antimeridian instead); if it really is that wide, {here} = "
        "shapely.segmentize({here}, 1) gives it more corners; around a pole, it needs corners there, at "
        "longitudes 180 and -180",
    )
    refuse(
        (kinds == "GeometryCollection") | ~zones.is_valid,
        'a valid polygon, found {reason} in {text}; zones.make_valid(method="structure", keep_collapsed=False)'
        ".apply(shapely.buffer, distance=0) repairs zones, but check the result; {drop}",
    )
    refuse(
        ~_touches(bounds, extent).any(axis=0),
        "zones that touch the cube, which covers {cube}, found {span}; perhaps swapped, and {swap}; {drop}, or "
        "zones.cx[{cut}] leaves out all zones outside these numbers",
    )


def _jumps(shape: shapely.Geometry) -> bool:
    """Whether an edge spans more than half of the globe and is not the side of a band around all of it."""
    for ring in shapely.get_rings(shapely.get_parts(shapely.get_parts(shape))):
        across = np.diff(shapely.get_coordinates(ring)[:, 0])
        upright = np.abs(across) < 1e-9
        band = (np.abs(across) > 360 - 1e-9) & np.roll(upright, 1) & np.roll(upright, -1)
        if ((np.abs(across) > 180 + 1e-9) & ~band).any():
            return True
    return False


def _touches(bounds: np.ndarray, extent: tuple[float, ...]) -> np.ndarray:
    """Return, per ``TURNS`` (first axis) and bounding box, whether the shifted box touches the cube."""
    (west, south, east, north), turn = bounds.T, TURNS[:, None]
    along = (west + turn <= extent[2]) & (east + turn >= extent[0])
    return along & (south <= extent[3]) & (north >= extent[1])


def _turn(shapes: np.ndarray, extent: tuple[float, ...]) -> np.ndarray:
    """Return the zones, each with its copies shifted by ``TURNS`` that touch the cube."""
    shapes, touches = shapes.copy(), _touches(shapely.bounds(shapes), extent)
    for z in np.flatnonzero(touches[TURNS != 0].any(axis=0)):
        shapes[z] = shapely.union_all([translate(shapes[z], turn) for turn in TURNS[touches[:, z]]])
    return shapes


def _edges(shapes: np.ndarray, axes: list[tuple[float, float]]) -> list[np.ndarray]:
    """Return each zone's edges in pixels, where centers are integers: rows of (v1, u1, v2, u2), v1 < v2.

    The order of the two ends is always the same, so an edge shared by two neighbors gives the same crossings in both.
    """
    parts, zone = shapely.get_parts(shapes, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    u, v = (_snap((along - first) / step) for along, (first, step) in zip(points.T, axes[::-1], strict=True))
    ends = np.column_stack([v[:-1], u[:-1], v[1:], u[1:]])
    ends = np.where((ends[:, 0] > ends[:, 2])[:, None], ends[:, [2, 3, 0, 1]], ends)
    matter = (ring[:-1] == ring[1:]) & (ends[:, 0] < ends[:, 2])
    zone = zone[part][ring[:-1]][matter]
    return np.split(ends[matter], np.searchsorted(zone, np.arange(1, len(shapes))))


def _snap(coordinate: np.ndarray) -> np.ndarray:
    """Round coordinates that are within a millionth of a pixel of a center, so that tiny errors decide no border."""
    whole = np.round(coordinate)
    return np.where(np.abs(coordinate - whole) < 1e-6, whole, coordinate)


def _tasks(
    cube: xr.Variable, shapes: np.ndarray, axes: list[tuple[float, float]], row_area: np.ndarray
) -> Iterator[Delayed]:
    """Yield one task, with all years, per chunk that the bounding box of a zone's part touches."""
    stored = cube.encoding.get("chunks") or CHUNK
    height, width = stored[-2:] if cube.chunks is None else (sizes[0] for sizes in cube.chunks[1:])
    edges = _edges(shapes, axes)
    count = dask.delayed(_count_chunk, pure=False)
    for (row, col), found in sorted(_touched(shapes, axes, cube.shape[1:], (height, width)).items()):
        top, left = row * height, col * width
        chunk = cube[:, top : top + height, left : left + width]
        found = np.array(sorted(found))
        near = [edges[z][(edges[z][:, 2] > top) & (edges[z][:, 0] < top + height)] for z in found]
        yield count(chunk, found, near, top, left, row_area[top : top + height])


def _touched(
    shapes: np.ndarray, axes: list[tuple[float, float]], shape: tuple[int, int], chunk: tuple[int, int]
) -> dict[tuple[int, int], set[int]]:
    """Return, per chunk (row, column), the zones with a part whose bounding box touches it."""
    parts, zone = shapely.get_parts(shapes, return_index=True)
    west, south, east, north = shapely.bounds(parts).T
    first, last = [], []
    for ends, (origin, step), length, size in zip(((south, north), (west, east)), axes, shape, chunk, strict=True):
        low, high = np.sort((np.array(ends) - origin) / step, axis=0)
        first.append(np.floor(low).clip(min=0).astype(int) // size)
        last.append(np.ceil(high).clip(max=length - 1).astype(int) // size)
    touched: dict[tuple[int, int], set[int]] = defaultdict(set)
    for z, top, left, bottom, right in zip(zone, *first, *last, strict=True):
        for here in product(range(top, bottom + 1), range(left, right + 1)):
            touched[here].add(z)
    return touched


def _count_chunk(
    chunk: xr.Variable, found: np.ndarray, edges: list[np.ndarray], top: int, left: int, row_area: np.ndarray
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Return where a chunk's counts belong (an open mesh of zones, years and classes that occur), counts and areas."""
    years, height, width = chunk.shape
    spans = [_spans(e, top, left, height, width) for e in edges]
    counts = np.zeros((years, len(found), 256), np.int64)  # in this order, numba's loops are much faster
    areas = np.zeros(counts.shape)
    first = np.cumsum([0, *map(len, spans)])
    if first[-1]:
        spans = np.concatenate(spans)
        # all years at once, because a chunk may hold several; a copy, because a variable keeps its loaded data
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
        elif here[0] > here[1]:  # by far the most frequent case, and faster than sorting
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
