"""Checks of lessons 04 (versions) and 05 (a patch), and the repository that one of them searches."""

from itertools import pairwise, product

import icechunk
import numpy as np
import xarray as xr
import zarr
from zarr.errors import GroupNotFoundError

from workshop.exercises.boxes import as_class_codes, check_sides, is_at, misses, read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import DEFECT_BOX, TEACHING_WINDOW, YEARS

# Lesson 04: versions

BUSY_PIXEL = (12, 30)


def busy_repository(storage: icechunk.Storage) -> icechunk.Repository:
    """Make a repository with a dozen small edits of ``lulc`` (40, 40), for the exercise that looks for one of them."""
    edits = {  # message: (rows, columns, class)
        "Draw the fields": (slice(5, 35), slice(5, 35), 244),
        "Build the old town": (slice(10, 15), slice(28, 33), 250),
        "Dig a pond": (slice(30, 34), slice(6, 10), 207),
        "Give the old town back to the fields": (slice(9, 16), slice(27, 34), 244),
        "Plant a wood in the west": (slice(0, 40), slice(0, 4), 40),
        "Let the southern fields lie fallow": (slice(28, 35), slice(5, 35), 10),
        "Build a road": (slice(20, 21), slice(0, 40), 250),
        "Build the new town": (slice(11, 18), slice(26, 33), 250),
        "Plant an orchard": (slice(22, 26), slice(22, 30), 30),
        "Build houses around the new town": (slice(9, 20), slice(25, 34), 250),
        "Dry the pond out": (slice(30, 34), slice(6, 10), 100),
        "Widen the road": (slice(19, 22), slice(0, 40), 250),
    }
    repo = icechunk.Repository.create(storage)
    with repo.transaction("main", message="Make the array") as store:
        zarr.create_array(store, name="lulc", data=np.full((40, 40), 10, np.uint8), chunks=(40, 40), fill_value=255)
    for message, (rows, cols, value) in edits.items():
        with repo.transaction("main", message=message) as store:
            zarr.open_array(store, path="lulc", mode="r+")[rows, cols] = value
    return repo


@exercise(
    "04-1",
    expects="a commit's message as text",
    hint="Walk from the newest snapshot to its parents, and open each with readonly_session(snapshot_id=...).",
)
def _culprit(answer: str) -> str:
    repo = busy_repository(icechunk.in_memory_storage())
    commits = [snapshot for snapshot in repo.ancestry(branch="main") if snapshot.parent_id]
    value = {}
    for snapshot in commits:
        store = repo.readonly_session(snapshot_id=snapshot.id).store
        value[snapshot.message] = int(zarr.open_array(store, path="lulc", mode="r")[BUSY_PIXEL])
    messages = list(value)  # newest first
    changes = [now for now, before in pairwise(messages) if value[now] != value[before]]
    right = changes[0]
    answer = answer.strip()
    if answer not in value:
        raise NotRightError(f"{answer!r} is no commit's message there; expected one of those printed above, in full.")
    if answer == right:
        path = " -> ".join(str(value[message]) for message in reversed([*changes, messages[-1]]))
        return f"The pixel went {path}; most commits did not touch it."
    if answer == messages[0]:
        raise NotRightError("This is the newest commit; the pixel was built-up before it, too.")
    if answer == messages[messages.index(right) + 1]:
        raise NotRightError("In this version the pixel was not built-up yet; the commit after it made it so.")
    if answer in changes and value[answer] == 250:
        raise NotRightError("It became built-up then, too, but not for the last time: it was a field again later.")
    if answer in changes:
        raise NotRightError(f"This commit changed the pixel, but to {value[answer]}, not to 250.")
    raise NotRightError(
        f"The pixel is {value[answer]} after this commit and was {value[answer]} before it: look for the commit "
        "whose parent has another value."
    )


