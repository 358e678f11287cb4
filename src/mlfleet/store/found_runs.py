"""Runs as one statement finds them, each with its metrics, params and tags in a row.

Stock asks for them table by table and makes an object of each row.
"""

from collections.abc import Sequence
from typing import Any

from mlfleet.store import bodies

COLUMNS = """run_uuid, experiment_id, name, user_id, status, start_time, end_time, artifact_uri,
    lifecycle_stage"""

# The children of each run are asked by its id alone: a look into an index for each run whatever
# the planner believes, see `statements`.
WITH_CHILDREN = """
SELECT f.*, m.*, p.*, t.*, EXISTS (
        SELECT 1 FROM inputs i WHERE i.destination_type = 'RUN' AND i.destination_id = f.run_uuid
    ) OR EXISTS (
        SELECT 1 FROM inputs i
        WHERE i.source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND i.source_id = f.run_uuid
    )
FROM found f
CROSS JOIN LATERAL (
    SELECT array_agg(key), array_agg(value), array_agg(timestamp), array_agg(step),
        array_agg(is_nan)
    FROM latest_metrics WHERE run_uuid = f.run_uuid
) m
CROSS JOIN LATERAL (
    SELECT array_agg(key), array_agg(value) FROM params WHERE run_uuid = f.run_uuid
) p
CROSS JOIN LATERAL (
    SELECT array_agg(key), array_agg(value) FROM tags WHERE run_uuid = f.run_uuid
) t"""

ONE_RUN = f"""
WITH found AS MATERIALIZED (SELECT {COLUMNS} FROM runs WHERE run_uuid = %(run)s)
{WITH_CHILDREN}"""


class FoundRun:
    """A run and its children, from a row of `ONE_RUN` or of a search."""

    __slots__ = ("columns", "is_plain", "metrics", "params", "tags")

    def __init__(self, row: Sequence[Any]) -> None:
        self.columns = row[:9]
        """As `bodies.run_info` takes them."""
        self.metrics = _zipped(*row[9:14])
        """(key, value, timestamp, step, is it NaN) of each latest metric."""
        self.params = _zipped(*row[14:16])
        self.tags = _zipped(*row[16:18])
        _, experiment_id, name, user_id, status, start_time, *_ = row
        # Without user or start stock has no answer; without a name it looks for one in the tags.
        complete = name and None not in (experiment_id, user_id, status, start_time)
        self.is_plain = bool(complete and not row[18])
        """Whether this is all that stock would say: no datasets, no models, nothing amiss."""


def shown(run: FoundRun) -> dict[str, Any]:
    """Return a plain run as `runs/search` and `runs/get` show it."""
    data: dict[str, Any] = {}
    if run.metrics:
        data["metrics"] = [
            {"key": key, "value": "NaN" if is_nan else value, "timestamp": time, "step": step}
            for key, value, time, step, is_nan in run.metrics
        ]
    if run.params:
        data["params"] = bodies.pairs(run.params)
    if run.tags:
        data["tags"] = bodies.pairs(run.tags)
    info = bodies.run_info(*run.columns)
    return {"info": info, "data": data, "inputs": {}, "outputs": {}}


def _zipped(*columns: list[Any] | None) -> list[tuple[Any, ...]]:
    return list(zip(*columns, strict=True)) if columns[0] else []
