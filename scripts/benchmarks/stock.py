"""Stock `mlflow server` 3.17.2 as the clients of these benchmarks reach it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.wire import Target
from mlfleet.load import processes, stock
from mlfleet.load.stock import environment, migrate

__all__ = ["Stock", "environment", "migrate", "running"]


class Stock:
    """One running stock server and where clients reach it."""

    def __init__(self, server: stock.StockServer) -> None:
        self._server = server
        self.target = Target("127.0.0.1", server.port)
        self.start_s = server.start_s
        """From `exec` to the first `runs/create` that was answered."""

    def tree(self) -> list[processes.Process]:
        """Return all processes of the server."""
        return self._server.tree()


@contextlib.contextmanager
def running(database_uri: str, folder: Path, port: int, *options: str) -> Iterator[Stock]:
    """Run a stock server; options are those of `mlflow server`, none means its defaults."""
    with stock.running(database_uri, folder, port, *options) as server:
        yield Stock(server)
