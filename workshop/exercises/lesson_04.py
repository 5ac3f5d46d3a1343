"""Checks of lesson 04 (versions)."""

from itertools import pairwise

import icechunk
import numpy as np
import zarr
from zarr.errors import GroupNotFoundError

from workshop.exercises.boxes import read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import TEACHING_WINDOW, YEARS


def busy_repository(storage: icechunk.Storage) -> icechunk.Repository:
    """Make a repository with a dozen small edits of ``lulc`` (40, 40), one of which the exercise asks for."""
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
    *commits, _ = repo.ancestry(branch="main")
    value = {}
    for snapshot in commits:
        store = repo.readonly_session(snapshot_id=snapshot.id).store
        value[snapshot.message] = int(zarr.open_array(store, path="lulc", mode="r")[12, 30])
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
    try:
        group = zarr.open_group(repo.readonly_session(tag=tag).store, mode="r")
        found = group["year"][:].tolist()
    except (GroupNotFoundError, KeyError):
        found = []
    if found != expected:
        raise NotRightError(
            f"The tag {tag!r} leads to a version with the years {found}; the paper used {expected}. "
            "Tags cannot be moved, so take another name."
        )
    lulc = group["lulc"]
    if (lulc.shape, lulc.dtype) != ((4, 2000, 4000), np.uint8):
        raise NotRightError(
            f"The years are right, but lulc is {lulc.shape}, {lulc.dtype} in that version; "
            "expected (4, 2000, 4000), uint8."
        )
    for k, year in enumerate(expected):
        if not np.array_equal(lulc[k], read_box(year, TEACHING_WINDOW)):
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
    array = zarr.open_array(repo.readonly_session(branch).store, path="lulc", mode="r")
    if (array.shape, array.dtype) != ((len(YEARS), 2000, 4000), np.uint8):
        raise NotRightError(f"On this branch lulc has become {array.shape}, {array.dtype}: change values only.")
    *earlier, found = array[:]
    messages = [snapshot.message for snapshot in repo.ancestry(branch=branch)]
    by_anna, by_ben = "Anna: cropland" in messages, messages[0].casefold().startswith("ben")
    both = read_box(2020, TEACHING_WINDOW).copy()
    anna, ben = np.s_[0:100, 0:100], np.s_[400:500, 0:100]
    both[anna], both[ben] = 244, 250
    hers, his = (np.array_equal(found[edit], both[edit]) for edit in (anna, ben))
    if not by_anna and not (hers and his):
        raise NotRightError("This branch is none that same_chunk made: its history has no commit 'Anna: cropland'.")
    if hers and not his and by_ben:
        raise NotRightError("Ben's commit is there, his houses are not: the solver took Anna's chunk ('theirs').")
    if hers and not his:
        raise NotRightError("Anna's cropland is there; Ben's houses (rows 400 to 499) are not on the branch yet.")
    if his and not hers:
        raise NotRightError("Ben's houses are there, but they took Anna's cropland with them ('ours').")
    if not his:
        raise NotRightError("Neither edit is there: rows 0 to 99 should be 244, rows 400 to 499 should be 250.")
    if not np.array_equal(found, both):
        raise NotRightError("Both edits are there, but other pixels of 2020 changed, too.")
    for year, layer in zip(YEARS, earlier, strict=False):
        if not np.array_equal(layer, read_box(year, TEACHING_WINDOW)):
            raise NotRightError(f"Both edits are there, but {year} changed, too; they are edits of 2020.")
    if not by_anna:
        raise NotRightError("Both edits are there, but Anna's commit is gone: nobody's history should be rewritten.")
    if not by_ben:
        raise NotRightError("Both edits are there; let Ben's be a commit of his own (a message that begins with Ben).")
    return "Begin again from the new tip: the second edit sees the first. This is what datacube.write_region does."
