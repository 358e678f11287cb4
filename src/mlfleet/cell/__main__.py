"""Run one cell: `python -m mlfleet.cell`, settings from `MLFLEET_*` variables.

Needs `MLFLEET_ADMIN_URI` and the fleet key in `<data>/secret.key`. Starts at once and waits for
Postgres, so it may be started beside it. SIGTERM and SIGINT drain.

The zygote is started before the gateway is imported: each takes the better part of a second, and
so they take it at the same time.
"""

import gc
import logging
import sys
from pathlib import Path

from mlfleet import log as fleet_log
from mlfleet.cell import zygote_process
from mlfleet.database.keys import FleetKey
from mlfleet.errors import FleetError
from mlfleet.settings import Settings

log = logging.getLogger("mlfleet.cell")


def main() -> int:
    """Run a cell until it is told to stop; return the exit code."""
    fleet_log.configure()
    try:
        settings = Settings.from_environ()
        if settings.admin_uri is None:
            raise FleetError(
                "MLFLEET_ADMIN_URI is not set: postgresql://USER:PASSWORD@HOST/postgres"
            )
        key = FleetKey.from_file(settings.data / "secret.key")
        environment = zygote_process.environment() | {"TMPDIR": str(_make_folders(settings.data))}
        first = zygote_process.start(environment)
        # What an import makes stays: collecting meanwhile only looks for garbage in vain (0.05 s).
        gc.disable()
        from mlfleet.cell import assembly

        gc.freeze()
        # A full collection looks at all clients' connections, and nobody is answered meanwhile.
        # What a request leaves in cycles is young, and is found without one.
        gc.set_threshold(20_000, 20, 1_000)
        gc.enable()

        assembly.run(settings, settings.admin_uri, key, environment, first)
    except (FleetError, OSError) as exc:
        log.error("cell_failed", extra={"reason": str(exc)})
        return 1
    return 0


def _make_folders(data: Path) -> Path:
    """Make what a cell needs; return the folder below which instances have temporary ones."""
    for name in ("artifacts", "logs"):
        (data / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = data.absolute() / "tmp"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Entered, not listed, by instances that run as users of their own.
    folder.chmod(0o711)
    return folder


if __name__ == "__main__":
    sys.exit(main())
