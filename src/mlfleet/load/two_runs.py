"""Two runs side by side: the same figures, and the second over the first.

A ratio above 1 is more, which is better for a rate and worse for a latency: the table says which
way is good. Whether the two runs are alike enough is left to the reader: what differs comes first.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mlfleet.load import report, tables, units
from mlfleet.load.charts import Chart, Line, seconds_label
from mlfleet.load.figures import Figures
from mlfleet.load.page import Page, Table
from mlfleet.load.roles import ROLES

Number = float | None
_SETUP = ("kind", "users", "tenants", "shape", "mix", "seed", "processes")
_COLOURS = ("blue", "orange")


@dataclasses.dataclass(frozen=True)
class Pair:
    """One figure of two runs."""

    what: str
    first: Number
    second: Number
    words: Callable[[Number], str]
    is_more_better: bool | None = None
    """None: neither is better."""

    @property
    def ratio(self) -> float | None:
        """The second over the first."""
        if self.first is None or self.second is None or self.first == 0:
            return None
        return self.second / self.first

    @property
    def row(self) -> tuple[str, ...]:
        """The figure as a row of a table."""
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f} ×"
        return self.what, self.words(self.first), self.words(self.second), ratio, self._better()

    def _better(self) -> str:
        return {True: "higher", False: "lower", None: ""}[self.is_more_better]


def pairs(first: Figures, second: Figures) -> list[Pair]:
    """Return what two runs have in common: the whole, each role, each request name."""
    return [
        *_of_requests(first, second),
        *_of_fleet(first, second),
        *_of_roles(first, second),
        *_of_names(first, second),
    ]


def _of_requests(first: Figures, second: Figures) -> Iterable[Pair]:
    one, two = first["requests"], second["requests"]
    yield Pair("answered", one["rate"], two["rate"], units.rate, True)
    yield Pair("failed tries", one["failed"], two["failed"], units.count, False)
    for word in ("warm", "cold"):
        for share in ("p50", "p99", "max"):
            key = f"{share}_s"
            name = f"{word} {'longest' if share == 'max' else share}"
            yield Pair(name, one[word][key], two[word][key], units.latency, False)


def _of_fleet(first: Figures, second: Figures) -> Iterable[Pair]:
    one, two = first["fleet"] or {}, second["fleet"] or {}
    yield Pair("awake, median", one.get("awake_median"), two.get("awake_median"), units.count)
    yield Pair("wakes", one.get("wakes"), two.get("wakes"), units.count)
    for share in ("p50", "p99"):
        key = f"wake_{share}_s"
        yield Pair(f"wait for a wake {share}", one.get(key), two.get(key), units.latency, False)


def _of_roles(first: Figures, second: Figures) -> Iterable[Pair]:
    for what, key, words in (
        ("CPU of servers", "cores", units.cores),
        ("memory of servers, most", "pss_most_bytes", units.size),
        ("processes of servers, most", "processes_most", units.count),
    ):
        yield Pair(what, first["servers"][key], second["servers"][key], words, False)
    one, two = ({role["role"]: role for role in f["roles"]} for f in (first, second))
    for role in (role for role in ROLES if role in one and role in two):
        yield Pair(f"CPU of {role}", one[role]["cores"], two[role]["cores"], units.cores, False)


def _of_names(first: Figures, second: Figures) -> Iterable[Pair]:
    others = {row["name"]: row for row in second["names"]}
    for row in first["names"]:
        if other := others.get(row["name"]):
            for key in ("p50", "p99"):
                one, two = (each["warm"][f"{key}_s"] for each in (row, other))
                yield Pair(f"{row['name']} warm {key}", one, two, units.latency, False)


def write(folder: Path, other: Path, page: Path) -> list[Pair]:
    """Write one page about two runs, and the same figures as JSON beside it; return them."""
    first, second = report.read(folder), report.read(other)
    names = names_of(folder, other)
    found = [pair for pair in pairs(first, second) if pair.first is not None or pair.second]
    page.write_text(html(first, second, names))
    rows = [{"what": p.what, "first": p.first, "second": p.second, "ratio": p.ratio} for p in found]
    page.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    return found


def names_of(folder: Path, other: Path) -> tuple[str, str]:
    """Return what the two runs are called."""
    one, two = folder.absolute().name, other.absolute().name
    return (one, two) if one != two else (f"{one} (first)", f"{two} (second)")


def text(found: Sequence[Pair], names: tuple[str, str]) -> str:
    """Return the table for a terminal."""
    return tables.text_table(_header(names), [pair.row for pair in found])


def _header(names: tuple[str, str]) -> tuple[str, ...]:
    return "", *names, "second / first", "better"


def html(first: Figures, second: Figures, names: tuple[str, str]) -> str:
    """Return the page about two runs."""
    found = [pair for pair in pairs(first, second) if pair.first is not None or pair.second]
    setups = [
        (key, *(str(figures["run"].get(key, "-")) for figures in (first, second))) for key in _SETUP
    ]
    differing = [row for row in setups if row[1] != row[2]]
    return Page(
        title=f"{names[0]} and {names[1]}",
        subtitle=f"First: {report.subtitle(first)}. Second: {report.subtitle(second)}.",
        charts=[chart for chart in charts(first, second, names) if chart.shown],
        tables=[
            Table("What differs", ("", *names), differing, style="texts", is_first=True),
            Table("Figures", _header(names), [pair.row for pair in found], is_first=True),
        ],
        times="Time since the first request of each run (minutes:seconds).",
    ).html()


def charts(first: Figures, second: Figures, names: tuple[str, str]) -> Iterable[Chart]:
    """Return the charts of both runs in the same axes."""
    runs = list(zip((first, second), names, _COLOURS, strict=True))
    for title, unit, key, is_log in (
        ("Requests", "per second", "rate", False),
        ("Users", "", "users", False),
        ("Latency, warm, p99", "logarithmic", "warm_p99_s", True),
        ("Latency, cold, p99", "logarithmic", "cold_p99_s", True),
        ("Instances awake", "", "awake", False),
        ("Whole machine", "cores", "busy", False),
    ):
        yield Chart(
            title,
            unit,
            tuple(
                Line(name, run["series"][key], colour, seconds=run["series"]["seconds"])
                for run, name, colour in runs
            ),
            max((run["series"]["seconds"] for run, _, _ in runs), key=lambda s: s[-1]),
            is_log=is_log,
            label=seconds_label if is_log else units.count_label,
        )
