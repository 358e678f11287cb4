"""The catalogue on a real Postgres: bulk, tokens, polling and migrations that meet."""

import datetime
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.models import Base, Quota
from mlfleet.catalogue.names import RESERVED, tenant_name
from mlfleet.catalogue.provision import Provisioner
from mlfleet.catalogue.tokens import digest
from mlfleet.database.connect import connect
from mlfleet.database.embedded import EmbeddedPostgres
from mlfleet.errors import (
    DatabaseAwayError,
    FleetError,
    InvalidNameError,
    NoCapacityError,
    UnknownTenantError,
    WrongVersionError,
)


def test_ten_thousand_register_within_a_minute_and_list_within_a_second(
    postgres_factory: Callable[..., EmbeddedPostgres],
) -> None:
    catalogue = Catalogue(postgres_factory(max_connections=20).admin_uri)
    catalogue.prepare()
    began = time.monotonic()
    created = catalogue.create_tenants([f"team-{n}" for n in range(10_000)])
    assert time.monotonic() - began < 60
    assert len({row.token for row in created}) == 10_000
    fastest = 60.0
    for _ in range(3):  # the machine may be busy; the catalogue is not
        began = time.monotonic()
        listed = catalogue.tenants()
        fastest = min(fastest, time.monotonic() - began)
    assert fastest < 1
    assert {row.name: digest(row.token or "") for row in created} == {
        tenant.name: tenant.tokens[0].sha256_hex for tenant in listed
    }
    catalogue.close()


def test_creating_twice_changes_nothing_and_keeps_the_order(catalogue: Catalogue) -> None:
    (first,) = catalogue.create_tenants(["twice"], quota=Quota(concurrency=7))
    again = catalogue.create_tenants(["zz-new", "twice", "aa-new", "twice"])
    assert [(row.name, row.created) for row in again] == [
        ("zz-new", True), ("twice", False), ("aa-new", True)
    ]  # fmt: skip
    assert again[1].token is None
    assert again[1].id == first.id
    tenant = catalogue.tenant("twice")
    assert tenant is not None
    assert tenant.quota.concurrency == 7
    assert len(tenant.tokens) == 1
    assert tenant.created_at.tzinfo is not None


def test_two_bulks_at_once_create_each_name_once(catalogue: Catalogue) -> None:
    names = [f"both-{n}" for n in range(300)]
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(catalogue.create_tenants, [names, names[::-1]])
    assert sum(row.created for row in (*one, *two)) == 300


def test_one_bad_name_refuses_the_whole_call(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidNameError, match=r"'\.\./etc'"):
        catalogue.create_tenants(["fine-name", "../etc"])
    assert catalogue.tenant("fine-name") is None


@pytest.mark.parametrize(
    "name",
    [
        "a", "A-b", "a" * 64, "-ab", "ab-", "a_b", "a.b", "ü-x", "xn--abc", "", "a b", "a\n",
        "a" * 9999, *sorted(RESERVED),
    ],
)  # fmt: skip
def test_a_name_that_is_no_dns_label_or_is_reserved_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="tenant name '") as refused:
        tenant_name(name)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["ab", "a" * 63, "0-9", "team-1"])
def test_a_dns_label_is_taken_as_it_is(name: str) -> None:
    assert tenant_name(name) == name


def test_tokens_are_made_rotated_revoked_and_only_hashes_are_kept(
    catalogue: Catalogue, postgres: str
) -> None:
    (created,) = catalogue.create_tenants(["tokens"])
    made = catalogue.create_token("tokens", "ci", access="read-only")
    assert made and made.startswith("mlf_")
    assert catalogue.create_token("tokens", "ci") is None
    rotated = catalogue.rotate_token("tokens", "ci")
    hashes = {token.sha256_hex for token in catalogue.tenant("tokens").tokens}  # type: ignore[union-attr]
    assert digest(rotated) in hashes
    assert digest(made) not in hashes
    catalogue.revoke_token("tokens", "ci")
    with pytest.raises(FleetError, match="no token named 'ci'"):
        catalogue.revoke_token("tokens", "ci")
    with pytest.raises(UnknownTenantError, match="no tenant named 'nobody'"):
        catalogue.create_token("nobody", "ci")
    with pytest.raises(FleetError, match="read-only or read-write"):
        catalogue.create_token("tokens", "x", access="admin")
    server = connect(postgres, "mlfleet_catalogue")
    with server.cursor() as cursor:
        cursor.execute("SELECT string_agg(t::text, '') || (SELECT string_agg(a::text, '')"
                       " FROM audit a) FROM tokens t")  # fmt: skip
        (everything,) = cursor.fetchone() or ("",)
    server.close()
    for text in (created.token, made, rotated):
        assert text and text not in everything
    assert [record.action for record in catalogue.audit_log("tokens")] == [
        "token.revoke", "token.rotate", "token.create", "tenant.create"
    ]  # fmt: skip


