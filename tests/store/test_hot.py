"""The hot writes against stock, by one server that answers both ways, on a real Postgres."""

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.store.conftest import Answer, Instance

RUN = "RUN"
"""Stands for the run's id in the fields of a call."""

METRIC = {"run_id": RUN, "run_uuid": RUN, "key": "a/b c:d.e-f", "value": 1.5, "timestamp": 7}
GOOD: list[tuple[str, Any]] = [
    ("runs/log-metric", {**METRIC, "step": 3}),
    ("runs/log-metric", METRIC),
    ("runs/log-metric", {**METRIC, "value": "NaN", "step": -4}),
    ("runs/log-metric", {**METRIC, "value": "Infinity"}),
    ("runs/log-metric", {**METRIC, "value": "-Infinity"}),
    ("runs/log-metric", {**METRIC, "value": -0.0, "step": 9}),
    ("runs/log-metric", {**METRIC, "value": 2**53 + 1, "step": 2**63 - 1}),
    ("runs/log-metric", {**METRIC, "key": "größe", "timestamp": 2**63 - 1}),
    ("runs/log-parameter", {"run_id": RUN, "key": "p", "value": "v"}),
    ("runs/log-parameter", {"run_id": RUN, "key": "p", "value": "v"}),
    ("runs/log-parameter", {"run_id": RUN, "key": "empty", "value": ""}),
    ("runs/log-parameter", {"run_id": RUN, "key": "long", "value": "x" * 6000}),
    ("runs/set-tag", {"run_id": RUN, "key": "t", "value": "a\"b\\c\n{},NULL\u2028é😀'"}),
    ("runs/set-tag", {"run_id": RUN, "key": "t", "value": "NULL"}),
    ("runs/set-tag", {"run_id": RUN, "key": "mlflow.runName", "value": "tagged"}),
    ("runs/log-batch", {"run_id": RUN}),
    (
        "runs/log-batch",
        {
            "run_id": RUN,
            "metrics": [
                {"key": "m", "value": 1, "timestamp": 5, "step": 1},
                {"key": "m", "value": 1, "timestamp": 5, "step": 1},
                {"key": "m", "value": "NaN", "timestamp": 5, "step": 1, "run_id": RUN},
                {"key": "m", "value": "NaN", "timestamp": 5, "step": 1},
                {"key": "m", "value": 0, "timestamp": 5, "step": 1},
                {"key": "n", "value": 3, "timestamp": 4},
                {"key": "n", "value": 2, "timestamp": 5},
                {"key": "n", "value": 4, "timestamp": 5},
                # The latest is neither the first nor the last, nor the one of the latest time.
                {"key": "o", "value": 1, "timestamp": 9, "step": 1},
                {"key": "o", "value": 5, "timestamp": 1, "step": 2},
                {"key": "o", "value": 6, "timestamp": 1, "step": 2},
                {"key": "o", "value": 7, "timestamp": 0, "step": 2},
                {"key": "o", "value": 2, "timestamp": 3, "step": 1},
            ],
            "params": [{"key": "p", "value": "v"}, {"key": "q", "value": "{\\"}],
            "tags": [
                {"key": "x", "value": "1"},
                {"key": "x", "value": "2"},
                {"key": "mlflow.runName", "value": "batched"},
            ],
        },
    ),
    ("runs/update", {"run_id": RUN, "run_uuid": RUN}),
    ("runs/update", {"run_id": RUN, "status": "FAILED", "end_time": 0}),
    ("runs/update", {"run_id": RUN, "status": "FINISHED", "end_time": 99, "run_name": "ünder"}),
]

