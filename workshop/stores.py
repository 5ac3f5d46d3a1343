"""Object stores: buckets on an S3 API, local or real, and a scratch folder. The servers are in ``servers.py``.

The notebooks read and write through the libraries. This module is independent of land cover.
"""

import atexit
import os
import re
import shutil
import tempfile
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import icechunk
import obstore.store
import zarr.storage
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from zarr.abc.store import Store

from workshop import repository
from workshop.servers import LoopbackServer, serve_s3

BUCKET_SETTING = "GLAD_BUCKET"
LOCAL_BUCKET = "workshop"
LOCAL_REGION = "us-east-1"

# Failures raise errors; log lines would only clutter a notebook.
icechunk.set_logs_filter("error")


class StoreError(Exception):
    """A bucket cannot be used with these settings or for this purpose."""


class _UnconditionalStore(zarr.storage.ObjectStore):
    """For services without conditional writes: checks whether a key exists, as any other Zarr store does."""

    set_if_not_exists = Store.set_if_not_exists


@dataclass(frozen=True)
class Bucket:
    """A prefix in a bucket, random per learner, with access for each library.

    The endpoint is the address of the S3 API, or None for AWS. All paths are relative to the prefix.
    """

    name: str
    prefix: str
    region: str
    endpoint_url: str | None
    credentials: dict[str, str] = field(repr=False)  # with the names that Icechunk and obstore use
    unsafe: str = ""  # how it mishandles conditional writes, or empty

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{path}".rstrip("/")

    def client(self):
        """Return a boto3 S3 client; keys of objects begin with :attr:`prefix`."""
        return boto3.Session().client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint_url,
            config=Config(connect_timeout=5, retries={"max_attempts": 2}),
            **{f"aws_{name}": value for name, value in self.credentials.items()},
        )

    def obstore(self, path: str = "") -> obstore.store.S3Store:
        """Return an obstore store rooted at ``path``."""
        endpoint = {"endpoint": self.endpoint_url} if self.endpoint_url else {}
        return obstore.store.S3Store(
            self.name,
            prefix=self._key(path),
            region=self.region,
            client_options={"allow_http": self.endpoint_url is not None},
            **endpoint,
            **self.credentials,
        )

    def zarr(self, path: str, *, read_only: bool = False) -> zarr.storage.ObjectStore:
        """Return a Zarr store rooted at ``path``."""
        kind = _UnconditionalStore if self.unsafe else zarr.storage.ObjectStore
        return kind(self.obstore(path), read_only=read_only)

    def icechunk(self, path: str) -> icechunk.Storage:
        """Return Icechunk storage rooted at ``path``.

        Raises
        ------
        StoreError
            If commits could get lost in this bucket.
        """
        if self.unsafe:
            raise StoreError(
                f"s3://{self.name}: expected conditional writes, found that the service {self.unsafe}. Without them, "
                "one of two simultaneous commits gets lost without an error. Use a service that has them (such as AWS "
                f"S3, Cloudflare R2 or MinIO), or unset {BUCKET_SETTING} to work with the bucket on this machine"
            )
        return icechunk.s3_storage(
            bucket=self.name,
            prefix=self._key(path),
            region=self.region,
            endpoint_url=self.endpoint_url,
            allow_http=self.endpoint_url is not None,
            force_path_style=self.endpoint_url is not None,
            **self.credentials,
        )


_serve_s3_once = cache(serve_s3)


def _local_bucket(server: LoopbackServer, prefix: str) -> Bucket:
    keys = {"access_key_id": "local", "secret_access_key": "local"}
    bucket = Bucket(LOCAL_BUCKET, prefix, LOCAL_REGION, server.url, keys)
    bucket.client().create_bucket(Bucket=LOCAL_BUCKET)
    return bucket


_UNSAFE: dict[tuple[str, str, str], str] = {}  # what was found per bucket, so that each is tested once


def _try_conditional_writes(client: Any, bucket: str, key: str) -> str:
    """Return how a bucket mishandles writes whose condition is false, or an empty string if it refuses them."""
    there = {"Bucket": bucket, "Key": key, "Body": b"deleted at once"}
    client.put_object(**there)
    faults = []
    try:
        for name, condition in (("If-None-Match", "*"), ("If-Match", f'"{0:032}"')):
            try:
                answer = client.put_object(**there, **{name.replace("-", ""): condition})
            except ClientError as error:
                answer = error.response
                if answer["ResponseMetadata"]["HTTPStatusCode"] in (429, 500, 502, 503, 504):
                    raise  # it says nothing about the condition
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            if status not in (409, 412):
                faults.append(f"answers {name} with {status} instead of 412")
    finally:
        client.delete_object(Bucket=bucket, Key=key)
    return " and ".join(faults)


