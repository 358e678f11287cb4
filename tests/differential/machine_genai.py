"""Rules over traces, assessments, logged models, evaluation datasets, and their OTLP door."""

import itertools
import json
import urllib.parse
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.differential import inputs
from tests.differential.inputs import Damage, call
from tests.differential.pair import NUMBERS, Pair
from tests.differential.side import Call

V2, V3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
NANOSECONDS = 1_700_000_000_000_000_000
ODD_TRACES = ("", "tr-x", "tr-" + "f" * 32, "x" * 60, "🚀", "%00", "..", "a/b")

odd_traces = st.sampled_from(ODD_TRACES)
states = st.sampled_from(("OK", "ERROR", "IN_PROGRESS", "STATE_UNSPECIFIED", "ok", 1, 9, None))
values = st.sampled_from(
    (True, 1, 1.5, "yes", None, [1, "a"], {"a": 1}, "", "🚀", inputs.Literal("NaN"))
)
CONDITIONS = (
    "", "status = 'OK'", "attributes.status != 'ERROR'", "tags.loss = 'x'", "tag.`λ` != ''",
    "metadata.user = 'me'", "timestamp_ms > 0", "execution_time_ms >= 1500", "name = 'root'",
    "trace.name LIKE '%o%'", "bad.x = 1", "status", "span.type = 'LLM'", "feedback.good = 'yes'",
    "run_id = 'x'", "request_id = 'x'",
)  # fmt: skip
ORDERS = ([], ["timestamp_ms DESC"], ["execution_time_ms"], ["status"], ["bad"], [1])


