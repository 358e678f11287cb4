"""report.json and report.html of a run, made of what its folder holds."""

from pathlib import Path
from typing import Any

Figures = dict[str, Any]


def write(folder: Path) -> Figures:
    """Write report.json and report.html into the folder of a run, and return the figures.

    `figures["limits"]` is a list of {"what", "limit", "measured", "is_kept"}; an account that was
    checked and lacks something acknowledged is one of them.
    """
    raise NotImplementedError


def summary(figures: Figures) -> str:
    """Return the figures on one screen of a terminal."""
    raise NotImplementedError


def compare(folder: Path, other: Path, page: Path) -> str:
    """Write one page about two runs, and return the table as text."""
    raise NotImplementedError
