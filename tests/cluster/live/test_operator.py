"""What the operator shows of a tenant, and does to its token, on a real cluster."""

import datetime
import json
from collections.abc import Callable

from .conftest import Tenant, get, kubectl, mlfleet, until

NewTenant = Callable[..., Tenant]


def status_of(tenant: Tenant) -> dict[str, str]:
    found: dict[str, str] = get(f"tenant/{tenant.name}")["status"]
    return found


def test_the_last_wake_is_shown_while_the_cell_is_left_alone(new_tenant: NewTenant) -> None:
    tenant = new_tenant()
    assert "lastWake" not in status_of(tenant)
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    tenant.create_run()
    woken = until("the wake is shown", lambda: status_of(tenant).get("lastWake"), 90)
    after = datetime.datetime.now(datetime.UTC)
    assert before <= datetime.datetime.fromisoformat(woken) <= after
    shown = kubectl("get", "tenant", tenant.name)
    assert "LAST WAKE" in shown.splitlines()[0]
    [row] = [one for one in mlfleet("tenant", "list") if one["name"] == tenant.name]
    assert row["last_wake"] == woken


def test_a_rotated_token_opens_and_the_old_one_is_refused(new_tenant: NewTenant) -> None:
    tenant = new_tenant()
    assert tenant.call("GET", "experiments/get", experiment_id="0").status_code == 200
    token = mlfleet("token", "rotate", tenant.name)["token"]
    assert token != tenant.token
    rotated = Tenant(tenant.name, tenant.url, token)
    until(
        "the old token is refused",
        lambda: tenant.call("GET", "experiments/get", experiment_id="0").status_code == 401,
        20,
    )
    assert rotated.call("GET", "experiments/get", experiment_id="0").status_code == 200


def test_a_further_token_is_made_in_the_pod_of_the_operator(new_tenant: NewTenant) -> None:
    tenant = new_tenant()
    made = json.loads(
        kubectl(
            "exec", "deployment/operator", "--",
            "mlfleet", "token", "create", tenant.name, "ci", "--read-only", "--json",
        )
    )  # fmt: skip
    reader = Tenant(tenant.name, tenant.url, made["token"])
    until(
        "it may look",
        lambda: reader.call("GET", "experiments/get", experiment_id="0").status_code == 200,
        20,
    )
    assert reader.call("POST", "experiments/create", name="no").status_code == 403


def test_an_operator_that_restarts_changes_no_token(new_tenant: NewTenant) -> None:
    tenant = new_tenant()
    secret = get(f"secret/{tenant.name}-mlflow")["metadata"]["resourceVersion"]
    version = get(f"tenant/{tenant.name}")["metadata"]["resourceVersion"]
    kubectl("rollout", "restart", "deployment/operator")
    kubectl("rollout", "status", "deployment/operator", "--timeout=180s")
    another = new_tenant()  # so the new operator has been at work
    assert another.token != tenant.token
    # A change that it has to see: then it has settled this tenant, too.
    quota = json.dumps({"spec": {"quota": {"concurrency": 7}}})
    assert get(f"tenant/{tenant.name}")["metadata"]["resourceVersion"] == version
    kubectl("patch", "tenant", tenant.name, "--type=merge", "-p", quota)
    generation = get(f"tenant/{tenant.name}")["metadata"]["generation"]
    until(
        "the change is settled",
        lambda: get(f"tenant/{tenant.name}")["status"]["observedGeneration"] == generation,
    )
    assert get(f"secret/{tenant.name}-mlflow")["metadata"]["resourceVersion"] == secret
