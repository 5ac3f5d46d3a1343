"""Is this machine ready for the workshop? ``make doctor`` prints one line per check, and how to fix a failure.

It needs no network: the checks of outside services only report, and never fail.
"""

import json
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
DISK = 2e9  # bytes that lessons 07 and 08 write
SCRATCH = 0.2e9  # bytes of temporary files: a lesson writes up to 120 MB, and others may be open
MEMORY = 2.5e9  # bytes; a lesson's kernel stays below 2 GB


class NotReadyError(Exception):
    """A check failed; the message says what it found and what to do."""


def _expect(fine: bool, otherwise: str) -> None:
    if not fine:
        raise NotReadyError(otherwise)


def _python() -> str:
    found = platform.python_version()
    fine = (3, 12) <= sys.version_info[:2] <= (3, 13)
    _expect(fine, f"{found}, expected 3.12 or 3.13: run `make clean`, then `make lab`")
    return found


def _packages() -> str:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line.removesuffix("\\")) for line in lines if "==" in line and line[0] not in " #"]
    pins = [pin for pin in pins if not pin.marker or pin.marker.evaluate()]
    wrong = []
    for pin in pins:
        try:
            found = version(pin.name)
        except PackageNotFoundError:
            found = "nothing"
        if not pin.specifier.contains(found, prereleases=True):
            wrong.append(f"{pin.name} (expected {str(pin.specifier)[2:]}, found {found})")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    _expect(not wrong, f"{', '.join(wrong[:3])}{more}: run `make setup`, or update the conda environment")
    return f"{len(pins)} as in requirements.lock"


def _disk() -> str:
    free, scratch = (shutil.disk_usage(folder).free for folder in (ROOT, tempfile.gettempdir()))
    text = f"{free / 1e9:.1f} GB free"
    _expect(free > DISK, f"{text}, expected {DISK / 1e9:.0f}: free some space")
    text += f", {scratch / 1e9:.1f} GB for temporary files"
    _expect(scratch > SCRATCH, f"{text}, expected {SCRATCH / 1e9}: free some space, or set TMPDIR to a larger disk")
    return text


def _memory() -> str:
    free = psutil.virtual_memory().available
    text = f"{free / 1e9:.1f} GB free"
    _expect(free > MEMORY, f"{text}, expected {MEMORY / 1e9}: shut down other kernels and programs")
    return text


def _ports() -> str:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 2):
            return "127.0.0.1 accepts connections"
    except OSError as error:
        raise NotReadyError(f"127.0.0.1 does not answer ({error}): let Python through the firewall") from error


def _s3() -> str:
    from workshop import stores

    bucket, server = stores.counted_bucket()
    with server:
        client = bucket.client()
        client.put_object(Bucket=bucket.name, Key="doctor", Body=b"well")
        body = client.get_object(Bucket=bucket.name, Key="doctor")["Body"].read()
    _expect(body == b"well", f"returned {body!r}: run `make clean`, then `make lab`")
    return "starts, stores an object, and stops"


def _bucket() -> str:
    from workshop import stores

    if not os.environ.get(stores.BUCKET_SETTING):
        return f"the one on this machine, since {stores.BUCKET_SETTING} is not set"
    bucket = stores.open_bucket()
    bucket.icechunk("doctor")
    return f"s3://{bucket.name} stores objects, and commits are safe there"


def _tiles() -> str:
    from workshop import tiles

    total = 0
    for year in tiles.YEARS:
        path = tiles.tile_path(tiles.SAMPLE_TILE, year, tiles.DATA)
        tiles.check_tile(path, tiles.SAMPLE_TILE, year)
        total += Path(path).stat().st_size
    return f"{len(tiles.YEARS)} complete, {total / 1e6:.0f} MB"


def _maps() -> str:
    from jupyter_core.paths import jupyter_config_path

    enabled: dict[str, bool] = {}
    for folder in reversed(jupyter_config_path()):
        for path in sorted(Path(folder, "jupyter_server_config.d").glob("*.json")):
            enabled |= json.loads(path.read_text(encoding="utf-8")).get("ServerApp", {}).get("jpserver_extensions", {})
    known = enabled.get("localtileserver._jupyter", False)
    _expect(known, "the extension of localtileserver is not enabled: run `make clean`, then `make lab`")
    return "JupyterLab forwards map tiles"


def _reach(url: str) -> str:
    from workshop import servers

    return "reachable" if servers.answers(url) else "not reachable, and not needed by any lesson"


def _glad() -> str:
    from workshop import tiles

    return _reach(f"{tiles.GLAD_URL}/2020/{tiles.SAMPLE_TILE}.tif")


def _real_s3() -> str:
    return _reach("https://s3.amazonaws.com")


CHECKS: dict[str, Callable[[], str]] = {  # each returns what it found
    "Python": _python,
    "packages": _packages,
    "disk": _disk,
    "memory": _memory,
    "ports": _ports,
    "S3 API on this machine": _s3,
    "bucket": _bucket,
    "sample tiles": _tiles,
    "web maps": _maps,
    "GLAD's real tiles": _glad,
    "real S3": _real_s3,
}


def check_machine() -> int:
    """Print one line per check: ``PASS``, ``FAIL``, or ``note`` for outside services. Return how many failed."""
    failed = 0
    for name, check in CHECKS.items():
        try:
            status, text = "note" if check in (_glad, _real_s3) else "PASS", check()
        except Exception as error:  # a broken machine can raise any error
            status, text = "FAIL", str(error).strip() or type(error).__name__
            failed += 1
        print(f"{status}  {name}: {text}", flush=True)
    print("ready" if not failed else f"{failed} to fix; the lines above say how")
    return failed


if __name__ == "__main__":
    sys.exit(bool(check_machine()))
