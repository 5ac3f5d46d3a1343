"""Checks of lesson 01 (fundamentals)."""

from workshop.exercises.boxes import is_close, recognize
from workshop.exercises.verdicts import NotRightError, exercise
from workshop.tiles import RESOLUTION, TILE_SIZE


@exercise(
    "01-1",
    expects="a pair (longitude, latitude) in degrees",
    hint="The transform maps (column, row) of a pixel's upper-left corner. Where is the middle of that pixel?",
)
def _pixel_centre(answer: tuple[float, float]) -> str:
    row, col = 36_600, 31_200
    lon, lat = answer

    def place(row: float, col: float) -> tuple[float, float]:
        return -120 + col * RESOLUTION, 50 - row * RESOLUTION

    right = place(row + 0.5, col + 0.5)
    mistakes = {
        right[::-1]: "These are (latitude, longitude): the first number must be the longitude, x.",
        place(row, col): "This is the pixel's upper-left corner. Its centre lies half a pixel further east and south.",
        place(col + 0.5, row + 0.5): "Row and column are exchanged: columns count along x, rows along y.",
        place(row - 0.5, col - 0.5): "Off by one pixel in both directions: rows and columns are counted from 0.",
    }
    for point, hint in mistakes.items():
        if all(map(is_close, answer, point)):
            raise NotRightError(hint)
    upwards = "Rows count downwards: latitude falls by one pixel size for each row."
    recognize(lat, (50 + (row + 0.5) * RESOLUTION, upwards), (right[1] + RESOLUTION, upwards))
    if not all(map(is_close, answer, right)):
        raise NotRightError(
            f"({lon}, {lat}) is not the centre of row {row}, column {col}: add half a pixel, then transform."
        )
    return "Half a pixel (about 14 m north to south) separates the corner from the centre."


@exercise(
    "01-2",
    expects="a number: decoded pixels for each pixel wanted",
    hint="Which strips does the window touch, and how many pixels does each of them hold?",
)
def _read_amplification(answer: float) -> str:
    size = 512
    right = TILE_SIZE / size
    total = "This counts pixels; divide the decoded pixels by the 512 x 512 that are wanted."
    recognize(
        answer,
        (1, "A strip is compressed as a whole, so it must be decoded as a whole: more than the window is read."),
        (right**2, "Only the strips that cross the window are decoded, not the whole tile."),
        (1 / right, "Upside down: decoded pixels divided by wanted pixels is larger than 1."),
        (size * TILE_SIZE, total),
        (TILE_SIZE, total),
    )
    if not abs(float(answer) - right) <= 0.5:
        raise NotRightError(f"{answer} is not it: 512 strips of {TILE_SIZE:,} pixels are decoded for 512 x 512 pixels.")
    return f"512 whole strips for a window 512 wide: {right} pixels decoded for each one wanted."


@exercise(
    "01-3",
    expects="a key such as 'c/0/0'",
    hint="Integer-divide row and column by the chunk's shape; the key lists them in the order of the array's axes.",
)
def _chunk_key(answer: str) -> str:
    row, col, chunk = 1234, 3410, 512
    i, j = row // chunk, col // chunk
    right = f"c/{i}/{j}"
    answer = answer.strip("/").removeprefix("lulc/")
    if answer == right:
        return f"Row {row} lies in band {i} of {chunk} rows, column {col} in band {j}."
    if answer.replace(".", "/") in (right, right.removeprefix("c/")):
        raise NotRightError("The numbers are right; a Zarr v3 key begins with 'c' and separates them with '/'.")
    rounded = f"c/{round(row / chunk)}/{round(col / chunk)}"
    mistakes = {
        f"c/{j}/{i}": "The axes are exchanged: the array is (y, x), so the row's number comes first.",
        f"c/{i + 1}/{j + 1}": "Chunks are counted from 0, not from 1.",
        rounded: "The chunk that holds a pixel is found by integer division, not by rounding.",
    }
    other = f"{answer!r} does not hold row {row}, column {col}: how many whole chunks lie before it on each axis?"
    raise NotRightError(mistakes.get(answer, other))
