"""Start and stop the servers that are compared: real processes, real Postgres."""

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy.engine import make_url

from mlfleet.database.admin import Admin
from tests.differential.comparison import EXPERIMENT_IDS
from tests.differential.side import Call, Side
from tests.fixtures_postgres import free_port

START_S = 90
STOP_S = 15
ROOT = Path(__file__).parents[2]
HOT_TENANT_ID = 999_001


def clean_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without what would steer a server, and with `extra`."""
    foreign = ("MLFLOW_", "MLFLEET_", "PG", "_MLFLOW")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}", **extra}


@contextlib.contextmanager
def process(
    command: list[str], environment: Mapping[str, str], log: Path, ready_url: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own until the block ends.

    Raises:
        RuntimeError: it ended, or did not answer at `ready_url` in time; with the end of its log.
    """
    with log.open("ab") as output:
        server = subprocess.Popen(
            command, env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_until_ready(server, log, ready_url)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], log: Path, url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode}:\n{_tail(log)}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing answered at {url} within {START_S} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


def create_database(admin_uri: str, name: str) -> str:
    """Create an empty database and return its address."""
    with contextlib.closing(psycopg2.connect(admin_uri)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f'CREATE DATABASE "{name}"')
    return make_url(admin_uri).set(database=name).render_as_string(False)


def start_experiment_ids_at(database_uri: str, first: int) -> None:
    """Make the next experiment's identifier `first`, so that comparisons recognise it."""
    with contextlib.closing(psycopg2.connect(database_uri)) as connection:
        connection.autocommit = True
        connection.cursor().execute(
            f"ALTER SEQUENCE experiments_experiment_id_seq RESTART WITH {first:d}"
        )


def _driver_uri(database_uri: str) -> str:
    return make_url(database_uri).set(drivername="postgresql+psycopg2").render_as_string(False)


@contextlib.contextmanager
def stock_server(admin_uri: str, folder: Path, name: str, index: int = 0) -> Iterator[Side]:
    """Run stock `mlflow server` with a database and an artifact folder of its own.

    Args:
        index: 0 for the left side of a comparison, 1 for the right one.
    """
    database_uri = create_database(admin_uri, name)
    artifacts, port = folder / f"artifacts-{name}", free_port()
    artifacts.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", _driver_uri(database_uri)]
    command += ["--artifacts-destination", str(artifacts)]
    environment = clean_environment(
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        MLFLOW_DISABLE_TELEMETRY="true",
        # Sixteen writers would wait for each other on the default pool until they fail.
        MLFLOW_SQLALCHEMYSTORE_POOL_SIZE="40",
    )
    url = f"http://127.0.0.1:{port}"
    with process(command, environment, folder / f"{name}.log", f"{url}/health"):
        start_experiment_ids_at(database_uri, EXPERIMENT_IDS[index])
        yield Side(name, url, database_uri, places=(str(artifacts),))


@contextlib.contextmanager
def hot_server(admin_uri: str, folder: Path, source: Path | None = None) -> Iterator[Side]:
    """Run our store and hot route in front of MLflow's application.

    Args:
        source: a folder that holds another copy of the package `mlfleet`, to be used instead.
    """
    folder.mkdir(exist_ok=True)
    admin = Admin(admin_uri)
    admin.prepare()
    admin.drop(HOT_TENANT_ID)
    password = secrets.token_urlsafe(24)
    admin.clone(HOT_TENANT_ID, password)
    access = admin.access(HOT_TENANT_ID, password)
    admin.close()
    artifacts, port = folder / "artifacts-hot", free_port()
    artifacts.mkdir()
    path = [str(source)] if source else []
    environment = clean_environment(
        HOT_SERVER_DATABASE=json.dumps(dataclasses.asdict(access)),
        PYTHONPATH=os.pathsep.join([*path, str(ROOT)]),
    )
    command = [sys.executable, "-m", "tests.differential.hot_server", str(port), str(artifacts)]
    database_uri = make_url(admin_uri).set(database=access.name).render_as_string(False)
    url = f"http://127.0.0.1:{port}"
    start_experiment_ids_at(database_uri, EXPERIMENT_IDS[1])
    with process(command, environment, folder / "hot.log", f"{url}/health"):
        yield Side("hot", url, database_uri, places=(str(artifacts),))


@contextlib.contextmanager
def fleet_tenant(folder: Path) -> Iterator[Side]:
    """Run `mlfleet up` on a data folder of its own, with one tenant."""
    data, port = folder / "fleet", free_port()
    mlfleet = [str(Path(sys.executable).with_name("mlfleet"))]
    environment = clean_environment(MLFLEET_DATA=str(data))
    url = f"http://127.0.0.1:{port}"
    command = [*mlfleet, "up", "--port", str(port)]
    with process(command, environment, folder / "fleet.log", f"{url}/readyz"):

        def ask(*arguments: str) -> Any:
            done = subprocess.run(
                [*mlfleet, *arguments, "--json"], env=environment, capture_output=True, check=True
            )
            return json.loads(done.stdout)

        tenant = ask("tenant", "create", "equal")
        # An instance always hears `Host: localhost`; a redirect's page shows it.
        places = (str(data / "artifacts"), "http://localhost")
        side = Side("fleet", tenant["url"], "", tenant["token"], places)
        # The first call makes the tenant's database.
        assert (
            side.send(Call("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")).status == 200
        )
        admin_uri = ask("status")["database"]["admin_uri"]
        side.database_uri = _tenant_database(admin_uri)
        start_experiment_ids_at(side.database_uri, EXPERIMENT_IDS[1])
        yield side


def _tenant_database(admin_uri: str) -> str:
    """Return the address of the only tenant's database."""
    with contextlib.closing(psycopg2.connect(admin_uri)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT datname FROM pg_database WHERE datname ~ '^mlfleet_t[0-9]+$'")
        ((name,),) = cursor.fetchall()
    return make_url(admin_uri).set(database=name).render_as_string(False)
