"""The exercises: untouched, with wrong answers on purpose, and solved; each inside its own lesson's core path."""

import re

import nbformat
import numpy as np
import pytest
import xarray as xr
from conftest import MEMORY_LIMIT, NOTEBOOKS, ROOT
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from workshop import exercises, servers, tiles

PEAK_MEMORY = """
import sys
if sys.platform == "win32":
    import psutil
    peak = psutil.Process().memory_info().peak_wset
elif sys.platform == "linux":  # where getrusage begins with the memory of the process that started the kernel
    with open("/proc/self/status") as status:
        peak = int(status.read().split("VmHWM:")[1].split()[0]) * 1024
else:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
peak
"""


def uncommitted(edit):
    """Return the code of an attempt at lesson 05 that changes the array ``a`` in a fresh session."""
    return (
        "repo.reset_branch('main', v1)\nsession = repo.writable_session('main')\n"
        f"a = zarr.open_array(session.store, path='lulc', mode='r+')\n{edit}"
    )


def committed(edit):
    return uncommitted(edit) + "\npatched = session.commit('w')"


def year_groups(path, write, commit="session.commit('w')"):
    """Return the code of an attempt at exercise 06-2; ``write`` stands in a loop over the years."""
    return (
        f"groups = icechunk.Repository.create(bucket.icechunk('{path}'), config, "
        "authorize_virtual_chunk_access=allowed)\nsession = groups.writable_session('main')\n"
        f"for year in (2013, 2014, 2015, 2016):\n    {write}\n{commit}"
    )


def own_tile(path, year=2020, x="x", y="y", name="lulc", box="x=slice(-112.5, -112.4), y=slice(41, 40.75)", then=""):
    """Return the code of an attempt at exercise 06-3."""
    return (
        f"u, r = virtual.locate_tile('50N_120W', {year})\n"
        "v = open_virtual_dataset(u, registry=r, parser=VirtualTIFF(ifd=0))['0'].data\n"
        f"d = xr.Dataset({{'{name}': (('y', 'x'), v)}}, coords={{'x': {x}, 'y': {y}}})\n"
        f"my_repo = icechunk.Repository.create(bucket.icechunk('{path}'), tile_config, "
        "authorize_virtual_chunk_access=tile_access)\ns = my_repo.writable_session('main')\n"
        "d.vz.to_icechunk(s.store)\ns.commit('w')\n"
        f"mine = xr.open_zarr(s.store, consolidated=False, chunks=None)['{name}'].sel({box}){then}"
    )


