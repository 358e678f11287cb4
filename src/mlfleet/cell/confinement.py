"""Give up, in a freshly forked instance, every right that serving one tenant does not need.

Four layers, each of which holds alone against part of what hostile code could try: an own user
where the cell may set one, Landlock for files, TCP ports and signals, a system call filter for
what Landlock leaves open, and limits on memory, descriptors and processes. `limits` says in words
what this kernel and this user cannot give; nothing is pretended.
"""

import ctypes
import functools
import ipaddress
import os
import resource
import sys
import sysconfig
import urllib.parse
from pathlib import Path

import mlfleet
from mlfleet.cell import landlock, seccomp
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.errors import FleetError

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_LAST_CAPABILITY = 63
_CAPABILITIES_FOR_USERS = 1 << 0 | 1 << 6 | 1 << 7  # CHOWN, SETGID, SETUID
_CAPABILITY_VERSION_3 = 0x20080522
OPEN_FILES = 4096
THREADS = 64
"""Most threads (for the kernel: processes) of a tenant with a user of its own."""
_SYSTEM_FILES = (
    "/dev/null", "/dev/urandom", "/dev/zero", "/etc/gai.conf", "/etc/host.conf", "/etc/hosts",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/etc/nsswitch.conf",
    "/etc/resolv.conf", "/etc/ssl", "/etc/timezone", "/lib", "/lib64", "/proc/cpuinfo",
    "/proc/meminfo", "/run/systemd/resolve", "/usr/lib", "/usr/lib64", "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


def limits(has_own_users: bool) -> list[str]:
    """Return, in words, what this kernel and this user cannot give."""
    _readable_folders()
    sentences = landlock.missing(landlock.abi())
    if not seccomp.is_supported():
        sentences.append("There is no system call filter for this processor (x86-64, arm64 only)")
    if not has_own_users:
        sentences.append(
            "Instances share one user (the cell is not root, or its folders are closed to others): "
            "a tenant that guesses a path can learn whether it exists and how large it is"
        )
    return sentences


@functools.cache
def program_paths() -> tuple[Path, ...]:
    """Return where the running program's code lies."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = {Path(sysconfig.get_paths()[name]) for name in names}
    found |= {Path(mlfleet.__path__[0]), Path(sys.base_prefix, "lib")}
    found |= {Path(entry) for entry in sys.path if entry and Path(entry).is_absolute()}
    return tuple(sorted(found))


@functools.cache
def _readable_paths() -> tuple[Path, ...]:
    return (*map(Path, _SYSTEM_FILES), *program_paths())


def may_set_users(artifacts: Path) -> bool:
    """Return whether instances can have users of their own.

    Only root with its capabilities may set them, and others must be able to pass through to the
    program's files and to the folder `artifacts`, which holds the tenants' artifact roots.
    """
    has_rights = _status_field("CapEff", 16) & _CAPABILITIES_FOR_USERS == _CAPABILITIES_FOR_USERS
    needed = (*program_paths(), artifacts)
    return os.geteuid() == 0 and has_rights and all(_is_open_to_all(path) for path in needed)


def _is_open_to_all(path: Path) -> bool:
    if not path.exists():
        return True
    reached = [path, *path.resolve().parents]
    return all(folder.stat().st_mode & 0o001 for folder in reached if folder.is_dir())


def confine(config: InstanceConfig, folder: Path, uid: int | None) -> None:
    """Give up all other rights, for good.

    Args:
        folder: the instance's own, for temporary files.
        uid: user and group to become; None keeps the present ones.

    Raises:
        FleetError: the artifact root lies inside the program, which all tenants may read.
        OSError: something that `limits` did not announce as missing failed; do not serve.
    """
    _refuse_root_inside_program(config.artifact_root)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    _limit_resources(config.memory_bytes, has_own_user=uid is not None)
    landlock.restrict(_files(config, folder), _ports(config))
    if seccomp.is_supported():
        seccomp.install(may_use_udp=_needs_names(config))


def _refuse_root_inside_program(artifact_root: str) -> None:
    root = os.path.realpath(artifact_root)
    for folder in _readable_folders():
        if artifact_root.startswith("/") and f"{root}/".startswith(folder):
            raise FleetError(
                f"artifact root {root} lies in {folder}, which every tenant may read: "
                "move the data folder out of the program's folders"
            )


@functools.cache
def _readable_folders() -> tuple[str, ...]:
    """Where links lead to, each with a slash at its end; found out once, before the first fork."""
    return tuple(f"{os.path.realpath(path)}/" for path in _readable_paths())


def _files(config: InstanceConfig, folder: Path) -> list[tuple[Path, int]]:
    files = [(path, landlock.READ) for path in _readable_paths()]
    files += [(Path("/dev/null"), landlock.READ_FILE | landlock.WRITE_FILE)]
    files += [(Path("/proc/self"), landlock.READ), (folder, landlock.WRITE)]
    if config.artifact_root.startswith("/"):
        files.append((Path(config.artifact_root), landlock.WRITE))
    return files


def _ports(config: InstanceConfig) -> set[int]:
    ports = {config.database.port}
    if config.artifact_root.startswith("s3://"):
        ports.add(443)
        for value in config.s3_environment.values():
            if value.startswith(("http://", "https://")):
                url = urllib.parse.urlsplit(value)
                ports.add(url.port or (443 if url.scheme == "https" else 80))
    return ports


def _needs_names(config: InstanceConfig) -> bool:
    if config.artifact_root.startswith("s3://"):
        return True
    try:
        ipaddress.ip_address(config.database.host)
    except ValueError:
        return config.database.host != "localhost"
    return False


def _limit_resources(memory_bytes: int, has_own_user: bool) -> None:
    files = min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if has_own_user:
        resource.setrlimit(resource.RLIMIT_NPROC, (THREADS, THREADS))
    if memory_bytes:
        # VmData is what RLIMIT_DATA counts; the zygote's share of it is not the tenant's.
        most = _status_field("VmData", 10) * 1024 + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _status_field(name: str, base: int) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1], base)
    raise RuntimeError(f"/proc/self/status has no {name}")


def _drop_capabilities() -> None:
    """Lose root's powers even where the user stays root; without them it is an ordinary user."""
    if os.geteuid() == 0:
        for capability in range(_LAST_CAPABILITY + 1):
            # Fails beyond the kernel's last one, and where the cell itself lacks the right.
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset refused to drop capabilities")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