def test_many_tenants_get_a_new_token_at_once_and_the_one_of_that_name_before_ends(
    catalogue: Catalogue,
) -> None:
    names = ["many-a", "many-b"]
    catalogue.create_tenants(names)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    first = catalogue.put_tokens(names, "load", later)
    _, cursor = catalogue.changed_since(None)
    second = catalogue.put_tokens(names, "load", later)
    changed, _ = catalogue.changed_since(cursor)
    assert changed >= set(names)
    for name in names:
        tenant = catalogue.tenant(name)
        assert tenant is not None
        hashes = {token.sha256_hex: token for token in tenant.tokens}
        assert hashes[digest(second[name])].expires_at == later
        assert digest(first[name]) not in hashes
        assert [record.action for record in catalogue.audit_log(name)][:2] == ["token.put"] * 2
    with pytest.raises(UnknownTenantError, match="no tenant named 'nobody'"):
        catalogue.put_tokens([*names, "nobody"], "load", later)
    with pytest.raises(FleetError, match="in the past"):
        catalogue.put_tokens(names, "load", later - datetime.timedelta(hours=2))


def test_a_token_expires_at_its_moment_and_a_naive_or_past_one_is_refused(
    catalogue: Catalogue,
) -> None:
    catalogue.create_tenants(["expiry"])
    now = datetime.datetime.now(datetime.UTC)
    ends = now + datetime.timedelta(hours=1)
    made = catalogue.create_token("expiry", "short", expires_at=ends)
    assert made
    token = next(t for t in catalogue.tenant("expiry").tokens if t.name == "short")  # type: ignore[union-attr]
    assert token.is_valid(digest(made), now)
    assert token.is_valid(digest(made), ends - datetime.timedelta(microseconds=1))
    assert not token.is_valid(digest(made), ends)
    assert not token.is_valid(digest("mlf_other"), now)
    for wrong, why in ((now, "in the past"), (ends.replace(tzinfo=None), "no time zone")):
        with pytest.raises(FleetError, match=why):
            catalogue.create_token("expiry", "other", expires_at=wrong)


def test_every_kind_of_change_is_polled(catalogue: Catalogue) -> None:
    catalogue.create_tenants(["watched", "bystander"])
    _, cursor = catalogue.changed_since(None)

    def changed() -> bool:
        nonlocal cursor
        names, cursor = catalogue.changed_since(cursor)
        assert "bystander" not in names
        return "watched" in names

    while changed():  # a transaction number may be shared with the poll's beginning
        pass
    catalogue.create_token("watched", "t")
    assert changed()
    catalogue.revoke_token("watched", "t")
    assert changed()
    catalogue.set_quota("watched", Quota(concurrency=1))
    assert changed()
    tenant = catalogue.tenant("watched")
    assert tenant
    catalogue.forget(tenant.id)
    assert changed()
    assert catalogue.tenant("watched") is None


def test_a_change_that_began_early_and_committed_late_is_not_missed(
    catalogue: Catalogue, postgres: str
) -> None:
    catalogue.create_tenants(["late-one", "early-one"])
    slow = connect(postgres, "mlfleet_catalogue")
    slow.autocommit = False
    with slow.cursor() as cursor:
        cursor.execute("UPDATE tenants SET concurrency = 9 WHERE name = 'late-one'")
    _, position = catalogue.changed_since(None)
    catalogue.set_quota("early-one", Quota(concurrency=9))  # a later transaction, committed first
    names, position = catalogue.changed_since(position)
    assert "early-one" in names
    slow.commit()
    slow.close()
    names, _ = catalogue.changed_since(position)
    assert "late-one" in names


