"""Drawings of concepts, each made from the objects of the lesson that shows it, with the real names and counts.

A drawing refuses data that contradict it. Maps and charts are drawn in ``maps.py``.
"""

from collections.abc import Collection, Mapping
from math import prod

import icechunk
import numpy as np
import xarray as xr
import zarr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle
from matplotlib.pyplot import figure as new_figure

from workshop import maps

# Okabe and Ito's colors, as in look.mplstyle: what a drawing is about, what belongs to it, and what it comes to
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#E69F00", "#009E73", "#767676"
SIZE = 10  # points; 9 where there is little room
MONO = {"family": "monospace", "fontsize": 9}
MOST = 4  # boxes in a column; what is more is counted


def _canvas(height: float = 3.5, width: float = 10) -> tuple[Figure, Axes]:
    """Return a figure whose axes are in inches from the lower left."""
    figure = new_figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    return figure, ax


def _pale(color: str, share: float = 0.25) -> tuple[float, ...]:
    return tuple(1 - share * (1 - part) for part in to_rgb(color))


def _text(ax: Axes, x: float, y: float, text: str, room: float = 10, **style) -> None:
    """Write a line or several; each that needs more than some inches loses its middle."""
    drawn = ax.text(x, y, "", **{"ha": "center", "va": "center", "fontsize": SIZE, "linespacing": 1.35} | style)
    lines = []
    for line in text.split("\n"):
        short = line
        for keep in range(len(line) - 1, 3, -1):
            drawn.set_text(short)
            if drawn.get_window_extent().width / ax.figure.dpi <= room:
                break
            short = f"{line[: keep - keep // 2]}…{line[len(line) - keep // 2 :]}"
        lines.append(short)
    drawn.set_text("\n".join(lines))


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, color: str = BLUE, **style) -> None:
    """Draw a box around a text, from its lower left corner."""
    shape = "round,pad=0,rounding_size=0.06"
    ax.add_patch(FancyBboxPatch((x, y), width, height, shape, facecolor=_pale(color), edgecolor=color, linewidth=1.3))
    _text(ax, x + width / 2, y + height / 2, text, width - 0.12, **style)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", color: str = "0.25") -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "shrinkA": 2, "shrinkB": 2, "lw": 1.4})
    if text:
        _text(ax, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.14, text, fontsize=9)


def _head(ax: Axes, x: float, text: str) -> None:
    _text(ax, x, 3.22, text, weight="bold", va="baseline")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _scaled(shape: tuple[int, ...], width: float, height: float) -> tuple[float, float]:
    """Return the inches of a raster's width and height inside of some room, at most four times as long as wide."""
    rows, cols = shape[-2:]
    aspect = min(max(cols / rows, 0.25), 4)
    return min(width, height * aspect), min(height, width / aspect)


class _Grid:
    """The chunks along an array's last two axes, to scale, from an upper left corner on."""

    def __init__(self, ax: Axes, array: zarr.Array, left: float, top: float, width: float, height: float) -> None:
        self.ax, self.left, self.top = ax, left, top
        self.width, self.height = _scaled(array.shape, width, height)
        self.rows, self.cols = array.shape[-2:]
        chunk_rows, chunk_cols = array.chunks[-2:]
        self.cells(0, self.rows, 0, self.cols, facecolor="white", edgecolor="0.2", linewidth=1.3)
        for row in range(chunk_rows, self.rows, chunk_rows):
            self.cells(row, row, 0, self.cols, edgecolor="0.6", linewidth=0.8)
        for col in range(chunk_cols, self.cols, chunk_cols):
            self.cells(0, self.rows, col, col, edgecolor="0.6", linewidth=0.8)
        y, x = array.metadata.dimension_names[-2:] if array.metadata.dimension_names else ("rows", "columns")
        _text(ax, left + self.width / 2, top - self.height - 0.15, f"{x}: {self.cols:,}", fontsize=9)
        _text(ax, left - 0.17, top - self.height / 2, f"{y}: {self.rows:,}", fontsize=9, rotation=90)

    def place(self, row: float, col: float) -> tuple[float, float]:
        return self.left + col / self.cols * self.width, self.top - row / self.rows * self.height

    def cells(self, row: int, end_row: int, col: int, end_col: int, **style) -> None:
        """Mark pixels, by the array's rows and columns."""
        (left, low), (right, high) = self.place(end_row, col), self.place(row, end_col)
        self.ax.add_patch(Rectangle((left, low), right - left, high - low, **style))


