"""Virtual tiles: references read the same as GDAL, and files that references cannot represent are refused."""

import functools
import hashlib
import http.server
import os
import re
import struct
import sys
import threading
import time
import warnings

import geopandas as gpd
import icechunk
import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.shutil
import shapely
import xarray as xr
import zarr
from dask.distributed import Client, LocalCluster
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from rasterio.transform import from_origin
from rasterio.windows import Window
from virtual_tiff import VirtualTIFF
from virtualizarr import open_virtual_dataset
from virtualizarr.parsers import HDFParser

from workshop import legend, repository, stores, tiles, virtual, zonal
from workshop.servers import serve_folder

TILE = "50N_120W"
SIZE = 400  # pixels along a side of the small tiles, which cover ten degrees like the big ones


def write_small(root, year=2000, height=SIZE, pixels=None, name=TILE, **profile):
    """Write a small tile with GDAL and return its path."""
    path = root / str(year) / f"{name}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = np.random.default_rng(year).choice([0, 1, 10, 38, 207, 244, 250, 255], (height, SIZE)).astype(np.uint8)
    kind = {
        "driver": "GTiff",
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:4326",
        "transform": from_origin(-120, 50, 10 / SIZE, 10 / height),
        "compress": "LZW",
        "blockysize": 1,
        "photometric": "palette",
    }
    with rasterio.open(path, "w", width=SIZE, height=height, **(kind | profile)) as dst:
        dst.write(pixels, 1)
        if (kind | profile)["photometric"] == "palette":
            dst.write_colormap(1, legend.palette())
    return path


def write_as(root, driver="GTiff", **profile):
    """Write a small tile in a format that GDAL can only copy to."""
    if driver == "GTiff":
        return write_small(root, **profile)
    path = write_small(root)
    source = path.rename(path.with_name("source.tif"))
    rasterio.shutil.copy(source, path, driver=driver, **profile)
    return path


def with_gdal(path, window=None):
    # one thread, because a web map's tile server sets GDAL to use all, and GDAL then ignores FillOrder
    with rasterio.open(path, NUM_THREADS=1) as src:
        return src.read(1, window=window)


def keep(dataset, root, storage):
    config, allowed = virtual.containers(root)
    repo = icechunk.Repository.create(storage, config, authorize_virtual_chunk_access=allowed)
    session = repo.writable_session("main")
    dataset.vz.to_icechunk(session.store)
    session.commit("References")
    return repo


def through_references(root):
    dataset = virtual.open_virtual_tile(TILE, 2000, root)
    return repository.read(keep(dataset, root, stores.open_bucket().icechunk("virtual")))


def lzw(row, end=b""):
    """Return a row as TIFF's LZW without an end-of-information code: only literals of 9 bits, with clear codes."""
    codes = [code for k in range(0, len(row), 200) for code in (256, *row[k : k + 200].tolist())]
    bits = "".join(f"{code:09b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") + end


def replace_strips(path, strips):
    """Append the strips to a TIFF and make its directory point at them."""
    data = bytearray(path.read_bytes())
    assert data[:4] == b"II*\0"
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    starts = [len(data) + sum(map(len, strips[:k])) for k in range(len(strips))]
    data += b"".join(strips)
    for k in range(entries):
        tag, kind, count, where = struct.unpack_from("<HHII", data, directory + 2 + 12 * k)
        if tag in (273, 279):  # StripOffsets, StripByteCounts
            assert count == len(strips)
            values = starts if tag == 273 else [len(strip) for strip in strips]
            struct.pack_into(f"<{count}{'H' if kind == 3 else 'I'}", data, where, *values)
    path.write_bytes(data)