# For each exercise: answers that a learner may well give, and a part of the hint that should come back.
WRONG = {
    "01-1": [
        ("pixel_centre = (40.849875, -112.199875)", "(latitude, longitude)"),
        ("pixel_centre = (-112.2, 40.85)", "upper-left corner"),
        ("pixel_centre = (-120 + 36600.5 * 0.00025, 50 - 31200.5 * 0.00025)", "exchanged"),
        ("pixel_centre = (-120 + 31200.5 * 0.00025, 50 + 36600.5 * 0.00025)", "Rows count downwards"),
        ("pixel_centre = (-112.199875, 40.850125)", "Rows count downwards"),
        ("pixel_centre = (-112.200125, 40.850125)", "counted from 0"),
        ("pixel_centre = (0, 0)", "is not the centre"),
        ("pixel_centre = 40.85", "Expected a pair (longitude, latitude)"),
    ],
    "01-2": [
        ("decoded_per_wanted = 1", "decoded as a whole"),
        ("decoded_per_wanted = (40_000 / 512) ** 2", "not the whole tile"),
        ("decoded_per_wanted = 512 / 40_000", "Upside down"),
        ("decoded_per_wanted = 512 * 40_000", "This counts pixels"),
        ("decoded_per_wanted = 100", "is not it"),
        ("decoded_per_wanted = '78.125'", "leave out the quotes"),
    ],
    "01-3": [
        ("chunk_key = 'c/6/2'", "axes are exchanged"),
        ("chunk_key = 'c/3/7'", "counted from 0"),
        ("chunk_key = 'c/2/7'", "not by rounding"),
        ("chunk_key = '2/6'", "begins with 'c'"),
        ("chunk_key = 'c.2.6'", "separates them with '/'"),
        ("chunk_key = 'c/1234/3410'", "does not hold"),
        ("chunk_key = (2, 6)", "Expected a key"),
    ],
    "02-1": [
        ("city = tile.sel(x=slice(-112.0, -111.8), y=slice(40.65, 40.85)).squeeze('band')", "No rows"),
        ("city = tile.sel(x=slice(-111.8, -112.0), y=slice(40.85, 40.65)).squeeze('band')", "No pixels"),
        ("city = tile.sel(x=slice(-112.0, -111.8), y=slice(40.85, 40.65))", "band dimension"),
        (
            "city = rioxarray.open_rasterio(path, masked=True).squeeze('band')"
            ".sel(x=slice(-112.0, -111.8), y=slice(40.85, 40.65))",
            "become float32",
        ),
        ("city = window[599:1400, 2000:2800]", "reaches too far in the north by 1 row:"),
        ("city = window[600:1399, 2000:2800]", "stops short in the south by 1 row:"),
        ("city = window[600:1400, 2002:2800]", "stops short in the west by 2 columns:"),
        ("city = window[600:1400, 2000:2801]", "reaches too far in the east by 1 column:"),
        ("city = window.sel(x=slice(-112.0, -111.8), y=slice(40.85, 40.65))[::-1]", "upside down"),
        ("city = window.sel(x=slice(-112.0, -111.8), y=slice(40.85, 40.65)).T", "(y, x)"),
        (
            "city = tiles.select_box(tiles.open_tile('50N_120W', 2005), exercises.CITY)",
            "is this the tile of the year 2000?",
        ),
        ("city = window[600:1400, np.r_[2000, 2002:2800, 2799]]", "what lies between"),
        ("city = by_hand[600:1400, 2000:2800]", "found ndarray"),
    ],
    "02-2": [
        ("built_up_percent = int((lulc == 250).sum())", "number of pixels"),
        ("built_up_percent = float((lulc == 250).mean())", "This is a fraction"),
        ("built_up_percent = 100 * float((lulc == 250).sum()) / tile.size", "share of the whole tile"),
        ("built_up_percent = 100 * float((lulc == 244).mean())", "This is cropland"),
        ("built_up_percent = 100 * float((lulc == 250).sum() / (lulc > 0).sum())", "leaves out class 0"),
        ("built_up_percent = 50", "is not it"),
        ("built_up_percent = lulc == 250", "Expected a number"),
    ],
    "02-3": [
        (
            "city_again = tiles.select_box(tiles.open_tile('50N_120W', 2000), exercises.CITY)",
            "not opened from a Zarr",
        ),
        ("city_again = lulc.values", "found ndarray"),
        (
            "city_again = tiles.select_box(tiles.open_tile('50N_120W', 2000), exercises.CITY)\n"
            "city_again.encoding = {'chunks': (400, 400)}",
            "not opened from a Zarr",
        ),
        ("city_again = tile", "band dimension"),
        ("city_again = came_back", "came back as float64"),
        ("city_again = again.lulc", "The values differ"),
        (
            "city2 = window.sel(x=slice(-112.0, -111.8), y=slice(40.85, 40.65))\n"
            "city2.to_dataset().to_zarr(bucket.zarr('w0.zarr'), consolidated=False)\n"
            "city_again = xr.open_zarr(bucket.zarr('w0.zarr'), mask_and_scale=False, consolidated=False).lulc",
            "clear the attributes before writing",
        ),
        (
            "exercises_city = tiles.select_box(tiles.open_tile('50N_120W', 2000), exercises.CITY)\n"
            "exercises_city.to_dataset().to_zarr(bucket.zarr('w1.zarr'), consolidated=False)\n"
            "city_again = xr.open_zarr(bucket.zarr('w1.zarr'), decode_coords='all', consolidated=False).lulc",
            "Expected Zarr chunks of (400, 400)",
        ),
        (
            "exercises_city.to_dataset().to_zarr(bucket.zarr('w2.zarr'), consolidated=False,"
            " encoding={'lulc': {'chunks': (400, 400)}})\n"
            "city_again = xr.open_zarr(bucket.zarr('w2.zarr'), consolidated=False).lulc",
            "The CRS got lost",
        ),
        (
            "cut = tile.sel(x=slice(-112.0, -111.8), y=slice(40.85, 40.65)).squeeze('band', drop=True)\n"
            "clean = cut.rename('lulc')\n"
            "clean.attrs = {}\n"
            "clean.to_dataset().to_zarr(bucket.zarr('w9.zarr'), encoding={'lulc': {'chunks': (400, 400), "
            "'grid_mapping': 'spatial_ref'}}, consolidated=False)\n"
            "city_again = xr.open_zarr(bucket.zarr('w9.zarr'), decode_coords='all', consolidated=False).lulc",
            "begins at (-120.0, 50.0), x and y that it begins at (-112.0, 40.85)",
        ),
    ],
    "03-1": [
        ("gigabytes = 8", "This is uint8"),
        ("gigabytes = 64", "This is float64"),
        ("gigabytes = 6.4", "This is one tile"),
        ("gigabytes = 29.8", "This is GiB"),
        ("gigabytes = 32e9", "This is bytes"),
        ("gigabytes = 12", "is not it"),
        ("gigabytes = '32 GB'", "leave out the quotes"),
    ],
    "03-2": [
        ("first_year = 3", "position on the year axis"),
        ("first_year = 2020", "built-up already"),
        ("first_year = 2010", "has class 244"),
        ("first_year = 2012", "not one of the cube's years"),
        ("first_year = 'never'", "Expected a year"),
    ],
    "03-3": [
        ("field_to_street = int((cube.sel(year=2020) == 250).sum())", "all built-up land of 2020"),
        (
            "field_to_street = int((cube.sel(year=2020) == 250).sum() - (cube.sel(year=2000) == 250).sum())",
            "how much built-up land grew",
        ),
        (
            "field_to_street = int((cube.sel(year=2000) == 244).sum() - (cube.sel(year=2020) == 244).sum())",
            "how much cropland was lost",
        ),
        (
            "field_to_street = int(((cube.sel(year=2000) == 250) & (cube.sel(year=2020) == 244)).sum())",
            "the way back",
        ),
        (
            "field_to_street = int(((cube.sel(year=2000) == 244) | (cube.sel(year=2020) == 250)).sum())",
            "both must hold",
        ),
        (
            "field_to_street = int((cube.sel(year=2020, drop=True) - cube.sel(year=2000, drop=True) == 6).sum())",
            "compare the codes",
        ),
        (
            "field_to_street = int(((cube[:-1].values == 244) & (cube[1:].values == 250)).sum())",
            "compare 2000 and 2020 alone",
        ),
        ("field_to_street = 1", "is not it"),
        ("field_to_street = 247208.9", "is not it"),
        ("field_to_street = cube", "Expected a number of pixels"),
    ],
    "04-1": [
        ("culprit = 'Widen the road'", "This is the newest commit"),
        ("culprit = 'Build a road'", "not built-up yet; the commit after it"),
        ("culprit = 'Build the old town'", "not for the last time"),
        ("culprit = 'Give the old town back to the fields'", "changed the pixel, but to 244"),
        ("culprit = 'Build houses around the new town'", "is 250 after this commit and was 250 before"),
        ("culprit = 'Plant a wood in the west'", "is 244 after this commit and was 244 before"),
        ("culprit = 'the new town'", "is no commit's message"),
        ("culprit = next(iter(busy.ancestry(branch='main'))).id", "is no commit's message"),
        ("culprit = 5", "Expected a commit's message"),
    ],
    "04-2": [
        ("release, release_years = 'v1', [2000, 2005, 2010, 2015]", "There is no tag 'v1'"),
        ("release, release_years = 'one-tree-class', [2000, 2005, 2010, 2015]", "It is a branch, which would move on"),
        (
            "release, release_years = 'five-years', [2000, 2005, 2010, 2015]",
            "with the years [2000, 2005, 2010, 2015, 2020]",
        ),
        (
            "repo.create_tag('early', next(s for s in repo.ancestry(branch='main') if s.message == 'Add 2010').id)\n"
            "release, release_years = 'early', [2000, 2005, 2010]",
            "with the years [2000, 2005, 2010]; the paper used",
        ),
        (
            "repo.create_tag('empty', list(repo.ancestry(branch='main'))[-1].id)\nrelease, release_years = 'empty', []",
            "with the years []",
        ),
        (
            "repo.create_tag('good', next(s for s in repo.ancestry(branch='main') if s.message == 'Add 2015').id)\n"
            "release, release_years = 'good', years_in(repo.readonly_session('main'))",
            "These are the years of main",
        ),
        ("release, release_years = 'good', [2015]", "Through it one finds four years"),
        ("release, release_years = 'good', [2000.5, 2005.5, 2010.5, 2015.5]", "Through it one finds four years"),
        (
            "repo.create_branch('resized', repo.lookup_tag('good'))\n"
            "with repo.transaction('resized', message='Resize') as store:\n"
            "    zarr.open_array(store, path='lulc', mode='r+').resize((5, 2000, 4000))\n"
            "repo.create_tag('resized', repo.lookup_branch('resized'))\n"
            "release, release_years = 'resized', [2000, 2005, 2010, 2015]",
            "lulc is (5, 2000, 4000), uint8 in that version",
        ),
        ("release, release_years = 'good', 'four'", "Through it one finds four years, not ['four']"),
        (
            "repo.create_branch('spoilt', repo.lookup_tag('good'))\n"
            "with repo.transaction('spoilt', message='Spoil') as store:\n"
            "    zarr.open_array(store, path='lulc', mode='r+')[1, 0, 0] = 1\n"
            "repo.create_tag('spoilt', repo.lookup_branch('spoilt'))\n"
            "release, release_years = 'spoilt', [2000, 2005, 2010, 2015]",
            "2005 is not what the tile holds",
        ),
    ],
    "04-3": [
        ("settled = 'nowhere'", "There is no branch 'nowhere'"),
        ("settled = 'main'", "Leave main as it is"),
        ("settled = 'desk'", "none that same_chunk made"),
        ("ben = same_chunk('w1')\nsettled = 'w1'", "Ben's houses (rows 400 to 499) are not on the branch"),
        ("settled = 'solved-ours'", "took Anna's cropland with them"),
        ("settled = 'solved-theirs'", "his houses are not"),
        (
            "ben = same_chunk('w2')\nrepo.reset_branch('w2', five_years)\nsettled = 'w2'",
            "none that same_chunk made",
        ),
        (
            "ben = same_chunk('w3')\nrepo.reset_branch('w3', five_years)\nben = repo.writable_session('w3')\n"
            "edit(ben, slice(0, 100), slice(0, 100), 244)\nedit(ben, slice(400, 500), slice(0, 100), 250)\n"
            "ben.commit('Ben: both')\nsettled = 'w3'",
            "Anna's commit is gone",
        ),
        (
            "ben = same_chunk('w4')\nben = repo.writable_session('w4')\n"
            "edit(ben, slice(400, 500), slice(0, 500), 250)\nben.commit('Ben: houses')\nsettled = 'w4'",
            "other pixels of 2020 changed",
        ),
        (
            "ben = same_chunk('w5')\nben = repo.writable_session('w5')\n"
            "edit(ben, slice(400, 500), slice(0, 100), 250)\nben.commit('Both')\nsettled = 'w5'",
            "let Ben's be a commit of his own",
        ),
        (
            "ben = same_chunk('w6')\nben = repo.writable_session('w6')\n"
            "edit(ben, slice(400, 500), slice(0, 100), 244)\nedit(ben, slice(0, 100), slice(0, 100), 250)\n"
            "ben.commit('Ben: houses')\nsettled = 'w6'",
            "Neither edit is there",
        ),
        (
            "ben = same_chunk('w7')\nben = repo.writable_session('w7')\n"
            "zarr.open_array(ben.store, path='lulc', mode='r+')[:, 400:500, :100] = 250\n"
            "ben.commit('Ben: houses')\nsettled = 'w7'",
            "Both edits are there, but 2000 changed, too",
        ),
        (
            "ben = same_chunk('w8')\nben = repo.writable_session('w8')\n"
            "zarr.open_array(ben.store, path='lulc', mode='r+').resize((6, 2000, 4000))\n"
            "edit(ben, slice(400, 500), slice(0, 100), 250)\nben.commit('Ben: houses')\nsettled = 'w8'",
            "On this branch lulc has become (6, 2000, 4000), uint8",
        ),
        ("settled = repo", "Expected the name of a branch"),
    ],
    "05-1": [
        ("patch = published.sel(year=2020, y=slice(40.75, 41), x=slice(-112.5, -112.4)) * 0 + 10", "No pixels: y runs"),
        ("patch = xr.full_like(published.sel(y=slice(41, 40.75), x=slice(-112.5, -112.4)), 10)", "has 5 years"),
        ("patch = xr.full_like(in_box.sel(year=2015), 10)", "This is the year 2015"),
        ("patch = xr.full_like(in_box.sel(year=[2015]), 10)", "This is the year 2015"),
        ("patch = in_box.sel(year=2020) * 0.0 + 10", "become float64"),
        ("patch = in_box.sel(year=2020).where(False, 10).astype('float32')", "become float32"),
        ("patch = xr.full_like(in_box.sel(year=2020), 10)[::-1]", "upside down"),
        ("patch = xr.full_like(in_box.sel(year=2020), 10)[1:]", "stops short in the north by 1 row:"),
        ("patch = xr.full_like(in_box.sel(year=2020), 10)[:-1]", "stops short in the south by 1 row:"),
        ("patch = xr.full_like(in_box.sel(year=2020), 10)[:, 1:]", "stops short in the west by 1 column:"),
        ("patch = xr.full_like(in_box.sel(year=2020), 10)[:, :-1]", "stops short in the east by 1 column:"),
        ("patch = xr.full_like(published[4, :1001, :400], 10)", "reaches too far in the south by 1 row:"),
        ("patch = xr.full_like(published[4, :1000, :402], 10)", "reaches too far in the east by 2 columns:"),
        ("patch = xr.full_like(published[4, 1000:, :400], 10)", "stops short in the north by 1000 rows"),
        ("patch = xr.full_like(published[4, :1000, [0, *range(2, 399), 398, 399]], 10)", "what lies between"),
        ("patch = xr.full_like(in_box.sel(year=2020), 1)", "400,000 of the 400,000 pixels are not 10"),
        ("patch = in_box.sel(year=2020)", "pixels are not 10"),
        ("patch = xr.full_like(in_box.sel(year=2020), 10).T", "(y, x)"),
        (
            "import rioxarray\npatch = xr.full_like(in_box.sel(year=2020), 10).rio.write_crs('EPSG:3857')",
            "The patch claims to be in EPSG:3857",
        ),
        ("patch = np.full((1000, 400), 10, 'uint8')", "found ndarray"),
        ("patch = xr.DataArray(np.full((1000, 400), 10, 'uint8'), dims=('y', 'x'))", "with their coordinates"),
    ],
    "05-2": [
        ("session = repo", "Expected a session, found Repository"),
        ("session = repo.readonly_session('main')", "This session is read-only"),
        (uncommitted(""), "Nothing was written"),
        (uncommitted("a[3, :1000, :400] = 10"), "The year 2015 was changed"),
        (uncommitted("a[:, :1000, :400] = 10"), "All years were changed"),
        (uncommitted("a[4, :1000, :401] = 10"), "reaches too far in the east by 1 column."),
        (uncommitted("a[4, 1000:, :400] = 10"), "upside down"),
        (
            uncommitted(
                "a[4] = np.where(np.arange(4000) < 400, np.where(np.arange(2000)[:, None] < 1000, 10, a[4]), a[4])"
            ),
            "32 chunks were written",
        ),
        (
            uncommitted("a[4, :1000, :400] = 10; a.attrs['note'] = 'repaired'"),
            "2 chunks were written, and /lulc made anew or changed",
        ),
        (
            uncommitted("a[4, :1000, :400] = 10; zarr.open_group(session.store, mode='r+').attrs['note'] = 'repaired'"),
            "2 chunks were written, and / made anew or changed",
        ),
        (
            uncommitted(
                "a[4, :1000, :400] = 10; y = zarr.open_array(session.store, path='year', mode='r+'); y[:] = y[:]"
            ),
            "3 chunks were written, some of /year",
        ),
        ("repo.create_branch('try', v1)\nsession = repo.writable_session('try')", "commit to the branch 'try'"),
    ],
    "05-3": [
        ("repo.reset_branch('main', v1)\npatched = v1", "Nothing was committed"),
        (committed("a[3, :1000, :400] = 10"), "The year 2015 was changed"),
        (committed("a[0, :1000, :400] = 10"), "The year 2000 was changed"),
        (committed("a[:, :1000, :400] = 10"), "All years were changed"),
        (committed("a[4, 1:1000, :400] = 10"), "stops short in the north by 1 row."),
        (committed("a[4, :999, :400] = 10"), "stops short in the south by 1 row."),
        (committed("a[4, :1000, 1:400] = 10"), "stops short in the west by 1 column."),
        (committed("a[4, :1000, :398] = 10"), "stops short in the east by 2 columns."),
        (committed("a[4, :1001, :400] = 10"), "reaches too far in the south by 1 row."),
        (committed("a[4, :1000, :401] = 10"), "reaches too far in the east by 1 column."),
        (committed("a[4, 1000:2000, :400] = 10"), "upside down"),
        (committed("a[4, :1000, 3600:] = 10"), "outside the box were changed, and"),
        (committed("a[4, 1:1001, :400] = 10"), "The patch is shifted: 1 row to the south. To begin again"),
        (committed("a[4, 2:1002, 1:401] = 10"), "is shifted: 2 rows to the south and 1 column to the east."),
        (committed("a[4, :1000, :400] = 10; a[4, 1500, 2000:2010] = 10"), "10 pixels outside the box were changed."),
        (committed("a[4, :1000, :400] = 10; a[4, 5, 2000:2010] = 1"), "10 pixels outside the box were changed."),
        (committed("a[4, 1:999, 1:399] = 10"), "stops short on more than one side, by up to 1 pixels"),
        (committed("a[4, :1000, :400] = 1"), "The box is 1 now"),
        (committed("a[4, :1000, :400] = np.where(a[4, :1000, :400] >= 254, 10, a[4, :1000, :400])"), "are not 10"),
        (committed("p = a[:]; p[4, :1000, :400] = 10; a[:] = p"), "160 chunks were written"),
        (
            "repo.reset_branch('main', v1)\nsession = repo.writable_session('main')\n"
            "whole = published.astype('float32').load()\nwhole[4, :1000, :400] = 10\n"
            "to_icechunk(whole.to_dataset(), session, mode='w')\npatched = session.commit('w')",
            "lulc has become float32",
        ),
        (
            "repo.reset_branch('main', v1)\nsession = repo.writable_session('main')\n"
            "whole = published.load()\nwhole[4, :1000, :400] = 10\n"
            "to_icechunk(whole.to_dataset(), session, mode='w')\npatched = session.commit('w')",
            "made anew",
        ),
        (
            "repo.reset_branch('main', v1)\nsession = repo.writable_session('main')\n"
            "to_icechunk(published.sel(year=[2020]).drop_vars('spatial_ref').assign_coords(year=[2025]), session,"
            " append_dim='year', mode='a-')\npatched = session.commit('w')",
            "lulc has the shape (6, 2000, 4000)",
        ),
        (
            "repo.reset_branch('main', v1)\nrepo.create_branch('elsewhere', v1)\n"
            "session = repo.writable_session('elsewhere')\n"
            "zarr.open_array(session.store, path='lulc', mode='r+')[4, :1000, :400] = 10\n"
            "patched = session.commit('w')",
            "This commit is on the branch 'elsewhere'",
        ),
        (committed("a[4, :1000, :400] = 10") + "\npatched = v1", "The cube is right. But main points at"),
        (
            "repo.reset_branch('main', v1)\nsession = repo.writable_session('main')\n"
            "zarr.open_array(session.store, path='lulc', mode='r+')[4, :1000, :400] = 10\n"
            "patched = session.amend('w')",
            "v1.0 is no longer in the history of main",
        ),
        # last, because the right answer commits this session
        (uncommitted("a[4, :1000, :400] = 10") + "\npatched = session.snapshot_id", "Nothing was committed"),
    ],
    "06-1": [
        ("position = (1000 * 25 + 10) * 53 + 20", "So many values come before it"),
        ("position = ((1000 * 25 + 10) * 53 + 20) * 2", "where in the file does that one begin"),
        ("position = 8192 + (1000 * 25 + 10) * 53 + 20", "Each value has two bytes"),
        ("position = 8192 + ((20 * 25 + 10) * 2920 + 1000) * 2", "if time ran fastest"),
        ("position = 8192 + ((1000 * 53 + 20) * 25 + 10) * 2", "begins the value with the indices"),
        ("position = 8192 + ((1000 * 25 + 10) * 53 + 19) * 2", "indices (1000, 10, 19); wanted is (1000, 10, 20)"),
        ("position = 8193 + ((1000 * 25 + 10) * 53 + 20) * 2", "the middle of a value"),
        ("position = 8192 + ((1000 * 25 + 10) * 53 + 20) * 8", "Not in the array, which has the bytes 8,192 to"),
        ("position = 0", "Not in the array"),
        ("position = 2659292.5", "between two bytes"),
        ("position = '2659292'", "leave out the quotes"),
    ],
    "06-2": [
        ("groups = session", "Expected the repository, found Session"),
        (year_groups("w1", "pass", commit=""), "main is empty"),
        (
            year_groups(
                "w2",
                "open_virtual(folder / f'air-{year}.nc').vz.to_icechunk(session.store, group=str(year))",
                commit="",
            ),
            "main is empty",
        ),
        (
            year_groups(
                "w3",
                "if year < 2016:\n"
                "        open_virtual(folder / f'air-{year}.nc').vz.to_icechunk(session.store, group=str(year))",
            ),
            "There is no group '2016'",
        ),
        (
            year_groups("w4", "to_icechunk(xr.open_dataset(folder / f'air-{year}.nc'), session, group=str(year))"),
            "2013: the values were copied",
        ),
        (
            year_groups("w5", "open_virtual(folder / 'air-2013.nc').vz.to_icechunk(session.store, group=str(year))"),
            "2014: the references lead to other values",
        ),
        (
            year_groups(
                "w6", "open_virtual(folder / f'air-{4029 - year}.nc').vz.to_icechunk(session.store, group=str(year))"
            ),
            "2013: expected the shape (1460, 25, 53), found (1464, 25, 53)",
        ),
        (
            year_groups("w7", "open_virtual(folder / f'air-{year}.nc').vz.to_icechunk(session.store, group=str(year))")
            + "\ngroups = icechunk.Repository.open(bucket.icechunk('w7'))",
            "create the repository with authorize_virtual_chunk_access",
        ),
        (
            year_groups(
                "w8", "open_virtual(folder / f'air-{year}.nc').vz.to_icechunk(session.store, group=f'y{year}')"
            ),
            "found ['y2013', 'y2014', 'y2015', 'y2016']",
        ),
    ],
    "06-3": [
        (own_tile("v1", year=2015), "or 2015; wanted are those of 2020"),
        (own_tile("v2", x="x - 0.000125", y="y + 0.000125"), "half a pixel off"),
        (own_tile("v3", y="y[::-1]", box="x=slice(-112.5, -112.4), y=slice(40.75, 41)"), "upside down"),
        (
            own_tile("v4", y="y[::-1]", box="x=slice(-112.5, -112.4), y=slice(40.75, 41)", then="[::-1]"),
            "the pixels are not",
        ),
        (own_tile("v5", then=".astype('float32')"), "become float32"),
        (own_tile("v6", box="x=slice(-112.5, -112.4), y=slice(40.75, 41)"), "No pixels: y runs from north to south"),
        (own_tile("v7", then="[1:]"), "stops short in the north by 1 row"),
        (own_tile("v8", name="0"), "There is no array lulc"),
        (own_tile("v9") + "\nmine = mine.values", "Expected the pixels as an xarray.DataArray"),
        ("my_repo, mine = s, lulc", "Expected the repository first"),
        (
            "my_repo = icechunk.Repository.create(bucket.icechunk('v10'))\ns = my_repo.writable_session('main')\n"
            "mine = tiles.open_tile('50N_120W', 2020)[30_000:31_000, 30_000:30_400]\n"
            "to_icechunk(mine.to_dataset(), s)\ns.commit('w')",
            "lulc has the shape (1000, 400)",
        ),
    ],
    "ap-1": [
        ("map_chunks = (1, 1250, 1250)", "A chunk has 1,562,500 bytes, more than 1,000,000."),
        ("map_chunks = (5, 500, 500)", "A map wants one year only"),
        ("map_chunks = (1, 400, 400)", "touches 16 chunks, more than 9"),
        ("map_chunks = (1, 250, 4000)", "touches 10 chunks"),
        ("map_chunks = (1, 512, 512)", "they would cross tile borders"),
        ("map_chunks = (500, 500, 1)", "the order is (year, y, x)"),
        ("map_chunks = (500, 500)", "three whole numbers"),
        ("map_chunks = 500", "three whole numbers"),
        ("map_chunks = (0, 500, 500)", "three whole numbers"),
    ],
    "ap-2": [
        ("series_chunks = (1, 250, 250)", "A pixel through five years touches 5 chunks"),
        ("series_chunks = (4, 100, 100)", "touches 2 chunks"),
        ("series_chunks = (5, 125, 125)", "A chunk has 78,125 bytes"),
        ("series_chunks = (5, 80, 80)", "may touch 64 chunks, more than 36"),
        ("series_chunks = (5, 10, 1250)", "nearer to squares"),
        ("series_chunks = (5, 113, 113)", "they would cross tile borders"),
        ("series_chunks = (100, 100, 5)", "the order is (year, y, x)"),
    ],
    "ap-3": [
        ("series_chunks, series_shards = (5, 100, 100), (5, 500, 500)", "A shard has 1.25 MB, which is too small"),
        ("series_chunks, series_shards = (5, 100, 100), (5, 4000, 4000)", "A shard has 80 MB, which is too large"),
        ("series_chunks, series_shards = (5, 100, 100), (5, 1250, 2000)", "does not hold whole chunks of 100"),
        ("series_chunks, series_shards = (5, 100, 100), (1, 4000, 4000)", "Along year, a shard of 1"),
        ("series_chunks, series_shards = (5, 100, 100), (5, 1500, 1500)", "they would cross tile borders"),
        ("series_chunks, series_shards = (5, 80, 80), (5, 2000, 2000)", "may touch 64 chunks"),
        ("series_chunks, series_shards = (5, 100, 100), 20_000_000", "Expected shards as three whole numbers"),
    ],
    "07-1": [
        ("place = (480_000, 360_000)", "in the wrong order: row (y) first"),
        ("place = (9, 12)", "the tile's row and column among tiles"),
        ("place = (360_001, 480_001)", "Counting begins at 0"),
        ("place = (360_000.5, 480_000.5)", "Pixels are counted whole"),
        ("place = (360_000, 240_000)", "The column counts from 0 degrees or from the east"),
        ("place = (360_000, 520_000)", "The column is not 520,000"),
        ("place = (280_000, 480_000)", "South of the equator the latitude is negative"),
        ("place = (200_000, 480_000)", "The row counts from the south"),
        ("place = (400_000, 480_000)", "the row is not 400,000"),
        ("place = 360_000", "Expected two whole numbers"),
        ("place = (360_000, '480_000')", "leave out the quotes"),
    ],
    "07-2": [
        ("missing = {(2005, '40N_110W')}", "1 found, and they are right; there are more"),
        ("missing = set()", "0 found, and they are right"),
        ("missing = {(2005, '50N_120W')}", "50N_120W of 2005 is there"),
        ("missing = {('40N_110W', 2005)}", "Expected a set of pairs (year, tile)"),
        ("missing = {'40N_110W'}", "Expected a set of pairs (year, tile)"),
        (
            "missing = {(2005, '40N_110W'), (2015, '40N_120W'), (2015, '50N_120W')}",
            "40N_110W of 2005 is not in the cube yet",
        ),
        (
            "missing = {(2005, '40N_110W'), (2015, '40N_120W'), (2015, '50N_120W')}\n"
            "world.ingest(gaps, ['40N_110W'], [2005], box=around)",
            "50N_120W of 2015 is not in the cube yet",
        ),
        (
            "with gaps.transaction('main', message='by hand') as store:\n"
            "    zarr.open_array(store, path='lulc', mode='r+')[0, 159_500, 279_500] = 0",
            "50N_120W of 2000 is not what the tile holds",
        ),
        ("gaps = exercises.world_with_gaps(bucket.icechunk('gaps-again'))\nmissing = 5", "Expected a set of pairs"),
    ],
    "07-3": [
        ("references = (9, 4_032_000)", "a manifest is written whole"),
        ("references = (1600, 4_032_000)", "That is one year of a tile"),
        ("references = (4_032_000, 8000)", "in the wrong order"),
        ("references = (8000, 806_400)", "That is one year of the world"),
        ("references = (8000, 9)", "In one manifest stand all references of the array, not 9"),
        ("references = (36, 4_032_000)", "Not 36 with the split"),
        ("references = 8000", "Expected two numbers"),
    ],
    "08-1": [
        ("cropland = float(km2.sel(zone='Salt Wash', year=2020, group='Cropland'))", "That is the year 2020"),
        ("cropland = float(km2.sel(zone='Salt Wash', year=2000, group='Cropland'))", "That is the year 2000"),
        (
            "box = gpd.GeoSeries({'b': areas.loc['Salt Wash'].geometry.envelope}, crs=4326)\n"
            "crops = by_group(zonal.count_classes(lulc.sel(year=[2015]), box).area).sel(group='Cropland')\n"
            "cropland = float(crops.sum())",
            "That is the cropland in the box",
        ),
        (
            "cropland = float(found.pixels.sel(zone='Salt Wash', year=2015)[244]) * 900 / 1e6",
            "taken as 30 m x 30 m",
        ),
        (
            "cropland = float(found.pixels.sel(zone='Salt Wash', year=2015)[244]) * 27.83**2 / 1e6",
            "taken as square",
        ),
        ("cropland = int(found.pixels.sel(zone='Salt Wash', year=2015)[244])", "That is the number of pixels"),
        ("cropland = float(km2.sel(zone='Salt Wash', year=2015, group='Cropland')) * 1e6", "That is square metres"),
        (
            "cropland = float(km2.sel(zone='Utah', year=2015, group='Cropland'))",
            "the watershed Salt Wash, the year 2015",
        ),
        ("cropland = '2846'", "leave out the quotes"),
        ("cropland = km2", "Expected a number of km²"),
    ],
    "08-2": [
        ("share = 2.846 / 100", "as a fraction; wanted is percent"),
        (
            "share = float(100 * lake.sel(group='Open surface water', year=2020) / lake.sel(year=2020).sum())",
            "nobody knows whether they are water",
        ),
        ("share = float(lake.sel(group='Open surface water', year=2020))", "That is the water's area in km²"),
        (
            "share = float(100 * in_box.sel(group='Open surface water') / seen)",
            "in the box around Lakeside",
        ),
        (
            "share = float(100 * lake.sel(group='Open surface water', year=2000) / lake.sel(year=2000).sum())",
            "That is the year 2000",
        ),
        ("share = 50", "Not 50.000 %"),
        ("share = 'three'", "leave out the quotes"),
        ("share = None", "Expected a number, in percent"),
    ],
    "08-3": [
        ("largest = ('Semi-arid', 'Semi-arid', 20_000)", "leave the diagonal of the matrix out"),
        ("largest = ('Semi-arid', 'Tree cover, terra firma', 373.6)", "it went the other way"),
        ("largest = ('Semi-arid', 'Built-up', 10)", "another change is larger"),
        ("largest = ('Trees', 'Semi-arid', 373.6)", "'Trees' is no group of the legend"),
        ("largest = ('Tree cover, terra firma', 'Semi-arid', 545.0)", "The pair is right; its area is not 545.0"),
        ("largest = ('Tree cover, terra firma', 'Semi-arid')", "Expected a tuple"),
    ],
}


