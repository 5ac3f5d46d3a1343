"""The cube of the world: filled in parallel, resumed, and never corrupted; compared with the tiles through GDAL."""

import datetime as dt
import gzip
import itertools
import multiprocessing
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import icechunk
import numpy as np
import other_world
import pytest
import rasterio
import zarr
from conftest import history
from rasterio._env import get_gdal_config
from rasterio.transform import from_origin
from rasterio.windows import from_bounds
from tqdm import tqdm
from zarr.codecs import GzipCodec, TransposeCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from workshop import datacube, repository, servers, tiles, world

CORNER = tiles.Box(-110.25, 39.75, -109.75, 40.25)  # where the four tiles meet: a chunk of each
CELL = tiles.Box(-112.5, 40.75, -112.25, 41.0)  # one chunk, with the defect
ROWS, COLS = slice(159_000, 161_000), slice(279_000, 281_000)
YEARS = (2015, 2020)


@pytest.fixture
def empty(bucket, request):
    """Return a world without pixels for one test."""
    return world.create(bucket.icechunk(f"empty/{request.node.name}"), YEARS)


@pytest.fixture(scope="module")
def corner(bucket):
    """Return a world in which only the corner of the four tiles is written. Tests must not change it."""
    repo = world.create(bucket.icechunk("corner"), YEARS)
    world.ingest(repo, world.UTAH_TILES, YEARS, box=CORNER)
    return repo


def source(year, box=CORNER, names=world.UTAH_TILES):
    """Return the pixels of a box, read with GDAL from all the tiles that it touches."""
    rows = round((box.north - box.south) / tiles.RESOLUTION)
    cols = round((box.east - box.west) / tiles.RESOLUTION)
    pixels = np.full((rows, cols), 255, np.uint8)
    for name in names:
        with rasterio.open(tiles.tile_path(name, year)) as src:
            left, right = max(box.west, src.bounds.left), min(box.east, src.bounds.right)
            south, north = max(box.south, src.bounds.bottom), min(box.north, src.bounds.top)
            if left >= right or south >= north:
                continue
            window = from_bounds(left, south, right, north, src.transform).round_offsets().round_lengths()
            top, west = round((box.north - north) / tiles.RESOLUTION), round((left - box.west) / tiles.RESOLUTION)
            pixels[top : top + window.height, west : west + window.width] = src.read(1, window=window)
    return pixels


def marked(repo):
    """Return the years and names of Utah's tiles of which a chunk was ingested."""
    found = set()
    for year, name in itertools.product(repository.read(repo).year.values.tolist(), world.UTAH_TILES):
        lon, lat = tiles.tile_corner(name)
        marks = world.ingested(repo).sel(year=year, y=slice(lat, lat - 10), x=slice(lon, lon + 10))
        assert marks.shape == (40, 40)
        if marks.any():
            found.add((year, name))
    return found


