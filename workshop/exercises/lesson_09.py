"""Checks of lesson 09 (publishing)."""

import warnings

import icechunk
import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning

from workshop import legend
from workshop.exercises.boxes import as_class_codes, read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import DEFECT_BOX, RESOLUTION, TEACHING_WINDOW, YEARS, Box

EAST = Box(-112.0, TEACHING_WINDOW.south, TEACHING_WINDOW.east, TEACHING_WINDOW.north)
SMALL = Box(-112.0, 40.875, -111.875, 41.0)  # of the store with two truths


def _open(store: Store, **options) -> zarr.Group:
    try:
        return zarr.open_group(store, mode="r", **options)
    except FileNotFoundError:
        raise NotRightError("There is no group in this store: expected the one that you wrote to.") from None


def _find_classes(group: zarr.Group, path: str = "lulc") -> zarr.Array:
    """Return an array of class codes, or raise if readers would see other numbers."""
    if path not in group:
        raise NotRightError(f"Expected the array {path} in the store, found {sorted(group)} in its root.")
    array = group[path]
    if array.dtype != np.uint8:
        raise NotRightError(f"The classes have become {array.dtype}: codes must stay uint8. Select without a mask.")
    if "_FillValue" in array.attrs:
        raise NotRightError("lulc has a _FillValue, so xarray reads floats: set `fill_value` in the encoding instead.")
    if array.fill_value != legend.NODATA:
        raise NotRightError(
            f"The fill value is {array.fill_value}, which is a class: set `fill_value` in the encoding."
        )
    return array


def _check_place(group: zarr.Group, west: float, north: float, pixel: float) -> None:
    """Raise unless a group says where its array is: by coordinates, convention, and CF, which has another order."""
    attributes, shape = dict(group["lulc"].attrs), group["lulc"].shape
    mapping = attributes.get("grid_mapping", "spatial_ref")
    cf = dict(group[mapping].attrs).get("GeoTransform") if mapping in group else None
    x, y = group["x"][:2], group["y"][:2]
    stated = {
        "The pair of x and y": [x[1] - x[0], 0, 1.5 * x[0] - x[1] / 2, 0, y[1] - y[0], 1.5 * y[0] - y[1] / 2],
        "spatial:transform": attributes.get("spatial:transform"),
        "GeoTransform": cf and [float(cf.split()[k]) for k in (1, 2, 0, 4, 5, 3)],
    }
    for name, found in stated.items():
        if not found:
            raise NotRightError(
                f"The store doesn't say where it is: {name} is missing. `conventions.describe` writes it."
            )
        if not np.allclose(found, [pixel, 0, west, 0, -pixel, north], rtol=0, atol=1e-9):
            raise NotRightError(
                f"{name} says that pixels of {found[0]:g}° begin at {found[2]:.9g}, {found[5]:.9g}; "
                f"these are {pixel:g}° wide and begin at {west:g}, {north:g}. It still describes another array."
            )
    if "grid_mapping" not in attributes:
        raise NotRightError("lulc doesn't name its grid mapping, so CF's readers find no CRS: the encoding names it.")
    if attributes.get("spatial:shape") != [*shape[-2:]]:
        raise NotRightError(f"spatial:shape says {attributes.get('spatial:shape')}; the array has {shape}.")


def _check_copy(store: Store, group: zarr.Group) -> None:
    """Raise unless the consolidated metadata of the root describes all arrays as they are."""
    kept = _open(store).metadata.consolidated_metadata
    if kept is None:
        raise NotRightError("The root has no consolidated metadata, and readers over HTTP find nothing without it.")
    nodes = kept.flattened_metadata
    for path, array in sorted(group.members(max_depth=None)):
        if isinstance(array, zarr.Array):
            if path not in nodes:
                raise NotRightError(f"The copy in the root doesn't know {path}: consolidate the root's metadata last.")
            if nodes[path].shape != array.shape:
                raise NotRightError(f"The copy in the root still has {nodes[path].shape} as the shape of {path}.")


