"""report.json and report.html of a run, made of what its folder holds; nothing else is asked.

So a report can be made again at any time, from any copy of the folder, and two runs be compared.
"""

import datetime
import json
from pathlib import Path
from typing import Any

from mlfleet.errors import FleetError
from mlfleet.load import events, figures, gallery, remarks, requests, resources, tables, units
from mlfleet.load.figures import Figures
from mlfleet.load.page import Page, Table


def read(folder: Path) -> Figures:
    """Return the figures of a run.

    Raises:
        FleetError: the folder is not that of a run, or nothing was recorded.
    """
    run = _document(folder / "run.json")
    if run is None:
        raise FleetError(f"{folder} holds no run.json: name the folder of a run, in load-runs")
    tallies, users = requests.read(folder)
    rows = list(requests.read_lines(folder, resources.FILE))
    if not tallies and not rows:
        raise FleetError(f"{folder} holds no answer and no sample: the run ended before it began")
    found = list(events.read(folder))
    check = _document(folder / "check.json")
    return figures.figures(run, tallies, users, rows, found, check)


def write(folder: Path) -> Figures:
    """Write report.json and report.html into the folder of a run, and return the figures.

    `figures["limits"]` is a list of {"what", "unit", "limit", "measured", "is_kept"}; an account
    that was checked is one of them.

    Raises:
        FleetError: as `read`.
    """
    found = read(folder)
    _replace(folder / "report.json", json.dumps(found, indent=1) + "\n")
    _replace(folder / "report.html", html(found, folder.absolute().name))
    return found


def html(found: Figures, name: str) -> str:
    """Return the page about one run."""
    step = units.duration(found["series"]["step_s"])
    return Page(
        title=f"Load run {name}",
        subtitle=subtitle(found),
        limits=tables.limits(found),
        tiles=tables.tiles(found),
        times=f"Time since the first request (minutes:seconds); each point is {step}.",
        marks=gallery.marks(found),
        charts=gallery.gallery(found),
        tables=_tables(found),
        remarks=remarks.remarks(found),
    ).html()


def _tables(found: Figures) -> list[Table]:
    return [
        Table(
            "Latency by request",
            ("request", *tables.LATENCY_HEADER[1:]),
            tables.names(found),
            note="Warm: the instance was awake. Cold: the answer waited for a wake.",
            style="lefts",
        ),
        Table(
            "Accounts",
            ("kind", *tables.COUNTED),
            tables.accounts(found),
            note="What users were told, against what databases and artifact folders hold.",
        ),
        Table(
            "Findings",
            ("problem", "kind", "tenant", "run", "key", "detail"),
            tables.findings(found),
            note="Acknowledged and not there as sent, or there and never asked for.",
            style="texts",
        ),
        Table(
            "Created twice",
            ("kind", "tenant", "name", "nobody was told of", "told"),
            tables.repeats(found),
            note="A create ended without an answer and was sent again, as stock clients do.",
            style="texts",
        ),
        Table("Resources by role", tables.ROLE_HEADER, tables.roles(found)),
        Table("Events", ("after", "kind", "what"), tables.events(found), style="texts"),
        Table("The run", (), tables.about(found), style="about"),
    ]


def subtitle(found: Figures) -> str:
    """Return what was run, in one line."""
    run = found["run"]
    started = datetime.datetime.fromtimestamp(found["start"], datetime.UTC)
    parts = [
        f"{units.count(found['users'] or run.get('users'))} users",
        f"{units.count(run['tenants'])} tenants registered" if run.get("tenants") else "",
        f"shape {run['shape']}" if run.get("shape") else "",
        units.duration(found["duration_s"]),
        f"{started:%Y-%m-%d %H:%M:%S} UTC",
        f"against {run['host']}" if run.get("host") else "",
    ]
    return " · ".join(part for part in parts if part)


def summary(found: Figures) -> str:
    """Return the figures on one screen of a terminal."""
    names = tables.names(found)
    lines = [subtitle(found), ""]
    tiles = [(tile.what, tile.figure, tile.detail) for tile in tables.tiles(found)]
    widths = [max(len(tile[at]) for tile in tiles) for at in (0, 1)]
    lines += [f"{a.ljust(widths[0])}  {b.ljust(widths[1])}  {c}" for a, b, c in tiles]
    lines += ["", tables.text_table(("request", *tables.LATENCY_HEADER[1:]), _once(names[:20]))]
    if len(names) > 20:
        lines.append(f"… and {len(names) - 20} more in report.html")
    if found["limits"]:
        lines.append("")
    lines += [f"{'kept' if kept else 'MISSED':6}  {text}" for text, kept in tables.limits(found)]
    return "\n".join(lines)


def _once(rows: list[tables.Row]) -> list[tables.Row]:
    """Return the rows without the name where the row above has the same."""
    befores = ["", *(row[0] for row in rows)]
    pairs = zip(befores, rows, strict=False)
    return [("", *row[1:]) if row[0] == before else row for before, row in pairs]


def _document(path: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise FleetError(f"{path} cannot be read: {exc}") from exc
    return document


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(path.suffix + ".new")
    draft.write_text(text)
    draft.rename(path)
