"""Run the benchmarks: `python -m benchmarks [--quick] [--only PART …]`, see docs/benchmarks.md."""

import argparse
import contextlib
import functools
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import ceiling, pgbench, report, stock
from benchmarks.bench import Bench
from benchmarks.effort import FULL, QUICK
from benchmarks.fleet import Fleet, running
from benchmarks.report import Goal, Row
from benchmarks.rows import artifacts, client, density, endurance, gateway, throughput, waking
from mlfleet.load import processes

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA = "bench_schema"
PARTS = ("ceiling", "waking", "throughput", "gateway", "client", "writers", "artifacts")
"""The parts that share one fleet, in this order."""
QUIET_CORES = 0.1
"""Other programs may take so much of the machine before figures stop meaning anything."""
CONNECTIONS = 500
"""Of the shared Postgres: the fleet's own 216, and what stock's pools and pgbench need."""
OWN_FLEET = {"density": density.measure, "crowds": endurance.measure_crowds}


def main() -> int:
    """Measure, write the two files, print the table; 1 if a goal to reach was not met."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what runs, remove the data
    effort = QUICK if options.quick else FULL
    about = report.machine()
    folder = Path(tempfile.mkdtemp(prefix="mlfleet-bench-", dir=options.folder))
    folder.chmod(0o755)  # Postgres may run as another user and must be able to pass through
    bench = Bench(folder, options.port, effort)
    machine_cpu_s = processes.machine_cpu_s()
    try:
        rows = _measure(bench, options.only or [*PARTS, *OWN_FLEET], about)
    finally:
        if options.keep:
            bench.say(f"data is left in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    others_s = processes.machine_cpu_s() - machine_cpu_s - processes.own_cpu_s()
    cores = others_s / (time.monotonic() - bench.started)
    about["cores_taken_by_other_programs"] = round(max(0.0, cores), 2)
    if cores > QUIET_CORES:
        bench.say(f"other programs took {cores:.1f} cores meanwhile: these figures are noise")
    command = " ".join(["scripts/bench", *sys.argv[1:]])
    report.write(rows, about, effort, command, options.output)
    print(report.table(rows))
    return 1 if any(row.reach and row.reach.is_met is False for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about 3 minutes instead of 25")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *OWN_FLEET], metavar="PART")
    parser.add_argument("--port", type=int, default=21900, help="first of ten free ports")
    parser.add_argument("--folder", type=Path, help="where data may grow to 15 GB (default: /tmp)")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of the two result files")
    parser.add_argument("--keep", action="store_true", help="leave data and logs behind")
    return parser.parse_args()


def _measure(bench: Bench, parts: list[str], about: dict[str, object]) -> list[Row]:
    rows: list[Row] = []
    if "ceiling" in parts:
        about["load_generator_ceiling"] = ceiling.measure(bench.stock_port(5), 2.0)
        bench.say(f"load generator: {about['load_generator_ceiling']}")
    shared = [part for part in parts if part in PARTS and part != "ceiling"]
    if shared:
        rows += _guarded(bench, "fleet", functools.partial(_with_fleet, bench, shared, about))
    for part, measure in OWN_FLEET.items():
        if part in parts:
            rows += _guarded(bench, part, functools.partial(measure, bench))
    return rows


def _with_fleet(bench: Bench, parts: list[str], about: dict[str, object]) -> list[Row]:
    """Measure the parts that share one fleet."""
    rows: list[Row] = []
    with running(
        bench.folder / "fleet", bench.fleet_port, idle_s=600, max_connections=CONNECTIONS
    ) as fleet:
        about["postgres"] = fleet.postgres.value("SHOW server_version")
        fleet.postgres.create(SCHEMA)
        stock.migrate(fleet.postgres.uri(SCHEMA))
        for part in parts:
            rows += _guarded(bench, part, functools.partial(_shared, bench, part, fleet))
    return rows


def _guarded(bench: Bench, part: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """Return the rows of a part, or one row that says why it could not be measured."""
    try:
        return measure()
    except Exception as exc:  # one broken part must not cost the other figures
        bench.say(traceback.format_exc())
        return [Row(part, f"failed: {str(exc)[:300]}", reach=Goal("measured", False))]


def _shared(bench: Bench, part: str, fleet: Fleet) -> list[Row]:
    match part:
        case "waking":
            return waking.measure(bench, fleet, _database(fleet, "bench_start"))
        case "throughput":
            return _throughput(bench, fleet)
        case "gateway":
            return gateway.measure(bench, fleet)
        case "client":
            return client.measure(bench, fleet)
        case "writers":
            return endurance.measure_writers(bench, fleet, _database(fleet, "bench_writers"))
        case _:
            return artifacts.measure(bench, fleet)


def _database(fleet: Fleet, name: str) -> str:
    """Make a database with MLflow's schema and return its address."""
    fleet.postgres.create(name, SCHEMA)
    return fleet.postgres.uri(name)


def _throughput(bench: Bench, fleet: Fleet) -> list[Row]:
    (tenant,) = fleet.create(["throughput"])
    plain, single = _database(fleet, "bench_stock"), _database(fleet, "bench_stock_one")
    fleet.postgres.create("bench_pgbench", SCHEMA)
    bare = pgbench.Bare(fleet.postgres, "bench_pgbench", throughput.CONNECTIONS, bench.folder)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        folder = bench.folder
        default = enter(stock.running(plain, folder / "stock", bench.stock_port(0)))
        one = enter(stock.running(single, folder / "one", bench.stock_port(1), "--workers", "1"))
        bench.say("stock servers run")
        sides = [
            throughput.prepare(throughput.DEFAULTS, default.target),
            throughput.prepare(throughput.ONE_WORKER, one.target),
        ]
        return throughput.measure(bench, throughput.prepare("fleet", tenant), sides, bare)


if __name__ == "__main__":
    sys.exit(main())
