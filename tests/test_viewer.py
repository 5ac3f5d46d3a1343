"""The viewer that ``make viewer`` builds: it reads a bucket, uses the legend's colors, and reports faults.

The expected maps are computed from the tiles with rasterio alone.
"""

import json
import os
import re
import shutil
import urllib.parse

import numpy as np
import pytest
import rasterio
import rasterio.windows
from browser import DRIVER, barriers, pixels, severe, wait
from conftest import ROOT
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tools import window
from workshop import legend, servers, stores, tiles

BUILT = ROOT / "build" / "viewer"
SOURCES = [path for path in (ROOT / "viewer").iterdir() if path.is_file()]
YEARS = (2000, 2020)
WEST, NORTH, PIXEL, CHUNK = -112.5, 41.0, 0.00025, 500
ONE_TO_ONE = 4  # the zoom at which a pixel of the store is one of the screen
CENTER = (-111.78242, 40.70058)  # between a city and a forest, and not on a pixel's edge
CODES = legend.flags()["flag_values"]
MEANINGS = [name.replace("_", " ") for name in legend.flags()["flag_meanings"].split()]
NAMES = dict(zip(CODES, MEANINGS, strict=True))

pytestmark = pytest.mark.skipif(
    not (DRIVER and (BUILT / "index.html").is_file()) and not os.environ.get("CI"),
    reason="no chromedriver on this machine, or no viewer (`make viewer` builds it, with npm)",
)


@pytest.fixture(scope="module")
def page():
    """Return the server of the page, which has a different origin from the bucket."""
    assert (BUILT / "index.html").is_file(), "`make test` should have built the viewer; npm is needed"
    newest = max(path.stat().st_mtime for path in SOURCES)
    assert (BUILT / "index.html").stat().st_mtime >= newest, "viewer/ has changed: run `make viewer`"
    with servers.serve_folder(BUILT) as server:
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "window.zarr"
    window.write(folder, YEARS)
    return folder


@pytest.fixture(scope="module")
def beside(store, tmp_path_factory):
    """Return a server of a folder that holds a store with the page, and its folder."""
    folder = shutil.copytree(store, tmp_path_factory.mktemp("beside") / "both")
    shutil.copytree(BUILT, folder, dirs_exist_ok=True)
    with servers.serve_folder(folder) as server:
        yield server, folder


@pytest.fixture(scope="module")
def counted():
    bucket, server = stores.counted_bucket()
    with server:
        yield bucket, server


@pytest.fixture
def s3(counted):
    """Return the server of the bucket, which counts from zero."""
    counted[1].reset()
    return counted[1]


@pytest.fixture(scope="module")
def public(counted, store):
    """Return the address of the store in a bucket that all pages can read."""
    bucket, server = counted
    client = bucket.client()
    for path in store.rglob("*"):
        if path.is_file():
            client.upload_file(path, bucket.name, f"window.zarr/{path.relative_to(store).as_posix()}")
    objects = f"arn:aws:s3:::{bucket.name}/*"
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": objects}
    policy = {"Version": "2012-10-17", "Statement": [everybody]}
    client.put_bucket_policy(Bucket=bucket.name, Policy=json.dumps(policy))
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET", "HEAD"], "AllowedHeaders": ["*"]}
    client.put_bucket_cors(Bucket=bucket.name, CORSConfiguration={"CORSRules": [rule]})
    return f"{server.url}/{bucket.name}/window.zarr"


def text(driver, name):
    return driver.find_element(By.ID, name).text


def go(driver, server, **parameters):
    """Open the page, and wait until it shows a map or an error."""
    driver.get(f"{server.url}/index.html?{urllib.parse.urlencode(parameters)}")
    done = "return document.querySelector('#map[aria-busy=false], #message:not([hidden])') !== null"
    wait(driver, lambda: driver.execute_script(done))


def settled(driver):
    return driver.find_element(By.ID, "map").get_attribute("aria-busy") == "false"


