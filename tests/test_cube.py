"""The cube: what it refuses, and what it survives: kills, races, and a store that comes and goes."""

import contextlib
import dataclasses
import multiprocessing
import random
import socket
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import icechunk
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from moto.server import ThreadedMotoServer
from rasterio.windows import from_bounds

from workshop import cube, stores, tiles

BOX = tiles.Box(-112.5, 40.875, -112.25, 41.0)  # 500 x 1000 pixels, two chunks a year
KILLS = 50
# Icechunk's threads do not survive a fork, so the process that is forked must not have imported it.
PROCESSES = multiprocessing.get_context("forkserver" if hasattr(socket, "AF_UNIX") else "spawn")
if PROCESSES.get_start_method() == "forkserver":
    PROCESSES.set_forkserver_preload(["pytest", "workshop.tiles", "xarray", "zarr", "obstore", "boto3"])


def layer(year, box=BOX):
    return tiles.select_box(tiles.open_tile(tiles.SAMPLE_TILE, year), box)


def source(year, box=BOX):
    """Return the pixels of a tile, by a path that shares nothing with the cube."""
    with rasterio.open(tiles.tile_path(tiles.SAMPLE_TILE, year)) as src:
        return src.read(1, window=from_bounds(*box, src.transform).round_offsets().round_lengths())


def history(repo, branch="main"):
    return [snapshot.id for snapshot in repo.ancestry(branch=branch)]


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GLAD_BUCKET", raising=False)
        yield stores.open_bucket()


@pytest.fixture(scope="module")
def shared(bucket):
    """Return a cube of 2000 and 2005 that no test may change."""
    return cube.build(bucket.icechunk("shared"), years=(2000, 2005), box=BOX)


@pytest.fixture
def repo(bucket, request):
    """Return a cube of 2000 and 2005 of a test's own."""
    return cube.build(bucket.icechunk(f"own/{request.node.name}"), years=(2000, 2005), box=BOX)


# What it holds


def test_a_cube_holds_what_the_tiles_hold(bucket):
    repo = cube.build(bucket.icechunk("whole"))
    found = cube.read(repo)
    assert (found.dims, found.shape, found.dtype) == (("year", "y", "x"), (5, 2000, 4000), np.uint8)
    assert found.rio.crs == "EPSG:4326"
    transform = [float(number) for number in found.spatial_ref.attrs["GeoTransform"].split()]
    np.testing.assert_allclose(transform, [-112.5, 0.00025, 0, 41, 0, -0.00025], rtol=0, atol=1e-12)
    assert found.encoding["chunks"] == (1, 500, 500) and found.encoding["fill_value"] == 255
    box = tiles.TEACHING_WINDOW
    np.testing.assert_allclose(found.y, box.north - (np.arange(2000) + 0.5) * tiles.RESOLUTION, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.x, box.west + (np.arange(4000) + 0.5) * tiles.RESOLUTION, rtol=0, atol=1e-9)
    for year in tiles.YEARS:
        np.testing.assert_array_equal(found.sel(year=year), source(year, box))
    # and as somebody reads it who does not know of us
    plain = zarr.open_group(repo.readonly_session("main").store, mode="r")
    np.testing.assert_array_equal(plain["year"][:], tiles.YEARS)
    np.testing.assert_array_equal(plain["lulc"][4], source(2020, box))


def test_a_commit_says_where_its_pixels_are_from(shared):
    newest = next(iter(shared.ancestry(branch="main")))
    assert newest.message == "Append 2005"
    assert newest.metadata["source"] == "2005/50N_120W.tif"
    assert newest.metadata["sha256"] == cube.digest(source(2005))
    assert newest.metadata["year"] == 2005


def test_what_was_never_written_is_no_data(bucket):
    repo = cube.create(bucket.icechunk("sparse"), layer(2000))
    with repo.transaction("main", message="a year, no pixels") as store:
        zarr.open_array(store, path="lulc", mode="r+").resize((1, 500, 1000))
    assert (zarr.open_array(repo.readonly_session("main").store, path="lulc", mode="r")[:] == 255).all()


def test_build_goes_on_where_it_stopped_and_then_changes_nothing(bucket):
    storage = bucket.icechunk("resumed")
    icechunk.Repository.create(storage)  # what a writer killed at the very start leaves behind
    cube.build(storage, years=(2000,), box=BOX)
    repo = cube.build(storage, box=BOX)
    before = history(repo)
    assert len(before) == 7
    assert history(cube.build(storage, box=BOX)) == before
    np.testing.assert_array_equal(cube.read(repo), [source(year) for year in tiles.YEARS])


