"""The known traps, one by one: what random sequences meet only now and then.

Each trap is a list of calls on a fresh run (`@run:…@` is filled in); after them the run and all its
histories are read back. These are also what `scripts/plant_faults` relies on first.
"""

from typing import Any

import pytest

from tests.differential.inputs import Literal, render
from tests.differential.made import API, new_experiment, new_run
from tests.differential.pair import NUMBERS, Pair
from tests.differential.side import Call

TIME = 1_700_000_000_123


def metric(key: str, value: Any, timestamp: Any = TIME, step: Any = 0, **more: Any) -> Any:
    """One metric's fields."""
    return {"key": key, "value": value, "timestamp": timestamp, "step": step, **more}


def pair_of(key: str, value: Any) -> Any:
    """One param's or tag's fields."""
    return {"key": key, "value": value}


def numbered(count: int) -> list[Any]:
    """Params or tags with different keys."""
    return [pair_of(f"k{number}", "v") for number in range(count)]


NAN, INFINITY = Literal('"NaN"'), Literal('"Infinity"')
LOG = "runs/log-metric"

LATEST = {
    "a smaller step does not win": [(5, TIME, 1), (4, TIME + 1, 2)],
    "a greater step wins with an older time": [(5, TIME, 1), (6, TIME - 1, 0)],
    "a negative step": [(-1, TIME, 1), (-2, TIME, 9)],
    "the time decides between equal steps": [(5, TIME, 1), (5, TIME - 1, 2), (5, TIME + 1, 0)],
    "one millisecond decides": [(5, TIME, 9), (5, TIME + 1, 1)],
    "the value decides between equal times": [(5, TIME, 1), (5, TIME, 2), (5, TIME, 0)],
    "an equal value does not win": [(5, TIME, 0), (5, TIME, NAN)],
    "NaN first, then zero": [(5, TIME, NAN), (5, TIME, 0)],
    "NaN counts as zero": [(5, TIME, -1), (5, TIME, NAN), (5, TIME, 1)],
    "NaN is greater than a negative number": [(5, TIME, NAN), (5, TIME, -1)],
    "infinities": [(5, TIME, INFINITY), (5, TIME, 1), (5, TIME, Literal('"-Infinity"'))],
    "the largest number equals infinity": [(5, TIME, INFINITY), (5, TIME, 1.7976931348623157e308)],
    "the same again": [(5, TIME, 1), (5, TIME, 1), (5, TIME, 1)],
    "time 0": [(0, 0, 1), (0, 0, 2), (0, 1, 0)],
}  # fmt: skip

ODD_METRICS = {
    "negative zero": metric("m", Literal("-0.0")),
    "bare NaN": metric("m", Literal("NaN")),
    "bare Infinity": metric("m", Literal("Infinity")),
    "beyond a double": metric("m", Literal("1e400")),
    "a subnormal": metric("m", Literal("5e-324")),
    "beyond 64 bits": metric("m", Literal("1" + "0" * 60)),
    "a number as text": metric("m", "1.5"),
    "a word as text": metric("m", "nan"),
    "true": metric("m", True),
    "null": metric("m", None),
    "a list": metric("m", [1]),
    "an object": metric("m", {"a": 1}),
    "no value": {"key": "m", "timestamp": TIME, "step": 1},
    "no timestamp": {"key": "m", "value": 1, "step": 1},
    "no step": {"key": "m", "value": 1, "timestamp": TIME},
    "no key": {"value": 1, "timestamp": TIME},
    "step null": metric("m", 1, step=None),
    "step as text": metric("m", 1, step="7"),
    "step as a whole float": metric("m", 1, step=Literal("7.0")),
    "step as a float": metric("m", 1, step=1.5),
    "step as an exponent": metric("m", 1, step=Literal("1e2")),
    "step true": metric("m", 1, step=True),
    "largest step": metric("m", 1, step=2**63 - 1),
    "step too large": metric("m", 1, step=2**63),
    "smallest step": metric("m", 1, step=-(2**63)),
    "step too small": metric("m", 1, step=-(2**63) - 1),
    "negative timestamp": metric("m", 1, timestamp=-1),
    "timestamp too large": metric("m", 1, timestamp=2**63),
    "timestamp as text": metric("m", 1, timestamp="1700000000123"),
    "timestamp as a float": metric("m", 1, timestamp=Literal("1700000000123.0")),
    "timestamp as a fraction": metric("m", 1, timestamp=1700000000123.5),
    "empty key": metric("", 1),
    "key of 250": metric("k" * 250, 1),
    "key of 251": metric("k" * 251, 1),
    "key up": metric("../m", 1),
    "key with a colon": metric("a:b c", 1),
    "key with NUL": metric("a\u0000b", 1),
    "key with an umlaut": metric("ä", 1),
    "key as a number": metric(Literal("5"), 1),  # type: ignore[arg-type]
    "unknown member": metric("m", 1, unknown=1),
    "model": metric("m", 1, model_id="m-" + "0" * 32),
    "empty model": metric("m", 1, model_id=""),
    "dataset": metric("m", 1, dataset_name="d", dataset_digest="x"),
    "camel case": {"key": "m", "value": 1, "timestamp": TIME, "modelId": "m-" + "0" * 32},
}  # fmt: skip