def most_frequent(pixels, factor):
    """Return the mode of each cell with slow, simple code."""
    rows, cols = (size // factor for size in pixels.shape)
    cells = pixels.reshape(rows, factor, cols, factor).swapaxes(1, 2).reshape(rows, cols, -1)
    return np.array([[np.bincount(cell, minlength=256).argmax() for cell in row] for row in cells], np.uint8)


# What is made


def test_the_grid(bucket):
    storage = bucket.icechunk("grid")
    repo = world.create(storage)
    found = repository.read(repo)
    assert found.shape == (5, 560_000, 1_440_000) and found.dtype == np.uint8
    assert found.encoding["chunks"] == (1, 1000, 1000) and found.encoding["fill_value"] == 255
    assert found.rio.crs == "EPSG:4326" and found.year.values.tolist() == list(tiles.YEARS)
    np.testing.assert_allclose(found.y[[0, -1]], [79.999875, -59.999875], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.x[[0, -1]], [-179.999875, 179.999875], rtol=0, atol=1e-9)
    transform = [float(number) for number in found.spatial_ref.attrs["GeoTransform"].split()]
    np.testing.assert_allclose(transform, [-180, 0.00025, 0, 80, 0, -0.00025], rtol=0, atol=1e-12)
    assert (found[4, ::200_000, ::400_000] == 255).all()
    size = sum(thing.size_bytes for thing in storage.list_objects_metadata())
    assert size < 250_000  # for four terabytes, with the legend in each of five levels: there is no chunk


def test_the_grid_is_that_of_all_tiles(corner):
    """The cube's coordinates of a tile's pixels agree with the tile's name."""
    whole = repository.read(corner)
    for name, (lon, lat) in {"80N_180W": (-180, 80), "50S_170E": (170, -50), "00N_000E": (0, 0)}.items():
        rows, cols = world._region(name, None)
        inside = (np.array([0, 39_999]) + 0.5) * tiles.RESOLUTION
        np.testing.assert_allclose(whole.y[[rows[0], rows[1] - 1]], lat - inside, rtol=0, atol=1e-9)
        np.testing.assert_allclose(whole.x[[cols[0], cols[1] - 1]], lon + inside, rtol=0, atol=1e-9)


def test_a_box_on_a_chunk_border_does_not_ask_for_the_next_chunk():
    box = tiles.Box(-112.5 - 1e-10, 40.5 - 1e-10, -111.5 + 1e-10, 41.0 + 1e-10)
    assert world._region("50N_120W", box) == ([156_000, 158_000], [270_000, 274_000])
    inside = tiles.Box(-112.3, 40.6, -112.2, 40.7)
    assert world._region("50N_120W", inside) == ([157_000, 158_000], [270_000, 272_000])


def test_four_tiles_meet_without_a_seam(corner):
    found = repository.read(corner)
    for k, year in enumerate(YEARS):
        np.testing.assert_array_equal(found[k, ROWS, COLS], source(year))
    ring = found[1, ROWS.start - 1 : ROWS.stop + 1, COLS.start - 1 : COLS.stop + 1].values
    assert (ring[[0, -1]] == 255).all() and (ring[:, [0, -1]] == 255).all()
    south = source(2020)[1000:]
    assert np.unique(south[:, :1000]).size > 1 and np.unique(south[:, 1000:]).size > 1  # or this would prove little


def test_the_teaching_window(bucket):
    repo = world.create(bucket.icechunk("window"), (2020,))
    world.ingest(repo, ["50N_120W"], [2020], box=tiles.TEACHING_WINDOW)
    found = tiles.select_box(repository.read(repo).sel(year=2020), tiles.TEACHING_WINDOW)
    window = source(2020, tiles.TEACHING_WINDOW, ["50N_120W"])
    np.testing.assert_array_equal(found, window)
    # mode, not mean: no class appears that was not there
    for factor in world.LEVELS[1:]:
        overview = tiles.select_box(world.read_overview(repo, factor).sel(year=2020), tiles.TEACHING_WINDOW)
        np.testing.assert_array_equal(overview, most_frequent(window, factor))
    assert world.read_overview(repo, 40).shape == (1, 14_000, 36_000)
    assert world.read_overview(repo, 1000).shape == (1, 560, 1440)
    assert world.read_overview(repo, 1000).rio.crs == "EPSG:4326"


def test_the_parts_of_a_tile_do_not_overwrite_each_others_overviews(empty):
    """Rows 123,000 to 134,000 span more than one worker's part of a tile; parts end at multiples of 10,000."""
    box = tiles.Box(-112.25, 46.5, -112.0, 49.25)
    world.ingest(empty, ["50N_120W"], [2020], box=box)
    pixels = source(2020, box)
    np.testing.assert_array_equal(tiles.select_box(repository.read(empty).sel(year=2020), box), pixels)
    for factor in world.LEVELS[1:]:
        overview = tiles.select_box(world.read_overview(empty, factor).sel(year=2020), box)
        np.testing.assert_array_equal(overview, most_frequent(pixels, factor))


def test_a_tie_goes_to_the_lower_value():
    band = np.zeros((1000, 2000), np.uint8)
    band[:20], band[20:40] = 7, 5
    counts, *overviews = world.summarize(band)
    for factor, overview in zip(world.LEVELS[1:], overviews, strict=True):
        np.testing.assert_array_equal(overview, most_frequent(band, factor))
    assert (overviews[0][2] == 5).all() and (overviews[1][0] == 5).all()  # of 4 and of 20 rows of either
    np.testing.assert_array_equal(counts, np.bincount(band.ravel(), minlength=256))


def test_the_history_says_what_is_from_where(corner):
    messages = [snapshot.message for snapshot in corner.ancestry(branch="main")]
    assert messages[:3] == [
        "Ingest 2020: 40N_110W, 40N_120W, 50N_110W, 50N_120W",
        "Ingest 2015: 40N_110W, 40N_120W, 50N_110W, 50N_120W",
        "Create the cube of the world",
    ]
    assert next(iter(corner.ancestry(branch="main"))).metadata["tiles"]["50N_110W"] == {
        "source": "2020/50N_110W.tif",
        "rows": [159_000, 160_000],
        "cols": [280_000, 281_000],
    }


def test_the_marks_say_which_chunks_were_ingested(corner):
    assert marked(corner) == set(itertools.product(YEARS, world.UTAH_TILES))
    marks = world.ingested(corner)
    assert marks.dtype == bool and marks.shape == (2, 560, 1440) and marks.rio.crs == "EPSG:4326"
    for k in (0, 1):
        assert np.argwhere(marks[k].values).tolist() == [[159, 279], [159, 280], [160, 279], [160, 280]]
    centers = marks.isel(y=[159, 160], x=[279, 280])
    np.testing.assert_allclose(centers.y, [40.125, 39.875], rtol=0, atol=1e-9)
    np.testing.assert_allclose(centers.x, [-110.125, -109.875], rtol=0, atol=1e-9)


# Chunks that workers encode themselves


def replace_array(repo, **layout):
    """Give the finest level an array with another layout, and commit it."""
    session = repo.writable_session("main")
    group = zarr.open_group(session.store, path="0", mode="r+")
    old = group[repository.ARRAY]
    layout = {"chunks": old.chunks, "dtype": old.dtype, "fill_value": 255, "attributes": old.attrs.asdict()} | layout
    group.create_array(repository.ARRAY, shape=old.shape, dimension_names=("year", "y", "x"), overwrite=True, **layout)
    session.commit("Another layout")


def stored(array):
    """Return the bytes of each chunk that has an object, by its key."""
    keys = [array.metadata.encode_chunk_key(at) for at in itertools.product(*map(range, array.cdata_shape))]
    found = {key: sync((array.store_path / key).get(default_buffer_prototype())) for key in keys}
    return {key: data.to_bytes() for key, data in found.items() if data is not None}


@pytest.mark.parametrize("empty_chunks", [False, True], ids=["no-empty-chunks", "empty-chunks"])
@pytest.mark.parametrize(
    "codecs",
    [{}, {"compressors": [ZstdCodec(level=3, checksum=True)], "filters": [TransposeCodec(order=(2, 1, 0))]}],
    ids=["zstd", "transposed"],
)
def test_chunks_are_those_that_zarr_writes(codecs, empty_chunks):
    store = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main").store
    layout = {"shape": (2, 3000, 5000), "chunks": (1, 1000, 1000), "dtype": "uint8", "fill_value": 255} | codecs
    plain, ours = (
        zarr.create_array(store, name=name, config={"write_empty_chunks": empty_chunks}, **layout)
        for name in ("plain", "ours")
    )
    row = np.random.default_rng(0).integers(0, 49, (1000, 5000), np.uint8)
    row[:, 2000:3000] = 255  # no pixel in one chunk, some in another
    row[:500, 3000:] = 255
    for array in (plain, ours):
        array[:, 500:1500] = 7  # what was there goes, also where nothing comes
    plain[1, 1000:2000, 1000:4000] = row[:, 1000:4000]
    world._write_chunks(ours, (1, 1, 0), row, np.array([False, True, True, True, False]))
    assert stored(ours) == stored(plain)
    assert ("c/1/1/2" in stored(ours)) == empty_chunks and "c/1/1/4" in stored(ours)
    np.testing.assert_array_equal(ours[:], plain[:])


def test_an_ingest_takes_the_codecs_of_the_cube(empty):
    replace_array(empty, compressors=[GzipCodec(level=1)])
    world.ingest(empty, ["50N_120W"], [2020], box=CELL)
    array = zarr.open_array(empty.readonly_session("main").store, path="0/lulc", mode="r")
    chunk = sync((array.store_path / "c/1/156/270").get(default_buffer_prototype())).to_bytes()
    assert gzip.decompress(chunk) == source(2020, CELL, ["50N_120W"]).tobytes()


@pytest.mark.parametrize(
    "layout",
    [{"shards": (1, 2000, 2000)}, {"chunks": (1, 500, 500)}, {"dtype": "uint16"}],
    ids=["shards", "chunks", "dtype"],
)
def test_a_layout_that_is_none_of_ours_is_refused(empty, layout):
    replace_array(empty, **layout)
    before = history(empty)
    (outcome,) = world.ingest(empty, ["50N_120W"], [2020], box=CELL).outcome
    assert outcome.startswith("CubeError: 50N_120W (2020): expected a cube of uint8 in chunks of (1, 1000, 1000)")
    assert history(empty) == before


# Again, and on from where it stopped


def test_again_changes_nothing(corner):
    before = history(corner)
    report = world.ingest(corner, world.UTAH_TILES, YEARS, box=CORNER)
    assert set(report.outcome) == {"there already"} and len(report) == 8
    inner = tiles.Box(-110.1, 39.9, -109.9, 40.1)
    assert set(world.ingest(corner, world.UTAH_TILES, YEARS, box=inner).outcome) == {"there already"}
    assert history(corner) == before


def test_a_larger_box_is_written(empty):
    small = tiles.Box(-110.25, 40.0, -110.0, 40.25)
    report = world.ingest(empty, world.UTAH_TILES, [2020], box=small)
    assert report.set_index("tile").outcome.to_dict() == {
        "50N_120W": "written",
        "50N_110W": "outside the box",
        "40N_120W": "outside the box",
        "40N_110W": "outside the box",
    }
    assert report.pixels.tolist() == [1_000_000, 0, 0, 0]
    wider = tiles.Box(-110.5, 40.0, -110.0, 40.25)
    assert world.ingest(empty, ["50N_120W"], [2020], box=wider).outcome.tolist() == ["written"]
    np.testing.assert_array_equal(repository.read(empty)[1, 159_000:160_000, 278_000:280_000], source(2020, wider))


class InterruptedAfterTwo(ThreadPoolExecutor):
    """Threads interrupted by the user (Ctrl-C) while waiting for the third result."""

    left = 2

    def submit(self, *args):
        self.left -= 1
        future = super().submit(*args)
        if self.left < 0:
            future.result = self.interrupt
        return future

    def interrupt(self):
        raise KeyboardInterrupt


def test_after_an_interrupt_it_goes_on(empty):
    with InterruptedAfterTwo(2) as executor, pytest.raises(KeyboardInterrupt):
        world.ingest(empty, world.UTAH_TILES, YEARS, box=CORNER, executor=executor)
    assert next(iter(empty.ancestry(branch="main"))).message == "Ingest 2015: 50N_110W, 50N_120W"
    assert marked(empty) == {(2015, "50N_120W"), (2015, "50N_110W")}
    report = world.ingest(empty, world.UTAH_TILES, YEARS, box=CORNER)
    assert report.outcome.tolist() == ["there already"] * 2 + ["written"] * 6
    for k, year in enumerate(YEARS):
        np.testing.assert_array_equal(repository.read(empty)[k, ROWS, COLS], source(year))


def ingest_until_killed(bucket, path, started):
    started.set()
    world.ingest(icechunk.Repository.open(bucket.icechunk(path)), world.UTAH_TILES, YEARS, box=CORNER)


def test_a_kill_loses_no_year_that_was_committed(bucket, empty, request):
    context = multiprocessing.get_context("spawn")
    path = f"empty/{request.node.name}"
    kills = 0
    for wait in (0.5, 1.0, 2.0):
        started = context.Event()
        writer = context.Process(target=ingest_until_killed, args=(bucket, path, started))
        writer.start()
        assert started.wait(300)
        writer.join(wait)
        kills += writer.exitcode is None
        writer.kill()
        writer.join()
        done = {year for year, _ in marked(empty)}
        for k, year in enumerate(YEARS):
            expected = source(year) if year in done else np.full((2000, 2000), 255, np.uint8)
            np.testing.assert_array_equal(repository.read(empty)[k, ROWS, COLS], expected)
    assert kills
    world.ingest(empty, world.UTAH_TILES, YEARS, box=CORNER)
    for k, year in enumerate(YEARS):
        np.testing.assert_array_equal(repository.read(empty)[k, ROWS, COLS], source(year))


# Tiles that fail


@pytest.fixture(scope="module")
def bad_tiles(tmp_path_factory):
    """Return a root with one good tile of 2020, and three that fail in different ways."""
    root = tmp_path_factory.mktemp("bad")
    (root / "2020").mkdir()
    good = tiles.tile_path("50N_120W", 2020)
    shutil.copy(good, root / "2020" / "50N_120W.tif")
    cut = root / "2020" / "50N_110W.tif"
    with open(tiles.tile_path("50N_110W", 2020), "rb") as src:
        cut.write_bytes(src.read()[:-1_000_000])
    shutil.copy(good, root / "2020" / "40N_110W.tif")  # another place than its name promises
    return root


def test_tiles_that_fail_are_named_and_do_not_hold_up_the_others(empty, bad_tiles):
    with tqdm(total=4, disable=True) as bar:
        report = world.ingest(empty, world.UTAH_TILES, [2020], box=CORNER, root=str(bad_tiles), progress=bar)
    outcome = report.set_index("tile").outcome
    assert outcome["50N_120W"] == "written"
    assert outcome["50N_110W"].startswith("TileError: 50N_110W (2020): truncated; expected at least")
    assert outcome["40N_120W"].startswith("TileError: 40N_120W (2020): expected a file at")
    assert "the name and the georeferencing disagree" in outcome["40N_110W"]
    assert report.pixels.tolist() == [1_000_000, 0, 0, 0]
    found = repository.read(empty)[1, ROWS, COLS].values
    np.testing.assert_array_equal(found[:1000, :1000], source(2020)[:1000, :1000])
    assert (found[1000:] == 255).all() and (found[:, 1000:] == 255).all()
    assert marked(empty) == {(2020, "50N_120W")}
    # alone, and from a place where they are whole
    again = world.ingest(empty, ["50N_110W", "40N_120W", "40N_110W"], [2020], box=CORNER)
    assert set(again.outcome) == {"written"}
    np.testing.assert_array_equal(repository.read(empty)[1, ROWS, COLS], source(2020))


def write_strange(root, name, size=tiles.TILE_SIZE, value=10):
    lon, lat = tiles.tile_corner(name)
    path = root / "2020" / f"{name}.tif"
    path.parent.mkdir(exist_ok=True)
    step = 10 / size
    profile = {"width": size, "height": size, "count": 1, "dtype": "uint8", "crs": "EPSG:4326", "compress": "LZW"}
    with rasterio.open(path, "w", transform=from_origin(lon, lat, step, step), blockysize=1, **profile) as dst:
        band = np.full((1, 1000, size), 10, np.uint8)
        for top in range(0, size, 1000):
            here = band[:, : min(1000, size - top)].copy()
            here[0, -1, -1] = value if top + 1000 >= size else 10  # in the last part of the tile only
            dst.write(here, window=rasterio.windows.Window(0, top, size, here.shape[1]))
    return path


def test_strange_tiles_are_refused_half_way(empty, tmp_path):
    """A value in the last row of chunks is not a class. Nothing of the tile may be committed."""
    write_strange(tmp_path, "50N_120W", value=60)
    write_strange(tmp_path, "50N_110W", size=4000)
    before = history(empty)
    report = world.ingest(empty, ["50N_120W", "50N_110W"], [2020], root=str(tmp_path)).set_index("tile")
    assert report.outcome["50N_120W"] == "CubeError: 50N_120W (2020): expected values of the legend, found [60]"
    assert report.outcome["50N_110W"] == "TileError: 50N_110W (2020): expected 40000 x 40000 pixels, found 4000 x 4000"
    assert history(empty) == before


@pytest.mark.parametrize(
    ("names", "years", "error", "message"),
    [
        (["50N_120W"], [2000], repository.CubeError, "expected years of the cube"),
        (["50N_125W"], [2020], tiles.TileError, "no such tile"),
    ],
)
def test_what_cannot_be_asked(corner, names, years, error, message):
    before = history(corner)
    with pytest.raises(error, match=message):
        world.ingest(corner, names, years)
    assert history(corner) == before


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((-110.25, 40.25, -109.75, 39.75), "upside down"),
        ((39.75, -110.25, 40.25, -109.75), "180 W to 180 E"),
        ((-110, 40, -110, 40), "180 W to 180 E"),
    ],
)
def test_a_box_that_is_none(empty, box, message):
    with pytest.raises(tiles.TileError, match=message):
        world.ingest(empty, ["50N_120W"], [2020], box=box)


