"""Tiles: names, opening, and all kinds of bad input."""

import http.server
import os
import pathlib
import re
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import rasterio
import xarray as xr
from matplotlib.figure import Figure
from rasterio.transform import from_origin
from rasterio.windows import Window

from workshop import legend, maps, servers, tiles

CORNERS = [(lon, lat) for lat in range(80, -60, -10) for lon in range(-180, 180, 10)]
POINTS = {
    (-111.9, 40.7): "50N_120W",
    (-120, 50): "50N_120W",  # the corner belongs to the tile
    (-110, 45): "50N_110W",  # its right edge to the next
    (0, 0): "00N_000E",
    (-0.1, -0.1): "00N_010W",
    (179.9, -59.9): "50S_170E",
}


def test_every_cell_of_the_grid_has_one_name():
    names = [tiles.tile_name(lon, lat) for lon, lat in CORNERS]
    assert len(set(names)) == 504
    assert [tiles.tile_corner(name) for name in names] == CORNERS


def test_a_point_is_in_one_tile_or_refused():
    assert {point: tiles.tile_name(*point) for point in POINTS} == POINTS
    for outside in ((0, 80.1), (0, -60), (180, 0), (-180.1, 0)):
        with pytest.raises(tiles.TileError, match="outside the tile grid"):
            tiles.tile_name(*outside)


@pytest.mark.parametrize("name", ["", "50n_120w", "50N_120W.tif", "../50N_120W", "45N_120W", "60S_000E", "00S_000E"])
def test_an_unknown_name_or_year_is_refused(name):
    with pytest.raises(tiles.TileError, match="no such tile"):
        tiles.open_tile(name, 2000)
    with pytest.raises(tiles.TileError, match=r"\(2001\): no such year; GLAD has 2000, 2005, 2010, 2015, 2020"):
        tiles.open_tile("50N_120W", 2001)


def test_root_is_argument_then_setting_then_data(monkeypatch, no_settings):
    assert tiles.tiles_root() == str(tiles.DATA)
    monkeypatch.setenv("GLAD_TILES", "https://example.org/v2/")
    assert tiles.tile_path("50N_120W", 2000) == "https://example.org/v2/2000/50N_120W.tif"
    assert tiles.tile_path("50N_120W", 2000, root="/elsewhere") == "/elsewhere/2000/50N_120W.tif"
    monkeypatch.setenv("GLAD_TILES", "glad")
    assert tiles.tiles_root() == str(tiles.DATA.parent / "glad"), "a relative setting begins at the project"
    monkeypatch.setenv("GLAD_TILES", "~/glad")
    assert tiles.tiles_root() == str(pathlib.Path.home() / "glad")
    assert tiles.tiles_root("http_data") == "http_data"


def opened(root=None, year=2000):
    return tiles.open_tile("50N_120W", year, root=root)


def test_an_opened_tile_is_clean_and_lazy():
    tile = opened()
    assert (tile.dims, tile.shape, tile.dtype) == (("y", "x"), (40_000, 40_000), "uint8")
    assert not tile._in_memory and tile.chunks is None
    assert tiles.open_tile("50N_120W", 2000, chunks={"y": 1000}).chunks == ((1000,) * 40, (40_000,))
    assert set(tile.attrs) == {"long_name", "source"} and tile.attrs["source"].startswith("SYNTHETIC")
    assert tile.encoding == {"grid_mapping": "spatial_ref"}
    assert tile.rio.crs == "EPSG:4326"
    assert (tile.x.attrs["units"], tile.y.attrs["units"]) == ("degrees_east", "degrees_north")
    assert tile.spatial_ref.attrs["grid_mapping_name"] == "latitude_longitude"
    np.testing.assert_allclose(tile.x[[0, -1]], [-119.999875, -110.000125], rtol=0, atol=1e-9)
    np.testing.assert_allclose(tile.y[[0, -1]], [49.999875, 40.000125], rtol=0, atol=1e-9)


# A tile is what its name promises, or refused


def small_tile(root, year=2000, pixels=np.arange(1600).reshape(40, 40), **changes):  # noqa: B008
    """Write 50N_120W with 40 x 40 pixels, by default a good tile, and return its path."""
    path = root / str(year) / "50N_120W.tif"
    path.parent.mkdir(parents=True)
    shape = {"width": 40, "height": 40, "count": 1, "dtype": "uint8"}
    layout = {"driver": "GTiff", "compress": "LZW", "blockysize": 1}
    profile = shape | layout | {"crs": "EPSG:4326", "transform": from_origin(-120, 50, 0.25, 0.25)} | changes
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(np.stack([pixels.astype(profile["dtype"])] * profile["count"]))
    return path


