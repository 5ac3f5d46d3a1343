"""Zonal counts against GDAL and NumPy on the source tiles, and against formulas."""

import re
from functools import cache

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from rasterio.features import rasterize
from rasterio.windows import Window, from_bounds
from xarray.groupers import BinGrouper

from workshop import repository, tiles, world, zonal

AROUND = tiles.Box(-111.0, 39.0, -109.0, 41.0)  # the four tiles meet in its middle
AREAS = gpd.read_file(tiles.DATA / "areas.geojson").set_index("name")


@pytest.fixture(scope="module")
def lulc(bucket):
    """Return a world of two years in which two degrees around the tiles' common corner are written."""
    repo = world.create(bucket.icechunk("zonal"), (2000, 2020))
    world.ingest(repo, world.UTAH_TILES, (2000, 2020), box=AROUND)
    return repository.read(repo)


def around(src, *bounds):
    """Return a window of whole pixels that contains the bounds."""
    window = from_bounds(*bounds, src.transform)
    return Window(int(window.col_off), int(window.row_off), int(window.width) + 3, int(window.height) + 3).intersection(
        Window(0, 0, src.width, src.height)
    )


def with_gdal(geometry, year, box=AROUND):
    """Return the counts of a polygon, rasterized by GDAL onto each source tile."""
    counts = np.zeros(256, np.int64)
    part = geometry.intersection(shapely.box(*box))
    for name in world.UTAH_TILES:
        with rasterio.open(tiles.tile_path(name, year)) as src:
            if part.intersection(shapely.box(*src.bounds)).area == 0:
                continue
            west, south, east, north = part.intersection(shapely.box(*src.bounds)).bounds
            window = around(src, west, south, east, north)
            inside = rasterize([part], (window.height, window.width), transform=src.window_transform(window))
            counts += np.bincount(src.read(1, window=window)[inside == 1], minlength=256)
    return counts


