"""What a person in a browser meets: the login page, the waiting page, the front page.

Plain HTML that works without JavaScript. A session exists on a tenant's own host only.
"""

import importlib.resources
import urllib.parse
from datetime import datetime

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


def _template(name: str) -> str:
    return (importlib.resources.files("mlfleet.cell") / "pages" / name).read_text("utf-8")


_LOGIN_PAGE, _WAITING_PAGE, _FRONT_PAGE = map(
    _template, ("login.html", "waiting.html", "front.html")
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
    return answers.page(200, _FRONT_PAGE, *_STRICT, scheme=scheme, host=host)


def waiting_page(tenant: str, reason: str) -> Answer:
    """Return a page that asks again by itself until the UI answers."""
    headers = (*_STRICT, ("retry-after", "1"))
    # 200: some browsers show their own page for an error, and would not ask again.
    return answers.page(200, _WAITING_PAGE, *headers, tenant=tenant, reason=reason)


def login_page(tenant: str, target: str, error: str = "") -> Answer:
    """Return the login form; `target` is where to go afterwards."""
    status = 401 if error else 200
    fields = {"tenant": tenant, "next": local_target(target), "error": error}
    return answers.page(status, _LOGIN_PAGE, *_STRICT, **fields)


def to_login(target: str) -> Answer:
    """Return a redirect to the login form."""
    return answers.redirect(f"{LOGIN}?{urllib.parse.urlencode({'next': local_target(target)})}")


def login_target(path: str) -> str:
    """Return the `next` field of the login page's own address."""
    query = urllib.parse.parse_qs(path.partition("?")[2])
    return query.get("next", ["/"])[0]


def log_in(
    form: bytes,
    tenant: str,
    tenant_id: int,
    tokens: dict[str, Token],
    sessions: Sessions,
    now: datetime,
    *,
    is_secure: bool,
) -> Answer:
    """Return the answer to a sent login form: a cookie and the way on, or the form again."""
    fields = urllib.parse.parse_qs(form.decode("utf-8", "replace"))
    token = fields.get("token", [""])[0].strip()
    target = fields.get("next", ["/"])[0]
    try:
        access.valid_token(tokens, hashed := digest(token), now)
    except UnauthorizedError as exc:
        return login_page(tenant, target, str(exc))
    cookie = _cookie(sessions.issue(tenant_id, hashed, now), sessions.session_s, is_secure)
    return answers.redirect(local_target(target), cookie)


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
