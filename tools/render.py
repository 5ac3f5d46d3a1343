"""Execute notebooks and store their outputs: ``python tools/render.py [NOTEBOOK ...]``, all of them by default.

Outputs that need a live kernel (widgets, interactive plots) are replaced by their text.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
# Interactive plots carry megabytes of JavaScript; widgets need their kernel.
LIVE_ONLY = {
    "application/vnd.holoviews_load.v0+json",
    "application/vnd.holoviews_exec.v0+json",
    "application/vnd.jupyter.widget-view+json",
    "application/javascript",
}


def static_outputs(outputs: list) -> list:
    """Return the outputs that a page without a kernel can show."""
    kept = []
    for output in outputs:
        if "data" in output:
            text = output.data.get("text/plain", "")
            if text.startswith("<IPython.lib.display.IFrame"):
                output.data = {"text/plain": "IFrame()"}  # its server is gone by now
            elif not text or " object at 0x" in text:
                continue
            elif LIVE_ONLY & set(output.data):
                output.data = {"text/plain": text}
        kept.append(output)
    return kept


def render(path: Path, *, timed: bool = False) -> float:
    """Execute a notebook in its own folder, write it back with its outputs, and return the seconds that its cells took.

    If ``timed``, the seconds are stored, unless they are within a third of the stored ones.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
    )
    begin = time.perf_counter()
    client.execute()
    took = time.perf_counter() - begin
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = static_outputs(cell.outputs)
    # A lesson should not contain the interpreter's version or a machine's kernel name.
    seconds = notebook.metadata.get("kernel_seconds", 0)
    if timed and not 0.67 < took / max(seconds, 1) < 1.33:
        seconds = round(took)
    notebook.metadata = {
        "kernel_seconds": seconds,
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)
    return took


if __name__ == "__main__":
    paths = [Path(arg) for arg in sys.argv[1:]] or sorted(ROOT.glob("notebooks/*.ipynb")) + sorted(
        ROOT.glob("solutions/*.ipynb")
    )
    # nbclient kills its kernels, which then leave their scratch folders behind
    with tempfile.TemporaryDirectory() as os.environ["TMPDIR"]:
        for path in paths:
            took = render(path, timed=not sys.argv[1:])  # authors run several at once, which takes longer
            print(f"{path.resolve().relative_to(ROOT)}  {took:.0f} s", flush=True)
