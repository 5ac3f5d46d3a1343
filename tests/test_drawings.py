"""The drawings of concepts: what they say agrees with what is counted here, and they refuse what contradicts them."""

from collections import Counter

import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr
from matplotlib import pyplot
from zarr.core.sync import sync

from workshop import drawings


@pytest.fixture
def shown(monkeypatch):
    """Return a list of what is drawn: all texts of a figure in one, and its alt text."""
    pyplot.close("all")
    drawn = []

    def keep(figure, alt):
        figure.draw_without_rendering()
        (ax,) = figure.axes
        for text in ax.texts:  # the figure is as large as its axes
            box = text.get_window_extent().transformed(ax.transData.inverted())
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 10 and box.y1 <= 3.5
            assert inside, f"{text.get_text()!r} is cut off"
            assert text.get_fontsize() >= 9
        drawn.append((" | ".join(text.get_text() for text in ax.texts), alt))

    monkeypatch.setattr(drawings.maps, "show", keep)
    yield drawn
    assert len(pyplot.get_fignums()) == len(drawn), "a notebook would show a figure that was begun"
    pyplot.close("all")


LAYOUT = {"shape": (5, 1000, 1300), "chunks": (1, 250, 250), "dtype": "uint8", "fill_value": 255}
LAYOUT |= {"dimension_names": ("year", "y", "x")}


def pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 250, shape, np.uint8)


