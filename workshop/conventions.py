"""The attributes that tell other tools what a store holds and where it is.

These are CF's flags and grid mapping, the Zarr conventions ``proj``, ``spatial`` and ``multiscales`` (v0.1), title and
license. They are made when a store is written. In memory, a selection would leave them out of date.
"""

from collections.abc import Iterable
from typing import Any

import xarray as xr
import zarr_cm

from workshop import legend
from workshop.repository import ARRAY
from workshop.tiles import place

ABOUT = {
    "Conventions": "CF-1.12",
    "title": "Land cover in the classes of GLAD GLCLUC2020",
    "license": "CC-BY-4.0",
    "references": "https://doi.org/10.3389/frsen.2022.856903",
}


def describe(raster: xr.DataArray) -> xr.Dataset:
    """Return a raster of GLAD's classes as a Dataset with its metadata, ready to write to a store.

    Parameters
    ----------
    raster : xarray.DataArray
        With evenly spaced dimensions ``y`` and ``x``, and a CRS. Its attribute ``source`` is kept.

    Returns
    -------
    xarray.Dataset
        The raster as ``lulc``, with the legend as CF's flags; georeferencing from the coordinates, in CF's grid
        mapping and in the Zarr conventions; title, license and references.

    Raises
    ------
    workshop.tiles.TileError
        If the raster's coordinates are not evenly spaced.
    """
    where = georeference(raster)

    def kept(name: str) -> dict[str, Any]:
        return {name: raster.attrs[name]} if name in raster.attrs else {}

    array = raster.rio.write_transform(place(raster))
    array.attrs = kept("long_name") | kept("source") | legend.flags() | where
    return array.to_dataset(name=ARRAY).assign_attrs(ABOUT | kept("source") | where)


def georeference(raster: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """Return the attributes of the conventions ``proj`` and ``spatial``, from a raster's CRS and coordinates."""
    transform, crs = place(raster), raster.rio.crs
    shape = raster.sizes["y"], raster.sizes["x"]
    (west, north), (east, south) = transform @ (0, 0), transform @ shape[::-1]
    bbox = min(west, east), min(north, south), max(west, east), max(north, south)
    authority = crs.to_authority()
    return zarr_cm.create_many(
        {
            "proj": zarr_cm.proj.create(**({"code": ":".join(authority)} if authority else {"wkt2": crs.to_wkt()})),
            "spatial": zarr_cm.spatial.create(
                dimensions=["y", "x"],
                transform=list(transform)[:6],
                bbox=[round(side, 12) for side in bbox],
                shape=list(shape),
                registration="pixel",
            ),
        }
    )


def pyramid(rasters: Iterable[xr.DataArray | xr.Dataset]) -> dict[str, Any]:
    """Return the attributes of a group of levels, from the finest in the group ``0`` to the coarsest.

    Each level must cover the same area as the one before. Its cells must consist of whole pixels of that level.
    """
    levels = [georeference(raster) for raster in rasters]
    layout = []
    for k, (finer, here) in enumerate(zip([levels[0], *levels], levels, strict=False)):
        entry = {"asset": str(k)} | {key: here[key] for key in ("spatial:shape", "spatial:transform")}
        if k > 0:
            entry |= {"derived_from": str(k - 1), "resampling_method": "mode"}
        scale = [n / m for n, m in zip(finer["spatial:shape"], here["spatial:shape"], strict=True)]
        layout.append(entry | {"transform": {"scale": scale, "translation": [0.0, 0.0]}})
    multiscales = zarr_cm.multiscales.create(layout=layout, resampling_method="mode")
    return ABOUT | zarr_cm.insert_many(levels[0], {"multiscales": multiscales})
