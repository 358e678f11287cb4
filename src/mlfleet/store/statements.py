"""The SQL of hot writes: one constant statement per kind of call, many calls in its arrays.

Pure: calls come in, a statement and its parameters go out. A statement answers the numbers
(1-based) of the calls it carried out; a call that is missing in the answer changed nothing. Each
statement is sent alone on an autocommit connection, so statement and commit are one round trip.

* A call counts only if its run is there and active, and no param of it has another value.
* Rows are written in the order of (run, key), so two replicas cannot wait for each other in a ring.
* `latest_metrics` keeps the greatest (step, timestamp, value), compared as stock compares.
* A param that another replica inserted after the snapshot is skipped by ON CONFLICT without a word.
  So inserted rows are counted against those that had to be, and a difference divides by zero: the
  statement leaves nothing behind, and its calls are tried again one by one.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from mlfleet.store.calls import CreateRun, RunWrite, UpdateRun

Statement = tuple[str, dict[str, Any]]

# What is already there is asked by scalar subqueries with full keys, not by joins: each is one
# look into a unique index whatever the planner believes. With joins and a tenant's first rows,
# before any statistics, a group of 64 batches took 13 s.
_CALL = """
WITH {asked}call AS MATERIALIZED (
    SELECT c.n, c.run
    FROM unnest(%(runs)s::text[]) WITH ORDINALITY AS c(run, n)
    WHERE (SELECT r.lifecycle_stage = 'active' FROM runs r WHERE r.run_uuid = c.run)
    {unless}
)"""

_ASKED = """asked AS MATERIALIZED (
    SELECT p.n, p.key, p.value, (
        SELECT x.value FROM params x WHERE x.key = p.key AND x.run_uuid = c.run
    ) AS stored
    FROM unnest(%(p_calls)s::int[], %(p_keys)s::text[], %(p_values)s::text[]) AS p(n, key, value)
    JOIN unnest(%(runs)s::text[]) WITH ORDINALITY AS c(run, n) ON c.n = p.n
), """

_UNLESS = "AND c.n NOT IN (SELECT n FROM asked WHERE stored <> value)"

_METRICS = """, metric AS MATERIALIZED (
    SELECT call.run, m.key, m.value, m.time, m.step, m.nan, m.place
    FROM unnest(
        %(m_calls)s::int[], %(m_keys)s::text[], %(m_values)s::float8[],
        %(m_times)s::bigint[], %(m_steps)s::bigint[], %(m_nans)s::bool[]
    ) WITH ORDINALITY AS m(n, key, value, time, step, nan, place)
    JOIN call ON call.n = m.n
), metric_written AS (
    INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
    SELECT run, key, value, time, step, nan FROM metric ORDER BY run, key
    ON CONFLICT DO NOTHING
), latest_written AS (
    INSERT INTO latest_metrics AS l (run_uuid, key, value, timestamp, step, is_nan)
    SELECT DISTINCT ON (run, key) run, key, value, time, step, nan
    FROM metric ORDER BY run, key, step DESC, time DESC, value DESC, place
    ON CONFLICT (key, run_uuid) DO UPDATE
    SET value = excluded.value, timestamp = excluded.timestamp,
        step = excluded.step, is_nan = excluded.is_nan
    WHERE (excluded.step, excluded.timestamp, excluded.value) > (l.step, l.timestamp, l.value)
)"""

_PARAMS = """, param AS MATERIALIZED (
    SELECT DISTINCT call.run, a.key, a.value
    FROM asked a JOIN call ON call.n = a.n
    WHERE a.stored IS NULL
), param_written AS (
    INSERT INTO params (run_uuid, key, value)
    SELECT run, key, value FROM param ORDER BY run, key
    ON CONFLICT DO NOTHING
    RETURNING 1
)"""

_TAGS = """, tag_written AS (
    INSERT INTO tags (run_uuid, key, value)
    SELECT DISTINCT ON (call.run, t.key) call.run, t.key, t.value
    FROM unnest(%(t_calls)s::int[], %(t_keys)s::text[], %(t_values)s::text[])
        WITH ORDINALITY AS t(n, key, value, place)
    JOIN call ON call.n = t.n
    ORDER BY call.run, t.key, t.place DESC
    ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value
)"""

_NAMES = """, name_written AS (
    UPDATE runs SET name = named.name
    FROM (
        SELECT DISTINCT ON (call.run) call.run, x.name
        FROM unnest(%(n_calls)s::int[], %(n_names)s::text[]) AS x(n, name)
        JOIN call ON call.n = x.n
        ORDER BY call.run, x.n DESC
    ) AS named
    WHERE runs.run_uuid = named.run
)"""

_ANSWER = """
SELECT n FROM call"""

_ANSWER_COUNTED = """
SELECT n FROM call WHERE 1 / CASE
    WHEN (SELECT count(*) FROM param) = (SELECT count(*) FROM param_written) THEN 1 ELSE 0
