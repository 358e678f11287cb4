"""What hostile code inside an instance tries. Each attack returns when it succeeded, else raises.

Run by `hostile_zygote.py` in a confined instance. Nothing here may be imported by the product.
"""

# The calls an attacker makes, one for one:
# ruff: noqa: PTH104, PTH123, PTH208

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Attack = Callable[..., Any]
ATTACKS: dict[str, Attack] = {}
_libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_DETACH = 16, 17


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def _call(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


# Files of another tenant, and the fleet's secrets


@attack
def list_artifacts(neighbour_root: str, **_: Any) -> Any:
    return os.listdir(neighbour_root)


@attack
def read_artifact(neighbour_file: str, **_: Any) -> Any:
    return Path(neighbour_file).read_text()


@attack
def read_artifact_through_a_link(neighbour_file: str, own_root: str, **_: Any) -> Any:
    link = Path(own_root, "link")
    link.unlink(missing_ok=True)
    link.symlink_to(neighbour_file)
    return link.read_text()


@attack
def hard_link_artifact(neighbour_file: str, own_root: str, **_: Any) -> None:
    target = Path(own_root, "hard")
    target.unlink(missing_ok=True)
    target.hardlink_to(neighbour_file)


@attack
def write_artifact(neighbour_root: str, **_: Any) -> None:
    Path(neighbour_root, "planted").write_text("x")


@attack
def change_mode(neighbour_file: str, **_: Any) -> None:
    Path(neighbour_file).chmod(0o644)


@attack
def change_times(neighbour_file: str, **_: Any) -> None:
    os.utime(neighbour_file, (1, 1))


@attack
def change_owner(neighbour_file: str, **_: Any) -> None:
    os.chown(neighbour_file, os.getuid(), os.getgid())


@attack
def set_attribute(neighbour_file: str, **_: Any) -> None:
    os.setxattr(neighbour_file, "user.x", b"1")


@attack
def rename_artifact(neighbour_file: str, **_: Any) -> None:
    os.rename(neighbour_file, neighbour_file + ".moved")
    os.rename(neighbour_file + ".moved", neighbour_file)


@attack
def steal_artifact(neighbour_file: str, own_root: str, **_: Any) -> None:
    os.rename(neighbour_file, own_root + "/stolen")
    os.rename(own_root + "/stolen", neighbour_file)


@attack
def truncate_artifact(neighbour_file: str, **_: Any) -> None:
    os.truncate(neighbour_file, 1)


@attack
def watch_artifacts(neighbour_root: str, **_: Any) -> None:
    descriptor = _call(_libc.inotify_init1(0))
    _call(_libc.inotify_add_watch(descriptor, neighbour_root.encode(), 0xFFF))


@attack
def list_data_folder(data: str, **_: Any) -> Any:
    return os.listdir(data)


@attack
def read_secret_key(data: str, **_: Any) -> Any:
    return Path(data, "secret.key").read_text()


@attack
def read_logs_of_others(data: str, **_: Any) -> Any:
    return Path(data, "logs", "b.log").read_bytes()


@attack
def read_own_log_through_proc(**_: Any) -> Any:
    return Path("/proc/self/fd/1").read_bytes()


@attack
def read_zygote_temporary_files(own_folder: str, **_: Any) -> Any:
    return os.listdir(Path(own_folder).parent)


# Other processes


@attack
def read_memory_by_proc(pid: int, **_: Any) -> Any:
    start = int(Path(f"/proc/{pid}/maps").read_text().split("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(start)
        return memory.read(16)


@attack
def read_memory_by_call(pid: int, **_: Any) -> None:
    # The neighbour was forked from the same zygote, so its addresses are ours.
    mine, buffer = ctypes.create_string_buffer(16), ctypes.create_string_buffer(16)
    local = struct.pack("@PN", ctypes.addressof(buffer), 16)
    remote = struct.pack("@PN", ctypes.addressof(mine) & ~0xFFF, 16)
    _call(_libc.process_vm_readv(pid, local, 1, remote, 1, 0))


@attack
def read_environment(pid: int, **_: Any) -> Any:
    return Path(f"/proc/{pid}/environ").read_bytes()


@attack
def read_command_line(pid: int, **_: Any) -> Any:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@attack
def list_descriptors(pid: int, **_: Any) -> Any:
    return os.listdir(f"/proc/{pid}/fd")


@attack
def send_signal(pid: int, **_: Any) -> None:
    os.kill(pid, signal.SIGCONT)


@attack
def send_signal_to_group(**_: Any) -> None:
    os.kill(0, signal.SIGCONT)


@attack
def send_signal_to_thread(pid: int, **_: Any) -> None:
    _call(_libc.syscall(200, pid, signal.SIGCONT))


@attack
def queue_signal(pid: int, **_: Any) -> None:
    info = struct.pack("iiii", int(signal.SIGCONT), 0, -1, 0) + bytes(112)
    _call(_libc.syscall(129, pid, signal.SIGCONT, info))


@attack
def send_signal_by_pidfd(pid: int, **_: Any) -> None:
    signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGCONT)


@attack
def send_signal_by_file(pid: int, **_: Any) -> None:
    ours, _theirs = socket.socketpair()
    fcntl.fcntl(ours, fcntl.F_SETOWN, pid)


@attack
def trace(pid: int, **_: Any) -> None:
    _call(_libc.ptrace(PTRACE_ATTACH, pid, 0, 0))
    os.waitpid(pid, 0)
    _call(_libc.ptrace(PTRACE_DETACH, pid, 0, 0))


@attack
def take_descriptor(pid: int, **_: Any) -> None:
    descriptor = _call(_libc.syscall(434, pid, 0))
    _call(_libc.syscall(438, descriptor, 1, 0))


@attack
def change_priority(pid: int, **_: Any) -> None:
    os.setpriority(os.PRIO_PROCESS, pid, 1)


@attack
def change_scheduling(pid: int, **_: Any) -> None:
    os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))


