"""Zonal counts against GDAL and NumPy on the source tiles, and against formulas."""

import json

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
AREAS = gpd.GeoDataFrame.from_features(
    json.loads((tiles.DATA / "areas.geojson").read_text()), crs="EPSG:4326"
).set_index("name")


@pytest.fixture(scope="module")
def lulc(bucket):
    """Return a world of two years in which two degrees around the tiles' common corner are written."""
    repo = world.create(bucket.icechunk("zonal"), (2000, 2020))
    world.ingest(repo, world.UTAH_TILES, (2000, 2020), box=AROUND)
    return repository.read(repo)


def around(src, *bounds):
    """Return a window of whole pixels that holds the bounds."""
    window = from_bounds(*bounds, src.transform)
    return Window(int(window.col_off), int(window.row_off), int(window.width) + 3, int(window.height) + 3).intersection(
        Window(0, 0, src.width, src.height)
    )


def with_gdal(geometry, year, box=AROUND):
    """Return the counts of a polygon, burnt with GDAL onto each source tile in turn."""
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
    """Return a ragged polygon, valid because it is star-shaped; its corners hit no pixel centre."""
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
    "sliver across": shapely.box(-110.9, 39.70011, -109.1, 39.70018),
    "slanting sliver": shapely.Polygon([(-110.90003, 39.1), (-109.1, 40.9), (-109.1, 40.9001)]),
    "between centres": shapely.box(-110.00012, 39.50001, -110.00002, 39.50009),
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
    assert whole.sel(zone="between centres") == 0 and whole.sel(zone="a single pixel") == 1
    assert whole.sel(zone="sliver down") in (0, 4800)
    assert (found.pixels.sum(["zone", "year"]) > 0).sum() > 5


def test_a_zone_that_vanishes_among_the_pixels_is_empty(lulc):
    """So flat that all its corners lie on one row, to the last digit."""
    flat = shapely.Polygon([(-110, 14.5), (-109.9, 14.5), (-109.95, np.nextafter(14.5, 40))])
    assert flat.is_valid
    zones = gpd.GeoSeries([flat, POLYGONS["triangle"]], crs="EPSG:4326")
    assert zonal.count_classes(lulc, zones).pixels[0].sum() == 0


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
    """Against the geodesic area of a narrow box, and the area of the whole ellipsoid."""
    geod = pyproj.Geod(ellps="WGS84")
    for latitude in (-59.9, 0.0, 41.0, 79.9):
        box = shapely.box(10, latitude - 0.0005, 10.001, latitude + 0.0005)
        expected = abs(geod.geometry_area_perimeter(box)[0]) / 1e6
        np.testing.assert_allclose(zonal.pixel_area(np.array([latitude]), 0.001, 0.001), expected, rtol=1e-6)
    rows = zonal.pixel_area(np.arange(-89.5, 90), 1, 1)
    np.testing.assert_allclose(rows.sum() * 360, 510_065_621.72, rtol=1e-9)  # WGS 84, NIMA TR8350.2, in km²
    np.testing.assert_array_equal(zonal.pixel_area(np.array([41.0]), -1, 1), zonal.pixel_area(np.array([41.0]), 1, 1))


def small(pixels, years=(2020,)):
    """Return a little cube in memory: a pixel is a degree, the first centre lies at (0.5, height - 0.5)."""
    _, height, width = pixels.shape
    return xr.DataArray(
        pixels,
        dims=("year", "y", "x"),
        coords={"year": list(years), "y": height - 0.5 - np.arange(height), "x": np.arange(width) + 0.5},
    ).rio.write_crs("EPSG:4326")


def test_neighbours_share_no_pixel_and_lose_none():
    """All corners lie exactly on pixel centres, the hardest case; a pixel belongs to one of its neighbours."""
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


def test_a_centre_on_the_border():
    pixels = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    zone = gpd.GeoSeries([shapely.box(0.5, 0.5, 2.5, 2.5)], crs="EPSG:4326")  # all four sides on centres
    inside = np.flatnonzero(zonal.count_classes(small(pixels), zone).pixels[0, 0])
    assert inside.tolist() == [0, 1, 3, 4]  # with the north and the west border, without the south and the east one


