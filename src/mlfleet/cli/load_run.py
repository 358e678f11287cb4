"""`mlfleet load run`: Locust with our users, without its tables, with the accounts at the end."""

import os
import sys
from pathlib import Path

import click

_LOCUST = "import sys; sys.argv[0] = 'mlfleet load run'; from locust.main import main; main()"
"""Locust under our name, which is what its complaints about options begin with."""
_QUIET = ("--headless", "--only-summary", "--one-screen", "--loglevel", "WARNING")


@click.command(
    short_help="Put load on the running fleet, then check and report.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True,
                      "help_option_names": []},
)  # fmt: skip
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def run(options: tuple[str, ...]) -> None:
    """Run Locust headless with our users; OPTIONS are Locust's and ours."""
    import mlfleet.load.swarm

    if {"--help", "-h"} & set(options):
        from mlfleet.load.swarm.options import help_text

        click.echo(help_text())
        return
    locustfile = Path(mlfleet.load.swarm.__file__).with_name("locustfile.py")
    command = [sys.executable, "-c", _LOCUST, "-f", str(locustfile), *_QUIET, *options]
    # In place of this process: Ctrl-C and exit code are Locust's without a go-between.
    os.execv(command[0], command)
