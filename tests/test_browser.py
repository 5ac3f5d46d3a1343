"""The lessons in a real browser: JupyterLab as ``make lab`` starts it, cells run through the menu.

Screenshots are kept in ``tests/screenshots/``.
"""

import contextlib
import json
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import psutil
import pytest
from browser import PATIENCE, keep, needs_browser, pixels, severe, wait
from conftest import MEMORY_LIMIT, NOTEBOOKS, ROOT, cells, peak_memory
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from workshop import legend

pytestmark = needs_browser
LIVE = [path for path in NOTEBOOKS if path.stem[:2] in ("02", "03", "05")]  # the lessons with maps and plots to use
STILL = [path for path in NOTEBOOKS if path not in LIVE]
BEHIND_A_PATH = {LIVE[0]: "/user/anna/"}  # as on JupyterHub and Binder; the others are at the root
PANEL_CDN = "https://cdn.holoviz.org/panel/"
LAB_FLAGS = ["--LabApp.expose_app_in_browser=True", "--allow-root"]  # containers run as root


def copy_notebooks(folder):
    """Copy the notebooks and what they link to, because a run changes them."""
    for name in ("notebooks", "solutions", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))


def free_ports(count):
    with contextlib.ExitStack() as held:  # until all are known
        servers = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def start(command, folder, ready, env=None):
    """Start a server in a folder, and return its process when an address answers."""
    log = folder / "server.log"
    with log.open("w") as file:
        process = psutil.Popen(command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT)
    for _ in range(PATIENCE):
        with contextlib.suppress(OSError), urllib.request.urlopen(ready, timeout=10):
            return process
        time.sleep(0.5)
    process.terminate()
    raise RuntimeError(f"{command} did not start:\n{log.read_text()}")


class Lab:
    """A JupyterLab on 127.0.0.1."""

    def __init__(self, folder, base_url="/"):
        copy_notebooks(folder)
        (port,), token = free_ports(1), secrets.token_hex(8)
        self.url = f"http://127.0.0.1:{port}{base_url}"
        self.query = f"token={token}"
        command = [sys.executable, "-m", "jupyter", "lab", f"--ServerApp.root_dir={folder}", "--no-browser"]
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
        command += [f"--ServerApp.base_url={base_url}", f"--LabApp.workspaces_dir={folder / 'workspaces'}", *LAB_FLAGS]
        self._process = start(command, folder, f"{self.url}api/status?{self.query}")

    def kernel_memory(self):
        (kernel,) = (child for child in self._process.children() if "ipykernel_launcher" in child.cmdline())
        return peak_memory(kernel.pid)

    def close(self):
        self._process.terminate()
        self._process.wait(timeout=60)


def failures(driver):
    """Return the errors on the console behind a path: Panel looks there for style sheets in the internet."""
    return [error for error in severe(driver) if not (error.startswith(PANEL_CDN) and ".css" in error)]


# the notebook's panel; in a browser without a window no widget is the current one
PANEL = """
const panel = Array.from(window.jupyterapp?.shell.widgets('main') ?? []).find(widget => widget.content?.model?.cells);
const code = Array.from(panel?.content.model.cells ?? []).filter(cell => cell.type === 'code');
const idle = panel?.sessionContext.isReady && panel.sessionContext.session?.kernel?.status === 'idle';
"""


