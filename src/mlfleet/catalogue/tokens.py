"""Tokens: what a client presents, and the hash of it that is stored.

A token is 32 random bytes, so a plain SHA-256 cannot be reversed by guessing and needs no salt.
"""

import dataclasses
import datetime
import hashlib
import hmac
import secrets
from typing import Literal

from mlfleet.errors import FleetError

Access = Literal["read-only", "read-write"]
PREFIX = "mlf_"
"""Lets secret scanners and people recognise a token."""


@dataclasses.dataclass(frozen=True)
class Token:
    """A named key to one tenant, as stored: without the token itself."""

    name: str
    sha256_hex: str
    access: Access
    expires_at: datetime.datetime | None
    created_at: datetime.datetime

    def is_valid(self, presented_sha256: str, now: datetime.datetime) -> bool:
        """Return whether a presented token (by its hash) is this one and has not expired."""
        same = hmac.compare_digest(self.sha256_hex, presented_sha256)
        return same and (self.expires_at is None or now < self.expires_at)


def new_token() -> str:
    """Return a token; it is shown once and stored nowhere."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Return what is stored of a token: SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def access_of(text: str) -> Access:
    """Return the text as an access, or raise FleetError."""
    if text == "read-only":
        return "read-only"
    if text == "read-write":
        return "read-write"
    raise FleetError(f"access {text!r}: use read-only or read-write")
