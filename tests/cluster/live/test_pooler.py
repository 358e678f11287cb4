"""PgBouncer as a component: a tenant works through it, with the password nobody told it."""

from collections.abc import Callable, Iterator

import pytest

from .conftest import ROOT, Tenant, get, kubectl, sql, until, wait_for_zero

NewTenant = Callable[..., Tenant]

IMAGE = "dev.local/mlfleet-pgbouncer:test"
POOLED = ROOT / "tests" / "knative" / "pooled"
PLAIN = ROOT / "knative" / "overlays" / "test"
SERVERS = "SELECT DISTINCT client_addr FROM pg_stat_activity WHERE usename = '{}'"


def apply(folder: object, address: str) -> None:
    """Apply a render, and wait until the cell's newest revision has this pooler's address."""
    render = kubectl("kustomize", folder)
    kubectl("delete", "job", "database-prepare", "--ignore-not-found")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=render)

    def is_serving() -> bool:
        cell = get("ksvc/cell-0")
        status = cell["status"]
        variables = cell["spec"]["template"]["spec"]["containers"][0]["env"]
        found = [one.get("value") for one in variables if one["name"] == "MLFLEET_POOLER_ADDRESS"]
        is_newest = status["latestCreatedRevisionName"] == status.get("latestReadyRevisionName")
        seen = status["observedGeneration"] == cell["metadata"]["generation"]
        return (found or [""]) == [address] and is_newest and seen

    until("the new revision is ready", is_serving, 180)


@pytest.fixture
def pooled(fleet: str) -> Iterator[str]:
    """The fleet with PgBouncer; yields the address of its pod."""
    images = {name for node in get("nodes")["items"] for image in node["status"]["images"]
              for name in image["names"] or []}  # fmt: skip
    if IMAGE not in images:
        pytest.skip(f"the node lacks {IMAGE}: build storage/pgbouncer")
    try:
        apply(POOLED, "pgbouncer:6432")
        kubectl("rollout", "status", "deployment/pgbouncer", "--timeout=120s")
        [pod] = get("pods", "-l", "app.kubernetes.io/name=pgbouncer")["items"]
        yield pod["status"]["podIP"]
    finally:
        apply(PLAIN, "")
        for what in ("deployment/pgbouncer", "service/pgbouncer", "networkpolicy/pgbouncer",
                     "networkpolicy/cells-to-pgbouncer"):  # fmt: skip
            kubectl("delete", what, "--ignore-not-found", "--wait=false")
        for name in kubectl("get", "configmaps", "-o", "name").split():
            if "pgbouncer-configuration" in name:
                kubectl("delete", name)


def test_a_tenant_works_through_pgbouncer(pooled: str, new_tenant: NewTenant) -> None:
    tenant = new_tenant()
    runs = [tenant.create_run() for _ in range(3)]
    [number] = sql(f"SELECT id FROM tenants WHERE name = '{tenant.name}'", "mlfleet_catalogue")
    assert sql(SERVERS.format(f"mlfleet_t{number}")) == [pooled]
    found = tenant.call("POST", "runs/search", experiment_ids=["0"])
    assert {row["info"]["run_id"] for row in found.json()["runs"]} == set(runs)
    wait_for_zero()
    assert tenant.call("GET", "runs/get", run_id=runs[0]).status_code == 200