def test_states_move_only_from_where_they_may(catalogue: Catalogue) -> None:
    catalogue.create_tenants(["states"])
    assert catalogue.set_state("states", "upgrading", expect=("registered",)).state == "upgrading"
    with pytest.raises(FleetError, match="is upgrading, not ready"):
        catalogue.set_state("states", "deleting", expect=("ready",))
    with pytest.raises(UnknownTenantError):
        catalogue.set_state("nobody", "ready")


def test_two_that_start_at_once_migrate_once(
    postgres_factory: Callable[..., EmbeddedPostgres],
) -> None:
    uri = postgres_factory(max_connections=30).admin_uri
    both = [Catalogue(uri) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(Catalogue.prepare, both))
    assert both[0].tenants() == []
    engine = sqlalchemy.create_engine(
        sqlalchemy.make_url(uri.replace("postgresql:", "postgresql+psycopg2:")).set(
            database="mlfleet_catalogue"
        )
    )
    with engine.begin() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
        assert differences == []
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(FleetError, match="newer mlfleet"):
        both[0].prepare()
    engine.dispose()
    for catalogue in both:
        catalogue.close()


def test_a_catalogue_that_is_away_is_a_reason_to_try_again() -> None:
    catalogue = Catalogue("postgresql://postgres:x@127.0.0.1:19/postgres")
    with pytest.raises(DatabaseAwayError):
        catalogue.tenants()


# Provisioning


def test_the_first_request_makes_the_database_once(
    provisioner: Provisioner, catalogue: Catalogue
) -> None:
    catalogue.create_tenants(["first"])
    with ThreadPoolExecutor(4) as pool:
        ways = list(pool.map(provisioner.ensure_database, ["first"] * 4))
    assert len(set(ways)) == 1
    psycopg2.connect(ways[0].uri.replace("+psycopg2", "")).close()
    tenant = catalogue.tenant("first")
    assert tenant and tenant.state == "ready"


def test_a_rotated_password_replaces_the_old_one_even_after_a_crash(
    provisioner: Provisioner, catalogue: Catalogue
) -> None:
    catalogue.create_tenants(["rotated"])
    old = provisioner.ensure_database("rotated")
    provisioner.rotate_password("rotated")
    new = provisioner.ensure_database("rotated")
    assert new.password != old.password
    psycopg2.connect(new.uri.replace("+psycopg2", "")).close()
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(old.uri.replace("+psycopg2", ""))
    # As if the process had died between the commit and the role's change:
    catalogue.change("rotated", {"password_generation": 3, "state": "registered"})
    psycopg2.connect(provisioner.ensure_database("rotated").uri.replace("+psycopg2", "")).close()


def test_a_deleted_tenant_leaves_nothing_and_its_name_is_free(
    provisioner: Provisioner, catalogue: Catalogue, tmp_path: Path
) -> None:
    (created,) = catalogue.create_tenants(["short-lived"])
    provisioner.ensure_database("short-lived")
    (tmp_path / str(created.id) / "0").mkdir(parents=True)
    (tmp_path / str(created.id) / "0" / "model").write_text("x")
    provisioner.delete("short-lived", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not provisioner.admin.exists(created.id)
    with pytest.raises(UnknownTenantError):
        provisioner.ensure_database("short-lived")
    (again,) = catalogue.create_tenants(["short-lived"])
    assert again.created and again.id != created.id


def test_a_tenant_deleted_while_it_is_provisioned_leaves_no_database(
    provisioner: Provisioner, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    (created,) = catalogue.create_tenants(["raced"])
    clone = provisioner.admin.clone

    def deleted_meanwhile(tenant_id: int, password: str) -> bool:
        made = clone(tenant_id, password)
        catalogue.forget(tenant_id)
        return made

    monkeypatch.setattr(provisioner.admin, "clone", deleted_meanwhile)
    with pytest.raises(UnknownTenantError):
        provisioner.ensure_database("raced")
    assert not provisioner.admin.exists(created.id)


def test_other_versions_and_upgrades_are_refused_with_what_to_do(
    provisioner: Provisioner, catalogue: Catalogue
) -> None:
    catalogue.create_tenants(["older"])
    catalogue.change("older", {"state": "ready", "mlflow_version": "2.9.0"})
    with pytest.raises(WrongVersionError, match=r"MLflow 2\.9\.0"):
        provisioner.ensure_database("older")
    catalogue.set_state("older", "upgrading")
    with pytest.raises(NoCapacityError, match="try again"):
        provisioner.ensure_database("older")