def sparse_tile(root, rows, value, **changes):
    """Write a tile in which some rows have one value and are therefore not stored, and return all its pixels."""
    pixels = np.full((40, 40), 38, np.uint8)
    pixels[rows] = value
    with rasterio.open(small_tile(root, pixels=pixels, SPARSE_OK=True, **changes)) as src:
        assert src.get_tag_item(f"BLOCK_OFFSET_0_{rows.start}", "TIFF", bidx=1) is None
    return pixels


def truncated_tile(root, **changes):
    path = small_tile(root, **changes)
    os.truncate(path, path.stat().st_size - 1)


def masked_tile(root, internal):
    path = small_tile(root)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dst:
        dst.write_mask(dst.read(1) != 0)
    assert path.with_name(f"{path.name}.msk").exists() != internal


ELSEWHERE = "the name and the georeferencing disagree"
NEVER = "found none: they were never written"
WRONG = [
    (lambda root: None, "found none; write the sample world with"),
    (lambda root: small_tile(root).write_bytes(b"<html>not a tile</html>"), "cannot be read as a GeoTIFF"),
    (lambda root: small_tile(root, crs="EPSG:3857"), "expected CRS EPSG:4326, found EPSG:3857; reproject first"),
    (lambda root: small_tile(root, crs=None), "expected CRS EPSG:4326, found none; write it"),
    (lambda root: small_tile(root, dtype="uint16"), "expected data type uint8, found uint16"),
    (lambda root: small_tile(root, count=3), "expected band count 1, found 3"),
    (lambda root: small_tile(root, transform=from_origin(-119.9999, 50, 0.25, 0.25)), ELSEWHERE),
    (lambda root: small_tile(root, transform=from_origin(-120, 50.000125, 0.25, 0.25)), ELSEWHERE),
    (lambda root: small_tile(root, transform=from_origin(-120, 50, 0.225, 0.225)), ELSEWHERE),
    (lambda root: small_tile(root, transform=from_origin(-120, 40, 0.25, -0.25)), "expected a north-up grid"),
    (lambda root: small_tile(root, nodata=0), "expected 255 as no data, found 0 declared, 'True desert"),
    (lambda root: small_tile(root, nodata=120.5), "expected 255 as no data, found 120.5 declared, 'not used'"),
    (lambda root: masked_tile(root, internal=True), "found a mask beside them"),
    (lambda root: masked_tile(root, internal=False), "found a mask beside them"),
    (lambda root: truncated_tile(root), "truncated; expected at least"),
    (lambda root: truncated_tile(root, tiled=True, blockxsize=16, blockysize=16), "truncated; expected at least"),
    (lambda root: sparse_tile(root, slice(0, 20), 0), f"row 0, {NEVER}"),
    (lambda root: sparse_tile(root, slice(10, 20), 0), f"row 10, {NEVER}"),
    (lambda root: sparse_tile(root, slice(39, 40), 0), f"row 39, {NEVER}"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_a_tile_that_is_not_what_its_name_promises_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(tiles.TileError, match=message) as caught:
        opened(tmp_path)
    assert str(caught.value).startswith("50N_120W (2000): ")


def test_a_mask_in_a_file_is_noticed_where_gdal_does_not_look_for_it(tmp_path):
    masked_tile(tmp_path, internal=False)
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        pytest.raises(tiles.TileError, match="found a mask beside them"),
    ):
        opened(tmp_path)


@pytest.mark.parametrize("rows", [slice(10, 20), slice(30, 40), slice(0, 40)])
def test_a_sparse_tile_that_declares_no_data_has_it_where_nothing_was_written(tmp_path, rows):
    pixels = sparse_tile(tmp_path, rows, 255, nodata=255)
    tile = opened(tmp_path)
    assert tile.dtype == "uint8"
    np.testing.assert_array_equal(tile, pixels)
    if rows.stop == 40:
        with (
            servers.serve_folder(tmp_path) as server,
            pytest.raises(tiles.TileError, match="a sparse tile can only be read from a folder"),
        ):
            opened(server.url)


@pytest.mark.parametrize("off", [1e-9, -1e-9, 2e-5])
def test_a_tile_is_where_its_name_says_though_its_file_is_off_by_little(tmp_path, off):
    small_tile(tmp_path)
    small_tile(tmp_path, 2005, transform=from_origin(-120 + off, 50, 0.25, 0.25))
    first, second = (opened(tmp_path, year) for year in (2000, 2005))
    for name in ("x", "y"):
        np.testing.assert_array_equal(first[name], second[name])
    np.testing.assert_allclose(second.x, -120 + 0.25 * (np.arange(40) + 0.5), rtol=0, atol=1e-12)
    assert second.rio.transform() == first.rio.transform() == from_origin(-120, 50, 0.25, 0.25)


# The same code, over HTTP


def test_http_gives_the_same_pixels_without_the_file():
    local = tiles.DATA / "2000" / "50N_120W.tif"
    with servers.serve_folder(tiles.DATA) as server:
        tile = opened(server.url)
        opening = sum(r.sent for r in server.requests)
        pixels = tile[36_000:36_512, 30_000:30_512].values
        requests = server.requests
        with pytest.raises(tiles.TileError, match=r"40N_080W \(2000\): .* answered 404 .*; not every tile .* has land"):
            tiles.open_tile("40N_080W", 2000, root=server.url)
    with rasterio.open(local) as src:
        expected = src.read(1, window=Window(30_000, 36_000, 512, 512))
    np.testing.assert_array_equal(pixels, expected)
    assert opening < 0.01 * local.stat().st_size
    assert sum(r.sent for r in requests) < 0.05 * local.stat().st_size
    assert len(requests) < 30
    assert all(r.range and r.status == 206 for r in requests if r.method == "GET"), "a GET without a range"


def test_a_tile_that_was_replaced_on_the_server_is_checked_again(tmp_path):
    good, wrong = small_tile(tmp_path), small_tile(tmp_path / "new", crs="EPSG:3857")
    with servers.serve_folder(tmp_path) as server:
        opened(server.url)
        os.replace(wrong, good)
        with pytest.raises(tiles.TileError, match="expected CRS EPSG:4326"):
            opened(server.url)


@pytest.mark.parametrize("root", ["refuses", "never answers", "http://a b", "http://["])
def test_an_address_without_an_answer_fails_within_seconds(monkeypatch, root):
    monkeypatch.setattr(tiles, "TIMEOUT_SECONDS", 0.5)
    with socket.socket() as host:
        host.bind(("127.0.0.1", 0))
        if root == "never answers":
            host.listen()
        root = root if root.startswith("http") else f"http://127.0.0.1:{host.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(tiles.TileError, match=f"no answer from {re.escape(root)}.*; unset GLAD_TILES to work"):
            opened(root)
        assert time.monotonic() - begin < 10  # not a benchmark: it must not hang


class OddServer(http.server.BaseHTTPRequestHandler):
    """A server with unusual answers to HEAD or GET."""

    def do_HEAD(self):
        self.send_response(405 if self.server.kind == "no HEAD" else 200)
        if self.server.kind == "stalls":
            self.send_header("Content-Length", "25000000")
        self.end_headers()

    def do_GET(self):
        if self.server.kind == "stalls":
            time.sleep(60)
        whole = tiles.DATA.joinpath("2000", "50N_120W.tif").read_bytes()
        first, last = map(int, (self.headers["Range"] or f"bytes=0-{len(whole) - 1}").removeprefix("bytes=").split("-"))
        part = whole[first : last + 1]
        self.send_response(206 if self.headers["Range"] else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(whole)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *args):
        pass


# GDAL holds Python's lock during some requests, so the odd server needs a process of its own.
@pytest.fixture
def odd_server(request):
    code = (
        "import sys, http.server; sys.path.insert(0, sys.argv[1]); from test_tiles import OddServer\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), OddServer); server.kind = sys.argv[2]\n"
        "print(server.server_port, flush=True); server.serve_forever()"
    )
    here = str(pathlib.Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", code, here, request.param], stdout=subprocess.PIPE, text=True)
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.wait()


@pytest.mark.parametrize("odd_server", ["no HEAD", "no length"], indirect=True)
def test_a_server_without_head_or_length_will_do(odd_server):
    tile = opened(odd_server)
    np.testing.assert_array_equal(tile[39_999, :5], opened()[39_999, :5])


@pytest.mark.parametrize("odd_server", ["stalls"], indirect=True)
def test_a_server_that_stalls_does_not_hang_us(odd_server):
    """Use the workshop's settings with smaller values, so that the test need not wait 80 s."""
    code = """
        from workshop import tiles
        for name, value in {"GDAL_HTTP_LOW_SPEED_TIME": "1", "GDAL_HTTP_MAX_RETRY": "1"}.items():
            assert name in tiles.GDAL_SETTINGS
            tiles.os.environ[name] = value
        try:
            tiles.open_tile("50N_120W", 2000, root=%r)
        except tiles.TileError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code) % odd_server]
    begin = time.monotonic()
    assert "cannot be read" in subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert time.monotonic() - begin < 60  # not a benchmark: it must not hang


def test_gdal_is_given_its_settings_at_import_and_what_was_set_stays():
    """Later would be too late, because other threads may read the environment."""
    code = """
        import os
        before = dict(os.environ)
        from workshop import tiles
        print({name: value for name, value in os.environ.items() if before.get(name) != value})
    """
    given = {"GDAL_HTTP_MAX_RETRY": "7"}
    env = {name: value for name, value in os.environ.items() if name not in tiles.GDAL_SETTINGS} | given
    changed = eval(subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], env=env, text=True))
    assert changed == {name: value for name, value in tiles.GDAL_SETTINGS.items() if name not in given}
    expected = {"GDAL_CACHEMAX", "GDAL_HTTP_LOW_SPEED_TIME", "GDAL_HTTP_LOW_SPEED_LIMIT", "GDAL_HTTP_CONNECTTIMEOUT"}
    assert set(tiles.GDAL_SETTINGS) >= expected


# Boxes


@pytest.fixture(scope="module")
def tile():
    return opened()


def test_a_box_has_the_pixels_whose_centers_it_holds(tile):
    window = tiles.select_box(tile, tiles.TEACHING_WINDOW)
    assert window.shape == (2000, 4000)
    with rasterio.open(tiles.DATA / "2000" / "50N_120W.tif") as src:
        np.testing.assert_array_equal(window, src.read(1, window=Window(30_000, 36_000, 4000, 2000)))
    np.testing.assert_allclose(window.rio.bounds(), tiles.TEACHING_WINDOW, rtol=0, atol=1e-9)
    assert tiles.select_box(tile, (-120, 40, -110, 50)).shape == tile.shape


def test_a_box_says_itself_where_it_begins(tile):
    """A reader that trusts GeoTransform, as GDAL's Zarr driver may, must not put the box at the tile's corner."""
    for box in (tiles.TEACHING_WINDOW, tiles.Box(-112.0, 40.65, -111.8, 40.85)):
        attrs = tiles.select_box(tile, box).spatial_ref.attrs
        expected = [box.west, 0.00025, 0, box.north, 0, -0.00025]
        assert [float(number) for number in attrs["GeoTransform"].split()] == expected


ROW = tiles.Box(-118, 48.5, -112, 48.75)
VIEWS = {
    "thinned one way": (lambda r: r[::4], (-120, 40.375, -110, 50.375)),
    "sliced": (lambda r: r[7:, 7:], (-118.25, 40, -110, 48.25)),
    "sorted": (lambda r: r.sortby("y"), (-120, 40, -110, 50)),
    "turned": (lambda r: r[::-1, ::-1], (-120, 40, -110, 50)),
    "transposed": (lambda r: r.T, (-120, 40, -110, 50)),
    "one row": (lambda r: tiles.select_box(r, ROW), ROW),
}


@pytest.mark.parametrize(("view", "bounds"), VIEWS.values(), ids=VIEWS)
def test_a_raster_is_where_its_coordinates_are(tmp_path, view, bounds):
    """The GeoTransform left over from the source raster must not be used."""
    small_tile(tmp_path)
    raster = view(opened(tmp_path).load())
    expected = raster.transpose("y", "x").sortby("y", ascending=False).sortby("x")
    np.testing.assert_allclose(tiles.north_up(raster).rio.bounds(), bounds, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(tiles.north_up(raster), expected)

    with rasterio.open(maps.write_palette_cog(raster, tmp_path / "w.tif")) as src:
        np.testing.assert_allclose(src.bounds, bounds, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(src.read(1), expected)

    maps.draw_land_cover(ax := Figure().add_subplot(), raster, where=raster.values != 7)
    np.testing.assert_allclose(ax.images[0].get_extent(), [bounds[k] for k in (0, 2, 1, 3)], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(ax.images[0].get_array().filled(7), expected)

    middle = (bounds[1] + bounds[3]) / 2
    cut = tiles.select_box(raster, (-118, bounds[1], -112, middle))
    xr.testing.assert_equal(cut, raster.where((raster.x > -118) & (raster.x < -112) & (raster.y <= middle), drop=True))
    first = cut.drop_vars(["x", "y"]).rio.transform() @ (0.5, 0.5)
    np.testing.assert_allclose(first, (cut.x[0], cut.y[0]), rtol=0, atol=1e-9)


UNEVEN = {
    "pixels and a coordinate along y": [lambda r: r.isel(y=slice(0, 0))],
    "pixels and a coordinate along x": [lambda r: r.drop_vars("x"), lambda r: r[:, 5]],
    "in even steps along y": [lambda r: r.isel(y=[0, 2, 1, 3])],
    "in even steps along x": [lambda r: r.isel(x=[3, 3, 3]), lambda r: r.assign_coords(x=r.x * np.nan)],
    "two pixels along y": [lambda r: r[5:6]],
    "two pixels along x": [lambda r: r.coarsen(x=10).max()],
}


@pytest.mark.parametrize(("message", "uneven"), [(text, change) for text in UNEVEN for change in UNEVEN[text]])
def test_a_raster_whose_pixels_are_not_even_has_no_place(tile, message, uneven, tmp_path):
    raster = uneven(tile[:10, :10])
    for use in (
        tiles.north_up,
        lambda r: tiles.select_box(r, (-119.999, 49.998, -119.998, 49.999)),
        lambda r: maps.draw_land_cover(Figure().add_subplot(), r),
        lambda r: maps.write_palette_cog(r, tmp_path / "w.tif"),
    ):
        with pytest.raises(tiles.TileError, match=message):
            use(raster)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.where(r != 38), "expected class codes as uint8"),
        (lambda r: r.drop_vars("spatial_ref"), "with a CRS, found uint8 and None"),
        (lambda r: r.expand_dims("year"), "must be a permuted list"),
    ],
)
def test_no_picture_is_written_of_what_is_no_map_of_classes(tile, tmp_path, change, message):
    with pytest.raises((tiles.TileError, ValueError), match=message):
        maps.write_palette_cog(change(tile[:10, :10]), tmp_path / "w.tif")
    assert not list(tmp_path.iterdir())


def test_a_raster_in_meters_is_not_drawn_as_degrees(tile):
    with pytest.raises(tiles.TileError, match="expected a raster in degrees"):
        maps.draw_land_cover(Figure().add_subplot(), tile[:10, :10].rio.reproject("EPSG:32611"))


def test_a_mask_of_numbers_is_a_mask(tile):
    part = tile[:10, :10].load()
    maps.draw_land_cover(ax := Figure().add_subplot(), part, where=np.eye(10, dtype="uint8"))
    assert ax.images[0].get_array().count() == 10


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((-112.5, 41, -111.5, 40.5), "upside down; expected south < north"),
        ((-111.5, 40.5, -112.5, 41), "reversed; expected west < east"),
        ((-112.5, 40.5, -112.5, 41), "empty"),
        ((-112.49995, 40.5, -112.4999, 41), "empty"),
        ((-121, 40.5, -111.5, 41), "reaches outside the raster"),
        ((-112.5, 39.999, -111.5, 41), "reaches outside the raster"),
        ((10, 40, 11, 41), "reaches outside the raster"),
        ((float("nan"), 40.5, -111.5, 41), "four finite numbers"),
        ((-112.5, 40.5, -111.5), "four finite numbers"),
    ],
)
def test_a_bad_box_is_refused(tile, box, message):
    with pytest.raises(tiles.TileError, match=message):
        tiles.select_box(tile, box)


# The real thing


def test_a_real_glad_tile_through_open_subset_and_zarr(glad_tile, tmp_path):
    root = glad_tile.parent.parent
    tile = tiles.open_tile("40N_080W", 2000, root=root)
    part = tiles.select_box(tile, tiles.Box(-78, 33, -74, 37)).load()
    encoding = {"lulc": {"chunks": (64, 64), "grid_mapping": "spatial_ref", "fill_value": 255}}
    part.to_dataset().to_zarr(tmp_path / "real.zarr", encoding=encoding, consolidated=False)
    again = xr.open_zarr(tmp_path / "real.zarr", decode_coords="all", consolidated=False)["lulc"]
    xr.testing.assert_identical(again.load(), part)

    with rasterio.open(glad_tile) as src:
        rows = np.abs(tile.y.values[:, None] - part.y.values).argmin(axis=0)
        cols = np.abs(tile.x.values[:, None] - part.x.values).argmin(axis=0)
        np.testing.assert_array_equal(again, src.read(1)[np.ix_(rows, cols)])
        palette = src.colormap(1)
        used = legend.table()
        assert np.isin(np.unique(src.read(1)), used.index).all()
    for value, color in used["color"].items():
        assert palette[value][:3] == tuple(bytes.fromhex(color[1:])), value
