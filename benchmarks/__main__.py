"""Run all benchmarks and write the results to ``benchmarks/README.md``, or to ``build/`` for a quick run."""

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
from typing import Any, NamedTuple

from benchmarks.measure import ROOT, run, spread
from benchmarks.tile import SIZE
from benchmarks.world import NAMES
from benchmarks.zones import side_of

LIBRARIES = ("xarray", "rioxarray", "rasterio", "zarr", "icechunk", "dask", "numpy", "numba", "numcodecs", "flox")
# name, case and parameters; each way writes one dense tile
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
)
PUBLISHED = "1,400 tiles, 2.24 TB, in at most 22.5 minutes, on 10 to 200 workers of 4 threads"
SOURCE = "https://icechunk.io/en/latest/icechunk-python/ingestion/glad-ingest/"


class Scale(NamedTuple):
    """How much is measured."""

    rounds: int
    rows: tuple[int, int]  # of the dense tile, first and last (exclusive)
    world_rows: int  # rows of tiles in the full cube

    @property
    def part(self) -> float:
        """Return the share of the tile that is dense."""
        return (self.rows[1] - self.rows[0]) / SIZE


FULL = Scale(rounds=3, rows=(0, SIZE), world_rows=14)
# a worker writes at most 10,000 rows per task, so these rows keep two busy
QUICK = Scale(rounds=1, rows=(8000, 12000), world_rows=3)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    return f"{cores()} cores ({model}), {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def measure_tile(folder: Path, scale: Scale) -> list[str]:
    size = run("tile:write_dense_tile", folder, rows=scale.rows)["bytes"]
    parts: dict[str, list[float]] = {name: [] for name in ("decode", "encode", "zarr_alone", "overviews")}
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(scale.rounds):
        for name, seconds in parts.items():
            seconds.append(run(f"tile:{name}", folder, rows=scale.rows)["cpu"])
        bound = (parts["decode"][-1] + parts["encode"][-1]) / cores()
        for way in WAYS:
            _, case, parameters = way
            more = parameters if case.startswith(("dask", "load")) else {}
            result = run(f"tile:{case}", folder, target=str(folder / "target"), rows=scale.rows, **more)
            results.setdefault(str(way), []).append(result | {"ratio": result["wall"] / bound})
            shutil.rmtree(folder / "target")
            print(f"  {case} {parameters}: {result['wall']:.1f} s, {result['peak'] / 1e9:.1f} GB", flush=True)
    lines = [
        f"A tile of 40000 x 40000 pixels, {size / 1e6:.0f} MB as LZW, every pixel textured, from a folder to a folder."
        if scale.part == 1
        else f"{scale.rows[1] - scale.rows[0]:,} rows of a tile of 40000 x 40000 pixels, all of them textured, "
        "from a folder to a folder.",
        "",
        "Decoding its strips and encoding its chunks (Zstandard, level 0), each measured alone on one core, take "
        f"{spread(parts['decode'], 1)} and {spread(parts['encode'], 1)} s of CPU. *Ratio* is the wall time divided by "
        f"their sum over {cores()} cores, in the same round: 1 is what no program can do better with these codecs. "
        "All pixels are compared with the tile afterwards.",
        "",
        "| way | to | ratio | seconds | CPU seconds | peak memory (GB) |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        name, _, parameters = way
        got = results[str(way)]
        columns = [spread([r[key] for r in got], digits) for key, digits in (("ratio", 2), ("wall", 1), ("cpu", 1))]
        lines.append(
            f"| {name} | {parameters['to']} | {' | '.join(columns)} | {max(r['peak'] for r in got) / 1e9:.1f} |"
        )
    own = results[str(WAYS[0])]
    ratio, peak = median(r["ratio"] for r in own), max(r["peak"] for r in own) / 1e9
    share = median(parts["overviews"]) / median(r["cpu"] for r in own)
    middle = {name: median(seconds) for name, seconds in parts.items()}
    extra = middle["zarr_alone"] - middle["encode"]
    rest = median(r["cpu"] for r in own) - middle["decode"] - middle["encode"] - middle["overviews"]
    lines += [
        "",
        f"Goals: ratio ≤ 1.25, {reached(ratio <= 1.25)} ({ratio:.2f}); peak ≤ 0.75 GB, {reached(peak <= 0.75)} "
        f"({peak:.2f}); the overviews' share of the CPU seconds ≤ 15 %, {reached(share <= 0.15)} ({share:.1%}). "
        "Where the CPU seconds of ours go (medians; each part measured alone): "
        f"decoding {middle['decode']:.1f}, encoding {middle['encode']:.1f}, classes and overviews "
        f"{middle['overviews']:.1f}, all else {rest:.1f} (opening, checking the grid, copies of chunks, files, threads "
        f"in each other's way). Zarr's pipeline, which ours does without, adds {extra:.1f} to the codec.",
    ]
    return lines


def measure_zones(folder: Path, scale: Scale) -> list[str]:
    rows, pixels = scale.rows, side_of(scale.rows) ** 2
    run("zones:prepare", folder, rows=rows)
    seconds: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for _ in range(scale.rounds):
        alone = run("zones:decode", folder, rows=rows)["wall"]
        one = run("zones:bincount", folder, rows=rows)["wall"]
        rounds = {"only decode": alone, "`np.bincount`, everything as one zone": one}
        for side in (1, 10, 32):
            zones = f"{side**2:,} zones" if side > 1 else "1 zone"
            rounds[f"**ours**: `zonal.count_classes`, {zones}"] = run("zones:ours", folder, rows=rows, side=side)[
                "wall"
            ]
        flox = run("zones:flox", folder, rows=rows, side=min(4000, side_of(rows)))
        verdict = "right" if flox["right"] else "**wrong**"
        rounds[
            f"xarray's `groupby` as installed (flox, numbagg), {verdict} counts; scaled up from "
            f"{flox['pixels'] / 1e6:.0f} million pixels"
        ] = flox["wall"] * pixels / flox["pixels"]
        for name, value in rounds.items():
            seconds.setdefault(name, []).append(value)
            ratios.setdefault(name, []).append(value / alone)
        print(f"  zones: {', '.join(f'{value:.2f}' for value in rounds.values())} s", flush=True)
    worst = median(next(reversed([v for k, v in ratios.items() if "ours" in k])))
    return [
        f"{pixels / 1e6:.0f} million pixels of the dense tile, in chunks of 1000 x 1000; ragged zones that fill the "
        "square, so that each pixel counts once. Their sums are compared with `np.bincount` on the source tile.",
        "",
        "| what | ratio to only decoding | seconds |",
        "|---|---|---|",
        *(f"| {name} | {spread(ratios[name])} | {spread(seconds[name])} |" for name in seconds),
        "",
        f"Goal: ≤ 1.6 for up to 1,000 zones, {reached(worst <= 1.6)} ({worst:.2f} with 1,024). What more zones cost is "
        "their borders: each row of each zone is a span of its own, with 256 counters to add up.",
    ]


def measure_world(folder: Path, scale: Scale, counts: list[int], kinds: list[str]) -> list[str]:
    growth = []
    for _ in range(scale.rounds):
        shutil.rmtree(folder / "full", ignore_errors=True)
        growth.append(run("world:fill", folder, rows=scale.world_rows, split=True))
    single = run("world:fill", folder, rows=min(3, scale.world_rows), split=False)
    last = [g["seconds"][-1] / g["seconds"][0] for g in growth]
    megabytes = [written / 1e6 for g in growth for written in g["written"]]
    print(f"  commits: {growth[-1]['seconds'][0]:.2f} to {growth[-1]['seconds'][-1]:.2f} s", flush=True)
    run("world:add_pixels", folder)
    drawn = [run("world:open_and_draw", folder) for _ in range(max(scale.rounds, 3))]
    process = [d["process"] for d in drawn]
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
        "",
        f"Goals: last commit ≤ 1.5 x the first, {reached(median(last) <= 1.5)}; open and draw ≤ 2 s cold, "
        f"{reached(median(process) <= 2)} with imports ({median(process):.1f} s), "
        f"{reached(median(d['wall'] for d in drawn) <= 2)} without.",
        "",
        *measure_workers(folder, scale, counts, kinds),
        "",
        f"Beside it, the [published global run]({SOURCE}): {PUBLISHED}, so "
        f"{1400 / 22.5 / 800:.2f} to {1400 / 22.5 / 40:.2f} tiles per thread and minute, over a network and with "
        "real tiles, which ours has not done: a bound on what to expect, not a race.",
    ]


