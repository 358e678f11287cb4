"""`mlfleet load trace`: write a trace of rates, or look at one."""

from pathlib import Path

import click


@click.command(short_help="Write the trace of a burst, or check one.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--low", type=float, default=7.0, show_default=True, help="Calls a second, calm.")
@click.option("--high", type=float, default=35.0, show_default=True, help="At the peak.")
@click.option("--calm", "calm_s", type=float, default=180.0, show_default=True, help="Seconds.")
@click.option("--jump", "jump_s", type=float, default=5.0, show_default=True, help="Seconds.")
@click.option("--hold", "hold_s", type=float, default=180.0, show_default=True, help="Seconds.")
@click.option("--fall", "fall_s", type=float, default=240.0, show_default=True, help="Seconds.")
@click.option("--check", is_flag=True, help="Read FILE instead, and say what it holds.")
def trace(file: Path, check: bool, **shape: float) -> None:
    """Write FILE for `mlfleet load run --shape trace --trace FILE`.

    A burst is a low plateau, a jump within seconds, a high plateau and a slow fall. The file is a
    CSV with the columns t_s,rate; between two points the rate is a straight line.
    """
    from mlfleet.errors import FleetError
    from mlfleet.load.trace import burst, csv_of, trace_of

    try:
        if check:
            made = trace_of(file.read_text(), str(file))
        else:
            made = burst(**shape)
            file.write_text(csv_of(made))
    except (OSError, UnicodeDecodeError) as exc:
        raise FleetError(f"{file}: {exc}") from exc
    click.echo(f"{file}: {made.calls:.0f} calls in {made.length_s:g} s, at most {made.peak:g}/s")