def asked(server):
    """Return the paths requested from a server, without the address of the store."""
    return {re.sub(r".*window\.zarr/", "", request.path) for request in server.requests if request.status < 400}


def source(year):
    """Return the codes and colors of the window from the tile."""
    with rasterio.open(tiles.tile_path("50N_120W", year)) as tile:
        box = rasterio.windows.from_bounds(WEST, 40.5, -111.5, NORTH, tile.transform)
        colors = np.array([tile.colormap(1)[code][:3] for code in range(256)], np.uint8)
        return tile.read(1, window=box), colors


def view(driver):
    """Return the place of the map on the screen: left, top, width, height."""
    box = driver.execute_script("return document.querySelector('.ol-viewport').getBoundingClientRect()")
    found = [box[side] for side in ("x", "y", "width", "height")]
    assert [round(side) for side in found] == found, found
    return [int(side) for side in found]


def pixels_in_view(driver):
    """Return the rows and columns of the source's pixels on the screen, at one to one."""
    _, _, width, height = view(driver)
    x = CENTER[0] + (np.arange(width) + 0.5 - width / 2) * PIXEL
    y = CENTER[1] - (np.arange(height) + 0.5 - height / 2) * PIXEL
    return np.floor((NORTH - y) / PIXEL).astype(int), np.floor((x - WEST) / PIXEL).astype(int)


def shows(driver, picture):
    """Whether the map on the screen, without its controls, has these colors."""
    if not settled(driver):
        return False
    style = "Object.assign(document.createElement('style'), {textContent: arguments[0]})"
    driver.execute_script(f"document.head.append({style})", ".ol-zoom, #map::after { visibility: hidden }")
    left, top, width, height = view(driver)
    shot = pixels(driver.get_screenshot_as_png())
    return np.array_equal(shot[top : top + height, left : left + width], picture)


def test_the_page_gets_an_overview_from_the_bucket_and_nothing_from_elsewhere(driver, page, public, s3):
    page.reset()
    severe(driver)
    go(driver, page, store=public)
    assert asked(page) == {"/index.html", "/viewer.css", "/viewer.js"}
    assert asked(s3) == {"zarr.json", "0/year/c/0", "1/lulc/c/0/0/0"}
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(link.startswith((page.url, s3.url, "data:")) for link in loaded), loaded
    assert severe(driver) == []
    assert text(driver, "title") == driver.title != ""
    about = text(driver, "attributes")
    assert all(part in about for part in ("CC-BY-4.0", "SYNTHETIC", "https://doi.org/10.3389/frsen.2022.856903"))
    link = driver.find_element(By.CSS_SELECTOR, "#attributes a")
    assert link.get_attribute("href") == link.text


def test_the_legend_is_that_of_the_store(driver, page, public):
    go(driver, page, store=public)
    rows = driver.execute_script(
        """return [...document.querySelectorAll("#legend li")].map(row =>
            [row.querySelector(".code").innerText, getComputedStyle(row.firstChild).backgroundColor, row.innerText])"""
    )
    _, colors = source(2000)
    assert [int(code) for code, _, _ in rows] == legend.table().index.tolist()
    for code, color, _ in rows:
        assert color == "rgb({}, {}, {})".format(*colors[int(code)])
    assert all(NAMES[int(code)] in words for code, _, words in rows)