def test_a_region_changes_its_pixels_and_nothing_else(repo):
    patch = layer(2005)[100:300, 450:600] * 0 + 10
    before = cube.read(repo).load()
    base = repo.lookup_branch("main")
    snapshot = cube.write_region(repo, 2005, patch, message="Patch", metadata={"author": "me"})
    expected = before.values.copy()
    expected[1, 100:300, 450:600] = 10
    np.testing.assert_array_equal(cube.read(repo), expected)
    np.testing.assert_array_equal(cube.read(repo, snapshot_id=base), before)
    diff = repo.diff(from_snapshot_id=base, to_snapshot_id=snapshot)
    assert diff.updated_chunks == {"/lulc": [[1, 0, 0], [1, 0, 1]]}
    assert not (diff.updated_arrays or diff.new_arrays or diff.deleted_arrays)
    assert next(iter(repo.ancestry(branch="main"))).metadata["author"] == "me"


def test_one_pixel_is_a_region(repo):
    cube.write_region(repo, 2000, layer(2000)[7:8, 9:10] * 0 + 250, message="One pixel")
    assert int(cube.read(repo)[0, 7, 9]) == 250
    assert int((cube.read(repo)[0] != source(2000)).sum()) == 1


def test_a_branch_of_its_own(repo):
    tip = repo.lookup_branch("main")
    repo.create_branch("review", tip)
    cube.write_region(repo, 2000, layer(2000)[:5, :5] * 0 + 244, message="Try", branch="review")
    cube.append_year(repo, 2010, layer(2010), branch="review")
    assert repo.lookup_branch("main") == tip
    assert cube.read(repo).sizes["year"] == 2
    assert cube.read(repo, branch="review").sizes["year"] == 3


# What it refuses: one clear error, and the history as it was


def shifted(array, **by):
    return array.assign_coords({axis: array[axis] + step for axis, step in by.items()})


def other_class(array):
    changed = array.copy()
    changed[0, 0] = 60
    return changed


def holed(array):
    x = array.x.values.copy()
    x[4] = np.nan
    return array.assign_coords(x=x)


def refusals():
    def append(year, make):
        return lambda repo: cube.append_year(repo, year, make(layer(min(2020, max(2000, year)))))

    def region(year, make, message="x"):
        return lambda repo: cube.write_region(repo, year, make(layer(2005)), message=message)

    def same(array):
        return array

    yield "year twice", append(2005, same), "has this year already"
    yield "year before the last", lambda r: cube.append_year(r, 2003, layer(2000)), "expected a year after 2005"
    yield "year as text", lambda r: cube.append_year(r, "2010", layer(2010)), "expected the year as an integer"
    yield "year as float", lambda r: cube.append_year(r, 2010.5, layer(2010)), "expected the year as an integer"
    yield "size", append(2010, lambda a: a[:-1]), r"expected 500 x 1000 pixels \(y, x\), found 499 x 1000"
    yield "whole tile", lambda r: cube.append_year(r, 2010, tiles.open_tile("50N_120W", 2010)), "found 40000 x 40000"
    yield "half a pixel", append(2010, lambda a: shifted(a, y=0.000125)), "off the cube's grid by up to 0.5 pixels"
    yield "a pixel north", append(2010, lambda a: shifted(a, y=0.00025)), "y from .* reaches outside the cube"
    yield "a pixel west", append(2010, lambda a: shifted(a, x=-0.00025)), "x from .* reaches outside the cube"
    yield "other resolution", append(2010, lambda a: a.assign_coords(x=a.x[0] + (a.x - a.x[0]) * 0.9)), "off the cube's"
    yield "upside down", append(2010, lambda a: a[::-1]), "y runs the wrong way"
    yield "mirrored", append(2010, lambda a: a[:, ::-1]), "x runs the wrong way"
    yield "no coordinates", append(2010, lambda a: a.drop_vars(["x", "y"])), "centres along y, found no such"
    yield "coordinates as text", append(2010, lambda a: a.assign_coords(x=a.x.astype(str))), "expected x as numbers"
    yield "coordinates not finite", append(2010, lambda a: shifted(a, y=np.nan)), "expected y as numbers, found .*nan"
    yield "year as truth", lambda r: cube.append_year(r, True, layer(2010)), "the year as an integer, found bool"
    yield "year beyond", lambda r: cube.append_year(r, 2**70, layer(2010)), "expected a year such as 2020"
    yield "float data", append(2010, lambda a: a.astype("float32")), "as uint8, found float32"
    yield "signed data", append(2010, lambda a: a.astype("int8")), "as uint8, found int8"
    yield "unknown class", append(2010, other_class), "values of the legend, found 60"
    yield "CRS", append(2010, lambda a: a.rio.write_crs("EPSG:3857")), "expected the CRS EPSG:4326, found EPSG:3857"
    yield "no CRS", append(2010, lambda a: a.drop_vars("spatial_ref")), "expected the CRS EPSG:4326, found None"
    yield "axes", append(2010, lambda a: a.T), r"dimensions \(y, x\), found \('x', 'y'\)"
    yield "band", append(2010, lambda a: a.expand_dims("band")), r"dimensions \(y, x\), found \('band', 'y', 'x'\)"
    yield "numpy", append(2010, lambda a: a.values), r"dimensions \(y, x\), found ndarray"
    for kind, metadata in {"list": ["me"], "array": {"n": np.arange(2)}, "key": {1: "a"}, "nan": {"a": np.nan}}.items():
        yield (
            f"metadata: {kind}",
            lambda r, m=metadata: cube.append_year(r, 2010, layer(2010), metadata=m),
            "expected metadata as a dictionary that JSON can hold",
        )
        yield (
            f"region: metadata: {kind}",
            lambda r, m=metadata: cube.write_region(r, 2000, layer(2000)[:5, :5], message="x", metadata=m),
            "expected metadata as a dictionary that JSON can hold",
        )
    yield "branch", lambda r: cube.append_year(r, 2010, layer(2010), branch="mian"), "ref not found `mian`"
    yield "region: year", region(2010, same), r"one of the cube's years \[2000, 2005\], found 2010"
    yield "region: year as truth", region(True, same), "the year as an integer, found bool"
    for side, by in {"west": {"x": -1}, "north": {"y": 1}, "east": {"x": 991}, "south": {"y": -491}}.items():
        step = {axis: pixels * tiles.RESOLUTION for axis, pixels in by.items()}
        yield (
            f"region: outside, {side}",
            region(2005, lambda a, step=step: shifted(a[:10, :10], **step)),
            f"{next(iter(by))} from .* reaches outside the cube",
        )
    yield "region: nothing", region(2005, lambda a: a[:0]), "at least one pixel along y, found none"
    yield "region: a gap in the coordinates", region(2005, lambda a: holed(a[:10, :10])), "expected x as numbers"
    yield "region: misaligned", region(2005, lambda a: shifted(a[5:10, 5:10], x=0.0001)), "off the cube's grid by"
    yield "region: gap", region(2005, lambda a: a[5:10, [5, 6, 8]]), "off the cube's grid by up to 1 pixels"
    yield "region: upside down", region(2005, lambda a: a[10:5:-1, :10]), "y runs the wrong way"
    yield "region: float", region(2005, lambda a: a.astype(float)), "as uint8, found float64"
    yield "region: unknown class", region(2005, other_class), "values of the legend, found 60"
    yield "region: CRS", region(2005, lambda a: a.rio.write_crs("EPSG:32612")), "found EPSG:32612"


