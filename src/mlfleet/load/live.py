"""The last minutes of a run while it runs: one line for the terminal, one document for the page."""

from typing import Any

from mlfleet.load.requests import Line


class Live:
    """What is known of the run now; fed by this process's recorder or by its workers' reports."""

    def __init__(self, resources: Any = None, limits: dict[str, float] | None = None) -> None:
        """Start with nothing.

        Args:
            resources: has `latest()`, a line of resources.jsonl or None.
            limits: as in run.json: "p99_s", "errors".
        """
        self.limits = limits or {}

    def take(self, lines: list[Line]) -> None:
        """Take lines that were flushed."""
        raise NotImplementedError

    def line(self, now: float) -> str:
        """Return one line: rate, p50 and p99, errors, awake, limits that are passed."""
        raise NotImplementedError

    def document(self, now: float) -> dict[str, Any]:
        """Return what the page shows."""
        raise NotImplementedError
