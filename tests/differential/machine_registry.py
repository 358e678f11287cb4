"""Rules over the model registry: models, versions, stages, aliases, tags, prompts, webhooks."""

import itertools
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from tests.differential import inputs
from tests.differential.inputs import Damage, call
from tests.differential.pair import NUMBERS, Pair
from tests.differential.side import Call

API = "/api/2.0/mlflow"
ODD_NAMES = ("", "a/b", "a:b", "x" * 300, "\u0000", "🚀", "..", " ", "n\n")

odd_names = st.sampled_from(ODD_NAMES)
versions = st.sampled_from(("1", "1", "2", "3", "99", "0", "-1", "x", "1.0", "", 1, 2**63))
aliases = st.sampled_from(
    ("champion", "Champion", "v1", "latest", "", "a b", "λ", "x" * 256, "a/b")
)
stages = st.sampled_from(("Staging", "Production", "Archived", "None", "staging", "x", "", None))
SOURCES = (
    "mlflow-artifacts:/m", "models:/m/1", "/tmp/m", "file:///tmp/m", "s3://bucket/m", "",
    "mlflow-artifacts:/../x", "http://example.com/m", "runs:/x/m", "dbfs:/m",
)  # fmt: skip
CONDITIONS = (
    "", "name LIKE 'model-%'", "name ILIKE 'MODEL-%'", "tags.loss = 'x'", "tags.`λ` != ''",
    "version_number > 1", "run_id = 'x'", "run_id IN ('a', 'b')", "source_path = '/tmp/m'",
    "bad = 1", "name", "name = x", "prompts = 'x'", "tags.`mlflow.prompt.is_prompt` = 'true'",
    "aliases = 'v1'",
)  # fmt: skip


