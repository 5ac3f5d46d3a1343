"""What your files say, which grid the cube has, and how the files of a date become a step of it.

Read every setting: they are what differs from one archive to the next.
"""

import functools
import os
import re
from datetime import datetime
from itertools import combinations
from pathlib import Path

import icechunk
import numpy as np
import pandas as pd
import rasterio
import rioxarray
import xarray as xr
import zarr_cm
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.warp import transform_bounds

FOLDER = Path(os.environ.get("RASTERS", "rasters"))
DATE, FORMAT = r"(\d{8})", "%Y%m%d"  # the date in a file's path, as a regular expression and for strptime
VERSION = r"_P(\d+)"  # the processing number: of files that differ only in it, the highest is used; or None
BAND = None  # if each file holds one band: where the band's name is in the path, such as r"_(B\d+)"
CLASSES = ()  # bands of codes, such as ("band_1",) or ("QA",): never averaged, and read as integers
RESAMPLING = Resampling.bilinear  # for all other bands; Resampling.average if files are much finer than the grid
NODATA = None  # the number for "no data", if files don't declare it
CHUNKS = (256, 256)  # rows, columns; each date has its own chunks, so it can be inserted and replaced
ABOUT = {"Conventions": "CF-1.12", "title": "", "license": "", "source": ""}


def storage() -> icechunk.Storage:
    """Return where the cube is: in the bucket CUBE_BUCKET, under CUBE_PREFIX, or else in the folder `cube`."""
    if bucket := os.environ.get("CUBE_BUCKET"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")  # for R2, MinIO and others; AWS needs none
        own = {"endpoint_url": endpoint, "allow_http": endpoint.startswith("http:"), "force_path_style": True}
        prefix = os.environ.get("CUBE_PREFIX") or "cube"
        return icechunk.s3_storage(bucket=bucket, prefix=prefix, from_env=True, **(own if endpoint else {}))
    icechunk.set_logs_filter("error")  # else it warns each time that a folder is safe for one writer only
    return icechunk.local_filesystem_storage("cube")


def read(session: icechunk.Session) -> xr.Dataset:
    """Open the cube lazily, as the session has it."""
    return xr.open_zarr(session.store, consolidated=False, decode_coords="all")


def alignment(crs: rasterio.CRS, width: float, height: float, west: float, north: float) -> tuple:
    """Return CRS, pixel size, and where pixels begin. If two rasters agree in all of it, pixels can be copied."""
    begin = np.round(np.array([west / width, north / height]) % 1, 2) % 1  # in fractions of a pixel
    return crs.to_string(), float(f"{width:.12g}"), float(f"{height:.12g}"), *begin.tolist()


def processing(name: str) -> tuple[str, int]:
    """Return a file's name without its processing number, and that number."""
    found = re.search(VERSION, name) if VERSION else None
    return (name.replace(found[0], ""), int(found[1])) if found else (name, 0)


def look_at(path: Path) -> dict:
    """Return what a file says, and what keeps it out of the cube."""
    name = path.relative_to(FOLDER).as_posix()
    date, band = re.search(DATE, name), re.search(BAND, name) if BAND else None
    line = {"file": name}
    try:
        line["scene"], line["version"] = processing(name)
        line["date"] = datetime.strptime(date[1], FORMAT) if date else None
        if date and line["date"].strftime(FORMAT) != date[1]:  # strptime also takes 2019033 for March 3
            raise ValueError(f"FORMAT {FORMAT} does not fit {date[1]}")
        with rasterio.open(path) as src:
            _ = [src.checksum(k) for k in src.indexes]  # reads every pixel
            (west, east), (south, north) = sorted(src.bounds[::2]), sorted(src.bounds[1::2])  # south up is fine
            bands = tuple(text or f"band_{k}" for k, text in enumerate(src.descriptions, 1))
            line |= {"bands": (band[1],) if band else bands, "box": (west, south, east, north)}
            line["alignment"] = alignment(src.crs, *np.abs(src.res), west, north) if src.crs else None
            packings = [*zip(src.dtypes, src.nodatavals, src.scales, src.offsets, strict=True)]
            dtype, nodata, scale, offset = packings[0]
            nodata = NODATA if nodata is None else nodata
            gaps = nodata is not None or any(np.isnan(src.read(k)).any() for k in src.indexes)
            fits = "float" in dtype or rasterio.dtypes.in_dtype_range(nodata or 0, dtype)
            points, (_, b, _, d, *_) = src.gcps[0], src.transform
            line |= {"dtype": dtype, "nodata": np.nan if nodata is None else nodata, "scale": scale, "offset": offset}
            problems = {
                "no date in its path: set DATE and FORMAT, or put a date into a folder's name": not date,
                "expected one band, named in its path: set BAND": BAND and not (band and src.count == 1),
                "no CRS: `rio edit-info --crs` gives it one": not (src.crs or points),
                "no place: `rio edit-info --transform` gives it one": not points and src.transform == Affine.identity(),
                "rotated, or has control points: use `rio warp --dst-crs`": b or d or points,
                "bands of different scales: unpack each with `rio calc`": len({*map(str, packings)}) > 1,  # NaN != NaN
                "64-bit integers: if they fit into 32 bits, use `rio convert --dtype`": "int64" in dtype,
                "declares no nodata: set NODATA": not gaps,
                f"nodata {nodata} is no {dtype}: set NODATA, or use `rio edit-info --nodata`": not fits,
            }
            return line | {"problem": "; ".join(text for text, found in problems.items() if found)}
    except (ValueError, IndexError) as error:
        return line | {"problem": f"check DATE, FORMAT and VERSION against its path: {error}"}
    except rasterio.RasterioIOError as error:
        return line | {"problem": f"cannot be read: {error}"}


def take_stock() -> pd.DataFrame:
    """Return a table of the GeoTIFFs in the folder, at any depth."""
    paths = sorted(path for path in FOLDER.rglob("*") if path.suffix.lower() in (".tif", ".tiff"))
    stock = pd.DataFrame([look_at(path) for path in paths])
    if stock.empty or stock["problem"].all():
        found = "; ".join(stock["problem"].unique()) if len(stock) else "none at all"
        raise ValueError(f"{FOLDER}: expected GeoTIFFs that can be used, found {len(stock)} that cannot: {found}")
    return stock


def box_in(crs: str, file: tuple) -> tuple:
    """Return the box of a file in another CRS: west, south, east, north."""
    box = transform_bounds(file.alignment[0], crs, *file.box)
    if not (np.isfinite(box).all() and box[0] < box[2]):
        advice = "Is its CRS right? If it crosses the antimeridian, cut it with `rio warp --dst-crs --dst-bounds`."
        raise ValueError(f"{file.file}: expected west < east in {crs}, found {box[0]:.6g} and {box[2]:.6g}. {advice}")
    return box


def overlap(one: tuple, other: tuple) -> float:
    """Return the fraction of the smaller file that both files cover."""
    boxes = np.array([one.box, box_in(one.alignment[0], other)])
    both = np.clip(boxes[:, 2:].min(axis=0) - boxes[:, :2].max(axis=0), 0, None)
    return both.prod() / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).min()


