"""Checks of lesson 05 (a patch)."""

from itertools import product

import icechunk
import numpy as np
import xarray as xr
import zarr

from workshop.exercises.boxes import as_class_codes, check_place, count, misses, read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import DEFECT_BOX, TEACHING_WINDOW, YEARS

PATCH_CLASS, PATCH_YEAR = 10, 2020


@exercise(
    "05-1",
    expects="a DataArray (year, y, x) of uint8",
    hint="Select the year, y and x with `sel` (a list keeps an axis; y runs from north to south). Then make a copy in "
    "which every value is 10. Watch the data type.",
    more="`xr.full_like(selection, 10)` keeps coordinates and data type. The selection is "
    "`published.sel(year=[...], y=slice(north, south), x=slice(west, east))`.",
)
def _patch(answer: xr.DataArray) -> str:
    if not isinstance(answer, xr.DataArray):
        raise NotRightError(f"Expected the patch as an xarray.DataArray, found {type(answer).__name__}.")
    if answer.sizes.get("year", 1) > 1:
        raise NotRightError(f"The patch has {answer.sizes['year']} years. Select {PATCH_YEAR}: only that one is wrong.")
    if "year" in answer.coords and int(answer.year.item()) != PATCH_YEAR:
        raise NotRightError(f"This is the year {int(answer.year.item())}; the defect is in {PATCH_YEAR}.")
    flat = answer.squeeze("year") if "year" in answer.dims else answer
    flat = as_class_codes(flat, "the patch")
    if flat.dims == ("x", "y"):
        raise NotRightError("The axes are swapped: expected dimensions (year, y, x).")
    if flat.dims != ("y", "x"):
        raise NotRightError(f"Expected the dimensions (year, y, x), found {answer.dims}.")
    if not {"y", "x"} <= set(flat.coords):
        raise NotRightError("The coordinates y and x are missing: select from the cube instead of making a new array.")
    if flat.rio.crs is not None and flat.rio.crs != "EPSG:4326":
        raise NotRightError(f"The patch claims to be in {flat.rio.crs}; the cube is in EPSG:4326.")
    if flat.size == 0:
        raise NotRightError("No pixels: y runs from north to south, so its slice must start at the northern latitude.")
    check_place(flat, DEFECT_BOX)
    wrong = int((flat.values != PATCH_CLASS).sum())
    if wrong:
        raise NotRightError(f"{wrong:,} of the {flat.size:,} pixels are not {PATCH_CLASS}: set them all.")
    if "year" not in answer.dims:
        raise NotRightError("The pixels are right, but the axis year is missing. A list keeps it: year=[2020].")
    return f"{flat.size:,} pixels of class {PATCH_CLASS}, in the right place."


def _check_patched(store: icechunk.IcechunkStore) -> None:
    """Raise unless a store has the tiles and the patch, with a hint that names the likely mistake."""
    array = zarr.open_array(store, path="lulc", mode="r")
    if array.dtype != np.uint8:
        raise NotRightError(
            f"lulc has become {array.dtype}: the whole array was written again. Write only the "
            "region, and keep class codes as uint8."
        )
    if array.shape != (len(YEARS), 2000, 4000):
        raise NotRightError(f"lulc has the shape {array.shape} now, expected (5, 2000, 4000). Change values only.")
    found, expected = array[:], np.stack([read_box(year, TEACHING_WINDOW) for year in YEARS])
    differs = found != expected
    expected[-1, :1000, :400] = PATCH_CLASS  # it is the window's corner
    if np.array_equal(found, expected):
        return
    years = [year for year, layer in zip(YEARS, differs, strict=True) if layer.any()]
    if not years:
        raise NotRightError("Nothing was written: the cube has not changed.")
    if years == list(YEARS):
        raise NotRightError(f"All years were changed, but only {PATCH_YEAR} is wrong.")
    if years[0] != PATCH_YEAR:
        raise NotRightError(f"The year {years[0]} was changed; the defect is in {PATCH_YEAR}.")
    now, changed = found[-1], differs[-1]
    box = now[:1000, :400]
    outside = changed.copy()
    outside[:1000, :400] = False
    missing = box != PATCH_CLASS
    if not changed[:1000].any():
        raise NotRightError("The rows are upside down: this is the south of the window; row 0 is its northernmost.")
    if not outside.any():
        if (box == box[0, 0]).all():
            raise NotRightError(f"The box is {box[0, 0]} now; the experts say {PATCH_CLASS}.")
        _check_edges(missing)
    elif not missing.any():
        rows, cols = (int(k.max()) + 1 for k in np.nonzero(outside))
        if rows <= 1000 and (now[:1000, :cols] == PATCH_CLASS).all():
            raise NotRightError(f"The box {misses('east', cols - 400)}.")
        if cols <= 400 and (now[:rows, :400] == PATCH_CLASS).all():
            raise NotRightError(f"The box {misses('south', rows - 1000)}.")
    _check_shift(now, changed)
    faults = [f"{int(outside.sum()):,} pixels outside the box were changed"] if outside.any() else []
    faults += [f"{int(missing.sum()):,} inside it are not {PATCH_CLASS}"] if missing.any() else []
    raise NotRightError(f"Not quite: {', and '.join(faults)}.")


