"""Read what a tenant's Postgres database holds of a load run, over MLflow's own tables.

One snapshot, read-only, as the administrator: no instance is asked, and none is woken. The same
statements serve a tenant of a fleet and a stock server.
"""

import contextlib
from collections.abc import Collection, Iterator
from typing import Any, cast

from mlfleet.database.connect import Connection, connect
from mlfleet.load.files import Files
from mlfleet.load.holdings import Holdings, MetricRow, Run, Version, Window
from mlfleet.load.promises import NAME_TAG, PARENT_TAG

_ROWS_AT_ONCE = 20_000
_RUNS = (
    "WITH mine AS MATERIALIZED (SELECT * FROM runs"
    " WHERE name LIKE %(names)s OR start_time BETWEEN %(begin_ms)s AND %(end_ms)s) "
)
_CHANGES = ("registered_model.created", "model_version.created", "registered_model_alias.set")


@contextlib.contextmanager
def read(
    uri: str, database: str | None, files: Files | None, window: Window, traces: Collection[str]
) -> Iterator[Holdings]:
    """Lend what a database and an artifact folder hold; the metrics are fetched as they are read.

    Args:
        uri: of a role that may read everything.
        database: another one than the address names.
        traces: ids that are looked for besides those that began in the window.

    Raises:
        FleetError: the database cannot be reached.
    """
    with contextlib.closing(connect(uri, database)) as connection:
        connection.set_session("REPEATABLE READ", readonly=True, autocommit=False)
        # A clone of the template has no statistics, and nested loops over it would take minutes.
        _all(connection, "SET LOCAL enable_nestloop = off; SET LOCAL jit = off; SELECT 1")
        yield _holdings(connection, files, window, traces)


def _holdings(
    connection: Connection, files: Files | None, window: Window, traces: Collection[str]
) -> Holdings:
    names = {
        "names": f"{window.load}-%", "begin_ms": window.begin_ms, "end_ms": window.end_ms,
        "traces": [f"tr-{trace}" for trace in traces],
    }  # fmt: skip

    def rows(statement: str) -> list[Any]:
        return _all(connection, statement, names)

    found = Holdings(
        experiments=dict(rows(
            "SELECT name, experiment_id::text FROM experiments"
            " WHERE name LIKE %(names)s AND lifecycle_stage = 'active'"
        )),
        metrics=_metrics(connection, names),
        latest={
            (run_id, key): (step, ms, number)
            for run_id, key, step, ms, number in rows(_RUNS +
                'SELECT m.run_uuid, m.key, m.step, m."timestamp", m.value'
                " FROM latest_metrics m JOIN mine USING (run_uuid)"
            )
        },
        params=_by_run(rows(
            _RUNS + "SELECT p.run_uuid, p.key, p.value FROM params p JOIN mine USING (run_uuid)"
        )),
        tags=_by_run(rows(
            _RUNS + "SELECT t.run_uuid, t.key, t.value FROM tags t JOIN mine USING (run_uuid)"
            f" WHERE t.key NOT LIKE 'mlflow.%%' OR t.key IN ('{PARENT_TAG}', '{NAME_TAG}')"
        )),
        models=dict(rows("SELECT name, NULL FROM registered_models WHERE name LIKE %(names)s")),
        versions={
            (model, number): Version(*rest)
            for model, number, *rest in rows(
                "SELECT name, version::text, run_id, source, status FROM model_versions"
                " WHERE name LIKE %(names)s"
            )
        },
        aliases={
            (model, alias): version
            for model, alias, version in rows(
                "SELECT name, alias, version::text FROM registered_model_aliases"
                " WHERE name LIKE %(names)s"
            )
        },
        traces={
            trace.removeprefix("tr-"): frozenset(spans)
            for trace, spans in rows(
                "SELECT i.request_id, array_remove(array_agg(s.span_id), NULL) FROM trace_info i"
                " LEFT JOIN spans s ON s.trace_id = i.request_id"
                " WHERE i.request_id = ANY(%(traces)s)"
                " OR i.timestamp_ms BETWEEN %(begin_ms)s AND %(end_ms)s GROUP BY 1"
            )
        },
        changes=_changes(connection, names),
    )  # fmt: skip
    _add_runs(found, rows(
        _RUNS + "SELECT run_uuid, artifact_uri, name, status, start_time, end_time,"
        " lifecycle_stage FROM mine"
    ), files)  # fmt: skip
    return found


def _add_runs(found: Holdings, rows: list[Any], files: Files | None) -> None:
    """Add the runs, and what their artifact folders hold."""
    for run_id, _, *rest in rows:
        found.runs[run_id] = Run(*rest)
    if files is None:
        found.remarks.append("artifacts are not on this machine's disk and were not looked at")
        return
    found.artifacts = {}
    leftovers = 0
    for run_id, artifact_uri, *_ in rows:
        inside, unfinished = files.of_run(artifact_uri)
        leftovers += unfinished
        found.artifacts |= {(run_id, path): file for path, file in inside.items()}
    if leftovers:
        found.remarks.append(f"unfinished uploads that no client can see: {leftovers}")


def _by_run(rows: list[Any]) -> dict[tuple[str, str], str]:
    return {(run_id, key): value for run_id, key, value in rows}


def _metrics(connection: Connection, names: dict[str, Any]) -> Iterator[MetricRow]:
    with connection.cursor("metrics") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(
            _RUNS + 'SELECT m.run_uuid, m.key, m.step, m."timestamp",'
            " CASE WHEN m.is_nan THEN 'NaN' ELSE m.value END"
            " FROM metrics m JOIN mine USING (run_uuid)",
            names,
        )
        yield from cast(Iterator[MetricRow], cursor)


def _changes(connection: Connection, names: dict[str, Any]) -> set[tuple[str, str, str]] | None:
    """Return what the outbox says was created or set, or None if there is no outbox."""
    if _all(connection, "SELECT to_regclass('mlfleet_outbox')") == [(None,)]:
        return None
    rows = _all(
        connection,
        "SELECT kind, model_name, concat_ws(' ', data->'new'->>'alias', data->'new'->>'version')"
        " FROM mlfleet_outbox WHERE model_name LIKE %(names)s AND kind = ANY(%(kinds)s)",
        {**names, "kinds": list(_CHANGES)},
    )
    return {tuple(row) for row in rows}


def _all(connection: Connection, statement: str, values: dict[str, Any] | None = None) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()
