"""Killed writers, hundreds of them in `make soak`, and all kinds of wrong input.

Each test prints a line with its figures at the end of the run. test_datacube.py has a thousand racing commits, and
test_exercises.py runs all lessons on another world.
"""

import re
import time

import geopandas as gpd
import icechunk
import numpy as np
import pytest
import rasterio
import shapely
from conftest import history
from test_datacube import BOX, PROCESSES, layer, source
from test_tiles import small_tile
from test_world import CORNER
from test_world import source as world_source

from workshop import datacube, maps, repository, stores, tiles, virtual, world, zonal

SQUARES = 6


def append(bucket, path):
    datacube.build(bucket.icechunk(path), box=BOX)


def edit(bucket, path):
    """Write squares, one per commit, continuing after the last one in the history."""
    repo = datacube.build(bucket.icechunk(path), years=(2000,), box=BOX)
    done = {snapshot.message for snapshot in repo.ancestry(branch="main")}
    for k in range(SQUARES):
        if f"square {k}" not in done:
            square = layer(2000)[90 * k : 90 * k + 60, 150 * k : 150 * k + 60]
            patch = square.copy(data=np.full(square.shape, 2 + k, np.uint8))
            datacube.write_region(repo, 2000, patch, message=f"square {k}")


def ingest(bucket, path):
    repo = repository.open_or_create(bucket.icechunk(path))
    if not repository.years(repo.readonly_session("main").store):
        repo = world.create(bucket.icechunk(path), (2000, 2020))
    report = world.ingest(repo, world.UTAH_TILES, (2000, 2020), box=CORNER)
    assert report.outcome.isin(world.OUTCOMES).all()


def appended(commits):
    return np.stack([source(year) for year in tiles.YEARS[:commits]])


def edited(commits):
    pixels = source(2000)
    for k in range(commits - 1):
        pixels[90 * k : 90 * k + 60, 150 * k : 150 * k + 60] = 2 + k
    return pixels[None]


def ingested(commits):
    pixels = np.full((2, 2000, 2000), 255, np.uint8)
    for k, year in enumerate((2000, 2020)[: commits - 1]):
        pixels[k] = world_source(year)
    return pixels


def begin(work, bucket, path, started):
    started.set()
    work(bucket, path)


APPENDS = [f"Append {year}" for year in tiles.YEARS]
EDITS = ["Append 2000", *(f"square {k}" for k in range(SQUARES))]
INGESTS = [
    "Create the cube of the world",
    *(f"Ingest {y}: {', '.join(sorted(world.UTAH_TILES))}" for y in (2000, 2020)),
]


@pytest.mark.parametrize(
    ("work", "messages", "expect", "at_least"),
    [
        (append, APPENDS, appended, 5),
        pytest.param(append, APPENDS, appended, 80, marks=pytest.mark.soak),
        pytest.param(edit, EDITS, edited, 60, marks=pytest.mark.soak),
        pytest.param(ingest, INGESTS, ingested, 60, marks=pytest.mark.soak),
    ],
)
def test_a_killed_writer_is_resumed_to_the_same_cube(bucket, work, messages, expect, at_least, record_property):
    """After each kill, main is an intended commit with the tiles' pixels, and the last run gives the same cube."""
    kills, cubes, duration, lengths = 0, 0, 0.0, set()
    while kills < at_least:
        path, finished = f"endured/{work.__name__}/{at_least}/{cubes}", False
        cubes += 1
        while not finished:
            started = PROCESSES.Event()
            writer = PROCESSES.Process(target=begin, args=(work, bucket, path, started))
            writer.start()
            assert started.wait(300)
            beginning = time.monotonic()
            # the golden ratio's multiples spread the kills evenly over the work, however many they are
            writer.join((kills + 1) * 0.618 % 1 * duration if duration else 120)
            if finished := writer.exitcode is not None:
                assert writer.exitcode == 0
                duration = duration or time.monotonic() - beginning
            writer.kill()
            writer.join()
            kills += not finished
            if icechunk.Repository.exists(bucket.icechunk(path)):
                repo = icechunk.Repository.open(bucket.icechunk(path))
                found = [snapshot.message for snapshot in repo.ancestry(branch="main")][-2::-1]
                assert found == messages[: len(found)] and (found == messages or not finished)
                lengths.add(len(found))
                if found:
                    cube = repository.read(repo)
                    cube = tiles.select_box(cube, CORNER) if work is ingest else cube
                    np.testing.assert_array_equal(cube, expect(len(found)))
    assert len(lengths) > len(messages) / 2, "the kills did not fall in all parts of the work"
    record_property("figure", f"{work.__name__}: {kills} writers killed, {cubes} cubes finished, all identical")


