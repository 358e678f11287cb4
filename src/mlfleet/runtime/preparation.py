"""Make a Postgres ready for a fleet: the catalogue, and the template of tenants' databases.

Schema work happens here, in `up` or in `mlfleet database prepare`, and never in a serving process.
Doing it again changes nothing.
"""

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.database.admin import Admin


def prepare(admin_uri: str) -> list[str]:
    """Bring catalogue and template to the installed versions.

    Returns:
        Sentences about what this Postgres leaves open to tenants, for its owner to mend.
    """
    catalogue = Catalogue(admin_uri)
    catalogue.prepare()
    catalogue.close()
    admin = Admin(admin_uri)
    try:
        return admin.prepare()
    finally:
        admin.close()
