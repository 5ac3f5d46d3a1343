"""Virtual tiles: GLAD's GeoTIFFs as references, which Zarr reads where they lie. Copying them is ``datacube.py``'s job.

The library calls are those that lesson 06 writes out. A process that reads references into real tiles must import this
module, for its LZW decoder; a Dask worker does so by itself when it is sent an array that was opened where it is.
"""

import asyncio
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import icechunk
import imagecodecs
import numpy as np
import xarray as xr
import zarr
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from virtual_tiff import VirtualTIFF
from virtual_tiff.imagecodecs import LZWCodec
from virtualizarr import open_virtual_dataset
from virtualizarr.manifests import ManifestArray
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.core.metadata import ArrayV3Metadata

from workshop import legend, stores
from workshop.repository import ARRAY
from workshop.tiles import is_url, open_tile, tile_path, tiles_root


class VirtualError(Exception):
    """Tiles cannot be read through references as they are; the message says what to do instead."""


# virtual-tiff says at every opening that its codecs are its own; lesson 06 says it once.
warnings.filterwarnings("ignore", message="Imagecodecs codecs are not in the Zarr version 3 specification")


class StripLZW(LZWCodec):
    """TIFF's LZW, also for streams that do not say where they end.

    TIFF 6.0 wants an end-of-information code after each strip. Some real GLAD tiles have none, only padding, which
    virtual-tiff's own decoder takes for data (https://github.com/virtual-zarr/virtual-tiff/pull/104). This one stops
    when the strip is full, as libtiff does.
    """

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        size = int(np.prod(chunk_spec.shape)) * chunk_spec.dtype.item_size
        pixels = await asyncio.to_thread(imagecodecs.lzw_decode, chunk_bytes.to_bytes(), out=size)
        if len(pixels) != size:
            raise VirtualError(
                f"expected an LZW strip of {size:,} bytes, found {len(pixels):,}; "
                "the tile is damaged or was replaced: fetch it again, then write its references again"
            )
        return chunk_spec.prototype.buffer.from_bytes(pixels)


zarr.registry.register_codec("imagecodecs_lzw", StripLZW)
zarr.config.set({"codecs.imagecodecs_lzw": f"{__name__}.{StripLZW.__name__}"})


def locate_tile(name: str, year: int, root: str | Path | None = None) -> tuple[str, ObjectStoreRegistry]:
    """Return a tile's URL (``file://`` for a local one), and a registry with the store that answers for it."""
    path = tile_path(name, year, root)
    url = path if is_url(path) else file_url(path)
    parts = urlsplit(url)
    server = f"{parts.scheme}://{parts.netloc}"
    return url, ObjectStoreRegistry({server: stores.http_store(server) if is_url(url) else LocalStore()})


def open_virtual_tile(name: str, year: int, root: str | Path | None = None) -> xr.Dataset:
    """Open one tile as references to its strips; none of its pixels is read.

    The arguments and their errors are those of :func:`workshop.tiles.open_tile`.

    Returns
    -------
    xarray.Dataset
        ``lulc (year, y, x)``, uint8, one year, backed by a ManifestArray, with pixel-centre coordinates in degrees and
        the CRS in ``spatial_ref``. What no reference covers reads as 255, no data.

    Raises
    ------
    VirtualError
        When the file's layout cannot be expressed as equal chunks that are all there.
    """
    with open_tile(name, year, root) as like:  # checked
        attributes = like.attrs | {"grid_mapping": "spatial_ref"}
        coords = {name: like[name] for name in ("y", "x", "spatial_ref")}
    url, registry = locate_tile(name, year, root)
    try:
        virtual = open_virtual_dataset(url, registry=registry, parser=VirtualTIFF(ifd=0))["0"].data
    except (ValueError, NotImplementedError) as error:
        raise VirtualError(
            f"{name} ({year}): expected strips or tiles of one size, none of them empty "
            f"({str(error).splitlines()[0]}); rewrite the tile, e.g. gdal_translate -co COMPRESS=LZW -co BLOCKYSIZE=1, "
            "or copy its pixels"
        ) from error
    # 0 is a class, so what no reference covers must read as "no data"
    metadata = virtual.metadata.to_dict() | {"fill_value": legend.NODATA, "attributes": {}}
    references = ManifestArray(metadata=ArrayV3Metadata.from_dict(metadata), chunkmanifest=virtual.manifest)
    layer = xr.Variable(("y", "x"), references, attributes)
    return xr.Dataset({ARRAY: layer}, coords).expand_dims(year=[year])


def combine(layers: Iterable[xr.Dataset]) -> xr.Dataset:
    """Stack virtual tiles of one place along ``year``, in the order given, without reading pixels.

    xarray refuses tiles of another grid, and VirtualiZarr those that are cut or compressed in another way.
    """
    return xr.concat(layers, dim="year", join="exact", coords="minimal", compat="equals", combine_attrs="override")


def containers(root: str | Path | None = None) -> tuple[icechunk.RepositoryConfig, dict]:
    """Return :func:`workshop.stores.containers` for everything below a root, see :func:`workshop.tiles.tiles_root`."""
    root = tiles_root(root)
    if is_url(root):
        store = icechunk.http_store({"allow_http": "true"})
        return stores.containers(root + "/", store, icechunk.credentials.HttpAccess)
    store = icechunk.local_filesystem_store(root)
    return stores.containers(file_url(root) + "/", store, icechunk.credentials.LocalFileSystemAccess)


def file_url(path: str | Path) -> str:
    """Return a path as a ``file://`` URL in which blanks and umlauts stand as they are, as obstore wants them.

    Raises
    ------
    VirtualError
        When the path holds a character that means something else in a URL.
    """
    path = os.path.abspath(path)  # a link stays what it is called
    if set(path) & set("#?%"):
        raise VirtualError(
            f"expected a path without '#', '?' and '%', found {path}; references cannot hold these: move it"
        )
    return unquote(Path(path).as_uri())