def broken(root, kind):
    """Write a faulty tile under a root, and return the root."""
    path = root / "2010" / "50N_120W.tif"
    path.parent.mkdir(parents=True)
    if isinstance(kind, bytes):
        path.write_bytes(kind)
    elif kind is not None:
        mask = kind.get("mask", False)
        with rasterio.open(small_tile(path, **{k: v for k, v in kind.items() if k != "mask"}), "r+") as dst:
            if mask:
                dst.write_mask(np.zeros((40, 40), bool))
    return str(root)


NOT_A_TILE = {
    "no file": None,
    "an empty file": b"",
    "a web page": b"<html>not found</html>",
    "a TIFF's first bytes": b"II*\x00",
    "in Web Mercator": {"crs": "EPSG:3857"},
    "in NAD27": {"crs": "EPSG:4267"},
    "without a CRS": {"crs": None},
    "of uint16": {"dtype": "uint16"},
    "of floats": {"dtype": "float32"},
    "with three bands": {"count": 3},
    "half a pixel west": {"west": -120.125},
    "ten degrees north": {"north": 60.0},
    "of nine degrees": {"degrees": 9.0},
    "south up": {"flip": True},
    "where 0 is no data": {"nodata": 0},
    "where 244 is no data": {"nodata": 244},
    "with a mask": {"mask": True},
    "with values of no class": {"pixels": np.full((40, 40), 99)},
    "sparse, without no data": {"pixels": np.zeros((40, 40)), "SPARSE_OK": True},
}


@pytest.fixture(scope="module")
def cubes(bucket):
    """Return a cube of a box, and one of the world with a corner of four tiles in it."""
    edit(bucket, "bad/box")
    ingest(bucket, "bad/world")
    return [icechunk.Repository.open(bucket.icechunk(f"bad/{name}")) for name in ("box", "world")]