def test_outside_the_cube_nothing_is_counted():
    pixels = np.full((1, 4, 4), 7, np.uint8)
    zones = {
        "far": shapely.box(50, 50, 51, 51),
        "beside": shapely.box(4, 0, 5, 4),
        "half": shapely.box(-10, -10, 2, 2),
        "all": shapely.box(-10, -10, 20, 20),
    }
    found = zonal.count_classes(small(pixels), gpd.GeoSeries(zones, crs="EPSG:4326")).pixels.sel({"class": 7})[:, 0]
    assert found.values.tolist() == [0, 0, 4, 16]


def test_without_years_upside_down_and_transposed():
    pixels = np.random.default_rng(2).integers(0, 9, (1, 30, 40), dtype=np.uint8)
    zones = gpd.GeoSeries([blob(20, 15, 12, 30, 3)], crs="EPSG:4326")
    found = zonal.count_classes(small(pixels), zones)
    flat = zonal.count_classes(small(pixels)[0], zones)
    assert flat.pixels.dims == ("zone", "class")
    np.testing.assert_array_equal(flat.pixels, found.pixels[:, 0])
    for other in (small(pixels)[:, ::-1], small(pixels).transpose("x", "y", "year")):
        np.testing.assert_array_equal(zonal.count_classes(other, zones).pixels, found.pixels)


# The same, however the cube is stored, and each chunk once. A cluster counts in test_virtual.py.


def test_dask_and_memory_agree(lulc):
    part = tiles.select_box(lulc, tiles.Box(-110.5, 39.5, -109.5, 40.5))
    zones = gpd.GeoSeries(POLYGONS, crs="EPSG:4326")
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
    """However many zones touch it, and where it holds several years; and none that no part of a zone touches."""
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


def test_a_centre_on_a_border_is_decided_the_same_way_everywhere(lulc):
    """Boxes whose corners are centres of the world's grid hold what lies south and east of their north-west corner."""
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
    "no CRS": (lambda c: (c, zone(BOX, None)), "expected zones with a CRS, found none"),
    "another CRS": (lambda c: (c, zone(BOX, "EPSG:32612")), "found EPSG:32612; zones.to_crs"),
    "empty": (lambda c: (c, zone(shapely.Polygon())), "zone 'Bear': expected a valid polygon with an area"),
    "none": (lambda c: (c, zone(None)), "found None in None"),
    "line": (lambda c: (c, zone(BOX.exterior)), "in LinearRing"),
    "bow tie": (
        lambda c: (c, zone(BOW_TIE)),
        r"'Bear': .*found Self-intersection\[1 1\] in Polygon; shapely.make_valid",
    ),
    "twice": (lambda c: (c, gpd.GeoSeries([BOX, BOX], index=["Bear", "Bear"], crs=4326)), "'Bear' more than once"),
    "float": (lambda c: (c.astype(float), zone(BOX)), "as uint8, found float64"),
    "metres": (lambda c: (c.rio.write_crs("EPSG:32612"), zone(BOX)), "expected the cube in EPSG:4326"),
    "cube without CRS": (lambda c: (c.drop_vars("spatial_ref"), zone(BOX)), "expected the cube in EPSG:4326"),
    "uneven": (lambda c: (c[:, :, [0, 1, 3]], zone(BOX)), "evenly spaced pixels along x"),
    "one row": (lambda c: (c[:, :1], zone(BOX)), "at least two evenly spaced pixels along y"),
    "no coordinates": (lambda c: (c.drop_vars("x"), zone(BOX)), "evenly spaced pixels along x"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_give_wrong_numbers_is_refused(make, message):
    with pytest.raises(zonal.ZonalError, match=message):
        zonal.count_classes(*make(small(np.zeros((1, 4, 4), np.uint8))))


def test_no_zones_no_counts():
    assert zonal.count_classes(small(np.zeros((1, 4, 4), np.uint8)), zone(BOX)[:0]).pixels.shape == (0, 1, 256)


# Traps of the libraries, which lesson 08 shows


def test_numbagg_still_counts_modulo_256():
    """When this fails, upstream is repaired, and the section of lesson 08 can go."""
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
            assert a.intersection(b).area < 1e-12  # neighbours, not rivals
