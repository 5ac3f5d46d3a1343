"""Maps and legend: every class has its own color, resampling keeps class codes, and no network is needed."""

import csv
import io
import os
import re
import subprocess
import sys
import textwrap
import time
import tracemalloc
from itertools import pairwise

import holoviews
import hvplot.xarray  # noqa: F401, adds .hvplot
import ipyleaflet
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import panel
import pytest
import rasterio
import xarray as xr
from bokeh.document import Document
from bokeh.models import HoverTool
from conftest import NOTEBOOKS
from localtileserver import TileClient
from matplotlib.image import imread
from matplotlib_scalebar.scalebar import ScaleBar
from pyproj import Geod
from xarray.backends import BackendArray
from xarray.core import indexing

from workshop import legend, maps, servers, tiles


@pytest.fixture(scope="module")
def window():
    with tiles.open_tile("50N_120W", 2020) as tile:
        return tiles.select_box(tile, tiles.Box(-112.5, 40.7, -112.0, 41.0)).load()


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_the_legend_is_the_one_of_the_design():
    spans = {name: (first, last) for name, first, last, _ in legend.group_table().itertuples()}
    assert spans == {
        "True desert": (0, 1),
        "Semi-arid": (2, 18),
        "Dense short vegetation": (19, 24),
        "Tree cover, terra firma": (25, 48),
        "Salt pan": (100, 101),
        "Sparse vegetation, wetland": (102, 118),
        "Dense short vegetation, wetland": (119, 124),
        "Tree cover, wetland": (125, 148),
        "Open surface water": (200, 207),
        "Snow/ice": (241, 241),
        "Cropland": (244, 244),
        "Built-up": (250, 250),
        "Ocean": (254, 254),
        "No data": (255, 255),
    }
    assert legend.groups() == list(spans)
    lookup = legend.group_index()
    for value in range(256):
        inside = [i for i, (first, last) in enumerate(spans.values()) if first <= value <= last]
        assert lookup[value] == (inside[0] if inside else 255)


def rows():
    """Read the legend without the code that is tested."""
    with legend.LEGEND_CSV.open(encoding="utf-8", newline="") as file:
        return {int(row["value"]): row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("value", "row"), rows().items())
def test_a_class_says_what_glad_says(value, row):
    on_land = value - 100 * (100 <= value <= 148)  # wetland repeats the scales of dry land
    if on_land <= 24:
        percent = min(100, 4 * on_land + 3 + (on_land == 24))
        expected, text = ("short vegetation (%)", percent, percent), rf", {percent} % (cover|short vegetation)"
    elif on_land <= 47:
        meters = on_land - 22
        expected, text = ("tree height (m)", meters, meters), f", {meters} m"
    elif on_land == 48:
        expected, text = ("tree height (m)", 25, ""), ", more than 25 m"
    elif 200 <= value <= 207:
        low = 10 * (value - 198)
        high = 100 if value == 207 else low + 9
        expected, text = ("water (% of the year)", low, high), f", {low} to {high} % of the year"
    else:
        expected, text = ("", "", ""), ""
    assert (row["quantity"], row["low"], row["high"]) == tuple(map(str, expected))
    assert re.fullmatch(re.escape(row["group"]) + text, row["class"])
    there = legend.table().loc[value].fillna("")
    assert (there["quantity"], there["low"], there["high"]) == expected


def test_flags_are_the_legend_in_words_that_cf_permits():
    flags = legend.flags()
    values, meanings = flags["flag_values"], flags["flag_meanings"].split(" ")
    assert values == list(rows())
    assert flags["flag_colors"].split(" ") == [row["color"] for row in rows().values()]
    assert len(meanings) == len(set(meanings)) == len(values) == 111
    for word, row in zip(meanings, rows().values(), strict=True):
        assert re.fullmatch("[A-Za-z0-9_.+@-]+", word)
        plain = row["class"].lower().replace("%", "percent").replace("/", " ").replace(",", "")
        assert word == plain.replace(" ", "_")
    assert meanings[values.index(25)] == "tree_cover_terra_firma_3_m"


