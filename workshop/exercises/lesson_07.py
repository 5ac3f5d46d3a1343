"""Checks of lesson 07 (the cube of the world)."""

from collections.abc import Callable
from typing import Any

import icechunk
import numpy as np
import rasterio
import zarr
from rasterio.windows import Window

from workshop import repository, world
from workshop.exercises.boxes import count, read_box
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import YEARS, Box, gdal_path, tile_path


@exercise(
    "07-1",
    expects="two whole numbers: row and column",
    hint="How many degrees is it from the grid's upper-left corner to the tile's? A degree has 4000 pixels.",
    more="Rows count from 80 north downward: `(80 - latitude) * 4000`. South of the equator, the latitude is negative. "
    "Columns count from 180 west eastward; west of Greenwich, the longitude is negative, too.",
)
def _place(answer: tuple[int, int]) -> str:
    if isinstance(answer, set) or any(isinstance(part, str) for part in answer):
        raise NotRightError(f"Expected a tuple of two numbers, (row, column), found {answer!r}.")
    row, col = (float(part) for part in answer)
    right = (360_000, 480_000)  # 90 and 120 degrees from (80 N, 180 W), 4000 pixels each
    if (row, col) == right:
        return "From the grid's corner, it's 90 degrees down and 120 degrees across."
    mistakes = {
        right[::-1]: "The numbers are right, but in the wrong order: row (y) first, then column (x).",
        (9, 12): "These are the tile's row and column among tiles; expected those of its first pixel.",
        (360, 480): "These are the tile's row and column among chunks of 1000 x 1000 pixels; expected pixels.",
        (90, 120): "These are the distances in degrees: times 4000 pixels per degree.",
    }
    if (row, col) in mistakes:
        raise NotRightError(mistakes[row, col])
    if col == 240_000:
        raise NotRightError("The column counts from 0 degrees or from the east; the grid begins at 180 west.")
    if col != right[1]:
        raise NotRightError(f"The column isn't {col:,.10g}: counted from 0, how many pixels is 60 west from 180 west?")
    if row in (200_000, 240_000, 160_000):
        raise NotRightError("The row counts from the south, or to the tile's lower edge; row 0 is at 80 north.")
    if row in (280_000, 40_000):
        raise NotRightError("South of the equator the latitude is negative: 80 - (-10).")
    raise NotRightError(f"The column is right, but the row isn't {row:,.10g}: how many pixels is 10 S from 80 N?")


CHUNK = (156, 272)  # in the cube; its corner at 41 N, 112 W is 39 and 68 degrees from (80 N, 180 W), four chunks each
PLACE = Box(west=-112.0, south=40.75, east=-111.75, north=41.0)
SKELETON = """
Fill in the gaps:

```python
def write_year(fork, year):
    lulc = zarr.open_array(____, path="lulc", mode="r+")
    with rasterio.open(tiles.tile_path("50N_120W", year)) as src:
        pixels = src.read(1, window=Window(____, ____, 1000, 1000))
    lulc[years.index(year), ____:____, ____:____] = pixels
    return ____


session = by_hand.writable_session("main")
forks = [write_year(____, year) for year in years]
session.____(*forks)
session.____("One chunk in five years")
```
"""


@exercise(
    "07-2",
    expects="the repository by_hand, your function, your session and a list of five forks",
    hint=SKELETON,
    more="In the cube, the chunk's first row is `(80 - 41) * 4000`, and its first column is `(-112 + 180) * 4000`. The "
    "tile begins at 50 north and 120 west, so in the tile they are `(50 - 41) * 4000` and `(-112 + 120) * 4000`. "
    "`Window` takes the column first. Open the array in `fork.store`, and end the function with `return fork`. Each "
    "year gets a fork of its own. Merge all five into the session they came from, then commit it.",
)
def _worker(repo: icechunk.Repository, write_year: Callable, session: Any, forks: Any) -> str:
    _try_worker(repo, write_year)
    rows, cols = (slice(k * 1000, (k + 1) * 1000) for k in CHUNK)
    lulc = zarr.open_array(repo.readonly_session("main").store, path="lulc", mode="r")
    missing = [year for k, year in enumerate(YEARS) if not np.array_equal(lulc[k, rows, cols], read_box(year, PLACE))]
    if missing:
        if not getattr(session, "read_only", True):
            if session.has_uncommitted_changes:
                raise NotRightError("Your worker is right, and forks are merged: now commit the session.")
            raise NotRightError("Your worker is right, but session has no changes yet: merge the forks into it.")
        if len(missing) < len(YEARS):
            raise NotRightError(f"Your worker is right, but main doesn't have {missing}: merge the forks of all years.")
        raise NotRightError("Your worker is right. Now fork, write, merge and commit: main has none of its chunks yet.")
    newest, before, *older = [snapshot.id for snapshot in repo.ancestry(branch="main")]
    changed = repo.diff(from_snapshot_id=before, to_snapshot_id=newest).updated_chunks.get("/lulc", [])
    wanted = [[[k, *CHUNK]] for k in range(len(YEARS))]  # of each fork
    together = sum([chunk] in wanted for chunk in changed)
    if together < len(YEARS):
        raise NotRightError(f"Of the five years, the newest commit has {together}: merge five forks, then commit once.")
    if not isinstance(forks, list | tuple) or not all(isinstance(fork, icechunk.ForkSession) for fork in forks):
        raise NotRightError("Expected `forks` to list forks: give workers `session.fork()`, and keep what they return.")
    if sorted(fork.status().updated_chunks.get("/lulc", []) for fork in forks) != wanted:
        raise NotRightError("Expected five forks, each with the chunk of one year: call `session.fork()` for each.")
    if {fork.snapshot_id for fork in forks} - {before, *older}:
        raise NotRightError("These forks were made after the newest commit, or of another repository: merge them, too.")
    if session.snapshot_id != newest or not session.read_only:
        raise NotRightError("`session` isn't the one that was committed: merge the forks into it, and commit it.")
    return "Five forks with a chunk each, in one commit. Each chunk is as GDAL reads it."


