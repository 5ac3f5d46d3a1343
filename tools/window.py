"""The store that the site's viewer shows: the sample's teaching window, as plain Zarr with levels."""

import warnings
from pathlib import Path

import xarray as xr
import zarr

from workshop import conventions, sample, tiles, world

FACTORS = (8, 40)


def write(folder: Path, years: tuple[int, ...] = tiles.YEARS) -> None:
    """Write the store into a folder."""
    sample.ensure_tiles()
    layers = []
    for year in years:
        with tiles.open_tile(tiles.SAMPLE_TILE, year) as tile:
            layers.append(tiles.select_box(tile, tiles.TEACHING_WINDOW).load())
    cube = xr.concat(layers, dim=xr.DataArray(list(years), dims="year", name="year"))
    levels = [cube, *(world.coarsen(cube, factor) for factor in FACTORS)]
    about = {"title": "Land cover around Salt Lake City, a made-up sample", "source": cube.source}
    zarr.create_group(folder, attributes=conventions.pyramid(levels) | about)
    for k, level in enumerate(levels):
        chunks = (1, *(min(500, level.sizes[name]) for name in "yx"))
        encoding = {"lulc": {"chunks": chunks, "fill_value": 255, "grid_mapping": "spatial_ref"}}
        conventions.describe(level).to_zarr(folder, group=str(k), encoding=encoding, consolidated=False)
    with warnings.catch_warnings():  # the specification has allowed it since July 2026
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(folder)
