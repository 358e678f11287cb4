"""How long a client waits: for a sleeping tenant, a brand-new one, a new cell, a stock server."""

import concurrent.futures
import signal
import time
from typing import Any

from benchmarks import client, load, stock
from benchmarks.bench import Bench
from benchmarks.fleet import Fleet
from benchmarks.report import Goal, Row
from benchmarks.wire import Target
from mlfleet.load import processes

TENANTS = 20
"""Tenants that are woken in turn."""
SETTLE_S = 8.0
"""After stock's first answer: its job runner's processes are still starting then."""
PAUSE_S = 0.02
"""Between falling asleep and the waking request, so that the exit is not measured."""


def measure(bench: Bench, fleet: Fleet, stock_uri: str) -> list[Row]:
    """Measure all waits; wakes and stock's starts in turns."""
    tenants = fleet.create([f"wake-{number:02d}" for number in range(TENANTS)])
    for tenant in tenants:
        client.create_run(tenant)
    counted_before = fleet.metrics()["mlfleet_wakes_total"]
    wakes: list[float] = []
    starts: list[dict[str, Any]] = []
    asked, turns = bench.effort.wakes, bench.effort.stock_starts
    for turn in range(turns):
        starts.append(_stock_start(bench, stock_uri))
        bench.say(f"stock start: {starts[-1]}")
        numbers = range(asked * turn // turns, asked * (turn + 1) // turns)
        wakes += [_wake_s(fleet, tenants[number % TENANTS]) for number in numbers]
    counted = fleet.metrics()["mlfleet_wakes_total"] - counted_before
    if counted != len(wakes):
        raise client.BenchError(f"{len(wakes)} first requests, but the gateway woke {counted:.0f}")
    bench.say(f"{len(wakes)} wakes: median {1000 * load.median(wakes):.0f} ms")
    return [
        _wake_row(wakes, starts),
        *_newcomer_rows(bench, fleet),
        _cell_row(bench, fleet, tenants[0]),
    ]


def _stock_start(bench: Bench, uri: str) -> dict[str, Any]:
    with stock.running(uri, bench.folder / "stock-start", bench.stock_port(0)) as server:
        time.sleep(SETTLE_S)
        found = server.tree()
        return {
            "start_s": round(server.start_s, 2),
            "pss_mib": round(processes.total_pss_bytes(found) / processes.MIB),
            "cpu_s": round(sum(process.cpu_s for process in found), 1),
            "processes": len(found),
        }


def _wake_s(fleet: Fleet, tenant: Target) -> float:
    fleet.sleep(tenant)
    time.sleep(PAUSE_S)
    return client.first_answer_s(tenant)


def _wake_row(wakes: list[float], starts: list[dict[str, Any]]) -> Row:
    median_s, p99_s = load.median(wakes), load.percentile(wakes, 0.99)
    start_s = load.median([start["start_s"] for start in starts])
    ratio = start_s / median_s
    memory = load.median([start["pss_mib"] for start in starts])
    return Row(
        what=f"asleep → first `runs/create` answered, {len(wakes)} wakes",
        measured=f"median {1000 * median_s:.0f} ms, p99 {1000 * p99_s:.0f} ms; "
        f"{ratio:.0f} × quicker than stock's start",
        stock=f"{start_s:.1f} s, {memory:.0f} MiB, {starts[0]['processes']} processes",
        reach=Goal(
            "median ≤ 100 ms, p99 ≤ 250 ms, ≥ 90 ×",
            median_s <= 0.1 and p99_s <= 0.25 and ratio >= 90,
        ),
        stretch=Goal("median ≤ 60 ms", median_s <= 0.06),
        figures={"wakes_s": [round(wake, 4) for wake in wakes], "stock_starts": starts},
    )


def _newcomer_rows(bench: Bench, fleet: Fleet) -> list[Row]:
    alone = fleet.create([f"new-{number:03d}" for number in range(bench.effort.newcomers)])
    waits = [client.first_answer_s(tenant) for tenant in alone]
    storm = fleet.create([f"storm-{number:03d}" for number in range(bench.effort.storm)])
    with concurrent.futures.ThreadPoolExecutor(len(storm)) as pool:
        started = time.perf_counter()
        storm_waits = list(pool.map(client.first_answer_s, storm))
        storm_s = time.perf_counter() - started
    median_s = load.median(waits)
    bench.say(f"new tenants: median {1000 * median_s:.0f} ms, storm {storm_s:.1f} s")
    return [
        Row(
            what=f"brand-new tenant, first request (clone included), {len(waits)} tenants",
            measured=f"median {1000 * median_s:.0f} ms, slowest {1000 * max(waits):.0f} ms",
            reach=Goal("median ≤ 400 ms", median_s <= 0.4),
            stretch=Goal("median ≤ 150 ms", median_s <= 0.15),
            figures={"waits_s": [round(wait, 4) for wait in waits]},
        ),
        Row(
            what=f"{len(storm)} brand-new tenants at once",
            measured=f"all answered after {storm_s:.1f} s, median {load.median(storm_waits):.1f} s",
            figures={"waits_s": [round(wait, 3) for wait in storm_waits]},
        ),
    ]


def _cell_row(bench: Bench, fleet: Fleet, tenant: Target) -> Row:
    starts = [_cell_start_s(fleet, tenant) for _ in range(bench.effort.cell_starts)]
    median_s = load.median(starts)
    bench.say(f"cell starts: {starts}")
    return Row(
        what=f"cell process: exec → first write, {len(starts)} restarts",
        measured=f"median {median_s:.2f} s (`mlfleet up` itself, Postgres included: "
        f"{fleet.start_s:.2f} s)",
        reach=Goal("≤ 2.0 s", median_s <= 2.0),
        stretch=Goal("≤ 1.0 s", median_s <= 1.0),
        figures={"starts_s": starts, "up_s": round(fleet.start_s, 2)},
    )


def _cell_start_s(fleet: Fleet, tenant: Target) -> float:
    """End the cell, let the supervisor start a new one, and clock its first write.

    The start is the kernel's (ticks of 10 ms), so the supervisor's pause before it is left out.
    """
    old = fleet.gateway().pid
    processes.end(old, signal.SIGTERM)
    while processes.read(old) is not None:
        time.sleep(0.01)
    client.wait_for_run(tenant, deadline_s=60)
    answered = time.clock_gettime(time.CLOCK_BOOTTIME)
    return float(round(answered - fleet.gateway().started_s, 3))
