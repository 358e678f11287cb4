"""Pods are killed, moved and replaced under load: nothing acknowledged is missing afterwards."""

import contextlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .conftest import (
    Load,
    Tenant,
    assert_nothing_missing,
    cell_pods,
    get,
    kubectl,
    metric,
    mlfleet,
    serving,
    sql,
    until,
)

NewTenant = Callable[..., Tenant]
Writing = Callable[..., contextlib.AbstractContextManager[Load]]


def grown(load: Load, by: int = 20) -> None:
    """Wait until the writers got further."""
    before = sum(map(len, load.acknowledged.values()))
    until(
        "the writers go on",
        lambda: load.errors or sum(map(len, load.acknowledged.values())) > before + by,
        240,
    )


def test_a_cell_killed_without_warning_loses_nothing(new_tenant: NewTenant, load: Writing) -> None:
    tenant = new_tenant()
    with load(tenant) as written:
        grown(written)
        for pod in serving():
            kill_all_processes(pod["metadata"]["name"])
        grown(written)
        for pod in cell_pods():
            kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
        grown(written)
    assert_nothing_missing(tenant, written)


def kill_all_processes(pod: str) -> None:
    """Send SIGKILL to gateway, zygote and instances at once, and see the container start again."""
    before = restarts(pod)
    kill = ["python", "-c", "import os, signal; os.kill(-1, signal.SIGKILL)"]
    kubectl("exec", pod, "-c", "cell", "--", *kill, check=False)
    until("the container starts again", lambda: restarts(pod) > before)


def restarts(pod: str) -> int:
    found = get(f"pod/{pod}")["status"]["containerStatuses"]
    return next(int(one["restartCount"]) for one in found if one["name"] == "cell")


def test_clients_merely_wait_while_a_node_is_drained(new_tenant: NewTenant, load: Writing) -> None:
    tenant = new_tenant()
    [node] = {pod["spec"]["nodeName"] for pod in get("pods")["items"] if "nodeName" in pod["spec"]}
    with load(tenant) as written:
        grown(written)
        old = {pod["metadata"]["uid"] for pod in cell_pods()}
        try:
            until("the old pods are told to go", lambda: drained(node, old), 90)
        finally:
            kubectl("uncordon", node)
        until("a new pod serves", lambda: {p["metadata"]["uid"] for p in cell_pods()} - old)
        grown(written)
    assert_nothing_missing(tenant, written)


def drained(node: str, old: set[str]) -> bool:
    """Drain for a moment; it is refused while the disruption budget sees no healthy pod."""
    kubectl(
        "drain", node, "--pod-selector=app.kubernetes.io/name=cell", "--ignore-daemonsets",
        "--delete-emptydir-data", "--force", "--timeout=5s", check=False,
    )  # fmt: skip
    return not old & {pod["metadata"]["uid"] for pod in cell_pods()}


def test_a_new_revision_takes_over_without_a_failed_request(
    new_tenant: NewTenant, load: Writing
) -> None:
    tenant = new_tenant()
    run = tenant.create_run()
    failed: list[str] = []
    stop: list[bool] = []

    def once(step: int) -> None:
        """No retries here: one answer that is not 200 is a failed request."""
        answer = tenant.call(
            "POST", "runs/log-metric", run_id=run, key="m", value=1.0, timestamp=1, step=step
        )
        if answer.status_code != 200:
            failed.append(f"{answer.status_code} {answer.text[:200]}")

    def write(first: int) -> int:
        step = first
        while not stop:
            once(step)
            step += 1
        return step - first

    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(write, number * 1_000_000) for number in range(4)]
        old = get("ksvc/cell-0")["status"]["latestReadyRevisionName"]
        marked = {"mlfleet.dev/rollout": str(time.time())}
        change = {"spec": {"template": {"metadata": {"annotations": marked}}}}
        kubectl("patch", "ksvc", "cell-0", "--type=merge", "-p", json.dumps(change))
        until(
            "the new revision is ready",
            lambda: get("ksvc/cell-0")["status"]["latestReadyRevisionName"] != old,
        )
        until(
            "the old pods are on their way out",
            lambda: all(old not in pod["metadata"]["name"] for pod in cell_pods()),
            240,
        )
        stop.append(True)
        count = sum(future.result(timeout=150) for future in futures)
    assert failed == []
    assert count > 50