def blob(x, y, radius, corners, seed):
    """Return a ragged polygon, valid because it is star-shaped; its corners hit no pixel center."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    r = radius * rng.uniform(0.4, 1, corners)
    return shapely.Polygon(np.column_stack([x + r * np.cos(angle), y + r * np.sin(angle)]))


CORNER = (-110.0, 40.0)
POLYGONS = {
    "across the four tiles": blob(*CORNER, 0.7, 200, 1),
    "within a chunk": blob(-110.123, 39.873, 0.08, 40, 2),
    "triangle": shapely.Polygon([(-110.71234, 39.41234), (-109.31234, 39.11234), (-109.91234, 40.81234)]),
    "a hole": blob(*CORNER, 0.6, 150, 3).difference(blob(*CORNER, 0.2, 90, 4)),
    "parts": shapely.MultiPolygon([blob(-110.5, 39.5, 0.2, 60, 5), blob(-109.5, 40.5, 0.2, 60, 6)]),
    "a part in a hole": shapely.MultiPolygon(
        [blob(-110, 39.5, 0.3, 60, 7).difference(blob(-110, 39.5, 0.11, 9, 8)), blob(-110, 39.5, 0.03, 30, 9)]
    ),
    "sliver down": shapely.box(-110.30011, 39.2, -110.30001, 40.4),  # narrower than a pixel
    "slanting sliver": shapely.Polygon([(-110.90003, 39.1), (-109.1, 40.9), (-109.1, 40.9001)]),
    "between centers": shapely.box(-110.00012, 39.50001, -110.00002, 39.50009),
    "a single pixel": shapely.box(-110.00026, 39.50001, -110.00001, 39.50024),
    "at the edge of what is written": shapely.box(-111.0, 39.0, -110.9, 39.1),
    "comb": shapely.union_all([shapely.box(-110.9 + k / 50, 39.3, -110.89123 + k / 50, 39.9) for k in range(40)]).union(
        shapely.box(-110.95123, 39.27123, -110.08123, 39.31123)
    ),
}


def test_polygons_against_gdal(lulc):
    zones = gpd.GeoSeries(POLYGONS, crs="EPSG:4326")
    found = zonal.count_classes(lulc, zones)
    assert found.pixels.dims == ("zone", "year", "class") and found.pixels.dtype == np.int64
    for name, geometry in POLYGONS.items():
        for year in (2000, 2020):
            np.testing.assert_array_equal(found.pixels.sel(zone=name, year=year), with_gdal(geometry, year), name)
    whole = found.pixels.sum("class").sel(year=2020)
    assert whole.sel(zone="between centers") == 0 and whole.sel(zone="a single pixel") == 1
    assert whole.sel(zone="sliver down") in (0, 4800)
    assert (found.pixels.sum(["zone", "year"]) > 0).sum() > 5


def test_areas_are_counts_times_the_area_of_each_row(lulc):
    zone = POLYGONS["triangle"]
    found = zonal.count_classes(lulc, gpd.GeoSeries({"t": zone}, crs="EPSG:4326")).sel(zone="t")
    geod = pyproj.Geod(ellps="WGS84")
    expected = abs(geod.geometry_area_perimeter(shapely.segmentize(zone, 0.001))[0]) / 1e6
    assert abs(float(found.area.sel(year=2020).sum()) / expected - 1) < 1e-4  # the ragged border
    # row by row, with the formula
    with rasterio.open(tiles.tile_path("40N_120W", 2020)) as src:
        half = zone.intersection(shapely.box(*src.bounds))
        window = around(src, *half.bounds)
        inside = rasterize([half], (window.height, window.width), transform=src.window_transform(window)) == 1
        pixels = src.read(1, window=window)
        top = src.window_transform(window).f
    area = zonal.pixel_area(top - (np.arange(len(pixels)) + 0.5) * tiles.RESOLUTION, tiles.RESOLUTION, tiles.RESOLUTION)
    expected = np.bincount(pixels[inside], np.broadcast_to(area[:, None], pixels.shape)[inside], 256)
    part = zonal.count_classes(lulc, gpd.GeoSeries([half], crs="EPSG:4326")).area[0].sel(year=2020)
    np.testing.assert_allclose(part, expected, rtol=1e-9)


def test_the_area_of_a_pixel():
    """Compare with the geodesic area of a narrow box and with the area of the whole ellipsoid."""
    geod = pyproj.Geod(ellps="WGS84")
    for latitude in (-59.9, 0.0, 41.0, 79.9):
        box = shapely.box(10, latitude - 0.0005, 10.001, latitude + 0.0005)
        expected = abs(geod.geometry_area_perimeter(box)[0]) / 1e6
        np.testing.assert_allclose(zonal.pixel_area(np.array([latitude]), 0.001, 0.001), expected, rtol=1e-6)
    rows = zonal.pixel_area(np.arange(-89.5, 90), 1, 1)
    np.testing.assert_allclose(rows.sum() * 360, 510_065_621.72, rtol=1e-9)  # WGS 84, NIMA TR8350.2, in km²
    np.testing.assert_array_equal(zonal.pixel_area(np.array([41.0]), -1, 1), zonal.pixel_area(np.array([41.0]), 1, 1))


def small(pixels, years=(2020,)):
    """Return a small cube in memory with pixels of one degree; the first center is at (0.5, height - 0.5)."""
    _, height, width = pixels.shape
    return xr.DataArray(
        pixels,
        dims=("year", "y", "x"),
        coords={"year": list(years), "y": height - 0.5 - np.arange(height), "x": np.arange(width) + 0.5},
    ).rio.write_crs("EPSG:4326")


def test_neighbors_share_no_pixel_and_lose_none():
    """All corners are exactly on pixel centers, the hardest case. Each pixel belongs to one of its neighbors."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, 40, 60), dtype=np.uint8)
    corners = np.column_stack([rng.integers(2, 58, 30), rng.integers(2, 38, 30)]) + 0.5
    triangles = shapely.delaunay_triangles(shapely.MultiPoint(corners))
    zones = gpd.GeoSeries(list(triangles.geoms), crs="EPSG:4326")
    whole = gpd.GeoSeries([shapely.convex_hull(triangles)], crs="EPSG:4326")
    parts = zonal.count_classes(small(pixels), zones).pixels.sum("zone")
    hull = zonal.count_classes(small(pixels), whole).pixels[0]
    assert len(zones) > 30
    assert abs(int((parts - hull).sum())) <= 1  # a hull's collinear corners are dropped
    assert (parts <= np.bincount(pixels.ravel(), minlength=256)).all()


def test_a_center_on_the_border():
    pixels = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    zone = gpd.GeoSeries([shapely.box(0.5, 0.5, 2.5, 2.5)], crs="EPSG:4326")  # all four sides on centers
    inside = np.flatnonzero(zonal.count_classes(small(pixels), zone).pixels[0, 0])
    assert inside.tolist() == [0, 1, 3, 4]  # with the north and the west border, without the south and the east one


