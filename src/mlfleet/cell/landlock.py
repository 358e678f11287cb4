"""Confine this process to some files and TCP ports with Landlock, as far as the kernel knows it.

Three system calls through ctypes; glibc has no wrappers and the packages on PyPI do no more. Each
version (ABI) of Landlock can restrict more: rights it does not know are left out, and `missing`
says so in words. Source: Documentation/userspace-api/landlock.rst, include/uapi/linux/landlock.h.
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
REFER = 1 << 13
TRUNCATE = 1 << 14

READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
"""Everything for ordinary files and folders; no links, devices, sockets, pipes and programs."""
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
_ALL_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_NET_BIND, _NET_CONNECT = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the version of Landlock this kernel offers; 0 means none (off, or not permitted)."""
    version = int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    return max(version, 0)


def missing(version: int) -> list[str]:
    """Return, in words, what Landlock of this version cannot give."""
    if version == 0:
        return [
            "Landlock is not available (Linux 5.13 or later, enabled at boot and allowed by the "
            "container's seccomp profile): a tenant's code can read and write whatever its user can"
        ]
    limits = []
    if version < 4:
        limits.append("Landlock cannot limit TCP before Linux 6.7: a tenant can connect anywhere")
    if version < 6:
        limits.append(
            "Landlock cannot scope signals before Linux 6.12: only the system call filter "
            "keeps a tenant from signalling processes of its user"
        )
    return limits


def restrict(files: Iterable[tuple[Path, int]], ports: Iterable[int]) -> None:
    """Restrict this process for good; needs `no_new_privs` or CAP_SYS_ADMIN.

    Args:
        files: path and rights beneath it; one that is not there or not reachable is skipped.
        ports: TCP ports that may be connected to, on any host.

    Raises:
        OSError: the kernel refused.
    """
    version = abi()
    if version == 0:
        return
    known = max(rights for since, rights in _ALL_FILE_RIGHTS.items() if since <= version)
    ruleset = _create_ruleset(version, known)
    try:
        for path, rights in files:
            _allow_path(ruleset, path, rights & known)
        if version >= 4:
            for port in ports:
                _add_rule(ruleset, _RULE_NET_PORT, struct.pack("=QQ", _NET_CONNECT, port))
        _check(_libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)


def _create_ruleset(version: int, known: int) -> int:
    fields = [known]
    if version >= 4:
        fields.append(_NET_BIND | _NET_CONNECT)
    if version >= 6:
        fields.append(_SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    size = ctypes.c_size_t(len(attributes))
    return _check(_libc.syscall(_CREATE_RULESET, attributes, size, ctypes.c_uint32(0)))


def _allow_path(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        _add_rule(ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, descriptor))
    finally:
        os.close(descriptor)


def _add_rule(ruleset: int, kind: int, rule: bytes) -> None:
    _check(_libc.syscall(_ADD_RULE, ruleset, ctypes.c_int(kind), rule, ctypes.c_uint32(0)))


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)} ({errno.errorcode.get(code)})")
    return result
