"""The check-up: sound cubes of several kinds pass, and each planted defect is found, with advice."""

import datetime as dt
import json
import os
import re
from functools import cache

import icechunk
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray
import xarray as xr
import zarr
import zarr_cm
from icechunk.xarray import to_icechunk
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore
from virtual_tiff import VirtualTIFF
from virtualizarr import open_virtual_dataset

from workshop import checkup, conventions, stores, virtual

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently")

FLAGS = {"flag_values": [0, 1, 2, 3, 255], "flag_meanings": "sand grass trees water no_data"}
ABOUT = {"Conventions": "CF-1.12", "license": "CC-BY-4.0"}
YEARS = [2000, 2005, 2010]
DAYS = np.array(["2024-05-01", "2024-05-11", "2024-05-21"], "M8[ns]")


def place(ds):
    """Write the georeferencing into a dataset in all the ways that readers look for it."""
    y, x = ds.rio.y_dim, ds.rio.x_dim
    attrs = conventions.georeference(ds.rename({y: "y", x: "x"})) | {"spatial:dimensions": [y, x]}
    ds = ds.rio.write_transform(ds.rio.transform(recalc=True)).assign_attrs(ABOUT | attrs)
    for array in ds.data_vars.values():
        array.attrs.update(attrs)
        array.encoding["grid_mapping"] = "spatial_ref"
    return ds