@attack
def change_processors(pid: int, **_: Any) -> None:
    os.sched_setaffinity(pid, os.sched_getaffinity(0))


@attack
def change_limits(pid: int, **_: Any) -> None:
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


# Sockets


@attack
def connect_to_socket(unix_socket: str, **_: Any) -> None:
    socket.socket(socket.AF_UNIX).connect(unix_socket)


@attack
def send_to_datagram_socket(datagram_socket: str, **_: Any) -> None:
    ours, _theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.sendto(b"x", datagram_socket)


@attack
def connect_to_abstract_socket(abstract_socket: str, **_: Any) -> None:
    socket.socket(socket.AF_UNIX).connect("\0" + abstract_socket)


@attack
def reconnect_a_pair(unix_socket: str, **_: Any) -> None:
    # A stream pair is connected for good; this must never have worked, confined or not.
    ours, _theirs = socket.socketpair()
    ours.connect(unix_socket)


@attack
def connect_to_other_port(other_port: int, **_: Any) -> None:
    socket.create_connection(("127.0.0.1", other_port), 5).close()


@attack
def send_datagram(other_port: int, **_: Any) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", other_port))


@attack
def listen(**_: Any) -> None:
    socket.create_server(("127.0.0.1", 0)).close()


# Programs, processes and the kernel


@attack
def start_program(**_: Any) -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


@attack
def fork(**_: Any) -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attack
def become_root(**_: Any) -> None:
    os.setresuid(1, 1, 0)
    os.setresuid(0, 0, 0)


@attack
def make_namespace(**_: Any) -> None:
    _call(_libc.unshare(0x10000000 if os.getuid() else 0x20000))


@attack
def mount(own_root: str, **_: Any) -> None:
    _call(_libc.mount(b"none", own_root.encode(), b"tmpfs", 0, None))
    _call(_libc.umount2(own_root.encode(), 0))


@attack
def share_memory(**_: Any) -> None:
    _call(_libc.shmget(0x4D4C, 4096, 0o1600))


@attack
def use_io_uring(**_: Any) -> None:
    os.close(_call(_libc.syscall(425, 4, bytes(120))))


@attack
def take_too_much_memory(**_: Any) -> None:
    bytearray(300 * 1024 * 1024)


@attack
def take_memory_that_is_not_counted(**_: Any) -> None:
    mmap.mmap(-1, 300 * 1024 * 1024).close()


@attack
def connect_to_database(uri: str, **_: Any) -> None:
    import psycopg2

    psycopg2.connect(uri).close()


def perform(name: str, arguments: dict[str, Any]) -> str:
    """Return "succeeded", or "refused" with the reason."""
    try:
        ATTACKS[name](**arguments)
    except (OSError, MemoryError) as exc:
        code = getattr(exc, "errno", None)
        return f"refused: {errno.errorcode.get(code, type(exc).__name__)}"  # type: ignore[arg-type]
    except Exception as exc:
        return f"refused: {exc}"
    return "succeeded"
