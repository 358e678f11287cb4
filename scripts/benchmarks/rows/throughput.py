"""Requests per second of the fleet, of stock with its defaults, of stock with one worker, in turns.

Writes are judged by the smaller of the two ratios: stock with several workers has a floor of 40 ms
under every request, so for some calls its single worker is the harder opponent. Reads are stock's
own code in one process on either side, so they are judged against its single worker. Each
connection writes to a run of its own, as training jobs do.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import client, load, pgbench, wire
from benchmarks.bench import Bench
from benchmarks.load import Load
from benchmarks.report import Goal, Row
from benchmarks.wire import Target

CONNECTIONS = 64
DEFAULTS, ONE_WORKER = "defaults", "one worker"
"""The names of the stock sides."""


@dataclasses.dataclass(frozen=True)
class Side:
    """A server with the runs that the load writes to and an experiment that it reads."""

    name: str
    target: Target
    runs: tuple[str, ...]
    experiment: str


def prepare(name: str, target: Target) -> Side:
    """Make the same data on a server: a run per connection, and 50 runs to search."""
    experiment = client.create_experiment(target, f"search {name}", runs=50)
    runs = tuple(client.create_run(target) for _ in range(CONNECTIONS))
    return Side(name, target, runs, experiment)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One kind of call, how many clients make it, and what is asked of the fleet."""

    name: str
    requests: Callable[[Side, int], Iterator[bytes]]
    """The requests of a client, by its number."""
    connections: int
    reach: float
    """Times stock's requests per second."""
    stretch: float | None = None
    pgbench: str | None = None
    """The script of equal rows, if the bare database takes its turn too."""
    pgbench_share: float | None = None
    """Asked share of what pgbench does."""

    @property
    def title(self) -> str:
        """The row's first cell."""
        return f"`{self.name}`, {self.connections} connections"


def _on_run(make: wire.Requests) -> Callable[[Side, int], Iterator[bytes]]:
    return lambda side, number: make(side.target, side.runs[number])


def _on_experiment(make: wire.Requests) -> Callable[[Side, int], Iterator[bytes]]:
    return lambda side, _: make(side.target, side.experiment)


def _create_run(side: Side, _: int) -> Iterator[bytes]:
    return wire.create_run(side.target, "0")


READS = (
    Operation("runs/search", _on_experiment(wire.search_runs), 8, 1),
    Operation("runs/get", _on_run(wire.get_run), 8, 1),
    Operation("experiments/get", _on_experiment(wire.get_experiment), 8, 1),
)
"""First, while both sides still hold the same few rows."""
WRITES = (
    Operation("log-metric", _on_run(wire.log_metric), 8, 6, pgbench="metric"),
    Operation("log-metric", _on_run(wire.log_metric), 64, 10, 20),
    Operation("log-batch", _on_run(wire.log_batch), 8, 6, pgbench="batch", pgbench_share=0.5),
    Operation("runs/create", _create_run, 8, 3),
    Operation("set-tag", _on_run(wire.set_tag), 8, 3),
    Operation("log-parameter", _on_run(wire.log_parameter), 8, 3),
)


def drive(side: Side, operation: Operation, seconds: float) -> Load:
    """Run one turn."""
    streams = [operation.requests(side, number) for number in range(operation.connections)]
    return load.run(side.target.address, streams, seconds)


def measure(bench: Bench, fleet: Side, stocks: list[Side], bare: pgbench.Bare | None) -> list[Row]:
    """Measure every operation on all sides in turns."""
    return [_row(bench, op, fleet, stocks, bare) for op in READS + WRITES]


def _row(
    bench: Bench,
    operation: Operation,
    fleet: Side,
    stocks: list[Side],
    bare: pgbench.Bare | None,
) -> Row:
    seen: dict[str, list[Load]] = {side.name: [] for side in [*stocks, fleet]}
    bare_rates: list[float] = []
    for _ in range(bench.effort.rounds):
        for side in [*stocks, fleet]:
            seen[side.name].append(drive(side, operation, bench.effort.seconds))
        if operation.pgbench and bare:
            script, clients = operation.pgbench, operation.connections
            bare_rates.append(bare.rate(script, clients, bench.effort.seconds))
    rates = {name: load.median([turn.rate for turn in turns]) for name, turns in seen.items()}
    bench.say(f"{operation.title}: { ({name: round(rate, 1) for name, rate in rates.items()}) }")
    return _judge(operation, seen, rates, fleet.name, bare_rates)


def _judge(
    operation: Operation,
    seen: dict[str, list[Load]],
    rates: dict[str, float],
    fleet: str,
    bare_rates: list[float],
) -> Row:
    others = {name: rate for name, rate in rates.items() if name != fleet}
    best = others[ONE_WORKER] if operation in READS else max(others.values())
    ratio = rates[fleet] / best if best else float("nan")
    errors = sum(turn.errors for turn in seen[fleet])
    p50 = load.median([turn.latency_ms(0.5) for turn in seen[fleet]])
    measured = f"{ratio:.1f} × ({rates[fleet]:.0f}/s, p50 {p50:.1f} ms)"
    if errors:
        measured += f", {errors} errors: {_first_error(seen[fleet])}"
    goal = "no slower" if operation.reach == 1 else f"≥ {operation.reach:g} ×"
    stretch = None
    if operation.stretch:
        stretch = Goal(f"≥ {operation.stretch:g} ×", ratio >= operation.stretch)
    if bare_rates:
        share = rates[fleet] / load.median(bare_rates)
        measured += f", {share:.0%} of pgbench's {load.median(bare_rates):.0f}/s"
        if operation.pgbench_share:
            asked = operation.pgbench_share
            stretch = Goal(f"≥ {asked:.0%} of pgbench", share >= asked)
    return Row(
        what=operation.title,
        measured=measured,
        stock=", ".join(_stock_cell(name, rate, seen[name]) for name, rate in others.items()),
        reach=Goal(goal, ratio >= operation.reach and errors == 0),
        stretch=stretch,
        figures=_figures(seen) | {"pgbench_per_s": bare_rates},
    )


def _stock_cell(name: str, rate: float, turns: list[Load]) -> str:
    asked = sum(sum(turn.statuses.values()) for turn in turns)
    errors = sum(turn.errors for turn in turns)
    lost = f" ({errors / asked:.0%} errors)" if errors else ""
    return f"{name} {rate:.0f}/s{lost}"


def _first_error(turns: list[Load]) -> str:
    text = next((turn.first_error for turn in turns if turn.first_error), "")
    return text.split("\r\n", 1)[0]


def _figures(seen: dict[str, list[Load]]) -> dict[str, Any]:
    return {
        name: [
            {
                "per_s": round(turn.rate, 1),
                "p50_ms": round(turn.latency_ms(0.5), 2),
                "p99_ms": round(turn.latency_ms(0.99), 2),
                "statuses": turn.statuses,
                "first_error": turn.first_error,
                "client_cpu_s": round(turn.client_cpu_s, 2),
            }
            for turn in turns
        ]
        for name, turns in seen.items()
    }