END = 1"""

_CREATE = """
WITH call AS MATERIALIZED (
    SELECT c.*, e.artifact_location || '/' || c.run || '/artifacts' AS uri
    FROM unnest(
        %(runs)s::text[], %(experiments)s::int[], %(names)s::text[], %(users)s::text[],
        %(starts)s::bigint[]
    ) WITH ORDINALITY AS c(run, experiment, name, user_id, start, n)
    JOIN experiments e ON e.experiment_id = c.experiment AND e.lifecycle_stage = 'active'
    -- Where joining a path is more than this concatenation, stock does it.
    WHERE e.artifact_location ~ '^mlflow-artifacts:/[[:alnum:]_./-]*[[:alnum:]_-]$'
        AND length(e.artifact_location) <= 150
), run_written AS (
    INSERT INTO runs (
        run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,
        source_version, lifecycle_stage, artifact_uri, experiment_id
    )
    SELECT run, name, 'UNKNOWN', '', '', user_id, 'RUNNING', start, '', 'active', uri, experiment
    FROM call
    ON CONFLICT (run_uuid) DO NOTHING
), tag_written AS (
    INSERT INTO tags (run_uuid, key, value)
    SELECT call.run, t.key, t.value
    FROM unnest(%(t_calls)s::int[], %(t_keys)s::text[], %(t_values)s::text[]) AS t(n, key, value)
    JOIN call ON call.n = t.n
    ON CONFLICT DO NOTHING
)
SELECT n, uri FROM call"""

_UPDATE = """
WITH call AS MATERIALIZED (
    SELECT c.* FROM unnest(
        %(runs)s::text[], %(statuses)s::text[], %(ends)s::bigint[], %(names)s::text[]
    ) WITH ORDINALITY AS c(run, status, ended, name, n)
    JOIN runs r ON r.run_uuid = c.run AND r.lifecycle_stage = 'active'
        AND r.user_id IS NOT NULL AND r.start_time IS NOT NULL AND r.experiment_id IS NOT NULL
), run_written AS (
    UPDATE runs SET
        status = coalesce(call.status, runs.status),
        end_time = coalesce(call.ended, runs.end_time),
        name = coalesce(call.name, runs.name)
    FROM call WHERE runs.run_uuid = call.run
    RETURNING call.n, runs.*
), tag_written AS (
    INSERT INTO tags (run_uuid, key, value)
    SELECT run, 'mlflow.runName', name FROM call WHERE name IS NOT NULL ORDER BY run
    ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value
)
SELECT n, run_uuid, experiment_id, name, user_id, status, start_time, end_time, artifact_uri,
    lifecycle_stage
