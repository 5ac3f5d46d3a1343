"""Checks of lesson 01 (fundamentals)."""

from functools import cache

import numpy as np
import rasterio
from rasterio.windows import Window

from workshop.exercises.boxes import is_close, recognize
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import DATA, RESOLUTION, SAMPLE_TILE, TILE_SIZE, tile_path


@exercise(
    "01-1",
    expects="a pair (longitude, latitude) in degrees",
    hint="The transform maps (column, row) of a pixel's upper-left corner. Where is the middle of that pixel?",
    more="The middle of the very first pixel is `transform @ (0.5, 0.5)`: column first, then row. "
    "Which two numbers belong to row 36600 and column 31200?",
)
def _pixel_center(answer: tuple[float, float]) -> str:
    row, col = 36_600, 31_200
    if np.shape(answer) != (2,):
        found = f"{len(answer)} numbers" if np.ndim(answer) == 1 else type(answer).__name__
        raise NotRightError(f"Expected a pair (longitude, latitude) in degrees, found {found}.")
    lon, lat = answer
    if isinstance(lon, str) or isinstance(lat, str):
        raise NotRightError("Expected a pair of numbers, found text: leave out the quotes.")

    def place(row: float, col: float) -> tuple[float, float]:
        return -120 + col * RESOLUTION, 50 - row * RESOLUTION

    right = place(row + 0.5, col + 0.5)
    mistakes = {
        right[::-1]: "These are (latitude, longitude). The longitude, x, comes first.",
        place(row, col): "This is the pixel's upper-left corner. Its center is half a pixel further east and south.",
        place(col + 0.5, row + 0.5): "Row and column are swapped: columns count along x, rows along y.",
        place(row - 0.5, col - 0.5): "Off by one pixel in both directions: rows and columns are counted from 0.",
    }
    for point, hint in mistakes.items():
        if all(map(is_close, answer, point)):
            raise NotRightError(hint)
    upward = "Rows count downward: latitude falls by one pixel size per row."
    recognize(lat, (50 + (row + 0.5) * RESOLUTION, upward), (right[1] + RESOLUTION, upward))
    if not all(map(is_close, answer, right)):
        raise NotRightError(
            f"({lon}, {lat}) isn't the center of row {row}, column {col}: add half a pixel, then transform."
        )
    return "Half a pixel (about 14 m from north to south) separates the corner from the center."


@exercise(
    "01-2",
    expects="a number: decoded pixels per pixel wanted",
    hint="Which strips does the view touch, and how many pixels does each of them hold?",
    more="The view touches 512 strips, and you can't decode part of a strip. "
    "Divide 512 times the length of a strip by 512 x 512.",
)
def _read_amplification(answer: float) -> str:
    size = 512
    right = TILE_SIZE / size
    total = "This counts pixels. Divide the decoded pixels by the 512 x 512 that you wanted."
    wasted = (
        f"{right - 1} counts only the extra pixels per pixel wanted. Count everything that's decoded, including the "
        "pixels you wanted: that's one more."
    )
    recognize(
        answer,
        (1, "A strip is compressed as a whole, so you have to decode it as a whole, and that's more than the view."),
        (right**2, "Only the strips that cross the view are decoded, not the whole map."),
        (1 / right, "Upside down: decoded pixels divided by wanted pixels is larger than 1."),
        (right - 1, wasted, 1e-3),
        (size * TILE_SIZE, total),
        (TILE_SIZE, total),
    )
    if not abs(float(answer) - right) <= 0.5:
        raise NotRightError(f"{answer} isn't right: 512 strips of {TILE_SIZE:,} pixels are decoded for 512 x 512.")
    return f"512 whole strips for a view 512 pixels wide: {right} pixels are decoded per pixel wanted."


@cache
def _window() -> np.ndarray:
    """Return the sample's teaching window, read with rasterio alone."""
    with rasterio.open(tile_path(SAMPLE_TILE, 2000, root=DATA)) as src:
        return src.read(1, window=Window(30_000, 36_000, 4000, 2000))


