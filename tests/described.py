"""Checks that a store's metadata is valid and true, also in kernels in which a lesson just ran."""

import json

import icechunk
import numpy as np
import zarr
import zarr_cm

from workshop import legend


def check(group):
    """Check the attributes of a group or array, and of all its members, against the conventions and CF."""
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


def check_place(group, off=1e-9):
    """Compare the array's transform by the convention, and by CF, with its coordinates."""
    y, x = group["y"][:], group["x"][:]
    right, down = (x[-1] - x[0]) / (len(x) - 1), (y[-1] - y[0]) / (len(y) - 1)
    expected = [right, 0, x[0] - right / 2, 0, down, y[0] - down / 2]
    np.testing.assert_allclose(group["lulc"].attrs["spatial:transform"], expected, rtol=0, atol=off)
    numbers = [float(number) for number in group["spatial_ref"].attrs["GeoTransform"].split()]
    np.testing.assert_allclose([numbers[k] for k in (1, 2, 0, 4, 5, 3)], expected, rtol=0, atol=off)


def check_bucket(bucket):
    """Return the faults of the land-cover rasters in a bucket; each must be described.

    A raster is an array ``lulc`` with coordinates. Arrays without coordinates were only written for measurements.
    """
    if bucket is None:
        return []
    pages = bucket.client().get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=f"{bucket.prefix}/")
    keys = [item["Key"].removeprefix(f"{bucket.prefix}/") for page in pages for item in page.get("Contents", [])]
    roots = {key.removesuffix("/repo"): True for key in keys if key.endswith("/repo")}
    roots |= {key.split("/lulc/")[0]: False for key in keys if key.endswith("/lulc/zarr.json")}
    wrong = []
    for path, versioned in roots.items():
        if versioned:
            store = icechunk.Repository.open(bucket.icechunk(path)).readonly_session("main").store
        else:
            store = bucket.zarr(path, read_only=True)
        try:
            group = zarr.open_group(store, mode="r", use_consolidated=False)
        except zarr.errors.GroupNotFoundError:
            continue
        group = group.get("0", group)
        if not {"lulc", "x", "y", "spatial_ref"} <= set(group):
            continue
        try:
            check(group)
            check_place(group)
        except (AssertionError, KeyError, ValueError) as error:
            wrong.append(f"{path}: {type(error).__name__} {' '.join(str(error).split())[:200]}")
    return wrong
