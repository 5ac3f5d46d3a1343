"""Run a case in its own process, which separates its wall time, CPU time and peak memory, and starts with cold caches.

A case is a function ``case(clock, folder, **parameters)``. It prepares, works inside ``with clock:``, checks the result
outside it, and returns other results as a dictionary for JSON.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, Self

ROOT = Path(__file__).parent.parent


class Clock:
    """Adds up the wall and CPU seconds of its ``with`` blocks, and stores the peak memory at the end of the last."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.peak = 0

    def __enter__(self) -> Self:
        self._began = time.perf_counter(), self._cpu()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += self._cpu() - self._began[1]
        self.peak = peak_memory()

    @staticmethod
    def _cpu() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system


def peak_memory() -> int:
    """Return the peak memory in bytes of this process or of a child that it waited for, whichever is larger."""
    import resource

    # getrusage of this process would start with the memory of the parent that it was forked from
    status = Path("/proc/self/status")
    unit = 1 if sys.platform == "darwin" else 1024
    if status.is_file():
        own = int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    else:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)


def run(case: str, folder: Path, **parameters: Any) -> dict[str, Any]:
    """Run ``module:function`` of this package once, in a new process.

    Returns
    -------
    dict
        ``wall`` and ``cpu`` in seconds, ``peak`` in bytes, ``process`` (seconds from start to end of the process), and
        the results of the case.
    """
    command = [sys.executable, "-m", "benchmarks.measure", case, str(folder), json.dumps(parameters)]
    began = time.perf_counter()
    # GDAL's default: with the workshop's smaller cache, squares would be decoded more often. ``ours`` sets its own.
    env = os.environ | ({} if case == "tile:ours" else {"GDAL_CACHEMAX": "5%"})
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    whole = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{case} {parameters} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"process": whole}


def call(case: str, folder: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run ``module:function`` of this package in this process; return the same as :func:`run`, except ``process``."""
    module, function = case.split(":")
    clock = Clock()
    more = getattr(importlib.import_module(f"benchmarks.{module}"), function)(clock, folder, **parameters)
    return {"wall": clock.wall, "cpu": clock.cpu, "peak": clock.peak} | (more or {})


def spread(values: list[float], digits: int = 2) -> str:
    """Return the median, with the minimum and the maximum in brackets."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


if __name__ == "__main__":
    case, folder, parameters = sys.argv[1:]
    print(json.dumps(call(case, Path(folder), json.loads(parameters))))
