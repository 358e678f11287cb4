"""Write one database to a file and read it back, with Postgres' own pg_dump and pg_restore."""

import os
import subprocess
from pathlib import Path

from mlfleet.database.binaries import postgres_binary
from mlfleet.database.connect import libpq_environment
from mlfleet.errors import FleetError


def dump(uri: str, database: str, path: Path) -> None:
    """Write one consistent moment of a database, which may be in use, in pg_dump's own format."""
    with path.open("wb") as file:
        _run("pg_dump", uri, database, "--format=custom", "--no-owner", "--no-privileges",
             stdout=file)  # fmt: skip
        os.fsync(file.fileno())


def restore(uri: str, database: str, path: Path) -> None:
    """Fill an empty database from `dump`'s file: all of it or nothing."""
    _run("pg_restore", uri, database, "--dbname", database, "--no-owner", "--no-privileges",
         "--single-transaction", "--exit-on-error", str(path))  # fmt: skip


def _run(program: str, uri: str, database: str, *arguments: str, stdout: object = None) -> None:
    done = subprocess.run(
        [postgres_binary(program), *arguments],
        env={**os.environ, **libpq_environment(uri, database)},
        stdout=stdout or subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # type: ignore[call-overload]  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise FleetError(f"{program} failed on {database}: {last}")