class Page:
    """A notebook in JupyterLab, as a person sees it."""

    def __init__(self, driver, lab, path):
        self.driver, self.lab, self.path = driver, lab, path
        self.cells = cells(path)
        self.responses = []  # (status, type, address) of all that the browser got
        driver.get(f"{lab.url}lab/tree/{path.parent.name}/{path.name}?reset&{lab.query}")
        self.wait(lambda: self.js(f"{PANEL} return code.length && idle"))

    def wait(self, condition, seconds=PATIENCE, message=""):
        return wait(self.driver, condition, message, seconds)

    def js(self, script, *args):
        return self.driver.execute_script(script, *args)

    def choose(self, menu, command):
        """Click an item of a menu, as a person would."""
        item = f"//div[contains(@class,'lm-MenuBar-itemLabel') and text()='{menu}']"
        self.driver.find_element(By.XPATH, item).click()
        self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, f"li[data-command='{command}']"))[0].click()

    def run_all(self, seconds):
        self.driver.find_element(By.CSS_SELECTOR, ".jp-Notebook .jp-MarkdownCell").click()
        self.choose("Edit", "editmenu:clear-all")
        self.choose("Run", "runmenu:run-all")

        # asked often, so without the outputs; Run All ends at an error, with the kernel idle
        done = f"""{PANEL}
            const types = code.flatMap(cell => Array.from(cell.outputs, (_, i) => cell.outputs.get(i).type));
            return idle && (types.includes('error') || code.every(cell => cell.executionCount));"""
        self.wait(lambda: self.js(done), seconds, "the cells did not come to an end")
        bad = "output => output.output_type === 'error' || output.name === 'stderr'"
        assert self.js(f"{PANEL} return code.flatMap(cell => cell.outputs.toJSON()).filter({bad})") == []

    def cell_with(self, text):
        """Return the index of the code cell whose source holds a text, or None."""
        return next((i for i, c in enumerate(self.cells) if c.cell_type == "code" and text in c.source), None)

    def show(self, index):
        """Scroll to a cell of the notebook's file, and return its element."""
        self.js(f"{PANEL} panel.content.activeCellIndex = arguments[0]", index)
        # JupyterLab puts cells into the page one by one while it is idle, which a busy machine seldom is
        there = f"{PANEL} return panel.content.widgets[arguments[0]].node.isConnected"
        self.wait(lambda: self.js(there, index), 5 * PATIENCE, f"cell {index} was not put into the page")
        self.driver.execute_async_script(
            f"{PANEL} panel.content.scrollToItem(arguments[0], 'start').then(() => setTimeout(arguments[1], 500))",
            index,
        )
        return self.js(f"{PANEL} return panel.content.widgets[arguments[0]].node", index)

    def find(self, root, test):
        """Wait for an element under another one, also in Bokeh's shadow roots, and return it."""
        return self.wait(lambda: self.js(FIND + f"return find(arguments[0], e => {test})", root))

    def keep(self, what):
        keep(self.driver, f"{self.path.stem}-{what}")

    def traffic(self):
        """Return all answers so far."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.responseReceived":
                response = message["params"]["response"]
                self.responses.append((response["status"], response["mimeType"], response["url"]))
        return self.responses


CENTER = "arguments[0].scrollIntoView({block: 'center'})"
FIND = """
const find = (root, test) => {
    for (const element of root.querySelectorAll('*')) {
        if (test(element)) return element;
        const found = element.shadowRoot && find(element.shadowRoot, test);
        if (found) return found;
    }
    return null;
};
"""
# the extents of datashader's pictures along the x axis: [left, width]
EXTENTS = """
return window.Bokeh.documents.flatMap(d => Array.from(d._all_models.values()))
    .filter(model => model.type === 'ColumnDataSource' && model.data.image?.length)
    .map(model => [model.data.x[0], model.data.dw[0]]);
"""


def share(png, colors):
    """Return the share of a picture's pixels that have exactly one of some colors."""
    return np.isin(pixels(png) @ [65536, 256, 1], [int(color[1:], 16) for color in colors]).mean()


def differ(png, other):
    """Return the share of pixels that differ between two pictures."""
    a, b = pixels(png), pixels(other)
    return 1.0 if a.shape != b.shape else (a != b).any(-1).mean()


def seen(page, element):
    """Wait until an element shows land cover, and return its picture."""
    colors = set(legend.table()["color"]) - {"#FFFFFF"}  # snow is as white as the page
    page.wait(lambda: share(element.screenshot_as_png, colors) > 0.25, message="no land cover in the legend's colors")
    return element.screenshot_as_png


def look_at_web_map(page):
    """The raster's tiles were requested, arrived as pictures, and appear in the legend's colors."""
    cell = page.show(page.cell_with("ipyleaflet.Map("))
    frame = page.wait(lambda: cell.find_elements(By.CSS_SELECTOR, ".leaflet-container"))[0]
    page.js(CENTER, frame)

    def tiles():
        return [r for r in page.traffic() if "/localtileserver-proxy/" in r[2] and "/api/tiles/" in r[2]]

    page.wait(tiles, message="the raster's tiles were not asked for")
    seen(page, frame)
    assert {(status, kind) for status, kind, _ in tiles()} == {(200, "image/png")}
    assert cell.find_elements(By.CSS_SELECTOR, ".leaflet-control-scale-line")
    page.keep("map")
    if "name_on_click" in page.cells[page.cell_with("ipyleaflet.Map(")].source:
        lake = frame.size["width"] // -6
        ActionChains(page.driver).move_to_element_with_offset(frame, lake, 0).click().perform()
        page.wait(lambda: "207 (Open surface water" in cell.text)
        page.keep("map-clicked")
    if divider := cell.find_elements(By.CSS_SELECTOR, "input.leaflet-sbs-range"):
        assert share(frame.screenshot_as_png, ["#111133"]) > 0.01, "the stripes of the defect"
        to_the_left = 30 - frame.size["width"] // 2
        ActionChains(page.driver).drag_and_drop_by_offset(divider[0], to_the_left, 0).perform()
        page.wait(lambda: share(frame.screenshot_as_png, ["#111133"]) < 0.001)
        page.keep("map-divided")


