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
from typing import Any, ClassVar

from mlfleet.store import bodies, calls, found_runs

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

_SEARCH = f"""
WITH found AS MATERIALIZED (
    SELECT {found_runs.COLUMNS} FROM runs
    WHERE experiment_id = ANY(%(experiments)s::int[])
        AND lifecycle_stage = ANY(%(stages)s::text[])
    ORDER BY start_time DESC, run_uuid
    LIMIT %(most)s
)
{found_runs.WITH_CHILDREN}
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
        found = [found_runs.FoundRun(row) for row in rows[: self.most]]
        if not all(run.is_plain for run in found):
            return None
        runs = [found_runs.shown(run) for run in found]
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
