"""Run a command that can only reach loopback: ``python tests/offline.py COMMAND [ARG ...]``.

``make test`` runs the whole suite with it.

On Linux, it uses a network namespace without other interfaces. Elsewhere, or if the system forbids namespaces, HTTP
clients get a proxy that does not exist, and Python's sockets refuse other hosts.
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
    # keep the user id, because otherwise tools inside run as the user nobody
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        get_flags, set_flags, up = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
        answer = fcntl.ioctl(control, get_flags, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", answer)[1] | up
        fcntl.ioctl(control, set_flags, struct.pack("16sH14x", b"lo", flags))


def namespace_works() -> bool:
    """Try in a child process first, because a namespace entered halfway cannot be left."""
    if not hasattr(os, "unshare") or os.environ.get("OFFLINE_BY_GUARD"):
        return False
    child = os.fork()
    if child == 0:
        try:
            enter_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main(command: list[str]) -> int:
    """Run the command and return its exit code. The setting ``OFFLINE_BY`` tells it how the network is blocked."""
    env = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        if namespace_works():
            enter_namespace()
            env["OFFLINE_BY"] = "a network namespace"
        else:
            Path(folder, "sitecustomize.py").write_text(GUARD)
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, env.get("PYTHONPATH")]))
            for name in ("http_proxy", "https_proxy", "all_proxy"):
                env[name] = env[name.upper()] = "http://127.0.0.1:9"
            env["no_proxy"] = env["NO_PROXY"] = "127.0.0.1,localhost"
            env["OFFLINE_BY"] = "a dead proxy and a guard on Python's sockets"
        return subprocess.call(command, env=env)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
