"""Back up one tenant, asleep or awake, and restore it, also under another name.

The database is taken first, in one consistent moment, the artifacts after it: every artifact that
a row of that moment names was there already. MLflow stores artifact addresses relative to the
tenant (`mlflow-artifacts:/…`), so another name or id needs no rewriting; what MLflow encrypted is
re-wrapped for the new tenant's own passphrase. Nothing half restored stays.
"""

import contextlib
import datetime
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlfleet.catalogue.archive import DamagedArchiveError, extract, writing
from mlfleet.catalogue.models import CreatedTenant, Quota, Tenant
from mlfleet.catalogue.provision import Provisioner, remove_folder
from mlfleet.database.admin import database_name
from mlfleet.database.connect import connect
from mlfleet.database.dump import dump
from mlfleet.database.dump import restore as restore_database
from mlfleet.database.template import mlflow_version
from mlfleet.errors import FleetError

FORMAT = 1
_DUMP, _ARTIFACTS = "database.dump", "artifacts"


def backup(
    provisioner: Provisioner, name: str, artifacts: Path, target: Path, *, actor: str = "operator"
) -> dict[str, Any]:
    """Write a tenant to a new folder, or to one file if `target` ends in .tar.

    Args:
        artifacts: the fleet's folder of artifacts; the tenant's is `<artifacts>/<id>`.

    Returns:
        The facts that its manifest holds, without the list of files, plus `file_count`.

    Raises:
        UnknownTenantError, FleetError: nothing was written.
    """
    provisioner.ensure_database(name)
    tenant = provisioner.catalogue.tenant(name)
    assert tenant is not None
    if tenant.artifact_uri is not None:
        raise FleetError(
            f"tenant {name!r} keeps its artifacts at {tenant.artifact_uri}: only folders are "
            "backed up; use the object store's own versions or copies"
        )
    facts = _facts(provisioner, tenant)
    with writing(target, facts) as archive:
        with _dumped(provisioner, tenant, target.parent) as path, path.open("rb") as file:
            archive.add(_DUMP, file, path.stat().st_size)
        archive.add_folder(_ARTIFACTS, artifacts / str(tenant.id))
    provisioner.catalogue.audit(actor, "tenant.backup", name, {"target": str(target)})
    return {**facts, "file_count": len(archive.entries)}


def restore(
    provisioner: Provisioner,
    source: Path,
    artifacts: Path,
    as_name: str | None = None,
    *,
    cell: str = "cell-0",
    actor: str = "operator",
) -> CreatedTenant:
    """Make a tenant from a backup, under its old name or another; it gets a new token.

    Everything is checked against the manifest before anything is made.

    Raises:
        DamagedArchiveError: says which file; nothing was changed.
        FleetError: a tenant of that name exists, or the data is of another MLflow version.
    """
    artifacts.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = artifacts / f".restore.{secrets.token_hex(4)}"
    facts = extract(source, staging)
    try:
        _check(facts, source)
        name = as_name or facts["tenant"]
        if provisioner.catalogue.tenant(name) is not None:
            raise FleetError(f"tenant {name!r} exists: restore under another name, or delete it")
        (created,) = provisioner.catalogue.create_tenants(
            [name], tier=facts["tier"], cell=cell, quota=Quota(**facts["quota"]), actor=actor
        )
        if not created.created:
            raise FleetError(f"tenant {name!r} was created meanwhile: restore under another name")
        with _undone_on_failure(provisioner, created, artifacts):
            provisioner.catalogue.set_state(name, "upgrading", expect=("registered",))
            _fill(provisioner, created.id, facts, staging / _DUMP)
            (staging / _ARTIFACTS).mkdir(mode=0o700, exist_ok=True)
            (staging / _ARTIFACTS).rename(artifacts / str(created.id))
            values = {"state": "ready", "mlflow_version": facts["mlflow_version"]}
            provisioner.catalogue.change(name, values, actor=actor, action="tenant.restore")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return created


def _facts(provisioner: Provisioner, tenant: Tenant) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "tenant": tenant.name,
        "tenant_id": tenant.id,
        "tier": tenant.tier,
        "quota": {
            "concurrency": tenant.quota.concurrency,
            "memory_bytes": tenant.quota.memory_bytes,
            "artifact_bytes": tenant.quota.artifact_bytes,
        },
        "mlflow_version": tenant.mlflow_version,
        "key_fingerprint": provisioner.key.fingerprint,
        "taken_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@contextlib.contextmanager
def _dumped(provisioner: Provisioner, tenant: Tenant, folder: Path) -> Iterator[Path]:
    path = folder / f".{secrets.token_hex(4)}.dump.partial"
    try:
        dump(provisioner.admin.uri, database_name(tenant.id), path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _check(facts: dict[str, Any], source: Path) -> None:
    try:
        number, version = int(facts["format"]), str(facts["mlflow_version"])
        Quota(**facts["quota"])
        _ = facts["tenant"], facts["tenant_id"], facts["tier"], facts["key_fingerprint"]
    except (KeyError, TypeError, ValueError) as exc:
        raise DamagedArchiveError(f"{source} is damaged: the manifest lacks {exc}") from exc
    if number > FORMAT:
        raise FleetError(f"{source} was made by a newer mlfleet: restore it with that version")
    if version != mlflow_version():
        raise FleetError(
            f"{source} holds data of MLflow {version}, here is {mlflow_version()}: restore it "
            f"where mlflow=={version} is installed"
        )


def _fill(provisioner: Provisioner, tenant_id: int, facts: dict[str, Any], path: Path) -> None:
    admin, database = provisioner.admin, database_name(tenant_id)
    password = provisioner.key.database_password(tenant_id, 1)
    with admin.filling(tenant_id, password):
        restore_database(admin.uri, database, path)
        connection = connect(admin.uri, database)
        with connection.cursor() as cursor:
            # Events that were still waiting belong to the tenant that was backed up.
            cursor.execute("DELETE FROM mlfleet_outbox")
            cursor.execute(
                "SELECT (SELECT count(*) FROM secrets)"
                " + (SELECT count(*) FROM webhooks WHERE secret IS NOT NULL)"
            )
            (secret_count,) = cursor.fetchone() or (0,)
        connection.close()
        if secret_count:
            _rewrap(provisioner, tenant_id, facts)


def _rewrap(provisioner: Provisioner, tenant_id: int, facts: dict[str, Any]) -> None:
    if facts["key_fingerprint"] != provisioner.key.fingerprint:
        raise FleetError(
            "the backup holds secrets that MLflow encrypted under another fleet's key: restore it "
            "into that fleet, or delete the secrets there and back up again"
        )
    order = {
        "uri": provisioner.admin.uri,
        "database": database_name(tenant_id),
        "old": provisioner.key.kek_passphrase(facts["tenant_id"]),
        "new": provisioner.key.kek_passphrase(tenant_id),
    }
    done = subprocess.run(
        [sys.executable, "-m", "mlfleet.database.rewrap"],
        input=json.dumps(order), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise FleetError(f"the tenant's encrypted secrets could not be re-wrapped: {last}")


@contextlib.contextmanager
def _undone_on_failure(
    provisioner: Provisioner, created: CreatedTenant, artifacts: Path
) -> Iterator[None]:
    try:
        yield
    except BaseException:
        provisioner.admin.drop(created.id)
        remove_folder(artifacts / str(created.id))
        provisioner.catalogue.forget(created.id)
        raise
