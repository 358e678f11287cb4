"""One of the two servers that are compared, and the calls it is sent.

A call is written once, with symbols (`@run:3@`) where an identifier goes that a server chose; each
side keeps its own map from symbol to real identifier. Bodies go out as the bytes they are: nothing
here may mend what a test wants broken.
"""

import dataclasses
import http.client
import json
import re
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Any

SYMBOL = re.compile(r"@[a-z]+:\d+@")
CALL_TIMEOUT_S = 60


@dataclasses.dataclass(frozen=True)
class Call:
    """One REST call, in symbols."""

    method: str
    path: str
    body: Any = None
    """None for no body; bytes and str go out as they are; anything else as JSON."""
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """Laid over the usual ones; None takes a header away."""
    unordered: tuple[str, ...] = ()
    """Keys whose lists come in an order that MLflow leaves to identifiers or to chance."""

    @property
    def text(self) -> str:
        """The body as it goes out, symbols not yet replaced; Latin-1 carries arbitrary bytes."""
        if self.body is None:
            return ""
        if isinstance(self.body, bytes):
            return self.body.decode("latin-1")
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return text.encode("utf-8", "surrogatepass").decode("latin-1")

    def __str__(self) -> str:
        query = f"?{urllib.parse.urlencode(self.query)}" if self.query else ""
        body = (
            self.text if len(self.text) <= 600 else f"{self.text[:600]}… ({len(self.text)} bytes)"
        )
        return f"{self.method} {self.path}{query} {dict(self.headers) or ''} {body}"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON, or None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Side:
    """One server: where it is, how to get in, and what its identifiers are called."""

    def __init__(
        self, name: str, url: str, database_uri: str, token: str = "", places: tuple[str, ...] = ()
    ) -> None:
        """Describe a running server.

        Args:
            name: for messages.
            url: what a client would put into MLFLOW_TRACKING_URI.
            database_uri: its Postgres database as a role that may read and alter everything.
            token: a bearer token; empty for a server without one.
            places: texts that only this side uses (folders, hosts) and that a comparison masks.
        """
        parts = urllib.parse.urlsplit(url)
        self.name, self.url, self.database_uri = name, url, database_uri
        self.places = (*places, url, parts.netloc)
        self.real: dict[str, str] = {}
        self._address = (parts.hostname or "", parts.port or 80)
        self._prefix = parts.path.rstrip("/")
        self._token = token
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    def resolve(self, text: str) -> str:
        """Return a text with this side's identifiers in place of symbols."""
        return SYMBOL.sub(lambda match: self.real.get(match[0], match[0]), text)

    def send(self, call: Call) -> Answer:
        """Send one call over this thread's kept-alive connection."""
        body = self.resolve(call.text).encode("latin-1") if call.body is not None else None
        target = self._prefix + self.resolve(call.path)
        if call.query:
            query = [(name, self.resolve(value)) for name, value in call.query]
            target += "?" + urllib.parse.urlencode(query, errors="surrogatepass")
        try:
            return self._exchange(call.method, target, body, self._headers(call))
        except (http.client.HTTPException, ConnectionError):
            # A kept-alive connection that the server closed meanwhile; a second failure counts.
            self._local.connection.close()
            self._local.connection = None
            return self._exchange(call.method, target, body, self._headers(call))

    def close(self) -> None:
        """Close the connections of all threads; a later call opens its own again."""
        while self._open:
            self._open.pop().close()
        self._local = threading.local()

    def _headers(self, call: Call) -> dict[str, str]:
        usual: dict[str, str | None] = {}
        if call.body is not None:
            usual["Content-Type"] = "application/json"
        if self._token:
            usual["Authorization"] = f"Bearer {self._token}"
        merged = {**usual, **call.headers}
        return {name: self.resolve(text) for name, text in merged.items() if text is not None}

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(*self._address, timeout=CALL_TIMEOUT_S)
            self._local.connection = connection
            self._open.append(connection)
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        content = response.read()
        named = {name.lower(): value for name, value in response.getheaders()}
        if response.will_close:
            connection.close()
            self._local.connection = None
        return Answer(response.status, named, content)
