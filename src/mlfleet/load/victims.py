"""Find the processes and connections of a running fleet that a strike may hit, and nobody else's.

A fleet is known by its data folder: the holder of the folder's lock is the supervisor, and what
descends from it is the fleet's. An instance outlives its zygote and is then nobody's child, so the
cell itself is asked which instances it has.
"""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from mlfleet.errors import FleetError, NotRunningError
from mlfleet.load import processes
from mlfleet.load.chaos import Kind
from mlfleet.load.processes import Process
from mlfleet.runtime.cell_admin import CellAdmin
from mlfleet.runtime.folder import DataFolder

_ZYGOTE = "mlfleet.cell.zygote"
"""In the command line of a zygote, and of the instances that were forked from it."""


@dataclasses.dataclass(frozen=True)
class Victim:
    """One process at the moment it was found."""

    process: Process
    name: str
    """For people: `instance of demo`, `gateway`."""

    def end(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal; return False if the process is gone, also if its number was given anew."""
        try:
            descriptor = os.pidfd_open(self.process.pid)
        except ProcessLookupError:
            return False
        with _closing(descriptor), contextlib.suppress(ProcessLookupError):
            now = processes.read(self.process.pid)
            if now is not None and now.started_s == self.process.started_s:
                signal.pidfd_send_signal(descriptor, number)
                return True
        return False


class Victims:
    """The processes of the fleet that runs on a data folder."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    def of(self, kind: Kind) -> list[Victim]:
        """Return the processes that a strike of this kind may hit, oldest first; maybe none."""
        find: dict[Kind, Callable[[], list[Victim]]] = {
            "instance": self._instances,
            "zygote": self._zygotes,
            "gateway": self.gateways,
            "connections": self.gateways,
            "sessions": self.postmasters,
            "postgres stop": self.postmasters,
            "postgres kill": self.postmasters,
        }
        return sorted(find[kind](), key=lambda one: (one.process.started_s, one.process.pid))

    def gateways(self) -> list[Victim]:
        """Return the front processes of the cells."""
        return [Victim(p, "gateway") for p in self._tree() if p.command.endswith("-m mlfleet.cell")]

    def postmasters(self) -> list[Victim]:
        """Return the embedded Postgres, none if the fleet uses another one."""
        supervisor = self._supervisor()
        return [
            Victim(p, "Postgres")
            for p in self._tree()
            if p.parent == supervisor and p.name == "postgres"
        ]

    def _zygotes(self) -> list[Victim]:
        gateways = {one.process.pid for one in self.gateways()}
        return [
            Victim(p, "zygote")
            for p in self._tree()
            if p.parent in gateways and _ZYGOTE in p.command
        ]

    def _instances(self) -> list[Victim]:
        found = []
        for cell in self._cells():
            for awake in _awake(cell):
                process = processes.read(awake["pid"]) if awake["pid"] else None
                if process is not None and _ZYGOTE in process.command:
                    found.append(Victim(process, f"instance of {awake['tenant']}"))
        return found

    def _cells(self) -> list[CellAdmin]:
        return [CellAdmin(name, path) for name, path in self._folder.read().cells.items()]

    def _tree(self) -> list[Process]:
        return processes.tree(self._supervisor())

    def _supervisor(self) -> int:
        if (pid := self._folder.holder()) is None:
            raise NotRunningError(f"no fleet is running on {self._folder.path}")
        return pid


def _awake(cell: CellAdmin) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = cell.status()["awake"]
    except FleetError:
        return []  # the gateway is starting again: nobody is there to be hit
    return found


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
