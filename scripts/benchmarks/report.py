"""Rows of the result table, their verdicts, and the two files that a run writes."""

import dataclasses
import datetime
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.effort import Effort

BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of figures -->"


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure to reach, in words, and whether the run reached it; None: not tried in this run."""

    text: str
    is_met: bool | None


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    measured: str
    stock: str = ""
    reach: Goal | None = None
    stretch: Goal | None = None
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Everything that was measured for this row, for the JSON file."""


def verdict(goal: Goal | None) -> str:
    """Return a goal and its verdict in one cell of the table."""
    if goal is None:
        return ""
    word = {True: "**met**", False: "**not met**", None: "not tried"}[goal.is_met]
    return f"{goal.text}: {word}"


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | measured | stock | reach | stretch |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [row.what, row.measured, row.stock, verdict(row.reach), verdict(row.stretch)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Return what a reader must know of the machine and the programs to judge the figures."""
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name") or line.startswith("CPU part")
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": os.cpu_count(),
        "cpu": cpu,
        "memory_gib": round(memory_kib / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "mlflow": metadata.version("mlflow"),
        "commit": _commit(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    folder = Path(__file__).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in value.items())
    return str(value)


def write(
    rows: list[Row], about: dict[str, Any], effort: Effort, command: str, folder: Path
) -> None:
    """Write benchmarks.json, and the table into benchmarks.md between its two markers.

    Args:
        rows: the table, in order.
        about: what `machine` returned before the run, and what the run added.
        effort: the sizes of the run.
        command: what to type to repeat it.
        folder: where the two files are; a missing benchmarks.md is made of the table alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "command": command,
        "machine": about,
        "effort": dataclasses.asdict(effort),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    (folder / "benchmarks.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    facts = "\n".join(
        f"- {name.replace('_', ' ')}: {_words(value)}" for name, value in about.items()
    )
    text = f"{BEGIN}\n\n`{command}` ({effort.name} run)\n\n{facts}\n\n{table(rows)}\n\n{END}"
    page = folder / "benchmarks.md"
    old = page.read_text() if page.exists() else f"{BEGIN}{END}\n"
    before, _, rest = old.partition(BEGIN)
    page.write_text(before + text + rest.partition(END)[2])
