"""Run a command that can reach nothing but loopback: ``python tests/offline.py COMMAND [ARG ...]``.

On Linux the command gets a network namespace of its own, in which no other interface exists. Elsewhere, or where the
system forbids namespaces, the command's HTTP clients are sent to a proxy that is not there, and Python's sockets refuse
other hosts; the first line on standard error says which of the two it is.
"""

import os
import sys
import tempfile
from pathlib import Path

GUARD = """
import socket
_connect = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"blocked: {address[0]}")
    return _connect(self, address)
socket.socket.connect = connect
"""


def own_namespace() -> bool:
    """Move this process into a network namespace in which only loopback is up; False where that is impossible."""
    if not hasattr(os, "unshare"):
        return False
    import fcntl
    import socket
    import struct

    uid, gid = os.getuid(), os.getgid()
    try:
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
    except OSError as error:
        print(f"no namespace: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    if own_namespace():
        print("offline by a network namespace", file=sys.stderr)
    else:
        print("offline by a dead proxy and a guard on Python's sockets", file=sys.stderr)
        folder = Path(tempfile.mkdtemp())
        (folder / "sitecustomize.py").write_text(GUARD)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            os.environ[name] = os.environ[name.upper()] = "http://127.0.0.1:9"
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    os.execvp(sys.argv[1], sys.argv[1:])
