"""The fleet under measurement: the overlay `test`, in it a cell and tenants of the run's own."""

import base64
import dataclasses
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from cluster_bench.kube import BenchError, Cluster, Document
from mlfleet.cluster import cells

NAMESPACE = "mlfleet"
OVERLAY = Path(__file__).resolve().parents[2] / "knative" / "overlays" / "test"
LABEL = "mlfleet.dev/bench"
ANSWER_S = 60.0


@dataclasses.dataclass(frozen=True)
class Target:
    """Something that answers MLflow's API: a tenant, or a stock server without a token."""

    url: str
    token: str | None = None

    def first_write(self) -> float:
        """Send `runs/create` once, on a new connection; return the seconds until its answer.

        Raises:
            BenchError: the answer is not the run.
        """
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        path, body = "api/2.0/mlflow/runs/create", {"experiment_id": "0"}
        begun = time.monotonic()
        try:
            answer = requests.post(
                f"{self.url}/{path}", json=body, headers=headers, timeout=ANSWER_S
            )
        except requests.RequestException as exc:
            raise BenchError(f"{self.url}: {exc}") from None
        took_s = time.monotonic() - begun
        if answer.status_code != 200 or "run" not in answer.json():
            raise BenchError(
                f"{self.url}/{path} answered {answer.status_code}: {answer.text[:200]}"
            )
        return took_s


def write_all(targets: Sequence[Target], at_once: int = 4) -> None:
    """Send each a first write, untimed: databases and schemas are made."""
    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(Target.first_write, targets))


def ensure(cluster: Cluster) -> None:
    """Apply the overlay `test` unless it is there, and wait for its parts."""
    if not _is_applied(cluster):
        render = cluster.kubectl("kustomize", str(OVERLAY))
        cluster.until("the overlay is accepted", lambda: _accepted(cluster, render), 60)
    cluster.until("cell-0 is ready", lambda: cluster.service_is_ready(NAMESPACE, cells.FIRST), 240)
    cluster.until("the operator runs", lambda: _available(cluster, "operator"), 120)


def _is_applied(cluster: Cluster) -> bool:
    if not cluster.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"):
        return False
    return cluster.exists(NAMESPACE, f"ksvc/{cells.FIRST}")


def _accepted(cluster: Cluster, render: str) -> bool:
    """Apply a render; False if a webhook of Knative's is not up yet."""
    try:
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=render)
    except BenchError as exc:
        if "webhook" in str(exc):
            return False
        raise
    return True


def _available(cluster: Cluster, deployment: str) -> bool:
    status = cluster.get("-n", NAMESPACE, f"deployment/{deployment}").get("status", {})
    return bool(status.get("availableReplicas", 0))


def cell(cluster: Cluster, name: str, max_awake: int, window: str) -> Document:
    """Return a cell as `mlfleet --cluster cell add` makes it, of one replica, with this window.

    Applied past that command, whose connection budget counts what cell-0 may open: here it sleeps.
    """
    first = cluster.get("-n", NAMESPACE, f"ksvc/{cells.FIRST}")
    derived = cells.derived(first, name, max_awake=max_awake, max_replicas=1)
    derived["metadata"] |= {"namespace": NAMESPACE}
    derived["metadata"]["labels"] |= {LABEL: "true"}
    annotations = derived["spec"]["template"]["metadata"]["annotations"]
    annotations["autoscaling.knative.dev/window"] = window
    return {"apiVersion": "serving.knative.dev/v1", **derived}


def make_tenants(cluster: Cluster, prefix: str, cell_name: str, count: int) -> list[Target]:
    """Make tenants of a cell and return how to reach them."""
    names = [f"{prefix}-{number:02d}" for number in range(count)]
    metadata = {"namespace": NAMESPACE, "labels": {LABEL: "true"}}
    tenants = [
        {
            "apiVersion": "mlfleet.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": {"name": name, **metadata},
            "spec": {"cell": cell_name},
        }
        for name in names
    ]
    cluster.apply(*tenants)
    found = cluster.until("tenants have their tokens", lambda: _access(cluster, names), 120)
    return [found[name] for name in names]


def _access(cluster: Cluster, names: Sequence[str]) -> dict[str, Target] | None:
    secrets = cluster.get("-n", NAMESPACE, "secrets")["items"]
    found = {one["metadata"]["name"]: one["data"] for one in secrets}
    if any(f"{name}-mlflow" not in found for name in names):
        return None
    return {name: _target(found[f"{name}-mlflow"]) for name in names}


def _target(data: dict[str, str]) -> Target:
    url, token = (
        base64.b64decode(data[f"MLFLOW_TRACKING_{key}"]).decode() for key in ("URI", "TOKEN")
    )
    return Target(url, token)


def awake(cell_url: str) -> int:
    """Return how many tenants a cell has awake, by its metrics."""
    lines = requests.get(f"{cell_url}/metrics", timeout=60).text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("mlfleet_awake "))))


def stamps(cluster: Cluster, pod: str) -> dict[str, str]:
    """Return when each kind of event first stands in a cell's log."""
    found: dict[str, str] = {}
    log = cluster.kubectl("-n", NAMESPACE, "logs", pod, "-c", cells.CONTAINER)
    for line in log.splitlines():
        if line.startswith("{"):
            record = json.loads(line)
            found.setdefault(record["event"], record["time"])
    return found
