"""Every address of a tenant: outside, inside, by its own host, after a move; and no other."""

import json
import re
import socket
import uuid
from collections.abc import Callable, Iterator

import pytest
import requests

from .conftest import NAMESPACE, Tenant, conditions, get, kubectl, mlfleet, sql, until, url_of

NewTenant = Callable[..., Tenant]
FRONT = f"http://front.{NAMESPACE}.svc.cluster.local"
FIND = "api/2.0/mlflow/experiments/get?experiment_id=0"


def call(url: str, tenant: Tenant, **headers: str) -> requests.Response:
    """Send one request, with the tenant's token and these headers."""
    token = {"Authorization": f"Bearer {tenant.token}"}
    return requests.get(url, headers=token | headers, timeout=120, allow_redirects=False)


@pytest.fixture(scope="module")
def other_cell(fleet: str) -> Iterator[str]:
    """A second cell, for this module; its name."""
    name = f"cell-{uuid.uuid4().hex[:6]}"
    mlfleet("cell", "add", name, "--max-awake", "2", "--max-replicas", "1")
    until("the cell is ready", lambda: "True" in conditions(f"ksvc/{name}").values(), 180)
    yield name
    kubectl("delete", "ksvc", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def front(fleet: str) -> str:
    """The front's address, and the domain of tenants' own hosts."""
    kubectl("rollout", "status", "deployment/front", "--timeout=180s")
    return str(get("configmap/mlfleet-settings")["data"]["tenant-hosts"])


# Names.


def test_a_cell_answers_to_all_its_names_and_to_no_other(new_tenant: NewTenant, fleet: str) -> None:
    tenant = new_tenant()
    inside = f"http://cell-0.{NAMESPACE}.svc.cluster.local"
    port = {"Host": f"{fleet.removeprefix('http://')}:80"}
    assert call(f"{fleet}/{tenant.name}/{FIND}", tenant).status_code == 200
    assert call(f"{fleet}/{tenant.name}/{FIND}", tenant, **port).status_code == 200
    for address in (inside, f"{inside}:80", inside.removesuffix(".cluster.local"),
                    f"http://cell-0.{NAMESPACE}"):  # fmt: skip
        assert call(f"{address}/{tenant.name}/{FIND}", tenant).status_code == 200, address
    pod = until("a pod serves", lambda: pod_address("cell-0"))
    for host in ("evil.example", "localhost", f"cell-0.{NAMESPACE}.evil", "cell-9.mlfleet.svc"):
        # Past the ingress, which would not know where to send it: the gateway itself refuses.
        refused = call(f"http://{pod}:8012/{tenant.name}/{FIND}", tenant, Host=host)
        assert refused.status_code == 403, host
        assert "Invalid Host header" in refused.json()["message"]


def pod_address(cell: str) -> str:
    """Return the address of a cell's pod that serves, or nothing."""
    pods = get("pods", "-l", f"serving.knative.dev/service={cell}")["items"]
    ready = [
        pod["status"]["podIP"]
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and all(one["ready"] for one in pod["status"].get("containerStatuses", [{"ready": False}]))
    ]
    return ready[0] if ready else ""


# A tenant that moved.


def test_the_old_address_of_a_moved_tenant_forwards(
    new_tenant: NewTenant, other_cell: str, front: str
) -> None:
    tenant = new_tenant()
    before = tenant.create_run()
    moved = mlfleet("tenant", "move", tenant.name, "--cell", other_cell)
    assert other_cell in moved["url"]
    until("the old cell has seen it", lambda: awake_in(tenant, "cell-0") == 0, 60)
    after = tenant.create_run_patiently()
    found = tenant.call("POST", "runs/search", experiment_ids=["0"]).json()["runs"]
    assert {row["info"]["run_id"] for row in found} == {before, after}
    assert {one["cell"] for one in served_by(tenant)} == {other_cell}
    stranger = Tenant(tenant.name, tenant.url, "wrong")
    assert stranger.call("GET", "experiments/get", experiment_id="0").status_code == 401
    # A large body, both ways.
    big = "api/2.0/mlflow-artifacts/artifacts/big"
    piece = b"0123456789abcdef" * 65536
    token = {"Authorization": f"Bearer {tenant.token}"}
    up = requests.put(f"{tenant.url}/{big}", (piece for _ in range(64)), headers=token, timeout=120)
    assert up.status_code == 200, up.text
    down = requests.get(f"{tenant.url}/{big}", headers=token, timeout=120)
    assert down.content == piece * 64
    # The front leads to the new cell without the old one.
    assert call(f"{FRONT}/{FIND}", tenant, Host=f"{tenant.name}.{front}").status_code == 200


def awake_in(tenant: Tenant, cell: str) -> int:
    """Return how many instances of the tenant the pods of a cell hold."""
    return sum(one["cell"] == cell for one in served_by(tenant))


def served_by(tenant: Tenant) -> list[dict[str, str]]:
    """Return who holds a connection to the tenant's database, by the pod it comes from."""
    pods = get("pods", "-l", "app.kubernetes.io/name=cell")["items"]
    cells = {
        pod["status"].get("podIP"): pod["metadata"]["labels"]["serving.knative.dev/service"]
        for pod in pods
    }
    [database] = sql(
        f"SELECT 'mlfleet_t' || id FROM tenants WHERE name = '{tenant.name}'", "mlfleet_catalogue"
    )
    rows = sql(f"SELECT client_addr FROM pg_stat_activity WHERE datname = '{database}'")
    return [{"cell": cells.get(row, row)} for row in rows]


def test_a_cell_that_does_not_come_up_is_try_again(new_tenant: NewTenant, other_cell: str) -> None:
    tenant = new_tenant()
    tenant.create_run()
    catalogue = "mlfleet_catalogue"
    row = f"WHERE name = '{tenant.name}'"
    sql("INSERT INTO cells (name, tier) VALUES ('cell-nowhere', 'shared')", catalogue)
    sql(f"UPDATE tenants SET cell = 'cell-nowhere' {row}", catalogue)
    try:
        answer = until(
            "the cell has seen it",
            lambda: (
                (one := tenant.call("GET", "experiments/get", experiment_id="0")).status_code != 200
                and [one]
            ),
            30,
        )[0]
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert "cell-nowhere" in answer.json()["message"]
    finally:
        sql(f"UPDATE tenants SET cell = 'cell-0' {row}", catalogue)
        sql("DELETE FROM cells WHERE name = 'cell-nowhere'", catalogue)


# A host for each tenant.


def test_a_tenants_own_host_works_by_a_wildcard(new_tenant: NewTenant, front: str) -> None:
    tenant = new_tenant()
    host = f"{tenant.name}.{front}"
    answer = call(f"{FRONT}/{FIND}", tenant, Host=host)
    assert answer.status_code == 200, answer.text
    assert answer.json()["experiment"]["name"] == "Default"
    assert call(f"{FRONT}/{tenant.name}/{FIND}", tenant, Host=front).status_code == 200
    assert call(f"{FRONT}/{FIND}", tenant, Host=f"{host}:80").status_code == 200
    assert requests.get(f"{FRONT}/{FIND}", headers={"Host": host}, timeout=60).status_code == 401
    assert call(f"{FRONT}/{FIND}", tenant, Host=f"{tenant.name}.evil.example").status_code == 403
    nobody = call(f"{FRONT}/{FIND}", tenant, Host=f"nobody-here.{front}")
    assert nobody.status_code == 404


def test_a_browser_logs_in_on_the_tenants_own_host(new_tenant: NewTenant, front: str) -> None:
    tenant = new_tenant()
    browser = requests.Session()
    host = {"Host": f"{tenant.name}.{front}", "Accept": "text/html"}
    login = browser.post(
        f"{FRONT}/.mlfleet/login",
        {"token": tenant.token, "next": "/"},
        headers=host,
        timeout=60,
        allow_redirects=False,
    )
    assert login.status_code == 303, login.text
    cookie = {"Cookie": login.headers["Set-Cookie"].partition(";")[0]}
    page = until(
        "the page is the UI",
        lambda: (one := requests.get(f"{FRONT}/", headers=host | cookie, timeout=120))
        and "<title>MLflow</title>" in one.text and one,
        60,
    )  # fmt: skip
    script = re.findall(r'src="(static-files/[^"]+\.js)"', page.text)[0]
    asset = requests.get(f"{FRONT}/{script}", headers=host | cookie, timeout=60)
    assert asset.status_code == 200
    assert "sandbox" not in asset.headers.get("Content-Security-Policy", "")
    assert requests.get(f"{FRONT}/", headers=host, timeout=60, allow_redirects=False
                        ).headers["Location"].startswith("/.mlfleet/login")  # fmt: skip


def test_the_wildcard_object_is_for_the_front(front: str) -> None:
    rules = get("ingress/front")["spec"]["rules"]
    assert [rule["host"] for rule in rules] == [front, f"*.{front}"]
    backends = [p["backend"]["service"]["name"] for r in rules for p in r["http"]["paths"]]
    assert backends == ["front", "front"]


# Who the ingress is.


CLAIMS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4"}


def test_forwarding_headers_are_taken_of_the_named_ingress_only(other_cell: str) -> None:
    """Traefik says http to the gateway; a fleet that is https believes it only of its ingress."""
    address = url_of(other_cell)
    for proxies, scheme in (("203.0.113.7", "https"), (ingress_address(), "http"), ("", "https")):
        configure(other_cell, MLFLEET_PUBLIC_SCHEME="https", MLFLEET_TRUSTED_PROXIES=proxies)
        until(
            f"links begin with {scheme} when {proxies or 'nobody'} is trusted",
            lambda scheme=scheme: (
                f"{scheme}://{other_cell}"
                in requests.get(f"{address}/", headers=CLAIMS, timeout=120).text
            ),
            30,
        )


def ingress_address() -> str:
    """Return from where Traefik, on the node's network as this test is, reaches the activator."""
    found = get("pods", "--namespace=knative-serving", "-l", "app=activator")["items"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((found[0]["status"]["podIP"], 8012))
        return str(probe.getsockname()[0])


def configure(cell: str, **variables: str) -> None:
    """Set variables of a cell, and wait until the new revision has taken over."""
    template = get(f"ksvc/{cell}")["spec"]["template"]
    container = template["spec"]["containers"][0]
    kept = [one for one in container["env"] if one["name"] not in variables]
    container["env"] = kept + [{"name": n, "value": v} for n, v in variables.items()]
    change = {"spec": {"template": {"spec": {"containers": [container]}}}}
    kubectl("patch", "ksvc", cell, "--type=merge", "-p", json.dumps(change))

    def has_taken_over() -> bool:
        found = get(f"ksvc/{cell}")
        seen = found["status"].get("observedGeneration") == found["metadata"]["generation"]
        newest = found["status"].get("latestCreatedRevisionName")
        return (
            seen
            and newest == found["status"].get("latestReadyRevisionName")
            and "True" in conditions(f"ksvc/{cell}").values()
        )

    until("the new revision has taken over", has_taken_over, 120)