def test_lesson_08_counts_forest_and_water_as_a_plain_sum_does():
    cells = nbformat.read(NOTEBOOKS[7], as_version=4).cells
    shown = {
        cell.id: cell.outputs[0].data["text/plain"] for cell in cells if cell.id in ("forest-table", "water-table")
    }
    with rasterio.open(tiles.tile_path("50N_120W", 2020)) as src:
        codes = src.read(1, window=src.window(-112.5, 40.5, -111.5, 41))
    norths = np.linspace(41, 40.5, len(codes) + 1)
    geod = Geod(ellps="WGS84")
    strips = [geod.polygon_area_perimeter([0, 0, 1, 1], [n, s, s, n])[0] for n, s in pairwise(norths)]
    pixel = np.abs(strips) / 1e6 / codes.shape[1]

    def km2(*spans):
        return sum((((codes >= first) & (codes <= last)).sum(axis=1) * pixel).sum() for first, last in spans)

    trees, forest = km2((25, 48), (125, 148)), km2((27, 48), (127, 148))
    water = [km2((200 + k, 200 + k)) for k in range(8)]
    least = sum(area * (20 + 10 * k) / 100 for k, area in enumerate(water))
    most = sum(area * (29 + 10 * k + (k == 7)) / 100 for k, area in enumerate(water))
    assert most > least > 0
    for name, expected in (
        ("forest-table", [trees, trees - forest, forest]),
        ("water-table", [sum(water), least, most]),
    ):
        year, *numbers = map(float, shown[name].splitlines()[-1].split())
        assert year == 2020
        np.testing.assert_allclose(numbers, expected, atol=0.06)


def test_callers_cannot_spoil_the_legend():
    legend.table().loc[244, "color"] = "#000000"
    assert legend.table().loc[244, "color"] == "#FF7D00"


def test_each_code_is_drawn_in_its_own_color(ax):
    codes = xr.DataArray(
        np.arange(256, dtype="uint8").reshape(16, 16),
        dims=("y", "x"),
        coords={"y": np.arange(16, 0, -1.0), "x": np.arange(16.0)},
    ).rio.write_crs("EPSG:4326")
    maps.draw_land_cover(ax, codes)
    image = ax.images[0]
    drawn = (image.cmap(image.norm(np.arange(256)))[:, :3] * 255).round().astype(int)
    np.testing.assert_array_equal(drawn, [legend.palette()[v] for v in range(256)])
    assert legend.hex_colors()[244] == "#ff7d00"


