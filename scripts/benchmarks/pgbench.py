"""The same rows written by pgbench, straight into Postgres: what the database alone can do.

Each script is one prepared statement in one transaction, like the fleet's hot writes, with no
HTTP, no JSON and no checks of values; the values are made inside Postgres.
"""

import os
import re
import subprocess
import urllib.parse
from pathlib import Path

from benchmarks.database import Postgres
from benchmarks.wire import METRICS, PARAMS
from mlfleet.database.binaries import postgres_binary

_RUN = "lpad((:client_id)::int::text, 32, '0')"
_HIGHER = "(excluded.step, excluded.timestamp, excluded.value) >= (l.step, l.timestamp, l.value)"
_LATEST = f"""ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value,
 timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan WHERE {_HIGHER}"""


def _script(metrics: int, params: int) -> str:
    param_rows = f"""
INSERT INTO params (key, value, run_uuid)
SELECT 'param_' || g, 'value ' || g, run_uuid FROM run, generate_series(1, {params}) g
ON CONFLICT (key, run_uuid) DO NOTHING"""
    sql = f"""WITH run AS (
 SELECT run_uuid, (:step)::bigint AS step FROM runs
 WHERE run_uuid = {_RUN} AND lifecycle_stage = 'active'
), rows AS (
 SELECT 'metric_' || g AS key, (0.25 + g)::float8 AS value, 1800000000000 AS timestamp,
  run_uuid, step, false AS is_nan FROM run, generate_series(1, {metrics}) g
), history AS (
 INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
 SELECT key, value, timestamp, run_uuid, step, is_nan FROM rows ON CONFLICT DO NOTHING
), latest AS (
 INSERT INTO latest_metrics AS l (key, value, timestamp, run_uuid, step, is_nan)
 SELECT key, value, timestamp, run_uuid, step, is_nan FROM rows {_LATEST}
){param_rows if params else " SELECT count(*) FROM run"}"""
    return "\\set step :step + 1\n" + re.sub(r"\s+", " ", sql) + ";\n"


SCRIPTS = {"metric": _script(1, 0), "batch": _script(METRICS, PARAMS)}


class Bare:
    """A database of MLflow's schema with a run per pgbench client."""

    def __init__(self, postgres: Postgres, database: str, clients: int, folder: Path) -> None:
        self._uri = urllib.parse.urlsplit(postgres.uri(database))
        self._folder = folder
        self._step = 0
        with postgres.cursor(database) as cursor:
            cursor.execute(
                "INSERT INTO experiments (experiment_id, name, lifecycle_stage) "
                "VALUES (0, 'Default', 'active')"
            )
            cursor.execute(
                "INSERT INTO runs (run_uuid, name, experiment_id, status, start_time, "
                "lifecycle_stage) SELECT lpad(g::text, 32, '0'), 'pgbench', 0, 'RUNNING', 0, "
                f"'active' FROM generate_series(0, {clients - 1}) g"
            )
        for name, text in SCRIPTS.items():
            (folder / f"{name}.sql").write_text(text)

    def rate(self, script: str, clients: int, seconds: float) -> float:
        """Return the transactions per second of so many clients."""
        self._step += 10_000_000
        uri = self._uri
        assert uri.hostname and uri.port and uri.username
        command = [
            str(postgres_binary("pgbench")),
            "--no-vacuum",
            "--protocol=prepared",
            f"--define=step={self._step}",
        ]
        command += [f"--client={clients}", "--jobs=1", f"--time={max(1, round(seconds))}"]
        command += [f"--file={self._folder / f'{script}.sql'}", f"--host={uri.hostname}"]
        command += [f"--port={uri.port}", f"--username={uri.username}", uri.path.lstrip("/")]
        password = urllib.parse.unquote(uri.password or "")
        environment = {**os.environ, "PGPASSWORD": password}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        match = re.search(r"tps = ([0-9.]+) \(without", done.stdout)
        assert match, done.stdout
        return float(match[1])
