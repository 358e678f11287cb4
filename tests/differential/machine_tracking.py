"""Rules over experiments and runs, with most weight on the calls that have a hot route."""

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from tests.differential import inputs
from tests.differential.inputs import Damage, call
from tests.differential.pair import NUMBERS, Pair
from tests.differential.side import Call

API = "/api/2.0/mlflow"
PREFIXES = ("/api/2.0/mlflow", "/api/2.0/mlflow", "/ajax-api/2.0/mlflow")

prefixes = st.sampled_from(PREFIXES)
# A target of more than 16 KiB is the gateway's to refuse (414), see docs/contract.md.
short_texts = inputs.texts.filter(lambda text: len(text) <= 600)
metrics = st.lists(
    st.tuples(inputs.any_keys, inputs.numbers, inputs.moments, inputs.steps, inputs.indexes),
    max_size=6,
).map(
    # One in six comes without a step, which then is 0.
    lambda rows: [
        (("key", key), ("value", value), ("timestamp", moment), *([("step", step)] if some else []))
        for key, value, moment, step, some in rows
    ]
)
pairs = st.lists(st.tuples(inputs.any_keys, inputs.texts), max_size=4).map(
    lambda rows: [(("key", key), ("value", text)) for key, text in rows]
)
run_names = st.one_of(st.none(), inputs.texts)
odd_runs = st.sampled_from(inputs.ODD_IDS)
statuses = st.sampled_from(
    ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED", "finished", "", "X", 1, 3, 9, None)
)
FILTERS = (
    "", "metrics.loss > 0", "metrics.loss <= 1.5", "metrics.`layers/0/w` != 0", "metrics.acc = 1",
    "params.loss = '1'", "params.acc != 'x'", "params.loss LIKE '%a%'", "params.loss ILIKE '%A%'",
    "tags.loss = ''", "tags.acc LIKE 'x%'", "tags.`λ` IS NULL", "tags.loss IS NOT NULL",
    "attributes.status = 'RUNNING'", "status != 'FINISHED'", "attributes.run_name LIKE '%-%'",
    "start_time > 1700000000000", "end_time >= 0", "run_id IN ('x')", "user_id = 'me'",
    "metrics.loss > 0 AND params.acc = 'x'", "metrics.loss > 0 OR metrics.acc > 0",
    "metrics.loss > 'x'", "params.loss = 1", "bad.loss = 1", "metrics.loss", "= 1", "((", "'",
    "tags.loss = 'a", "status > 'x'", "dataset.name = 'd'", "tags.\u0000 = 'x'",
    "metrics.loss > NaN",
    "params.loss = '\u0000'", "name = 'x'", "created > 1", "attributes.artifact_uri LIKE '%a%'",
)  # fmt: skip
ORDERS = (
    [], ["metrics.loss"], ["metrics.loss DESC"], ["metrics.`layers/0/w` ASC", "start_time"],
    ["params.acc DESC"], ["tags.loss"], ["attributes.start_time"], ["start_time DESC"],
    ["status", "end_time DESC"], ["bad"], ["metrics.loss UP"], [""], ["metrics.loss, acc"],
    ["start_time", "start_time"], [1], "start_time",
)  # fmt: skip
LOCATIONS = (
    None, None, "", "mlflow-artifacts:/elsewhere", "mlflow-artifacts:/a/../b",
    "mlflow-artifacts:/a#b",
    "mlflow-artifacts:/a?b=c", "mlflow-artifacts://host/x",
)  # fmt: skip
"""Only inside the root: what lies outside is refused, see `exceptions.toml`."""
GRAPHQL = (
    '{"query": "{ mlflowGetExperiment(input: {experimentId: \\"%s\\"}) '
    '{ experiment { name experimentId lifecycleStage } apiError { code message } } }"}'
)
GRAPHQL_RUN = (
    '{"query": "{ mlflowGetRun(input: {runId: \\"%s\\"}) { run { info { runId status runName } '
    "data { params { key value } metrics { key value step timestamp } } } "
    'apiError { code message } } }"}'
)


