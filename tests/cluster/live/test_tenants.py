"""Tenants as objects: made, refused with a sentence, deleted without a trace."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from .conftest import Tenant, conditions, get, kubectl, mlfleet, sql, until

NewTenant = Callable[..., Tenant]


def apply(name: str, spec: dict[str, Any]) -> str:
    document = {
        "apiVersion": "mlfleet.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name, "namespace": "mlfleet"},
        "spec": spec,
    }
    return kubectl("apply", "-f", "-", stdin=json.dumps(document), check=False)


@pytest.mark.parametrize(
    ("name", "spec", "sentence"),
    [
        ("x", {}, "a DNS label of 2 to 63 characters"),
        ("a.b", {}, "a DNS label of 2 to 63 characters"),
        ("a" * 64, {}, "a DNS label of 2 to 63 characters"),
        ("metrics", {}, "this name is kept free"),
        ("xn--abc", {}, "kept by DNS"),
        ("team-b", {"tier": "gold"}, 'supported values: "shared", "dedicated"'),
        ("team-b", {"tier": "dedicated", "cell": "cell-0"}, "spec.cell must be left out"),
        ("team-b", {"quota": {"memory": "much"}}, "a quantity of at least 64Mi"),
        ("team-b", {"quota": {"memory": "1Mi"}}, "a quantity of at least 64Mi"),
        ("team-b", {"quota": {"artifacts": "0"}}, "a quantity above zero"),
        ("team-b", {"quota": {"concurrency": 0}}, "greater than or equal to 1"),
        ("team-b", {"cell": "../x"}, "spec.cell"),
        ("team-b", {"colour": "red"}, 'unknown field "spec.colour"'),
    ],
)
def test_a_tenant_that_cannot_be_is_refused_by_the_schema(
    fleet: str, name: str, spec: dict[str, Any], sentence: str
) -> None:
    assert sentence in apply(name, spec)
    assert "not found" in kubectl("get", "tenant", name, check=False)


def test_a_token_comes_as_a_secret_that_a_stock_client_can_use(new_tenant: NewTenant) -> None:
    tenant = new_tenant()
    secret = get(f"secret/{tenant.name}-mlflow")
    assert set(secret["data"]) == {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"}
    assert tenant.call("POST", "runs/create", experiment_id="0").status_code == 200
    status = until(
        "the first request made it ready",
        lambda: (found := get(f"tenant/{tenant.name}")["status"])["state"] == "ready" and found,
        30,
    )
    assert status["url"] == tenant.url
    again = mlfleet("tenant", "create", tenant.name)
    assert (again["created"], again["token"]) == (False, None)


def test_a_lost_secret_comes_back_with_a_new_token(new_tenant: NewTenant) -> None:
    tenant = new_tenant()
    kubectl("delete", "secret", f"{tenant.name}-mlflow")
    kubectl(
        "patch", "tenant", tenant.name, "--type=merge", "-p",
        json.dumps({"spec": {"quota": {"concurrency": 5}}}),
    )  # fmt: skip
    until("the secret is back", lambda: "NotFound" not in kubectl(
        "get", "secret", f"{tenant.name}-mlflow", check=False))  # fmt: skip
    until(
        "the old token is refused",
        lambda: tenant.call("GET", "experiments/get", experiment_id="0").status_code == 401,
        20,
    )
    assert sql(
        f"SELECT concurrency FROM tenants WHERE name = '{tenant.name}'", "mlfleet_catalogue"
    ) == ["5"]


def test_a_deleted_tenant_leaves_nothing_and_its_name_starts_afresh(
    new_tenant: NewTenant,
) -> None:
    tenant = new_tenant()
    run = tenant.create_run()
    [number] = sql(f"SELECT id FROM tenants WHERE name = '{tenant.name}'", "mlfleet_catalogue")
    name = f"mlfleet_t{number}"
    assert sql(f"SELECT datname FROM pg_database WHERE datname = '{name}'") == [name]
    kubectl("delete", "tenant", tenant.name, "--timeout=60s")
    assert sql(f"SELECT datname FROM pg_database WHERE datname = '{name}'") == []
    assert sql(f"SELECT rolname FROM pg_roles WHERE rolname = '{name}'") == []
    assert sql(f"SELECT 1 FROM tenants WHERE id = {number}", "mlfleet_catalogue") == []
    until("its secret is gone", lambda: "NotFound" in kubectl(
        "get", "secret", f"{tenant.name}-mlflow", check=False), 30)  # fmt: skip
    folders = kubectl(
        "exec", "deployment/operator", "--", "python", "-c",
        "import os; print(*os.listdir('/var/lib/mlfleet/artifacts'))",
    ).split()  # fmt: skip
    assert number not in folders
    row = mlfleet("tenant", "create", tenant.name)
    assert row["created"] is True
    fresh = Tenant(tenant.name, row["url"], row["token"])
    until("the old token is refused", lambda: tenant.call(
        "GET", "runs/get", run_id=run).status_code == 401, 20)  # fmt: skip
    assert fresh.call("GET", "runs/get", run_id=run).status_code == 404


def test_a_cell_that_is_not_there_is_said_and_nothing_is_made(fleet: str) -> None:
    said = mlfleet("tenant", "create", "team-nowhere", "--cell", "cell-9", check=False)
    assert "there is no cell cell-9" in said
    assert "cell add cell-9" in said
    rows = sql("SELECT 1 FROM tenants WHERE name = 'team-nowhere'", "mlfleet_catalogue")
    assert rows == []
    assert "NotFound" in kubectl("get", "tenant", "team-nowhere", check=False)


def test_a_dedicated_tenant_gets_a_cell_that_goes_with_it(new_tenant: NewTenant) -> None:
    tenant = new_tenant("--tier", "dedicated")
    cell = f"cell-{tenant.name}"
    assert cell in tenant.url
    assert conditions(f"ksvc/{cell}") == {"Ready": "True"}, "no address before it is served"
    # Traefik's provider routes a moment after Knative calls a service ready.
    health = tenant.url.removesuffix(tenant.name) + "healthz"
    until("the ingress knows it", lambda: requests.get(health, timeout=60).ok, 20)
    tenant.create_run()
    mlfleet("tenant", "delete", tenant.name, "--yes")
    until("its cell is gone", lambda: "NotFound" in kubectl("get", f"ksvc/{cell}", check=False), 60)


def test_a_cell_that_postgres_cannot_hold_is_refused_with_the_sum(fleet: str) -> None:
    said = mlfleet("cell", "add", "cell-big", "--max-awake", "500", check=False)
    assert "of max_connections = 200" in said
    assert "NotFound" in kubectl("get", "ksvc/cell-big", check=False)


def test_doctor_finds_a_flag_that_is_off(fleet: str) -> None:
    assert mlfleet("doctor")["problems"] == 0
    flag = "kubernetes.podspec-persistent-volume-write"

    def switch(value: str) -> None:
        kubectl(
            "patch", "configmap", "config-features", "-n", "knative-serving", "--type=merge",
            "-p", json.dumps({"data": {flag: value}}),
        )  # fmt: skip

    switch("disabled")
    try:
        found = mlfleet("doctor", check=False)
    finally:
        switch("enabled")
    assert found["problems"] == 1
    [problem] = [one for one in found["findings"] if one["verdict"] == "problem"]
    assert flag in problem["message"]
    assert "kubectl patch configmap config-features" in problem["message"]
