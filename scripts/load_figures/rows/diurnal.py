"""A thousand tenants of whom few work at a time, against as many stock servers."""

import contextlib
import time
from typing import Any

from benchmarks.fleet import Fleet
from load_figures.figure import Figure
from load_figures.stage import Stage, brief, load, mib, missing
from load_figures.stocks import SETTLE_S, Stock, StockFigures, figures_of
from mlfleet.load import timeline
from mlfleet.load.population import tenant_names

TENANTS, USERS, THINK_S, IDLE_S = 1000, 16, 1, 10
"""An hour in ten minutes: people think and instances stay awake for a sixth of the usual time."""
AT_ONCE, IDLE_WINDOW_S = 3, 20.0
"""Stock servers that fit beside a fleet; each is watched while it has nothing to do."""
MOST_AWAKE_SHARE = 0.03
REACH = "memory and CPU against 1,000 stock servers, 2 % of the tenants awake at a time"


def measure(stage: Stage) -> Figure:
    """Weigh stock servers, then run a day's rise and fall of users."""
    seconds, tenants = stage.seconds(600, 60), stage.count(TENANTS, 100)
    users, stocks = stage.count(USERS, 4), stage.count(10, 1)
    folder = stage.run_folder("diurnal")
    options = ("--shape", "diurnal", "-u", users, "-t", f"{seconds:.0f}s", "--think", THINK_S)
    with stage.fleet("diurnal", idle_s=IDLE_S) as fleet:
        stock = _weigh_stocks(stage, fleet, stocks)
        fleet.create(tenant_names(tenants))
        with load(fleet, folder, *options, "--tenants", tenants) as run:
            found = run.wait(seconds)
    return _figure(found, tenants, stock)


def _weigh_stocks(stage: Stage, fleet: Fleet, count: int) -> StockFigures:
    """Run so many stock servers, as many at once as fit, and weigh each of them idle."""
    each: list[dict[str, Any]] = []
    while len(each) < count:
        with contextlib.ExitStack() as stack:
            numbers = range(len(each), min(count, len(each) + AT_ONCE))
            servers = [stack.enter_context(Stock(stage, fleet, number)) for number in numbers]
            time.sleep(SETTLE_S)
            each += [server.weigh(IDLE_WINDOW_S) for server in servers]
        stage.say(f"{len(each)} stock servers weighed: {mib(each[-1]['pss_bytes'])} the last")
    return figures_of(each)


def _figure(found: dict[str, Any], tenants: int, stock: StockFigures) -> Figure:
    ours = {role["role"]: role for role in found["roles"] if role["role"] not in _GENERATOR}
    cores = sum(role["cores"] for role in ours.values())
    memory = sum(role["pss_most_bytes"] or 0 for role in ours.values())
    awake = found["fleet"]
    theirs, their_cores = tenants * stock.pss_bytes, tenants * stock.idle_cores
    good = bool(found["accounts"] and found["accounts"]["is_good"])
    mean_awake = _mean(found["series"]["awake"])
    return Figure(
        what=f"diurnal: {tenants:,} tenants, an hour in {found['duration_s'] / 60:.0f} min;"
        f" awake {mean_awake:.0f} on average, {awake['awake_most']:.0f} at most",
        reach=REACH,
        measured=f"{mib(memory)} at most, Postgres with it; {cores:.2f} cores on average;"
        f" {awake['wakes']:.0f} wakes, {found['requests']['failed']} errors of"
        f" {found['requests']['n']:,}, {missing(found)}",
        beside=f"{tenants:,} stock servers, idle: {theirs / 1024**3:,.0f} GiB"
        f" ({theirs / memory:,.0f} ×), {their_cores:.1f} cores ({their_cores / cores:.1f} ×);"
        f" computed from {stock.count} that were measured, {mib(stock.pss_bytes)} and"
        f" {stock.idle_cores:.3f} cores each",
        is_met=good
        and found["requests"]["failed"] == 0
        and mean_awake <= MOST_AWAKE_SHARE * tenants
        and memory < theirs
        and cores < their_cores,
        raw=brief(found) | {"stock": stock.each, "awake_mean": mean_awake},
    )


_GENERATOR = ("locust", "sampler", "stock")


def _mean(values: timeline.Values) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