BAD: list[tuple[str, Any]] = [
    ("runs/log-metric", b"{"),
    ("runs/log-metric", b"[]"),
    ("runs/log-metric", b'{"run_id": "RUN", "key": "k", "value": NaN, "timestamp": 1}'),
    ("runs/log-metric", {}),
    ("runs/log-metric", {**METRIC, "run_id": "0" * 32, "run_uuid": "0" * 32}),
    ("runs/log-metric", {**METRIC, "key": ""}),
    ("runs/log-metric", {**METRIC, "key": "../up"}),
    ("runs/log-metric", {**METRIC, "key": "a//b"}),
    ("runs/log-metric", {**METRIC, "key": "."}),
    ("runs/log-metric", {**METRIC, "key": "semi;colon"}),
    ("runs/log-metric", {**METRIC, "key": "k" * 251}),
    ("runs/log-metric", {**METRIC, "value": None}),
    ("runs/log-metric", {**METRIC, "value": True}),
    ("runs/log-metric", {**METRIC, "value": "x"}),
    ("runs/log-metric", {**METRIC, "timestamp": -1}),
    ("runs/log-metric", {**METRIC, "timestamp": 2**63}),
    ("runs/log-metric", {**METRIC, "step": 2**63}),
    ("runs/log-metric", {**METRIC, "step": 1.5}),
    ("runs/log-parameter", {"run_id": RUN, "key": "p", "value": "other"}),
    ("runs/log-parameter", {"run_id": RUN, "key": "nul", "value": "a\0b"}),
    ("runs/set-tag", {"run_id": RUN, "key": "t\n", "value": "a"}),
    ("runs/set-tag", {"run_id": RUN, "key": "nul", "value": "\0"}),
    ("runs/log-batch", {"run_id": RUN, "metrics": {}}),
    ("runs/log-batch", {"run_id": RUN, "metrics": [{"key": "k", "value": 1}]}),
    ("runs/log-batch", {"run_id": RUN, "params": [{"key": "p", "value": "other"}]}),
    ("runs/log-batch", {"run_id": RUN, "params": [{"key": "d", "value": "1"}] * 2}),
    ("runs/log-batch", {"run_id": RUN, "tags": [{"key": "t", "value": "x"}] * 101}),
    ("runs/log-batch", {"run_id": RUN, "tags": [{"value": "x"}]}),
    ("runs/update", {"run_id": RUN, "status": "NOPE"}),
    ("runs/update", {"run_id": "nope"}),
    ("runs/create", {"experiment_id": "9999"}),
    ("runs/create", {"experiment_id": "x"}),
    ("runs/create", {"experiment_id": "0", "tags": [{"key": "a", "value": "1"}] * 2}),
    ("runs/create", {"experiment_id": "0", "run_name": "n" * 251}),
]


def with_run(fields: Any, run_id: str) -> Any:
    if isinstance(fields, bytes):
        return fields.replace(RUN.encode(), run_id.encode())
    return json.loads(json.dumps(fields).replace(f'"{RUN}"', f'"{run_id}"'))


def masked(answer: Answer, run_id: str) -> tuple[int, str, str | None]:
    text = answer.body.decode().replace(run_id, RUN)
    text = re.sub(r"[0-9a-f]{32}", "ID", text)
    text = re.sub(r"[a-z]+-[a-z]+-\d{1,4}\b", "NAME", text)
    return answer.status, text, answer.headers.get("content-type")


