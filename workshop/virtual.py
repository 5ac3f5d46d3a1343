"""Virtual tiles: GLAD's GeoTIFFs as references, which Zarr reads in place. ``datacube.py`` copies tiles instead.

Lesson 06 shows these library calls. A process that reads references to real tiles must import this module for its LZW
decoder. A Dask worker imports it automatically when it gets an array from a process that has imported it.
"""

import asyncio
import hashlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import icechunk
import imagecodecs
import numpy as np
import obstore
import rasterio
import xarray as xr
import zarr
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from rasterio.windows import Window
from virtual_tiff import VirtualTIFF
from virtual_tiff.imagecodecs import LZWCodec
from virtualizarr.manifests import ManifestArray
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.core.metadata import ArrayV3Metadata

from workshop import conventions, legend, stores
from workshop.repository import ARRAY
from workshop.tiles import gdal_path, is_url, open_tile, tile_path, tiles_root

DIGEST = "source_digest"  # the coordinate with which check_sources recognizes each year's file
SAMPLES, SAMPLE_BYTES = 16, 65_536  # how many strips a digest reads, and how many bytes of each at most
REWRITE = 'rewrite it with rasterio.shutil.copy(old, new, driver="GTiff", compress="LZW", blockysize=1, nbits=8)'


class VirtualError(Exception):
    """Tiles cannot be read through references; the message says what to do."""


# virtual-tiff warns at every opening that its codecs are not in the specification; lesson 06 says it once.
warnings.filterwarnings("ignore", message="Imagecodecs codecs are not in the Zarr version 3 specification")


class StripLZW(LZWCodec):
    """TIFF's LZW, also for streams without an end-of-information code.

    TIFF 6.0 requires this code after each strip. Some real GLAD tiles only have padding there, which virtual-tiff's own
    decoder treats as data (https://github.com/virtual-zarr/virtual-tiff/pull/104). This decoder stops when the strip is
    full, as libtiff does.
    """

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        size = int(np.prod(chunk_spec.shape)) * chunk_spec.dtype.item_size
        pixels = await asyncio.to_thread(imagecodecs.lzw_decode, chunk_bytes.to_bytes(), out=size)
        if len(pixels) != size:
            raise VirtualError(
                f"expected an LZW strip of {size:,} bytes, found {len(pixels):,}; "
                "the tile is damaged or was replaced; fetch it again, then write its references again"
            )
        return chunk_spec.prototype.buffer.from_bytes(pixels)


zarr.registry.register_codec("imagecodecs_lzw", StripLZW)
zarr.config.set({"codecs.imagecodecs_lzw": f"{__name__}.{StripLZW.__name__}"})


def locate_tile(name: str, year: int, root: str | Path | None = None) -> tuple[str, ObjectStoreRegistry]:
    """Return a tile's URL (``file://`` for a local one), and a registry with the store that reads it."""
    path = tile_path(name, year, root)
    url = path if is_url(path) else file_url(path)
    parts = urlsplit(url)
    server = f"{parts.scheme}://{parts.netloc}"
    return url, ObjectStoreRegistry({server: stores.http_store(server) if is_url(url) else LocalStore()})


def open_virtual_tile(name: str, year: int, root: str | Path | None = None) -> xr.Dataset:
    """Open one tile as references to its strips. A few strips are read to check the references and to make a digest.

    The arguments and their errors are the same as for :func:`workshop.tiles.open_tile`.

    Returns
    -------
    xarray.Dataset
        ``lulc (year, y, x)``, uint8, one year, backed by a ManifestArray, with pixel-center coordinates in degrees and
        the CRS in ``spatial_ref``. Chunks without a reference read as 255, no data. ``source_digest (year)``, uint64,
        is for :func:`check_sources`.

    Raises
    ------
    VirtualError
        If references cannot represent the file, or its server does not support range requests.
    """
    path, label = gdal_path(tile_path(name, year, root)), f"{name} ({year})"
    with open_tile(name, year, root) as like:  # checked
        described = conventions.describe(like)
        attributes = described[ARRAY].attrs | {"grid_mapping": "spatial_ref"}
        coords = {name: described[name] for name in ("y", "x", "spatial_ref")}
    url, registry = locate_tile(name, year, root)
    with rasterio.open(path) as src:
        bits = src.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")
        if (src.driver, bits) != ("GTiff", "8"):
            raise VirtualError(f"{label}: expected an 8-bit GTiff, found {src.driver} of {bits} bits; {REWRITE}")
        try:
            virtual, digest = _parse(src, url, registry)
        except VirtualError:
            raise
        except Exception as error:  # each library has its own errors
            reason = " ".join(str(error).split())[:200]
            if "Range request not supported" in reason:
                raise VirtualError(
                    f"{label}: expected a server that sends parts of a file, found one that sends all of it; choose "
                    "a server that supports range requests, or put the tiles into a folder"
                ) from error
            raise VirtualError(
                f"{label}: expected strips or tiles of one size, none of them empty, in an encoding of virtual-tiff's, "
                f"found: {reason}; {REWRITE}, or copy its pixels"
            ) from error
    # 0 is a class, so chunks without a reference must read as "no data"
    metadata = virtual.metadata.to_dict() | {"fill_value": legend.NODATA, "attributes": {}}
    references = ManifestArray(metadata=ArrayV3Metadata.from_dict(metadata), chunkmanifest=virtual.manifest)
    layer = xr.Variable(("y", "x"), references, attributes)
    dataset = xr.Dataset({ARRAY: layer}, coords, described.attrs).expand_dims(year=[year])
    return dataset.assign_coords({DIGEST: ("year", np.array([digest], np.uint64))})


