"""Become a Postgres program: drop what it must not have, tie it to its parent, exec.

Run as a script (`python -I -S launch.py IDENTITY PARENT_PID PROGRAM ARGUMENT…`), not as
a `preexec_fn`: that would run Python in a forked copy of a threaded process, where any lock may
be held for ever. Imports nothing but the standard library; costs about 10 ms.

IDENTITY is one of
    plain         stay who we are (Postgres itself refuses root)
    namespace:UID root outside, UID inside a new user namespace: Postgres sees an ordinary user,
                  files stay root's, no account is made and no folder is opened to others
    user:UID      become UID for real, for kernels that give root no user namespace
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
CANNOT = 97
"""Exit status: this kernel does not allow the identity."""


def main(identity: str, parent: str, *command: str) -> None:
    """Take the identity and replace this process by the command; never returns normally."""
    libc = ctypes.CDLL(None, use_errno=True)
    kind, _, uid = identity.partition(":")
    try:
        if kind == "namespace":
            _enter_namespace(libc, int(uid))
        elif kind == "user":
            os.setgroups([])
            os.setgid(int(uid))
            os.setuid(int(uid))
    except OSError as exc:
        sys.exit(_refuse(f"cannot become {identity}: {exc.strerror}"))
    # Postgres reads SIGINT as "fast shutdown". Set after the change of identity, which clears it.
    if sys.platform == "linux":
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(_refuse("the parent ended before Postgres began"))
    os.execv(command[0], command)


def _enter_namespace(libc: ctypes.CDLL, uid: int) -> None:
    if libc.unshare(_CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} 0 1")
    Path("/proc/self/gid_map").write_text(f"{uid} 0 1")


def _refuse(reason: str) -> int:
    print(reason, file=sys.stderr)
    return CANNOT


if __name__ == "__main__":
    main(*sys.argv[1:])