@pytest.mark.parametrize(("attempt", "message"), [pytest.param(f, m, id=name) for name, f, m in refusals()])
def test_refused_and_nothing_changed(shared, attempt, message):
    before = history(shared)
    with pytest.raises(cube.CubeError, match=message):
        attempt(shared)
    assert history(shared) == before


def grids():
    yield "float", lambda a: a.astype(float), "as uint8, found float64"
    yield "axes", lambda a: a.T, r"dimensions \(y, x\)"
    yield "CRS", lambda a: a.drop_vars("spatial_ref"), "expected a CRS, found none"
    yield "no coordinates", lambda a: a.drop_vars("x"), "centres along x, found no such"
    yield "one row", lambda a: a[:1], "at least two pixels along y, found 1"
    yield "nothing", lambda a: a[:, :0], "at least one pixel along x"
    yield "not finite", lambda a: shifted(a, x=np.nan), "expected x as numbers"
    yield "uneven", lambda a: a[:, [0, 1, 5]], "evenly spaced pixels along x"
    yield "all at one place", lambda a: a.assign_coords(y=a.y * 0), "evenly spaced pixels along y"
    yield "scale", lambda a: a.assign_attrs(scale_factor=0.1), "the attribute scale_factor = 0.1"
    yield "mask", lambda a: a.assign_attrs(_FillValue=0), "the attribute _FillValue = 0"
    yield "looks like time", lambda a: a.assign_attrs(units="days since 2000-01-01"), "without scale or mask, found"
    yield "attribute", lambda a: a.assign_attrs(box=object()), "its attributes cannot be stored"


@pytest.mark.parametrize(("change", "message"), [pytest.param(f, m, id=name) for name, f, m in grids()])
def test_a_grid_that_is_refused_leaves_nothing(bucket, request, change, message):
    storage = bucket.icechunk(f"refused/{request.node.name}")
    with pytest.raises(cube.CubeError, match=message):
        cube.create(storage, change(layer(2000)))
    assert not storage.list_objects_metadata()


@pytest.mark.parametrize("chunk", [0, -5, 2.5, True, "500"])
def test_a_chunk_that_is_refused(bucket, chunk):
    storage = bucket.icechunk("refused/chunk")
    with pytest.raises(cube.CubeError, match="expected the chunk as a number of pixels"):
        cube.create(storage, layer(2000), chunk=chunk)
    assert not storage.list_objects_metadata()


def test_attributes_of_rioxarray_do_no_harm_and_others_stay(bucket):
    like = layer(2000).assign_attrs(
        scale_factor=1.0, add_offset=0.0, _FillValue=255, grid_mapping="elsewhere", source="GLAD", AREA_OR_POINT="Area"
    )
    repo = cube.create(bucket.icechunk("attributes"), like, chunk=100)
    cube.append_year(repo, np.int32(2000), like.assign_attrs(source="another"))
    found = cube.read(repo)
    assert found.dtype == np.uint8 and found.rio.crs == "EPSG:4326"
    np.testing.assert_array_equal(found[0], source(2000))
    assert found.attrs["source"] == "GLAD" and "scale_factor" not in found.attrs
    assert found.encoding["chunks"] == (1, 100, 100)


