"""The catalogue's tables, and what is read from them as frozen values."""

import dataclasses
import datetime
from typing import Literal

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from mlfleet.catalogue.names import TenantName
from mlfleet.catalogue.tokens import Token

Tier = Literal["shared", "dedicated"]
State = Literal["registered", "ready", "upgrading", "deleting"]

MIB = 2**20
_Time = DateTime(timezone=True)


class Base(DeclarativeBase):
    """All tables of the catalogue."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class CellRow(Base):
    """A cell: one gateway and zygote, holding the instances of its tenants."""

    __tablename__ = "cells"
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    tier: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime.datetime] = mapped_column(_Time, server_default=func.now())
    __table_args__ = (CheckConstraint("tier IN ('shared', 'dedicated')", name="tier"),)


class TenantRow(Base):
    """A tenant. `id` names its database, role and folder, and is never used again."""

    __tablename__ = "tenants"
    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    tier: Mapped[str] = mapped_column(String(16))
    cell: Mapped[str] = mapped_column(ForeignKey("cells.name"))
    state: Mapped[str] = mapped_column(String(16), server_default="registered")
    mlflow_version: Mapped[str] = mapped_column(String(32))
    password_generation: Mapped[int] = mapped_column(server_default="1")
    concurrency: Mapped[int] = mapped_column()
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    artifact_bytes: Mapped[int] = mapped_column(BigInteger)
    artifact_uri: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime.datetime] = mapped_column(_Time, server_default=func.now())
    changed_at: Mapped[datetime.datetime] = mapped_column(
        _Time, server_default=func.now(), onupdate=func.now()
    )
    __table_args__ = (
        CheckConstraint("tier IN ('shared', 'dedicated')", name="tier"),
        CheckConstraint("state IN ('registered', 'ready', 'upgrading', 'deleting')", name="state"),
        CheckConstraint(
            "concurrency > 0 AND memory_bytes > 0 AND artifact_bytes >= 0", name="quota"
        ),
        Index("ix_tenants_cell", "cell"),
    )


class TokenRow(Base):
    """A token's hash and what it allows."""

    __tablename__ = "tokens"
    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    tenant_id: Mapped[int] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(63))
    sha256_hex: Mapped[str] = mapped_column(String(64), unique=True)
    access: Mapped[str] = mapped_column(String(16))
    expires_at: Mapped[datetime.datetime | None] = mapped_column(_Time)
    created_at: Mapped[datetime.datetime] = mapped_column(_Time, server_default=func.now())
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        CheckConstraint("access IN ('read-only', 'read-write')", name="access"),
    )


class ChangeRow(Base):
    """The last transaction that changed a tenant or its tokens; a trigger writes it.

    Ordered by transaction number and not by time: a clock may jump, and a transaction that began
    early may commit late.
    """

    __tablename__ = "changes"
    tenant: Mapped[str] = mapped_column(String(63), primary_key=True)
    transaction: Mapped[int] = mapped_column(BigInteger, index=True)


class WakeRow(Base):
    """When a tenant woke last; cells write it, batched, at most once a minute."""

    __tablename__ = "wakes"
    tenant_id: Mapped[int] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True
    )
    woken_at: Mapped[datetime.datetime] = mapped_column(_Time)
    transaction: Mapped[int] = mapped_column(BigInteger, index=True)


class AuditRow(Base):
    """What an operator did. The tenant is named, not referenced: the record outlives it."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(_Time, server_default=func.clock_timestamp())
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    tenant: Mapped[str | None] = mapped_column(Text, index=True)
    detail: Mapped[dict[str, object]] = mapped_column(JSONB, server_default="{}")


@dataclasses.dataclass(frozen=True)
class Quota:
    """What one tenant may take."""

    concurrency: int = 32
    """Requests in flight at once."""
    memory_bytes: int = 1024 * MIB
    """Private memory of its instance, above what it shares with the zygote."""
    artifact_bytes: int = 0
    """Most bytes of artifacts; 0 means no limit."""


@dataclasses.dataclass(frozen=True)
class Tenant:
    """One tenant as the catalogue knows it."""

    id: int
    name: TenantName
    tier: Tier
    cell: str
    state: State
    """registered: no database yet (or it must be made sure of); ready; upgrading; deleting."""
    mlflow_version: str
    password_generation: int
    quota: Quota
    artifact_uri: str | None
    """None means the folder `artifacts/<id>` below the fleet's data folder."""
    tokens: tuple[Token, ...]
    created_at: datetime.datetime
    changed_at: datetime.datetime


@dataclasses.dataclass(frozen=True)
class CreatedTenant:
    """The outcome of creating one tenant."""

    name: TenantName
    id: int
    token: str | None = dataclasses.field(repr=False)
    """The first token, shown only now; None if the tenant was there before."""
    created: bool


@dataclasses.dataclass(frozen=True)
class AuditRecord:
    """One line of the audit log."""

    at: datetime.datetime
    actor: str
    action: str
    tenant: str | None
    detail: dict[str, object]
