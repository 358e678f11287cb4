"""`mlfleet up`: run a fleet on this machine until Ctrl-C."""

import contextlib
import dataclasses
import ipaddress
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlfleet.cli.options import data_option, json_option
from mlfleet.cli.output import print_json
from mlfleet.runtime.folder import DataFolder
from mlfleet.settings import Settings

if TYPE_CHECKING:
    from mlfleet.catalogue.models import CreatedTenant
    from mlfleet.runtime.local import LocalFleet


@click.command(short_help="Run a fleet on this machine until Ctrl-C.")
@click.option("--port", type=click.IntRange(1, 65535), help="[default: 8080]")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@data_option
@click.option(
    "--demo",
    is_flag=True,
    help='Create the tenant "demo" if it is not there, and print how to use it.',
)
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(0, 600),
    default=1.5,
    show_default=True,
    help="Seconds that requests in flight get when the fleet stops.",
)
@click.option(
    "--plain-http",
    is_flag=True,
    help="Listen beyond this machine although tokens travel unencrypted (TLS ends in front).",
)
@click.option("-v", "--verbose", is_flag=True, help="Say how long each part of the start took.")
@json_option
def up(
    port: int | None,
    host: str | None,
    data: Path,
    demo: bool,
    drain_s: float,
    plain_http: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run Postgres and a fleet on this machine until Ctrl-C; the data stay.

    Everything lies in one folder (--data). Other settings are variables, MLFLEET_IDLE_S or
    MLFLEET_MAX_AWAKE for example; docs/operations.md lists them. With MLFLEET_ADMIN_URI the fleet
    uses that Postgres instead of the embedded one.
    """
    given = Settings.from_environ()
    settings = dataclasses.replace(
        given, data=data, host=host or given.host, port=port or given.port, drain_s=drain_s
    )
    if not plain_http:
        _refuse_open_address(settings.host)
    # Both, because a shell starts its background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    folder = DataFolder(data)
    folder.create()
    with folder.locked():
        _run(settings, folder, demo=demo, verbose=verbose, as_json=as_json)


def _refuse_open_address(host: str) -> None:
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise click.UsageError(
            f"--host {host} would send tokens unencrypted over the network: keep to 127.0.0.1 and"
            " put a TLS server in front, or say --plain-http if one already is"
        )


def _run(
    settings: Settings,
    folder: DataFolder,
    *,
    demo: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    # Imported here: psycopg2 is not needed to print a help text.
    from mlfleet import log
    from mlfleet.runtime.local import LocalFleet

    supervisor_log = (folder.logs / "supervisor.log").open("a", buffering=1)
    log.configure(stream=supervisor_log)
    with supervisor_log, LocalFleet(settings, folder, _say) as fleet:
        created = fleet.create_tenant("demo") if demo else None
        if as_json:
            print_json(_document(fleet, created))
        else:
            click.echo(_text(fleet, created, verbose=verbose))
        with contextlib.suppress(KeyboardInterrupt):
            fleet.watch()
        began = time.monotonic()
    click.echo(
        f"mlfleet: stopped in {time.monotonic() - began:.1f} s, data in {folder.path}", err=True
    )


def _say(what: str) -> None:
    click.echo(f"mlfleet: {what}", err=True)


def _document(fleet: "LocalFleet", created: "CreatedTenant | None") -> dict[str, object]:
    return {
        "url": fleet.url,
        "phases_s": fleet.phases,
        "budget": fleet.budget_text,
        "missing": fleet.missing,
        "tenant": created
        and {"name": created.name, "url": f"{fleet.url}/{created.name}", "token": created.token},
    }


def _text(fleet: "LocalFleet", created: "CreatedTenant | None", *, verbose: bool) -> str:
    lines = [f"connections: {fleet.budget_text}"]
    if fleet.missing:
        lines += ["this kernel or user cannot give:", *(f"  - {text}" for text in fleet.missing)]
    if verbose:
        lines += [f"{phase} after {seconds:.2f} s" for phase, seconds in fleet.phases.items()]
    lines += ["", f"The fleet answers on {fleet.url} (started in {fleet.start_s:.1f} s)."]
    if created:
        lines += ["", *_first_steps(fleet, created)]
    return "\n".join([*lines, "", "Ctrl-C stops it; the data stay."])


def _first_steps(fleet: "LocalFleet", created: "CreatedTenant") -> list[str]:
    uri = f"export MLFLOW_TRACKING_URI={fleet.url}/{created.name}"
    browser = f"Browser: {fleet.browser_url(created.name)} (log in with the token)"
    if created.token:
        return [
            uri,
            f"export MLFLOW_TRACKING_TOKEN={created.token}",
            "",
            browser,
            "The token is shown this once; `mlfleet token create demo NAME` makes another.",
            "Try it: .venv/bin/python examples/first_run.py",
        ]
    return [
        uri,
        "Its token was shown when it was made; `mlfleet token create demo NAME` makes another.",
        "",
        browser,
    ]
