"""What stores say of themselves: whether it is valid, true, and read by others as they read the tiles."""

import json

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
import zarr_cm

from workshop import conventions, datacube, legend, repository, tiles, world

BOX = tiles.Box(-112.5, 40.875, -112.25, 41.0)


def layer(year=2000, box=BOX):
    return tiles.select_box(tiles.open_tile(tiles.SAMPLE_TILE, year), box)


def check(group):
    """Check the attributes of a group or array, and of all that is in it, against the conventions and CF."""
    document = json.loads(json.dumps({"zarr_format": 3, "attributes": dict(group.attrs)}))
    if isinstance(group, zarr.Group):
        document["node_type"] = "group"
        declared = {entry["uuid"] for entry in group.attrs["zarr_conventions"]}
        assert {zarr_cm.proj.UUID, zarr_cm.spatial.UUID} <= declared
        for module in (zarr_cm.proj, zarr_cm.spatial, *([zarr_cm.multiscales] if "multiscales" in group.attrs else [])):
            assert module.UUID in declared
            module.validate_group_metadata(document)
        for _, member in group.members():
            if isinstance(member, zarr.Group) or member.ndim > 1:
                check(member)
        return
    document |= {"node_type": "array", "shape": list(group.shape), "dimension_names": group.metadata.dimension_names}
    for module in (zarr_cm.proj, zarr_cm.spatial):
        module.validate_array_metadata(document)
    assert group.attrs["spatial:shape"] == list(group.shape[-2:])
    if group.dtype == np.uint8:
        assert group.attrs["flag_values"] == legend.table().index.to_list()
        assert len(group.attrs["flag_meanings"].split()) == len(group.attrs["flag_colors"].split()) == 111


def place(group, name="lulc"):
    """Return where an array lies: by the convention, by CF's transform, and by its coordinates."""
    y, x = group["y"][:], group["x"][:]
    right, down = (x[-1] - x[0]) / (len(x) - 1), (y[-1] - y[0]) / (len(y) - 1)
    numbers = [float(number) for number in group["spatial_ref"].attrs["GeoTransform"].split()]
    return (
        group[name].attrs["spatial:transform"],
        [numbers[1], numbers[2], numbers[0], numbers[4], numbers[5], numbers[3]],
        [right, 0, x[0] - right / 2, 0, down, y[0] - down / 2],
    )


@pytest.mark.parametrize(
    "cut",
    [
        lambda raster: raster,
        lambda raster: raster[100:200, 40:70],
        lambda raster: raster[::-1, ::4],
        lambda raster: raster.sortby("y"),
        lambda raster: raster.expand_dims(year=[2000]),
        lambda raster: raster.rio.clip_box(-112.45, 40.9, -112.4, 40.95),
    ],
    ids=["whole", "sliced", "thinned and turned", "sorted", "with years", "clipped"],
)
@pytest.mark.parametrize("stale", [False, True], ids=["fresh", "from a store"])
def test_a_store_says_where_its_pixels_are(cut, stale):
    """Whatever was done to the raster in memory, even if it came from a store that told of another place."""
    raster, memory = layer(), zarr.storage.MemoryStore()
    if stale:
        conventions.describe(raster).to_zarr(memory, consolidated=False)
        raster = xr.open_zarr(memory, consolidated=False, decode_coords="all", chunks=None)["lulc"]
        assert "spatial:transform" in raster.attrs
        memory = zarr.storage.MemoryStore()
    conventions.describe(cut(raster)).to_zarr(memory, consolidated=False)
    group = zarr.open_group(memory, mode="r")
    check(group)
    by_convention, by_cf, by_coordinates = place(group)
    np.testing.assert_allclose(by_convention, by_coordinates, rtol=0, atol=1e-11)
    np.testing.assert_allclose(by_cf, by_coordinates, rtol=0, atol=1e-11)
    west, south, east, north = group["lulc"].attrs["spatial:bbox"]
    assert west < group["x"][:].min() < group["x"][:].max() < east
    assert south < group["y"][:].min() < group["y"][:].max() < north


def test_a_store_says_what_it_is_and_from_where():
    dataset = conventions.describe(layer())
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
        for found in place(level):
            np.testing.assert_allclose(entry["spatial:transform"], found, rtol=0, atol=1e-9)
    for finer, entry in zip(layout, layout[1:], strict=False):
        assert entry["derived_from"] == finer["asset"]
        step = entry["transform"]["scale"]
        assert 4 <= step[0] == step[1] <= 8
        assert [n * s for n, s in zip(entry["spatial:shape"], step, strict=True)] == finer["spatial:shape"]
    assert "source" not in group.attrs
    corner = tiles.Box(-112.5, 40.75, -112.25, 41)
    world.ingest(repo, [tiles.SAMPLE_TILE], (2020,), box=corner)
    source = zarr.open_group(repo.readonly_session("main").store, mode="r").attrs["source"]
    with rasterio.open(tiles.tile_path(tiles.SAMPLE_TILE, 2020)) as src:
        assert source == src.tags()["TIFFTAG_IMAGEDESCRIPTION"]


def test_gdal_reads_what_the_tiles_hold(tmp_path):
    """CRS and place come from CF for GDAL 3.12, and from the conventions for later ones."""
    conventions.describe(layer(2020)).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    with rasterio.open(tiles.tile_path(tiles.SAMPLE_TILE, 2020)) as src:
        window = rasterio.windows.from_bounds(*BOX, src.transform).round_offsets().round_lengths()
        expected, transform = src.read(1, window=window), src.window_transform(window)
    with rasterio.open(f'ZARR:"{tmp_path / "cube.zarr"}":/lulc') as src:
        np.testing.assert_array_equal(src.read(1), expected)
        assert src.crs == "EPSG:4326"
        assert src.transform.almost_equals(transform, 1e-9)
