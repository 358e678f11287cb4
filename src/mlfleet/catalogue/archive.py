"""A backup on disk: a folder or a .tar with files, and a manifest that knows each one's SHA-256.

The manifest is written last, and the whole under a temporary name that is renamed at the end: what
has the final name is complete. Reading copies everything out first and compares it with the
manifest, so a damaged archive changes nothing. Files are opened without following links: a
tenant's folder is written by the tenant, and a link in it could point anywhere.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from mlfleet.errors import FleetError

MANIFEST = "manifest.json"
_CHUNK_BYTES = 2**20


class DamagedArchiveError(FleetError):
    """A backup that is incomplete, changed, or no backup at all."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the manifest says of one file."""

    size_bytes: int
    sha256: str


class _Sink(Protocol):
    def add(self, name: str, source: IO[bytes], size_bytes: int) -> None: ...
    def close(self) -> None: ...


class Writer:
    """Collects files and their hashes; use `writing`."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self.entries: dict[str, Entry] = {}

    def add(self, name: str, source: IO[bytes], size_bytes: int) -> None:
        """Copy `size_bytes` of an open file into the archive under a relative name."""
        hashing = _Hashing(source, size_bytes)
        self._sink.add(name, hashing, size_bytes)  # type: ignore[arg-type]
        self.entries[name] = Entry(size_bytes, hashing.hexdigest())

    def add_folder(self, name: str, folder: Path) -> None:
        """Copy all regular files below a folder; others (links, pipes) are left out."""
        for root, _, files, root_fd in os.fwalk(folder, follow_symlinks=False):
            inside = PurePosixPath(name, Path(root).relative_to(folder).as_posix())
            for file in sorted(files):
                with _regular(file, root_fd) as opened:
                    if opened is not None:
                        self.add(str(inside / file), opened, os.fstat(opened.fileno()).st_size)


@contextlib.contextmanager
def writing(target: Path, facts: dict[str, Any]) -> Iterator[Writer]:
    """Make an archive at `target` (a .tar if it is called so); nothing stays if the body fails.

    Args:
        facts: what else the manifest should say.

    Raises:
        FleetError: the target exists, or its folder does not.
    """
    if target.exists():
        raise FleetError(f"{target} exists: name another file or folder, or move it away")
    if not target.parent.is_dir():
        raise FleetError(f"{target.parent} is not a folder: make it first")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    sink: _Sink = _TarSink(partial) if target.suffix == ".tar" else _FolderSink(partial)
    try:
        writer = Writer(sink)
        yield writer
        files = {name: dataclasses.asdict(entry) for name, entry in writer.entries.items()}
        text = json.dumps({**facts, "files": files}, indent=1, ensure_ascii=False).encode()
        with io.BytesIO(text) as manifest:
            sink.add(MANIFEST, manifest, len(text))
        sink.close()
        partial.rename(target)
        _sync_folder(target.parent)
    except OSError as exc:
        raise FleetError(f"the backup to {target} failed: {exc.strerror or exc}") from exc
    finally:
        with contextlib.suppress(OSError):
            sink.close()
        _remove(partial)


def extract(source: Path, into: Path) -> dict[str, Any]:
    """Copy an archive's files into a new folder, checked against its manifest.

    Returns:
        The manifest.

    Raises:
        DamagedArchiveError: names the first file that is missing, changed or too many.
    """
    found: dict[str, Entry] = {}
    into.mkdir(mode=0o700)
    try:
        members = _read_tar(source) if source.is_file() else _read_folder(source)
        for name, opened in members:
            path = into / _safe(name, source)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            hashing = _Hashing(opened, 2**63)
            with path.open("xb") as copy:
                shutil.copyfileobj(hashing, copy, _CHUNK_BYTES)
                copy.flush()
                os.fsync(copy.fileno())
            found[name] = Entry(path.stat().st_size, hashing.hexdigest())
        manifest = _manifest(into, source)
        found.pop(MANIFEST)
        _compare(manifest, found, source)
    except (tarfile.TarError, EOFError, FileExistsError) as exc:
        _remove(into)
        raise DamagedArchiveError(f"{source} is damaged: {exc}") from exc
    except BaseException:
        _remove(into)
        raise
    return manifest


def _manifest(into: Path, source: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((into / MANIFEST).read_text())
        if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict):
            return manifest
    except FileNotFoundError:
        raise DamagedArchiveError(
            f"{source} has no {MANIFEST}: it is no backup of mlfleet, or was cut off"
        ) from None
    except ValueError:
        pass
    raise DamagedArchiveError(f"{source} is damaged: {MANIFEST} cannot be read")


def _compare(manifest: dict[str, Any], found: dict[str, Entry], source: Path) -> None:
    try:
        wanted = {name: Entry(**entry) for name, entry in manifest["files"].items()}
    except TypeError:
        raise DamagedArchiveError(f"{source} is damaged: {MANIFEST} cannot be read") from None
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise DamagedArchiveError(f"{source} is damaged: {name} is missing")
        if name not in wanted:
            raise DamagedArchiveError(f"{source} is damaged: {name} is not in the manifest")
        if found[name] != wanted[name]:
            raise DamagedArchiveError(f"{source} is damaged: {name} does not have its checksum")


def _read_folder(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if not source.is_dir():
        raise FleetError(f"{source} does not exist: name a backup's folder or .tar file")
    for root, _, files, root_fd in os.fwalk(source, follow_symlinks=False):
        for file in files:
            with _regular(file, root_fd) as opened:
                if opened is not None:
                    yield (
                        str(PurePosixPath(Path(root).relative_to(source).as_posix(), file)),
                        opened,
                    )


def _read_tar(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(source, "r:") as tar:
        for member in tar:
            opened = tar.extractfile(member) if member.isreg() else None
            if opened is None:
                raise DamagedArchiveError(f"{source} is damaged: {member.name} is not a file")
            yield member.name, opened


def _safe(name: str, source: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise DamagedArchiveError(f"{source} is damaged: it holds a file named {name!r}")
    return path


class _FolderSink:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700)

    def add(self, name: str, source: IO[bytes], size_bytes: int) -> None:
        path = self._folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("xb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK_BYTES)
            if copy.tell() != size_bytes:
                raise OSError(None, f"{name} shrank while it was read")
            copy.flush()
            os.fsync(copy.fileno())

    def close(self) -> None:
        pass


class _TarSink:
    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name: str, source: IO[bytes], size_bytes: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size_bytes, 0o600
        self._tar.addfile(member, source)

    def close(self) -> None:
        if not self._file.closed:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


class _Hashing:
    """A file that is hashed while it is read, up to a number of bytes."""

    def __init__(self, source: IO[bytes], size_bytes: int) -> None:
        self._source, self._left, self._hash = source, size_bytes, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._source.read(min(wanted, _CHUNK_BYTES) if size < 0 else wanted)
        self._left -= len(data)
        self._hash.update(data)
        return data

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@contextlib.contextmanager
def _regular(name: str, folder_fd: int) -> Iterator[IO[bytes] | None]:
    """Open a regular file; None for anything else, and for one that has gone meanwhile."""
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder_fd
        )
    except OSError as exc:
        if isinstance(exc, PermissionError):
            raise
        yield None
        return
    with os.fdopen(descriptor, "rb") as opened:
        yield opened if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