def test_an_append_brings_nothing_but_pixels(repo):
    """Further coordinates of a layer would become arrays of the cube."""
    extra = layer(2010).assign_coords(band=1, when=("y", np.arange(500)))
    cube.append_year(repo, 2010, extra)
    group = zarr.open_group(repo.readonly_session("main").store, mode="r")
    assert set(group.array_keys()) == {"lulc", "year", "y", "x", "spatial_ref"}
    np.testing.assert_array_equal(cube.read(repo)[2], source(2010))


def test_what_the_commit_says_of_its_pixels_cannot_be_overruled(repo):
    cube.append_year(repo, 2010, layer(2010), metadata={"year": 1999, "sha256": "none", "author": "me"})
    newest = next(iter(repo.ancestry(branch="main")))
    assert newest.metadata == {"year": 2010, "sha256": cube.digest(source(2010)), "author": "me"}


def test_the_cube_of_another_box_is_not_built_upon(bucket, shared):
    before = history(shared)
    others = {
        "expected the cube of .*found a larger one": BOX._replace(west=-112.375),
        "reaches outside the cube": BOX._replace(west=-112.625),
    }
    for message, box in others.items():
        with pytest.raises(cube.CubeError, match=message):
            cube.build(bucket.icechunk("shared"), years=(2000, 2005), box=box)
    assert history(shared) == before


@pytest.mark.parametrize("years", [(), (2005, 2000), (2000, 2000), ("2000",), (True,)])
def test_years_that_are_refused(bucket, years):
    storage = bucket.icechunk("refused/years")
    with pytest.raises(cube.CubeError, match="building the cube: expected"):
        cube.build(storage, years=years, box=BOX)
    assert not storage.list_objects_metadata()


def test_a_cube_is_not_made_twice(bucket, shared):
    with pytest.raises(cube.CubeError, match="expected an empty repository, found one with data"):
        cube.create(bucket.icechunk("shared"), layer(2000))


def test_no_repository(bucket):
    with pytest.raises(cube.CubeError, match="found no repository there"):
        cube.open_repository(bucket.icechunk("nowhere"))


def test_an_empty_repository_is_not_a_cube(bucket):
    repo = icechunk.Repository.create(bucket.icechunk("empty"))
    with pytest.raises(cube.CubeError, match="found an empty repository"):
        cube.read(repo)


def test_another_repository_is_not_a_cube(bucket):
    repo = icechunk.Repository.create(bucket.icechunk("other"))
    with repo.transaction("main", message="something else") as store:
        xr.Dataset({"t": ("time", [1, 2])}).to_zarr(store, consolidated=False)
    with pytest.raises(cube.CubeError, match=r"expected a cube with the array lulc .* found {'time': 2}"):
        cube.append_year(repo, 2000, layer(2000))


def damaged():
    """Yield other people's ideas of a cube, how they are encoded, and what is said to them."""
    good = cube.read(cube.create(icechunk.in_memory_storage(), layer(2000))).to_dataset()
    half = {"lulc": {"dtype": "u1", "scale_factor": 0.5}}
    when = good.year.astype("datetime64[ns]")
    yield good.assign(lulc=good.lulc.astype("float32")), half, "without scale or mask, found float64"
    yield good.assign(lulc=good.lulc.astype("int16")), None, "without scale or mask, found int16"
    yield good.transpose("y", "x", "year"), None, r"expected a cube with the array lulc \(year, y, x\)"
    yield good.drop_vars("y"), None, "coordinates for each"
    yield good.drop_vars("year"), None, "coordinates for each"
    yield good.assign_coords(year=when), None, "years as integers"
    yield good.drop_vars("spatial_ref"), None, "a CRS, found none"
    yield good.assign(quality=good.lulc), None, "the only one with years"
    yield None, None, "found an array at the root"


@pytest.mark.parametrize("number", range(9))
def test_something_else_is_not_a_cube(bucket, number):
    data, encoding, message = list(damaged())[number]
    storage = bucket.icechunk(f"damaged/{number}")
    repo = icechunk.Repository.create(storage)
    with repo.transaction("main", message="theirs") as store:
        if data is None:
            zarr.create_array(store, shape=(3,), dtype="u1")
        else:
            data.to_zarr(store, encoding=encoding, consolidated=False)
    before = history(repo)
    with pytest.raises(cube.CubeError, match=message):
        cube.read(repo)
    with pytest.raises(cube.CubeError, match=message):
        cube.append_year(repo, 2000, layer(2000))
    with pytest.raises(cube.CubeError, match=message):
        cube.write_region(repo, 2000, layer(2000), message="x")
    with pytest.raises(cube.CubeError, match="found one with data"):
        cube.create(storage, layer(2000))
    assert history(repo) == before


