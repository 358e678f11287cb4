"""`mlfleet status`: the fleet at a glance."""

import time
from typing import Any

import click

from mlfleet.cli.options import Fleet, fleet_command
from mlfleet.cli.output import ago, print_json, size, table
from mlfleet.errors import FleetError
from mlfleet.runtime.cell_admin import CellAdmin

SHOWN = 50
HEADER = ["TENANT", "TIER", "CELL", "STATE", "LAST REQUEST", "MEMORY", "CONN", "WAKES", "LAST WAKE"]


@click.command(short_help="Show tenants, cells and database.")
@click.option("--all", "show_all", is_flag=True, help=f"Show more than {SHOWN} tenants.")
@fleet_command
def status(fleet: Fleet, show_all: bool, as_json: bool) -> None:
    """Show tenants, cells and database of the running fleet; nobody is woken."""
    document = collect(fleet)
    if as_json:
        print_json(document)
    else:
        click.echo(_text(document, None if show_all else SHOWN))


def collect(fleet: Fleet) -> dict[str, Any]:
    """Return what the catalogue, the cells and Postgres say, joined by tenant."""
    reports = [_report(cell) for cell in fleet.cells()]
    running = {row["tenant"]: row for report in reports for row in report.get("awake", [])}
    wakes = {name: row for report in reports for name, row in report.get("wakes", {}).items()}
    tenants = [
        {
            "name": tenant.name,
            "url": fleet.url(tenant.name),
            "tier": tenant.tier,
            "cell": tenant.cell,
            "mlflow_version": tenant.mlflow_version,
            **_instance(tenant.state, running.get(tenant.name, {}), wakes.get(tenant.name, {})),
        }
        for tenant in fleet.catalogue.tenants()
    ]
    # Newest request first; those without a process follow by name.
    tenants.sort(key=lambda row: str(row["name"]))
    tenants.sort(key=lambda row: str(row["last_request"] or ""), reverse=True)
    return {
        "url": fleet.file.url,
        "pid": fleet.file.pid,
        "tenants": tenants,
        "cells": [_cell(report) for report in reports],
        "database": {"admin_uri": fleet.file.admin_uri, **connections(fleet)},
    }


def _report(cell: CellAdmin) -> dict[str, Any]:
    try:
        return {"name": cell.name, **cell.status()}
    except FleetError as exc:
        return {"name": cell.name, "ready": False, "not_ready": str(exc)}


def _cell(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": report["name"],
        "ready": report["ready"],
        "not_ready": report["not_ready"] or None,
        "awake": len(report.get("awake", [])),
        "limits": report.get("limits", []),
    }


def _instance(state: str, running: dict[str, Any], wakes: dict[str, Any]) -> dict[str, Any]:
    asleep = "asleep" if state == "ready" else state
    fields = ("pid", "last_request", "memory", "connections")
    return {
        "state": running.get("state", asleep),
        **{field: running.get(field) for field in fields},
        "wakes": wakes.get("wakes", 0),
        "last_wake_s": wakes.get("last_wake_s"),
    }


def connections(fleet: Fleet) -> dict[str, Any]:
    """Return how many connections are open now, and how many may be."""
    with fleet.admin.session() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int, current_setting('server_version'),"
            " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
        )
        limit, version, used = cursor.fetchone() or (0, "", 0)
    return {"version": version, "max_connections": limit, "connections": used}


def _text(document: dict[str, Any], limit: int | None) -> str:
    now, rows = time.time(), document["tenants"]
    awake = sum(cell["awake"] for cell in document["cells"])
    database = document["database"]
    shown = [_row(row, now) for row in rows[:limit]]
    lines = [
        f"{document['url']}  tenants: {len(rows)}, awake: {awake}",
        *(_cell_line(cell) for cell in document["cells"]),
        f"Postgres {database['version']}: {database['connections']} of"
        f" {database['max_connections']} connections",
        "",
        table(HEADER, shown) if shown else "No tenants yet: mlfleet tenant create NAME",
    ]
    if len(shown) < len(rows):
        lines.append(f"… and {len(rows) - len(shown)} more: mlfleet status --all")
    return "\n".join(lines)


def _cell_line(cell: dict[str, Any]) -> str:
    return f"{cell['name']}: {'ready' if cell['ready'] else cell['not_ready']}"


def _row(row: dict[str, Any], now: float) -> list[object]:
    wake_s = row["last_wake_s"]
    return [
        row["name"],
        row["tier"],
        row["cell"],
        row["state"],
        ago(row["last_request"], now),
        _memory(row["memory"]),
        row["connections"],
        row["wakes"],
        None if wake_s is None else f"{wake_s * 1000:.0f} ms",
    ]


def _memory(memory: dict[str, Any] | None) -> str:
    """Return what the instance alone costs; its share of the zygote's pages is in the JSON."""
    return size((memory or {}).get("private_bytes"))
