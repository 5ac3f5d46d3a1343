"""Checks of appendix A2 (many writers)."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import icechunk
import numpy as np
import zarr

from workshop.exercises.boxes import read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import TEACHING_WINDOW, YEARS

_RIVALS = 3  # commits that land first
_SECONDS = 10  # until a function must have returned
_GARBAGE, _WORK = 4, 2  # chunks, of shared_repository


def _noise(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 200, (500 * rows, 500), dtype=np.uint8)


def shared_repository() -> tuple[icechunk.Repository, icechunk.Session, datetime]:
    """Make a repository in memory with garbage and, later, a colleague's open session; return when that began, too."""
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    with repo.transaction("main", message="Create") as store:
        zarr.create_array(store, name="lulc", data=_noise(6), chunks=(500, 500), fill_value=255)
    forgotten = repo.writable_session("main")
    zarr.open_array(forgotten.store, path="lulc", mode="r+")[: 500 * _GARBAGE] = _noise(_GARBAGE)
    time.sleep(1)
    began = datetime.now(UTC)
    work = repo.writable_session("main")
    zarr.open_array(work.store, path="lulc", mode="r+")[: 500 * _WORK] = _noise(_WORK)
    return repo, work, began


@exercise(
    "a2-1",
    expects="the name of a branch",
    hint="""Put these lines in order:

```python
edit(ben, slice(400, 500), slice(0, 100), 250)
settled = "my-branch"
ben = repo.writable_session("my-branch")
ben.commit("Ben: houses")
ben = same_chunk("my-branch")
```""",
    more="A solver chooses whole chunks, and each of the two lacks something. A new session begins at the tip of the "
    "branch, where Anna's cropland is in the chunk already; there Ben makes his edit again.",
)
def _settled(repo: icechunk.Repository, branch: str) -> str:
    if not isinstance(branch, str):
        raise NotRightError(f"Expected the name of a branch as text, found {type(branch).__name__}.")
    if branch not in repo.list_branches():
        raise NotRightError(f"There is no branch {branch!r}; use the name that you gave to same_chunk.")
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
        raise NotRightError("This branch wasn't created by same_chunk: its history has no commit 'Anna: cropland'.")
    if hers and not his and by_ben:
        raise NotRightError("Ben's commit is there, but his houses aren't: the solver took Anna's chunk (theirs).")
    if hers and not his:
        raise NotRightError("Anna's cropland is there; Ben's houses (rows 400 to 499) aren't on the branch yet.")
    if his and not hers:
        raise NotRightError("Ben's houses are there, but Anna's cropland is gone: the solver took his chunk (ours).")
    if not his:
        raise NotRightError("Neither edit is there: rows 0 to 99 should be 244, rows 400 to 499 should be 250.")
    if not np.array_equal(found, both):
        raise NotRightError("Both edits are there, but other pixels of 2020 have changed, too.")
    for year, layer in zip(YEARS, earlier, strict=False):
        if not np.array_equal(layer, read_box(year, TEACHING_WINDOW)):
            raise NotRightError(f"Both edits are there, but {year} has changed, too; edit 2020 only.")
    if not by_anna:
        raise NotRightError("Both edits are there, but Anna's commit is gone. Don't rewrite a colleague's history.")
    if not by_ben:
        raise NotRightError(
            "Both edits are there. Let Ben's be a commit of his own, with a message that starts with 'Ben'."
        )
    return "Ben started again from the new tip, so his edit saw Anna's."