def rows(instance: Instance, run_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that Postgres holds about a run, ids left out."""
    texts = {
        "runs": "SELECT name, source_type, source_name, entry_point_name, user_id, status, "
        "start_time, end_time, deleted_time, source_version, lifecycle_stage, experiment_id, "
        "replace(artifact_uri, run_uuid, 'RUN') FROM runs WHERE run_uuid = %s",
        "metrics": "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = %s",
        "latest": "SELECT key, value, timestamp, step, is_nan FROM latest_metrics "
        "WHERE run_uuid = %s",
        "params": "SELECT key, value FROM params WHERE run_uuid = %s",
        "tags": "SELECT key, value FROM tags WHERE run_uuid = %s",
    }
    return {name: sorted(instance.query(text, run_id), key=repr) for name, text in texts.items()}


def named_run(instance: Instance, stock: bool) -> str:
    fields = {"experiment_id": "0", "run_name": "named", "user_id": "u", "start_time": 1}
    answer = instance.post("runs/create", fields, stock)
    run_id: str = answer.json()["run"]["info"]["run_id"]
    return run_id


def test_good_calls_are_hot_and_leave_the_answers_and_rows_of_stock(instance: Instance) -> None:
    hot_run, stock_run = named_run(instance, False), named_run(instance, True)
    for name, fields in GOOD:
        hot = instance.post(name, with_run(fields, hot_run))
        stock = instance.post(name, with_run(fields, stock_run), stock=True)
        assert masked(hot, hot_run) == masked(stock, stock_run), (name, fields)
        assert (hot.status, hot.route, stock.route) == (200, "hot", None), (name, fields)
        assert rows(instance, hot_run) == rows(instance, stock_run), (name, fields)


def test_bad_calls_get_the_answers_of_stock_and_change_nothing(instance: Instance) -> None:
    run_id = named_run(instance, False)
    instance.post("runs/log-parameter", {"run_id": run_id, "key": "p", "value": "v"})
    before = rows(instance, run_id)
    for name, fields in BAD:
        hot = instance.post(name, with_run(fields, run_id))
        stock = instance.post(name, with_run(fields, run_id), stock=True)
        assert masked(hot, run_id) == masked(stock, run_id), (name, fields)
        assert hot.route == "stock", (name, fields)
        if hot.status != 200:
            assert rows(instance, run_id) == before, (name, fields)
        before = rows(instance, run_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"experiment_id": "0", "start_time": 5, "user_id": "ü", "run_name": "r"},
        {"experiment_id": "0", "tags": [{"key": "mlflow.runName", "value": "é"}]},
        {
            "experiment_id": "0",
            "run_name": "both",
            "tags": [{"key": "mlflow.runName", "value": "both"}, {"key": "a", "value": ""}],
        },
    ],
)
def test_a_created_run_is_stocks_to_the_byte(instance: Instance, fields: dict[str, Any]) -> None:
    hot, stock = instance.post("runs/create", fields), instance.post("runs/create", fields, True)
    assert (hot.route, stock.route) == ("hot", None)
    ids = [answer.json()["run"]["info"]["run_id"] for answer in (hot, stock)]
    assert masked(hot, ids[0]) == masked(stock, ids[1])
    assert rows(instance, ids[0]) == rows(instance, ids[1])


def test_a_run_without_a_name_gets_one_like_stocks(instance: Instance) -> None:
    answer = instance.post("runs/create", {"experiment_id": "0"})
    assert answer.route == "hot"
    name = answer.json()["run"]["info"]["run_name"]
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d{1,4}", name)
    assert answer.json()["run"]["data"]["tags"] == [{"key": "mlflow.runName", "value": name}]


def test_a_deleted_run_and_experiment_take_nothing(instance: Instance) -> None:
    run_id = instance.new_run()
    instance.post("runs/delete", {"run_id": run_id})
    for name, fields in [GOOD[0], GOOD[8], GOOD[12], GOOD[16], GOOD[18]]:
        hot = instance.post(name, with_run(fields, run_id))
        stock = instance.post(name, with_run(fields, run_id), stock=True)
        assert masked(hot, run_id) == masked(stock, run_id)
        assert (hot.status, hot.route) == (400, "stock")
    experiment = instance.post("experiments/create", {"name": f"gone-{run_id}"}).json()
    instance.post("experiments/delete", experiment)
    assert instance.post("runs/create", experiment).status == 400


def test_requests_that_are_not_plain_json_go_to_stock(instance: Instance) -> None:
    run_id = instance.new_run()
    body = json.dumps({"run_id": run_id, "key": "k", "value": "v"}).encode()
    path = "/ajax-api/2.0/mlflow/runs/set-tag"
    assert instance.call("POST", path, body, content_type="application/json").route == "hot"
    assert instance.call("POST", path, body, content_type="text/plain").route == "stock"
    assert instance.call("POST", path, body).status == 400
    query = instance.call("POST", f"{path}?a=b", body, content_type="application/json")
    assert query.route == "stock"
    assert instance.call("GET", path).status == 405


def test_concurrent_batches_end_as_if_one_came_after_the_other(instance: Instance) -> None:
    run_id = instance.new_run()

    def send(n: int) -> int:
        metrics = [
            {"key": f"m{i % 5}", "value": (n * i) % 7, "timestamp": 9 - n % 8, "step": n % 8}
            for i in range(20)
        ]
        tags = [{"key": "last", "value": str(n)}]
        fields = {"run_id": run_id, "metrics": metrics, "tags": tags}
        return instance.post("runs/log-batch", fields).status

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(send, range(64))) == {200}
    sent = {
        (f"m{i % 5}", float((n * i) % 7), 9 - n % 8, n % 8) for n in range(64) for i in range(20)
    }
    found = rows(instance, run_id)
    assert {row[:4] for row in found["metrics"]} == sent
    assert len(found["metrics"]) == len(sent)
    greatest = {
        key: max((step, time, value) for k, value, time, step in sent if k == key)
        for key in {key for key, *_ in sent}
    }
    assert {k: (step, time, value) for k, value, time, step, _ in found["latest"]} == greatest


def test_one_value_of_a_param_wins_and_the_others_are_refused(instance: Instance) -> None:
    run_id = instance.new_run()
    barrier = threading.Barrier(16)

    def send(n: int) -> tuple[int, int]:
        barrier.wait()
        params = [{"key": "p", "value": str(n % 4)}, {"key": f"own{n}", "value": "x"}]
        return n, instance.post("runs/log-batch", {"run_id": run_id, "params": params}).status

    with ThreadPoolExecutor(16) as pool:
        statuses = dict(pool.map(send, range(16)))
    params = dict(rows(instance, run_id)["params"])
    for n, status in statuses.items():
        assert status == (200 if params["p"] == str(n % 4) else 400)
        assert (f"own{n}" in params) == (status == 200)


def test_a_client_that_leaves_costs_nobody_else(
    instance: Instance, new_instance: Callable[..., Instance]
) -> None:
    import socket

    run_id = instance.new_run()
    body = json.dumps({"run_id": run_id, "key": "k", "value": "v"}).encode()
    head = (
        "POST /api/2.0/mlflow/runs/set-tag HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    for cut in (body, body[:5]):
        with socket.create_connection(("127.0.0.1", instance.port)) as client:
            client.sendall(head + cut)
    assert instance.post("runs/set-tag", {"run_id": run_id, "key": "k", "value": "w"}).status == 200