def test_a_picture_shows_no_class_that_is_not_there_and_a_square_of_ground_as_a_square(ax):
    """Pixels are large on screen, and at 60 degrees a degree of longitude is half as long as one of latitude."""
    codes = xr.DataArray(
        np.array([[0, 250], [207, 38]], "uint8"), dims=("y", "x"), coords={"y": [60.5, 59.5], "x": [1.0, 3.0]}
    ).rio.write_crs("EPSG:4326")
    maps.draw_land_cover(ax, codes)
    ax.set_axis_off()
    ax.figure.canvas.draw()
    inside = ax.images[0].get_window_extent().shrunk(0.9, 0.9)
    assert inside.width == pytest.approx(inside.height, rel=0.02)
    left, bottom, right, top = map(int, inside.extents)
    height = ax.figure.canvas.get_width_height()[1]
    seen = np.asarray(ax.figure.canvas.buffer_rgba())[height - top : height - bottom, left:right, :3]
    above_the_scale = seen[: seen.shape[0] * 3 // 5].reshape(-1, 3)
    assert set(map(tuple, above_the_scale.tolist())) == {legend.palette()[code] for code in codes.values.flat}


def test_a_group_has_the_color_of_its_middle():
    assert legend.group_table()["color"]["Tree cover, terra firma"] == rows()[37]["color"]


def test_a_large_raster_is_thinned_by_bands_before_it_is_loaded(ax):
    codes = np.random.default_rng(0).choice(legend.table().index, (7_777, 5_000)).astype("uint8")

    class Reader(BackendArray):
        """A reader that also loads the pixels between the requested ones, as rioxarray does."""

        shape, dtype = codes.shape, codes.dtype

        def __getitem__(self, key):
            rows, cols = key.tuple
            return np.array(codes[rows.start : rows.stop, cols.start : cols.stop])[:: rows.step, :: cols.step]

    coords = {"y": 50 - np.arange(7_777) / 1000, "x": -120 + np.arange(5_000) / 1000}
    lazy = xr.DataArray(indexing.LazilyIndexedArray(Reader()), coords, ("y", "x")).rio.write_crs("EPSG:4326")
    tracemalloc.start()
    maps.draw_land_cover(ax, lazy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(ax.images[0].get_array(), codes[::5, ::5])
    assert peak < codes.nbytes / 2


def test_legends_below_pictures_name_what_occurs_and_nothing_else(ax, window):
    table = legend.table()
    there = [g for g in legend.groups() if np.isin(window, table.index[table["group"] == g]).any()]
    maps.draw_legend(ax.figure, [window])
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == there
    assert re.findall("</span> (.+?)</span>", maps.legend_strip(window).data) == there


def test_a_palette_cog_holds_the_same_pixels_place_and_colors(window, tmp_path):
    path = maps.write_palette_cog(window, tmp_path / "w.tif")
    with rasterio.open(path) as src:
        np.testing.assert_array_equal(src.read(1), window)
        np.testing.assert_allclose(src.bounds, window.rio.bounds(), rtol=0, atol=1e-9)
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert src.colormap(1)[244][:3] == (255, 125, 0)
        overview = src.read(1, out_shape=(src.height // 4, src.width // 4))
    assert np.isin(np.unique(overview), np.unique(window)).all(), "an overview invents no class"


def test_the_tile_server_shows_legend_colors_and_a_click_names_classes(window, tmp_path):
    client = TileClient(maps.write_palette_cog(window, tmp_path / "w.tif"))
    web_map = ipyleaflet.Map(center=(40.8, -112.2), zoom=10)
    maps.name_on_click(web_map, client)
    lon, lat = -112.2, 40.8
    code = int(window.sel(x=lon, y=lat, method="nearest"))

    def click(lat, lon):
        web_map._handle_leaflet_event(web_map, {"event": "interaction", "type": "click", "coordinates": (lat, lon)}, [])
        return web_map.controls[-1].widget.value

    assert click(lat, lon) == f"{code} ({legend.table().loc[code, 'class']})"
    assert click(0, 0) == "outside the picture"

    x, y = int((lon + 180) / 360 * 2**12), 1539  # a map tile of zoom 12 over the lake
    pixels = (imread(io.BytesIO(client.tile(12, x, y))) * 255).round().astype(int)
    shown = {tuple(map(int, color)) for color in pixels[pixels[..., 3] == 255][:, :3]}
    assert shown
    assert shown <= set(legend.palette().values())
    web_map.close()  # it keeps the client, whose file rasterio could not close at the end of the process


@pytest.mark.parametrize(
    "options",
    [{"geo": True}, {"geo": True, "tiles": "OSM"}, {"groupby": "year", "widget_location": "bottom"}],
    ids=["map", "map over streets", "with a slider"],
)
def test_the_tooltip_of_a_plot_names_classes_wherever_it_is_shown(window, options):
    raster = window[::50, ::50]
    plot = raster.expand_dims(year=[2000, 2020] if "groupby" in options else [2020]).squeeze().hvplot.image(**options)
    maps.name_on_hover(plot)
    for _ in range(2):
        shown, document = panel.panel(plot), Document()
        root = shown.get_root(document)
        document.add_root(root)
        for slider in shown.select(panel.widgets.DiscreteSlider):
            slider.value = 2020
        (hover,) = root.select({"type": HoverTool})
        assert hover.tooltips[-1] == ("land cover class", "@image{custom}")
        names = hover.formatters["@image"].args["names"]
        assert len(names) == 256
        assert {code: names[code] for code in rows()} == legend.table()["class"].to_dict()


def test_the_scale_is_that_of_the_ellipsoid(ax, window):
    maps.draw_land_cover(ax, window)
    (scale,) = (artist for artist in ax.artists if isinstance(artist, ScaleBar))
    meters = Geod(ellps="WGS84").inv(-112.5, 40.85, -111.5, 40.85)[2]
    assert scale.dx == pytest.approx(meters, rel=0.003)  # the Earth is no ball


def test_the_whole_earth_is_behind_its_maps(ax):
    maps.draw_earth(ax)
    (picture,) = ax.images
    assert tuple(picture.get_extent()) == (-180, 180, -90, 90)
    colors = picture.get_array()
    for lon, lat, blue in ((-30, 30, True), (20, 22, False)):  # the Atlantic, the Sahara
        there = colors[int((90 - lat) / 180 * colors.shape[0]), int((lon + 180) / 360 * colors.shape[1])]
        assert (there[2] > there[0]) == blue


def test_gdal_still_reads_what_is_beside_a_file_after_a_web_map(window, tmp_path):
    client = TileClient(maps.write_palette_cog(window, tmp_path / "w.tif"))
    client.tile(12, 771, 1539)
    profile = {"driver": "PNG", "width": 2, "height": 2, "count": 1, "dtype": "uint8", "nodata": 7}
    transform = rasterio.Affine(2, 0, 30, 0, -2, 40)  # both are kept in a .aux.xml
    with rasterio.open(tmp_path / "w.png", "w", transform=transform, **profile) as dst:
        dst.write(np.ones((1, 2, 2), np.uint8))
    with rasterio.open(tmp_path / "w.png") as src:
        assert (src.transform, src.nodata) == (transform, 7)


def test_browsers_find_tiles_below_the_path_of_their_server(monkeypatch, tmp_path):
    monkeypatch.delenv("LOCALTILESERVER_CLIENT_PREFIX", raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JPY_PARENT_PID", "1234")
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    assert maps.server_path() is None, "no Jupyter server"
    (tmp_path / "jpserver-1234.json").write_text('{"base_url": "/"}')
    assert maps.server_path() == "/"
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/anna/")
    assert maps.server_path() == "/user/anna/"
    monkeypatch.setattr(holoviews.extension, "inline", False, raising=False)
    monkeypatch.setenv("PANEL_NOTEBOOK_RESOURCES", "auto")
    maps.set_proxy_prefix()
    assert os.environ.pop("LOCALTILESERVER_CLIENT_PREFIX") == "/user/anna/localtileserver-proxy/{port}"
    assert holoviews.extension.inline


@pytest.mark.parametrize(("there", "name", "url"), [(False, None, "data:image/gif"), (True, "OSM", "openstreetmap")])
def test_a_web_map_has_a_street_map_only_where_its_server_answers(monkeypatch, there, name, url):
    monkeypatch.setattr(servers, "answers", lambda _: there)
    assert maps.street_map() == name
    assert url in maps.ground().url


@pytest.mark.parametrize("call", ["maps.street_map()", "doctor.CHECKS['real S3']()"])
def test_a_name_that_is_looked_up_for_long_delays_neither_answer_nor_exit(call):
    code = f"""
        import socket, time
        from workshop import doctor, maps
        socket.getaddrinfo = lambda *args, **kwargs: time.sleep(20)
        print(time.time(), {call}, time.time(), sep="|", flush=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    end = time.time()
    begin, answer, answered = done.stdout.split("|")
    assert done.returncode == 0, done.stderr
    assert answer == "None" or "not reachable" in answer
    assert float(answered) - float(begin) < 10
    assert end - float(answered) < 10


def test_what_few_lessons_need_is_imported_there():
    code = "import sys, workshop.maps; print({'cartopy', 'rio_tiler', 'ipyleaflet'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
