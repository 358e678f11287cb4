"""When each tenant woke last; no trigger, so that a wake makes no gateway read its tenant again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    tenant = sa.ForeignKey("tenants.id", ondelete="CASCADE")
    op.create_table(
        "wakes",
        sa.Column("tenant_id", sa.Integer, tenant, primary_key=True),
        sa.Column("woken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("transaction", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_wakes_transaction", "wakes", ["transaction"])
