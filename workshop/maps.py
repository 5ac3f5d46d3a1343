"""Pictures of land cover: static maps with the legend's colors, and files for web maps.

Colors come from ``legend.py``. The ipyleaflet and hvPlot calls themselves stand in the lessons.
"""

import json
import os
import re
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
from rasterio.shutil import copy as copy_raster

from workshop import legend, servers, tiles

MAX_COLUMNS = 1000  # drawn in one axes
BAND = 1000  # rows of a raster that are loaded at once
LEAST_BAND = 0.002  # of the whole; narrower bands of a Sankey diagram are left out
# one transparent pixel, for which a browser sends no request
EMPTY_TILE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
BARE = "#e6e6e6"  # where a map shows nothing; snow is white
EARTH = "50-natural-earth-1-downsampled.png"
EARTH_RADIUS = 6_371_008.8  # meters, IUGG mean radius, R1 in Moritz (2000), Geodetic Reference System 1980
MAX_SCALED = 6  # degrees of latitude; on larger maps one scale would be wrong for most of the map
CLASS_RANGE = (-0.5, 255.5)  # with 256 colors, value n is drawn in the legend's color n


def server_path() -> str | None:
    """Return the path of the Jupyter server that runs this kernel, such as ``"/user/anna/"``, or None without one.

    On JupyterHub and Binder the hub tells it, elsewhere the server's runtime file does.
    """
    if (path := os.environ.get("JUPYTERHUB_SERVICE_PREFIX")) is not None:
        return path
    runtime_file = Path(jupyter_runtime_dir(), f"jpserver-{os.environ.get('JPY_PARENT_PID')}.json")
    try:
        return json.loads(runtime_file.read_text(encoding="utf-8"))["base_url"]
    except (OSError, ValueError, KeyError):
        return None


def set_proxy_prefix() -> None:
    """Tell localtileserver and Panel the path of the Jupyter server, which they do not find out themselves.

    Without it, web maps ask for tiles where only another proxy would answer, and Panel looks for its scripts at the
    root, then in the internet. Done when this module is imported; settings that are there already stay.
    """
    path = server_path()
    if path is not None:
        os.environ.setdefault("LOCALTILESERVER_CLIENT_PREFIX", f"{path}localtileserver-proxy/{{port}}")
    if path not in (None, "/"):
        import holoviews  # takes a second

        # the scripts come with the notebook's output instead
        os.environ.setdefault("PANEL_NOTEBOOK_RESOURCES", "cdn")
        holoviews.extension.inline = True


set_proxy_prefix()
style.use(Path(__file__).with_name("look.mplstyle"))


def draw_land_cover(ax: Axes, raster: xr.DataArray, title: str = "", where: np.ndarray | None = None) -> None:
    """Draw a land-cover raster ``(y, x)`` in degrees in the legend's colors, where its coordinates are.

    With ``where``, a mask of the raster's shape, only its pixels are drawn, and the ground is bare elsewhere.
    """
    if where is not None:
        where = tiles.north_up(raster.copy(data=np.asarray(where, bool))).values
    raster = tiles.north_up(raster)
    west, south, east, north = raster.rio.bounds()
    if max(abs(south), abs(north)) > 91 or (raster.rio.crs and not raster.rio.crs.is_geographic):
        raise tiles.TileError(
            f"expected a raster in degrees, found {raster.rio.crs}, {south:g} to {north:g} along y; "
            'raster.rio.reproject("EPSG:4326") moves it, each pixel to the nearest'
        )
    shrunk = cos(radians((south + north) / 2))  # a degree of longitude is shorter than one of latitude
    ax.set_facecolor(BARE)
    # Every n-th pixel is more than the page can show. By bands, copied: TIFF readers return views of all between.
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
    """Draw the whole Earth, pale, as the ground of a map in degrees.

    The picture is Natural Earth's (public domain, naturalearthdata.com) in the small version that comes with cartopy.
    """
    import cartopy  # half a second that most lessons need not pay

    picture = imread(Path(cartopy.config["repo_data_dir"], "raster", "natural_earth", EARTH))[..., :3]
    ax.imshow(0.4 * picture + 0.6, extent=(-180, 180, -90, 90), zorder=-1)
    ax.set(xlabel="longitude (°)", ylabel="latitude (°)")


