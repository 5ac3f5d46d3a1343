"""Checks of appendix A1 (chunking)."""

from math import prod
from typing import Any

import numpy as np

from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import TILE_SIZE

_WORLD = (5, 560_000, 1_440_000)


def _shape(answer: Any, what: str) -> tuple[int, int, int]:
    """Return a planned shape (year, y, x) if it fits the world and its tiles, otherwise raise."""
    parts = np.asarray(answer).ravel().tolist()
    if len(parts) != 3 or any(float(part) != int(part) or part < 1 for part in parts):
        raise NotRightError(f"Expected {what} as three whole numbers (year, y, x), found {answer!r}.")
    year, y, x = (int(part) for part in parts)
    if year > _WORLD[0]:
        raise NotRightError(f"The cube has five years, your {what} have {year}: the order is (year, y, x).")
    for axis, size in {"y": y, "x": x}.items():
        if TILE_SIZE % size:
            raise NotRightError(f"Along {axis}, {what} of {size:,} cross tile borders: {TILE_SIZE:,} isn't a multiple.")
    return year, y, x


def _most_touched(size: int, chunks: tuple[int, ...]) -> int:
    """Return the largest number of chunks that a square map of one year can touch."""
    return prod((chunk - 1 + size - 1) // chunk + 1 for chunk in chunks[1:])  # it begins at a chunk's last pixel


def _count(chunks: tuple[int, ...]) -> int:
    return prod(-(-size // chunk) for size, chunk in zip(_WORLD, chunks, strict=True))


@exercise(
    "a1-1",
    expects="a shape (year, y, x)",
    hint="Nine chunks are three by three. How wide must a chunk be, so that 1000 pixels touch at most three of them?",
    more="`at_most((1, 1000, 1000), chunks, world_shape)` is 9 if a chunk has at least 500 rows and columns. Choose a "
    "size that divides 40,000 and has room in 1,000,000 bytes, with one year per chunk.",
)
def _map_chunks(answer: tuple[int, int, int]) -> str:
    chunks = _shape(answer, "chunks")
    size, most = prod(chunks), _most_touched(1000, chunks)
    if size > 1_000_000:
        deep = " A map shows one year: why put more of them into a chunk?" if chunks[0] > 1 else ""
        raise NotRightError(f"A chunk takes {size:,} bytes, more than 1,000,000.{deep}")
    if most > 9:
        raise NotRightError(f"A map can touch {most} chunks, more than 9: make them larger along y or x.")
    return f"A map touches at most {most} chunks of {size:,} bytes, out of {_count(chunks):,}."


@exercise(
    "a1-2",
    expects="a shape (year, y, x)",
    hint="A chunk must hold all five years. How many pixels along y and x are left of 64,000 bytes?",
    more="12,800 pixels are left. Six by six chunks touch the map if a chunk has at least 100 rows and columns. Choose "
    "sizes that divide 40,000.",
)
def _series_chunks(answer: tuple[int, int, int]) -> str:
    chunks = _shape(answer, "chunks")
    size, most = prod(chunks), _most_touched(500, chunks)
    if chunks[0] < 5:
        raise NotRightError(f"A pixel touches {-(-5 // chunks[0])} chunks: put all years into one chunk.")
    if size > 64_000:
        raise NotRightError(f"A chunk takes {size:,} bytes, more than 64,000.")
    if most > 36:
        raise NotRightError(f"A map can touch {most} chunks, more than 36: make them larger, or closer to a square.")
    return f"One chunk of {size:,} bytes per pixel, at most {most} per map, out of {_count(chunks):,}."


@exercise(
    "a1-3",
    expects="two shapes (year, y, x)",
    hint="A shard holds whole chunks: multiply the y and x of your chunks by whole numbers.",
    more="Multiply until the product of all three axes is 8 to 64 million. Each axis must also divide 40,000.",
)
def _series_shards(chunks: tuple[int, int, int], answer: tuple[int, int, int]) -> str:
    _series_chunks(chunks)
    chunks, shards = _shape(chunks, "chunks"), _shape(answer, "shards")
    for axis, chunk, shard in zip(("year", "y", "x"), chunks, shards, strict=True):
        if shard % chunk:
            raise NotRightError(f"Along {axis}, a shard of {shard:,} doesn't hold whole chunks of {chunk:,}.")
    size = prod(shards)
    if not 8_000_000 <= size <= 64_000_000:
        raise NotRightError(f"A shard is {size / 1e6:.3g} MB, which is too {'small' if size < 8e6 else 'large'}.")
    inside = size // prod(chunks)
    return (
        f"{inside:,} chunks per shard of {size / 1e6:.3g} MB: {_count(shards):,} objects instead of {_count(chunks):,}."
    )