def test_outside_the_cube_nothing_is_counted():
    pixels = np.full((1, 4, 4), 7, np.uint8)
    zones = {
        "beside": shapely.box(4, 0, 5, 4),
        "half": shapely.box(-10, -10, 2, 2),
        "all": shapely.box(-10, -10, 20, 20),
    }
    found = zonal.count_classes(small(pixels), gpd.GeoSeries(zones, crs="EPSG:4326")).pixels.sel({"class": 7})[:, 0]
    assert found.values.tolist() == [0, 4, 16]


def test_without_years_upside_down_and_transposed():
    pixels = np.random.default_rng(2).integers(0, 9, (1, 30, 40), dtype=np.uint8)
    zones = gpd.GeoSeries([blob(20, 15, 12, 30, 3)], crs="EPSG:4326")
    found = zonal.count_classes(small(pixels), zones)
    flat = zonal.count_classes(small(pixels)[0], zones)
    assert flat.pixels.dims == ("zone", "class")
    np.testing.assert_array_equal(flat.pixels, found.pixels[:, 0])
    for other in (small(pixels)[:, ::-1], small(pixels).transpose("x", "y", "year")):
        np.testing.assert_array_equal(zonal.count_classes(other, zones).pixels, found.pixels)


def test_one_row_of_known_size(lulc):
    north = float(lulc.y[159_500]) + tiles.RESOLUTION / 2
    row = tiles.select_box(lulc, tiles.Box(-110.5, north - tiles.RESOLUTION, -109.5, north))
    zones = gpd.GeoSeries([POLYGONS["triangle"]], crs="EPSG:4326")
    xr.testing.assert_identical(zonal.count_classes(row, zones), zonal.count_classes(row.load(), zones))
    three = lulc.isel(y=[159_499, 159_500, 159_501]).sel(x=row.x)
    expected = zonal.count_classes(three, zones).pixels - zonal.count_classes(three[:, ::2], zones).pixels
    np.testing.assert_array_equal(zonal.count_classes(row, zones).pixels, expected)


# Around the globe: against GDAL on a raster that goes around three times


STEP = 0.5
MAP = np.random.default_rng(5).integers(0, 256, (360, 720), dtype=np.uint8)  # of the globe from 180 W, a pixel is STEP


def globe(west=-180, step=STEP):
    """Return a cube of the globe whose first column starts at this longitude."""
    pixels = np.roll(MAP, -round((west + 180) / STEP), axis=1)[:: round(step / STEP), :: round(step / STEP)]
    y, x = (np.arange(size) * step + STEP / 2 for size in pixels.shape)
    return xr.DataArray(pixels, dims=("y", "x"), coords={"y": 90 - y, "x": west + x}).rio.write_crs("EPSG:4326")


@cache
def burnt(shape, step=STEP):
    """Return which pixels of the map are in a polygon, in any convention of longitudes."""
    height, width = round(180 / step), round(360 / step)
    # the centers are those of the finest grid, thinned or not
    place = rasterio.transform.from_origin(-540 + (STEP - step) / 2, 90 - (STEP - step) / 2, step, step)
    inside = rasterize([shape], (height, 3 * width), transform=place)
    return inside.reshape(height, 3, width).any(axis=1)


AROUND_THE_GLOBE = {
    "far from its edge": blob(-110, 40, 20, 50, 1),
    "over the antimeridian, eastward": blob(179, 10, 30, 50, 2),
    "over the antimeridian, westward": blob(-181, 10, 30, 50, 3),
    "in two parts, as RFC 7946 wants": shapely.MultiPolygon(
        [shapely.box(170, 0, 180, 20), shapely.box(-180, 0, -170, 9)]
    ),
    "beyond the antimeridian": blob(250, 40, 20, 50, 4),
    "over Greenwich, from 350 to 370": blob(360, -30, 15, 50, 5),
    "the same land twice": shapely.MultiPolygon([shapely.box(170, 0, 190, 20), shapely.box(-190, 10, -160, 30)]),
    "more than the globe": shapely.box(-200.1, -20.1, 200.1, 10.1),
    "a hole over the antimeridian": blob(180, 50, 30, 50, 6).difference(shapely.box(175.1, 45.1, 185.1, 55.1)),
    "a band": shapely.box(-180, -40.1, 180, 70.1),
    "a band from 0 to 360": shapely.box(0, -40.1, 360, 70.1),
    "a slanting band": shapely.Polygon([(-180, 0.1), (180, 10.1), (180, 20.1), (-180, 10.1)]),
    "a cap around a pole": shapely.Polygon(
        [(-180, -90), (180, -90), (180, -70.1), (90, -80.1), (0, -60.1), (-180, -70.1)]
    ),
    "half the globe": shapely.box(-180, -90, 0, 90),
    "wide, with corners": shapely.segmentize(shapely.box(-120.1, 0.1, 100.1, 20.1), 1),
}


