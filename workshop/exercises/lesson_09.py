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
from workshop.tiles import DEFECT_BOX, RESOLUTION, TEACHING_WINDOW, YEARS, Box

EAST = Box(-112.0, TEACHING_WINDOW.south, TEACHING_WINDOW.east, TEACHING_WINDOW.north)
SMALL = Box(-112.0, 40.875, -111.875, 41.0)  # of the store with two truths


def _open(store: Store, **options) -> zarr.Group:
    try:
        return zarr.open_group(store, mode="r", **options)
    except FileNotFoundError:
        raise NotRightError("There is no group in this store: was it written?") from None
    except TypeError:
        raise NotRightError(f"Expected the store that you wrote to, found {type(store).__name__}.") from None


def _find_classes(group: zarr.Group, path: str = "lulc") -> zarr.Array:
    """Return an array of class codes, or raise if readers would not see them as they are."""
    if path not in group:
        raise NotRightError(f"Expected the array {path} in the store, found {sorted(group)} in its root.")
    array = group[path]
    if array.dtype != np.uint8:
        raise NotRightError(f"The classes have become {array.dtype}: codes must stay uint8. Cut without a mask.")
    if "_FillValue" in array.attrs:
        raise NotRightError("lulc has a _FillValue, so xarray reads it as floats: set `fill_value` instead.")
    if array.fill_value != legend.NODATA:
        raise NotRightError(
            f"The fill value is {array.fill_value}, so what isn't stored reads as a class: `encoding` sets it."
        )
    return array


def _check_place(group: zarr.Group, west: float, north: float, pixel: float) -> None:
    """Raise unless a group tells where its array is: by coordinates, convention, and CF, which has another order."""
    attributes = dict(group["lulc"].attrs)
    mapping = attributes.get("grid_mapping", "spatial_ref")
    cf = dict(group[mapping].attrs).get("GeoTransform") if mapping in group else None
    x, y = (group[name][:] if name in group else None for name in "xy")
    even = x is not None and y is not None and min(x.size, y.size) > 1
    stated = {
        "The pair of x and y": even and [x[1] - x[0], 0, 1.5 * x[0] - x[1] / 2, 0, y[1] - y[0], 1.5 * y[0] - y[1] / 2],
        "spatial:transform": attributes.get("spatial:transform"),
        "GeoTransform": cf and [float(cf.split()[k]) for k in (1, 2, 0, 4, 5, 3)],
    }
    for name, found in stated.items():
        if not found:
            raise NotRightError(
                f"The store doesn't tell where it is: {name} is missing. `conventions.describe` has it."
            )
        if not np.allclose(found, [pixel, 0, west, 0, -pixel, north], rtol=0, atol=1e-9):
            raise NotRightError(
                f"{name} says that pixels of {found[0]:g}° begin at {found[2]:.9g}, {found[5]:.9g}; "
                f"these are {pixel:g}° wide and begin at {west:g}, {north:g}. It still describes another array."
            )
    if "grid_mapping" not in attributes:
        raise NotRightError("lulc doesn't name its grid mapping, so CF's readers find no CRS: `encoding` names it.")
    shape = list(group["lulc"].shape[-2:])
    if attributes.get("spatial:shape") != shape:
        raise NotRightError(f"spatial:shape says {attributes.get('spatial:shape')}; the array has {shape}.")


def _check_copy(store: Store, group: zarr.Group) -> None:
    """Raise unless the consolidated metadata of the root know all arrays as they are."""
    kept = _open(store).metadata.consolidated_metadata
    if kept is None:
        raise NotRightError("The root has no consolidated metadata, and readers over HTTP find nothing without it.")
    nodes = kept.flattened_metadata
    for path, array in sorted(group.members(max_depth=None)):
        if isinstance(array, zarr.Array):
            if path not in nodes:
                raise NotRightError(f"The copy in the root doesn't know {path}: consolidate the root's metadata last.")
            if nodes[path].shape != array.shape:
                raise NotRightError(
                    f"The copy in the root still says that {path} has the shape {nodes[path].shape}; "
                    f"it has {array.shape}."
                )


@exercise(
    "09-1",
    expects="a Zarr store",
    hint="Select with sel, describe with conventions.describe, and write with to_zarr. The encoding is that of section "
    "3: chunks, fill_value and grid_mapping.",
)
def _part(store: Store) -> str:
    group = _open(store)
    array = _find_classes(group)
    pixels = np.squeeze(array[:])
    if pixels.shape != (2000, 2000):
        raise NotRightError(f"Expected 2000 x 2000 pixels, found {pixels.shape}: 2020 only, all rows, x from -112 on.")
    years = [year for year in YEARS if np.array_equal(pixels, read_box(year, EAST))]
    if 2020 not in years:
        raise NotRightError(
            f"These are the pixels of {years[0]}; wanted are those of 2020."
            if years
            else "These are not the pixels east of -112° in 2020: select by label, with sel."
        )
    _check_place(group, EAST.west, EAST.north, RESOLUTION)
    if array.chunks[-2:] != (500, 500):
        raise NotRightError(f"Expected chunks of 500 x 500, found {array.chunks}: `encoding` sets them.")
    if array.attrs.get("flag_values") != legend.table().index.to_list() or "flag_meanings" not in array.attrs:
        raise NotRightError("The array doesn't say what its numbers mean: flag_values and flag_meanings are missing.")
    if not {"license", "references", "zarr_conventions"} <= set(group.attrs):
        raise NotRightError(
            "The group has no license, references or conventions: write what `describe` returns, whole."
        )
    if group.attrs.get("spatial:shape") != [2000, 2000]:
        raise NotRightError(f"The group says that it has {group.attrs.get('spatial:shape')} pixels: describe the part.")
    return "It says what it is, and where. No reader will draw it 0.5° too far west."


