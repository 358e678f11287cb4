"""Clones on a real server: closed to others, one per tenant, as superuser and as less."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2 import errors as pg

from mlfleet.database import template, warm
from mlfleet.database.access import DatabaseAccess
from mlfleet.database.admin import Admin, database_name
from mlfleet.database.connect import Connection, connect
from mlfleet.database.embedded import EmbeddedPostgres
from mlfleet.errors import DatabaseAwayError, FleetError


def enter(access: DatabaseAccess, database: str | None = None) -> Connection:
    connection = psycopg2.connect(
        access.uri.replace("+psycopg2", ""), dbname=database or access.name
    )
    connection.autocommit = True
    return connection


def rows(connection: Connection, statement: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


@pytest.fixture(scope="module")
def superuser(postgres: str) -> Iterator[Connection]:
    connection = connect(postgres)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def managed(postgres_factory: Callable[..., EmbeddedPostgres]) -> Iterator[Admin]:
    """An administrator as a managed Postgres gives it: no superuser, owns its own database."""
    uri = postgres_factory(max_connections=40).admin_uri
    server = connect(uri)
    with server.cursor() as cursor:
        cursor.execute("CREATE ROLE manager LOGIN CREATEDB CREATEROLE PASSWORD 'manager'")
        cursor.execute("CREATE DATABASE managed OWNER manager")
    server.close()
    port = urlsplit(uri).port
    admin = Admin(f"postgresql://manager:manager@127.0.0.1:{port}/managed")
    admin.prepare()
    yield admin
    admin.close()


@pytest.fixture(params=["superuser", "managed"])
def any_admin(request: pytest.FixtureRequest) -> Admin:
    chosen: Admin = request.getfixturevalue("admin" if request.param == "superuser" else "managed")
    return chosen


def test_a_clone_is_made_used_rekeyed_and_dropped(any_admin: Admin) -> None:
    assert any_admin.clone(101, "first")
    assert not any_admin.clone(101, "first")
    connection = enter(any_admin.access(101, "first"))
    assert rows(connection, "SELECT name, artifact_location FROM experiments") == [
        ("Default", "mlflow-artifacts:/0")
    ]
    any_admin.set_password(101, "second")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        enter(any_admin.access(101, "first"))
    enter(any_admin.access(101, "second")).close()
    any_admin.drop(101)  # while `connection` is open
    with pytest.raises(psycopg2.OperationalError):
        rows(connection, "SELECT 1")
    assert not any_admin.exists(101)
    any_admin.drop(101)
    with any_admin.session() as session:
        assert rows(session, "SELECT FROM pg_roles WHERE rolname = 'mlfleet_t101'") == []


def test_a_tenant_writes_rows_but_not_the_schema(any_admin: Admin) -> None:
    any_admin.clone(102, "pw")
    connection = enter(any_admin.access(102, "pw"))
    rows(connection, "INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', 0) RETURNING 1")
    for forbidden in (
        "CREATE TABLE mine (n int)",
        "CREATE TEMPORARY TABLE mine (n int)",
        "DROP TABLE runs",
        "TRUNCATE runs CASCADE",
        "ALTER TABLE runs DISABLE TRIGGER ALL",
        "UPDATE alembic_version SET version_num = 'x'",
        "CREATE SCHEMA mine",
        "SELECT * FROM pg_authid",
        "SELECT pg_read_file('PG_VERSION')",
        "COPY runs TO PROGRAM 'id'",
        "SET ROLE postgres",
        "CREATE ROLE another",
        "CREATE DATABASE another",
    ):
        with pytest.raises((pg.InsufficientPrivilege, pg.InvalidParameterValue)):
            rows(connection, forbidden)
    connection.close()


def test_only_its_own_role_gets_into_a_clone_and_a_role_gets_nowhere_else(
    postgres_factory: Callable[..., EmbeddedPostgres],
) -> None:
    uri = postgres_factory(max_connections=40).admin_uri
    admin, superuser = Admin(uri), connect(uri)
    assert admin.prepare() == []
    admin.clone(103, "a")
    admin.clone(104, "b")
    assert admin.prepare() == []
    others = rows(superuser, "SELECT datname FROM pg_database WHERE datname <> 'mlfleet_t103'")
    assert {"postgres", "template1", "mlfleet_t104"} <= {str(name) for (name,) in others}
    for (name,) in others:
        with pytest.raises(psycopg2.OperationalError):
            enter(admin.access(103, "a"), str(name))
    enter(admin.access(103, "a")).close()
    superuser.close()
    admin.close()


def test_what_a_server_leaves_open_is_said(managed: Admin) -> None:
    """Only its owner can close `postgres`: a managed administrator must be told."""
    left_open = managed.prepare()
    assert any("'postgres'" in line and "REVOKE CONNECT" in line for line in left_open)


def test_a_clone_is_closed_from_its_first_moment(admin: Admin, superuser: Connection) -> None:
    """Look at the catalogue's rows as each statement commits: open to PUBLIC means allowed in."""
    seen: list[tuple[object, ...]] = []
    watching = threading.Event()
    watching.set()

    def watch() -> None:
        while watching.is_set():
            seen.extend(
                rows(
                    superuser,
                    "SELECT datallowconn, has_database_privilege('mlfleet_tenant', oid, 'CONNECT')"
                    " FROM pg_database WHERE datname LIKE 'mlfleet_t11_'",
                )
            )

    watcher = threading.Thread(target=watch)
    watcher.start()
    for tenant_id in range(110, 116):
        admin.clone(tenant_id, "pw")
    watching.clear()
    watcher.join()
    assert (False, True) in seen, "the watcher was too slow to see a clone being closed"
    assert (True, False) in seen
    assert (True, True) not in seen


