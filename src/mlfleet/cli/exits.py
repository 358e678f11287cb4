"""Which exit code tells a script what."""

from mlfleet.errors import (
    FleetError,
    InvalidNameError,
    NotRunningError,
    UnknownTenantError,
    UnknownTokenError,
)

FAILED = 1
USAGE = 2
UNKNOWN = 3
NOT_RUNNING = 4
INTERRUPTED = 130

_CODES: dict[type[FleetError], int] = {
    InvalidNameError: USAGE,
    UnknownTenantError: UNKNOWN,
    UnknownTokenError: UNKNOWN,
    NotRunningError: NOT_RUNNING,
}


def exit_code(error: FleetError) -> int:
    """Return the exit code for an error: that of its nearest class with one of its own."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), FAILED)
