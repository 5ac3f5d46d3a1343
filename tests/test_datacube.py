"""The cube: what it contains, what it refuses, and that it survives kills, races, and an unreliable store."""

import contextlib
import dataclasses
import multiprocessing
import socket
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import icechunk
import numpy as np
import pytest
import rasterio
import zarr
from conftest import history
from rasterio.windows import from_bounds

from workshop import datacube, repository, tiles

BOX = tiles.Box(-112.5, 40.875, -112.25, 41.0)  # 500 x 1000 pixels, two chunks a year
# Icechunk's threads do not survive a fork, so the process that is forked must not have imported it. All else that
# takes long is there already; nbformat's own imports take three seconds.
PROCESSES = multiprocessing.get_context("forkserver" if hasattr(socket, "AF_UNIX") else "spawn")
if PROCESSES.get_start_method() == "forkserver":
    PROCESSES.set_forkserver_preload(["nbval.plugin", "geopandas", "workshop.maps", "workshop.tiles", "zarr", "boto3"])


def layer(year, box=BOX):
    return tiles.select_box(tiles.open_tile(tiles.SAMPLE_TILE, year), box)


def source(year, box=BOX):
    """Return the pixels of a tile, read independently of the cube."""
    with rasterio.open(tiles.tile_path(tiles.SAMPLE_TILE, year)) as src:
        return src.read(1, window=from_bounds(*box, src.transform).round_offsets().round_lengths())


def version(repo, snapshot):
    """Return a version as Zarr reads it."""
    return zarr.open_group(repo.readonly_session(snapshot_id=snapshot).store, mode="r")


@pytest.fixture(scope="module")
def shared(bucket):
    """Return a cube of 2000 and 2005 that tests must not change."""
    return datacube.build(bucket.icechunk("shared"), years=(2000, 2005), box=BOX)


@pytest.fixture
def repo(bucket, request):
    """Return a cube of 2000 and 2005 for one test."""
    return datacube.build(bucket.icechunk(f"own/{request.node.name}"), years=(2000, 2005), box=BOX)


# What it holds


def test_a_cube_holds_what_the_tiles_hold(bucket):
    repo = datacube.build(bucket.icechunk("whole"))
    found = repository.read(repo)
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
    # and as a reader without this package opens it
    plain = zarr.open_group(repo.readonly_session("main").store, mode="r")
    np.testing.assert_array_equal(plain["year"][:], tiles.YEARS)
    np.testing.assert_array_equal(plain["lulc"][4], source(2020, box))


def test_a_commit_says_where_its_pixels_are_from(shared):
    newest = next(iter(shared.ancestry(branch="main")))
    assert newest.message == "Append 2005"
    assert newest.metadata["source"] == "2005/50N_120W.tif"
    assert newest.metadata["sha256"] == datacube.digest(source(2005))
    assert newest.metadata["year"] == 2005


def test_build_goes_on_where_it_stopped_and_then_changes_nothing(bucket):
    storage = bucket.icechunk("resumed")
    icechunk.Repository.create(storage)  # what a writer killed at the very start leaves behind
    datacube.build(storage, years=(2000,), box=BOX)
    repo = datacube.build(storage, box=BOX)
    before = history(repo)
    assert len(before) == 6
    assert history(datacube.build(storage, box=BOX)) == before
    np.testing.assert_array_equal(repository.read(repo), [source(year) for year in tiles.YEARS])


@pytest.mark.filterwarnings("ignore:saving variable None with floating point data")
def test_a_year_that_would_be_stored_as_another_one_is_not_committed(bucket):
    """Appended years are encoded like the existing ones, whose encoding here shifts years by a thousand."""
    repo = datacube.build(bucket.icechunk("encoded"), years=(2000,), box=BOX)
    session = repo.writable_session("main")
    zarr.open_array(session.store, path="year", mode="r+").attrs["add_offset"] = 1000
    session.commit("Encode")
    before = history(repo)
    with pytest.raises(repository.CubeError, match=r"2005\] afterwards, found \[2000, 1005\]"):
        datacube.build(bucket.icechunk("encoded"), years=(2005,), box=BOX)
    assert history(repo) == before


