"""300 sleeping tenants are all asked within one second."""

import time
from typing import Any

from benchmarks.fleet import Fleet
from load_figures.figure import Figure
from load_figures.stage import Stage, brief, load, ms
from load_figures.stocks import Stock, StockFigures, figures_of

P99_S = 15.0
REACH = f"all answered, 0 errors, p99 ≤ {P99_S:.0f} s"
RUN_S = 180.0
"""The patience of the shape, and putting all to sleep before."""


def measure(stage: Stage) -> Figure:
    """Measure stock's starts, then the storm."""
    tenants = stage.count(300, 40)
    folder = stage.run_folder("storm")
    options = ("--shape", "storm", "-u", tenants, "--tenants", tenants, "--max-p99", P99_S)
    with stage.fleet("storm", max_awake=tenants + 20, idle_s=600) as fleet:
        beside = _stock_starts(stage, fleet, stage.count(3, 1))
        with load(fleet, folder, *options, "--max-errors", 0) as run:
            found = run.wait(RUN_S)
    return _figure(found, tenants, beside)


def _stock_starts(stage: Stage, fleet: Fleet, count: int) -> StockFigures:
    starts = []
    for number in range(count):
        with Stock(stage, fleet, number) as stock:
            time.sleep(2)
            starts.append(stock.weigh(0.0))
        stage.say(f"stock start: {starts[-1]['start_s']} s")
    return figures_of(starts)


def _figure(found: dict[str, Any], tenants: int, stock: StockFigures) -> Figure:
    requests, fleet = found["requests"], found["fleet"]
    is_met = (
        requests["n"] == tenants
        and requests["failed"] == 0
        and requests["cold"]["n"] == tenants
        and (found["requests"]["p99_s"] or 99) <= P99_S
    )
    needed_s = tenants * stock.start_cpu_s / found["machine"]["cores"]
    return Figure(
        what=f"wake storm: {tenants} sleeping tenants, one request each within 1 s",
        reach=REACH,
        measured=f"{requests['n'] - requests['failed']} of {tenants} answered"
        f" ({requests['cold']['n']} waited for a wake), {requests['failed']} errors;"
        f" p50 {ms(requests['p50_s'])}, p99 {ms(requests['p99_s'])}, slowest"
        f" {ms(requests['max_s'])}; {fleet['wakes']:.0f} wakes",
        beside=f"one stock server: {stock.start_s:.1f} s and {stock.start_cpu_s:.1f} s of CPU to"
        f" its first answer ({stock.count} measured); {tenants} of them: {needed_s / 60:.0f} min"
        " of all cores (computed)",
        is_met=is_met,
        raw=brief(found) | {"stock": stock.each},
    )