TEXTS = {
    "empty": "", "6,000 characters": "x" * 6000, "6,001 characters": "x" * 6001,
    "8,000 characters": "x" * 8000, "8,001 characters": "x" * 8001, "8,000 emoji": "🚀" * 8000,
    "NUL": "a\u0000b", "lone surrogate": Literal(r'"\ud800"'), "quote": "'\"\\{},", "NULL": "NULL",
    "null": None, "number": 5, "true": True, "list": ["x"], "newline": "a\nb\r\t", "emoji": "🚀",
    "backslash u": Literal(r'"\u00e9"'), "very long": "x" * 100_000, "braces": "{a,b}",
}  # fmt: skip
KEYS = {
    "250": "k" * 250, "251": "k" * 251, "empty": "", "space": " ", "dot": ".", "slash": "/a",
    "double slash": "a//b", "up": "a/../b", "umlaut": "ä", "emoji": "🚀", "NUL": "\u0000",
    "run name": "mlflow.runName", "source": "mlflow.source.type", "user": "mlflow.user",
    "null": None, "number": 5, "quote": "a'b",
}  # fmt: skip
BATCHES: dict[str, Any] = {
    "nothing": {},
    "empty lists": {"metrics": [], "params": [], "tags": []},
    "null lists": {"metrics": None, "params": None, "tags": None},
    "1,000 metrics": {"metrics": [metric(f"m{n}", n) for n in range(1000)]},
    "1,001 metrics": {"metrics": [metric(f"m{n}", n) for n in range(1001)]},
    "100 params": {"params": numbered(100)},
    "101 params": {"params": numbered(101)},
    "100 tags": {"tags": numbered(100)},
    "101 tags": {"tags": numbered(101)},
    "1,000 of all": {"metrics": [metric("m", n) for n in range(800)], "params": numbered(100),
                     "tags": numbered(100)},
    "1,001 of all": {"metrics": [metric("m", n) for n in range(801)], "params": numbered(100),
                     "tags": numbered(100)},
    "one metric twice": {"metrics": [metric("m", 1), metric("m", 1)]},
    "NaN twice": {"metrics": [metric("m", NAN), metric("m", NAN)]},
    "NaN and zero": {"metrics": [metric("m", NAN), metric("m", 0)]},
    "zero and NaN": {"metrics": [metric("m", 0), metric("m", NAN)]},
    "steps mixed up": {"metrics": [metric("m", 1, step=3), metric("m", 2, step=9),
                                   metric("m", 3, step=5)]},
    "a default step": {"metrics": [{"key": "m", "value": 3, "timestamp": TIME},
                                   metric("m", 4, step=0)]},
    "one param twice": {"params": [pair_of("p", "1"), pair_of("p", "1")]},
    "one param with two values": {"params": [pair_of("p", "1"), pair_of("p", "2")]},
    "one tag twice": {"tags": [pair_of("t", "1"), pair_of("t", "2"), pair_of("t", "1.5")]},
    "a tag that is the name": {"tags": [pair_of("mlflow.runName", "named"), pair_of("t", "x")]},
    "an empty name": {"tags": [pair_of("mlflow.runName", "")]},
    "two names": {"tags": [pair_of("mlflow.runName", "a"), pair_of("mlflow.runName", "b")]},
    "a param without value": {"params": [{"key": "p"}]},
    "a tag without value": {"tags": [{"key": "t"}]},
    "a bad metric behind good ones": {"metrics": [metric("m", 1), metric("a//b", 1)],
                                      "params": [pair_of("p", "1")], "tags": [pair_of("t", "1")]},
    "a bad param behind good ones": {"metrics": [metric("m", 1)],
                                     "params": [pair_of("p", "1"), pair_of("", "1")]},
    "a bad tag behind good ones": {"metrics": [metric("m", 1)], "params": [pair_of("p", "1")],
                                   "tags": [pair_of("t", "1"), pair_of("t", "x" * 8001)]},
    "an overflow behind good ones": {"metrics": [metric("m", 1), metric("n", 1, step=2**63)]},
    "NUL in a param": {"metrics": [metric("m", 1)], "params": [pair_of("p", "\u0000")]},
    "NUL in a tag": {"metrics": [metric("m", 1)], "tags": [pair_of("t", "\u0000")]},
    "a string for a list": {"metrics": "x"},
    "a metric that is null": {"metrics": [None]},
    "a member too much": {"metrics": [metric("m", 1)], "unknown": 1},
}  # fmt: skip


