"""Pictures of land cover: static maps with the legend's colors, and files for web maps.

Colors come from ``legend.py``. The lessons call ipyleaflet and hvPlot themselves.
"""

import json
import os
import re
import warnings
from collections.abc import Iterable
from html import escape
from math import cos, pi, radians
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import rioxarray  # noqa: F401, for the accessor rio
import xarray as xr
from IPython.display import HTML, display
from jupyter_core.paths import jupyter_runtime_dir
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Patch, Rectangle
from matplotlib.pyplot import close, style
from matplotlib.ticker import MaxNLocator
from matplotlib_scalebar.scalebar import ScaleBar
from rasterio.errors import NotGeoreferencedWarning

from workshop import legend, servers, tiles

MAX_COLUMNS = 1000  # drawn per axes
BAND = 1000  # rows of a raster loaded at once
LEAST_BAND = 0.002  # share of the total; a Sankey diagram leaves out narrower bands
# one transparent pixel; a browser sends no request for it
EMPTY_TILE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
BARE = "#e6e6e6"  # where a map shows nothing; snow is white
EARTH = "50-natural-earth-1-downsampled.png"
EARTH_RADIUS = 6_371_008.8  # meters, IUGG mean radius, R1 in Moritz (2000), Geodetic Reference System 1980
MAX_SCALED = 6  # degrees of latitude; on a larger map, one scale bar would be wrong for most of it
CLASS_RANGE = (-0.5, 255.5)  # with 256 colors, value n is drawn in the legend's color n


def server_path() -> str | None:
    """Return the path of the Jupyter server that runs this kernel, such as ``"/user/anna/"``, or None without one."""
    # on JupyterHub and Binder
    if (path := os.environ.get("JUPYTERHUB_SERVICE_PREFIX")) is not None:
        return path
    runtime_file = Path(jupyter_runtime_dir(), f"jpserver-{os.environ.get('JPY_PARENT_PID')}.json")
    try:
        return json.loads(runtime_file.read_text(encoding="utf-8"))["base_url"]
    except (OSError, ValueError, KeyError):
        return None


def set_proxy_prefix() -> None:
    """Tell localtileserver and Panel the path of the Jupyter server. Existing settings are kept.

    Without it, web maps request tiles from a wrong address, and Panel looks for its scripts at the root, then on the
    internet.
    """
    path = server_path()
    if path is not None:
        os.environ.setdefault("LOCALTILESERVER_CLIENT_PREFIX", f"{path}localtileserver-proxy/{{port}}")
    if path not in (None, "/"):
        import holoviews  # takes a second

        # embeds the scripts in the notebook's output
        os.environ.setdefault("PANEL_NOTEBOOK_RESOURCES", "cdn")
        holoviews.extension.inline = True


set_proxy_prefix()
# GDAL's own defaults. The tile server of a web map would set others for the whole process: GDAL would then miss the
# nodata value in a .aux.xml beside a file.
os.environ.setdefault("GDAL_DISABLE_READDIR_ON_OPEN", "FALSE")
os.environ.setdefault("GDAL_NUM_THREADS", "1")
# rio-tiler writes the pictures of a web map in memory, without a place; it ignores this only in one thread at a time
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.io")
style.use(Path(__file__).with_name("look.mplstyle"))


