"""The template database: MLflow's schema, our outbox and the grants, made ready once.

Tenants' databases are copies of it. Its name carries MLflow's version and a hash of our own SQL,
so another version of either gets another template and two can serve side by side. MLflow's schema
comes from a file that scripts/make_schema.py wrote from MLflow's own migrations (0.3 s instead of
5); a version without such a file runs the migrations themselves, in a process of their own.
"""

import hashlib
import importlib.metadata
import re
import subprocess
import sys
from functools import cache
from importlib import resources

from mlfleet.database.connect import Connection, connect
from mlfleet.errors import FleetError

GROUP_ROLE = "mlfleet_tenant"
"""Holds the grants inside the template; every tenant's role is a member."""
SHIPPED_VERSION = "3.17.2"
PREPARE_LOCK = 0x6D6C666C65657401


@cache
def mlflow_version() -> str:
    """Return the version of the installed MLflow; the one we ship for where none is installed."""
    for distribution in ("mlflow", "mlflow-skinny"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return SHIPPED_VERSION


def template_name(version: str) -> str:
    """Return the name of the template for one MLflow version."""
    ours = _own_sql() + (_shipped_schema(version) or "")
    digest = hashlib.sha256(ours.encode()).hexdigest()[:8]
    return f"mlfleet_template_{re.sub('[^a-z0-9]+', '_', version.lower())}_{digest}"


def prepare(uri: str, version: str) -> str:
    """Make the template of a version unless it is there; safe when several do it at once.

    Returns:
        The template's name.

    Raises:
        FleetError: the administrator may not do it, or a migration failed.
    """
    name = template_name(version)
    admin = connect(uri)
    try:
        with admin.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", (PREPARE_LOCK,))
            _ensure_group(admin)
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
            if cursor.rowcount:
                return name
            unfinished = f"{name}_new"
            cursor.execute(f"DROP DATABASE IF EXISTS {unfinished}")
            cursor.execute(f"CREATE DATABASE {unfinished} TEMPLATE template0 ENCODING 'UTF8'")
            cursor.execute(f"REVOKE ALL ON DATABASE {unfinished} FROM PUBLIC")
            fill(uri, unfinished, version)
            # Nobody can be inside when a clone begins: not even a superuser gets in.
            cursor.execute(f"ALTER DATABASE {unfinished} ALLOW_CONNECTIONS false")
            cursor.execute(f"ALTER DATABASE {unfinished} RENAME TO {name}")
    finally:
        admin.close()
    return name


def fill(uri: str, database: str, version: str) -> None:
    """Give an empty database MLflow's schema, the outbox and the grants."""
    schema = _shipped_schema(version)
    if schema is None:
        run_migrations(uri, database, version)
    _execute(uri, database, (schema or "") + _own_sql())


def grant(uri: str, database: str) -> None:
    """Give tenants' roles their rights on the tables of a database that has them already."""
    _execute(uri, database, _sql("grants.sql"))


def run_migrations(uri: str, database: str, version: str) -> None:
    """Bring a database to the schema of the installed MLflow by MLflow's own migrations.

    Raises:
        FleetError: another version is wanted than is installed, or a migration failed.
    """
    if version != mlflow_version():
        raise FleetError(
            f"MLflow {version} is not installed here ({mlflow_version()} is): "
            f"run this where mlflow=={version} is"
        )
    # In a process of its own: MLflow's import is heavy, and its migrations configure logging.
    # The address goes through stdin, where no other user can read it.
    done = subprocess.run(
        [sys.executable, "-m", "mlfleet.database.migrate", database],
        input=uri, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise FleetError(f"MLflow's migrations failed in {database}: {last}")


def _ensure_group(admin: Connection) -> None:
    with admin.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (GROUP_ROLE,))
        if not cursor.rowcount:
            cursor.execute(f"CREATE ROLE {GROUP_ROLE} NOLOGIN")


def _execute(uri: str, database: str, statements: str) -> None:
    connection = connect(uri, database)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statements)
    finally:
        connection.close()


def _own_sql() -> str:
    return _sql("outbox.sql") + _sql("storage.sql") + _sql("grants.sql")


def _sql(name: str) -> str:
    return resources.files("mlfleet.database").joinpath(name).read_text()


def _shipped_schema(version: str) -> str | None:
    path = resources.files("mlfleet.database").joinpath("schema", f"mlflow_{version}.sql")
    return path.read_text() if path.is_file() else None
