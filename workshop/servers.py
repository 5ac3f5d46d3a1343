"""HTTP servers on 127.0.0.1 that keep count: an S3 API, and the files of a folder.

Each is a process of its own, because GDAL holds Python's lock during some of its requests and a server in a
thread of the same process could then never answer. It stops with the process that started it, however that ends.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from werkzeug.exceptions import HTTPException, PreconditionFailed
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_from_directory
from werkzeug.wrappers import Request, Response

LOOPBACK = "127.0.0.1"
_LOG_PATH = "/.requests"


@dataclass(frozen=True)
class ServedRequest:
    """One answered request: ``range`` is the Range header or None, ``sent`` the bytes of the answer's body."""

    method: str
    path: str
    range: str | None
    status: int
    sent: int


class LoopbackServer:
    """A server on 127.0.0.1, started at once; stops with :meth:`close`, a ``with`` block, or this process.

    Parameters
    ----------
    kind : {"s3", "folder"}
        What the server offers.
    *args : str
        For ``folder``, its path.

    Attributes
    ----------
    url : str
        The server's address, without a slash at the end.
    """

    def __init__(self, kind: str, *args: str) -> None:
        _spare_loopback_the_proxy()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workshop.servers", kind, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,  # a learner's json.py must not be imported
        )
        port = self._process.stdout.readline().decode().strip()
        if not port:
            raise RuntimeError(f"the {kind} server on {LOOPBACK} did not start; its message stands above")
        self.url = f"http://{LOOPBACK}:{port}"
        atexit.register(self.close)

    def _log(self, method: str) -> list[dict]:
        request = urllib.request.Request(self.url + _LOG_PATH, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    @property
    def requests(self) -> list[ServedRequest]:
        """What was answered since the last :meth:`reset`, in order."""
        return [ServedRequest(**entry) for entry in self._log("GET")]

    def reset(self) -> None:
        """Start counting anew."""
        self._log("DELETE")

    def close(self) -> None:
        """Stop the server."""
        if self._process.poll() is None:
            self._process.stdin.close()  # the server waits for this
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:  # a forked child of ours still holds the pipe
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "LoopbackServer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def serve_folder(folder: str | Path) -> LoopbackServer:
    """Serve a folder's files over HTTP on 127.0.0.1, with range requests, and count what is asked for."""
    return LoopbackServer("folder", str(Path(folder).resolve()))


def serve_s3() -> LoopbackServer:
    """Serve an S3 API on 127.0.0.1 whose buckets live in the server's memory."""
    return LoopbackServer("s3")


def _spare_loopback_the_proxy() -> None:
    # A machine behind a proxy would otherwise send even loopback requests to it.
    given = f"{os.environ.get('no_proxy', '')},{os.environ.get('NO_PROXY', '')}"
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*hosts, LOOPBACK, "localhost"]))


# What follows runs in the server's process.


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Say nothing: whoever started the server can ask for the count."""


def _folder_app(folder: str) -> Callable:
    def app(environ: dict, start_response: Callable) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = send_from_directory(folder, request.path.lstrip("/"), environ)
            # RFC 9110, 13.1.4, which Werkzeug leaves out: Icechunk asks so whether a referenced file was replaced
            asked = request.if_unmodified_since
            if asked and response.last_modified and response.last_modified > asked:
                raise PreconditionFailed
        except HTTPException as error:
            response = error.get_response(environ)
        return response(environ, start_response)

    return app


def _s3_app() -> Callable:
    from moto.server import create_backend_app

    return create_backend_app("s3")


def _counted(app: Callable) -> Callable:
    log: list[ServedRequest] = []

    def counting(environ: dict, start_response: Callable) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == _LOG_PATH:
            answer = Response(json.dumps([asdict(entry) for entry in log]), content_type="application/json")
            if method == "DELETE":
                log.clear()
            return answer(environ, start_response)

        def start(status: str, headers: list, exc_info: object = None) -> Callable:
            sent = 0 if method == "HEAD" else int(dict(headers).get("Content-Length", 0))
            log.append(ServedRequest(method, path, environ.get("HTTP_RANGE"), int(status.split()[0]), sent))
            return start_response(status, headers, exc_info)

        return app(environ, start)

    return counting


def _main(kind: str, *args: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupting a cell must not end the bucket
    app = {"s3": _s3_app, "folder": _folder_app}[kind](*args)
    server = make_server(LOOPBACK, 0, _counted(app), threaded=True, request_handler=_QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()  # ends when the process that started us closes the pipe or dies


if __name__ == "__main__":
    _main(*sys.argv[1:])