def _check_array(array: zarr.Array) -> None:
    if array.ndim < 2 or array.shards:
        raise ValueError(
            f"expected an array with two axes or more and without shards, found {array.ndim} and shards "
            f"{array.shards}; choose another array"
        )


def show_dataset(dataset: xr.Dataset) -> None:
    """Show a Dataset: variables as blocks, coordinates along their axes, attributes as a tag.

    Parameters
    ----------
    dataset : xarray.Dataset
        With one variable or two, each with one to three dimensions.

    Raises
    ------
    ValueError
        When there are other numbers of variables or dimensions.
    """
    variables = dataset.data_vars
    if len(variables) not in (1, 2) or not all(1 <= variable.ndim <= 3 for variable in variables.values()):
        raise ValueError(
            "expected one variable or two, of one to three dimensions, found "
            f"{ {name: variable.dims for name, variable in variables.items()} }; choose some with dataset[[...]]"
        )
    figure, ax = _canvas()
    room = 7.3 / len(variables)
    _head(ax, 3.75, "xarray.Dataset")
    for number, (name, variable) in enumerate(variables.items()):
        depth = 0.5 if variable.ndim == 3 else 0
        width, height = _scaled((1, *variable.shape), room - 0.9 - depth, 2.0 - depth)
        if variable.ndim == 1:
            width, height = room - 1.2, 0.5
        left, low = (number + 0.5) * room - (width + depth) / 2 + 0.2, 1.65 - (height + depth) / 2
        right, high = left + width, low + height
        above = [(left, high), (left + depth, high + depth), (right + depth, high + depth), (right, high)]
        beside = [(right, low), (right + depth, low + depth), *above[2:]]
        for corners in (above, beside)[: variable.ndim - 1 if depth else 0]:
            ax.add_patch(Polygon(corners, facecolor=_pale(BLUE, 0.45), edgecolor=BLUE, linewidth=1.3))
        ax.add_patch(Rectangle((left, low), width, height, facecolor=_pale(BLUE), edgecolor=BLUE, linewidth=1.3))
        _text(ax, left + width / 2, low + height / 2, f"{name}\n{variable.dtype}", width - 0.1)
        _text(ax, left + (width + depth) / 2, high + depth + 0.2, f"({', '.join(variable.dims)})", room, fontsize=9)
        axes = (  # of the last dimension, the one before, and the first of three: a line, its text's place and turn
            ((left, right), (low - 0.07,) * 2, (left + width / 2, low - 0.32), 0),
            ((left - 0.07,) * 2, (low, high), (left - 0.3, low + height / 2), 90),
            ((left - 0.05, left + depth - 0.05), (high + 0.05, high + depth + 0.05), (left + 0.06, high + 0.42), 45),
        )
        for dim, (xs, ys, place, turn) in zip(variable.dims[::-1], axes[: variable.ndim], strict=True):
            known = dim in dataset.coords
            ax.plot(xs, ys, color=ORANGE if known else "0.75", linewidth=4, solid_capstyle="butt")
            ends = (
                f"\n{_short(dataset[dim].values[0])} … {_short(dataset[dim].values[-1])}" if known and turn < 45 else ""
            )
            if known and turn == 90:
                ends = f"\n{_short(dataset[dim].values[-1])} … {_short(dataset[dim].values[0])}"  # read upwards
            _text(ax, *place, f"{dim}: {dataset.sizes[dim]:,}{ends}", fontsize=9, rotation=turn)
    along = [str(name) for name in dataset.coords if name in dataset.dims]
    others = [str(name) for name in dataset.coords if name not in dataset.dims]
    kinds = (("data variables", variables, BLUE), ("coordinates of axes", along, ORANGE), ("others", others, GRAY))
    for number, (kind, names, color) in enumerate(kinds):
        _box(ax, 7.6, 2.55 - number * 0.62, 2.3, 0.52, f"{kind}\n{', '.join(names) or 'none'}", color, fontsize=9)
    owner, attributes = "dataset", dataset.attrs
    if not attributes:
        owner, attributes = next((name, variable.attrs) for name, variable in variables.items())
    tag = [(7.6, 0.62), (7.8, 1.15), (9.9, 1.15), (9.9, 0.1), (7.8, 0.1)]
    ax.add_patch(Polygon(tag, facecolor=_pale(GREEN), edgecolor=GREEN, linewidth=1.3))
    ax.plot(7.76, 0.62, "o", markersize=5, markerfacecolor="white", markeredgecolor=GREEN)
    rows = (
        [f"{owner}.attrs", *(f"{name}: {value}" for name, value in attributes.items())] if attributes else ["no attrs"]
    )
    rows[3:] = [f"and {len(rows) - 3} more"] if len(rows) > 3 else []
    _text(ax, 8.88, 0.62, "\n".join(rows), 1.9, fontsize=9)
    sizes = {name: ", ".join(f"{dim} {size:,}" for dim, size in variables[name].sizes.items()) for name in variables}
    maps.show(
        figure,
        f"A Dataset as blocks: {'; '.join(f'{name} ({size})' for name, size in sizes.items())}. Coordinates along the "
        f"axes: {', '.join(along) or 'none'}; others: {', '.join(others) or 'none'}. A tag holds "
        f"{_many(len(attributes), 'attribute')} of {owner}",
    )


