"""`mlfleet load check`: the accounts of a load run, on one screen."""

import sys
from pathlib import Path
from typing import Any

import click

from mlfleet.cli.exits import FAILED
from mlfleet.cli.options import data_option, json_option
from mlfleet.cli.output import print_json, table

SHOWN = 20
FEW = 5
"""Of what is no fault."""
COUNTED = ("sent", "acknowledged", "found", "missing", "altered", "unexplained")


@click.command(short_help="Look for every acknowledged row in every database.")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_option
@json_option
def check(run: Path, data: Path, as_json: bool) -> None:
    """Compare what the users of a load RUN were promised with what the tenants hold.

    RUN is its folder. Every tenant's database and artifact folder is read; nobody is woken. The
    whole result goes to check.json in RUN. Exit code 1: something acknowledged is missing or
    altered, or something is there that nobody asked for.
    """
    from mlfleet.load.check import check as check_run

    document = check_run(run, data, _progress).document()
    if as_json:
        print_json(document)
    else:
        click.echo(text(document))
    if not document["is_good"]:
        sys.exit(FAILED)


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{done} of {of} tenants", err=True, nl=done == of)


def text(document: dict[str, Any]) -> str:
    """Return what check.json says, on one screen."""
    return "\n\n".join(part for part in (
        _head(document),
        _counts(document),
        _repeats(document),
        _remarks(document["remarks"]),
        _findings(document),
        _verdict(document),
    ) if part)  # fmt: skip


def _head(document: dict[str, Any]) -> str:
    requests = document["requests"]
    return (
        f"load run {document['run']}, {document['tenants']} tenants: {sum(requests.values())}"
        f" requests that write, of these {requests['acknowledged']} acknowledged,"
        f" {requests['refused']} refused, {requests['unknown']} without a known outcome"
    )


def _counts(document: dict[str, Any]) -> str:
    rows = [
        [kind, *("not looked at" if kind in document["unchecked"] else count[c] for c in COUNTED)]
        for kind, count in document["counts"].items()
        if any(count.values())
    ]
    return table(["", *(name.upper() for name in COUNTED)], rows) if rows else "nothing was sent"


def _repeats(document: dict[str, Any]) -> str:
    repeats = document["repeats"]
    if not repeats:
        return ""
    lines = [
        f"{sum(len(repeat['extra']) for repeat in repeats)} runs or versions that nobody was told"
        f" of; {document['unanswered_creates']} creates of runs had no answer:",
        *map(_repeat, repeats[:FEW]),
    ]
    return "\n".join([*lines, *_more(len(repeats), FEW)])


def _repeat(repeat: dict[str, Any]) -> str:
    beside = f" beside {', '.join(repeat['told'])}" if repeat["told"] else ""
    extra = ", ".join(repeat["extra"])
    return f"  {repeat['kind']}  {repeat['tenant']}  {repeat['name']}  {extra}{beside}"


def _findings(document: dict[str, Any]) -> str:
    rows = [
        [f["problem"], f["kind"], f["tenant"], f["run"], f["run_id"], f["key"], f["detail"]]
        for f in document["findings"][:SHOWN]
    ]
    if not rows:
        return ""
    found = table(["", "", "TENANT", "RUN", "ID", "KEY", ""], rows)
    return "\n".join([found, *_more(document["findings_in_all"], SHOWN)])


def _remarks(remarks: list[str]) -> str:
    return "\n".join([*remarks[:FEW], *_more(len(remarks), FEW)])


def _more(number: int, shown: int) -> list[str]:
    return [f"… and {number - shown} more: see check.json"] if number > shown else []


def _verdict(document: dict[str, Any]) -> str:
    if document["is_good"]:
        return "good: everything acknowledged is there as it was sent, and nothing else is"
    return f"not good: findings: {document['findings_in_all']}"