@exercise(
    "01-3",
    expects="a key such as 'c/0/0', and a NumPy array",
    hint="Integer division by the chunk's shape, `//`, says how many whole chunks come before the pixel on each axis. "
    "The key lists these numbers in the order of the array's axes. Then open the chunk as in the lesson.",
    more='The key is `f"c/{1800 // 512}/{3610 // 512}"`, and the file is `root / "lulc" / chunk_key`. Read its bytes, '
    "decode them with `numcodecs.zstd.Zstd()`, and pass them to `np.frombuffer` with the right `dtype`. "
    "What comes out is flat: `reshape` it.",
)
def _chunk_by_hand(key: str, opened: np.ndarray) -> str:
    row, col, size = 1800, 3610, 512
    i, j = row // size, col // size
    _check_key(key, row, col, size)
    if isinstance(opened, bytes | bytearray):
        undone = len(opened) == size * size
        raise NotRightError(
            "These are the chunk's bytes, unpacked. Let `np.frombuffer` turn them into an array of uint8."
            if undone
            else "These are the bytes as they're stored. Undo the codec first: decode them with Zstandard."
        )
    if not isinstance(opened, np.ndarray):
        raise NotRightError(f"The key is right. Expected the chunk as a NumPy array, found {type(opened).__name__}.")
    if opened.dtype != np.uint8:
        raise NotRightError(f"Expected an array of uint8, one byte per pixel, found {opened.dtype}.")
    if opened.shape == (size * size,):
        raise NotRightError(f"The pixels are there, in one long row: reshape them to ({size}, {size}).")
    if opened.shape == (2000 - i * size, 4000 - j * size):
        raise NotRightError(
            f"This is a slice of the array, which ends at the edge. The chunk has the full shape, ({size}, {size}): "
            "open its file."
        )
    if opened.shape != (size, size):
        raise NotRightError(f"Expected the shape ({size}, {size}), as every chunk has it, found {opened.shape}.")
    pixels = _window()
    inside = pixels[i * size :, j * size :]
    expected = np.full((size, size), 255, np.uint8)
    expected[: inside.shape[0], : inside.shape[1]] = inside
    if np.array_equal(opened, expected):
        here = row % size, col % size
        return (
            f"In the chunk, the pixel is in row {here[0]} and column {here[1]}, and its class is {opened[here]}. Past "
            "the array's edge, the chunk has the fill value, 255."
        )
    if np.array_equal(opened[: inside.shape[0], : inside.shape[1]], inside):
        raise NotRightError("The pixels are right, but not what the chunk has past the array's edge: open its file.")
    if np.array_equal(opened, pixels[size : 2 * size, 3 * size : 4 * size]):
        raise NotRightError("The key is right, but this is the lesson's chunk, c/1/3: use `chunk_key` in the path.")
    raise NotRightError(
        "The key is right, but these aren't that chunk's pixels: read the file with the name `chunk_key`."
    )


def _check_key(key: str, row: int, col: int, size: int) -> None:
    """Raise unless a key is that of the chunk that holds a pixel."""
    i, j = row // size, col // size
    if isinstance(key, tuple | list):
        right = "The numbers are right, but a key is text" if list(key)[-2:] == [i, j] else "A key is text"
        raise NotRightError(f"{right}, not a {type(key).__name__}: expected one such as 'c/0/0', found {key}.")
    if not isinstance(key, str):
        raise NotRightError(f"Expected a key such as 'c/0/0', found {type(key).__name__}.")
    key = key.strip("/").removeprefix("lulc/")
    right = f"c/{i}/{j}"
    if key == right:
        return
    if key.replace(".", "/") in (right, right.removeprefix("c/")):
        raise NotRightError(
            "The numbers are right. A key of Zarr version 3 begins with 'c' and separates them with '/'."
        )
    mistakes = {
        f"c/{j}/{i}": "The axes are swapped: the array is (y, x), so the row's number comes first.",
        f"c/{i + 1}/{j + 1}": "Chunks are counted from 0, not from 1.",
        f"c/{round(row / size)}/{round(col / size)}": "Use integer division, not rounding.",
    }
    other = f"{key!r} doesn't hold row {row}, column {col}: how many whole chunks come before it on each axis?"
    raise NotRightError(mistakes.get(key, other))
