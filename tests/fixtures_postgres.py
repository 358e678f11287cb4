"""Real Postgres for tests: one embedded server for the whole run.

`postgres` is the superuser's address; `admin`, `catalogue` and `provisioner` are ready on it. Tests
share the server and clean nothing: whoever needs an untouched one asks for `postgres_factory`.
"""

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.provision import Provisioner
from mlfleet.database.admin import Admin
from mlfleet.database.embedded import EmbeddedPostgres
from mlfleet.database.keys import FleetKey

_given: set[int] = set()
_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
PORTS = range(20000 + _process, 32000, _processes)
"""A pytest that runs beside this one gives others."""


def free_port() -> int:
    """Return a port between 20000 and 32000 that nobody listens on, and that was not given yet."""
    for port in random.SystemRandom().sample(PORTS, 50):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise RuntimeError("no free port between 20000 and 32000")


@pytest.fixture(scope="session")
def postgres_factory(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Start further servers: `postgres_factory(max_connections=40)`; stopped at the end."""
    servers: list[EmbeddedPostgres] = []

    def start(max_connections: int = 300, folder: Path | None = None) -> EmbeddedPostgres:
        folder = folder or tmp_path_factory.mktemp("postgres")
        server = EmbeddedPostgres(
            folder / "data", free_port(), max_connections, folder / "postgres.log"
        )
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def postgres_server(postgres_factory: Callable[..., EmbeddedPostgres]) -> EmbeddedPostgres:
    """The server behind `postgres`."""
    return postgres_factory()


@pytest.fixture(scope="session")
def postgres(postgres_server: EmbeddedPostgres) -> str:
    """Superuser's address of a running embedded Postgres: postgresql://…/postgres."""
    return postgres_server.admin_uri


@pytest.fixture(scope="session")
def admin(postgres: str) -> Iterator[Admin]:
    """An administrator whose template is ready: `admin.clone(id, password)`."""
    administrator = Admin(postgres)
    administrator.prepare()
    yield administrator
    administrator.close()


@pytest.fixture(scope="session")
def catalogue(postgres: str) -> Iterator[Catalogue]:
    """A catalogue that all tests of the run share: use names of your own."""
    shared = Catalogue(postgres)
    shared.prepare()
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def provisioner(catalogue: Catalogue, admin: Admin) -> Provisioner:
    """Catalogue and administrator together: `provisioner.ensure_database(name)`."""
    return Provisioner(catalogue, admin, FleetKey(bytes(range(32))))