@pytest.mark.parametrize("west", [-180, 0, -30, -360])
def test_zones_are_counted_wherever_their_longitudes_begin(west):
    zones = gpd.GeoSeries(AROUND_THE_GLOBE, crs=4326)
    for cube in (globe(west), globe(west)[::-1], globe(west)[:, ::-1]):
        found = zonal.count_classes(cube, zones)
        for name, shape in AROUND_THE_GLOBE.items():
            expected = np.bincount(MAP[burnt(shape)], minlength=256)
            np.testing.assert_array_equal(found.pixels.sel(zone=name), expected, name)
    thinned = zonal.count_classes(globe(west)[::3, ::3], zones)
    part = globe(west)[:, 100:200]
    columns = np.isin(np.mod(globe().x, 360), np.mod(part.x, 360))
    reached = [name for name, shape in AROUND_THE_GLOBE.items() if burnt(shape)[:, columns].any()]
    in_part = zonal.count_classes(part, zones[reached])
    for name, shape in AROUND_THE_GLOBE.items():
        if west == -180:  # only there are the thinned columns those of the map
            expected = np.bincount(MAP[::3, ::3][burnt(shape, 3 * STEP)], minlength=256)
            np.testing.assert_array_equal(thinned.pixels.sel(zone=name), expected, name)
        if name in reached:
            expected = np.bincount(MAP[:, columns][burnt(shape)[:, columns]], minlength=256)
            np.testing.assert_array_equal(in_part.pixels.sel(zone=name), expected, name)


def test_areas_around_the_globe():
    """A band has the area of its rows, in any order of corners. The whole globe has the ellipsoid's area."""
    zones = gpd.GeoSeries([shapely.box(170, 0, 190, 20), shapely.box(-180, -90, 180, 90)], crs=4326)
    centers_on_poles = xr.DataArray(
        np.zeros((181, 360), np.uint8), dims=("y", "x"), coords={"y": 90.0 - np.arange(181), "x": np.arange(360) + 0.5}
    ).rio.write_crs("EPSG:4326")
    for cube, step in ((globe(), 0.5), (globe(0)[::-1], 0.5), (globe()[::2, 1::2], 1)):
        rows = cube.y.values[(cube.y > 0) & (cube.y < 20)]
        expected = zonal.pixel_area(rows, step, step).sum() * 20 / step
        np.testing.assert_allclose(zonal.count_classes(cube, zones[:1]).area.sum(), expected, rtol=1e-9)
    zones = gpd.GeoSeries([shapely.box(-180, -91, 180, 91)], crs=4326)
    for cube in (globe(), centers_on_poles):
        np.testing.assert_allclose(zonal.count_classes(cube, zones).area.sum(), 510_065_621.72, rtol=1e-9)


def test_axes_stored_in_single_precision():
    """Compare with GDAL on the intended grid."""
    pixels = np.random.default_rng(7).integers(0, 256, (400, 500), dtype=np.uint8)
    x = (-112.5 + (np.arange(500) + 0.5) * tiles.RESOLUTION).astype(np.float32)
    y = (41 - (np.arange(400) + 0.5) * tiles.RESOLUTION).astype(np.float32)
    cube = xr.DataArray(pixels, dims=("y", "x"), coords={"y": y, "x": x}).rio.write_crs(4326)
    place = rasterio.transform.from_origin(-112.5, 41, tiles.RESOLUTION, tiles.RESOLUTION)
    for shape in (shapely.box(-112.5, 40.925, -112.4, 41), shapely.box(-112.46, 40.9, -112.37, 40.97)):
        expected = np.bincount(pixels[rasterize([shape], pixels.shape, transform=place) == 1], minlength=256)
        np.testing.assert_array_equal(zonal.count_classes(cube, zone(shape)).pixels[0], expected)


# The same, however the cube is stored, and each chunk once. A cluster counts in test_virtual.py.


def test_a_zone_that_vanishes_among_the_pixels_is_empty(lulc):
    """The zone is so flat that all its corners are exactly on one row."""
    flat = shapely.Polygon([(-110, 14.5), (-109.9, 14.5), (-109.95, np.nextafter(14.5, 40))])
    assert flat.is_valid
    zones = gpd.GeoSeries([flat, POLYGONS["triangle"]], crs="EPSG:4326")
    assert zonal.count_classes(lulc, zones).pixels[0].sum() == 0