@exercise(
    "09-1",
    expects="a Zarr store with the arrays lulc, x and y",
    hint="Three steps: select the part with `sel`, describe it, write it with `to_zarr`. Which attributes does `sel` "
    "leave as they were?",
    more="""Fill the gaps. `drop_encoding` forgets how the cube was stored, so that `how` decides:

```python
part = release["lulc"].sel(year=____, x=slice(____, None)).load().drop_encoding()
east = bucket.zarr("east.zarr")
conventions.____(part).to_zarr(east, mode="w", encoding=____, consolidated=False)
```""",
)
def _part(store: Store) -> str:
    group = _open(store)
    array = _find_classes(group)
    pixels = np.squeeze(array[:])
    if pixels.shape != (2000, 2000):
        raise NotRightError(f"Expected 2000 x 2000 pixels, found {pixels.shape}: 2020 only, all rows, x from -112 on.")
    if not np.array_equal(pixels, read_box(2020, EAST)):
        raise NotRightError("These are not the pixels east of -112° in 2020: select by label, with sel.")
    _check_place(group, EAST.west, EAST.north, RESOLUTION)
    if array.chunks[-2:] != (500, 500):
        raise NotRightError(f"Expected chunks of 500 x 500, found {array.chunks}: the encoding sets them.")
    if array.attrs.get("flag_values") != legend.table().index.to_list() or "flag_meanings" not in array.attrs:
        raise NotRightError("The array doesn't say what its numbers mean: flag_values and flag_meanings are missing.")
    about = dict(group.attrs)
    if not {"license", "references", "zarr_conventions"} <= about.keys() or about.get("spatial:shape") != [2000, 2000]:
        raise NotRightError("The group doesn't have all attributes of the part: write what `describe` returns, whole.")
    return "It says what it is, and where. No reader will draw it 0.5° too far west."


@exercise(
    "09-2",
    expects="an Icechunk repository and a DataArray",
    hint="Section 2 does it twice, once with `s3_storage` and once with `http_storage`. What differs here is the tag.",
    more="""Fill the gaps. The address alone is enough, because strangers have no keys:

```python
theirs = icechunk.Repository.____(icechunk.http_storage(____))
session = theirs.readonly_session(tag=____)
before = xr.open_zarr(session.____, consolidated=False)[____]
```""",
)
def _stranger(repo: icechunk.Repository, before: xr.DataArray) -> str:
    opened = repr(repo.storage)
    if "anonymous: True" not in opened and "type: HTTP" not in opened:
        raise NotRightError("A stranger has no keys: open `theirs` with `anonymous=True`, or by its address over HTTP.")
    if "v1.0" not in repo.list_tags():
        raise NotRightError("This repository has no tag v1.0, so it isn't the cube of section 1.")
    as_class_codes(before, "the array lulc as `before`")
    if before.shape != (len(YEARS), 2000, 4000):
        raise NotRightError(f"Expected all years and pixels, (5, 2000, 4000), found {before.shape}.")
    defect = dict(x=slice(DEFECT_BOX.west, DEFECT_BOX.east), y=slice(DEFECT_BOX.north, DEFECT_BOX.south))
    found = before.sel(year=YEARS[-1], **defect).values
    if np.array_equal(found, read_box(YEARS[-1], DEFECT_BOX)):
        return "You read the state before the repair, without any keys."
    if (found == 10).all():
        raise NotRightError("The west of 2020 is repaired here, so this is v1.1 or main. The tag is v1.0.")
    raise NotRightError("These aren't the pixels of v1.0 in the west of 2020.")


def store_with_two_truths(store: Store) -> Store:
    """Write a plain store whose consolidated metadata is out of date."""
    from workshop import conventions, tiles  # what a learner would call

    def layer(year: int) -> xr.Dataset:
        return conventions.describe(tiles.select_box(tiles.open_tile("50N_120W", year), SMALL).expand_dims(year=[year]))

    encoding = {"lulc": {"chunks": (1, 500, 500), "fill_value": legend.NODATA, "grid_mapping": "spatial_ref"}}
    layer(2000).to_zarr(store, group="0", encoding=encoding, mode="w", consolidated=False)
    layer(2005).to_zarr(store, group="0", append_dim="year", mode="a-", consolidated=False)
    with warnings.catch_warnings(action="ignore", category=ZarrUserWarning):  # the field is permitted since July 2026
        zarr.consolidate_metadata(store)
    layer(2010).to_zarr(store, group="0", append_dim="year", mode="a-", consolidated=False)
    return store


