"""Calls that one statement answers, each sent by itself: `runs/search` and `experiments/create`.

Pure, as `calls` and `statements` are: a body comes in, a statement goes out, its rows become the
body of the answer. None means "let stock MLflow answer this one".

A search is answered here when it has no filter and the newest run comes first, which is what
`mlflow.search_runs()` and the UI's list ask; and when no run that it finds has datasets or models
as inputs or outputs. Stock spends some 20 times as long on it: six statements, an object per row,
a message per object, two dictionaries per message.
"""

import base64
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from mlfleet.store import bodies, calls

Rows = list[tuple[Any, ...]]

MOST_RUNS = 1000
"""A search for more is left to stock; it is what a search asks that does not say how many."""
_MOST_EXPERIMENTS = 100
_MOST_NAME = 256
_SEARCH_FIELDS = frozenset(
    {"experiment_ids", "filter", "run_view_type", "max_results", "order_by", "page_token"}
)
_STAGES = {
    "ACTIVE_ONLY": "{active}",
    "DELETED_ONLY": "{deleted}",
    "ALL": "{active,deleted}",
}
_NEWEST_FIRST: tuple[list[str], ...] = (
    [],
    ["start_time DESC"],
    ["attribute.start_time DESC"],
    ["attributes.start_time DESC"],
)
_EXPERIMENT_FIELDS = frozenset({"name", "artifact_location", "tags"})

_COLUMNS = """run_uuid, experiment_id, name, user_id, status, start_time, end_time, artifact_uri,
    lifecycle_stage"""

# The children of each run are asked by its id alone: a look into an index for each run whatever
# the planner believes, see `statements`.
_WITH_CHILDREN = """
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
WITH found AS MATERIALIZED (SELECT {_COLUMNS} FROM runs WHERE run_uuid = %(run)s)
{_WITH_CHILDREN}"""

_SEARCH = f"""
WITH found AS MATERIALIZED (
    SELECT {_COLUMNS} FROM runs
    WHERE experiment_id = ANY(%(experiments)s::int[])
        AND lifecycle_stage = ANY(%(stages)s::text[])
    ORDER BY start_time DESC, run_uuid
    LIMIT %(most)s
)
{_WITH_CHILDREN}
ORDER BY f.start_time DESC, f.run_uuid"""

# Stock takes a number of the sequence for a name that is taken, too; here it would be one more.
_CREATE_EXPERIMENT = """
WITH made AS MATERIALIZED (
    SELECT nextval('experiments_experiment_id_seq')::int AS id
    WHERE NOT EXISTS (
        SELECT 1 FROM experiments WHERE workspace = 'default' AND name = %(name)s
    )
)
INSERT INTO experiments (
    experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time
)
SELECT id, %(name)s, 'mlflow-artifacts:/' || id, 'active', %(now)s, %(now)s FROM made
ON CONFLICT DO NOTHING
RETURNING experiment_id"""


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


class SearchRuns:
    """A page of the newest runs."""

    may_repeat: ClassVar[bool] = True
    text: ClassVar[str] = _SEARCH

    def __init__(self, experiment_ids: list[str], stages: str, most: int) -> None:
        self.most = most
        # One more than is shown tells whether there is a next page.
        self.values = {
            "experiments": "{" + ",".join(experiment_ids) + "}",
            "stages": stages,
            "most": most + 1,
        }

    def body(self, rows: Rows) -> bytes | None:
        """Return the answer; None if there is something in the rows that only stock shows."""
        found = [FoundRun(row) for row in rows[: self.most]]
        if not all(run.is_plain for run in found):
            return None
        runs = [_shown(run) for run in found]
        answer: dict[str, Any] = {"runs": runs} if runs else {}
        if len(rows) > self.most:
            token = base64.b64encode(b'{"offset": %d}' % self.most)
            answer["next_page_token"] = token.decode()
        return bodies.encode(answer)


class CreateExperiment:
    """A new experiment with its artifacts where all have them."""

    may_repeat: ClassVar[bool] = False
    """A second time finds the name taken, be it by the first."""
    text: ClassVar[str] = _CREATE_EXPERIMENT

    def __init__(self, name: str) -> None:
        self.values = {"name": name, "now": time.time_ns() // 1_000_000}

    def body(self, rows: Rows) -> bytes | None:
        """Return the answer; None if the name is taken."""
        return bodies.encode({"experiment_id": str(rows[0][0])}) if rows else None


Single = SearchRuns | CreateExperiment


def read_search(body: bytes) -> SearchRuns | None:
    """Read the body of `runs/search`."""
    fields = calls.read_object(body, _SEARCH_FIELDS)
    if fields is None or fields.get("filter", "") != "" or fields.get("page_token", "") != "":
        return None
    experiment_ids, most = fields.get("experiment_ids"), fields.get("max_results", MOST_RUNS)
    if type(experiment_ids) is not list or not 0 < len(experiment_ids) <= _MOST_EXPERIMENTS:
        return None
    if not all(map(calls.is_experiment_id, experiment_ids)):
        return None
    if type(most) is not int or not 0 < most <= MOST_RUNS:
        return None
    view = fields.get("run_view_type", "ACTIVE_ONLY")
    if type(view) is not str or view not in _STAGES:
        return None
    if fields.get("order_by", []) not in _NEWEST_FIRST:
        return None
    return SearchRuns(experiment_ids, _STAGES[view], most)


def read_create_experiment(body: bytes) -> CreateExperiment | None:
    """Read the body of `experiments/create`."""
    fields = calls.read_object(body, _EXPERIMENT_FIELDS)
    if fields is None or fields.get("artifact_location", "") != "" or fields.get("tags", []) != []:
        return None
    name = fields.get("name")
    return CreateExperiment(name) if name and calls.is_text(name, _MOST_NAME) else None


def _zipped(*columns: list[Any] | None) -> list[tuple[Any, ...]]:
    return list(zip(*columns, strict=True)) if columns[0] else []


def _shown(run: FoundRun) -> dict[str, Any]:
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
