"""Buckets and loopback servers: the same objects for every library, clear errors, and no server left behind."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import boto3
import icechunk
import numpy as np
import obstore
import pytest
import xarray as xr
import zarr
from botocore.exceptions import ClientError
from icechunk.xarray import to_icechunk
from moto.s3.models import S3Backend
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

import workshop
from workshop import repository, servers, stores, tiles, virtual


@pytest.fixture(scope="module")
def s3():
    with servers.serve_s3() as server:
        yield server


@pytest.fixture
def real_bucket(monkeypatch, no_settings, s3):
    """Set the variables that a learner with a bucket would set: one setting and the usual AWS variables."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("GLAD_BUCKET", "s3://mine//a//folder/")
    boto3.client("s3").create_bucket(Bucket="mine")


def use_every_way_in(bucket):
    data = xr.Dataset({"a": (("y", "x"), np.arange(12, dtype="uint8").reshape(3, 4))})
    data.to_zarr(bucket.zarr("some/cube.zarr"), consolidated=False)
    xr.testing.assert_identical(xr.open_zarr(bucket.zarr("some/cube.zarr"), consolidated=False).load(), data)

    client = bucket.client()
    keys = {o["Key"] for o in client.list_objects_v2(Bucket=bucket.name, Prefix=bucket.prefix)["Contents"]}
    assert f"{bucket.prefix}/some/cube.zarr/a/c/0/0" in keys
    body = client.get_object(Bucket=bucket.name, Key=f"{bucket.prefix}/some/cube.zarr/zarr.json")["Body"].read()
    assert bytes(obstore.get(bucket.obstore("some/cube.zarr"), "zarr.json").bytes()) == body

    repo = icechunk.Repository.create(bucket.icechunk("repo"))
    session = repo.writable_session("main")
    to_icechunk(data, session)
    snapshot = session.commit("first")
    again = icechunk.Repository.open(bucket.icechunk("repo")).readonly_session(snapshot_id=snapshot)
    xr.testing.assert_identical(xr.open_zarr(again.store, consolidated=False).load(), data)


def test_one_local_bucket_serves_zarr_boto3_obstore_and_icechunk(no_settings):
    bucket = stores.open_bucket()
    assert bucket.endpoint_url.startswith("http://127.0.0.1:")
    use_every_way_in(bucket)
    again = stores.open_bucket()
    assert again.endpoint_url == bucket.endpoint_url and again.prefix != bucket.prefix  # learners do not meet


@pytest.mark.parametrize("where", ["variable", "profile"])
def test_another_bucket_by_one_setting_and_the_usual_ones(monkeypatch, real_bucket, tmp_path, s3, where):
    if where == "profile":
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        (tmp_path / "config").write_text(f"[profile lab]\nendpoint_url = {s3.url}\nregion = us-east-1\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "lab")
    bucket = stores.open_bucket()
    assert (bucket.name, bucket.endpoint_url) == ("mine", s3.url)
    assert bucket.prefix.startswith("a/folder/learner-")
    assert "secret" not in repr(bucket)
    use_every_way_in(bucket)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no AWS credentials found; set AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "the bucket cannot be used"),
        ({"AWS_ENDPOINT_URL": "localhost:9000"}, "localhost:9000"),
        ({"GLAD_BUCKET": "s3://missing"}, "s3://missing: the bucket cannot be used"),
        ({"GLAD_BUCKET": "gs://mine"}, "expected a bucket like s3://name"),
        ({"GLAD_BUCKET": "s3://Mine"}, "expected a bucket like s3://name"),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_settings_is_named(monkeypatch, real_bucket, tmp_path, settings, message):
    elsewhere = {"AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_CONFIG_FILE": "none", "AWS_EC2_METADATA_DISABLED": "true"}
    monkeypatch.chdir(tmp_path)
    for name, value in (elsewhere | settings).items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(stores.StoreError, match=message):
        stores.open_bucket()


# Services that are not like AWS


