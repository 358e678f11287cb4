"""Every overlay is accepted by a real API server that refuses unknown fields."""

import re

import pytest

from .conftest import ROOT, get, kubectl

OVERLAYS = ["eks", "local", "pi", "test"]


def elsewhere(overlay: str) -> str:
    """Return a golden render with names of its own, so that nothing that runs is meant."""
    text = (ROOT / "tests" / "golden" / f"{overlay}.yaml").read_text()
    text = re.sub(r"namespace: mlfleet$", "namespace: mlfleet-validation", text, flags=re.M)
    return text.replace("name: mlfleet-shared", f"name: mlfleet-shared-{overlay}")


@pytest.fixture(scope="module", autouse=True)
def namespace(fleet: str) -> None:
    kubectl("create", "namespace", "mlfleet-validation", check=False)
    # Knative tries a pod before it accepts a Service, and a pod needs its account.
    account = ["create", "serviceaccount", "cell", "--namespace=mlfleet-validation"]
    kubectl(*account, check=False)


def dry_run(text: str) -> str:
    how = ["--namespace=mlfleet-validation", "--dry-run=server", "--validate=strict"]
    return kubectl("apply", "--server-side", *how, "-f", "-", stdin=text, check=False)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_accepts_every_object(overlay: str) -> None:
    text = elsewhere(overlay)
    said = dry_run(text)
    objects = len(re.findall(r"^kind: ", text, flags=re.M))
    assert len(re.findall(r"serverside-applied \(server dry run\)", said)) == objects, said


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("containerConcurrency:", "containerConcurency:"),
        ("podSelector:", "podSelektor:"),
        ("storageClassName:", "storageClass:"),
        ("readOnlyRootFilesystem:", "readOnlyRootFileSystem:"),
    ],
)
def test_a_misspelled_field_is_refused(right: str, wrong: str) -> None:
    text = elsewhere("test")
    assert right in text
    assert wrong.rstrip(":") in dry_run(text.replace(right, wrong, 1))


def test_roles_allow_what_they_must_and_refuse_the_rest(fleet: str) -> None:
    def may(account: str, *question: str) -> bool:
        who = f"--as=system:serviceaccount:mlfleet:{account}"
        return kubectl("auth", "can-i", *question, who, check=False).startswith("yes")

    assert may("operator", "patch", "tenants.mlfleet.dev/status")
    assert may("operator", "create", "secrets")
    assert may("database-prepare", "create", "secrets")
    assert may("database-prepare", "get", "secrets/mlfleet-fleet")
    assert not may("operator", "list", "secrets")
    assert not may("operator", "delete", "secrets")
    assert not may("operator", "get", "secrets", "--namespace=kube-system")
    assert not may("operator", "get", "nodes")
    assert not may("database-prepare", "get", "secrets/team-a-mlflow")
    assert not may("database-prepare", "patch", "secrets/mlfleet-fleet")
    for verb, what in [("get", "secrets"), ("get", "pods"), ("list", "tenants.mlfleet.dev")]:
        assert not may("cell", verb, what)


def test_a_cell_holds_no_token_of_the_api_server(fleet: str) -> None:
    template = get("ksvc/cell-0")["spec"]["template"]["spec"]
    assert template["automountServiceAccountToken"] is False