class Tracking(RuleBasedStateMachine):
    """Experiments, runs, what is logged to them, and everything that reads it back."""

    pair: Pair

    experiments = Bundle("experiments")
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.number = next(NUMBERS)
        self.made: list[str] = []
        self.start_ms = 1_600_000_000_000 + self.number % 1000 * 1_000_000
        self.odd_experiment = self._experiment(f"odd-{self.number}")

    def _experiment(self, name: str) -> str:
        created = self.pair.learn(
            "experiment",
            Call("POST", f"{API}/experiments/create", {"name": name}),
            lambda body: body["experiment_id"],
        )
        assert created is not None
        return created

    @initialize(target=experiments)
    def first_experiment(self) -> Any:
        return multiple(self._experiment(f"first-{self.number}"))

    @initialize(target=runs, experiment=st.none())
    def first_runs(self, experiment: None) -> Any:
        return multiple(*(self._run(self.odd_experiment, (), None) for _ in range(2)))

    def _run(self, experiment: str, fields: inputs.Fields, damage: Damage | None) -> str | None:
        # Distinct start times: stock orders equal ones by identifiers, which differ.
        self.start_ms += 1000
        usual = (("experiment_id", experiment), ("start_time", self.start_ms))
        run = self.pair.learn(
            "run",
            call("POST", f"{API}/runs/create", (*usual, *fields), damage),
            lambda body: body["run"]["info"]["run_id"],
        )
        if run is not None:
            self.made.append(run)
        return run

    # -- experiments

    @rule(
        target=experiments,
        name=inputs.texts,
        tags=pairs,
        location=st.sampled_from(LOCATIONS),
        damage=inputs.rarely_damaged,
    )
    def create_experiment(
        self, name: str, tags: list[Any], location: str | None, damage: Damage | None
    ) -> Any:
        fields: inputs.Fields = (("name", f"{name}{self.number if name else ''}"), ("tags", tags))
        if location is not None:
            fields = (*fields, ("artifact_location", location))
        created = self.pair.learn(
            "experiment",
            call("POST", f"{API}/experiments/create", fields, damage),
            lambda body: body["experiment_id"],
        )
        return multiple() if created is None else created

    @rule(
        experiment=st.one_of(experiments, odd_runs),
        verb=st.sampled_from(("delete", "restore", "restore")),
        damage=inputs.rarely_damaged,
    )
    def end_experiment(self, experiment: str, verb: str, damage: Damage | None) -> None:
        fields = (("experiment_id", experiment),)
        self.pair.call(call("POST", f"{API}/experiments/{verb}", fields, damage))

    @rule(
        experiment=st.one_of(experiments, odd_runs),
        name=inputs.texts,
        damage=inputs.rarely_damaged,
    )
    def rename_experiment(self, experiment: str, name: str, damage: Damage | None) -> None:
        fields = (("experiment_id", experiment), ("new_name", f"{name}r{self.number}"))
        self.pair.call(call("POST", f"{API}/experiments/update", fields, damage))

    @rule(
        experiment=st.one_of(experiments, odd_runs),
        key=inputs.any_keys,
        text=inputs.texts,
        verb=st.sampled_from(("set-experiment-tag", "set-experiment-tag", "delete-experiment-tag")),
        damage=inputs.rarely_damaged,
    )
    def tag_experiment(
        self, experiment: str, key: str, text: str, verb: str, damage: Damage | None
    ) -> None:
        fields: inputs.Fields = (("experiment_id", experiment), ("key", key))
        if verb.startswith("set"):
            fields = (*fields, ("value", text))
        self.pair.call(call("POST", f"{API}/experiments/{verb}", fields, damage))

    @rule(experiment=st.one_of(experiments, odd_runs), prefix=prefixes)
    def get_experiment(self, experiment: str, prefix: str) -> None:
        self.pair.call(
            Call("GET", f"{prefix}/experiments/get", query=(("experiment_id", experiment),))
        )

    @rule(name=st.one_of(st.sampled_from(("Default", "first-{n}", "odd-{n}")), short_texts))
    def get_experiment_by_name(self, name: str) -> None:
        name = name.replace("{n}", str(self.number))
        self.pair.call(
            Call("GET", f"{API}/experiments/get-by-name", query=(("experiment_name", name),))
        )

    @rule(
        condition=st.sampled_from(
            (
                "name LIKE 'first-%'",
                "name = 'Default'",
                "tags.loss = 'x'",
                "bad",
                "name ILIKE 'ODD%'",
            )
        ),
        view=st.sampled_from((1, 2, 3, "ACTIVE_ONLY", "ALL", "x", 9)),
        most=st.sampled_from((1, 2, 1000, 0, -1, 50_001, "2", 1.5)),
        order=st.sampled_from(([], ["name"], ["name DESC"], ["experiment_id"], ["bad"])),
    )
    def search_experiments(self, condition: str, view: Any, most: Any, order: list[str]) -> None:
        body = {"filter": condition, "view_type": view, "max_results": most, "order_by": order}
        self.pair.call(Call("POST", f"{API}/experiments/search", body))

    # -- runs: the hot route

    @rule(
        target=runs,
        experiment=experiments,
        name=run_names,
        tags=st.one_of(st.none(), pairs),
        user=st.one_of(st.none(), inputs.texts),
    )
    def create_run(
        self, experiment: str, name: str | None, tags: list[Any] | None, user: str | None
    ) -> Any:
        named = (("run_name", name), ("tags", tags), ("user_id", user))
        fields = tuple(pair for pair in named if pair[1] is not None)
        created = self._run(experiment, fields, None)
        return multiple() if created is None else created

    @rule(target=runs, tags=pairs, name=inputs.texts, damage=inputs.damages)
    def create_odd_run(self, tags: list[Any], name: str, damage: Damage) -> Any:
        created = self._run(self.odd_experiment, (("run_name", name), ("tags", tags)), damage)
        return multiple() if created is None else created

    @rule(experiment=odd_runs, name=inputs.texts)
    def create_run_nowhere(self, experiment: str, name: str) -> None:
        self._run(experiment, (("run_name", name),), None)

    @rule(
        run=st.one_of(runs, runs, runs, odd_runs),
        key=inputs.any_keys,
        number=inputs.numbers,
        moment=inputs.moments,
        step=st.one_of(st.none(), inputs.steps),
        prefix=prefixes,
        damage=inputs.rarely_damaged,
    )
    def log_metric(
        self,
        run: str,
        key: str,
        number: Any,
        moment: Any,
        step: Any,
        prefix: str,
        damage: Damage | None,
    ) -> None:
        fields: inputs.Fields = (
            ("run_id", run), ("key", key), ("value", number), ("timestamp", moment)
        )  # fmt: skip
        if step is not None:
            fields = (*fields, ("step", step))
        self.pair.call(call("POST", f"{prefix}/runs/log-metric", fields, damage))

    @rule(run=runs, key=inputs.keys, number=inputs.numbers, step=inputs.small_steps)
    def log_metric_plainly(self, run: str, key: str, number: Any, step: int) -> None:
        fields = (
            ("run_id", run), ("key", key), ("value", number), ("timestamp", 1_700_000_000_123),
            ("step", step),
        )  # fmt: skip
        self.pair.call(call("POST", f"{API}/runs/log-metric", fields))

    @rule(
        run=st.one_of(runs, runs, runs, odd_runs),
        metrics=metrics,
        params=pairs,
        tags=pairs,
        prefix=prefixes,
        damage=inputs.rarely_damaged,
    )
    def log_batch(
        self,
        run: str,
        metrics: list[Any],
        params: list[Any],
        tags: list[Any],
        prefix: str,
        damage: Damage | None,
    ) -> None:
        fields = (("run_id", run), ("metrics", metrics), ("params", params), ("tags", tags))
        self.pair.call(call("POST", f"{prefix}/runs/log-batch", fields, damage))

    @rule(
        run=runs,
        rows=st.lists(st.tuples(inputs.keys, inputs.numbers, inputs.small_steps), max_size=8),
        text=inputs.plain_texts,
    )
    def log_batch_plainly(self, run: str, rows: list[Any], text: str) -> None:
        moment = ("timestamp", 1_700_000_000_123)
        batch = [(("key", k), ("value", v), moment, ("step", s)) for k, v, s in rows]
        tags = [(("key", "batch"), ("value", text))]
        fields = (("run_id", run), ("metrics", batch), ("tags", tags))
        self.pair.call(call("POST", f"{API}/runs/log-batch", fields))

    @rule(
        run=runs,
        kind=st.sampled_from(("metrics", "params", "tags")),
        member=inputs.indexes,
        damage=inputs.damages,
    )
    def log_batch_with_a_spoiled_row(
        self, run: str, kind: str, member: int, damage: Damage
    ) -> None:
        good: inputs.Fields = (("key", f"row{member}"), ("value", "1"))
        if kind == "metrics":
            good = (("key", "row"), ("value", 1), ("timestamp", 5), ("step", member))
        spoiled = inputs.Literal(
            damage.apply("POST", "", good).text.encode("latin-1").decode(errors="replace")
        )
        fields = (("run_id", run), (kind, [good, spoiled]))
        self.pair.call(call("POST", f"{API}/runs/log-batch", fields))

    @rule(
        run=st.one_of(runs, runs, odd_runs),
        key=inputs.any_keys,
        text=inputs.texts,
        route=st.sampled_from(("log-parameter", "set-tag")),
        alias=st.sampled_from(("run_id", "run_id", "run_id", "run_uuid")),
        prefix=prefixes,
        damage=inputs.rarely_damaged,
    )
    def log_text(
        self,
        run: str,
        key: str,
        text: str,
        route: str,
        alias: str,
        prefix: str,
        damage: Damage | None,
    ) -> None:
        fields = ((alias, run), ("key", key), ("value", text))
        self.pair.call(call("POST", f"{prefix}/runs/{route}", fields, damage))

    @rule(run=st.one_of(runs, odd_runs), key=inputs.any_keys, damage=inputs.rarely_damaged)
    def delete_tag(self, run: str, key: str, damage: Damage | None) -> None:
        fields = (("run_id", run), ("key", key))
        self.pair.call(call("POST", f"{API}/runs/delete-tag", fields, damage))

    @rule(
        run=st.one_of(runs, runs, odd_runs),
        status=st.one_of(st.none(), statuses),
        end=st.one_of(st.none(), inputs.moments),
        name=run_names,
        alias=st.sampled_from(("run_id", "run_id", "run_uuid")),
        damage=inputs.rarely_damaged,
    )
    def update_run(
        self, run: str, status: Any, end: Any, name: Any, alias: str, damage: Damage | None
    ) -> None:
        wanted = ((alias, run), ("status", status), ("end_time", end), ("run_name", name))
        fields = tuple(pair for pair in wanted if pair[1] is not None)
        self.pair.call(call("POST", f"{API}/runs/update", fields, damage))

    @rule(
        run=st.one_of(runs, odd_runs),
        verb=st.sampled_from(("delete", "restore", "restore")),
        damage=inputs.rarely_damaged,
    )
    def end_run(self, run: str, verb: str, damage: Damage | None) -> None:
        self.pair.call(call("POST", f"{API}/runs/{verb}", (("run_id", run),), damage))

    # -- other writes that touch a run

    @rule(
        run=st.one_of(runs, odd_runs),
        name=inputs.texts,
        tag=inputs.texts,
        damage=inputs.rarely_damaged,
    )
    def log_inputs(self, run: str, name: str, tag: str, damage: Damage | None) -> None:
        dataset = (
            ("name", name), ("digest", "d1"), ("source_type", "local"), ("source", "{}"),
            ("schema", "[]"),
        )  # fmt: skip
        tags = [(("key", "mlflow.data.context"), ("value", tag))]
        rows = [(("tags", tags), ("dataset", dataset))]
        fields = (("run_id", run), ("datasets", rows))
        self.pair.call(call("POST", f"{API}/runs/log-inputs", fields, damage))

    @rule(run=st.one_of(runs, odd_runs), path=inputs.plain_texts, damage=inputs.rarely_damaged)
    def log_model(self, run: str, path: str, damage: Damage | None) -> None:
        model = {
            "artifact_path": path, "flavors": {"f": {}}, "run_id": "x", "model_uuid": "0" * 32,
            "utc_time_created": "2024-01-01 00:00:00.000000",
        }  # fmt: skip
        fields = (("run_id", run), ("model_json", json.dumps(model)))
        self.pair.call(call("POST", f"{API}/runs/log-model", fields, damage))

    # -- reading back

    @rule(run=st.one_of(runs, runs, odd_runs), prefix=prefixes)
    def get_run(self, run: str, prefix: str) -> None:
        self.pair.call(Call("GET", f"{prefix}/runs/get", query=(("run_id", run),)))

    @rule(
        run=st.one_of(runs, runs, odd_runs),
        key=inputs.any_keys,
        most=st.sampled_from((None, "1", "2", "0", "-1", "x", "100000000000000000000")),
        token=st.sampled_from((None, None, "x", "eyJvZmZzZXQiOiAxfQ==")),
    )
    def history(self, run: str, key: str, most: str | None, token: str | None) -> None:
        wanted = (
            ("run_id", run),
            ("metric_key", key),
            ("max_results", most),
            ("page_token", token),
        )
        query = tuple((name, text) for name, text in wanted if text is not None)
        self.pair.call(Call("GET", f"{API}/metrics/get-history", query=query))

    @rule(
        one=runs,
        other=st.one_of(runs, odd_runs),
        key=inputs.keys,
        first=st.sampled_from((None, "-2", "0", "x")),
        last=st.sampled_from((None, "3", "0")),
    )
    def histories(self, one: str, other: str, key: str, first: Any, last: Any) -> None:
        limits = (("start_step", first), ("end_step", last))
        limited = tuple((name, text) for name, text in limits if text is not None)
        ids = (("run_ids", one), ("run_ids", other), ("metric_key", key))
        self.pair.call(
            Call("GET", f"{API}/metrics/get-history-bulk-interval", query=ids + limited,
                 unordered=("metrics",))
        )  # fmt: skip
        ids = (("run_id", one), ("run_id", other), ("metric_key", key))
        self.pair.call(
            Call("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk", query=ids,
                 unordered=("metrics",))
        )  # fmt: skip

    @rule(
        experiment=st.one_of(experiments, experiments, odd_runs),
        condition=st.sampled_from(FILTERS),
        order=st.sampled_from(ORDERS),
        view=st.sampled_from(("ACTIVE_ONLY", "ALL", "DELETED_ONLY", "x", 3, None)),
        most=st.sampled_from((1, 2, 1000, 1000, 0, -1, 50_001, "x")),
        damage=inputs.rarely_damaged,
    )
    def search_runs(
        self,
        experiment: str,
        condition: str,
        order: Any,
        view: Any,
        most: Any,
        damage: Damage | None,
    ) -> None:
        fields = (
            ("experiment_ids", [experiment]), ("filter", condition), ("order_by", order),
            ("run_view_type", view), ("max_results", most),
        )  # fmt: skip
        self.pair.call(call("POST", f"{API}/runs/search", fields, damage))

    @rule(
        experiment=experiments,
        order=st.sampled_from(([], ["start_time DESC"], ["attributes.start_time DESC"])),
        view=st.sampled_from(("ACTIVE_ONLY", "ALL", "DELETED_ONLY")),
        most=st.sampled_from((1, 2, 1000)),
        prefix=prefixes,
    )
    def search_runs_plainly(
        self, experiment: str, order: list[str], view: str, most: int, prefix: str
    ) -> None:
        fields = (
            ("experiment_ids", [experiment]), ("filter", ""), ("order_by", order),
            ("run_view_type", view), ("max_results", most),
        )  # fmt: skip
        self.pair.call(call("POST", f"{prefix}/runs/search", fields))

    @rule(run=st.one_of(runs, odd_runs.filter(lambda text: text.isalnum())), experiment=experiments)
    def graphql(self, run: str, experiment: str) -> None:
        for body in (GRAPHQL % experiment, GRAPHQL_RUN % run):
            self.pair.call(Call("POST", "/graphql", body))

    def teardown(self) -> None:
        """Read everything back: a wrong row that no answer showed is found here."""
        for run in self.made:
            self.pair.call(Call("GET", f"{API}/runs/get", query=(("run_id", run),)))
            for key in (*inputs.KEYS, "row", "🚀", "é"):
                query = (("run_id", run), ("metric_key", key))
                self.pair.call(Call("GET", f"{API}/metrics/get-history", query=query))
