"""Start the process of a zygote: its command line, its environment, and the socket for its orders.

Imports next to nothing, so that a cell can start its zygote before its own heavy imports, and both
import at the same time.
"""

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class ZygoteProcess:
    """A zygote that was started; it goes when `orders` is closed."""

    process: subprocess.Popen[bytes]
    orders: socket.socket


MALLOC = {
    # A thread's own arena costs each instance memory and fragments what is shared.
    "MALLOC_ARENA_MAX": "1",
    # glibc's own first value, kept: left alone it grows with the first large buffer that is freed,
    # so parts of artifacts and long answers lie between small things and never go back.
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
"""How glibc keeps an instance's memory."""


def command(descriptor: int) -> list[str]:
    """Return the command line of a zygote that takes its orders from `descriptor`."""
    return [sys.executable, "-I", "-m", "mlfleet.cell.zygote", str(descriptor)]


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment to start a zygote with: nothing that could hold a secret."""
    kept = {name: environ[name] for name in ("TMPDIR", "TZ", "PATH") if name in environ}
    # A home, because MLflow asks for one while it is imported and a pod's user may have none.
    kept["HOME"] = "/"
    return kept | MALLOC | {"LC_ALL": "C.UTF-8", "UV_USE_IO_URING": "0"}


def start(
    environment: dict[str, str], command: Callable[[int], list[str]] = command
) -> ZygoteProcess:
    """Start a zygote; it imports first, and waits for its database then."""
    orders, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its_end:
        process = subprocess.Popen(
            command(its_end.fileno()),
            pass_fds=(its_end.fileno(),),
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    return ZygoteProcess(process, orders)