def test_a_place_with_other_things(bucket):
    bucket.client().put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/taken/notes.txt", Body=b"mine")
    with pytest.raises(cube.CubeError, match=r"expected an empty place, found 1 objects such as notes\.txt"):
        cube.create(bucket.icechunk("taken"), layer(2000))
    assert [thing.key for thing in bucket.icechunk("taken").list_objects_metadata()] == ["notes.txt"]


@pytest.mark.parametrize(
    "version",
    [{"branch": "main", "tag": "v1"}, {"snapshot": "x"}, {"branch": "main", "as_of": "2020"}, {"snapshot_id": 3}],
)
def test_a_version_that_cannot_be(shared, version):
    with pytest.raises(cube.CubeError, match="expected one of branch, tag and snapshot_id"):
        cube.read(shared, **version)


def test_no_such_version(shared):
    with pytest.raises(cube.CubeError, match="ref not found `v9`; nothing was read"):
        cube.read(shared, tag="v9")


# Stores that fail


def test_a_missing_bucket(bucket):
    storage = dataclasses.replace(bucket, name="nobodys").icechunk("cube")
    with pytest.raises(cube.CubeError, match="no such bucket"):
        cube.open_repository(storage)
    with pytest.raises(cube.CubeError, match=r"NoSuchBucket.*nothing was committed"):
        cube.create(storage, layer(2000))


def test_nobody_answers(bucket):
    storage = dataclasses.replace(bucket, endpoint_url="http://127.0.0.1:9").icechunk("cube")
    with pytest.raises(cube.CubeError, match="the store does not answer or refuses"):
        cube.open_repository(storage)


def test_wrong_credentials(monkeypatch):
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        bucket = stores.Bucket("mine", "me", "us-east-1", f"http://{host}:{port}", "key", "secret")
        bucket.client().create_bucket(Bucket="mine")
        repo = cube.build(bucket.icechunk("cube"), years=(2000,), box=BOX)
        before = history(repo)
        with monkeypatch.context() as patch:
            # from here on the server asks who we are, and knows nobody
            patch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
            with pytest.raises(cube.CubeError, match=r"refuses .*InvalidAccessKeyId.*credentials"):
                cube.open_repository(bucket.icechunk("cube"))
            with pytest.raises(cube.CubeError, match=r"refuses .*InvalidAccessKeyId.*credentials"):
                cube.append_year(repo, 2005, layer(2005))
        assert history(repo) == before
    finally:
        server.stop()


class CutLine:
    """Forwards connections to a port on loopback until a number of PUT requests has passed, then nothing."""

    def __init__(self, port, puts):
        self.target, self.left, self.open = ("127.0.0.1", port), puts, True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets, self.deaf = [], set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            far = socket.create_connection(self.target)
            self.sockets += [near, far]
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source, sink, count):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if count and data.startswith(b"PUT "):
                    self.left -= 1
                    if self.left == 0:
                        self.deaf.add(source)
                if sink in self.deaf:
                    break  # the request that ends it still arrives; its answer does not
                sink.sendall(data)
                if source in self.deaf:
                    self.cut()
        for end in (source, sink):  # a close alone does not wake the thread that reads from it
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut(self):
        self.open = False
        for end in self.sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.cut()
        self.listener.close()


# An append here is eight PUT requests: two chunks, manifests, transaction log, snapshot, backup, the branch itself.
@pytest.mark.parametrize("puts", range(1, 10))
def test_a_store_that_vanishes_midway(bucket, puts):
    path = f"vanishing/{puts}"
    repo = cube.build(bucket.icechunk(path), years=(2000,), box=BOX)
    before = history(repo)
    line = CutLine(int(bucket.endpoint_url.rsplit(":", 1)[1]), puts)
    try:
        behind = dataclasses.replace(bucket, endpoint_url=f"http://127.0.0.1:{line.port}")
        far = cube.open_repository(behind.icechunk(path))
        if puts < 9:
            with pytest.raises(cube.CubeError, match="the store does not answer or refuses"):
                cube.append_year(far, 2005, layer(2005))
        else:
            cube.append_year(far, 2005, layer(2005))
    finally:
        line.close()
    arrived = history(repo) != before
    if arrived:  # whole, or not at all
        assert history(repo)[1:] == before
    assert puts >= 8 or not arrived
    np.testing.assert_array_equal(cube.read(repo), [source(y) for y in (2000, 2005)[: 1 + arrived]])
    cube.build(bucket.icechunk(path), box=BOX)
    np.testing.assert_array_equal(cube.read(repo), [source(year) for year in tiles.YEARS])


@pytest.mark.parametrize("puts", range(1, 4))
def test_a_store_that_vanishes_while_the_repository_is_made(bucket, puts):
    """Icechunk makes one in three PUT requests, and refuses a place where it finds what is left of an attempt."""
    path = f"unborn/{puts}"
    line = CutLine(int(bucket.endpoint_url.rsplit(":", 1)[1]), puts)
    try:
        behind = dataclasses.replace(bucket, endpoint_url=f"http://127.0.0.1:{line.port}")
        with pytest.raises(cube.CubeError, match="the store does not answer or refuses"):
            cube.create(behind.icechunk(path), layer(2000))
    finally:
        line.close()
    assert bucket.icechunk(path).list_objects_metadata()
    assert icechunk.Repository.exists(bucket.icechunk(path)) == (puts == 3)
    repo = cube.build(bucket.icechunk(path), years=(2000,), box=BOX)
    np.testing.assert_array_equal(cube.read(repo), [source(2000)])