def _modes(pixels: np.ndarray, n: int) -> np.ndarray:
    """Return the most frequent value of each n x n pixels of ``(year, y, x)``."""
    years, rows, cols = pixels.shape
    cells = pixels.reshape(years, rows // n, n, cols // n, n).swapaxes(2, 3).reshape(-1, n * n)
    modes = np.array([np.bincount(cell, minlength=256).argmax() for cell in cells])
    return modes.reshape(years, rows // n, cols // n)


@exercise(
    "09-2",
    expects="a Zarr store",
    hint="Three places must know a level: its own group (world.coarsen, conventions.describe), the list `multiscales` "
    "in the root's attributes (conventions.pyramid), and the consolidated metadata.",
)
def _level(store: Store) -> str:
    group = _open(store, use_consolidated=False)
    if not {"0/lulc", "1/lulc", "2/lulc"} <= {path for path, _ in group.members(max_depth=None)}:
        raise NotRightError(
            f"The levels 0 to 2 must stay; in the root there is {sorted(group)}. Run the cells of section 3 again."
        )
    array = _find_classes(group, "3/lulc")
    if array.shape != (5, 10, 20):
        raise NotRightError(f"Expected 5 years of 10 x 20 pixels, found {array.shape}.")
    found, fine = array[:], group["0/lulc"][:]
    right = _modes(fine, 200)
    if wrong := int((found != right).sum()):
        before = right.copy()
        before[-1, :5, :2] = _modes(read_box(YEARS[-1], DEFECT_BOX)[None], 200)
        means = fine.reshape(5, 10, 200, 20, 200).mean(axis=(2, 4))
        if np.array_equal(found, before):
            raise NotRightError("These are the pixels of v1.0; the store is at v1.1: `levels` is older than `new`.")
        if np.array_equal(found, _modes(group["2/lulc"][:], 5)):
            raise NotRightError("This is the mode of modes, which is another class here and there. Begin at level 0.")
        if any(np.array_equal(found, fine[:, k::200, k::200]) for k in range(200)):
            raise NotRightError("This is one pixel of each 200 x 200, and not the most frequent class of all of them.")
        if (np.abs(found - means) < 1).all():
            raise NotRightError("This is the mean. The mean of two codes is the code of a class that nobody saw.")
        raise NotRightError(f"{wrong} of 1000 pixels are not the most frequent class of their 200 x 200 pixels.")
    _check_place(group["3"], TEACHING_WINDOW.west, TEACHING_WINDOW.north, 200 * RESOLUTION)
    layout = {entry["asset"]: entry for entry in group.attrs.get("multiscales", {}).get("layout", [])}
    if "3" not in layout:
        raise NotRightError("The level is there, but `multiscales` in the root's attributes doesn't list it.")
    if list(layout) != ["0", "1", "2", "3"]:
        raise NotRightError(f"`multiscales` lists the levels {list(layout)}; expected all four, the finest first.")
    coarser = {"0": [200, 200], "1": [25, 25], "2": [5, 5]}.get(layout["3"].get("derived_from"))
    if layout["3"].get("spatial:shape") != [10, 20] or layout["3"].get("transform", {}).get("scale") != coarser:
        raise NotRightError(f"What `multiscales` says of level 3 is not true: {layout['3']}.")
    if "version" not in group.attrs:
        raise NotRightError("The root has lost its version: update its attributes, don't replace them.")
    _check_copy(store, group)
    return "Four levels, each in its group, in the list, and in the consolidated metadata."


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
    found = group["0/lulc"][:] if "0/lulc" in group else None
    if not np.array_equal(found, pixels):
        raise NotRightError(
            "Only one year is left: through the old copy, you see no other. Run the cell that makes `two` again."
            if found is not None and len(found) == 1
            else "Expected the pixels of `two` in 0/lulc, found others or none. Run the cell that makes it again."
        )
    if (years := group["0/year"][:].tolist()) != [2000, 2005, 2010]:
        raise NotRightError(
            f"The years are {years} now; they were 2000, 2005 and 2010. Run the cell that makes `two` again."
        )
    _check_copy(store, group)
    return "There is one truth again: the copy says what the arrays say."