def pixels(shape, dtype, seed=0):
    """Return patches with some noise, so that no part looks like another."""
    rng = np.random.default_rng(seed)
    *others, rows, cols = shape
    coarse = rng.integers(0, 4, (*others, -(-rows // 4), -(-cols // 4)))
    values = coarse.repeat(4, axis=-2).repeat(4, axis=-1)[..., :rows, :cols]
    return np.where(rng.random(shape) < 0.1, 3 - values, values).astype(dtype)


def classes(shape=(96, 120), step=0.01):
    """Class codes in degrees, a layer per year."""
    rows, cols = shape
    coords = {
        "year": YEARS,
        "y": 41 - (np.arange(rows) + 0.5) * step,
        "x": -112 + (np.arange(cols) + 0.5) * step,
    }
    lulc = xr.DataArray(pixels((3, *shape), "uint8"), coords, ("year", "y", "x"), attrs=FLAGS)
    lulc.encoding = {"chunks": (1, 48, 60), "fill_value": 255}
    return place(lulc.to_dataset(name="lulc").rio.write_crs(4326))


def packed(days=DAYS):
    """Two bands of reflectance in UTM, packed, with no data in a corner."""
    coords = {"time": days, "y": 4_500_000 - 10 * (np.arange(80) + 0.5), "x": 400_000 + 10 * (np.arange(90) + 0.5)}
    ds = xr.Dataset(coords=coords).rio.write_crs(32612)
    for seed, name in enumerate(("red", "nir")):
        values = pixels((len(days), 80, 90), "int16", seed) * 700 + np.arange(90) + np.arange(80)[:, None]
        ds[name] = ("time", "y", "x"), np.where(np.arange(90) < 5, np.nan, values * 0.0001)
        ds[name].encoding = {"dtype": "int16", "scale_factor": 0.0001, "_FillValue": -32768, "fill_value": -32768}
        ds[name].encoding["chunks"] = (1, 40, 45)
        ds[name].attrs = {"units": "1"}
    ds["time"].encoding = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    return place(ds)


def heights():
    """Heights with NaN, without time, named lat and lon."""
    coords = {"lat": 10 - (np.arange(50) + 0.5) * 0.1, "lon": 20 + (np.arange(60) + 0.5) * 0.1}
    values = pixels((50, 60), "float32") * 100 + np.random.default_rng(1).random((50, 60), "float32")
    values[:5] = np.nan
    ds = xr.DataArray(values, coords, ("lat", "lon"), attrs={"units": "m"}).to_dataset(name="height")
    ds["height"].encoding = {"chunks": (25, 30)}
    ds = ds.rio.set_spatial_dims("lon", "lat").rio.write_crs(4326)
    return place(ds)


def write(ds, store=None, **options):
    store = zarr.storage.MemoryStore() if store is None else store
    ds.to_zarr(store, consolidated=False, write_empty_chunks=True, **options)
    return store


@cache
def sound(make):
    return write(make())


def copy(make=classes):
    """Return a copy of a cube without writing the cube again."""
    return zarr.storage.MemoryStore(sound(make)._store_dict.copy())


def by_band(ds):
    """Return both bands as one array (time, band, y, x)."""
    array = ds.to_dataarray("band", name="reflectance").transpose("time", "band", "y", "x")
    array.encoding = ds["red"].encoding | {"chunks": (1, 2, 40, 45)}
    array.attrs = ds["red"].attrs
    return place(array.to_dataset())


def with_levels(store=None):
    """Classes with an overview, whose last pixels are not full, as groups, with consolidated metadata."""
    store = zarr.storage.MemoryStore() if store is None else store
    levels = place(classes().isel(y=slice(94), x=slice(118))), classes((24, 30), 0.04)
    levels[1]["lulc"][:] = levels[0]["lulc"].values[:, ::4, ::4]
    levels[1]["lulc"].encoding["chunks"] = (1, 24, 30)
    zarr.create_group(store, attributes=ABOUT | conventions.pyramid(levels))
    for k, level in enumerate(levels):
        write(level, store, group=str(k))
    zarr.consolidate_metadata(store)
    return store


def repository(ds, storage=None):
    repo = icechunk.Repository.create(storage or icechunk.in_memory_storage())
    session = repo.writable_session("main")
    to_icechunk(ds, session)
    session.commit("All of it")
    return repo


NODE = [0.01, 0, -111.995, 0, -0.01, 40.995]
SOUND = {
    "bits": lambda: edited("lulc", flag_masks=[1, 2], flag_values=[1, 2])(),
    "classes": copy,
    "centers": lambda: edited("lulc", spatial__registration="node", spatial__transform=NODE)(),
    "packed": lambda: copy(packed),
    "bands": lambda: write(by_band(packed())),
    "heights": lambda: copy(heights),
    "levels": with_levels,
    "repository": lambda: repository(packed()),
    "session": lambda: repository(classes()).readonly_session("main").store,
}


def failures(findings):
    return {finding.subject for finding in findings if finding.kind == "FAIL"}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_cube_passes(kind):
    cube = SOUND[kind]()
    for sample in (checkup.SAMPLE, None):
        findings = list(checkup.check(cube, sample=sample))
        assert {finding.kind for finding in findings} == {"PASS"}, findings
        assert len(findings) > 6
    assert list(pd.DataFrame(findings)) == ["kind", "subject", "found", "advice"]


# Defects: what is planted, and which findings it brings: "kind subject", and nothing else fails


def edit(store, path, **attrs):
    """Change stored attributes; None deletes one."""
    node = zarr.open(store, path=path, mode="r+")
    kept = {name.replace("__", ":"): value for name, value in attrs.items()}
    node.attrs.put({key: value for key, value in (node.attrs.asdict() | kept).items() if value is not None})
    return store


def edited(*paths, make=classes, **attrs):
    """Return a function that writes a cube and then changes attributes."""

    def plant():
        store = copy(make)
        for path in paths:
            edit(store, path, **attrs)
        return store

    return plant


def pixels_of(store, path="lulc"):
    return zarr.open_array(store, path=path, mode="r+")


def filled(where, value, path="lulc", make=copy):
    """Return a function that writes a cube and then changes pixels."""

    def plant():
        store = make()
        pixels_of(store, path)[where] = value
        return store

    return plant


def cut(make=classes, **where):
    """Return a function that writes a part of a cube with the attributes of the whole cube."""
    return lambda: write(make().isel(where))


def moved(make=classes, **coords):
    """Return a function that writes a cube with other coordinates and the old attributes."""
    return lambda: write((ds := make()).assign_coords({name: new(ds[name].values) for name, new in coords.items()}))


def encoded(make=classes, name="lulc", **encoding):
    """Return a function that writes a cube in another way."""
    ds = make()
    ds[name].encoding |= encoding
    return lambda: write(ds)


def masked():
    """Class codes opened with ``masked=True``."""
    ds = classes()
    ds["lulc"] = ds["lulc"].astype("float32").assign_attrs(ds["lulc"].attrs)
    ds["lulc"].encoding = {"fill_value": np.nan, "grid_mapping": "spatial_ref"}
    return write(ds)


def appended():
    """Append hours to an axis of days, without converting the numbers."""
    ds = packed(DAYS[0] + np.arange(7) * np.timedelta64(1, "D"))
    ds["time"].encoding = {"units": "days since 2024-05-01", "dtype": "int64"}
    store = write(ds)
    pixels_of(store, "time")[4:] = 240, 264, 288
    return store


def one_step_missing(rows=slice(0)):
    """A year exists, but all or some of its pixels are missing."""
    store = copy()
    for key in [key for key in store._store_dict if key.startswith("lulc/c/2/")]:
        del store._store_dict[key]
    pixels_of(store)[2, rows] = classes()["lulc"].values[2, rows]
    return store


def averaged():
    store = with_levels()
    cells = np.pad(pixels_of(store, "0/lulc")[:], ((0, 0), (0, 2), (0, 2)), "edge").reshape(3, 24, 4, 30, 4)
    pixels_of(store, "1/lulc")[:] = (cells.mean((2, 4)) + 0.5).astype("uint8")
    return store


def consolidated(store):
    zarr.consolidate_metadata(store)
    return store


def garbage():
    repo = repository(classes())
    for _ in range(3):
        noise = np.random.default_rng().integers(0, 4, (3, 96, 120), "uint8")
        zarr.open_array(repo.writable_session("main").store, path="lulc", mode="r+")[:] = noise
    return repo


WITHOUT = {key.replace(":", "__"): None for key in classes().attrs.keys() - ABOUT.keys()}
PLACE, VALUES = "FAIL lulc place", "FAIL lulc values"
DEFECTS = {
    # lesson 02
    "masked on opening": (masked, VALUES),
    "_FillValue is a class": (edited("lulc", _FillValue=0), VALUES),
    "_FillValue on classes": (edited("lulc", _FillValue=255), "note lulc values"),
    "_FillValue does not fit": (edited("lulc", _FillValue=-9999), VALUES),
    "scale 1": (edited("lulc", scale_factor=1.0, add_offset=0.0), VALUES),
    "fill value is a class": (encoded(fill_value=0), VALUES),
    "fill value is not no data": (encoded(packed, "red", fill_value=0), "note red values"),
    "two values for no data": (edited("red", make=packed, missing_value=-1), "FAIL red values"),
    "not in the legend": (filled((0, 5, 5), 77), VALUES),
    "legend cut short": (edited("lulc", flag_meanings="sand grass"), VALUES),
    "no legend": (edited("lulc", flag_values=None, flag_meanings=None), "note lulc values"),
    "int64": (encoded(dtype="int64"), "note lulc values"),
    "nothing written": (filled(..., 255), VALUES),
    # place
    "no CRS": (edited("", "lulc", make=lambda: classes().drop_vars("spatial_ref"), **WITHOUT), "FAIL lulc CRS"),
    "grid mapping not named": (edited("lulc", grid_mapping=None), "FAIL lulc CRS"),
    "CRS only by CF": (edited("", "lulc", **WITHOUT), "note lulc CRS"),
    "two CRS": (edited("lulc", proj__code="EPSG:3857"), "FAIL lulc CRS"),
    "meters as degrees": (lambda: write(place(packed().rio.write_crs(4326))), "FAIL red CRS", "FAIL nir CRS"),
    "degrees as meters": (lambda: write(place(classes().rio.write_crs(32612))), "note lulc CRS"),
    "no latitudes": (moved(y=lambda y: y - 152), "FAIL lulc CRS", PLACE),
    "clipped": (cut(y=slice(10, 60), x=slice(20, 90)), PLACE),
    "one row": (cut(y=slice(5, 6)), "note y", "note lulc place"),
    "turned": (cut(y=slice(None, None, -1)), PLACE, "note y"),
    "half a pixel off": (moved(y=lambda y: y + 0.005, x=lambda x: x - 0.005), PLACE),
    "bbox": (edited("lulc", spatial__bbox=[0, 0, 1, 1]), PLACE),
    "shape": (edited("lulc", spatial__shape=[96, 121]), PLACE),
    # coordinates
    "uneven": (moved(x=lambda x: np.where(x > -111.5, x + 0.004, x)), "FAIL x", "note lulc place"),
    "too few digits": (moved(lambda: classes(step=0.00002), x=lambda x: x.astype("f4")), "FAIL x", "note lulc place"),
    "noise": (moved(y=lambda y: y + 1e-7 * np.sin(np.arange(96))), "note y"),
    "not in order": (cut(x=np.r_[60:120, 0:60]), "FAIL x", "note lulc place"),
    "twice": (cut(y=np.r_[0:50, 49:95]), "FAIL y", "note lulc place"),
    "no coordinate": (lambda: write(classes().drop_vars("y")), "FAIL y", "note lulc place"),
    # time
    "years not in order": (cut(year=[1, 0, 2]), "FAIL year"),
    "a year twice": (cut(year=[0, 1, 1]), "FAIL year"),
    "no years": (lambda: write(classes().drop_vars("year")), "FAIL year"),
    "years as text": (moved(year=lambda years: years.astype("U")), "FAIL year"),
    "time without units": (edited("time", make=packed, units=None), "FAIL time"),
    "time in strange units": (edited("time", make=packed, units="fortnights since 1970-01-01"), "FAIL time"),
    "time in another century": (edited("time", make=packed, units="seconds since 2270-01-01"), "FAIL time"),
    "hours as days": (appended, "note time"),
    "a year not written": (one_step_missing, "FAIL lulc steps"),
    "half a year written": (lambda: one_step_missing(slice(0, 40)), "note lulc steps"),
    # chunks
    "tiny chunks": (encoded(lambda: classes((190, 190), 0.001), chunks=(1, 10, 10)), "note lulc chunks"),
    "deep chunks": (encoded(chunks=(2, 48, 60)), "note lulc chunks"),
    # levels and the store
    "stale overview": (filled(..., 3, "0/lulc", with_levels), "FAIL 1/lulc level"),
    "an overview not written": (filled(..., 255, "1/lulc", with_levels), "FAIL 1/lulc level"),
    "averaged classes": (averaged, "FAIL 1/lulc level"),
    "no multiscales": (
        lambda: consolidated(edit(with_levels(), "", **WITHOUT, multiscales=None)),
        "note levels",
    ),
    "stale consolidated metadata": (
        lambda: edit(edit(with_levels(), "0/lulc", long_name="new"), "1/lulc", long_name="new"),
        "FAIL consolidated metadata",
    ),
    "not declared": (edited("lulc", zarr_conventions=[]), "FAIL / conventions"),
    "no license": (edited("", license=None), "note / conventions"),
    "garbage": (garbage, "note repository"),
}
ADVISED = (
    *("grid mapping not named", "CRS only by CF", "stale consolidated metadata", "noise", "uneven", "not in order"),
    *("twice", "turned", "a year twice", "years not in order", "a year not written"),
)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found(defect):
    make, *expected = DEFECTS[defect]
    findings = list(checkup.check(make()))
    found = {f"{finding.kind} {finding.subject}" for finding in findings if finding.kind != "PASS"}
    assert set(expected) <= found, findings
    assert {text for text in found if text.startswith("FAIL")} <= set(expected), findings
    assert all(finding.advice for finding in findings if finding.kind != "PASS")
    assert not [finding for finding in findings if "cannot be read" in finding.found]


@pytest.mark.parametrize("defect", ADVISED)
def test_the_advice_helps(defect):
    """Run the code between backticks in the advice."""
    store = DEFECTS[defect][0]()
    kind, _, subject = DEFECTS[defect][-1 if defect == "turned" else 1].partition(" ")
    findings = checkup.check(store)
    advice = next(finding.advice for finding in findings if (finding.kind, finding.subject) == (kind, subject))
    ds = xr.open_zarr(store, consolidated=False, decode_coords="all", chunks=None)
    names = {"store": store, "ds": ds, "zarr": zarr, "zarr_cm": zarr_cm, "np": np}
    exec(f"result = {re.search('`(.+?)`', advice)[1]}", names)
    result = names["result"]
    if isinstance(result, xr.Dataset):
        for array in result.data_vars.values():
            array.encoding.pop("chunks", None)
        store = write(place(result))
    assert (kind, subject) not in {finding[:2] for finding in checkup.check(store)}


# The files that a cube was made from


def write_tif(path, ds, *, south_up=False, **options):
    """Write the variables of a dataset as the bands of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = ds.isel(y=slice(None, None, -1)) if south_up else ds
    ds.rio.to_raster(path, blockysize=1, **options)
    return path


def yearly(folder, **options):
    """Write one file per year, each in its own folder."""
    for year in YEARS:
        write_tif(folder / str(year) / "tile.tif", classes().sel(year=year), **options)
    return folder


def daily(folder, ds=None, names=("red", "nir"), scale=0.0001, suffix="", **options):
    """Write one file of packed bands per day, without data in the west."""
    ds = packed() if ds is None else ds
    numbers = np.rint(ds[list(names)].fillna(-3.2768) / 0.0001).astype("int16")
    for name in names:
        numbers[name] = numbers[name].assign_attrs(scale_factor=scale).rio.write_nodata(-32768)
    for day in ds.indexes["time"]:
        write_tif(folder / f"S2_{day:%Y%m%d}_T12{suffix}.tif", numbers.sel(time=day), **options)
    return folder


def warped(path, crs):
    """Warp a file to another CRS."""
    with rioxarray.open_rasterio(path, band_as_variable=True) as src:
        ds = src.load()
    write_tif(path, ds.rio.reproject(crs))


def change(path, edit_pixels):
    with rasterio.open(path, "r+") as dst:
        dst.write(edit_pixels(dst.read()))


def truncate(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def by_files(folder, ds, **options):
    return list(checkup.check(write(ds), [folder], **options))


@pytest.mark.parametrize(("sample", "south_up"), [(4, False), (None, True)], ids=["sample", "all, south up"])
def test_a_cube_has_the_pixels_of_its_files(tmp_path, sample, south_up):
    for path in yearly(tmp_path / "yearly", south_up=south_up).rglob("*.tif"):
        with rasterio.open(path, "r+") as dst:
            dst.nodata = 0  # of the files, not of the cube
    daily(tmp_path / "daily", south_up=south_up)
    daily(tmp_path / "without scale", south_up=south_up, scale=1.0)
    for name in ("red", "nir"):
        daily(tmp_path / "by band", names=[name], suffix=f"_{name}", south_up=south_up)
    write_tif(tmp_path / "dem.tif", heights().rename(lat="y", lon="x"), south_up=south_up)
    for name, ds in (
        ("yearly", classes().isel(y=slice(8, 60), x=slice(7, 90)).pipe(place)),
        ("yearly", classes().isel(y=slice(None, None, -1)).pipe(place)),
        ("daily", packed()),
        ("daily", by_band(packed())),
        ("without scale", packed()),
        ("by band", packed()),
        ("dem.tif", heights()),
    ):
        findings = list(checkup.check(write(ds), [tmp_path / name], sample=sample))
        assert not failures(findings), (name, findings)
        compared = [finding for finding in findings if finding.subject.endswith("pixels")]
        assert [finding.kind for finding in compared] == ["PASS"] * (2 if "red" in ds else 1), findings
        for finding in compared:
            pixels = int(finding.found.split()[0].replace(",", ""))
            assert pixels > 0 and f"are those of {1 if name == 'dem.tif' else 3} files" in finding.found
            if sample is None:
                assert pixels == np.prod([ds[name].size for name in ds.data_vars if name in finding.subject])


def layer(k, new):
    """Return a function that replaces one year of a cube with the result of ``new`` for all years."""

    def plant(ds, _):
        ds["lulc"][k] = new(ds["lulc"].values.copy())
        return ds

    return plant


def broken_tile(break_it):
    """Return a function that breaks the file of 2005."""

    def plant(ds, folder):
        break_it(folder / "2005" / "tile.tif")
        return ds

    return plant


def change_region(values):
    values[2, 40:44, 50:55] = (values[2, 40:44, 50:55] + 1) % 4
    return values[2]


def flip_scene(path):
    change(path, lambda pixels: pixels[:, ::-1])
    warped(path, "EPSG:32612")


def forget_half(path):
    change(path, lambda pixels: np.where(np.arange(120) < 60, 77, pixels))
    with rasterio.open(path, "r+") as dst:
        dst.nodata = 77


def break_inside(path):
    with rasterio.open(path) as src:
        strip = int(src.get_tag_item("BLOCK_OFFSET_0_40", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.seek(strip)
        file.write(b"\xff" * 20)


def add_band(path):
    band = classes().isel(year=1)["lulc"]
    write_tif(path, xr.Dataset({"b1": band, "b2": band}))


MORE = {"other": classes()["lulc"], "third": classes()["lulc"]}


@pytest.mark.parametrize(
    ("plant", "subject", "text"),
    [
        (layer(1, lambda values: values[0]), "lulc pixels", "another date"),
        (layer(1, lambda values: values[1, ::-1]), "lulc pixels", "upside down"),
        (layer(2, lambda values: np.roll(values[2], -1, axis=0)), "lulc pixels", "1 rows and 0 columns on"),
        (layer(2, change_region), "lulc pixels", "20 of .* pixels differ, such as row 40, column 50"),
        (layer(1, lambda values: np.where(np.arange(120) < 60, 255, values[1])), "lulc pixels", "nothing is there"),
        (lambda ds, _: ds.isel(year=[0, 2]), "lulc", "2005 is missing"),
        (
            lambda ds, _: place(ds.assign_coords(y=ds.y.values + 0.005, x=ds.x.values - 0.005)),
            "lulc pixels",
            "off by 0.5 of a pixel, and has the same pixels",
        ),
        (broken_tile(forget_half), "lulc pixels", "instead of nan"),
        (broken_tile(truncate), "files", "2005.*cannot be read"),
        (broken_tile(break_inside), "lulc pixels", "2005/tile.tif"),
        (broken_tile(lambda path: path.rename(path.parent.parent / "tile.tif")), "files", "no date in the names of 1"),
        (lambda ds, folder: place(broken_tile(add_band)(ds, folder).assign(MORE)), "files", "fit no array"),
        (broken_tile(flip_scene), "lulc pixels", "in another CRS.* likeness"),
        (
            lambda ds, _: place(ds.assign_coords(x=ds.x.values + 9)),
            "lulc pixels",
            "outside the cube; is the CRS that of",
        ),
    ],
)
def test_what_differs_from_the_files_is_found(tmp_path, plant, subject, text):
    folder = yearly(tmp_path, compress="LZW")
    findings = by_files(folder, plant(classes(), folder), sample=None)
    assert failures(findings) == {subject}, findings
    assert any(re.search(text, f"{finding.found}; {finding.advice}") for finding in findings), findings


def test_the_date_is_where_one_says(tmp_path):
    days = np.array(["2024-01-01", "2024-02-01", "2024-03-01"], "M8[ns]")
    for path in daily(tmp_path, packed(days)).glob("*.tif"):
        path.rename(tmp_path / f"2024_v_{path.stem[7:9]}.tif")
    store = write(packed(days))
    found = [finding.found for finding in checkup.check(store, [tmp_path], sample=4) if finding.kind == "FAIL"]
    assert found and all("fits more than one step" in text for text in found)
    for pattern in (r"^(\d{4})_\w_(\d\d)", r"(?P<year>\d{4})_(?P<x>\w)_(?P<month>\d\d)"):
        assert not failures(checkup.check(store, [tmp_path], date=pattern, sample=4))
    for path in tmp_path.glob("2024_v_*.tif"):
        day = np.datetime64(f"2024-{path.stem[-2:]}-01") - np.datetime64("2023-12-31")
        path.rename(path.with_stem(f"A2024{day.astype(int):03}_{path.stem[-2:]}"))
    assert not failures(checkup.check(store, [tmp_path], date=r"A(\d{7})", form="%Y%j", sample=4))
    assert failures(checkup.check(store, [tmp_path], date=r"A(\d{7})", form="%Y-%j", sample=4))
    for path in tmp_path.glob("A2024*.tif"):
        (tmp_path / "2024" / path.stem[-2:]).mkdir(parents=True)
        path.rename(tmp_path / "2024" / path.stem[-2:] / "made_2025_01_01.tif")
    where = {"date": r"(\d{4}.\d\d)", "form": "%Y/%m", "sample": 4}  # from the left, as the scripts of lesson 10 do
    for given in (tmp_path, tmp_path / "2024", *tmp_path.rglob("made*")):
        assert not {"files", "red pixels"} & failures(checkup.check(store, [given], **where)), given
    del where["form"]
    assert any("--format" in finding.advice for finding in checkup.check(store, [tmp_path], **where))


def test_bands_without_names_are_found(tmp_path):
    """By number, which isn't the order of the alphabet; or by the name of the file, which may be inside another's."""
    band = classes().isel(year=0, drop=True)["lulc"].drop_attrs()
    bands = {f"band_{k}": band + np.uint8(k) for k in range(1, 13)}
    write_tif(tmp_path / "all.tif", xr.concat(bands.values(), "band"))  # each band is described as lulc
    write_tif(tmp_path / "ten.tif", xr.concat([*bands.values()][:10], "band").rename(None))
    names = {"NDVI": bands["band_1"], "NDVI_QA": bands["band_2"]}
    for name, band in names.items():
        write_tif(tmp_path / "each" / f"of_{name}.tif", band)
    for cube, files in ((bands, "all.tif"), (bands, "ten.tif"), (names, "each")):
        findings = list(checkup.check(write(place(xr.Dataset(cube).rio.write_crs(4326))), [tmp_path / files]))
        assert not failures(findings), findings
        count = sum("pixels are those of 1 files" in finding.found for finding in findings)
        assert count == {"all.tif": 12, "ten.tif": 10, "each": 2}[files]


def square(values, off=0.0):
    """A band in UTM, some pixels off."""
    y, x = (np.arange(size) + 0.5 + off for size in values.shape)
    band = xr.DataArray(values, {"y": 4_500_000 - 10 * y, "x": 400_000 + 10 * x}, ("y", "x"), name="band")
    band.encoding["_FillValue"] = None
    return place(band.to_dataset().rio.write_crs(32612))


def between(values):
    """Return the means of four pixels, as of a file that is half a pixel off."""
    values = values.astype(float)
    return (values[1:, 1:] + values[1:, :-1] + values[:-1, 1:] + values[:-1, :-1]) / 4


CODES, IDS = pixels((80, 90), "uint16") * 8, np.arange(7200, dtype="uint32").reshape(80, 90) + 2**24
PHOTO = (127 + 100 * np.sin(np.arange(90) / 9) * np.cos(np.arange(80)[:, None] / 7) + CODES).astype("uint8")
GAPS = np.where(PHOTO < 40, np.float32(-9999), PHOTO)


@pytest.mark.parametrize(
    ("file", "cube", "text"),
    [
        (square(IDS), square(IDS.astype("float32").astype("uint32")), "pixels differ"),
        (square(GAPS), square(GAPS), "instead of nan.*readers take -9999.0 for a number.*_FillValue"),
        (square(CODES, -0.5), square(between(CODES).astype("uint16")), "no file has.*averaged codes"),
        (square(CODES, -0.3), square(CODES), ""),
        (square(PHOTO, -0.5), square(between(PHOTO).astype("uint8")), ""),
        (square(PHOTO.astype("float32")), square(PHOTO.astype("float32")), ""),
    ],
    ids=["ids as floats", "no _FillValue", "averaged codes", "nearest codes", "photo", "whole floats"],
)
def test_numbers_are_told_from_codes(tmp_path, file, cube, text):
    with rasterio.open(write_tif(tmp_path / "a.tif", file["band"]), "r+") as dst:
        dst.nodata = -9999 if file["band"].dtype == "f4" else None
    findings = list(checkup.check(write(cube), [tmp_path / "a.tif"]))
    assert failures(findings) == ({"band pixels"} if text else set()), findings
    assert any(re.search(text, f"{finding.found}; {finding.advice}") for finding in findings), findings


def test_a_file_whose_place_another_file_has_taken_is_named(tmp_path):
    folder, ds = yearly(tmp_path), classes()
    old = ds["lulc"].values[0]
    write_tif(folder / "2005" / "other.tif", ds.isel(year=0))
    for cube, passed_over in ((ds, "other"), (ds.copy(data={"lulc": np.stack([old, old, ds["lulc"][2]])}), "tile")):
        findings = by_files(folder, cube, sample=None)
        assert not failures(findings), findings
        notes = [finding.found for finding in findings if "are not in the cube" in finding.found]
        assert len(notes) == 1 and f"2005/{passed_over}.tif" in notes[0]
        assert findings[-1].found.endswith("those of 3 files")


def test_dates_and_differences_of_one_kind_are_one_finding(tmp_path):
    ds = packed(DAYS[0] + np.arange(6) * np.timedelta64(1, "D"))
    folder = daily(tmp_path, ds)
    ds["red"][:3, 40:60, 40:60] = 0.5
    findings = [finding for finding in by_files(folder, ds.isel(time=slice(4)), sample=None) if finding.kind == "FAIL"]
    assert [finding.subject for finding in findings] == ["nir", "red", "red pixels"]
    assert "and 1 more is missing" in findings[0].found and "and 2 more" in findings[-1].found


@pytest.mark.parametrize("crs", ["EPSG:32612", "EPSG:32613"], ids=["on the grid", "on another grid"])
def test_another_scale_is_found(tmp_path, crs):
    for path in list(daily(tmp_path).glob("*.tif")):
        warped(path, crs)  # exactly, if it is the same CRS
    assert not failures(checkup.check(copy(packed), [tmp_path], sample=4))
    store = edited("red", make=packed, scale_factor=0.1)()
    assert failures(checkup.check(store, [tmp_path], sample=0)) == {"red pixels"}  # some pixels are always compared


def test_any_file_of_a_date_will_do(tmp_path):
    """Tiles side by side, a newer processing, scenes in another CRS or between pixels, and an unused broken one."""
    path, ds = yearly(tmp_path) / "2005" / "tile.tif", classes()
    old, new = ds.isel(year=0), ds.isel(year=1)
    change(path, lambda pixels: np.where(np.arange(120) < 70, pixels, 0).astype("uint8"))
    write_tif(tmp_path / "2005" / "newer.tif", new.isel(x=slice(50, None)))
    write_tif(tmp_path / "2005" / "far.tif", new.assign_coords(x=ds.x + 5))
    warped(tmp_path / "2010" / "tile.tif", "EPSG:32612")
    write_tif(tmp_path / "2000" / "half.tif", old.assign_coords(y=ds.y + 0.005, x=ds.x - 0.005))
    finer = {"y": 40.997 - (np.arange(192) + 0.5) * 0.005, "x": -111.997 + (np.arange(240) + 0.5) * 0.005}
    twice = {dim: np.arange(labels.size) // 2 for dim, labels in finer.items()}
    write_tif(tmp_path / "2000" / "tile.tif", old.isel(twice).assign_coords(finer))
    truncate(write_tif(tmp_path / "2015" / "tile.tif", new))
    for sample in (checkup.SAMPLE, None):
        findings = by_files(tmp_path, ds, sample=sample)
        assert not failures(findings), findings
        notes = " ".join(finding.found for finding in findings if finding.kind == "note")
        for part in (
            "in another CRS",
            "off by 0.5 of a pixel",
            "of another resolution",
            "outside the cube",
            "2015/tile.tif cannot be read",
        ):
            assert part in notes, notes


# Where a cube is, and what is none


def virtual_cube(folder):
    """References to a file of class codes, one strip per row."""
    ds = classes().isel(year=0, drop=True)
    source = write_tif(folder / "source" / "2000.tif", ds)
    registry = ObjectStoreRegistry({"file://": LocalStore()})
    references = open_virtual_dataset(virtual.file_url(source), registry=registry, parser=VirtualTIFF(ifd=0))
    attrs = ds["lulc"].attrs | {"grid_mapping": "spatial_ref"}
    lulc = xr.Variable(("y", "x"), references["0"].variable.data, attrs)
    prefix = virtual.file_url(folder / "source") + "/"
    store, access = icechunk.local_filesystem_store(str(folder / "source")), icechunk.credentials.LocalFileSystemAccess
    config, allowed = stores.containers(prefix, store, access)
    where = icechunk.local_filesystem_storage(str(folder / "cube"))
    repo = icechunk.Repository.create(where, config, authorize_virtual_chunk_access=allowed)
    session = repo.writable_session("main")
    xr.Dataset({"lulc": lulc}, ds.coords, ds.attrs).vz.to_icechunk(session.store)
    session.commit("References")
    return folder / "cube", source


def test_references_are_followed_if_asked(tmp_path):
    cube, source = virtual_cube(tmp_path)

    def advice(**options):
        findings = checkup.check(cube, **options)
        return "; ".join(finding.advice for finding in findings if "cannot be read" in finding.found)

    assert "--follow" in advice()
    assert advice(files=[source], follow=True) == ""
    later = dt.datetime.now().timestamp() + 5
    os.utime(source, (later, later))
    assert "replaced" in advice(follow=True)
    source.unlink()
    assert "bring back" in advice(follow=True)


def test_a_broken_chunk_is_found(tmp_path):
    write(classes(), tmp_path / "cube.zarr")
    (tmp_path / "cube.zarr" / "lulc" / "c" / "1" / "0" / "1").write_bytes(b"no chunk")
    findings = list(checkup.check(tmp_path / "cube.zarr"))
    assert failures(findings) == {"lulc values"}
    assert "1:2" in next(finding.found for finding in findings if finding.kind == "FAIL")


@pytest.fixture(scope="module")
def bucket():
    """Return a bucket that the public can read but not list, and its server."""
    bucket, server = stores.counted_bucket()
    rule = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::*/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    bucket.client().put_bucket_policy(Bucket=bucket.name, Policy=policy)
    repository(classes(), bucket.icechunk("repo"))
    with_levels(bucket.zarr("plain.zarr"))
    with server:
        yield bucket, server


@pytest.mark.parametrize("name", ["repo", "plain.zarr"])
def test_nothing_is_written_to_a_folder(tmp_path, name):
    where = tmp_path / name
    repository(classes(), icechunk.local_filesystem_storage(str(where))) if name == "repo" else with_levels(str(where))
    before = {path: path.stat().st_mtime_ns for path in where.rglob("*")}
    assert not failures(checkup.check(where))
    assert before == {path: path.stat().st_mtime_ns for path in where.rglob("*")}


@pytest.mark.parametrize("by", ["s3", "s3 without an account", "http"])
def test_a_cube_is_read_wherever_it_is(bucket, no_settings, monkeypatch, by):
    bucket, server = bucket
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    if by == "s3":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    server.reset()
    for name in ("repo", "plain.zarr"):
        path = f"{bucket.name}/{bucket.prefix}/{name}"
        findings = list(checkup.check(f"{server.url}/{path}" if by == "http" else f"s3://{path}"))
        assert not failures(findings), findings
        assert {finding.subject.split()[-1] for finding in findings} >= {"values", "CRS", "place"}
    assert {request.method for request in server.requests} <= {"GET", "HEAD", "PROPFIND"}


def test_a_version_can_be_chosen(tmp_path):
    repo = repository(classes(), icechunk.local_filesystem_storage(str(tmp_path)))
    repo.create_tag("good", repo.lookup_branch("main"))
    with repo.transaction("main", message="Wrong") as store:
        pixels_of(store)[:] = 77
    assert failures(checkup.check(tmp_path)) == {"lulc values"}
    assert not failures(checkup.check(tmp_path, tag="good"))
    assert not failures(checkup.check(repo, tag="good"))
    with pytest.raises(checkup.InputError, match=r"expected bad, found the branches .*main.* and tags .*good"):
        list(checkup.check(tmp_path, tag="bad"))


def run(capsys, *argv):
    code = checkup.main([str(part) for part in argv])
    return code, *capsys.readouterr()


def test_the_command_prints_a_line_per_finding(tmp_path, capsys):
    with_levels(str(tmp_path / "sound.zarr"))
    code, out, err = run(capsys, tmp_path / "sound.zarr", yearly(tmp_path / "files"), "--group", "0", "--all")
    assert (code, err) == (0, "")
    *lines, last = out.splitlines()
    assert last == "sound" and len(lines) > 8
    assert all(line.startswith(("PASS  ", "note  ")) for line in lines)
    ds = classes()
    ds["lulc"].encoding["fill_value"] = 0
    write(ds, tmp_path / "ill.zarr")
    code, out, _ = run(capsys, tmp_path / "ill.zarr", "--sample", "3")
    assert code == 1 and out.endswith("1 to fix; the lines above say how\n")
    assert "FAIL  0/lulc" not in out and "FAIL  lulc values: chunks never written read as 0, a class (sand)" in out


BAD = {
    "nothing there": lambda folder: [folder / "nothing"],
    "no store": lambda folder: [folder],
    "a file": lambda folder: [write_tif(folder / "a.tif", classes().isel(year=0))],
    "empty": lambda folder: [zarr.create_group(folder / "empty.zarr").store.root],
    "no such group": lambda folder: [folder / "cube.zarr", "--group", "9"],
    "an array": lambda folder: [folder / "cube.zarr" / "0" / "lulc"],
    "no such branch": lambda folder: [folder / "repo", "--branch", "other"],
    "no file": lambda folder: [folder / "cube.zarr", folder / "no.tif"],
    "no rasters": lambda folder: [folder / "cube.zarr", folder / "cube.zarr"],
    "no raster": lambda folder: [folder / "cube.zarr", folder / "cube.zarr" / "zarr.json"],
    "no pattern": lambda folder: [folder / "cube.zarr", "--date", "("],
    "no answer": lambda folder: ["http://127.0.0.1:9/cube"],
    "no bucket": lambda folder: ["s3://"],
    "no answer from S3": lambda folder: ["s3://nothing/at/all"],
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_bad_input_is_told_in_one_line(tmp_path, capsys, make, no_settings, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with_levels(str(tmp_path / "cube.zarr"))
    icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    code, out, err = run(capsys, *make(tmp_path))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and "expected" in err and "Traceback" not in err, err
