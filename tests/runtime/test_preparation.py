"""`mlfleet database prepare` on a Postgres that cannot be used, or not yet."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from mlfleet.database.embedded import EmbeddedPostgres
from mlfleet.errors import BudgetError
from mlfleet.runtime.preparation import check_connections, prepare

MLFLEET = Path(sys.executable).with_name("mlfleet")


def test_too_few_connections_are_refused_before_anything_is_made(
    postgres_factory: Callable[..., EmbeddedPostgres],
) -> None:
    uri = postgres_factory(max_connections=40).admin_uri
    with pytest.raises(BudgetError, match=r"allows 40 connections and the fleet is set to 41"):
        prepare(uri, 41)
    with psycopg2.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'mlfleet%'")
        assert cursor.fetchall() == []
    connection.close()
    check_connections(uri, 40)


def test_while_it_waits_for_postgres_it_says_so_once_and_then_gives_up() -> None:
    command = [
        MLFLEET, "database", "prepare", "--wait-s=2.5",
        "--admin-uri=postgresql://postgres@127.0.0.1:1/postgres",
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 1
    lines = [line for line in said.stderr.splitlines() if "Connection refused" in line]
    assert [line.split(":")[0] for line in lines] == ["waiting", "mlfleet"]