@pytest.mark.parametrize("years", [(), (2020, 2015), (2020, 2020), (2020.5,), ("2020",), (1999,)])
def test_years_that_are_none(bucket, years):
    with pytest.raises(repository.CubeError, match="expected years of"):
        world.create(bucket.icechunk("no-years"), years)
    assert not icechunk.Repository.exists(bucket.icechunk("no-years"))


def test_another_cube_is_not_a_world(bucket):
    box = tiles.Box(-112.5, 40.875, -112.25, 41.0)
    repo = datacube.build(bucket.icechunk("small"), years=(2020,), box=box)
    for other in (repo, icechunk.Repository.create(icechunk.in_memory_storage())):
        with pytest.raises(repository.CubeError, match=r"made by world.create, found one without 4/inge"):
            world.ingest(other, ["50N_120W"], [2020])


def test_a_world_is_not_made_twice_and_build_completes_what_was_begun(bucket):
    storage = bucket.icechunk("begun")
    icechunk.Repository.create(storage)  # what a writer killed at the very start leaves behind
    repo = world.build(storage, (2020,), CORNER)
    assert marked(repo) == set(itertools.product([2020], world.UTAH_TILES))
    before = history(repo)
    with pytest.raises(repository.CubeError, match="found a cube of"):
        world.create(storage, (2020,))
    assert history(world.build(storage, (2020,), CORNER)) == before


