"""Which charts a report shows, in which order: what a client feels first, then what it costs."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlfleet.load import units
from mlfleet.load.charts import (
    ROLE_COLOURS,
    Chart,
    Line,
    Mark,
    seconds_label,
)
from mlfleet.load.roles import ROLES

Figures = Mapping[str, Any]
Values = Sequence[float | None]
_ERROR_COLOURS = ("red", "orange", "purple", "pink", "teal", "grey")
_MARK_COLOURS = ("red", "purple", "orange", "pink", "teal", "green", "blue", "grey")


def gallery(figures: Figures) -> list[Chart]:
    """Return the charts of a run that have anything to show, and the empty one of errors."""
    charts = [*_of_requests(figures), *_of_fleet(figures), *_of_machine(figures)]
    return [chart for chart in charts if chart.shown or chart.title == "Failed tries"]


def marks(figures: Figures) -> list[Mark]:
    """Return the events of a run as moments, a colour for each kind."""
    colours = mark_colours(figures)
    return [Mark(e["second"], e["kind"], colours[e["kind"]]) for e in figures["events"]]


def mark_colours(figures: Figures) -> dict[str, str]:
    """Return the colour of each kind of event."""
    kinds = list(dict.fromkeys(event["kind"] for event in figures["events"]))
    return {kind: _MARK_COLOURS[at % len(_MARK_COLOURS)] for at, kind in enumerate(kinds)}


def _of_requests(figures: Figures) -> Iterable[Chart]:
    series = figures["series"]
    seconds, limits = series["seconds"], figures["run"].get("limits") or {}
    yield Chart(
        "Requests",
        "per second",
        (
            Line("meant to start", series["intended"], "grey", is_dashed=True),
            Line("answered", series["rate"], "blue"),
        ),
        seconds,
        label=units.count_label,
    )
    yield Chart("Users", "", (Line("users", series["users"], "purple"),), seconds)
    for name, colour in (("warm", "blue"), ("cold", "orange")):
        limit = limits.get("p99_s") if name == "warm" else None
        yield Chart(
            f"Latency, {name}",
            "from the intended start; logarithmic",
            (
                Line("p99", series[f"{name}_p99_s"], colour),
                Line("p50", series[f"{name}_p50_s"], "teal", is_thin=True),
            ),
            seconds,
            is_log=True,
            limit=limit,
            limit_label=f"limit of p99: {units.latency(limit)}",
            label=seconds_label,
        )
    yield Chart(
        "Failed tries",
        "per second",
        tuple(
            Line(units.status(status), values, colour)
            for (status, values), colour in zip(
                series["errors"].items(), itertools.cycle(_ERROR_COLOURS), strict=False
            )
        ),
        seconds,
        is_steps=True,
        empty="none in the whole run",
    )


def _of_fleet(figures: Figures) -> Iterable[Chart]:
    series = figures["series"]
    seconds = series["seconds"]
    yield Chart(
        "Instances",
        "",
        (
            Line("awake", series["awake"], "blue"),
            Line("requests held for a wake", series["held"], "orange", is_thin=True),
        ),
        seconds,
        is_steps=True,
        label=units.count_label,
    )
    yield Chart(
        "Wakes",
        "per second",
        (Line("wakes", series["wakes"], "green"),),
        seconds,
        is_steps=True,
    )
    yield Chart(
        "Wait for a wake",
        "as the gateway told clients; logarithmic",
        (
            Line("p99", series["wake_p99_s"], "orange"),
            Line("p50", series["wake_p50_s"], "teal", is_thin=True),
        ),
        seconds,
        is_log=True,
        label=seconds_label,
    )


def _of_machine(figures: Figures) -> Iterable[Chart]:
    series, machine = figures["series"], figures["machine"]
    seconds = series["seconds"]
    yield Chart(
        "CPU by role",
        "cores",
        (
            *_by_role(series["cpu"]),
            Line("whole machine, others too", series["busy"], "grey", is_dashed=True),
        ),
        seconds,
        is_stack=True,
        limit=machine["cores"] if machine else None,
        limit_label=f"all {machine['cores']} cores" if machine else "",
    )
    unit, unit_bytes = _memory_unit(series["memory"])
    yield Chart(
        "Memory by role",
        f"{unit}, proportional",
        tuple(_by_role(series["memory"], unit_bytes)),
        seconds,
        is_stack=True,
        label=units.count_label,
    )
    connections, limit = series["connections"], (figures["connections"] or {}).get("limit")
    yield Chart(
        "Connections of Postgres",
        "",
        (
            Line("of tenants", connections["tenants"], "blue"),
            Line("of the fleet itself", connections["fleet"], "orange", is_thin=True),
        ),
        seconds,
        limit=limit,
        limit_label=f"max_connections: {limit}",
        label=units.count_label,
    )
    yield Chart(
        "Open files by role",
        "",
        tuple(_by_role(series["fds"])),
        seconds,
        label=units.count_label,
    )


def _memory_unit(memory: Mapping[str, Values]) -> tuple[str, int]:
    most = max((value or 0 for values in memory.values() for value in values), default=0)
    return ("GiB", 1 << 30) if most >= 1 << 30 else ("MiB", 1 << 20)


def _by_role(values: Mapping[str, Values], divisor: int = 1) -> Iterable[Line]:
    for role in ROLES:
        if role in values:
            scaled = [None if value is None else value / divisor for value in values[role]]
            yield Line(role, scaled, ROLE_COLOURS[role])
