"""Checks of lesson 09 (publishing)."""

import warnings

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning

from workshop import legend
from workshop.exercises.boxes import read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import RESOLUTION, TEACHING_WINDOW, YEARS, Box

EAST = Box(-112.0, TEACHING_WINDOW.south, TEACHING_WINDOW.east, TEACHING_WINDOW.north)
SMALL = Box(-112.0, 40.875, -111.875, 41.0)  # of the store with two truths


def _open(store: Store, **options) -> zarr.Group:
    try:
        return zarr.open_group(store, mode="r", **options)
    except (FileNotFoundError, TypeError, ValueError) as error:
        raise NotRightError(f"Expected a Zarr store with a group in it: {error}") from error


def _transforms(group: zarr.Group, name: str = "lulc") -> dict[str, list[float]]:
    """Return what a group says of an array's place, by the convention and by CF, in the order of the convention."""
    attributes = dict(group[name].attrs)
    cf = [float(n) for n in dict(group["spatial_ref"].attrs).get("GeoTransform", "0 " * 6).split()]
    return {
        "spatial:transform": attributes.get("spatial:transform", [0] * 6),
        "GeoTransform": [cf[k] for k in (1, 2, 0, 4, 5, 3)],
    }


@exercise(
    "09-1",
    expects="a Zarr store",
    hint="sel cuts by coordinates, and conventions.describe writes the place anew. The box in 02-3 was written like it.",
)
def _part(store: Store) -> str:
    group = _open(store)
    if "lulc" not in group:
        raise NotRightError(f"Expected the array lulc in the store's root, found {sorted(group)}.")
    array = group["lulc"]
    pixels = np.squeeze(array[:])
    if pixels.dtype != np.uint8:
        raise NotRightError(f"The classes have become {pixels.dtype}: codes must stay uint8.")
    if pixels.shape != (2000, 2000):
        raise NotRightError(
            f"Expected 2000 x 2000 pixels of one year, found {pixels.shape}: x from -112 on, all rows, 2020."
        )
    years = [year for year in YEARS if np.array_equal(pixels, read_box(year, EAST))]
    if 2020 not in years:
        raise NotRightError(
            f"These are the pixels of {years[0]}." if years else "These are not the pixels of the east."
        )
    if array.chunks[-2:] != (500, 500):
        raise NotRightError(f"Expected chunks of 500 x 500, found {array.chunks}: `encoding` sets them.")
    if array.fill_value != legend.NODATA:
        raise NotRightError(f"The fill value is {array.fill_value}: what is not stored would read as a class.")
    true = [RESOLUTION, 0, EAST.west, 0, -RESOLUTION, EAST.north]
    for name, found in _transforms(group).items():
        if not any(found):
            raise NotRightError(f"The store doesn't tell its place: {name} is missing.")
        if not np.allclose(found, true, rtol=0, atol=1e-9):
            raise NotRightError(
                f"{name} says that the store begins at {found[2]:.4f}, {found[5]:.4f}; its pixels begin at "
                f"{EAST.west:.4f}, {EAST.north:.4f}: the attributes are those of the whole."
            )
    if array.attrs.get("spatial:shape") != [2000, 2000]:
        raise NotRightError(f"spatial:shape says {array.attrs.get('spatial:shape')}, and the array is 2000 x 2000.")
    if array.attrs.get("flag_values") != legend.table().index.to_list():
        raise NotRightError("The array doesn't say what its numbers mean: flag_values and flag_meanings.")
    if not {"license", "references", "zarr_conventions"} <= set(group.attrs):
        raise NotRightError("The group says neither license nor references; `describe` returns a dataset with them.")
    return "It says what it is, and where: nobody will draw it 0.5° too far west."