def test_two_who_make_it_at_once(bucket, monkeypatch):
    storage, other = bucket.icechunk("twins"), []

    def overtaken(*args, **kwargs):
        other.append(icechunk.Repository.create(storage))
        return icechunk.Repository.create(storage)

    monkeypatch.setattr(icechunk.Repository, "open_or_create", overtaken)
    repo = cube.create(storage, layer(2000))
    assert next(iter(repo.ancestry(branch="main"))).message == "Create the cube"
    assert history(repo) == history(other[0])


class LostAnswer(CutLine):
    """Swallows the answer to one PUT request and goes on."""

    def cut(self):
        for end in self.sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("work", ["append", "region"])
def test_a_commit_whose_answer_is_lost_is_not_somebody_elses(repo, bucket, request, work):
    """Icechunk asks again and recognizes its own object; without that, our commit would look like a conflict."""
    before = history(repo)
    # The last PUT moves the branch: the eighth of an append, the sixth of a region in one chunk.
    line = LostAnswer(int(bucket.endpoint_url.rsplit(":", 1)[1]), {"append": 8, "region": 6}[work])
    try:
        behind = dataclasses.replace(bucket, endpoint_url=f"http://127.0.0.1:{line.port}")
        far = cube.open_repository(behind.icechunk(f"own/{request.node.name}"))
        if work == "append":
            made = cube.append_year(far, 2010, layer(2010))
        else:
            made = cube.write_region(far, 2000, layer(2000)[:10, :10] * 0 + 3, message="ours")
    finally:
        line.close()
    assert line.left <= 0
    assert history(repo) == [made, *before]


# Kills


def build_until_killed(bucket, path, started):
    started.set()
    cube.build(bucket.icechunk(path), box=BOX)


def test_a_killed_writer_leaves_a_whole_cube(bucket):
    """Kill writers at random moments; after each, main must be a commit that was meant, equal to its tiles."""
    expected = {year: source(year) for year in tiles.YEARS}
    chance = random.Random(3)
    kills, begun_years, cubes = 0, set(), 0
    duration = 0.0  # of a whole build; measured first, so that kills fall in all parts of the work
    while kills < KILLS:
        path = f"killed/{cubes}"
        cubes += 1
        finished, compared = False, set()
        while not finished:
            started = PROCESSES.Event()
            writer = PROCESSES.Process(target=build_until_killed, args=(bucket, path, started))
            writer.start()
            assert started.wait(300)
            begin = time.monotonic()
            writer.join(chance.uniform(0, duration) if duration else 60)
            finished = writer.exitcode is not None
            writer.kill()
            writer.join()
            if finished:
                assert writer.exitcode == 0
                duration = duration or time.monotonic() - begin
            else:
                kills += 1
                begun_years.add(whole_years(bucket, path, expected, compared))
        # the finished cube once more from the start, should a kill have spoilt what an earlier one had left whole
        assert whole_years(bucket, path, expected, set()) == len(tiles.YEARS)
    assert begun_years >= {0, 2, 4}, "the kills did not fall in all parts of the work"


def whole_years(bucket, path, expected, compared):
    """Return how many years a cube holds, after comparing those snapshots with the tiles that were not compared yet."""
    storage = bucket.icechunk(path)
    if not icechunk.Repository.exists(storage):
        return 0
    repo = icechunk.Repository.open(storage)
    snapshots = list(repo.ancestry(branch="main"))
    messages = [snapshot.message for snapshot in reversed(snapshots)]
    assert (
        messages
        == ["Repository initialized", "Create the cube", *(f"Append {y}" for y in tiles.YEARS)][: len(messages)]
    )
    for count, snapshot in enumerate(reversed(snapshots[:-2])):
        if snapshot.id in compared:
            continue
        group = zarr.open_group(repo.readonly_session(snapshot_id=snapshot.id).store, mode="r")
        years = tiles.YEARS[: count + 1]
        np.testing.assert_array_equal(group["year"][:], years)
        assert group["lulc"].shape == (len(years), 500, 1000)
        np.testing.assert_array_equal(group["lulc"][-1], expected[years[-1]])
        compared.add(snapshot.id)
    return max(0, len(snapshots) - 2)


# Races

WRITERS, COMMITS_EACH = 8, 13
WIDE = tiles.Box(-112.5, 40.75, -112.0, 41.0)  # 1000 x 2000 pixels, eight chunks a year


def own_square(writer, k):
    """Return rows and columns: two writers share a band of rows, and each square touches a neighbour's chunk."""
    return slice(120 * writer, 120 * writer + 120), slice(150 * k, 150 * k + 150)


