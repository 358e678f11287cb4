"""Measure what checking a load run's accounts takes: `python scripts/bench_check.py`.

Starts an embedded Postgres of its own under --folder (a real disk, not tmpfs) with one database per
tenant, fills them and a ledger with what --requests requests leave behind (tenants share them as
they do in a load run: few are large), checks, and says what the check found and took. One row is
then taken out of the largest tenant, and it checks again. Prints one JSON line.
"""

import argparse
import io
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlfleet.database.admin import CLONES_AT_ONCE, Admin, database_name
from mlfleet.database.connect import connect
from mlfleet.database.embedded import EmbeddedPostgres
from mlfleet.load import facts
from mlfleet.load.check import check
from mlfleet.load.entries import Log, RunCreate
from mlfleet.load.ledger import Ledger

LOAD = "beefbeef"
LOGS = 10
"""Requests that log into each run."""
KEYS = ("loss", "accuracy", "learning_rate", "throughput", "memory")
STEPS = 2
"""Steps in each request."""


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=600_000)
    parser.add_argument("--port", type=int, default=28433)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        server = EmbeddedPostgres(Path(folder) / "data", options.port, 60, Path(folder) / "log")
        try:
            run = Path(folder) / "run"
            run.mkdir()
            uri = server.start()
            pid = int((Path(folder) / "data" / "postmaster.pid").read_text().split()[0])
            print(json.dumps(measure(uri, pid, run, options.tenants, options.requests)))
        finally:
            server.stop(wait_s=600)


def measure(uri: str, pid: int, folder: Path, tenants: int, requests: int) -> dict[str, Any]:
    """Return the figures of a good run, and what is said once a row is gone."""
    make_databases(uri, tenants)
    rows = fill(uri, folder, tenants, requests)
    began_s, before_s = time.monotonic(), (python_cpu_s(), sessions_cpu_s(pid))
    good = check(folder, folder)
    took_s = time.monotonic() - began_s
    python_s, server_s = python_cpu_s() - before_s[0], sessions_cpu_s(pid) - before_s[1]
    with connect(uri, database_name(1)) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM metrics WHERE ctid = (SELECT min(ctid) FROM metrics)")
    bad = check(folder, folder)
    return {
        "tenants": tenants, "requests": good.requests["acknowledged"], "metric_rows": rows,
        "check_s": round(took_s, 1), "python_cpu_s": round(python_s, 1),
        "postgres_cpu_s": round(server_s, 1), "is_good": good.is_good,
        "findings_after_one_row_is_gone": [f"{f.problem} {f.kind}" for f in bad.findings],
        "load": os.getloadavg()[0],
    }  # fmt: skip


def python_cpu_s() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def sessions_cpu_s(pid: int) -> float:
    """Return the CPU time of the sessions that a Postgres has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def make_databases(uri: str, tenants: int) -> None:
    """Make a database for each tenant."""
    admin = Admin(uri)
    admin.prepare()
    with ThreadPoolExecutor(CLONES_AT_ONCE) as pool:
        list(pool.map(lambda number: admin.clone(number, "password"), range(1, tenants + 1)))
    admin.close()


def fill(uri: str, folder: Path, tenants: int, requests: int) -> int:
    """Write ledger and rows; return the number of metric rows."""
    began_s, ledger, rows = time.time(), Ledger(folder, LOAD), 0
    weights = [1 / number for number in range(1, tenants + 1)]
    for number, weight in enumerate(weights, 1):
        runs = max(1, round(requests * weight / sum(weights) / (LOGS + 1)))
        rows += fill_tenant(uri, ledger, number, runs)
    ledger.close()
    targets = [
        {"tenant": f"load-{n:04}", "url": "http://127.0.0.1:1", "artifacts": str(folder / "none"),
         "database_uri": uri.rpartition("/")[0] + "/" + database_name(n)}
        for n in range(1, tenants + 1)
    ]  # fmt: skip
    (folder / "targets.json").write_text(json.dumps(targets))
    run = {"run": LOAD, "started_at": began_s, "ended_at": time.time()}
    (folder / "run.json").write_text(json.dumps(run))
    return rows


def fill_tenant(uri: str, ledger: Ledger, number: int, runs: int) -> int:
    """Write what the runs of one tenant are, as the requests would have left them."""
    tenant, tables = f"load-{number:04}", {t: io.StringIO() for t in COLUMNS}
    for run in range(runs):
        name = facts.run_name(LOAD, number, run, int(time.time() * 1000))
        run_id = f"{number:016x}{run:016x}"
        begin_ms = facts.start_ms(name)
        tables["runs"].write(f"{run_id}\t{name}\tRUNNING\t{begin_ms}\tactive\t/none/{run_id}\t0\n")
        tables["tags"].write(f"{run_id}\tmlflow.runName\t{name}\n")
        ledger.claim(RunCreate(tenant, name)).settle(200, run_id)
        for log in range(LOGS):
            first, last = log * STEPS, log * STEPS + STEPS - 1
            ledger.claim(Log(tenant, run_id, name, KEYS, first, last, (f"p{log}",))).settle(200)
            tables["params"].write(f"{run_id}\tp{log}\t{facts.param(name, f'p{log}')}\n")
            for key in KEYS:
                for step, value in enumerate(facts.values(name, key, first, last), first):
                    row = f"{run_id}\t{key}\t{step}\t{facts.metric_ms(name, step)}\t{value!r}\tf\n"
                    tables["metrics"].write(row)
                    if step == LOGS * STEPS - 1:
                        tables["latest_metrics"].write(row)
    with connect(uri, database_name(number)) as connection, connection.cursor() as cursor:
        for table, text in tables.items():
            text.seek(0)
            cursor.copy_from(text, table, columns=COLUMNS[table])
    connection.close()
    return runs * LOGS * STEPS * len(KEYS)


_METRIC = ("run_uuid", "key", "step", "timestamp", "value", "is_nan")
COLUMNS = {
    "runs": ("run_uuid", "name", "status", "start_time", "lifecycle_stage", "artifact_uri",
             "experiment_id"),
    "tags": ("run_uuid", "key", "value"),
    "params": ("run_uuid", "key", "value"),
    "metrics": _METRIC,
    "latest_metrics": _METRIC,
}  # fmt: skip

if __name__ == "__main__":
    main()