def test_a_region_changes_its_pixels_and_nothing_else(repo):
    patch = layer(2005)[100:300, 450:600] * 0 + 10
    before = repository.read(repo).load()
    base = repo.lookup_branch("main")
    snapshot = datacube.write_region(repo, 2005, patch, message="Patch", metadata={"author": "me"})
    expected = before.values.copy()
    expected[1, 100:300, 450:600] = 10
    np.testing.assert_array_equal(repository.read(repo), expected)
    np.testing.assert_array_equal(version(repo, base)["lulc"][:], before)
    diff = repo.diff(from_snapshot_id=base, to_snapshot_id=snapshot)
    assert diff.updated_chunks == {"/lulc": [[1, 0, 0], [1, 0, 1]]}
    assert not (diff.updated_arrays or diff.new_arrays or diff.deleted_arrays)
    assert next(iter(repo.ancestry(branch="main"))).metadata["author"] == "me"


def test_a_patch_that_is_off_by_rounding_takes_the_grid_of_the_cube(repo):
    """Other programs' arithmetic causes errors of a billionth of a pixel."""
    patch = shifted(layer(2000)[7:9, 9:12] * 0 + 250, x=1e-9, y=-1e-9)
    before = repository.read(repo)
    datacube.write_region(repo, 2000, patch, message="Rounded")
    found = repository.read(repo)
    assert found.x.equals(before.x) and found.y.equals(before.y)
    assert (found[0, 7:9, 9:12] == 250).all()


# What it refuses: one clear error, and the history as it was


def shifted(array, **by):
    return array.assign_coords({axis: array[axis] + step for axis, step in by.items()})


def other_class(array):
    changed = array.copy()
    changed[0, 0] = 60
    return changed


def at(axis, pixels):
    return lambda a: shifted(a[:10, :10], **{axis: pixels * tiles.RESOLUTION})


REFUSED = {
    "float": (2005, lambda a: a.astype(float), "as uint8, found float64"),
    "unknown class": (2005, other_class, r"values of the legend, found \[60\]"),
    "CRS": (2005, lambda a: a.rio.write_crs("EPSG:32612"), "expected the CRS EPSG:4326, found EPSG:32612"),
    "no CRS": (2005, lambda a: a.drop_vars("spatial_ref"), "expected the CRS EPSG:4326, found None"),
    "year": (2010, lambda a: a, r"one of the cube's years \[2000, 2005\], found 2010"),
    "west of it": (2005, at("x", -1), "pixel centers of the cube along x"),
    "south of it": (2005, at("y", -491), "pixel centers of the cube along y"),
    "half a pixel off": (2005, at("x", 0.5), "pixel centers of the cube along x"),
    "gap": (2005, lambda a: a[5:10, [5, 6, 8]], "non-contiguous"),
    "upside down": (2005, lambda a: a[10:5:-1, :10], "non-contiguous"),
    "not a number": (2005, at("y", np.nan), "pixel centers of the cube along y"),
    "no pixel": (2005, lambda a: a[5:5], "a patch with pixels, found none"),
    "one row without its axis": (2005, lambda a: a[5], "'y'} do not exist"),
    "bands": (2005, lambda a: a.expand_dims("band"), "permuted list"),
}


@pytest.mark.parametrize(("year", "change", "message"), REFUSED.values(), ids=REFUSED)
def test_a_region_that_is_refused_changes_nothing(shared, year, change, message):
    before = history(shared)
    with pytest.raises((datacube.CubeError, ValueError), match=message):
        datacube.write_region(shared, year, change(layer(2005)), message="x")
    assert history(shared) == before


@pytest.mark.parametrize(
    ("years", "box", "message"),
    [
        ((2000, 2005, 2010), BOX._replace(west=-112.625), "expected the cube of .*; choose another path"),
        ((2000, 2005), BOX._replace(west=-112.375), "expected the cube of .*; choose another path"),
        ((2012,), BOX, "no such year"),
    ],
)
def test_the_cube_of_another_box_is_not_built_upon(bucket, shared, years, box, message):
    before = history(shared)
    with pytest.raises((datacube.CubeError, tiles.TileError), match=message):
        datacube.build(bucket.icechunk("shared"), years=years, box=box)
    assert history(shared) == before


