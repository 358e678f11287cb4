"""Start a real zygote and talk to its instances as the gateway does; for tests of this folder."""

import contextlib
import dataclasses
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlfleet.cell import protocol, zygote_process
from mlfleet.cell.protocol import ForkOrder, InstanceConfig, WarmOrder
from mlfleet.database.access import DatabaseAccess


class _Connection(http.client.HTTPConnection):
    """HTTP over one end of a socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__("localhost")
        sock.settimeout(30)
        self.sock = sock

    def connect(self) -> None:
        raise ConnectionError("the instance closed this connection")


@dataclasses.dataclass
class TestInstance:
    """One awake instance, seen from the gateway's side."""

    __test__ = False
    control: socket.socket
    pid: int

    def connect(self) -> http.client.HTTPConnection:
        ours, theirs = socket.socketpair()
        with theirs:
            protocol.send_with_descriptors(self.control, protocol.CONNECT, [theirs.fileno()])
        return _Connection(ours)

    def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request on a connection of its own: status, headers, body."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, data, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def message(self) -> dict[str, Any]:
        """Return the instance's next message; empty at its end."""
        packet, _ = protocol.receive(self.control)
        return json.loads(packet) if packet else {}


class TestZygote:
    """One running zygote."""

    __test__ = False

    def __init__(self, orders: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.orders = orders
        self.process = process
        self.exited: dict[int, int] = {}

    def message(self) -> dict[str, Any]:
        packet, _ = protocol.receive(self.orders)
        return json.loads(packet) if packet else {}

    def fork(self, config: InstanceConfig, log: Path, uid: int | None = None) -> TestInstance:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(30)
        with theirs, log.open("ab") as log_file:
            protocol.send_with_descriptors(
                self.orders,
                ForkOrder(config.tenant, uid).encode(),
                [theirs.fileno(), log_file.fileno()],
            )
        ours.send(config.encode())
        answer = self.message()
        assert answer["forked"] == config.tenant, answer
        return TestInstance(ours, answer["pid"])

    def wait_for_exit(self, pid: int) -> int:
        while pid not in self.exited:
            message = self.message()
            assert "exited" in message, f"the zygote said {message}"
            self.exited[message["exited"]] = message["status"]
        return self.exited[pid]


@contextlib.contextmanager
def running_zygote(
    database: DatabaseAccess,
    log: Path,
    command: Sequence[str] | None = None,
    has_own_users: bool = False,
    temporary: Path | None = None,
) -> Iterator[tuple[TestZygote, dict[str, Any]]]:
    """Start a zygote and wait until it is ready: the zygote and its first message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(60)
    environ = {"TMPDIR": str(temporary or log.parent)}
    number = str(theirs.fileno())
    with log.open("ab") as log_file:
        process = subprocess.Popen(
            [*command, number] if command else zygote_process.command(theirs.fileno()),
            env=zygote_process.environment({**os.environ, **environ}),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
        )
    theirs.close()
    with process, ours:
        ours.send(WarmOrder(database, has_own_users).encode())
        running = TestZygote(ours, process)
        ready = running.message()
        assert ready.get("ready"), log.read_text()
        yield running, ready
        ours.close()
        process.wait(30)
