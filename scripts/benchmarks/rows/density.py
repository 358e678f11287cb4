"""What an awake tenant costs in memory, and how many answer while all of them are awake."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import client, load
from benchmarks.bench import Bench
from benchmarks.fleet import Fleet, running
from benchmarks.report import Goal, Row
from benchmarks.wire import Target
from mlfleet.load import processes
from mlfleet.load.processes import MIB

GIB = 1024 * MIB
AT_ONCE = 4
"""Clients that prepare tenants."""


def measure(bench: Bench) -> list[Row]:
    """Wake more and more tenants of one fleet; none may fall asleep before the end."""
    levels = sorted({bench.effort.memory_awake, *bench.effort.awake})
    most = levels[-1]
    free_before = processes.available_bytes()
    rows: list[Row] = []
    with running(
        bench.folder / "density",
        bench.fleet_port,
        max_awake=most,
        max_connections=most + 60,
        idle_s=3600,
    ) as fleet:
        tenants = fleet.create([f"dense-{number:04d}" for number in range(most)])
        woken = 0
        for level in levels:
            _each(tenants[woken:level], _use)
            woken = level
            bench.say(f"{level} awake")
            used = free_before - processes.available_bytes()
            if level == bench.effort.memory_awake:
                rows.append(_memory_row(fleet, level))
            if level in bench.effort.awake:
                rows.append(_awake_row(fleet, tenants[:level], used))
            bench.say(f"{rows[-1].what}: {rows[-1].measured}")
    return _with_goals(rows)


def _use(tenant: Target) -> str:
    """Do what every instance has done before its memory is read."""
    client.log_batch(tenant, client.create_run(tenant))
    client.search_runs(tenant)
    return ""


def _ask(tenant: Target) -> str:
    """Return what is wrong with the answers of an awake tenant, nothing if all is well."""
    try:
        created = client.create_run(tenant)
        found = client.search_runs(tenant)
    except (OSError, client.BenchError) as exc:
        return str(exc)
    return "" if any(run["info"]["run_id"] == created for run in found) else "run not found"


def _each(tenants: Sequence[Target], act: Callable[[Target], str]) -> list[str]:
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(act, tenants))


def _memory(fleet: Fleet) -> dict[str, Any]:
    pss: dict[str, list[float]] = {}
    for process, role in fleet.roles().items():
        pss.setdefault(role, []).append(processes.pss_bytes(process.pid) / MIB)
    private = [processes.private_bytes(p.pid) / MIB for p in fleet.having("instance")]
    return {
        "instances": len(private),
        "instance_pss_mib": round(load.mean(pss["instance"]), 2),
        "instance_pss_most_mib": round(max(pss["instance"]), 2),
        "instance_private_mib": round(load.mean(private), 2),
        "pss_mib": {role: round(sum(values), 1) for role, values in pss.items()},
        "postgres_connections": fleet.postgres.connections(),
        "all_pss_mib": round(sum(sum(values) for values in pss.values())),
    }


def _memory_row(fleet: Fleet, level: int) -> Row:
    memory = _memory(fleet)
    mean = memory["instance_pss_mib"]
    is_complete = memory["instances"] == level
    pss = memory["pss_mib"]
    return Row(
        what=f"proportional memory of an instance, {memory['instances']} awake, "
        "after one `log-batch` and one `runs/search` each",
        measured=f"{mean:.1f} MiB (private {memory['instance_private_mib']:.1f} MiB); "
        f"beside them gateway {pss['gateway']:.0f}, zygote {pss['zygote']:.0f}, "
        f"supervisor {pss['supervisor']:.0f}, Postgres {pss['Postgres']:.0f} MiB",
        reach=Goal("≤ 24 MiB", is_complete and mean <= 24),
        stretch=Goal("≤ 16 MiB", is_complete and mean <= 16),
        figures=memory,
    )


def _awake_row(fleet: Fleet, tenants: Sequence[Target], used: int) -> Row:
    before = {process.pid for process in fleet.having("instance")}
    wrong = [text for text in _each(tenants, _ask) if text]
    after = {process.pid for process in fleet.having("instance")}
    memory = _memory(fleet)
    stayed = len(before & after)
    is_held = stayed == len(tenants) and not wrong and memory["all_pss_mib"] * MIB <= 24 * GIB
    trouble = f"; {len(wrong)} failed: {wrong[0][:120]}" if wrong else ""
    return Row(
        what=f"{len(tenants)} awake at once, each answering `runs/create` and `runs/search`",
        measured=f"{stayed} stayed awake, {len(tenants) - len(wrong)} answered{trouble}; "
        f"{memory['all_pss_mib'] / 1024:.1f} GiB in all, of it Postgres "
        f"{memory['pss_mib']['Postgres'] / 1024:.1f} GiB "
        f"({memory['postgres_connections']} connections)",
        figures=memory
        | {"is_held": is_held, "tenants": len(tenants), "available_taken_mib": round(used / MIB)},
    )


def _with_goals(rows: list[Row]) -> list[Row]:
    """Judge the rows of awake tenants together: the issue asks for 500, and 1,000 to stretch."""
    held = [row.figures["tenants"] for row in rows if row.figures.get("is_held")]
    tried = [row.figures["tenants"] for row in rows if "tenants" in row.figures]

    def goal(asked: int) -> Goal:
        is_tried = max(tried, default=0) >= asked
        return Goal(f"{asked:,} in 24 GiB", max(held, default=0) >= asked if is_tried else None)

    return [
        dataclasses.replace(row, reach=goal(500), stretch=goal(1000))
        if "tenants" in row.figures
        else row
        for row in rows
    ]