def test_an_ingest_leaves_gdals_cache_as_it_was(empty):
    """GDAL's cache size is global, and rasterio.Env sets it in bytes: threads once left it at 16 bytes."""
    before = get_gdal_config("GDAL_CACHEMAX")
    assert before > 1_000_000
    world.ingest(empty, world.UTAH_TILES, [2020], box=CORNER)
    assert get_gdal_config("GDAL_CACHEMAX") == before


# What was ingested stays, and so does what others changed

WIDER = tiles.Box(-112.75, 40.5, -112.0, 41.25)  # 3 x 3 chunks with it in the middle


def write_over(repo, box, year=2020, value=10):
    """Write one class into a box without an ingest."""
    part = tiles.select_box(repository.read(repo).sel(year=year), box)
    datacube.write_region(repo, year, part.copy(data=np.full(part.shape, value, np.uint8)), message="Repair")


def pixels(repo, box=WIDER, year=2020):
    return tiles.select_box(repository.read(repo).sel(year=year), box).values


def with_repair(box=WIDER, year=2020, repair=tiles.DEFECT_BOX, value=10):
    """Return the file's pixels with a repair."""
    expected = source(year, box, ["50N_120W"])
    rows, cols = tiles.pixel_slices(repair, (box.west, box.north))
    expected[rows, cols] = value
    return expected