def test_two_at_once_make_one_database(postgres: str) -> None:
    admins = [Admin(postgres) for _ in range(4)]
    admins[0].prepare()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda admin: admin.clone(120, "pw"), admins))
    assert sorted(made) == [False, False, False, True]
    enter(admins[0].access(120, "pw")).close()
    for admin in admins:
        admin.close()


def test_a_clone_that_was_interrupted_is_finished(admin: Admin, superuser: Connection) -> None:
    source = template.template_name(template.mlflow_version())
    with superuser.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE mlfleet_t121 TEMPLATE {source} ALLOW_CONNECTIONS false")
    admin.clone(121, "pw")
    enter(admin.access(121, "pw")).close()


def test_a_session_in_the_template_delays_a_clone_and_does_not_fail_it(
    admin: Admin, superuser: Connection, postgres: str
) -> None:
    source = template.template_name(template.mlflow_version())
    with superuser.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {source} ALLOW_CONNECTIONS true")
    try:
        intruder = connect(postgres, source)
        leave = threading.Timer(5.5, intruder.close)  # Postgres itself waits for 5 s
        leave.start()
        began = time.monotonic()
        assert admin.clone(122, "pw")
        assert time.monotonic() - began > 5
        leave.join()
    finally:
        with superuser.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {source} ALLOW_CONNECTIONS false")


def test_the_warm_up_database_is_kept_and_its_role_goes(any_admin: Admin) -> None:
    with any_admin.throwaway() as access:
        connection = enter(access)
        assert ("Default",) in rows(connection, "SELECT name FROM experiments")
        rows(connection, "INSERT INTO registered_models (name) VALUES ('kept') RETURNING 1")
        # still open when it is given back, as a zygote's may be
    with pytest.raises(psycopg2.OperationalError):
        rows(connection, "SELECT 1")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        enter(access)
    with any_admin.session() as session:
        assert rows(session, "SELECT FROM pg_roles WHERE rolname ~ '^mlfleet_warm_'") == []
    with any_admin.throwaway() as second, any_admin.throwaway() as third:
        assert second.name == third.name == access.name
        assert len({access.user, second.user, third.user}) == 3
        connection = enter(third)
        # Other cells of this server may have warmed up in it, too.
        assert ("kept",) in rows(connection, "SELECT name FROM registered_models")
        rows(connection, "DELETE FROM registered_models WHERE name = 'kept' RETURNING 1")
        connection.close()


def test_warming_up_never_waits_for_the_disk_and_a_tenant_always_does(any_admin: Admin) -> None:
    any_admin.clone(106, "pw")
    with any_admin.throwaway() as access:
        warm, tenant = enter(access), enter(any_admin.access(106, "pw"))
        assert rows(warm, "SHOW synchronous_commit") == [("off",)]
        assert rows(tenant, "SHOW synchronous_commit") == [("on",)]
        tenant.close()
    any_admin.drop(106)


def test_a_role_for_warming_up_enters_no_other_database_and_ends_by_itself(
    admin: Admin, superuser: Connection
) -> None:
    admin.clone(105, "pw")
    with admin.throwaway() as access:
        for other in ("postgres", "template1", "mlfleet_t105"):
            with pytest.raises(psycopg2.OperationalError, match="permission denied"):
                enter(access, other)
        with pytest.raises(psycopg2.OperationalError, match="permission denied"):
            enter(admin.access(105, "pw"), access.name)
        ends = rows(
            superuser,
            f"SELECT rolvaliduntil < now() + interval '61 min' FROM pg_roles"
            f" WHERE rolname = '{access.user}'",
        )
        assert ends == [(True,)]


