"""Checks of lesson 07 (the cube of the world)."""

import icechunk
import numpy as np
import rasterio
from rasterio.windows import Window

from workshop import repository, world
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import YEARS, Box, gdal_path, tile_path


@exercise(
    "07-1",
    expects="two whole numbers: row and column",
    hint="How many degrees lie between the grid's upper left corner and the tile's? A degree has 4000 pixels.",
)
def _place(answer: tuple[int, int]) -> str:
    if any(isinstance(part, str) for part in answer):
        raise NotRightError("Expected numbers, found text: leave out the quotes.")
    row, col = (float(part) for part in answer)
    right = (360_000, 480_000)  # 90 and 120 degrees from (80 N, 180 W), 4000 pixels each
    if (row, col) == right:
        return "From the grid's corner: 90 degrees down, 120 degrees across."
    if not (row.is_integer() and col.is_integer()):
        raise NotRightError("Pixels are counted whole: expected two integers.")
    mistakes = {
        right[::-1]: "The numbers are right, in the wrong order: row (y) first, then column (x).",
        (9, 12): "These are the tile's row and column among tiles; expected those of its first pixel.",
        (right[0] + 1, right[1] + 1): "Counting begins at 0: you are one row and one column too far.",
    }
    if (row, col) in mistakes:
        raise NotRightError(mistakes[row, col])
    if col == 240_000:
        raise NotRightError("The column counts from 0 degrees or from the east; the grid begins at 180 west.")
    if col != right[1]:
        raise NotRightError(f"The column is not {col:,.0f}: how far is 60 west from 180 west?")
    if row in (200_000, 240_000, 160_000):
        raise NotRightError(
            "The row counts from the south, or takes 10 south for its lower edge; row 0 is at 80 north."
        )
    if row in (280_000, 40_000):
        raise NotRightError("South of the equator the latitude is negative: 80 - (-10).")
    raise NotRightError(f"The column is right, the row is not {row:,.0f}: how far is 10 south from 80 north?")


GAPS = {(2005, "40N_110W"), (2015, "40N_120W"), (2015, "50N_120W")}
CORNER = Box(west=-110.25, south=39.75, east=-109.75, north=40.25)


def world_with_gaps(storage: icechunk.Storage) -> icechunk.Repository:
    """Make a cube of the corner where Utah's four tiles meet, without the tiles and years in ``GAPS``."""
    repo = world.create(storage)
    for year in YEARS:
        names = [name for name in world.UTAH_TILES if (year, name) not in GAPS]
        world.ingest(repo, names, [year], box=CORNER)
    return repo


@exercise(
    "07-2",
    expects="the repository and a set of (year, tile)",
    hint="The commits' metadata name tiles; world.ingested(gaps) marks chunks. world.ingest takes names and years.",
)
def _gaps(repo: icechunk.Repository, missing: set[tuple[int, str]]) -> str:
    try:
        found = {(int(year), str(name)) for year, name in missing}
    except (TypeError, ValueError) as error:
        raise NotRightError("Expected a set of pairs (year, tile), such as {(2005, '40N_110W')}.") from error
    if too_many := sorted(found - GAPS):
        year, name = too_many[0]
        raise NotRightError(f"{name} of {year} is there: {len(too_many)} of your pairs were never missing.")
    if len(found) < len(GAPS):
        raise NotRightError(f"{len(found)} found, and they are right; there are more. Did you look at every year?")
    lulc, marks = repository.read(repo), world.ingested(repo)
    for k, year in enumerate(YEARS):
        for name, (row, col) in zip(world.UTAH_TILES, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            top, left = 159_000 + row * 1000, 279_000 + col * 1000
            with rasterio.open(gdal_path(tile_path(name, year))) as src:
                tile = src.read(1, window=Window(39_000 * (1 - col), 39_000 * (1 - row), 1000, 1000))
            pixels = lulc[k, top : top + 1000, left : left + 1000].values
            there = bool(marks[k, top // 1000, left // 1000])  # its pixels may be no data in the tile, too
            if not (there and np.array_equal(pixels, tile)):
                what = "is not what the tile holds" if there else "is not in the cube yet"
                raise NotRightError(f"You know what is missing; {name} of {year} {what}: ingest it (box=around).")
    return "Complete: twenty tiles and years, each as GDAL reads it."


@exercise(
    "07-3",
    expects="two numbers of references",
    hint="A manifest is written whole. How many chunks has a tile through the years, and how many has the cube?",
)
def _references(answer: tuple[int, int]) -> str:
    split, together = (float(part) for part in answer)
    if (split, together) == (8000, 4_032_000):
        return "A patch of nine chunks rewrites 8000 references, or four million."
    if (together, split) == (8000, 4_032_000):
        raise NotRightError("The numbers are right, in the wrong order: with the split first.")
    if split == 9:
        raise NotRightError("Nine chunks change, but a manifest is written whole, with the references that stay.")
    if split == 1600:
        raise NotRightError("That is one year of a tile; its manifest holds all five, though one was patched.")
    if split != 8000:
        raise NotRightError(
            f"Not {split:,.0f} with the split: a tile is 40 x 40 chunks in each year, and the patch lies in one tile."
        )
    if together == 806_400:
        raise NotRightError("That is one year of the world; the array has five, and one manifest for all.")
    raise NotRightError(f"The first is right. In one manifest stand all references of the array, not {together:,.0f}.")