def open_bucket() -> Bucket:
    """Open a bucket to work in: the one in the setting ``GLAD_BUCKET``, else one on this machine.

    The setting is ``s3://name`` or ``s3://name/prefix``. Credentials, region and endpoint then come from the usual AWS
    variables or files (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``, ...). Credentials
    are read once: if they expire, open the bucket again. The first call writes a small object to the bucket and deletes
    it, to test whether commits would be safe (:meth:`Bucket.icechunk`).

    The local bucket is in the memory of a server on 127.0.0.1, which stops with the kernel.

    Raises
    ------
    StoreError
        If the setting is malformed, no credentials are found, or the bucket refuses to be read or written.
    """
    url = os.environ.get(BUCKET_SETTING)
    learner = f"learner-{uuid.uuid4().hex[:8]}"
    if not url:
        return _local_bucket(_serve_s3_once(), learner)

    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]+)(?:/(.*?))?/?", url)
    if not match:
        raise StoreError(f"{url}: expected a bucket like s3://name or s3://name/prefix")
    try:
        session = boto3.Session()
        keys = session.get_credentials()
        if keys is None:
            raise StoreError(
                f"{url}: no AWS credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), "
                f"or unset {BUCKET_SETTING} to work with the bucket on this machine"
            )
        frozen = keys.get_frozen_credentials()
        # boto3 knows every place where endpoint and region can be set, and its result is passed to the other libraries
        patience = {"connect_timeout": 5, "read_timeout": 10, "retries": {"max_attempts": 1}}
        # some services do not know checksums
        check = session.client("s3", config=Config(request_checksum_calculation="when_required", **patience))
        answer = check.head_bucket(Bucket=match[1])
        folder = "/".join(filter(None, (match[2] or "").split("/")))
        asked = check.meta.endpoint_url, match[1], folder
        if asked not in _UNSAFE:
            _UNSAFE[asked] = _try_conditional_writes(check, match[1], f"{folder}/{learner}/try".lstrip("/"))
    except (ClientError, BotoCoreError, ValueError) as error:
        raise StoreError(
            f"{url}: the bucket cannot be used ({error}); check its name, its region and your permissions to list, "
            f"read, write and delete objects, or unset {BUCKET_SETTING} to work with the bucket on this machine"
        ) from error
    endpoint = check.meta.endpoint_url
    found = {"access_key_id": frozen.access_key, "secret_access_key": frozen.secret_key, "session_token": frozen.token}
    return Bucket(
        name=match[1],
        prefix=f"{folder}/{learner}".lstrip("/"),
        region=answer.get("BucketRegion") or check.meta.region_name or LOCAL_REGION,
        endpoint_url=None if "amazonaws.com" in endpoint else endpoint,
        credentials={name: value for name, value in found.items() if value},
        unsafe=_UNSAFE[asked],
    )


def counted_bucket() -> tuple[Bucket, LoopbackServer]:
    """Return an empty bucket on this machine, and its server, which counts requests. It stops with the kernel."""
    server = serve_s3()
    return _local_bucket(server, "counted"), server


def containers(prefix: str, store: Any, credentials: Any) -> tuple[icechunk.RepositoryConfig, dict]:
    """Return what an Icechunk repository needs to refer to files elsewhere.

    Parameters
    ----------
    prefix : str
        URL prefix of the files, with a slash at the end.
    store, credentials : Any
        How Icechunk accesses them, such as ``icechunk.http_store()`` and ``icechunk.credentials.HttpAccess``.

    Returns
    -------
    config : icechunk.RepositoryConfig
        For creating the repository.
    authorization : dict
        For ``authorize_virtual_chunk_access``, when creating and whenever opening it.
    """
    config = repository.settings()
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    return config, icechunk.containers_credentials({prefix: credentials})


def http_store(url: str) -> obstore.store.HTTPStore:
    """Return a read-only obstore store for the files under an http(s) URL."""
    return obstore.store.HTTPStore.from_url(url, client_options={"allow_http": True})


@cache
def scratch_folder() -> Path:
    """Return a new folder for this kernel's files; it is deleted when the kernel shuts down."""
    folder = Path(tempfile.mkdtemp(prefix="glad-workshop-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