def test_clients_wait_while_postgres_restarts(new_tenant: NewTenant, load: Writing) -> None:
    tenant = new_tenant()
    with load(tenant) as written:
        grown(written)
        before = get("pod/postgres-0")["metadata"]["uid"]
        kubectl("delete", "pod", "postgres-0", "--wait=false")
        until(
            "Postgres is another pod",
            lambda: (
                (pods := get("pods", "-l", "app.kubernetes.io/name=postgres")["items"])
                and pods[0]["metadata"]["uid"] != before
            ),
        )
        kubectl("wait", "--for=condition=Ready", "pod/postgres-0", "--timeout=120s")
        grown(written)
    assert_nothing_missing(tenant, written)


def test_a_tenant_moves_between_cells_under_load(new_tenant: NewTenant, load: Writing) -> None:
    mlfleet("cell", "add", "cell-m", "--max-awake", "2", "--max-replicas", "1")
    try:
        tenant = new_tenant()
        with load(tenant) as written:
            grown(written)
            moved = mlfleet("tenant", "move", tenant.name, "--cell", "cell-m")
            assert moved["url"] != tenant.url
            there = Tenant(tenant.name, moved["url"], tenant.token)
            until("the new cell serves it", lambda: there.call("GET", "experiments/get",
                  experiment_id="0").status_code == 200)  # fmt: skip
            grown(written)
        assert_nothing_missing(tenant, written)
        assert sql(
            f"SELECT cell FROM tenants WHERE name = '{tenant.name}'", "mlfleet_catalogue"
        ) == ["cell-m"]
    finally:
        kubectl("delete", "ksvc", "cell-m", "--wait=false", "--ignore-not-found")


def test_two_replicas_serve_one_tenant(new_tenant: NewTenant) -> None:
    tenant = new_tenant()
    scale_to_at_least(2)
    try:
        until("two pods serve", lambda: len(serving()) == 2, 180)
        with ThreadPoolExecutor(16) as threads:
            runs = list(threads.map(lambda _: tenant.create_run(), range(64)))
        addresses = [f"http://{pod['status']['podIP']}:8080" for pod in serving()]
        awake = [metric(address, "mlfleet_awake") for address in addresses]
        assert len(awake) == 2
        assert all(awake), "both replicas have an instance of it"
        found = tenant.call("POST", "runs/search", experiment_ids=["0"], max_results=1000)
        assert {row["info"]["run_id"] for row in found.json()["runs"]} == set(runs)
        one_value_of_many_wins(tenant, runs[0])
    finally:
        scale_to_at_least(0)


def scale_to_at_least(replicas: int) -> None:
    annotations = {"autoscaling.knative.dev/min-scale": str(replicas)}
    change = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    kubectl("patch", "ksvc", "cell-0", "--type=merge", "-p", json.dumps(change))


def one_value_of_many_wins(tenant: Tenant, run: str) -> None:
    """Write a parameter with other values at once: one is acknowledged, and that one is kept."""

    def write(number: int) -> int:
        answer = tenant.call("POST", "runs/log-parameter", run_id=run, key="p", value=f"{number}")
        return answer.status_code

    with ThreadPoolExecutor(16) as threads:
        codes = list(threads.map(write, range(16)))
    assert sorted(codes) == [200] + [400] * 15
    kept = tenant.call("GET", "runs/get", run_id=run).json()["run"]["data"]["params"]
    assert kept == [{"key": "p", "value": str(codes.index(200))}]
