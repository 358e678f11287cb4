"""One user's connection to its tracking server: HTTP/1.1 kept alive, as a stock client holds it.

Locust's own session costs about as much CPU per request as a tenant's whole server does (its
cookies, URL parsing and copies of headers), and the load generator shares the machine with what
it measures. So a request is ready-made bytes here; answers are parsed by geventhttpclient's
llhttp, as `FastHttpUser` does it.
"""

import gzip
import re
import select
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent.socket  # type: ignore[import-untyped]
import gevent.ssl  # type: ignore[import-untyped]
from gevent.monkey import get_original  # type: ignore[import-untyped]
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse

PATIENCE_S = 120.0
"""How long a stock client waits for one answer (MLFLOW_HTTP_REQUEST_TIMEOUT)."""
LOST = 0
_BLOCK_BYTES = 65536
_poll = get_original("select", "poll")
"""gevent's own poll goes through the event loop; asking without waiting need not."""
_WAKE = re.compile(r"wake;dur=([0-9.]+)")


class Answer(NamedTuple):
    """What came back for one try."""

    status: int
    """0: nothing did."""
    body: bytes = b""
    wake_s: float | None = None
    """How long the gateway says the request waited for a waking instance; None: it was awake."""
    retry_after_s: float | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300


class Server:
    """A tracking server's address and what every request to it begins with."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        self.secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        self.prefix = parts.path.rstrip("/")
        lines = [
            f"Host: {parts.netloc.rpartition('@')[2]}",
            "User-Agent: mlflow-python-client/3.17.2",
            "Accept-Encoding: gzip, deflate",
            "Accept: */*",
            "Connection: keep-alive",
            "X-MLflow-Client-Version: 3.17.2",
        ]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        self._headers = "\r\n".join(lines) + "\r\n"

    def head(self, method: str, path: str, length: int | None, headers: str) -> bytes:
        """Return the head of a request; `headers` are further lines, each with its line end."""
        body = "" if length is None else f"Content-Length: {length}\r\n"
        return (
            f"{method} {self.prefix}{path} HTTP/1.1\r\n{self._headers}{headers}{body}\r\n"
        ).encode("latin-1")


class Connection:
    """A keep-alive connection; opened when it is needed, and again when the server closed it."""

    def __init__(self, server: Server, patience_s: float = PATIENCE_S) -> None:
        self.server = server
        self._patience_s = patience_s
        self._socket: Any = None

    def ask(self, method: str, path: str, body: bytes | None = None, headers: str = "") -> Answer:
        """Send a request and wait for its answer; what goes wrong is an answer of status 0."""
        length = None if body is None else len(body)
        head = self.server.head(method, path, length, headers)
        try:
            socket = self._open()
            if body and len(body) > _BLOCK_BYTES:
                socket.sendall(head)
                socket.sendall(body)
            else:
                socket.sendall(head + (body or b""))
            response = HTTPSocketResponse(socket, block_size=_BLOCK_BYTES, method=method)
            content = response.read()
        except (OSError, HTTPParseError) as exc:
            self.close()
            return Answer(LOST, problem=f"{type(exc).__name__}: {exc}")
        except BaseException:
            # The user was stopped while waiting: the rest of this answer is not the next one's.
            self.close()
            raise
        if not response.message_complete:
            self.close()
            return Answer(LOST, problem="the answer broke off")
        if response.should_close():
            self.close()
        return _answer(response, content)

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> Any:
        if self._socket is not None:
            if self._is_quiet():
                return self._socket
            self.close()
        server = self.server
        socket = gevent.socket.create_connection((server.host, server.port), self._patience_s)
        socket.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        if server.secure:
            context = gevent.ssl.create_default_context()
            socket = context.wrap_socket(socket, server_hostname=server.host)
        self._socket = socket
        return socket

    def _is_quiet(self) -> bool:
        """Whether the idle connection is still open: one that is readable was closed (or worse)."""
        if self._socket.fileno() < 0:
            return False
        poll = _poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return not poll.poll(0)


def _answer(response: HTTPSocketResponse, content: bytes) -> Answer:
    headers = response.info()
    if headers.get("content-encoding") == "gzip":
        content = gzip.decompress(content)
    timing = headers.get("server-timing")
    woke = _WAKE.search(str(timing)) if timing else None
    retry_after = str(headers.get("retry-after"))
    return Answer(
        response.get_code(),
        content,
        float(woke[1]) / 1000 if woke else None,
        float(retry_after) if retry_after.isdigit() else None,
    )
