"""Drawings of concepts, each made from the objects of the lesson that shows it, with their real names and counts.

A drawing refuses data that contradict it. Maps and charts are drawn in ``maps.py``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import product
from math import prod

import icechunk
import xarray as xr
import zarr
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch, Patch, Polygon, Rectangle
from matplotlib.pyplot import figure

from workshop import maps

# of Okabe and Ito's colors, as in look.mplstyle; dark enough for edges, and made pale for what has text on it
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#E69F00", "#009E73", "#767676"
MOST = 4  # boxes in a column; the others are counted
MOST_CHUNKS = 1000  # in a grid
CODE = {"family": "monospace", "fontsize": 9}


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _names(names: Iterable[object]) -> str:
    return ", ".join(map(str, names)) or "none"


def _times(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))


def _fit(text: str, width: float) -> str:
    """Return a text whose lines lose their middle where they are too long for a width in inches."""
    half = int(12 * width) // 2  # 12 characters per inch
    return "\n".join(line if len(line) <= 2 * half else f"{line[:half]}…{line[-half:]}" for line in text.split("\n"))


def _row(number: float) -> float:
    return 2.75 - 0.72 * number


class _Canvas:
    """A figure to draw on, in inches from its lower left corner."""

    def __init__(self, heads: dict[float, str]) -> None:
        self.figure = figure(figsize=(10, 3.5))  # of pyplot: IPython shows no others before pyplot's first
        # only the part that has the heads: notebooks cut off what is empty below, but not where axes are
        self.ax = self.figure.add_axes((0, 6 / 7, 1, 1 / 7), xlim=(0, 10), ylim=(3, 3.5))
        self.ax.axis("off")
        for x, text in heads.items():
            self.text(x, 3.22, text, fontsize=10, weight="bold", va="baseline")

    def text(self, x: float, y: float, text: str, **style) -> None:
        self.ax.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 9, "linespacing": 1.35} | style)

    def patch(self, shape: Patch, color: str, share: float = 0.25, **look) -> Patch:
        """Draw a shape with an edge in a color, and filled with a share of it."""
        pale = [1 - share * (1 - part) for part in to_rgb(color)]
        shape.set(**{"facecolor": pale, "edgecolor": color, "linewidth": 1.3, "clip_on": False} | look)
        return self.ax.add_patch(shape)

    def box(self, x: float, y: float, text: str, color: str = BLUE, width=2.0, height=0.52, **style) -> Patch:
        """Draw a box with a text, both centered at a point."""
        self.text(x, y, _fit(text, width), **style)
        shape = FancyBboxPatch((x - width / 2, y - height / 2), width, height, "round,pad=0,rounding_size=0.06")
        return self.patch(shape, color)

    def arrow(self, start: Patch, end: Patch) -> None:
        """Draw an arrow from a box to another, which is to its right or below."""
        a, b = start.get_bbox(), end.get_bbox()
        places = [((box.x0 + box.x1) / 2, y) for box, y in ((a, a.y0), (b, b.y1))]
        if b.x0 > a.x1:
            places = [(x, (box.y0 + box.y1) / 2) for box, x in ((a, a.x1), (b, b.x0))]
        look = {"arrowstyle": "-|>", "color": "0.25", "shrinkA": 2, "shrinkB": 2, "lw": 1.4}
        self.ax.annotate("", places[1], places[0], arrowprops=look, annotation_clip=False)


def _scaled(shape: tuple[int, ...], width: float, height: float) -> tuple[float, float]:
    """Return the width and height of a raster ``(..., y, x)`` in a room, at most four times as long as wide."""
    aspect = min(max(shape[-1] / shape[-2], 0.25), 4)
    return min(width, height * aspect), min(height, width / aspect)


def _check_grid(array: zarr.Array) -> None:
    if array.ndim < 2 or array.shards or prod(array.cdata_shape[-2:]) > MOST_CHUNKS:
        raise ValueError(
            f"expected two axes or more, without shards and with at most {MOST_CHUNKS} chunks along the last two, "
            f"found {array.shape}, chunks of {array.chunks} and shards of {array.shards}; choose another array"
        )


def _draw_grid(canvas: _Canvas, array: zarr.Array, width: float) -> Callable[..., Patch]:
    """Draw the chunks along an array's last two axes to scale, and return a function that marks pixels there."""
    left, top = 0.45, 3.0
    width, height = _scaled(array.shape, width, 2.2)
    row_height, col_width = height / array.shape[-2], width / array.shape[-1]

    def mark(rows: range, cols: range, color: str, share: float = 0, **look) -> Patch:
        corner = left + cols.start * col_width, top - rows.stop * row_height
        return canvas.patch(Rectangle(corner, len(cols) * col_width, len(rows) * row_height), color, share, **look)

    for chunk in product(*map(range, array.cdata_shape[-2:])):
        mark(*_pixels(array, chunk), "0.6", linewidth=0.8)
    mark(*map(range, array.shape[-2:]), "0.2", facecolor="none")
    y, x = (array.metadata.dimension_names or ("rows", "columns"))[-2:]
    text = f"{x}: {array.shape[-1]:,}\n{_times(array.cdata_shape)} chunks of {_times(array.chunks)}"
    canvas.text(left + width / 2, top - height - 0.26, text)
    canvas.text(left - 0.17, top - height / 2, f"{y}: {array.shape[-2]:,}", rotation=90)
    return mark


