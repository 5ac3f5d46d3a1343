"""Checks of the appendix (chunking)."""

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
        raise NotRightError(f"The cube has five years, {what} {year}: the order is (year, y, x).")
    for axis, size in {"y": y, "x": x}.items():
        if TILE_SIZE % size:
            raise NotRightError(
                f"Along {axis}, {TILE_SIZE:,} is no multiple of {size:,}: they would cross tile borders."
            )
    return year, y, x


def _most_touched(size: int, chunks: tuple[int, ...]) -> int:
    """Return the largest number of chunks that a map of one year, so high and wide, can touch."""
    return prod((chunk - 1 + size - 1) // chunk + 1 for chunk in chunks[1:])  # it begins at a chunk's last pixel


def _count(chunks: tuple[int, ...]) -> int:
    return prod(-(-size // chunk) for size, chunk in zip(_WORLD, chunks, strict=True))


@exercise(
    "a1-1",
    expects="a shape (year, y, x)",
    hint="at_most((1, 1000, 1000), chunks) is 9 when a chunk is at least 500 high and wide. What has room in 1 MB?",
)
def _map_chunks(answer: tuple[int, int, int]) -> str:
    chunks = _shape(answer, "chunks")
    size, most = prod(chunks), _most_touched(1000, chunks)
    if size > 1_000_000:
        deep = " A map wants one year only: why hold more in a chunk?" if chunks[0] > 1 else ""
        raise NotRightError(f"A chunk has {size:,} bytes, more than 1,000,000.{deep}")
    if most > 9:
        raise NotRightError(f"A map that lies badly touches {most} chunks, more than 9: make them larger along y or x.")
    return f"At most {most} chunks of {size:,} bytes; the world has {_count(chunks):,} of them."


@exercise(
    "a1-2",
    expects="a shape (year, y, x)",
    hint="All years must be in the chunk. How many pixels along y and x are left of 64,000 bytes?",
)
def _series_chunks(answer: tuple[int, int, int]) -> str:
    chunks = _shape(answer, "chunks")
    size, most = prod(chunks), _most_touched(500, chunks)
    if chunks[0] < 5:
        raise NotRightError(f"A pixel through five years touches {-(-5 // chunks[0])} chunks: put all years into one.")
    if size > 64_000:
        raise NotRightError(f"A chunk has {size:,} bytes, more than 64,000.")
    if most > 36:
        raise NotRightError(f"A map of 500 x 500 may touch {most} chunks, more than 36: larger, or nearer to squares.")
    return f"One chunk of {size:,} bytes a pixel, at most {most} a map; the world has {_count(chunks):,} of them."


@exercise(
    "a1-3",
    expects="two shapes (year, y, x)",
    hint="Multiply your chunks' y and x by a whole number until the product has 8 to 64 MB; 40,000 must be a multiple.",
)
def _series_shards(chunks: tuple[int, int, int], answer: tuple[int, int, int]) -> str:
    _series_chunks(chunks)
    chunks, shards = _shape(chunks, "chunks"), _shape(answer, "shards")
    for axis, chunk, shard in zip(("year", "y", "x"), chunks, shards, strict=True):
        if shard % chunk:
            raise NotRightError(f"Along {axis}, a shard of {shard:,} does not hold whole chunks of {chunk:,}.")
    size = prod(shards)
    if not 8_000_000 <= size <= 64_000_000:
        raise NotRightError(f"A shard has {size / 1e6:.3g} MB, which is too {'small' if size < 8e6 else 'large'}.")
    inside = size // prod(chunks)
    return f"{inside:,} chunks in a shard of {size / 1e6:.3g} MB: {_count(shards):,} objects, not {_count(chunks):,}."