@pytest.fixture
def run(pair: Pair) -> str:
    """A fresh run's symbol."""
    return new_run(pair)


def post(pair: Pair, route: str, **fields: Any) -> int:
    """Send fields to both, compare, return the status."""
    return pair.call(Call("POST", f"{API}/{route}", render(fields))).status


def read_back(pair: Pair, run: str, *keys: str) -> None:
    """Compare the run and the histories of some metrics."""
    answer = pair.call(Call("GET", f"{API}/runs/get", query=(("run_id", run),)))
    found = [each["key"] for each in answer.json["run"]["data"].get("metrics", [])]
    for key in {*keys, *found[:5]}:
        query = (("run_id", run), ("metric_key", key))
        pair.call(Call("GET", f"{API}/metrics/get-history", query=query))


@pytest.mark.parametrize("rows", LATEST.values(), ids=LATEST.keys())
@pytest.mark.parametrize("way", ["one by one", "in one batch", "in two batches"])
def test_the_latest_metric_goes_by_step_then_time_then_value(
    pair: Pair, run: str, rows: list[Any], way: str
) -> None:
    metrics = [metric("m", value, time, step) for step, time, value in rows]
    if way == "one by one":
        for each in metrics:
            assert post(pair, LOG, run_id=run, **each) == 200
    else:
        parts = [metrics] if way == "in one batch" else [metrics[:1], metrics[1:]]
        for part in parts:
            assert post(pair, "runs/log-batch", run_id=run, metrics=part) == 200
    read_back(pair, run, "m")


@pytest.mark.parametrize("fields", ODD_METRICS.values(), ids=ODD_METRICS.keys())
def test_an_odd_metric(pair: Pair, run: str, fields: Any) -> None:
    post(pair, LOG, run_id=run, **fields)
    read_back(pair, run, "m")
    post(pair, "runs/log-batch", run_id=run, metrics=[metric("good", 1), fields])
    read_back(pair, run, "m", "good")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_an_odd_text(pair: Pair, run: str, text: Any) -> None:
    post(pair, "runs/log-parameter", run_id=run, key="p", value=text)
    post(pair, "runs/set-tag", run_id=run, key="t", value=text)
    read_back(pair, run)
    post(pair, "runs/log-batch", run_id=run, params=[pair_of("q", text)])
    post(pair, "runs/log-batch", run_id=run, tags=[pair_of("u", text)])
    post(pair, "runs/update", run_id=run, run_name=text)
    read_back(pair, run)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_an_odd_key(pair: Pair, run: str, key: Any) -> None:
    post(pair, "runs/log-parameter", run_id=run, key=key, value="x")
    post(pair, "runs/set-tag", run_id=run, key=key, value="y")
    post(pair, LOG, run_id=run, **metric(key, 1))
    read_back(pair, run)
    batch = {"params": [pair_of(key, "x")], "tags": [pair_of(key, "z")]}
    post(pair, "runs/log-batch", run_id=run, **batch)
    read_back(pair, run)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
