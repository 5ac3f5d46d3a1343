"""The doctor: a healthy machine passes, and each illness is named with its mend."""

import re
import shutil
import socket
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest

from workshop import doctor, tiles

FACTS = ("Python", "packages", "disk", "memory", "ports", "S3 API on this machine", "sample tiles", "web maps")


def test_this_machine_is_ready():
    done = subprocess.run([sys.executable, "-m", "workshop.doctor"], capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert [re.match(r"(PASS|note)  (.+?): .", line)[2] for line in lines[:-1]] == list(doctor.CHECKS), done.stdout
    # the suite is cut off from the network, which is fine
    assert [line[:4] for line in lines[:-1]] == ["PASS"] * len(FACTS) + ["note"] * 2
    assert lines[-1] == "ready"
    assert (done.returncode, done.stderr) == (0, "")


def fail(name, monkeypatch, **changes):
    for target, value in changes.items():
        monkeypatch.setattr(doctor, target, value)
    finding = dict(doctor.examine())[name]
    assert finding.status == doctor.FAIL
    return finding.text


@pytest.fixture
def only(monkeypatch):
    """Return a function that leaves one check."""

    def leave(name):
        monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name]})

    return leave


def test_another_python(only, monkeypatch):
    only("Python")
    other = SimpleNamespace(version_info=(3, 11, 7))
    assert "expected 3.12 or 3.13" in fail("Python", monkeypatch, sys=other)


def test_packages_that_are_not_those_of_the_lock(only, monkeypatch, tmp_path):
    only("packages")
    lock = (doctor.ROOT / "requirements.lock").read_text(encoding="utf-8")
    lock = re.sub(r"^xarray==\S+", "xarray==1999.1.0", lock, flags=re.MULTILINE)
    (tmp_path / "requirements.lock").write_text(f"{lock}\nno-such-package==1.0 \\\n    --hash=sha256:00\n")
    text = fail("packages", monkeypatch, ROOT=tmp_path)
    assert re.search(
        r"xarray \(expected 1999.1.0, found 20[\d.]+\), no-such-package \(expected 1.0, found nothing\)", text
    )
    assert "make setup" in text


def test_no_room(only, monkeypatch):
    only("disk")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    assert "1.0 GB free, expected 2: make room" in fail("disk", monkeypatch)
    small = {doctor.ROOT: 9e9, tempfile.gettempdir(): 1e8}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=small[folder]))
    assert "0.1 GB for temporary files, expected 0.2: make room, or set TMPDIR" in fail("disk", monkeypatch)
    monkeypatch.undo()
    only("memory")
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=1e9))
    assert "1.0 GB free, expected 2.5: shut down" in fail("memory", monkeypatch)


def test_a_firewall_on_loopback(only, monkeypatch):
    only("ports")

    def refuse(*_):
        raise PermissionError("not permitted")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert "firewall" in fail("ports", monkeypatch)


def test_tiles_that_are_missing_or_cut(only, monkeypatch, tmp_path):
    only("sample tiles")
    monkeypatch.setattr(tiles, "DATA", tmp_path)
    assert "python -m workshop.sample" in fail("sample tiles", monkeypatch)
    (tmp_path / "2000").mkdir()
    whole = (doctor.ROOT / "data" / "2000" / f"{tiles.SAMPLE_TILE}.tif").read_bytes()
    (tmp_path / "2000" / f"{tiles.SAMPLE_TILE}.tif").write_bytes(whole[:-1000])
    assert "truncated" in fail("sample tiles", monkeypatch)


def test_a_server_that_does_not_start(only, monkeypatch):
    only("S3 API on this machine")
    monkeypatch.setattr(sys, "executable", shutil.which("false") or "false")
    assert "did not start" in fail("S3 API on this machine", monkeypatch)


def test_a_jupyter_without_the_bridge(only, monkeypatch, tmp_path):
    only("web maps")
    monkeypatch.setattr("jupyter_core.paths.jupyter_config_path", lambda: [str(tmp_path)])
    assert "localtileserver" in fail("web maps", monkeypatch)


def test_what_is_reachable_is_said(only, monkeypatch):
    only("real S3")
    assert dict(doctor.examine())["real S3"].text == "not reachable; no lesson needs it"
    monkeypatch.setattr(doctor, "_answers", lambda _: True)
    assert dict(doctor.examine())["real S3"] == (doctor.NOTE, "reachable")
