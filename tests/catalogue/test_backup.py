"""Backup and restore of a tenant: rows and files come back equal, and damage changes nothing."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from mlfleet.catalogue.archive import DamagedArchiveError
from mlfleet.catalogue.backup import backup, restore
from mlfleet.catalogue.provision import Provisioner
from mlfleet.database.connect import Connection
from mlfleet.database.keys import FleetKey
from mlfleet.errors import FleetError, UnknownTenantError

FILES = {"0/run/artifacts/model.bin": os.urandom(300_000), "0/run/artifacts/ünï çode.txt": b"x"}


def enter(provisioner: Provisioner, name: str) -> Connection:
    uri = provisioner.ensure_database(name).uri.replace("+psycopg2", "")
    connection = psycopg2.connect(uri)
    connection.autocommit = True
    return connection


def params(provisioner: Provisioner, name: str) -> list[tuple[object, ...]]:
    connection = enter(provisioner, name)
    with connection.cursor() as cursor:
        cursor.execute("SELECT run_uuid, key, value FROM params ORDER BY 1, 2")
        rows = cursor.fetchall()
    connection.close()
    return rows


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def tenant(provisioner: Provisioner, artifacts: Path, request: pytest.FixtureRequest) -> str:
    """A tenant with rows, files, a link that leads out, and an event that waits."""
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    (created,) = provisioner.catalogue.create_tenants([name])
    connection = enter(provisioner, name)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES ('r1', 0)")
        cursor.execute("INSERT INTO params (run_uuid, key, value) VALUES ('r1', 'lr', 'é0.1')")
        cursor.execute("INSERT INTO registered_models (name) VALUES ('m')")
    connection.close()
    folder = artifacts / str(created.id)
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "0" / "secret").symlink_to("/etc/hostname")
    (folder / "outside").symlink_to("/etc", target_is_directory=True)
    return name


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("form", ["saved", "saved.tar"])
def test_a_tenant_comes_back_under_another_name(
    provisioner: Provisioner, tenant: str, artifacts: Path, tmp_path: Path, form: str
) -> None:
    facts = backup(provisioner, tenant, artifacts, tmp_path / form)
    assert facts["file_count"] == 3
    restored = restore(provisioner, tmp_path / form, artifacts, f"{tenant}-copy")
    assert restored.token
    assert params(provisioner, restored.name) == params(provisioner, tenant) != []
    assert files(artifacts / str(restored.id)) == FILES
    connection = enter(provisioner, restored.name)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM mlfleet_outbox")
        assert cursor.fetchone() == (0,)
        cursor.execute("UPDATE registered_models SET description = 'still recorded'")
        cursor.execute("SELECT kind FROM mlfleet_outbox")
        assert cursor.fetchall() == [("registered_model.updated",)]
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("CREATE TABLE mine (n int)")
    connection.close()
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts", form}


def test_a_deleted_tenant_comes_back_under_its_own_name(
    provisioner: Provisioner, tenant: str, artifacts: Path, tmp_path: Path
) -> None:
    before = params(provisioner, tenant)
    backup(provisioner, tenant, artifacts, tmp_path / "saved.tar")
    provisioner.delete(tenant, artifacts)
    restored = restore(provisioner, tmp_path / "saved.tar", artifacts)
    assert restored.name == tenant
    assert params(provisioner, tenant) == before


def test_an_existing_tenant_or_target_is_not_overwritten(
    provisioner: Provisioner, tenant: str, artifacts: Path, tmp_path: Path
) -> None:
    backup(provisioner, tenant, artifacts, tmp_path / "saved")
    with pytest.raises(FleetError, match=r"saved exists"):
        backup(provisioner, tenant, artifacts, tmp_path / "saved")
    with pytest.raises(FleetError, match="exists: restore under another name"):
        restore(provisioner, tmp_path / "saved", artifacts)
    with pytest.raises(UnknownTenantError):
        backup(provisioner, "nobody-here", artifacts, tmp_path / "other")
    with pytest.raises(FleetError, match="does not exist"):
        restore(provisioner, tmp_path / "nowhere", artifacts)
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts", "saved"}


def _flip(folder: Path) -> None:
    path = folder / "artifacts" / "0/run/artifacts/model.bin"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def _stop_early(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _add(folder: Path) -> None:
    (folder / "artifacts" / "extra").write_text("added")


def _lose(folder: Path) -> None:
    (folder / "database.dump").unlink()


def _garble_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"files": {"database.dump": 3}}')


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (_flip, "model.bin does not have its checksum"),
    (_stop_early, "no manifest.json"),
    (_add, "extra is not in the manifest"),
    (_lose, "database.dump is missing"),
    (_garble_manifest, "cannot be read"),
]


@pytest.mark.parametrize("form", ["folder", "tar"])
@pytest.mark.parametrize(("damage", "complaint"), DAMAGE)
def test_a_damaged_backup_says_what_is_wrong_and_changes_nothing(
    provisioner: Provisioner, tenant: str, artifacts: Path, tmp_path: Path,
    damage: Callable[[Path], None], complaint: str, form: str,
) -> None:  # fmt: skip
    source = tmp_path / "saved"
    backup(provisioner, tenant, artifacts, source)
    damage(source)
    if form == "tar":
        with tarfile.open(tmp_path / "saved.tar", "w") as tar:
            for path in sorted(path for path in source.rglob("*") if path.is_file()):
                tar.add(path, path.relative_to(source).as_posix())
        shutil.rmtree(source)
        source = tmp_path / "saved.tar"
    before = len(provisioner.catalogue.tenants()), sorted(artifacts.iterdir())
    with pytest.raises(DamagedArchiveError, match=complaint):
        restore(provisioner, source, artifacts, f"{tenant}-copy")
    assert (len(provisioner.catalogue.tenants()), sorted(artifacts.iterdir())) == before


def test_a_tar_that_was_cut_off_or_leads_out_is_refused(
    provisioner: Provisioner, tenant: str, artifacts: Path, tmp_path: Path
) -> None:
    backup(provisioner, tenant, artifacts, tmp_path / "saved.tar")
    whole = (tmp_path / "saved.tar").read_bytes()
    (tmp_path / "short.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tar").write_text("not a tar at all" * 100)
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(__file__, "../../evil.py")
    for name in ("short.tar", "text.tar", "evil.tar"):
        with pytest.raises(DamagedArchiveError):
            restore(provisioner, tmp_path / name, artifacts, f"{tenant}-copy")
    assert not list(tmp_path.rglob("evil.py"))
    assert provisioner.catalogue.tenant(f"{tenant}-copy") is None


def test_a_dump_that_postgres_refuses_leaves_no_tenant_behind(
    provisioner: Provisioner, tenant: str, artifacts: Path, tmp_path: Path
) -> None:
    """Checksums in order, content not: the failure comes late, when a tenant is half there."""
    import hashlib

    backup(provisioner, tenant, artifacts, tmp_path / "saved")
    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    (tmp_path / "saved" / "database.dump").write_bytes(b"nonsense")
    manifest["files"]["database.dump"] = {
        "size_bytes": 8, "sha256": hashlib.sha256(b"nonsense").hexdigest()
    }  # fmt: skip
    (tmp_path / "saved" / "manifest.json").write_text(json.dumps(manifest))
    before = sorted(artifacts.iterdir())
    with pytest.raises(FleetError, match="pg_restore failed"):
        restore(provisioner, tmp_path / "saved", artifacts, f"{tenant}-copy")
    assert provisioner.catalogue.tenant(f"{tenant}-copy") is None
    assert sorted(artifacts.iterdir()) == before


SECRETS = """
import json, sys
from mlfleet.cell import application
application.prepare_environment()
from mlfleet.database.access import DatabaseAccess
from mlfleet.store.installation import StoreConfig, install