def write_own_regions(bucket, path, writer):
    """Write a row of rectangles, one commit each."""
    repo = cube.open_repository(bucket.icechunk(path))
    like = layer(2000, WIDE)
    said = []
    for k in range(COMMITS_EACH):
        patch = like[own_square(writer, k)]
        patch = patch.copy(data=np.full(patch.shape, 2 + writer, np.uint8))
        said.append(cube.write_region(repo, 2000, patch, message=f"writer {writer}, square {k}"))
    return said


def test_eight_writers_and_a_hundred_commits_none_lost(bucket):
    repo = cube.build(bucket.icechunk("raced"), years=(2000, 2005), box=WIDE)
    before = history(repo)
    expected = np.stack([source(2000, WIDE), source(2005, WIDE)])
    for writer, k in product(range(WRITERS), range(COMMITS_EACH)):
        expected[0][own_square(writer, k)] = 2 + writer
    with ProcessPoolExecutor(WRITERS, mp_context=PROCESSES) as pool:
        jobs = [pool.submit(write_own_regions, bucket, "raced", writer) for writer in range(WRITERS)]
        said = [snapshot for job in jobs for snapshot in job.result()]
    assert len(said) == WRITERS * COMMITS_EACH >= 100
    assert history(repo)[len(said) :] == before and set(history(repo)[: len(said)]) == set(said)
    np.testing.assert_array_equal(cube.read(repo), expected)
    # each commit changed its rectangle and nothing else
    for snapshot in list(repo.ancestry(branch="main"))[: len(said)]:
        now, parent = (cube.read(repo, snapshot_id=i)[0].values for i in (snapshot.id, snapshot.parent_id))
        writer, k = (int(word) for word in snapshot.message.removeprefix("writer ").split(", square "))
        own = np.zeros(now.shape, bool)
        own[own_square(writer, k)] = True
        assert (now[own] == 2 + writer).all()
        assert (now == parent)[~own].all()


def overtake(monkeypatch, first):
    """Let somebody else commit between our writing and our commit, once."""
    plain, done = icechunk.Session.commit, []

    def commit(session, *args, **kwargs):
        if not done:
            done.append(True)
            first()
        return plain(session, *args, **kwargs)

    monkeypatch.setattr(icechunk.Session, "commit", commit)


def test_edits_of_other_chunks_are_rebased_not_written_again(repo, bucket, request, monkeypatch):
    def chunks():
        return len(bucket.icechunk(f"own/{request.node.name}").list_objects_metadata(prefix="chunks"))

    before = chunks()
    west, east = layer(2000)[:10, :10] * 0 + 3, layer(2000)[:10, -10:] * 0 + 4
    overtake(monkeypatch, lambda: cube.write_region(repo, 2000, west, message="theirs"))
    cube.write_region(repo, 2000, east, message="ours")
    assert chunks() == before + 2
    found = cube.read(repo)[0].values
    assert (found[:10, :10] == 3).all() and (found[:10, -10:] == 4).all()


def test_two_edits_of_one_chunk_both_survive(repo, monkeypatch):
    a, b = layer(2000)[:10, :10] * 0 + 3, layer(2000)[20:30, 20:30] * 0 + 4
    overtake(monkeypatch, lambda: cube.write_region(repo, 2000, a, message="theirs"))
    cube.write_region(repo, 2000, b, message="ours")
    found = cube.read(repo)[0].values
    assert (found[:10, :10] == 3).all() and (found[20:30, 20:30] == 4).all()
    assert int((found != source(2000)).sum()) <= 200
    assert [s.message for s in repo.ancestry(branch="main")][:2] == ["ours", "theirs"]


def test_two_edits_of_one_pixel_are_refused(repo, monkeypatch):
    a, b = layer(2000)[:10, :10] * 0 + 3, layer(2000)[9:20, 9:20] * 0 + 4
    overtake(monkeypatch, lambda: cube.write_region(repo, 2000, a, message="theirs"))
    with pytest.raises(cube.CubeError, match="somebody else committed other values for these pixels"):
        cube.write_region(repo, 2000, b, message="ours")
    assert next(iter(repo.ancestry(branch="main"))).message == "theirs"


def test_a_region_survives_an_append(repo, monkeypatch):
    overtake(monkeypatch, lambda: cube.append_year(repo, 2010, layer(2010)))
    cube.write_region(repo, 2000, layer(2000)[:10, :10] * 0 + 3, message="ours")
    assert cube.read(repo).year.values.tolist() == [2000, 2005, 2010]
    np.testing.assert_array_equal(cube.read(repo)[2], source(2010))
    assert (cube.read(repo)[0, :10, :10] == 3).all()


def test_an_append_survives_a_region(repo, monkeypatch):
    patch = layer(2000)[:10, :10] * 0 + 3
    overtake(monkeypatch, lambda: cube.write_region(repo, 2000, patch, message="theirs"))
    cube.append_year(repo, 2010, layer(2010))
    np.testing.assert_array_equal(cube.read(repo)[2], source(2010))
    assert (cube.read(repo)[0, :10, :10] == 3).all()