def draw_land_cover(ax: Axes, raster: xr.DataArray, title: str = "", where: np.ndarray | None = None) -> None:
    """Draw a land-cover raster ``(y, x)`` in degrees, in the legend's colors, at its coordinates.

    With ``where``, a mask of the raster's shape, only pixels inside the mask are drawn.
    """
    if where is not None:
        where = tiles.north_up(raster.copy(data=np.asarray(where, bool))).values
    raster = tiles.north_up(raster)
    west, south, east, north = raster.rio.bounds()
    if max(abs(south), abs(north)) > 91 or (raster.rio.crs and not raster.rio.crs.is_geographic):
        raise tiles.TileError(
            f"expected a raster in degrees, found {raster.rio.crs}, {south:g} to {north:g} along y; "
            'raster.rio.reproject("EPSG:4326") reprojects it with nearest-neighbor resampling'
        )
    shrunk = cos(radians((south + north) / 2))  # a degree of longitude is shorter than one of latitude
    ax.set_facecolor(BARE)
    # Every n-th pixel is enough for a page. TIFF readers return views of all the pixels between, so copy band by band.
    n = max(1, raster.sizes["x"] // MAX_COLUMNS)
    rows = n * max(1, BAND // n)
    pixels = np.concatenate([np.array(raster[top : top + rows : n, ::n]) for top in range(0, raster.sizes["y"], rows)])
    ax.imshow(
        pixels if where is None else np.ma.masked_array(pixels, ~where[::n, ::n]),
        cmap=ListedColormap(legend.hex_colors()),
        clim=CLASS_RANGE,
        extent=(west, east, south, north),
        interpolation="nearest",
        aspect=1 / shrunk,
    )
    ax.set(title=title, xlabel="longitude (°)", ylabel="latitude (°)")
    ax.ticklabel_format(useOffset=False)
    ax.xaxis.set_major_locator(MaxNLocator(5))  # labels such as -111.75 need room
    if north - south <= MAX_SCALED:
        degree = 2 * pi * EARTH_RADIUS / 360 * shrunk
        ax.add_artist(ScaleBar(degree, "m", rotation="horizontal-only", location="lower left", box_alpha=0.8, pad=0.3))


def draw_earth(ax: Axes) -> None:
    """Draw a pale picture of the whole Earth as the background of a map in degrees.

    The picture is from Natural Earth (public domain, naturalearthdata.com), in the small version included in cartopy.
    """
    import cartopy  # takes half a second, and most lessons do not need it

    picture = imread(Path(cartopy.config["repo_data_dir"], "raster", "natural_earth", EARTH))[..., :3]
    ax.imshow(0.4 * picture + 0.6, extent=(-180, 180, -90, 90), zorder=-1)
    ax.set(xlabel="longitude (°)", ylabel="latitude (°)")


def draw_legend(figure: Figure, rasters: Iterable[np.ndarray], columns: int = 5) -> None:
    """Put a compact legend under a figure, with the legend groups that occur in the rasters."""
    patches = [
        Patch(facecolor=color, edgecolor="0.5", linewidth=0.5, label=name)
        for name, color in legend.groups_in(rasters).items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")


def draw_transitions(ax: Axes, matrix: pd.DataFrame) -> None:
    """Draw transitions as a Sankey diagram: bars left and right, bands between them.

    The matrix holds areas. Its rows are the legend's groups before, and its columns are the groups after.
    """
    colors = legend.group_table()["color"]
    total = matrix.to_numpy().sum()
    gap = 0.02 * total

    starts = []  # of each bar, from the top: on the left, on the right
    for x, beside, align, sizes in ((0, -0.03, "right", matrix.sum(axis=1)), (1, 1.03, "left", matrix.sum())):
        starts.append((sizes + gap).cumsum().shift(fill_value=0))
        for name, size in sizes.items():
            top = starts[x][name]
            ax.add_patch(Rectangle((x - 0.02, top), 0.04, size, facecolor=colors[name], edgecolor="0.3"))
            if size >= LEAST_BAND * total:
                ax.text(beside, top + size / 2, name, ha=align, va="center", fontsize=8)
    left, right = starts
    curve = np.linspace(0, 1, 60)
    smooth = curve**2 * (3 - 2 * curve)
    for before, row in matrix.iterrows():
        for after, size in row.items():
            if size >= LEAST_BAND * total:
                lower = left[before] + (right[after] - left[before]) * smooth
                ax.fill_between(0.02 + curve * 0.96, lower, lower + size, color=colors[before], alpha=0.5, linewidth=0)
            left[before] += size
            right[after] += size
    ax.set(xlim=(-0.6, 1.6), ylim=(total + gap * len(matrix), -gap))
    ax.axis("off")


def show(figure: Figure, alt: str) -> None:
    """Show a figure in the notebook with alt text."""
    display(figure, metadata={"image/png": {"alt": alt}})
    close(figure)


def show_history(repo: Any, alt: str) -> None:
    """Show Icechunk's graph of a repository's history, with text that is readable on white."""
    drawing = repo.ancestry_graph()._repr_svg_()
    drawing = re.sub(r'(<t(?:ext|span)\b[^>]*fill=")#\w+', r"\g<1>#333", drawing)
    drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    display({"image/svg+xml": drawing, "text/plain": str(repo.ancestry_graph(plain=True))}, raw=True)


def _swatch(color: str, style: str, content: str = "") -> str:
    return f'<span style="background:{color};border:1px solid #888;display:inline-block;{style}">{content}</span>'


def legend_strip(*rasters: np.ndarray) -> HTML:
    """Return a line with the legend groups that occur in the rasters, to show under an interactive view."""
    entries = "".join(
        f'<span style="display:inline-block;margin-right:1.2em">{_swatch(color, "width:1.2em;height:0.9em")} {name}'
        "</span> "
        for name, color in legend.groups_in(rasters).items()
    )
    return HTML(f"<div>{entries}</div>")


def legend_table() -> HTML:
    """Return the legend's groups as a table with the colors of their first, middle and last values."""
    rows = "<tr><th>color</th><th style='text-align:left'>group</th><th>values</th></tr>"
    for name, (first, last, middle) in legend.group_table().iterrows():
        colors = dict.fromkeys([legend.table()["color"][first], middle, legend.table()["color"][last]])
        swatches = "".join(_swatch(color, "width:2em", "&nbsp;") for color in colors)
        values = str(first) if first == last else f"{first}-{last}"
        rows += f"<tr><td>{swatches}</td><td style='text-align:left'>{name}</td><td>{values}</td></tr>"
    return HTML(f"<table>{rows}</table>")


def write_palette_cog(raster: xr.DataArray, path: str | Path) -> Path:
    """Write a raster ``(y, x)``, uint8, as a Cloud Optimized GeoTIFF with the legend's colors, for a tile server.

    The file is north-up, and its transform comes from the raster's coordinates.
    """
    raster = tiles.north_up(raster)
    if raster.dtype != np.uint8 or raster.rio.crs is None:
        raise tiles.TileError(
            f"expected class codes as uint8 with a CRS, found {raster.dtype} and {raster.rio.crs}; "
            f'raster.fillna({legend.NODATA}).astype("uint8") and raster.rio.write_crs provide them'
        )
    profile = {"driver": "COG", "compress": "DEFLATE", "count": 1, "dtype": "uint8", "nodata": legend.NODATA}
    profile |= {"width": raster.rio.width, "height": raster.rio.height}
    profile |= {"crs": raster.rio.crs, "transform": raster.rio.transform()}
    # mode: overviews must hold classes, not averages of class codes
    with rasterio.open(path, "w", overview_resampling="mode", **profile) as dst:
        dst.write_colormap(1, legend.palette())
        dst.write(raster.values, 1)
    return Path(path)


def name_on_click(web_map: Any, client: Any) -> None:
    """Make an ipyleaflet map show the class at a clicked place, in its upper right corner.

    ``client`` is the localtileserver client of the displayed raster.
    """
    from ipyleaflet import WidgetControl  # takes seconds, and most lessons do not need it
    from ipywidgets import Label
    from rio_tiler.errors import PointOutsideBounds

    answer = Label("Click on the map to see the class there")

    def ask(**event: Any) -> None:
        if event.get("type") == "click":
            lat, lon = event["coordinates"]
            try:
                code = int(client.point(lon, lat).array[0])
                answer.value = f"{code} ({legend.table()['class'].get(code, 'not used')})"
            except PointOutsideBounds:
                answer.value = "outside the picture"

    web_map.on_interaction(ask)
    web_map.add(WidgetControl(widget=answer, position="topright"))


def name_on_hover(plot: Any) -> None:
    """Make the tooltip of an hvPlot image of class codes show ``Cropland (244)`` instead of the number alone.

    The plot is changed in place. It may have widgets.
    """
    import panel  # takes seconds, and most lessons do not need it
    from bokeh.models import CustomJSHover
    from holoviews import opts

    names = legend.table()["class"].reindex(range(256), fill_value="not used").tolist()

    def name_class(drawn: Any, _: Any) -> None:
        hover = drawn.handles["hover"]
        if "@image" not in hover.formatters:  # one per output: Bokeh refuses a model from another output
            formatter = CustomJSHover(args={"names": names}, code="return `${names[value]} (${value})`")
            hover.formatters = hover.formatters | {"@image": formatter}
        hover.tooltips = [(label, "@image{custom}" if field == "@image" else field) for label, field in hover.tooltips]

    # a hook, because an update of the picture can reset the tooltip; the hook runs after each update
    for pane in panel.panel(plot).select(panel.pane.HoloViews):
        pane.object.opts(opts.Image(hooks=[name_class]))


def street_map() -> str | None:
    """Return hvPlot's name of a street map to draw under data, or None if its server cannot be reached.

    Without a network, a browser would request the street map's pictures in vain at every zoom.
    """
    return "OSM" if servers.answers("https://tile.openstreetmap.org") else None


def ground() -> Any:
    """Return ipyleaflet's ``basemap``: a street map, or an empty layer if its server cannot be reached."""
    from ipyleaflet import TileLayer, basemap_to_tiles, basemaps  # takes half a second, and most lessons do not need it

    if street_map():
        return basemap_to_tiles(basemaps.OpenStreetMap.Mapnik)
    return TileLayer(url=EMPTY_TILE, name="empty")
