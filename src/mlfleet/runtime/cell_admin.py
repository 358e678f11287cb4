"""Ask a running cell about its instances, over the socket that only its owner can open."""

import dataclasses
import http.client
import json
import socket
import urllib.parse
from typing import Any

from mlfleet.errors import FleetError, NotRunningError

_PATIENCE_S = 120.0
"""A sleep drains and a wake may clone a database first: both can take a while."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which the standard library does not offer."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclasses.dataclass(frozen=True)
class CellAdmin:
    """The admin interface of one cell."""

    name: str
    socket_path: str

    def status(self) -> dict[str, Any]:
        """Return what the cell says about itself and its awake instances."""
        answer: dict[str, Any] = self._ask("GET", "/status")
        return answer

    def wake(self, tenant: str) -> dict[str, Any]:
        """Wake a tenant's instance; return what the cell says about it."""
        answer: dict[str, Any] = self._ask("POST", f"/wake/{urllib.parse.quote(tenant)}")
        return answer

    def sleep(self, tenant: str) -> dict[str, Any]:
        """Let a tenant's instance finish what is in flight and end."""
        answer: dict[str, Any] = self._ask("POST", f"/sleep/{urllib.parse.quote(tenant)}")
        return answer

    def evict(self, tenant: str) -> None:
        """End a tenant's instance for good: it is being deleted or restored."""
        self._ask("POST", f"/evict/{urllib.parse.quote(tenant)}")

    def _ask(self, method: str, path: str) -> Any:
        connection = _UnixConnection(self.socket_path)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (ConnectionError, FileNotFoundError) as exc:
            raise NotRunningError(
                f"{self.name} does not answer on {self.socket_path} ({exc.strerror}): "
                "it may be restarting; try again, or read `mlfleet logs --cell`"
            ) from exc
        except OSError as exc:
            raise FleetError(f"{self.name} did not answer {method} {path}: {exc}") from exc
        finally:
            connection.close()
        if response.status >= 400:
            raise FleetError(f"{self.name}: {_sentence(body) or response.reason}")
        return json.loads(body) if body else {}


def _sentence(body: bytes) -> str:
    """Return the message inside an error answer, whatever its form."""
    text = body.decode(errors="replace").strip()
    try:
        fields = json.loads(text)
    except ValueError:
        return text
    if isinstance(fields, dict):
        return str(fields.get("message") or fields.get("error") or text)
    return text