def test_five_years_of_the_sample_tile_are_what_gdal_reads(tmp_path):
    dataset = virtual.combine(virtual.open_virtual_tile(TILE, year) for year in tiles.YEARS)
    assert dataset.vz.nrefs() == 5 * tiles.TILE_SIZE
    repo = keep(dataset, None, icechunk.local_filesystem_storage(str(tmp_path)))
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert size < 5e6  # bytes, for 8 GB of pixels
    lulc = repository.read(repo)
    assert lulc.encoding["fill_value"] == 255  # of what no reference covers
    assert lulc.year.values.tolist() == list(tiles.YEARS)
    assert lulc.rio.crs == "EPSG:4326"
    box = tiles.select_box(lulc, tiles.DEFECT_BOX)
    for year in tiles.YEARS:
        expected = with_gdal(tiles.tile_path(TILE, year), Window(30_000, 36_000, 400, 1000))
        assert np.array_equal(box.sel(year=year).values, expected)
    like = tiles.open_tile(TILE, 2000)
    assert np.array_equal(lulc.x, like.x) and np.array_equal(lulc.y, like.y)


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"photometric": "minisblack"},
        {"predictor": 2},
        {"compress": "DEFLATE", "predictor": 2},
        {"compress": "ZSTD"},
        {"compress": "PACKBITS"},
        {"compress": "NONE"},
        {"blockysize": 8},
        {"blockysize": SIZE},
        {"tiled": True, "blockxsize": 80, "blockysize": 80},
        {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "DEFLATE"},  # cut at the edges
        {"driver": "COG", "blocksize": 128},  # with overviews
        {"compress": "LERC_ZSTD"},
        {"photometric": "miniswhite"},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
        {"ENDIANNESS": "BIG", "predictor": 2},
        {"nodata": 255},
    ],
    ids=str,
)
def test_other_layouts_are_read_right(tmp_path, profile):
    path = write_as(tmp_path, **profile)
    lulc = through_references(tmp_path)
    assert lulc.dtype == np.uint8
    assert np.array_equal(lulc.values[0], with_gdal(path))


@pytest.mark.parametrize(("meaning", "inside"), [("Area", 0.5), ("Point", 0)])
def test_the_tiepoint_is_a_corner_or_a_center_as_lesson_06_has_it(tmp_path, meaning, inside):
    with rasterio.open(write_small(tmp_path), "r+") as dst:
        dst.update_tags(AREA_OR_POINT=meaning)
    url, registry = virtual.locate_tile(TILE, 2000, tmp_path)
    geo = open_virtual_dataset(url, registry=registry, parser=VirtualTIFF(ifd=0))["0"].attrs
    assert {1: 0.5, 2: 0}[geo["raster_type"]] == inside
    x = geo["model_tiepoint"][3] + (np.arange(SIZE) + inside) * geo["model_pixel_scale"][0]
    y = geo["model_tiepoint"][4] - (np.arange(SIZE) + inside) * geo["model_pixel_scale"][1]
    lulc = through_references(tmp_path)
    np.testing.assert_allclose(lulc.x, x, rtol=0, atol=1e-9)
    np.testing.assert_allclose(lulc.y, y, rtol=0, atol=1e-9)
    assert lulc.x[0] == pytest.approx(-119.9875) and lulc.y[0] == pytest.approx(49.9875)


@pytest.fixture
def unended(tmp_path):
    """Write a tile whose LZW strips have no end-of-information code, and return its pixels."""
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    path = write_small(tmp_path, pixels=pixels)
    replace_strips(path, [lzw(row, b"\0" * (k % 4)) for k, row in enumerate(pixels)])
    assert np.array_equal(with_gdal(path), pixels)
    return pixels


def test_lzw_without_end_of_information_is_read_right(tmp_path, unended):
    assert np.array_equal(through_references(tmp_path).values[0], unended)


def test_workers_of_a_cluster_decode_it_too(tmp_path, unended):
    lulc = through_references(tmp_path)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        found = zonal.count_classes(lulc, gpd.GeoSeries([shapely.box(-121, 39, -109, 51)], crs="EPSG:4326"))
        worked = client.run(lambda: "workshop.zonal" in sys.modules)
    assert len(worked) == 2 and all(worked.values())
    np.testing.assert_array_equal(found.pixels[0, 0], np.bincount(unended.ravel(), minlength=256))


def test_upstream_still_takes_padding_for_pixels(tmp_path, unended):
    """When this fails, virtual-tiff reads such tiles itself, and ``StripLZW`` can go."""
    with (
        zarr.config.set({"codecs.imagecodecs_lzw": "virtual_tiff.imagecodecs.LZWCodec"}),
        pytest.raises(virtual.VirtualError, match="found: cannot reshape"),
    ):
        virtual.open_virtual_tile(TILE, 2000, tmp_path)


