"""The starter that people take home: built, updated, killed, and compared independently with the files."""

import ast
import importlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
import tomllib
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import icechunk
import nbformat
import numpy as np
import pytest
import rasterio
import zarr
from conftest import ROOT, history
from dask.distributed import Client
from packaging.requirements import Requirement
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.rio.main import main_group
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as warp_transform

from workshop import scenes, stores

MODULES = ("rasters", "update_cube", "build_cube")
SHOWN_ELSEWHERE = {"main", "storage"}  # of the starter's functions, the lesson writes these out as cells
UTM = "EPSG:32612"
PLACE = Affine(20, 0, 752_000, 0, -20, 4_342_000)


def make_starter(to=None):
    given = [] if to is None else [f"TO={to}"]
    return subprocess.run(
        ["make", "--no-print-directory", "starter", *given], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a copy of the starter."""
    folder = tmp_path_factory.mktemp("home") / "my cube"
    if os.name == "nt":  # without make, people copy it by hand
        shutil.copytree(ROOT / "starter", folder)
    else:
        done = make_starter(folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def starter(home, tmp_path, monkeypatch):
    """Return a function that edits the settings of a copy, as users do, and imports its modules."""
    for name in ("RASTERS", "CUBE_BUCKET", "CUBE_PREFIX"):
        monkeypatch.delenv(name, raising=False)

    def edited(*lines):
        folder = tmp_path / "starter"
        shutil.copytree(home, folder)
        text = (folder / "rasters.py").read_text()
        for line in ('ABOUT = {"title": "a", "license": "b", "source": "c"}', *lines):
            name = line.split(" = ")[0]
            text, found = re.subn(rf"(?m)^{name} = .*$", lambda _, line=line: line, text)
            assert found == 1, name
        (folder / "rasters.py").write_text(text)
        (folder / "rasters").mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        for name in MODULES:
            sys.modules.pop(name, None)
        return SimpleNamespace(folder=folder, **{name: importlib.import_module(name) for name in MODULES})

    yield edited
    for name in MODULES:
        sys.modules.pop(name, None)


def write_tif(path, pixels, transform=PLACE, crs=UTM, scale=1.0, offset=0.0, names=(), **profile):
    """Write a GeoTIFF of one band or several."""
    pixels = np.asarray(pixels)
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    count, height, width = pixels.shape
    profile |= {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as dst:
        dst.write(pixels)
        dst.scales, dst.offsets = np.broadcast_to(scale, count), np.broadcast_to(offset, count)
        for k, name in enumerate(names, 1):
            dst.set_band_description(k, name)
    return path


def update(starter, repo, refused=0):
    """Update a cube, and expect that a number of dates is refused."""
    expected = pytest.raises(ValueError, match=f"found {refused} that were not changed") if refused else nullcontext()
    with expected:
        starter.update_cube.update(repo, starter.rasters.take_stock())


def build(starter):
    """Build a cube without Dask, as a run that was killed and continued by an update."""
    stock = starter.rasters.take_stock()
    files = starter.rasters.usable(stock)
    repo = icechunk.Repository.open_or_create(starter.rasters.storage())
    starter.build_cube.create(repo, files, starter.rasters.choose_grid(files))
    starter.update_cube.update(repo, stock)
    return repo


def packed(repo):
    """Return the stored numbers, read with Zarr alone."""
    return zarr.open_group(repo.readonly_session("main").store, mode="r")


def place_of(group):
    return Affine(*group.attrs["spatial:transform"]), tuple(group.attrs["spatial:shape"])


def on_the_grid(paths, group, fill):
    """Return the packed numbers of files at the files' own positions, with rasterio and NumPy alone."""
    here, shape = place_of(group)
    full = None
    for path in paths:
        with rasterio.open(path) as src:
            pixels = src.read()
            column, row = ~here @ (src.transform @ (0.5, 0.5))  # of the middle of the first pixel
            if src.transform.e > 0:
                pixels, row = pixels[:, ::-1], row - (src.height - 1)
        full = np.full((len(pixels), *shape), fill, pixels.dtype) if full is None else full
        np.testing.assert_allclose([row % 1, column % 1], 0.5, atol=0.02)
        full[:, int(row) : int(row) + pixels.shape[1], int(column) : int(column) + pixels.shape[2]] = pixels
    return full


def warped(path, group, method):
    """Return the packed numbers of a file on the cube's grid, from GDAL's warped VRT; NaN where there is no data."""
    here, (height, width) = place_of(group)
    crs = rasterio.CRS.from_wkt(group.attrs["proj:wkt2"])
    how = {"crs": crs, "transform": here, "height": height, "width": width, "resampling": method}
    with rasterio.open(path) as src, WarpedVRT(src, dtype="float32", nodata=-9999, **how) as vrt:
        return np.stack([np.where((band := vrt.read(k)) == -9999, np.nan, band) for k in vrt.indexes])


def assert_not_shifted(found, expected):
    """Assert that a picture matches the expected one best in place, not shifted by a pixel."""

    def likeness(down, right):
        moved = np.roll(found, (down, right), (0, 1))
        both = np.isfinite(moved) & np.isfinite(expected)
        return np.corrcoef(moved[both], expected[both])[0, 1]

    here = likeness(0, 0)
    around = {(down, right): likeness(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right}
    assert here > max(around.values()) + 0.01, (here, around)


def seconds(*dates):
    return np.array(dates, "datetime64[s]").astype("int64")


def assert_is_the_valley(repo, paths):
    """Compare every date with its file (the highest processing), independently of the starter."""
    group = packed(repo)
    newest = {path.name.split("_")[1]: path for path in sorted(paths)}
    np.testing.assert_array_equal(
        group["time"], seconds(*(f"{date[:4]}-{date[4:6]}-{date[6:]}" for date in sorted(newest)))
    )
    assert group["time"].attrs["units"] == "seconds since 1970-01-01"
    here, (height, width) = place_of(group)
    kinds = {"copied": 0, "resampled": 0}
    x = here.c + here.a * (np.arange(width) + 0.5)
    y = here.f + here.e * (np.arange(height) + 0.5)
    np.testing.assert_array_equal(group["x"], x)
    np.testing.assert_array_equal(group["y"], y)
    for k, (date, path) in enumerate(sorted(newest.items())):
        step = np.stack([group[band][k] for band in scenes.BANDS])
        assert step.dtype == np.int16
        if "_12N_" in path.name and date != "20200703":
            kinds["copied"] += 1
            np.testing.assert_array_equal(step, on_the_grid([path], group, scenes.NODATA), err_msg=date)
            continue
        kinds["resampled"] += 1
        values = np.where(step == scenes.NODATA, np.nan, step)
        by_gdal = warped(path, group, Resampling.bilinear)
        assert (np.isnan(values) != np.isnan(by_gdal)).mean() < 1e-4, date
        truth = scenes.reflectance(*np.meshgrid(x, y), date)
        for band, gdal, true in zip(values, by_gdal, truth, strict=True):
            assert np.nanmedian(np.abs(band - gdal)) <= 0.5, date  # it's rounded
            assert np.nanmedian(np.abs(band * scenes.SCALE - true)) < 0.003, date
            if "_13N_" in path.name:
                assert_not_shifted(band, true)
        if date == "20200703":  # halfway between four pixels is their mean, to half a unit of rounding
            with rasterio.open(path) as src:
                pixels = src.read().astype("float64")
            mean = (pixels[:, :-1, :-1] + pixels[:, :-1, 1:] + pixels[:, 1:, :-1] + pixels[:, 1:, 1:]) / 4
            column, row = ~here @ (src.transform @ (1, 1))  # where the first four meet
            inside = values[:, int(row) :, int(column) :][:, : mean.shape[1], : mean.shape[2]]
            np.testing.assert_allclose(inside, mean, rtol=0, atol=0.51)
    return kinds


def test_make_starter_copies_all_files_and_overwrites_none(home, tmp_path):
    if os.name == "nt":
        pytest.skip("people copy the folder by hand on Windows")
    given = subprocess.run(["git", "ls-files", "starter"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert sorted(f"starter/{path.relative_to(home).as_posix()}" for path in home.rglob("*") if path.is_file()) == (
        sorted(given.stdout.split())
    )
    nowhere = make_starter()
    assert nowhere.returncode and "make starter TO=../my-cube" in nowhere.stderr
    (home / "rasters.py").write_text(own := (home / "rasters.py").read_text())
    (tmp_path / "a file").write_text("mine")
    for taken in (home, tmp_path / "a file"):
        refused = make_starter(taken)
        assert refused.returncode and f"{taken}: expected a new or empty folder" in refused.stderr
    assert (home / "rasters.py").read_text() == own and (tmp_path / "a file").read_text() == "mine"


def imported():
    """Return the names of the packages that the starter imports."""
    names = set()
    for path in (ROOT / "starter").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    return {name.replace("_", "-") for name in names} - {*sys.stdlib_module_names, *MODULES, "update-cube"}


def test_requirements_are_what_the_starter_imports_with_the_bounds_of_the_workshop():
    lines = (ROOT / "starter" / "requirements.txt").read_text().splitlines()
    required = [line for line in lines if not line.startswith("#")]
    assert {Requirement(line).name for line in required} == imported()
    assert set(required) <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def test_readme_and_workflow_name_what_there_is():
    readme = (ROOT / "starter" / "README.md").read_text()
    workflow = (ROOT / "starter" / ".github" / "workflows" / "update.yml").read_text()
    tree = ast.parse((ROOT / "starter" / "rasters.py").read_text())
    targets = [name for node in tree.body if isinstance(node, ast.Assign) for name in ast.walk(node.targets[0])]
    settings = {name.id for name in targets if isinstance(name, ast.Name)} - {"FOLDER"}
    rows = re.findall(r"^\| ([`A-Z, ]+) \|", readme.split("## Look at each")[1].split("\n## ")[0], flags=re.MULTILINE)
    assert set(re.findall(r"[A-Z]+", " ".join(rows))) == settings
    source = "".join(path.read_text() for path in (ROOT / "starter").glob("*.py"))
    for name in re.findall(r'environ\.get\("(\w+)"', source):
        assert name in readme and (name in workflow or name in ("RASTERS", "AWS_ENDPOINT_URL"))
    for name in re.findall(r"\b\w+\.py\b", readme + workflow):
        assert (ROOT / "starter" / name).is_file(), name
    printed = readme.split("## When a file is left out")[1].split("\n## ")[0]
    for text in re.findall(r"\*([a-z][\w ]+)\*", printed):
        assert text in source, text


# The scripts themselves, on a bucket.


@pytest.fixture
def bucket_settings(starter, monkeypatch, no_settings):
    """Start a bucket for the test, with the settings in the starter's README; return bucket and server."""
    bucket, server = stores.counted_bucket()
    for name, value in {
        "CUBE_BUCKET": bucket.name,
        "CUBE_PREFIX": f"{bucket.prefix}/valley",
        "AWS_REGION": bucket.region,
        "AWS_ENDPOINT_URL": bucket.endpoint_url,
        "AWS_ACCESS_KEY_ID": bucket.credentials["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": bucket.credentials["secret_access_key"],
    }.items():
        monkeypatch.setenv(name, value)
    with server:
        yield bucket, server


def run(script, folder):
    done = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    # on a busy machine, Dask warns of workers that end late
    noise = [line for line in done.stderr.splitlines() if not re.search(r"distributed\.\w+ - WARNING", line)]
    assert done.returncode == 0 and not noise, done.stderr
    return done.stdout


def test_the_scripts_build_and_update_a_cube_in_a_bucket(bucket_settings, starter):
    starter = starter()
    archive = scenes.write_archive(starter.folder / "rasters")
    stock = run("build_cube.py", starter.folder).splitlines()[1:]
    assert [line.split()[1] for line in stock] == sorted(path.name for path in archive.iterdir())
    assert [line.split()[1] for line in stock if "cannot be read" in line] == [scenes.TRUNCATED]

    repo = icechunk.Repository.open(starter.rasters.storage())
    whole = [path for path in archive.iterdir() if path.name != scenes.TRUNCATED]
    assert assert_is_the_valley(repo, whole) == {"copied": 7, "resampled": 3}
    built = history(repo)
    starter.update_cube.main()
    assert history(repo) == built

    scenes.deliver(archive)
    expected = ["2020-06-05", "2020-10-16", "2020-11-01", "2020-12-03"]
    assert run("update_cube.py", starter.folder) == "".join(f"written: {date} 00:00:00\n" for date in expected)
    assert assert_is_the_valley(repo, archive.iterdir()) == {"copied": 10, "resampled": 3}
    updated = history(repo)
    assert updated[len(expected) :] == built
    assert {repo.lookup_tag(name) for name in repo.list_tags()} == {built[0], updated[0]}
    starter.update_cube.main()
    assert history(repo) == updated
    past = zarr.open_group(repo.readonly_session(snapshot_id=built[0]).store, mode="r")
    assert past["time"].shape[0] == past["red"].shape[0] == 10


def copy_prefix(bucket, source, target):
    """Copy all objects of a cube, which gives an independent cube."""
    client = bucket.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=f"{source}/"):
        for item in page["Contents"]:
            there = {"Bucket": bucket.name, "Key": item["Key"]}
            client.copy_object(Bucket=bucket.name, Key=target + item["Key"].removeprefix(source), CopySource=there)


def content(repo):
    """Return all numbers and attributes of a cube."""
    group = packed(repo)
    return {name: array[...].tobytes() for name, array in group.arrays()} | {"": dict(group.attrs)}


BEFORE = [scene for scene in scenes.ARCHIVE if scene.date in ("20200412", "20201016", "20201117")]


class Killed:
    """A cube and a delivery whose update is killed repeatedly, each time on a new copy."""

    def __init__(self, starter, bucket, server, monkeypatch):
        self.starter, self.bucket, self.server, self.monkeypatch = starter, bucket, server, monkeypatch
        self.base = os.environ["CUBE_PREFIX"]
        archive = starter.folder / "rasters"
        for scene in BEFORE:
            scenes._write_scene(scene, archive)
        build(starter)
        for scene in scenes.LATER:
            scenes._write_scene(scene, archive)
        self.copies = 0
        repo = self.copy()
        self.start = history(repo)
        server.reset()
        starter.update_cube.main()
        self.puts = self.count_puts()
        self.length = len(history(repo))
        self.complete = content(repo)
        assert_is_the_valley(repo, archive.iterdir())

    def count_puts(self):
        return sum(request.method == "PUT" for request in self.server.requests)

    def copy(self):
        self.copies += 1
        prefix = f"{self.base}-{self.copies}"
        copy_prefix(self.bucket, self.base, prefix)
        self.monkeypatch.setenv("CUBE_PREFIX", prefix)
        return icechunk.Repository.open(self.starter.rasters.storage())

    def kill_when(self, moment):
        """Kill an update at a moment (a function of the repository), complete it, and return its commits by then."""
        repo = self.copy()
        self.server.reset()
        script = subprocess.Popen(
            [sys.executable, "update_cube.py"],
            cwd=self.starter.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while not moment(repo):
            assert script.poll() is None, script.stderr.read().decode()
            time.sleep(0.01)
        script.kill()
        script.communicate()
        found = history(repo)
        done = len(found) - len(self.start)
        assert found[done:] == self.start
        group, dates = packed(repo), len(BEFORE) + (done > 0) + (done > 2) + (done > 3)  # one of four replaces a date
        assert {group[name].shape[0] for name in ("time", *scenes.BANDS)} == {dates}
        self.starter.update_cube.main()
        assert len(history(repo)) == self.length and content(repo) == self.complete
        return done


@pytest.fixture
def killed(bucket_settings, starter, monkeypatch):
    return Killed(starter(), *bucket_settings, monkeypatch)


def test_a_killed_update_goes_on_to_the_same_cube(killed):
    assert killed.kill_when(lambda repo: killed.count_puts() > 2) == 0  # chunks are written, and no commit is in
    assert 0 < killed.kill_when(lambda repo: history(repo) != killed.start) < killed.length - len(killed.start)


@pytest.mark.soak
def test_updates_killed_at_random_moments_go_on_to_the_same_cube(killed, record_property):
    rng = random.Random(10)
    done = [killed.kill_when(lambda repo, n=n: killed.count_puts() >= n) for n in rng.sample(range(1, killed.puts), 12)]
    assert len(set(done)) > 2, "the kills did not fall in all parts of the work"
    record_property(
        "figure", f"the starter: {len(done)} updates killed after {sorted(done)} commits, all completed alike"
    )


@pytest.mark.soak
def test_killed_builds_are_completed(bucket_settings, starter, monkeypatch, record_property):
    starter, (_, server) = starter(), bucket_settings
    archive = scenes.write_archive(starter.folder / "rasters")
    whole = [path for path in archive.iterdir() if path.name != scenes.TRUNCATED]
    base, states = os.environ["CUBE_PREFIX"], []
    for puts in (1, 4, 8, 30, 60):
        monkeypatch.setenv("CUBE_PREFIX", f"{base}-{puts}")
        server.reset()
        script = subprocess.Popen([sys.executable, "build_cube.py"], cwd=starter.folder, stdout=subprocess.DEVNULL)
        while script.poll() is None and sum(request.method == "PUT" for request in server.requests) < puts:
            time.sleep(0.01)
        script.kill()
        script.wait()
        repo = icechunk.Repository.open_or_create(starter.rasters.storage())
        states.append(len(history(repo)) - 1)
        if states[-1] == 0:
            with pytest.raises(SystemExit, match="there is no cube yet"):
                starter.update_cube.main()
            run("build_cube.py", starter.folder)
        else:
            with pytest.raises(SystemExit, match=r"update_cube\.py completes it"):
                starter.build_cube.main()
            starter.update_cube.main()
        assert_is_the_valley(repo, whole)
    assert {0, 1} <= set(states)
    record_property("figure", f"the starter: builds killed after {states} commits, all completed")


# Other archives, in folders.


def test_a_folder_and_what_the_scripts_refuse(starter, monkeypatch, capsys):
    starter = starter()
    monkeypatch.setattr(
        starter.build_cube, "Client", partial(Client, processes=False, protocol="tcp", host="127.0.0.1")
    )
    with pytest.raises(SystemExit, match=r"no cube yet: build_cube\.py builds it"):
        starter.update_cube.main()
    with pytest.raises(ValueError, match="rasters: expected GeoTIFFs that can be used, found 0 that cannot: none"):
        starter.build_cube.main()
    for scene in scenes.ARCHIVE[:3]:
        scenes._write_scene(scene, starter.folder / "rasters")
    large = np.full((2, 20, 20), 40_000, "uint16")
    path = write_tif(starter.folder / "rasters" / "20200101.tif", large, scale=0.0001, names=scenes.BANDS, nodata=0)
    with pytest.raises(SystemExit, match=r"(?s)do they fit into int16.*delete the folder `cube`, or set another CUBE_"):
        starter.build_cube.main()
    path.unlink()
    shutil.rmtree("cube")
    starter.build_cube.main()
    repo = icechunk.Repository.open(icechunk.local_filesystem_storage(str(starter.folder / "cube")))
    assert assert_is_the_valley(repo, (starter.folder / "rasters").iterdir()) == {"copied": 2, "resampled": 1}
    for attributes in (packed(repo).attrs, packed(repo)["red"].attrs):
        assert attributes["proj:wkt2"].startswith("PROJCRS") and attributes["spatial:dimensions"] == ["y", "x"]
    with pytest.raises(
        SystemExit, match=r"the cube exists: .* completes it; to build again .*, delete the folder `cube`"
    ):
        starter.build_cube.main()

    capsys.readouterr()
    (snippet,) = re.findall(r"```python\n(.*?)```", (starter.folder / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(snippet, "README.md", "exec"), {})
    in_file, in_cube = map(float, capsys.readouterr().out.split())
    assert in_file == pytest.approx(in_cube, abs=1e-9)


def degrees(columns_from_origin, rows_from_origin, size=0.00025):
    return Affine(size, 0, -112 + columns_from_origin * size, 0, -size, 41 - rows_from_origin * size)


def test_classes_in_degrees_one_date_per_year(starter):
    """Two tiles per year: 0 is a class, and 255 is no data, which only one file declares."""
    starter = starter('CLASSES = ("band_1",)', 'DATE, FORMAT = r"(\\d{4})", "%Y"', "NODATA = 255")
    rng, folder = np.random.default_rng(1), starter.folder / "rasters"
    classes = rng.choice(np.array([0, 7, 244, 254, 255], "uint8"), (3, 2, 300, 310))
    paths = {}
    for year, tiles in zip((2000, 2005, 2010), classes, strict=True):
        for k, tile in enumerate(tiles):
            where = degrees(310 * k, 5 * k + (year == 2010) * 0.5)
            declared = {"nodata": 255} if year == 2005 else {}
            paths[year, k] = write_tif(folder / str(year) / f"{'ab'[k]}.tif", tile, where, "EPSG:4326", **declared)
    repo = build(starter)
    group = packed(repo)
    assert group["band_1"].dtype == np.uint8 and group["band_1"].fill_value == 255
    np.testing.assert_array_equal(group["time"], seconds("2000-01-01", "2005-01-01", "2010-01-01"))
    for k, year in enumerate((2000, 2005)):
        expected = on_the_grid([paths[year, 0], paths[year, 1]], group, 255)
        np.testing.assert_array_equal(group["band_1"][k], expected[0])
    moved = group["band_1"][2]  # by half a pixel: no class that there was not, and each half at its place
    assert set(np.unique(moved)) == {0, 7, 244, 254, 255}
    for name, columns in (("a", slice(0, 310)), ("b", slice(310, 620))):
        tile = rasterio.open(folder / "2010" / f"{name}.tif").read(1)
        here = moved[:, columns]
        top = 5 * (name == "b")
        matches = max((here[top + d : top + d + 300] == tile[: len(here[top + d :])]).mean() for d in (0, 1))
        assert matches == 1.0


def test_classes_with_another_nodata_are_recoded_and_never_collide(starter, capsys):
    starter = starter('CLASSES = ("band_1",)', 'DATE, FORMAT = r"(\\d{4})", "%Y"')
    folder, classes = starter.folder / "rasters", np.arange(400, dtype="uint8").reshape(20, 20) % 5
    for year in (2000, 2001):
        write_tif(folder / f"{year}.tif", np.where(classes == 4, 255, classes), nodata=255)
    write_tif(folder / "2002.tif", np.where(classes == 0, 9, classes), nodata=9)
    repo = build(starter)
    stored = packed(repo)["band_1"][:]
    np.testing.assert_array_equal(stored[0], np.where(classes == 4, 255, classes))
    np.testing.assert_array_equal(stored[2], np.where(classes == 0, 255, classes))
    before = history(repo)
    for year, pixels in ((2003, np.where(classes == 3, 255, classes)), (2004, classes.astype("uint16") * 100)):
        path = write_tif(folder / f"{year}.tif", pixels, nodata=9)
        update(starter, repo, refused=1)
        assert re.search(rf"expected classes of uint8, and 255 only for no data.*{year}", capsys.readouterr().out)
        path.unlink()
    assert history(repo) == before


def test_floats_with_nan_on_a_grid_that_begins_anywhere(starter):
    """Pixels of 30 m in degrees, as in many exports, and files that share a grid far from its origin."""
    starter = starter()
    size, rng, folder = 0.00026949458523585647, np.random.default_rng(2), starter.folder / "rasters"
    paths = []
    for k, date in enumerate((20200101, 20200102, 20200103)):
        pixels = rng.random((2, 60, 70)).astype("float32")
        pixels[0, 10:20, 5 * k : 5 * k + 9] = np.nan
        where = degrees(0.37 + 31 * k, 0.81 + 17 * k, size)
        paths.append(write_tif(folder / f"{date}.tif", pixels, where, "EPSG:4326", nodata=np.nan, names=("a", "b")))
    stock = starter.rasters.take_stock()
    assert stock["alignment"].nunique() == 1 and not stock["problem"].any()
    begins = {
        starter.rasters.alignment(rasterio.CRS.from_string(UTM), 10, 10, 10 * k + 0.6, 0) for k in (9, 32_767, 70_000)
    }
    assert len(begins) == 1  # however many digits are left for the share of a pixel
    group = packed(build(starter))
    assert group["a"].dtype == np.float32 and np.isnan(group["a"].fill_value)
    for k, path in enumerate(paths):
        step = np.stack([group[band][k] for band in "ab"])
        np.testing.assert_array_equal(step, on_the_grid([path], group, np.nan))


def test_one_band_per_file_each_with_a_type_of_its_own(starter):
    starter = starter(r'BAND = r"_(B\w+|SCL)\."', "NODATA = 0")
    rng, folder = np.random.default_rng(3), starter.folder / "rasters"
    bands = {
        "B04": ("uint16", {"scale": 0.0001, "offset": -0.1}),
        "B8A": ("int16", {"scale": 0.0002, "nodata": -1}),
        "SCL": ("uint8", {}),
    }
    for date in (20200101, 20200103):
        for name, (dtype, how) in bands.items():
            pixels = rng.integers(0, np.iinfo(dtype).max, (40, 50), dtype=dtype, endpoint=True)
            write_tif(folder / f"{date}" / f"T12_{name}.tif", pixels, **how)
    write_tif(folder / "20200103" / "preview.tif", np.ones((3, 4, 5), "uint8"))
    write_tif(folder / "20200103" / "T12_B12.tif", np.ones((3, 4, 5), "uint8"))
    stock = starter.rasters.take_stock()
    left_out = stock[stock["problem"] != ""]
    assert [name.split("/")[1] for name in left_out["file"]] == ["T12_B12.tif", "preview.tif"]
    assert (left_out["problem"] == "expected one band, named in its path: set BAND").all()
    repo = build(starter)
    group = packed(repo)
    for name, (dtype, how) in bands.items():
        assert group[name].dtype == dtype and group[name].fill_value == how.get("nodata", 0)
        assert group[name].attrs.get("scale_factor", 1) == how.get("scale", 1)
        assert group[name].attrs.get("add_offset", 0) == how.get("offset", 0)
        for k, date in enumerate((20200101, 20200103)):
            path = folder / f"{date}" / f"T12_{name}.tif"
            np.testing.assert_array_equal(group[name][k], on_the_grid([path], group, 0)[0])


def test_dates_with_hours_and_late_ones_between_and_before_them(starter):
    starter = starter(r'DATE, FORMAT = r"_(\d{8}T\d{6})_", "%Y%m%dT%H%M%S"', "VERSION = None", "CHUNKS = (16, 16)")
    rng, paths = np.random.default_rng(4), {}

    def arrive(hour, number, columns):
        """Write a scene that fills different chunks from its neighbors."""
        path = starter.rasters.FOLDER / f"S2_20200101T{hour}_P{number}.tif"
        where = PLACE @ Affine.translation(columns, 0)
        paths[hour] = write_tif(path, rng.integers(1, 9, (20, 20), dtype="int16"), where, nodata=0)

    arrive("101559", 14, 0)
    arrive("221559", 15, 40)
    repo = build(starter)
    for late in (("120000", 16, 20), ("080000", 17, 10)):
        arrive(*late)
        starter.update_cube.update(repo, starter.rasters.take_stock())
    group = packed(repo)
    moments = (f"2020-01-01T{hour[:2]}:{hour[2:4]}:{hour[4:]}" for hour in sorted(paths))
    np.testing.assert_array_equal(group["time"], seconds(*moments))
    expected = [on_the_grid([path], group, 0)[0] for _, path in sorted(paths.items())]
    np.testing.assert_array_equal(group["band_1"], expected)


def test_two_zones_half_and_half(starter):
    """Two UTM zones share a date. The grid is in one zone, and the other zone's south-up files are resampled."""
    starter = starter()
    folder, date = starter.folder / "rasters", "20200720"
    sides = {
        "12N": scenes.Scene(date, "12N", 752_000, 4_342_000, columns=140),
        "13N": scenes.Scene(date, "13N", 235_000, 4_341_000, columns=150, rows=200, south_up=True),
    }
    paths = {zone: scenes._write_scene(scene, folder) for zone, scene in sides.items()}
    group = packed(build(starter))
    crs = rasterio.CRS.from_wkt(group.attrs["proj:wkt2"])
    (own,) = [zone for zone in sides if crs == rasterio.CRS.from_string(f"EPSG:326{zone[:2]}")]
    (other,) = {*sides} - {own}
    step = np.stack([group[band][0] for band in scenes.BANDS])
    copied, resampled = (
        on_the_grid([paths[own]], group, scenes.NODATA),
        warped(paths[other], group, Resampling.bilinear),
    )
    with rasterio.open(paths[other]) as src:
        assert np.isfinite(resampled[0]).sum() == pytest.approx(src.width * src.height, rel=0.01)  # nothing is cut off
    there = copied != scenes.NODATA
    np.testing.assert_array_equal(step[there], copied[there])
    assert ((step != scenes.NODATA) == (there | np.isfinite(resampled))).mean() > 0.9999
    beside = np.where(there | (step == scenes.NODATA), np.nan, step)
    assert np.isfinite(beside).sum() > 20_000
    assert np.nanmedian(np.abs(beside - resampled)) <= 0.5
    here, (height, width) = place_of(group)
    xs, ys = np.meshgrid(here.c + here.a * (np.arange(width) + 0.5), here.f + here.e * (np.arange(height) + 0.5))
    if crs != rasterio.CRS.from_string(UTM):
        xs, ys = (np.reshape(c, xs.shape) for c in warp_transform(crs, UTM, xs.ravel(), ys.ravel()))
    for band, truth in zip(beside, scenes.reflectance(xs, ys, date), strict=True):
        assert np.nanmedian(np.abs(band * scenes.SCALE - truth)) < 0.003
        assert_not_shifted(band, truth)


def test_pixels_under_a_mask_are_no_data(starter):
    starter = starter("NODATA = 0")
    path = write_tif(starter.folder / "rasters" / "20200101.tif", np.full((20, 20), 7, "uint8"))
    mask = np.ones((20, 20), bool)
    mask[3:5, :9] = False
    with rasterio.open(path, "r+") as dst:
        dst.write_mask(mask)
    np.testing.assert_array_equal(packed(build(starter))["band_1"][0], np.where(mask, 7, 0))


# How two files are stored, how a third one is, and whether the cube holds it exactly.
F4 = {"dtype": "float32"}
PACKINGS = {
    "floats": ({}, F4, False),
    "longer floats": (F4, {"dtype": "float64"}, False),
    "a finer scale": ({"scale": 0.01}, {"scale": 0.0001}, False),
    "another offset": ({"offset": 0.5}, {}, False),
    "a coarser scale": ({"scale": 0.0001, "offset": -0.1}, {"scale": 0.01}, True),
    "floats with an offset": (F4 | {"scale": 0.1, "offset": -273.15}, F4 | {"scale": 0.1, "offset": -273.15}, True),
}


@pytest.mark.parametrize("case", PACKINGS)
def test_a_cube_holds_each_number_exactly_or_refuses_the_file(case, starter, capsys):
    starter, (most, other, fits) = starter(), PACKINGS[case]
    pixels = np.arange(400).reshape(20, 20) % 200

    def write(name, dtype="int16", **how):
        stored = (pixels / 8 if "float" in dtype else pixels).astype(dtype)
        write_tif(starter.rasters.FOLDER / f"{name}.tif", stored, nodata=-1, **how)
        return stored * how.get("scale", 1) + how.get("offset", 0)

    values = [write("20200101_P1", **most), write("20200102_P1", **most), write("20200103_P1", **other)]
    if not fits:
        with pytest.raises(ValueError, match=r"as in 2020010\d_P1\.tif; 20200103_P1.tif has .*rio calc"):
            build(starter)
        (starter.rasters.FOLDER / "20200103_P1.tif").unlink()
    repo = build(starter)
    band = starter.rasters.read(repo.readonly_session("main"))["band_1"]
    np.testing.assert_allclose(band, values[: 2 + fits], rtol=1e-6, atol=1e-5)
    before = history(repo)
    write("20200102_P2", **other)  # delivered again
    update(starter, repo, refused=int(not fits))
    assert (history(repo) != before) == fits and ("20200102_P2.tif has " in capsys.readouterr().out) != fits


def test_a_date_that_is_refused_stops_no_other(starter, capsys):
    starter = starter()

    def write(name, bands, pixels=7, dtype="int16", crs=UTM):
        pixels = np.full((len(bands), 20, 20), pixels, dtype)
        write_tif(starter.rasters.FOLDER / f"{name}.tif", pixels, crs=crs, names=bands, nodata=0)

    write("20200101_P1", ["red", "nir"])
    repo = build(starter)
    write("20200101_P2", ["red"])
    write("20200102", ["red", "nir", "swir"])
    write("20200103", ["red", "nir"], 40_000, "uint16")
    write("20200104_a", ["red"])
    write("20200104_b", ["red"])
    write("20200105", ["red"], crs="EPSG:4326")
    write("20200106", ["red"])  # without nir, which the date never had
    update(starter, repo, refused=5)
    refused = capsys.readouterr().out.splitlines()
    assert refused.pop() == "written: 2020-01-06 00:00:00"
    reasons = (
        "nir of this date came from an older file",
        "20200102.tif has the band swir, expected .*nir",
        ".* of .*20200103.tif.*: expected to read what was written, found 400 other numbers: do they fit into int16",
        ".* found 20200104_a.tif and 20200104_b.tif",
        "20200105.tif: expected west < east in EPSG:32612, found inf",
    )
    for day, (reason, line) in enumerate(zip(reasons, refused[-5:], strict=True), 1):
        assert re.match(f"not changed: 2020-01-0{day} 00:00:00 {reason}", line), line
    np.testing.assert_array_equal(packed(repo)["time"], seconds("2020-01-01", "2020-01-06"))


# Where two files are, where a third one is, and the one that is named.
FIJI = {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 177, 0, -0.01, -16)}
FAR = {
    "across the antimeridian": (
        FIJI,
        {"crs": "EPSG:32760", "transform": Affine(10_000, 0, 720_000, 0, -10_000, 8.2e6)},
    ),
    "meters said to be degrees": ({}, {"crs": "EPSG:4326"}),
    "another zone": ({}, {"crs": "EPSG:32632"}),
}


@pytest.mark.parametrize("case", FAR)
def test_a_file_in_an_impossible_place_is_named(case, starter):
    starter = starter()
    for date, where in zip((20200101, 20200102, 20200103), (FAR[case][0], *FAR[case]), strict=True):
        path = write_tif(starter.rasters.FOLDER / f"{date}.tif", np.ones((20, 20), "int16"), nodata=0, **where)
    with pytest.raises(ValueError, match=r"^20200103\.tif: expected .* CRS right"):
        build(starter)
    if case == "across the antimeridian":
        bounds = ["--dst-crs", "EPSG:4326", "--dst-bounds", "177", "-18", "180", "-16", "--res", "0.01"]
        main_group(["warp", str(path), str(path.with_name("20200104.tif")), *bounds], standalone_mode=False)
        path.unlink()
        assert build(starter)


def test_a_processing_number_may_be_in_the_path_twice(starter):
    starter = starter(r'VERSION = r"(?<=\d{8}_)(\d{8})"')
    names = [f"LC09_038032_20230614_{made}_02" for made in ("20230616", "20230801")]
    found = [starter.rasters.processing(f"{name}/{name}_SR_B4.TIF") for name in names]
    assert found[0][0] == found[1][0] and [number for _, number in found] == [20230616, 20230801]


def test_an_update_keeps_what_files_that_are_gone_have_given(starter, capsys):
    starter = starter()
    folder = starter.folder / "rasters"
    west, east = (np.full((20, 20), value, "int16") for value in (1, 2))
    first = write_tif(folder / "20200101_a_P1.tif", west, nodata=0)
    second = write_tif(folder / "20200101_b_P1.tif", east, PLACE @ Affine.translation(20, 0), nodata=0)
    repo = build(starter)
    before, whole = history(repo), second.read_bytes()

    def updated(refused=0):
        capsys.readouterr()
        update(starter, repo, refused)
        return capsys.readouterr().out

    for content in (whole[: len(whole) // 2], None):  # broken, missing
        second.write_bytes(content) if content else second.unlink()
        assert updated(refused=1) == (
            "not changed: 2020-01-01 00:00:00 was made from files that are missing or broken now: 20200101_b_P1.tif\n"
        )
    assert history(repo) == before
    write_tif(folder / "20200101_b_P2.tif", east + 1, PLACE @ Affine.translation(20, 0), nodata=0)
    assert updated() == "written: 2020-01-01 00:00:00\n"  # a newer processing replaces it
    np.testing.assert_array_equal(packed(repo)["band_1"][0], np.hstack([west, east + 1]))

    write_tif(folder / "20200102.tif", west, PLACE @ Affine.translation(30, 0), nodata=0)
    assert updated() == (
        "cut off: 2020-01-02 00:00:00 reaches beyond the cube in 20200102.tif\nwritten: 2020-01-02 00:00:00\n"
    )
    np.testing.assert_array_equal(packed(repo)["band_1"][1, :, 30:], west[:, :10])
    assert first.is_file()


# An odd file of each kind, its problem, and the command of rasterio that the problem names.
WARP = ["warp", "--dst-crs", UTM]
POINTS = [GroundControlPoint(r, c, 752_000 + 20 * c + r, 4.3e6 - 20 * r) for r in (0, 20) for c in (0, 20)]
ODD = {
    "no CRS": ({"crs": None}, "no CRS: `rio edit-info --crs`", ["edit-info", "--crs", UTM]),
    "no place": (
        {"transform": Affine.identity()},
        "no place: `rio edit-info --transform`",
        ["edit-info", "--transform", "[20, 0, 752000, 0, -20, 4342000]"],
    ),
    "sheared": ({"transform": PLACE @ Affine.shear(0, 5)}, "rotated, or has control points: use `rio warp", WARP),
    "rotated": ({"transform": PLACE @ Affine.rotation(30)}, "rotated, or has control points: use `rio warp", WARP),
    "points": ({"gcps": POINTS, "transform": None}, "rotated, or has control points: use `rio warp", WARP),
    "scales": (
        {"scale": (0.01, 1)},
        "scales: unpack each with `rio calc`",
        ["calc", "--masked", "(* 0.01 (read 1 1))"],
    ),
    "64 bits": ({"dtype": "int64"}, "fit into 32 bits, use `rio convert --dtype`", ["convert", "--dtype", "int32"]),
    "no nodata": ({"nodata": None}, "declares no nodata: set NODATA", ["edit-info", "--nodata", "0"]),
    "floats": ({"nodata": None, "dtype": "float32"}, "no nodata: set NODATA", ["edit-info", "--nodata", "nan"]),
    "256": (
        {"nodata": None, "dtype": "uint8", "NODATA": 256},
        "nodata 256 is no uint8",
        ["edit-info", "--nodata", "0"],
    ),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("odd", ODD)
def test_what_a_problem_advises_helps(odd, starter):
    how, problem, (command, *options) = ODD[odd]
    starter, how = starter(), {"nodata": 0, "dtype": "int16"} | how
    starter.rasters.NODATA, pixels = how.pop("NODATA", None), np.ones((2, 20, 20), how.pop("dtype"))
    path = helped = write_tif(starter.rasters.FOLDER / "20200101.tif", pixels, **how)
    assert problem in starter.rasters.look_at(path)["problem"]
    if command != "edit-info":
        helped = path.with_name("20200102.tif")
        options.append(str(path))
    main_group([command, *options, str(helped)], standalone_mode=False)
    assert starter.rasters.look_at(helped)["problem"] == ""


def test_what_cannot_be_read_is_named_and_left_out(starter):
    starter = starter()
    folder = starter.folder / "rasters"
    whole = write_tif(folder / "20200101.tif", np.ones((64, 64), "int16"), nodata=0).read_bytes()
    for k, content in enumerate((b"", b"<html>not found</html>", whole[:5], whole[: len(whole) // 2])):
        (folder / f"2020020{k + 1}.tif").write_bytes(content)
    (folder / "20200301.tif").mkdir()
    write_tif(folder / "20201301.tif", np.ones((4, 4), "int16"), nodata=0)
    write_tif(folder / "20200302_Pnone_P.tif", np.ones((2, 4, 4), "float32"), nodata=np.nan)
    write_tif(folder / "undated.tif", np.ones((4, 4), "int16"), nodata=0)
    write_tif(folder / "20200304" / "dem.tif", np.array([[1.5, np.nan]]))  # NaN needs no declaration
    stock = starter.rasters.take_stock().set_index("file")["problem"]
    usable = ["20200101.tif", "20200302_Pnone_P.tif", "20200304/dem.tif"]
    assert (stock[usable] == "").all()
    assert stock.pop("undated.tif") == "no date in its path: set DATE and FORMAT, or put a date into a folder's name"
    assert stock.pop("20201301.tif").startswith("check DATE, FORMAT and VERSION against its path: ")
    assert stock.drop(usable).str.startswith("cannot be read: ").all()
    assert len(stock) == 8


def test_a_cube_of_any_size_is_created_without_computing(starter):
    starter = starter()
    for name, where in (("20200101", PLACE), ("20200102", PLACE @ Affine.translation(36_000, 27_000))):
        write_tif(starter.rasters.FOLDER / f"{name}.tif", np.ones((3000, 4000), "uint8"), where, nodata=0)
    files = starter.rasters.usable(starter.rasters.take_stock())
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    starter.build_cube.create(repo, files, starter.rasters.choose_grid(files))
    array = packed(repo)["band_1"]
    assert array.shape == (2, 30_000, 40_000) and array.chunks == (1, 256, 256) and array.nchunks_initialized == 0


def test_a_format_that_fits_by_chance_is_refused(starter):
    """2019033 is February 2, but Python reads it as March 3 if it expects a month and a day."""
    starter = starter('DATE, FORMAT = r"A(\\d{7})", "%Y%m%d"')
    path = write_tif(starter.folder / "rasters" / "A2019033.tif", np.ones((8, 8), "uint8"), nodata=0)
    problem = starter.rasters.look_at(starter.rasters.FOLDER / path.name)["problem"]
    assert "FORMAT %Y%m%d does not fit 2019033" in problem
    starter.rasters.FORMAT = "%Y%j"
    line = starter.rasters.look_at(starter.rasters.FOLDER / path.name)
    assert line["problem"] == "" and line["date"].isoformat() == "2019-02-02T00:00:00"


def test_two_files_for_one_place_date_and_band_are_refused(starter):
    starter = starter()
    rasters, folder = starter.rasters, starter.folder / "rasters"
    write_tif(folder / "a_20200105_B4.tif", np.ones((40, 40), "int16"), nodata=-1)
    for name, shift in (("b_20200105_B5.tif", 1), ("c_20200105.tif", 39)):
        path = write_tif(folder / name, np.ones((40, 40), "int16"), PLACE @ Affine.translation(shift, 0), nodata=-1)
        if shift == 1:  # the second band of an archive with a file per band, say
            with pytest.raises(
                ValueError, match=r"expected one file per place and band, found a_20200105_B4\.tif and b_"
            ):
                rasters.usable(rasters.take_stock())
            path.unlink()
    assert list(rasters.usable(rasters.take_stock())["file"]) == ["a_20200105_B4.tif", "c_20200105.tif"]


def test_codes_beside_measurements_are_never_averaged(starter):
    starter = starter('CLASSES = ("QA",)')
    folder, half = starter.folder / "rasters", PLACE @ Affine.translation(0.5, 0.5)
    codes = np.where(np.add.outer(np.arange(40), np.arange(40)) % 2, 2, 258).astype("int16")
    for date, place in (("20200105", PLACE), ("20200106", PLACE), ("20200107", half)):
        write_tif(folder / f"{date}.tif", [codes, codes], place, names=("red", "QA"), nodata=-1)
    group = packed(build(starter))
    assert {*np.unique(group["QA"][2]).tolist()} == {-1, 2, 258}
    assert 130 in np.unique(group["red"][2])
    assert "_FillValue" not in group["QA"].attrs and group["QA"].fill_value == group["red"].attrs["_FillValue"] == -1


@pytest.mark.parametrize(
    ("setting", "refusal"),
    {
        'CLASSES = ("band1",)': "CLASSES: expected bands of the files, such as band_1; found {'band1'}",
        'ABOUT = {"title": "a", "license": "", "source": ""}': "ABOUT: expected .*; found no license, no source",
    }.items(),
)
def test_a_setting_that_cannot_be_right_is_named(setting, refusal, starter):
    starter = starter(setting)
    write_tif(starter.folder / "rasters" / "20200105.tif", np.ones((8, 8), "uint8"), nodata=0)
    with pytest.raises(ValueError, match=refusal):
        build(starter)


def test_the_lesson_shows_the_functions_of_the_starter():
    cells = nbformat.read(ROOT / "notebooks" / "10-your-own-rasters.ipynb", as_version=4).cells
    lesson = "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")
    for module in MODULES:
        text = (ROOT / "starter" / f"{module}.py").read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            shown = re.sub(r"\b(rasters|update_cube)\.", "", ast.get_source_segment(text, node))
            if isinstance(node, ast.FunctionDef) and node.name not in SHOWN_ELSEWHERE:
                assert shown in lesson, f"{module}.{node.name}"
            if isinstance(node, ast.Assign) and not re.match("FOLDER|ABOUT", shown):
                assert shown in lesson, shown
