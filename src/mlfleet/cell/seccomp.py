"""Refuse the system calls that Landlock does not guard and a tenant's server never needs.

A classic BPF program, installed with prctl; it needs `no_new_privs` or CAP_SYS_ADMIN and no root.
What is refused answers EPERM (an unknown call ENOSYS), so code that merely tries goes on. A call
from another architecture's table (32-bit, x32) is refused whole: its numbers mean other things.
Source: Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/{seccomp,filter}.h.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Iterable

from mlfleet.cell.syscalls import NEWEST, REFUSED, RULED

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _JEQ, _JGT, _JSET, _RET = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NR, _ARCH, _ARGS = 0, 4, 16
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine to (column in the table of numbers, AUDIT_ARCH constant)."""

_CLONE_THREAD = 0x10000
_MAP_SHARED_ANONYMOUS = 0x21
_SOCKET_TYPE_MASK_OFF = ~(socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) & 0xFFFFFFFF
_SIGNAL_OWNER_COMMANDS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals by way of a file
_SIGNAL_OWNER_REQUESTS = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
_AND = 0x54

Instruction = tuple[int, int, int, int]
_libc = ctypes.CDLL(None, use_errno=True)


def is_supported() -> bool:
    """Return whether there is a filter for this machine's architecture."""
    return platform.machine() in _ARCHITECTURES


def install(may_use_udp: bool) -> None:
    """Filter this process's system calls for good (all later threads too).

    Args:
        may_use_udp: name resolution needs it; without, no datagram can leave.

    Raises:
        OSError: the kernel refused.
    """
    program = assemble(platform.machine(), os.getpid(), may_use_udp)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, filter_program, 0, 0) != 0:
        code_number = ctypes.get_errno()
        raise OSError(code_number, f"seccomp: {os.strerror(code_number)}")


def assemble(machine: str, pid: int, may_use_udp: bool) -> list[Instruction]:
    """Return the filter program for a machine and a process."""
    column, arch = _ARCHITECTURES[machine]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, arch),
        (_RET, 0, 0, _ERRNO | errno.EPERM),
        (_LOAD, 0, 0, _NR),
        # x32's numbers start at 2^30, so they fall under this too.
        (_JGT, 0, 1, NEWEST),
        (_RET, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            program += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ERRNO | errno.EPERM)]
    for name, body in _rules(pid, may_use_udp).items():
        number = RULED[name][column]
        assert number is not None
        program += [(_JEQ, 0, len(body) + 1, number), *body, (_LOAD, 0, 0, _NR)]
    return [*program, (_RET, 0, 0, _ALLOW)]


def _rules(pid: int, may_use_udp: bool) -> dict[str, list[Instruction]]:
    """What is refused depending on arguments; each body falls through when the call is fine."""
    kinds = [socket.SOCK_STREAM, *([socket.SOCK_DGRAM] if may_use_udp else [])]
    stream = _refuse_unless(1, [socket.SOCK_STREAM], mask=_SOCKET_TYPE_MASK_OFF)
    return {
        "kill": _refuse_unless(0, [pid]),
        "tkill": _refuse_unless(0, [pid]),
        "tgkill": _refuse_unless(0, [pid]),
        "prlimit64": _refuse_unless(0, [0]),
        # Threads yes, processes no. clone3 hides its flags in memory: glibc then takes clone.
        "clone": [_load(0), (_JSET, 1, 0, _CLONE_THREAD), _refuse()],
        "clone3": [_refuse(errno.ENOSYS)],
        # A null path means the descriptor itself, which Landlock let this process open.
        "utimensat": _refuse_unless(1, [0]) + _refuse_unless_zero_above(1),
        # A datagram pair could still send to a neighbour's socket by path; a stream pair cannot.
        "socketpair": stream,
        "socket": _refuse_unless(0, [socket.AF_INET, socket.AF_INET6])
        + _refuse_unless(1, kinds, mask=_SOCKET_TYPE_MASK_OFF),
        "fcntl": _refuse_if(1, _SIGNAL_OWNER_COMMANDS),
        "ioctl": _refuse_if(1, _SIGNAL_OWNER_REQUESTS),
        # Shared anonymous memory is not counted by the limit on data.
        "mmap": [
            _load(3),
            (_AND, 0, 0, _MAP_SHARED_ANONYMOUS),
            (_JEQ, 0, 1, _MAP_SHARED_ANONYMOUS),
            _refuse(),
        ],
    }


def _refuse(code: int = errno.EPERM) -> Instruction:
    return (_RET, 0, 0, _ERRNO | code)


def _load(argument: int, high: bool = False) -> Instruction:
    # Both architectures are little-endian: the low half comes first.
    return (_LOAD, 0, 0, _ARGS + 8 * argument + (4 if high else 0))


def _refuse_unless(
    argument: int, allowed: Iterable[int], mask: int | None = None
) -> list[Instruction]:
    values = list(allowed)
    masking = [] if mask is None else [(_AND, 0, 0, mask)]
    tests = [(_JEQ, len(values) - n, 0, value) for n, value in enumerate(values)]
    return [_load(argument), *masking, *tests, _refuse()]


def _refuse_unless_zero_above(argument: int) -> list[Instruction]:
    return [_load(argument, high=True), (_JEQ, 1, 0, 0), _refuse()]


def _refuse_if(argument: int, refused: Iterable[int]) -> list[Instruction]:
    tests = [part for value in refused for part in ((_JEQ, 0, 1, value), _refuse())]
    return [_load(argument), *tests]
