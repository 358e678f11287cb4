"""The suite itself: it sees what differs, and only that."""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.differential.comparison import Comparison
from tests.differential.exceptions import WrittenExceptions
from tests.differential.inputs import Literal, render
from tests.differential.pair import Pair, Unequal
from tests.differential.side import Answer, Call, Side

NOW = int(time.time() * 1000)
SESSION = (NOW - 60_000.0, NOW + 60_000.0)
ONE, TWO, THREE = "a" * 32, "b" * 32, "c" * 32
LEFT = Side("left", "http://127.0.0.1:20001", "", places=("/left/files",))
RIGHT = Side("right", "http://127.0.0.1:20002/tenant", "", places=("/right/files",))
ANY = Call("GET", "/x")


def answer(body: Any, status: int = 200, **headers: str) -> Answer:
    """An answer with a JSON body, or with text as it is."""
    text = body if isinstance(body, str) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": "application/json", **named}, text.encode())


def failed(parameters: str) -> dict[str, str]:
    """What MLflow answers when Postgres refuses a statement with these parameters."""
    return {"message": f"too long\n[parameters: {{{parameters}}}]\n(Background on this error"}


def differ(left: Answer, right: Answer, call: Call = ANY) -> bool:
    """Compare two answers in a session of their own."""
    return bool(Comparison(LEFT, RIGHT, SESSION).differences(call, left, right))


EQUAL: dict[str, tuple[Any, Any]] = {
    "identifiers": ({"run_id": ONE, "again": ONE}, {"run_id": TWO, "again": TWO}),
    "experiments": ({"experiment_id": "410000001"}, {"experiment_id": "420000007"}),
    "run names": (
        {"n": "bold-cat-12", "m": "bold-cat-12"},
        {"n": "wise-ape-3", "m": "wise-ape-3"},
    ),
    "clock": ({"creation_time": NOW}, {"creation_time": NOW + 5}),
    "clock in a text": ({"create_time": str(NOW)}, {"create_time": str(NOW + 5)}),
    "folders": ({"uri": "/left/files/x"}, {"uri": "/right/files/x"}),
    "addresses": ("<a>http://127.0.0.1:20001/x", "<a>http://127.0.0.1:20002/tenant/x"),
    "order of tags": (
        {"tags": [{"key": "a"}, {"key": "b"}]},
        {"tags": [{"key": "b"}, {"key": "a"}]},
    ),
    "ties of a history": (
        {"metrics": [{"value": "NaN", "step": 1}, {"value": 0, "step": 1}]},
        {"metrics": [{"value": 0, "step": 1}, {"value": "NaN", "step": 1}]},
    ),
    "a set in a message": ({"message": "in {'a', 'b'}"}, {"message": "in {'b', 'a'}"}),
    "JSON in a text": ({"x": json.dumps({"id": ONE})}, {"x": json.dumps({"id": TWO})}),
    "digest in a failed statement": (
        failed("'digest': 'e4ac3500', 'a': 1"), failed("'digest': '57d42f64', 'a': 1"),
    ),
}  # fmt: skip
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "a missing field": ({"a": 1, "b": 2}, {"a": 1}),
    "a further field": ({"a": 1}, {"a": 1, "b": None}),
    "whole and float": ({"a": 1}, {"a": 1.0}),
    "number and text": ({"a": 1}, {"a": "1"}),
    "true and one": ({"a": True}, {"a": 1}),
    "null and empty": ({"a": None}, {"a": ""}),
    "negative zero": ({"a": 0.0}, {"a": -0.0}),
    "one identifier for two": ({"a": ONE, "b": TWO}, {"a": THREE, "b": THREE}),
    "two identifiers for one": ({"a": ONE, "b": ONE}, {"a": TWO, "b": THREE}),
    "a run's name and its tag": (
        {"n": "bold-cat-12", "m": "bold-cat-12"},
        {"n": "wise-ape-3", "m": "wise-ape-4"},
    ),
    "an old clock": ({"creation_time": NOW}, {"creation_time": 0}),
    "a client's time": ({"timestamp": NOW}, {"timestamp": NOW + 1}),
    "a start time": ({"start_time": NOW}, {"start_time": NOW + 1}),
    "order of runs": ({"runs": [{"a": 1}, {"a": 2}]}, {"runs": [{"a": 2}, {"a": 1}]}),
    "order of a history": (
        {"metrics": [{"value": 1, "step": 1}, {"value": 0, "step": 2}]},
        {"metrics": [{"value": 0, "step": 2}, {"value": 1, "step": 1}]},
    ),
    "a tag twice": ({"tags": [{"key": "a"}]}, {"tags": [{"key": "a"}, {"key": "a"}]}),
    "a message": ({"message": "Run 'x' not found"}, {"message": "Run 'x' not found."}),
    "the other side's folder": ({"uri": "/left/files/x"}, {"uri": "/other/files/x"}),
    "text": ("Not found", "not found"),
    "JSON in a text": ({"x": '{"a": 1}'}, {"x": '{"a": 2}'}),
    "a parameter of a failed statement": (failed("'a': 'e4ac3500'"), failed("'a': '57d42f64'")),
    "a digest that is none": (failed("'digest': 'e4ac3500'"), failed("'digest': 'e4ac350'")),
}  # fmt: skip


