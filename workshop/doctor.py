"""Is this machine ready for the workshop? ``make doctor`` prints a line for each check, with what to do where it fails.

Nothing here needs a network: what lies outside is looked for, and reported as not needed.
"""

import json
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PASS, FAIL, NOTE = "PASS", "FAIL", "note"
DISK = 2e9  # bytes: what lessons 07 and 08 write
SCRATCH = 0.2e9  # bytes: temporary files of a lesson, up to 120 MB, and of its neighbors
MEMORY = 2.5e9  # bytes: a lesson's kernel stays below 2 GB
PATIENCE = 3  # seconds for what lies in the network


class Finding(NamedTuple):
    """What a check found: ``PASS``, ``FAIL``, or ``note`` where either is fine; and a text, which says what to do."""

    status: str
    text: str


def _judge(fine: bool, found: str, advice: str) -> Finding:
    return Finding(PASS, found) if fine else Finding(FAIL, f"{found}, {advice}")


def _python() -> Finding:
    fine = (3, 12) <= sys.version_info[:2] <= (3, 13)
    return _judge(fine, platform.python_version(), "expected 3.12 or 3.13: `make clean`, then `make lab`")


def _packages() -> Finding:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line.removesuffix("\\")) for line in lines if "==" in line and line[0] not in " #"]
    pins = [pin for pin in pins if not pin.marker or pin.marker.evaluate()]
    wrong = []
    for pin in pins:
        try:
            found = version(pin.name)
        except PackageNotFoundError:
            found = "nothing"
        if found == "nothing" or not pin.specifier.contains(found, prereleases=True):
            wrong.append(f"{pin.name} (expected {str(pin.specifier)[2:]}, found {found})")
    if not wrong:
        return Finding(PASS, f"{len(pins)} as in requirements.lock")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return Finding(FAIL, f"{', '.join(wrong[:3])}{more}: run `make setup`, or renew the conda environment")


def _disk() -> Finding:
    free = shutil.disk_usage(ROOT).free
    text = f"{free / 1e9:.1f} GB free"
    if free <= DISK:
        return Finding(FAIL, f"{text}, expected {DISK / 1e9:.0f}: make room")
    scratch = shutil.disk_usage(tempfile.gettempdir()).free
    advice = f"expected {SCRATCH / 1e9}: make room, or set TMPDIR to a folder that has it"
    return _judge(scratch > SCRATCH, f"{text}, {scratch / 1e9:.1f} GB for temporary files", advice)


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    advice = f"expected {MEMORY / 1e9}: shut down other kernels and programs"
    return _judge(free > MEMORY, f"{free / 1e9:.1f} GB free", advice)


def _ports() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 2):
            return Finding(PASS, "127.0.0.1 listens and answers")
    except OSError as error:
        return Finding(FAIL, f"127.0.0.1 does not answer ({error}): let Python through the firewall on this machine")


def _s3() -> Finding:
    from workshop import stores

    bucket, server = stores.counted_bucket()
    with server:
        client = bucket.client()
        client.put_object(Bucket=bucket.name, Key="doctor", Body=b"well")
        body = client.get_object(Bucket=bucket.name, Key="doctor")["Body"].read()
    if body == b"well":
        return Finding(PASS, "starts, keeps an object, stops")
    return Finding(FAIL, f"gave back {body!r}: run `make clean`, then `make lab`")


def _tiles() -> Finding:
    from workshop import sample, tiles

    total = 0
    for year in tiles.YEARS:
        path = tiles.tile_path(sample.SAMPLE_TILE, year, tiles.DATA)
        tiles.check_tile(path, sample.SAMPLE_TILE, year)
        total += Path(path).stat().st_size
    return Finding(PASS, f"{len(tiles.YEARS)} whole, {total / 1e6:.0f} MB")


def _maps() -> Finding:
    from jupyter_core.paths import jupyter_config_path

    enabled: dict[str, bool] = {}
    for folder in reversed(jupyter_config_path()):
        for path in sorted(Path(folder, "jupyter_server_config.d").glob("*.json")):
            enabled |= json.loads(path.read_text(encoding="utf-8")).get("ServerApp", {}).get("jpserver_extensions", {})
    if enabled.get("localtileserver._jupyter"):
        return Finding(PASS, "JupyterLab hands on the pictures of web maps")
    return Finding(FAIL, "JupyterLab does not know localtileserver's extension: run `make clean`, then `make lab`")


def _glad() -> Finding:
    from workshop import servers, tiles

    there = servers.answers(f"{tiles.GLAD_URL}/2020/{tiles.SAMPLE_TILE}.tif", PATIENCE)
    return Finding(NOTE, "reachable" if there else "not reachable; no lesson needs them")


def _real_s3() -> Finding:
    from workshop import servers

    there = servers.answers("https://s3.amazonaws.com", PATIENCE)
    return Finding(NOTE, "reachable" if there else "not reachable; no lesson needs it")


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": _python,
    "packages": _packages,
    "disk": _disk,
    "memory": _memory,
    "ports": _ports,
    "S3 API on this machine": _s3,
    "sample tiles": _tiles,
    "web maps": _maps,
    "GLAD's real tiles": _glad,
    "real S3": _real_s3,
}


def examine() -> Iterator[tuple[str, Finding]]:
    """Yield the name and the finding of each check, in order; a check that breaks has failed."""
    for name, check in CHECKS.items():
        try:
            yield name, check()
        except Exception as error:  # whatever a broken machine comes up with
            yield name, Finding(FAIL, str(error).strip() or type(error).__name__)


def check_machine() -> int:
    """Print all findings; return how many checks failed."""
    failed = 0
    for name, (status, text) in examine():
        failed += status == FAIL
        print(f"{status}  {name}: {text}", flush=True)
    print("ready" if not failed else f"{failed} to fix; the lines above say how")
    return failed


if __name__ == "__main__":
    sys.exit(bool(check_machine()))