def expire(repo):
    """Keep only the newest snapshot, as lesson 04 does."""
    time.sleep(1.1)
    before = dt.datetime.now(dt.UTC)
    repo.expire_snapshots(before)
    repo.garbage_collect(before)
    assert len(history(repo)) <= 2


def test_what_was_ingested_survives_expiry(empty):
    world.ingest(empty, ["50N_120W"], [2020], box=CELL)
    write_over(empty, tiles.DEFECT_BOX)
    assert world.ingest(empty, ["50N_120W"], [2020], box=CELL).outcome.tolist() == ["there already"]
    expire(empty)
    before = history(empty)
    again = world.ingest(empty, ["50N_120W"], [2020], box=CELL)
    assert (again.outcome.tolist(), again.pixels.tolist()) == (["there already"], [0])
    assert history(empty) == before
    # a larger box brings what is missing, around the repair
    report = world.ingest(empty, ["50N_120W"], [2020], box=WIDER)
    assert (report.outcome.tolist(), report.pixels.tolist()) == (["written"], [8_000_000])
    np.testing.assert_array_equal(pixels(empty), with_repair())
    for factor in world.LEVELS[1:]:  # they show what was ingested
        found = tiles.select_box(world.read_overview(empty, factor).sel(year=2020), WIDER)
        np.testing.assert_array_equal(found, most_frequent(source(2020, WIDER, ["50N_120W"]), factor))
    # of another year nothing is there
    report = world.ingest(empty, ["50N_120W"], YEARS, box=WIDER)
    assert report.outcome.tolist() == ["written", "there already"]
    np.testing.assert_array_equal(pixels(empty, year=2015), source(2015, WIDER, ["50N_120W"]))