def bad_inputs(tmp_path, bucket, monkeypatch):
    """Yield mistakes, each with a call that makes it."""
    box, grid = (icechunk.Repository.open(bucket.icechunk(f"bad/{name}")) for name in ("box", "world"))
    cube = repository.read(box)
    patch = cube[0, :10, :10].load()

    def build(**options):
        return lambda: datacube.build(bucket.icechunk("bad/box"), **({"years": (2010,), "box": BOX} | options))

    for name, kind in NOT_A_TILE.items():
        root = broken(tmp_path / re.sub(r"\W", "-", name), kind)

        def append_from(root=root):
            monkeypatch.setenv("GLAD_TILES", root)
            try:
                build()()
            finally:
                monkeypatch.delenv("GLAD_TILES")

        yield f"a tile: {name}", append_from
    for url in ("ftp://example.org", "http://127.0.0.1:1", "http://glad.invalid", "http://["):
        yield f"a root: {url}", lambda url=url: tiles.open_tile("50N_120W", 2000, root=url)
    for name in ("50N_125W", "50n_120w", "50S_000W", "Utah"):
        yield f"a name: {name}", lambda name=name: world.ingest(grid, [name])
    yield "a year that GLAD has not", build(years=(2012,))
    yield "a year before the last one", lambda: datacube.build(bucket.icechunk("bad/box"), years=(1995,), box=BOX)
    yield "a year that the world has not", lambda: world.ingest(grid, ["50N_120W"], [2010])
    yield "another box", build(box=tiles.TEACHING_WINDOW)
    yield "a box over there", build(box=tiles.Box(10, 50, 11, 51))
    yield "a box upside down", build(box=tiles.Box(-112.5, 41, -111.5, 40.5))
    yield "a box from east to west", build(box=tiles.Box(-111.5, 40.5, -112.5, 41))
    yield "a box of nothing", build(box=tiles.Box(-112.5, 40.5, -112.5, 41))
    yield "a box of three numbers", build(box=(-112.5, 40.5, -111.5))
    yield "a box with NaN", build(box=(float("nan"), 40.5, -111.5, 41))
    yield "a box beyond the world", lambda: world.ingest(grid, ["50N_120W"], [2020], box=(-112, 40, 200, 41))
    yield "the world again", lambda: world.create(bucket.icechunk("bad/world"))
    yield "ingest into a cube of a box", lambda: world.ingest(box, ["50N_120W"])
    yield "a place with other files", lambda: repository.open_or_create(bucket.icechunk("bad/other"))

    def write(change, year=2000):
        return lambda: datacube.write_region(box, year, change(patch), message="bad")

    yield "a patch of floats", write(lambda p: p.astype(float))
    yield "a patch of no class", write(lambda p: p * 0 + 99)
    yield "a patch in UTM", write(lambda p: p.rio.write_crs("EPSG:32612"))
    yield "a patch half a pixel off", write(lambda p: p.assign_coords(x=p.x + 0.000125))
    yield "a patch thinned", write(lambda p: p[::2, ::2])
    yield "a patch shuffled", write(lambda p: p[[0, 2, 1]].assign_coords(y=[p.y[0], p.y[2], p.y[5]]))
    yield "a patch outside", write(lambda p: p.assign_coords(y=p.y + 5))
    yield "a patch without coordinates", write(lambda p: p.drop_vars(["x", "y"]))
    yield "a patch of a year that is not there", write(lambda p: p, 2012)

    def count(*shapes, crs="EPSG:4326", lulc=cube, names=None):
        return lambda: zonal.count_classes(lulc, gpd.GeoSeries(list(shapes), names, crs=crs))

    square = shapely.box(-112.4, 40.9, -112.3, 40.95)
    yield "zones without a CRS", count(square, crs=None)
    yield "zones in UTM", count(square, crs="EPSG:32612")
    yield "meters called degrees", count(shapely.box(400_000, 4_500_000, 410_000, 4_510_000))
    yield "latitude and longitude swapped", count(shapely.box(40.9, -112.4, 40.95, -112.3))
    yield "a zone elsewhere", count(shapely.box(10, 50, 11, 51))
    yield "a zone over the antimeridian", count(shapely.Polygon([(170, 40), (-170, 40), (-170, 41), (170, 41)]))
    yield "a bow tie", count(shapely.Polygon([(-112.4, 40.9), (-112.3, 40.95), (-112.3, 40.9), (-112.4, 40.95)]))
    yield "a point", count(shapely.Point(-112.4, 40.9))
    yield "an empty zone", count(shapely.Polygon())
    yield "no geometry", count(None)
    yield "two zones of one name", count(square, square, names=["a", "a"])
    yield "a cube of floats", count(square, lulc=cube.astype(float))
    yield "a cube in UTM", count(square, lulc=cube.rio.write_crs("EPSG:32612"))
    yield "a cube shuffled", count(square, lulc=cube.isel(x=[0, 2, 1]))
    for setting in ("workshop", "s3://", "https://example.org/bucket", "s3://workshop", "s3://no-such-bucket"):

        def open_bucket(setting=setting):
            monkeypatch.setenv("GLAD_BUCKET", setting)
            if setting.endswith("-bucket"):
                for name, value in {
                    "ENDPOINT_URL": bucket.endpoint_url,
                    "ACCESS_KEY_ID": "a",
                    "SECRET_ACCESS_KEY": "b",
                }.items():
                    monkeypatch.setenv(f"AWS_{name}", value)
            stores.open_bucket()

        yield f"a bucket: {setting}", open_bucket
    yield "a picture of an uneven raster", lambda: maps.write_palette_cog(cube[0].isel(x=[0, 2, 1]), tmp_path / "x.tif")
    for name in ("of uint16", "where 0 is no data", "a web page"):
        root = tmp_path / re.sub(r"\W", "-", name)
        yield f"references: {name}", lambda root=root: virtual.open_virtual_tile("50N_120W", 2010, root)
    yield "references below a path with #", lambda: virtual.containers(tmp_path / "a#b")


@pytest.mark.soak
def test_what_people_get_wrong_has_one_clear_error_and_changes_nothing(
    cubes, bucket, tmp_path, no_settings, monkeypatch, record_property
):
    own = (
        tiles.TileError,
        repository.CubeError,
        zonal.ZonalError,
        stores.StoreError,
        virtual.VirtualError,
        ValueError,  # of xarray, for pixels that are not beside each other
    )
    bucket.client().put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/bad/other/photo.jpg", Body=b"x")
    before = [(history(repo), repository.read(repo)[:, :1000, :1000].values) for repo in cubes]
    rows, wrong = [], []
    for what, call in bad_inputs(tmp_path, bucket, monkeypatch):
        try:
            call()
            found = wrong, "nothing was raised"
        except Exception as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
            found = (rows if isinstance(error, own) and len(message) > 40 else wrong), message
        found[0].append(f"{what:36} {found[1]}")
        for repo, (snapshots, pixels) in zip(cubes, before, strict=True):
            assert history(repo) == snapshots, what
            np.testing.assert_array_equal(repository.read(repo)[:, :1000, :1000], pixels)
    assert not wrong, "\n".join(wrong)
    assert len(rows) >= 60
    record_property("figure", "\n".join([f"{len(rows)} bad inputs, each one error and nothing written:", *rows]))