@pytest.fixture
def service(monkeypatch, real_bucket):
    """Return a function that makes the S3 service behave differently, and the PUT requests that the service received.

    Its argument is a function that changes the request, or returns its own answer instead of the S3 API's.
    """
    closing = []

    def start(otherwise):
        inner, puts = servers._s3_app(), []

        def app(environ, start_response):
            if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].count("/") > 1:
                puts.append(environ["PATH_INFO"])
            return (otherwise(environ) or inner)(environ, start_response)

        server = make_server(servers.LOOPBACK, 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        closing.append(lambda: (server.shutdown(), thread.join(), server.server_close()))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{servers.LOOPBACK}:{server.server_port}")
        with contextlib.suppress(ClientError):  # moto's buckets belong to the process
            boto3.client("s3").create_bucket(Bucket="mine")
        return puts

    yield start
    for close in closing:
        close()


NONE_MATCH, MATCH = "HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"


def drop(*headers):
    def otherwise(environ):
        for header in headers:
            environ.pop(header, None)

    return otherwise


def answer(status, code, *headers, method="PUT", path=""):
    body = f"<Error><Code>{code}</Code><Message>what the service says</Message></Error>"

    def otherwise(environ):
        asked = environ["REQUEST_METHOD"] == method and path in environ["PATH_INFO"]
        if asked and (not headers or any(header in environ for header in headers)):
            return Response(body, status, content_type="application/xml")

    return otherwise


@pytest.mark.parametrize(
    ("otherwise", "unsafe"),
    [
        (drop(), ""),
        (answer(409, "ConditionalRequestConflict", NONE_MATCH, MATCH, path="/try"), ""),
        (drop(NONE_MATCH), "answers If-None-Match with 200 instead of 412"),
        (drop(MATCH), "answers If-Match with 200 instead of 412"),
        (
            answer(501, "NotImplemented", NONE_MATCH, MATCH),
            "answers If-None-Match with 501 instead of 412 and answers If-Match with 501 instead of 412",
        ),
    ],
    ids=["like AWS", "conflicts", "ignores one", "ignores the other", "501"],
)
def test_a_service_is_asked_once_whether_commits_are_safe(service, otherwise, unsafe):
    puts = service(otherwise)
    bucket = stores.open_bucket()
    assert len(puts) == 3 and len(set(puts)) == 1 and puts[0].startswith(f"/mine/{bucket.prefix}/")
    assert "Contents" not in bucket.client().list_objects_v2(Bucket="mine", Prefix=bucket.prefix)
    bucket = stores.open_bucket()
    assert len(puts) == 3
    if not unsafe:
        use_every_way_in(bucket)
        return
    data = xr.Dataset({"a": ("x", np.arange(4, dtype="uint8"))}, attrs={"title": "not lost to what a new array needs"})
    data.to_zarr(bucket.zarr("plain.zarr"), consolidated=False)
    zarr.create_array(bucket.zarr("plain.zarr"), name="b", data=np.arange(4), dimension_names=["x"])
    found = xr.open_zarr(bucket.zarr("plain.zarr"), consolidated=False).load()
    xr.testing.assert_identical(found, data.assign(b=("x", np.arange(4))))
    with pytest.raises(stores.StoreError, match=f"^s3://mine: .* the service {unsafe}.*gets lost .* unset GLAD_BUCKET"):
        bucket.icechunk("repo")


def test_a_service_that_ignores_conditions_does_lose_commits(service):
    """The danger that the check prevents: two writers hold their commits until both have read the branch."""
    both_have_read = threading.Barrier(2)

    def otherwise(environ):
        if environ.pop(MATCH, None) and armed:
            both_have_read.wait(60)
        environ.pop(NONE_MATCH, None)

    armed = []
    service(otherwise)
    unsafe = stores.open_bucket()
    repo = icechunk.Repository.create(replace(unsafe, unsafe="").icechunk("race"))
    sessions = [repo.writable_session("main") for _ in range(2)]
    for k, session in enumerate(sessions):
        zarr.create_group(session.store, path=f"group{k}")
    armed.append(True)
    with ThreadPoolExecutor(2) as pool:
        reported = list(pool.map(lambda session: session.commit("a commit"), sessions))
    assert len(set(reported)) == 2
    assert [snapshot.message for snapshot in repo.ancestry(branch="main")].count("a commit") == 1


def test_of_two_writers_at_once_one_is_refused(service, monkeypatch):
    """moto itself compares, then writes. With a pause in between, it accepts both, and a commit is lost."""
    plain = S3Backend.put_object
    monkeypatch.setattr(S3Backend, "put_object", lambda *args, **kwargs: time.sleep(0.3) or plain(*args, **kwargs))
    service(lambda environ: None)
    client = boto3.client("s3")

    def put(conditions):
        try:
            return client.put_object(Bucket="mine", Key="contended", **conditions)["ResponseMetadata"]["HTTPStatusCode"]
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]

    client.delete_object(Bucket="mine", Key="contended")
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(put, [{"IfNoneMatch": "*"}] * 2)) == [200, 412]
        tag = client.head_object(Bucket="mine", Key="contended")["ETag"]
        writers = [{"IfMatch": tag, "Body": body} for body in (b"one", b"other")]
        assert sorted(pool.map(put, writers)) == [200, 412]


