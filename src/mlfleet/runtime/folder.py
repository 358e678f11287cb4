"""The data folder of a fleet on one machine: what lies where, who runs on it, how to reach them.

Everything in it is for its owner only (0700, 0600). `fleet.lock` is held for as long as a fleet
runs: a POSIX record lock, because it can be asked about without being taken, names its holder,
goes away with it, and is not inherited by children.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from mlfleet.errors import AlreadyRunningError, FleetError, NotRunningError

# struct flock on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi"
_LONGEST_PATH_BYTES = 85
"""Leaves `/<cell>.sock` 22 of the 107 bytes that the address of a Unix socket may have."""


@dataclasses.dataclass(frozen=True)
class FleetFile:
    """What `fleet.json` says about the fleet that runs now."""

    url: str
    admin_uri: str = dataclasses.field(repr=False)
    """Postgres as administrator, password included: for the operator's own tools."""
    cells: dict[str, str]
    """Path of each cell's admin socket."""
    pid: int
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    """What the cell was started with, without secrets: `doctor` does its arithmetic with these."""


class DataFolder:
    """Names of the files of one fleet."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is touched yet."""
        self.path = path.absolute()
        self.postgres = self.path / "postgres"
        self.artifacts = self.path / "artifacts"
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.secret_key = self.path / "secret.key"
        self.fleet_file = self.path / "fleet.json"
        self.lock_file = self.path / "fleet.lock"

    def create(self) -> None:
        """Make the folder and those inside it, for the owner only.

        Raises:
            FleetError: it cannot be made, or its name leaves no room for a socket's.
        """
        if len(os.fsencode(self.run)) > _LONGEST_PATH_BYTES:
            raise FleetError(
                f"{self.path} is too long a name: Linux allows sockets 107 bytes of path;"
                " choose a shorter one with --data"
            )
        try:
            self._make_folders()
        except OSError as exc:
            raise FleetError(
                f"{exc.filename} cannot be made ({exc.strerror}): choose another folder with --data"
            ) from exc

    def _make_folders(self) -> None:
        for folder in (self.path, self.artifacts, self.logs, self.run):
            folder.mkdir(mode=0o700, parents=folder == self.path, exist_ok=True)

    def admin_socket(self, cell: str) -> Path:
        """Return where a cell listens for the commands of its owner."""
        return self.run / f"{cell}.sock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            AlreadyRunningError: another process holds it.
        """
        with os.fdopen(os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise AlreadyRunningError(
                    f"a fleet already runs on {self.path} (pid {self.holder()}): stop it with"
                    f" kill {self.holder()}, or choose another folder with --data"
                ) from exc
            yield

    def holder(self) -> int | None:
        """Return the pid of the process that runs a fleet here, or none."""
        try:
            file = self.lock_file.open("rb")
        except FileNotFoundError:
            return None
        with file:
            question = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            answer = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question))
        return answer[4] if answer[0] != fcntl.F_UNLCK else None

    def write(self, fleet: FleetFile) -> None:
        """Say how to reach the fleet; a reader sees the old file or the new one, never half."""
        draft = self.fleet_file.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(dataclasses.asdict(fleet), file, indent=1)
        draft.rename(self.fleet_file)

    def read(self) -> FleetFile:
        """Return how to reach the fleet that runs here.

        Raises:
            NotRunningError: none does.
        """
        hint = "start one with `mlfleet up`, or name its folder with --data or MLFLEET_DATA"
        if not self.path.is_dir():
            raise NotRunningError(f"there is no fleet in {self.path}: {hint}")
        if self.holder() is None:
            raise NotRunningError(f"no fleet is running on {self.path}: {hint}")
        try:
            return FleetFile(**json.loads(self.fleet_file.read_text()))
        except FileNotFoundError:
            raise NotRunningError(
                f"the fleet on {self.path} is still starting: try again in a moment"
            ) from None
