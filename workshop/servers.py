"""HTTP servers on 127.0.0.1 that count requests: an S3 API, and a folder's files. ``answers`` tests other servers.

Each server runs in its own process, because GDAL holds Python's lock during some of its requests, and a server in a
thread of the same process could not answer them. It stops with the process that started it, however that ends.
"""

import atexit
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from http.client import HTTPException as BrokenAnswer
from pathlib import Path
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
START_SECONDS = 60  # for a server here to start
ANSWER_SECONDS = 2  # for another server to answer
_LOG_PATH = "/.requests"


class ServedRequest(NamedTuple):
    """One answered request: ``range`` is the Range header or None, ``sent`` the bytes of the answer's body."""

    method: str
    path: str
    range: str | None
    status: int
    sent: int


class LoopbackServer:
    """A server at :attr:`url`, started at once; stops with :meth:`close`, a ``with`` block, or this process.

    :func:`serve_folder` and :func:`serve_s3` make it.
    """

    def __init__(self, kind: str, *args: str) -> None:
        exempt_loopback_from_proxy()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workshop.servers", kind, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,  # a learner's json.py must not be imported
            env=os.environ | {"MOTO_DISABLE_GLOBAL_CORS": "1"},  # no web page may use the bucket
        )
        limit = threading.Timer(START_SECONDS, self._process.kill)  # a pipe has no time-out on all systems
        limit.start()
        port = self._process.stdout.readline().decode().strip()
        limit.cancel()
        if not port:
            self.close()
            raise RuntimeError(
                f"the {kind} server on {LOOPBACK} did not start within {START_SECONDS} s; see its message above"
            )
        self.url = f"http://{LOOPBACK}:{port}"  # without a slash at the end
        atexit.register(self.close)

    def _log(self, method: str) -> list[ServedRequest]:
        request = urllib.request.Request(self.url + _LOG_PATH, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return [ServedRequest(*entry) for entry in json.load(answer)]

    @property
    def requests(self) -> list[ServedRequest]:
        """The requests answered since the last :meth:`reset`, in order."""
        return self._log("GET")

    def reset(self) -> None:
        """Start counting from zero."""
        self._log("DELETE")

    def close(self) -> None:
        """Stop the server."""
        with self._process as process:
            process.stdin.close()  # the server waits for this
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:  # a forked child process still holds the pipe
                process.kill()
        atexit.unregister(self.close)

    def __enter__(self) -> "LoopbackServer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def serve_folder(folder: str | Path) -> LoopbackServer:
    """Serve a folder's files over HTTP on 127.0.0.1, with range requests, and count the requests."""
    return LoopbackServer("folder", str(Path(folder).resolve()))


def serve_s3() -> LoopbackServer:
    """Serve an S3 API on 127.0.0.1 whose buckets are in the server's memory."""
    return LoopbackServer("s3")


def exempt_loopback_from_proxy() -> None:
    """Add 127.0.0.1 to ``no_proxy``. Otherwise, behind a proxy, even requests to this machine would go there."""
    given = f"{os.environ.get('no_proxy', '')},{os.environ.get('NO_PROXY', '')}"
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*hosts, LOOPBACK, "localhost"]))


def answers(url: str) -> bool:
    """Whether a web server answers within :data:`ANSWER_SECONDS`, with any status."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # it refuses, but it answers
        except (OSError, BrokenAnswer, ValueError):
            return
        answered.set()

    # Looking up a name has no time-out of its own; a daemon thread does not delay the end of the process.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return answered.is_set()


# The code below runs in the server's process and imports Werkzeug there: no kernel needs it.


def _folder_app(folder: str) -> Callable:
    from werkzeug.exceptions import PreconditionFailed
    from werkzeug.utils import send_from_directory
    from werkzeug.wrappers import Request, Response

    @Request.application
    def app(request: Request) -> Response:
        response = send_from_directory(folder, request.path.lstrip("/"), request.environ)
        # RFC 9110, 13.1.4, which Werkzeug lacks: Icechunk asks this way whether a referenced file was replaced
        asked = request.if_unmodified_since
        if asked and response.last_modified and response.last_modified > asked:
            raise PreconditionFailed
        return response

    return app


def _s3_app() -> Callable:
    from moto.server import create_backend_app
    from werkzeug.wsgi import get_input_stream

    backend = create_backend_app("s3")
    one_at_a_time = threading.Lock()

    def app(environ: dict, start_response: Callable) -> Iterable[bytes]:
        environ["wsgi.input"] = io.BytesIO(get_input_stream(environ).read())  # a slow client must not hold up others
        # On AWS, permission to get an object includes HEAD; moto wants another permission, which AWS does not have
        anonymous_head = environ["REQUEST_METHOD"] == "HEAD" and "HTTP_AUTHORIZATION" not in environ
        with one_at_a_time:  # moto compares an ETag and writes in two steps: a commit could get lost in between
            body = backend(environ | ({"REQUEST_METHOD": "GET"} if anonymous_head else {}), start_response)
            return [] if anonymous_head else body

    return app


def _counted(app: Callable) -> Callable:
    from werkzeug.wrappers import Response

    log: list[ServedRequest] = []

    def counting(environ: dict, start_response: Callable) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == _LOG_PATH:
            answer = Response(json.dumps(log), content_type="application/json")
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
    from werkzeug.serving import make_server

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupting a cell must not end the bucket
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line per request
    app = {"s3": _s3_app, "folder": _folder_app}[kind](*args)
    server = make_server(LOOPBACK, 0, _counted(app), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()  # ends when the process that started us closes the pipe or dies


if __name__ == "__main__":
    _main(*sys.argv[1:])