def _pixels(array: zarr.Array, chunk: tuple[int, ...]) -> list[range]:
    """Return which pixels a chunk holds along the last axes; its number is along these axes."""
    sizes = zip(chunk, array.chunks[-len(chunk) :], array.shape[-len(chunk) :], strict=True)
    return [range(size)[number * length : (number + 1) * length] for number, length, size in sizes]


def show_dataset(dataset: xr.Dataset) -> None:
    """Show a Dataset: variables as blocks, coordinates along their axes, the first variable's attributes as a tag.

    It has one variable or two, of two or three dimensions. ``ValueError`` for others.
    """
    variables = dataset.data_vars
    if len(variables) not in (1, 2) or not all(2 <= variable.ndim <= 3 for variable in variables.values()):
        raise ValueError(
            "expected one variable or two, of two or three dimensions, found "
            f"{ {name: variable.dims for name, variable in variables.items()} }; choose some with dataset[[...]]"
        )
    canvas = _Canvas({3.75: "xarray.Dataset"})
    room = 7.3 / len(variables)
    for number, (name, variable) in enumerate(variables.items()):
        depth = 0.5 * (variable.ndim - 2)
        width, height = _scaled(variable.shape, room - 0.9 - depth, 2.0 - depth)
        left, low = (number + 0.5) * room - (width + depth) / 2 + 0.2, 1.65 - (height + depth) / 2
        right, high = left + width, low + height
        if depth:
            behind = [(left + depth, high + depth), (right + depth, high + depth), (right + depth, low + depth)]
            canvas.patch(Polygon([(left, high), *behind[:2], (right, high)]), BLUE, 0.45)
            canvas.patch(Polygon([(right, high), *behind[1:], (right, low)]), BLUE, 0.45)
        canvas.patch(Rectangle((left, low), width, height), BLUE)
        canvas.text(left + width / 2, low + height / 2, _fit(f"{name}\n{variable.dtype}", width), fontsize=10)
        canvas.text(left + (width + depth) / 2, high + depth + 0.2, f"({_names(variable.dims)})")
        sides = (  # of the last dimension, the one before, the first of three: a line, its text's place and turn
            ((left, right), (low - 0.07,) * 2, (left + width / 2, low - 0.32), 0),
            ((left - 0.07,) * 2, (low, high), (left - 0.3, low + height / 2), 90),
            ((left - 0.05, left + depth - 0.05), (high + 0.05, high + depth + 0.05), (left + 0.06, high + 0.42), 45),
        )
        for dim, (xs, ys, place, turn) in zip(variable.dims[::-1], sides, strict=False):
            named = dim in dataset.coords
            canvas.ax.plot(xs, ys, color=ORANGE if named else "0.75", linewidth=4, clip_on=False)
            text = f"{dim}: {dataset.sizes[dim]:,}"
            if named and turn != 45:
                ends = dataset[dim].values[[-1, 0] if turn else [0, -1]]  # a turned text is read upwards
                text += f"\n{ends[0]} … {ends[1]}"
            canvas.text(*place, text, rotation=turn)
    along = [name for name in dataset.coords if name in dataset.dims]
    others = [name for name in dataset.coords if name not in dataset.dims]
    canvas.box(8.75, 2.8, f"data variables\n{_names(variables)}", BLUE, 2.3)
    canvas.box(8.75, 2.18, f"coordinates along axes\n{_names(along)}", ORANGE, 2.3)
    canvas.box(8.75, 1.56, f"other coordinates\n{_names(others)}", GRAY, 2.3)
    owner, attributes = next((name, variable.attrs) for name, variable in variables.items())
    canvas.patch(Polygon([(7.6, 0.62), (7.8, 1.15), (9.9, 1.15), (9.9, 0.1), (7.8, 0.1)]), GREEN)
    canvas.ax.plot(7.76, 0.62, "o", markersize=5, markerfacecolor="white", markeredgecolor=GREEN, clip_on=False)
    rows = [f"{owner}.attrs", *(f"{name}: {value}" for name, value in attributes.items())]
    if len(rows) > MOST:
        rows[MOST - 1 :] = [f"and {len(rows) - MOST + 1} more"]
    canvas.text(8.88, 0.62, _fit("\n".join(rows), 1.9))
    blocks = [f"{name} ({_names(f'{dim} {n:,}' for dim, n in variables[name].sizes.items())})" for name in variables]
    maps.show(
        canvas.figure,
        f"A Dataset as blocks: {'; '.join(blocks)}. Coordinates along the axes: {_names(along)}; others: "
        f"{_names(others)}. A tag holds {_many(len(attributes), 'attribute')} of {owner}",
    )


