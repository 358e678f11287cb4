"""Artifacts of one tenant: files under its root, whole or not there at all, and nothing outside.

Stock reads any `file:///…` that a client stored as an artifact location. Here every repository for
a local path is a `FleetArtifactRepository`, which refuses what lies outside the tenant's root after
symlinks are followed, and storages that are not the tenant's are refused by their scheme.

Stock already writes to a temporary name in the target folder and renames. Added: file and folder
are flushed to disk before the answer, so a power cut or a second NFS client sees the whole file;
the mode is set on the descriptor, because an instance's seccomp filter forbids chmod and utime by
path; the quota; and 507 for a full disk. Locations under an S3 root go through MLflow's own S3
repository, kept to the tenant's prefix.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    RESOURCE_EXHAUSTED,
)
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import get_uri_scheme, is_local_uri

from mlfleet.errors import QuotaError
from mlfleet.store.artifact_quota import Usage

_FILE_MODE = 0o640
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK_BYTES = 1024 * 1024
"""Small chunks of an upload are joined to this size: each write to disk is a hop to a thread."""

_INDIRECT = ("runs", "models", "mlflow-artifacts", "http", "https")
"""Schemes that name no storage themselves; stock resolves them, and its host policy guards the
ones that name a host."""


class ArtifactRefusedError(MlflowException):  # type: ignore[misc]  # MLflow has no types
    """An upload that the quota (413) or the disk (507) does not take."""

    def __init__(self, message: str, http_status: int) -> None:
        super().__init__(message, RESOURCE_EXHAUSTED)
        self.http_status = http_status

    def get_http_status_code(self) -> int:
        """Return 413 or 507; MLflow has no error code for either."""
        return self.http_status


class Root:
    """The tenant's artifact root: a folder, or an s3:// URI."""

    def __init__(self, location: str, limit_bytes: int) -> None:
        self.is_s3 = location.startswith("s3://")
        self.location = location.rstrip("/")
        self.folder = "/nonexistent" if self.is_s3 else os.path.realpath(location)
        self.usage = Usage(Path(self.folder), 0 if self.is_s3 else limit_bytes)

    def check_path(self, path: str) -> None:
        """Refuse a local path that is not in the folder once symlinks are followed."""
        if self.is_s3 or not self.has(path):
            raise _outside(path)

    def has(self, path: str) -> bool:
        """Return whether a local path is in the folder, or is it, once symlinks are followed."""
        return f"{os.path.realpath(path)}/".startswith(f"{self.folder}/")

    def check_uri(self, uri: str) -> None:
        """Refuse an artifact location that is neither proxied nor in this root."""
        scheme = get_uri_scheme(uri)
        if scheme in _INDIRECT:
            return
        if is_local_uri(uri):
            self.check_path(local_file_uri_to_path(uri))
        elif not self._is_inside_s3(uri):
            raise _outside(uri)

    def _is_inside_s3(self, uri: str) -> bool:
        # S3 itself takes ".." as a name, but not all that speak its protocol do.
        inside = self.is_s3 and f"{uri}/".startswith(f"{self.location}/")
        return inside and ".." not in uri.split("/")


_root = Root("/nonexistent", 0)


def install(location: str, limit_bytes: int) -> None:
    """Serve artifacts from this root only, in this process."""
    global _root
    _root = Root(location, limit_bytes)
    for scheme in list(_artifact_repository_registry.get_registered_artifact_repositories()):
        if scheme not in _INDIRECT:
            _artifact_repository_registry.register(scheme, _refuse)
    _artifact_repository_registry.register("", FleetArtifactRepository)
    _artifact_repository_registry.register("file", FleetArtifactRepository)
    _artifact_repository_registry.register("s3", FleetS3Repository)


def check_location(uri: str) -> None:
    """Refuse (400, INVALID_PARAMETER_VALUE) an artifact location outside the tenant's root."""
    _root.check_uri(uri)


def _outside(location: str) -> MlflowException:
    return MlflowException(
        f"Artifact location '{location}' is outside this tenant's artifact root. Leave the "
        "location out, or use one that starts with mlflow-artifacts:/.",
        INVALID_PARAMETER_VALUE,
    )


def _refuse(uri: str, **_: Any) -> Any:
    raise _outside(uri)


class FleetS3Repository(S3ArtifactRepository):  # type: ignore[misc]  # MLflow has no types
    """MLflow's S3 repository, for locations under the tenant's own prefix."""

    def __init__(self, artifact_uri: str, **options: Any) -> None:
        _root.check_uri(artifact_uri)
        super().__init__(artifact_uri, **options)