def test_a_larger_box_writes_the_chunks_that_are_missing_and_no_others(empty):
    """Two boxes leave gaps of several shapes, in several parts of a tile (whose borders are rows 130,000, 140,000)."""
    boxes = [tiles.Box(-112.5, 46.75, -112.0, 48.0), tiles.Box(-113.0, 47.25, -112.75, 47.75)]
    around = tiles.Box(-113.25, 46.5, -111.75, 48.25)
    for box in boxes:
        world.ingest(empty, ["50N_120W"], [2020], box=box)
    repair = tiles.Box(-112.0 - 0.0025, 47.2, -112.0, 47.6)
    write_over(empty, repair)
    with empty.transaction("main", message="Mark an overview") as store:
        zarr.open_array(store, path="4/lulc", mode="r+")[1, 129, 268] = 77
    before = empty.readonly_session("main").snapshot_id
    report = world.ingest(empty, ["50N_120W"], [2020], box=around)
    assert report.pixels.tolist() == [(6 * 7 - 2 * 5 - 1 * 2) * 1_000_000]
    np.testing.assert_array_equal(pixels(empty, around), with_repair(around, repair=repair))
    written = empty.diff(from_snapshot_id=before, to_branch="main").updated_chunks["/0/lulc"]
    everything = {(1, row, col) for row in range(127, 134) for col in range(267, 273)}
    there = {(1, row, col) for row in range(128, 133) for col in (270, 271)} | {(1, r, 268) for r in (129, 130)}
    assert set(map(tuple, written)) == everything - there
    assert world.read_overview(empty, 1000)[1, 129, 268] == 77  # the overviews of ingested chunks are left alone, too
    coarse = tiles.select_box(world.read_overview(empty, 40).sel(year=2020), around)
    np.testing.assert_array_equal(coarse, most_frequent(source(2020, around, ["50N_120W"]), 40))


