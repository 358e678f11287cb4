"""Cut connections from outside, as a network does: those of clients, and sessions in Postgres.

A client's connection is cut by resetting the gateway's own socket: the kernel hands out a copy of
another process's descriptor (pidfd_getfd, Linux 5.6) to whoever may debug that process, and a
copy can be disconnected, which tells both ends "connection reset". A proxy in between would do it
without that permission, but would then stand in every request of the run; `ss -K` needs root.
"""

import contextlib
import ctypes
import errno
import os
import socket
from pathlib import Path

from mlfleet.database.connect import connect
from mlfleet.errors import FleetError

_SYS_PIDFD_GETFD = 438
_ESTABLISHED = "01"
_libc = ctypes.CDLL(None, use_errno=True)


def open_connections(pid: int, port: int) -> list[int]:
    """Return the descriptors of a server's accepted connections, oldest (lowest inode) first.

    Args:
        pid: the server's process.
        port: where it listens.
    """
    inodes = _established(port)
    found = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                kind, _, inode = str(Path(entry.path).readlink()).partition(":[")
                if kind == "socket" and inode[:-1] in inodes:
                    found.append((int(inode[:-1]), int(entry.name)))
    return [descriptor for _, descriptor in sorted(found)]


def _established(port: int) -> set[str]:
    """Return the inodes of the connections that were made to a port of this machine."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes


def reset(pid: int, port: int, descriptors: list[int]) -> int:
    """Reset a server's connections; return how many were still there.

    Raises:
        FleetError: the kernel does not allow it.
    """
    pidfd = os.pidfd_open(pid)
    try:
        return sum(_reset(pidfd, port, descriptor) for descriptor in descriptors)
    finally:
        os.close(pidfd)


def _reset(pidfd: int, port: int, descriptor: int) -> bool:
    copy = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, descriptor, 0)
    if copy < 0:
        code = ctypes.get_errno()
        if code == errno.EBADF:
            return False  # closed since it was found
        raise FleetError(
            f"this kernel does not let us cut the gateway's connections ({os.strerror(code)}):"
            " run as the fleet's user with kernel.yama.ptrace_scope = 0, or without --cuts"
        )
    with socket.socket(fileno=copy) as connection:
        # The number may stand for something else by now: only ever touch a client's connection.
        if not _is_client(connection, port):
            return False
        unspecified = bytes(16)  # AF_UNSPEC: "connect to nobody" resets a connection
        return int(_libc.connect(copy, unspecified, len(unspecified))) == 0


def _is_client(connection: socket.socket, port: int) -> bool:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    with contextlib.suppress(OSError):
        return bool(connection.getsockname()[1] == port and connection.getpeername())
    return False


def sessions(admin_uri: str) -> list[int]:
    """Return the tenants' sessions in Postgres by process number."""
    with contextlib.closing(connect(admin_uri)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname ~ '^mlfleet_t[0-9]+$'"
            " AND backend_type = 'client backend' ORDER BY backend_start, pid"
        )
        return [pid for (pid,) in cursor.fetchall()]


def end_sessions(admin_uri: str, pids: list[int]) -> int:
    """End tenants' sessions in the middle of what they do; return how many were still there."""
    with contextlib.closing(connect(admin_uri)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid = ANY(%s) AND datname ~ '^mlfleet_t[0-9]+$'",
            (pids,),
        )
        [ended] = cursor.fetchone() or (0,)
        return int(ended)
