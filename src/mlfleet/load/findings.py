"""What a comparison counts, and what it says about a row that is not as promised."""

import dataclasses
from typing import Literal, NamedTuple

Problem = Literal["missing", "altered", "unexplained"]
PROBLEMS: tuple[Problem, ...] = ("missing", "altered", "unexplained")

KINDS = (
    "experiment",
    "run",
    "status",
    "metric",
    "latest metric",
    "param",
    "tag",
    "whole request",
    "artifact",
    "model",
    "version",
    "alias",
    "trace",
    "span",
    "outbox row",
)
"""In the order in which a reader wants them."""


class Finding(NamedTuple):
    """One thing that is not as promised."""

    problem: Problem
    kind: str
    tenant: str
    run: str
    """The run's name; for what belongs to no run, the model's or experiment's."""
    run_id: str
    key: str
    detail: str
    rows: int = 1


class Repeat(NamedTuple):
    """Runs or versions that nobody was told of, explained by creates without an answer."""

    kind: str
    tenant: str
    name: str
    told: list[str]
    extra: list[str]
    unanswered: int


@dataclasses.dataclass
class Count:
    """Rows of one kind."""

    sent: int = 0
    acknowledged: int = 0
    found: int = 0
    """As promised; also those of requests whose outcome was unknown."""
    missing: int = 0
    altered: int = 0
    unexplained: int = 0

    def add(self, other: "Count") -> None:
        """Add the rows of another tenant."""
        for field in dataclasses.fields(self):
            both = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, both)


@dataclasses.dataclass
class Account:
    """The outcome for one tenant."""

    tenant: str
    counts: dict[str, Count] = dataclasses.field(
        default_factory=lambda: {kind: Count() for kind in KINDS}
    )
    findings: list[Finding] = dataclasses.field(default_factory=list)
    repeats: list[Repeat] = dataclasses.field(default_factory=list)
    unanswered_creates: int = 0
    """Sendings of `runs/create` that may have made a run without telling."""
    requests: dict[str, int] = dataclasses.field(default_factory=dict)
    remarks: list[str] = dataclasses.field(default_factory=list)
    unchecked: set[str] = dataclasses.field(default_factory=set)
    """Kinds that could not be looked at."""
    found: int = 0
    """How many findings there are, also those that were dropped from the list."""

    def note(
        self,
        problem: Problem,
        kind: str,
        run: str,
        key: str = "",
        detail: str = "",
        *,
        run_id: str = "",
        rows: int = 1,
    ) -> None:
        """Count rows that are not as promised and say so."""
        count = self.counts[kind]
        setattr(count, problem, getattr(count, problem) + rows)
        self.findings.append(Finding(problem, kind, self.tenant, run, run_id, key, detail, rows))