def look_at_tooltip(page, canvas):
    """Pointing at a place shows its class as the legend names it, with the code of the color drawn there."""
    # Bokeh puts it at the end of the page, not into the cell
    text = FIND + "return find(document, e => e.classList.contains('bk-tooltip-content'))?.textContent"

    def leave():
        ActionChains(page.driver).move_to_element(page.driver.find_element(By.ID, "jp-MainLogo")).perform()
        page.wait(lambda: page.js(text) is None, message="the tooltip stays")

    def named():
        leave()
        picture = pixels(canvas.screenshot_as_png)
        height, width, _ = picture.shape
        x, y = width * 4 // 5, height // 2
        place = picture[y - 1 : y + 2, x - 1 : x + 2]  # the pointer is between pixels
        ActionChains(page.driver).move_to_element_with_offset(canvas, x - width // 2, y - height // 2).perform()
        shown = page.wait(lambda: page.js(text), message="no tooltip")
        found = re.search(r": ([^:]+) \((\d+)\)\s*$", shown)
        assert found, f"expected a class's name and code, found {shown}"
        name, code = found[1], int(found[2])
        assert name == legend.table()["class"][code]
        return int(legend.hex_colors()[code][1:], 16) in place @ [65536, 256, 1]

    page.wait(named, message="the tooltip names another class than the one that is drawn")
    page.keep("plot-tooltip")
    leave()


def look_at_plot(page):
    """The canvas shows the legend's colors, and the pointer names the class.

    Zooming requests a new picture from datashader, and so does another year.
    """
    cell = page.show(page.cell_with(".hvplot.image("))
    canvas = page.find(cell, "e.tagName === 'CANVAS'")
    page.js(CENTER, canvas)
    before = seen(page, canvas)
    page.keep("plot")
    look_at_tooltip(page, canvas)
    tool = page.find(cell, "e.title?.startsWith('Wheel Zoom')")
    if "bk-active" not in tool.get_attribute("class"):
        tool.click()
    extents = page.js(EXTENTS)
    ActionChains(page.driver).move_to_element(canvas).scroll_from_origin(
        ScrollOrigin.from_element(canvas), 0, -300
    ).perform()
    page.wait(lambda: page.js(EXTENTS) != extents, message="zooming brought no new picture from datashader")
    (left, width), (new_left, new_width) = extents[0], page.js(EXTENTS)[0]
    assert new_width < 0.8 * width
    assert left < new_left < new_left + new_width < left + width
    page.wait(lambda: differ(canvas.screenshot_as_png, before) > 0.05)
    look_at_tooltip(page, canvas)
    before = seen(page, canvas)
    page.keep("plot-zoomed")
    if "groupby=" in page.cells[page.cell_with(".hvplot.image(")].source:
        page.find(cell, "e.classList.contains('noUi-handle')").send_keys(Keys.ARROW_RIGHT)
        page.wait(lambda: differ(canvas.screenshot_as_png, before) > 0.01)
        look_at_tooltip(page, canvas)
        seen(page, canvas)
        page.keep("plot-next-year")


def look_at_checks(page):
    """Each check shows its mark and verdict."""
    for index, cell in enumerate(page.cells):
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("check-"):
                verdict = f"○ {tag.removeprefix('check-')}: not attempted yet"
                page.wait(lambda: verdict in page.show(index).text, message=verdict)  # noqa: B023
    page.keep("check")


def look_at_pictures(page):
    """Each stored picture is there."""
    whole = "return [...arguments[0].querySelectorAll('.jp-RenderedImage img')].filter(e => e.naturalWidth).length"
    for index, cell in enumerate(page.cells):
        stored = sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        if stored:
            page.wait(lambda: page.js(whole, page.show(index)) == stored, message=cell.source)  # noqa: B023


def answer(page, name, source):
    """Write an answer into an exercise, run it and its check, and return the check's element."""
    cell, check = (
        next(i for i, c in enumerate(page.cells) if f"{kind}-{name}" in c.metadata.get("tags", []))
        for kind in ("exercise", "check")
    )
    page.js(f"{PANEL} panel.content.widgets[arguments[0]].model.sharedModel.setSource(arguments[1])", cell, source)
    for index in (cell, check):
        page.show(index).click()
        page.choose("Run", "runmenu:run")
    return page.show(check)


def look_at_answers(page):
    """A wrong answer shows its mark and a hint, a right one its mark."""
    shown = answer(page, "02-2", "built_up_km2 = 50")
    page.wait(lambda: "✗ 02-2: not right yet" in shown.text)
    page.keep("check-wrong")
    shown = answer(page, "02-2", "built_up_km2 = (window == 250).sum().item() * pixel_size(40.75)['area (m²)'] / 1e6")
    page.wait(lambda: "✓ 02-2: right" in shown.text)
    page.keep("check-right")


def look_at_the_glossary(page):
    """A link to the glossary opens it at the term."""
    link = re.compile(r"\]\(\.\./docs/glossary\.md#([^)]+)\)")
    index, term = next((i, link.search(c.source)[1]) for i, c in enumerate(page.cells) if link.search(c.source))
    page.show(index).find_element(By.CSS_SELECTOR, "a[href*='glossary']").click()
    in_view = """
        const heading = document.querySelector(`[data-jupyter-id="${arguments[0]}"]`);
        const top = heading?.getBoundingClientRect().top;
        return top > 0 && top < innerHeight;
    """
    page.wait(lambda: page.js(in_view, term))
    page.keep("glossary")


@pytest.fixture(scope="module")
def lab_at(tmp_path_factory):
    """Return a function that returns the JupyterLab under a path, and starts it on the first call."""
    labs = {}

    def start_once(path):
        if path not in labs:
            labs[path] = Lab(tmp_path_factory.mktemp("lab"), path)
        return labs[path]

    yield start_once
    for lab in labs.values():
        lab.close()


@pytest.fixture
def tab(driver):
    """Return the browser with a new tab and empty logs."""
    before = driver.current_window_handle
    driver.switch_to.new_window("tab")
    driver.execute_cdp_cmd("Page.bringToFront", {})  # what is behind is not laid out
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    yield driver
    driver.close()
    driver.switch_to.window(before)


@pytest.fixture
def page(lab_at, tab, path):
    """Return a newly opened lesson. Afterward, check that it made no requests elsewhere and that nothing failed."""
    lab = lab_at(BEHIND_A_PATH.get(path, "/"))
    try:
        page = Page(tab, lab, path)
        yield page
        addresses = [address for _, _, address in page.traffic() if address.startswith("http")]
        if path.stem.startswith("09"):  # it shows a page of its own, which reads the lesson's bucket
            addresses = [address for address in addresses if not address.startswith("http://127.0.0.1:")]
        # nor of the root of the address
        assert [address for address in addresses if not address.startswith(lab.url)] == []
        assert (failures(tab) if path in BEHIND_A_PATH else severe(tab)) == []
    finally:
        keep(tab, f"{path.stem}-last")
        tab.execute_script(f"{PANEL} return panel?.sessionContext.shutdown()")


def every(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@every([LIVE[0], pytest.param(LIVE[1], marks=pytest.mark.soak), *LIVE[2:]])
def test_a_lesson_in_the_browser(page, path):
    page.run_all(600)
    views = {"ipyleaflet.Map(": look_at_web_map, ".hvplot.image(": look_at_plot}
    there = [look for code, look in views.items() if page.cell_with(code) is not None]
    assert there
    for look in there:
        look(page)
    look_at_checks(page)
    if path == LIVE[0]:
        look_at_answers(page)
        look_at_the_glossary(page)
    assert page.lab.kernel_memory() < MEMORY_LIMIT


@every([path for path in STILL if path.name[:2] == "04"])
def test_a_lesson_just_opened_in_the_browser(page, path):
    """The notebook is opened with its stored outputs; it has most kinds of still pictures."""
    look_at_checks(page)
    look_at_pictures(page)


@pytest.mark.soak
@every(STILL)
def test_a_still_lesson_run_in_the_browser(page, path):
    look_at_pictures(page)
    page.run_all(600)
    look_at_checks(page)
    if path.stem.startswith("09"):
        page.wait(
            lambda: any("/plain.zarr/0/year/c/0" in address for _, _, address in page.traffic()),
            message="the bucket was not asked",
        )
    assert page.lab.kernel_memory() < MEMORY_LIMIT