@pytest.mark.parametrize("bodies", EQUAL.values(), ids=EQUAL.keys())
def test_what_a_server_chooses_is_masked(bodies: tuple[Any, Any]) -> None:
    assert not differ(answer(bodies[0]), answer(bodies[1]))


@pytest.mark.parametrize("bodies", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_everything_else_is_seen(bodies: tuple[Any, Any]) -> None:
    assert differ(answer(bodies[0]), answer(bodies[1]))


def test_status_and_headers_are_seen() -> None:
    assert differ(answer({}), answer({}, status=201))
    assert differ(
        answer({}), dataclasses.replace(answer({}), headers={"content-type": "text/html"})
    )
    assert differ(answer({}, x_frame_options="DENY"), answer({}))
    assert not differ(answer({}, allow="GET, HEAD"), answer({}, allow="HEAD, GET"))
    assert not differ(answer({}, server="uvicorn"), answer({}, date="today"))
    own = "http://127.0.0.1:20001/y", "/tenant/y"
    assert not differ(answer({}, location=own[0]), answer({}, location=own[1]))


def test_identifiers_correspond_for_the_whole_session() -> None:
    comparison = Comparison(LEFT, RIGHT, SESSION)
    assert not comparison.differences(ANY, answer({"a": ONE}), answer({"a": TWO}))
    assert not comparison.differences(ANY, answer(f"no {ONE}"), answer(f"no {TWO}"))
    assert comparison.differences(ANY, answer({"a": ONE}), answer({"a": THREE}))


class Faulty(Side):
    """A real server behind somebody who changes one thing on the way."""

    change_call: Callable[[str], str] = staticmethod(lambda text: text)
    change_answer: Callable[[bytes], bytes] = staticmethod(lambda body: body)

    def send(self, call: Call) -> Answer:
        """Send the changed call, return the changed answer."""
        if call.body is not None:
            call = dataclasses.replace(call, body=self.change_call(call.text))
        answered = super().send(call)
        return dataclasses.replace(answered, body=self.change_answer(answered.body))


FAULTS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "a step more": {"change_call": lambda text: text.replace('"step": 3', '"step": 4')},
    "seconds for milliseconds": {"change_call": lambda text: text.replace("0123", "0000")},
    "NaN for zero": {"change_call": lambda text: text.replace('"NaN"', "0")},
    "another error": {"change_answer": lambda body: body.replace(b"INVALID_", b"BAD_")},
    "a field less": {"change_answer": lambda body: body.replace(b'"lifecycle_stage"', b'"x"')},
    "no fault": {},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stock_server_with_a_fault_is_told_from_one_without(pair: Pair, fault: str) -> None:
    right = Faulty("faulty", pair.stock.url, pair.stock.database_uri)
    for name, change in FAULTS[fault].items():
        setattr(right, name, change)
    doubted = Pair(Side("stock", pair.stock.url, ""), right, WrittenExceptions())
    try:
        log_some(doubted)
    except Unequal:
        assert fault != "no fault"
    else:
        assert fault == "no fault"
    finally:
        doubted.close()


def log_some(pair: Pair) -> None:
    """A run with one metric, one NaN and one refused param, read back."""
    api = "/api/2.0/mlflow/runs"
    run = pair.learn(
        "run",
        Call("POST", f"{api}/create", {"experiment_id": "0", "start_time": 1}),
        lambda body: body["run"]["info"]["run_id"],
    )
    metric = {"run_id": run, "key": "m", "value": 1.5, "timestamp": 1_700_000_000_123, "step": 3}
    pair.call(Call("POST", f"{api}/log-metric", metric))
    pair.call(Call("POST", f"{api}/log-metric", render({**metric, "value": Literal('"NaN"')})))
    pair.call(Call("POST", f"{api}/log-parameter", {"run_id": run, "key": "a//b", "value": "x"}))
    pair.call(Call("GET", f"{api}/get", query=(("run_id", str(run)),)))
    query = (("run_id", str(run)), ("metric_key", "m"))
    pair.call(Call("GET", "/api/2.0/mlflow/metrics/get-history", query=query))
