"""Make the fleet's two Secrets where they are missing: `python -m mlfleet.cluster.secrets`.

So `kubectl apply -k` needs nothing prepared and no manifest holds a secret. A Secret that exists
is never touched: with a Postgres of your own, `mlfleet-postgres` comes from you.
"""

import logging
import secrets

from mlfleet import log as fleet_log
from mlfleet.cluster.api import SECRETS, Api, ConflictError, Document

log = logging.getLogger(__name__)

FLEET = "mlfleet-fleet"
POSTGRES = "mlfleet-postgres"
KEY_BYTES = 32


def fleet_secret() -> Document:
    """Return a new fleet key; losing it loses every tenant's database password."""
    return _secret(FLEET, {"secret.key": secrets.token_hex(KEY_BYTES) + "\n"})


def postgres_secret(namespace: str) -> Document:
    """Return a new administrator's password, and the address it opens."""
    password = secrets.token_hex(24)
    host = f"postgres.{namespace}.svc.cluster.local"
    uri = f"postgresql://postgres:{password}@{host}:5432/postgres"
    return _secret(POSTGRES, {"password": password, "admin-uri": uri})


def _secret(name: str, values: dict[str, str]) -> Document:
    labels = {"app.kubernetes.io/part-of": "mlfleet"}
    return {"kind": "Secret", "metadata": {"name": name, "labels": labels}, "stringData": values}


def ensure(api: Api) -> list[str]:
    """Make what is missing; return the names of what was made."""
    made = []
    for secret in (fleet_secret(), postgres_secret(api.namespace)):
        name = secret["metadata"]["name"]
        if api.find(SECRETS, name) is not None:
            continue
        try:
            api.create(SECRETS, secret)
        except ConflictError:
            continue  # somebody was quicker, and theirs counts
        made.append(name)
    return made


def main() -> None:
    """Make what is missing, and say so."""
    fleet_log.configure()
    log.info("secrets_made", extra={"names": ensure(Api.of_pod())})


if __name__ == "__main__":
    main()
