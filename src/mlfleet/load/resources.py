"""What the machine gives to a run, once a second: resources.jsonl, written by a process of its own.

The sampler is not in the process that makes the load, whose latencies it would spoil. It is a role
itself, so each report shows what it costs. It ends when the run ends, however that ends: it reads
its orders from a pipe, and stops when nobody holds the other end.

Proportional memory is dear: the kernel walks every page of a process for it, 2.7 ms for an instance
where all the rest of a line took 6 ms. So processes are weighed in turns, for `WEIGH_S` of CPU time
a second (each of 300 instances has its turn about twice a minute), and a line has sums every 5 s.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from mlfleet.errors import FleetError
from mlfleet.load import gateway_metrics, processes
from mlfleet.load.connections import Connections
from mlfleet.load.processes import Process
from mlfleet.load.roles import FLEET_ROLES, Effort, Key, Roles, key
from mlfleet.runtime.folder import DataFolder, FleetFile

FILE = "resources.jsonl"
EVERY_S = 1.0
MOST_CORES = 0.05
"""Where there are many processes, lines come less often: looking must not cost what it looks at."""
WEIGH_S = 0.03
"""CPU time for weighing in each line."""
TELL_EVERY_S = 5.0
"""Memory changes slowly."""
_TAIL_BYTES = 16384
_STOP_S = 5.0


class Sampler:
    """The sampling process, started by the run that it watches; ends with it."""

    def __init__(
        self,
        folder: Path,
        data: Path | None = None,
        trees: dict[str, int] | None = None,
        metrics_url: str | None = None,
        database_uri: str | None = None,
    ) -> None:
        """Name what is watched.

        Args:
            folder: of the run; lines are appended to its resources.jsonl.
            data: folder of the fleet on this machine: its roles, Postgres and gateway.
            trees: further roles by the pid whose tree is theirs: {"locust": os.getpid()} or
                {"stock": pid}.
            metrics_url: a gateway's /metrics, where there is no data folder.
            database_uri: Postgres whose connections are counted, where there is no data folder.
        """
        self.folder = folder
        self._orders = {
            "folder": str(folder),
            "data": str(data) if data else None,
            "trees": trees or {},
            "metrics_url": metrics_url,
            "database_uri": database_uri,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlfleet.load.resources"], stdin=subprocess.PIPE
        )
        assert self._process.stdin
        self._process.stdin.write(json.dumps(self._orders).encode() + b"\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End the process; everything it saw is in the file."""
        if self._process is None:
            return
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def latest(self) -> dict[str, Any] | None:
        """Return the newest line, None before the first."""
        return latest(self.folder)


def latest(folder: Path) -> dict[str, Any] | None:
    """Return the newest whole line of a run's resources, None before the first."""
    lines = recent(folder)
    return lines[-1] if lines else None


def recent(folder: Path) -> list[dict[str, Any]]:
    """Return the newest whole lines of a run's resources, some seconds of them."""
    with contextlib.suppress(FileNotFoundError), (folder / FILE).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - _TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")[1 if start else 0 : -1]
        return [json.loads(line) for line in lines]
    return []


class Weights:
    """Proportional memory of processes, weighed in turns."""

    def __init__(self) -> None:
        self._of: dict[Key, int | None] = {}
        """In order of weighing, who waits longest first; None: not weighed yet."""
        self._refused: set[Key] = set()

    def step(self, found: Iterable[Process]) -> None:
        """Weigh as many as the time allows, those first that wait longest."""
        there = {key(process) for process in found}
        self._of = {at: weight for at, weight in self._of.items() if at in there}
        self._of |= {at: None for at in there if at not in self._of}
        self._refused &= there
        end = time.thread_time() + WEIGH_S
        for at in [at for at in self._of if at not in self._refused]:
            self._of[at] = self._weigh(at)
            if time.thread_time() > end:
                return

    def _weigh(self, at: Key) -> int | None:
        del self._of[at]
        try:
            return processes.pss_bytes(at[0])
        except PermissionError:
            self._refused.add(at)
            return None

    def total(self, found: Collection[Process]) -> int | None:
        """Return the sum over a role; one that was not weighed yet counts as the mean of others.

        None if none is weighed, or any may not be: a part would look like a small whole.
        """
        keys = [key(process) for process in found]
        if not keys:
            return 0
        known = [weight for at in keys if (weight := self._of.get(at)) is not None]
        if not known or self._refused.intersection(keys):
            return None
        return round(sum(known) / len(known) * len(keys))