# Right answers in other forms than the one in solutions/.
ALSO_RIGHT = {
    "01-1": ["[-112.199875, 40.849875]", "np.array([-112.199875, 40.849875])"],
    "01-2": ["78", "78.1", "np.float32(78.125)", "xr.DataArray(78.125)"],
    "01-3": ["'/c/2/6'", "'lulc/c/2/6'"],
    "02-2": ["2.53", "np.float32(2.5348)"],
    "04-1": ["' Build the new town '"],
    "07-1": ["[360_000, 480_000]", "(360_000.0, np.int64(480_000))"],
    "07-3": ["np.array([8000, 4_032_000])"],
    "08-1": ["2846", "np.float32(2846.3)"],
    "08-2": ["2.85", "2.847"],
    "08-3": ["['Tree cover, terra firma', 'Semi-arid', 373.6]"],
    "03-1": ["32", "np.int64(32)"],
    "03-2": ["2015", "np.int64(2015)", "xr.DataArray(2015)", "[2015]", "2015.0"],
    "ap-1": ["(1, 1000, 1000)", "[1, 625, 800]", "np.array([1, 500, 1000])"],
    "ap-2": ["[5, 100, 100]", "(5, 100, 125)"],
    "03-3": ["247208", "np.int64(247208)", "xr.DataArray(247208)"],
}


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n, answers in ALSO_RIGHT.items() for a in answers])
def test_a_right_answer_may_have_another_form(name, answer):
    verdict = exercises.check(name, eval(answer))
    assert verdict.status == exercises.RIGHT, verdict


