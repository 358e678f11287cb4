"""A process that warms up on one database and serves another, and a pooler in between."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from mlfleet.database.access import DatabaseAccess
from tests.fixtures_postgres import free_port
from tests.store.conftest import Instance, connect

WARM_AND_FORK = """
import json, os, sys, threading
from mlfleet.cell import application
application.prepare_environment()
from mlflow.server import app
from mlfleet.database.access import DatabaseAccess
from mlfleet.store.installation import StoreConfig, connection, install, reset

warm, tenant = (DatabaseAccess(**fields) for fields in json.loads(sys.argv[1]))

def create():
    client = app.test_client()
    answer = client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"})
    assert answer.status_code == 200, answer.data
    assert client.post("/api/2.0/mlflow/registered-models/create", json={"name": "m"}).json

install(StoreConfig(warm, "/tmp/nowhere-a", 0, "warm"))
create()
reset()
assert not connection().is_open
assert threading.enumerate() == [threading.main_thread()]
if os.fork() == 0:
    install(StoreConfig(tenant, "/tmp/nowhere-b", 0, "tenant"))
    statements = []
    import sqlalchemy
    from mlfleet.store.installation import engine
    sqlalchemy.event.listen(engine(), "before_cursor_execute", lambda *e: statements.append(e[2]))
    create()
    # Nothing about versions, settings or tables is asked again: the engine was inherited.
    assert not [s for s in statements if "pg_catalog" in s or "version()" in s], statements
    assert os.environ["MLFLOW_CRYPTO_KEK_PASSPHRASE"] == "tenant"
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def count(access: DatabaseAccess, table: str) -> int:
    connection = connect(access)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        found: int = cursor.fetchone()[0]
    connection.close()
    return found


def test_a_fork_serves_its_tenant_and_not_the_database_it_was_warmed_with(
    new_database: Callable[[], DatabaseAccess],
) -> None:
    import dataclasses
    import json

    warm, tenant = new_database(), new_database()
    argument = json.dumps([dataclasses.asdict(warm), dataclasses.asdict(tenant)])
    command = [sys.executable, "-W", "ignore", "-c", WARM_AND_FORK, argument]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for access in (warm, tenant):
        assert (count(access, "runs"), count(access, "registered_models")) == (1, 1)


@pytest.fixture
def pooled(new_database: Callable[[], DatabaseAccess], tmp_path: Path) -> Iterator[DatabaseAccess]:
    """A tenant's database behind PgBouncer in transaction mode, with two server connections."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    access, port = new_database(), free_port()
    (tmp_path / "users.txt").write_text(f'"{access.user}" "{access.password}"\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={access.host} port={access.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {tmp_path}/users.txt\n"
        "pool_mode = transaction\ndefault_pool_size = 2\n"
    )
    command = [program, str(tmp_path / "pgbouncer.ini")]
    if os.geteuid() == 0:
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents:
            if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
                parent.chmod(0o755)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    reached = DatabaseAccess("127.0.0.1", port, access.name, access.user, access.password)
    deadline = time.monotonic() + 20
    while True:
        try:
            connect(reached).close()
            break
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
    yield reached
    process.terminate()
    process.wait()
    log.close()


def test_hot_and_stock_work_through_a_transaction_pooler(
    pooled: DatabaseAccess, new_instance: Callable[..., Instance]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    instance = new_instance(pooled)
    run_id = instance.new_run()

    def send(n: int) -> tuple[int, str | None]:
        metrics = [{"key": "m", "value": n, "timestamp": 1, "step": n}]
        fields = {"run_id": run_id, "metrics": metrics, "params": [{"key": f"p{n}", "value": "1"}]}
        answer = instance.post("runs/log-batch", fields, stock=n % 4 == 0)
        return answer.status, answer.route

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(80)))
    assert {status for status, _ in answers} == {200}
    assert [route for _, route in answers].count("hot") == 60
    assert instance.query("SELECT count(*) FROM params WHERE run_uuid = %s", run_id) == [(80,)]
    answer = instance.post("runs/search", {"experiment_ids": ["0"]})
    assert len(answer.json()["runs"][0]["data"]["params"]) == 80
    instance.stop()