def usable(stock: pd.DataFrame) -> pd.DataFrame:
    """Return the files without a problem, and only the newest processing of each scene."""
    good = stock[stock["problem"] == ""].sort_values("version", kind="stable")
    files = good.drop_duplicates("scene", keep="last").sort_values(["date", "file"])
    for date, day in files.groupby("date"):
        for one, other in combinations(day.itertuples(), 2):
            if {*one.bands} & {*other.bands} and overlap(one, other) > 0.9:
                advice = "Different hours? Set DATE, FORMAT. Different bands? BAND. A newer processing? VERSION."
                found = f"expected one file per place and band, found {one.file} and {other.file}"
                raise ValueError(f"{date}: {found}. {advice}")
    return files


def choose_grid(files: pd.DataFrame) -> xr.Dataset:
    """Return the coordinates of the grid that most files share, wide enough for all of them."""
    chosen = files["alignment"].value_counts().index[0]
    crs, width, height, *_ = chosen
    left, _, _, top = files.loc[files["alignment"] == chosen, "box"].iloc[0]
    boxes = np.array([box_in(crs, file) for file in files.itertuples()])
    (west, south), (east, north) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    middle, sizes = boxes[:, 2:] + boxes[:, :2], np.diff(np.unique(boxes, axis=0).reshape(-1, 2, 2), axis=1)
    if (east - west) * (north - south) > 100 * sizes.prod(axis=2).sum():
        far = files["file"].iloc[np.abs(middle - np.median(middle, axis=0)).sum(axis=1).argmax()]
        raise ValueError(f"{far}: expected a place near the other files. Is its CRS right? If so, leave it out.")
    west = left - np.ceil((left - west) / width - 0.01) * width  # whole pixels from a file that fits
    north = top + np.ceil((north - top) / height - 0.01) * height
    x = west + width * (np.arange(np.ceil((east - west) / width - 0.01)) + 0.5)
    y = north - height * (np.arange(np.ceil((north - south) / height - 0.01)) + 0.5)
    grid = xr.Dataset(coords={"y": y, "x": x}).rio.write_crs(crs)
    return grid.rio.write_transform(Affine(width, 0, west, 0, -height, north)).rio.write_coordinate_system()


