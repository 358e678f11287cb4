"""Run rows: `python -m load_figures [--quick] [--only NAME …]`, see docs/load.md."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from load_figures import figure
from load_figures.figure import Figure, Kept
from load_figures.rows import chaos, diurnal, five_tasks, soak, storm, users10k
from load_figures.stage import Stage
from mlfleet.load import processes, run_folder

ROOT = Path(__file__).resolve().parents[2]
ROWS: dict[str, Callable[[Stage], Figure]] = {
    "users10k": users10k.measure,
    "storm": storm.measure,
    "five-tasks": five_tasks.measure,
    "diurnal": diurnal.measure,
    "chaos": chaos.measure,
    "soak": soak.measure,
}
"""In the order of the table."""


def main() -> int:
    """Run the rows, keep each, write the block; 1 if a row was not met."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what runs, remove the data
    if options.take:
        verdicts = _take(options.take, options)
    elif options.judge:
        verdicts = [_judge(options.judge, options)]
    else:
        verdicts = [_row(name, options) for name in options.only or ROWS]
    if options.write:
        text = figure.block(figure.kept(options.output), list(ROWS))
        figure.write_page(options.output, text)
    return 0 if all(verdicts) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/load-figures", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute for each row")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="NAME")
    parser.add_argument(
        "--judge", type=Path, metavar="RUN", help="judge a soak's run again, and run nothing"
    )
    parser.add_argument(
        "--take", type=Path, metavar="FOLDER", help="take over rows that --output kept there"
    )
    parser.add_argument("--port", type=int, default=21800, help="first of ten free ports")
    parser.add_argument("--folder", type=Path, help="where data may grow to 20 GB (default: /tmp)")
    parser.add_argument("--runs", type=Path, default=ROOT / "load-runs", help="of the load runs")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="of the two files")
    parser.add_argument(
        "--no-write", dest="write", action="store_false", help="keep the rows in the JSON file only"
    )
    return parser.parse_args()


def _row(name: str, options: argparse.Namespace) -> bool:
    folder = Path(tempfile.mkdtemp(prefix=f"mlfleet-{name}-", dir=options.folder))
    folder.chmod(0o755)  # Postgres may run as another user and must be able to pass through
    stage = Stage(folder, options.runs, options.port, options.quick)
    began, used_s = time.monotonic(), processes.machine_cpu_s()
    own_s = processes.own_cpu_s()
    stage.say(f"{name} begins")
    try:
        found = ROWS[name](stage)
    except Exception:  # one broken row must not cost the others
        stage.say(f"{name} could not be measured:\n{traceback.format_exc()}")
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    others_s = processes.machine_cpu_s() - used_s - (processes.own_cpu_s() - own_s)
    others = round(max(0.0, others_s) / (time.monotonic() - began), 2)
    command = " ".join(["scripts/load-figures", "--only", name, *(["--quick"] * options.quick)])
    effort = "quick" if options.quick else "full"
    kept = Kept(found, figure.today(), command, effort, run_folder.machine(), others)
    figure.keep(options.output, name, kept)
    stage.say(f"{name}: {found.measured}: {'met' if found.is_met else 'not met'}")
    return found.is_met


def _take(folder: Path, options: argparse.Namespace) -> list[bool]:
    """Put rows into the table that were kept somewhere else."""
    rows = figure.kept(folder)
    for name, kept in rows.items():
        figure.keep(options.output, name, kept)
    return [kept.figure.is_met for kept in rows.values()]


def _judge(folder: Path, options: argparse.Namespace) -> bool:
    """Put a soak that was run before into the table, with its own date and machine."""
    found, run = soak.judge(folder), json.loads((folder / "run.json").read_text())
    date = f"{run['ended_at'][:16].replace('T', ' ')} UTC"
    command = "scripts/load-figures --only soak"
    figure.keep(options.output, "soak", Kept(found, date, command, "full", run["machine"], None))
    return found.is_met


if __name__ == "__main__":
    sys.exit(main())