@pytest.mark.parametrize(
    ("otherwise", "message"),
    [
        (answer(403, "AccessDenied"), "AccessDenied.* PutObject .*your permissions"),
        (answer(403, "AccessDenied", method="DELETE"), "DeleteObject .*your permissions"),
        (answer(503, "SlowDown", MATCH), "SlowDown.* PutObject"),
    ],
    ids=["no right to write", "no right to delete", "overloaded"],
)
def test_what_says_nothing_about_conditions_is_not_taken_for_it(service, otherwise, message):
    healthy = []
    service(lambda environ: None if healthy else otherwise(environ))
    with pytest.raises(stores.StoreError, match=f"^s3://mine//a//folder/: the bucket cannot be used .*{message}"):
        stores.open_bucket()
    healthy.append(True)  # the learner has got the right meanwhile
    stores.open_bucket().icechunk("repo")


def test_containers_hold_prefix_and_patience(no_settings, tmp_path):
    for (config, allowed), prefix in (
        (virtual.containers("https://example.org/tiles"), "https://example.org/tiles/"),
        (virtual.containers(tmp_path), virtual.file_url(tmp_path) + "/"),
    ):
        assert list(config.virtual_chunk_containers) == list(allowed) == [prefix]
        assert config.storage.timeouts == repository.settings().storage.timeouts


# The loopback servers


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "letters.txt").write_bytes(b"abcdefghij")
    return tmp_path


@pytest.fixture
def server(folder):
    with servers.serve_folder(folder) as server:
        yield server


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.status, answer.read()


def test_a_served_folder_answers_ranges_and_counts(server):
    assert server.url.startswith("http://127.0.0.1:")
    assert get(f"{server.url}/letters.txt", Range="bytes=2-4") == (206, b"cde")
    assert get(f"{server.url}/letters.txt") == (200, b"abcdefghij")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{server.url}/numbers.txt")
    first, second, third = server.requests
    assert first == ("GET", "/letters.txt", "bytes=2-4", 206, 3)
    assert second == ("GET", "/letters.txt", None, 200, 10)
    assert third[:4] == ("GET", "/numbers.txt", None, 404)
    server.reset()
    assert server.requests == []


