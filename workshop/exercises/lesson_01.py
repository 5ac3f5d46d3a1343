"""Checks of lesson 01 (fundamentals)."""

from reprlib import repr as short

import numpy as np

from workshop.exercises.boxes import expect, is_close, read_box, recognize
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import DATA, RESOLUTION, TEACHING_WINDOW, TILE_SIZE


@exercise(
    "01-1",
    expects="a pair (longitude, latitude) in degrees",
    hint="The transform maps (column, row) of a pixel's upper-left corner. Where is the middle of that pixel?",
    more="The middle of the very first pixel is `transform @ (0.5, 0.5)`: column first, then row. "
    "Which two numbers belong to row 36600 and column 31200?",
)
def _pixel_center(answer: tuple[float, float]) -> str:
    row, col = 36_600, 31_200
    if np.shape(answer) != (2,) or any(isinstance(part, str) for part in answer):
        raise NotRightError(f"Expected a pair of numbers (longitude, latitude) in degrees, found {short(answer)}.")
    lon, lat = answer

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
    recognize(
        answer,
        (1, "A strip is compressed as a whole, so you have to decode it as a whole, and that's more than the view."),
        (right**2, "Only the strips that cross the view are decoded, not the whole map."),
        (1 / right, "Upside down: decoded pixels divided by wanted pixels is larger than 1."),
        (right - 1, "This counts only the extra pixels. Count everything that's decoded: that's one more.", 1e-3),
        (size * TILE_SIZE, total),
        (TILE_SIZE, total),
    )
    if not abs(float(answer) - right) <= 0.5:
        raise NotRightError(f"{answer} isn't right: 512 strips of {TILE_SIZE:,} pixels are decoded for 512 x 512.")
    return f"512 whole strips for a view 512 pixels wide: {right} pixels are decoded per pixel wanted."


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
    expect(opened, np.ndarray, "the chunk as a NumPy array")
    inside = read_box(2000, TEACHING_WINDOW, DATA)[i * size :, j * size :]
    if opened.shape == inside.shape:
        raise NotRightError(
            f"This is a slice of the array, which ends at the edge. The chunk has the full shape, ({size}, {size}): "
            "open its file."
        )
    if (opened.shape, opened.dtype) != ((size, size), np.uint8):
        raise NotRightError(
            f"Expected ({size}, {size}) pixels of uint8, found {opened.shape} of {opened.dtype}: `np.frombuffer` "
            "takes the type and gives one long row; reshape it."
        )
    expected = np.full((size, size), 255, np.uint8)
    expected[: inside.shape[0], : inside.shape[1]] = inside
    if not np.array_equal(opened, expected):
        raise NotRightError(
            "The key is right, but these aren't that chunk's pixels: read the file with the name `chunk_key`."
        )
    here = row % size, col % size
    return (
        f"In the chunk, the pixel is in row {here[0]} and column {here[1]}, and its class is {opened[here]}. Past "
        "the array's edge, the chunk has the fill value, 255."
    )


def _check_key(key: str, row: int, col: int, size: int) -> None:
    """Raise unless a key is that of the chunk that holds a pixel."""
    expect(key, str, "a key such as 'c/0/0'")
    i, j = row // size, col // size
    key = key.strip("/").removeprefix("lulc/")
    right = f"c/{i}/{j}"
    if key == right:
        return
    form = "The numbers are right. A key of Zarr version 3 begins with 'c' and separates them with '/'."
    mistakes = {
        f"{i}/{j}": form,
        f"{i}.{j}": form,
        f"c.{i}.{j}": form,
        f"c/{j}/{i}": "The axes are swapped: the array is (y, x), so the row's number comes first.",
        f"c/{i + 1}/{j + 1}": "Chunks are counted from 0, not from 1.",
        f"c/{round(row / size)}/{round(col / size)}": "Use integer division, not rounding.",
    }
    other = f"{key!r} doesn't hold row {row}, column {col}: how many whole chunks come before it on each axis?"
    raise NotRightError(mistakes.get(key, other))
