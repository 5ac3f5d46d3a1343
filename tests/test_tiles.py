"""Tiles: names, opening, and all kinds of bad input."""

import http.server
import os
import pathlib
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import rasterio
from matplotlib.figure import Figure
from rasterio.transform import from_origin
from rasterio.windows import Window

from workshop import legend, maps, servers, tiles

CORNERS = [(lon, lat) for lat in range(80, -60, -10) for lon in range(-180, 180, 10)]


def test_every_cell_of_the_grid_has_one_name():
    names = [tiles.tile_name(lon, lat) for lon, lat in CORNERS]
    assert len(set(names)) == 504
    assert [tiles.tile_corner(name) for name in names] == CORNERS


@pytest.mark.parametrize(
    ("lon", "lat", "name"),
    [
        (-111.9, 40.7, "50N_120W"),
        (-120, 50, "50N_120W"),  # the corner belongs to the tile
        (-110, 45, "50N_110W"),  # its right edge to the next
        (0, 0, "00N_000E"),
        (-0.1, -0.1, "00N_010W"),
        (179.9, -59.9, "50S_170E"),
    ],
)
def test_the_tile_of_a_point(lon, lat, name):
    assert tiles.tile_name(lon, lat) == name


@pytest.mark.parametrize(("lon", "lat"), [(0, 80.1), (0, -60), (180, 0), (-180.1, 0)])
def test_a_point_outside_the_grid_is_refused(lon, lat):
    with pytest.raises(tiles.TileError, match="outside the tile grid"):
        tiles.tile_name(lon, lat)


MALFORMED = ["", "50N120W", "50n_120w", "5N_120W", "50N_120W.tif", "../50N_120W", "50X_120W"]
OFF_THE_GRID = ["45N_120W", "50N_123W", "90N_120W", "60S_000E", "50N_180E", "00S_000E", "50N_000W"]


@pytest.mark.parametrize("name", MALFORMED + OFF_THE_GRID)
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(tiles.TileError, match="no such tile"):
        tiles.tile_corner(name)


def test_an_unknown_year_is_refused():
    with pytest.raises(
        tiles.TileError, match=r"50N_120W \(2001\): no such year; GLAD has 2000, 2005, 2010, 2015, 2020"
    ):
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
    for root in ("ftp://example.org", "https://"):
        with pytest.raises(tiles.TileError, match="folder or an http"):
            tiles.tiles_root(root)


def test_an_opened_tile_is_clean_and_lazy():
    tile = tiles.open_tile("50N_120W", 2000)
    assert tile.dims == ("y", "x")
    assert tile.shape == (40_000, 40_000)
    assert tile.dtype == "uint8"
    assert not tile._in_memory
    assert set(tile.attrs) == {"long_name", "source"}
    assert tile.attrs["source"].startswith("SYNTHETIC")
    assert tile.encoding == {"grid_mapping": "spatial_ref"}
    assert tile.rio.crs == "EPSG:4326"
    assert (tile.x.attrs["units"], tile.y.attrs["units"]) == ("degrees_east", "degrees_north")
    assert tile.spatial_ref.attrs["grid_mapping_name"] == "latitude_longitude"
    np.testing.assert_allclose(tile.x[[0, -1]], [-119.999875, -110.000125], rtol=0, atol=1e-9)
    np.testing.assert_allclose(tile.y[[0, -1]], [49.999875, 40.000125], rtol=0, atol=1e-9)


def test_dask_chunks_are_bands_when_asked_for():
    tile = tiles.open_tile("50N_120W", 2000, chunks={"y": 1000})
    assert tile.chunks[0] == (1000,) * 40
    assert tile.chunks[1] == (40_000,)


