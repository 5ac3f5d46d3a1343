"""Run all benchmarks and write their results to ``benchmarks/README.md``."""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import run, spread

LIBRARIES = ("xarray", "rioxarray", "rasterio", "zarr", "icechunk", "dask", "numpy", "numba", "numcodecs", "flox")
# name, case, parameters; each writes one dense tile
WAYS = (
    ("**ours**: `world.ingest`, overviews included", "ours", {"to": "Icechunk"}),
    ("Dask, bands of whole rows (lesson 03)", "dask_bands", {"to": "Icechunk"}),
    ("Dask, bands of whole rows (lesson 03)", "dask_bands", {"to": "Zarr"}),
    ("Dask, 5000 x 5000", "dask_squares", {"to": "Icechunk"}),
    ("Dask, 5000 x 5000", "dask_squares", {"to": "Zarr"}),
    ("Icechunk's documented ingest: the tile whole, to its region", "documented", {"to": "Icechunk"}),
    ("rioxarray, loaded whole, default chunks", "load_whole", {"to": "Icechunk"}),
    ("rioxarray, loaded whole, default chunks", "load_whole", {"to": "Zarr"}),
    ("the same with `masked=True` (float32)", "load_whole", {"to": "Icechunk", "masked": True}),
    (
        "`gdal_translate -of ZARR` (Zarr v2, its default Zstandard level 13, one thread, one round)",
        "gdal",
        {"to": "Zarr"},
    ),
)
PUBLISHED = "1,400 tiles, 2.24 TB, in at most 22.5 minutes, on 10 to 200 workers of 4 threads"
SOURCE = "https://icechunk.io/en/latest/icechunk-python/ingestion/glad-ingest/"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    return f"{cores()} cores ({model}), {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def measure_tile(folder: Path, repeats: int) -> list[str]:
    size = run("tile:write_dense_tile", folder)["bytes"]
    parts: dict[str, list[float]] = {name: [] for name in ("decode", "encode", "zarr_alone", "overviews")}
    results: dict[str, list[dict[str, Any]]] = {}
    installed = [way for way in WAYS if way[1] != "gdal" or shutil.which("gdal_translate")]
    for repeat in range(repeats):
        for name, seconds in parts.items():
            seconds.append(run(f"tile:{name}", folder)["cpu"])
        bound = (parts["decode"][-1] + parts["encode"][-1]) / cores()
        for way in installed:
            _, case, parameters = way
            if case == "gdal" and repeat:  # minutes, always the same
                continue
            more = parameters if case.startswith(("dask", "load")) else {}
            result = run(f"tile:{case}", folder, target=str(folder / "target"), **more)
            results.setdefault(str(way), []).append(result | {"ratio": result["wall"] / bound})
            shutil.rmtree(folder / "target")
            print(f"  {case} {parameters}: {result['wall']:.1f} s, {result['peak'] / 1e9:.1f} GB", flush=True)
    lines = [
        f"A tile of 40000 x 40000 pixels, {size / 1e6:.0f} MB as LZW, every pixel textured, from a folder to a folder. "
        "Decoding its strips and encoding its chunks (Zstandard, level 0), each measured alone on one core, take "
        f"{spread(parts['decode'], 1)} and {spread(parts['encode'], 1)} s of CPU. *Ratio* is the wall time divided by "
        f"their sum over {cores()} cores, in the same round: 1 is what no program can do better with these codecs. "
        "All pixels are compared with the tile afterwards.",
        "",
        "| way | to | ratio | seconds | CPU seconds | peak memory (GB) |",
        "|---|---|---|---|---|---|",
    ]
    for way in installed:
        name, _, parameters = way
        got = results[str(way)]
        columns = [spread([r[key] for r in got], digits) for key, digits in (("ratio", 2), ("wall", 1), ("cpu", 1))]
        lines.append(
            f"| {name} | {parameters['to']} | {' | '.join(columns)} | {max(r['peak'] for r in got) / 1e9:.1f} |"
        )
    if len(installed) < len(WAYS):
        lines += ["", "`gdal_translate` is not installed on this machine."]
    own = results[str(WAYS[0])]
    ratio, peak = median(r["ratio"] for r in own), max(r["peak"] for r in own) / 1e9
    middle = {name: median(seconds) for name, seconds in parts.items()}
    extra = middle["zarr_alone"] - middle["encode"]
    rest = median(r["cpu"] for r in own) - middle["decode"] - middle["zarr_alone"] - middle["overviews"]
    lines += [
        "",
        f"Goal: ratio ≤ 1.1, {reached(ratio <= 1.1)} ({ratio:.2f}); peak ≤ 1 GB, {reached(peak <= 1)} ({peak:.2f}). "
        "Where the CPU seconds of ours go (medians; each part measured alone): "
        f"decoding {middle['decode']:.1f}, encoding {middle['encode']:.1f}, what Zarr's pipeline adds to the codec "
        f"{extra:.1f} (copies of chunks, threads, the event loop), classes and overviews {middle['overviews']:.1f}, "
        f"all else {rest:.1f} (opening, checking the grid, files, threads in each other's way).",
    ]
    return lines