def test_the_role_of_a_killed_start_is_swept_away(admin: Admin, superuser: Connection) -> None:
    with superuser.cursor() as cursor:
        cursor.execute("CREATE ROLE mlfleet_warm_1700000000_dead LOGIN")
    with admin.throwaway():
        pass
    assert (
        rows(superuser, "SELECT FROM pg_roles WHERE rolname = 'mlfleet_warm_1700000000_dead'") == []
    )


def test_the_warm_up_database_does_not_grow_without_bound(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lend_after_writing(lent_twice: bool) -> list[tuple[object, ...]]:
        with admin.throwaway() as first:
            connection = enter(first)
            rows(connection, "INSERT INTO experiments (experiment_id, name, workspace)"
                 " VALUES (77, 'large', 'default') ON CONFLICT DO NOTHING RETURNING 1")  # fmt: skip
            connection.close()
            if lent_twice:
                with admin.throwaway() as second:
                    return contents(second)
        with admin.throwaway() as second:
            return contents(second)

    def contents(access: DatabaseAccess) -> list[tuple[object, ...]]:
        connection = enter(access)
        found = rows(connection, "SELECT name FROM experiments ORDER BY 1")
        connection.close()
        return found

    assert ("large",) in lend_after_writing(lent_twice=False)
    monkeypatch.setattr(warm, "KEPT_BYTES", 1)
    assert ("large",) in lend_after_writing(lent_twice=True), "another zygote was using it"
    assert lend_after_writing(lent_twice=False) == [("Default",)]


def test_two_cells_that_start_at_once_share_the_warm_up_database(
    postgres_factory: Callable[..., EmbeddedPostgres],
) -> None:
    uri = postgres_factory(max_connections=30).admin_uri
    Admin(uri).prepare()

    def start(_: int) -> str:
        with Admin(uri).throwaway() as access:
            enter(access).close()
            return access.name

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, range(4)))) == 1


def test_a_clone_leaves_nothing_for_the_next_checkpoint(
    admin: Admin, superuser: Connection
) -> None:
    """What a checkpoint has left to write and sync is what the next DROP DATABASE waits for."""
    written = "SELECT buffers_written FROM pg_stat_checkpointer"
    rows(superuser, "SELECT pg_sleep(0.1)")
    with superuser.cursor() as cursor:
        cursor.execute("CHECKPOINT")
    ((before,),) = rows(superuser, written)
    for tenant_id in (130, 131, 132):
        assert admin.clone(tenant_id, "pw")
    admin.drop(132)
    ((after,),) = rows(superuser, written)
    # Copied through shared buffers, each would leave some 900 pages.
    assert int(str(after)) - int(str(before)) < 900


def test_a_missing_template_says_what_to_run(
    postgres_factory: Callable[..., EmbeddedPostgres],
) -> None:
    admin = Admin(postgres_factory(max_connections=20).admin_uri)
    with admin.session() as session, session.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {template.GROUP_ROLE}")
    with pytest.raises(FleetError, match="mlfleet database prepare"):
        admin.clone(1, "pw")
    admin.close()


def test_an_administrator_without_rights_is_told_which(admin: Admin) -> None:
    admin.clone(123, "pw")
    weak = Admin(admin.access(123, "pw").uri)
    with pytest.raises(FleetError, match="CREATEDB and CREATEROLE"):
        weak.clone(124, "pw")
    weak.close()


def test_a_server_that_is_away_is_a_reason_to_try_again() -> None:
    with pytest.raises(DatabaseAwayError, match="refused"):
        Admin("postgresql://postgres:x@127.0.0.1:19/postgres").exists(1)


def test_survives_a_restart_of_the_server(
    postgres_factory: Callable[..., EmbeddedPostgres],
) -> None:
    server = postgres_factory(max_connections=20)
    admin = Admin(server.admin_uri)
    admin.prepare()
    server.stop()
    with pytest.raises(DatabaseAwayError):
        admin.clone(1, "pw")
    server.start()
    assert admin.clone(1, "pw")
    admin.close()


def test_a_password_never_reaches_the_server_in_the_clear(
    postgres_factory: Callable[..., EmbeddedPostgres],
) -> None:
    server = postgres_factory(max_connections=20)
    admin = Admin(server.admin_uri)
    admin.prepare()
    with admin.session() as session, session.cursor() as cursor:
        cursor.execute("ALTER SYSTEM SET log_statement = 'all'")
        cursor.execute("SELECT pg_reload_conf()")
    time.sleep(0.2)  # a reload has no answer
    admin.clone(1, "hunter2hunter2")
    admin.set_password(1, "hunter2hunter3")
    written = server.log.read_text()
    assert database_name(1) in written
    assert "hunter2" not in written
    admin.close()