class GenAI(RuleBasedStateMachine):
    """Traces with what hangs on them; logged models; evaluation datasets."""

    pair: Pair

    traces = Bundle("traces")
    models = Bundle("models")
    datasets = Bundle("datasets")

    def __init__(self) -> None:
        super().__init__()
        self.number = next(NUMBERS)
        self.count = itertools.count(1)
        self.ids = itertools.count(self.number * 1000)
        self.experiment = str(
            self.pair.learn(
                "experiment",
                Call("POST", f"{V2}/experiments/create", {"name": f"genai-{self.number}"}),
                lambda body: body["experiment_id"],
            )
        )
        self.run = str(
            self.pair.learn(
                "run",
                Call("POST", f"{V2}/runs/create", {"experiment_id": self.experiment}),
                lambda body: body["run"]["info"]["run_id"],
            )
        )

    # -- traces

    @initialize(target=traces)
    def first_trace(self) -> Any:
        made = self._start_trace("OK", "first", None)
        assert made is not None
        return multiple(made)

    def _start_trace(self, state: Any, text: str, damage: Damage | None) -> str | None:
        # Like start times of runs: equal ones would be ordered by chance.
        number = next(self.ids)
        trace = f"tr-{number:032x}"
        location = {"type": "MLFLOW_EXPERIMENT"}
        info = (
            ("trace_id", trace),
            (
                "trace_location",
                {**location, "mlflow_experiment": {"experiment_id": self.experiment}},
            ),
            ("request_preview", text),
            ("request_time", f"2023-01-01T00:{number % 3600 // 60:02}:{number % 60:02}.123Z"),
            ("execution_duration", "1.5s"),
            ("state", state),
            ("trace_metadata", {"user": "me", "mlflow.trace_schema.version": "3"}),
            ("tags", {"loss": text[:20], "mlflow.traceName": "root"}),
        )
        if damage is not None:
            spoiled = damage.apply("POST", "", info).text.encode("latin-1")
            text = spoiled.decode(errors="replace")
            body = f'{{"trace": {{"trace_info": {text}}}}}'
            answer = self.pair.call(Call("POST", f"{V3}/traces", body))
        else:
            answer = self.pair.call(
                call("POST", f"{V3}/traces", (("trace", {"trace_info": info}),))
            )
        return trace if answer.status == 200 else None

    @rule(target=traces, state=states, text=inputs.texts, damage=inputs.rarely_damaged)
    def start_trace(self, state: Any, text: str, damage: Damage | None) -> Any:
        made = self._start_trace(state, text, damage)
        return multiple() if made is None else made

    def _spans(self, trace: str, text: str, name: str) -> dict[str, Any]:
        attribute = {"key": "mlflow.spanInputs", "value": {"stringValue": json.dumps(text)}}
        span = {
            "traceId": trace, "spanId": trace[:16], "name": name, "kind": 1,
            "startTimeUnixNano": str(NANOSECONDS), "endTimeUnixNano": str(NANOSECONDS + 10**9),
            "attributes": [attribute], "status": {"code": 1},
        }  # fmt: skip
        return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}

    @rule(
        target=traces,
        text=inputs.plain_texts,
        name=inputs.texts,
        wire=st.sampled_from(("json", "protobuf", "broken", "no experiment", "bad experiment")),
    )
    def export_spans(self, text: str, name: str, wire: str) -> Any:
        trace = f"{next(self.ids) + 10**20:032x}"
        spans = self._spans(trace, text, name)
        headers: dict[str, str | None] = {"x-mlflow-experiment-id": self.experiment}
        body: Any = spans
        if wire == "protobuf":
            headers["Content-Type"] = "application/x-protobuf"
            body = _protobuf(spans)
        elif wire == "broken":
            headers["Content-Type"] = "application/x-protobuf"
            body = b"\xff\xfe broken"
        elif wire == "no experiment":
            headers = {}
        elif wire == "bad experiment":
            headers["x-mlflow-experiment-id"] = "999999999"
        answer = self.pair.call(Call("POST", "/v1/traces", body, headers=headers))
        return f"tr-{trace}" if answer.status == 200 else multiple()

    @rule(
        trace=st.one_of(traces, traces, odd_traces),
        key=inputs.any_keys,
        text=inputs.texts,
        verb=st.sampled_from(("PATCH", "PATCH", "DELETE")),
        version=st.sampled_from((V2, V3)),
        damage=inputs.rarely_damaged,
    )
    def tag_trace(
        self, trace: str, key: str, text: str, verb: str, version: str, damage: Damage | None
    ) -> None:
        fields: inputs.Fields = (
            (("key", key), ("value", text)) if verb == "PATCH" else (("key", key),)
        )
        path = f"{version}/traces/{_quoted(trace)}/tags"
        self.pair.call(call(verb, path, fields, damage))

    @rule(
        trace=st.one_of(traces, odd_traces),
        name=inputs.texts,
        value=values,
        kind=st.sampled_from(("feedback", "expectation")),
        damage=inputs.rarely_damaged,
    )
    def assess(self, trace: str, name: str, value: Any, kind: str, damage: Damage | None) -> None:
        inner = (
            ("assessment_name", name),
            ("trace_id", trace),
            ("source", {"source_type": "HUMAN", "source_id": "me"}),
            (kind, {"value": value}),
            ("metadata", {"a": "b"}),
        )
        path = f"{V3}/traces/{_quoted(trace)}/assessments"
        made = self.pair.learn(
            "assessment",
            call("POST", path, (("assessment", inner),), damage),
            lambda body: body["assessment"]["assessment_id"],
        )
        if made is not None:
            self.pair.call(Call("GET", f"{path}/{made}"))
            change = {"assessment": {"assessment_name": "new"}, "update_mask": "assessment_name"}
            self.pair.call(Call("PATCH", f"{path}/{made}", change))

    @rule(trace=st.one_of(traces, odd_traces))
    def read_trace(self, trace: str) -> None:
        self.pair.call(Call("GET", f"{V3}/traces/{_quoted(trace)}"))
        self.pair.call(Call("GET", f"{V3}/traces/get", query=(("trace_id", trace),)))
        self.pair.call(Call("GET", f"{V2}/traces/{_quoted(trace)}/info"))
        batch = Call("GET", f"{V3}/traces/batchGet", query=(("trace_ids", trace),))
        self.pair.call(batch)
        query = (("request_id", trace),)
        self.pair.call(Call("GET", "/ajax-api/2.0/mlflow/get-trace-artifact", query=query))

    @rule(
        condition=st.sampled_from(CONDITIONS),
        order=st.sampled_from(ORDERS),
        most=st.sampled_from((1, 2, 100, 0, 501, "x")),
    )
    def search_traces(self, condition: str, order: Any, most: Any) -> None:
        location = {
            "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self.experiment}
        }  # fmt: skip
        body = {
            "locations": [location], "filter": condition, "order_by": order, "max_results": most
        }  # fmt: skip
        # Traces of OTLP share one start time, so only the set of them is equal.
        self.pair.call(Call("POST", f"{V3}/traces/search", body, unordered=("traces",)))

    @rule(trace=st.one_of(traces, odd_traces), known=st.booleans())
    def link_trace(self, trace: str, known: bool) -> None:
        body = {"trace_ids": [trace], "run_id": self.run if known else "x"}
        self.pair.call(Call("POST", f"{V2}/traces/link-to-run", body))

    @rule(trace=st.one_of(traces, odd_traces), known=st.booleans())
    def delete_trace(self, trace: str, known: bool) -> None:
        experiment = self.experiment if known else "999999999"
        body = {"experiment_id": experiment, "request_ids": [trace]}
        self.pair.call(Call("POST", f"{V3}/traces/delete-traces", body))

    # -- logged models

    @rule(
        target=models,
        name=st.one_of(st.none(), inputs.texts),
        params=st.lists(st.tuples(inputs.any_keys, inputs.texts), max_size=3),
        damage=inputs.rarely_damaged,
    )
    def create_logged_model(
        self, name: str | None, params: list[Any], damage: Damage | None
    ) -> Any:
        rows = [(("key", key), ("value", value)) for key, value in params]
        fields: inputs.Fields = (
            ("experiment_id", self.experiment),
            ("params", rows),
            ("tags", rows),
        )
        # A name that is left out is made up at random, outside the masks: so it is always given.
        fields = (*fields, ("name", name or "unnamed"), ("source_run_id", self.run))
        made = self.pair.learn(
            "model",
            call("POST", f"{V2}/logged-models", fields, damage),
            lambda body: body["model"]["info"]["model_id"],
        )
        return multiple() if made is None else made

    @rule(
        model=st.one_of(models, odd_traces),
        status=st.sampled_from((1, 2, 3, "LOGGED_MODEL_READY", 0, 99, "x", None)),
        damage=inputs.rarely_damaged,
    )
    def finalize_logged_model(self, model: str, status: Any, damage: Damage | None) -> None:
        fields = (("model_id", model), ("status", status))
        self.pair.call(call("PATCH", f"{V2}/logged-models/{_quoted(model)}", fields, damage))

    @rule(model=st.one_of(models, odd_traces), key=inputs.any_keys, text=inputs.texts)
    def change_logged_model(self, model: str, key: str, text: str) -> None:
        path = f"{V2}/logged-models/{_quoted(model)}"
        rows = [{"key": key, "value": text}]
        self.pair.call(Call("PATCH", f"{path}/tags", {"tags": rows}))
        self.pair.call(Call("POST", f"{path}/params", {"model_id": model, "params": rows}))
        self.pair.call(Call("GET", path))
        self.pair.call(Call("GET", f"{path}/artifacts/directories"))

    @rule(
        model=models,
        number=inputs.numbers,
        route=st.sampled_from(("log-metric", "log-batch")),
        key=inputs.keys,
    )
    def log_metric_of_model(self, model: str, number: Any, route: str, key: str) -> None:
        metric: inputs.Fields = (
            ("key", key), ("value", number), ("timestamp", 1_700_000_000_123), ("step", 1),
            ("model_id", model), ("dataset_name", "d"), ("dataset_digest", "x"),
        )  # fmt: skip
        fields: inputs.Fields = (("run_id", self.run),)
        fields = (*fields, *metric) if route == "log-metric" else (*fields, ("metrics", [metric]))
        self.pair.call(call("POST", f"{V2}/runs/{route}", fields))
        self.pair.call(Call("GET", f"{V2}/logged-models/{model}"))

    @rule(
        condition=st.sampled_from(
            ("", "params.loss = 'x'", "metrics.loss > 0", "name != 'q'", "bad")
        ),
        model=st.one_of(models, st.just("m-" + "0" * 32)),
    )
    def search_logged_models(self, condition: str, model: str) -> None:
        body = {"experiment_ids": [self.experiment], "filter": condition}
        path = f"{V2}/logged-models/search"
        self.pair.call(Call("POST", path, body, unordered=("models",)))
        outputs = {"run_id": self.run, "models": [{"model_id": model, "step": 0}]}
        self.pair.call(Call("POST", f"{V2}/runs/outputs", outputs))
        self.pair.call(Call("GET", f"{V2}/runs/get", query=(("run_id", self.run),)))

    @rule(model=st.one_of(models, odd_traces))
    def delete_logged_model(self, model: str) -> None:
        self.pair.call(Call("DELETE", f"{V2}/logged-models/{_quoted(model)}"))

    # -- evaluation datasets

    @rule(target=datasets, text=inputs.texts, damage=inputs.rarely_damaged)
    def create_dataset(self, text: str, damage: Damage | None) -> Any:
        fields = (
            ("name", f"{text[:50]}-{self.number}-{next(self.count)}"),
            ("experiment_ids", [self.experiment]),
            ("tags", json.dumps({"loss": text[:20], "mlflow.user": "me"})),
        )
        made = self.pair.learn(
            "dataset",
            call("POST", f"{V3}/datasets/create", fields, damage),
            lambda body: body["dataset"]["dataset_id"],
        )
        return multiple() if made is None else made

    @rule(dataset=st.one_of(datasets, odd_traces), text=inputs.plain_texts, broken=st.booleans())
    def change_dataset(self, dataset: str, text: str, broken: bool) -> None:
        path = f"{V3}/datasets/{_quoted(dataset)}"
        records = [{"inputs": {"question": text}, "expectations": {"answer": text}}]
        sent = "[" if broken and not text else json.dumps(records)
        self.pair.call(Call("POST", f"{path}/records", {"records": sent}))
        self.pair.call(Call("GET", f"{path}/records", unordered=("records",)))
        self.pair.call(Call("PATCH", f"{path}/tags", {"tags": json.dumps({"a": text})}))
        self.pair.call(Call("GET", path))

    def teardown(self) -> None:
        """Read the run back: what hangs on it has been logged through hot routes too."""
        self.pair.call(Call("GET", f"{V2}/runs/get", query=(("run_id", self.run),)))


def _quoted(text: str) -> str:
    """A path segment; symbols stay as they are, to be resolved by each side."""
    return text if text.startswith("@") else urllib.parse.quote(text, safe="%")


def _protobuf(spans: dict[str, Any]) -> bytes:
    request = ExportTraceServiceRequest()
    sent = spans["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id = bytes.fromhex(sent["traceId"]), bytes.fromhex(sent["spanId"])
    span.name, span.kind = sent["name"].encode("utf-8", "replace").decode(), 1
    span.start_time_unix_nano = int(sent["startTimeUnixNano"])
    span.end_time_unix_nano = int(sent["endTimeUnixNano"])
    return request.SerializeToString()
