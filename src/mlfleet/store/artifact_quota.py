"""How many bytes lie under an artifact root, and whether some more may be added.

Bytes are reserved while they stream in and given back when the upload fails, so two uploads at
once cannot pass the limit together. The tree is counted at the first upload and again after
`_COUNT_AGAIN_S`, because a backup tool or a second replica may change it behind our back.
"""

import os
import threading
import time
from pathlib import Path

from mlfleet.errors import QuotaError

TEMPORARY_PREFIX = ".artifact.uploading."
"""What stock names a file that is not whole yet (`local_artifact_repo._TEMP_ARTIFACT_PREFIX`)."""

_COUNT_AGAIN_S = 600.0
_ABANDONED_S = 86400.0
"""A temporary file this old belongs to a process that died; no upload lasts a day."""


class Usage:
    """Bytes in use below one folder, against a limit."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._counted_at: float | None = None
        self._mutex = threading.Lock()

    def add(self, more_bytes: int) -> None:
        """Reserve bytes that are about to be written; a negative number gives some back.

        Raises:
            QuotaError: they would pass the limit; nothing was reserved.
        """
        if self._limit_bytes <= 0:
            return
        with self._mutex:
            self._count_if_old()
            if more_bytes > 0 and self._used_bytes + more_bytes > self._limit_bytes:
                raise QuotaError(
                    f"This tenant may keep {self._limit_bytes} bytes of artifacts and has "
                    f"{self._used_bytes}; this upload would pass the limit. Delete artifacts or "
                    "ask the operator for more."
                )
            self._used_bytes = max(0, self._used_bytes + more_bytes)

    def _count_if_old(self) -> None:
        now = time.monotonic()
        if self._counted_at is None or now - self._counted_at > _COUNT_AGAIN_S:
            self._used_bytes = count_bytes(self._root)
            self._counted_at = now


def count_bytes(root: Path) -> int:
    """Return the bytes of all files below `root`; files left by dead uploads are removed."""
    total, oldest = 0, time.time() - _ABANDONED_S
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            try:
                found = path.lstat()
                if name.startswith(TEMPORARY_PREFIX) and found.st_mtime < oldest:
                    path.unlink()
                else:
                    total += found.st_size
            except FileNotFoundError:
                continue  # renamed or deleted while we walk
    return total