def test_dask_and_memory_agree(lulc):
    part = tiles.select_box(lulc, tiles.Box(-110.5, 39.5, -109.5, 40.5))
    zones = gpd.GeoSeries(POLYGONS, crs="EPSG:4326").drop("at the edge of what is written")
    lazy = zonal.count_classes(part, zones)
    xr.testing.assert_allclose(lazy, zonal.count_classes(part.chunk({"year": 1, "y": 700, "x": 900}), zones))
    xr.testing.assert_identical(lazy, zonal.count_classes(part.load(), zones))


def stored(depth):
    """Return pixels of three years, the same in a store with chunks of 100 x 100, and the list of chunks read."""
    read = []

    class Store(zarr.storage.MemoryStore):
        async def get(self, key, *args, **kwargs):
            read.append(key)
            return await super().get(key, *args, **kwargs)

    store, step = Store(), 0.01
    pixels = np.random.default_rng(3).integers(0, 9, (3, 800, 800), dtype=np.uint8)
    coords = {"year": [2000, 2010, 2020], "y": 8 - (np.arange(800) + 0.5) * step, "x": (np.arange(800) + 0.5) * step}
    data = xr.DataArray(pixels, dims=("year", "y", "x"), coords=coords).rio.write_crs(4326).rename("lulc")
    encoding = {"lulc": {"chunks": (depth, 100, 100), "grid_mapping": "spatial_ref"}}
    data.to_dataset().to_zarr(store, consolidated=False, encoding=encoding)
    opened = xr.open_zarr(store, consolidated=False, chunks=None, decode_coords="all")["lulc"]
    read.clear()
    return data, opened, read


