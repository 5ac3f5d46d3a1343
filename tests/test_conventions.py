"""The metadata of stores: whether it is valid and true, and which readers use it."""

import itertools
import json
import re
from contextlib import nullcontext

import icechunk
import nbformat
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from conftest import NOTEBOOKS
from described import check, check_place
from icechunk.xarray import to_icechunk

from workshop import conventions, datacube, repository, stores, tiles, world

BOX = tiles.Box(-112.5, 40.875, -112.25, 41.0)


def layer(year=2000, box=BOX):
    return tiles.select_box(tiles.open_tile(tiles.SAMPLE_TILE, year), box)


def stored(raster):
    """Return the group of a raster that was described and written."""
    memory = zarr.storage.MemoryStore()
    conventions.describe(raster).to_zarr(memory, consolidated=False)
    return zarr.open_group(memory, mode="r")


@pytest.mark.parametrize(
    "cut",
    [
        lambda raster: raster,
        lambda raster: raster[100:200, 40:70],
        lambda raster: raster[::-1, ::4],
        lambda raster: raster.expand_dims(year=[2000]),
        lambda raster: raster.rio.clip_box(-112.45, 40.9, -112.4, 40.95),
    ],
    ids=["whole", "sliced", "thinned and turned", "with years", "clipped"],
)
def test_a_store_says_where_its_pixels_are(cut):
    """The metadata is true after any change in memory, even if the raster came from a store with other metadata."""
    stale = xr.open_zarr(stored(layer()).store, consolidated=False, decode_coords="all", chunks=None)["lulc"]
    assert "spatial:transform" in stale.attrs
    for raster in (layer(), stale):
        group = stored(cut(raster))
        check(group)
        check_place(group, off=1e-11)
        west, south, east, north = group["lulc"].attrs["spatial:bbox"]
        assert west < group["x"][:].min() < group["x"][:].max() < east
        assert south < group["y"][:].min() < group["y"][:].max() < north


def test_a_store_says_what_it_is_and_from_where():
    dataset = conventions.describe(layer())
    assert dataset.attrs["title"] == "Land cover in the classes of GLAD GLCLUC2020"
    assert dataset.attrs["license"] == "CC-BY-4.0"
    assert "10.3389/frsen.2022.856903" in dataset.attrs["references"]
    assert dataset.attrs["source"].startswith("SYNTHETIC")
    meaning = dict(zip(dataset.lulc.attrs["flag_values"], dataset.lulc.attrs["flag_meanings"].split(), strict=True))
    assert meaning[27] == "tree_cover_terra_firma_5_m"


def test_a_raster_in_meters_says_so():
    raster = layer().rio.reproject("EPSG:32612")
    assert conventions.georeference(raster)["proj:code"] == "EPSG:32612"
    own = "+proj=laea +lat_0=40 +lon_0=-112 +units=m"
    assert "proj:wkt2" in conventions.georeference(raster.rio.reproject(own))


def test_the_cube_of_a_box_is_described(bucket):
    repo = datacube.build(bucket.icechunk("described"), years=(2000, 2005), box=BOX)
    group = zarr.open_group(repo.readonly_session("main").store, mode="r")
    check(group)
    assert group["lulc"].attrs["spatial:transform"] == [0.00025, 0, -112.5, 0, -0.00025, 41]
    assert group.attrs["source"].startswith("SYNTHETIC")
    opened = repository.read(repo)
    assert not [name for name in opened.attrs if "spatial" in name or "conventions" in name], "a cut would keep them"


def test_the_levels_of_the_world_are_described(bucket):
    repo = world.create(bucket.icechunk("levels"), (2020,))
    group = zarr.open_group(repo.readonly_session("main").store, mode="r")
    check(group)
    layout = group.attrs["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == sorted(group.group_keys()) == ["0", "1", "2", "3", "4"]
    for entry in layout:
        level = group[entry["asset"]]
        assert entry["spatial:shape"] == list(level["lulc"].shape[1:])
        assert entry["spatial:transform"] == level["lulc"].attrs["spatial:transform"]
        check_place(level)
    for finer, entry in itertools.pairwise(layout):
        assert entry["derived_from"] == finer["asset"]
        step = entry["transform"]["scale"]
        assert 4 <= step[0] == step[1] <= 8
        assert [n * s for n, s in zip(entry["spatial:shape"], step, strict=True)] == finer["spatial:shape"]
    assert group.attrs["title"] == conventions.ABOUT["title"]
    assert "source" not in group.attrs
    corner = tiles.Box(-112.5, 40.75, -112.25, 41)
    world.ingest(repo, [tiles.SAMPLE_TILE], (2020,), box=corner)
    source = zarr.open_group(repo.readonly_session("main").store, mode="r").attrs["source"]
    with rasterio.open(tiles.tile_path(tiles.SAMPLE_TILE, 2020)) as src:
        assert source == src.tags()["TIFFTAG_IMAGEDESCRIPTION"]


def test_gdal_reads_what_the_tiles_hold(tmp_path):
    """GDAL 3.12 takes CRS and transform from CF, and later versions take them from the conventions."""
    conventions.describe(layer(2020)).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    with rasterio.open(tiles.tile_path(tiles.SAMPLE_TILE, 2020)) as src:
        window = rasterio.windows.from_bounds(*BOX, src.transform).round_offsets().round_lengths()
        expected, transform = src.read(1, window=window), src.window_transform(window)
    with rasterio.open(f'ZARR:"{tmp_path / "cube.zarr"}":/lulc') as src:
        np.testing.assert_array_equal(src.read(1), expected)
        assert src.crs == "EPSG:4326"
        assert src.transform.almost_equals(transform, 1e-9)


# Other people's cubes, and other people's tools


@pytest.fixture(scope="module")
def public():
    """Yield a bucket that the public can read, and its address."""
    bucket, server = stores.counted_bucket()
    readers = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::*/counted/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [readers]})
    bucket.client().put_bucket_policy(Bucket=bucket.name, Policy=policy)
    yield bucket, f"{server.url}/{bucket.name}/{bucket.prefix}"
    server.close()


