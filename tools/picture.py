"""The picture at the top of the README, docs/_static/cube.png: ``make picture``.

It shows the sample tiles, a cube built from them, and the viewer (``make viewer``) in a browser.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

import icechunk
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
import zarr
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.image import imread
from matplotlib.patches import Patch
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tools import window
from workshop import datacube, legend, maps, repository, sample, servers, tiles, world

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "_static" / "cube.png"
VIEWER = ROOT / "build" / "viewer"
BOX = tiles.Box(west=-112.5, south=40.75, east=-112.4, north=41.0)  # lesson 05 repairs it
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#E69F00", "#009E73", "#767676"


def build() -> icechunk.Repository:
    """Return a cube with a history: one commit per year, a release, a repair, and a draft on its own branch."""
    repo = datacube.build(icechunk.in_memory_storage())
    release = repo.lookup_branch("main")
    repo.create_tag("v1.0", release)
    last = repository.read(repo).sel(year=2020)
    patch = tiles.select_box(last, BOX)
    datacube.write_region(repo, 2020, patch.copy(data=np.full_like(patch, 10)), message="Repair 2020 in the west")
    repo.create_tag("v1.1", repo.lookup_branch("main"))
    repo.create_branch("draft", release)
    session = repo.writable_session("draft")
    lulc = zarr.open_array(session.store, path="lulc", mode="r+")
    water = legend.table().query("group == 'Open surface water'").index
    lulc[-1] = np.where(np.isin(lulc[-1], water), legend.NODATA, lulc[-1])
    session.commit("Try 2020 without water")
    return repo


def draw_years(part: SubFigure, cube: xr.DataArray) -> None:
    """Draw one map per year, and a legend of the groups that occur."""
    small = world.coarsen(cube.load(), 8)
    for ax, year in zip(part.subplots(1, small.sizes["year"]), small.year.values, strict=True):
        maps.draw_land_cover(ax, small.sel(year=year))
        for artist in ax.artists:  # a scale bar on every map is too much
            artist.remove()
        ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
        ax.set_title(str(year), fontsize=17)
    groups = legend.groups_in(small.values)
    handles = [Patch(facecolor=color, edgecolor="0.5", label=name) for name, color in groups.items()]
    part.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=13, columnspacing=1, handlelength=1.2)
    shape = " x ".join(f"{size:,}" for size in cube.shape)
    part.suptitle(f"One cube: {cube.name} ({', '.join(cube.dims)}), {shape} pixels", fontsize=19, weight="bold")


def draw_history(ax: Axes, repo: icechunk.Repository) -> None:
    """Draw the snapshots of ``main`` and ``draft``, the newest first, with tags; without ids, which are random."""
    main, draft = (list(repo.ancestry(branch=name)) for name in ("main", "draft"))
    own = [snapshot for snapshot in draft if snapshot.id not in {s.id for s in main}]
    tags = {repo.lookup_tag(tag): tag for tag in repo.list_tags()}
    heads = {repo.lookup_branch(name): name for name in repo.list_branches()}
    rows = [main[0], *own, *main[1:]]
    spots = {snapshot.id: (0.7 * (snapshot in own), -number) for number, snapshot in enumerate(rows)}
    for snapshot in rows:
        x, y = spots[snapshot.id]
        color = GREEN if x else BLUE
        if snapshot.parent_id:
            x_before, y_before = spots[snapshot.parent_id]
            ax.plot([x, x, x_before], [y, y_before + 0.6, y_before], color=GRAY, linewidth=3, zorder=1)
        ax.plot(x, y, "o", markersize=17, color=color, zorder=2)
        drawn = ax.text(1.3, y, snapshot.message, fontsize=15, va="center")
        for label, edge in ((tags.get(snapshot.id), ORANGE), (heads.get(snapshot.id), color)):
            if label:
                box = {"facecolor": "white", "edgecolor": edge, "boxstyle": "round,pad=0.25", "linewidth": 2}
                beside = {"xycoords": drawn, "textcoords": "offset points", "va": "center"}
                drawn = ax.annotate(label, (1, 0.5), (14, 0), fontsize=14, bbox=box, **beside)
    ax.set(xlim=(-0.3, 10), ylim=(-len(rows) + 0.4, 0.6))
    ax.axis("off")


def look(folder: Path, width: int) -> np.ndarray:
    """Return a screenshot of the viewer's page with the sample, this wide and as high as the page."""
    sys.path.append(str(ROOT / "tests"))
    from browser import PATIENCE, make_driver  # the tests' browser

    window.write(folder / "store")
    shutil.copytree(VIEWER, folder / "store", dirs_exist_ok=True)
    with make_driver(folder, (width, 800)) as driver, servers.serve_folder(folder / "store") as server:
        driver.get(f"{server.url}/index.html?year=2015")
        drawn = (By.CSS_SELECTOR, "#map[aria-busy=false]")
        WebDriverWait(driver, PATIENCE).until(lambda _: driver.find_elements(*drawn))
        height = "return document.documentElement.scrollHeight + outerHeight - innerHeight"
        driver.set_window_size(width, driver.execute_script(height))
        WebDriverWait(driver, PATIENCE).until(lambda _: driver.find_elements(*drawn))
        return imread(io.BytesIO(driver.get_screenshot_as_png()))


def main() -> None:
    """Draw the picture and store it."""
    sample.ensure_tiles()
    repo = build()
    with tempfile.TemporaryDirectory() as folder:
        page = look(Path(folder), 1100)
    figure = plt.figure(figsize=(16, 9.4), layout="constrained", dpi=100)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    above, below, note = figure.subfigures(3, 1, height_ratios=[3.7, 5.3, 0.4])
    draw_years(above, repository.read(repo))
    left, right = below.subfigures(1, 2, width_ratios=[6.6, 9.4])
    left.suptitle("Its history: commits, branches, tags", fontsize=19, weight="bold")
    draw_history(left.subplots(), repo)
    right.suptitle("Its map in a browser", fontsize=19, weight="bold")
    ax = right.subplots()
    ax.imshow(page)
    ax.set(xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(True)
    text = "The land cover is synthetic: the project makes tiles with the shape and encoding of GLAD's"
    note.text(0.5, 0.5, text, fontsize=15, ha="center", va="center", style="italic")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