@exercise(
    "04-2",
    expects="a tag's name and a list of years",
    hint="Find the snapshot in repo.ancestry by its message, create_tag with its id, then readonly_session(tag=...).",
)
def _release(repo: icechunk.Repository, tag: str, years: list[int]) -> str:
    expected = [2000, 2005, 2010, 2015]
    if tag not in repo.list_tags():
        branch = " It is a branch, which would move on with the next commit." if tag in repo.list_branches() else ""
        raise NotRightError(
            f"There is no tag {tag!r}; the repository has {sorted(repo.list_tags())}.{branch} "
            "(The name of a tag that was deleted cannot be used again.)"
        )
    store = repo.readonly_session(tag=tag).store
    try:
        group = zarr.open_group(store, mode="r")
        found = group["year"][:].tolist()
    except (GroupNotFoundError, KeyError):
        found = []
    if found != expected:
        raise NotRightError(
            f"The tag {tag!r} leads to a version with the years {found}; the paper used {expected}. "
            "Tags cannot be moved, so take another name."
        )
    if (group["lulc"].shape, group["lulc"].dtype) != ((4, 2000, 4000), np.uint8):
        raise NotRightError(
            f"The years are right, but lulc is {group['lulc'].shape}, {group['lulc'].dtype} in that version; "
            "expected (4, 2000, 4000), uint8."
        )
    for k, year in enumerate(expected):
        if not np.array_equal(group["lulc"][k], read_box(year, TEACHING_WINDOW)):
            raise NotRightError(f"The years are right, but {year} is not what the tile holds.")
    years = np.asarray(years).ravel().tolist()
    if years == [*expected, 2020]:
        raise NotRightError("The tag is right. These are the years of main; read through the tag instead.")
    if years != expected:
        raise NotRightError(f"The tag is right. Through it one finds four years, not {years}.")
    return "Whatever main becomes, this name stands for those four years."


@exercise(
    "04-3",
    expects="the name of a branch",
    hint="A solver chooses whole chunks. What if Ben began again, from the branch as it is now?",
)
def _settled(repo: icechunk.Repository, branch: str) -> str:
    if not isinstance(branch, str):
        raise NotRightError(f"Expected the name of a branch as text, found {type(branch).__name__}.")
    if branch not in repo.list_branches():
        raise NotRightError(f"There is no branch {branch!r}; set the name that you gave to same_chunk.")
    if branch == "main":
        raise NotRightError("Leave main as it is, and work on the branch that same_chunk makes.")
    session = repo.readonly_session(branch)
    array = zarr.open_array(session.store, path="lulc", mode="r")
    if (array.shape, array.dtype) != ((len(YEARS), 2000, 4000), np.uint8):
        raise NotRightError(f"On this branch lulc has become {array.shape}, {array.dtype}: change values only.")
    *earlier, found = array[:]
    messages = [snapshot.message for snapshot in repo.ancestry(branch=branch)]
    tile = read_box(2020, TEACHING_WINDOW)
    anna, ben = np.s_[0:100, 0:100], np.s_[400:500, 0:100]
    hers, his = bool((found[anna] == 244).all()), bool((found[ben] == 250).all())
    if "Anna: cropland" not in messages and not (hers and his):
        raise NotRightError("This branch is none that same_chunk made: its history has no commit 'Anna: cropland'.")
    if hers and not his:
        if messages[0].casefold().startswith("ben"):
            raise NotRightError("Ben's commit is there, his houses are not: the solver took Anna's chunk ('theirs').")
        raise NotRightError("Anna's cropland is there; Ben's houses (rows 400 to 499) are not on the branch yet.")
    if his and not hers:
        raise NotRightError("Ben's houses are there, but they took Anna's cropland with them ('ours').")
    if not his and not hers:
        raise NotRightError("Neither edit is there: rows 0 to 99 should be 244, rows 400 to 499 should be 250.")
    others = np.ones(tile.shape, bool)
    others[anna] = others[ben] = False
    if not np.array_equal(found[others], tile[others]):
        raise NotRightError("Both edits are there, but other pixels of 2020 changed, too.")
    for year, layer in zip(YEARS, earlier, strict=False):
        if not np.array_equal(layer, read_box(year, TEACHING_WINDOW)):
            raise NotRightError(f"Both edits are there, but {year} changed, too; they are edits of 2020.")
    if not any(message == "Anna: cropland" for message in messages):
        raise NotRightError("Both edits are there, but Anna's commit is gone: nobody's history should be rewritten.")
    if not messages[0].casefold().startswith("ben"):
        raise NotRightError("Both edits are there; let Ben's be a commit of his own (a message that begins with Ben).")
    return "Begin again from the new tip: the second edit sees the first. This is what datacube.write_region does."


# Lesson 05: a patch

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
    check_sides(flat, DEFECT_BOX)
    expected = np.full((1000, 400), PATCH_CLASS, np.uint8)
    if not is_at(flat, expected, DEFECT_BOX):
        raise NotRightError("The outer rows and columns are right, but not what lies between: take all, in order.")
    wrong = int((flat.values != PATCH_CLASS).sum())
    if wrong:
        raise NotRightError(f"{wrong:,} of the {flat.size:,} pixels are not {PATCH_CLASS}: set every pixel of the box.")
    axis = "" if "year" in answer.dims else " For region='auto' the year must become an axis again."
    return f"{flat.size:,} pixels of class {PATCH_CLASS}, where they belong.{axis}"