def like_glads_own(storage):
    """Write a cube at the root, with different names, no CRS and no attributes."""
    repo = icechunk.Repository.create(storage)
    raster = layer().drop_vars("spatial_ref").expand_dims(time=np.array(["2000-01-01"], "M8[ns]")).rename("lclu")
    raster.attrs, raster.encoding = {}, {"_FillValue": 255}
    session = repo.writable_session("main")
    to_icechunk(raster.to_dataset(), session)
    session.commit("Somebody else's")


@pytest.mark.parametrize("by", ["http", "s3"])
def test_a_public_cube_is_read_without_an_account(public, no_settings, monkeypatch, by):
    bucket, address = public
    datacube.build(bucket.icechunk(f"ours-{by}"), years=(2000,), box=BOX)
    like_glads_own(bucket.icechunk(f"theirs-{by}"))
    if by == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint_url)
        address = f"s3://{bucket.name}/{bucket.prefix}"
    for name in ("ours", "theirs"):
        cube = repository.read_public(f"{address}/{name}-{by}")
        assert (cube.dims, cube.dtype, cube.rio.crs) == (("year", "y", "x"), np.uint8, "EPSG:4326")
        np.testing.assert_array_equal(cube[0], layer())


def test_of_a_cube_with_levels_the_finest_is_read(public):
    bucket, address = public
    world.create(bucket.icechunk("world"), (2020,))
    assert repository.read_public(f"{address}/world").shape == (1, 560_000, 1_440_000)


def test_what_is_no_public_cube_is_told_in_one_sentence(public, no_settings):
    bucket, address = public
    session = icechunk.Repository.create(bucket.icechunk("air")).writable_session("main")
    to_icechunk(xr.Dataset({"air": ("time", np.zeros(3))}), session)
    session.commit("No map")
    with stores.counted_bucket()[1] as private:
        elsewhere = [
            "ftp://example.org/cube",
            "http://127.0.0.1:9/cube",
            f"{private.url}/workshop/counted/cube",
            "s3://",
        ]
        for where in (*elsewhere, f"{address}/nothing", f"{address}/air"):
            with pytest.raises(repository.CubeError, match="expected"):
                repository.read_public(where)


def readers():
    """Return lesson 09's table of readers: what each one reads, by name."""
    (lesson,) = (path for path in NOTEBOOKS if path.stem.startswith("09"))
    text = "\n".join(cell.source for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == "markdown")
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {name: dict(zip(rows[0][1:], row, strict=True)) for name, *row in rows[2:]}


def sharded(folder):
    """Write a layer with shards, and return the path."""
    encoding = {"lulc": {"chunks": (250, 250), "shards": (500, 500), "grid_mapping": "spatial_ref"}}
    conventions.describe(layer()).to_zarr(folder / "sharded.zarr", encoding=encoding, consolidated=False)
    return folder / "sharded.zarr"


def test_gdal_reads_what_the_lesson_says(tmp_path):
    version = ".".join(rasterio.__gdal_version__.split(".")[:2])
    (said,) = (row for name, row in readers().items() if name.startswith(f"GDAL {version} (rasterio"))
    levels = [layer().expand_dims(year=[2020]), layer()[::5, ::5].expand_dims(year=[2020])]
    store = zarr.storage.LocalStore(tmp_path / "levels.zarr")
    zarr.create_group(store, attributes=conventions.pyramid(levels))
    for k, level in enumerate(levels):
        conventions.describe(level).to_zarr(store, group=str(k), consolidated=False)
    with rasterio.open(f'ZARR:"{tmp_path / "levels.zarr"}":/0/lulc') as src:
        assert said["Zarr v3"] == ("yes" if np.array_equal(src.read(1), layer()) else "no")
        assert said["levels"] == ("yes" if src.overviews(1) else "no")
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    for column, address in {
        "shards": f'ZARR:"{sharded(tmp_path)}":/lulc',
        "Icechunk": f"ICECHUNK:{tmp_path / 'repo'}?branch=main",
    }.items():
        with {"yes": nullcontext(), "no": pytest.raises(rasterio.errors.RasterioIOError)}[said[column]]:
            rasterio.open(address).close()


def test_xarray_and_zarr_read_what_the_lesson_says(tmp_path):
    ((name, said),) = ((name, row) for name, row in readers().items() if name.startswith("xarray"))
    versions = re.findall(r"\d[\d.]*", name)
    assert xr.__version__.startswith(f"{versions[0]}.") and zarr.__version__.startswith(f"{versions[1]}."), name
    assert said["shards"] == said["Zarr v3"] == said["Icechunk"] == "yes"
    np.testing.assert_array_equal(xr.open_zarr(sharded(tmp_path), consolidated=False)["lulc"], layer())
