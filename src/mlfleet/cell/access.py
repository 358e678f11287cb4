"""Decide whether a request may do what it asks, from its headers and the tenant's tokens.

Pure: the clock is an argument. A token is known by its SHA-256 alone; the lookup is by digest, so
its timing tells nothing about the token's text. Browsers may use a session cookie, only on the
tenant's own host: under paths all tenants share one origin. The cookie names a token, so it ends
with that token's revocation or expiry.
"""

import base64
import binascii
import hmac
from collections.abc import Callable
from datetime import datetime
from http.cookies import CookieError, SimpleCookie

from mlfleet.catalogue.tokens import Token
from mlfleet.errors import ForbiddenError, UnauthorizedError

COOKIE = "mlfleet_session"
STATE_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})

READING_POSTS = frozenset(
    {
        # Searches, whose filters do not fit into a query string.
        "mlflow/experiments/search",
        "mlflow/experiments/search-datasets",
        "mlflow/runs/search",
        "mlflow/datasets/search",
        "mlflow/issues/search",
        "mlflow/logged-models/search",
        "mlflow/prompt-optimization/jobs/search",
        "mlflow/traces/search",
        "jobs/search",
        # Reads that take a list of ids, or compute over what is stored.
        "mlflow/registered-models/get-latest-versions",
        "mlflow/traces/batchGetInfos",
        "mlflow/traces/calculate-filter-correlation",
        "mlflow/traces/metrics",
        "mlflow/artifacts/presigned-download-url",
        # The UI reports its use here; nothing of the tenant changes.
        "mlflow/ui-telemetry",
    }
)
"""Calls that use POST and change nothing, without `/api/2.0/`, `/ajax-api/3.0/` and so on.

GraphQL is one more: MLflow calls two of its searches mutations, and no field of its schema writes.
Everything else that is not GET or HEAD writes.
"""


def presented_token(authorization: str) -> str | None:
    """Return the token in an Authorization header: Bearer, or Basic with any user name."""
    scheme, _, rest = authorization.partition(" ")
    rest = rest.strip()
    if not rest.isascii():
        return None
    if scheme.lower() == "bearer":
        return rest or None
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(rest, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    token = decoded.partition(":")[2]
    return token if token and token.isascii() else None


def valid_token(tokens: dict[str, Token], sha256_hex: str, now: datetime) -> Token:
    """Return the token with this digest.

    Raises:
        UnauthorizedError: none has it (wrong or revoked), or it is expired.
    """
    token = tokens.get(sha256_hex)
    if token is None:
        raise UnauthorizedError(
            "This token is not (or no longer) valid here; "
            "`mlfleet token create TENANT NAME` makes one"
        )
    if token.expires_at is not None and token.expires_at <= now:
        raise UnauthorizedError(
            f"Token {token.name!r} expired at {token.expires_at:%Y-%m-%dT%H:%M:%SZ}; "
            "`mlfleet token rotate` gives a new one"
        )
    return token


def only_reads(method: str, path: str) -> bool:
    """Return whether a call changes nothing; `path` is raw and has lost its tenant."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return True
    if method != "POST":
        return False
    path = path.partition("?")[0]
    if path == "/graphql":
        return True
    root, _, rest = path[1:].partition("/")
    version, _, call = rest.partition("/")
    if root not in ("api", "ajax-api") or version not in ("2.0", "3.0"):
        # MLflow itself misspells one: /api/2.0mlflow/experiments/search-datasets
        return rest == "2.0mlflow/experiments/search-datasets"
    return call.rstrip("/") in READING_POSTS


def check_token_access(token: Token, method: str, path: str) -> None:
    """Refuse a write by a read-only token.

    Raises:
        ForbiddenError: it may not.
    """
    if token.access == "read-only" and not only_reads(method, path):
        raise ForbiddenError(f"Token {token.name!r} is read-only and this call writes")


def check_origin(method: str, origin: str | None, host: str, *, by_cookie: bool) -> None:
    """Refuse state-changing requests that another site's page sent, as MLflow does.

    Stricter than stock in one point: a request that is authorised by a cookie must name its origin.

    Raises:
        ForbiddenError: the origin is foreign or missing.
    """
    if method not in STATE_CHANGING:
        return
    if origin is None:
        if by_cookie:
            raise ForbiddenError("Cross-origin request blocked: the Origin header is missing")
        return
    if origin.partition("://")[2].lower() != host.lower():
        raise ForbiddenError("Cross-origin request blocked")


class Sessions:
    """Makes and checks session cookies: token and time, signed with the tenant's own key."""

    def __init__(self, key: Callable[[int], str], session_s: float) -> None:
        self._key = key
        self.session_s = session_s

    def issue(self, tenant_id: int, sha256_hex: str, now: datetime) -> str:
        """Return the cookie's value for a tenant and the token that was shown at login."""
        payload = f"{sha256_hex}.{int(now.timestamp())}"
        return f"{payload}.{self._sign(tenant_id, payload)}"

    def token_digest(self, value: str, tenant_id: int, now: datetime) -> str | None:
        """Return the token's digest in a cookie, or none if it is forged, foreign or too old."""
        payload, _, signature = value.rpartition(".")
        expected = self._sign(tenant_id, payload)
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
            return None
        sha256_hex, issued = payload.split(".")
        return sha256_hex if now.timestamp() - int(issued) < self.session_s else None

    def _sign(self, tenant_id: int, payload: str) -> str:
        key = self._key(tenant_id).encode()
        return hmac.digest(key, payload.encode("utf-8", "replace"), "sha256").hex()


def session_value(cookie_header: str) -> str | None:
    """Return the session cookie's value in a Cookie header."""
    try:
        morsel = SimpleCookie(cookie_header).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel else None