def measure_workers(folder: Path, scale: Scale, counts: list[int], kinds: list[str]) -> list[str]:
    tile_count = min(len(NAMES), max(2, max(counts) // 2))  # a worker takes a quarter of a tile at a time
    run("world:copy_tiles", folder, count=tile_count)
    ways = [(kind, count) for kind in kinds for count in counts]
    speed: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    for _ in range(scale.rounds):
        for kind, count in ways:
            how = {"rows": scale.rows, "kind": kind, "count": count, "tile_count": tile_count}
            result = run("world:workers", folder, target=str(folder / "target"), **how)
            speed[kind, count].append(60 * scale.part * result["tiles"] / result["wall"])
            shutil.rmtree(folder / "target")
            print(f"  {count} {kind}: {speed[kind, count][-1]:.2f} tiles per minute", flush=True)
    first = [speed[kinds[0], counts[0]]] * len(ways)
    return [
        f"`world.ingest` of {tile_count} dense tiles with more and more workers, each run on as many cores as it has "
        f"workers. *Faster* compares with {counts[0]} of {kinds[0]}, in the same round.",
        "",
        "| workers | dense tiles per minute | per core and minute | faster |",
        "|---|---|---|---|",
        *(
            f"| {count} {kind} | {spread(found)} | {spread([each / min(count, cores()) for each in found])} | "
            f"{spread([each / alone for each, alone in zip(found, base, strict=True)])} |"
            for ((kind, count), found), base in zip(speed.items(), first, strict=True)
        ),
        "",
        'On a larger machine: `make bench WORKERS="1 2 4 8"`; with `KIND=processes`, one kind only.',
    ]


def reached(yes: bool) -> str:
    return "reached" if yes else "**missed**"


def report(scale: Scale, counts: list[int], kinds: list[str]) -> str:
    """Measure everything, and return the text of ``README.md``."""
    sections = []
    with tempfile.TemporaryDirectory(prefix="glad-bench-") as name:
        for title, measure, more in (
            ("A whole tile" if scale.part == 1 else "A part of a tile", measure_tile, ()),
            ("Class counts inside zones", measure_zones, ()),
            ("The cube of the world", measure_world, (counts, kinds)),
        ):
            print(title, flush=True)
            sections += [f"## {title}", "", *measure(Path(name), scale, *more), ""]
    quick = (
        "**A quick run**, on less data than the real one: starting up, checks and commits take a larger share, and one "
        "round has no spread. It shows that all runs, and what changed a lot. The figures that count are in "
        "`benchmarks/README.md`."
    )
    return "\n".join(
        [
            "# Benchmarks" if scale == FULL else "# Benchmarks (quick)",
            "",
            *([] if scale == FULL else [quick, ""]),
            "Written by `make bench`, not by hand. Each case runs in a process of its own; the rounds take turns, so "
            "that a busy moment hits all. Given is the median of the rounds, and the least and the most in brackets. "
            "Trust the ratios more than the seconds.",
            "",
            f"- {date.today()}, rounds: {scale.rounds}, {machine()}",
            f"- {', '.join(f'{library} {version(library)}' for library in LIBRARIES)}",
            "",
            *sections,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of ingest workers")
    parser.add_argument("--kind", nargs="+", choices=["threads", "processes"], default=["threads", "processes"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and part of a tile, in under three minutes")
    args = parser.parse_args()
    if not all(1 <= count <= 4 * len(NAMES) for count in args.workers):
        parser.error(f"expected 1 to {4 * len(NAMES)} workers, found {args.workers}")
    scale = QUICK if args.quick else FULL
    path = ROOT / "build" / "benchmarks-quick.md" if args.quick else Path(__file__).with_name("README.md")
    text = report(scale, args.workers, args.kind)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if args.quick:
        print(text)
    print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
