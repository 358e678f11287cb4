"""One row of the table, the file that keeps all rows, and the block in the docs made of them.

Rows are run one at a time, some of them for most of an hour, so each is kept with its own date,
commit and command, and the table is made of whatever is kept.
"""

import dataclasses
import datetime
import json
import os
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- load figures -->", "<!-- end of load figures -->"
JSON, PAGE = "load-figures.json", "benchmarks.md"


@dataclasses.dataclass(frozen=True)
class Figure:
    """What one row measured."""

    what: str
    reach: str
    measured: str
    is_met: bool
    beside: str = ""
    """What stands beside it: stock, or a limit of the machine."""
    raw: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Everything behind it, for the JSON file."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """A figure with where and when it was made."""

    figure: Figure
    date: str
    command: str
    effort: str
    machine: dict[str, Any]
    others: float | None
    """Cores that programs which are no part of the run took meanwhile."""


def today() -> str:
    """Return the time to the minute, in UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def keep(docs: Path, name: str, kept: Kept) -> None:
    """Put a row into the JSON file, in place of an older one of its name."""
    rows = _read(docs)
    rows[name] = dataclasses.asdict(kept)
    draft = docs / f"{JSON}.new"
    draft.write_text(json.dumps(rows, indent=1, default=str) + "\n")
    draft.rename(docs / JSON)


def kept(docs: Path) -> dict[str, Kept]:
    """Return the rows of the JSON file by name."""
    return {
        name: Kept(**{**row, "figure": Figure(**row["figure"])})
        for name, row in _read(docs).items()
    }


def _read(docs: Path) -> dict[str, Any]:
    path = docs / JSON
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return rows


def block(rows: dict[str, Kept], order: list[str]) -> str:
    """Return the block of the docs: the table, then when, where and how each row was made."""
    names = [name for name in order if name in rows]
    lines = [BEGIN, "", "| | what | measured | beside it | reach |", "|---|---|---|---|---|"]
    lines += [_line(name, rows[name].figure) for name in names]
    lines += ["", "| | date | run | other programs took | commit |", "|---|---|---|---|---|"]
    lines += [_origin(name, rows[name]) for name in names]
    lines += ["", *_machines(rows, names), "", END]
    return "\n".join(lines)


def _line(name: str, figure: Figure) -> str:
    verdict = f"{figure.reach}: **{'met' if figure.is_met else 'not met'}**"
    cells = [f"`{name}`", figure.what, figure.measured, figure.beside, verdict]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _origin(name: str, row: Kept) -> str:
    others = "not known" if row.others is None else f"{row.others:.1f} cores"
    run = f"`{row.command}`" + ("" if row.effort == "full" else f" ({row.effort})")
    return f"| `{name}` | {row.date} | {run} | {others} | {row.machine.get('commit') or '-'} |"


def _machines(rows: dict[str, Kept], names: list[str]) -> list[str]:
    said = {_machine(rows[name].machine): None for name in names}
    return [f"Machine: {text}" for text in said]


def _machine(machine: dict[str, Any]) -> str:
    gib = machine["memory_bytes"] / 1024**3
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {gib:.1f} GiB, Linux {machine['kernel']},"
        f" Python {machine['python']}, MLflow {machine['mlflow']}; load generator on it."
    )


def write_page(docs: Path, text: str) -> None:
    """Put the block into the page, in place of the old one."""
    page = docs / PAGE
    old = page.read_text() if page.exists() else f"{BEGIN}{END}\n"
    if BEGIN not in old:
        old = old.rstrip("\n") + f"\n\n## Under load\n\n{BEGIN}{END}\n"
    before, _, rest = old.partition(BEGIN)
    draft = page.with_suffix(f".{os.getpid()}.new")
    draft.write_text(before + text + rest.partition(END)[2])
    draft.rename(page)
