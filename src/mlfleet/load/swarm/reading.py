"""Users who look and who publish: a dashboard left open, the model registry."""

from typing import Any, ClassVar
from urllib.parse import quote

import orjson

from mlfleet.load.entries import AliasSet, ModelCreate, VersionCreate
from mlfleet.load.swarm.run_writer import RunWriter
from mlfleet.load.swarm.user import API, LoadUser
from mlfleet.load.swarm.wire import Answer

UI = "/ajax-api/2.0/mlflow"
_PAIR = "{ key value }"
_GET_RUN = f"""query GetRun($data: MlflowGetRunInput!) {{
  mlflowGetRun(input: $data) {{
    apiError {{ helpUrl code message }}
    run {{
      info {{ runName status runUuid experimentId artifactUri endTime lifecycleStage startTime
        userId }}
      experiment {{ experimentId name tags {_PAIR} artifactLocation lifecycleStage
        lastUpdateTime }}
      modelVersions {{ status version name source }}
      data {{ metrics {{ key value step timestamp }} params {_PAIR} tags {_PAIR} }}
      inputs {{ datasetInputs {{ dataset {{ digest name profile schema source sourceType }}
        tags {_PAIR} }} modelInputs {{ modelId }} }}
      outputs {{ modelOutputs {{ modelId step }} }}
    }}
  }}
}}"""
"""What MLflow 3.17.2's own page asks for when a run is opened."""


class Dashboard(LoadUser):
    """A person in the UI: the experiments, the newest runs, one of them with its charts."""

    key: ClassVar[str] = "dashboard"

    def session(self) -> None:
        """Look around once, with the calls of the stock UI."""
        answer = self.paced(
            "ui experiments/search", "GET", f"{UI}/experiments/search?max_results=25"
        )
        experiments = orjson.loads(answer.body).get("experiments", [])
        if not experiments:
            return
        picked = self.draw.choice(experiments)["experiment_id"]
        runs = self._newest_runs(picked)
        if runs:
            self._open(self.draw.choice(runs))
        self.paced("ui registered-models/search", "GET", f"{UI}/registered-models/search")

    def _newest_runs(self, experiment_id: str) -> list[dict[str, Any]]:
        body = {
            "experiment_ids": [experiment_id],
            "filter": "",
            "run_view_type": "ACTIVE_ONLY",
            "max_results": 100,
            "order_by": ["attributes.start_time DESC"],
        }
        answer = self.paced("ui runs/search", "POST", f"{UI}/runs/search", body)
        runs: list[dict[str, Any]] = orjson.loads(answer.body).get("runs", [])
        return runs

    def _open(self, run: dict[str, Any]) -> None:
        run_id = run["info"]["run_id"]
        body = {
            "operationName": "GetRun",
            "query": _GET_RUN,
            "variables": {"data": {"runId": run_id}},
        }
        self.paced("ui graphql GetRun", "POST", "/graphql", body)
        for metric in run["data"].get("metrics", [])[:4]:
            self.chained(
                "ui metrics/get-history-bulk-interval", "GET",
                f"{UI}/metrics/get-history-bulk-interval?max_results=320"
                f"&metric_key={quote(metric['key'])}&run_ids={run_id}",
            )  # fmt: skip
        self.chained("ui artifacts/list", "GET", f"{UI}/artifacts/list?run_id={run_id}")


class Registry(LoadUser):
    """Trains a little, registers what came of it, moves the alias, loads by alias."""

    key: ClassVar[str] = "registry"
    _model = ""

    def session(self) -> None:
        """Publish one version and load it again."""
        tenant = self.target.tenant
        if not self._model.endswith(f"-{tenant}"):
            self._create_model(tenant)
        run = RunWriter(self, self.experiment())
        run.put("model/MLmodel", 900, paced=False)
        run.finish()
        source = f"{run.artifact_uri}/model"
        version = self._create_version(tenant, run, source)
        self._set_alias(tenant, version)
        self._load(run)

    def _create_model(self, tenant: str) -> None:
        self._model = f"{self.run_of_load.load}-model-{self.number}-{tenant}"
        self.paced(
            "registered-models/create", "POST", f"{API}/registered-models/create",
            {"name": self._model}, entry=ModelCreate(tenant, self._model),
        )  # fmt: skip

    def _create_version(self, tenant: str, run: RunWriter, source: str) -> str:
        body = {"name": self._model, "source": source, "run_id": run.run_id}
        answer = self.paced(
            "model-versions/create", "POST", f"{API}/model-versions/create", body,
            entry=VersionCreate(tenant, self._model, run.run_id, source), made=_version_of,
        )  # fmt: skip
        return _version_of(answer)

    def _set_alias(self, tenant: str, version: str) -> None:
        body = {"name": self._model, "alias": "champion", "version": version}
        self.chained(
            "registered-models/alias POST", "POST", f"{API}/registered-models/alias", body,
            entry=AliasSet(tenant, self._model, "champion", version),
        )  # fmt: skip

    def _load(self, run: RunWriter) -> None:
        """Load `models:/NAME@champion`, as `mlflow.artifacts.download_artifacts` does."""
        name = quote(self._model)
        answer = self.paced(
            "registered-models/alias GET", "GET",
            f"{API}/registered-models/alias?name={name}&alias=champion",
        )  # fmt: skip
        version = orjson.loads(answer.body)["model_version"]["version"]
        self.chained(
            "model-versions/get-download-uri", "GET",
            f"{API}/model-versions/get-download-uri?name={name}&version={version}",
        )  # fmt: skip
        root = run.artifact_uri.removeprefix("mlflow-artifacts:/").lstrip("/")
        proxy = "/api/2.0/mlflow-artifacts/artifacts"
        self.chained("artifacts list", "GET", f"{proxy}?path={quote(root, safe='')}%2Fmodel")
        self.chained("artifacts GET", "GET", f"{proxy}/{root}/model/MLmodel")


def _version_of(answer: Answer) -> str:
    """Return the number in the answer to `model-versions/create`."""
    return str(orjson.loads(answer.body)["model_version"]["version"])
