"""Many writers for a while: no errors, and every acknowledged row is in Postgres.

Each writer counts its steps up from 0, so what must be there is known: for each acknowledged
request one step of its run with 100 metrics, and 20 params per run.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from benchmarks import client, load, stock, wire
from benchmarks.bench import Bench
from benchmarks.database import Postgres
from benchmarks.fleet import Fleet, running
from benchmarks.load import Load
from benchmarks.report import Goal, Row
from benchmarks.wire import Target

WRITERS = 64
CROWD_WRITERS = 8
"""Writers of each tenant when many tenants write."""


@dataclasses.dataclass(frozen=True)
class Writer:
    """One client that logs batches to one run of its own."""

    target: Target
    run_id: str

    def requests(self) -> Iterator[bytes]:
        """Return its endless requests."""
        return wire.log_batch(self.target, self.run_id, first_step=0)


def measure_writers(bench: Bench, fleet: Fleet, stock_uri: str) -> list[Row]:
    """Let 64 writers log batches to one tenant, then to one stock server."""
    (tenant,) = fleet.create(["writers"])
    writers = [Writer(tenant, client.create_run(tenant)) for _ in range(WRITERS)]
    seen = _drive(writers, bench.effort.writers_s)
    missing = missing_rows(fleet.postgres, writers, seen)
    bench.say(f"64 writers: {seen.statuses}, {missing} rows missing")
    return [
        Row(
            what=f"{WRITERS} writers of `log-batch` for {seen.seconds:.0f} s on one tenant",
            measured=_said(seen, missing),
            stock=_stock_loss(bench, stock_uri),
            reach=Goal("0 errors, every acknowledged row", not seen.errors and not missing),
            figures=_figures(seen, missing),
        )
    ]


def measure_crowds(bench: Bench) -> list[Row]:
    """Let many tenants write at once on a Postgres with few connections."""
    rows = [_crowd_row(bench, *crowd) for crowd in bench.effort.crowds]
    met = {row.figures["tenants"]: row.figures["is_met"] for row in rows}
    reach = Goal("20 tenants, 40 connections: 0 errors", met.get(20))
    stretch = Goal("100 tenants, 130 connections", met.get(100))
    return [dataclasses.replace(row, reach=reach, stretch=stretch) for row in rows]


def _crowd_row(bench: Bench, tenants: int, max_connections: int) -> Row:
    with running(
        bench.folder / f"crowd-{tenants}",
        bench.fleet_port,
        max_awake=tenants,
        max_connections=max_connections,
    ) as fleet:
        targets = fleet.create([f"crowd-{number:03d}" for number in range(tenants)])
        writers = [
            Writer(target, client.create_run(target))
            for target, _ in itertools.product(targets, range(CROWD_WRITERS))
        ]
        seen = _drive(writers, bench.effort.crowd_s)
        connections = fleet.postgres.connections()
        missing = missing_rows(fleet.postgres, writers, seen)
    bench.say(f"{tenants} tenants: {seen.statuses}, {missing} rows missing")
    return Row(
        what=f"{tenants} tenants × {CROWD_WRITERS} writers of `log-batch`, `max_connections` = "
        f"{max_connections}, {seen.seconds:.0f} s",
        measured=f"{_said(seen, missing)}, {connections} connections",
        figures=_figures(seen, missing)
        | {"tenants": tenants, "is_met": not seen.errors and not missing},
    )


def _drive(writers: Sequence[Writer], seconds: float) -> Load:
    streams = [writer.requests() for writer in writers]
    return load.run(writers[0].target.address, streams, seconds)


def _said(seen: Load, missing: int) -> str:
    text = (
        f"{seen.errors} errors of {sum(seen.statuses.values())} calls, {missing} rows missing; "
        f"{seen.rate:.0f}/s, p50 {seen.latency_ms(0.5):.0f} ms, p99 {seen.latency_ms(0.99):.0f} ms"
    )
    if seen.errors:
        text += f"; first error: {seen.first_error.splitlines()[0][:120]}"
    return text


def _figures(seen: Load, missing: int) -> dict[str, object]:
    return {
        "statuses": seen.statuses,
        "missing_rows": missing,
        "per_s": round(seen.rate, 1),
        "p50_ms": round(seen.latency_ms(0.5), 1),
        "p99_ms": round(seen.latency_ms(0.99), 1),
        "slowest_ms": round(seen.latency_ms(1), 1),
        "first_error": seen.first_error,
    }


def _stock_loss(bench: Bench, uri: str) -> str:
    with stock.running(uri, bench.folder / "stock-writers", bench.stock_port(0)) as server:
        runs = [client.create_run(server.target) for _ in range(WRITERS)]
        writers = [Writer(server.target, run_id) for run_id in runs]
        seen = _drive(writers, bench.effort.writers_s)
    bench.say(f"64 writers on stock: {seen.statuses}")
    calls = sum(seen.statuses.values())
    return f"{seen.errors / max(1, calls):.0%} of {calls} calls fail, {seen.rate:.1f}/s"


def missing_rows(postgres: Postgres, writers: Sequence[Writer], seen: Load) -> int:
    """Return how many rows of acknowledged requests are not in any tenant's database."""
    steps, params = _stored(postgres, {writer.run_id for writer in writers})
    missing = 0
    for writer, answers in zip(writers, seen.answers, strict=True):
        acknowledged = [step for step, status in enumerate(answers) if status == 200]
        found = steps.get(writer.run_id, {})
        missing += sum(wire.METRICS - found.get(step, 0) for step in acknowledged)
        if acknowledged:
            missing += wire.PARAMS - params.get(writer.run_id, 0)
    return missing


def _stored(postgres: Postgres, runs: set[str]) -> tuple[dict[str, dict[int, int]], dict[str, int]]:
    """Return the metrics by run and step, and the params by run, of all tenants' databases."""
    steps: dict[str, dict[int, int]] = {}
    params: dict[str, int] = {}
    with postgres.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname ~ '^mlfleet_t[0-9]+$'")
        databases = [name for (name,) in cursor.fetchall()]
    for database in databases:
        with postgres.cursor(database) as cursor:
            wanted = (list(runs),)
            cursor.execute(
                "SELECT run_uuid, step, count(*) FROM metrics WHERE run_uuid = ANY(%s) "
                "GROUP BY run_uuid, step",
                wanted,
            )
            for run_id, step, count in cursor.fetchall():
                steps.setdefault(run_id, {})[step] = count
            cursor.execute(
                "SELECT run_uuid, count(*) FROM params WHERE run_uuid = ANY(%s) GROUP BY run_uuid",
                wanted,
            )
            params.update(cursor.fetchall())
    return steps, params
