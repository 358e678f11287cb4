"""A real Postgres with tenants' databases, and real instances in front of them."""

import contextlib
import dataclasses
import http.client
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from mlfleet.database.access import DatabaseAccess
from mlfleet.database.admin import Admin
from tests.fixtures_postgres import free_port

_ids = itertools.count(1)


@dataclasses.dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def route(self) -> str | None:
        return self.headers.get("x-mlfleet-route")

    def json(self) -> Any:
        return json.loads(self.body)


class Instance:
    """A running instance and its database."""

    def __init__(self, access: DatabaseAccess, root: str, **options: Any) -> None:
        self.access = access
        self.port = free_port()
        config = {
            "database": dataclasses.asdict(access),
            "artifact_root": root,
            "artifact_bytes": 0,
            "kek_passphrase": "test",
            **options,
        }
        command = [sys.executable, "-W", "ignore", "-m", "tests.store.serve"]
        self.process = subprocess.Popen([*command, str(self.port), json.dumps(config)])
        self.wait_until_up()

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.call("GET", "/health")
                return
            assert self.process.poll() is None, "the instance ended"
            time.sleep(0.05)
        raise AssertionError("the instance did not come up")

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            client.request(method, path, body, sent)
            answer = client.getresponse()
            lower = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, lower, answer.read())
        finally:
            client.close()

    def post(self, name: str, fields: Any, stock: bool = False) -> Answer:
        """Call `/api/2.0/mlflow/NAME`; `fields` may be bytes, to send what is no JSON."""
        body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        prefix = "/stock" if stock else ""
        path = f"{prefix}/api/2.0/mlflow/{name}"
        return self.call("POST", path, body, content_type="application/json")

    def new_run(self, stock: bool = False) -> str:
        answer = self.post("runs/create", {"experiment_id": "0", "start_time": 1}, stock)
        run_id: str = answer.json()["run"]["info"]["run_id"]
        return run_id

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(connect(self.access)) as connection, connection.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def connect(access: DatabaseAccess) -> Any:
    """Open a second connection to a tenant's database, as its own role."""
    connection = psycopg2.connect(
        host=access.host,
        port=access.port,
        dbname=access.name,
        user=access.user,
        password=access.password,
    )
    connection.autocommit = True
    return connection


@pytest.fixture(scope="session")
def admin(postgres: str) -> Admin:
    admin = Admin(postgres)
    admin.prepare()
    return admin


@pytest.fixture(scope="session")
def new_database(admin: Admin) -> Callable[[], DatabaseAccess]:
    """Clone the template for one more tenant."""

    def make() -> DatabaseAccess:
        tenant_id = 7000 + next(_ids)
        admin.clone(tenant_id, "secret")
        return admin.access(tenant_id, "secret")

    return make


@pytest.fixture(scope="session")
def new_instance(
    new_database: Callable[[], DatabaseAccess], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Instance]]:
    """Start instances, each with a database and an artifact root of its own."""
    instances: list[Instance] = []

    def start(
        access: DatabaseAccess | None = None, root: Path | str | None = None, **options: Any
    ) -> Instance:
        folder = str(root or tmp_path_factory.mktemp("artifacts"))
        instances.append(Instance(access or new_database(), folder, **options))
        return instances[-1]

    yield start
    for instance in instances:
        instance.stop()


@pytest.fixture(scope="session")
def instance(new_instance: Callable[..., Instance]) -> Instance:
    """One instance that tests share; each test makes runs of its own."""
    return new_instance()
