"""The tables of a report, as texts: what a page and a terminal both show.

Pure. A row is a tuple of texts, the first one names it.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlfleet.load import units
from mlfleet.load.figures import ACCOUNTS

Figures = Mapping[str, Any]
Row = tuple[str, ...]
COUNTED = ("sent", "acknowledged", "found", "missing", "altered", "unexplained")
LATENCY_HEADER = ("", "", "tries", "per s", "p50", "p95", "p99", "longest", "failed")
SHOWN = 200
"""Rows of a list that could be long; the files in the run's folder have all."""
_ABOUT = ("kind", "shape", "mix", "users", "tenants", "processes", "seed", "host")
_MACHINE = ("cpu", "cores", "memory_bytes", "kernel", "python", "mlflow", "commit")


@dataclasses.dataclass(frozen=True)
class Tile:
    """One figure that a reader wants first."""

    what: str
    figure: str
    detail: str
    is_bad: bool = False


def tiles(figures: Figures) -> list[Tile]:
    """Return the figures that say in a minute how a run went."""
    requests, fleet, machine = figures["requests"], figures["fleet"], figures["machine"]
    failed = requests["failed"]
    share = failed / requests["n"] if requests["n"] else None
    found = [
        Tile("answered", units.rate(requests["rate"]), f"{units.count(requests['n'])} tries"),
        Tile(
            "failed",
            units.count(failed),
            f"{units.share(share)} of all tries",
            is_bad=failed > 0,
        ),
        _latency("warm", requests["warm"]),
        _latency("cold", requests["cold"]),
    ]
    if fleet:
        most, median = units.count(fleet["awake_most"]), units.count(fleet["awake_median"])
        detail = f"at most; {units.count(fleet['awake_least'])} at least, {median} median"
        found.append(Tile("awake", most, f"{detail} at full load"))
        waits = f"{units.latency(fleet['wake_p50_s'])} / {units.latency(fleet['wake_p99_s'])}"
        found.append(Tile("wakes", units.count(fleet["wakes"]), f"wait p50 / p99: {waits}"))
    found += [accounts_tile(figures["accounts"])]
    if machine:
        memory = units.size(figures["servers"]["pss_most_bytes"])
        detail = f"of {machine['cores']} cores busy; servers at most {memory}"
        found.append(Tile("machine", units.share(machine["busy_mean"]), detail))
    return found


def _latency(name: str, of: Mapping[str, Any]) -> Tile:
    detail = f"p99; p50 {units.latency(of['p50_s'])}, {units.count(of['n'])} tries"
    return Tile(f"{name} latency", units.latency(of["p99_s"]), detail)


def accounts_tile(accounts: Mapping[str, Any] | None) -> Tile:
    """Return what the check of the accounts said."""
    if accounts is None:
        return Tile("accounts", "not checked", "mlfleet load check compares them")
    totals = {word: sum(row[word] for row in accounts["counts"].values()) for word in COUNTED}
    detail = ", ".join(f"{units.count(totals[word])} {word}" for word in COUNTED[1:])
    figure = "good" if accounts["is_good"] else f"{accounts['findings_in_all']} findings"
    return Tile("accounts", figure, detail, is_bad=not accounts["is_good"])


def names(figures: Figures) -> list[Row]:
    """Return two rows for each request name, warm and cold; one that never happened is left out."""
    total = {"name": "all requests", **figures["requests"]}
    seconds = figures["duration_s"]
    rows = []
    for row in (total, *figures["names"]):
        for word in ("warm", "cold"):
            if row[word]["n"]:
                rows.append(_latency_row(row["name"], word, row[word], seconds))
    return rows


def _latency_row(name: str, word: str, of: Mapping[str, Any], seconds: float) -> Row:
    return (
        name,
        word,
        units.count(of["n"]),
        units.rate(of["n"] / seconds).removesuffix("/s"),
        *(units.latency(of[key]) for key in ("p50_s", "p95_s", "p99_s", "max_s")),
        failures(of["errors"]),
    )


def failures(errors: Mapping[str, int]) -> str:
    """Return what failed by status, or 0."""
    return ", ".join(f"{units.count(n)} × {units.status(s)}" for s, n in errors.items()) or "0"


def roles(figures: Figures) -> list[Row]:
    """Return what each role used: processes, CPU, memory, files."""
    return [
        (
            role["role"],
            units.count(role["processes_most"]),
            f"{units.count(role['cpu_s'])} s",
            units.cores(role["cores"]),
            units.size(role["pss_most_bytes"]),
            units.count(role["fds_most"]),
        )
        for role in figures["roles"]
    ]


ROLE_HEADER = ("role", "processes, most", "CPU", "mean", "memory, most", "open files, most")


def limits(figures: Figures) -> list[tuple[str, bool]]:
    """Return what was asked of the run in words, and whether it was kept."""
    return [(_limit(row), row["is_kept"]) for row in figures["limits"]]


def _limit(row: Mapping[str, Any]) -> str:
    if row["what"] == ACCOUNTS:
        findings = row["measured"]
        return f"accounts: {findings} findings" if findings else "accounts: nothing is missing"
    return f"{row['what']}: {_of(row, 'measured')}, allowed {_of(row, 'limit')}"


def _of(row: Mapping[str, Any], key: str) -> str:
    if row["unit"] == "s":
        return units.latency(row[key])
    return units.share(row[key]) if "share" in row["what"] else units.count(row[key])


def accounts(figures: Figures) -> list[Row]:
    """Return the accounts by kind of what was written; none if they were not checked."""
    document = figures["accounts"] or {"counts": {}, "unchecked": []}
    return [
        (kind, *("not looked at" if kind in document["unchecked"] else units.count(count[word])
                 for word in COUNTED))
        for kind, count in document["counts"].items()
        if any(count.values())
    ]  # fmt: skip


def findings(figures: Figures) -> list[Row]:
    """Return what the accounts lack or have too much of, gravest first."""
    fields = ("problem", "kind", "tenant", "run", "key", "detail")
    rows = (figures["accounts"] or {}).get("findings", [])
    return [tuple(str(row[field]) for field in fields) for row in rows[:SHOWN]]


def repeats(figures: Figures) -> list[Row]:
    """Return what exists twice because a create that had no answer was sent again."""
    rows = (figures["accounts"] or {}).get("repeats", [])
    return [
        (row["kind"], row["tenant"], row["name"], ", ".join(row["extra"]), ", ".join(row["told"]))
        for row in rows[:SHOWN]
    ]


def events(figures: Figures) -> list[Row]:
    """Return what was done to the fleet or the load, in order of time."""
    return [
        (f"{event['second']:.1f} s", event["kind"], event["detail"])
        for event in figures["events"][:SHOWN]
    ]


def about(figures: Figures) -> list[Row]:
    """Return what a reader must know to repeat or to judge the run."""
    run = figures["run"]
    rows = [("command", str(run.get("command", "")))]
    rows += [
        (name.replace("_", " "), str(run[name])) for name in _ABOUT if run.get(name) is not None
    ]
    machine = run.get("machine") or {}
    rows += [(name, str(machine[name])) for name in _MACHINE if machine.get(name) is not None]
    return [
        ("memory", units.size(int(value))) if name == "memory_bytes" else (name, value)
        for name, value in rows
        if value
    ]


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return columns as wide as they must be; all but the first two on the right."""
    lines = [tuple(header), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
