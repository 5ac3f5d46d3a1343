"""The doctor: a healthy machine passes, and each fault is reported with advice."""

import re
import shutil
import subprocess
import sys
import tempfile
from types import SimpleNamespace
from unittest.mock import Mock

import boto3
import pytest

from workshop import doctor, servers, stores, tiles

CHECKS = doctor.CHECKS


def test_this_machine_is_ready():
    done = subprocess.run([sys.executable, "-m", "workshop.doctor"], capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert [re.match(r"(PASS|note)  (.+?): .", line)[2] for line in lines[:-1]] == list(doctor.CHECKS), done.stdout
    # the suite is cut off from the network, which is fine
    assert [line[:4] for line in lines[:-1]] == ["PASS"] * 9 + ["note"] * 2
    assert lines[-1] == "ready"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def says(monkeypatch, capsys):
    """Return a function that runs one check and returns its line."""

    def say(name):
        monkeypatch.setattr(doctor, "CHECKS", {name: CHECKS[name]})
        failed = doctor.check_machine()
        line, last = capsys.readouterr().out.splitlines()
        assert last == ("1 to fix; the lines above say how" if failed else "ready")
        assert line.startswith("FAIL") == failed
        return line

    return say


@pytest.mark.parametrize(
    ("name", "target", "value", "text"),
    [
        (
            "Python",
            "workshop.doctor.sys",
            SimpleNamespace(version_info=(3, 11, 7)),
            ".*, expected 3.12 or 3.13: run `make",
        ),
        ("disk", "shutil.disk_usage", lambda _: SimpleNamespace(free=1e9), "1.0 GB free, expected 2: free some space"),
        ("memory", "psutil.virtual_memory", lambda: SimpleNamespace(available=1e9), ".* expected 2.5: shut down"),
        ("ports", "socket.create_server", Mock(side_effect=PermissionError), "127.0.0.1 does not answer .*firewall"),
        ("S3 API on this machine", "sys.executable", shutil.which("false") or "false", ".* did not start"),
        ("web maps", "jupyter_core.paths.jupyter_config_path", list, ".* localtileserver"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(says, monkeypatch, name, target, value, text):
    monkeypatch.setattr(target, value)
    assert re.match(f"FAIL  {name}: {text}", says(name))


def test_packages_that_are_not_those_of_the_lock(says, monkeypatch, tmp_path):
    lock = (doctor.ROOT / "requirements.lock").read_text(encoding="utf-8")
    lock = re.sub(r"^xarray==\S+", "xarray==1999.1.0", lock, flags=re.MULTILINE)
    (tmp_path / "requirements.lock").write_text(f"{lock}\nno-such-package==1.0 \\\n    --hash=sha256:00\n")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    wrong = r"xarray \(expected 1999.1.0, found 20[\d.]+\), no-such-package \(.* 1.0, found nothing\): run"
    assert re.match(f"FAIL  packages: {wrong}", says("packages"))


def test_no_room_for_temporary_files(says, monkeypatch):
    free = {doctor.ROOT: 9e9, tempfile.gettempdir(): 1e8}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[folder]))
    assert "0.1 GB for temporary files, expected 0.2: free some space, or set TMPDIR" in says("disk")


def test_tiles_that_are_missing_or_cut(says, monkeypatch, tmp_path):
    monkeypatch.setattr(tiles, "DATA", tmp_path)
    assert "python -m workshop.sample" in says("sample tiles")
    (tmp_path / "2000").mkdir()
    whole = (doctor.ROOT / "data" / "2000" / f"{tiles.SAMPLE_TILE}.tif").read_bytes()
    (tmp_path / "2000" / f"{tiles.SAMPLE_TILE}.tif").write_bytes(whole[:-1000])
    assert "truncated" in says("sample tiles")


@pytest.mark.parametrize("name", list(CHECKS)[-2:])
def test_what_is_reachable_is_said(says, monkeypatch, name):
    for there, text in ((True, "reachable"), (False, "not reachable, and not needed")):
        monkeypatch.setattr(servers, "answers", lambda _, there=there: there)
        assert says(name).startswith(f"note  {name}: {text}")


def test_a_bucket_of_ones_own(says, monkeypatch, no_settings):
    assert says("bucket") == "PASS  bucket: the one on this machine, since GLAD_BUCKET is not set"
    with servers.serve_s3() as server:
        for name, value in {"ENDPOINT_URL": server.url, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("GLAD_BUCKET", "s3://mine")
        assert says("bucket").startswith("FAIL  bucket: s3://mine: the bucket cannot be used (")
        boto3.client("s3").create_bucket(Bucket="mine")
        assert says("bucket") == "PASS  bucket: s3://mine stores objects, and commits are safe there"
        monkeypatch.setattr(stores, "_UNSAFE", {(server.url, "mine", ""): "ignores If-Match"})
        assert re.match("FAIL  bucket: s3://mine: .* the service ignores If-Match.*unset GLAD_BUCKET", says("bucket"))
