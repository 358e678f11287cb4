"""Experiments and runs to test on, made on both sides."""

from typing import Any

from tests.differential.inputs import render
from tests.differential.pair import NUMBERS, Pair
from tests.differential.side import Call

API = "/api/2.0/mlflow"


def new_experiment(pair: Pair, **fields: Any) -> str:
    """Return a new experiment's symbol; its name is one that nobody has, unless given."""
    body = render({"name": f"made-{next(NUMBERS)}", **fields})
    made = pair.learn(
        "experiment",
        Call("POST", f"{API}/experiments/create", body),
        lambda answer: answer["experiment_id"],
    )
    assert made is not None
    return made


def new_run(pair: Pair, experiment: str | None = None, **fields: Any) -> str:
    """Return a new run's symbol; it is in an experiment of its own, unless one is given."""
    body = render({"experiment_id": experiment or new_experiment(pair), **fields})
    made = pair.learn(
        "run",
        Call("POST", f"{API}/runs/create", body),
        lambda answer: answer["run"]["info"]["run_id"],
    )
    assert made is not None
    return made
