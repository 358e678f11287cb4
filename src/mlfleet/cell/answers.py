"""The gateway's own answers: status, sentence, and what a client may do next.

Shaped as MLflow shapes its errors (`{"error_code", "message"}`), so that a stock client raises its
usual exception with our sentence in it. Nothing here ever answers 502, 503 or 504: whatever will
work later is a 429 with Retry-After, which every MLflow client resends.
"""

import dataclasses
import email.utils
import functools
import html
import json
import re
import time
from http import HTTPStatus
from typing import Self

from mlfleet.errors import (
    STATUS,
    FleetError,
    NoCapacityError,
    UnauthorizedError,
)

ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    408: "BAD_REQUEST",
    411: "BAD_REQUEST",
    413: "BAD_REQUEST",
    414: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    431: "BAD_REQUEST",
}
"""MLflow's error code for each status that the gateway gives."""

RETRY_AFTER_S = 1
"""Small, because a held request has already waited; clients add their own backoff."""


class InterruptedRequestError(NoCapacityError):
    """The instance went away before it answered, and the request may not be sent twice."""


class BadRequestError(FleetError):
    """A request that cannot be understood; `status` is 400, 408, 413, 414 or 431."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Answer:
    """A whole response, ready to be written."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False

    def with_header(self, name: str, value: str) -> Self:
        """Return the same answer with one header more."""
        return dataclasses.replace(self, headers=(*self.headers, (name, value)))

    def encode(self, *, with_body: bool = True, close: bool = False) -> bytes:
        """Return the bytes of the response; `with_body` is false for HEAD."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"content-type: {self.content_type}",
            f"content-length: {len(self.body)}",
            f"date: {http_date()}",
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        if self.close or close:
            lines.append("connection: close")
        head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        return head + self.body if with_body else head


def http_date() -> str:
    """Return the time for a Date header; formatted once per second."""
    return _formatted_date(int(time.time()))


@functools.lru_cache(maxsize=1)
def _formatted_date(seconds: int) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


def error(status: int, message: str, *headers: tuple[str, str], close: bool = False) -> Answer:
    """Return an error in MLflow's shape."""
    code = ERROR_CODES.get(status, "INTERNAL_ERROR")
    body = json.dumps({"error_code": code, "message": message}).encode()
    return Answer(status, body, headers=headers, close=close)


def refusal(exc: FleetError, *, asks_password: bool = True) -> Answer:
    """Return what a client is told about an error that a person or a retry can mend.

    Args:
        asks_password: let a browser ask for a password; not where there is a login page.
    """
    if isinstance(exc, BadRequestError):
        return error(exc.status, str(exc), close=True)
    status = next((s for kind, s in STATUS.items() if isinstance(exc, kind)), 500)
    if isinstance(exc, UnauthorizedError):
        basic = ("www-authenticate", 'Basic realm="mlfleet", charset="UTF-8"')
        bearer = ("www-authenticate", 'Bearer realm="mlfleet"')
        return error(status, str(exc), *((basic, bearer) if asks_password else (bearer,)))
    if status == 429:
        return error(status, str(exc), ("retry-after", str(RETRY_AFTER_S)))
    return error(status, str(exc))


def text(status: int, message: str, content_type: str = "text/plain; charset=utf-8") -> Answer:
    """Return a plain answer."""
    return Answer(status, message.encode(), content_type)


def page(status: int, template: str, *headers: tuple[str, str], **fields: str) -> Answer:
    """Return an HTML page; every field is escaped, and `message` may hold `code` in backticks."""
    escaped = {name: html.escape(value, quote=True) for name, value in fields.items()}
    if "message" in escaped:
        escaped["message"] = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped["message"])
    for name, value in escaped.items():
        template = template.replace("{{" + name + "}}", value)
    return Answer(status, template.encode(), "text/html; charset=utf-8", headers)


def redirect(location: str, *headers: tuple[str, str], status: int = 303) -> Answer:
    """Return a redirect within the same host."""
    return Answer(status, b"", "text/plain", (("location", location), *headers))