def _short(value: np.generic) -> str:
    return f"{value:.6g}" if np.issubdtype(np.asarray(value).dtype, np.number) else str(value)[:10]


def show_chunk(array: zarr.Array, chunk: tuple[int, ...], objects: Collection[str]) -> None:
    """Show the way from an array's pixels to an object: the chunk, its codecs, its key, the object of that name.

    Parameters
    ----------
    array : zarr.Array
        Without shards; its last two axes are drawn.
    chunk : tuple of int
        The chunk's number along each axis.
    objects : collection of str
        Keys or file names found in the store, below any prefix.

    Raises
    ------
    ValueError
        When the array has no such chunk, or not exactly one object has the chunk's key.
    """
    _check_array(array)
    counts = array.cdata_shape
    if len(chunk) != array.ndim or any(not 0 <= number < count for number, count in zip(chunk, counts, strict=True)):
        raise ValueError(f"expected a chunk of {counts}, counted from 0, found {chunk}; choose one inside of the array")
    key = "/".join(filter(None, [array.path, array.metadata.encode_chunk_key(chunk)]))
    names = sorted(map(str, objects))
    found = [name for name in names if name == key or name.endswith(f"/{key}")]
    if len(found) != 1:
        raise ValueError(
            f"expected one object with the key {key}, found {len(found)} among {len(names)}; list the objects of this "
            "store only, or choose a chunk that was written"
        )
    figure, ax = _canvas()
    _head(ax, 1.85, f"array {array.path}")
    grid = _Grid(ax, array, 0.45, 3.0, 2.8, 2.2)
    rows, cols = array.chunks[-2:]
    row, col = chunk[-2] * rows, chunk[-1] * cols
    end_row, end_col = min(row + rows, grid.rows), min(col + cols, grid.cols)
    grid.cells(row, end_row, col, end_col, facecolor=ORANGE, edgecolor="black", linewidth=1.3)
    shape, sizes = (" x ".join(map(str, numbers)) for numbers in (counts, array.chunks))
    _text(ax, 1.85, grid.top - grid.height - 0.45, f"{shape} chunks of {sizes}", 3.3, fontsize=9)
    _head(ax, 4.75, "chunk")
    size = prod(array.chunks) * array.dtype.itemsize
    _box(ax, 3.85, 2.45, 1.8, 0.6, f"chunk {chunk}\n{size:,} bytes", ORANGE)
    _arrow(ax, grid.place((row + end_row) / 2, end_col), (3.85, 2.75))
    codecs = [*array.filters, *filter(None, [array.serializer]), *array.compressors]
    codecs = [codec.to_dict()["name"] if hasattr(codec, "to_dict") else codec.codec_id for codec in codecs]
    step = min(0.62, 1.9 / max(len(codecs), 1))
    for number, codec in enumerate(codecs):
        y = 2.45 - (number + 1) * step
        _arrow(ax, (4.75, y + step), (4.75, y + 0.36))
        _box(ax, 4.05, y, 1.4, 0.36, codec, GRAY, **MONO)
    _text(ax, 4.75, y - 0.17, "codecs", fontsize=9)
    _head(ax, 6.8, "key")
    _arrow(ax, (5.65, 2.75), (6.05, 2.75))
    _box(ax, 6.05, 2.55, 1.5, 0.4, key, ORANGE, **MONO)
    _head(ax, 8.9, _many(len(names), "object"))
    at = names.index(found[0])
    first = max(0, min(at - 3, len(names) - 7))
    for number, name in enumerate(names[first : first + 7]):
        here, low = first + number == at, 2.7 - number * 0.38
        _box(ax, 7.95, low, 1.9, 0.3, name, ORANGE if here else GRAY, **MONO)
        if here:
            _arrow(ax, (7.55, 2.75), (7.95, low + 0.2))
            _arrow(ax, (5.45, y + 0.18), (7.95, low + 0.1))
    _text(ax, 6.8, 2.4, "its name", fontsize=9)
    _text(ax, 6.3, y + 0.05, "its content", fontsize=9)
    if len(names) > 7:
        _text(ax, 8.9, 0.2, f"and {len(names) - 7} more", fontsize=9)
    maps.show(
        figure,
        f"From an array to an object: of {shape} chunks, {chunk} is marked. Its number gives the key {key}; its pixels "
        f"go through the codecs {', '.join(codecs)}. Both make the object {found[0]}, one of {len(names)}",
    )


