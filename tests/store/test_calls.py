"""The reader of hot bodies may be stricter than stock, never laxer; stock's rules are the judge."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import LogBatch
from mlflow.utils import validation
from mlflow.utils.proto_json_utils import parse_dict

from mlfleet.store import calls, statements

RUN = "0123456789abcdef" * 2

keys = st.one_of(
    st.sampled_from(
        ["a", "a/b", "a b.c-d:e", "../a", ".", "", "a//b", "a;b", "k" * 251, "é", "a\n"]
    ),
    st.text(max_size=5),
)
numbers = st.one_of(
    st.integers(-(2**65), 2**65), st.floats(), st.booleans(), st.none(), st.text(max_size=3),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "1"]),
)  # fmt: skip
values = st.one_of(st.text(max_size=4), st.none(), st.integers(), st.just("v" * 8001))
good_keys = st.sampled_from(["a", "b/c", "d e", "é"])
times = st.integers(0, 2**63 - 1)
metrics = st.lists(
    st.fixed_dictionaries(
        {"key": good_keys | keys, "value": numbers, "timestamp": times | numbers},
        optional={"step": times | numbers},
    ),
    max_size=3,
)
pairs = st.lists(
    st.fixed_dictionaries({"key": good_keys | keys, "value": st.text(max_size=4) | values}),
    max_size=3,
)


def validate_as_stock(fields: dict[str, Any]) -> LogBatch:
    message = LogBatch()
    parse_dict(fields, message)
    batch = [Metric.from_proto(metric) for metric in message.metrics]
    params = [Param.from_proto(param) for param in message.params]
    tags = [RunTag.from_proto(tag) for tag in message.tags]
    validation._validate_run_id(message.run_id)
    validation._validate_batch_log_data(batch, params, tags)
    validation._validate_batch_log_limits(batch, params, tags)
    validation._validate_param_keys_unique(params)
    return message


@given(metrics=metrics, params=pairs, tags=pairs)
def test_what_the_reader_takes_stock_takes_and_reads_alike(
    metrics: list[Any], params: list[Any], tags: list[Any]
) -> None:
    fields = {"run_id": RUN, "metrics": metrics, "params": params, "tags": tags}
    call = calls.read_batch(json.dumps(fields).encode())
    if call is None:
        return
    message = validate_as_stock(fields)  # raises what stock would answer 400 to
    assert call.params == {param.key: param.value for param in message.params}
    assert call.tags == {tag.key: tag.value for tag in message.tags}
    assert call.metric_count == len(message.metrics)
    read = json.loads(
        f"[[{call.metric_keys}],[{call.metric_values}],[{call.metric_times}],[{call.metric_steps}]]"
    )
    for n, metric in enumerate(message.metrics):
        is_nan = math.isnan(metric.value)
        limit = 1.7976931348623157e308
        value = 0.0 if is_nan else max(-limit, min(limit, metric.value))
        assert [column[n] for column in read] == [
            metric.key, value, metric.timestamp, metric.step
        ]  # fmt: skip
        assert call.metric_nans.split(",")[n] == ("t" if is_nan else "f")


def test_usual_metrics_are_taken() -> None:
    usual = [{"key": f"m{n}", "value": n / 3, "timestamp": n, "step": n} for n in range(3)]
    assert calls.read_batch(json.dumps({"run_id": RUN, "metrics": usual}).encode()) is not None


@given(texts=st.lists(st.one_of(st.none(), st.text().filter(lambda t: "\0" not in t)), max_size=6))
def test_an_array_literal_tells_every_text(texts: list[str | None]) -> None:
    assert parse_array(statements._texts(texts)) == texts


def parse_array(literal: str) -> list[str | None]:
    """Read a one-dimensional array literal by the rules of Postgres' documentation, 8.15.2."""
    items: list[str | None] = []
    inside = iter(literal[1:-1])
    for character in inside:
        if character == '"':
            text = ""
            for character in inside:
                if character == '"':
                    break
                text += next(inside) if character == "\\" else character
            items.append(text)
        elif character != ",":
            items.append(None)
            assert character + next(inside) + next(inside) + next(inside) in ("NULL", "null")
    return items


def test_stock_raises_where_this_test_says_so() -> None:
    """The oracle above can fail: without this, a validator that takes all would go unnoticed."""
    with pytest.raises(MlflowException):
        validate_as_stock({"run_id": RUN, "params": [{"key": "../a", "value": "v"}]})
