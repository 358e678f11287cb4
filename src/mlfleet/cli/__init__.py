"""The one command: parse, call, print. Every decision is made elsewhere.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such tenant or token, 4 no fleet is running,
130 interrupted. An error is one line on stderr that says what, where and how to mend; stdout
carries only the answer, as text or with --json as one JSON document.

Modules of this package import only click and the standard library at their top: sqlalchemy alone
costs more than the 0.3 s that `mlfleet --help` may take.
"""

import importlib
import sys
from typing import Any

import click

from mlfleet.cli.exits import INTERRUPTED, exit_code
from mlfleet.errors import FleetError

COMMANDS = {
    "up": "mlfleet.cli.up:up",
    "status": "mlfleet.cli.status:status",
    "tenant": "mlfleet.cli.tenant:tenant",
    "token": "mlfleet.cli.token:token",
    "wake": "mlfleet.cli.instance:wake",
    "sleep": "mlfleet.cli.instance:sleep",
    "logs": "mlfleet.cli.instance:logs",
    "doctor": "mlfleet.cli.doctor:doctor",
    "database": "mlfleet.cli.database:database",
    "load": "mlfleet.cli.load:load",
}

CLUSTER_COMMANDS = {
    "tenant": "mlfleet.cli.cluster:tenant",
    "token": "mlfleet.cli.cluster:token",
    "cell": "mlfleet.cli.cluster:cell",
    "doctor": "mlfleet.cli.cluster:doctor",
}
"""What `mlfleet --cluster` can do."""


class LazyGroup(click.Group):
    """A group that imports a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a person's day, not of the alphabet."""
        return list(_commands(ctx))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or none."""
        if (target := _commands(ctx).get(cmd_name)) is None:
            return None
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


def _commands(ctx: click.Context) -> dict[str, str]:
    return CLUSTER_COMMANDS if ctx.params.get("cluster") else COMMANDS


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such tenant or token, "
    "4 no fleet is running, 130 interrupted.",
)
@click.version_option(package_name="mlfleet", prog_name="mlfleet")
@click.option(
    "--cluster", is_flag=True, is_eager=True, help="Speak with a fleet on Kubernetes (KUBECONFIG)."
)
def command(cluster: bool) -> None:
    """A fleet of MLflow tracking servers that sleep at zero and wake inside one request.

    `mlfleet up` runs the fleet; every other command finds it by its data folder (--data, or the
    variable MLFLEET_DATA, or ./.mlfleet). `mlfleet --cluster` speaks with a fleet on Kubernetes.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command and leave with its exit code."""
    try:
        command.main(arguments, prog_name="mlfleet", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except FleetError as exc:
        click.echo(f"mlfleet: {exc}", err=True)
        sys.exit(exit_code(exc))
    except BrokenPipeError:
        # The reader of a pipe has seen enough (`mlfleet tenant list | head`).
        sys.stdout = None
        sys.exit(0)