@exercise(
    "09-2",
    expects="a Zarr store",
    hint="world.coarsen makes the pixels, conventions.pyramid the list of levels. Three places know of a level.",
)
def _level(store: Store) -> str:
    group = _open(store, use_consolidated=False)
    if "3" not in group or "lulc" not in group["3"]:
        raise NotRightError("Expected the array 3/lulc, found none: write the level with group='3'.")
    coarse, fine = group["3/lulc"], group["0/lulc"][:]
    if coarse.shape != (5, 10, 20) or coarse.dtype != np.uint8:
        raise NotRightError(f"Expected (5, 10, 20) pixels of uint8, found {coarse.shape} of {coarse.dtype}.")
    cells = fine.reshape(5, 10, 200, 20, 200).swapaxes(2, 3).reshape(1000, -1)
    mode = np.array([np.bincount(cell, minlength=256).argmax() for cell in cells])
    if wrong := int((coarse[:].ravel() != mode).sum()):
        raise NotRightError(
            f"{wrong} of 1000 pixels are not the most frequent class of their 200 x 200: the mean of codes is no class, "
            "and the mode of modes another one."
        )
    true = [0.05, 0, TEACHING_WINDOW.west, 0, -0.05, TEACHING_WINDOW.north]
    for name, found in _transforms(group["3"]).items():
        if not np.allclose(found, true, rtol=0, atol=1e-9):
            raise NotRightError(f"{name} of the level is {found}; a pixel is 0.05° wide, and begins at {true[2]}.")
    layout = group.attrs["multiscales"]["layout"]
    entry = next((entry for entry in layout if entry["asset"] == "3"), None)
    if entry is None:
        raise NotRightError("The level is there, but `multiscales` of the root doesn't list it: viewers won't look.")
    if [e["asset"] for e in layout] != ["0", "1", "2", "3"] or entry["transform"]["scale"] != [5, 5]:
        raise NotRightError(f"`multiscales` should list four levels, the last five times as coarse: {layout[-1]}.")
    if "3/lulc" not in _consolidated(store):
        raise NotRightError("All is written, but over HTTP nobody finds it: consolidate the metadata again.")
    return "Four levels, each in its group, in the list, and in the consolidated metadata."


def _consolidated(store: Store) -> dict[str, dict]:
    """Return the consolidated metadata of a store's root, by path."""
    kept = _open(store).metadata.consolidated_metadata
    return {} if kept is None else {path: node.to_dict() for path, node in kept.flattened_metadata.items()}


def store_with_two_truths(store: Store) -> Store:
    """Write a plain store whose consolidated metadata was not brought up to date."""
    from workshop import conventions, tiles  # what a learner would call

    def layer(year: int) -> xr.Dataset:
        return conventions.describe(tiles.select_box(tiles.open_tile("50N_120W", year), SMALL).expand_dims(year=[year]))

    encoding = {"lulc": {"chunks": (1, 500, 500), "fill_value": legend.NODATA, "grid_mapping": "spatial_ref"}}
    layer(2000).to_zarr(store, group="0", encoding=encoding, mode="w", consolidated=False)
    with warnings.catch_warnings(action="ignore", category=ZarrUserWarning):  # the field is permitted since July 2026
        zarr.consolidate_metadata(store)
    for year in (2005, 2010):
        layer(year).to_zarr(store, group="0", append_dim="year", mode="a-", consolidated=False)
    return store


@exercise(
    "09-3",
    expects="a Zarr store",
    hint="Compare xr.open_zarr(two, group='0').year with the same and consolidated=False. Which of them is a copy?",
)
def _truths(store: Store) -> str:
    group = _open(store, use_consolidated=False)
    pixels = np.stack([read_box(year, SMALL) for year in (2000, 2005, 2010)])
    if "0/lulc" not in group or not np.array_equal(group["0/lulc"][:], pixels):
        raise NotRightError("The pixels are not those that were there: three years, 500 x 500. Make `two` again.")
    years = group["0/year"][:].tolist()
    if years != [2000, 2005, 2010]:
        raise NotRightError(f"The years are {years}; they were 2000, 2005, 2010. Make `two` again.")
    kept = _consolidated(store)
    if not kept:
        raise NotRightError("The copy is gone, and with it what readers over HTTP need: make it anew.")
    for name in ("0/lulc", "0/year"):
        if tuple(kept[name]["shape"]) != group[name].shape:
            raise NotRightError(
                f"The copy still says that {name} is {tuple(kept[name]['shape'])}; the array is {group[name].shape}."
            )
    return "One truth again: the copy says what the arrays say."