@exercise(
    "09-3",
    expects="a list of years and a Zarr store",
    hint="Look at `xr.open_zarr(two, group='0').year.values`, then again with `consolidated=False`. Which is a copy?",
    more="The arrays have three years, and the copy of their metadata in the root has fewer. One call of section 3 "
    "makes the copy again. Give it the store itself, not the group `0`.",
)
def _truths(seen: list[int], store: Store) -> str:
    read = [int(year) for year in seen]
    if read == [2000, 2005, 2010]:
        raise NotRightError(
            "The arrays have three years; readers found fewer before your fix: make `two` again, and look."
        )
    if read != [2000, 2005]:
        raise NotRightError(f"A reader doesn't find {read}: look at `year` in `xr.open_zarr(two, group='0')`.")
    group = _open(store, use_consolidated=False)
    pixels = np.stack([read_box(year, SMALL) for year in (2000, 2005, 2010)])
    found, years = (group[path][:] if path in group else None for path in ("0/lulc", "0/year"))
    if not np.array_equal(found, pixels) or not np.array_equal(years, [2000, 2005, 2010]):
        raise NotRightError("Expected all three years of `two` in 0/lulc, found others or fewer: make `two` again.")
    _check_copy(store, group)
    return "There's one truth again: the copy agrees with the arrays."


def _modes(pixels: np.ndarray, n: int) -> np.ndarray:
    """Return the most frequent value of each n x n pixels of ``(year, y, x)``."""
    years, rows, cols = pixels.shape
    cells = pixels.reshape(years, rows // n, n, cols // n, n).swapaxes(2, 3).reshape(-1, n * n)
    modes = np.array([np.bincount(cell, minlength=256).argmax() for cell in cells])
    return modes.reshape(years, rows // n, cols // n)


@exercise(
    "09-4",
    expects="a Zarr store",
    hint="""Fill the gaps. Three places must know the level: its group, the root's list, and the consolidated metadata.

```python
fourth = world.coarsen(levels[0], ____)
described = conventions.describe(fourth.drop_encoding())
described.to_zarr(plain, group=____, mode="w", encoding=encoding(____), write_empty_chunks=True, consolidated=False)
zarr.open_group(plain, mode="r+").attrs.update(conventions.pyramid([*____, ____]))
zarr.____(plain)
more = plain
```""",
    more='`200` is the factor, and `"3"` the group. `pyramid` takes all four levels, the finest first, so give it '
    "`[*levels, fourth]`. `attrs.update` keeps the version. The last gap is the call that makes the copy in the root.",
)
def _level(store: Store) -> str:
    group = _open(store, use_consolidated=False)
    if not {"0/lulc", "1/lulc", "2/lulc"} <= {path for path, _ in group.members(max_depth=None)}:
        raise NotRightError(f"The levels 0 to 2 must stay; the root has {sorted(group)}. Run section 3 again.")
    array = _find_classes(group, "3/lulc")
    if array.shape != (5, 10, 20):
        raise NotRightError(f"Expected 5 years of 10 x 20 pixels, found {array.shape}.")
    found, fine = array[:], group["0/lulc"][:]
    right = _modes(fine, 200)
    if wrong := int((found != right).sum()):
        means = fine.reshape(5, 10, 200, 20, 200).mean(axis=(2, 4))
        if np.array_equal(found, _modes(group["2/lulc"][:], 5)):
            raise NotRightError("This is the mode of modes, which is another class here and there. Start from level 0.")
        if (np.abs(found - means) < 1).all():
            raise NotRightError("This is the mean. The mean of two codes is the code of a class that isn't there.")
        raise NotRightError(f"{wrong} of 1000 pixels are not the most frequent class of their 200 x 200 pixels.")
    _check_place(group["3"], TEACHING_WINDOW.west, TEACHING_WINDOW.north, 200 * RESOLUTION)
    layout = {entry["asset"]: entry for entry in group.attrs.get("multiscales", {}).get("layout", [])}
    if [*layout] != ["0", "1", "2", "3"]:
        raise NotRightError(f"`multiscales` in the root lists the levels {[*layout]}; expected all four, finest first.")
    coarser = {"0": [200, 200], "1": [25, 25], "2": [5, 5]}.get(layout["3"].get("derived_from"))
    if layout["3"].get("spatial:shape") != [10, 20] or layout["3"].get("transform", {}).get("scale") != coarser:
        raise NotRightError(f"What `multiscales` says about level 3 isn't true: {layout['3']}.")
    if "version" not in group.attrs:
        raise NotRightError("The root has lost its version: update its attributes, don't replace them.")
    _check_copy(store, group)
    return "Four levels, each in its group, in the list, and in the consolidated metadata."
