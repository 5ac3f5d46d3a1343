"""The GLAD land-cover legend: classes, groups and colours, read from ``data/legend.csv``.

Figures and maps are drawn in ``maps.py``.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap

LEGEND_CSV = Path(__file__).parent.parent / "data" / "legend.csv"
NODATA = 255  # the legend's "No data"; GLAD tiles carry no nodata key, and 0 is a class


@cache
def _read() -> pd.DataFrame:
    return pd.read_csv(LEGEND_CSV, index_col="value")


def table() -> pd.DataFrame:
    """Return the legend, one row per used value.

    Returns
    -------
    pandas.DataFrame
        Index ``value`` (0-255, used values only); columns ``group``, ``class`` and ``colour`` (``#RRGGBB``).
    """
    return _read().copy()


def groups() -> list[str]:
    """Return the names of the legend's groups, in the order of their values."""
    return list(_read()["group"].unique())


def group_table() -> pd.DataFrame:
    """Return the legend's groups, one row each.

    Returns
    -------
    pandas.DataFrame
        Index ``group``; columns ``first`` and ``last`` (values) and ``colour`` (the middle value's ``#RRGGBB``).
    """
    legend = _read()
    rows = {
        name: {
            "first": part.index.min(),
            "last": part.index.max(),
            "colour": part["colour"].iloc[len(part) // 2],
        }
        for name, part in legend.groupby("group", sort=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("group")


def group_index() -> np.ndarray:
    """Return a lookup table from pixel value to position in :func:`groups`.

    Returns
    -------
    numpy.ndarray
        Shape (256,), uint8; 255 marks values the legend does not use.
    """
    names = groups()
    lookup = np.full(256, 255, np.uint8)
    for value, group in _read()["group"].items():
        lookup[value] = names.index(group)
    return lookup


def palette() -> dict[int, tuple[int, int, int]]:
    """Return the colour table of a tile: 256 RGB triples, black where the legend has no class."""
    colours = dict.fromkeys(range(256), (0, 0, 0))
    for value, colour in _read()["colour"].items():
        colours[value] = tuple(bytes.fromhex(colour[1:]))
    return colours


def cmap() -> ListedColormap:
    """Return the legend as a 256-colour map; draw with ``vmin=-0.5, vmax=255.5`` so that value n gets colour n."""
    return ListedColormap([tuple(c / 255 for c in rgb) for rgb in palette().values()], name="glad")


def hex_colours() -> list[str]:
    """Return the colour table as 256 ``#RRGGBB`` strings, for plotting libraries of the web."""
    return ["#" + bytes(rgb).hex() for rgb in palette().values()]


def groups_in(rasters: Iterable[np.ndarray]) -> dict[str, str]:
    """Return the groups that occur in rasters of codes, in the legend's order, with their colours."""
    index = group_index()
    present = sorted({int(i) for raster in rasters for i in np.unique(index[np.unique(raster)])} - {255})
    return group_table()["colour"].iloc[present].to_dict()
