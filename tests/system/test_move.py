"""Two cells on one Postgres: a tenant moves to and fro under load, called by its old address."""

import contextlib
import hashlib
import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.provision import Provisioner
from mlfleet.runtime.cell_process import CellProcess
from mlfleet.settings import Settings
from tests.fixtures_fleet import eventually
from tests.fixtures_postgres import free_port

TENANT = "wanderer"


class Cells:
    """Two processes, `left` and `right`, with one data folder."""

    def __init__(self, folder: Path, postgres: str) -> None:
        (folder / "secret.key").write_text(bytes(range(32)).hex())
        (folder / "secret.key").chmod(0o600)
        self.ports = {"left": free_port(), "right": free_port()}
        address = ",".join(f"{c}=http://127.0.0.1:{port}" for c, port in self.ports.items())
        self.processes = [
            CellProcess(
                Settings(
                    data=folder, port=port, cell=cell, admin_uri=postgres, cell_address=address
                ),
                folder / f"{cell}.log",
            )
            for cell, port in self.ports.items()
        ]

    def start(self) -> None:
        for process in self.processes:
            process.start()
        for cell in self.ports:
            eventually(lambda cell=cell: self.ask(cell, "/readyz") == b"ok\n", 60)

    def stop(self) -> None:
        for process in self.processes:
            process.ask_to_stop()
        for process in self.processes:
            assert process.wait(30), "a cell did not stop"

    def call(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, bytes]:
        """Send one request to the left cell's address."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["left"], timeout=60)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request(method, f"/{TENANT}{path}", body, headers)
            response = connection.getresponse()
            return response.status, response.read()

    def ask(self, cell: str, page: str) -> bytes:
        """Return one of a gateway's own pages."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[cell], timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", page)
            return connection.getresponse().read()

    def awake(self, cell: str) -> bool:
        """Return whether a cell holds an instance, as its metrics tell."""
        return b"mlfleet_awake 1.0" in self.ask(cell, "/metrics")


@pytest.fixture
def cells(tmp_path: Path, postgres: str, provisioner: Provisioner) -> Iterator[Cells]:
    pair = Cells(tmp_path, postgres)
    pair.start()
    yield pair
    pair.stop()


def test_a_tenant_moves_under_load_and_nothing_acknowledged_is_missing(
    cells: Cells, catalogue: Catalogue, postgres: str
) -> None:
    [created] = catalogue.create_tenants([TENANT], cell="left")
    token = created.token
    assert token is not None
    api = "/api/2.0/mlflow/runs"
    status, answer = cells.call("POST", f"{api}/create", token, b'{"experiment_id": "0"}')
    assert status == 200, answer
    run = json.loads(answer)["run"]["info"]["run_id"]
    acknowledged: set[tuple[str, int]] = set()
    others: set[int] = set()
    ended = threading.Event()

    def write(key: str) -> None:
        step = 0
        while not ended.is_set():
            metric = {"run_id": run, "key": key, "value": 1.0, "timestamp": 1, "step": step}
            status, _ = cells.call("POST", f"{api}/log-metric", token, json.dumps(metric))
            if status == 200:
                acknowledged.add((key, step))
                step += 1
            else:
                others.add(status)
                time.sleep(0.1)

    def slowly(pieces: int) -> Iterator[bytes]:
        for _ in range(pieces):
            yield piece
            time.sleep(0.05)

    piece = os.urandom(1048576)
    path = "/api/2.0/mlflow-artifacts/artifacts/0/big.bin"
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, f"m{n}") for n in range(4)]
        upload = pool.submit(cells.call, "PUT", path, token, slowly(60))
        for cell, other in (("right", "left"), ("left", "right"), ("right", "left")):
            seen = len(acknowledged)
            catalogue.move(TENANT, cell, tier="shared")
            eventually(lambda cell=cell: cells.awake(cell))
            eventually(lambda seen=seen: len(acknowledged) > seen + 20)
            if upload.done():
                eventually(lambda other=other: not cells.awake(other))
        assert upload.result()[0] == 200
        ended.set()
        for writer in writers:
            writer.result()
    eventually(lambda: not cells.awake("left"))
    assert others <= {429}
    uri = postgres.rpartition("/")[0] + f"/mlfleet_t{created.id}"
    with contextlib.closing(psycopg2.connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT key, step FROM metrics WHERE run_uuid = %s", (run,))
        assert acknowledged <= set(cursor.fetchall())
    status, body = cells.call("GET", path, token)
    assert (status, hashlib.sha256(body).hexdigest()) == (200, _sha256(piece, 60))


def _sha256(piece: bytes, pieces: int) -> str:
    digest = hashlib.sha256()
    for _ in range(pieces):
        digest.update(piece)
    return digest.hexdigest()
