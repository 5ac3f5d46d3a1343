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
    if branch not in repo.list_branches():
        raise NotRightError(f"There is no branch {branch!r:.40}; use the name that you gave to same_chunk.")
    if branch == "main":
        raise NotRightError("Leave main as it is, and work on the branch that same_chunk makes.")
    array = zarr.open_array(repo.readonly_session(branch).store, path="lulc", mode="r")
    found, expected = array[:], np.stack([read_box(year, TEACHING_WINDOW) for year in YEARS])
    anna, ben = np.s_[-1, 0:100, 0:100], np.s_[-1, 400:500, 0:100]
    expected[anna], expected[ben] = 244, 250
    messages = [snapshot.message for snapshot in repo.ancestry(branch=branch)]
    if "Anna: cropland" not in messages:
        raise NotRightError("The branch has no commit 'Anna: cropland': same_chunk makes it, and it has to stay there.")
    if not np.array_equal(found[anna], expected[anna]):
        raise NotRightError("Anna's cropland (rows 0 to 99) is gone. A solver that takes Ben's chunk drops it (ours).")
    if not np.array_equal(found[ben], expected[ben]):
        raise NotRightError(
            "Anna's cropland is there; Ben's houses (rows 400 to 499) aren't. A solver drops them (theirs)."
        )
    if not np.array_equal(found, expected) or array.dtype != np.uint8:
        raise NotRightError("Both edits are there, but other pixels have changed, too: edit only Ben's, and only 2020.")
    if not messages[0].casefold().startswith("ben"):
        raise NotRightError(
            "Both edits are there. Ben's has to be the newest commit, and its message begins with 'Ben'."
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
        raise NotRightError(f"It still tries after {_SECONDS} seconds. Does each try edit in a new session?")
    error = outcome.get("raised")
    if isinstance(error, icechunk.RebaseFailedError):
        raise NotRightError(
            "A rebase was refused: both changed the same chunk. Start again with a new session instead."
        )
    if isinstance(error, icechunk.ConflictError):
        what = "Catch it, and start again" if len(tries) == 1 else f"It gave up after {len(tries)} tries: use a loop"
        raise NotRightError(f"Another commit landed first, and a ConflictError came out. {what}.")
    if error:
        raise NotRightError(f"Called with a repository, edit and 'Mine', it raised {type(error).__name__}: {error}")
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


@exercise(
    "a2-3",
    expects="the repository shared, the session work, and a count of chunks",
    hint="Which time is between the garbage and your colleague's first chunk? `garbage_collect` takes it as its "
    "cutoff. Try it with `dry_run=True` first.",
    more="`began` is such a time. What `garbage_collect` returns has the attribute `chunks_deleted`.",
)
def _tidied(repo: icechunk.Repository, work: icechunk.Session, deleted: int) -> str:
    left = sum(entry.key.startswith("chunks/") for entry in repo.storage.list_objects_metadata()) - 6 - _WORK
    if left < 0 or not np.array_equal(zarr.open_array(work.store, path="lulc", mode="r")[: 500 * _WORK], _noise(_WORK)):
        raise NotRightError("Chunks of the open session are gone, and a commit wouldn't notice. Make `shared` again.")
    if left:
        raise NotRightError(f"{left} chunks of garbage are still there: the cutoff is too early, or it was a dry run.")
    if not isinstance(deleted, int | np.integer) or deleted != _GARBAGE:
        raise NotRightError(f"The garbage is gone, but {deleted!r} isn't the number of chunks that were deleted.")
    return f"{_GARBAGE} chunks of garbage are gone, and your colleague can commit."
