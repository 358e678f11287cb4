"""What a tenant must hold, may hold and must not hold, from the lines of its ledger.

Pure. Each request was acknowledged (2xx), refused for good (4xx), or its outcome is unknown: no
answer, 5xx, and also 408 and 429, because a request may be cut off after its commit
(docs/contract.md). What was acknowledged must be there. What is unknown may be there, and then all
of one request. The last acknowledged value wins; unknown ones after it may have won instead.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Generic, Literal, TypeVar

from mlfleet.load import facts
from mlfleet.load.entries import (
    AliasSet,
    ArtifactPut,
    ExperimentCreate,
    Log,
    ModelCreate,
    RunCreate,
    RunFinish,
    TracePut,
    VersionCreate,
)
from mlfleet.load.ledger import Line

Outcome = Literal["acknowledged", "refused", "unknown"]
V = TypeVar("V")
RunKey = tuple[str, str]
"""A run's id and the key of a metric, param or tag, or the path of an artifact."""
VersionKey = tuple[str, str, str]
"""A model, and the run and source that a version of it was made from."""

PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"
_AGAIN = frozenset({408, 429})


def outcome(status: int) -> Outcome:
    """Return what a status says about the rows of its request."""
    if 200 <= status < 300:
        return "acknowledged"
    return "refused" if 400 <= status < 500 and status not in _AGAIN else "unknown"


@dataclasses.dataclass
class Promise(Generic[V]):
    """What may be found under one key."""

    acknowledged: bool = False
    values: list[V] = dataclasses.field(default_factory=list)
    """Each that may be there: the last acknowledged, then the unknown ones after it."""

    def add(self, value: V, result: Outcome) -> None:
        """Take one more request for this key into account, in the order they were sent."""
        if result == "acknowledged":
            self.acknowledged = True
            self.values = [value]
        elif result == "unknown":
            self.values.append(value)


@dataclasses.dataclass
class Makings:
    """Creates of the same thing, each of which makes another one: runs of a name, versions."""

    told: set[str] = dataclasses.field(default_factory=set)
    """Ids, or version numbers, that somebody was told."""
    unanswered: int = 0
    """Sendings that may have made one more without telling."""
    sent: int = 0
    parent: str | None = None

    def add(self, made: str | None, result: Outcome, resent: int) -> None:
        """Take one more create into account."""
        self.sent += 1
        self.unanswered += resent + (result == "unknown")
        if result == "acknowledged":
            self.told.add(made or "")


@dataclasses.dataclass
class Series:
    """The values of one metric of one run."""

    name: str
    steps: dict[int, bool] = dataclasses.field(default_factory=dict)
    """Whether the step was acknowledged."""


@dataclasses.dataclass
class Promises:
    """Everything one tenant was asked to keep."""

    experiments: dict[str, Promise[str | None]] = dataclasses.field(default_factory=dict)
    runs: dict[str, Makings] = dataclasses.field(default_factory=dict)
    """By run name."""
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    """Name of each run whose id somebody used or was told."""
    finishes: dict[str, Promise[tuple[str, int | None]]] = dataclasses.field(default_factory=dict)
    series: dict[RunKey, Series] = dataclasses.field(default_factory=dict)
    params: dict[RunKey, Promise[str]] = dataclasses.field(default_factory=dict)
    tags: dict[RunKey, Promise[str]] = dataclasses.field(default_factory=dict)
    artifacts: dict[RunKey, Promise[tuple[int, int]]] = dataclasses.field(default_factory=dict)
    """Size in bytes and edition."""
    models: dict[str, Promise[None]] = dataclasses.field(default_factory=dict)
    versions: dict[VersionKey, Makings] = dataclasses.field(default_factory=dict)
    aliases: dict[tuple[str, str], Promise[str]] = dataclasses.field(default_factory=dict)
    traces: dict[str, Promise[frozenset[str]]] = dataclasses.field(default_factory=dict)
    changes: dict[tuple[str, str, str], Promise[None]] = dataclasses.field(default_factory=dict)
    """Registry changes that leave through the outbox: kind, model, and which version or alias."""
    unknown_logs: list[Log] = dataclasses.field(default_factory=list)
    requests: dict[str, int] = dataclasses.field(default_factory=dict)


def promises(lines: Iterable[Line]) -> Promises:
    """Return what the lines of one tenant, in the order of its ledgers, amount to."""
    all_of_it = Promises()
    for line in lines:
        result = outcome(line.status)
        all_of_it.requests[result] = all_of_it.requests.get(result, 0) + 1
        _add(all_of_it, line, result)
    return all_of_it


def _add(p: Promises, line: Line, result: Outcome) -> None:
    entry: Any = line.entry
    if isinstance(entry, Log):
        _add_log(p, entry, result)
    elif isinstance(entry, RunCreate):
        _add_run(p, entry, line, result)
    elif isinstance(entry, RunFinish):
        finish = p.finishes.setdefault(entry.run_id, Promise(values=[("RUNNING", None)]))
        finish.add((entry.status, entry.end_ms), result)
    elif isinstance(entry, ArtifactPut):
        key = (entry.run_id, entry.path)
        file = p.artifacts.setdefault(key, Promise())
        file.add((entry.size_bytes, entry.edition), result)
    elif isinstance(entry, TracePut):
        numbers = range(entry.spans)
        spans = frozenset(facts.span_id(entry.name, entry.number, n) for n in numbers)
        trace = p.traces.setdefault(facts.trace_id(entry.name, entry.number), Promise())
        trace.add(spans, result)
    elif isinstance(entry, ExperimentCreate):
        p.experiments.setdefault(entry.name, Promise()).add(line.made, result)
    else:
        _add_registry(p, entry, line, result)


def _add_run(p: Promises, entry: RunCreate, line: Line, result: Outcome) -> None:
    makings = p.runs.setdefault(entry.name, Makings(parent=entry.parent))
    makings.add(line.made, result, line.resent)
    if result == "acknowledged" and line.made:
        p.names[line.made] = entry.name
        p.finishes.setdefault(line.made, Promise(True, [("RUNNING", None)]))


def _add_log(p: Promises, entry: Log, result: Outcome) -> None:
    if result == "refused":
        return
    if result == "unknown":
        p.unknown_logs.append(entry)
    run_id, name, known = entry.run_id, entry.name, result == "acknowledged"
    p.names.setdefault(run_id, name)
    for key in entry.metrics:
        steps = p.series.setdefault((run_id, key), Series(name)).steps
        for step in range(entry.first_step, entry.last_step + 1):
            steps[step] = known or steps.get(step, False)
    for key in entry.params:
        p.params.setdefault((run_id, key), Promise()).add(facts.param(name, key), result)
    for key, edition in entry.tags:
        p.tags.setdefault((run_id, key), Promise()).add(facts.tag(name, key, edition), result)


def _add_registry(
    p: Promises, entry: ModelCreate | VersionCreate | AliasSet, line: Line, result: Outcome
) -> None:
    if isinstance(entry, ModelCreate):
        p.models.setdefault(entry.model, Promise()).add(None, result)
        change = ("registered_model.created", entry.model, "")
    elif isinstance(entry, VersionCreate):
        made_from = (entry.model, entry.run_id, entry.source)
        p.versions.setdefault(made_from, Makings()).add(line.made, result, line.resent)
        change = ("model_version.created", entry.model, line.made or "")
    else:
        alias = p.aliases.setdefault((entry.model, entry.alias), Promise())
        alias.add(entry.version, result)
        change = ("registered_model_alias.set", entry.model, f"{entry.alias} {entry.version}")
    p.changes.setdefault(change, Promise()).add(None, result)
