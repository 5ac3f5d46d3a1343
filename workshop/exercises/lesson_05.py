"""Checks of lesson 05 (a patch)."""

import icechunk
import numpy as np
import xarray as xr
import zarr

from workshop.exercises.boxes import as_class_codes, check_place, count, expect, misses, read_box
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
    expect(answer, xr.DataArray, "the patch as an xarray.DataArray")
    years = [int(year) for year in np.atleast_1d(answer.year)] if "year" in answer.coords else [PATCH_YEAR]
    if years != [PATCH_YEAR]:
        raise NotRightError(f"The patch has the years {years}; only {PATCH_YEAR} is wrong.")
    flat = as_class_codes(answer.squeeze("year") if "year" in answer.dims else answer, "the patch")
    if flat.dims != ("y", "x"):
        raise NotRightError(f"Expected the dimensions (year, y, x), found {answer.dims}.")
    if not {"y", "x"} <= set(flat.coords) or flat.rio.crs not in (None, "EPSG:4326"):
        raise NotRightError(
            "The coordinates y and x are missing, or the CRS is another: select from the cube instead of making a new "
            "array."
        )
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
    shape = (len(YEARS), 2000, 4000)
    if (array.shape, array.dtype) != (shape, np.uint8):
        raise NotRightError(
            f"lulc has become {array.shape}, {array.dtype}; expected {shape}, uint8: write only the region, as codes."
        )
    found, expected = array[:], np.stack([read_box(year, TEACHING_WINDOW) for year in YEARS])
    differs = found != expected
    expected[-1, :1000, :400] = PATCH_CLASS  # it is the window's corner
    if np.array_equal(found, expected):
        return
    years = [year for year, layer in zip(YEARS, differs, strict=True) if layer.any()]
    if not years:
        raise NotRightError("Nothing was written: the cube has not changed.")
    if years != [PATCH_YEAR]:
        raise NotRightError(f"The years {years} were changed; only {PATCH_YEAR} is wrong.")
    now, changed = found[-1], differs[-1]
    if not changed[:1000].any():
        raise NotRightError("The rows are upside down: this is the south of the window; row 0 is its northernmost.")
    rows, cols = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    north, south, west, east = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
    patch = now[north:south, west:east]
    sides = {"north": -north, "south": south - 1000, "west": -west, "east": east - 400}
    if (patch == PATCH_CLASS).all():
        raise NotRightError(f"The box {' and '.join(misses(side, n) for side, n in sides.items() if n)}.")
    if not any(sides.values()) and (patch == patch[0, 0]).all():
        raise NotRightError(f"The box is {patch[0, 0]} now; the experts say {PATCH_CLASS}.")
    outside, missing = int(changed.sum() - changed[:1000, :400].sum()), int((now[:1000, :400] != PATCH_CLASS).sum())
    raise NotRightError(
        f"Not quite: {outside:,} pixels outside the box were changed, and {missing:,} inside it are not {PATCH_CLASS}."
    )


def _check_chunks(changes: icechunk.Diff) -> int:
    """Return how many chunks were written; raise if others than the region's. The values are known to be right."""
    kinds = ("new_groups", "deleted_groups", "updated_groups", "new_arrays", "deleted_arrays", "updated_arrays")
    rewritten = sorted(set().union(*(getattr(changes, kind) for kind in kinds)))
    written = [(path, tuple(chunk)) for path, chunks in changes.updated_chunks.items() for chunk in chunks]
    if rewritten or set(written) - {("/lulc", (4, 0, 0)), ("/lulc", (4, 1, 0))}:
        others = ", ".join([*rewritten, *sorted(set(changes.updated_chunks) - {"/lulc"})])
        what = count(len(written), "chunk") + (f", and replaced or changed {others}" if others else "")
        raise NotRightError(
            f"The values are right, but you wrote {what}. The box covers parts of two chunks: write the region only."
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
    expect(session, icechunk.Session, "a session from repo.writable_session('main')")
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
    expect(snapshot, str, "the id of the new snapshot, which session.commit returns as text")
    release, tip = repo.lookup_tag("v1.0"), repo.lookup_branch("main")
    snapshot = snapshot.strip()
    if tip == release:
        raise NotRightError("Nothing was committed to main, which is still at v1.0. Commit the session from 05-2.")
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
    expect(name, str, "the tag's name, such as 'v1.1'")
    name = name.strip()
    if name not in repo.list_tags():
        branch = " That is a branch, which moves on with the next commit." if name in repo.list_branches() else ""
        tags = ", ".join(sorted(repo.list_tags()))
        raise NotRightError(f"There is no tag {name!r}; the repository has {tags}.{branch}")
    if repo.lookup_tag(name) == repo.lookup_tag("v1.0"):
        raise NotRightError(f"{name} is the release with the defect. A tag cannot be moved: make a new one.")
    try:
        _check_patched(repo.readonly_session(tag=name).store)
    except NotRightError as error:
        raise NotRightError(
            f"{name} is not the repaired cube. {error} A tag cannot be moved: make a new one."
        ) from None
    if not name.startswith("v1."):
        raise NotRightError(f"The snapshot is right. But {name!r} does not tell users that it follows v1.0: try v1.1.")
    return f"{name} is the repaired cube, and v1.0 is still what it was."