def test_a_year_that_somebody_else_appended_is_refused(repo, monkeypatch):
    overtake(monkeypatch, lambda: cube.append_year(repo, 2010, layer(2010)))
    with pytest.raises(cube.CubeError, match="has this year already"):
        cube.append_year(repo, 2010, layer(2015))
    np.testing.assert_array_equal(cube.read(repo), [source(year) for year in (2000, 2005, 2010)])


def test_a_later_year_overtakes(repo, monkeypatch):
    overtake(monkeypatch, lambda: cube.append_year(repo, 2015, layer(2015)))
    with pytest.raises(cube.CubeError, match="expected a year after 2015"):
        cube.append_year(repo, 2010, layer(2010))
    np.testing.assert_array_equal(cube.read(repo)[-1], source(2015))


def write_into(repo, path, values):
    """Change one of the cube's arrays behind our back."""
    with repo.transaction("main", message="theirs") as store:
        zarr.open_array(store, path=path, mode="r+")[:] = values


def in_another_crs(repo):
    """Change an attribute; no chunk is touched."""
    with repo.transaction("main", message="theirs") as store:
        array = zarr.open_array(store, path="spatial_ref", mode="r+")
        array.attrs.update(dict.fromkeys(("crs_wkt", "spatial_ref"), rasterio.CRS.from_epsg(3857).to_wkt()))


# What was checked before somebody else moved the branch does not hold after it. Icechunk sees no conflict in any of
# these: they changed other nodes or chunks than we did.
MEANWHILE = {
    "reset to before the year": (lambda r: r.reset_branch("main", history(r)[1]), "one of the cube's years .2000."),
    "reset to a cube without years": (lambda r: r.reset_branch("main", history(r)[2]), "one of the cube's years .."),
    "reset to nothing": (lambda r: r.reset_branch("main", history(r)[3]), "found an empty repository"),
    "years relabelled": (lambda r: write_into(r, "year", [2000, 2001]), "one of the cube's years .2000, 2001."),
    "moved by half a pixel": (lambda r: write_into(r, "x", layer(2000).x.values + 0.000125), "off the cube's grid"),
    "in another CRS": (in_another_crs, "expected the CRS EPSG:3857, found EPSG:4326"),
    "turned": (lambda r: write_into(r, "y", layer(2000).y.values[::-1]), "y runs the wrong way"),
}


@pytest.mark.parametrize(("theirs", "message"), MEANWHILE.values(), ids=MEANWHILE)
def test_a_region_is_checked_again_after_others_changed_the_cube(repo, monkeypatch, theirs, message):
    tips = []
    overtake(monkeypatch, lambda: (theirs(repo), tips.extend(history(repo))))
    with pytest.raises(cube.CubeError, match=message):
        cube.write_region(repo, 2005, layer(2005)[:10, :10] * 0 + 3, message="ours")
    assert tips and history(repo) == tips


@pytest.mark.parametrize("name", ["reset to nothing", "in another CRS", "moved by half a pixel", "turned"])
def test_an_append_is_checked_again_after_others_changed_the_cube(repo, monkeypatch, name):
    theirs, message = MEANWHILE[name]
    tips = []
    overtake(monkeypatch, lambda: (theirs(repo), tips.extend(history(repo))))
    with pytest.raises(cube.CubeError, match=message):
        cube.append_year(repo, 2010, layer(2010))
    assert tips and history(repo) == tips


def test_an_append_after_a_reset_holds_what_it_should(repo, monkeypatch):
    overtake(monkeypatch, lambda: repo.reset_branch("main", history(repo)[2]))
    cube.append_year(repo, 2010, layer(2010))
    assert cube.read(repo).year.values.tolist() == [2010]
    np.testing.assert_array_equal(cube.read(repo), [source(2010)])


def test_three_edits_of_one_chunk_all_survive(repo, monkeypatch):
    """Overtaken twice: what was there before is looked at anew each time."""
    squares = [layer(2000)[20 * k : 20 * k + 10, :10] * 0 + 3 + k for k in range(3)]
    plain, others = icechunk.Session.commit, squares[:2]

    def commit(session, message, *args, **kwargs):
        if message == "ours" and others:
            cube.write_region(repo, 2000, others.pop(), message="theirs")
        return plain(session, message, *args, **kwargs)

    monkeypatch.setattr(icechunk.Session, "commit", commit)
    cube.write_region(repo, 2000, squares[2], message="ours")
    found = cube.read(repo)[0].values
    assert all((found[20 * k : 20 * k + 10, :10] == 3 + k).all() for k in range(3))
    assert [s.message for s in repo.ancestry(branch="main")][:3] == ["ours", "theirs", "theirs"]


def test_it_gives_up_at_last(repo, monkeypatch):
    monkeypatch.setattr(cube, "ATTEMPTS", 3)

    def commit(*args, **kwargs):
        raise icechunk.ConflictError("a", "b")

    monkeypatch.setattr(icechunk.Session, "commit", commit)
    with pytest.raises(cube.CubeError, match="others committed first 3 times; nothing was committed"):
        cube.append_year(repo, 2010, layer(2010))
