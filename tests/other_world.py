"""Another world: tiles with the exact shape of GLAD's and different content from the sample's, cheap to write.

Every class of the legend occurs, even in the lessons' window. Whole chunks have no data. From 2010 on, there is no
built-up land. There is no defect.
"""

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import rasterio
from rasterio.transform import from_origin

from workshop import legend, tiles

CELL = 100  # pixels along a side of what has one class


def cells(name, year):
    """Return the classes of a tile, shape (400, 400): wide cells with few classes per row, small ones in the window."""
    lon, lat = tiles.tile_corner(name)
    codes = legend.table().index.to_numpy(np.uint8)

    def draw(seed):
        rng = np.random.default_rng([lon + 180, lat + 60, seed])
        palettes = np.stack([rng.permutation(codes)[:6] for _ in range(400)])
        return np.repeat(np.take_along_axis(palettes, rng.integers(0, 6, (400, 20)), 1), 20, axis=1), rng

    (classes, _), (later, rng) = draw(0), draw(year)
    changed = rng.random((400, 400)) < 0.01  # the rest stays what it was
    classes[changed] = later[changed]
    rows, cols = (slice(s.start // CELL, s.stop // CELL) for s in tiles.pixel_slices(tiles.TEACHING_WINDOW, (-120, 50)))
    window = classes[rows, cols]
    window[:] = rng.choice(codes, window.shape)
    window.flat[rng.permutation(window.size)[: len(codes)]] = codes
    if year >= 2010:
        classes[classes == 250] = 10
    classes[:10, :10] = classes[-10:, -10:] = 255  # whole chunks of the world's cube
    window[:10, :10] = window[15:, 35:] = 255  # and of the window's
    return classes


def write_tile(name, year, root):
    """Write a tile of 40,000 one-row strips."""
    path = Path(tiles.tile_path(name, year, root))
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"width": tiles.TILE_SIZE, "height": tiles.TILE_SIZE, "count": 1, "dtype": "uint8"}
    transform = from_origin(*tiles.tile_corner(name), tiles.RESOLUTION, tiles.RESOLUTION)
    layout = {"driver": "GTiff", "compress": "LZW", "blockysize": 1, "photometric": "palette", "SPARSE_OK": True}
    with rasterio.open(path, "w", **shape, **layout, crs="EPSG:4326", transform=transform) as dst:
        dst.write_colormap(1, legend.palette())
    # GDAL would encode each of the 40,000 rows, for eight seconds. Equal rows have equal strips.
    data = bytearray(path.read_bytes())
    strips = [imagecodecs.lzw_encode(np.repeat(row, CELL).tobytes()) for row in cells(name, year)]
    sizes = np.repeat([*map(len, strips)], CELL)
    offsets = len(data) + np.cumsum(sizes) - sizes
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count, where = struct.unpack_from("<HHII", data, entry)
        if tag in (273, 279):  # StripOffsets, StripByteCounts
            values = (offsets if tag == 273 else sizes).astype({3: "<u2", 4: "<u4"}[kind])
            data[where : where + values.nbytes] = values.tobytes()
            assert count == len(values)
    path.write_bytes(data + b"".join(strip * CELL for strip in strips))
    return path


def write(root, names):
    """Write the missing tiles."""
    for name in names:
        for year in tiles.YEARS:
            if not Path(tiles.tile_path(name, year, root)).exists():
                write_tile(name, year, root)
