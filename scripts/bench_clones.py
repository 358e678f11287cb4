"""Measure a burst of new tenants and the first delete after it: `python scripts/bench_clones.py`.

Starts an embedded Postgres of its own under --folder (a real disk, not tmpfs), clones N databases,
as many at once as one cell does, then drops one. `--busy` lets a writer fill another database
meanwhile; `--strategy` compares Postgres' two ways to copy. Prints one JSON line.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlfleet.database import clone
from mlfleet.database.admin import CLONES_AT_ONCE, Admin
from mlfleet.database.connect import connect
from mlfleet.database.embedded import EmbeddedPostgres


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clones", type=int, default=100)
    parser.add_argument("--strategy", choices=["file_copy", "wal_log"], default=clone.STRATEGY)
    parser.add_argument("--busy", action="store_true", help="with a writer in another database")
    parser.add_argument("--port", type=int, default=28431)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    clone.STRATEGY = options.strategy
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        server = EmbeddedPostgres(Path(folder) / "data", options.port, 100, Path(folder) / "log")
        try:
            print(json.dumps(measure(server.start(), options.clones, options.busy)))
        finally:
            server.stop(wait_s=600)


def measure(uri: str, clones: int, is_busy: bool) -> dict[str, float]:
    """Return the figures of one burst and one drop."""
    admin = Admin(uri)
    admin.prepare()

    def make(tenant_id: int) -> float:
        began = time.monotonic()
        admin.clone(tenant_id, "password")
        return time.monotonic() - began

    make(99_999)
    with writing(uri, "mlfleet_t99999") if is_busy else contextlib.nullcontext(list[int]()) as rows:
        alone = [make(n) for n in range(100_000, 100_009)]
        began = time.monotonic()
        with ThreadPoolExecutor(CLONES_AT_ONCE) as pool:
            took = list(pool.map(make, range(1, clones + 1)))
        burst_s = time.monotonic() - began
        began = time.monotonic()
        admin.drop(1)
        drop_s = time.monotonic() - began
    admin.close()
    figures = {"clones": clones, "alone_p50_s": statistics.median(alone), "burst_s": burst_s,
               "clone_p50_s": statistics.median(took), "drop_s": drop_s,
               "rows_written_meanwhile": sum(rows), "load": os.getloadavg()[0]}  # fmt: skip
    return {name: round(figure, 3) for name, figure in figures.items()}


@contextlib.contextmanager
def writing(uri: str, database: str) -> Iterator[list[int]]:
    """Write metrics as fast as one connection can, 100 rows a transaction; lend the counts."""
    counts: list[int] = []
    is_over = threading.Event()

    def write() -> None:
        connection = connect(uri, database)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', 0)")
            while not is_over.is_set():
                cursor.execute(
                    "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) SELECT"
                    " 'm' || n, random(), %s, 0, false, 'r' FROM generate_series(1, 100) AS n",
                    (len(counts),),
                )
                counts.append(100)
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    yield counts
    is_over.set()
    writer.join()


if __name__ == "__main__":
    main()
