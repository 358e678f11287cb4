"""Searches of runs of every sort: what the short way answers has to be what stock answers."""

from typing import Any

import pytest

from tests.differential.inputs import render
from tests.differential.made import API, new_experiment, new_run
from tests.differential.pair import Pair
from tests.differential.side import Call

TIME = 1_700_000_000_000
RUNS = 5

SEARCHES: dict[str, dict[str, Any]] = {
    "as the client asks": {},
    "deleted ones": {"run_view_type": "DELETED_ONLY"},
    "all": {"run_view_type": "ALL"},
    "fewer than there are": {"max_results": 2},
    "one fewer than there are": {"run_view_type": "ALL", "max_results": RUNS - 1},
    "as many as there are": {"run_view_type": "ALL", "max_results": RUNS},
    "newest first": {"order_by": ["attributes.start_time DESC"]},
    "oldest first": {"order_by": ["attributes.start_time ASC"]},
    "with a filter": {"filter": "params.p = '1'"},
    "none": {"max_results": 0},
    "too many": {"max_results": 50_001},
}


@pytest.fixture(scope="module")
def experiment(pair: Pair) -> str:
    """An experiment with runs of all sorts, the first of them deleted; its symbol."""
    found = new_experiment(pair)
    for number in range(RUNS):
        run = new_run(pair, found, start_time=TIME + number, run_name=f"run {number}")
        values = ("NaN", 0, -0.5, "Infinity")[:number]
        batch = {
            "run_id": run,
            "metrics": [
                {"key": f"m{n}", "value": value, "timestamp": TIME, "step": n}
                for n, value in enumerate(values)
            ],
            "params": [{"key": "p", "value": str(number)}] if number else [],
            "tags": [{"key": "t", "value": "ü{\\"}] if number > 1 else [],
        }
        pair.call(Call("POST", f"{API}/runs/log-batch", render(batch)))
        if number == 0:
            pair.call(Call("POST", f"{API}/runs/delete", render({"run_id": run})))
    return found


@pytest.mark.parametrize("fields", SEARCHES.values(), ids=SEARCHES.keys())
def test_a_search(pair: Pair, experiment: str, fields: dict[str, Any]) -> None:
    body = {"experiment_ids": [experiment], **fields}
    pair.call(Call("POST", f"{API}/runs/search", render(body)))


def test_the_next_page_begins_where_the_last_one_ended(pair: Pair, experiment: str) -> None:
    names = []
    body = {"experiment_ids": [experiment], "max_results": 3}
    while True:
        page = pair.call(Call("POST", f"{API}/runs/search", render(body))).json
        names += [run["info"]["run_name"] for run in page["runs"]]
        if "next_page_token" not in page:
            break
        body["page_token"] = page["next_page_token"]
    assert names == [f"run {number}" for number in range(RUNS - 1, 0, -1)]


def test_a_run_with_a_dataset_is_found_and_read_with_it(pair: Pair) -> None:
    experiment = new_experiment(pair)
    run = new_run(pair, experiment)
    dataset = {"name": "d", "digest": "x", "source_type": "http", "source": "{}", "schema": "{}"}
    inputs = [{"tags": [{"key": "mlflow.data.context", "value": "training"}], "dataset": dataset}]
    body = render({"run_id": run, "datasets": inputs})
    assert pair.call(Call("POST", f"{API}/runs/log-inputs", body)).status == 200
    read = pair.call(Call("GET", f"{API}/runs/get", query=(("run_id", run),))).json["run"]
    assert read["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "d"
    body = render({"experiment_ids": [experiment]})
    [found] = pair.call(Call("POST", f"{API}/runs/search", body)).json["runs"]
    assert found["inputs"] == read["inputs"]
