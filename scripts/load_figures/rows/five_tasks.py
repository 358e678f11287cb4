"""The five REST tasks of an earlier load test: how much more than stock at the same p99?"""

import json
import subprocess
from typing import Any

from benchmarks.fleet import COMMAND
from load_figures.figure import Figure
from load_figures.stage import Stage

TENANTS, P99_S, TIMES = 30, 0.5, 5.0
COMPARE_S = 3600.0
"""Longest time for all probes of both sides."""
REACH = f"≥ {TIMES:.0f} × the throughput of stock at equal p99"


def measure(stage: Stage) -> Figure:
    """Compare."""
    folder = stage.run_folder("five-tasks")
    folder.mkdir(mode=0o700, parents=True)
    turns, window_s = stage.count(2, 1), stage.seconds(10, 5)
    command = [COMMAND, "load", "compare", "--json", "--folder", str(folder)]
    command += ["--tenants", str(TENANTS), "--mix", "seed=1", "--p99", str(P99_S)]
    command += ["--turns", str(turns), "--window", f"{window_s:.0f}s"]
    command += ["--short"] * stage.is_quick
    # Stock's pools of four workers stand beside the fleet's own connections.
    with (
        stage.fleet("five-tasks", max_connections=400) as fleet,
        (folder / "compare.log").open("ab") as log,
    ):
        done = subprocess.run(
            [*command, "--data", str(fleet.data)], stdout=subprocess.PIPE, stderr=log,
            timeout=COMPARE_S, check=True,
        )  # fmt: skip
    return _figure(json.loads(done.stdout))


def _figure(found: dict[str, Any]) -> Figure:
    sides = {side["name"]: side for side in found["sides"]}
    fleets = [side for side in sides.values() if not side["is_stock"]]
    errors = sum(turn["errors"] for side in fleets for turn in side["turns"])
    lost = any(side["missing"] != 0 for side in fleets)
    at_300 = [
        f"{name} {turns[0][0]['answered_per_s']:.0f}/s, p99 {1000 * turns[0][0]['p99_s']:.0f} ms"
        for name, turns in found["probes"].items()
    ]
    return Figure(
        what="the seeds' five tasks, users of 1 to 3 s think time, ever more of them until p99 is"
        f" above {1000 * found['p99_s']:.0f} ms; in turns on one Postgres",
        reach=REACH,
        measured=f"{found['ratio']:.1f} ×: "
        + "; ".join(_words(side) for side in fleets)
        + f"; {errors} errors, {'rows missing' if lost else 'no row missing'}",
        beside="; ".join(_words(side) for side in sides.values() if side["is_stock"])
        + "; at 300 users: "
        + "; ".join(at_300),
        is_met=found["ratio"] >= TIMES and not errors and not lost,
        raw=found,
    )


def _words(side: dict[str, Any]) -> str:
    if not side["turns"]:
        return f"{side['name']}: bears nobody"
    best = max(side["turns"], key=lambda turn: turn["answered_per_s"])
    return (
        f"{side['name']} {best['answered_per_s']:.0f}/s ({best['users']} users, p99"
        f" {1000 * best['p99_s']:.0f} ms, {best['figures']['cpu_ms']:.1f} ms CPU per request,"
        f" {best['figures']['pss_mib']:,.0f} MiB)"
    )