def draw_legend(figure: Figure, rasters: Iterable[np.ndarray], columns: int = 5) -> None:
    """Put a compact legend below a figure: the legend groups that occur in the rasters."""
    patches = [
        Patch(facecolor=color, edgecolor="0.5", linewidth=0.5, label=name)
        for name, color in legend.groups_in(rasters).items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")


def draw_transitions(ax: Axes, matrix: pd.DataFrame) -> None:
    """Draw what became of what as a Sankey diagram: bars left and right, bands between them.

    The matrix holds areas; its rows are the legend's groups before, its columns those after.
    """
    colors = legend.group_table()["color"]
    total = matrix.to_numpy().sum()
    gap = 0.02 * total

    def stack(sizes: pd.Series) -> pd.Series:
        """Return where each bar begins, from the top down."""
        return (sizes + gap).cumsum().shift(fill_value=0)

    left, right = stack(matrix.sum(axis=1)), stack(matrix.sum())
    for x, starts, sizes, align in ((0, left, matrix.sum(axis=1), "right"), (1, right, matrix.sum(), "left")):
        for name, size in sizes.items():
            ax.add_patch(Rectangle((x - 0.02, starts[name]), 0.04, size, facecolor=colors[name], edgecolor="0.3"))
            if size >= LEAST_BAND * total:
                ax.text(x + (0.03 if x else -0.03), starts[name] + size / 2, name, ha=align, va="center", fontsize=8)
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
    """Show a figure in the notebook with a text that says what it shows, for those who cannot see it."""
    display(figure, metadata={"image/png": {"alt": alt}})
    close(figure)


def show_history(repo: Any, alt: str) -> None:
    """Show the graph of an Icechunk repository's history, in letters that can be read on white.

    The drawing is the repository's own. Where pictures cannot be shown, the graph comes as text.
    """
    drawing = repo.ancestry_graph()._repr_svg_()
    drawing = re.sub(r'(<t(?:ext|span)\b[^>]*fill=")#\w+', r"\g<1>#333", drawing)
    drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    display({"image/svg+xml": drawing, "text/plain": str(repo.ancestry_graph(plain=True))}, raw=True)


def _swatch(color: str, style: str, content: str = "") -> str:
    return f'<span style="background:{color};border:1px solid #888;display:inline-block;{style}">{content}</span>'


def legend_strip(*rasters: np.ndarray) -> HTML:
    """Return a line with the legend groups that occur in the rasters, to show below an interactive view."""
    entries = "".join(
        f'<span style="display:inline-block;margin-right:1.2em">{_swatch(color, "width:1.2em;height:0.9em")} {name}'
        "</span> "
        for name, color in legend.groups_in(rasters).items()
    )
    return HTML(f"<div>{entries}</div>")


def legend_table() -> HTML:
    """Return the legend's groups as a table with the colors of their first, middle and last value."""
    rows = "<tr><th>color</th><th style='text-align:left'>group</th><th>values</th></tr>"
    for name, (first, last, middle) in legend.group_table().iterrows():
        colors = dict.fromkeys([legend.table()["color"][first], middle, legend.table()["color"][last]])
        swatches = "".join(_swatch(color, "width:2em", "&nbsp;") for color in colors)
        values = str(first) if first == last else f"{first}-{last}"
        rows += f"<tr><td>{swatches}</td><td style='text-align:left'>{name}</td><td>{values}</td></tr>"
    return HTML(f"<table>{rows}</table>")


def write_palette_cog(raster: xr.DataArray, path: str | Path) -> Path:
    """Write a raster ``(y, x)``, uint8, as a cloud-optimized GeoTIFF with the legend's colors, for a tile server.

    It is placed where its coordinates are, north up.
    """
    raster = tiles.north_up(raster)
    if raster.dtype != np.uint8 or raster.rio.crs is None:
        raise tiles.TileError(
            f"expected class codes as uint8 with a CRS, found {raster.dtype} and {raster.rio.crs}; "
            f'raster.fillna({legend.NODATA}).astype("uint8") and raster.rio.write_crs give them'
        )
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=raster.rio.width,
            height=raster.rio.height,
            count=1,
            dtype="uint8",
            crs=raster.rio.crs,
            transform=raster.rio.transform(),
            nodata=legend.NODATA,
        ) as dst:
            dst.write_colormap(1, legend.palette())
            dst.write(raster.values, 1)
        # mode: an overview of classes must hold classes, not their averages
        copy_raster(memory.name, path, driver="COG", compress="DEFLATE", overview_resampling="mode")
    return Path(path)


def name_on_click(web_map: Any, client: Any) -> None:
    """Let an ipyleaflet map name the class of the place that is clicked, in its upper right corner.

    ``client`` is the localtileserver client of the raster that is shown.
    """
    from ipyleaflet import WidgetControl  # seconds that most lessons need not pay
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
    """Let the tooltip of an hvPlot image of class codes show ``Cropland (244)``, and not only the number.

    The plot is changed. It may have widgets.
    """
    import panel  # seconds that most lessons need not pay
    from bokeh.models import CustomJSHover
    from holoviews import opts

    names = legend.table()["class"].reindex(range(256), fill_value="not used").tolist()

    def name_class(drawn: Any, _: Any) -> None:
        hover = drawn.handles["hover"]
        if "@image" not in hover.formatters:  # one per output: Bokeh refuses a model that is in another
            formatter = CustomJSHover(args={"names": names}, code="return `${names[value]} (${value})`")
            hover.formatters = hover.formatters | {"@image": formatter}
        hover.tooltips = [(label, "@image{custom}" if field == "@image" else field) for label, field in hover.tooltips]

    # a hook, because each update of the picture may set the tooltip back; it runs after that
    for pane in panel.panel(plot).select(panel.pane.HoloViews):
        pane.object.opts(opts.Image(hooks=[name_class]))


def street_map() -> str | None:
    """Return hvPlot's name of a street map to put below data, or None where its server cannot be reached.

    Without a network, a browser would ask for the street map's pictures in vain, again with every zoom.
    """
    return "OSM" if servers.answers("https://tile.openstreetmap.org") else None


def ground() -> Any:
    """Return ipyleaflet's ``basemap``: a street map, or an empty layer where its server cannot be reached."""
    from ipyleaflet import TileLayer, basemap_to_tiles, basemaps  # half a second that most lessons need not pay

    if street_map():
        return basemap_to_tiles(basemaps.OpenStreetMap.Mapnik)
    return TileLayer(url=EMPTY_TILE, name="empty")
