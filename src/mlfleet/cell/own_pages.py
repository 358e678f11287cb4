"""The gateway's own pages: front page, probes and metrics, login and logout."""

from datetime import UTC, datetime

from mlfleet.catalogue.tokens import digest
from mlfleet.cell import access, answers, browser, routing
from mlfleet.cell.access import Sessions
from mlfleet.cell.answers import Answer, BadRequestError
from mlfleet.cell.forward import Body
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.outside import Outside
from mlfleet.cell.routing import Route
from mlfleet.cell.server import Incoming
from mlfleet.cell.tenants import Known, Tenants


class OwnPages:
    """Answers without waking anybody."""

    def __init__(
        self, tenants: Tenants, sessions: Sessions, metrics: Metrics, client_idle_s: float
    ) -> None:
        self._tenants = tenants
        self._sessions = sessions
        self._metrics = metrics
        self._client_idle_s = client_idle_s

    def of_fleet(
        self, incoming: Incoming, outside: Outside, route: Route, not_ready: str
    ) -> Answer:
        """Return a page that is no tenant's: front page, probes, metrics."""
        path = route.path.partition("?")[0]
        if incoming.message.method not in ("GET", "HEAD"):
            return answers.error(405, "Only GET and HEAD are answered here", ("allow", "GET, HEAD"))
        if path == "/metrics":
            self._metrics.show_tenants(self._tenants.states)
            body = self._metrics.render()
            return Answer(200, body, "text/plain; version=0.0.4; charset=utf-8")
        if path == "/readyz" and not_ready:
            # 503 is for the probe that asked; no client of a tenant ever gets it.
            return answers.text(503, not_ready + "\n")
        if path in routing.PROBES:
            return answers.text(200, "ok\n")
        return browser.front_page(outside.scheme, outside.host)

    async def of_session(
        self, incoming: Incoming, outside: Outside, route: Route, known: Known
    ) -> Answer:
        """Return a page of a tenant's own host that begins or ends a session."""
        path, method = route.path.partition("?")[0], incoming.message.method
        is_secure = outside.scheme == "https"
        if path == browser.LOGIN and method in ("GET", "HEAD"):
            return browser.login_page(route.tenant, browser.login_target(route.path))
        if path == browser.LOGOUT and method in ("GET", "HEAD"):
            return browser.logout_page(route.tenant)
        if path not in (browser.LOGIN, browser.LOGOUT):
            return answers.error(404, f"No page {path[:100]!r} here")
        headers = incoming.message.headers
        access.check_origin(method, headers.get("Origin"), outside.host, by_cookie=False)
        if method == "POST" and path == browser.LOGOUT:
            return browser.log_out(is_secure=is_secure)
        if method != "POST":
            return answers.error(405, "This page takes POST", ("allow", "POST"))
        body = Body(incoming, self._client_idle_s)
        if body.length is None or body.length > browser.FORM_BYTES:
            raise BadRequestError("A login form is a few hundred bytes long", status=413)
        await body.read_small()
        form = browser.read_form(body.whole or b"")
        if digest(form.token) not in known.tokens:
            # It may be younger than the cache.
            known = await self._tenants.newest(known)
        return browser.log_in(
            form,
            route.tenant,
            known.tenant.id,
            known.tokens,
            self._sessions,
            datetime.now(UTC),
            is_secure=is_secure,
        )
