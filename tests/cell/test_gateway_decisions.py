"""The gateway's decisions as pure functions: who wakes, who sleeps, who may, where to."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.cell import access, admission, browser, forward, routing
from mlfleet.cell.access import Sessions
from mlfleet.cell.admission import Awake, Evict, Full, Wait, Wake
from mlfleet.cell.breaker import Breaker
from mlfleet.cell.routing import Hosts
from mlfleet.errors import FleetError, NoCapacityError

HOSTS = Hosts("localhost, 127.0.0.1, [::1], fleet.example")
NOW = datetime(2026, 1, 1, tzinfo=UTC)

awakes = st.lists(
    st.builds(
        Awake,
        tenant=st.text("abc", min_size=1),
        in_flight=st.integers(0, 2),
        last_used=st.floats(0, 100),
        is_leaving=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda one: one.tenant,
)


@given(awake=awakes, max_awake=st.integers(1, 8), waiting=st.integers(0, 3))
def test_only_the_longest_idle_tenant_is_ever_evicted(
    awake: list[Awake], max_awake: int, waiting: int
) -> None:
    decision = admission.admit(awake, max_awake, waiting)
    idle = [one for one in awake if one.in_flight == 0 and not one.is_leaving]
    leaving = sum(one.is_leaving for one in awake)
    if len(awake) < max_awake:
        assert decision == Wake()
    elif leaving > waiting:
        assert decision == Wait()
    elif idle:
        assert isinstance(decision, Evict)
        [evicted] = [one for one in idle if one.tenant == decision.tenant]
        assert all(evicted.last_used <= one.last_used for one in idle)
    else:
        assert decision == Full()


@given(awake=awakes, now=st.floats(0, 200), idle_s=st.floats(1, 50))
def test_nobody_at_work_or_recently_used_is_reaped(
    awake: list[Awake], now: float, idle_s: float
) -> None:
    reaped = set(admission.idle_tenants(awake, now, idle_s))
    for one in awake:
        is_idle = one.in_flight == 0 and not one.is_leaving and now - one.last_used >= idle_s
        assert (one.tenant in reaped) == is_idle


@given(rest=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
def test_a_path_is_cut_after_the_tenant_and_never_changed(rest: str) -> None:
    found = routing.route(f"/demo/{rest}", "localhost:8080", HOSTS)
    assert (found.tenant, found.prefix + found.path) == ("demo", f"/demo/{rest}")
    own = routing.route(f"/x{rest}", "demo.fleet.example", HOSTS)
    assert (own.tenant, own.path, own.own_host) == ("demo", f"/x{rest}", True)


@given(target=st.text(max_size=30), host=st.text(max_size=30))
def test_whatever_comes_is_routed_or_refused_with_a_sentence(target: str, host: str) -> None:
    try:
        found = routing.route(target, host, HOSTS)
    except FleetError as exc:
        assert str(exc)
    else:
        assert target.startswith("/")
        assert found.prefix + found.path == target


@pytest.mark.parametrize(
    ("host", "tenant"),
    [
        ("localhost", None),
        ("LOCALHOST:8080", None),
        ("127.0.0.1:1", None),
        ("[::1]:8080", None),
        ("fleet.example.", None),
        ("demo.localhost:8080", "demo"),
        ("Demo.Fleet.Example", "demo"),
    ],
)
def test_a_host_names_its_tenant(host: str, tenant: str | None) -> None:
    assert HOSTS.tenant(host) == tenant


@pytest.mark.parametrize(
    "host",
    ["evil", "a.b.localhost", "-a.localhost", ".localhost", "localhost:x", "localhost:123456"],
)
def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(FleetError, match="Invalid Host header"):
        HOSTS.tenant(host)


@pytest.mark.parametrize(
    ("method", "path", "reads"),
    [
        ("GET", "/api/2.0/mlflow/runs/get?run_id=1", True),
        ("HEAD", "/", True),
        ("POST", "/api/2.0/mlflow/runs/search", True),
        ("POST", "/ajax-api/2.0/mlflow/runs/search?x", True),
        ("POST", "/api/3.0/mlflow/traces/search", True),
        ("POST", "/api/2.0mlflow/experiments/search-datasets", True),
        ("POST", "/ajax-api/3.0/jobs/search", True),
        ("POST", "/graphql", True),
        ("POST", "/graphql/x", False),
        ("POST", "/api/2.0/mlflow/runs/create", False),
        ("POST", "/api/2.0/mlflow/runs/search/../create", False),
        ("POST", "/x/2.0/mlflow/runs/search", False),
        ("POST", "/api/9.0/mlflow/runs/search", False),
        ("POST", "/v1/traces", False),
        ("PUT", "/api/2.0/mlflow/runs/search", False),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/x", False),
    ],
)
def test_what_a_read_only_token_may_do(method: str, path: str, reads: bool) -> None:
    assert access.only_reads(method, path) is reads


@pytest.mark.filterwarnings("ignore")  # of MLflow's own imports
def test_every_reading_post_is_one_of_mlflows_paths() -> None:
    from mlflow.server import handlers

    known = {rule for rule, _, methods in handlers.get_endpoints() if "POST" in methods}
    extra = {"jobs/search", "mlflow/ui-telemetry", "mlflow/experiments/search-datasets"}
    for call in access.READING_POSTS - extra:
        assert any(rule.endswith("/" + call) for rule in known), call


@given(user=st.text(max_size=10), token=st.text("abc_-:", min_size=1))
def test_a_password_is_everything_after_the_first_colon(user: str, token: str) -> None:
    user = user.replace(":", "").encode("utf-8", "ignore").decode()
    encoded = base64.b64encode(f"{user}:{token}".encode()).decode()
    assert access.presented_token(f"Basic {encoded}") == token


@given(text=st.text())
def test_any_authorization_header_is_a_token_or_none(text: str) -> None:
    token = access.presented_token(text)
    assert token is None or token


def test_a_session_is_bound_to_tenant_token_and_time() -> None:
    sessions = Sessions(lambda tenant_id: f"key {tenant_id}", session_s=60)
    value = sessions.issue(7, "ab" * 32, NOW)
    assert sessions.token_digest(value, 7, NOW + timedelta(seconds=59)) == "ab" * 32
    assert sessions.token_digest(value, 7, NOW + timedelta(seconds=61)) is None
    assert sessions.token_digest(value, 8, NOW) is None
    for position in range(0, len(value), 7):
        forged = value[:position] + "0" + value[position + 1 :]
        if forged != value:
            assert sessions.token_digest(forged, 7, NOW) is None
    for junk in ("", ".", "..", "ä.b.c", "a.b"):
        assert sessions.token_digest(junk, 7, NOW) is None


@given(target=st.text(max_size=20))
def test_a_login_never_leads_to_another_site(target: str) -> None:
    place = browser.local_target(target)
    assert place.startswith("/")
    assert not place.startswith(("//", "/\\"))
    assert "\r" not in place and "\n" not in place and "\t" not in place


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("GET", "/x", True),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x", True),
        ("POST", "/api/2.0/mlflow/runs/log-batch", True),
        ("POST", "/api/2.0/mlflow/runs/create", False),
        ("POST", "/api/2.0/mlflow/experiments/update", False),
        ("DELETE", "/api/2.0/mlflow/registered-models/delete", False),
        ("PATCH", "/api/2.0/mlflow/registered-models/update", False),
    ],
)
def test_only_calls_that_end_the_same_are_sent_twice(method: str, path: str, may: bool) -> None:
    assert forward.may_repeat(method, path) is may


async def test_the_breaker_hands_places_over_in_order() -> None:
    breaker, order = Breaker(1, 2), []
    await breaker.enter(1)

    async def work(number: int) -> None:
        await breaker.enter(1)
        order.append(number)
        breaker.leave()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work(1))
        tasks.create_task(work(2))
        await asyncio.sleep(0)
        with pytest.raises(NoCapacityError, match="which is its limit"):
            await breaker.enter(1)
        breaker.leave()
    assert order == [1, 2]
    assert breaker.is_idle


async def test_the_breaker_forgets_who_left_or_waited_too_long() -> None:
    breaker = Breaker(1, 5)
    await breaker.enter(1)
    leaver = asyncio.create_task(breaker.enter(5))
    await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(NoCapacityError, match="in flight came free"):
        await breaker.enter(0.01)
    assert leaver.cancelled()
    breaker.leave()
    assert breaker.is_idle


async def test_a_place_given_in_the_moment_of_leaving_goes_on() -> None:
    breaker = Breaker(1, 5)
    await breaker.enter(1)
    leaver = asyncio.create_task(breaker.enter(5))
    await asyncio.sleep(0)
    breaker.leave()
    leaver.cancel()
    await asyncio.wait([leaver])
    if not leaver.cancelled():
        breaker.leave()
    assert breaker.is_idle
