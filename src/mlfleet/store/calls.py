"""Read the bodies of write calls: those that are plainly valid become a call, all others None.

Pure: bytes come in, a call goes out. None means "let stock MLflow answer this one", so every rule
here may be stricter than stock's and none may be laxer; errors are stock's by construction. The
rules follow `mlflow.utils.validation` and the handlers of the six routes (MLflow 3.17.2).

A call carries its rows as pieces of Postgres array literals, made here on the event loop, so that
the writer only joins the pieces of all waiting calls.
"""

import posixpath
import re
from typing import Any, TypeGuard

import orjson

MAX_BODY_BYTES = 2_000_000
"""Longer bodies are left to stock; a full batch of 1,000 entities has about 200 kB."""

_MAX_METRICS = 1000
_MAX_PARAMS = 100
_MAX_TAGS = 100
_MAX_ENTITIES = 1000
_MAX_KEY = 250
_MAX_PARAM_VALUE = 6000
_MAX_TAG_VALUE = 8000
_MAX_RUN_NAME = 250
_MAX_USER = 256
_INT64_MAX = 2**63 - 1
_INT64_MIN = -(2**63)
_LARGEST = 1.7976931348623157e308
"""Stock stores infinity as the largest double, and NaN as 0 with a flag."""

_SPECIAL = {"NaN": (0.0, "t"), "Infinity": (_LARGEST, "f"), "-Infinity": (-_LARGEST, "f")}
"""How JSON of protobuf, and so MLflow's client, writes what JSON has no numbers for."""

_RUN_NAME = "mlflow.runName"
_STATUSES = frozenset({"RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"})
_RUN_ID = re.compile(r"[0-9a-f]{32}").fullmatch
_KEY = re.compile(r"[/\w.\- :]+").fullmatch
_EXPERIMENT_ID = re.compile(r"0|[1-9][0-9]{0,8}").fullmatch

_METRIC_FIELDS = frozenset({"run_id", "run_uuid", "key", "value", "timestamp", "step"})
_PAIR_FIELDS = frozenset({"run_id", "run_uuid", "key", "value"})
_BATCH_FIELDS = frozenset({"run_id", "metrics", "params", "tags"})
_UPDATE_FIELDS = frozenset({"run_id", "run_uuid", "status", "end_time", "run_name"})
_CREATE_FIELDS = frozenset({"experiment_id", "user_id", "start_time", "tags", "run_name"})

_good_keys: set[str] = set()
_MOST_GOOD_KEYS = 10_000


class RunWrite:
    """Metrics, params and tags for one run; each text is the inside of an array literal."""

    __slots__ = (
        "metric_count",
        "metric_keys",
        "metric_nans",
        "metric_steps",
        "metric_times",
        "metric_values",
        "params",
        "run_id",
        "run_name",
        "tags",
    )

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.metric_count = 0
        self.metric_keys = self.metric_values = self.metric_times = ""
        self.metric_steps = self.metric_nans = ""
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.run_name: str | None = None
        """The new name of the run, when one of the tags is `mlflow.runName`."""


