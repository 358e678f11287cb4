"""Real instances: forked from one warmed zygote, on a real Postgres, confined, spoken to as the
gateway does it."""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlfleet.cell import protocol
from mlfleet.cell.instance import memory_of
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.database.admin import Admin
from tests.cell.zygotes import TestInstance, TestZygote, running_zygote

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MIB = 1024 * 1024
Wake = Callable[..., TestInstance]


@pytest.fixture(scope="module")
def zygote(admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestZygote]:
    """A zygote that has warmed MLflow."""
    folder = tmp_path_factory.mktemp("zygote")
    with (
        admin.throwaway() as database,
        running_zygote(database, folder / "zygote.log", temporary=folder) as (running, _),
    ):
        yield running


@pytest.fixture
def wake(admin: Admin, zygote: TestZygote, tmp_path: Path) -> Iterator[Wake]:
    """Wake tenant 9100, with another memory limit if wanted."""
    admin.clone(9100, "password")
    awake: list[TestInstance] = []

    def fork(memory_bytes: int = 0) -> TestInstance:
        root = tmp_path / "artifacts"
        root.mkdir(exist_ok=True)
        config = InstanceConfig(
            tenant="tenant",
            database=admin.access(9100, "password"),
            artifact_root=str(root),
            kek_passphrase="secret",
            memory_bytes=memory_bytes,
            artifact_bytes=0,
            database_idle_s=5,
            database_wait_s=5,
        )
        awake.append(zygote.fork(config, tmp_path / "tenant.log"))
        return awake[-1]

    yield fork
    for instance in awake:
        instance.control.close()
        zygote.wait_for_exit(instance.pid)


def create_run(instance: TestInstance) -> str:
    status, _, body = instance.call("POST", f"{API}/runs/create", {"experiment_id": "0"})
    assert status == 200, body
    return str(json.loads(body)["run"]["info"]["run_id"])


def test_a_request_sent_before_the_instance_is_up_is_answered(wake: Wake) -> None:
    instance = wake()
    run_id = create_run(instance)
    assert instance.message() == {"ready": True}
    status, _, body = instance.call("GET", f"{API}/runs/get?run_id={run_id}")
    assert status == 200
    assert json.loads(body)["run"]["info"]["status"] == "RUNNING"


def test_stock_answers_carry_stock_headers(wake: Wake) -> None:
    instance = wake()
    for path in ("/health", "/version", "/", f"{API}/runs/get?run_id=none"):
        _, headers, _ = instance.call("GET", path)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "SAMEORIGIN"
    status, headers, body = instance.call("OPTIONS", f"{API}/runs/create")
    assert (status, body) == (204, b"")


def test_a_named_workspace_gets_stock_refusal(wake: Wake) -> None:
    headers = {"X-MLFLOW-WORKSPACE": "other"}
    status, _, body = wake().call("GET", f"{API}/experiments/get?experiment_id=0", **headers)
    assert status == 500, body
    assert json.loads(body)["error_code"] == "FEATURE_DISABLED"


def test_sleep_finishes_what_is_in_flight(wake: Wake, zygote: TestZygote) -> None:
    instance = wake()
    connection = instance.connect()
    create_run(instance)
    # Half a request is under way when the order comes; its rest follows.
    body = json.dumps({"experiment_id": "0"}).encode()
    connection.putrequest("POST", f"{API}/runs/create")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(len(body)))
    connection.endheaders(body[:5])
    instance.call("GET", "/health")
    instance.control.send(protocol.SLEEP)
    connection.send(body[5:])
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()
    connection.close()
    assert zygote.wait_for_exit(instance.pid) == 0


@pytest.mark.parametrize("how", ["sleep", "end of the socket", "SIGTERM"])
def test_an_instance_ends_by_itself(wake: Wake, zygote: TestZygote, how: str) -> None:
    instance = wake()
    idle = instance.connect()
    create_run(instance)
    if how == "sleep":
        instance.control.send(protocol.SLEEP)
    elif how == "SIGTERM":
        os.kill(instance.pid, signal.SIGTERM)
    else:
        instance.control.close()
    assert zygote.wait_for_exit(instance.pid) == 0
    idle.close()


def test_the_zygote_reports_a_killed_instance_and_removes_its_files(
    wake: Wake, zygote: TestZygote
) -> None:
    instance = wake()
    create_run(instance)
    os.kill(instance.pid, signal.SIGKILL)
    assert os.WTERMSIG(zygote.wait_for_exit(instance.pid)) == signal.SIGKILL


def test_memory_is_told_on_request(wake: Wake) -> None:
    instance = wake()
    create_run(instance)
    assert instance.message() == {"ready": True}
    instance.control.send(protocol.MEMORY)
    told = instance.message()["memory"]
    assert told == pytest.approx(memory_of(str(instance.pid)), rel=0.2)


def test_a_large_artifact_streams_in_constant_memory(wake: Wake, tmp_path: Path) -> None:
    instance = wake()
    create_run(instance)
    before = memory_of(str(instance.pid))["private_bytes"]
    size, block = 256 * MIB, os.urandom(MIB)
    connection = instance.connect()
    path = f"{ARTIFACTS}/0/large.bin"
    blocks = (block for _ in range(size // MIB))
    connection.request("PUT", path, blocks, {"content-length": str(size)})
    assert connection.getresponse().read() == b""
    connection.request("GET", path)
    received, digest = 0, hashlib.sha256()
    answer = connection.getresponse()
    while part := answer.read(MIB):
        received += len(part)
        digest.update(part)
    connection.close()
    expected = hashlib.sha256()
    for _ in range(size // MIB):
        expected.update(block)
    assert (received, digest.hexdigest()) == (size, expected.hexdigest())
    assert memory_of(str(instance.pid))["private_bytes"] - before < 50 * MIB


def test_a_request_that_takes_too_much_memory_gets_429_and_a_fresh_instance_follows(
    wake: Wake, zygote: TestZygote
) -> None:
    instance = wake(memory_bytes=64 * MIB)
    create_run(instance)
    assert instance.message() == {"ready": True}
    # Flask reads the whole body and parses it; stock has no limit on its size.
    huge = json.dumps({"experiment_ids": ["0"] * 12_000_000}).encode()
    status, headers, body = instance.call("POST", f"{API}/runs/search", huge)
    assert (status, headers["retry-after"]) == (429, "1"), body
    assert b"memory limit" in body
    assert instance.message() == {}
    assert zygote.wait_for_exit(instance.pid) == 0
    create_run(wake(memory_bytes=64 * MIB))


def test_requests_at_once_are_all_answered(wake: Wake) -> None:
    instance = wake()
    statuses: list[int] = []

    def search() -> None:
        status, _, _ = instance.call("POST", f"{API}/runs/search", {"experiment_ids": ["0"]})
        statuses.append(status)

    threads = [threading.Thread(target=search) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [200] * 20


def test_a_client_that_leaves_in_the_middle_does_no_harm(wake: Wake) -> None:
    instance = wake()
    connection = instance.connect()
    connection.putrequest("POST", f"{API}/runs/search")
    connection.putheader("content-length", "1000")
    connection.endheaders(b"{")
    connection.close()
    create_run(instance)
