"""Make a Postgres ready for a fleet: the catalogue, and the template of tenants' databases.

Schema work happens here, in `up` or in `mlfleet database prepare`, and never in a serving process.
Doing it again changes nothing.
"""

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.database.admin import Admin
from mlfleet.database.connect import connect
from mlfleet.errors import BudgetError


def prepare(admin_uri: str, connections: int = 0) -> list[str]:
    """Bring catalogue and template to the installed versions.

    Args:
        connections: what this Postgres must allow; 0 asks nothing of it.

    Returns:
        Sentences about what this Postgres leaves open to tenants, for its owner to mend.

    Raises:
        BudgetError: it allows fewer; nothing was made.
    """
    if connections:
        check_connections(admin_uri, connections)
    catalogue = Catalogue(admin_uri)
    catalogue.prepare()
    catalogue.close()
    admin = Admin(admin_uri)
    try:
        return admin.prepare()
    finally:
        admin.close()


def check_connections(admin_uri: str, needed: int) -> None:
    """Return if Postgres allows as many connections as the fleet's settings say.

    Raises:
        BudgetError: it does not; the cells would be refused at the busiest moment.
    """
    connection = connect(admin_uri)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW max_connections")
            row = cursor.fetchone()
    finally:
        connection.close()
    allowed = int(row[0]) if row else 0
    if allowed < needed:
        raise BudgetError(
            f"Postgres allows {allowed} connections and the fleet is set to {needed}: raise "
            f"max_connections to {needed}, or give the cells fewer awake tenants or replicas "
            "(and lower max-connections in the overlay's settings.yaml)"
        )
