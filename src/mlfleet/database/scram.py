"""SCRAM-SHA-256 verifiers, so that a password never appears in a statement or a server log."""

import base64
import hashlib
import hmac
import secrets

# Iterations slow down guessing of human passwords. Ours are 256 random bits, which nobody guesses,
# while each costs every wake time: Postgres' default of 4096 takes 2 to 4 ms per connection.
ITERATIONS = 1


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """Return what Postgres stores for an ASCII password. Source: RFC 5803."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"