def test_an_earlier_year_is_refused(bucket):
    datacube.build(bucket.icechunk("late"), years=(2010,), box=BOX)
    with pytest.raises(datacube.CubeError, match="expected a year after 2010"):
        datacube.build(bucket.icechunk("late"), years=(2005,), box=BOX)


def test_a_place_with_other_things(bucket):
    bucket.client().put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/taken/notes.txt", Body=b"mine")
    with pytest.raises(datacube.CubeError, match=r"or an empty place, found 1 other objects such as notes\.txt"):
        datacube.build(bucket.icechunk("taken"), box=BOX)
    assert [thing.key for thing in bucket.icechunk("taken").list_objects_metadata()] == ["notes.txt"]


# Stores that fail


def test_a_store_that_does_not_answer_is_given_up_within_seconds(bucket):
    """Icechunk's defaults retry for minutes. The worst case is a port that accepts connections and never answers."""
    storage = dataclasses.replace(bucket, endpoint_url="http://127.0.0.1:9").icechunk("cube")
    begin = time.monotonic()
    with pytest.raises(icechunk.IcechunkError):
        repository.open_or_create(storage)
    assert time.monotonic() - begin < 30
    given = repository.open_or_create(bucket.icechunk("patience")).config.storage
    assert (given.retries.max_tries, given.timeouts.connect_timeout_ms) == (5, 5000)
    assert given.timeouts.operation_attempt_timeout_ms == 60_000


class CutLine:
    """Forwards connections to a port on loopback until a number of PUT requests have passed, then stops."""

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


def behind(bucket, line):
    return dataclasses.replace(bucket, endpoint_url=f"http://127.0.0.1:{line.port}")


# An append here is eight PUT requests: two chunks, manifests, transaction log, snapshot, backup, the branch itself.
@pytest.mark.parametrize("puts", range(1, 10))
def test_a_store_that_vanishes_midway(bucket, puts):
    path = f"vanishing/{puts}"
    repo = datacube.build(bucket.icechunk(path), years=(2000,), box=BOX)
    before = history(repo)
    line = CutLine(int(bucket.endpoint_url.rsplit(":", 1)[1]), puts)
    try:
        with contextlib.nullcontext() if puts == 9 else pytest.raises(icechunk.IcechunkError):
            datacube.build(behind(bucket, line).icechunk(path), years=(2000, 2005), box=BOX)
    finally:
        line.close()
    arrived = history(repo) != before
    if arrived:  # whole, or not at all
        assert history(repo)[1:] == before
    assert puts >= 8 or not arrived
    np.testing.assert_array_equal(repository.read(repo), [source(y) for y in (2000, 2005)[: 1 + arrived]])
    datacube.build(bucket.icechunk(path), box=BOX)
    np.testing.assert_array_equal(repository.read(repo), [source(year) for year in tiles.YEARS])


@pytest.mark.parametrize("puts", range(1, 4))
def test_a_store_that_vanishes_while_the_repository_is_made(bucket, puts):
    """Icechunk creates a repository with three PUT requests, and refuses a place with the remains of an attempt."""
    path = f"unborn/{puts}"
    line = CutLine(int(bucket.endpoint_url.rsplit(":", 1)[1]), puts)
    try:
        with pytest.raises(icechunk.IcechunkError):
            datacube.build(behind(bucket, line).icechunk(path), years=(2000,), box=BOX)
    finally:
        line.close()
    assert bucket.icechunk(path).list_objects_metadata()
    assert icechunk.Repository.exists(bucket.icechunk(path)) == (puts == 3)
    repo = datacube.build(bucket.icechunk(path), years=(2000,), box=BOX)
    np.testing.assert_array_equal(repository.read(repo), [source(2000)])


def test_two_who_make_it_at_once(bucket, monkeypatch):
    storage, other = bucket.icechunk("twins"), []

    def overtaken(*args, **kwargs):
        other.append(icechunk.Repository.create(storage))
        return icechunk.Repository.create(storage)

    monkeypatch.setattr(icechunk.Repository, "open_or_create", overtaken)
    assert history(repository.open_or_create(storage)) == history(other[0])


def test_a_place_with_a_group_of_something_else_is_refused():
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    with repo.transaction("main", message="theirs") as store:
        zarr.create_array(store, name="air", shape=(3,), dtype="int16")
    with pytest.raises(datacube.CubeError, match=r"found a group of \['air'\]; choose another path"):
        repository.years(repo.readonly_session("main").store)


