"""A gateway with a real zygote and real instances that echo: everything but MLflow and Postgres."""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mlfleet.catalogue.models import Quota, Tenant
from mlfleet.catalogue.names import TenantName
from mlfleet.catalogue.tokens import Access, Token, digest
from mlfleet.cell import zygote_process
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.cell.service import Service
from mlfleet.cell.waking import Birth
from mlfleet.cell.zygote_link import ZygoteLink
from mlfleet.database.access import DatabaseAccess
from mlfleet.database.keys import FleetKey
from mlfleet.errors import DatabaseAwayError
from mlfleet.settings import Settings
from tests.fixtures_postgres import free_port

NOWHERE = DatabaseAccess("127.0.0.1", 1, "none", "none", "none")
ECHO_ZYGOTE = Path(__file__).parent / "cell" / "echo_zygote.py"


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

NAVIGATION = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate"}
"""What a browser sends when a person opens a page."""


def stored_token(
    text: str, access: Access = "read-write", expires_at: datetime | None = None
) -> Token:
    """Return what a catalogue keeps of a token."""
    return Token("main", digest(text), access, expires_at, LONG_AGO)


class MemoryCatalogue:
    """A catalogue in memory that can be away."""

    def __init__(self) -> None:
        self.tenants: dict[str, Tenant] = {}
        self.changes: list[str] = []
        self.is_away = False
        self.noted: list[dict[int, float]] = []

    def put(self, name: str, **fields: Any) -> str:
        """Add or change a tenant with one token, and return the token."""
        token = f"mlf_{name}_token"
        base = self.tenants.get(name) or Tenant(
            id=len(self.changes) + 1,
            name=TenantName(name),
            tier="shared",
            cell="cell-0",
            state="ready",
            mlflow_version="3.17.2",
            password_generation=0,
            quota=Quota(memory_bytes=0),
            artifact_uri=None,
            tokens=(stored_token(token),),
            created_at=LONG_AGO,
            changed_at=LONG_AGO,
        )
        self.tenants[name] = dataclasses.replace(base, **fields)
        self.changes.append(name)
        return token

    def remove(self, name: str) -> None:
        del self.tenants[name]
        self.changes.append(name)

    def tenant(self, name: str) -> Tenant | None:
        self._reach()
        return self.tenants.get(name)

    def changed_since(self, cursor: int | None) -> tuple[list[str], int]:
        self._reach()
        return self.changes[len(self.changes) if cursor is None else cursor :], len(self.changes)

    def count_by_state(self) -> dict[str, int]:
        self._reach()
        return {"ready": len(self.tenants)}

    def note_wakes(self, ages_s: Mapping[int, float]) -> None:
        self._reach()
        self.noted.append(dict(ages_s))

    def _reach(self) -> None:
        if self.is_away:
            raise DatabaseAwayError("the catalogue is away")


@dataclasses.dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class EchoCell:
    """A running cell whose instances echo."""

    def __init__(
        self,
        folder: Path,
        port: int,
        catalogue: MemoryCatalogue | None = None,
        **settings: Any,
    ) -> None:
        defaults: dict[str, Any] = {"hold_s": 10.0, "drain_s": 5.0, "catalogue_poll_s": 0.1}
        self.settings = Settings(data=folder, port=port, **(defaults | settings))
        self.catalogue = catalogue or MemoryCatalogue()
        self.folder = folder
        self.port = port
        self.provide_error: Exception | None = None
        self.metrics = Metrics()
        self._thread = threading.Thread(target=self._run, name="cell")
        self._started = threading.Event()
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(10)
        until(lambda: self.get("/readyz").status == 200)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.service.stop)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the cell did not stop"
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as exc:
            self.failure = exc
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        zygote = ZygoteLink(
            lambda: zygote_process.start(
                {**os.environ, "TMPDIR": str(self.folder)},
                lambda descriptor: [sys.executable, str(ECHO_ZYGOTE), str(descriptor)],
            ),
            no_database,
            False,
            self.metrics,
        )
        key = FleetKey(b"k" * 32)
        self.service = Service(
            self.settings, key, self.catalogue, self._provide, zygote, self.metrics
        )
        self._started.set()
        await self.service.run()

    async def _provide(self, tenant: Tenant) -> Birth:
        if self.provide_error:
            raise self.provide_error
        root = self.folder / "artifacts" / str(tenant.id)
        root.mkdir(parents=True, exist_ok=True)
        config = InstanceConfig(
            tenant.name, NOWHERE, str(root), "kek", tenant.quota.memory_bytes, 0, 5.0, 5.0
        )
        return Birth(config, self.folder / f"{tenant.name}.log", None, (tenant.id, 0))

    def get(self, path: str, token: str | None = None, **more: Any) -> Reply:
        return self.request("GET", path, token, **more)

    def request(
        self,
        method: str,
        path: str,
        token: str | None = None,
        *,
        body: Any = None,
        headers: dict[str, str] | None = None,
        host: str | None = None,
        timeout_s: float = 20,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            fields = {"Host": host or f"127.0.0.1:{self.port}"} | (headers or {})
            if token:
                fields["Authorization"] = f"Bearer {token}"
            connection.request(method, path, body, fields)
            response = connection.getresponse()
            got: dict[str, str] = {}
            for name, value in response.getheaders():
                name = name.lower()
                got[name] = f"{got[name]}, {value}" if name in got else value
            return Reply(response.status, got, response.read())

    def raw(self, data: bytes, timeout_s: float = 10) -> bytes:
        """Send bytes, and return everything until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout_s) as sock:
            sock.sendall(data)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := sock.recv(65536):
                    received += piece
            return received

    def admin(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection("localhost", timeout=20)
        with contextlib.closing(connection):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(20)
            connection.sock.connect(str(self.service.admin_socket))
            connection.request(method, path)
            return json.loads(connection.getresponse().read())

    def awake(self) -> list[str]:
        return [one["tenant"] for one in self.admin("GET", "/status")["awake"]]


@contextlib.asynccontextmanager
async def no_database() -> AsyncIterator[DatabaseAccess]:
    yield NOWHERE


def until(condition: Callable[[], Any], wait_s: float = 10) -> None:
    """Return when the condition holds; fail after `wait_s`."""
    deadline = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(ConnectionError):
            if condition():
                return
        assert time.monotonic() < deadline, f"not within {wait_s} s"
        time.sleep(0.01)


@pytest.fixture
def echo_cells(tmp_path: Path) -> Iterator[Callable[..., EchoCell]]:
    """Make cells with given settings; each has a free port and is stopped at the end."""
    cells: list[EchoCell] = []

    def make(**settings: Any) -> EchoCell:
        settings.setdefault("port", free_port())
        cell = EchoCell(tmp_path / f"cell-{len(cells)}", **settings)
        cell.folder.mkdir()
        cells.append(cell)
        cell.start()
        return cell

    yield make
    for cell in cells:
        if cell._thread.is_alive():
            cell.stop()


@pytest.fixture
def echo_cell(echo_cells: Callable[..., EchoCell]) -> EchoCell:
    """A cell with default settings."""
    return echo_cells()
