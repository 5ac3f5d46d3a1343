"""The doctor: a healthy machine passes, and each illness is named with what to do."""

import re
import shutil
import socket
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest

from workshop import doctor, servers, tiles

CHECKS = doctor.CHECKS
FACTS = ("Python", "packages", "disk", "memory", "ports", "S3 API on this machine", "sample tiles", "web maps")


def test_this_machine_is_ready():
    done = subprocess.run([sys.executable, "-m", "workshop.doctor"], capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert [re.match(r"(PASS|note)  (.+?): .", line)[2] for line in lines[:-1]] == list(doctor.CHECKS), done.stdout
    # the suite is cut off from the network, which is fine
    assert [line[:4] for line in lines[:-1]] == ["PASS"] * len(FACTS) + ["note"] * 2
    assert lines[-1] == "ready"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def failure(monkeypatch):
    """Return a function that runs one check, after changes to the module, and returns what it says is wrong."""

    def fail(name, **changes):
        for target, value in changes.items():
            monkeypatch.setattr(doctor, target, value)
        monkeypatch.setattr(doctor, "CHECKS", {name: CHECKS[name]})
        ((_, finding),) = doctor.examine()
        assert finding.status == doctor.FAIL
        return finding.text

    return fail


def test_another_python(failure):
    assert "expected 3.12 or 3.13" in failure("Python", sys=SimpleNamespace(version_info=(3, 11, 7)))


def test_packages_that_are_not_those_of_the_lock(failure, tmp_path):
    lock = (doctor.ROOT / "requirements.lock").read_text(encoding="utf-8")
    lock = re.sub(r"^xarray==\S+", "xarray==1999.1.0", lock, flags=re.MULTILINE)
    (tmp_path / "requirements.lock").write_text(f"{lock}\nno-such-package==1.0 \\\n    --hash=sha256:00\n")
    text = failure("packages", ROOT=tmp_path)
    assert re.match(
        r"xarray \(expected 1999.1.0, found 20[\d.]+\), no-such-package \(.* 1.0, found nothing\): run", text
    )


def test_no_room(failure, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    assert "1.0 GB free, expected 2: make room" in failure("disk")
    free = {doctor.ROOT: 9e9, tempfile.gettempdir(): 1e8}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[folder]))
    assert "0.1 GB for temporary files, expected 0.2: make room, or set TMPDIR" in failure("disk")
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=1e9))
    assert "1.0 GB free, expected 2.5: shut down" in failure("memory")


def test_a_firewall_on_loopback(failure, monkeypatch):
    def refuse(*_):
        raise PermissionError("not permitted")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert "firewall" in failure("ports")


def test_tiles_that_are_missing_or_cut(failure, monkeypatch, tmp_path):
    monkeypatch.setattr(tiles, "DATA", tmp_path)
    assert "python -m workshop.sample" in failure("sample tiles")
    (tmp_path / "2000").mkdir()
    whole = (doctor.ROOT / "data" / "2000" / f"{tiles.SAMPLE_TILE}.tif").read_bytes()
    (tmp_path / "2000" / f"{tiles.SAMPLE_TILE}.tif").write_bytes(whole[:-1000])
    assert "truncated" in failure("sample tiles")


def test_a_server_that_does_not_start(failure, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false") or "false")
    assert "did not start" in failure("S3 API on this machine")


def test_a_jupyter_without_the_bridge(failure, monkeypatch, tmp_path):
    monkeypatch.setattr("jupyter_core.paths.jupyter_config_path", lambda: [str(tmp_path)])
    assert "localtileserver" in failure("web maps")


@pytest.mark.parametrize("name", list(CHECKS)[-2:])
def test_what_is_reachable_is_said(monkeypatch, name):
    for there, text in ((True, "reachable"), (False, "not reachable; no lesson needs ")):
        monkeypatch.setattr(servers, "answers", lambda url, seconds, there=there: there)
        finding = CHECKS[name]()
        assert finding.status == doctor.NOTE
        assert finding.text.startswith(text)