def test_a_patch_may_be_transposed(repo):
    patch = layer(2005)[5:10, :20] * 0 + 3
    patch[0] = 4
    datacube.write_region(repo, 2005, patch.T, message="x")
    np.testing.assert_array_equal(repository.read(repo)[1, 5:10, :20], patch)
    assert next(iter(repo.ancestry(branch="main"))).metadata["sha256"] == datacube.digest(patch.values)


# Races

WIDE = tiles.Box(-112.5, 40.75, -112.0, 41.0)  # 1000 x 2000 pixels, eight chunks a year


def own_square(writer, k):
    """Return rows and columns spread over the chunks, which writers share, without common pixels."""
    left = 15 * (37 * k % 125)
    return slice(120 * writer, 120 * writer + 120), slice(left, left + 15)


def write_own_regions(bucket, path, writer, commits):
    """Write a row of rectangles, one per commit."""
    repo = repository.open_or_create(bucket.icechunk(path))
    like = layer(2000, WIDE)
    said = []
    for k in range(commits):
        patch = like[own_square(writer, k)]
        patch = patch.copy(data=np.full(patch.shape, 2 + writer, np.uint8))
        said.append(datacube.write_region(repo, 2000, patch, message=f"writer {writer}, square {k}"))
    return said


@pytest.mark.parametrize(("writers", "commits"), [(4, 6), pytest.param(8, 125, marks=pytest.mark.soak)])
def test_many_writers_lose_no_commit(bucket, writers, commits, record_property):
    path = f"raced/{writers}"
    repo = datacube.build(bucket.icechunk(path), years=(2000, 2005), box=WIDE)
    before = history(repo)
    expected = np.stack([source(2000, WIDE), source(2005, WIDE)])
    for writer, k in product(range(writers), range(commits)):
        expected[0][own_square(writer, k)] = 2 + writer
    with ProcessPoolExecutor(writers, mp_context=PROCESSES) as pool:
        jobs = [pool.submit(write_own_regions, bucket, path, writer, commits) for writer in range(writers)]
        said = [snapshot for job in jobs for snapshot in job.result()]
    assert len(said) == writers * commits
    assert history(repo)[len(said) :] == before and set(history(repo)[: len(said)]) == set(said)
    np.testing.assert_array_equal(repository.read(repo), expected)
    # each commit changed its rectangle and nothing else
    for snapshot in list(repo.ancestry(branch="main"))[: len(said)]:
        now, parent = (version(repo, i)["lulc"][0] for i in (snapshot.id, snapshot.parent_id))
        writer, k = (int(word) for word in snapshot.message.removeprefix("writer ").split(", square "))
        own = np.zeros(now.shape, bool)
        own[own_square(writer, k)] = True
        assert (now[own] == 2 + writer).all()
        assert (now == parent)[~own].all()
    record_property("figure", f"{len(said)} racing commits of {writers} processes, none lost")


def overtake(monkeypatch, first):
    """Make another commit once, between our write and our commit."""
    plain, done = icechunk.Session.commit, []

    def commit(session, *args, **kwargs):
        if not done:
            done.append(True)
            first()
        return plain(session, *args, **kwargs)

    monkeypatch.setattr(icechunk.Session, "commit", commit)


def test_two_edits_of_one_pixel_are_refused(repo, monkeypatch):
    a, b = layer(2000)[:10, :10] * 0 + 3, layer(2000)[9:20, 9:20] * 0 + 4
    overtake(monkeypatch, lambda: datacube.write_region(repo, 2000, a, message="theirs"))
    with pytest.raises(datacube.CubeError, match="another commit changed these pixels"):
        datacube.write_region(repo, 2000, b, message="ours")
    assert next(iter(repo.ancestry(branch="main"))).message == "theirs"