def test_each_pixel_has_the_color_of_its_class_and_the_year_changes_them(driver, page, public, s3):
    go(driver, page, store=public, x=CENTER[0], y=CENTER[1], z=ONE_TO_ONE)
    rows, cols = pixels_in_view(driver)
    chunks = {f"{i}/{j}" for i in set(rows // CHUNK) for j in set(cols // CHUNK)}
    pictures = []
    for index, year in enumerate(YEARS):
        codes, colors = source(year)
        pictures.append(colors[codes[np.ix_(rows, cols)]])
        wait(driver, lambda: shows(driver, pictures[-1]), f"other colors than in the tile of {year}")
        assert asked(s3) - {"zarr.json", "0/year/c/0"} == {f"0/lulc/c/{index}/{chunk}" for chunk in chunks}
        assert text(driver, "dimensions").split() == ["year", str(year)]
        s3.reset()
        driver.find_element(By.CSS_SELECTOR, "#dimensions input").send_keys(Keys.END)
    assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) > 10
    assert (pictures[0] != pictures[1]).any(-1).mean() > 0.01
    assert "year=2020" in driver.current_url
    driver.refresh()  # the address says the same again
    wait(driver, lambda: shows(driver, pictures[-1]))
    assert not [path for path in asked(s3) if path.startswith("0/lulc/c/0/")]


def test_zooming_in_by_keyboard_fetches_another_level(driver, page, public, s3):
    go(driver, page, store=public, x=CENTER[0], y=CENTER[1], z=2)
    assert "Level 1: each cell is the mode of 8 × 8 pixels" in text(driver, "level")
    assert not [path for path in asked(s3) if path.startswith("0/lulc")]
    driver.find_element(By.ID, "map").send_keys("+")
    wait(driver, lambda: "Level 0: the pixels themselves" in text(driver, "level"))
    wait(driver, lambda: settled(driver))
    assert [path for path in asked(s3) if path.startswith("0/lulc")]
    place = text(driver, "here")
    driver.find_element(By.ID, "map").send_keys(Keys.ARROW_RIGHT)
    wait(driver, lambda: text(driver, "here") != place)


@pytest.mark.parametrize(("center", "zoom", "factor"), [(CENTER, ONE_TO_ONE, 1), ((-111.98642, 40.74058), 2.4, 8)])
def test_the_class_under_the_pointer_is_that_of_the_source(driver, page, public, center, zoom, factor):
    go(driver, page, store=public, x=center[0], y=center[1], z=zoom, year=2020)
    codes, _ = source(2020)
    _, _, width, height = view(driver)
    found = set()
    for right, down in [(0, 0), (-350, -60), (190, 80), (330, -90), (-160, 50), (400, 7)]:
        map_ = driver.find_element(By.CLASS_NAME, "ol-viewport")
        ActionChains(driver).move_to_element_with_offset(map_, right, down).perform()
        resolution = PIXEL * 2 ** (ONE_TO_ONE - zoom)
        # the pointer is at a whole pixel of the screen
        x = center[0] + (width // 2 + right - width / 2) * resolution
        y = center[1] - (height // 2 + down - height / 2) * resolution
        row, col = int((NORTH - y) / PIXEL / factor) * factor, int((x - WEST) / PIXEL / factor) * factor
        code = np.bincount(codes[row : row + factor, col : col + factor].ravel()).argmax()
        expected = f"{NAMES[code]} ({code}) at "
        wait(driver, lambda: text(driver, "here").startswith(expected), f"not {expected}")  # noqa: B023
        told = [float(number) for number in text(driver, "here").removeprefix(expected).split(", ")]
        assert told == pytest.approx([x, y], abs=resolution)
        found.add(code)
    assert len(found) > 2


def test_what_was_never_written_has_the_color_of_its_class(driver, beside):
    server, folder = beside
    shutil.rmtree(folder / "0" / "lulc" / "c" / "0" / "0")
    go(driver, server, x=-112.18758, y=40.93758, z=ONE_TO_ONE + 2)
    wait(driver, lambda: text(driver, "here").startswith("no data (255) at"))
    _, _, width, height = view(driver)
    assert legend.hex_colors()[legend.NODATA] == "#000000"
    assert shows(driver, np.zeros((height, width, 3)))


def test_a_broken_chunk_is_told(driver, beside):
    server, folder = beside
    (folder / "0" / "lulc" / "c" / "0" / "3" / "2").write_bytes(b"not zstd")
    go(driver, server, x=-112.2, y=40.55, z=ONE_TO_ONE + 1)
    assert "A part of the map could not be read" in text(driver, "message")


LEVELS = ("attributes", "multiscales", "layout")
ARRAYS = ("consolidated_metadata", "metadata")
ARRAY = (*ARRAYS, "0/lulc", "attributes")
# where in the metadata, what is there instead (None: nothing), and what the page says
FIRST_FAULTS = [
    (("consolidated_metadata",), None, "no consolidated metadata"),
    (("attributes", "multiscales"), None, "has no levels"),
    ((*LEVELS, 0, "spatial:transform"), [PIXEL, 0, WEST, 0, PIXEL, 40.5], "rows from north to south"),
    ((*ARRAY, "flag_colors"), None, "flag_colors"),
]
MORE_FAULTS = [
    (("attributes", "spatial:bbox"), None, "has no levels"),
    ((*LEVELS, 1, "spatial:transform"), [8 * PIXEL, 0, WEST + 0.001, 0, -8 * PIXEL, NORTH], "level 1"),
    ((*ARRAYS, "2/lulc"), None, "found none in 2"),
    ((*ARRAY, "flag_values"), None, "flag_values"),
    ((*ARRAY, "flag_meanings"), "forest desert", "found 2 names"),
    ((*ARRAY, "flag_colors"), " ".join(["reddish"] * len(CODES)), "reddish"),
    ((*ARRAY, "flag_values"), [1000, *CODES[1:]], "found 1000"),
]


@pytest.mark.parametrize("faults", [FIRST_FAULTS, pytest.param(MORE_FAULTS, marks=pytest.mark.soak)], ids=len)
def test_a_store_that_cannot_be_shown_says_what_it_lacks(driver, beside, faults):
    server, folder = beside
    for path, value, message in faults:
        metadata = here = json.loads((folder / "zarr.json").read_text())
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = value
        if value is None:
            del here[path[-1]]
        name = f"fault-{len(list(folder.iterdir()))}"
        (folder / name).mkdir()
        (folder / name / "zarr.json").write_text(json.dumps(metadata))
        go(driver, server, store=name)
        assert message in text(driver, "message"), path
        assert driver.find_element(By.ID, "address").is_displayed()
        assert not driver.find_element(By.ID, "map").is_displayed()


def test_a_store_that_cannot_be_reached_says_why(driver, page, beside, s3, store, public):
    closed = servers.serve_folder(store)
    closed.close()
    server, folder = beside
    (folder / "words").mkdir()
    (folder / "words" / "zarr.json").write_text("<h1>Welcome")
    told = {
        server.url: "CORS",  # there, and of another origin
        closed.url: "No server answers",
        f"{page.url}/elsewhere": "status 404",
        f"{s3.url}/nobody/none": "CORS",
        "s3://bucket/window.zarr": "begins with https://",
        "javascript:alert(1)": "begins with https://",
    }
    for address, message in told.items():
        go(driver, page, store=address)
        assert message in text(driver, "message"), address
    go(driver, server, store="words")
    assert 'found "<h1>Welcome"' in text(driver, "message")
    # the form leads out of it, also with the address of the metadata itself
    address = driver.find_element(By.ID, "address")
    address.clear()
    address.send_keys(f"{public}/zarr.json", Keys.ENTER)
    wait(driver, lambda: settled(driver))


def test_a_browser_without_webgl_says_so(driver, beside):
    script = {"source": "HTMLCanvasElement.prototype.getContext = () => null"}
    added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    go(driver, beside[0])
    driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    assert "WebGL" in text(driver, "message")
    assert "true desert" in text(driver, "legend")


def test_axe_finds_no_barrier(driver, page, public):
    elsewhere = f"{page.url}/elsewhere"
    try:
        for store, width, theme in (
            (public, 1366, "light"),
            (public, 1366, "dark"),
            (public, 360, "light"),
            (elsewhere, 360, "dark"),
        ):
            size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            go(driver, page, store=store)
            assert not barriers(driver)
            dark = driver.execute_script("return getComputedStyle(document.body).color") != "rgb(0, 0, 0)"
            assert dark == (theme == "dark")
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
