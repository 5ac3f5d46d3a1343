"""The notebooks as files, and that they need no network."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from attempts import tagged
from conftest import NOTEBOOKS, SOLUTIONS, cells
from nbformat.v4 import new_output

from tools import copies, minutes, render

ALL = NOTEBOOKS + SOLUTIONS
MACHINE_PATH = re.compile(r"(?<![\w.])(/(root|home|Users|tmp|work|var|private)/[\w.-]+|[A-Z]:\\\\)")


def notebook_id(path):
    return f"{path.parent.name}/{path.stem}"


every_notebook = pytest.mark.parametrize("path", ALL, ids=notebook_id)
every_lesson = pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)


@every_notebook
def test_outputs_are_stored_whole_and_hold_nothing_of_the_machine(path):
    assert path.stat().st_size < 1_000_000
    code = cells(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run `make render`"
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source
            found = MACHINE_PATH.search(json.dumps(output))
            assert not found, f"{found.group()} in the output of:\n{cell.source}"
            data = output.get("data", {})
            assert "image/png" in data or not data.get("text/plain", "").startswith("<Figure"), cell.source


def test_at_least_four_fifths_of_the_printing_cells_are_compared():
    printing = compared = 0
    for path in ALL:
        for cell in cells(path):
            texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.get("outputs", [])]
            only_figure = all(text.startswith("<Figure") for text in texts)
            ignored = {"nbval-ignore-output", "nbval-skip"} & set(cell.metadata.get("tags", []))
            printing += bool(texts)
            compared += not only_figure and not ignored
    assert compared / printing >= 0.8


@pytest.mark.parametrize("path", SOLUTIONS, ids=notebook_id)
def test_every_answer_is_stored_with_its_verdict(path):
    """`make test` runs the answers in their lessons, `make soak` these notebooks themselves."""
    names = list(tagged(path, "solution-"))
    shown = "\n".join(o.get("data", {}).get("text/plain", "") for cell in cells(path, "code") for o in cell.outputs)
    assert names and re.findall(r"^[✓✗○] .*?\.", shown, flags=re.MULTILINE) == [f"✓ {n}: right." for n in names]


@every_lesson
def test_a_lesson_has_its_parts(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    first = cells(path)[0].source
    assert re.match(r"# [A-Z]\w+ ", first)
    for part in ("**What you'll do.**", "**What you'll learn**", "**What you'll need.**", "**Time.**", "synthetic"):
        assert part in first, part
    for part in ("## In practice", "## What you did", "## On your own", "## Further reading", "**Next:**"):
        assert part in text, part
    code = cells(path, "code")
    assert "import" in code[0].source, "imports first"
    # test_site.py sees that every picture has alt text; every interactive view has a static picture beside it
    if any("nbval-ignore-output" in cell.metadata.get("tags", []) for cell in code):
        assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


@every_lesson
def test_the_minutes_are_those_of_the_model(path):
    notebook = nbformat.read(path, as_version=4)
    stated = int(re.search(r"(\d+) minutes .* \d+ for the exercises", notebook.cells[0].source)[1])
    core = minutes.core(notebook)
    assert abs(minutes.minutes(core) - stated) <= 0.15 * stated, core
    assert core["lines"] <= 6 * stated, core
    assert core["predictions"] >= 2, core


@every_lesson
def test_a_prediction_has_options_before_the_next_cell(path):
    for cell in cells(path):
        for part in cell.source.split("**Predict.**")[1:] if cell.cell_type == "markdown" else ():
            assert re.match(r" [^\n]+\?\n\n- \*\*a\)\*\* .+\n- \*\*b\)\*\* .+", part), part
        assert cell.cell_type == "code" or "**Predict" not in cell.source.replace("**Predict.**", "")


@every_notebook
def test_folded_code_is_folded_in_jupyterlab_and_on_the_site(path):
    for cell in cells(path):
        tags = cell.metadata.get("tags", [])
        assert minutes.is_folded(cell) == ("hide-input" in tags), cell.source


def test_rendering_keeps_what_a_page_without_a_kernel_can_show():
    picture = {"image/png": "iVBO", "text/plain": "<Figure size 640x480 with 1 Axes>"}
    plot = {"application/javascript": "draw()", "text/plain": ":Image   [x,y]"}
    page = {"text/html": "<iframe>", "text/plain": "<IPython.lib.display.IFrame at 0x7f00>"}
    named_by_address = {"text/html": "<b>", "text/plain": "<Thing object at 0x7f00>"}
    script = {"text/html": "<script>"}
    outputs = [new_output("display_data", data) for data in (picture, plot, page, named_by_address, script)]
    kept = render.static_outputs([new_output("stream", text="a line"), *outputs])
    assert kept[0].text == "a line"
    plain = [{"text/plain": ":Image   [x,y]"}, {"text/plain": "IFrame()"}]
    assert [output.data for output in kept[1:]] == [picture, *plain]


def test_copies_have_no_outputs_are_never_overwritten_and_never_lost(tmp_path):
    (tmp_path / "notebooks").mkdir()
    original = tmp_path / "notebooks" / NOTEBOOKS[0].name
    shutil.copy(NOTEBOOKS[0], original)
    assert copies.main(tmp_path) == "The notebooks to work in are in work/."
    copied = tmp_path / "work" / original.name
    mine = nbformat.read(copied, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in mine.cells)
    assert [cell.source for cell in mine.cells] == [cell.source for cell in nbformat.read(original, as_version=4).cells]
    mine.cells[1].source = "mine = 1"
    nbformat.write(mine, copied)
    (tmp_path / "work" / "progress.jsonl").write_text("tried\n")
    assert "has changed" not in copies.main(tmp_path)
    assert nbformat.read(copied, as_version=4).cells[1].source == "mine = 1"
    theirs = nbformat.read(original, as_version=4)
    theirs.cells[1].source = "theirs = 1"
    nbformat.write(theirs, original)
    assert f"changed since your copy was made: {original.name}." in copies.main(tmp_path)
    assert nbformat.read(copied, as_version=4).cells[1].source == "mine = 1"
    said = copies.main(tmp_path, fresh=True)
    (aside,) = tmp_path.glob("work-*")
    assert f"Your earlier copies are in {aside.name}/." in said
    assert nbformat.read(aside / original.name, as_version=4).cells[1].source == "mine = 1"
    assert nbformat.read(copied, as_version=4).cells[1].source == "theirs = 1"
    assert (tmp_path / "work" / "progress.jsonl").read_text() == "tried\n"


@pytest.mark.skipif("OFFLINE_BY" not in os.environ, reason="only `make test` cuts the suite off from the network")
def test_this_suite_can_reach_nothing_but_loopback():
    """Each notebook that nbval runs, and each other test here, therefore proves that it needs no network."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=300)
    assert PROVED in done.stdout, done.stderr


PROBE = """
import http.server, os, socket, threading, urllib.request

def tries():
    for address in [("192.0.2.1", 80), ("8.8.8.8", 53)]:
        yield lambda a=address: socket.create_connection(a, timeout=5)
        yield lambda a=address: socket.socket().connect_ex(a) and (_ for _ in ()).throw(OSError("refused"))
        yield lambda a=address: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", a)

for attempt in tries():
    try:
        attempt()
    except OSError:
        continue
    raise SystemExit("reached another host")
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/").read()
print("loopback answers, the rest does not, for user", getattr(os, "getuid", int)())
"""
PROVED = f"loopback answers, the rest does not, for user {getattr(os, 'getuid', int)()}"


@pytest.mark.parametrize("by_guard", ["", "1"], ids=["as this machine can", "by guard"])
def test_the_block_blocks(by_guard):
    command = [sys.executable, str(Path(__file__).parent / "offline.py"), sys.executable, "-c", PROBE]
    env = os.environ | {"OFFLINE_BY_GUARD": by_guard}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert PROVED in done.stdout, done.stderr
