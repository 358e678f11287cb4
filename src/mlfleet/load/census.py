"""Every single process of a fleet over the time of a long run: processes.jsonl, twice a minute.

`resources.jsonl` knows roles; one leaking instance among a hundred would hide there.
"""

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

from mlfleet.errors import FleetError
from mlfleet.load import processes
from mlfleet.load.processes import Process
from mlfleet.load.roles import Roles
from mlfleet.runtime.folder import DataFolder

FILE = "processes.jsonl"
EVERY_S = 30.0


class Census:
    """Writes until it is stopped; a thread, since it mostly waits."""

    def __init__(self, folder: Path, data: DataFolder, every_s: float = EVERY_S) -> None:
        """Name the run's folder, the fleet's, and the pause between two lines."""
        self._path, self._data, self._every_s = folder / FILE, data, every_s
        self._roles: Roles | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="census", daemon=True)

    def __enter__(self) -> "Census":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._is_over.wait(self._every_s):
            with self._path.open("a") as file:
                file.write(json.dumps({"t": round(time.time(), 3), "processes": self._look()}))
                file.write("\n")

    def _look(self) -> dict[str, dict[str, Any]]:
        if (pid := self._data.holder()) is None:
            return {}
        if self._roles is None or pid not in self._roles.trees:
            self._roles = Roles({pid: "fleet"})
        found = {}
        for process, role in self._roles.of(processes.everything()).items():
            with contextlib.suppress(OSError, FleetError):
                found[str(process.pid)] = _weigh(process, role)
        return found


def _weigh(process: Process, role: str) -> dict[str, Any]:
    return {
        "role": role,
        # Proportional, not private: a page that the last neighbour stopped sharing would look new.
        "pss_bytes": processes.pss_bytes(process.pid),
        "shmem_bytes": processes.shared_memory_bytes(process.pid),
        "fds": processes.descriptors(process.pid) or 0,
    }


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run, none if nobody counted."""
    path = folder / FILE
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]