def test_a_strip_that_is_too_short_is_refused(tmp_path):
    pixels = np.full((SIZE, SIZE), 10, np.uint8)
    path = write_small(tmp_path, pixels=pixels)
    replace_strips(path, [lzw(row) for row in pixels[:-1]] + [lzw(pixels[-1, :100])])
    lulc = through_references(tmp_path)
    with pytest.raises(virtual.VirtualError, match="expected an LZW strip of 400 bytes, found 100"):
        _ = lulc.values


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"SPARSE_OK": "TRUE", "nodata": 255}, "none of them empty.*zero-length"),
        ({"blockysize": 7}, "one size.*evenly divisible"),
        ({"nbits": 7}, "8-bit GTiff, found GTiff of 7 bits"),
        ({"nbits": 7, "compress": "NONE"}, "8-bit GTiff, found GTiff of 7 bits"),
        ({"compress": "JPEG", "blockysize": 8, "photometric": "minisblack"}, "JPEG compression"),
        ({"driver": "VRT"}, "GTiff, found VRT"),
        ({"driver": "PNG"}, "GTiff, found PNG"),
    ],
    ids=str,
)
def test_what_references_cannot_express_is_refused_until_rewritten_as_the_message_says(tmp_path, profile, reason):
    pixels = None
    if "driver" not in profile:
        pixels = np.full((SIZE, SIZE), 10, np.uint8)
        pixels[100:200] = profile.get("nodata", 0)
        profile = profile | {"pixels": pixels}
    new = write_as(tmp_path, **profile)
    expected = with_gdal(new)
    assert tiles.open_tile(TILE, 2000, tmp_path).shape == (SIZE, SIZE)
    with pytest.raises(virtual.VirtualError, match=rf"50N_120W \(2000\): expected .*{reason}") as caught:
        virtual.open_virtual_tile(TILE, 2000, tmp_path)
    old = new.rename(new.with_name("old.tif"))
    exec(re.search(r"rewrite it with (.*?\))", str(caught.value))[1], {"rasterio": rasterio, "old": old, "new": new})
    assert np.array_equal(through_references(tmp_path).values[0], expected)


def test_pixels_that_the_parser_takes_for_others_are_refused(tmp_path):
    """virtual-tiff ignores the tag FillOrder, which says that the bits of each byte are reversed."""
    pixels = np.full((SIZE, SIZE), 10, np.uint8)
    path = write_small(tmp_path, pixels=pixels, compress="NONE", photometric="minisblack")
    data = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    where = next(at for at in range(directory + 2, directory + 2 + 12 * entries, 12) if data[at] == 284 % 256)
    struct.pack_into("<HHIHH", data, where, 266, 3, 1, 2, 0)
    path.write_bytes(data)
    assert (with_gdal(path) == 0b01010000).all()
    with pytest.raises(virtual.VirtualError, match="pixels that differ from GDAL's at row 0"):
        virtual.open_virtual_tile(TILE, 2000, tmp_path)


def test_a_server_without_range_requests_is_named(tmp_path, whole_files):
    write_small(tmp_path)
    assert tiles.open_tile(TILE, 2000, whole_files).shape == (SIZE, SIZE)
    with pytest.raises(virtual.VirtualError, match="a server that sends parts of a file, found one that sends all"):
        virtual.open_virtual_tile(TILE, 2000, whole_files)


