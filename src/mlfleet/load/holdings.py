"""What a tenant's database and artifact folder hold of one load run, as plain values."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from mlfleet.load.promises import RunKey

MetricRow = tuple[str, str, int, int, float]
"""Run id, key, step, timestamp in ms, value; a value stored as not-a-number is NaN."""


@dataclasses.dataclass(frozen=True)
class Window:
    """Which rows belong to a load run: its names, and whatever began while it ran."""

    load: str
    """Its id; names of runs, experiments and models begin with it and a hyphen."""
    begin_ms: int
    end_ms: int


class Run(NamedTuple):
    """A row of `runs`."""

    name: str
    status: str
    start_ms: int
    end_ms: int | None
    stage: str


class Version(NamedTuple):
    """A row of `model_versions`."""

    run_id: str
    source: str
    status: str


@dataclasses.dataclass
class Holdings:
    """All that was found; each field has the keys of the field of that name in `Promises`."""

    experiments: dict[str, str] = dataclasses.field(default_factory=dict)
    runs: dict[str, Run] = dataclasses.field(default_factory=dict)
    """By id."""
    metrics: Iterable[MetricRow] = ()
    """Read once, from beginning to end."""
    latest: dict[RunKey, tuple[int, int, float]] = dataclasses.field(default_factory=dict)
    """Step, timestamp in ms and value of the rows of `latest_metrics`."""
    params: dict[RunKey, str] = dataclasses.field(default_factory=dict)
    tags: dict[RunKey, str] = dataclasses.field(default_factory=dict)
    """MLflow's own tags are left out, but for the parent's and the name's."""
    artifacts: dict[RunKey, tuple[int, str]] | None = None
    """Size in bytes and SHA-256; None when the files cannot be read from here."""
    models: dict[str, None] = dataclasses.field(default_factory=dict)
    versions: dict[tuple[str, str], Version] = dataclasses.field(default_factory=dict)
    """By model and number."""
    aliases: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    traces: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    """Span ids by trace id (OTLP's, without MLflow's `tr-`)."""
    changes: set[tuple[str, str, str]] | None = None
    """Rows of the outbox; None when there is no outbox."""
    remarks: list[str] = dataclasses.field(default_factory=list)
    """What could not be looked at, or was passed over, in sentences."""