def test_an_odd_batch_and_the_same_again(pair: Pair, run: str, batch: Any) -> None:
    for _ in range(2):
        post(pair, "runs/log-batch", run_id=run, **batch)
        read_back(pair, run, "m", "n")


def test_a_param_keeps_its_value(pair: Pair, run: str) -> None:
    for value in ("1", "1", "2", "1.0", ""):
        post(pair, "runs/log-parameter", run_id=run, key="p", value=value)
        post(pair, "runs/log-batch", run_id=run, params=[pair_of("p", value), pair_of("q", value)])
        read_back(pair, run)
    post(pair, "runs/log-batch", run_id=run, params=[pair_of("new", "1"), pair_of("p", "other")])
    read_back(pair, run)


def test_a_conflicting_param_takes_nothing_else_along(pair: Pair, run: str) -> None:
    post(pair, "runs/log-parameter", run_id=run, key="p", value="1")
    batch = {
        "metrics": [metric("m", 1)], "params": [pair_of("p", "2")], "tags": [pair_of("t", "x")]
    }  # fmt: skip
    assert post(pair, "runs/log-batch", run_id=run, **batch) == 400
    read_back(pair, run, "m")


def test_a_tag_takes_its_newest_value(pair: Pair, run: str) -> None:
    for value in ("1", "2", "", "🚀"):
        assert post(pair, "runs/set-tag", run_id=run, key="t", value=value) == 200
        read_back(pair, run)
    post(pair, "runs/delete-tag", run_id=run, key="t")
    post(pair, "runs/delete-tag", run_id=run, key="t")
    read_back(pair, run)


WRITES: dict[str, Any] = {
    LOG: metric("m", 1),
    "runs/log-batch": {"metrics": [metric("m", 1)], "tags": [pair_of("t", "1")]},
    "runs/log-parameter": pair_of("p", "1"),
    "runs/set-tag": pair_of("t", "1"),
    "runs/update": {"status": "FINISHED", "end_time": TIME, "run_name": "late"},
}
RUN_IDS: dict[str, Any] = {
    "unknown": "f" * 32, "upper case": "F" * 32, "short": "abc", "empty": "", "null": None,
    "number": 5, "NUL": "\u0000", "long": "f" * 64, "list": ["x"], "path": "../x",
}  # fmt: skip


@pytest.mark.parametrize("route", WRITES)
def test_a_deleted_run_takes_nothing(pair: Pair, run: str, route: str) -> None:
    assert post(pair, "runs/delete", run_id=run) == 200
    assert post(pair, route, run_id=run, **WRITES[route]) == 400
    read_back(pair, run, "m")
    assert post(pair, "runs/restore", run_id=run) == 200
    assert post(pair, route, run_id=run, **WRITES[route]) == 200
    read_back(pair, run, "m")


@pytest.mark.parametrize("other", RUN_IDS.values(), ids=RUN_IDS.keys())
@pytest.mark.parametrize("route", WRITES)
def test_a_write_to_no_run(pair: Pair, run: str, route: str, other: Any) -> None:
    fields = WRITES[route]
    assert post(pair, route, run_id=other, **fields) in (400, 404, 500)
    assert post(pair, route, **fields) in (400, 404, 500)
    post(pair, route, run_uuid=run, **fields)
    post(pair, route, run_id=run, run_uuid=other, **fields)
    post(pair, route, run_id=other, run_uuid=run, **fields)
    post(pair, route, runId=run, **fields)
    read_back(pair, run, "m")


