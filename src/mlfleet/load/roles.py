"""Decide what each process of a run is, and how much CPU time each role has had.

Pure: processes come in, roles and seconds go out. A process keeps the role that it once had: an
instance outlives its zygote and is then nobody's child.

A process that ends between two samples took CPU time that no sample saw. Its parent's count of
children that it waited for has it, so nothing is lost: instances are paid for by their zygote, the
sessions of Postgres by their postmaster. Only what was killed together with its parent stays short
by the time since the last sample.
"""

from collections.abc import Iterable, Mapping

from mlfleet.load.processes import Process

FLEET_ROLES = ("gateway", "zygote", "instance", "Postgres", "supervisor")
CLIENT_ROLES = ("locust", "sampler")
ROLES = (*FLEET_ROLES, "stock", *CLIENT_ROLES)
"""In the order in which people are shown them; `stock` is a `mlflow server` to compare with."""
_ZYGOTE = "mlfleet.cell.zygote"
_CHILD_ROLE = {"zygote": "instance", "gateway": "zygote"}

Key = tuple[int, float]
"""Pid and start: pids are given anew."""


def key(process: Process) -> Key:
    """Return what tells a process from all others, earlier ones of the same pid too."""
    return process.pid, process.started_s


class Roles:
    """Who is what, over the time of a run."""

    def __init__(self, trees: Mapping[int, str]) -> None:
        """Start with the roots that are known.

        Args:
            trees: role by the pid whose tree has it; a tree of role `fleet` is told apart into
                supervisor, gateway, zygote, instance and Postgres.
        """
        self.trees = dict(trees)
        self._known: dict[Key, str] = {}

    def of(self, processes: Iterable[Process]) -> dict[Process, str]:
        """Return the processes of the run with their roles; others are left out."""
        by_pid = {process.pid: process for process in processes}
        found = {
            process: role for process in by_pid.values() if (role := self._of(process, by_pid))
        }
        self._known = {key(process): role for process, role in found.items()}
        return found

    def _of(self, process: Process, by_pid: Mapping[int, Process]) -> str | None:
        root = self._root(process, by_pid)
        role = self._in_fleet(process, by_pid) if root == "fleet" else root
        # `launch.py` becomes the gateway: what a process is can only be told once it is that.
        known = self._known.get(key(process))
        return known if role is None or known == "instance" else role

    def _root(self, process: Process, by_pid: Mapping[int, Process]) -> str | None:
        at: Process | None = process
        while at is not None and at.pid not in self.trees:
            at = by_pid.get(at.parent)
        return self.trees[at.pid] if at is not None else None

    def _in_fleet(self, process: Process, by_pid: Mapping[int, Process]) -> str:
        if process.name == "postgres":
            return "Postgres"
        if _ZYGOTE in process.command:
            parent = by_pid.get(process.parent)
            return "instance" if parent and _ZYGOTE in parent.command else "zygote"
        return "gateway" if process.command.endswith("-m mlfleet.cell") else "supervisor"


class Effort:
    """CPU seconds of each role since the first sample."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last: dict[Key, tuple[Process, str]] = {}
        self._is_first = True

    def step(self, roles: Mapping[Process, str]) -> None:
        """Count what was used since the last step."""
        now = {key(process): (process, role) for process, role in roles.items()}
        for at, (process, role) in now.items():
            before, _ = self._last.get(at, (None, role))
            if before is not None:
                self._add(role, process.cpu_s - before.cpu_s)
                self._add(_CHILD_ROLE.get(role, role), self._of_the_gone(process, before, now))
            elif not self._is_first:
                self._add(role, process.cpu_s)
            else:
                self._add(role, 0.0)
        self._last, self._is_first = now, False

    def _of_the_gone(
        self, process: Process, before: Process, now: Mapping[Key, tuple[Process, str]]
    ) -> float:
        """Return what children that ended since the last step had used since then."""
        if (waited := process.waited_cpu_s - before.waited_cpu_s) <= 0:
            return 0.0
        seen = sum(
            gone.cpu_s + gone.waited_cpu_s
            for at, (gone, _) in self._last.items()
            if gone.parent == process.pid and at not in now
        )
        return waited - seen

    def _add(self, role: str, seconds: float) -> None:
        self.seconds[role] = self.seconds.get(role, 0.0) + max(0.0, seconds)
