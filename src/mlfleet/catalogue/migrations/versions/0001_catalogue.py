"""Tenants, tokens, cells, changes and the audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_NOW = sa.text("now()")
_TIME = sa.DateTime(timezone=True)

_CHANGES = """
CREATE FUNCTION record_change() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    names text[];
BEGIN
    IF TG_TABLE_NAME = 'tenants' THEN
        IF TG_OP <> 'INSERT' THEN names := names || OLD.name::text; END IF;
        IF TG_OP <> 'DELETE' THEN names := names || NEW.name::text; END IF;
    ELSIF TG_OP = 'DELETE' THEN
        names := ARRAY(SELECT name FROM tenants WHERE id = OLD.tenant_id);
    ELSE
        names := ARRAY(SELECT name FROM tenants WHERE id = NEW.tenant_id);
    END IF;
    INSERT INTO changes (tenant, transaction)
    SELECT DISTINCT name, pg_current_xact_id()::text::bigint FROM unnest(names) AS name
    ON CONFLICT (tenant) DO UPDATE SET transaction = EXCLUDED.transaction
        WHERE changes.transaction <> EXCLUDED.transaction;
    RETURN NULL;
END
$body$;
CREATE TRIGGER record_change AFTER INSERT OR UPDATE OR DELETE ON tenants
    FOR EACH ROW EXECUTE FUNCTION record_change();
CREATE TRIGGER record_change AFTER INSERT OR UPDATE OR DELETE ON tokens
    FOR EACH ROW EXECUTE FUNCTION record_change();
"""


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "cells",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("tier", sa.String(16), nullable=False),
        sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
        sa.CheckConstraint("tier IN ('shared', 'dedicated')", name="tier"),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False, unique=True),
        sa.Column("tier", sa.String(16), nullable=False),
        sa.Column("cell", sa.String(63), sa.ForeignKey("cells.name"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, server_default="registered"),
        sa.Column("mlflow_version", sa.String(32), nullable=False),
        sa.Column("password_generation", sa.Integer, nullable=False, server_default="1"),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("artifact_bytes", sa.BigInteger, nullable=False),
        sa.Column("artifact_uri", sa.Text),
        sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
        sa.Column("changed_at", _TIME, nullable=False, server_default=_NOW),
        sa.CheckConstraint("tier IN ('shared', 'dedicated')", name="tier"),
        sa.CheckConstraint(
            "state IN ('registered', 'ready', 'upgrading', 'deleting')", name="state"
        ),
        sa.CheckConstraint(
            "concurrency > 0 AND memory_bytes > 0 AND artifact_bytes >= 0", name="quota"
        ),
    )
    op.create_index("ix_tenants_cell", "tenants", ["cell"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "tenant_id", sa.Integer, sa.ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("sha256_hex", sa.String(64), nullable=False, unique=True),
        sa.Column("access", sa.String(16), nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
        sa.UniqueConstraint("tenant_id", "name"),
        sa.CheckConstraint("access IN ('read-only', 'read-write')", name="access"),
    )
    op.create_table(
        "changes",
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("transaction", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_changes_transaction", "changes", ["transaction"])
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("at", _TIME, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text),
        sa.Column("detail", postgresql.JSONB, nullable=False, server_default="{}"),
    )
    op.create_index("ix_audit_tenant", "audit", ["tenant"])
    op.execute(_CHANGES)