def show_commit(repo: icechunk.Repository, path: str, branch: str = "main") -> None:
    """Show what a commit made: a session opens a branch, which names a snapshot, which names manifests of chunks.

    Parameters
    ----------
    repo, branch
        An Icechunk repository; the newest snapshots of this branch are drawn.
    path : str
        Of the array whose manifests are drawn, such as ``"/lulc"``.

    Raises
    ------
    ValueError
        When the newest snapshot has no such array, or none of its chunks was written.
    """
    snapshots = list(repo.ancestry(branch=branch))
    tip, *earlier = snapshots
    details = repo.inspect_snapshot(tip.id)
    arrays = {node["path"]: node for node in details["nodes"] if node["node_type"] == "array"}
    path = f"/{path.strip('/')}"
    ids = [reference["id"] for reference in arrays.get(path, {}).get("manifest_refs", [])]
    if not ids:
        raise ValueError(
            f"expected an array {path} with chunks in the newest snapshot of {branch}, found the arrays "
            f"{sorted(arrays)}; check the path, and commit after writing"
        )
    manifests = {}  # how many of the array's chunks each has as objects, in itself, and in files elsewhere
    for name in ids:
        (entry,) = (e for e in repo.inspect_manifest(name)["arrays"] if e["node_id"] == arrays[path]["id"])
        manifests[name] = entry["num_native"], entry["num_inline"], entry["num_virtual"]
    before = {file.id for file in repo.list_manifest_files(earlier[0].id)}  # every repository begins with a snapshot
    changes = repo.diff(from_snapshot_id=earlier[0].id, to_snapshot_id=tip.id)
    written = len(changes.updated_chunks.get(path, []))
    figure, ax = _canvas()
    for x, text in ((1.1, "session and names"), (3.55, "snapshots"), (6.15, f"manifests of {path}"), (8.8, "chunks")):
        _head(ax, x, text)
    spots = {snapshot.id: 2.5 - number * 0.72 for number, snapshot in enumerate(snapshots[:MOST])}
    for snapshot, y in zip(snapshots, spots.values(), strict=False):
        _box(
            ax,
            2.55,
            y,
            2.0,
            0.52,
            f"{snapshot.id[:8]}\n{snapshot.message}",
            GRAY if snapshot in earlier else BLUE,
            fontsize=9,
        )
        if snapshot in earlier:
            _arrow(ax, (3.55, y + 0.72), (3.55, y + 0.52), color=GRAY)
    if len(snapshots) > MOST:
        _text(ax, 3.55, 0.18, f"and {len(snapshots) - MOST} earlier", fontsize=9)
    _box(ax, 0.1, 2.59, 0.85, 0.35, "session", GREEN)
    _box(ax, 1.2, 2.59, 0.9, 0.35, branch, ORANGE)
    _arrow(ax, (0.95, 2.76), (1.2, 2.76))
    _arrow(ax, (2.1, 2.76), (2.55, 2.76))
    tags = {tag: repo.lookup_tag(tag) for tag in repo.list_tags()}
    drawn = sorted((tag for tag in tags if tags[tag] in spots), key=lambda tag: (-spots[tags[tag]], tag))[:MOST]
    for number, tag in enumerate(drawn):
        _box(ax, 1.0, 1.95 - number * 0.5, 1.1, 0.35, f"tag {tag}", ORANGE)
        _arrow(ax, (2.1, 2.12 - number * 0.5), (2.55, spots[tags[tag]] + 0.15))
    for number, (name, counts) in enumerate(list(manifests.items())[:3]):
        y = 2.5 - number * 0.72
        color, news = (GRAY, "from an earlier commit") if name in before else (BLUE, "new in this commit")
        _box(ax, 5.15, y, 2.0, 0.52, f"{name[:8]}\n{news}", color, fontsize=9)
        _arrow(ax, (4.55, 2.76), (5.15, y + 0.26))
        kinds = zip(counts, ("as objects", "inside of the manifest", "in other files"), strict=True)
        _box(
            ax, 7.75, y, 2.1, 0.52, "\n".join(f"{count:,} {kind}" for count, kind in kinds if count), ORANGE, fontsize=9
        )
        _arrow(ax, (7.15, y + 0.26), (7.75, y + 0.26))
    _text(ax, 8.8, y - 0.2, f"{written:,} of them written by this commit", fontsize=9)
    rest = len(ids) - min(len(ids), 3)
    others = len(repo.list_manifest_files(tip.id)) - len(ids)
    more = [f"{rest} more of {path}"] * bool(rest) + [f"{others} of other arrays"] * bool(others)
    _text(ax, 6.15, y - 0.2, "and " * bool(more) + ", ".join(more), 2.5, fontsize=9)
    native, inline, virtual = map(sum, zip(*manifests.values(), strict=True))
    maps.show(
        figure,
        f"A session opens the branch {branch}, which names the newest of {_many(len(snapshots), 'snapshot')}; tags: "
        f"{', '.join(sorted(tags)) or 'none'}. That snapshot names {_many(len(manifests), 'manifest')} of {path}, "
        f"{len(before & manifests.keys())} from an earlier commit, for {_many(native + inline + virtual, 'chunk')}: "
        f"{native:,} as objects, {inline:,} inside of the manifest, {virtual:,} in other files. "
        f"This commit wrote {written:,}",
    )


