"""Drawings of concepts, each made from the objects of the lesson that shows it, with their real names and counts.

A drawing refuses data that contradict it. Maps and charts are drawn in ``maps.py``.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import product
from math import prod

import icechunk
import numpy as np
import xarray as xr
import zarr
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch, Patch, Polygon, Rectangle
from matplotlib.pyplot import figure

from workshop import maps

# of Okabe and Ito's colors, as in look.mplstyle; dark enough for edges, and made pale for what has text on it
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#E69F00", "#009E73", "#767676"
MOST = 4  # boxes in a column; what is more is counted
MOST_CHUNKS = 1000  # in a grid
CODE = {"family": "monospace", "fontsize": 9}
Point = tuple[float, float]


def _pale(color: str, share: float = 0.25) -> tuple[float, ...]:
    return tuple(1 - share * (1 - part) for part in to_rgb(color))


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _names(names: Iterable[object]) -> str:
    return ", ".join(map(str, names)) or "none"


def _times(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))


class _Canvas:
    """A figure to draw on, in inches from its lower left corner."""

    def __init__(self, heads: dict[float, str]) -> None:
        self.figure = figure(figsize=(10, 3.5))
        # only the part that has the heads: notebooks cut off what is empty below, but not where axes are
        self.ax = self.figure.add_axes((0, 6 / 7, 1, 1 / 7), xlim=(0, 10), ylim=(3, 3.5))
        self.ax.axis("off")
        for x, text in heads.items():
            self.text(x, 3.22, text, fontsize=10, weight="bold", va="baseline")

    def text(self, x: float, y: float, text: str, room: float = 10, **style) -> None:
        """Write lines around a point; a line that needs more room, in inches, loses its middle."""
        style = {"ha": "center", "va": "center", "fontsize": 9, "linespacing": 1.35} | style
        drawn, lines = self.ax.text(x, y, "", **style), []
        for line in text.split("\n"):
            drawn.set_text(line)
            keep = len(line)
            while drawn.get_window_extent().width > room * self.figure.dpi and keep > 4:
                keep -= 1
                drawn.set_text(f"{line[: keep - keep // 2]}…{line[len(line) - keep // 2 :]}")
            lines.append(drawn.get_text())
        drawn.set_text("\n".join(lines))

    def box(self, x: float, y: float, width: float, height: float, text: str, color: str = BLUE, **style) -> None:
        """Draw a box around a text; the point is its lower left corner."""
        shape = FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.06")
        self.patch(shape, facecolor=_pale(color), edgecolor=color, linewidth=1.3)
        self.text(x + width / 2, y + height / 2, text, width - 0.12, **style)

    def arrow(self, start: Point, end: Point) -> None:
        look = {"arrowstyle": "-|>", "color": "0.25", "shrinkA": 2, "shrinkB": 2, "lw": 1.4}
        self.ax.annotate("", end, start, arrowprops=look, annotation_clip=False)

    def area(self, corners: list[Point], color: str = BLUE, share: float = 0.25) -> None:
        self.patch(Polygon(corners), facecolor=_pale(color, share), edgecolor=color, linewidth=1.3)

    def patch(self, shape: Patch, **look) -> None:
        shape.set(**look)
        self.ax.add_patch(shape).set_clip_on(False)


def _scaled(shape: tuple[int, ...], width: float, height: float) -> Point:
    """Return a width and height for a raster ``(..., y, x)`` in a room, at most four times as long as wide."""
    aspect = min(max(shape[-1] / shape[-2], 0.25), 4)
    return min(width, height * aspect), min(height, width / aspect)


def _check_grid(array: zarr.Array) -> None:
    if array.ndim < 2 or array.shards or prod(array.cdata_shape[-2:]) > MOST_CHUNKS:
        raise ValueError(
            f"expected two axes or more, without shards and with at most {MOST_CHUNKS} chunks along the last two, "
            f"found {array.shape}, chunks of {array.chunks} and shards of {array.shards}; choose another array"
        )


class _Grid:
    """The chunks along an array's last two axes, to scale, from an upper left corner on."""

    def __init__(self, canvas: _Canvas, array: zarr.Array, left: float, top: float, width: float, height: float):
        self.canvas, self.left, self.top = canvas, left, top
        self.width, self.height = _scaled(array.shape, width, height)
        self.rows, self.cols = array.shape[-2:]
        self.chunk_rows, self.chunk_cols = array.chunks[-2:]
        counts = [range(-(-size // chunk)) for size, chunk in zip(array.shape[-2:], array.chunks[-2:], strict=True)]
        for row, col in product(*counts):
            self.chunk(row, col, facecolor="white", edgecolor="0.6", linewidth=0.8)
        self.pixels(0, self.rows, 0, self.cols, facecolor="none", edgecolor="0.2", linewidth=1.3)
        y, x = (array.metadata.dimension_names or ("rows", "columns"))[-2:]
        canvas.text(left + self.width / 2, top - self.height - 0.15, f"{x}: {self.cols:,}")
        canvas.text(left - 0.17, top - self.height / 2, f"{y}: {self.rows:,}", rotation=90)

    def place(self, row: float, col: float) -> Point:
        """Return where a pixel's upper left corner is drawn."""
        return self.left + col / self.cols * self.width, self.top - row / self.rows * self.height

    def pixels(self, row: int, end_row: int, col: int, end_col: int, **style) -> None:
        (left, low), (right, high) = self.place(end_row, col), self.place(row, end_col)
        self.canvas.patch(Rectangle((left, low), right - left, high - low), **style)

    def chunk(self, row: int, col: int, **style) -> Point:
        """Mark a chunk, and return the middle of its right edge."""
        top, left = row * self.chunk_rows, col * self.chunk_cols
        low, right = min(top + self.chunk_rows, self.rows), min(left + self.chunk_cols, self.cols)
        self.pixels(top, low, left, right, **style)
        return self.place((top + low) / 2, right)


def show_dataset(dataset: xr.Dataset) -> None:
    """Show a Dataset: variables as blocks, coordinates along their axes, attributes as a tag.

    It has one variable or two, of one to three dimensions. ``ValueError`` for others.
    """
    variables = dataset.data_vars
    if len(variables) not in (1, 2) or not all(1 <= variable.ndim <= 3 for variable in variables.values()):
        raise ValueError(
            "expected one variable or two, of one to three dimensions, found "
            f"{ {name: variable.dims for name, variable in variables.items()} }; choose some with dataset[[...]]"
        )
    canvas = _Canvas({3.75: "xarray.Dataset"})
    room = 7.3 / len(variables)
    for number, (name, variable) in enumerate(variables.items()):
        depth = 0.5 if variable.ndim == 3 else 0
        width, height = _scaled((1, *variable.shape), room - 0.9 - depth, 2.0 - depth)
        if variable.ndim == 1:
            width, height = room - 1.2, 0.5
        left, low = (number + 0.5) * room - (width + depth) / 2 + 0.2, 1.65 - (height + depth) / 2
        right, high = left + width, low + height
        if depth:
            above = [(left, high), (left + depth, high + depth), (right + depth, high + depth), (right, high)]
            canvas.area(above, share=0.45)
            canvas.area([(right, low), (right + depth, low + depth), *above[2:]], share=0.45)
        canvas.area([(left, low), (right, low), (right, high), (left, high)])
        canvas.text(left + width / 2, low + height / 2, f"{name}\n{variable.dtype}", width - 0.1, fontsize=10)
        canvas.text(left + (width + depth) / 2, high + depth + 0.2, f"({_names(variable.dims)})", room)
        sides = (  # of the last dimension, the one before, the first of three: a line, its text's place and turn
            ((left, right), (low - 0.07,) * 2, (left + width / 2, low - 0.32), 0),
            ((left - 0.07,) * 2, (low, high), (left - 0.3, low + height / 2), 90),
            ((left - 0.05, left + depth - 0.05), (high + 0.05, high + depth + 0.05), (left + 0.06, high + 0.42), 45),
        )
        for dim, (xs, ys, place, turn) in zip(variable.dims[::-1], sides[: variable.ndim], strict=True):
            ends = [_short(end) for end in dataset[dim].values[[0, -1]]] if dim in dataset.coords else []
            canvas.ax.plot(xs, ys, color=ORANGE if ends else "0.75", linewidth=4, solid_capstyle="butt", clip_on=False)
            text = " … ".join(ends[::-1] if turn else ends)  # a turned text is read upwards
            canvas.text(*place, f"{dim}: {dataset.sizes[dim]:,}\n{'' if turn == 45 else text}".strip(), rotation=turn)
    along = [name for name in dataset.coords if name in dataset.dims]
    others = [name for name in dataset.coords if name not in dataset.dims]
    kinds = {"data variables": (variables, BLUE), "coordinates along axes": (along, ORANGE)}
    for number, (kind, (names, color)) in enumerate((kinds | {"other coordinates": (others, GRAY)}).items()):
        canvas.box(7.6, 2.55 - number * 0.62, 2.3, 0.52, f"{kind}\n{_names(names)}", color)
    owner, attributes = "dataset", dataset.attrs
    if not attributes:
        owner, attributes = next((name, variable.attrs) for name, variable in variables.items())
    canvas.area([(7.6, 0.62), (7.8, 1.15), (9.9, 1.15), (9.9, 0.1), (7.8, 0.1)], GREEN)
    canvas.ax.plot(7.76, 0.62, "o", markersize=5, markerfacecolor="white", markeredgecolor=GREEN, clip_on=False)
    rows = [f"{owner}.attrs", *(f"{name}: {value}" for name, value in attributes.items())]
    rows[3:] = [f"and {len(rows) - 3} more"] * (len(rows) > 3)
    canvas.text(8.88, 0.62, "\n".join(rows), 1.9)
    blocks = [f"{name} ({_names(f'{dim} {n:,}' for dim, n in variables[name].sizes.items())})" for name in variables]
    maps.show(
        canvas.figure,
        f"A Dataset as blocks: {'; '.join(blocks)}. Coordinates along the axes: {_names(along)}; others: "
        f"{_names(others)}. A tag holds {_many(len(attributes), 'attribute')} of {owner}",
    )


def _short(value: np.generic) -> str:
    return f"{value:.6g}" if np.issubdtype(np.asarray(value).dtype, np.number) else str(value)[:10]


def show_chunk(array: zarr.Array, chunk: tuple[int, ...], objects: Collection[str]) -> None:
    """Show the way from a chunk of an array without shards to the object that holds it.

    The chunk is its number along each axis; the objects are keys or file names found in the store, perhaps below a
    prefix. ``ValueError`` where the array has no such chunk, or not exactly one object has its key.
    """
    _check_grid(array)
    counts = array.cdata_shape
    if len(chunk) != array.ndim or not all(0 <= number < count for number, count in zip(chunk, counts, strict=True)):
        raise ValueError(f"expected a chunk of {_times(counts)}, counted from 0, found {chunk}; choose one of them")
    key = "/".join(filter(None, [array.path, array.metadata.encode_chunk_key(chunk)]))
    names = sorted(map(str, objects))
    found = [number for number, name in enumerate(names) if f"/{name}".endswith(f"/{key}")]
    if len(found) != 1:
        raise ValueError(
            f"expected one object with the key {key}, found {len(found)} among {len(names)}; choose a chunk that was "
            "written, and list the objects of this store only"
        )
    canvas = _Canvas({1.85: f"array {array.path}", 4.75: "chunk", 6.8: "key", 8.9: _many(len(names), "object")})
    grid = _Grid(canvas, array, 0.45, 3.0, 2.8, 2.2)
    edge = grid.chunk(*chunk[-2:], facecolor=ORANGE, edgecolor="black", linewidth=1.3)
    canvas.arrow(edge, (3.85, 2.75))
    canvas.text(1.85, grid.top - grid.height - 0.45, f"{_times(counts)} chunks of {_times(array.chunks)}", 3.3)
    size = prod(array.chunks) * array.dtype.itemsize
    canvas.box(3.85, 2.45, 1.8, 0.6, f"chunk {chunk}\n{size:,} bytes", ORANGE, fontsize=10)
    codecs = [codec for codec in (*array.filters, array.serializer, *array.compressors) if codec]
    codecs = [codec.to_dict()["name"] if hasattr(codec, "to_dict") else codec.codec_id for codec in codecs]
    y, step = 2.45, min(0.62, 1.9 / len(codecs))
    for codec in codecs:
        canvas.arrow((4.75, y), (4.75, y - step + 0.36))
        y -= step
        canvas.box(4.05, y, 1.4, 0.36, codec, GRAY, **CODE)
    canvas.text(4.75, y - 0.17, "codecs")
    canvas.arrow((5.65, 2.75), (6.05, 2.75))
    canvas.box(6.05, 2.55, 1.5, 0.4, key, ORANGE, **CODE)
    first = max(0, min(found[0] - 3, len(names) - 7))
    for number, name in enumerate(names[first : first + 7], first):
        low = 2.7 - (number - first) * 0.38
        canvas.box(7.95, low, 1.9, 0.3, name, ORANGE if number in found else GRAY, **CODE)
        if number in found:
            canvas.arrow((7.55, 2.75), (7.95, low + 0.2))
            canvas.arrow((5.45, y + 0.18), (7.95, low + 0.1))
    canvas.text(6.8, 2.4, "its name")
    canvas.text(6.3, y + 0.05, "its content")
    if len(names) > 7:
        canvas.text(8.9, 0.2, f"and {len(names) - 7} more")
    maps.show(
        canvas.figure,
        f"From a chunk to an object: of {_times(counts)} chunks, {chunk} is marked. Its number gives the key {key}; "
        f"its pixels go through the codecs {_names(codecs)}. They make the object {names[found[0]]} of {len(names)}",
    )


def _newest(repo: icechunk.Repository, branch: str, path: str) -> tuple[list[icechunk.SnapshotInfo], int]:
    """Return a branch's snapshots from the newest on, and how many chunks of an array the newest commit wrote."""
    snapshots = list(repo.ancestry(branch=branch))
    if len(snapshots) < 2:
        raise ValueError(f"expected a commit on {branch}, found a new repository; commit something first")
    changes = repo.diff(from_snapshot_id=snapshots[1].id, to_snapshot_id=snapshots[0].id)
    return snapshots, len(changes.updated_chunks.get(path, []))


def show_commit(repo: icechunk.Repository, path: str, branch: str = "main") -> None:
    """Show a commit: a session opens a branch, which names a snapshot, which names manifests, which list chunks.

    ``ValueError`` where the branch's newest snapshot has no manifest of the array at the path, such as ``"/lulc"``.
    """
    path = f"/{path.strip('/')}"
    (tip, *earlier), written = _newest(repo, branch, path)
    arrays = {node["path"]: node for node in repo.inspect_snapshot(tip.id)["nodes"] if node["node_type"] == "array"}
    ids = [reference["id"] for reference in arrays.get(path, {}).get("manifest_refs", [])]
    if not ids:
        raise ValueError(
            f"expected an array {path} with chunks in the newest snapshot of {branch}, found the arrays "
            f"{_names(arrays)}; check the path, and commit after writing"
        )
    before = {file.id for file in repo.list_manifest_files(earlier[0].id)}
    manifests = {}  # how many of the array's chunks each lists that are objects, in itself, and in files elsewhere
    for name in sorted(ids, key=before.__contains__):  # new ones first
        (entry,) = (e for e in repo.inspect_manifest(name)["arrays"] if e["node_id"] == arrays[path]["id"])
        manifests[name] = [entry[f"num_{kind}"] for kind in ("native", "inline", "virtual")]
    canvas = _Canvas({1.1: "session and names", 3.55: "snapshots", 6.15: f"manifests of {path}", 8.8: "chunks"})
    canvas.box(0.1, 2.59, 0.85, 0.35, "session", GREEN)
    canvas.arrow((0.95, 2.76), (1.2, 2.76))
    canvas.box(1.2, 2.59, 0.9, 0.35, branch, ORANGE)
    canvas.arrow((2.1, 2.76), (2.55, 2.76))
    spots = {}
    for snapshot in (tip, *earlier)[:MOST]:
        y = spots[snapshot.id] = 2.5 - len(spots) * 0.72
        canvas.box(2.55, y, 2.0, 0.52, f"{snapshot.id[:8]}\n{snapshot.message}", BLUE if snapshot == tip else GRAY)
        if snapshot != tip:
            canvas.arrow((3.55, y + 0.72), (3.55, y + 0.52))
    if len(earlier) >= MOST:
        canvas.text(3.55, 0.18, f"and {len(earlier) + 1 - MOST} earlier")
    tags = {tag: repo.lookup_tag(tag) for tag in sorted(repo.list_tags())}
    newest_first = sorted((tag for tag in tags if tags[tag] in spots), key=lambda tag: -spots[tags[tag]])
    for number, tag in enumerate(newest_first[:MOST]):
        canvas.box(0.4, 1.95 - number * 0.5, 1.7, 0.35, f"tag {tag}", ORANGE)
        canvas.arrow((2.1, 2.12 - number * 0.5), (2.55, spots[tags[tag]] + 0.15))
    for number, (name, counts) in enumerate(list(manifests.items())[: MOST - 1]):
        y = 2.5 - number * 0.72
        color, news = (GRAY, "from an earlier commit") if name in before else (BLUE, "new in this commit")
        canvas.arrow((4.55, 2.76), (5.15, y + 0.26))
        canvas.box(5.15, y, 2.0, 0.52, f"{name[:8]}\n{news}", color)
        canvas.arrow((7.15, y + 0.26), (7.75, y + 0.26))
        kinds = zip(counts, ("as objects", "in the manifest", "in other files"), strict=True)
        canvas.box(7.75, y, 2.1, 0.52, "\n".join(f"{count:,} {kind}" for count, kind in kinds if count), ORANGE)
    canvas.text(8.8, y - 0.2, f"this commit wrote {_many(written, 'chunk')}")
    more = {f"of {path}": len(ids) - MOST + 1, "of other arrays": len(repo.list_manifest_files(tip.id)) - len(ids)}
    canvas.text(6.15, y - 0.2, "\n".join(f"and {count} more {which}" for which, count in more.items() if count > 0))
    native, inline, virtual = map(sum, zip(*manifests.values(), strict=True))
    maps.show(
        canvas.figure,
        f"A session opens the branch {branch}, which names the newest of {_many(len(earlier) + 1, 'snapshot')}; tags: "
        f"{_names(tags)}. That snapshot names {_many(len(ids), 'manifest')} of {path}, {len(before & set(ids))} "
        f"from an earlier commit, for {_many(native + inline + virtual, 'chunk')}: {native:,} as objects, {inline:,} "
        f"in the manifest, {virtual:,} in other files. The newest commit wrote {_many(written, 'chunk')}",
    )


def show_region_write(array: zarr.Array, region: tuple[slice, ...]) -> None:
    """Show how a region is written: chunks that it covers whole are replaced, others are read and changed first.

    The region has a slice of pixels along each axis of the array, which has no shards; along all axes but the last two
    it is inside of one chunk. ``ValueError`` for others.
    """
    _check_grid(array)
    sized = list(zip(region, array.shape, strict=False))
    spans = [(part.start or 0, size if part.stop is None else part.stop) for part, size in sized]
    inside = all(0 <= start < stop <= size for (start, stop), (_, size) in zip(spans, sized, strict=True))
    if len(region) != array.ndim or not inside or any(part.step not in (None, 1) for part in region):
        raise ValueError(
            f"expected a slice inside of each axis of {array.shape}, without steps, found {region}; count pixels from 0"
        )
    whole = []  # along each axis: the chunks that are touched, and whether all of their pixels are
    for (start, stop), size, chunk in zip(spans, array.shape, array.chunks, strict=True):
        numbers = range(start // chunk, (stop - 1) // chunk + 1)
        whole.append({n: start <= n * chunk and stop >= min((n + 1) * chunk, size) for n in numbers})
    if any(len(numbers) > 1 for numbers in whole[:-2]):
        raise ValueError(f"expected one chunk along all axes but the last two, found {region}; draw one at a time")
    canvas = _Canvas({2.55: f"region of {array.path or 'the array'}"})
    grid = _Grid(canvas, array, 0.45, 3.05, 4.2, 2.4)
    looks = (
        ("read first", {"facecolor": _pale(ORANGE, 0.6), "edgecolor": "0.35", "hatch": "///"}),
        ("covered whole", {"facecolor": _pale(GREEN, 0.6), "edgecolor": "0.35"}),
        ("region", {"facecolor": "none", "edgecolor": BLUE, "linewidth": 2.5}),
    )
    numbers = [0, 0]
    for chunk in product(*whole):
        covered = all(axis[number] for axis, number in zip(whole, chunk, strict=True))
        numbers[covered] += 1
        grid.chunk(*chunk[-2:], **looks[covered][1])
    grid.pixels(*spans[-2], *spans[-1], **looks[2][1])
    for x, (text, look) in zip((0.45, 1.65, 3.2), looks, strict=True):
        canvas.patch(Rectangle((x, 0.1), 0.2, 0.16), **look)
        canvas.text(x + 0.28, 0.18, text, ha="left")
    (read, replaced), pixels = numbers, prod(stop - start for start, stop in spans)
    moved = sum(numbers) * prod(array.chunks)
    steps = (
        ("1  read", f"{_many(read, 'chunk')}, covered in part", ORANGE),
        ("2  change", f"{_many(pixels, 'pixel')} in memory", BLUE),
        (
            "3  write",
            f"{_many(read + replaced, 'chunk')}: {moved:,} pixels\n{replaced or 'none'} of them without reading",
            GREEN,
        ),
    )
    for y, (head, text, color) in zip((2.35, 1.3, 0.25), steps, strict=True):
        canvas.box(5.3, y, 1.3, 0.75, head, color, weight="bold", fontsize=10)
        canvas.box(6.7, y, 3.15, 0.75, text, color, fontsize=10)
    for y in (2.35, 1.3):
        canvas.arrow((5.95, y), (5.95, y - 0.3))
    maps.show(
        canvas.figure,
        f"A region of {pixels:,} pixels on a grid of chunks. It touches {_many(read + replaced, 'chunk')}: {replaced} "
        f"covered whole, which are replaced, and {read} in part, which are read and changed first. {moved:,} pixels "
        "are written in all",
    )


def show_forks(repo: icechunk.Repository, path: str, written: Mapping[str, int], branch: str = "main") -> None:
    """Show the newest commit of a branch as the work of forks: fork, write, merge, commit.

    ``written`` tells in how many chunks of the array at the path each fork wrote, by what it wrote, such as a tile's
    name. ``ValueError`` where the newest commit wrote another number of its chunks.
    """
    path = f"/{path.strip('/')}"
    (after, before, *_), total = _newest(repo, branch, path)
    if not total or total != sum(written.values()) or min(written.values()) < 1:
        raise ValueError(
            f"expected forks that wrote the {_many(total, 'chunk')} of {path} in the newest commit of {branch}, found "
            f"{dict(written)}; draw right after their commit, and count each chunk once"
        )
    canvas = _Canvas({0.75: "snapshot", 2.3: "session", 4.65: "fork and write", 7.2: "merge", 9.1: "commit"})
    shown = list(written.items())[:MOST]
    middle = 2.87 - 0.36 * len(shown)
    low = middle - 0.3
    canvas.box(0.1, low, 1.3, 0.6, f"{before.id[:8]}\n{before.message}", GRAY)
    canvas.arrow((1.4, middle), (1.75, middle))
    canvas.box(1.75, low, 1.1, 0.6, f"writable,\n{branch}")
    for number, (name, chunks) in enumerate(shown):
        y = 2.51 - 0.72 * number
        canvas.arrow((2.85, middle), (3.5, y))
        canvas.box(3.5, y - 0.27, 2.3, 0.54, f"fork {number + 1}: {name}\n{_many(chunks, 'chunk')}", ORANGE)
        canvas.arrow((5.8, y), (6.5, middle))
    if len(written) > MOST:
        canvas.text(4.65, 0.0, f"and {_many(len(written) - MOST, 'more fork')}", va="bottom")
    canvas.box(6.5, low, 1.4, 0.6, f"session with\n{_many(total, 'chunk')}")
    canvas.arrow((7.9, middle), (8.3, middle))
    canvas.box(8.3, low, 1.6, 0.6, f"{after.id[:8]}\n{after.message}", GREEN)
    forks = "; ".join(f"{name}, {_many(chunks, 'chunk')}" for name, chunks in written.items())
    maps.show(
        canvas.figure,
        f"Between two snapshots of {branch}: one session, {_many(len(written), 'fork')} that write at once ({forks}), "
        f"merged into one session with {_many(total, 'chunk')}, and one commit",
    )