@pytest.mark.parametrize("status", ["SCHEDULED", "FINISHED", "KILLED", "running", "", 3, 99, None])
@pytest.mark.parametrize("end", ["absent", 0, TIME, -1, "5", 1.5, None, 2**63])
def test_an_update(pair: Pair, run: str, status: Any, end: Any) -> None:
    fields = {"status": status} | ({} if end == "absent" else {"end_time": end})
    post(pair, "runs/update", run_id=run, **fields)
    read_back(pair, run)


@pytest.mark.parametrize(
    "name", ["new", "", "x" * 250, "x" * 251, "x" * 500, "a\u0000b", "🚀", None]
)
def test_a_new_name(pair: Pair, run: str, name: Any) -> None:
    post(pair, "runs/update", run_id=run, run_name=name)
    read_back(pair, run)
    post(pair, "runs/update", run_id=run)
    post(pair, "runs/set-tag", run_id=run, key="mlflow.runName", value="by tag")
    read_back(pair, run)
    post(pair, "runs/delete-tag", run_id=run, key="mlflow.runName")
    post(pair, "runs/update", run_id=run, run_name="tag made anew")
    read_back(pair, run)


CREATIONS: dict[str, Any] = {
    "nothing": {},
    "a name": {"run_name": "n"},
    "an empty name": {"run_name": ""},
    "a long name": {"run_name": "x" * 250},
    "a longer name": {"run_name": "x" * 251},
    "a name as a tag": {"tags": [pair_of("mlflow.runName", "n")]},
    "two names that agree": {"run_name": "n", "tags": [pair_of("mlflow.runName", "n")]},
    "two names that differ": {"run_name": "n", "tags": [pair_of("mlflow.runName", "o")]},
    "an empty name as a tag": {"tags": [pair_of("mlflow.runName", "")]},
    "user": {"user_id": "me", "tags": [pair_of("mlflow.user", "you")]},
    "long user": {"user_id": "u" * 257},
    "start": {"start_time": TIME},
    "start as text": {"start_time": str(TIME)},
    "start as a word": {"start_time": "now"},
    "negative start": {"start_time": -1},
    "start too large": {"start_time": 2**63},
    "null start": {"start_time": None},
    "one tag twice": {"tags": [pair_of("t", "1"), pair_of("t", "2")]},
    "a long tag": {"tags": [pair_of("t", "x" * 8001)]},
    "a long key": {"tags": [pair_of("k" * 251, "x")]},
    "101 tags": {"tags": numbered(101)},
    "a tag with NUL": {"tags": [pair_of("t", "\u0000")]},
    "a tag without value": {"tags": [{"key": "t"}]},
    "a parent": {"tags": [pair_of("mlflow.parentRunId", "f" * 32)]},
    "unknown member": {"unknown": 1},
    "lone surrogate": {"run_name": Literal(r'"\ud800"')},
}  # fmt: skip


@pytest.mark.parametrize("fields", CREATIONS.values(), ids=CREATIONS.keys())
def test_a_creation(pair: Pair, fields: Any) -> None:
    experiment = new_experiment(pair)
    body = render({"experiment_id": experiment, **fields})
    created = pair.learn(
        "run",
        Call("POST", f"{API}/runs/create", body),
        lambda answer: answer["run"]["info"]["run_id"],
    )
    if created is not None:
        read_back(pair, created)


@pytest.mark.parametrize(
    "experiment", ["999999999", "0", "", "00", "1e0", 0, None, "-1", "x", "9" * 30]
)
def test_a_creation_nowhere(pair: Pair, experiment: Any) -> None:
    post(pair, "runs/create", experiment_id=experiment, start_time=1)
    post(pair, "runs/create", start_time=1, run_name="n")


def test_a_creation_in_a_deleted_experiment(pair: Pair) -> None:
    experiment = new_experiment(pair)
    post(pair, "experiments/delete", experiment_id=experiment)
    assert post(pair, "runs/create", experiment_id=experiment) == 400


def test_an_experiments_own_location_reaches_its_runs(pair: Pair) -> None:
    name = f"located-{next(NUMBERS)}"
    location = f"mlflow-artifacts:/{name}?a=b"
    experiment = new_experiment(pair, name=name, artifact_location=location)
    assert post(pair, "runs/create", experiment_id=experiment) == 200