@pytest.mark.parametrize("depth", [1, 2])
def test_each_chunk_is_read_once(depth):
    """A chunk is read once, even for many zones and years. Chunks that no part of a zone touches are not read."""
    data, opened, read = stored(depth)
    zones = [blob(2, 6, 1.5, 20, k) for k in range(20)]
    zones += [shapely.MultiPolygon([shapely.box(5.1, 1.1, 5.2, 1.2), shapely.box(7.1, 7.1, 7.2, 7.2)])]
    found = zonal.count_classes(opened, gpd.GeoSeries(zones, crs=4326))
    chunks = [tuple(map(int, key.split("/")[2:])) for key in read if key.startswith("lulc/c/")]
    assert len(chunks) == len(set(chunks))
    touched = {(row, col) for row in range(8) for col in range(8) if row <= 3 >= col} | {(6, 5), (0, 7)}
    assert {(6, 5), (0, 7)} < {chunk[1:] for chunk in chunks} <= touched
    assert len(chunks) == len({chunk[1:] for chunk in chunks}) * -(-3 // depth)
    np.testing.assert_array_equal(found.pixels, zonal.count_classes(data, gpd.GeoSeries(zones, crs=4326)).pixels)


def test_parts_far_from_each_other_do_not_drag_in_what_lies_between(lulc, monkeypatch):
    far = [shapely.box(-179.9, 51, -179.7, 51.2), shapely.box(179, 51, 179.2, 51.2), POLYGONS["triangle"]]
    zones = gpd.GeoSeries([shapely.MultiPolygon(far), POLYGONS["triangle"]], crs=4326)
    counted, count = [], zonal._count_chunk
    monkeypatch.setattr(zonal, "_count_chunk", lambda *args: counted.append(args[3:5]) or count(*args))
    found = zonal.count_classes(lulc, zones).pixels.sel({"class": slice(0, 254)})
    assert len(counted) < 100  # of 560 x 1440
    np.testing.assert_array_equal(found[0], found[1])


def test_a_center_on_a_border_is_decided_the_same_way_everywhere(lulc):
    """Boxes with corners on pixel centers include their north and west borders, and not the south and east ones."""
    rows, cols = slice(155_000, 165_000), slice(275_000, 285_000)
    y, x = lulc.y.values, lulc.x.values
    rng = np.random.default_rng(1)
    corners = rng.integers((rows.start, cols.start), (rows.stop - 9, cols.stop - 9), (60, 2))
    zones = gpd.GeoSeries([shapely.box(x[j], y[i + 3], x[j + 3], y[i]) for i, j in corners], crs=4326)
    whole = zonal.count_classes(lulc, zones).pixels
    assert (whole.sum("class") == 9).all()
    for part in (lulc[:, rows, cols], lulc[:, rows.start + 1 : rows.stop, cols.start + 7 : cols.stop]):
        keep = [k for k, (i, j) in enumerate(corners) if i > rows.start and j >= cols.start + 7]
        found = zonal.count_classes(part, zones.iloc[keep]).pixels
        np.testing.assert_array_equal(found, whole[keep])


# What is refused


def zone(geometry, crs="EPSG:4326"):
    return gpd.GeoSeries({"Bear": geometry}, crs=crs)


BOX = shapely.box(0, 0, 2, 2)
BOW_TIE = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
REFUSED = {
    "empty": (
        lambda c: (c, zone(shapely.Polygon())),
        "zone 'Bear': expected a polygon .* found POLYGON EMPTY; zones.drop",
    ),
    "none": (lambda c: (c, zone(None)), "found None"),
    "line": (lambda c: (c, zone(BOX.exterior)), "found LINEARRING"),
    "twice": (lambda c: (c, gpd.GeoSeries([BOX, BOX], index=["Bear", "Bear"], crs=4326)), "'Bear' more than once"),
    "float": (lambda c: (c.astype(float), zone(BOX)), "as uint8, found float64"),
    "meters": (lambda c: (c.rio.write_crs("EPSG:32612"), zone(BOX)), "expected the cube in EPSG:4326"),
    "cube without CRS": (lambda c: (c.drop_vars("spatial_ref"), zone(BOX)), "expected the cube in EPSG:4326"),
    "uneven": (lambda c: (c[:, :, [0, 1, 3]], zone(BOX)), "even steps along x"),
    "one row": (lambda c: (c[:, :1], zone(BOX)), "expected two pixels along y, or one of known size"),
    "bands": (lambda c: (c.expand_dims("band"), zone(BOX)), "permuted list"),
    "a column twice": (
        lambda c: (globe().pad(x=(0, 1), mode="wrap").assign_coords(x=np.arange(721) / 2 - 179.75), zone(BOX)),
        "at most 360",
    ),
    "beyond a pole": (lambda c: (c.assign_coords(y=c.y + 89), zone(BOX)), "latitudes of at most 90"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_give_wrong_numbers_is_refused(make, message):
    with pytest.raises((zonal.ZonalError, tiles.TileError, ValueError), match=message):
        zonal.count_classes(*make(small(np.zeros((1, 4, 4), np.uint8))))


def advised(cube, zones, what):
    """Run the code that the error message gives before the words ``what``; return the new zones or cube."""
    with pytest.raises(zonal.ZonalError) as error:
        zonal.count_classes(cube, zones)
    code = re.split(r"(?:[;,:]|or|and) (?=zones|lulc)", str(error.value).split(f" {what}")[0])[-1]
    names = {"zones": zones.copy(), "lulc": cube, "shapely": shapely}
    if " = " not in code:
        return eval(code, names)
    exec(code, names)
    return names["zones"]


FRAMES = [lambda shape: zone(shape), lambda shape: gpd.GeoDataFrame({"shape": zone(shape)}, geometry="shape")]


@pytest.mark.parametrize("frame", FRAMES, ids=["GeoSeries", "GeoDataFrame"])
@pytest.mark.parametrize(
    "shape",
    [
        shapely.Polygon([(170, 0), (-170, 0), (-170, 20), (170, 20)]),
        shapely.Polygon([(170, 10), (180, 5), (-180, 5), (-170, 10), (-180, 15), (180, 15)]),
        shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.Polygon([(177.1, 50), (-177.1, 50.1), (-179.1, 60)])]),
        shapely.Polygon(
            [(160, 0), (-160, 0), (-160, 30), (160, 30)], [[(170.1, 10), (-170.1, 10), (-170.1, 20), (170.1, 20)]]
        ),
    ],
)
def test_a_zone_that_jumps_over_the_antimeridian_is_refused_and_counted_as_advised(shape, frame):
    rings = [[(x % 360, y) for x, y in ring.coords] for ring in shapely.get_rings(shapely.get_parts(shape))]
    inside = np.logical_xor.reduce([burnt(shapely.Polygon(ring)) for ring in rings])
    found = zonal.count_classes(globe(), advised(globe(), frame(shape), "adds 360"))
    np.testing.assert_array_equal(found.pixels[0], np.bincount(MAP[inside], minlength=256))


def test_a_zone_that_really_is_wide_is_refused_and_counted_as_advised():
    for shape in (shapely.box(-120.1, 0.1, 100.1, 20.1), shapely.Polygon([(-180, 0.1), (180, 0.1), (0, 80)])):
        found = zonal.count_classes(globe(), advised(globe(), zone(shape), "gives it more corners"))
        np.testing.assert_array_equal(found.pixels[0], np.bincount(MAP[burnt(shape)], minlength=256))


@pytest.mark.parametrize(
    ("shape", "area"),
    {
        "spike": (shapely.Polygon([(0, 0), (9, 0), (9, 5), (12, 5), (9, 5), (9, 9), (0, 9)]), 81),
        "bow tie": (BOW_TIE, 2),
        "parts that overlap": (shapely.MultiPolygon([shapely.box(0, 0, 20, 20), shapely.box(10, 10, 30, 30)]), 700),
        "collection": (shapely.GeometryCollection([BOX, BOX.exterior, shapely.Point(9, 9)]), 4),
    }.values(),
)
def test_an_invalid_zone_is_counted_after_the_repair_that_is_advised(shape, area):
    shape = shapely.affinity.skew(shape, 3.3, 2.1, origin=(0.1, 0.2))  # no center of a pixel on its diagonals
    zones = advised(globe(), zone(shape), "repairs zones")
    repaired = zones.iloc[0]
    shrunk = 1 - np.tan(np.radians(3.3)) * np.tan(np.radians(2.1))
    assert abs(repaired.area / (area * shrunk) - 1) < 1e-9
    found = zonal.count_classes(globe(), zones)
    np.testing.assert_array_equal(found.pixels[0], np.bincount(MAP[burnt(repaired)], minlength=256))


def test_a_zone_without_area_is_left_out_as_advised():
    zones = gpd.GeoSeries({7: shapely.Polygon([(0, 0), (1, 1), (2, 2)]), 8: BOX}, crs=4326)
    zones = advised(globe(), zones, "repairs zones")
    assert zonal.count_classes(globe(), advised(globe(), zones, "leaves it out")).zone.values.tolist() == [8]


UTAH = AREAS.geometry["Utah"]
REGION = globe().sel(x=slice(-120, -100), y=slice(50, 30))


@pytest.mark.parametrize("cube", [globe(), globe(0), REGION], ids=["globe", "from 0 to 360", "region"])
def test_coordinates_that_are_swapped_are_found_and_swapped_as_advised(cube):
    zones = advised(cube, zone(shapely.transform(UTAH, lambda xy: xy[:, ::-1])), "swaps them back")
    assert zones.iloc[0].equals(UTAH)
    found = zonal.count_classes(cube, zones)
    np.testing.assert_array_equal(found.pixels[0], np.bincount(MAP[burnt(UTAH)], minlength=256))


def test_swapped_coordinates_that_touch_the_cube_beyond_a_pole_are_found():
    with pytest.raises(zonal.ZonalError, match="perhaps swapped"):
        zonal.count_classes(globe(), zone(shapely.box(40, -95, 45, -85)))


def test_meters_that_pretend_to_be_degrees_are_found_and_corrected_as_advised():
    crs = "EPSG:32612"
    zones = zone(shapely.segmentize(UTAH, 0.01)).to_crs(crs).set_crs("EPSG:4326", allow_override=True)
    with pytest.raises(zonal.ZonalError, match=r"perhaps in meters.*read_file"):
        zonal.count_classes(globe(), zones)
    found = zonal.count_classes(globe(), zones.set_crs(crs, allow_override=True).to_crs("EPSG:4326"))
    np.testing.assert_array_equal(found.pixels[0], np.bincount(MAP[burnt(UTAH)], minlength=256))


def test_zones_far_from_the_cube_are_refused_and_left_out_as_advised():
    zones = gpd.GeoSeries(
        {"far": shapely.box(50, 50, 51, 51), "Utah": UTAH, "farther": shapely.box(8, -8, 9, 9)}, crs=4326
    )
    with pytest.raises(zonal.ZonalError, match=r"'far'.*longitudes -120 to -100.*found longitudes 50 to 51"):
        zonal.count_classes(REGION, zones)
    expected = np.bincount(MAP[burnt(UTAH)], minlength=256)
    one_less = advised(REGION, zones, "leaves it out")
    assert list(one_less.index) == ["Utah", "farther"]
    for fewer in (advised(REGION, one_less, "leaves it out"), advised(REGION, zones, "leaves out all")):
        np.testing.assert_array_equal(zonal.count_classes(REGION, fewer).pixels, expected[None])
    zones = advised(REGION, zone(shapely.box(-110, 60, -105, 70)), "leaves it out")  # beside it, to the north
    assert zones.empty


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_coordinates_that_are_no_numbers_are_refused(number):
    with np.errstate(invalid="ignore"):
        broken = shapely.Polygon([(0, 0), (number, 2), (2, 0), (0, 0)])
    zones = gpd.GeoSeries({"Bear": broken, "box": BOX}, crs=4326)
    assert list(advised(globe(), zones, "leaves it out").index) == ["box"]


SPELLINGS = {
    "shapefile": 'GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137.0,298.257223563]],'
    'PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]]',
    "longitude first": "OGC:CRS84",
    "PROJ": "+proj=longlat +datum=WGS84 +no_defs",
    "with heights": "EPSG:4326+5773",
}


@pytest.mark.parametrize("crs", SPELLINGS.values(), ids=SPELLINGS)
def test_the_same_crs_is_accepted_however_it_is_written(crs):
    expected = np.bincount(MAP[burnt(UTAH)], minlength=256)
    np.testing.assert_array_equal(zonal.count_classes(globe(), zone(UTAH, crs)).pixels[0], expected)
    np.testing.assert_array_equal(zonal.count_classes(globe().rio.write_crs(crs), zone(UTAH)).pixels[0], expected)


@pytest.mark.parametrize("crs", ["EPSG:4269", "EPSG:32612", "+proj=longlat +datum=WGS84 +pm=paris"])
def test_another_crs_is_refused_and_moved_as_advised(crs):
    moved = zone(shapely.segmentize(UTAH, 0.01)).to_crs(crs)
    found = zonal.count_classes(globe(), advised(globe(), moved, "reprojects them"))
    np.testing.assert_array_equal(found.pixels[0], np.bincount(MAP[burnt(UTAH)], minlength=256))


def test_zones_and_cubes_without_a_crs_get_one_as_advised():
    expected = np.bincount(MAP[burnt(UTAH)], minlength=256)
    zones = advised(globe(), zone(UTAH, None), "declares it")
    np.testing.assert_array_equal(zonal.count_classes(globe(), zones).pixels[0], expected)
    cube = globe().drop_vars("spatial_ref")
    cube = advised(cube, zones, "declares it")
    np.testing.assert_array_equal(zonal.count_classes(cube, zones).pixels[0], expected)


def test_a_cube_in_meters_is_moved_as_advised():
    cube = small(np.full((1, 20, 20), 7, np.uint8)).rio.reproject("EPSG:3857", nodata=255)
    moved = advised(cube, zone(shapely.box(5, 5, 9, 9)), "reprojects it")
    found = zonal.count_classes(moved, zone(shapely.box(5, 5, 9, 9)))
    geod = pyproj.Geod(ellps="WGS84")
    expected = abs(geod.geometry_area_perimeter(shapely.segmentize(shapely.box(5, 5, 9, 9), 0.01))[0]) / 1e6
    assert abs(float(found.area.sel({"class": 7}).sum()) / expected - 1) < 0.1  # some twenty pixels


def test_no_zones_no_counts():
    assert zonal.count_classes(small(np.zeros((1, 4, 4), np.uint8)), zone(BOX)[:0]).pixels.shape == (0, 1, 256)


# Traps of the libraries, which lesson 08 shows


def test_numbagg_still_counts_modulo_256():
    """When this fails, upstream is fixed, and the section of lesson 08 can go."""
    pixels = xr.DataArray(np.zeros((40, 40), np.uint8), dims=("y", "x"), name="lulc")
    groups = pixels.assign_coords(lulc=pixels).groupby(lulc=BinGrouper(bins=[-1, 127, 255]))
    assert int(groups.count()[0]) == 1600 % 256  # flox prefers numbagg where it is installed
    assert int(groups.count(engine="numpy")[0]) == 1600


# The workshop's own areas


def test_the_areas_of_the_workshop():
    assert AREAS.is_valid.all() and AREAS.index.is_unique
    assert AREAS.kind.value_counts().to_dict() == {"watershed": 6, "rectangle": 1, "state": 1}
    assert shapely.get_num_coordinates(AREAS.geometry["Utah"]) == 7
    assert tuple(AREAS.geometry["Salt Lake window"].bounds) == tuple(tiles.TEACHING_WINDOW)
    sheds = AREAS.geometry[AREAS.kind == "watershed"]
    assert len(sheds["Juniper Creek"].interiors) == 1 and sheds["Lakeside"].geom_type == "MultiPolygon"
    for k, a in enumerate(sheds):
        for b in sheds.iloc[:k]:
            assert a.intersection(b).area < 1e-12  # neighbors, not rivals