def place(file: pd.Series, grid: xr.Dataset) -> xr.Dataset:
    """Return a file's values on the grid, NaN where it has none; pixels that fit are copied, others resampled."""
    with rioxarray.open_rasterio(FOLDER / file["file"], masked=True) as stored:
        scene = stored.where(stored != file["nodata"]) * file["scale"] + file["offset"]
    scene = scene.assign_coords(band=list(file["bands"])).sortby("y", ascending=False).to_dataset("band")
    (width, height), (west, _, _, north) = np.abs(grid.rio.resolution()), grid.rio.bounds()
    if file["alignment"] == alignment(grid.rio.crs, width, height, west, north):
        return scene.reindex(x=grid.x, y=grid.y, method="nearest", tolerance=min(width, height) / 50)
    placed = {}
    for name, band in scene.items():
        how = Resampling.nearest if name in CLASSES else RESAMPLING
        placed[name] = band.rio.write_nodata(np.nan).rio.reproject_match(grid, resampling=how, nodata=np.nan)
    return xr.Dataset(placed).assign_coords(x=grid.x, y=grid.y)


def step_of(files: pd.DataFrame, grid: xr.Dataset) -> xr.Dataset:
    """Return the files of a date on the grid; where several have a value, the first one is used."""
    step = functools.reduce(xr.Dataset.combine_first, [place(file, grid) for _, file in files.iterrows()])
    for name, band in step.items():
        if name in CLASSES:
            how = encodings(files)[name] | (grid[name].encoding if name in grid else {})
            step[name] = band.fillna(how["fill_value"]).astype(how["dtype"])
            if not band.equals(step[name].where(step[name] != how["fill_value"])):
                expected = f"{name}: expected classes of {how['dtype']}, and {how['fill_value']} only for no data"
                raise ValueError(f"{expected}, as the cube has; found others in {list(files['file'])}: leave them out")
        step[name].attrs = {}  # they describe a file
    step.attrs = {}
    return step.drop_vars("spatial_ref").expand_dims(time=files["date"].iloc[:1])


def misfit(file: tuple, how: dict) -> str:
    """Say why a band that is stored like this cannot hold each number of a file exactly, or return an empty text."""
    scale, offset = how.get("scale_factor", 1), how.get("add_offset", 0)
    steps = np.array([file.scale, file.offset - offset]) / scale
    whole = np.allclose(steps, np.round(steps), rtol=1e-6, atol=1e-9)
    fits = file.dtype == how["dtype"] if "float" in f"{file.dtype} {how['dtype']}" else whole
    found = f"{file.file} has {file.dtype} * {file.scale} + {file.offset}, not {how['dtype']} * {scale} + {offset}"
    return "" if fits else f"{found}: unpack all files with `rio calc`, and build a cube from those"


def encodings(files: pd.DataFrame) -> dict:
    """Return how the cube stores dates, and each band: the way most files store it."""
    stored = {}
    for name in dict.fromkeys(name for bands in files["bands"] for name in bands):
        lines = files[[name in bands for bands in files["bands"]]]
        packing = lines[["dtype", "nodata", "scale", "offset"]].value_counts(dropna=False)
        dtype, nodata, scale, offset = packing.index[0]
        values = {"dtype": dtype, "chunks": (1, *CHUNKS), "grid_mapping": "spatial_ref"}
        values["fill_value"] = nodata  # what readers get where nothing was written
        if name not in CLASSES:
            values["_FillValue"] = nodata  # what readers turn into NaN
        if scale != 1:
            values["scale_factor"] = scale
        if offset:
            values["add_offset"] = offset
        fits = {name not in CLASSES and misfit(file, values): file.file for file in lines.itertuples()}
        if any(fits):
            raise ValueError(f"{name}: expected one type and scale, as in {fits['']}; {max(fits)}")
        stored[name] = values
    dates = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian", "dtype": "int64"}
    return stored | {"time": dates | {"chunks": (1000,)}}


def describe(grid: xr.Dataset) -> dict:
    """Return the Zarr conventions `proj` and `spatial`, which tell other tools where the pixels are."""
    transform, shape = list(grid.rio.transform())[:6], [grid.sizes["y"], grid.sizes["x"]]
    place = zarr_cm.spatial.create(
        dimensions=["y", "x"], transform=transform, bbox=list(grid.rio.bounds()), shape=shape, registration="pixel"
    )
    crs = zarr_cm.proj.create(wkt2=grid.rio.crs.to_wkt(version="WKT2_2019"))
    return zarr_cm.create_many({"proj": crs, "spatial": place})
