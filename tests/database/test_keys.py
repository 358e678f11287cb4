"""What is derived from the fleet key, and how its file is treated."""

import base64
import hmac
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlfleet.database.keys import FleetKey
from mlfleet.database.scram import verifier
from mlfleet.errors import FleetError

KEY = FleetKey(bytes(range(32)))


def test_a_key_file_is_private_and_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    first = FleetKey.from_file(path, create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert FleetKey.from_file(path, create=True) == first == FleetKey.from_file(path)
    assert list(tmp_path.iterdir()) == [path]


def test_many_that_create_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = pool.map(lambda _: FleetKey.from_file(tmp_path / "k", create=True), range(64))
    assert len({key.secret for key in keys}) == 1


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33])
def test_a_damaged_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "k"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(FleetError, match="64 hexadecimal digits"):
        FleetKey.from_file(path)


def test_a_missing_or_open_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="is missing"):
        FleetKey.from_file(tmp_path / "none")
    (tmp_path / "open").write_text("ab" * 32)
    (tmp_path / "open").chmod(0o644)
    with pytest.raises(FleetError, match="chmod 600"):
        FleetKey.from_file(tmp_path / "open")


def test_every_purpose_tenant_and_generation_has_a_secret_of_its_own() -> None:
    secrets = [KEY.database_password(t, g) for t in (1, 2, 11) for g in (1, 2, 12)]
    secrets += [derive(t) for t in (1, 2, 11) for derive in (KEY.kek_passphrase, KEY.session_key)]
    secrets.append(FleetKey(bytes(32)).database_password(1, 1))
    assert len(set(secrets)) == len(secrets)


def test_a_key_is_not_shown() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert repr(KEY.secret) not in repr(KEY)


def test_a_verifier_is_the_one_of_the_standard() -> None:
    """The exchange of RFC 7677, section 3: user "user", password "pencil"."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    made = verifier("pencil", salt, 4096)
    assert made.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    # The server's signature of that exchange follows from the server key.
    server_key = base64.b64decode(made.rsplit(":", 1)[1])
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = base64.b64encode(hmac.digest(server_key, message, "sha256"))
    assert signature == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
