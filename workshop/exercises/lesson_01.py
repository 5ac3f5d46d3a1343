"""Checks of lesson 01 (fundamentals)."""

from workshop.exercises.boxes import is_close
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
    right = (-120 + (col + 0.5) * RESOLUTION, 50 - (row + 0.5) * RESOLUTION)

    def is_at(x: float, y: float) -> bool:
        return is_close(lon, x) and is_close(lat, y)

    if is_at(*right[::-1]):
        raise NotRightError("These are (latitude, longitude): the first number must be the longitude, x.")
    if is_at(-120 + col * RESOLUTION, 50 - row * RESOLUTION):
        raise NotRightError(
            "This is the pixel's upper-left corner. Its centre lies half a pixel further east and south."
        )
    if is_at(-120 + (row + 0.5) * RESOLUTION, 50 - (col + 0.5) * RESOLUTION):
        raise NotRightError("Row and column are exchanged: columns count along x, rows along y.")
    if is_at(right[0] - RESOLUTION, right[1] + RESOLUTION):
        raise NotRightError("Off by one pixel in both directions: rows and columns are counted from 0.")
    if is_close(lat, 50 + (row + 0.5) * RESOLUTION) or is_close(lat, right[1] + RESOLUTION):
        raise NotRightError("Rows count downwards: latitude falls by one pixel size for each row.")
    if not is_at(*right):
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
    if is_close(answer, 1):
        raise NotRightError(
            "A strip is compressed as a whole, so it must be decoded as a whole: more than the window is read."
        )
    if is_close(answer, (TILE_SIZE / size) ** 2):
        raise NotRightError("Only the strips that cross the window are decoded, not the whole tile.")
    if is_close(answer, 1 / right):
        raise NotRightError("Upside down: decoded pixels divided by wanted pixels is larger than 1.")
    if is_close(answer, size * TILE_SIZE) or is_close(answer, TILE_SIZE):
        raise NotRightError("This counts pixels; divide the decoded pixels by the 512 x 512 that are wanted.")
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
    right = f"c/{row // chunk}/{col // chunk}"
    answer = answer.strip("/").removeprefix("lulc/")
    if answer == f"c/{col // chunk}/{row // chunk}":
        raise NotRightError("The axes are exchanged: the array is (y, x), so the row's number comes first.")
    if answer == f"c/{row // chunk + 1}/{col // chunk + 1}":
        raise NotRightError("Chunks are counted from 0, not from 1.")
    if answer == f"c/{round(row / chunk)}/{round(col / chunk)}":
        raise NotRightError("The chunk that holds a pixel is found by integer division, not by rounding.")
    if answer.replace(".", "/") in (right, right.removeprefix("c/")):
        if answer != right:
            raise NotRightError("The numbers are right; a Zarr v3 key begins with 'c' and separates them with '/'.")
        return f"Row {row} lies in band {row // chunk} of {chunk} rows, column {col} in band {col // chunk}."
    raise NotRightError(
        f"{answer!r} does not hold row {row}, column {col}: how many whole chunks lie before it on each axis?"
    )