@pytest.mark.parametrize("name", exercises.names())
@pytest.mark.parametrize(
    "answer",
    [None, "", "x", [], {}, (1, 2, 3), np.nan, np.arange(3), object(), xr.DataArray([1, 2]), float("inf"), 10**400],
)
def test_a_check_never_raises(name, answer):
    assert exercises.check(name, answer).status == exercises.NOT_YET


def tagged(notebook, prefix):
    """Return the cells with a tag that begins with the prefix, by the rest of the tag."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith(prefix):
                name = tag.removeprefix(prefix)
                assert name not in found, f"two cells are tagged {tag}"
                found[name] = cell
    return found


def read(path):
    return nbformat.read(path, as_version=4)


def test_every_exercise_has_its_cells_and_its_wrong_answers():
    for path in NOTEBOOKS:
        lesson, answers = read(path), read(ROOT / "solutions" / path.name)
        names = set(tagged(lesson, "exercise-"))
        assert len(names) >= 2, path.name
        assert names == set(tagged(lesson, "check-")) == set(tagged(answers, "solution-"))
        assert all(name[:2] == path.name[:2] for name in names)
        assert {name for name in exercises.names() if name[:2] == path.name[:2]} == names
    assert set(WRONG) == set(exercises.names())
    assert all(len(answers) >= 4 for answers in WRONG.values())


@pytest.mark.parametrize("name", exercises.names())
def test_every_exercise_has_a_hint(name):
    assert exercises.hint(name)


def test_an_unknown_exercise_is_named():
    with pytest.raises(KeyError, match="no such exercise"):
        exercises.check("99-9", 1)


def core(cells):
    """Return the code cells of the core path: without sections marked *Deeper*, and without live views.

    That these can be skipped is promised in each lesson; whole lessons run in ``nbval`` and in the browser.
    """
    kept, deeper = [], None  # the level of the heading of a section to skip
    for cell in cells:
        if cell.cell_type == "code":
            if deeper is None and not re.search(r"leafmap\.Map\(|\.hvplot\.", cell.source):
                kept.append(cell)
            continue
        for marks, title in re.findall(r"^(##+) (.*)$", cell.source, flags=re.MULTILINE):
            if deeper is not None and len(marks) <= deeper:
                deeper = None
            if "Deeper" in title:
                deeper = len(marks)
    return kept


def verdict(cell):
    return next(o["data"]["text/plain"] for o in cell.outputs if "data" in o)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_in_their_lesson(path, monkeypatch):
    """Run a lesson's core with each exercise untouched, then wrong in many ways, then solved; on tiles behind a URL.

    That is one setting, as for the real tiles: the same cells, the same assertions, over HTTP.
    """
    lesson, answers = read(path), tagged(read(ROOT / "solutions" / path.name), "solution-")
    starters, checks = tagged(lesson, "exercise-"), tagged(lesson, "check-")
    expected = []  # (check cell, part of the verdict)
    cells = []

    def attempt(check, source, part):
        cells.append(new_code_cell(source))
        cells.append(new_code_cell(check.source))
        expected.append((cells[-1], source, part))

    for cell in core(lesson.cells):
        name = next((n for n, check in checks.items() if check is cell), None)
        if name is None:
            cells.append(cell)
            continue
        attempt(cell, starters[name].source, f"○ {name}: not attempted yet")
        for source, part in WRONG[name]:
            attempt(cell, source, part)
        attempt(cell, answers[name].source, f"✓ {name}: right")

    assert {said.split()[1].rstrip(":") for _, _, said in expected if said.startswith("✓")} == set(checks)
    cells.append(new_code_cell(PEAK_MEMORY))
    lesson.cells = cells
    client = NotebookClient(lesson, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    with servers.serve_folder(tiles.DATA) as server:
        monkeypatch.setenv("GLAD_TILES", server.url)
        client.execute()
        assert any(request.status == 206 for request in server.requests)
    for cell, source, part in expected:
        said = verdict(cell)
        assert part in said, f"{source}\n  said: {said}\n  expected: {part}"
        assert said.startswith(("○", "✓")) == part.startswith(("○", "✓")), f"{source}\n  said: {said}"
    assert int(verdict(cells[-1])) < MEMORY_LIMIT