class CreateRun:
    """A new run; its id is made here, so that the insert can be repeated without harm."""

    __slots__ = ("experiment_id", "run_id", "run_name", "start_time", "tags", "user_id")

    def __init__(self, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.run_name = ""
        self.user_id = ""
        self.start_time = 0
        self.tags: dict[str, str] = {}


class UpdateRun:
    """A new status, end or name of a run; None keeps what is there."""

    __slots__ = ("end_time", "run_id", "run_name", "status")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.status: str | None = None
        self.end_time: int | None = None
        self.run_name: str | None = None


Call = RunWrite | CreateRun | UpdateRun


def read_metric(body: bytes) -> RunWrite | None:
    """Read the body of `runs/log-metric`."""
    fields = _fields(body, _METRIC_FIELDS)
    if fields is None:
        return None
    call = RunWrite(fields["run_id"])
    fields.setdefault("step", 0)
    fields.pop("run_uuid", None)
    return call if _add_metrics(call, [fields]) else None


def read_param(body: bytes) -> RunWrite | None:
    """Read the body of `runs/log-parameter`."""
    fields = _fields(body, _PAIR_FIELDS)
    if fields is None:
        return None
    call = RunWrite(fields["run_id"])
    pair = {"key": fields.get("key"), "value": fields.get("value")}
    return call if _add_params(call, [pair]) else None


def read_tag(body: bytes) -> RunWrite | None:
    """Read the body of `runs/set-tag`."""
    fields = _fields(body, _PAIR_FIELDS)
    if fields is None:
        return None
    call = RunWrite(fields["run_id"])
    pair = {"key": fields.get("key"), "value": fields.get("value")}
    return call if _add_tags(call, [pair]) else None


def read_batch(body: bytes) -> RunWrite | None:
    """Read the body of `runs/log-batch`."""
    fields = _fields(body, _BATCH_FIELDS)
    if fields is None:
        return None
    metrics, params = fields.get("metrics", []), fields.get("params", [])
    tags = fields.get("tags", [])
    if not (type(metrics) is type(params) is type(tags) is list):
        return None
    if (
        len(metrics) > _MAX_METRICS
        or len(params) > _MAX_PARAMS
        or len(tags) > _MAX_TAGS
        or len(metrics) + len(params) + len(tags) > _MAX_ENTITIES
    ):
        return None
    call = RunWrite(fields["run_id"])
    if _add_metrics(call, metrics) and _add_params(call, params) and _add_tags(call, tags):
        return call
    return None


def read_create(body: bytes, run_id: str, random_name: str) -> CreateRun | None:
    """Read the body of `runs/create`.

    Args:
        body: as the client sent it.
        run_id: the id the run shall have, 32 hexadecimal digits.
        random_name: what the run is called if the client names it nowhere.
    """
    fields = read_object(body, _CREATE_FIELDS)
    if fields is None:
        return None
    experiment_id = fields.get("experiment_id")
    if not is_experiment_id(experiment_id):
        return None
    call = CreateRun(run_id, experiment_id)
    call.start_time, call.user_id = fields.get("start_time", 0), fields.get("user_id", "")
    if not _is_int64(call.start_time) or not is_text(call.user_id, _MAX_USER):
        return None
    name, tags = fields.get("run_name", ""), fields.get("tags", [])
    if not is_text(name, _MAX_RUN_NAME) or type(tags) is not list or len(tags) > _MAX_TAGS:
        return None
    if not _set_new_tags(call, tags):
        return None
    named = call.tags.get(_RUN_NAME, "")
    if len(named) > _MAX_RUN_NAME or (name and named and name != named):
        return None
    call.run_name = name or named or random_name
    # Stock appends the name's tag when there is none, and trips over an empty one.
    if not named and _RUN_NAME in call.tags:
        return None
    call.tags.setdefault(_RUN_NAME, call.run_name)
    return call


def read_update(body: bytes) -> UpdateRun | None:
    """Read the body of `runs/update`."""
    fields = _fields(body, _UPDATE_FIELDS)
    if fields is None:
        return None
    call = UpdateRun(fields["run_id"])
    if "status" in fields:
        call.status = fields["status"]
        if type(call.status) is not str or call.status not in _STATUSES:
            return None
    if "end_time" in fields:
        call.end_time = fields["end_time"]
        if not _is_int64(call.end_time):
            return None
    if "run_name" in fields:
        call.run_name = fields["run_name"]
        if not call.run_name or not is_text(call.run_name, _MAX_RUN_NAME):
            return None
    return call


def read_object(body: bytes, allowed: frozenset[str]) -> dict[str, Any] | None:
    """Return a body's fields if it is an object of known fields."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(fields) is not dict or not allowed.issuperset(fields):
        return None
    return fields


def _fields(body: bytes, allowed: frozenset[str]) -> dict[str, Any] | None:
    """Return a body's fields if it is an object of known fields with a run id as stock makes it."""
    fields = read_object(body, allowed)
    if fields is None:
        return None
    run_id = fields.get("run_id")
    if not is_run_id(run_id):
        return None
    # The stock client sends the id under its old name as well.
    return fields if fields.get("run_uuid", run_id) == run_id else None


def _add_metrics(call: RunWrite, metrics: list[Any]) -> bool:
    """Put metrics into the call; False if one of them is not plainly valid.

    The loop runs 100 times for a usual batch, hence the names in locals and the few calls.
    """
    if not metrics:
        return True
    keys, values, times, steps, nans = [], [], [], [], []
    run_id, good_keys = call.run_id, _good_keys
    try:
        for metric in metrics:
            key, value, time = metric["key"], metric["value"], metric["timestamp"]
            size, nan = len(metric), "f"
            if size == 3:
                step = 0
            elif size == 4 or (size == 5 and metric["run_id"] == run_id):
                step = metric["step"]
            else:
                return False
            if key not in good_keys and not _is_key(key):
                return False
            if type(value) is int:
                value = float(value)
            elif type(value) is not float:
                value, nan = _SPECIAL[value]
            if type(time) is not int or type(step) is not int:
                return False
            if not 0 <= time <= _INT64_MAX or not _INT64_MIN <= step <= _INT64_MAX:
                return False
            keys.append(key)
            values.append(value + 0.0)  # psycopg2 writes stock's -0.0 so that it is read as 0
            times.append(time)
            steps.append(step)
            nans.append(nan)
    except (KeyError, TypeError):
        return False
    call.metric_count = len(keys)
    # Keys have no character that JSON or an array literal would escape.
    call.metric_keys, call.metric_values = _inside(keys), _inside(values)
    call.metric_times, call.metric_steps = _inside(times), _inside(steps)
    call.metric_nans = ",".join(nans)
    return True


def _add_params(call: RunWrite, params: list[Any]) -> bool:
    for param in params:
        pair = _pair(param, _MAX_PARAM_VALUE)
        if pair is None or pair[0] in call.params:
            return False
        call.params[pair[0]] = pair[1]
    return True


def _add_tags(call: RunWrite, tags: list[Any]) -> bool:
    for tag in tags:
        pair = _pair(tag, _MAX_TAG_VALUE)
        if pair is None:
            return False
        call.tags[pair[0]] = pair[1]  # of two tags with one key, stock keeps the later
    call.run_name = call.tags.get(_RUN_NAME)
    return call.run_name is None or 0 < len(call.run_name) <= _MAX_RUN_NAME


def _set_new_tags(call: CreateRun, tags: list[Any]) -> bool:
    for tag in tags:
        pair = _pair(tag, _MAX_TAG_VALUE)
        if pair is None or pair[0] in call.tags:
            return False
        call.tags[pair[0]] = pair[1]
    return True


def _pair(item: Any, most: int) -> tuple[str, str] | None:
    if type(item) is not dict or len(item) != 2:
        return None
    key, value = item.get("key"), item.get("value")
    if type(key) is not str or type(value) is not str:
        return None
    is_valid = (key in _good_keys or _is_key(key)) and is_text(value, most)
    return (key, value) if is_valid else None


def _is_key(key: Any) -> bool:
    """Whether a name is valid; names come again and again, so the good ones are remembered."""
    if type(key) is not str or len(key) > _MAX_KEY or not _KEY(key):
        return False
    if posixpath.normpath(key) != key or key == "." or key.startswith(("..", "/")):
        return False
    if len(_good_keys) >= _MOST_GOOD_KEYS:
        _good_keys.clear()
    _good_keys.add(key)
    return True


def is_run_id(value: Any) -> TypeGuard[str]:
    """Whether a value is the id of a run as stock makes it."""
    return type(value) is str and _RUN_ID(value) is not None


def is_experiment_id(value: Any) -> TypeGuard[str]:
    """Whether a value is the id of an experiment as stock writes it."""
    return type(value) is str and _EXPERIMENT_ID(value) is not None


def is_text(value: Any, most: int) -> bool:
    """Whether a value is a string that Postgres can hold; it has no NUL character."""
    return type(value) is str and len(value) <= most and "\0" not in value


def _is_int64(value: Any) -> bool:
    return type(value) is int and _INT64_MIN <= value <= _INT64_MAX


def _inside(items: list[Any]) -> str:
    return orjson.dumps(items)[1:-1].decode()
