"""What a user asks a tenant to keep: one entry for each request that writes.

An entry names things and holds no values: those are derived from the names (facts.py), for the user
who sends them and for the checker who looks for them. `name` is always the name of the run, which
`facts.run_name` makes unique; `run_id` is what MLflow called it.
"""

from typing import NamedTuple


class ExperimentCreate(NamedTuple):
    """`experiments/create`; what it made is the experiment's id."""

    tenant: str
    name: str


class RunCreate(NamedTuple):
    """`runs/create` with `start_time` as `facts.start_ms(name)`; what it made is the run's id."""

    tenant: str
    name: str
    parent: str | None = None
    """The run id sent as the tag `mlflow.parentRunId`."""


class RunFinish(NamedTuple):
    """`runs/update`."""

    tenant: str
    run_id: str
    name: str
    status: str
    """FINISHED, FAILED or KILLED."""
    end_ms: int


class Log(NamedTuple):
    """One `log-batch`, `log-metric`, `log-parameter` or `set-tag`: all of it, or nothing."""

    tenant: str
    run_id: str
    name: str
    metrics: tuple[str, ...] = ()
    """Keys; each has one value for each step from `first_step` to `last_step`, both included."""
    first_step: int = 0
    last_step: int = 0
    params: tuple[str, ...] = ()
    tags: tuple[tuple[str, int], ...] = ()
    """Key and edition: the n-th value that the user gave this tag."""


class ArtifactPut(NamedTuple):
    """One file, uploaded whole."""

    tenant: str
    run_id: str
    name: str
    path: str
    """Below the run's artifact root."""
    size_bytes: int
    edition: int = 0


class ModelCreate(NamedTuple):
    """`registered-models/create`."""

    tenant: str
    model: str


class VersionCreate(NamedTuple):
    """`model-versions/create`; what it made is the version's number, as text."""

    tenant: str
    model: str
    run_id: str
    source: str


class AliasSet(NamedTuple):
    """`registered-models/alias`."""

    tenant: str
    model: str
    alias: str
    version: str


class TracePut(NamedTuple):
    """One export by OTLP: one trace, whose ids are `facts.trace_id` and `facts.span_id`."""

    tenant: str
    experiment_id: str
    name: str
    number: int
    """Which trace of this run (or user) it is."""
    spans: int


Entry = (
    ExperimentCreate
    | RunCreate
    | RunFinish
    | Log
    | ArtifactPut
    | ModelCreate
    | VersionCreate
    | AliasSet
    | TracePut
)

KINDS: dict[str, type[Entry]] = {
    "experiment": ExperimentCreate,
    "create": RunCreate,
    "finish": RunFinish,
    "log": Log,
    "artifact": ArtifactPut,
    "model": ModelCreate,
    "version": VersionCreate,
    "alias": AliasSet,
    "trace": TracePut,
}
"""What a ledger calls each of them."""