def test_pixels_that_were_not_ingested_are_not_overwritten_unless_told_to(empty):
    write_over(empty, tiles.DEFECT_BOX)
    before = history(empty)
    report = world.ingest(empty, ["50N_120W", "50N_110W"], [2020], box=WIDER).set_index("tile").outcome
    assert report["50N_110W"] == "outside the box"
    message = report["50N_120W"]
    assert message.startswith(
        "CubeError: 50N_120W (2020): expected only pixels that were ingested, found others in the"
    )
    assert str(tuple(CELL)) in message and "overwrite=True" in message and history(empty) == before
    # its advice: a box without that chunk; or all of it
    beside = tiles.Box(-112.75, 40.5, -112.5, 41.25)
    assert world.ingest(empty, ["50N_120W"], [2020], box=beside).outcome.tolist() == ["written"]
    report = world.ingest(empty, ["50N_120W"], [2020], box=WIDER, overwrite=True)
    assert (report.outcome.tolist(), report.pixels.tolist()) == (["written"], [9_000_000])
    np.testing.assert_array_equal(pixels(empty), source(2020, WIDER, ["50N_120W"]))
    assert world.ingest(empty, ["50N_120W"], [2020], box=WIDER).outcome.tolist() == ["there already"]


def test_overwrite_brings_back_what_is_in_the_file(empty):
    world.ingest(empty, ["50N_120W"], [2020], box=WIDER)
    write_over(empty, tiles.DEFECT_BOX)
    write_over(empty, tiles.Box(-112.75, 41.0, -112.7, 41.05), value=254)
    report = world.ingest(empty, ["50N_120W"], [2020], box=CELL, overwrite=True)  # the repair's chunk only
    assert (report.outcome.tolist(), report.pixels.tolist()) == (["written"], [1_000_000])
    edit = tiles.Box(-112.75, 41.0, -112.7, 41.05)
    np.testing.assert_array_equal(pixels(empty), with_repair(repair=edit, value=254))


