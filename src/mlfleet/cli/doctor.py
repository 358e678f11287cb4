"""`mlfleet doctor`: look at everything a fleet needs, and say how to mend what is wrong."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlfleet.cli.exits import FAILED
from mlfleet.cli.options import Fleet, data_option, json_option
from mlfleet.cli.output import print_json
from mlfleet.errors import FleetError, NotRunningError
from mlfleet.runtime.folder import DataFolder
from mlfleet.settings import Settings

if TYPE_CHECKING:
    from mlfleet.runtime.checks import Finding


@click.command(short_help="Say what is wrong and how to mend it.")
@data_option
@json_option
def doctor(data: Path, as_json: bool) -> None:
    """Check machine, Postgres, template and budget, and say how to mend each problem.

    Works with and without a running fleet. Leaves with exit code 1 if there is a problem; a
    note is not one.
    """
    findings = list(_examine(data))
    problems = sum(finding.verdict == "problem" for finding in findings)
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print_json({"problems": problems, "findings": rows})
    else:
        for finding in findings:
            click.echo(_line(finding))
        click.echo(f"\n{problems} problem{'s' if problems != 1 else ''}")
    if problems:
        sys.exit(FAILED)


def _examine(data: Path) -> Iterator["Finding"]:
    from mlfleet.runtime import checks
    from mlfleet.runtime.kernel import KernelFeatures

    features = KernelFeatures.of_this_machine()
    settings = dataclasses.replace(Settings.from_environ(), data=data)
    fleet = _running(data)
    if fleet:
        settings = Settings.from_environ(fleet.file.settings)
    yield from checks.folder(DataFolder(data))
    yield checks.port(settings, is_running=fleet is not None)
    yield checks.open_files(settings.max_awake)
    yield from checks.kernel(features)
    yield from checks.user_namespaces(features)
    yield from checks.program({sys.prefix, sys.base_prefix})
    uri = fleet.file.admin_uri if fleet else settings.admin_uri
    if uri is None:
        yield checks.Finding(
            "postgres", "note", "not checked, because no fleet is running", "mlfleet up"
        )
        return
    yield from checks.database(uri, settings)
    yield from checks.pooler(settings.pooler_address)
    if fleet:
        yield from _cells(fleet)
        yield from _s3(fleet)


def _running(data: Path) -> Fleet | None:
    fleet = Fleet(data)
    try:
        return fleet if fleet.file else None
    except NotRunningError:
        return None


def _cells(fleet: Fleet) -> Iterator["Finding"]:
    from mlfleet.runtime.checks import Finding

    for cell in fleet.cells():
        try:
            status = cell.status()
        except FleetError as exc:
            yield Finding(cell.name, "problem", str(exc), "mlfleet logs --cell")
            continue
        yield Finding(cell.name, "ok", "answers")
        for sentence in status.get("limits", []):
            yield Finding("confinement", "note", sentence, "see docs/operations.md, Confinement")


def _s3(fleet: Fleet) -> Iterator["Finding"]:
    from mlfleet.runtime import checks

    on_s3 = [t.name for t in fleet.catalogue.tenants() if (t.artifact_uri or "").startswith("s3:")]
    yield from checks.s3_tenants(on_s3, have_own_credentials=False)


def _line(finding: "Finding") -> str:
    mend = f"\n{'':27}→ {finding.mend}" if finding.mend and finding.verdict != "ok" else ""
    return f"{finding.verdict:8} {finding.name:16}  {finding.text}{mend}"
