"""What a run measured, judged, and written as docs/benchmarks-cluster.md. Pure."""

import dataclasses
import statistics
import string
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("page.md")
COLD_S, COLD_STRETCH_S = 3.5, 2.5
WARM_S = 0.15
SLOWER = 3.0
CELL_MIB = 1536.0
PLANE_MIB = 1024.0
TENANTS = 50
"""Awake in one cell for its memory; and stock servers that they are compared with."""


@dataclasses.dataclass(frozen=True)
class ColdStart:
    """Where the time of one cold start of a cell went, in seconds."""

    pod_s: float
    """From the request to the cell's first line in the log: place, containers, Python."""
    warm_s: float
    """From there to readiness."""
    answer_s: float
    """From there to the answer: found ready by Knative, forwarded, tenant woken."""

    @property
    def total_s(self) -> float:
        """What the client waited."""
        return self.pod_s + self.warm_s + self.answer_s


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of some pods, in MiB."""

    used: float
    requested: float


@dataclasses.dataclass(frozen=True)
class Figures:
    """All that one run measured."""

    cold: Sequence[ColdStart]
    stock_defaults_s: Sequence[float]
    stock_one_worker_s: Sequence[float]
    warm_s: Sequence[float]
    awake: int
    cell_awake: Memory
    stock: Sequence[Memory]
    parts: Sequence[str]
    """What runs of ours when the cell is at zero."""
    plane_at_zero: Memory
    plane_asleep: Memory
    failures: Sequence[str] = ()
    """Parts about stock servers that could not be measured, and why."""


def verdict(is_met: bool) -> str:
    """Return a verdict as the tables have it."""
    return "**met**" if is_met else "**not met**"


def markdown(figures: Figures, machine: Sequence[str]) -> str:
    """Return the whole page."""
    cold = figures.cold
    return string.Template(PAGE.read_text()).substitute(
        machine="\n".join(f"- {line}" for line in machine),
        times="\n".join(_times(figures)),
        failures="".join(f"Not measured: {line}\n\n" for line in figures.failures),
        pod=_duration(statistics.median(one.pod_s for one in cold)),
        warm=_duration(statistics.median(one.warm_s for one in cold)),
        answer=_duration(statistics.median(one.answer_s for one in cold)),
        memories="\n".join(_memories(figures)),
    )


def _times(figures: Figures) -> list[str]:
    cold = [one.total_s for one in figures.cold]
    median = statistics.median(cold)
    warm = statistics.median(figures.warm_s)
    reach = f"median ≤ {COLD_S:g} s; stretch ≤ {COLD_STRETCH_S:g} s"
    judged = f"{verdict(median <= COLD_S)}; stretch {verdict(median <= COLD_STRETCH_S)}"
    rows = [_time_row("cell at zero: first `runs/create` answered", cold, reach, judged)]
    for what, seconds in (
        (
            "stock server as a Knative Service at zero, its defaults (SQLite)",
            figures.stock_defaults_s,
        ),
        ("the same with one worker and no job runner", figures.stock_one_worker_s),
    ):
        reach = f"≥ {SLOWER:g} × the cell's median"
        if not seconds:
            rows.append(f"| {what} | 0 | | | | {reach} | not measured |")
            continue
        ratio = statistics.median(seconds) / median
        rows.append(_time_row(what, seconds, reach, f"{ratio:.1f} ×: {verdict(ratio >= SLOWER)}"))
    reach, judged = f"median ≤ {WARM_S * 1000:g} ms", verdict(warm <= WARM_S)
    rows.append(_time_row("sleeping tenant in a running cell", figures.warm_s, reach, judged))
    return rows


def _time_row(what: str, seconds: Sequence[float], reach: str, judged: str) -> str:
    shown = (statistics.median(seconds), min(seconds), max(seconds))
    cells = " | ".join(_duration(one) for one in shown)
    return f"| {what} | {len(seconds)} | {cells} | {reach} | {judged} |"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _memories(figures: Figures) -> list[str]:
    cell = figures.cell_awake
    is_full = figures.awake >= TENANTS
    reach = f"≤ {CELL_MIB:,.0f} MiB with {TENANTS}"
    what = f"cell pod with {figures.awake} tenants awake, one write each"
    rows = [_memory_row(what, cell, reach, verdict(is_full and cell.used <= CELL_MIB))]
    rows += _stock_memories(figures)
    for what, memory in (
        (f"our parts on a Pi, cell at zero: {', '.join(figures.parts)}", figures.plane_at_zero),
        ("the same with a cell pod whose tenants all sleep", figures.plane_asleep),
    ):
        is_met = max(memory.used, memory.requested) <= PLANE_MIB
        reach = f"used and requested ≤ {PLANE_MIB:,.0f} MiB"
        rows.append(_memory_row(what, memory, reach, verdict(is_met)))
    return rows


def _stock_memories(figures: Figures) -> list[str]:
    used = [one.used for one in figures.stock]
    if not used:
        return ["| stock Knative Services | not measured | | | |"]
    each = ", ".join(f"{one:,.0f}" for one in used)
    computed = statistics.mean(used) * TENANTS
    ratio = computed / figures.cell_awake.used
    return [
        f"| {len(used)} stock Knative Services, their defaults | {each} MiB | not set | | |",
        f"| {TENANTS} of them, computed: {TENANTS} × the mean of {len(used)} "
        f"| {computed:,.0f} MiB | not set | | {ratio:.0f} × the cell pod |",
    ]


def _memory_row(what: str, memory: Memory, reach: str, judged: str) -> str:
    used, requested = f"{memory.used:,.0f} MiB", f"{memory.requested:,.0f} MiB"
    return f"| {what} | {used} | {requested} | {reach} | {judged} |"