class Watch:
    """Makes one line after the other."""

    def __init__(self, orders: Mapping[str, Any]) -> None:
        """Follow the orders of `Sampler`."""
        self._data = DataFolder(Path(orders["data"])) if orders["data"] else None
        self._metrics_url: str | None = orders["metrics_url"]
        self._connections = Connections(orders["database_uri"])
        self._roles = Roles({pid: role for role, pid in orders["trees"].items()})
        self._roles.trees[os.getpid()] = "sampler"
        self._effort, self._weights, self._told = Effort(), Weights(), time.monotonic()
        self._machine = (time.monotonic(), processes.machine_cpu_s())

    def line(self) -> dict[str, Any]:
        """Return the figures of now."""
        began, now = time.thread_time(), time.time()
        self._find_fleet()
        line = {
            "t": round(now, 3),
            **(gateway_metrics.read(self._metrics_url) if self._metrics_url else {}),
            **self._connections.count(),
            "machine": self._use(),
            "roles": self._by_role(),
        }
        return line | {"sampled_s": round(time.thread_time() - began, 4)}

    def _find_fleet(self) -> None:
        if self._data is None:
            return
        with contextlib.suppress(FleetError, OSError, ValueError):
            fleet: FleetFile = self._data.read()
            self._roles.trees[fleet.pid] = "fleet"
            self._metrics_url = f"{fleet.url}/metrics"
            self._connections.uri = fleet.admin_uri

    def _use(self) -> dict[str, Any]:
        (then, used), cores = self._machine, os.cpu_count() or 1
        self._machine = (time.monotonic(), processes.machine_cpu_s())
        passed = self._machine[0] - then
        busy = (self._machine[1] - used) / passed / cores if passed else 0.0
        return {
            "busy": round(min(busy, 1.0), 4),
            "cores": cores,
            "available_bytes": processes.available_bytes(),
        }

    def _by_role(self) -> dict[str, Any]:
        roles = self._roles.of(processes.everything())
        self._effort.step(roles)
        self._weights.step(roles)
        # Rounded: a line comes some milliseconds early or late.
        is_told = round(time.monotonic() - self._told) >= TELL_EVERY_S
        self._told = time.monotonic() if is_told else self._told
        # A role without a process keeps its CPU time, and was there before its first process.
        members: dict[str, list[Process]] = {role: [] for role in self._effort.seconds}
        if "fleet" in self._roles.trees.values():
            members |= {role: [] for role in FLEET_ROLES}
        for process, role in roles.items():
            members[role].append(process)
        return {
            role: {
                "count": len(found),
                "cpu_s": round(self._effort.seconds.get(role, 0.0), 3),
                "pss_bytes": self._weights.total(found) if is_told else None,
                "fds": _descriptors(found),
            }
            for role, found in members.items()
        }


def _descriptors(found: Iterable[Process]) -> int | None:
    """Return how many files a role has open, None if it may not be asked."""
    counts = [processes.descriptors(process.pid) for process in found]
    known = [count for count in counts if count is not None]
    return sum(known) if known or not counts else None


def main() -> None:
    """Follow the orders on stdin until it ends."""
    orders = json.loads(sys.stdin.buffer.readline())
    watch = Watch(orders)
    with (Path(orders["folder"]) / FILE).open("a") as file:
        due = time.monotonic()
        while True:
            began = time.thread_time()
            file.write(json.dumps(watch.line()) + "\n")
            file.flush()
            took = time.thread_time() - began
            # A line that came late is not made up for: times are in the lines.
            due = max(due + max(EVERY_S, took / MOST_CORES), time.monotonic())
            if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
                return


if __name__ == "__main__":
    main()