from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
from mlflow.server import handlers
from mlflow.store.tracking.dbmodels.models import SqlGatewaySecret
from mlflow.utils.crypto import KEKManager, _decrypt_secret

def make():
    handlers._tracking_store.create_gateway_secret("api", {"api_key": "sk-of-the-tenant"})
    event = WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED)
    handlers._model_registry_store.create_webhook(
        "hook", "https://9.9.9.9/hook", [event], secret="hmac-of-it"
    )

def api_key():
    with handlers._tracking_store.ManagedSessionMaker() as session:
        row = session.query(SqlGatewaySecret).one()
        return _decrypt_secret(
            row.encrypted_value, row.wrapped_dek, KEKManager(), row.secret_id, row.secret_name
        )

def webhook_secret():
    return handlers._model_registry_store.list_webhooks()[0].secret

def read(secret):
    try:
        return secret()
    except Exception as exc:
        return f"{type(exc).__name__}"

for order in json.load(sys.stdin):
    install(StoreConfig(DatabaseAccess(**order["database"]), "/tmp/nowhere", 0, order["kek"]))
    if order["make"]:
        make()
    print(json.dumps([read(api_key), read(webhook_secret)]))
"""


def secrets_of(
    provisioner: Provisioner, *ways: tuple[str, str], make: bool = False
) -> list[object]:
    """Make or read what MLflow encrypted, through each (tenant, passphrase), in one process."""
    orders = [
        {"database": dataclasses.asdict(provisioner.ensure_database(name)), "kek": k, "make": make}
        for name, k in ways
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SECRETS],
        input=json.dumps(orders), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def test_what_mlflow_encrypted_is_readable_with_the_new_tenants_key_only(
    provisioner: Provisioner, tenant: str, artifacts: Path, tmp_path: Path
) -> None:
    made = provisioner.catalogue.tenant(tenant)
    assert made
    old = provisioner.key.kek_passphrase(made.id)
    plain = [{"api_key": "sk-of-the-tenant"}, "hmac-of-it"]
    assert secrets_of(provisioner, (tenant, old), make=True) == [plain]
    backup(provisioner, tenant, artifacts, tmp_path / "saved")
    restored = restore(provisioner, tmp_path / "saved", artifacts, f"{tenant}-copy")
    new = provisioner.key.kek_passphrase(restored.id)
    ways = (restored.name, new), (restored.name, old), (tenant, old)
    undecrypted = ["MlflowException", "MlflowException"]
    assert secrets_of(provisioner, *ways) == [plain, undecrypted, plain]
    stranger = Provisioner(provisioner.catalogue, provisioner.admin, FleetKey(b"another" * 5))
    with pytest.raises(FleetError, match="under another fleet's key"):
        restore(stranger, tmp_path / "saved", artifacts, f"{tenant}-other")
    assert provisioner.catalogue.tenant(f"{tenant}-other") is None
