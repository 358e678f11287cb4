"""What was done to a fleet or to the load during a run: events.jsonl, one line each."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = "events.jsonl"


class Events:
    """Appends to the events of a run; several processes may, each line is one write."""

    def __init__(self, folder: Path | None) -> None:
        """Name the run's folder; None keeps nothing."""
        self._path = folder / FILE if folder else None

    def add(self, kind: str, detail: str, now: float | None = None) -> None:
        """Note what happened, in a word for the chart and in a sentence for a person."""
        if self._path is None:
            return
        event = {"t": round(time.time() if now is None else now, 3), "kind": kind, "detail": detail}
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, json.dumps(event).encode() + b"\n")
        finally:
            os.close(descriptor)


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a run in order of time."""
    path = folder / FILE
    lines = path.read_text().splitlines() if path.exists() else []
    yield from sorted((json.loads(line) for line in lines), key=lambda event: event["t"])