def test_a_served_folder_keeps_the_promise_of_if_unmodified_since(folder, server):
    os.utime(folder / "letters.txt", (1_700_000_000,) * 2)  # Tue, 14 Nov 2023 22:13:20 GMT
    since = {"If-Unmodified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}
    assert get(f"{server.url}/letters.txt", Range="bytes=2-4", **since) == (206, b"cde")
    since = {"If-Unmodified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}
    with pytest.raises(urllib.error.HTTPError, match="412"):
        get(f"{server.url}/letters.txt", Range="bytes=2-4", **since)


def test_a_served_folder_keeps_to_itself(folder):
    (folder / "inside").mkdir()
    with servers.serve_folder(folder / "inside") as server, pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{server.url}/../letters.txt")


def wait_until_gone(url):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            get(url)
        except (urllib.error.HTTPError, http.client.HTTPException):  # also an answer that breaks off
            pass
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_a_closed_server_is_gone(folder):
    server = servers.serve_folder(folder)
    server.close()
    server.close()  # twice does no harm
    assert wait_until_gone(f"{server.url}/letters.txt")


def test_a_server_that_does_not_start_in_time_is_named(monkeypatch, folder):
    monkeypatch.setattr(servers, "START_SECONDS", 0.001)
    with pytest.raises(RuntimeError, match=r"the folder server on 127.0.0.1 did not start within 0.001 s"):
        servers.serve_folder(folder)


def test_a_server_elsewhere_answers_or_not(server):
    assert servers.answers(f"{server.url}/numbers.txt")  # 404 is an answer
    assert not servers.answers("https://tiles.invalid")


def test_no_web_page_may_use_the_bucket(s3):
    request = urllib.request.Request(f"{s3.url}/", headers={"Origin": "https://example.org"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_a_public_object_can_be_asked_for_its_size_without_an_account():
    bucket, server = stores.counted_bucket()
    with server:
        client = bucket.client()
        client.put_object(Bucket=bucket.name, Key="public.txt", Body=b"here")
        rule = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::*/*"}
        policy = {"Version": "2012-10-17", "Statement": [rule]}
        client.put_bucket_policy(Bucket=bucket.name, Policy=json.dumps(policy))
        request = urllib.request.Request(f"{server.url}/{bucket.name}/public.txt", method="HEAD")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert (answer.status, answer.headers["Content-Length"], answer.read()) == (200, "4", b"")


@pytest.mark.skipif(os.name == "nt", reason="signals to process groups are POSIX")
@pytest.mark.parametrize("end", ["return", "kill"])
def test_the_bucket_stops_with_its_kernel_and_survives_an_interrupt(end):
    code = """
        import os, signal, time, sys
        from workshop import stores
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what runs in the background ignore it
        bucket = stores.open_bucket()
        print(bucket.endpoint_url, flush=True)
        try:
            os.killpg(0, signal.SIGINT)  # what Jupyter's stop button does
            time.sleep(60)
        except KeyboardInterrupt:
            bucket.client().list_buckets()
            print("still there", flush=True)
        sys.stdin.read()
    """
    command, pipe = [sys.executable, "-c", textwrap.dedent(code)], subprocess.PIPE
    kernel = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    url = kernel.stdout.readline().strip()
    assert kernel.stdout.readline().strip() == "still there"
    if end == "kill":
        os.kill(kernel.pid, signal.SIGKILL)
        kernel.wait()
    else:
        kernel.communicate(timeout=60)
    assert wait_until_gone(url)


@pytest.mark.parametrize(("given", "then"), [("example.org", "example.org,127.0.0.1,localhost"), ("*", "*")])
def test_loopback_is_exempt_from_the_proxy(monkeypatch, folder, given, then):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", given)
    monkeypatch.setenv("NO_PROXY", "" if given != "*" else "*")
    with servers.serve_folder(folder) as server:
        assert get(f"{server.url}/letters.txt")[0] == 200
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == then


def test_names_with_other_letters_and_a_foreign_working_directory(monkeypatch, tmp_path):
    (tmp_path / "é ü").mkdir()
    (tmp_path / "é ü" / "ñ.txt").write_bytes(b"here")
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    with servers.serve_folder("é ü") as server:
        assert get(f"{server.url}/%C3%B1.txt") == (200, b"here")


def test_the_scratch_folder_goes_with_the_process():
    code = "from workshop import stores; f = stores.scratch_folder(); (f / 'a').write_text('a'); print(f)"
    folder = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert folder
    assert not os.path.exists(folder)


# What importing the package changes


def test_the_package_lists_its_settings_and_side_effects():
    """Compare with the environment variables that the package sets when all its modules are imported."""
    code = """
        import importlib, os, pkgutil, sys
        from pathlib import Path

        import workshop

        def record(self, name, value, plain=type(os.environ).__setitem__):
            frame = sys._getframe(1)
            while frame.f_code.co_filename.startswith("<frozen"):  # setdefault
                frame = frame.f_back
            if Path(frame.f_code.co_filename).is_relative_to(workshop.__path__[0]):
                print(name)
            plain(self, name, value)

        type(os.environ).__setitem__ = record
        for module in pkgutil.walk_packages(workshop.__path__, "workshop."):
            importlib.import_module(module.name)
        workshop.stores.open_bucket()
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GDAL_", "GLAD_", "PANEL_"))}
    env["JUPYTERHUB_SERVICE_PREFIX"] = "/user/anna/"
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    names = set(done.stdout.split())
    assert {"GDAL_CACHEMAX", "LOCALTILESERVER_CLIENT_PREFIX", "PANEL_NOTEBOOK_RESOURCES", "NO_PROXY"} <= names
    assert names | {tiles.ROOT_SETTING, stores.BUCKET_SETTING} <= set(re.findall(r"\w+", workshop.__doc__))
