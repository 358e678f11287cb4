"""Searches and new experiments by one statement, against stock on the same database."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.store.conftest import Answer, Instance

RUNS = 7


def experiment(instance: Instance, name: str) -> str:
    answer = instance.post("experiments/create", {"name": name}).json()
    experiment_id: str = answer["experiment_id"]
    return experiment_id


@pytest.fixture(scope="module")
def filled(instance: Instance) -> list[str]:
    """Two experiments with runs of all sorts: much, little and nothing in them, two deleted."""
    ids = [experiment(instance, f"filled {n}") for n in range(2)]
    for n in range(RUNS):
        fields = {"experiment_id": ids[n % 2], "start_time": 10 * (n // 2), "user_id": "ü"}
        run_id = instance.post("runs/create", fields).json()["run"]["info"]["run_id"]
        if n in (0, 1):
            instance.post("runs/delete", {"run_id": run_id})
        values = (0, -0.5, 1e300, "NaN", "Infinity", "-Infinity", 2**60, 1 / 3)
        metrics = [
            {"key": f"m {i}", "value": value, "timestamp": 2**62, "step": -i}
            for i, value in enumerate(values[: 2 * n])
        ]
        params = [{"key": f"p{i}", "value": ["", "ä{\\", '"'][i % 3]} for i in range(n)]
        tags = [{"key": f"t{i}", "value": "\u2028😀\n" * i} for i in range(n)]
        fields = {"run_id": run_id, "metrics": metrics, "params": params, "tags": tags}
        instance.post("runs/log-batch", fields)
        if n % 3 == 0:
            instance.post("runs/update", {"run_id": run_id, "status": "FAILED", "end_time": n})
        if n == 4:
            instance.query("UPDATE runs SET name = '', end_time = NULL WHERE run_uuid = %s", run_id)
            instance.query("DELETE FROM tags WHERE run_uuid = %s", run_id)
        if n == 5:
            instance.query("UPDATE tags SET value = NULL WHERE run_uuid = %s", run_id)
            instance.query("UPDATE runs SET artifact_uri = NULL WHERE run_uuid = %s", run_id)
    return ids


def both(instance: Instance, name: str, fields: Any) -> tuple[Answer, Answer]:
    return instance.post(name, fields), instance.post(name, fields, stock=True)


def shown(answer: Answer) -> tuple[int, str, str | None]:
    """Return what an answer says, with the order of a run's data left open as in stock."""
    content = answer.json()
    for run in content.get("runs", []):
        for items in run["data"].values():
            items.sort(key=lambda item: item["key"])
    return answer.status, json.dumps(content, sort_keys=True), answer.headers.get("content-type")


PLAIN: list[dict[str, Any]] = [
    {},
    {"filter": "", "order_by": [], "page_token": "", "run_view_type": "ACTIVE_ONLY"},
    {"run_view_type": "DELETED_ONLY"},
    {"run_view_type": "ALL", "max_results": 3},
    {"run_view_type": "ALL", "max_results": RUNS},
    {"run_view_type": "ALL", "max_results": RUNS - 1},
    {"max_results": 1000, "order_by": ["attributes.start_time DESC"]},
    {"order_by": ["attribute.start_time DESC"]},
    {"order_by": ["start_time DESC"]},
]


@pytest.mark.parametrize("fields", PLAIN)
def test_a_plain_search_is_hot_and_says_what_stock_says(
    instance: Instance, filled: list[str], fields: dict[str, Any]
) -> None:
    # The nameless run has its name looked for by stock: it comes in a test of its own.
    instance.query("UPDATE runs SET name = 'named' WHERE name = ''")
    for ids in (filled, filled[:1], [filled[1], filled[1], "999999"]):
        hot, stock = both(instance, "runs/search", {"experiment_ids": ids, **fields})
        assert (hot.status, hot.route, stock.route) == (200, "hot", None)
        assert shown(hot) == shown(stock)


def test_a_search_that_finds_nothing_says_so_as_stock_does(instance: Instance) -> None:
    hot, stock = both(instance, "runs/search", {"experiment_ids": ["999999"]})
    assert (hot.body, hot.route) == (stock.body, "hot")


ASKS_MORE: list[dict[str, Any]] = [
    {"filter": "metrics.`m 0` = 0"},
    {"filter": "("},
    {"filter": None},
    {"order_by": ["attributes.start_time"]},
    {"order_by": ["metrics.`m 0` DESC"]},
    {"order_by": "start_time DESC"},
    {"page_token": "eyJvZmZzZXQiOiAyfQ=="},
    {"page_token": 3},
    {"max_results": 0},
    {"max_results": 1001},
    {"max_results": 50001},
    {"max_results": "5"},
    {"max_results": True},
    {"run_view_type": 3},
    {"run_view_type": "NONE"},
    {"experiment_ids": []},
    {"experiment_ids": "0"},
    {"experiment_ids": [0]},
    {"experiment_ids": ["x"]},
    {"experiment_ids": ["99999999999"]},
    {"unknown": 1},
]


@pytest.mark.parametrize("fields", ASKS_MORE)
def test_a_search_that_asks_for_more_is_stocks(
    instance: Instance, filled: list[str], fields: dict[str, Any]
) -> None:
    hot, stock = both(instance, "runs/search", {"experiment_ids": filled, **fields})
    assert hot.route == "stock"
    assert (hot.status, hot.body) == (stock.status, stock.body)


