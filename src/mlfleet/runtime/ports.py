"""Choose ports: below 32768, where the kernel does not take them for outgoing connections."""

import socket

from mlfleet.errors import FleetError

POSTGRES_PORTS = range(25432, 25932)


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def reserve(preferred: int | None, among: range = POSTGRES_PORTS) -> tuple[int, socket.socket]:
    """Return a free loopback port, and what keeps other fleets from choosing it meanwhile.

    Between the choice and Postgres' own bind lies a second of initdb. The reservation is an
    abstract Unix socket named after the port: it lives as long as it is held, and in the same
    network namespace as the port.

    Args:
        preferred: taken if it is free; else the first free one of `among`.

    Raises:
        FleetError: all are taken.
    """
    for port in ([preferred] if preferred else []) + list(among):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0mlfleet-postgres-{port}")
        except OSError:
            claim.close()
            continue
        if is_free("127.0.0.1", port):
            return port, claim
        claim.close()
    raise FleetError(
        f"Postgres finds no free port from {among[0]} to {among[-1]} on 127.0.0.1:"
        " end what uses them, or give your own Postgres in MLFLEET_ADMIN_URI"
    )
