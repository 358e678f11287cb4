"""Read what the artifact folder of a tenant holds."""

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

UPLOADING = ".artifact.uploading."
"""What MLflow calls a file before it is whole; clients do not see it."""
_BLOCK_BYTES = 2**20


class Files:
    """The artifact root of one tracking server.

    Args:
        root: the folder that `mlflow-artifacts:/` stands for.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def of_run(self, artifact_uri: str) -> tuple[dict[str, tuple[int, str]], int]:
        """Return size and SHA-256 of each file by path, and how many uploads were cut off."""
        files, unfinished = {}, 0
        folder = self._folder(artifact_uri)
        for path, _, names in os.walk(folder):
            for name in names:
                file = Path(path, name)
                if name.startswith(UPLOADING):
                    unfinished += 1
                else:
                    files[file.relative_to(folder).as_posix()] = _digest(file)
        return files, unfinished

    def _folder(self, artifact_uri: str) -> Path:
        """Return a run's folder; stock's may be proxied, a file address or a plain path."""
        parts = urlsplit(artifact_uri)
        path = unquote(parts.path)
        return self._root / path.lstrip("/") if parts.scheme == "mlflow-artifacts" else Path(path)


def _digest(path: Path) -> tuple[int, str]:
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
    return size_bytes, digest.hexdigest()