def test_no_data_in_the_file_counts_as_ingested(empty, tmp_path):
    """One chunk without an object gets pixels later, and an overwrite empties another one again."""
    other_world.write_tile("50N_120W", 2020, tmp_path)
    root, box = str(tmp_path), tiles.Box(-120, 49.75, -119.5, 50)
    nothing = tiles.Box(-120, 49.75, -119.75, 50)

    def kinds():
        session = empty.readonly_session("main")
        return [str(session.chunk_type("/0/lulc", (1, 120, col))) for col in (240, 241)]

    assert world.ingest(empty, ["50N_120W"], [2020], box=box, root=root).pixels.tolist() == [2_000_000]
    assert kinds()[0] == "ChunkType.uninitialized" != kinds()[1] and (pixels(empty, nothing) == 255).all()
    repair = tiles.Box(-119.9, 49.8, -119.85, 49.85)
    write_over(empty, repair, value=20)
    assert world.ingest(empty, ["50N_120W"], [2020], box=box, root=root).outcome[0] == "there already"
    assert (pixels(empty, repair) == 20).all()
    world.ingest(empty, ["50N_120W"], [2020], box=box, root=root, overwrite=True)
    assert kinds()[0] == "ChunkType.uninitialized" != kinds()[1] and (pixels(empty, nothing) == 255).all()


def test_only_no_data_written_by_others_is_no_edit(empty):
    write_over(empty, CELL, value=255)
    assert world.ingest(empty, ["50N_120W"], [2020], box=CELL).outcome.tolist() == ["written"]
    np.testing.assert_array_equal(pixels(empty, CELL), source(2020, CELL, ["50N_120W"]))


# Others at the same time, and a cluster


def meanwhile(monkeypatch, act):
    """Run a function just before the next commit."""
    plain, done = icechunk.Session.commit, []

    def commit(session, *args, **kwargs):
        if not done:
            done.append(True)
            act()
        return plain(session, *args, **kwargs)

    monkeypatch.setattr(icechunk.Session, "commit", commit)


def test_an_edit_meanwhile_of_what_is_being_ingested_stays(empty, monkeypatch):
    meanwhile(monkeypatch, lambda: write_over(empty, tiles.DEFECT_BOX))
    report = world.ingest(empty, ["50N_120W"], [2020], box=WIDER)
    assert report.outcome[0].startswith("CubeError: 50N_120W (2020): expected only pixels that were ingested")
    assert report.pixels.tolist() == [0]
    assert (pixels(empty, tiles.DEFECT_BOX) == 10).all() and not world.ingested(empty).any()


def test_two_boxes_of_a_tile_at_once_are_both_there(empty, monkeypatch):
    left, right = tiles.Box(-112.75, 40.5, -112.25, 41.25), tiles.Box(-112.5, 40.5, -112.0, 41.25)

    def other():
        world.ingest(empty, ["50N_120W"], [2020], box=left)
        write_over(empty, tiles.DEFECT_BOX)  # in both boxes, and ingested by the other when it is repaired

    meanwhile(monkeypatch, other)
    report = world.ingest(empty, ["50N_120W"], [2020], box=right)
    assert (report.outcome.tolist(), report.pixels.tolist()) == (["written"], [3_000_000])
    np.testing.assert_array_equal(pixels(empty), with_repair())
    assert int(world.ingested(empty).sum()) == 9


def test_on_a_cluster(empty):
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        report = world.ingest(empty, world.UTAH_TILES, YEARS, box=CORNER, executor=client.get_executor())
    assert set(report.outcome) == {"written"}
    for k, year in enumerate(YEARS):
        np.testing.assert_array_equal(repository.read(empty)[k, ROWS, COLS], source(year))


def test_the_references_of_a_tile_have_their_own_manifest(empty, bucket, request):
    """The setting is stored: later sessions also write manifests of a tile's 40 x 40 chunks."""
    again = icechunk.Repository.open(bucket.icechunk(f"empty/{request.node.name}")).config
    assert [sorted(sizes.values()) for sizes in again.manifest.splitting.to_dict().values()] == [[40, 40]]


def test_a_server_that_goes_away_leaves_no_zeros(empty, monkeypatch):
    """GDAL reads the index of a tile's strips late, and returns class 0 for unknown strips, without an error."""
    server = servers.serve_folder(tiles.DATA)

    class Dying:
        def open(self, path):
            src = rasterio.open(path)
            server.close()
            return src

        def __getattr__(self, name):
            return getattr(rasterio, name)

    monkeypatch.setattr(world, "rasterio", Dying())
    box = tiles.Box(west=-115.25, south=44.75, east=-115.0, north=45.0)
    report = world.ingest(empty, ["50N_120W"], [2020], box=box, root=server.url)
    assert report.outcome[0].startswith("TileError: 50N_120W (2020): expected the offset of the pixels of row 20000")
    assert len(list(empty.ancestry(branch="main"))) == 2
