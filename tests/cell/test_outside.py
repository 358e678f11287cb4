"""Whose word counts about where a request came from."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.cell.outside import Ingress, Outside
from mlfleet.errors import FleetError
from tests.fixtures_gateway import EchoCell

INGRESS, ACTIVATOR, QUEUE_PROXY = "10.0.0.7", "10.42.0.9", "127.0.0.1"
NOBODY_KNOWN = Outside("h", "http", QUEUE_PROXY)
words = st.sampled_from([INGRESS, ACTIVATOR, QUEUE_PROXY, "1.2.3.4", "::1", "unknown", ""])


def seen(*forwarded_for: str, networks: str = INGRESS, hops: int = 2) -> Outside:
    return Ingress(networks, hops).outside("h", "http", QUEUE_PROXY, forwarded_for, "https")


def test_the_ingress_stands_where_only_our_proxies_write() -> None:
    client = Outside("h", "https", "1.2.3.4")
    assert seen(f"1.2.3.4, {INGRESS}, {ACTIVATOR}") == client
    assert seen(f"1.2.3.4, {INGRESS}", ACTIVATOR) == client
    assert seen(f"6.6.6.6, 1.2.3.4, {INGRESS}, {ACTIVATOR}") == client
    assert seen(f"1.2.3.4, 10.0.1.9, {ACTIVATOR}", networks="9.9.9.9, 10.0.1.0/24") == client
    assert seen(f"1.2.3.4, ::ffff:{INGRESS}, {ACTIVATOR}") == client


@pytest.mark.parametrize(
    "forwarded_for",
    [
        "",
        INGRESS,
        f"{INGRESS}, {ACTIVATOR}",
        f"1.2.3.4, {INGRESS}",
        f"1.2.3.4, {INGRESS}, {ACTIVATOR}, {ACTIVATOR}",
        f"{INGRESS}, 10.42.0.66, {ACTIVATOR}",
    ],
)
def test_whoever_is_not_the_ingress_is_not_believed(forwarded_for: str) -> None:
    assert seen(forwarded_for) == NOBODY_KNOWN


@given(claims=st.lists(words, max_size=6), network=st.sampled_from(["", "203.0.113.0/24"]))
def test_no_claim_makes_an_ingress_of_somebody(claims: list[str], network: str) -> None:
    assert seen(", ".join(claims), networks=network) == NOBODY_KNOWN


@given(claims=st.lists(words, max_size=4))
def test_what_a_client_claims_changes_nothing(claims: list[str]) -> None:
    line = ", ".join([*claims, "1.2.3.4", INGRESS, ACTIVATOR])
    assert seen(line) == Outside("h", "https", "1.2.3.4")


@pytest.mark.parametrize("proto", ["", "ftp", "https,http", "javascript"])
def test_a_scheme_that_is_none_is_the_fleets_own(proto: str) -> None:
    ingress = Ingress(QUEUE_PROXY, 0)
    assert ingress.outside("h", "https", QUEUE_PROXY, ["1.2.3.4"], proto).scheme == "https"


@pytest.mark.parametrize("text", ["traefik", "10.0.0.0/33", "10.0.0.1/8", "*"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(FleetError, match="MLFLEET_TRUSTED_PROXIES="):
        Ingress(text, 0)


CLAIMS = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def login(cell: EchoCell, token: str, headers: dict[str, str]) -> str:
    host = f"demo.localhost:{cell.port}"
    body = f"token={token}&next=/"
    answer = cell.request("POST", "/.mlfleet/login", body=body, headers=FORM | headers, host=host)
    return answer.headers["set-cookie"]


def test_behind_a_named_ingress_cookies_are_secure_and_links_https(
    echo_cells: Callable[..., EchoCell],
) -> None:
    cell = echo_cells(trusted_proxies="127.0.0.1")
    token = cell.catalogue.put("demo")
    assert "; Secure" in login(cell, token, CLAIMS)
    assert "; Secure" not in login(cell, token, CLAIMS | {"X-Forwarded-Proto": "http"})
    assert b"https://127.0.0.1" in cell.get("/", headers=CLAIMS).body
    echoed = dict(cell.get("/demo/x", token, headers=CLAIMS).json()["headers"])
    assert echoed["x-forwarded-for"] == "1.2.3.4"
    assert echoed["x-forwarded-proto"] == "https"
    assert echoed["x-forwarded-host"] == f"127.0.0.1:{cell.port}"


@pytest.mark.parametrize("trusted", ["", "10.0.0.0/8"])
def test_without_one_every_claim_is_overwritten(
    echo_cells: Callable[..., EchoCell], trusted: str
) -> None:
    cell = echo_cells(trusted_proxies=trusted)
    token = cell.catalogue.put("demo")
    assert "; Secure" not in login(cell, token, CLAIMS)
    assert b"https://" not in cell.get("/", headers=CLAIMS).body
    echoed = dict(cell.get("/demo/x", token, headers=CLAIMS).json()["headers"])
    assert (echoed["x-forwarded-for"], echoed["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert echoed["x-forwarded-host"] == f"127.0.0.1:{cell.port}"


NAMES = (
    "cell-0.mlfleet.example.test",
    "cell-0.mlfleet.svc.cluster.local",
    "cell-0.mlfleet.svc",
    "cell-0.mlfleet",
)


def test_a_cell_answers_to_its_names_outside_inside_and_with_port(
    echo_cells: Callable[..., EchoCell],
) -> None:
    cell = echo_cells(public_hosts=",".join(NAMES))
    token = cell.catalogue.put("demo")
    for name in NAMES:
        for host in (name, f"{name}:80", f"{name}:31080", f"{name}.", name.upper()):
            assert cell.get("/demo/x", token, host=host).status == 200, host
            assert cell.get("/x", token, host=f"demo.{host}").status == 200, host
    for host in ("localhost", "example.test", "cell-1.mlfleet.example.test", f"{NAMES[0]}.evil",
                 f"{NAMES[0]}:80:80", f"{NAMES[0]}@evil", f"evil/{NAMES[0]}"):  # fmt: skip
        assert cell.get("/demo/x", token, host=host).status == 403, host
