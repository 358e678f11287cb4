"""What this kernel and this user can give to the confinement of instances."""

import ctypes
import dataclasses
import os
from pathlib import Path
from typing import Self

_SYS_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_CREATE_RULESET_VERSION = 1


@dataclasses.dataclass(frozen=True)
class KernelFeatures:
    """Facts, without judgement."""

    release: str
    landlock_abi: int
    """0 where Landlock is missing or switched off; 4 adds network rules, 6 adds scopes."""
    has_seccomp: bool
    has_user_namespaces: bool
    is_root: bool

    @classmethod
    def of_this_machine(cls) -> Self:
        """Ask the kernel."""
        return cls(
            release=os.uname().release,
            landlock_abi=_landlock_abi(),
            has_seccomp=Path("/proc/sys/kernel/seccomp/actions_avail").exists(),
            has_user_namespaces=_may_make_user_namespaces(),
            is_root=os.geteuid() == 0,
        )


def _landlock_abi() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    answer = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    return max(0, int(answer))


def _may_make_user_namespaces() -> bool:
    limits = {
        "/proc/sys/user/max_user_namespaces": 0,
        "/proc/sys/kernel/unprivileged_userns_clone": 1,
    }
    for path, missing in limits.items():
        file = Path(path)
        if int(file.read_text()) == 0 if file.exists() else missing == 0:
            return False
    return True
