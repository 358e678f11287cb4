"""What the machine gives to a run, once a second, from a process of its own: resources.jsonl."""

from pathlib import Path
from typing import Any


class Sampler:
    """The sampling process, started by the run that it watches; ends with it."""

    def __init__(
        self,
        folder: Path,
        data: Path | None = None,
        trees: dict[str, int] | None = None,
        metrics_url: str | None = None,
        database_uri: str | None = None,
    ) -> None:
        """Name what is watched.

        Args:
            folder: of the run; lines are appended to its resources.jsonl.
            data: folder of the fleet on this machine: its roles, Postgres and gateway.
            trees: further roles by the pid whose tree is theirs: {"locust": os.getpid()} or
                {"stock": pid}.
            metrics_url: a gateway's /metrics, where there is no data folder.
            database_uri: Postgres whose connections are counted, where there is no data folder.
        """
        self.folder = folder

    def start(self) -> None:
        """Start the process."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the process; everything it saw is in the file."""
        raise NotImplementedError

    def latest(self) -> dict[str, Any] | None:
        """Return the newest line, None before the first."""
        raise NotImplementedError