@pytest.fixture
def whole_files(tmp_path):
    """Serve a folder without range requests, and return its URL."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("profile", "refusal"),
    [
        ({"compress": "DEFLATE"}, "different codecs"),
        ({"predictor": 2}, "different codecs"),
        ({"blockysize": 8}, "inconsistent chunk shapes"),
        ({"height": SIZE * 2}, "cannot align"),
        ({"name": "50N_110W", "transform": from_origin(-110, 50, 10 / SIZE, 10 / SIZE)}, "cannot align.*'x'"),
    ],
    ids=str,
)
def test_the_libraries_refuse_years_of_different_layout_or_place(tmp_path, profile, refusal):
    paths = write_small(tmp_path, 2000), write_small(tmp_path, 2005, **profile)
    layers = [virtual.open_virtual_tile(path.stem, int(path.parent.name), tmp_path) for path in paths]
    with pytest.raises((NotImplementedError, ValueError), match=refusal):
        virtual.combine(layers)


def test_the_real_glad_tile_is_refused_until_rewritten_as_the_message_says(glad_tile, tmp_path):
    """The smaller copy has 520 rows in strips of 15, and the last strip is shorter."""
    with pytest.raises(virtual.VirtualError, match=r'height of 520 .* compress="LZW", blockysize=1'):
        virtual.open_virtual_tile("40N_080W", 2000, glad_tile.parent.parent)
    (tmp_path / "2000").mkdir()
    again = tmp_path / "2000" / glad_tile.name
    rasterio.shutil.copy(glad_tile, again, driver="GTiff", compress="LZW", blockysize=1)
    layer = virtual.combine([virtual.open_virtual_tile("40N_080W", 2000, tmp_path)])
    lulc = repository.read(keep(layer, tmp_path, stores.open_bucket().icechunk("virtual")))
    assert np.array_equal(lulc.values[0], with_gdal(glad_tile))
    assert lulc.rio.crs == "EPSG:4326"


@pytest.mark.parametrize("folder", ["with blank", "Küche", "a+b&c", "[x]", "~x"])
def test_folders_of_any_name(tmp_path, folder):
    path = write_small(tmp_path / folder)
    np.testing.assert_array_equal(through_references(tmp_path / folder)[0], with_gdal(path))


@pytest.mark.parametrize("folder", ["a#b", "a%20b", "a?b"])
def test_folders_that_a_url_cannot_name_are_refused(tmp_path, folder):
    write_small(tmp_path / folder)
    with pytest.raises(virtual.VirtualError, match="expected a path without"):
        virtual.open_virtual_tile(TILE, 2000, tmp_path / folder)
    with pytest.raises(virtual.VirtualError, match="expected a path without"):
        virtual.containers(tmp_path / folder)


@pytest.mark.parametrize("over", ["file", "http"])
def test_a_source_replaced_is_noticed(tmp_path, over):
    path = write_small(tmp_path)
    with serve_folder(tmp_path) as server:
        lulc = through_references(server.url if over == "http" else tmp_path)
        assert np.array_equal(lulc[0, :10].values, with_gdal(path)[:10])
        write_small(tmp_path, pixels=np.full((SIZE, SIZE), 10, np.uint8))
        os.utime(path, (time.time() + 5,) * 2)  # modification times are compared in whole seconds
        with pytest.raises(icechunk.IcechunkError, match="checksum of the object owning the virtual chunk"):
            _ = lulc[0, 10:].values


def replace_by_older(path, **profile):
    """Replace a tile with another file that is a day older, as ``rsync -a`` and ``cp -p`` can do."""
    write_small(path.parent.parent, int(path.parent.name), **profile)
    os.utime(path, (time.time() - 86_400,) * 2)


@pytest.mark.parametrize(("over", "append"), [("file", False), ("http", True)])
def test_older_files_in_the_place_of_sources_are_noticed_by_the_check_only(tmp_path, over, append):
    years = (2000, 2005, 2010)
    paths = [write_small(tmp_path, year, pixels=np.full((SIZE, SIZE), 10, np.uint8)) for year in years]
    with serve_folder(tmp_path) as server:
        root = server.url if over == "http" else tmp_path
        layers = [virtual.open_virtual_tile(TILE, year, root) for year in years]
        repo = keep(layers[0] if append else virtual.combine(layers), root, icechunk.in_memory_storage())
        for layer in layers[1:] if append else []:
            session = repo.writable_session("main")
            layer.vz.to_icechunk(session.store, append_dim="year")
            session.commit("One more")
        virtual.check_sources(repository.read(repo), TILE, root)

        for path, code in zip(paths[1:], (250, 0), strict=True):
            replace_by_older(path, pixels=np.full((SIZE, SIZE), code, np.uint8))
        lulc = repository.read(repo)
        assert [np.unique(layer).tolist() for layer in lulc] == [[10], [250], [0]]  # no error
        with pytest.raises(virtual.VirtualError, match=r"found others for 2005, 2010, .* bring back the old files"):
            virtual.check_sources(lulc, TILE, root)

        # the two ways out that the message names
        session = repo.writable_session("main")
        again = virtual.combine(virtual.open_virtual_tile(TILE, year, root) for year in years)
        again.vz.to_icechunk(session.store, mode="w")
        session.commit("The files that are there now")
        virtual.check_sources(repository.read(repo), TILE, root)
        for path in paths[1:]:
            replace_by_older(path, pixels=np.full((SIZE, SIZE), 10, np.uint8))
        virtual.check_sources(lulc, TILE, root)


def test_the_check_takes_files_elsewhere_and_names_a_year_without_a_file(tmp_path):
    path = write_small(tmp_path / "a")
    dataset = virtual.open_virtual_tile(TILE, 2000, tmp_path / "a")
    lulc = repository.read(keep(dataset, tmp_path / "a", icechunk.in_memory_storage()))
    (tmp_path / "a").rename(tmp_path / "b")
    virtual.check_sources(lulc, TILE, tmp_path / "b")
    with pytest.raises(tiles.TileError, match=r"2000.*expected a file"):
        virtual.check_sources(lulc, TILE, tmp_path / "a")
    with pytest.raises(virtual.VirtualError, match="expected a cube with the coordinate source_digest, found"):
        virtual.check_sources(lulc.drop_vars("source_digest"), TILE, tmp_path / "b")
    assert not path.exists()


@pytest.mark.parametrize("rows", [slice(0, 1), slice(17, 18), slice(399, 400)], ids=str)
def test_a_change_in_one_row_is_noticed_by_its_length(tmp_path, rows):
    pixels = with_gdal(write_small(tmp_path))
    before = virtual.open_virtual_tile(TILE, 2000, tmp_path)
    pixels[rows] = 10
    write_small(tmp_path, pixels=pixels)
    with pytest.raises(virtual.VirtualError, match="found others for 2000"):
        virtual.check_sources(before, TILE, tmp_path)


def test_the_digest_is_what_the_docstring_says(tmp_path):
    path = write_small(tmp_path)
    data = path.read_bytes()
    with rasterio.open(path) as src:
        places = [
            [int(src.get_tag_item(f"BLOCK_{what}_0_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")]
            for row in range(SIZE)
        ]
    offsets, lengths = zip(*places, strict=True)
    expected = hashlib.sha256(struct.pack(f"<{1 + 2 * SIZE}Q", len(data), *offsets, *lengths))
    for k in range(16):
        start, length = places[int(k * (SIZE - 1) / 15)]
        expected.update(data[start : start + length])
    found = virtual.open_virtual_tile(TILE, 2000, tmp_path)["source_digest"]
    assert found.dtype == np.uint64 and found.item() == int(expected.hexdigest()[:16], 16)


def test_no_whole_tile_is_read():
    with serve_folder(tiles.DATA) as server:
        virtual.open_virtual_tile(TILE, 2020, server.url)
        sent = sum(request.sent for request in server.requests)
    assert sent < os.path.getsize(tiles.tile_path(TILE, 2020, tiles.DATA)) / 5


def test_xarray_still_appends_times_in_other_units_with_a_warning_only(tmp_path):
    """Appendix A3 warns of this and sets the units; when it fails, the libraries refuse or convert by themselves."""

    def write(start, freq):
        times = pd.date_range(start, periods=4, freq=freq)
        path = tmp_path / f"{freq}.nc"
        xr.Dataset({"air": ("time", np.ones(4))}, {"time": times}).to_netcdf(path, engine="h5netcdf")
        registry = ObjectStoreRegistry({"file://": LocalStore()})
        url = virtual.file_url(path)
        return open_virtual_dataset(url, registry=registry, parser=HDFParser(), loadable_variables=["time"])

    daily, hourly = write("2013-01-01", "D"), write("2014-01-01", "6h")
    expected = np.concatenate([daily.time, hourly.time])
    for encoding, right in (
        (daily.time.encoding, False),
        ({"units": "seconds since 1970-01-01", "dtype": "int64"}, True),
    ):
        daily["time"].encoding = encoding
        session = keep(daily, tmp_path, icechunk.in_memory_storage()).writable_session("main")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            hourly.vz.to_icechunk(session.store, append_dim="time")
        found = xr.open_zarr(session.store, consolidated=False)["time"]
        assert np.array_equal(found, expected) == right == (not said)
