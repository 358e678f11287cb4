"""Sessions and pages for people in a browser."""

import os
import signal

from tests.fixtures_gateway import NAVIGATION, EchoCell, until

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def log_in(cell: EchoCell, token: str) -> dict[str, str]:
    """Log in on demo's own host, and return the headers of a browser that did."""
    body = f"token={token}&next=%2Fnext%3Fa%3D1"
    host = f"demo.localhost:{cell.port}"
    answer = cell.request("POST", "/.mlfleet/login", body=body, headers=FORM, host=host)
    assert (answer.status, answer.headers["location"]) == (303, "/next?a=1")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes)
    assert not any(one.startswith("Domain") for one in attributes)
    return {"Cookie": f"theme=dark; {cookie}"}


def test_a_session_opens_the_own_host_and_nothing_else(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.catalogue.put("other")
    own, port = f"demo.localhost:{echo_cell.port}", echo_cell.port
    session = log_in(echo_cell, token)
    assert echo_cell.get("/x", headers=session, host=own).status == 200
    assert echo_cell.get("/demo/x", headers=session).status == 401
    assert echo_cell.get("/x", headers=session, host=f"other.localhost:{port}").status == 401
    forged = {"Cookie": session["Cookie"][:-1] + "x"}
    assert echo_cell.get("/x", headers=forged, host=own).status == 401
    echo_cell.catalogue.put("demo", tokens=())
    until(lambda: echo_cell.get("/x", headers=session, host=own).status == 401, wait_s=5)


def test_a_session_changes_nothing_for_a_foreign_page(echo_cell: EchoCell) -> None:
    session = log_in(echo_cell, echo_cell.catalogue.put("demo"))
    own, port = f"demo.localhost:{echo_cell.port}", echo_cell.port

    def post(origin: str | None) -> int:
        headers = session | ({"Origin": origin} if origin else {})
        return echo_cell.request("POST", "/x", body="{}", headers=headers, host=own).status

    assert post(f"http://{own}") == 200
    for foreign in (None, "null", f"http://other.localhost:{port}", f"http://localhost:{port}"):
        assert post(foreign) == 403


def test_a_browser_without_a_session_is_led_to_the_login(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    own = f"demo.localhost:{echo_cell.port}"
    led = echo_cell.get("/x?a=b", headers=NAVIGATION, host=own)
    assert (led.status, led.headers["location"]) == (303, "/.mlfleet/login?next=%2Fx%3Fa%3Db")
    form = echo_cell.get(led.headers["location"], host=own)
    assert b'value="/x?a=b"' in form.body
    assert "frame-ancestors 'none'" in form.headers["content-security-policy"]
    evil = echo_cell.get("/.mlfleet/login?next=//evil.example/%22%3E", host=own)
    assert b"evil" not in evil.body
    wrong = echo_cell.request("POST", "/.mlfleet/login", body="token=x", headers=FORM, host=own)
    assert (wrong.status, "set-cookie" in wrong.headers) == (401, False)
    foreign = FORM | {"Origin": "http://evil.example"}
    body = f"token={token}"
    forced = echo_cell.request("POST", "/.mlfleet/login", body=body, headers=foreign, host=own)
    assert forced.status == 403
    assert echo_cell.awake() == []


def test_a_slow_wake_shows_a_page_that_becomes_the_ui(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    root = echo_cell.folder / "artifacts" / "1"
    root.mkdir(parents=True)
    (root / "stuck").touch()
    page = echo_cell.get("/demo/", token, headers=NAVIGATION)
    assert page.status == 200
    assert b"demo is waking" in page.body
    assert b'http-equiv="refresh"' in page.body
    (root / "stuck").unlink()
    [instance] = echo_cell.admin("GET", "/status")["awake"]
    os.kill(instance["pid"], signal.SIGKILL)
    until(lambda: b'"path": "/"' in echo_cell.get("/demo/", token, headers=NAVIGATION).body)
