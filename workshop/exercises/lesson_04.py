"""Checks of lesson 04 (versions)."""

from functools import cache

import icechunk
import numpy as np
import zarr
from zarr.errors import GroupNotFoundError

from workshop.exercises.boxes import read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import RESOLUTION, TEACHING_WINDOW, YEARS

_WINDOW = (2000, 4000)  # the shape of the teaching window
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


def _check_repository(repo: icechunk.Repository, name: str) -> None:
    if not isinstance(repo, icechunk.Repository):
        raise NotRightError(f"Expected the repository {name}, found {type(repo).__name__}.")


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
    _check_repository(repo, "practice")
    session = repo.readonly_session("main")
    years, expected, commits = _years(session), [2000, 2005, 2010], [*repo.ancestry(branch="main")]
    if years == [2000, 2005]:
        if len(commits) > 3:
            raise NotRightError(
                "There's a new commit on main, but no year was added: it came from another session than the one "
                "that to_icechunk wrote into."
            )
        raise NotRightError("main still has 2000 and 2005 only. Written isn't committed: commit the session.")
    if years.count(2010) > 1:
        raise NotRightError(
            f"The years on main are {years}: 2010 was appended more than once. Make practice again, and run your "
            "cell once."
        )
    if 2010 in years and len(years) < 3:
        raise NotRightError(
            f"The years on main are {years}: the cube was overwritten. Make practice again, and append with append_dim."
        )
    if years != expected:
        raise NotRightError(f"Expected the years {expected} on main, found {years}. Make practice again.")
    group = zarr.open_group(session.store, mode="r")
    lulc = group["lulc"]
    if lulc.dtype != np.uint8:
        raise NotRightError(f"The classes have become {lulc.dtype}: codes must stay uint8.")
    if lulc.shape != (3, *_WINDOW):
        raise NotRightError(f"lulc is {lulc.shape} on main; expected (3, 2000, 4000).")
    corner = TEACHING_WINDOW.west + RESOLUTION / 2, TEACHING_WINDOW.north - RESOLUTION / 2
    if not np.allclose([group["x"][0], group["y"][0]], corner, rtol=0, atol=1e-7):
        raise NotRightError(
            "The years are right, but x or y has changed: you appended another window, and it replaced the cube's "
            'coordinates. mode="a-" leaves them alone, but take the same window.'
        )
    _check_pixels(lulc, expected)
    if snapshot != repo.lookup_branch("main"):
        raise NotRightError(
            "The cube is right. snapshot_2010 isn't the id of its newest commit, which session.commit returns."
        )
    if isinstance(differing, bool) or not isinstance(differing, int | np.integer):
        raise NotRightError(f"The cube is right. differing should be a count of pixels, found {differing!r}.")
    if differing:
        raise NotRightError(
            f"The cube on main is right, but you counted {differing:,} differing pixels. Compare 2010 with its own "
            "tile, through the session that you wrote into."
        )
    return "On main, all three years equal their tiles, and snapshot_2010 is the commit that added 2010."


def _check_pixels(lulc: zarr.Array, years: list[int]) -> None:
    """Raise an error that says what went wrong if a year differs from its tile."""
    for k, year in enumerate(years):
        found, expected = lulc[k], read_box(year, TEACHING_WINDOW)
        if np.array_equal(found, expected):
            continue
        if np.array_equal(found, expected[::-1]):
            raise NotRightError(f"The year {year} is upside down.")
        for other in YEARS:
            if np.array_equal(found, read_box(other, TEACHING_WINDOW)):
                raise NotRightError(f"The label says {year}, but the pixels are those of {other}.")
        wrong = int((found != expected).sum())
        raise NotRightError(
            f"The years are right, but {wrong:,} of {expected.size:,} pixels of {year} differ from its tile. Is it the "
            "teaching window?"
        )


@exercise(
    "04-2",
    expects="a tag's name and a session that reads through the tag",
    hint='Find the snapshot in `repo.ancestry(branch="main")` by its message. What does `create_tag` need from it?',
    more='Three calls: `repo.create_tag("my-name", ids["Add 2015"])`, `repo.readonly_session(tag="my-name")`, and '
    "`years_in` for that session, to see what you tagged.",
)
def _release(repo: icechunk.Repository, tag: str, answer: icechunk.Session) -> str:
    _check_repository(repo, "repo")
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
    lulc = zarr.open_array(session.store, path="lulc", mode="r")
    if (lulc.shape, lulc.dtype) != ((4, *_WINDOW), np.uint8):
        raise NotRightError(
            f"The years are right, but lulc is {lulc.shape}, {lulc.dtype} in that version; "
            "expected (4, 2000, 4000), uint8."
        )
    _check_pixels(lulc, expected)
    if not isinstance(answer, icechunk.Session):
        raise NotRightError(
            f"The tag is right. Expected a session as release_session, found {type(answer).__name__}: "
            "repo.readonly_session opens one."
        )
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
    _check_repository(repo, "broken")
    if not isinstance(culprit, str):
        raise NotRightError(f"Expected a commit's message as text, found {type(culprit).__name__}.")
    messages = [snapshot.message for snapshot in repo.ancestry(branch="main")]
    if "Make the array" not in messages:
        raise NotRightError("This isn't the repository broken. Run the cell that makes it, and restore 2010 there.")
    bad, unchanged = f"Edit {_BAD:02}", f"Edit {_UNCHANGED:02}"
    if bad not in messages:
        raise NotRightError(
            "main was reset: the bad commit is gone from its history, and so are good ones. Make broken again, and "
            "restore 2010 with a commit of its own."
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
    if not np.array_equal(found[2], first[2]):
        wrong = int((found[2] != first[2]).sum())
        raise NotRightError(f"That's the commit, but {wrong} pixels of 2010 on main differ from those of the tag v1.")
    if not np.array_equal(found[4], last[4]):
        raise NotRightError("2010 is right again, but edits of 2020 are gone: restore the year 2010 only.")
    if not np.array_equal(found, np.concatenate([first[:4], last[4:]])):
        raise NotRightError("2010 is right again, but other years have changed.")
    return "2010 is right again, 2020 kept its edits, and the history shows what happened."