def test_the_second_page_follows_the_first(instance: Instance, filled: list[str]) -> None:
    fields = {"experiment_ids": filled, "run_view_type": "ALL"}
    first = instance.post("runs/search", {**fields, "max_results": 3})
    token = first.json()["next_page_token"]
    second = instance.post("runs/search", {**fields, "page_token": token})
    assert (first.route, second.route) == ("hot", "stock")
    found = [run["info"]["run_id"] for run in first.json()["runs"] + second.json()["runs"]]
    assert len(set(found)) == len(found) == RUNS


def test_a_run_that_is_read_says_what_a_search_says(instance: Instance, filled: list[str]) -> None:
    found = instance.post("runs/search", {"experiment_ids": filled, "run_view_type": "ALL"}).json()
    assert len(found["runs"]) == RUNS
    for run in found["runs"]:
        path = f"/api/2.0/mlflow/runs/get?run_id={run['info']['run_id']}"
        read = instance.call("GET", path).json()["run"]
        for items in [*run["data"].values(), *read["data"].values()]:
            items.sort(key=lambda item: item["key"])
        assert json.dumps(read, sort_keys=True) == json.dumps(run, sort_keys=True)


@pytest.mark.parametrize("column", ["name = ''", "name = NULL", "user_id = NULL"])
def test_a_run_that_stock_finds_words_for_is_stocks(instance: Instance, column: str) -> None:
    experiment_id = experiment(instance, f"odd {column}")
    instance.post("runs/create", {"experiment_id": experiment_id, "run_name": "r"})
    instance.query(f"UPDATE runs SET {column} WHERE experiment_id = %s", experiment_id)
    hot, stock = both(instance, "runs/search", {"experiment_ids": [experiment_id]})
    assert hot.route == "stock"
    assert (hot.status, hot.body) == (stock.status, stock.body)


def test_runs_with_inputs_or_outputs_are_stocks(instance: Instance) -> None:
    dataset = {"name": "d", "digest": "1", "source_type": "local", "source": "s"}
    for kind in ("inputs", "outputs"):
        ids = [experiment(instance, f"{kind} {n}") for n in range(2)]
        run_id = instance.post("runs/create", {"experiment_id": ids[0]}).json()
        run_id = run_id["run"]["info"]["run_id"]
        instance.post("runs/create", {"experiment_id": ids[1]})
        if kind == "inputs":
            fields = {"run_id": run_id, "datasets": [{"dataset": dataset}]}
            assert instance.post("runs/log-inputs", fields).status == 200
        else:
            model = instance.post("logged-models", {"experiment_id": ids[0], "name": "m"}).json()
            models = [{"model_id": model["model"]["info"]["model_id"], "step": 0}]
            assert instance.post("runs/outputs", {"run_id": run_id, "models": models}).status == 200
        hot, stock = both(instance, "runs/search", {"experiment_ids": ids})
        assert (hot.route, hot.body) == ("stock", stock.body)
        assert instance.post("runs/search", {"experiment_ids": ids[1:]}).route == "hot"


def experiment_rows(instance: Instance, name: str) -> list[tuple[Any, ...]]:
    return instance.query(
        "SELECT replace(artifact_location, experiment_id::text, 'ID'), lifecycle_stage, workspace,"
        " creation_time = last_update_time, creation_time / 60000 - %s, (SELECT count(*) FROM"
        " experiment_tags t WHERE t.experiment_id = e.experiment_id) FROM experiments e"
        " WHERE name = %s",
        instance.query("SELECT floor(extract(epoch FROM now()) / 60)::bigint")[0][0],
        name,
    )


def test_a_new_experiment_is_hot_and_leaves_the_row_of_stock(instance: Instance) -> None:
    names = ["größe \"'\\%s", "größe \"'\\%s of stock"]
    hot = instance.post("experiments/create", {"name": names[0], "tags": []})
    stock = instance.post("experiments/create", {"name": names[1]}, stock=True)
    assert (hot.status, hot.route, stock.route) == (200, "hot", None)
    first, second = (int(answer.json()["experiment_id"]) for answer in (hot, stock))
    assert second == first + 1
    assert hot.body.replace(b"%d" % first, b"") == stock.body.replace(b"%d" % second, b"")
    assert experiment_rows(instance, names[0]) == experiment_rows(instance, names[1]) != []
    found = [instance.post("runs/create", answer.json()).json() for answer in (hot, stock)]
    uris = [run["run"]["info"]["artifact_uri"].split("/")[:2] for run in found]
    assert uris == [["mlflow-artifacts:", str(first)], ["mlflow-artifacts:", str(second)]]


NOT_NEW: list[Any] = [
    {},
    {"name": ""},
    {"name": 5},
    {"name": "n" * 501},
    {"name": "nul\0"},
    {"name": "located", "artifact_location": "file:///etc"},
    {"name": "tagged", "tags": [{"key": "../", "value": ""}]},
    {"name": "Default"},
    b"{",
]


@pytest.mark.parametrize("fields", NOT_NEW)
def test_an_experiment_that_cannot_be_gets_the_answer_of_stock(
    instance: Instance, fields: Any
) -> None:
    hot, stock = both(instance, "experiments/create", fields)
    assert hot.route == "stock"
    assert hot.status == stock.status >= 400
    assert hot.json()["error_code"] == stock.json()["error_code"]


def test_a_name_that_is_taken_costs_one_number_as_with_stock(instance: Instance) -> None:
    before = int(experiment(instance, "number 1"))
    assert instance.post("experiments/create", {"name": "number 1"}).status == 400
    assert int(experiment(instance, "number 2")) == before + 2


def test_of_experiments_with_one_name_there_is_one(instance: Instance) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: instance.post("experiments/create", {"name": "one"}), range(8))
        )
    assert sorted(answer.status for answer in answers) == [200, *[400] * 7]
    assert len(experiment_rows(instance, "one")) == 1