class FleetArtifactRepository(LocalArtifactRepository):  # type: ignore[misc]  # MLflow has no types
    """MLflow's repository for folders, kept to the tenant's root, its quota, and durable."""

    def __init__(self, artifact_uri: str, **options: Any) -> None:
        super().__init__(artifact_uri, **options)
        _root.check_path(self._artifact_dir)

    def get_local_path(self, artifact_path: str) -> str:
        """Return the absolute path of an artifact."""
        path: str = super().get_local_path(artifact_path)
        _root.check_path(path)
        return path

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Copy one file in."""
        with _reserving() as reserve:
            reserve(Path(local_file).stat().st_size)
            super().log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Copy a folder in, each file as `log_artifact` does it (stock copies in place)."""
        for folder, _, names in os.walk(local_dir):
            inner = os.path.relpath(folder, local_dir)
            parts = [part for part in (artifact_path, inner) if part and part != "."]
            target = "/".join(parts) or None
            self._get_or_create_artifact_dir(target)
            for name in names:
                self.log_artifact(str(Path(folder, name)), target)

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Write one file from a stream."""
        with _reserving() as reserve:
            counted: Any = _CountedStream(stream, reserve)
            super().log_artifact_from_stream(counted, artifact_file_name, artifact_path)

    async def log_artifact_from_async_stream(
        self,
        chunks: AsyncIterable[bytes],
        artifact_file_name: str,
        artifact_path: str | None = None,
    ) -> None:
        """Write one file from a request's body; memory stays at about one chunk."""
        with _reserving() as reserve:
            await super().log_artifact_from_async_stream(
                _joined(chunks, reserve), artifact_file_name, artifact_path
            )

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file or a folder."""
        target = str(Path(self._artifact_dir, artifact_path or ""))
        _root.check_path(target)
        freed_bytes = _size(target)
        super().delete_artifacts(artifact_path)
        _root.usage.add(-freed_bytes)

    def _get_or_create_artifact_dir(self, artifact_path: str | None = None) -> str:
        with _disk_errors():
            folder: str = super()._get_or_create_artifact_dir(artifact_path)
        _root.check_path(folder)
        return folder

    def _publish_staged_artifact(
        self,
        temp_file_path: str,
        destination_file_path: str,
        finalize_temp_path: Callable[[str], None] | None = None,
    ) -> None:
        # `finalize_temp_path` is chmod or utime by path, which seccomp forbids here.
        replaced_bytes = _size(destination_file_path)
        _flush(temp_file_path, mode=_FILE_MODE)
        os.replace(temp_file_path, destination_file_path)  # noqa: PTH105
        _root.usage.add(-replaced_bytes)
        for folder in _folders(destination_file_path):
            _flush(folder)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        source = Path(self.get_local_path(remote_file_path))
        if not source.is_file():
            raise MlflowException(
                f"No such artifact: '{remote_file_path}'", error_code=RESOURCE_DOES_NOT_EXIST
            )
        shutil.copyfile(source, local_path)


class _CountedStream:
    """A binary stream that reports the bytes read from it."""

    def __init__(self, stream: BinaryIO, report: Callable[[int], None]) -> None:
        self._stream = stream
        self._report = report

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes of the stream."""
        data = self._stream.read(size)
        self._report(len(data))
        return data


async def _joined(
    chunks: AsyncIterable[bytes], report: Callable[[int], None]
) -> AsyncIterator[bytes]:
    """Yield the chunks joined to about `_CHUNK_BYTES`, reporting bytes before they are written."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= _CHUNK_BYTES:
            report(len(waiting))
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        report(len(waiting))
        yield bytes(waiting)


@contextlib.contextmanager
def _reserving() -> Iterator[Callable[[int], None]]:
    """Hand out a function that reserves bytes; what a failed upload reserved is given back."""
    reserved_bytes = 0

    def reserve(more_bytes: int) -> None:
        nonlocal reserved_bytes
        _root.usage.add(more_bytes)
        reserved_bytes += more_bytes

    try:
        with _disk_errors():
            yield reserve
    except BaseException as exc:
        _root.usage.add(-reserved_bytes)
        if isinstance(exc, QuotaError):
            raise ArtifactRefusedError(str(exc), 413) from exc
        raise


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno not in _DISK_FULL:
            raise
        raise ArtifactRefusedError(
            "The disk that keeps this tenant's artifacts is full. Nothing was stored; tell the "
            "operator.",
            507,
        ) from exc


def _flush(path: str, mode: int | None = None) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(path: str) -> Iterator[str]:
    """Yield the folders above a file, the root last: any may be new with this artifact."""
    while _root.has(path := path.rpartition("/")[0]):
        yield path


def _size(path: str) -> int:
    """Return the bytes of a file or of all files in a folder; 0 if there is none."""
    # Not `Path.is_dir`: it raises for a name that is too long, which stock takes for a missing one.
    if os.path.isdir(path):  # noqa: PTH112
        return sum(found.lstat().st_size for found in Path(path).rglob("*") if found.is_file())
    return os.lstat(path).st_size if os.path.isfile(path) else 0  # noqa: PTH113
