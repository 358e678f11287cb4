"""Re-wrap what MLflow encrypted under another passphrase: `python -m mlfleet.database.rewrap`.

A restored tenant has an id, and so a passphrase, of its own. One JSON object comes on stdin:
`uri`, `database`, `old`, `new`. A process of its own, as migrate.py: it imports mlflow.
"""

import json
import sys

from mlfleet.database.connect import connect


def main(uri: str, database: str, old: str, new: str) -> None:
    """Re-wrap every secret's key; the secrets themselves are not decrypted."""
    from mlflow.utils.crypto import KEKManager, rotate_secret_encryption

    connection = connect(uri, database)
    connection.autocommit = False
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT secret_id, encrypted_value, wrapped_dek, kek_version FROM secrets")
        for secret_id, value, wrapped, version in cursor.fetchall():
            rotated = rotate_secret_encryption(
                bytes(value),
                bytes(wrapped),
                KEKManager(passphrase=old, kek_version=version),
                KEKManager(passphrase=new, kek_version=version),
            )
            cursor.execute(
                "UPDATE secrets SET wrapped_dek = %s WHERE secret_id = %s",
                (rotated.wrapped_dek, secret_id),
            )
    connection.close()


if __name__ == "__main__":
    main(**json.loads(sys.stdin.read()))