def _check_shift(now: np.ndarray, changed: np.ndarray) -> None:
    """Name the shift if a patch of the right size was written a few pixels away from its place."""
    for down, right in product(range(-5, 6), repeat=2):
        placed = np.s_[max(down, 0) : 1000 + down, max(right, 0) : 400 + right]
        if changed[placed].sum() == changed.sum() and (now[placed] == PATCH_CLASS).all():
            rows = f"{count(down, 'row')} to the {'south' if down > 0 else 'north'}"
            cols = f"{count(right, 'column')} to the {'east' if right > 0 else 'west'}"
            raise NotRightError(f"The patch is shifted: {' and '.join([rows] * bool(down) + [cols] * bool(right))}.")


def _check_edges(missing: np.ndarray) -> None:
    """Name the side at which whole rows or columns of the box were left out."""
    rows, cols = np.nonzero(missing)
    depths = np.stack([rows + 1, 1000 - rows, cols + 1, 400 - cols])  # from each side to each missing pixel
    pixels = dict(zip(("north", "south", "west", "east"), depths.max(axis=1), strict=True))
    side = min(pixels, key=pixels.get)
    if pixels[side] < 50:
        raise NotRightError(f"The box {misses(side, -pixels[side])}.")
    n = depths.min(axis=0).max()
    if n < 50:
        raise NotRightError(f"The box stops short on more than one side, by up to {n} pixels.")


def _check_chunks(changes: icechunk.Diff) -> int:
    """Return how many chunks were written; raise if others than the region's. The values are known to be right."""
    kinds = ("new_groups", "deleted_groups", "updated_groups", "new_arrays", "deleted_arrays", "updated_arrays")
    rewritten = sorted(set().union(*(getattr(changes, kind) for kind in kinds)))
    written = [(path, tuple(chunk)) for path, chunks in changes.updated_chunks.items() for chunk in chunks]
    if rewritten or set(written) - {("/lulc", (4, 0, 0)), ("/lulc", (4, 1, 0))}:
        others = sorted(set(changes.updated_chunks) - {"/lulc"})
        were = "was" if len(written) == 1 else "were"
        what = f"{count(len(written), 'chunk')} {were} written" + (f", some of {', '.join(others)}" if others else "")
        what += f", and {', '.join(rewritten)} replaced or changed" if rewritten else ""
        raise NotRightError(
            f"The values are right, but {what}. The box covers parts of two chunks: write the region, not more."
        )
    return len(written)


