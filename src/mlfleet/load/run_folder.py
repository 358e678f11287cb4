"""The folder of a load run: what it is called, and run.json, which says what was run where."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

from mlfleet.errors import FleetError

RUNS = Path("load-runs")
_COMMIT_S = 5.0


def new_folder(wanted: str, shape: str) -> Path:
    """Make the folder of a run, for its owner only: it will hold tokens.

    Args:
        wanted: its name, or empty for one with the time and the shape in `load-runs`.

    Raises:
        FleetError: it cannot be made, or holds a run already.
    """
    now = datetime.datetime.now(datetime.UTC)
    folder = Path(wanted) if wanted else RUNS / f"{now:%Y%m%d-%H%M%S}-{shape}"
    for number in range(2, 100):
        if wanted or not folder.exists():
            break
        folder = RUNS / f"{now:%Y%m%d-%H%M%S}-{shape}-{number}"
    if (folder / "run.json").exists():
        raise FleetError(f"{folder} holds a run already: choose another --run-folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise FleetError(f"{folder} cannot be made ({exc.strerror}): choose --run-folder") from exc
    return folder.absolute()


def new_load_id() -> str:
    """Return the id of a run: eight hexadecimal digits."""
    return secrets.token_hex(4)


def write_run(folder: Path, document: dict[str, Any]) -> None:
    """Write run.json; a reader sees the old file or the new one, never half."""
    draft = folder / "run.new"
    draft.write_text(json.dumps(document, indent=1) + "\n")
    draft.rename(folder / "run.json")


def moment(unix_s: float) -> str:
    """Return a time as run.json has it."""
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).isoformat(timespec="milliseconds")


def machine() -> dict[str, Any]:
    """Return what this machine is and which software ran on it."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "mlflow": _version("mlflow"),
        "locust": _version("locust"),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout this is run from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
