"""PgBouncer with the very configuration of the component, between a tenant and a real Postgres."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from mlfleet.database.admin import Admin
from tests.fixtures_postgres import free_port

INI = Path(__file__).resolve().parents[2] / "knative" / "components" / "pooler" / "pgbouncer.ini"
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
TENANT, PASSWORD = 880_001, "derived-and-never-told-to-pgbouncer"


@pytest.fixture
def port(postgres: str, tmp_path: Path) -> Iterator[int]:
    """Start PgBouncer; only addresses and the place of its file are changed."""
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    server, port = urlsplit(postgres), free_port()
    users, configuration = tmp_path / "users.txt", tmp_path / "pgbouncer.ini"
    users.write_text(f'"{server.username}" "{server.password}"\n')
    text = INI.read_text()
    for here, there in (
        ("host=postgres port=5432", f"host={server.hostname} port={server.port}"),
        ("auth_user=postgres", f"auth_user={server.username}"),
        ("listen_port = 6432", f"listen_port = {port}"),
        ("/run/pgbouncer/users.txt", str(users)),
    ):
        assert here in text
        text = text.replace(here, there)
    configuration.write_text(text)
    command = [PROGRAM, str(configuration)]
    if os.geteuid() == 0:  # it refuses to run as root
        for path in (users, configuration):
            shutil.chown(path, 65534)
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(0o755)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def tenant(admin: Admin) -> Iterator[str]:
    """A tenant's database as a cell makes it; its name is its role's, too."""
    admin.clone(TENANT, PASSWORD)
    yield admin.access(TENANT, PASSWORD).name
    admin.drop(TENANT)


def connect(port: int, user: str, password: str, database: str) -> psycopg2.extensions.connection:
    """Connect; PgBouncer may need a moment to start."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return psycopg2.connect(
                host="127.0.0.1", port=port, user=user, password=password, dbname=database
            )
        except psycopg2.OperationalError as exc:
            if "Connection refused" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_a_tenant_logs_in_with_a_password_that_pgbouncer_was_never_told(
    port: int, tenant: str
) -> None:
    connection = connect(port, tenant, PASSWORD, tenant)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database(), count(*) FROM experiments")
        assert cursor.fetchone() == (tenant, tenant, 1)
    connection.close()


def test_a_wrong_password_and_another_tenants_database_are_refused(
    port: int, tenant: str, admin: Admin
) -> None:
    with pytest.raises(psycopg2.OperationalError, match="SASL authentication failed"):
        connect(port, tenant, "wrong", tenant)
    admin.clone(TENANT + 1, "other")
    try:
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            connect(port, tenant, PASSWORD, admin.access(TENANT + 1, "other").name)
    finally:
        admin.drop(TENANT + 1)


def test_a_rotated_password_is_known_at_once(port: int, tenant: str, admin: Admin) -> None:
    connect(port, tenant, PASSWORD, tenant).close()
    admin.set_password(TENANT, "rotated")
    connection = connect(port, tenant, "rotated", tenant)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()
    with pytest.raises(psycopg2.OperationalError, match="SASL authentication failed"):
        connect(port, tenant, PASSWORD, tenant)


def test_its_own_connections_to_tenants_databases_go_soon(
    port: int, tenant: str, postgres: str
) -> None:
    connect(port, tenant, PASSWORD, tenant).close()
    watching = psycopg2.connect(postgres)
    watching.autocommit = True
    question = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    deadline = time.monotonic() + 25
    with watching.cursor() as cursor:
        cursor.execute(question, (tenant,))
        assert cursor.fetchone() != (0,)
        while cursor.execute(question, (tenant,)) or cursor.fetchone() != (0,):
            assert time.monotonic() < deadline, "they stay, and count against max_connections"
            time.sleep(0.2)
    watching.close()