FROM run_written"""


@functools.cache
def _write_text(metrics: bool, params: bool, tags: bool, names: bool) -> str:
    """Return the statement with only the parts it needs: planning the others costs half of it."""
    call = _CALL.format(asked=_ASKED if params else "", unless=_UNLESS if params else "")
    parts = ((metrics, _METRICS), (params, _PARAMS), (tags, _TAGS), (names, _NAMES))
    middle = "".join(text for wanted, text in parts if wanted)
    return call + middle + (_ANSWER_COUNTED if params else _ANSWER)


def write_statement(calls: Sequence[RunWrite]) -> Statement:
    """Return the statement that carries out these writes, each with its own verdict."""
    values: dict[str, Any] = {"runs": _texts(call.run_id for call in calls)}
    metrics = any(call.metric_count for call in calls)
    params = any(call.params for call in calls)
    tags = any(call.tags for call in calls)
    names = any(call.run_name for call in calls)
    if metrics:
        values.update(_metric_arrays(calls))
    if params:
        values.update(_pair_arrays("p", [call.params for call in calls]))
    if tags:
        values.update(_pair_arrays("t", [call.tags for call in calls]))
    if names:
        named = [(n, call.run_name) for n, call in enumerate(calls, 1) if call.run_name]
        values["n_calls"] = _numbers(n for n, _ in named)
        values["n_names"] = _texts(name for _, name in named)
    return _write_text(metrics, params, tags, names), values


def create_statement(calls: Sequence[CreateRun]) -> Statement:
    """Return the statement that creates these runs; it answers (number, artifact URI)."""
    return _CREATE, {
        "runs": _texts(call.run_id for call in calls),
        "experiments": "{" + ",".join(call.experiment_id for call in calls) + "}",
        "names": _texts(call.run_name for call in calls),
        "users": _texts(call.user_id for call in calls),
        "starts": _numbers(call.start_time for call in calls),
        **_pair_arrays("t", [call.tags for call in calls]),
    }


def update_statement(calls: Sequence[UpdateRun]) -> Statement:
    """Return the statement that updates these runs, which must differ; it answers their rows."""
    return _UPDATE, {
        "runs": _texts(call.run_id for call in calls),
        "statuses": _texts(call.status for call in calls),
        "ends": "{" + ",".join(_number_or_null(call.end_time) for call in calls) + "}",
        "names": _texts(call.run_name for call in calls),
    }


def _metric_arrays(calls: Sequence[RunWrite]) -> dict[str, str]:
    some = [(n, call) for n, call in enumerate(calls, 1) if call.metric_count]
    numbers = "".join(f"{n}," * call.metric_count for n, call in some)
    return {
        "m_calls": "{" + numbers[:-1] + "}",
        "m_keys": "{" + ",".join([call.metric_keys for _, call in some]) + "}",
        "m_values": "{" + ",".join([call.metric_values for _, call in some]) + "}",
        "m_times": "{" + ",".join([call.metric_times for _, call in some]) + "}",
        "m_steps": "{" + ",".join([call.metric_steps for _, call in some]) + "}",
        "m_nans": "{" + ",".join([call.metric_nans for _, call in some]) + "}",
    }


def _pair_arrays(prefix: str, pairs: Sequence[dict[str, str]]) -> dict[str, str]:
    return {
        f"{prefix}_calls": _numbers(n for n, each in enumerate(pairs, 1) for _ in each),
        f"{prefix}_keys": _texts(key for each in pairs for key in each),
        f"{prefix}_values": _texts(value for each in pairs for value in each.values()),
    }


def _numbers(items: Iterable[int]) -> str:
    return "{" + ",".join(map(str, items)) + "}"


def _number_or_null(item: int | None) -> str:
    return "NULL" if item is None else str(item)


def _texts(items: Iterable[str | None]) -> str:
    """Return an array literal of texts.

    JSON's way to write a list of strings is an array literal's way too, unless something must be
    escaped, which shows as a backslash; and JSON's null is the literal's NULL.
    """
    listed = list(items)
    text = orjson.dumps(listed).decode()
    if "\\" not in text:
        return "{" + text[1:-1] + "}"
    return "{" + ",".join("NULL" if item is None else _quoted(item) for item in listed) + "}"


def _quoted(item: str) -> str:
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'
