"""The accounts of all tenants of a load run, as one document."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from mlfleet.load.findings import KINDS, PROBLEMS, Account, Count, Finding, Repeat

MOST_FINDINGS = 1000
"""Findings that are written down; all are counted."""


@dataclasses.dataclass
class Verdict:
    """What a load run was promised, and what is there; `document` is what check.json says."""

    run: str
    tenants: int = 0
    requests: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"acknowledged": 0, "refused": 0, "unknown": 0}
    )
    """Requests that write, by outcome."""
    unanswered_creates: int = 0
    counts: dict[str, Count] = dataclasses.field(
        default_factory=lambda: {kind: Count() for kind in KINDS}
    )
    findings: list[Finding] = dataclasses.field(default_factory=list)
    found: int = 0
    """How many findings there are, also those that are not written down."""
    repeats: list[Repeat] = dataclasses.field(default_factory=list)
    unchecked: set[str] = dataclasses.field(default_factory=set)
    remarks: list[str] = dataclasses.field(default_factory=list)
    took_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing acknowledged is missing or altered, and nothing is unexplained."""
        return self.found == 0

    def add(self, account: Account) -> None:
        """Take one more tenant into account."""
        self.tenants += 1
        self.unanswered_creates += account.unanswered_creates
        self.found += account.found
        self.unchecked |= account.unchecked
        self.repeats += account.repeats
        self.findings += account.findings
        for outcome, number in account.requests.items():
            self.requests[outcome] += number
        for kind, count in account.counts.items():
            self.counts[kind].add(count)
        self.remarks += [f"{account.tenant}: {remark}" for remark in account.remarks]

    def document(self) -> dict[str, Any]:
        """Return what check.json says, gravest findings first."""
        return {
            "run": self.run,
            "is_good": self.is_good,
            "took_s": round(self.took_s, 1),
            "tenants": self.tenants,
            "requests": self.requests,
            "counts": {kind: dataclasses.asdict(count) for kind, count in self.counts.items()},
            "findings": [finding._asdict() for finding in worst_first(self.findings)],
            "findings_in_all": self.found,
            "unanswered_creates": self.unanswered_creates,
            "repeats": [repeat._asdict() for repeat in self.repeats],
            "unchecked": sorted(self.unchecked),
            "remarks": self.remarks,
        }


def worst_first(findings: Iterable[Finding], most: int = MOST_FINDINGS) -> list[Finding]:
    """Return the findings in the order in which a reader wants them."""
    ranked = sorted(
        findings, key=lambda f: (PROBLEMS.index(f.problem), KINDS.index(f.kind), f.tenant, f.run)
    )
    return ranked[:most]