@exercise(
    "05-2",
    expects="a writable session on main, with the region written",
    hint="""Fill in the gaps:

```python
session = repo.____("main")
dataset = patch.drop_vars("____").to_dataset(name="____")
to_icechunk(dataset, session, region="____")
```""",
    more="The session is `repo.writable_session(...)`. `spatial_ref` has no axis of the region, so it's dropped. The "
    'array is called `lulc`, and `region="auto"` finds its place.',
)
def _region(session: icechunk.Session) -> str:
    if not isinstance(session, icechunk.Session):
        raise NotRightError(f"Expected a session, found {type(session).__name__}: repo.writable_session('main').")
    if session.read_only:
        raise NotRightError(
            "This session is read-only, or already committed. Open a writable one, and commit it later."
        )
    if session.branch != "main":
        raise NotRightError(f"This session would commit to the branch {session.branch!r}; expected 'main'.")
    if not session.has_uncommitted_changes:
        raise NotRightError("Nothing was written. If you got an error, exercises.hint('05-2') shows the calls.")
    _check_patched(session.store)
    chunks = _check_chunks(session.status())
    return f"{count(chunks, 'chunk')} changed, and only this session can see it."


@exercise(
    "05-3",
    expects="the repository and the id of the new snapshot",
    hint="Committing a session returns the id of the new snapshot.",
    more='`patched = session.commit("what was wrong, and where")`. To start again: `repo.reset_branch("main", v1)`, '
    "then a new session, and 05-2 once more.",
)
def _patched(repo: icechunk.Repository, snapshot: str) -> str:
    if not isinstance(snapshot, str):
        raise NotRightError(
            f"Expected the id of the new snapshot, which session.commit returns as text, found "
            f"{type(snapshot).__name__}."
        )
    release, tip = repo.lookup_tag("v1.0"), repo.lookup_branch("main")
    snapshot = snapshot.strip()
    if tip == release:
        for branch in sorted(repo.list_branches() - {"main"}):
            if snapshot == repo.lookup_branch(branch) != release:
                raise NotRightError(f"This commit is on the branch {branch!r}, and main has not changed.")
        raise NotRightError("Nothing was committed: main is still at v1.0. Commit the session from 05-2.")
    if release not in {version.id for version in repo.ancestry(branch="main")}:
        raise NotRightError(
            "v1.0 is no longer in the history of main, so readers cannot compare: amend replaces a commit, and a reset "
            "can skip it. To start again: repo.reset_branch('main', v1)."
        )
    try:
        _check_patched(repo.readonly_session("main").store)
        _check_chunks(repo.diff(from_tag="v1.0", to_branch="main"))
    except NotRightError as error:
        raise NotRightError(f"{error} To start again: repo.reset_branch('main', v1).") from None
    if snapshot != tip:
        raise NotRightError(
            f"The cube is right, but main points at {tip}, and your answer is {snapshot!r}. session.commit returns the "
            "id."
        )
    message = repo.lookup_snapshot(tip).message
    return f"All five years are what they should be, and the history keeps both versions. Your users read: {message!r}."


@exercise(
    "05-4",
    expects="the repository and the name of a tag",
    hint="A tag is made as in section 1: it takes a name and the id of a snapshot. A branch can tell you the id.",
    more='`repo.create_tag("v1.1", repo.lookup_branch(fixed))`, and then `release = "v1.1"`.',
)
def _release(repo: icechunk.Repository, name: str) -> str:
    if not isinstance(name, str):
        raise NotRightError(f"Expected the tag's name, such as 'v1.1', found {type(name).__name__}.")
    name = name.strip()
    if name == "v1.0":
        raise NotRightError("v1.0 is the release with the defect. The repair needs a name of its own.")
    if name not in repo.list_tags():
        if name in repo.list_branches():
            raise NotRightError(f"{name} is a branch: it moves on with the next commit. Make a tag.")
        raise NotRightError(f"There is no tag {name!r}; the repository has {', '.join(sorted(repo.list_tags()))}.")
    if repo.lookup_tag(name) == repo.lookup_tag("v1.0"):
        raise NotRightError(f"{name} is a second name for v1.0, defect and all. A tag cannot be moved: make a new one.")
    try:
        _check_patched(repo.readonly_session(tag=name).store)
    except NotRightError as error:
        raise NotRightError(
            f"{name} is not the repaired cube. {error} A tag cannot be moved: make a new one."
        ) from None
    if not name.startswith("v1."):
        raise NotRightError(f"The snapshot is right. But {name!r} does not tell users that it follows v1.0: try v1.1.")
    return f"{name} is the repaired cube, and v1.0 is still what it was."
