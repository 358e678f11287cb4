"""One self-contained HTML page of charts and tables: no script, no network, no other file."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from mlfleet.load.charts import Chart, Line, Mark, draw

TEMPLATE = "report.html"


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of a page; the first column names the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    style: str = ""
    """`lefts`: the second column is a word; `about`: two columns of text."""
    is_first: bool = False
    """Above the charts."""


@dataclasses.dataclass(frozen=True)
class Page:
    """What a page shows, top to bottom."""

    title: str
    subtitle: str
    charts: Sequence[Chart]
    tables: Sequence[Table]
    limits: Sequence[tuple[str, bool]] = ()
    tiles: Sequence[Any] = ()
    times: str = ""
    marks: Sequence[Mark] = ()
    remarks: Sequence[str] = ()

    def html(self) -> str:
        """Return the page."""
        text = resources.files("mlfleet.load").joinpath(TEMPLATE).read_text()
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        return environment.from_string(text).render(
            title=self.title,
            subtitle=self.subtitle,
            limits=self.limits,
            tiles=self.tiles,
            tables=[table for table in self.tables if table.rows],
            times=self.times,
            marks=list(_mark_legend(self.marks)),
            charts=[self._chart(at, chart) for at, chart in enumerate(self.charts)],
            remarks=self.remarks,
        )

    def _chart(self, at: int, chart: Chart) -> Mapping[str, Any]:
        return {
            "title": chart.title,
            "unit": chart.unit,
            "legend": list(_legend(chart)),
            "svg": draw(chart, f"c{at}", self.marks) if chart.shown else "",
            "empty": chart.empty,
        }


def _legend(chart: Chart) -> Iterable[Mapping[str, str]]:
    for line in chart.shown:
        yield {"label": line.label, "colour": line.colour, "kind": _kind(chart, line)}
    if chart.limit is not None and chart.shown:
        yield {"label": chart.limit_label, "colour": "red", "kind": "dashed"}


def _kind(chart: Chart, line: Line) -> str:
    if line.is_dashed:
        return "dashed"
    return "area" if chart.is_stack else ""


def _mark_legend(marks: Iterable[Mark]) -> Iterable[Mapping[str, str]]:
    counts = Counter((mark.kind, mark.colour) for mark in marks)
    for (kind, colour), count in counts.items():
        yield {"text": f"{kind} × {count}" if count > 1 else kind, "colour": colour}