def test_a_region_and_an_append_survive_each_other(repo, bucket, request, monkeypatch):
    storage = bucket.icechunk(f"own/{request.node.name}")
    patch = layer(2000)[:10, :10] * 0 + 3
    overtake(monkeypatch, lambda: datacube.build(storage, years=(2000, 2005, 2010), box=BOX))
    datacube.write_region(repo, 2000, patch, message="ours")
    overtake(monkeypatch, lambda: datacube.write_region(repo, 2000, patch + np.uint8(1), message="theirs"))
    datacube.build(storage, years=(2015,), box=BOX)
    found = repository.read(repo)
    assert found.year.values.tolist() == [2000, 2005, 2010, 2015]
    np.testing.assert_array_equal(found[1:], [source(year) for year in (2005, 2010, 2015)])
    assert (found[0, :10, :10] == 4).all()


def test_a_year_that_another_process_appended_meanwhile_is_there_once(repo, bucket, request, monkeypatch):
    storage = bucket.icechunk(f"own/{request.node.name}")
    overtake(monkeypatch, lambda: datacube.build(storage, years=(2010,), box=BOX))
    datacube.build(storage, years=(2010,), box=BOX)
    np.testing.assert_array_equal(repository.read(repo), [source(year) for year in (2000, 2005, 2010)])
    assert len(history(repo)) == 4


def write_into(repo, path, values):
    """Change one of the cube's arrays in another commit."""
    with repo.transaction("main", message="theirs") as store:
        zarr.open_array(store, path=path, mode="r+")[:] = values


def in_another_crs(repo):
    """Change an attribute; no chunk is touched."""
    with repo.transaction("main", message="theirs") as store:
        array = zarr.open_array(store, path="spatial_ref", mode="r+")
        array.attrs.update(dict.fromkeys(("crs_wkt", "spatial_ref"), rasterio.CRS.from_epsg(3857).to_wkt()))


# Checks made before another writer moved the branch do not hold afterward. Icechunk sees no conflict in any of these,
# because they change other nodes or chunks than ours.
MEANWHILE = {
    "reset to before the year": (lambda r: r.reset_branch("main", history(r)[1]), "one of the cube's years .2000."),
    "reset to nothing": (lambda r: r.reset_branch("main", history(r)[2]), "No group found"),
    "moved by half a pixel": (
        lambda r: write_into(r, "x", layer(2000).x.values + 0.000125),
        "pixel centers of the cube along x",
    ),
    "in another CRS": (in_another_crs, "expected the CRS EPSG:3857, found EPSG:4326"),
    "turned": (lambda r: write_into(r, "y", layer(2000).y.values[::-1]), "another commit changed these pixels"),
}


@pytest.mark.parametrize(("theirs", "message"), MEANWHILE.values(), ids=MEANWHILE)
def test_a_region_is_checked_again_after_others_changed_the_cube(repo, monkeypatch, theirs, message):
    tips = []
    overtake(monkeypatch, lambda: (theirs(repo), tips.extend(history(repo))))
    with pytest.raises((datacube.CubeError, ValueError, FileNotFoundError), match=message):
        datacube.write_region(repo, 2005, layer(2005)[:10, :10] * 0 + 3, message="ours")
    assert tips and history(repo) == tips


def test_three_edits_of_one_chunk_all_survive(repo, monkeypatch):
    """The write is overtaken twice, and checks the earlier pixels again each time."""
    squares = [layer(2000)[20 * k : 20 * k + 10, :10] * 0 + 3 + k for k in range(3)]
    plain, others = icechunk.Session.commit, squares[:2]

    def commit(session, message, *args, **kwargs):
        if message == "ours" and others:
            datacube.write_region(repo, 2000, others.pop(), message="theirs")
        return plain(session, message, *args, **kwargs)

    monkeypatch.setattr(icechunk.Session, "commit", commit)
    datacube.write_region(repo, 2000, squares[2], message="ours")
    found = repository.read(repo)[0].values
    assert all((found[20 * k : 20 * k + 10, :10] == 3 + k).all() for k in range(3))
    assert [s.message for s in repo.ancestry(branch="main")][:3] == ["ours", "theirs", "theirs"]


def test_it_gives_up_at_last(repo, monkeypatch):
    monkeypatch.setattr(repository, "ATTEMPTS", 3)

    def commit(*args, **kwargs):
        raise icechunk.ConflictError("a", "b")

    monkeypatch.setattr(icechunk.Session, "commit", commit)
    with pytest.raises(datacube.CubeError, match="other commits landed first 3 times, so nothing was committed"):
        datacube.write_region(repo, 2000, layer(2000)[:5, :5], message="x")
