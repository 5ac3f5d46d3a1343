"""The sample world: the shape of the real tiles, the same pixels on every platform, and a computable story."""

import hashlib
import os
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.windows import Window

from workshop import legend, sample, tiles

# Digests of the pixels. They change only when the world is changed on purpose, and then with sample.LABEL.
WINDOW_DIGESTS = {
    2000: "1cb4a849bd5dec44",
    2005: "de0a2a4a9e2c92fc",
    2010: "a1336fdd2a2ca228",
    2015: "736c866251cd44cb",
    2020: "cf54041c7ccbea34",
}
COARSE_DIGESTS = {
    ("50N_120W", 2000): "f8944dc4ba37c621",
    ("50N_120W", 2020): "19ced6431a99e488",
    ("40S_170E", 2010): "719000a60ae19900",
}


def digest(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()[:16]


@pytest.fixture(scope="module")
def windows():
    return {year: sample.teaching_window(year) for year in tiles.YEARS}


@pytest.mark.parametrize("year", tiles.YEARS)
def test_a_tile_has_the_shape_of_a_real_one_and_the_same_pixels_everywhere(windows, year):
    assert digest(windows[year]) == WINDOW_DIGESTS[year]
    with rasterio.open(tiles.tile_path("50N_120W", year, tiles.DATA)) as src:
        assert (src.width, src.height, src.count, src.dtypes) == (40_000, 40_000, 1, ("uint8",))
        assert src.crs == "EPSG:4326"
        assert src.transform[:6] == (0.00025, 0, -120, 0, -0.00025, 50)
        assert src.block_shapes == [(1, 40_000)]
        assert src.compression.value == "LZW"
        assert src.nodata is None
        assert src.overviews(1) == []
        assert {v: c[:3] for v, c in src.colormap(1).items()} == legend.palette()
        assert src.tags()["TIFFTAG_IMAGEDESCRIPTION"].startswith("SYNTHETIC")
        np.testing.assert_array_equal(src.read(1, window=Window(30_000, 36_000, 4000, 2000)), windows[year])
        # outside the window: one value a cell of 100 x 100 pixels
        band = src.read(1, window=Window(0, 12_300, 40_000, 100))
    cells = sample.coarse_landscape("50N_120W", year)[123]
    np.testing.assert_array_equal(band, np.repeat(cells, 100)[None].repeat(100, 0))


def test_the_five_tiles_fit_on_a_laptop():
    total = sum(tiles.DATA.joinpath(str(year), "50N_120W.tif").stat().st_size for year in tiles.YEARS)
    assert total <= 150e6


def test_the_coarse_landscape_is_the_same_everywhere():
    assert {key: digest(sample.coarse_landscape(*key)) for key in COARSE_DIGESTS} == COARSE_DIGESTS


def test_neighboring_tiles_join_without_a_seam():
    for left, right in (("50N_120W", "50N_110W"), ("40N_120W", "40N_110W")):
        west, east = (sample.coarse_landscape(name, 2000) for name in (left, right))
        assert (west[:, -1] == east[:, 0]).mean() > 0.9


@pytest.mark.soak
def test_writing_again_gives_the_same_bytes(tmp_path):
    again = sample.write_tile("50N_120W", 2020, tmp_path)
    assert again.read_bytes() == tiles.DATA.joinpath("2020", "50N_120W.tif").read_bytes()


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(legend, "palette", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample.write_tile("50N_110W", 2000, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_tiles_that_are_missing_broken_or_old_are_written_and_real_ones_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "DATA", tmp_path)
    transform = rasterio.transform.from_origin(-120, 50, 0.25, 0.25)
    options = {"driver": "GTiff", "width": 40, "height": 40, "count": 1, "dtype": "uint8", "crs": "EPSG:4326"}
    for year, description in {2000: "SYNTHETIC, world 0", 2005: "", 2010: sample.LABEL}.items():
        path = tmp_path / str(year) / "50N_120W.tif"
        path.parent.mkdir()
        with rasterio.open(path, "w", transform=transform, **options) as dst:
            dst.update_tags(TIFFTAG_IMAGEDESCRIPTION=description)
            dst.write(np.ones((1, 40, 40), "uint8"))
    os.truncate(path, path.stat().st_size - 1)
    written = []
    monkeypatch.setattr(sample, "write_tile", lambda *job: written.append(job))
    sample.ensure_tiles(years=(2000, 2005, 2010, 2015))
    assert sorted(written) == [("50N_120W", 2000), ("50N_120W", 2010), ("50N_120W", 2015)]


@pytest.mark.soak
@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on file sizes to set")
def test_a_full_disk_leaves_no_tile(tmp_path):
    code = """
        import resource, signal, sys
        from workshop import sample
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (24_000_000, 24_000_000))
        sample.write_tile("50N_120W", 2000, sys.argv[1])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode != 0, "writing must fail"
    assert "in write_tile" in done.stderr, done.stderr  # and not for another reason
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# The story


def test_five_years_tell_a_story_in_which_every_group_appears(windows):
    groups = {year: legend.group_index()[window].ravel() for year, window in windows.items()}
    assert all((group < 255).all() for group in groups.values()), "a value that is not in the legend"
    counts = np.stack([np.bincount(groups[year], minlength=len(legend.groups())) for year in tiles.YEARS])
    assert counts.any(axis=0).all()
    story = {"Open surface water": -1, "Cropland": -1, "Built-up": 1, "Salt pan": 1, "Snow/ice": -1}
    for group, direction in story.items():
        assert (np.sign(np.diff(counts[:, legend.groups().index(group)])) == direction).all(), group


def test_a_burn_scar_recovers(windows):
    trees = {year: (windows[year] >= 25) & (windows[year] <= 48) for year in tiles.YEARS}
    scar = trees[2000] & ~trees[2005]
    assert scar.sum() > 100_000
    cover = [float(windows[year][scar].mean()) for year in tiles.YEARS[1:]]
    assert cover == sorted(cover), "the vegetation on the scar grows back"
    assert 0.5 < trees[2020][scar].mean() < 1


def test_the_defect_fills_its_box_in_2020_and_nothing_else(windows):
    rows, cols = slice(0, 1000), slice(0, 400)  # y 41 to 40.75, x -112.5 to -112.4
    spoilt = windows[2020] >= 254
    assert spoilt[rows, cols].mean() > 0.5
    for edge in (spoilt[0, cols], spoilt[999, cols], spoilt[rows, 0], spoilt[rows, 399]):
        assert edge.any()
    outside = spoilt.copy()
    outside[rows, cols] = False
    assert not outside.any()
    for year in (2000, 2005, 2010, 2015):
        assert not (windows[year] >= 254).any()
        assert np.isin(windows[year][rows, cols], np.arange(2, 25)).all()


def test_the_air_file_has_the_shape_and_encoding_of_the_tutorials_and_the_same_bytes_again(tmp_path):
    path, again = (sample.write_air(tmp_path / name) for name in ("air.nc", "again.nc"))
    assert path.read_bytes() == again.read_bytes()
    with h5py.File(path) as file:
        air = file["air"]
        assert (air.shape, air.dtype.str, air.chunks, air.compression) == ((2920, 25, 53), ">i2", None, None)
        assert air.attrs["scale_factor"] == 0.01 and "_FillValue" not in air.attrs
        assert (file["lat"][0], file["lat"][-1], file["lon"][0], file["lon"][-1]) == (75, 15, 200, 330)
        assert "SYNTHETIC" in file.attrs["title"]
        kelvin = air[:] * 0.01
        assert digest(air[:]) == "470273e30dc3640f"
    with xr.open_dataset(path, engine="h5netcdf") as data:
        assert [str(time)[:13] for time in data.time.values[[0, -1]]] == ["2013-01-01T00", "2014-12-31T18"]
    assert 220 < kelvin.min() < kelvin.max() < 330
    july, january = (kelvin[slice(start, start + 100), 12].mean() for start in (740, 20))
    assert july > january + 10  # summer in the north
