"""Nothing but loopback: the whole suite runs so, and any command: ``python tests/offline.py COMMAND [ARG ...]``.

On Linux that is a network namespace in which no other interface exists. Elsewhere, or where the system forbids
namespaces, HTTP clients are sent to a proxy that is not there, and Python's sockets refuse other hosts.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

GUARD = """
import socket

def guarded(method, position):
    original = getattr(socket.socket, method)

    def call(self, *args):
        host = args[position][0] if self.family in (socket.AF_INET, socket.AF_INET6) else "localhost"
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"blocked: {host}")
        return original(self, *args)

    setattr(socket.socket, method, call)

guarded("connect", 0)
guarded("connect_ex", 0)
guarded("sendto", -1)
"""


def enter_namespace() -> None:
    """Move this process into a network namespace in which only loopback is up."""
    import fcntl
    import socket
    import struct

    uid, gid = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
    # stay who we are, or tools inside would think they run as nobody
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        get_flags, set_flags, up = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
        answer = fcntl.ioctl(control, get_flags, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", answer)[1] | up
        fcntl.ioctl(control, set_flags, struct.pack("16sH14x", b"lo", flags))


def namespace_works() -> bool:
    """Try in a child first, because a namespace entered half cannot be left."""
    if not hasattr(os, "unshare") or os.environ.get("OFFLINE_BY_GUARD"):
        return False
    if len(os.listdir("/proc/self/task")) > 1:  # only a process without threads may leave its user namespace
        return False
    child = os.fork()
    if child == 0:
        try:
            enter_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def block(scratch: str) -> str:
    """Cut this process, and all that it starts from now on, off from everything but loopback; return how.

    The guard is a file in the scratch folder; it does not reach this process itself.
    """
    if namespace_works():
        enter_namespace()
        return "a network namespace"
    Path(scratch, "sitecustomize.py").write_text(GUARD)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [scratch, os.environ.get("PYTHONPATH")]))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ[name] = os.environ[name.upper()] = "http://127.0.0.1:9"
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    return "a dead proxy and a guard on Python's sockets"


def main(command: list[str]) -> int:
    """Run the command and return its exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        print("offline by", block(scratch), file=sys.stderr)
        return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
