"""Writes the folder of scenes that lesson 10 builds a cube from: small, synthetic, and as awkward as real deliveries.

The lesson reads them only with rasterio and rioxarray. No other lesson uses them.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import rasterio
from affine import Affine
from pyproj import Transformer

from workshop.sample import _hash

LABEL = "SYNTHETIC reflectances of an irrigated valley, not observed"
PIXEL = 20  # meters
SCALE = 0.0001
NODATA = -9999
BANDS = ("red", "nir")


class Scene(NamedTuple):
    """One file of the archive; ``west`` and ``north`` are its upper left corner, in meters of its UTM zone."""

    date: str
    zone: str
    west: float
    north: float
    columns: int = 300
    rows: int = 300
    processing: int = 1
    south_up: bool = False
    cloud: tuple[float, float] | None = None  # its center in meters of zone 12; its radius is 700 m

    @property
    def name(self) -> str:
        """The file's name: product, date, zone, processing."""
        return f"VALLEY_{self.date}_{self.zone}_P{self.processing}.tif"


ARCHIVE = (
    Scene("20200412", "12N", 752_000, 4_342_000),
    Scene("20200514", "12N", 751_400, 4_342_400, columns=340, rows=330, cloud=(755_300, 4_339_100)),
    Scene("20200703", "12N", 752_010, 4_341_990),  # half a pixel off
    Scene("20200720", "12N", 752_000, 4_342_000),
    Scene("20200805", "12N", 752_000, 4_342_000, cloud=(754_000, 4_338_000)),
    Scene("20200805", "12N", 752_000, 4_342_000, processing=2),
    Scene("20200821", "13N", 232_000, 4_343_000, columns=360, rows=360),
    Scene("20200914", "12N", 752_000, 4_342_000, south_up=True),
    Scene("20200930", "13N", 232_000, 4_343_000, columns=360, rows=360, cloud=(756_200, 4_340_500)),
    Scene("20201016", "12N", 753_000, 4_341_400, columns=220, rows=240),
    Scene("20201101", "12N", 752_000, 4_342_000),  # arrives truncated, and whole with the next delivery
    Scene("20201117", "12N", 752_000, 4_342_000),
)
LATER = (
    Scene("20200605", "12N", 752_000, 4_342_000),  # the missing date
    Scene("20201016", "12N", 753_000, 4_341_400, columns=220, rows=240, processing=2),
    Scene("20201101", "12N", 752_000, 4_342_000),
    Scene("20201203", "12N", 752_000, 4_342_000, cloud=(753_200, 4_340_000)),
)
TRUNCATED = "VALLEY_20201101_12N_P1.tif"


def _smooth(x: np.ndarray, y: np.ndarray, period: float, seed: int) -> np.ndarray:
    """Return smooth noise from 0 to 1 at places in meters (any shape). It changes over about ``period`` meters."""
    i, j = y / period, x / period
    down, right = (position % 1 for position in (i, j))
    down, right = (t * t * (3 - 2 * t) for t in (down, right))
    i, j = np.floor(i).astype(np.int64), np.floor(j).astype(np.int64)
    upper, lower = (_hash(seed, row, j) * (1 - right) + _hash(seed, row, j + 1) * right for row in (i, i + 1))
    return upper * (1 - down) + lower * down


def reflectance(x: np.ndarray, y: np.ndarray, date: str) -> tuple[np.ndarray, np.ndarray]:
    """Return red and near-infrared reflectance of the valley, from 0 to 1, at places in meters of UTM zone 12.

    In a dry valley with a river, fields of 240 x 160 m turn green for some months, each at its own time.
    """
    day = pd.Timestamp(date).day_of_year - 1
    field = (y // 160).astype(np.int64), (x // 240).astype(np.int64)
    irrigated = (_hash(41, *field) < 0.55) & (_smooth(x, y, 2500, 42) > 0.4)
    peak = 150 + 110 * _hash(43, *field)
    green = np.where(irrigated, np.clip(1 - ((day - peak) / 75) ** 2, 0, 1), 0.08)
    texture = _smooth(x, y, 90, 44) - 0.5
    red = 0.2 - 0.15 * green + 0.05 * texture
    nir = 0.26 + 0.24 * green + 0.06 * texture
    river = np.abs(_smooth(x, y, 2600, 45) - 0.5) < 0.025
    return np.where(river, 0.05, red), np.where(river, 0.02, nir)


def _write_scene(scene: Scene, folder: Path) -> Path:
    transform = Affine(PIXEL, 0, scene.west, 0, -PIXEL, scene.north)
    x, y = np.meshgrid(np.arange(scene.columns) + 0.5, np.arange(scene.rows) + 0.5)
    x, y = transform.a * x + transform.c, transform.e * y + transform.f
    crs = f"EPSG:326{scene.zone[:2]}"
    if crs != "EPSG:32612":
        x, y = Transformer.from_crs(crs, "EPSG:32612").transform(x, y)
    pixels = np.stack([np.rint(band / SCALE) for band in reflectance(x, y, scene.date)]).astype("int16")
    if scene.cloud:
        pixels[:, np.hypot(x - scene.cloud[0], y - scene.cloud[1]) < 700] = NODATA
    if scene.processing == 2:
        pixels[0, pixels[0] != NODATA] += 50  # the newer processing corrects red by 0.005
    if scene.south_up:
        pixels, transform = pixels[:, ::-1], transform @ Affine.translation(0, scene.rows) @ Affine.scale(1, -1)
    shape = {"width": scene.columns, "height": scene.rows, "count": 2, "dtype": "int16"}
    layout = {"driver": "COG", "blocksize": 128, "compress": "deflate", "predictor": "yes", "overviews": "none"}
    path = folder / scene.name
    with rasterio.open(path, "w", **shape, **layout, crs=crs, transform=transform, nodata=NODATA) as dst:
        dst.write(pixels)
        dst.descriptions, dst.scales, dst.offsets = BANDS, (SCALE, SCALE), (0.0, 0.0)
        dst.update_tags(TIFFTAG_IMAGEDESCRIPTION=LABEL)
    return path


def write_archive(folder: str | Path) -> Path:
    """Write the twelve scenes of the archive into a folder, one of them truncated, and return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for scene in ARCHIVE:
        path = _write_scene(scene, folder)
        if scene.name == TRUNCATED:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
    return folder


def deliver(folder: str | Path) -> list[Path]:
    """Write the next delivery into the archive: a late date, a new processing, the complete broken file, a new date.

    Nothing is written unless the folder is the archive of :func:`write_archive`.
    """
    folder = Path(folder)
    return [_write_scene(scene, folder) for scene in LATER] if (folder / TRUNCATED).exists() else []
