"""Share of a stock client's write calls that take the hot route, by the gateway's own counter.

Run as a program, this module is that client: it does what a training script does, through
`mlflow`'s ordinary functions, with `MLFLOW_TRACKING_URI` and `MLFLOW_TRACKING_TOKEN` set.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.fleet import Fleet
from benchmarks.report import Goal, Row
from benchmarks.stock import environment

RUNS = 5
STEPS = 100
ASKED = 0.99
_COUNTER = re.compile(r'mlfleet_write_calls_total\{route="(hot|stock)"\}')


def measure(bench: Bench, fleet: Fleet) -> list[Row]:
    """Run the training script against a tenant and read the counter before and after."""
    (tenant,) = fleet.create(["client"])
    before = _counts(fleet)
    uri = f"http://{tenant.host}:{tenant.port}{tenant.prefix}"
    variables = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_TOKEN": tenant.token or ""}
    subprocess.run(
        [sys.executable, "-m", "benchmarks.rows.client"],
        env=environment() | variables,
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
    )
    after = _counts(fleet)
    calls = {route: after[route] - before[route] for route in after}
    share = calls["hot"] / max(1, sum(calls.values()))
    bench.say(f"stock client: {calls}")
    return [
        Row(
            what="write calls of a stock client that take the hot route",
            measured=f"{share:.1%} of {sum(calls.values()):.0f} calls",
            reach=Goal("≥ 99 %", share >= ASKED),
            figures=dict(calls),
        )
    ]


def _counts(fleet: Fleet) -> dict[str, float]:
    counts = {"hot": 0.0, "stock": 0.0}
    for name, value in fleet.metrics().items():
        if match := _COUNTER.fullmatch(name):
            counts[match[1]] += value
    return counts


def train() -> None:
    """Log what a training script logs: params, metrics by step, tags, an artifact."""
    import mlflow

    mlflow.set_experiment("training")
    for number in range(RUNS):
        with mlflow.start_run(run_name=f"run {number}"):
            mlflow.log_params({"learning_rate": 0.1 / (number + 1), "layers": 3, "seed": number})
            mlflow.log_param("optimizer", "adam")
            mlflow.set_tags({"stage": "training", "owner": "bench"})
            for step in range(STEPS):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
                if step % 10 == 0:
                    mlflow.log_metrics({"accuracy": step / STEPS, "lr": 0.1}, step=step)
            mlflow.set_tag("stage", "done")
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "notes.txt").write_text("trained")
                mlflow.log_artifact(str(Path(folder) / "notes.txt"))


if __name__ == "__main__":
    train()