def _parse(src: rasterio.DatasetReader, url: str, registry: ObjectStoreRegistry) -> tuple[ManifestArray, int]:
    """Return a tile's references, after comparing one chunk with GDAL, and the digest of its file."""
    manifests = VirtualTIFF(ifd=0)(url, registry)
    virtual = manifests.to_virtual_dataset()["0"].data
    grid = virtual.manifest.shape_chunk_grid
    entries = [virtual.manifest.get_entry(place) for place in np.ndindex(grid)]
    offsets, lengths = (np.array([entry[key] for entry in entries]) for key in ("offset", "length"))

    # The longest chunk is the best test of whether the parser handles the file's encoding.
    chunk = np.unravel_index(lengths.argmax(), grid)
    decoded = zarr.open_array(manifests, path="0", mode="r")
    top, left = (int(k * size) for k, size in zip(chunk, decoded.chunks, strict=True))
    found = decoded[top : top + decoded.chunks[0], left : left + decoded.chunks[1]]
    if not np.array_equal(found, src.read(1, window=Window(left, top, *found.shape[::-1]))):
        raise ValueError(f"pixels that differ from GDAL's at row {top}, column {left}")

    store, key = registry.resolve(url)
    picked = np.unique(np.linspace(0, len(offsets) - 1, SAMPLES).astype(int))
    starts, sizes = offsets[picked].tolist(), lengths[picked].clip(max=SAMPLE_BYTES).tolist()
    digest = hashlib.sha256(np.array([store.head(key)["size"], *offsets, *lengths], "<u8"))
    for strip in obstore.get_ranges(store, key, starts=starts, lengths=sizes):
        digest.update(strip)
    return virtual, int.from_bytes(digest.digest()[:8])


def check_sources(cube: xr.DataArray | xr.Dataset, name: str, root: str | Path | None = None) -> None:
    """Check that a virtual cube's files are still the ones from which its references were made.

    Icechunk refuses a file that is newer than its references. It does not notice a replacement with an older time
    stamp (from ``rsync -a``, ``cp -p`` or ``curl -R``) or from the same second, nor any replacement if a server ignores
    ``If-Unmodified-Since``. This check computes each file's digest again from its size, the offsets and lengths of all
    its strips, and the first 64 kB of 16 evenly spread strips. It cannot notice a file in which all of these are the
    same, such as an uncompressed file that differs only in other strips.

    Parameters
    ----------
    cube : xarray.DataArray or xarray.Dataset
        As :func:`workshop.repository.read` opens it, with ``source_digest (year)``.
    name, root
        As for :func:`open_virtual_tile`, whose errors this function also raises. The root may differ.

    Raises
    ------
    VirtualError
        If the files of some years have changed, or the cube has no digests.
    """
    if DIGEST not in cube.coords:
        raise VirtualError(
            f"expected a cube with the coordinate {DIGEST}, found {', '.join(map(str, cube.coords))}; make the "
            "references with open_virtual_tile"
        )
    kept = zip(*(np.atleast_1d(cube[name].values).tolist() for name in ("year", DIGEST)), strict=True)
    others = [year for year, digest in kept if open_virtual_tile(name, year, root)[DIGEST].item() != digest]
    if others:
        raise VirtualError(
            f"{name}: expected the files from which the references were made, found others for "
            f"{', '.join(map(str, others))}, so their pixels may be wrong; bring back the old files, or open all years "
            'with open_virtual_tile again, write them with vz.to_icechunk(session.store, mode="w"), and commit'
        )


def combine(layers: Iterable[xr.Dataset]) -> xr.Dataset:
    """Stack virtual tiles of one place along ``year``, in the order given, without reading pixels.

    xarray refuses tiles on different grids, and VirtualiZarr refuses tiles with different chunks or compression.
    """
    return xr.concat(layers, dim="year", join="exact", coords="minimal", compat="equals", combine_attrs="override")


def containers(root: str | Path | None = None) -> tuple[icechunk.RepositoryConfig, dict]:
    """Return :func:`workshop.stores.containers` for everything under a root; see :func:`workshop.tiles.tiles_root`."""
    root = tiles_root(root)
    if is_url(root):
        store = icechunk.http_store({"allow_http": "true"})
        return stores.containers(root + "/", store, icechunk.credentials.HttpAccess)
    store = icechunk.local_filesystem_store(root)
    return stores.containers(file_url(root) + "/", store, icechunk.credentials.LocalFileSystemAccess)


def file_url(path: str | Path) -> str:
    """Return a path as a ``file://`` URL in which spaces and accented characters are not escaped, as obstore needs.

    Raises
    ------
    VirtualError
        If the path contains a character that has another meaning in a URL.
    """
    path = os.path.abspath(path)  # does not resolve links
    if set(path) & set("#?%"):
        raise VirtualError(
            f"expected a path without '#', '?' and '%', found {path}; references cannot contain these, so move it"
        )
    return unquote(Path(path).as_uri())
