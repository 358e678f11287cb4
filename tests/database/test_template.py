"""The template: the shipped schema equals MLflow's own migrations; the outbox records changes."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest

from mlfleet.database import template
from mlfleet.database.admin import Admin
from mlfleet.database.connect import Connection, connect

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_schema.py"


@pytest.fixture(scope="module")
def make_schema() -> Iterator[object]:
    spec = importlib.util.spec_from_file_location("make_schema", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_schema"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make_schema"]


def test_the_shipped_schema_is_what_mlflows_migrations_make(postgres: str, make_schema) -> None:  # type: ignore[no-untyped-def]
    server = connect(postgres)
    with server.cursor() as cursor:
        cursor.execute("CREATE DATABASE by_migrations TEMPLATE template0")
        cursor.execute("CREATE DATABASE by_file TEMPLATE template0")
    template.run_migrations(postgres, "by_migrations", template.mlflow_version())
    shipped = (
        SCRIPT.parents[1] / f"src/mlfleet/database/schema/mlflow_{template.mlflow_version()}.sql"
    )
    from_file = connect(postgres, "by_file")
    with from_file.cursor() as cursor:
        cursor.execute(shipped.read_text())
    from_file.close()
    server.close()
    migrated = make_schema.schema(postgres, "by_migrations")
    assert shipped.read_text() == migrated
    assert plain(make_schema.schema(postgres, "by_file")) == plain(migrated)


def plain(dumped: str) -> list[str]:
    """Drop the casts of CHECK … = ANY (…): Postgres moves them when it reads its own dump."""
    return [
        re.sub(r"[()]|::text(\[\])?", "", line) if "= ANY (" in line else line
        for line in dumped.splitlines()
    ]


def test_two_that_prepare_at_once_make_one_template(postgres_factory) -> None:  # type: ignore[no-untyped-def]
    uri = postgres_factory(max_connections=30).admin_uri
    with ThreadPoolExecutor(4) as pool:
        assert all(not left for left in pool.map(lambda _: Admin(uri).prepare(), range(4)))
    server = connect(uri)
    with server.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'mlfleet%'")
        assert cursor.fetchall() == [(template.template_name(template.mlflow_version()),)]
    server.close()


def test_nobody_gets_into_the_template(postgres: str, admin: Admin) -> None:
    name = template.template_name(template.mlflow_version())
    with pytest.raises(psycopg2.OperationalError, match="not currently accepting connections"):
        psycopg2.connect(postgres, dbname=name)


def test_an_interrupted_preparation_is_started_afresh(postgres_factory) -> None:  # type: ignore[no-untyped-def]
    uri = postgres_factory(max_connections=30).admin_uri
    name = template.template_name(template.mlflow_version())
    server = connect(uri)
    with server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}_new")
    server.close()
    admin = Admin(uri)
    admin.prepare()
    assert admin.clone(1, "pw")
    admin.close()


@pytest.fixture(scope="module")
def tenant(admin: Admin) -> Iterator[Connection]:
    admin.clone(900_001, "outbox")
    connection = psycopg2.connect(admin.access(900_001, "outbox").uri.replace("+psycopg2", ""))
    connection.autocommit = True
    yield connection
    connection.close()


def recorded(connection: Connection, *statements: str) -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM mlfleet_outbox")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("SELECT kind, model_name FROM mlfleet_outbox ORDER BY id")
        return cursor.fetchall()


def test_each_registry_change_is_recorded_once(tenant: Connection) -> None:
    model = "INSERT INTO registered_models (name, workspace) VALUES ('m', 'default')"
    version = (
        "INSERT INTO model_versions (name, version, workspace, current_stage)"
        " VALUES ('m', 1, 'default', 'None')"
    )
    alias = "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('m', 'best', 1)"
    tag = "INSERT INTO model_version_tags (name, version, key, value) VALUES ('m', 1, 'k', 'v')"
    assert recorded(tenant, model, version, alias, tag) == [
        ("registered_model.created", "m"), ("model_version.created", "m"),
        ("registered_model_alias.set", "m"), ("model_version_tag.set", "m"),
    ]  # fmt: skip
    assert recorded(
        tenant,
        "UPDATE registered_models SET description = 'better'",
        "UPDATE registered_models SET last_updated_time = 5",
        "UPDATE model_versions SET current_stage = 'Production', last_updated_time = 6",
        "UPDATE model_versions SET status = 'READY'",
        "UPDATE registered_model_aliases SET version = 1",
    ) == [
        ("registered_model.updated", "m"), ("model_version.stage_changed", "m"),
        ("model_version.updated", "m"),
    ]  # fmt: skip
    tables = ("model_version_tags", "model_versions", "registered_models")
    kinds = recorded(tenant, *(f"DELETE FROM {table}" for table in tables))
    assert sorted(kinds) == [
        ("model_version.deleted", "m"), ("model_version_tag.deleted", "m"),
        ("registered_model.deleted", "m"), ("registered_model_alias.deleted", "m"),
    ]  # fmt: skip


def test_a_change_that_is_rolled_back_leaves_no_event(tenant: Connection) -> None:
    with tenant.cursor() as cursor:
        cursor.execute("DELETE FROM mlfleet_outbox")
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO registered_models (name) VALUES ('undone')")
        cursor.execute("ROLLBACK")
        cursor.execute("SELECT count(*) FROM mlfleet_outbox")
        assert cursor.fetchone() == (0,)


def test_an_event_carries_both_rows(tenant: Connection) -> None:
    recorded(
        tenant,
        "INSERT INTO registered_models (name) VALUES ('carried')",
        "UPDATE registered_models SET description = 'ünïcode' WHERE name = 'carried'",
    )
    with tenant.cursor() as cursor:
        cursor.execute("SELECT data FROM mlfleet_outbox ORDER BY id DESC LIMIT 1")
        (data,) = cursor.fetchone() or ({},)
    assert data["old"]["description"] is None
    assert data["new"]["description"] == "ünïcode"


def test_a_metric_that_is_logged_again_leaves_the_indexes_alone(tenant: Connection) -> None:
    """Half of each page is free: an update finds room on the page of its old row (HOT)."""
    with tenant.cursor() as cursor:
        cursor.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES ('hot', 0)")
        cursor.execute(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)"
            " SELECT 'm' || n, 0, 0, 0, false, 'hot' FROM generate_series(1, 500) AS n"
        )
        cursor.execute("UPDATE latest_metrics SET step = 1")
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
                       " WHERE relname = 'latest_metrics'")  # fmt: skip
        updated, hot = cursor.fetchone() or (0, 0)
    assert updated == 500
    assert hot > 450
