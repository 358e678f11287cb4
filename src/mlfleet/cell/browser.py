"""What a person in a browser meets: login and logout, the waiting page, errors, the front page.

Plain HTML that works without JavaScript. A session exists on a tenant's own host only.
"""

import importlib.resources
import ipaddress
import urllib.parse
from datetime import datetime
from typing import NamedTuple

from mlfleet.catalogue.tokens import Token, digest
from mlfleet.cell import access, answers
from mlfleet.cell.access import Sessions
from mlfleet.cell.answers import Answer
from mlfleet.errors import UnauthorizedError

LOGIN = "/.mlfleet/login"
LOGOUT = "/.mlfleet/logout"
FORM_BYTES = 8192
WAITING_AFTER_S = 1.0
"""A wake that takes longer than this shows a page instead of a blank tab."""


TRY_AGAIN_S = 2
"""A page that says "later" asks again by itself after this time."""

_TITLES = {
    401: "A token is needed",
    403: "Not allowed",
    404: "Not found",
    413: "Too large",
    429: "Busy for a moment",
    500: "Something broke",
}


def _template(name: str) -> str:
    pages = importlib.resources.files("mlfleet.cell") / "pages"
    text = (pages / name).read_text("utf-8")
    return text.replace("{{style}}", (pages / "style.css").read_text("utf-8"))


_LOGIN_PAGE, _LOGOUT_PAGE, _WAITING_PAGE, _ERROR_PAGE, _FRONT_PAGE = map(
    _template, ("login.html", "logout.html", "waiting.html", "error.html", "front.html")
)
# A page that asks for a token must not be framed, and loads nothing.
_STRICT = (
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("referrer-policy", "same-origin"),
)


def is_navigation(method: str, accept: str, fetch_mode: str) -> bool:
    """Return whether a person is about to look at the answer."""
    return method == "GET" and "text/html" in accept and fetch_mode in ("", "navigate")


def front_page(scheme: str, host: str) -> Answer:
    """Return the page at `/` of the shared host."""
    fields = {"scheme": scheme, "host": host, "browser_host": browser_host(host)}
    return answers.page(200, _FRONT_PAGE, *_STRICT, **fields)


def browser_host(host: str) -> str:
    """Return what follows a tenant's name in the address of its own host.

    `demo.127.0.0.1` is no name that resolves, while browsers know every name below localhost.
    """
    name, _, port = host.rpartition(":") if host[-1:].isdigit() and ":" in host else (host, "", "")
    try:
        if not ipaddress.ip_address(name.strip("[]")).is_loopback:
            return host
    except ValueError:
        return host
    return f"localhost:{port}" if port else "localhost"


def error_page(refusal: Answer, message: str) -> Answer:
    """Return a refusal as a person reads it: same status and headers, and what to do next."""
    status, later = refusal.status, ""
    headers = (*refusal.headers, *_STRICT)
    if status == 429:
        later = "This page tries again by itself."
        headers = (*headers, ("refresh", str(TRY_AGAIN_S)))
    fields = {"message": message, "next": later, "code": str(status)}
    title = _TITLES.get(status, "This request cannot be answered")
    return answers.page(status, _ERROR_PAGE, *headers, title=title, **fields)


def waiting_page(tenant: str, reason: str) -> Answer:
    """Return a page that asks again by itself until the UI answers."""
    headers = (*_STRICT, ("retry-after", "1"))
    # 200: some browsers show their own page for an error, and would not ask again.
    return answers.page(200, _WAITING_PAGE, *headers, tenant=tenant, message=reason)


def login_page(tenant: str, target: str, error: str = "") -> Answer:
    """Return the login form; `target` is where to go afterwards."""
    status = 401 if error else 200
    fields = {"tenant": tenant, "next": local_target(target), "message": error.partition(";")[0]}
    return answers.page(status, _LOGIN_PAGE, *_STRICT, **fields)


def to_login(target: str) -> Answer:
    """Return a redirect to the login form."""
    return answers.redirect(f"{LOGIN}?{urllib.parse.urlencode({'next': local_target(target)})}")


def login_target(path: str) -> str:
    """Return the `next` field of the login page's own address."""
    query = urllib.parse.parse_qs(path.partition("?")[2])
    return query.get("next", ["/"])[0]


class Form(NamedTuple):
    """A sent login form."""

    token: str
    target: str
    """Where to go afterwards; not to be trusted."""


def read_form(body: bytes) -> Form:
    """Return the fields of a sent login form."""
    fields = urllib.parse.parse_qs(body.decode("utf-8", "replace"))
    return Form(fields.get("token", [""])[0].strip(), fields.get("next", ["/"])[0])


def log_in(
    form: Form,
    tenant: str,
    tenant_id: int,
    tokens: dict[str, Token],
    sessions: Sessions,
    now: datetime,
    *,
    is_secure: bool,
) -> Answer:
    """Return the answer to a sent login form: a cookie and the way on, or the form again."""
    try:
        access.valid_token(tokens, hashed := digest(form.token), now)
    except UnauthorizedError as exc:
        return login_page(tenant, form.target, str(exc))
    cookie = _cookie(sessions.issue(tenant_id, hashed, now), sessions.session_s, is_secure)
    return answers.redirect(local_target(form.target), cookie)


def logout_page(tenant: str) -> Answer:
    """Return the page with the button that ends the session; a link alone must not end it."""
    return answers.page(200, _LOGOUT_PAGE, *_STRICT, tenant=tenant)


def log_out(*, is_secure: bool) -> Answer:
    """Return a redirect that also forgets the session."""
    return answers.redirect(LOGIN, _cookie("", 0, is_secure))


def local_target(target: str) -> str:
    """Return a path of this host to go to; anything that could lead elsewhere becomes `/`."""
    is_local = target.startswith("/") and target[1:2] not in ("/", "\\") and target.isprintable()
    return target if is_local and target.isascii() else "/"


def _cookie(value: str, max_age_s: float, is_secure: bool) -> tuple[str, str]:
    secure = "; Secure" if is_secure else ""
    attributes = f"Path=/; Max-Age={int(max_age_s)}; HttpOnly; SameSite=Lax{secure}"
    return "set-cookie", f"{access.COOKIE}={value}; {attributes}"
