"""A cell that scales to zero, as a stock MLflow client sees it."""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import requests

from .conftest import (
    Tenant,
    cell_pods,
    get,
    kubectl,
    metric,
    serving,
    sql,
    until,
)

NewTenant = Callable[..., Tenant]


def read_back(tenant: Tenant, run: str, folder: Path) -> None:
    """Compare what `written` wrote with what a stock client is told."""
    client = tenant.client()
    assert client.get_run(run).data.params == {"depth": "3"}
    assert [one.name for one in client.search_registered_models()] == ["m"]
    assert Path(client.download_artifacts(run, "note.txt", str(folder))).read_text() == "remember"


def test_a_stock_client_reads_what_it_wrote(written: tuple[Tenant, str], tmp_path: Path) -> None:
    read_back(*written, tmp_path)


def test_the_first_write_starts_a_cell_from_zero_and_all_that_was_written_before_is_there(
    written: tuple[Tenant, str], new_tenant: NewTenant, cell_at_zero: None, tmp_path: Path
) -> None:
    client = new_tenant().client()
    assert not cell_pods()
    begun = time.monotonic()
    run = client.create_run("0").info.run_id
    took_s = time.monotonic() - begun
    client.log_metric(run, "loss", 0.5)
    assert client.get_run(run).data.metrics == {"loss": 0.5}
    assert cell_pods()
    assert took_s < 30, "the client waits once, and not for its second try"
    read_back(*written, tmp_path)


def test_a_hundred_first_requests_to_a_cell_at_zero_are_all_answered(
    hundred_tenants: list[Tenant], cell_at_zero: None
) -> None:
    assert not cell_pods()
    with ThreadPoolExecutor(100) as threads:
        runs = list(threads.map(Tenant.create_run_patiently, hundred_tenants))
    assert len(set(runs)) == 100
    series = hundred_tenants[0].name[:-3]
    wanted = sql(
        f"SELECT 'mlfleet_t' || id FROM tenants WHERE name LIKE '{series}%'", "mlfleet_catalogue"
    )
    databases = sql("SELECT datname FROM pg_database WHERE datname LIKE 'mlfleet\\_t%'")
    assert len(wanted) == 100
    assert set(wanted) <= set(databases)
    assert len(databases) == len(set(databases))


def test_a_gigabyte_passes_both_ways(new_tenant: NewTenant) -> None:
    tenant = new_tenant()
    run = tenant.create_run()
    address = f"{tenant.url}/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/big.bin"
    headers = {"Authorization": f"Bearer {tenant.token}"}
    block = os.urandom(2**20)
    sent = hashlib.sha256()

    def blocks():
        for _ in range(1024):
            sent.update(block)
            yield block

    answer = requests.put(address, data=blocks(), headers=headers, timeout=300)
    assert answer.status_code == 200, answer.text
    received, count = hashlib.sha256(), 0
    with requests.get(address, headers=headers, stream=True, timeout=300) as answer:
        assert answer.status_code == 200
        for part in answer.iter_content(2**20):
            received.update(part)
            count += len(part)
    assert count == 2**30
    assert received.digest() == sent.digest()


def test_names_of_the_fleet_pass_the_host_check_and_others_do_not(
    new_tenant: NewTenant, fleet: str
) -> None:
    tenant = new_tenant()
    tenant.create_run()
    inside = "cell-0.mlfleet.svc.cluster.local"
    path, headers = f"/{tenant.name}/version", {"Authorization": f"Bearer {tenant.token}"}
    assert requests.get(f"http://{inside}{path}", headers=headers, timeout=60).ok
    with_port = {**headers, "Host": urlsplit(fleet).netloc + ":80"}
    assert requests.get(f"{fleet}{path}", headers=with_port, timeout=60).ok
    [pod, *_] = serving()
    straight = f"http://{pod['status']['podIP']}:8080{path}"
    for name, status in [(urlsplit(fleet).netloc, 200), ("cell-0.example.org", 403)]:
        answer = requests.get(straight, headers={**headers, "Host": name}, timeout=60)
        assert answer.status_code == status, answer.text


def test_an_instance_is_confined_under_the_default_seccomp_profile(new_tenant: NewTenant) -> None:
    new_tenant().create_run()
    [pod, *_] = cell_pods()
    context = pod["spec"]["containers"][0]["securityContext"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    log = kubectl("logs", pod["metadata"]["name"], "-c", "cell")
    assert '"event": "ready"' in log
    assert "landlock" not in [
        line for line in log.splitlines() if "confinement" in line and "cannot" in line
    ]


def test_a_probe_or_scrape_wakes_no_tenant(new_tenant: NewTenant, fleet: str) -> None:
    tenant = new_tenant()
    tenant.create_run()
    until("the tenant sleeps", lambda: metric(fleet, "mlfleet_awake") == 0, 90)
    assert requests.get(f"{fleet}/{tenant.name}/health", timeout=60).ok
    assert metric(fleet, "mlfleet_awake") == 0


def test_old_revisions_are_few(fleet: str) -> None:
    assert len(get("revisions")["items"]) <= 25
