"""Checks of lesson 04 (versions)."""

from functools import cache

import icechunk
import numpy as np
import zarr
from zarr.errors import GroupNotFoundError

from workshop.exercises.boxes import check_layers, expect
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import RESOLUTION, TEACHING_WINDOW, YEARS

_EDITS, _UNCHANGED, _BAD = 20, 8, 13  # in broken_repository


@cache
def _versions() -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the array of broken_repository before its edits, and after each of them."""
    rng = np.random.default_rng(4)
    first = rng.choice(np.array([10, 40, 207, 244], np.uint8), (5, 40, 40))
    versions = [first]
    for number in range(1, _EDITS + 1):
        array = versions[-1].copy()
        row, col = rng.integers(0, 35, 2)
        array[4, row : row + 5, col : col + 5] = 250
        if number == _BAD:
            array[2, row : row + 5, col : col + 5] = 250
        versions.append(array)
    return first, versions[1:]


def broken_repository() -> icechunk.Repository:
    """Make a repository in memory: ``lulc`` (5, 40, 40), the tag v1, and 20 edits, one of which damaged 2010."""
    first, versions = _versions()
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    with repo.transaction("main", message="Make the array") as store:
        zarr.create_array(store, name="lulc", data=first, chunks=(1, 40, 40), fill_value=255)
    repo.create_tag("v1", repo.lookup_branch("main"))
    for number, array in enumerate(versions, 1):
        with repo.transaction("main", message=f"Edit {number:02}") as store:
            for position in (2, 4) if number in (_UNCHANGED, _BAD) else (4,):
                zarr.open_array(store, path="lulc", mode="r+")[position] = array[position]
    return repo


def _years(session: icechunk.Session) -> list[int]:
    try:
        return zarr.open_group(session.store, mode="r")["year"][:].tolist()
    except (GroupNotFoundError, KeyError):
        return []


@exercise(
    "04-1",
    expects="a repository, a count of pixels, and a snapshot's id",
    hint="""Fill the gaps:

```python
session = practice.____("main")
to_icechunk(layer(____), session, append_dim="____", mode="a-")
differing = wrong_pixels(____, 2010)
snapshot_2010 = session.____("Add 2010")
```""",
    more="Section 3 does the same for other years. Write, compare and commit through the *same* session, and run the "
    "cell once: an append doesn't check whether the year is there already. To begin again, run the cell that makes "
    "`practice`.",
)
def _appended(repo: icechunk.Repository, differing: int, snapshot: str) -> str:
    expect(repo, icechunk.Repository, "the repository practice")
    session = repo.readonly_session("main")
    years, expected = _years(session), [2000, 2005, 2010]
    if years == [2000, 2005]:
        raise NotRightError(
            "main still has 2000 and 2005 only. Written isn't committed: commit the session that you wrote into."
        )
    if years != expected:
        raise NotRightError(
            f"Expected the years {expected} on main, found {years}. Make practice again, and append 2010 once, with "
            "append_dim."
        )
    group = zarr.open_group(session.store, mode="r")
    corner = TEACHING_WINDOW.west + RESOLUTION / 2, TEACHING_WINDOW.north - RESOLUTION / 2
    if not np.allclose([group["x"][0], group["y"][0]], corner, rtol=0, atol=1e-7):
        raise NotRightError(
            "The years are right, but x or y has changed: you appended another window, and it replaced the cube's "
            'coordinates. mode="a-" leaves them alone, but take the same window.'
        )
    check_layers(group["lulc"], expected, TEACHING_WINDOW)
    if snapshot != repo.lookup_branch("main"):
        raise NotRightError(
            "The cube is right. snapshot_2010 isn't the id of its newest commit, which session.commit returns."
        )
    if isinstance(differing, bool) or not isinstance(differing, int | np.integer) or differing:
        raise NotRightError(
            f"The cube on main is right, but differing is {differing!r}. Count the pixels in which 2010 differs from "
            "its own tile, through the session that you wrote into."
        )
    return "On main, all three years equal their tiles, and snapshot_2010 is the commit that added 2010."


@exercise(
    "04-2",
    expects="a tag's name and a session that reads through the tag",
    hint='Find the snapshot in `repo.ancestry(branch="main")` by its message. What does `create_tag` need from it?',
    more='Three calls: `repo.create_tag("my-name", ids["Add 2015"])`, `repo.readonly_session(tag="my-name")`, and '
    "`years_in` for that session, to see what you tagged.",
)
def _release(repo: icechunk.Repository, tag: str, answer: icechunk.Session) -> str:
    expect(repo, icechunk.Repository, "the repository repo")
    expected = [2000, 2005, 2010, 2015]
    if tag not in repo.list_tags():
        branch = " It is a branch, which would move on with the next commit." if tag in repo.list_branches() else ""
        raise NotRightError(
            f"There is no tag {tag!r}; the repository has {sorted(repo.list_tags())}.{branch} "
            "(The name of a deleted tag can't be used again.)"
        )
    session = repo.readonly_session(tag=tag)
    if (found := _years(session)) != expected:
        raise NotRightError(
            f"The tag {tag!r} leads to a version with the years {found}; the paper used {expected}. "
            "Tags can't be moved, so use another name."
        )
    check_layers(zarr.open_array(session.store, path="lulc", mode="r"), expected, TEACHING_WINDOW)
    expect(answer, icechunk.Session, "a session from repo.readonly_session as release_session")
    if answer.snapshot_id != session.snapshot_id:
        raise NotRightError(
            f"The tag is right, but release_session reads another version, with the years {_years(answer)}: open it "
            "with your tag."
        )
    if not answer.read_only:
        raise NotRightError("The tag is right. To read, open a session that can't write: repo.readonly_session.")
    return f"Whatever main becomes, this name leads to the years {', '.join(map(str, expected))}."


@exercise(
    "04-3",
    expects="a repository and a commit's message",
    hint='First find it: walk through `broken.ancestry(branch="main")`, open each snapshot with '
    "`broken.readonly_session(snapshot_id=...)`, and see where position 2 (2010) stops being equal to that of the tag.",
    more="""Then undo it in the open, as in section 5:

```python
good = zarr.open_array(broken.readonly_session(tag="v1").store, path="lulc", mode="r")
with broken.transaction("main", message="Restore 2010") as store:
    ...  # write good[2] into the array's year 2
```""",
)
def _undone(repo: icechunk.Repository, culprit: str) -> str:
    expect(repo, icechunk.Repository, "the repository broken")
    expect(culprit, str, "a commit's message as text")
    messages = [snapshot.message for snapshot in repo.ancestry(branch="main")]
    bad, unchanged = f"Edit {_BAD:02}", f"Edit {_UNCHANGED:02}"
    if not {"Make the array", bad} <= set(messages):
        raise NotRightError(
            "The bad commit isn't in the history of main: this is another repository, or main was reset, and good "
            "commits are gone, too. Make broken again, and restore 2010 with a commit of its own."
        )
    culprit = culprit.strip()
    if culprit not in messages:
        raise NotRightError(f"{culprit!r} isn't the message of a commit on main, such as 'Edit 01'.")
    if culprit == unchanged:
        raise NotRightError(
            f"{unchanged} wrote 2010 again, but with the same pixels. A diff names the chunks that were written; "
            "compare their pixels."
        )
    if culprit != bad:
        raise NotRightError(f"The pixels of 2010 are the same before and after {culprit!r}.")
    first, versions = _versions()
    lulc = zarr.open_array(repo.readonly_session("main").store, path="lulc", mode="r")
    if (lulc.shape, lulc.dtype) != (first.shape, first.dtype):
        raise NotRightError(f"On main lulc has become {lulc.shape}, {lulc.dtype}: change values only.")
    found, last = lulc[:], versions[-1]
    if np.array_equal(found[2], last[2]):
        raise NotRightError("That's the commit. 2010 on main is still as it left it: restore that year, and commit.")
    if wrong := int((found[2] != first[2]).sum()):
        raise NotRightError(f"That's the commit, but {wrong} pixels of 2010 on main differ from those of the tag v1.")
    for year, now, before in zip(YEARS, found, last, strict=True):
        if year != 2010 and not np.array_equal(now, before):
            raise NotRightError(f"2010 is right again, but {year} has changed, too: restore the year 2010 only.")
    return "2010 is right again, 2020 kept its edits, and the history shows what happened."
