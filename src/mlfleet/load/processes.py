"""What a tree of processes costs, read from `/proc`: proportional memory, CPU time, peak memory.

Proportional set size (PSS) divides each shared page by the number of processes that map it, so
the sum over a tree is what the tree really occupies. Reading it needs root or the same user.
"""

import dataclasses
import os
import resource
import signal
from collections.abc import Iterable
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Process:
    """One process at one moment."""

    pid: int
    parent: int
    name: str
    command: str
    cpu_s: float
    """User and system time since it started."""
    waited_cpu_s: float
    """The same of its children, and of theirs, that have ended and that it waited for."""
    started_s: float
    """Start on the clock that `time.CLOCK_BOOTTIME` reads, in ticks of 10 ms."""


def read(pid: int) -> Process | None:
    """Return a process, None if it is gone."""
    try:
        # Not pathlib, which takes longer than the kernel: a sampler reads a thousand each second.
        stat = _bytes(f"/proc/{pid}/stat").decode(errors="replace")
        raw = _bytes(f"/proc/{pid}/cmdline")
    except OSError:
        return None
    name, _, rest = stat[stat.index("(") + 1 :].rpartition(")")
    fields = rest.split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        name=name,
        command=raw.replace(b"\0", b" ").decode(errors="replace").strip(),
        cpu_s=(int(fields[11]) + int(fields[12])) * _TICK_S,
        waited_cpu_s=(int(fields[13]) + int(fields[14])) * _TICK_S,
        started_s=int(fields[19]) * _TICK_S,
    )


def everything() -> list[Process]:
    """Return all processes of the machine."""
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    return [process for pid in pids if (process := read(pid)) is not None]


def tree(root: int) -> list[Process]:
    """Return a process and all its descendants."""
    children: dict[int, list[Process]] = {}
    for process in everything():
        children.setdefault(process.parent, []).append(process)
    top = read(root)
    found = [top] if top else []
    for process in found:
        found.extend(children.get(process.pid, []))
    return found


def pss_bytes(pid: int) -> int:
    """Return the proportional memory of a process, 0 if it is gone."""
    return _kib(f"/proc/{pid}/smaps_rollup", "Pss:")


def shared_memory_bytes(pid: int) -> int:
    """Return a process' part of memory that is shared on purpose, as Postgres' buffers are."""
    return _kib(f"/proc/{pid}/smaps_rollup", "Pss_Shmem:")


def private_bytes(pid: int) -> int:
    """Return the memory that would be free if the process ended, 0 if it is gone."""
    rollup = f"/proc/{pid}/smaps_rollup"
    return _kib(rollup, "Private_Clean:") + _kib(rollup, "Private_Dirty:")


def total_pss_bytes(processes: Iterable[Process]) -> int:
    """Return the proportional memory of several processes together."""
    return sum(pss_bytes(process.pid) for process in processes)


def resident_bytes(pid: int) -> int:
    """Return the resident memory now."""
    return _kib(f"/proc/{pid}/status", "VmRSS:")


def peak_bytes(pid: int) -> int:
    """Return the most resident memory since `reset_peak`."""
    return _kib(f"/proc/{pid}/status", "VmHWM:")


def reset_peak(pid: int) -> None:
    """Let the kernel count the peak of resident memory anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def end(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a process a signal that ends it."""
    os.kill(pid, number)


def machine_cpu_s() -> float:
    """Return the CPU time of all processes since the machine started, time stolen included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) * _TICK_S


def own_cpu_s() -> float:
    """Return the CPU time of this process and of its descendants that have ended."""
    own, ended = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def available_bytes() -> int:
    """Return the memory that new programs could have without swapping."""
    return _kib("/proc/meminfo", "MemAvailable:")


def descriptors(pid: int) -> int | None:
    """Return how many files a process has open, None if it is gone or may not be asked."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return sum(1 for _ in entries)
    except OSError:
        return None


def _bytes(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def _kib(path: str, field: str) -> int:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
