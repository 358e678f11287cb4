"""`mlfleet token` where no fleet runs but Postgres is known, as in the operator's pod."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.tokens import digest

MLFLEET = Path(sys.executable).with_name("mlfleet")


def test_tokens_are_made_listed_and_revoked_by_the_address_of_postgres(
    postgres: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    environment = {**os.environ, "MLFLEET_ADMIN_URI": postgres, "MLFLEET_DATA": str(tmp_path)}

    def token(*arguments: str) -> Any:
        command = [MLFLEET, "token", *arguments, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.stderr == ""
        return json.loads(done.stdout)

    catalogue.create_tenants(["podded"])
    made = token("create", "podded", "ci", "--read-only")
    row = catalogue.tenant("podded")
    assert row is not None
    [stored] = [one for one in row.tokens if one.name == "ci"]
    assert (stored.sha256_hex, stored.access) == (digest(made["token"]), "read-only")
    assert "ci" in {one["name"] for one in token("list", "podded")}
    token("revoke", "podded", "ci")
    assert "ci" not in {one["name"] for one in token("list", "podded")}


def test_a_tenant_is_not_half_made_there(
    postgres: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    environment = {**os.environ, "MLFLEET_ADMIN_URI": postgres, "MLFLEET_DATA": str(tmp_path)}
    command = [MLFLEET, "tenant", "create", "half-made"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 4
    assert catalogue.tenant("half-made") is None