def _check_patched(store: icechunk.IcechunkStore) -> None:
    """Compare all years of a store with the tiles and the patch, and name the first difference that explains it."""
    array = zarr.open_array(store, path="lulc", mode="r")
    if array.dtype != np.uint8:
        raise NotRightError(
            f"lulc has become {array.dtype}: the array was written anew. Class codes stay uint8; write only the region."
        )
    if array.shape != (len(YEARS), 2000, 4000):
        raise NotRightError(f"lulc has the shape {array.shape} now, expected (5, 2000, 4000): change values only.")
    found = array[:]
    before = np.stack([read_box(year, TEACHING_WINDOW) for year in YEARS])
    box = np.s_[0:1000, 0:400]  # of the window's rows and columns
    changed = found != before
    if not changed.any():
        raise NotRightError("Nothing was written: the cube is as it was.")
    years = [year for year, layer in zip(YEARS, changed, strict=True) if layer.any()]
    if years == list(YEARS):
        raise NotRightError(f"All years were changed; only {PATCH_YEAR} is wrong.")
    others = [year for year in years if year != PATCH_YEAR]
    if others:
        raise NotRightError(f"The year {others[0]} was changed; the defect is in {PATCH_YEAR}.")
    now = found[-1]
    outside = changed[-1].copy()
    outside[box] = False
    missing = now[box] != PATCH_CLASS
    if not changed[-1][box].any() and not outside[:1000].any():
        raise NotRightError("The rows are upside down: this is the south of the window; row 0 is its northernmost.")
    if not outside.any() and not missing.any():
        return
    written = np.unique(now[box])
    if written.size == 1 and not outside.any():
        raise NotRightError(f"The box is {written[0]} now; the experts say {PATCH_CLASS}.")
    if not outside.any():
        _check_edges(missing)
    if not missing.any():
        rows, cols = np.nonzero(outside)
        if rows.max() < 1000 and (now[:1000, : cols.max() + 1] == PATCH_CLASS).all():
            raise NotRightError(f"The box {misses('east', int(cols.max()) - 399, True)}.")
        if cols.max() < 400 and (now[: rows.max() + 1, :400] == PATCH_CLASS).all():
            raise NotRightError(f"The box {misses('south', int(rows.max()) - 999, True)}.")
    _check_shift(now, changed[-1])
    faults = [f"{int(outside.sum()):,} pixels outside the box were changed"] if outside.any() else []
    faults += [f"{int(missing.sum()):,} inside it are not {PATCH_CLASS}"] if missing.any() else []
    raise NotRightError(f"Not quite: {', and '.join(faults)}.")


def _check_shift(now: np.ndarray, changed: np.ndarray) -> None:
    """Name the shift where a patch of the right size was written a few pixels beside its place."""
    for down, right in product(range(-5, 6), repeat=2):
        top, left = max(down, 0), max(right, 0)  # the box lies in the window's corner
        placed = np.s_[top : 1000 + down, left : 400 + right]
        beside = changed.copy()
        beside[placed] = False
        if not beside.any() and (now[placed] == PATCH_CLASS).all():
            rows = f"{abs(down)} row{'s' * (abs(down) > 1)} to the {'south' if down > 0 else 'north'}"
            cols = f"{abs(right)} column{'s' * (abs(right) > 1)} to the {'east' if right > 0 else 'west'}"
            raise NotRightError(f"The patch is shifted: {' and '.join([rows] * bool(down) + [cols] * bool(right))}.")


def _check_edges(missing: np.ndarray) -> None:
    """Name the side at which whole rows or columns of the box were left out."""
    rows, cols = np.flatnonzero(missing.any(axis=1)), np.flatnonzero(missing.any(axis=0))
    height, width = missing.shape
    left_out = {
        "north": (rows, int(rows.max()) + 1),
        "south": (rows, height - int(rows.min())),
        "west": (cols, int(cols.max()) + 1),
        "east": (cols, width - int(cols.min())),
    }
    side, (_, pixels) = min(left_out.items(), key=lambda item: item[1][1])
    if pixels < 50:
        raise NotRightError(f"The box {misses(side, pixels, False)}.")
    for n in range(1, 50):
        if not missing[n:-n, n:-n].any():
            raise NotRightError(f"The box stops short on more than one side, by up to {n} pixels.")


def _check_chunks(changes: icechunk.Diff) -> None:
    """Once the values are known to be right, see that nothing else was written."""
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
