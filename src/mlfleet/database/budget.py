"""Hold the sum of all Postgres connections against the server's limit.

Pure. An awake tenant needs one server connection at most (the store has exactly one), each cell
some for its catalogue and for cloning; PgBouncer pools per (database, user) and so saves none
of them. A sum that does not fit would turn into refused logins at the busiest moment: it is
refused at start instead, with the arithmetic.
"""

import dataclasses

from mlfleet.errors import BudgetError


@dataclasses.dataclass(frozen=True)
class Budget:
    """What may be open at once."""

    max_connections: int
    """Postgres' limit."""
    reserved: int
    """Of these, kept for superusers (superuser_reserved_connections + reserved_connections)."""
    awake: int
    """Tenants awake at once in one cell."""
    catalogue_connections: int
    """Catalogue and administrator connections of one cell."""
    cells: int = 1
    """Cell replicas running at once."""
    operator: int = 3
    """Room for the command line and the operator's own tools."""

    @property
    def needed(self) -> int:
        """Connections open at the worst moment, reserved ones included."""
        return (
            self.cells * (self.awake + self.catalogue_connections) + self.operator + self.reserved
        )

    @property
    def arithmetic(self) -> str:
        """The sum in words, for `doctor` and the start."""
        per_cell = f"({self.awake} awake + {self.catalogue_connections} catalogue)"
        return (
            f"{self.cells} cell{'s' if self.cells != 1 else ''} x {per_cell}"
            f" + {self.operator} operator + {self.reserved} reserved"
            f" = {self.needed} of max_connections = {self.max_connections}"
        )

    def check(self) -> None:
        """Return if the budget holds.

        Raises:
            BudgetError: it does not, or a part is so small that a request could wait for ever.
        """
        if self.awake < 1 or self.cells < 1 or self.catalogue_connections < 1:
            raise BudgetError(
                "at least one cell, one awake tenant and one catalogue connection are needed, "
                f"or the first request waits for ever: {self.arithmetic}"
            )
        if self.needed > self.max_connections:
            most = (
                self.max_connections - self.reserved - self.operator
            ) // self.cells - self.catalogue_connections
            mend = f"set MLFLEET_MAX_AWAKE to {most} or less, or " if most >= 1 else ""
            raise BudgetError(
                f"too many connections: {self.arithmetic}; "
                f"{mend}raise max_connections to {self.needed}"
            )
