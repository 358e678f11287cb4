"""A fleet on a real Kubernetes with real Knative, found through KUBECONFIG; without it nothing here
is collected. The overlay `test` is applied once; each test has tenants of its own.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
NAMESPACE = "mlfleet"
CELL = "serving.knative.dev/service=cell-0"

CALLING = {"new_tenant", "written", "load", "front", "other_cell", "pooled", "locust"}
"""Fixtures of tests that call cell-0, or may."""

if not os.environ.get("KUBECONFIG"):
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that leave cell-0 alone before those that need it at zero: no time is lost."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    fixtures = set(getattr(item, "fixturenames", ()))
    if "cell_at_zero" in fixtures:
        return 2 if "written" in fixtures else 4
    if "broken" in fixtures:
        return 1
    return 0 if fixtures & CALLING else 3


def kubectl(*arguments: object, stdin: str | None = None, check: bool = True) -> str:
    """Run kubectl in the fleet's namespace and return what it printed."""
    command = [str(BIN / "kubectl"), "--namespace", NAMESPACE, *map(str, arguments)]
    run = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if check and run.returncode:
        raise AssertionError(f"kubectl {' '.join(command[3:])}\n{run.stderr}")
    return run.stdout if run.returncode == 0 else run.stderr


def get(*arguments: object) -> Any:
    """Return objects as documents."""
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def until(what: str, is_so: Callable[[], Any], wait_s: float = 120) -> Any:
    """Wait for a condition and return its (true) value."""
    deadline = time.monotonic() + wait_s
    while True:
        if value := is_so():
            return value
        if time.monotonic() > deadline:
            pods = kubectl("get", "pods", check=False)
            events = kubectl("get", "events", "--sort-by=.lastTimestamp", check=False)
            raise AssertionError(f"not within {wait_s} s: {what}\n{pods}\n{events[-3000:]}")
        time.sleep(0.25)


def mlfleet(*arguments: str, check: bool = True) -> Any:
    """Run `mlfleet --cluster … --json` and return its document, or the error line."""
    command = [str(BIN / "mlfleet"), "--cluster", *arguments, "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    if check:
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)
    return run.stderr if run.stderr else json.loads(run.stdout)


def cell_pods() -> list[Any]:
    """Return the pods of cell-0 that are not on their way out."""
    pods = get("pods", "-l", CELL)["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def serving() -> list[Any]:
    """Return the pods of cell-0's latest revision that are ready."""
    latest = get("ksvc/cell-0")["status"]["latestReadyRevisionName"]
    return [
        pod
        for pod in cell_pods()
        if pod["metadata"]["labels"]["serving.knative.dev/revision"] == latest
        and all(s["ready"] for s in pod["status"].get("containerStatuses", [{"ready": False}]))
    ]


def metric(address: str, name: str) -> float:
    """Return a number of those that a gateway shows to a scrape."""
    lines = requests.get(f"{address}/metrics", timeout=60).text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def wait_for_zero(wait_s: float = 240) -> None:
    """Wait until cell-0 has no pod that serves."""
    until("the cell is at zero", lambda: not cell_pods(), wait_s)


def sql(statement: str, database: str = "postgres") -> list[str]:
    """Return the rows of a query, asked inside Postgres' own pod."""
    uri = get("secret", "mlfleet-postgres")["data"]["password"]
    password = __import__("base64").b64decode(uri).decode()
    command = [
        "exec", "postgres-0", "-c", "postgres", "--", "env", f"PGPASSWORD={password}",
        "psql", "-h", "127.0.0.1", "-U", "postgres", "-d", database, "-Atc", statement,
    ]  # fmt: skip
    return kubectl(*command).split()


@dataclasses.dataclass(frozen=True)
class Tenant:
    """A tenant made for a test, and how to call it without MLflow's own client."""

    name: str
    url: str
    token: str

    def client(self) -> "MlflowClient":  # noqa: F821
        """Return a stock client; the token is taken from the environment at each of its calls."""
        from mlflow import MlflowClient

        os.environ["MLFLOW_TRACKING_TOKEN"] = self.token
        return MlflowClient(self.url)

    def call(self, method: str, path: str, wait_s: float = 120, **body: Any) -> requests.Response:
        """Send one request, once: nothing is retried."""
        return requests.request(
            method,
            f"{self.url}/api/2.0/mlflow/{path}",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=wait_s,
            **({"json": body} if method != "GET" else {"params": body}),
        )

    def create_run(self) -> str:
        """Return a new run's id; one request, whose answer must be the run."""
        answer = self.call("POST", "runs/create", experiment_id="0", start_time=1)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["run"]["info"]["run_id"])

    def create_run_patiently(self, wait_s: float = 240) -> str:
        """Return a new run's id; as a stock client, asks again after 429; after nothing else."""
        deadline = time.monotonic() + wait_s
        while True:
            answer = self.call("POST", "runs/create", experiment_id="0", start_time=1)
            if answer.status_code != 429 or time.monotonic() > deadline:
                assert answer.status_code == 200, answer.text
                return str(answer.json()["run"]["info"]["run_id"])
            time.sleep(float(answer.headers["Retry-After"]))