def _try_worker(repo: icechunk.Repository, write_year: Callable) -> None:
    """Call the function with a fork that is never merged, and look at what comes back."""
    year, expected = 2010, [YEARS.index(2010), *CHUNK]
    fork = repo.writable_session("main").fork()
    try:
        back = write_year(fork, year)
    except Exception as error:
        said = str(error).strip().split("\n")[0]
        raise NotRightError(f"write_year(fork, 2010) stopped with {type(error).__name__}: {said}.") from error
    if not isinstance(back, icechunk.ForkSession):
        raise NotRightError(f"Your worker returns {type(back).__name__}, so nothing can be merged: `return fork`.")
    written = back.status().updated_chunks.get("/lulc", [])
    if not written:
        raise NotRightError("The fork comes back without a chunk: open the array in `fork.store`, and write into it.")
    if written != [expected]:
        raise NotRightError(
            f"write_year(fork, 2010) writes {count(len(written), 'chunk')}, first {written[0]}; expected {expected} "
            "only: the layer of 2010, then the row and column of 41 north, 112 west."
        )
    pixels = zarr.open_array(back.store, path="lulc", mode="r").blocks[tuple(expected)][0]
    if not np.array_equal(pixels, read_box(year, PLACE)):
        raise NotRightError(
            "The right chunk, but other pixels: is it the tile of `year`? `Window` takes the column first."
        )


GAPS = {(2005, "40N_110W"), (2015, "40N_120W"), (2015, "50N_120W")}
CORNER = Box(west=-110.25, south=39.75, east=-109.75, north=40.25)


def world_with_gaps() -> icechunk.Repository:
    """Make a cube of the corner where Utah's four tiles meet, in memory, without the tiles and years in ``GAPS``."""
    repo = world.create(icechunk.in_memory_storage())
    for year in YEARS:
        names = [name for name in world.UTAH_TILES if (year, name) not in GAPS]
        world.ingest(repo, names, [year], box=CORNER)
    return repo


@exercise(
    "07-3",
    expects="the repository `gaps` and a set of pairs (year, tile), such as {(2005, '40N_110W')}",
    hint="The metadata of each commit names its tiles. What should be there, minus what is there, is missing.",
    more='`snapshot.metadata["year"]` and `snapshot.metadata["tiles"]` say what a commit brought; the first two have '
    "neither. Put pairs `(year, name)` into a set, and subtract it from the set of all twenty. Then call "
    "`world.ingest(gaps, names, [year], box=around)` once per year that has a gap.",
)
def _gaps(repo: icechunk.Repository, missing: set[tuple[int, str]]) -> str:
    found = {(int(year), str(name)) for year, name in missing}
    if too_many := sorted(found - GAPS):
        year, name = too_many[0]
        raise NotRightError(f"{name} of {year} is there: {len(too_many)} of your pairs were never missing.")
    lulc, marks = repository.read(repo), world.ingested(repo)
    if not found and marks[:, 159:161, 279:281].all():
        raise NotRightError("`gaps` is complete by now: make it again, and find out what's missing before you ingest.")
    if len(found) < len(GAPS):
        raise NotRightError(f"{len(found)} of the missing pairs found, but there are more. Did you look at every year?")
    for k, year in enumerate(YEARS):
        for name, (row, col) in zip(world.UTAH_TILES, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            top, left = 159_000 + row * 1000, 279_000 + col * 1000
            with rasterio.open(gdal_path(tile_path(name, year))) as src:
                tile = src.read(1, window=Window(39_000 * (1 - col), 39_000 * (1 - row), 1000, 1000))
            pixels = lulc[k, top : top + 1000, left : left + 1000].values
            there = bool(marks[k, top // 1000, left // 1000])  # its pixels may be no data in the tile, too
            if not (there and np.array_equal(pixels, tile)):
                raise NotRightError(f"{name} of {year} isn't in `gaps` as GDAL reads it: ingest it (box=around).")
    return "Complete: twenty tiles and years, each as GDAL reads it."
