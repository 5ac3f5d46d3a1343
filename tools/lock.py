"""Resolve the dependencies of pyproject.toml again: writes requirements.lock and environment.yml (``make lock``).

``tests/test_project.py`` uses the functions to tell whether either file is stale.
"""

import hashlib
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
ENVIRONMENT = ROOT / "environment.yml"


PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def header() -> str:
    """Return the first lines of requirements.lock, with a digest of everything in pyproject.toml that it depends on."""
    inputs = [PROJECT["dependencies"], PROJECT["requires-python"], PYPROJECT["tool"]["uv"]["exclude-dependencies"]]
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    return f"# Written by `make lock` from pyproject.toml; do not edit.\n# dependencies: sha256:{digest}\n"


def environment(lock: str) -> str:
    """Return environment.yml: conda brings Python, pip the versions of the lock and this project."""
    pins = re.findall(r"^([\w.-]+==[^\\\n]*?) *\\?$", lock, flags=re.MULTILINE)
    lines = [
        "# Written by `make lock` from pyproject.toml and requirements.lock; do not edit.",
        "name: glad-datacube-workshop",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        f'  - "python {PROJECT["requires-python"]}"',
        "  - pip",
        "  - pip:",
        *(f"      - {json.dumps(pin)}" for pin in pins),
        '      - "--editable ."',
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both files."""
    uv = os.environ.get("UV", "uv")  # set by `uv run`
    command = [uv, "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.12"]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "pyproject.toml"]
    lock = header() + subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    LOCK.write_text(lock)
    ENVIRONMENT.write_text(environment(lock))


if __name__ == "__main__":
    main()