class CountingStore(zarr.storage.MemoryStore):
    """Counts the chunks that are asked for and written."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    async def get(self, key, *args, **kwargs):
        self.counts["read"] += "/c/" in key
        return await super().get(key, *args, **kwargs)

    async def set(self, key, *args, **kwargs):
        self.counts["written"] += "/c/" in key
        return await super().set(key, *args, **kwargs)


@pytest.fixture
def array():
    array = zarr.open_group(CountingStore()).create_array("lulc", **LAYOUT)
    array[:] = 1
    return array


@pytest.fixture
def repo():
    """Return a repository with a commit of one year of ``/lulc`` and one of a part of the next, tagged ``v1``."""
    repo = icechunk.Repository.create(icechunk.in_memory_storage())
    with repo.transaction("main", message="One year") as store:
        zarr.open_group(store).create_array("lulc", **LAYOUT)[0] = pixels(1, 1000, 1300)
        zarr.open_group(store).create_array("never", **LAYOUT)
    with repo.transaction("main", message="Half of another") as store:
        zarr.open_array(store, path="lulc")[1, :500] = pixels(2, 500, 1300)
    repo.create_tag("v1", repo.lookup_branch("main"))
    return repo


def test_a_dataset(shown):
    coords = {"year": [2000, 2005], "y": [3.0, 2.0, 1.0], "x": [7.0, 8.0], "spatial_ref": 0}
    attributes = {f"key{number}": number for number in range(4)}
    lulc = (("year", "y", "x"), np.zeros((2, 3, 2), "uint8"), attributes)
    dataset = xr.Dataset({"lulc": lulc, "area": (("y", "column"), np.ones((3, 4)))}, coords)
    drawings.show_dataset(dataset)
    texts, alt = shown[0]
    for text in (
        "lulc\nuint8",
        "(year, y, x)",
        "year: 2",
        "y: 3\n1.0 … 3.0",
        "x: 2\n7.0 … 8.0",
        "area\nfloat64",
        "column: 4 |",  # has no coordinate
        "lulc.attrs\nkey0: 0\nkey1: 1\nand 2 more",
    ):
        assert text in texts
    assert "lulc (year 2, y 3, x 2); area (y 3, column 4)" in alt
    assert "along the axes: year, y, x; others: spatial_ref. A tag holds 4 attributes of lulc" in alt


def test_a_dataset_with_too_little_or_too_much_is_refused(shown):
    for shapes in ([], [(2,)], [(2, 2), (2, 2, 2, 2)], [(2, 2)] * 3):
        layers = {f"v{k}": (tuple("abcd"[: len(shape)]), np.ones(shape)) for k, shape in enumerate(shapes)}
        with pytest.raises(ValueError, match="expected one variable or two, of two or three dimensions"):
            drawings.show_dataset(xr.Dataset(layers))


@pytest.mark.parametrize("chunk", [(0, 0, 0), (4, 3, 5)])
def test_a_chunk(shown, array, chunk):
    objects = [f"cube/{key}" for key in sync(_listed(array.store))]
    drawings.show_chunk(array, chunk, objects)
    texts, alt = shown[0]
    key = "lulc/c/" + "/".join(map(str, chunk))
    assert sum(name.endswith(key) for name in objects) == 1
    assert f"chunk {chunk}\n62,500 bytes" in texts
    assert f"the object cube/{key} of {len(objects)}" in alt
    assert f"{len(objects)} objects" in texts
    assert "the codecs bytes, zstd" in alt
    assert "of 5 x 4 x 6 chunks" in alt


async def _listed(store):
    return [key async for key in store.list()]


def test_a_chunk_without_its_one_object_is_refused(shown, array):
    for objects, found in ([], 0), (["lulc/c/0/0/10", "c/0/0/1"], 0), (["a/lulc/c/0/0/1", "b/lulc/c/0/0/1"], 2):
        with pytest.raises(ValueError, match=f"the key lulc/c/0/0/1, found {found} among {len(objects)}"):
            drawings.show_chunk(array, (0, 0, 1), objects)


@pytest.mark.parametrize(
    "layout",
    [
        {"shape": (8, 8), "chunks": (2, 2), "shards": (4, 4)},
        {"shape": (560_000, 1_440_000), "chunks": (1000, 1000)},
        {"shape": (8,), "chunks": (2,)},
    ],
)
def test_a_grid_that_cannot_be_drawn_is_refused(shown, layout):
    array = zarr.create_array({}, dtype="uint8", **layout)
    with pytest.raises(ValueError, match="without shards and with at most 1000 chunks"):
        drawings.show_region_write(array, (slice(0, 2),) * array.ndim)


@pytest.mark.parametrize(
    ("rows", "cols"),
    [
        (slice(0, 500), slice(0, 200)),
        (slice(100, 900), slice(300, 1000)),
        (slice(250, 1000), slice(1000, 1300)),  # with the chunks at the edge, which are not full
        (slice(None), slice(1, None)),
        (slice(-300, 2000), slice(-300, -100)),  # as NumPy and Zarr count
    ],
)
def test_a_region_is_written_as_drawn(shown, array, rows, cols):
    drawings.show_region_write(array, (slice(2, 3), rows, cols))
    region = np.zeros_like(array[2, rows, cols])
    array.store.counts.clear()
    array[2, rows, cols] = region
    texts, alt = shown[0]
    read, written = array.store.counts["read"], array.store.counts["written"]
    assert f"{read} chunk{'s' * (read != 1)}, covered in part" in texts
    assert f"{written} chunks: {written * 62_500:,} pixels\n{written - read or 'none'} of them without reading" in texts
    assert f"A region of {region.size:,} pixels" in alt
    assert f"{written - read} covered whole" in alt


def test_a_chunk_of_several_years_is_not_replaced_by_one_year(shown):
    array = zarr.create_array({}, **LAYOUT | {"chunks": (5, 500, 650)})
    drawings.show_region_write(array, (slice(2, 3), slice(None), slice(None)))
    assert "0 covered whole" in shown[0][1] and "4 in part" in shown[0][1]


def test_a_region_that_cannot_be_drawn_is_refused(shown, array):
    for years, rows, message in (
        (slice(0, 1), slice(10, 10), "without steps inside of"),
        (slice(0, 1), slice(0, 10, 2), "without steps inside of"),
        (slice(0, 2), slice(0, 10), "one chunk along all axes but the last two"),
    ):
        with pytest.raises(ValueError, match=message):
            drawings.show_region_write(array, (years, rows, slice(0, 10)))


def test_a_commit(shown, repo):
    drawings.show_commit(repo, "/lulc")
    texts, alt = shown[0]
    session = repo.readonly_session("main")
    kinds = Counter(
        str(session.chunk_type("/lulc", (year, row, col))).removeprefix("ChunkType.")
        for year in range(5)
        for row in range(4)
        for col in range(6)
    )
    assert f"{kinds['native']} as objects" in texts
    assert f"for 36 chunks: {kinds['native']} as objects, {kinds['inline']} in the manifest" in alt
    assert kinds["native"] + kinds["inline"] == 36
    assert "this commit wrote 12 chunks" in texts
    assert "tag v1" in texts
    ids = [snapshot.id for snapshot in repo.ancestry(branch="main")]
    assert len(ids) == 3
    assert all(name[:8] in texts for name in ids)
    assert not any(name[:8] in alt for name in ids)
    assert "newest of 3 snapshots" in alt


def test_manifests_that_stay_are_told_from_new_ones(shown):
    axis = icechunk.ManifestSplitDimCondition.Axis
    split = {icechunk.ManifestSplitCondition.name_matches("lulc"): {axis(0): 1}}
    splitting = icechunk.ManifestSplittingConfig.from_dict(split)
    config = icechunk.RepositoryConfig(manifest=icechunk.ManifestConfig(splitting=splitting))
    repo = icechunk.Repository.create(icechunk.in_memory_storage(), config)
    with repo.transaction("main", message="Four years") as store:
        zarr.open_group(store).create_array("lulc", **LAYOUT)[:4] = pixels(1, 4, 1000, 1300)
    with repo.transaction("main", message="The last") as store:
        zarr.open_array(store, path="lulc")[4] = pixels(2, 1000, 1300)
    drawings.show_commit(repo, "/lulc")
    texts, alt = shown[0]
    assert "names 5 manifests of /lulc, 4 from an earlier commit, for 120 chunks" in alt
    assert (
        texts.index("new in this commit") < texts.index("from an earlier commit") < texts.index("and 2 more of /lulc")
    )


def test_a_commit_without_the_arrays_chunks_is_refused(shown, repo):
    for path in ("/never", "lulc"):
        with pytest.raises(ValueError, match="found the arrays /lulc, /never; check the path, and commit"):
            drawings.show_commit(repo, path)
    empty = icechunk.Repository.create(icechunk.in_memory_storage())
    with pytest.raises(ValueError, match="commit something first"):
        drawings.show_commit(empty, "/lulc")


def test_forks(shown, repo):
    session = repo.writable_session("main")
    forks = [session.fork() for _ in range(5)]
    for number, fork in enumerate(forks):
        zarr.open_array(fork.store, path="lulc")[number, 500:, 250:1000] = pixels(number, 500, 750)
    session.merge(*forks)
    session.commit("Five forks")
    drawings.show_forks(repo, "/lulc", {f"part {number}": 2 * 3 for number in range(5)})
    texts, alt = shown[0]
    before, after = (repo.readonly_session(snapshot_id=s.id) for s in list(repo.ancestry(branch="main"))[1::-1])
    old, new = (zarr.open_array(s.store, path="lulc")[:] for s in (before, after))
    differ = (old != new).reshape(5, 4, 250, 1300).any(axis=2)
    changed = sum(differ[..., col : col + 250].any(axis=-1).sum() for col in range(0, 1300, 250))
    assert changed == 30
    assert f"session with\n{changed} chunks" in texts
    assert "fork 4: part 3\n6 chunks" in texts
    assert "and 1 more fork" in texts
    assert "5 forks that write at once (part 0, 6 chunks;" in alt
    assert before.snapshot_id[:8] in texts
    assert after.snapshot_id[:8] in texts


def test_forks_that_wrote_something_else_are_refused(shown, repo):
    for written in ({"a": 6, "b": 5}, {"a": 12, "b": 0}, {}):
        with pytest.raises(ValueError, match="wrote the 12 chunks of /lulc in the newest commit of main"):
            drawings.show_forks(repo, "/lulc", written)
    with pytest.raises(ValueError, match="wrote the 0 chunks of /never"):
        drawings.show_forks(repo, "/never", {"a": 1})
