"""A gateway in front of real forked instances that echo what reaches them."""

from tests.fixtures_gateway import EchoCell, until


def test_a_request_wakes_the_tenant_and_reaches_it_byte_for_byte(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    assert echo_cell.awake() == []
    answer = echo_cell.get("/demo/a%2Fb//c/%2e%2e/./d?x=%20&y", token)
    assert answer.status == 200, answer.body
    echo = answer.json()
    assert (echo["path"], echo["query"]) == ("/a%2Fb//c/%2e%2e/./d", "x=%20&y")
    assert echo["tenant"] == "demo"
    assert echo_cell.awake() == ["demo"]