def measure_zones(folder: Path, repeats: int) -> list[str]:
    run("zones:prepare", folder)
    seconds: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for _ in range(repeats):
        alone = run("zones:decode", folder)["wall"]
        rounds = {"only decode": alone, "`np.bincount`, everything as one zone": run("zones:bincount", folder)["wall"]}
        for side in (1, 10, 32):
            zones = f"{side**2:,} zones" if side > 1 else "1 zone"
            rounds[f"**ours**: `zonal.count_classes`, {zones}"] = run("zones:ours", folder, side=side)["wall"]
        flox = run("zones:flox", folder, side=4000)
        verdict = "right" if flox["right"] else "**wrong**"
        rounds[
            f"xarray's `groupby` as installed (flox, numbagg), {verdict} counts; scaled up from 16 million pixels"
        ] = flox["wall"] * 256e6 / flox["pixels"]
        for name, value in rounds.items():
            seconds.setdefault(name, []).append(value)
            ratios.setdefault(name, []).append(value / alone)
        print(f"  zones: {', '.join(f'{value:.2f}' for value in rounds.values())} s", flush=True)
    worst = median(next(reversed([v for k, v in ratios.items() if "ours" in k])))
    return [
        "256 million pixels of the dense tile, in chunks of 1000 x 1000; ragged zones that fill the square, so that "
        "each pixel counts once. Their sums are compared with `np.bincount` on the source tile.",
        "",
        "| what | ratio to only decoding | seconds |",
        "|---|---|---|",
        *(f"| {name} | {spread(ratios[name])} | {spread(seconds[name])} |" for name in seconds),
        "",
        f"Goal: ≤ 1.6 for up to 1,000 zones, {reached(worst <= 1.6)} ({worst:.2f} with 1,024). What more zones cost is "
        "their borders: each row of each zone is a span of its own, with 256 counters to add up.",
    ]


def measure_world(folder: Path, repeats: int) -> list[str]:
    growth = []
    for _ in range(repeats):
        shutil.rmtree(folder / "full", ignore_errors=True)
        growth.append(run("world:fill", folder, rows=14, split=True))
    single = run("world:fill", folder, rows=3, split=False)
    last = [g["seconds"][-1] / g["seconds"][0] for g in growth]
    megabytes = [written / 1e6 for g in growth for written in g["written"]]
    print(f"  commits: {growth[-1]['seconds'][0]:.2f} to {growth[-1]['seconds'][-1]:.2f} s", flush=True)
    run("world:add_pixels", folder)
    drawn = [run("world:open_and_draw", folder) for _ in range(max(repeats, 3))]
    process = [d["process"] for d in drawn]
    run("world:second_tile", folder)
    one, two = [], []
    for _ in range(repeats):
        for count, into in ((1, one), (2, two)):
            result = run("world:workers", folder, target=str(folder / "target"), count=count)
            into.append(60 * result["tiles"] / result["wall"] / count)
            shutil.rmtree(folder / "target")
        print(f"  workers: {one[-1]:.2f}, {two[-1]:.2f} tiles per core-minute", flush=True)
    scaling = [2 * b / a for a, b in zip(one, two, strict=True)]
    return [
        "The cube of the world, filled with references a row of tiles (36, five years) at a time, up to "
        f"{growth[0]['references']:,} chunks.",
        "",
        "| what | measured |",
        "|---|---|",
        f"| commit of the first row of tiles (s) | {spread([g['seconds'][0] for g in growth])} |",
        f"| commit of the last row of tiles (s) | {spread([g['seconds'][-1] for g in growth])} |",
        f"| last / first | {spread(last)} |",
        f"| bytes of manifests that a commit writes (MB) | {spread(megabytes)} |",
        f"| the same with one manifest for all: rows 1 to 3 (s) | {', '.join(f'{s:.2f}' for s in single['seconds'])} |",
        f"| the same, bytes (MB) | {', '.join(f'{written / 1e6:.1f}' for written in single['written'])} |",
        f"| open the full cube and save a map of the teaching window (s) | {spread([d['wall'] for d in drawn])} |",
        f"| the same with starting Python and importing all (s) | {spread(process)} |",
        f"| dense tiles per core-minute, one worker | {spread(one)} |",
        f"| dense tiles per core-minute, two workers | {spread(two)} |",
        f"| two workers are faster than one by | {spread(scaling)} |",
        "",
        f"Goals: last commit ≤ 1.5 x the first, {reached(median(last) <= 1.5)}; open and draw ≤ 2 s cold, "
        f"{reached(median(process) <= 2)} with imports ({median(process):.1f} s), "
        f"{reached(median(d['wall'] for d in drawn) <= 2)} without.",
        "",
        f"Beside it, the [published global run]({SOURCE}): {PUBLISHED}, so "
        f"{1400 / 22.5 / 800:.2f} to {1400 / 22.5 / 40:.2f} tiles per thread and minute, over a network and with "
        "real tiles, which ours has not done: a bound on what to expect, not a race.",
    ]


def reached(yes: bool) -> str:
    return "reached" if yes else "**missed**"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    sections = []
    with tempfile.TemporaryDirectory(prefix="glad-bench-") as name:
        for title, measure in (
            ("A whole tile", measure_tile),
            ("Class counts inside zones", measure_zones),
            ("The cube of the world", measure_world),
        ):
            print(title, flush=True)
            sections += [f"## {title}", "", *measure(Path(name), repeats), ""]
    text = [
        "# Benchmarks",
        "",
        "Written by `make bench`, not by hand. Each case runs in a process of its own; the rounds take turns, so that "
        "a busy moment hits all. Given is the median of the rounds, and the least and the most in brackets. Trust the "
        "ratios more than the seconds.",
        "",
        f"- {date.today()}, {repeats} rounds, {machine()}",
        f"- {', '.join(f'{library} {version(library)}' for library in LIBRARIES)}",
        "",
        *sections,
    ]
    Path(__file__).with_name("README.md").write_text("\n".join(text), encoding="utf-8")
    print(f"wrote {Path(__file__).with_name('README.md').relative_to(Path.cwd())}", file=sys.stderr)


if __name__ == "__main__":
    main()
