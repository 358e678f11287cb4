"""The gateway: every request of every tenant passes here, once.

Reads as the order of its questions: which tenant (routing), who asks (access), is there room
(breaker), and then has the request delivered (delivery). Each question is a pure function or a
small part of its own; this module only asks them and writes the answer.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import NamedTuple

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from mlfleet.catalogue.tokens import Token, digest
from mlfleet.cell import access, answers, browser, handover, routing
from mlfleet.cell.access import Sessions
from mlfleet.cell.answers import Answer, BadRequestError
from mlfleet.cell.breaker import Breaker
from mlfleet.cell.delivery import Delivery, Limits, Request
from mlfleet.cell.entrance import Arrival, Entrance
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.neighbours import Neighbours
from mlfleet.cell.outside import Outside
from mlfleet.cell.own_pages import OwnPages
from mlfleet.cell.request_log import Record, RequestLog
from mlfleet.cell.routing import Route
from mlfleet.cell.server import Incoming
from mlfleet.cell.tenants import Known, Tenants
from mlfleet.cell.upstream import LostError
from mlfleet.cell.waking import Instances
from mlfleet.errors import (
    FleetError,
    NoCapacityError,
    QuotaError,
    UnauthorizedError,
    UnknownTenantError,
)

log = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""In the log only: the client went away before the answer was complete."""
_HEALTH_TYPES = {"GET": "text/plain; charset=utf-8", "HEAD": "text/html; charset=utf-8"}
"""Stock's: FastAPI answers the one, Flask the other."""


class Caller(NamedTuple):
    """Who asks."""

    token: Token
    by_cookie: bool


