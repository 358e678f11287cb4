"""The fleet's one secret, and what is derived from it.

Nothing derived is stored: a tenant's database password and MLflow passphrase are HMACs of the
fleet key, so the catalogue's rows and backups hold no password. An instance is given its own two
and never the key.
"""

import base64
import dataclasses
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Self

from mlfleet.errors import FleetError

KEY_BYTES = 32


@dataclasses.dataclass(frozen=True)
class FleetKey:
    """32 random bytes, kept in a file of mode 0600 as hexadecimal text."""

    secret: bytes = dataclasses.field(repr=False)

    @classmethod
    def from_file(cls, path: Path, *, create: bool = False) -> Self:
        """Return the key of a file; with `create`, make the file if there is none.

        Raises:
            FleetError: missing, readable by others, or not 64 hexadecimal digits.
        """
        if create:
            _create(path)
        try:
            # A group may read: that is how Kubernetes hands a Secret to a process that is not root.
            if path.stat().st_mode & 0o037:
                raise FleetError(f"{path} can be read by others: `chmod 600 {path}`")
            return cls.from_text(path.read_text(), str(path))
        except FileNotFoundError:
            raise FleetError(
                f"{path} is missing: without the fleet key no tenant's database opens; "
                "restore it from your backup of the data folder"
            ) from None

    @classmethod
    def from_text(cls, text: str, origin: str = "the fleet key") -> Self:
        """Return the key that 64 hexadecimal digits stand for."""
        try:
            secret = bytes.fromhex(text.strip())
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise FleetError(f"{origin} must be {KEY_BYTES * 2} hexadecimal digits")
        return cls(secret)

    def database_password(self, tenant_id: int, generation: int) -> str:
        """Return the password of a tenant's role; a new generation is a new password."""
        return self._derive(f"database:{tenant_id}:{generation}")

    def kek_passphrase(self, tenant_id: int) -> str:
        """Return what the tenant's MLflow encrypts its stored secrets with; it never changes."""
        return self._derive(f"kek:{tenant_id}")

    def session_key(self, tenant_id: int) -> str:
        """Return what browser sessions of one tenant are signed with."""
        return self._derive(f"session:{tenant_id}")

    @property
    def handover_key(self) -> str:
        """Return what cells sign a request with that they hand over to one another."""
        return self._derive("handover")

    @property
    def fingerprint(self) -> str:
        """Tells two fleets' keys apart without telling anything else about them."""
        return self._derive("fingerprint")[:16]

    def _derive(self, purpose: str) -> str:
        return hmac.digest(self.secret, purpose.encode(), "sha256").hex()


def _create(path: Path) -> None:
    """Write a new key under a temporary name and link it: two at once end with one key."""
    if path.exists():
        return
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def webhook_key(kek_passphrase: str) -> bytes:
    """Return the Fernet key for webhooks' secrets; a passphrase of ours has entropy enough."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"webhook:{kek_passphrase}".encode()).digest())
