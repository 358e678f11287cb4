"""Put ever more users at a server until it is too slow: the probes that `compare` decides on.

Each probe is a load run of its own with a folder of its own, accounts included, so that every
figure of a comparison can be looked at again.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlfleet.errors import FleetError
from mlfleet.load import compare, requests
from mlfleet.load.compare import Probe
from mlfleet.load.requests import merged
from mlfleet.load.resources import Sampler
from mlfleet.load.timeline import grown

Row = Mapping[str, Any]

SPAWN_S, SETTLE_S = 3.0, 4.0
"""Before the window: users arrive, instances wake, stock's workers fill their pools."""
END_S = 300.0
"""For last answers, accounts and report."""
_MLFLEET = [sys.executable, "-c", "from mlfleet.cli import main; main()"]
_NOT_SERVER = ("locust", "sampler")


@dataclasses.dataclass(frozen=True)
class Server:
    """One side while it runs."""

    name: str
    is_stock: bool
    options: tuple[str, ...]
    """Of `mlfleet load run`: which tenants, or which targets."""
    data: Path
    """Folder of the fleet, whose Postgres serves both sides."""
    stock_pid: int | None = None


@dataclasses.dataclass(frozen=True)
class Trial:
    """How probes are made."""

    folder: Path
    """Each probe's folder is made in it."""
    mix: str
    window_s: float
    p99_s: float
    say: Callable[[str], None]

    def search(self, server: Server, first: int) -> list[Probe]:
        """Return the probes that find the most users that a server bears."""
        probes: list[Probe] = []
        while (users := compare.next_users(probes, first, self.p99_s)) is not None:
            probes.append(self.probe(server, users))
            self.say(f"{server.name}: {_said(probes[-1], self.p99_s)}")
        return probes

    def probe(self, server: Server, users: int) -> Probe:
        """Put so many users at a server for a while."""
        folder = self._new_folder(server)
        sampler = Sampler(folder, server.data, _trees(server))
        if server.is_stock:  # a run with targets of its own does not know what to watch
            folder.mkdir(mode=0o700, parents=True)
            sampler.start()
        try:
            self._run(server, users, folder)
        finally:
            sampler.stop()
        return self._read(folder, users)

    def _new_folder(self, server: Server) -> Path:
        word = "-".join(server.name.replace(",", "").split())
        number = sum(path.is_dir() for path in self.folder.glob(f"{word}-*")) + 1
        return self.folder / f"{word}-{number:02d}"

    def _run(self, server: Server, users: int, folder: Path) -> None:
        seconds = SPAWN_S + SETTLE_S + self.window_s
        options = ["-u", str(users), "-r", str(max(1, round(users / SPAWN_S)))]
        options += ["-t", f"{seconds:.0f}s", "--mix", self.mix, "--run-folder", str(folder)]
        command = [*_MLFLEET, "load", "run", *options, *server.options]
        log = folder.with_suffix(".log")
        with log.open("ab") as out:
            subprocess.run(command, stdout=out, stderr=out, timeout=seconds + END_S, check=False)
        if not (folder / "run.json").exists() or not any(folder.glob(requests.PATTERN)):
            raise FleetError(f"no load was put on {server.name}: read {log}")

    def _read(self, folder: Path, users: int) -> Probe:
        check = folder / "check.json"
        findings = json.loads(check.read_text())["findings_in_all"] if check.exists() else -1
        tallies, lines = requests.read(folder)
        rows = list(requests.read_lines(folder, "resources.jsonl"))
        probe = measured(users, tallies, lines, rows, self.window_s)
        figures = probe.figures | {"findings": findings, "run": folder.name}
        return dataclasses.replace(probe, figures=figures)


def measured(
    users: int,
    tallies: Mapping[requests.Key, requests.Tally],
    lines: Sequence[requests.Line],
    rows: Sequence[Row],
    window_s: float,
) -> Probe:
    """Return what the last whole seconds with all users say; errors are of the whole run.

    Args:
        users: how many there were.
        tallies: by second, name and warmth.
        lines: of users, by second and process.
        rows: of resources.
        window_s: how many seconds count.
    """
    full = sorted({line["t"] for line in lines if line["users"]})
    # The last second is cut short: users are told to stop in it.
    window = set(full[-int(window_s) - 1 : -1])
    every = merged(tallies.values())
    inside = merged(tally for key, tally in tallies.items() if key[0] in window)
    intended = sum(line["intended"] for line in lines if line["t"] in window)
    return Probe(
        users=users,
        offered_per_s=intended / max(1, len(window)),
        answered_per_s=(inside.n - inside.errors.total()) / max(1, len(window)),
        p50_s=inside.latencies.percentile(0.5) or 0.0,
        p99_s=inside.latencies.percentile(0.99) or float("inf"),
        answers=every.n,
        errors=every.errors.total(),
        figures=_cost(rows, every.n),
    )


def _cost(rows: Sequence[Row], answers: int) -> dict[str, Any]:
    """Return CPU of the server with its Postgres, and memory of the server alone."""
    roles = {role for row in rows for role in row["roles"]} - set(_NOT_SERVER)
    cpu_s = sum(grown(rows, _of(role, "cpu_s")) for role in roles)
    memory = [_most(rows, role) for role in roles - {"Postgres"}]
    return {
        "cpu_s": round(cpu_s, 2),
        "cpu_ms": round(1000 * cpu_s / max(1, answers), 2),
        "pss_mib": round(sum(memory) / 1024**2, 1),
        "busy": round(max((row["machine"]["busy"] for row in rows), default=0.0), 3),
    }


def _of(role: str, field: str) -> Callable[[Row], float | None]:
    return lambda row: row["roles"].get(role, {}).get(field)


def _most(rows: Iterable[Row], role: str) -> float:
    value = _of(role, "pss_bytes")
    return max((found for row in rows if (found := value(row)) is not None), default=0.0)


def _trees(server: Server) -> dict[str, int]:
    return {"stock": server.stock_pid} if server.stock_pid else {}


def _said(probe: Probe, p99_s: float) -> str:
    verdict = "borne" if probe.is_within(p99_s) else "too many"
    return (
        f"{probe.users} users: {probe.answered_per_s:.0f}/s, p50 {1000 * probe.p50_s:.0f} ms,"
        f" p99 {1000 * probe.p99_s:.0f} ms, {probe.errors} errors: {verdict}"
    )