@dataclasses.dataclass
class Load:
    """Writers with MLflow's stock client, and what was acknowledged to them."""

    acknowledged: dict[str, list[int]]
    errors: list[str]


@pytest.fixture(scope="session")
def fleet() -> str:
    """Apply the overlay and return the address of cell-0."""
    render = kubectl("kustomize", ROOT / "knative" / "overlays" / "test")
    kubectl("apply", "--server-side", "-f", "-", stdin=render)
    kubectl("wait", "--for=condition=Established", "crd/tenants.mlfleet.dev", "--timeout=60s")
    until(
        "the cell is ready",
        lambda: "True" in conditions("ksvc/cell-0").values() and url_of("cell-0"),
        300,
    )
    kubectl("rollout", "status", "deployment/operator", "--timeout=180s")
    address = url_of("cell-0")
    until("the ingress knows the cell", lambda: requests.get(f"{address}/healthz").ok, 60)
    return address


def conditions(name: str) -> dict[str, str]:
    """Return an object's conditions by type, only Ready."""
    found = get(name).get("status", {}).get("conditions", [])
    return {one["type"]: one["status"] for one in found if one["type"] == "Ready"}


def url_of(cell: str) -> str:
    """Return a cell's address, or nothing while it has none."""
    return str(get(f"ksvc/{cell}").get("status", {}).get("url", ""))


@pytest.fixture
def new_tenant(fleet: str) -> Iterator[Callable[..., Tenant]]:
    """Make tenants by `mlfleet --cluster tenant create`; they go after the test."""
    made: list[str] = []

    def create(*options: str) -> Tenant:
        name = f"t-{uuid.uuid4().hex[:10]}"
        made.append(name)
        row = mlfleet("tenant", "create", name, *options)
        assert row["created"] is True
        return Tenant(name, row["url"], row["token"])

    yield create
    for name in made:
        kubectl("delete", "tenant", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def cell_at_zero(fleet: str) -> None:
    """Wait until cell-0 has no pod."""
    wait_for_zero()


@pytest.fixture(scope="session")
def written(fleet: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tenant, str]]:
    """Write a run with a stock client early in the session; return the tenant and the run."""
    row = mlfleet("tenant", "create", f"t-{uuid.uuid4().hex[:10]}")
    tenant = Tenant(row["name"], row["url"], row["token"])
    client = tenant.client()
    run = client.create_run("0").info.run_id
    note = tmp_path_factory.mktemp("written") / "note.txt"
    note.write_text("remember")
    client.log_artifact(run, str(note))
    client.log_param(run, "depth", "3")
    client.create_registered_model("m")
    yield tenant, run
    kubectl("delete", "tenant", tenant.name, "--wait=false")


@pytest.fixture(scope="session")
def hundred_tenants(fleet: str) -> Iterator[list[Tenant]]:
    """Make tenants that nobody has called yet. They go last: the operator has a minute's work."""
    series = f"storm-{uuid.uuid4().hex[:6]}"
    names = [f"{series}-{number:03d}" for number in range(100)]
    rows = mlfleet("tenant", "create", *names)
    yield [Tenant(row["name"], row["url"], row["token"]) for row in rows]
    kubectl("delete", "tenant", *names, "--wait=false")


@pytest.fixture
def load(fleet: str) -> Callable[..., "contextlib.AbstractContextManager[Load]"]:
    """Write with stock clients from several threads for as long as a context lasts."""

    @contextlib.contextmanager
    def writing(tenant: Tenant, writers: int = 4) -> Iterator[Load]:
        result = Load({}, [])
        stop: list[bool] = []

        def write(number: int) -> None:
            client = tenant.client()
            run = client.create_run("0").info.run_id
            done = result.acknowledged.setdefault(run, [])
            step = 0
            while not stop:
                try:
                    client.log_metric(run, "m", float(step), step=step, timestamp=step)
                except Exception as exc:
                    result.errors.append(f"writer {number}: {exc}")
                    return
                done.append(step)
                step += 1

        with ThreadPoolExecutor(writers) as threads:
            futures = [threads.submit(write, number) for number in range(writers)]
            until("each writer has begun", lambda: len(result.acknowledged) == writers)
            try:
                yield result
            finally:
                stop.append(True)
                for future in futures:
                    future.result(timeout=300)

    return writing


def assert_nothing_missing(tenant: Tenant, load: Load) -> None:
    """Compare what was acknowledged with what the tenant's database holds."""
    assert load.errors == []
    [database] = sql(
        f"SELECT 'mlfleet_t' || id FROM tenants WHERE name = '{tenant.name}'", "mlfleet_catalogue"
    )
    total = 0
    for run, steps in load.acknowledged.items():
        rows = sql(f"SELECT step FROM metrics WHERE run_uuid = '{run}'", database)
        missing = set(steps) - set(map(int, rows))
        assert not missing, f"{len(missing)} acknowledged rows of run {run} are missing"
        total += len(steps)
    assert total > 20, "the load was too small to say anything"