@exercise(
    "a2-2",
    expects="a function that takes a repository, a function and a message",
    hint="""Fill the gaps:

```python
def commit_edit(repo, edit, message):
    while True:
        session = repo.____("main")
        edit(____)
        try:
            return session.____(message)
        except icechunk.____:
            continue  # another commit landed first
```""",
    more="A session that lost the race began at a snapshot that's no longer the tip, and never will be again. So the "
    "line that opens the session must be *inside* the loop, and so must the edit.",
)
def _persistent(commit_edit: Callable) -> str:
    if not callable(commit_edit):
        raise NotRightError(f"Expected the function commit_edit itself, found {type(commit_edit).__name__}.")
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    with repo.transaction("main", message="Create") as store:
        zarr.create_array(store, name="lulc", data=np.zeros((8, 8), np.uint8), chunks=(8, 8), fill_value=255)
    first, tries, outcome = repo.lookup_branch("main"), [], {}

    def edit(session: icechunk.Session) -> None:
        """Write the last row; at the first tries, a rival commits another row of the same chunk meanwhile."""
        tries.append(None)
        zarr.open_array(session.store, path="lulc", mode="r+")[7] = 244
        if len(tries) <= _RIVALS:
            with repo.transaction("main", message=f"Rival {len(tries)}") as store:
                zarr.open_array(store, path="lulc", mode="r+")[len(tries)] = 250

    def run() -> None:
        try:
            outcome["returned"] = commit_edit(repo, edit, "Mine")
        except Exception as error:
            outcome["raised"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    if thread.is_alive():
        repo.reset_branch("main", first)  # where a session that is used again and again began: it gets through
        raise NotRightError(
            f"It still tries after {_SECONDS} seconds. Does each turn open a new session, and make the edit in it?"
        )
    _explain(outcome.get("raised"), len(tries))
    array = zarr.open_array(repo.readonly_session("main").store, path="lulc", mode="r")[:]
    messages = [snapshot.message for snapshot in repo.ancestry(branch="main")]
    if (array[7] != 244).any():
        raise NotRightError("It returned, but the edit isn't on main: call edit(session), and commit that session.")
    if (array[1 : len(tries[:_RIVALS]) + 1] != 250).any():
        raise NotRightError("The edit is on main, but others' edits of the same chunk are gone: a solver took yours.")
    if messages[0] != "Mine" or messages.count("Mine") > 1:
        raise NotRightError(f"Expected one commit with the message 'Mine', as the newest; found {messages[:-2]}.")
    if outcome["returned"] != repo.lookup_branch("main"):
        raise NotRightError("All edits are on main. Now return what commit returns, the new snapshot's id.")
    return f"{_RIVALS} rivals came first, {len(tries)} tries were needed, and no edit was lost."


def _explain(error: Exception | None, tries: int) -> None:
    """Raise what an error that the function raised means for it."""
    if error is None:
        if not tries:
            raise NotRightError("It returned without calling edit(session).")
        return
    if isinstance(error, icechunk.RebaseFailedError):
        raise NotRightError(
            "A rebase was refused, because both had changed the same chunk. Start again with a new session instead."
        )
    if isinstance(error, icechunk.ConflictError):
        what = "Catch it, and start again" if tries == 1 else f"It gave up after {tries} tries: use a loop"
        raise NotRightError(f"Another commit landed first, and a ConflictError came out. {what}.")
    raise NotRightError(f"Called with a repository, edit and 'Mine', it raised {type(error).__name__}: {error}")


@exercise(
    "a2-3",
    expects="a repository, a session, and a count of chunks",
    hint="Which time is between the garbage and your colleague's first chunk? `garbage_collect` takes it as its "
    "cutoff. Try it with `dry_run=True` first.",
    more="`began` is such a time. What `garbage_collect` returns has the attribute `chunks_deleted`.",
)
def _tidied(repo: icechunk.Repository, work: icechunk.Session, deleted: int) -> str:
    if not isinstance(repo, icechunk.Repository) or not isinstance(work, icechunk.Session):
        raise NotRightError(f"Expected shared and work, found {type(repo).__name__} and {type(work).__name__}.")
    left = sum(entry.key.startswith("chunks/") for entry in repo.storage.list_objects_metadata()) - 6 - _WORK
    try:
        hers = zarr.open_array(work.store, path="lulc", mode="r")[: 500 * _WORK]
    except icechunk.IcechunkError:
        hers = None
    if left < 0 or hers is None or not np.array_equal(hers, _noise(_WORK)):
        raise NotRightError(
            "Chunks of the open session are gone. Its commit would succeed, and its pixels would be lost. Run the cell "
            "that makes shared again to start over."
        )
    if left:
        raise NotRightError(
            f"Your colleague's chunks are safe, but {left} chunks of garbage are still there: the cutoff is before "
            "them, or it was a dry run."
        )
    if isinstance(deleted, bool) or not isinstance(deleted, int | np.integer):
        raise NotRightError(f"The garbage is gone. deleted should be a count of chunks, found {deleted!r}.")
    if deleted != _GARBAGE:
        raise NotRightError(f"The garbage is gone, but {deleted} isn't the number of chunks that were deleted.")
    return f"{_GARBAGE} chunks of garbage are gone, and your colleague can commit."