def show_region_write(array: zarr.Array, region: tuple[slice, ...]) -> None:
    """Show how a region is written: chunks that it covers whole are replaced, others are read and changed first.

    Parameters
    ----------
    array : zarr.Array
        Without shards; its last two axes are drawn.
    region : tuple of slice
        Pixels along each axis; along all axes but the last two, inside of one chunk.

    Raises
    ------
    ValueError
        When the region is empty, has steps, ends outside of the array, or is in several chunks along other axes.
    """
    _check_array(array)
    spans = [(part.start or 0, size if part.stop is None else part.stop) for part, size in zip(region, array.shape)]  # noqa: B905
    if (
        len(region) != array.ndim
        or any(part.step not in (None, 1) for part in region)
        or any(not 0 <= start < stop <= size for (start, stop), size in zip(spans, array.shape, strict=True))
    ):
        raise ValueError(
            f"expected a slice inside of each axis of {array.shape}, without steps, found {region}; count pixels from 0"
        )
    touched, whole = [], []
    for (start, stop), size, chunk in zip(spans, array.shape, array.chunks, strict=True):
        numbers = range(start // chunk, (stop - 1) // chunk + 1)
        touched.append(numbers)
        whole.append([start <= n * chunk and stop >= min((n + 1) * chunk, size) for n in numbers])
    if any(len(numbers) > 1 for numbers in touched[:-2]):
        raise ValueError(
            f"expected one chunk along all axes but the last two, found {touched[:-2]}; draw one at a time"
        )
    outer = all(part[0] for part in whole[:-2])
    cells = {
        (row, col): outer and whole[-2][i] and whole[-1][j]
        for i, row in enumerate(touched[-2])
        for j, col in enumerate(touched[-1])
    }
    replaced = sum(cells.values())
    read = len(cells) - replaced
    pixels = prod(stop - start for start, stop in spans)
    moved = len(cells) * prod(array.chunks)
    figure, ax = _canvas()
    _head(ax, 2.55, f"region of {array.path or 'the array'}")
    grid = _Grid(ax, array, 0.45, 3.05, 4.2, 2.4)
    rows, cols = array.chunks[-2:]
    for (row, col), is_whole in cells.items():
        end = (min((row + 1) * rows, grid.rows), min((col + 1) * cols, grid.cols))
        style = {"facecolor": _pale(GREEN, 0.6)} if is_whole else {"facecolor": _pale(ORANGE, 0.6), "hatch": "///"}
        grid.cells(row * rows, end[0], col * cols, end[1], edgecolor="0.35", linewidth=0.8, **style)
    (top, bottom), (left, right) = spans[-2:]
    grid.cells(top, bottom, left, right, facecolor="none", edgecolor=BLUE, linewidth=3)
    for x, color, text, hatch in ((0.4, GREEN, "whole", ""), (1.45, ORANGE, "read first", "///")):
        ax.add_patch(Rectangle((x, 0.1), 0.2, 0.16, facecolor=_pale(color, 0.6), edgecolor="0.35", hatch=hatch))
        _text(ax, x + 0.28, 0.18, text, fontsize=9, ha="left")
    ax.add_patch(Rectangle((2.75, 0.1), 0.2, 0.16, facecolor="none", edgecolor=BLUE, linewidth=2.5))
    _text(ax, 3.03, 0.18, f"region, {pixels:,} pixels", fontsize=9, ha="left")
    steps = [
        ("1  read", f"{_many(read, 'chunk')}, covered in part", ORANGE),
        ("2  change", f"{_many(pixels, 'pixel')} in memory", BLUE),
        (
            "3  write",
            f"{_many(len(cells), 'chunk')}: {moved:,} pixels\n{replaced} of them covered whole, not read",
            GREEN,
        ),
    ]
    for number, (head, text, color) in enumerate(steps):
        y = 2.35 - number * 1.05
        _box(ax, 5.3, y, 1.3, 0.75, head, color, weight="bold")
        _box(ax, 6.7, y, 3.15, 0.75, text, color)
        if number:
            _arrow(ax, (5.95, y + 1.05), (5.95, y + 0.75))
    maps.show(
        figure,
        f"A region of {pixels:,} pixels on a grid of chunks. It touches {len(cells)} chunks: {replaced} are covered "
        f"whole and replaced, {read} in part, which are read, changed and written. {moved:,} pixels are written in all",
    )


def show_forks(repo: icechunk.Repository, path: str, written: Mapping[str, int], branch: str = "main") -> None:
    """Show how workers wrote one commit together: a session, a fork per worker, a merge, a commit.

    Parameters
    ----------
    repo, branch
        An Icechunk repository, and the branch whose newest commit was written by forks.
    path : str
        Of the array that they wrote, such as ``"/0/lulc"``.
    written : mapping from str to int
        What each fork wrote, such as a tile's name, and in how many chunks.

    Raises
    ------
    ValueError
        When the newest commit changed another number of the array's chunks.
    """
    after, *earlier = repo.ancestry(branch=branch)
    path = f"/{path.strip('/')}"
    changed = repo.diff(from_snapshot_id=earlier[0].id, to_snapshot_id=after.id).updated_chunks if earlier else {}
    total = len(changed.get(path, []))
    if not total or total != sum(written.values()) or min(written.values()) < 1:
        raise ValueError(
            f"expected forks that wrote the {total} chunks of {path} in the newest commit of {branch}, found {written}"
            "; draw right after their commit, and count each chunk once"
        )
    shown = list(written.items())[:MOST]
    figure, ax = _canvas()
    for x, text in ((0.75, "snapshot"), (2.3, "session"), (4.65, "fork and write"), (7.2, "merge"), (9.1, "commit")):
        _head(ax, x, text)
    middle = 1.65
    _box(ax, 0.1, middle - 0.3, 1.3, 0.6, f"{earlier[0].id[:8]}\n{earlier[0].message}", GRAY, fontsize=9)
    _box(ax, 1.75, middle - 0.3, 1.1, 0.6, f"writable,\n{branch}")
    _arrow(ax, (1.4, middle), (1.75, middle))
    for number, (name, chunks) in enumerate(shown):
        y = middle + ((len(shown) - 1) / 2 - number) * 0.72
        _box(ax, 3.5, y - 0.27, 2.3, 0.54, f"fork {number + 1}: {name}\n{_many(chunks, 'chunk')}", ORANGE, fontsize=9)
        _arrow(ax, (2.85, middle), (3.5, y))
        _arrow(ax, (5.8, y), (6.5, middle))
    if len(written) > MOST:
        _text(ax, 4.65, 0.1, f"and {len(written) - MOST} more forks", fontsize=9)
    _box(ax, 6.5, middle - 0.3, 1.4, 0.6, f"session with\n{_many(total, 'chunk')}")
    _arrow(ax, (7.9, middle), (8.3, middle))
    _box(ax, 8.3, middle - 0.3, 1.6, 0.6, f"{after.id[:8]}\n{after.message}", GREEN, fontsize=9)
    forks = "; ".join(f"{name}, {_many(chunks, 'chunk')}" for name, chunks in written.items())
    maps.show(
        figure,
        f"Between two snapshots of {branch}: one session, {len(written)} forks that write at once ({forks}), "
        f"merged into one session of {total:,} chunks, and one commit",
    )
