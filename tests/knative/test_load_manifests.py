"""The load generator's manifests: what they render to, and that they fit image and fleet."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "loadtest" / "kubernetes"
GOLDEN = ROOT / "tests" / "golden" / "load.yaml"


def documents(text: str) -> dict[tuple[str, str], Any]:
    found = [document for document in yaml.safe_load_all(text) if document]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


LOAD = documents(GOLDEN.read_text())
FLEET = documents((ROOT / "tests" / "golden" / "pi.yaml").read_text())
PODS = {name: LOAD[name]["spec"]["template"]["spec"]
        for name in (("Job", "load-master"), ("Deployment", "load-worker"))}  # fmt: skip


def test_the_golden_render_is_current() -> None:
    command = [str(Path(sys.executable).parent / "kubectl"), "kustomize", str(FOLDER)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == GOLDEN.read_text(), "run scripts/render and look at the difference"


@pytest.mark.parametrize("name", PODS)
def test_a_pod_may_do_as_little_as_a_cell(name: tuple[str, str]) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # As the operator, which reads and deletes what the cells wrote.
    operator = FLEET["Deployment", "operator"]["spec"]["template"]["spec"]["securityContext"]
    assert pod["securityContext"] == operator


def test_workers_are_given_no_address_of_a_database() -> None:
    assert "mlfleet-postgres" in str(PODS["Job", "load-master"])
    assert "mlfleet-postgres" not in str(PODS["Deployment", "load-worker"])
    assert "artifacts" not in str(PODS["Deployment", "load-worker"])


def test_the_master_waits_for_as_many_workers_as_there_are() -> None:
    (container,) = PODS["Job", "load-master"]["containers"]
    workers = LOAD["Deployment", "load-worker"]["spec"]["replicas"]
    assert f"--expect-workers={workers}" in container["args"]


def test_every_option_in_the_manifests_is_one_of_locust_or_ours() -> None:
    bin_folder = Path(sys.executable).parent
    known: set[str] = set()
    for command in ([bin_folder / "locust"], [bin_folder / "mlfleet", "load", "run"]):
        helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        known |= set(re.findall(r"--[a-z0-9-]+", helped.stdout))
    for pod in PODS.values():
        for argument in pod["containers"][0]["args"]:
            assert argument.partition("=")[0] in known, argument


def test_claims_secrets_and_addresses_are_those_of_the_fleet() -> None:
    master = PODS["Job", "load-master"]
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in PODS.values()
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {"load-runs", "mlfleet-artifacts"}
    assert ("PersistentVolumeClaim", "mlfleet-artifacts") in FLEET
    runs, artifacts = (
        source["PersistentVolumeClaim", name]["spec"]
        for source, name in ((LOAD, "load-runs"), (FLEET, "mlfleet-artifacts"))
    )
    assert runs["accessModes"] == ["ReadWriteMany"]
    assert runs["storageClassName"] == artifacts["storageClassName"]
    operator = FLEET["Deployment", "operator"]["spec"]["template"]["spec"]["containers"][0]
    (container,) = master["containers"]
    for variable in ("MLFLEET_ADMIN_URI", "MLFLEET_DATA"):
        one, other = (
            next(entry for entry in spec["env"] if entry["name"] == variable)
            for spec in (container, operator)
        )
        assert one == other


def test_the_network_lets_locust_reach_its_peers_and_postgres_and_postgres_lets_it_in() -> None:
    policy = LOAD["NetworkPolicy", "load"]["spec"]
    (selector,) = policy["podSelector"]["matchExpressions"]
    names = {LOAD[name]["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
             for name in PODS}  # fmt: skip
    assert set(selector["values"]) == names
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert {5557, 5432, 80} <= ports
    to_postgres = LOAD["NetworkPolicy", "load-to-postgres"]["spec"]
    assert to_postgres["podSelector"] == FLEET["NetworkPolicy", "postgres"]["spec"]["podSelector"]
