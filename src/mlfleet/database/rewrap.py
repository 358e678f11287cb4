"""Re-wrap what MLflow encrypted under another passphrase: `python -m mlfleet.database.rewrap`.

A restored tenant has an id, and so a passphrase, of its own. One JSON object comes on stdin:
`uri`, `database`, `old`, `new`. A process of its own, as migrate.py: it imports mlflow.
"""

import json
import sys

import psycopg2.extensions

from mlfleet.database.connect import connect
from mlfleet.database.keys import webhook_key


def main(uri: str, database: str, old: str, new: str) -> None:
    """Re-wrap all of it, or nothing."""
    connection = connect(uri, database)
    connection.autocommit = False
    with connection, connection.cursor() as cursor:
        _rewrap_secrets(cursor, old, new)
        _rewrap_webhooks(cursor, old, new)
    connection.close()


def _rewrap_secrets(cursor: psycopg2.extensions.cursor, old: str, new: str) -> None:
    """Re-wrap the key of each of the AI gateway's secrets; they are not decrypted themselves."""
    from mlflow.utils.crypto import KEKManager, rotate_secret_encryption

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


def _rewrap_webhooks(cursor: psycopg2.extensions.cursor, old: str, new: str) -> None:
    """Encrypt each webhook's secret anew."""
    from cryptography.fernet import Fernet

    before, after = Fernet(webhook_key(old)), Fernet(webhook_key(new))
    cursor.execute("SELECT webhook_id, secret FROM webhooks WHERE secret IS NOT NULL")
    for webhook_id, secret in cursor.fetchall():
        again = after.encrypt(before.decrypt(secret.encode())).decode()
        cursor.execute("UPDATE webhooks SET secret = %s WHERE webhook_id = %s", (again, webhook_id))


if __name__ == "__main__":
    main(**json.loads(sys.stdin.read()))
