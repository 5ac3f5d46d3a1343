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
    expects="a DataArray (y, x) of uint8",
    hint="Select year, y and x with sel (y from north to south), copy, then set all values. Watch the data type.",
)
def _patch(answer: xr.DataArray) -> str:
    if not isinstance(answer, xr.DataArray):
        raise NotRightError(f"Expected the patch as an xarray.DataArray, found {type(answer).__name__}.")
    if answer.sizes.get("year", 1) > 1:
        raise NotRightError(f"The patch has {answer.sizes['year']} years: only {PATCH_YEAR} is wrong, so select it.")
    if "year" in answer.coords and int(answer.year.item()) != PATCH_YEAR:
        raise NotRightError(f"This is the year {int(answer.year.item())}; the defect is in {PATCH_YEAR}.")
    flat = answer.squeeze("year") if "year" in answer.dims else answer
    flat = as_class_codes(flat, "the patch")
    if flat.dims == ("x", "y"):
        raise NotRightError("The axes are exchanged: expected dimensions (y, x).")
    if flat.dims != ("y", "x") or not {"y", "x"} <= set(flat.coords):
        raise NotRightError(f"Expected the dimensions (y, x) with their coordinates, found {answer.dims}.")
    if flat.rio.crs is not None and flat.rio.crs != "EPSG:4326":
        raise NotRightError(f"The patch claims to be in {flat.rio.crs}; the cube is in EPSG:4326.")
    if flat.size == 0:
        raise NotRightError("No pixels: y runs from north to south, so its slice must start at the northern latitude.")
    check_place(flat, DEFECT_BOX)
    wrong = int((flat.values != PATCH_CLASS).sum())
    if wrong:
        raise NotRightError(f"{wrong:,} of the {flat.size:,} pixels are not {PATCH_CLASS}: set every pixel of the box.")
    axis = "" if "year" in answer.dims else " For region='auto' the year must become an axis again."
    return f"{flat.size:,} pixels of class {PATCH_CLASS}, where they belong.{axis}"


def _check_patched(store: icechunk.IcechunkStore) -> None:
    """Raise unless a store holds the tiles and the patch, with a hint that names the likely mistake."""
    array = zarr.open_array(store, path="lulc", mode="r")
    if array.dtype != np.uint8:
        raise NotRightError(
            f"lulc has become {array.dtype}: the array was written anew. Class codes stay uint8; write only the region."
        )
    if array.shape != (len(YEARS), 2000, 4000):
        raise NotRightError(f"lulc has the shape {array.shape} now, expected (5, 2000, 4000): change values only.")
    found, expected = array[:], np.stack([read_box(year, TEACHING_WINDOW) for year in YEARS])
    differs = found != expected
    expected[-1, :1000, :400] = PATCH_CLASS  # it lies in the window's corner
    if np.array_equal(found, expected):
        return
    years = [year for year, layer in zip(YEARS, differs, strict=True) if layer.any()]
    if not years:
        raise NotRightError("Nothing was written: the cube is as it was.")
    if years == list(YEARS):
        raise NotRightError(f"All years were changed; only {PATCH_YEAR} is wrong.")
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


def _check_chunks(changes: icechunk.Diff) -> None:
    """Raise if more was written than the region; the values are known to be right."""
    kinds = ("new_groups", "deleted_groups", "updated_groups", "new_arrays", "deleted_arrays", "updated_arrays")
    rewritten = sorted(set().union(*(getattr(changes, kind) for kind in kinds)))
    written = [(path, tuple(chunk)) for path, chunks in changes.updated_chunks.items() for chunk in chunks]
    if rewritten or sorted(written) != [("/lulc", (4, 0, 0)), ("/lulc", (4, 1, 0))]:
        others = sorted(set(changes.updated_chunks) - {"/lulc"})
        what = f"{len(written)} chunks were written" + (f", some of {', '.join(others)}" if others else "")
        what += f", and {', '.join(rewritten)} made anew or changed" if rewritten else ""
        raise NotRightError(
            f"The values are right, but {what}: the box overlaps two chunks. Write the region, not the whole array."
        )


@exercise(
    "05-2",
    expects="a writable session of main, with the region written",
    hint="to_icechunk(..., region='auto') needs the year as an axis and no spatial_ref; or use zarr and positions.",
)
def _region(session: icechunk.Session) -> str:
    if not isinstance(session, icechunk.Session):
        raise NotRightError(f"Expected a session, found {type(session).__name__}: repo.writable_session('main').")
    if session.read_only:
        raise NotRightError("This session is read-only, or was committed already. Open a writable one; commit later.")
    if session.branch != "main":
        raise NotRightError(f"This session would commit to the branch {session.branch!r}; expected 'main'.")
    if not session.has_uncommitted_changes:
        raise NotRightError("Nothing was written. After an error, exercises.hint('05-2') says what the writers want.")
    _check_patched(session.store)
    _check_chunks(session.status())
    return "Two chunks changed, and only this session knows it."


@exercise(
    "05-3",
    expects="the repository and the id of the new snapshot",
    hint="session.commit(...) returns the id. To start again: repo.reset_branch('main', v1).",
)
def _patched(repo: icechunk.Repository, snapshot: str) -> str:
    release, tip = repo.lookup_tag("v1.0"), repo.lookup_branch("main")
    snapshot = snapshot.strip()
    if tip == release:
        for branch in sorted(repo.list_branches() - {"main"}):
            if snapshot == repo.lookup_branch(branch) != release:
                raise NotRightError(f"This commit is on the branch {branch!r}; main is as it was.")
        raise NotRightError("Nothing was committed: main is still at v1.0. What a session holds is lost with it.")
    if release not in {version.id for version in repo.ancestry(branch="main")}:
        raise NotRightError(
            "v1.0 is no longer in the history of main, so nobody can compare: amend replaces a commit, and a reset "
            "may pass it by. To begin again: repo.reset_branch('main', v1)."
        )
    try:
        _check_patched(repo.readonly_session("main").store)
        _check_chunks(repo.diff(from_tag="v1.0", to_branch="main"))
    except NotRightError as error:
        raise NotRightError(f"{error} To begin again: repo.reset_branch('main', v1).") from None
    if snapshot != tip:
        raise NotRightError(f"The cube is right. But main points at {tip}, and you say {snapshot!r}.")
    return "All five years are what they should be, and the history keeps both versions."
