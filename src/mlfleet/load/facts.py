"""What a run holds, derived from its name: users send it, the checker expects it, nobody stores it.

Pure. A run's name is unique (load run, user, number, start), so all that is derived from it is too:
a row that ended up in another run, under another key or at another step is not the right row.
Values are cheap, because ten thousand users and their load's checker compute millions of them.
"""

import functools
import hashlib
from collections.abc import Iterator

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_BLOCK_BYTES = 65536
STEP_MS = 1000
"""A metric is logged once a second, as far as its timestamps say."""


def run_name(load: str, user: object, number: int, start_ms: int) -> str:
    """Return the name of a user's n-th run.

    Args:
        load: the load run's id, eight hexadecimal digits.
        user: unique in the whole load run, all its processes.
        start_ms: Unix time in milliseconds, which is also the run's `start_time`.
    """
    return f"{load}-{user}-{number}-{start_ms:x}"


def start_ms(name: str) -> int:
    """Return when a run of that name began, in Unix milliseconds."""
    return int(name.rpartition("-")[2], 16)


def metric(name: str, key: str, step: int) -> float:
    """Return the value of a metric: 0 to 1, with a falling trend over the first thousand steps."""
    return value(seed(name, key), step)


def metric_ms(name: str, step: int) -> int:
    """Return the timestamp of a metric: STEP_MS per step after the run's start."""
    return start_ms(name) + STEP_MS * step


def values(name: str, key: str, first_step: int, last_step: int) -> Iterator[float]:
    """Return the values of a metric for some steps, both ends included."""
    its_seed = seed(name, key)
    return (value(its_seed, step) for step in range(first_step, last_step + 1))


@functools.lru_cache(maxsize=65536)
def seed(name: str, key: str) -> int:
    """Return what the values of one metric of one run are computed from."""
    digest = hashlib.blake2b(f"metric|{name}|{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def value(seed: int, step: int) -> float:
    """Return the value of a metric at a step."""
    noise = ((seed + step * _GOLDEN) & _MASK) >> 40
    return (noise / 2**24 + 1000 / (1000 + step)) / 2


def param(name: str, key: str) -> str:
    """Return a param's text: 16 characters, and for a key `big…` 6,000."""
    text = hashlib.blake2b(f"param|{name}|{key}".encode(), digest_size=8).hexdigest()
    return text * 375 if key.startswith("big") else text


def tag(name: str, key: str, edition: int) -> str:
    """Return the n-th value of a tag."""
    text = hashlib.blake2b(f"tag|{name}|{key}".encode(), digest_size=6).hexdigest()
    return f"{edition}-{text}"


def artifact(name: str, path: str, size_bytes: int, edition: int = 0) -> bytes:
    """Return a file's bytes."""
    return b"".join(artifact_blocks(name, path, size_bytes, edition))


def artifact_blocks(name: str, path: str, size_bytes: int, edition: int = 0) -> Iterator[bytes]:
    """Return a file's bytes in pieces of 64 KiB.

    Each begins with its number, so none can be swapped; the rest repeats, because a checkpoint of
    tens of MB must cost the load generator little more than copying it.
    """
    block = _block(f"artifact|{name}|{path}|{edition}", min(size_bytes, _BLOCK_BYTES))
    for begin in range(0, size_bytes, _BLOCK_BYTES):
        head = (begin // _BLOCK_BYTES).to_bytes(8, "big")
        yield (head + block[8:])[: size_bytes - begin]


def artifact_sha256(name: str, path: str, size_bytes: int, edition: int = 0) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    for block in artifact_blocks(name, path, size_bytes, edition):
        digest.update(block)
    return digest.hexdigest()


def trace_id(name: str, number: int) -> str:
    """Return the OTLP trace id of a run's n-th trace, 32 hexadecimal digits."""
    return hashlib.blake2b(f"trace|{name}|{number}".encode(), digest_size=16).hexdigest()


def span_id(name: str, number: int, span: int) -> str:
    """Return the id of a trace's n-th span, 16 hexadecimal digits; span 0 is the root."""
    return hashlib.blake2b(f"span|{name}|{number}|{span}".encode(), digest_size=8).hexdigest()


def _block(text: str, size_bytes: int) -> bytes:
    return hashlib.shake_256(text.encode()).digest(size_bytes)