def show_chunk(array: zarr.Array, chunk: tuple[int, ...], objects: Collection[str]) -> None:
    """Show the way from a chunk of an array without shards to the object that holds it.

    The chunk is its number along each axis; the objects are keys or file names found in the store, perhaps below a
    prefix. ``ValueError`` unless exactly one object has the chunk's key.
    """
    _check_grid(array)
    key = f"{array.path}/{array.metadata.encode_chunk_key(chunk)}".strip("/")
    names = sorted(map(str, objects))
    found = [number for number, name in enumerate(names) if f"/{name}".endswith(f"/{key}")]
    if len(found) != 1:
        raise ValueError(
            f"expected one object with the key {key}, found {len(found)} among {len(names)}; choose a chunk that was "
            "written, and list the objects of this store only"
        )
    canvas = _Canvas({1.85: f"array {array.path}", 4.75: "chunk", 6.8: "key", 8.9: _many(len(objects), "object")})
    mark = _draw_grid(canvas, array, 2.8)
    place = mark(*_pixels(array, chunk)[-2:], ORANGE, 1, edgecolor="black")
    size = prod(array.chunks) * array.dtype.itemsize
    whole = canvas.box(4.75, 2.75, f"chunk {chunk}\n{size:,} bytes", ORANGE, 1.8, 0.6, fontsize=10)
    canvas.arrow(place, whole)
    codecs = [codec.to_dict()["name"] for codec in array.metadata.codecs]
    coded = whole
    for number, codec in enumerate(codecs, 1):
        before, coded = coded, canvas.box(4.75, 2.63 - 0.62 * number, codec, GRAY, 1.4, 0.36, **CODE)
        canvas.arrow(before, coded)
    canvas.text(4.75, 2.28 - 0.62 * len(codecs), "codecs")
    name = canvas.box(6.8, 2.75, key, ORANGE, 1.5, 0.4, **CODE)
    canvas.arrow(whole, name)
    first = max(0, min(found[0] - 3, len(names) - 7))
    for number, text in enumerate(names[first : first + 7]):
        here = first + number == found[0]
        thing = canvas.box(8.9, 2.85 - number * 0.38, text, ORANGE if here else GRAY, 1.9, 0.3, **CODE)
        if here:
            canvas.arrow(name, thing)
            canvas.arrow(coded, thing)
    canvas.text(6.8, 2.4, "its name")
    canvas.text(6.3, 1.1, "its content")
    if len(names) > 7:
        canvas.text(8.9, 0.2, f"and {len(names) - 7} more")
    maps.show(
        canvas.figure,
        f"From a chunk to an object: of {_times(array.cdata_shape)} chunks, {chunk} is marked. Its number gives the "
        f"key {key}; its pixels go through the codecs {_names(codecs)}. They make the object {names[found[0]]} of "
        f"{len(names)}",
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
    session = canvas.box(0.52, _row(0), "session", GREEN, 0.85, 0.35)
    newer = name = canvas.box(1.65, _row(0), branch, ORANGE, 0.9, 0.35)
    canvas.arrow(session, name)
    snapshots = {}
    for number, snapshot in enumerate([tip, *earlier][:MOST]):
        text = f"{snapshot.id[:8]}\n{snapshot.message}"
        snapshots[snapshot.id] = canvas.box(3.55, _row(number), text, GRAY if number else BLUE)
        canvas.arrow(newer, snapshots[snapshot.id])
        newer = snapshots[snapshot.id]
    if len(earlier) >= MOST:
        canvas.text(3.55, 0.18, f"and {len(earlier) + 1 - MOST} earlier")
    tags = {tag: repo.lookup_tag(tag) for tag in sorted(repo.list_tags())}
    newest_first = [tag for snapshot in snapshots for tag in tags if tags[tag] == snapshot]
    for number, tag in enumerate(newest_first[: MOST - 1], 1):
        canvas.arrow(canvas.box(1.25, _row(number), f"tag {tag}", ORANGE, 1.7, 0.35), snapshots[tags[tag]])
    shown = list(manifests.items())[: MOST - 1]
    for number, (name, counts) in enumerate(shown):
        news = "from an earlier commit" if name in before else "new in this commit"
        manifest = canvas.box(6.15, _row(number), f"{name[:8]}\n{news}", GRAY if name in before else BLUE)
        canvas.arrow(snapshots[tip.id], manifest)
        kinds = zip(counts, ("as objects", "in the manifest", "in other files"), strict=True)
        text = "\n".join(f"{count:,} {kind}" for count, kind in kinds if count)
        canvas.arrow(manifest, canvas.box(8.8, _row(number), text, ORANGE))
    y = _row(len(shown)) + 0.26
    canvas.text(8.8, y, f"this commit wrote {_many(written, 'chunk')}")
    more = {f"of {path}": len(ids) - len(shown), "of other arrays": len(repo.list_manifest_files(tip.id)) - len(ids)}
    canvas.text(6.15, y, "\n".join(f"and {count} more {which}" for which, count in more.items() if count))
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
    spans = [range(size)[part] for part, size in zip(region, array.shape, strict=True)]
    if not all(spans) or any(span.step != 1 for span in spans):
        raise ValueError(f"expected slices of pixels without steps inside of {array.shape}, found {region}")
    touched = [range(s.start // size, (s.stop - 1) // size + 1) for s, size in zip(spans, array.chunks, strict=True)]
    if any(len(numbers) > 1 for numbers in touched[:-2]):
        raise ValueError(f"expected one chunk along all axes but the last two, found {region}; draw one at a time")
    _check_grid(array)
    canvas = _Canvas({2.55: f"region of {array.path or 'the array'}"})
    mark = _draw_grid(canvas, array, 4.2)
    looks = {
        "read first": {"color": ORANGE, "share": 0.6, "edgecolor": "0.35", "hatch": "///"},
        "covered whole": {"color": GREEN, "share": 0.6, "edgecolor": "0.35"},
        "region": {"color": BLUE, "facecolor": "none", "linewidth": 2.5},
    }
    read = replaced = 0
    for chunk in product(*touched):
        parts = _pixels(array, chunk)
        covered = all(set(part) <= set(span) for part, span in zip(parts, spans, strict=True))
        read, replaced = read + (not covered), replaced + covered
        mark(*parts[-2:], **looks["covered whole" if covered else "read first"])
    mark(*spans[-2:], **looks["region"])
    for x, (text, look) in zip((0.45, 1.65, 3.2), looks.items(), strict=True):
        canvas.patch(Rectangle((x, 0.1), 0.2, 0.16), **look)
        canvas.text(x + 0.28, 0.18, text, ha="left")
    pixels, moved = prod(map(len, spans)), (read + replaced) * prod(array.chunks)
    without = f"{replaced or 'none'} of them without reading"
    steps = (
        ("1  read", f"{_many(read, 'chunk')}, covered in part", ORANGE),
        ("2  change", f"{_many(pixels, 'pixel')} in memory", BLUE),
        ("3  write", f"{_many(read + replaced, 'chunk')}: {moved:,} pixels\n{without}", GREEN),
    )
    for y, (head, text, color) in zip((2.62, 1.62, 0.62), steps, strict=True):
        canvas.box(5.95, y, head, color, 1.3, 0.75, weight="bold", fontsize=10)
        canvas.box(8.27, y, text, color, 3.15, 0.75, fontsize=10)
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
    (after, before, *_), total = _newest(repo, branch, path)
    if not total or total != sum(written.values()) or min(written.values()) < 1:
        raise ValueError(
            f"expected forks that wrote the {_many(total, 'chunk')} of {path} in the newest commit of {branch}, found "
            f"{dict(written)}; draw right after their commit, and count each chunk once"
        )
    canvas = _Canvas({1.0: "snapshot", 2.75: "session", 4.65: "fork and write", 6.75: "merge", 8.95: "commit"})
    shown = list(written.items())[:MOST]
    middle = _row((len(shown) - 1) / 2)
    base = canvas.box(1.0, middle, f"{before.id[:8]}\n{before.message}", GRAY, 1.9, 0.6)
    session = canvas.box(2.75, middle, f"writable,\n{branch}", BLUE, 1.0, 0.6)
    merged = canvas.box(6.75, middle, f"session with\n{_many(total, 'chunk')}", BLUE, 1.3, 0.6)
    new = canvas.box(8.95, middle, f"{after.id[:8]}\n{after.message}", GREEN, 1.9, 0.6)
    canvas.arrow(base, session)
    canvas.arrow(merged, new)
    for number, (name, chunks) in enumerate(shown):
        fork = canvas.box(4.65, _row(number), f"fork {number + 1}: {name}\n{_many(chunks, 'chunk')}", ORANGE)
        canvas.arrow(session, fork)
        canvas.arrow(fork, merged)
    if len(written) > MOST:
        canvas.text(4.65, 0.12, f"and {_many(len(written) - MOST, 'more fork')}")
    forks = "; ".join(f"{name}, {_many(chunks, 'chunk')}" for name, chunks in written.items())
    maps.show(
        canvas.figure,
        f"Between two snapshots of {branch}: one session, {_many(len(written), 'fork')} that write at once ({forks}), "
        f"merged into one session with {_many(total, 'chunk')}, and one commit",
    )
