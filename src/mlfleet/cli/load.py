"""`mlfleet load`: users by the thousand, and the proof that nothing they were promised is gone."""

import importlib

import click

COMMANDS = {
    "run": "mlfleet.cli.load_run:run",
    "check": "mlfleet.cli.load_check:check",
    "report": "mlfleet.cli.load_report:report",
    "trace": "mlfleet.cli.load_trace:trace",
    "chaos": "mlfleet.cli.load_chaos:chaos",
    "compare": "mlfleet.cli.load_compare:compare",
    "soak": "mlfleet.cli.load_soak:soak",
}


class LoadGroup(click.Group):
    """Imports a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or none."""
        if (target := COMMANDS.get(cmd_name)) is None:
            return None
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LoadGroup, short_help="Put load on a fleet, and check what it kept.")
def load() -> None:
    """Put load on a fleet, and check what it kept.

    One load run is one folder below `load-runs`; everything but the load itself is read from it.
    """
