"""The GLAD land-cover legend: classes, groups and colors, read from ``data/legend.csv``.

Figures and maps are drawn in ``maps.py``.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

LEGEND_CSV = Path(__file__).parent.parent / "data" / "legend.csv"
NODATA = 255  # the legend's "No data"; GLAD tiles declare no nodata value, and 0 is a class


def table() -> pd.DataFrame:
    """Return the legend, one row per ``value`` in use.

    The columns are ``group``, ``class``, ``color`` (``#RRGGBB``), and for classes on a scale the measured ``quantity``
    (such as ``"tree height (m)"``) from ``low`` to ``high``. The tallest trees have no ``high``.
    """
    return pd.read_csv(LEGEND_CSV, index_col="value")


def groups() -> list[str]:
    """Return the names of the legend's groups, in the order of their values."""
    return list(table()["group"].unique())


def group_table() -> pd.DataFrame:
    """Return one row per ``group``: its ``first`` and ``last`` value and the ``color`` of the middle one."""
    return (
        table()
        .reset_index()
        .groupby("group", sort=False)
        .agg(
            first=("value", "min"),
            last=("value", "max"),
            color=("color", lambda colors: colors.iloc[len(colors) // 2]),
        )
    )


def group_index() -> np.ndarray:
    """Return a lookup table from pixel value to position in :func:`groups`: shape (256,), uint8, 255 for no class."""
    group = table()["group"].reindex(range(256))
    return pd.factorize(group)[0].astype(np.uint8)  # -1, for no class, becomes 255


def flags() -> dict[str, list[int] | str]:
    """Return the attributes that tell other tools what the numbers of an array of classes mean.

    Returns
    -------
    dict
        ``flag_values``, a list, because JSON has no arrays of bytes; ``flag_meanings`` and ``flag_colors``, each a
        string with one word per value, separated by blanks.

    Notes
    -----
    CF conventions 1.12, section 3.5, defines values and meanings. ``flag_colors`` is a custom of servers such as ncWMS.
    """
    classes = table()
    names = classes["class"].str.lower().str.replace("%", "percent")
    return {
        "flag_values": classes.index.to_list(),
        "flag_meanings": " ".join(names.str.replace("[^a-z0-9_.+@-]+", "_", regex=True)),
        "flag_colors": " ".join(classes["color"]),
    }


def hex_colors() -> list[str]:
    """Return 256 colors as ``#rrggbb``, black where the legend has no class."""
    return table()["color"].str.lower().reindex(range(256), fill_value="#000000").tolist()


def palette() -> dict[int, tuple[int, int, int]]:
    """Return :func:`hex_colors` as a TIFF's color table."""
    return {value: tuple(bytes.fromhex(color[1:])) for value, color in enumerate(hex_colors())}


def groups_in(rasters: Iterable[np.ndarray]) -> dict[str, str]:
    """Return the groups that occur in rasters of codes, in the legend's order, with their colors."""
    present = {group for raster in rasters for group in table()["group"].reindex(np.unique(raster))}
    return {name: color for name, color in group_table()["color"].items() if name in present}
