"""The one tree of errors that mlfleet raises, and what each means to an HTTP client.

Status codes steer retries: an MLflow client retries 408, 429 and 5xx with backoff and treats
every other 4xx as final, so a temporary condition is always 429 and never 400 or 404.
"""


class FleetError(Exception):
    """Base of all errors that a person can act on; the message says what, where and how to mend."""


class InvalidNameError(FleetError):
    """A tenant, cell or token name that is not allowed."""


class UnknownTenantError(FleetError):
    """No tenant of that name is registered."""


class UnknownTokenError(FleetError):
    """The tenant has no token of that name."""


class AlreadyRunningError(FleetError):
    """Another fleet holds the data folder or the port."""


class NotRunningError(FleetError):
    """No fleet runs on the data folder, so there is nothing to ask."""


class WrongVersionError(FleetError):
    """A tenant's data belongs to another MLflow version than the installed one."""


class UnauthorizedError(FleetError):
    """No token, or one that is wrong, expired or revoked."""


class ForbiddenError(FleetError):
    """A valid token that may not do this (read-only)."""


class NoCapacityError(FleetError):
    """Full for the moment: the same request will work later."""


class DatabaseAwayError(FleetError):
    """Postgres cannot be reached or has no connection to give; try again later."""


class QuotaError(FleetError):
    """A tenant's limit on artifact bytes or body size is reached; retrying will not help."""


class BudgetError(FleetError):
    """Settings that could exhaust Postgres' connections or deadlock; carries the arithmetic."""


STATUS: dict[type[FleetError], int] = {
    InvalidNameError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    UnknownTenantError: 404,
    WrongVersionError: 409,
    QuotaError: 413,
    NoCapacityError: 429,
    DatabaseAwayError: 429,
}