class Gateway:
    """Answers requests."""

    def __init__(
        self,
        tenants: Tenants,
        instances: Instances | None,
        entrance: Entrance,
        sessions: Sessions,
        limits: Limits,
        metrics: Metrics,
        neighbours: Neighbours | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        self._tenants = tenants
        self._instances = instances
        self._delivery = Delivery(instances, limits, metrics) if instances is not None else None
        self._neighbours = neighbours
        self._entrance = entrance
        self._sessions = sessions
        self._pages = OwnPages(tenants, sessions, metrics, limits.client_idle_s)
        self._limits = limits
        self._metrics = metrics
        self._request_log = request_log
        self._answered_by = f"{handover.ANSWERED_BY}: {entrance.cell}\r\n".encode()
        self._breakers: dict[str, Breaker] = {}
        self._is_draining = False
        self.not_ready = "starting"
        """Why /readyz says no; empty when it says yes."""

    def drain(self) -> None:
        """Say that this gateway is going, and end each connection after its answer."""
        self.not_ready = "draining"
        self._is_draining = True
        for way in (self._delivery, self._neighbours):
            if way is not None:
                way.is_draining = True

    async def handle(self, incoming: Incoming) -> None:
        """Answer one request."""
        started = time.perf_counter()
        record = Record(incoming.message.method, incoming.message.path)
        self._metrics.in_flight.inc()
        try:
            await self._serve(incoming, record)
        except (asyncio.CancelledError, ConnectionError):
            record.status = CLIENT_LEFT
            incoming.close = True
            raise
        except LostError as exc:
            # Part of the answer is out already: all that is left is to cut it visibly.
            log.warning("answer_cut_off", extra={"tenant": record.tenant, "reason": str(exc)})
        finally:
            self._metrics.in_flight.dec()
            if not record.is_probe:
                self._metrics.by_class[min(record.status // 100, 5) or 5].inc()
                if self._request_log is not None:
                    self._request_log.write(record, time.perf_counter() - started)

    async def _serve(self, incoming: Incoming, record: Record) -> None:
        own_host = False
        try:
            arrival = self._arrival(incoming)
            record.handed_over_by = arrival.by
            outside = arrival.outside
            route = routing.route(incoming.message.path, outside.host, arrival.hosts)
            own_host = route.own_host
            record.tenant = route.tenant
            answer = await self._answer_or_forward(incoming, outside, route, record)
        except FleetError as exc:
            answer = answers.refusal(exc, asks_password=not own_host)
            if not answer.close and self._is_navigation(incoming):
                answer = browser.error_page(answer, str(exc))
        except (RequestPayloadError, HttpProcessingError):
            answer = answers.refusal(BadRequestError("The body is not framed as its head says"))
        except TimeoutError:
            late = f"No byte of the body came for {self._limits.client_idle_s:g} s"
            answer = answers.refusal(BadRequestError(late, status=408))
        except (ConnectionError, LostError):
            raise
        except Exception:
            log.exception("request_failed", extra={"tenant": record.tenant})
            answer = answers.error(500, "The gateway failed at this request; its log says why")
        if answer is not None:
            self._write(incoming, answer, record)

    def _write(self, incoming: Incoming, answer: Answer, record: Record) -> None:
        record.status = answer.status
        if incoming.started:
            incoming.abort()
            return
        if answer.close or not incoming.body.is_eof():
            incoming.close = True
        close = incoming.close or self._is_draining
        if record.handed_over_by:
            answer = answer.with_header(handover.ANSWERED_BY, self._entrance.cell)
        data = answer.encode(with_body=incoming.message.method != "HEAD", close=close)
        record.sent_bytes = len(answer.body)
        incoming.write(data)

    # Which tenant.

    def _arrival(self, incoming: Incoming) -> Arrival:
        headers = incoming.message.headers
        hosts = headers.getall("Host", [])
        if len(hosts) != 1 or not hosts[0]:
            raise BadRequestError("A request needs exactly one Host header")
        coding = headers.get("Transfer-Encoding")
        if coding is not None and coding.lower() != "chunked":
            raise BadRequestError("The only transfer coding that is understood is chunked")
        if incoming.message.method == "CONNECT":
            raise BadRequestError("CONNECT is not for this server")
        return self._entrance.arrival(headers, hosts[0], incoming.remote)

    async def _answer_or_forward(
        self, incoming: Incoming, outside: Outside, route: Route, record: Record
    ) -> Answer | None:
        """Return the gateway's own answer, or none when the instance has answered."""
        if not route.tenant:
            # A line for each probe would bury the rest.
            record.is_probe = True
            return self._pages.of_fleet(incoming, outside, route, self.not_ready)
        known = self._tenants.get(route.tenant) or await self._tenants.find(route.tenant)
        self._check_state(known)
        if not route.path.startswith("/"):
            # `/demo` alone: the UI's relative links need the slash.
            return answers.redirect(f"{route.prefix}/{route.path}", status=307)
        path = route.path.partition("?")[0]
        if path == "/health" and incoming.message.method in _HEALTH_TYPES:
            # A monitor must not keep a tenant awake, and asleep is healthy.
            same_origin = ("x-frame-options", "SAMEORIGIN")
            return Answer(200, b"OK", _HEALTH_TYPES[incoming.message.method], (same_origin,))
        if route.own_host and path.startswith(routing.OWN_PREFIX):
            return await self._pages.of_session(incoming, outside, route, known)
        try:
            caller = await self._identify(incoming, route, known)
        except UnauthorizedError:
            if route.own_host and self._is_navigation(incoming):
                return browser.to_login(route.path)
            raise
        self._check_request(incoming, outside, route, caller)
        breaker = self._breaker(known)
        await breaker.enter(self._limits.hold_s)
        try:
            request = Request(incoming, route, outside, caller.token.name, record)
            return await self._deliver(request, known)
        finally:
            breaker.leave()
            if breaker.is_idle:
                self._breakers.pop(route.tenant, None)

    async def _deliver(self, request: Request, known: Known) -> Answer | None:
        """Have the request answered by the tenant's instance, in the cell that the tenant lives in.

        Raises:
            NoCapacityError: it was handed over to this cell, and the tenant does not live here.
        """
        cell = self._elsewhere(known)
        if cell and request.record.handed_over_by:
            # The other cell may have heard of the move before this one.
            cell = self._elsewhere(await self._tenants.newest(known))
            if cell:
                raise NoCapacityError(
                    f"Tenant {request.route.tenant!r} is moving and does not live in cell "
                    f"{self._entrance.cell!r} any more; try again"
                )
        if cell and self._neighbours is not None:
            if self._instances is not None:
                self._instances.begin_sleep(request.route.tenant)
            await self._neighbours.deliver(request, cell)
            return None
        return await self._deliver_here(request)

    async def _deliver_here(self, request: Request) -> Answer | None:
        assert self._delivery is not None, "the front has no tenants of its own"
        tenant, record = request.route.tenant, request.record
        if self._is_navigation(request.incoming):
            reason = await self._delivery.is_slow(tenant, record)
            if reason:
                return browser.waiting_page(tenant, reason)
        if record.handed_over_by:
            request.added = self._answered_by
        await self._delivery.deliver(request)
        return None

    def _elsewhere(self, known: Known) -> str:
        """Return the cell that the tenant lives in; empty if it is this or the only one."""
        cell = known.tenant.cell
        return "" if self._neighbours is None or cell == self._neighbours.cell else cell

    def _breaker(self, known: Known) -> Breaker:
        """Return the tenant's breaker with its present quota; kept only while it is in use."""
        concurrency = known.tenant.quota.concurrency
        breaker = self._breakers.get(known.tenant.name)
        if breaker is None:
            breaker = Breaker(concurrency, self._limits.queue)
            self._breakers[known.tenant.name] = breaker
        breaker.concurrency = concurrency
        return breaker

    def _check_state(self, known: Known) -> None:
        name, state = known.tenant.name, known.tenant.state
        if state == "deleting":
            raise UnknownTenantError(f"Tenant {name!r} is being deleted")
        if state == "upgrading":
            raise NoCapacityError(f"Tenant {name!r} is being upgraded; try again")

    # Who asks.

    async def _identify(self, incoming: Incoming, route: Route, known: Known) -> Caller:
        try:
            return self._authorize(incoming, route, known)
        except UnauthorizedError:
            if "Authorization" not in incoming.message.headers:
                raise
            # Refusing is final for a client, and this token may be younger than the cache.
            newest = await self._tenants.newest(known)
            return self._authorize(incoming, route, newest)

    def _authorize(self, incoming: Incoming, route: Route, known: Known) -> Caller:
        headers = incoming.message.headers
        now = datetime.now(UTC)
        authorization = headers.get("Authorization")
        if authorization is not None:
            token = access.presented_token(authorization)
            if token is None:
                raise UnauthorizedError("The Authorization header holds neither Bearer nor Basic")
            return Caller(access.valid_token(known.tokens, digest(token), now), False)
        cookie = headers.get("Cookie") if route.own_host else None
        if cookie and (value := access.session_value(cookie)):
            hashed = self._sessions.token_digest(value, known.tenant.id, now)
            return Caller(access.valid_token(known.tokens, hashed or "", now), True)
        raise UnauthorizedError(
            "This tenant needs a token: set MLFLOW_TRACKING_TOKEN, or log in at the UI"
        )

    def _check_request(
        self, incoming: Incoming, outside: Outside, route: Route, caller: Caller
    ) -> None:
        message = incoming.message
        access.check_origin(
            message.method,
            message.headers.get("Origin"),
            outside.host,
            by_cookie=caller.by_cookie,
        )
        access.check_token_access(caller.token, message.method, route.path)
        length = message.headers.get("Content-Length")
        limit = self._limits.max_body_bytes
        if limit and length is not None and int(length) > limit:
            raise QuotaError(f"A body of {length} bytes is more than the {limit} allowed here")

    def _is_navigation(self, incoming: Incoming) -> bool:
        headers = incoming.message.headers
        return browser.is_navigation(
            incoming.message.method,
            headers.get("Accept", ""),
            headers.get("Sec-Fetch-Mode", ""),
        )