class Registry(RuleBasedStateMachine):
    """Registered models and their versions."""

    pair: Pair

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.number = next(NUMBERS)
        self.count = itertools.count(1)

    def _name(self, kind: str) -> str:
        return f"{kind}-{self.number}-{next(self.count)}"

    @initialize(target=names, prompt=st.none())
    def first_models(self, prompt: None) -> Any:
        made = [self._name("model"), self._name("model"), self._name("prompt")]
        for name in made:
            fields: inputs.Fields = (("name", name),)
            if name.startswith("prompt"):
                tag = (("key", "mlflow.prompt.is_prompt"), ("value", "true"))
                fields = (*fields, ("tags", [tag]))
            self.pair.call(call("POST", f"{API}/registered-models/create", fields))
        return multiple(*made)

    @rule(
        target=names,
        odd=st.one_of(st.none(), st.none(), odd_names),
        tags=st.lists(st.tuples(inputs.any_keys, inputs.texts), max_size=3),
        text=st.one_of(st.none(), inputs.texts),
        damage=inputs.rarely_damaged,
    )
    def create_model(
        self, odd: str | None, tags: list[Any], text: str | None, damage: Damage | None
    ) -> Any:
        name = self._name("model") if odd is None else odd
        rows = [(("key", key), ("value", value)) for key, value in tags]
        fields: inputs.Fields = (("name", name), ("tags", rows))
        if text is not None:
            fields = (*fields, ("description", text))
        answer = self.pair.call(call("POST", f"{API}/registered-models/create", fields, damage))
        return name if answer.status == 200 else multiple()

    @rule(name=names)
    def create_model_again(self, name: str) -> None:
        self.pair.call(Call("POST", f"{API}/registered-models/create", {"name": name}))

    @rule(target=names, name=st.one_of(names, odd_names), odd=st.one_of(st.none(), odd_names))
    def rename_model(self, name: str, odd: str | None) -> Any:
        new = self._name("model") if odd is None else odd
        body = {"name": name, "new_name": new}
        answer = self.pair.call(Call("POST", f"{API}/registered-models/rename", body))
        return new if answer.status == 200 else multiple()

    @rule(name=st.one_of(names, odd_names), text=inputs.texts, damage=inputs.rarely_damaged)
    def describe_model(self, name: str, text: str, damage: Damage | None) -> None:
        fields = (("name", name), ("description", text))
        self.pair.call(call("PATCH", f"{API}/registered-models/update", fields, damage))

    @rule(name=st.one_of(names, odd_names))
    def delete_model(self, name: str) -> None:
        # One in nine: a state without models is a poor one.
        if self.number % 3 == 0:
            self.pair.call(Call("DELETE", f"{API}/registered-models/delete", {"name": name}))

    @rule(
        name=st.one_of(names, names, odd_names),
        source=st.sampled_from(SOURCES),
        text=st.one_of(st.none(), inputs.texts),
        is_prompt=st.booleans(),
        damage=inputs.rarely_damaged,
    )
    def create_version(
        self, name: str, source: str, text: str | None, is_prompt: bool, damage: Damage | None
    ) -> None:
        fields: inputs.Fields = (("name", name), ("source", source))
        if text is not None:
            fields = (*fields, ("description", text))
        if is_prompt:
            keys = (("mlflow.prompt.is_prompt", "true"), ("mlflow.prompt.text", text or "Hi {{x}}"))
            rows = [(("key", key), ("value", value)) for key, value in keys]
            fields = (*fields, ("tags", rows))
        self.pair.call(call("POST", f"{API}/model-versions/create", fields, damage))

    @rule(name=names, version=versions, stage=stages, archive=st.sampled_from((True, False, "x")))
    def transition(self, name: str, version: Any, stage: Any, archive: Any) -> None:
        body = {
            "name": name, "version": version, "stage": stage, "archive_existing_versions": archive
        }  # fmt: skip
        self.pair.call(Call("POST", f"{API}/model-versions/transition-stage", body))

    @rule(
        name=st.one_of(names, odd_names),
        version=versions,
        text=inputs.texts,
        verb=st.sampled_from(("update", "delete")),
        damage=inputs.rarely_damaged,
    )
    def change_version(
        self, name: str, version: Any, text: str, verb: str, damage: Damage | None
    ) -> None:
        fields: inputs.Fields = (("name", name), ("version", version))
        if verb == "update":
            fields = (*fields, ("description", text))
        method = "PATCH" if verb == "update" else "DELETE"
        self.pair.call(call(method, f"{API}/model-versions/{verb}", fields, damage))

    @rule(
        name=st.one_of(names, odd_names),
        version=st.one_of(st.none(), versions),
        key=inputs.any_keys,
        text=inputs.texts,
        verb=st.sampled_from(("set-tag", "set-tag", "delete-tag")),
        damage=inputs.rarely_damaged,
    )
    def tag(
        self, name: str, version: Any, key: str, text: str, verb: str, damage: Damage | None
    ) -> None:
        fields: inputs.Fields = (("name", name), ("key", key))
        if version is not None:
            fields = (*fields, ("version", version))
        if verb == "set-tag":
            fields = (*fields, ("value", text))
        kind = "registered-models" if version is None else "model-versions"
        method = "POST" if verb == "set-tag" else "DELETE"
        self.pair.call(call(method, f"{API}/{kind}/{verb}", fields, damage))

    @rule(
        name=st.one_of(names, odd_names),
        alias=aliases,
        version=versions,
        verb=st.sampled_from(("POST", "POST", "GET", "DELETE")),
        damage=inputs.rarely_damaged,
    )
    def alias(self, name: str, alias: str, version: Any, verb: str, damage: Damage | None) -> None:
        path = f"{API}/registered-models/alias"
        if verb == "GET":
            self.pair.call(Call("GET", path, query=(("name", name), ("alias", alias))))
            return
        fields: inputs.Fields = (("name", name), ("alias", alias))
        if verb == "POST":
            fields = (*fields, ("version", version))
        self.pair.call(call(verb, path, fields, damage))

    @rule(name=st.one_of(names, odd_names), version=versions)
    def read(self, name: str, version: Any) -> None:
        query = (("name", name), ("version", str(version)))
        self.pair.call(Call("GET", f"{API}/registered-models/get", query=query[:1]))
        self.pair.call(Call("GET", f"{API}/model-versions/get", query=query))
        self.pair.call(Call("GET", f"{API}/model-versions/get-download-uri", query=query))

    @rule(name=names, wanted=st.lists(stages.filter(lambda stage: stage is not None), max_size=2))
    def latest_versions(self, name: str, wanted: list[str]) -> None:
        body = {"name": name, "stages": wanted}
        path = f"{API}/registered-models/get-latest-versions"
        self.pair.call(Call("POST", path, body, unordered=("model_versions",)))

    @rule(
        condition=st.sampled_from(CONDITIONS),
        most=st.sampled_from(("1", "2", "0", "-1", "x", "1000000")),
        order=st.sampled_from(("name", "name DESC", "bad", "")),
        kind=st.sampled_from(("registered-models", "model-versions")),
    )
    def search(self, condition: str, most: str, order: str, kind: str) -> None:
        query = (("filter", condition), ("max_results", most), ("order_by", order))
        self.pair.call(Call("GET", f"{API}/{kind}/search", query=query))

    @rule(
        name=inputs.texts,
        url=st.sampled_from(("https://example.com/x", "http://example.com", "x", "", "https://")),
        event=st.sampled_from(("CREATED", "UPDATED", "DELETED", "X")),
        damage=inputs.rarely_damaged,
    )
    def webhook(self, name: str, url: str, event: str, damage: Damage | None) -> None:
        events = [(("entity", "REGISTERED_MODEL"), ("action", event))]
        fields = (("name", name), ("url", url), ("events", events), ("status", "DISABLED"))
        # Resolving a host name depends on the network, so no name that could resolve is enabled.
        made = self.pair.learn(
            "webhook",
            call("POST", f"{API}/webhooks", fields, damage),
            lambda body: body["webhook"]["webhook_id"],
        )
        if made is not None:
            self.pair.call(Call("GET", f"{API}/webhooks/{made}"))
            self.pair.call(Call("PATCH", f"{API}/webhooks/{made}", {"description": name}))
            self.pair.call(Call("DELETE", f"{API}/webhooks/{made}"))
            self.pair.call(Call("GET", f"{API}/webhooks/{made}"))