def small_tile(
    path,
    *,
    west=-120.0,
    north=50.0,
    degrees=10.0,
    crs="EPSG:4326",
    dtype="uint8",
    count=1,
    flip=False,
    pixels=None,
    **more,
):
    """Write a tile of 40 x 40 pixels, by default a good one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = from_origin(west, north, degrees / 40, degrees / 40)
    if flip:
        transform = rasterio.Affine(degrees / 40, 0, west, 0, degrees / 40, north - degrees)
    options = {"driver": "GTiff", "width": 40, "height": 40, "blockysize": 1, "compress": "LZW"} | more
    pixels = np.arange(1600).reshape(40, 40) if pixels is None else pixels
    with rasterio.open(path, "w", count=count, dtype=dtype, crs=crs, transform=transform, **options) as dst:
        for band in range(1, count + 1):
            dst.write(pixels.astype(dtype), band)
    return path


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crs": "EPSG:3857"}, "expected CRS EPSG:4326, found EPSG:3857; reproject first"),
        ({"crs": None}, "expected CRS EPSG:4326, found none; write it"),
        ({"dtype": "uint16"}, "expected data type uint8, found uint16"),
        ({"dtype": "float32"}, "expected data type uint8, found float32"),
        ({"count": 3}, "expected band count 1, found 3"),
        ({"west": -119.9999}, "the name and the georeferencing disagree"),
        ({"north": 50.000125}, "the name and the georeferencing disagree"),
        ({"degrees": 9.0}, "the name and the georeferencing disagree"),
        ({"flip": True}, "expected a north-up grid"),
    ],
)
def test_a_tile_that_is_not_what_its_name_promises_is_refused(tmp_path, wrong, message):
    small_tile(tmp_path / "2000" / "50N_120W.tif", **wrong)
    with pytest.raises(tiles.TileError, match=message) as caught:
        tiles.open_tile("50N_120W", 2000, root=tmp_path)
    assert str(caught.value).startswith("50N_120W (2000): ")


def test_a_good_small_tile_opens(tmp_path):
    small_tile(tmp_path / "2000" / "50N_120W.tif")
    assert tiles.open_tile("50N_120W", 2000, root=tmp_path).shape == (40, 40)


def test_a_missing_file_is_named_with_the_way_out(tmp_path):
    with pytest.raises(tiles.TileError, match="found none; write the sample world with"):
        tiles.open_tile("50N_120W", 2000, root=tmp_path)


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, keep):
    whole = tiles.DATA / "2000" / "50N_120W.tif"
    cut = tmp_path / "2000" / "50N_120W.tif"
    cut.parent.mkdir()
    with whole.open("rb") as source:
        cut.write_bytes(source.read(int(whole.stat().st_size * keep)))
    with pytest.raises(tiles.TileError, match="truncated; expected at least"):
        tiles.open_tile("50N_120W", 2000, root=tmp_path)


@pytest.mark.parametrize(("written", "missing"), [(0, 2000), (2000, 0), (1000, 0)])
def test_a_tile_with_rows_that_were_never_written_is_refused(tmp_path, written, missing):
    path = tmp_path / "2020" / "50N_120W.tif"
    path.parent.mkdir()
    profile = {"width": 4000, "height": 4000, "count": 1, "dtype": "uint8", "crs": "EPSG:4326", "compress": "LZW"}
    transform = from_origin(-120, 50, 0.0025, 0.0025)
    with rasterio.open(path, "w", **profile, transform=transform, blockysize=1, SPARSE_OK=True) as dst:
        dst.write(np.full((1, 2000, 4000), 10, np.uint8), window=Window(0, written, 4000, 2000))
    with pytest.raises(tiles.TileError, match=f"row {missing}, found none: they were never written"):
        tiles.open_tile("50N_120W", 2020, root=tmp_path)


def test_a_truncated_tile_of_squares_is_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 20, (160, 160))
    more = {"width": 160, "height": 160, "tiled": True, "blockxsize": 32, "blockysize": 32}
    path = small_tile(tmp_path / "2000" / "50N_120W.tif", pixels=pixels, degrees=2.5, **more)
    os.truncate(path, path.stat().st_size - 500)
    with pytest.raises(tiles.TileError, match="truncated"):
        tiles.open_tile("50N_120W", 2000, root=tmp_path)


# What is invalid stays invalid


@pytest.mark.parametrize(
    ("nodata", "message"), [(0, "found 0 declared, 'True desert"), (38, "Tree"), (120.5, "'not used'")]
)
def test_a_class_that_is_declared_to_be_no_data_is_refused(tmp_path, nodata, message):
    path = small_tile(tmp_path / "2000" / "50N_120W.tif")
    with rasterio.open(path, "r+") as dst:
        dst.nodata = nodata
    with pytest.raises(tiles.TileError, match=f"expected 255 as no data, .*{message}"):
        tiles.open_tile("50N_120W", 2000, root=tmp_path)


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_beside_the_pixels_is_refused(tmp_path, internal):
    path = small_tile(tmp_path / "2000" / "50N_120W.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dst:
        dst.write_mask(dst.read(1) != 0)
    assert path.with_name(f"{path.name}.msk").exists() != internal
    with pytest.raises(tiles.TileError, match="found a mask beside them"):
        tiles.open_tile("50N_120W", 2000, root=tmp_path)


@pytest.mark.parametrize("rows", [slice(10, 20), slice(30, 40), slice(0, 40)])
def test_a_sparse_tile_that_declares_no_data_has_it_where_nothing_was_written(tmp_path, rows):
    pixels = np.full((40, 40), 38, np.uint8)
    pixels[rows] = 255
    path = small_tile(tmp_path / "2000" / "50N_120W.tif", pixels=pixels, nodata=255, SPARSE_OK=True)
    with rasterio.open(path) as src:
        assert src.get_tag_item(f"BLOCK_OFFSET_0_{rows.start}", "TIFF", bidx=1) is None
    tile = tiles.open_tile("50N_120W", 2000, root=tmp_path)
    assert tile.dtype == "uint8"
    np.testing.assert_array_equal(tile, pixels)


def test_a_sparse_tile_is_refused_over_http(tmp_path):
    pixels = np.full((40, 40), 38, np.uint8)
    pixels[30:] = 255
    small_tile(tmp_path / "2000" / "50N_120W.tif", pixels=pixels, nodata=255, SPARSE_OK=True)
    with (
        servers.serve_folder(tmp_path) as server,
        pytest.raises(tiles.TileError, match="a sparse tile can only be read from a folder"),
    ):
        tiles.open_tile("50N_120W", 2000, root=server.url)


@pytest.mark.parametrize("off", [1e-9, -1e-9, 2e-5])
def test_a_tile_is_where_its_name_says_though_its_file_is_off_by_little(tmp_path, off):
    for year, west in ((2000, -120), (2005, -120 + off)):
        small_tile(tmp_path / str(year) / "50N_120W.tif", west=west)
    first, second = (tiles.open_tile("50N_120W", year, root=tmp_path) for year in (2000, 2005))
    for name in ("x", "y"):
        np.testing.assert_array_equal(first[name], second[name])
    np.testing.assert_allclose(second.x, -120 + 0.25 * (np.arange(40) + 0.5), rtol=0, atol=1e-12)
    assert second.rio.transform() == first.rio.transform() == from_origin(-120, 50, 0.25, 0.25)


@pytest.mark.parametrize("content", [b"", b"II*\x00", b"<html>not a tile</html>"])
def test_something_else_than_a_tiff_is_refused(tmp_path, content):
    path = tmp_path / "2000" / "50N_120W.tif"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(tiles.TileError, match="cannot be read as a GeoTIFF"):
        tiles.open_tile("50N_120W", 2000, root=tmp_path)


# The same code, over HTTP


def test_http_gives_the_same_pixels_without_the_file():
    local = tiles.DATA / "2000" / "50N_120W.tif"
    with servers.serve_folder(tiles.DATA) as server:
        tile = tiles.open_tile("50N_120W", 2000, root=server.url)
        opening = sum(r.sent for r in server.requests)
        pixels = tile[36_000:36_512, 30_000:30_512].values
        requests = server.requests
    with rasterio.open(local) as src:
        expected = src.read(1, window=Window(30_000, 36_000, 512, 512))
    np.testing.assert_array_equal(pixels, expected)
    assert opening < 0.01 * local.stat().st_size
    assert sum(r.sent for r in requests) < 0.05 * local.stat().st_size
    assert len(requests) < 30
    assert all(r.range and r.status == 206 for r in requests if r.method == "GET"), "a GET without a range"


def test_http_404_is_named():
    with (
        servers.serve_folder(tiles.DATA) as server,
        pytest.raises(tiles.TileError, match=r"40N_080W \(2000\): .* answered 404"),
    ):
        tiles.open_tile("40N_080W", 2000, root=server.url)


def test_a_host_without_a_server_fails_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(tiles.TileError, match="unset GLAD_TILES to work offline"):
        tiles.open_tile("50N_120W", 2000, root=f"http://127.0.0.1:{port}")


def test_a_host_that_never_answers_fails_within_seconds(monkeypatch):
    monkeypatch.setattr(tiles, "TIMEOUT_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begin = time.monotonic()
        with pytest.raises(tiles.TileError, match="no answer"):
            tiles.open_tile("50N_120W", 2000, root=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - begin < 10  # not a benchmark: it must not hang


def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(tiles.TileError, match=r"no answer from http://glad\.invalid"):
        tiles.open_tile("50N_120W", 2000, root="http://glad.invalid")


class OddServer(http.server.BaseHTTPRequestHandler):
    """A server with unusual answers to HEAD or GET."""

    def do_HEAD(self):
        kind = self.server.kind
        if kind == "closes":
            self.connection.close()
            return
        self.send_response(405 if kind == "no HEAD" else 200)
        if kind == "stalls":
            self.send_header("Content-Length", "25000000")
        self.end_headers()

    def do_GET(self):
        if self.server.kind == "stalls":
            time.sleep(60)
        whole = tiles.DATA.joinpath("2000", "50N_120W.tif").read_bytes()
        first, last = 0, len(whole) - 1
        if self.headers["Range"]:
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
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
    tile = tiles.open_tile("50N_120W", 2000, root=odd_server)
    np.testing.assert_array_equal(tile[39_999, :5], tiles.open_tile("50N_120W", 2000)[39_999, :5])


@pytest.mark.parametrize("odd_server", ["closes"], indirect=True)
def test_a_server_that_closes_the_connection_is_named(odd_server):
    with pytest.raises(tiles.TileError, match="no answer"):
        tiles.open_tile("50N_120W", 2000, root=odd_server)


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
    assert set(tiles.GDAL_SETTINGS) >= {
        "GDAL_HTTP_LOW_SPEED_TIME",
        "GDAL_HTTP_LOW_SPEED_LIMIT",
        "GDAL_HTTP_CONNECTTIMEOUT",
    }


@pytest.mark.parametrize("root", ["http://a b", "http://["])
def test_a_malformed_url_is_named(root):
    with pytest.raises(tiles.TileError, match="no answer"):
        tiles.open_tile("50N_120W", 2000, root=root)


# Boxes


@pytest.fixture(scope="module")
def tile():
    return tiles.open_tile("50N_120W", 2000)


def test_a_box_has_the_pixels_whose_centers_it_holds(tile):
    window = tiles.select_box(tile, tiles.TEACHING_WINDOW)
    assert window.shape == (2000, 4000)
    with rasterio.open(tiles.DATA / "2000" / "50N_120W.tif") as src:
        np.testing.assert_array_equal(window, src.read(1, window=Window(30_000, 36_000, 4000, 2000)))
    np.testing.assert_allclose(window.rio.bounds(), tiles.TEACHING_WINDOW, rtol=0, atol=1e-9)


def test_a_box_says_itself_where_it_begins(tile):
    """A reader that trusts GeoTransform, as GDAL's Zarr driver may, must not put the box at the tile's corner."""
    for box, expected in {
        tiles.TEACHING_WINDOW: [-112.5, 0.00025, 0, 41, 0, -0.00025],
        tiles.Box(-112.0, 40.65, -111.8, 40.85): [-112, 0.00025, 0, 40.85, 0, -0.00025],
    }.items():
        window = tiles.select_box(tile, box)
        assert [float(number) for number in window.spatial_ref.attrs["GeoTransform"].split()] == expected
        transform = tuple(window.rio.transform())[:6]
        np.testing.assert_allclose(transform, [expected[k] for k in (1, 2, 0, 4, 5, 3)], rtol=0, atol=1e-12)


VIEWS = {
    "thinned": lambda r: r[::4, ::4],
    "thinned one way": lambda r: r[::4],
    "coarsened": lambda r: r.coarsen(y=4, x=4).max().astype("uint8"),
    "sorted": lambda r: r.sortby("y"),
    "turned": lambda r: r[::-1, ::-1],
    "sliced": lambda r: r[7:, 7:],
    "one row": lambda r: tiles.select_box(r, tiles.Box(-118, 48.5, -112, 48.75)),
    "transposed": lambda r: r.T,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_raster_is_where_its_coordinates_are(tmp_path, view):
    """The GeoTransform left over from the source raster must not be used."""
    small_tile(tmp_path / "2000" / "50N_120W.tif")
    raster = view(tiles.open_tile("50N_120W", 2000, root=tmp_path).load())
    height, width = abs(raster.y.diff("y").mean().item()) if len(raster.y) > 1 else 0.25, abs(raster.x[1] - raster.x[0])
    bounds = (raster.x.min() - width / 2, raster.y.min() - height / 2, raster.x.max() + width / 2)
    bounds = *bounds, raster.y.max() + height / 2
    np.testing.assert_allclose(tiles.north_up(raster).rio.bounds(), bounds, rtol=0, atol=1e-9)
    expected = raster.transpose("y", "x").sortby("y", ascending=False).sortby("x")
    np.testing.assert_array_equal(tiles.north_up(raster), expected)

    with rasterio.open(maps.write_palette_cog(raster, tmp_path / "w.tif")) as src:
        np.testing.assert_allclose(src.bounds, bounds, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(src.read(1), expected)

    figure = Figure()
    maps.draw_land_cover(ax := figure.add_subplot(), raster, where=raster.values != 7)
    np.testing.assert_allclose(ax.images[0].get_extent(), [bounds[k] for k in (0, 2, 1, 3)], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(ax.images[0].get_array().filled(7), expected)

    if len(raster.y) > 1:
        box = tiles.Box(-118, 42, -112, 48)
        cut = tiles.select_box(raster, box)
        inside = (raster.y > 42) & (raster.y < 48)
        np.testing.assert_array_equal(
            cut, raster.isel(y=np.flatnonzero(inside)).sel(x=raster.x[(raster.x > -118) & (raster.x < -112)])
        )
        again = cut.drop_vars(["x", "y"]).rio.transform() @ (0.5, 0.5)
        np.testing.assert_allclose(again, (cut.x[0], cut.y[0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "uneven",
    [
        lambda r: r.isel(y=[0, 2, 1, 3]),
        lambda r: r.isel(x=[0, 1, 2, 5]),
        lambda r: r.isel(x=[3, 3, 3]),
        lambda r: r.isel(y=slice(0, 0)),
        lambda r: r.drop_vars("x"),
        lambda r: r[:, 5],
        lambda r: r[5:6],
        lambda r: r.coarsen(x=10).max(),
        lambda r: r.assign_coords(x=r.x * np.nan),
    ],
)
def test_a_raster_whose_pixels_are_not_even_has_no_place(tile, uneven, tmp_path):
    raster = uneven(tile[:10, :10])
    for use in (
        tiles.north_up,
        lambda r: tiles.select_box(r, tiles.TEACHING_WINDOW),
        lambda r: maps.draw_land_cover(Figure().add_subplot(), r),
        lambda r: maps.write_palette_cog(r, tmp_path / "w.tif"),
    ):
        with pytest.raises(
            tiles.TileError, match=r"in even steps|pixels and a coordinate|one of known size|dimensions"
        ):
            use(raster)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.where(r != 38), "expected class codes as uint8"),
        (lambda r: r.drop_vars("spatial_ref"), "with a CRS, found uint8 and None"),
        (lambda r: r.expand_dims("year"), r"expected a raster with dimensions \(y, x\)"),
    ],
)
def test_no_picture_is_written_of_what_is_no_map_of_classes(tile, tmp_path, change, message):
    with pytest.raises(tiles.TileError, match=message):
        maps.write_palette_cog(change(tile[:10, :10]), tmp_path / "w.tif")
    assert not list(tmp_path.iterdir())


def test_a_raster_in_meters_is_not_drawn_as_degrees(tile):
    with pytest.raises(tiles.TileError, match="expected a raster in degrees"):
        maps.draw_land_cover(Figure().add_subplot(), tile[:10, :10].rio.reproject("EPSG:32611"))


def test_a_mask_of_numbers_is_a_mask(tile):
    part = tile[:10, :10].load()
    maps.draw_land_cover(ax := Figure().add_subplot(), part, where=np.eye(10, dtype="uint8"))
    assert ax.images[0].get_array().count() == 10


def test_the_whole_tile_is_a_box(tile):
    assert tiles.select_box(tile, (-120, 40, -110, 50)).shape == tile.shape


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
    import xarray as xr

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


def test_gdal_keeps_little_of_what_it_decoded():
    """GDAL's default is 5 % of the memory. Here, 800 MB are decoded, and 128 MB may stay cached."""
    code = """
        import psutil, rasterio
        from workshop import tiles
        from rasterio.windows import Window
        memory = lambda: psutil.Process().memory_info().rss / 1e6
        with rasterio.open(tiles.tile_path(tiles.SAMPLE_TILE, 2000)) as src:
            assert src.block_shapes == [(1, 40_000)]
            before = memory()
            src.read(1, window=Window(0, 0, 10, 20_000))
            print(int(memory() - before))
    """
    env = {name: value for name, value in os.environ.items() if name != "GDAL_CACHEMAX"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    grown = [int(subprocess.check_output(command, env=env | more)) for more in ({}, {"GDAL_CACHEMAX": "600"})]
    assert grown[0] < 200
    assert grown[1] > 400, "a setting of one's own stays"
