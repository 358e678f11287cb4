"""`mlfleet --cluster doctor` where something is missing: one line says what, and how to mend it.

The cluster is a small server that keeps documents; live/test_bad_input.py asks a real one.
"""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlfleet.cluster import checks, pods
from mlfleet.cluster.api import Api

from .shelf_server import Documents, serving
from .test_cells import first

MLFLEET = Path(sys.executable).with_name("mlfleet")
NAMESPACE = "/api/v1/namespaces/mlfleet"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def ready(is_so: bool) -> list[Any]:
    return [{"type": "Ready", "status": str(is_so)}]


def healthy() -> Documents:
    """Return a cluster on which doctor finds nothing."""
    cell = first()
    cell["status"] = {"url": "http://c", "conditions": ready(True)}
    return {
        "/version": {"gitVersion": "v1.36.3"},
        f"{DEFINITIONS}/services.serving.knative.dev": {},
        f"{DEFINITIONS}/tenants.mlfleet.dev": {},
        "/api/v1/namespaces/knative-serving/configmaps/config-features": {
            "data": dict.fromkeys(checks.FLAGS, "enabled")
        },
        "/apis/storage.k8s.io/v1/storageclasses": [{"metadata": {"name": "mlfleet-shared"}}],
        "/apis/storage.k8s.io/v1/storageclasses/mlfleet-shared": {"provisioner": "nfs"},
        f"{NAMESPACE}/persistentvolumeclaims": [claim("Bound")],
        f"{NAMESPACE}/persistentvolumeclaims/mlfleet-artifacts": claim("Bound"),
        f"{NAMESPACE}/secrets/mlfleet-fleet": {},
        f"{NAMESPACE}/secrets/mlfleet-postgres": {},
        "/apis/batch/v1/namespaces/mlfleet/jobs": [],
        "/apis/serving.knative.dev/v1/namespaces/mlfleet/services": [cell],
        f"{NAMESPACE}/pods": [],
        f"{NAMESPACE}/events": [],
        f"{NAMESPACE}/configmaps/mlfleet-settings": {"data": {"max-connections": "200"}},
    }


def claim(phase: str, wanted: str = "mlfleet-shared") -> Any:
    return {
        "metadata": {"name": "mlfleet-artifacts", "uid": "u"},
        "spec": {"storageClassName": wanted, "accessModes": ["ReadWriteMany"]},
        "status": {"phase": phase},
    }


def pod(name: str, container: str, age_s: float = 300, **status: Any) -> Any:
    born = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_s)
    state = {"name": container, "ready": False, "state": {"running": {}}, **status}
    return {
        "metadata": {"name": name, "creationTimestamp": born.strftime("%Y-%m-%dT%H:%M:%SZ")},
        "status": {"phase": "Running", "conditions": ready(False), "containerStatuses": [state]},
    }


def run(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(config)}
    return subprocess.run(
        [MLFLEET, "--cluster", *arguments], env=environment, capture_output=True, text=True
    )


def problems(documents: Documents, folder: Path) -> list[str]:
    """Return what doctor calls a problem, each as "check: message"."""
    with serving(documents, folder) as config, pytest.MonkeyPatch.context() as patch:
        patch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config))
        found = list(checks.examine(Api()))
    bad = [f"{one.check}: {one.message}" for one in found if one.verdict == "problem"]
    assert not [text for text in bad if "\n" in text]
    return bad


def test_the_command_shows_what_was_found_and_fails_if_something_is_missing(
    tmp_path: Path,
) -> None:
    documents = healthy()
    with serving(documents, tmp_path) as config:
        fine = run(config, "doctor", "--json")
        assert (fine.returncode, fine.stderr) == (0, "")
        assert json.loads(fine.stdout)["problems"] == 0
        del documents[f"{NAMESPACE}/secrets/mlfleet-fleet"]
        missing = run(config, "doctor")
    assert (missing.returncode, missing.stderr) == (1, "")
    assert "problem  secrets    no Secret mlfleet-fleet" in missing.stdout
    assert missing.stdout.endswith("\n1 problem\n")


def test_a_healthy_fleet_has_no_problem(tmp_path: Path) -> None:
    assert problems(healthy(), tmp_path) == []


def test_a_cluster_without_knative_is_one_line(tmp_path: Path) -> None:
    documents = {"/version": {"gitVersion": "v1.36.3"}, f"{DEFINITIONS}/other": {}}
    [said] = problems(documents, tmp_path)
    assert said.startswith("knative: Knative Serving is not installed")
    with serving(documents, tmp_path) as config:
        for command in (["cell", "list"], ["tenant", "list"], ["tenant", "create", "team-a"]):
            refused = run(config, *command)
            assert refused.returncode == 1
            assert refused.stderr.count("\n") == 1, refused.stderr
            assert "this cluster does not know" in refused.stderr
            assert "`mlfleet --cluster doctor`" in refused.stderr


def test_a_claim_of_a_class_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    documents = healthy()
    documents[f"{NAMESPACE}/persistentvolumeclaims"] = [claim("Pending", "gold")]
    documents[f"{NAMESPACE}/events"] = [
        {"message": "older", "lastTimestamp": "2030-01-01T00:00:00Z"},
        {"message": 'class "gold" not found', "lastTimestamp": "2030-01-01T00:00:01Z"},
    ]
    assert problems(documents, tmp_path) == [
        "claim: mlfleet-artifacts of class 'gold' is Pending (class \"gold\" not found): "
        "there is no StorageClass 'gold'; this cluster has mlfleet-shared"
    ]


def test_a_claim_whose_driver_does_nothing_says_what_the_driver_must_do() -> None:
    found = checks.claim(claim("Pending"), ["mlfleet-shared"])
    assert found.verdict == "problem"
    assert "must be installed and allow ReadWriteMany" in found.message


def test_no_claim_and_no_cell_are_problems_too(tmp_path: Path) -> None:
    documents = healthy()
    documents[f"{NAMESPACE}/persistentvolumeclaims"] = []
    del documents[f"{NAMESPACE}/persistentvolumeclaims/mlfleet-artifacts"]
    documents["/apis/serving.knative.dev/v1/namespaces/mlfleet/services"] = []
    claims, cells = problems(documents, tmp_path)
    assert claims.startswith("claim: no claim mlfleet-artifacts")
    assert cells.startswith("cell: there is no cell")


WAITS = json.dumps({"level": "warning", "event": "catalogue_away", "reason": "refused"})
FINE = json.dumps({"level": "info", "event": "request", "status": 503})


@pytest.mark.parametrize(
    ("one", "log", "sentence"),
    [
        (pod("cell-0-x", "cell"), [WAITS, FINE], "cell: catalogue_away: refused"),
        (
            pod("prepare-x", "prepare", state={"waiting": {"reason": "CrashLoopBackOff"}},
                lastState={"terminated": {}}),
            ["preparing", "mlfleet: Postgres allows 50 connections"],
            "prepare: mlfleet: Postgres allows 50 connections",
        ),
        (
            pod("prepare-x", "prepare", state={"waiting": {
                "reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}),
            None,
            'prepare: CreateContainerConfigError: secret "s" not found',
        ),
    ],
)  # fmt: skip
def test_a_pod_that_is_not_ready_says_why(
    one: Any, log: list[str] | None, sentence: str, tmp_path: Path
) -> None:
    documents = healthy()
    documents[f"{NAMESPACE}/pods"] = [one]
    name = one["metadata"]["name"]
    if log is not None:
        documents[f"{NAMESPACE}/pods/{name}/log"] = "\n".join(log) + "\n"
    assert problems(documents, tmp_path) == [f"pod: {name} is not ready: {sentence}"]


def test_pods_that_go_or_were_evicted_are_not_asked(tmp_path: Path) -> None:
    going, evicted = pod("cell-0-x", "cell"), pod("cell-0-y", "cell")
    going["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    evicted["status"]["phase"] = "Failed"
    documents = healthy()
    documents[f"{NAMESPACE}/pods"] = [going, evicted]
    assert problems(documents, tmp_path) == []
    evicted["metadata"]["ownerReferences"] = [{"kind": "Job"}]
    assert problems(documents, tmp_path) != []


def test_a_jobs_pod_that_runs_is_not_done_and_says_what_it_waits_for(tmp_path: Path) -> None:
    one = pod("prepare-x", "prepare")
    one["metadata"]["ownerReferences"] = [{"kind": "Job"}]
    one["status"]["conditions"] = ready(True)
    one["status"]["containerStatuses"][0]["ready"] = True
    documents = healthy()
    documents[f"{NAMESPACE}/pods"] = [one]
    documents[f"{NAMESPACE}/pods/prepare-x/log"] = "waiting: Postgres: refused\n"
    said = "pod: prepare-x is not ready: prepare: waiting: Postgres: refused"
    assert problems(documents, tmp_path) == [said]
    one["status"]["phase"] = "Succeeded"
    assert problems(documents, tmp_path) == []


def test_the_queue_proxys_failing_probe_is_the_cells_own() -> None:
    one = pod("cell-0-x", "queue-proxy")
    cell = {"name": "cell", "ready": True, "state": {"running": {}}}
    one["status"]["containerStatuses"].append(cell)
    [(name, container)] = [(one["metadata"]["name"], c["name"]) for c in pods._unready(one)]
    assert (name, container) == ("cell-0-x", "cell")


def test_a_pod_without_a_node_and_one_that_just_starts() -> None:
    one = pod("postgres-0", "postgres", age_s=3)
    one["status"]["conditions"].append(
        {"type": "PodScheduled", "status": "False", "message": "unbound\nclaims"}
    )
    now = datetime.datetime.now(datetime.UTC)
    assert pods.is_starting(one, now)
    assert not pods.is_starting(one, now + datetime.timedelta(seconds=pods.STARTING_S))
    assert pods.reason(None, one) == "no node takes it: unbound claims"  # type: ignore[arg-type]
