"""A person with a browser: the login, a sleeping tenant's UI, a run, its chart and artifacts.

`MLFLEET_SCREENSHOTS=folder` keeps a picture of each page (docs/pictures came from there).
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.parse
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mlfleet.runtime import cell_admin
from mlfleet.runtime.folder import DataFolder

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing (apt-get install chromium)"),
    # Playwright's own event loop, at its end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

EXPECTED_TROUBLE = (
    "/ajax-api/2.0/mlflow/users/current",  # stock without its login plug-in has no users either
    "/ajax-api/3.0/mlflow/assistant/",  # not mounted: it runs shell commands
    "/favicon.ico",  # stock has none at the root either
    "https://mlflow.org/",  # films in the UI's own introductions; nothing here needs the network
)
"""Addresses whose failure may appear in the browser's console."""

STEPS = 40

LOG_A_RUN = f"""
import mlflow, numpy as np
from mlflow import MlflowClient
mlflow.set_experiment("browser")
with mlflow.start_run(run_name="seen-in-a-browser") as run:
    mlflow.log_params({{"depth": 6, "rate": 0.1, "optimizer": "adam"}})
    for step in range({STEPS}):
        mlflow.log_metric("loss", 2 * 0.9**step + 0.1 * (step % 3), step=step)
    mlflow.log_text("<h1>from the tenant</h1>", "page.html")
    mlflow.log_text("plain words", "words.txt")
    x, y = np.mgrid[0:240, 0:240]
    waves = np.sin(x / 18) * np.cos(y / 25)
    rgb = np.stack([waves, waves.T, -waves], axis=2) * 100 + 128
    mlflow.log_image(rgb.astype(np.uint8), "waves.png")
    with mlflow.start_span("answer") as span:
        span.set_inputs({{"question": "how deep?"}})
        span.set_outputs({{"depth": 6}})
mlflow.flush_trace_async_logging()
client = MlflowClient()
client.create_registered_model("house-prices")
client.create_model_version("house-prices", f"{{run.info.artifact_uri}}/model", run.info.run_id)
print(run.info.experiment_id, run.info.run_id)
"""

EVIL = """<!doctype html><title>harmless</title><h1>from the tenant</h1><script>
document.title = 'ran';
fetch('ajax-api/2.0/mlflow/experiments/create', {method: 'POST', credentials: 'include',
  headers: {'Content-Type': 'application/json'}, body: '{"name": "stolen"}'})
  .then(answer => { document.title = 'answered ' + answer.status });
</script>"""


@dataclasses.dataclass(frozen=True)
class Seen:
    """A tenant with one run, and where it is."""

    token: str
    host: str
    path: str
    experiment: str
    run: str

    @property
    def run_page(self) -> str:
        return f"#/experiments/{self.experiment}/runs/{self.run}"

    @property
    def evil(self) -> str:
        return f"get-artifact?path=evil.html&run_uuid={self.run}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@contextlib.contextmanager
def new_page(browser: Browser, *expected: str, **options: Any) -> Iterator[Page]:
    """Open a page of an empty profile; at its end its console must have been quiet."""
    trouble: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
    page = context.new_page()
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)

    def note(where: str, what: str) -> None:
        if not any(known in where for known in (*EXPECTED_TROUBLE, *expected)):
            trouble.append(f"{what} ({where})")

    page.on("console", lambda m: m.type == "error" and note(m.location["url"], m.text))
    page.on("pageerror", lambda error: note("script", str(error)))
    yield page
    context.close()
    # Refusals that a test asked for are shown in the console too.
    assert [line for line in trouble if "status of 401" not in line] == []


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with new_page(browser) as page:
        yield page


@pytest.fixture(scope="module")
def tenant(fleet: Any) -> Seen:
    """A tenant with one run, asleep."""
    made = fleet.command("tenant", "create", "viewer")
    variables = {
        "MLFLOW_TRACKING_URI": f"{fleet.url}/viewer",
        "MLFLOW_TRACKING_TOKEN": made["token"],
    }
    done = subprocess.run(
        [sys.executable, "-c", LOG_A_RUN],
        env=os.environ | variables,
        capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    experiment, run = done.stdout.split()[-2:]
    fleet.command("sleep", "viewer")
    port = urllib.parse.urlsplit(fleet.url).port
    host = f"http://viewer.localhost:{port}"
    return Seen(made["token"], host, f"{fleet.url}/viewer", experiment, run)


def screenshot(page: Page, name: str) -> None:
    """Keep a picture when asked to, small enough for a repository."""
    if folder := os.environ.get("MLFLEET_SCREENSHOTS"):
        path = Path(folder) / f"{name}.png"
        page.mouse.move(0, 0)
        page.screenshot(path=path)
        with Image.open(path) as picture:
            colours = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        colours.save(path, optimize=True)


def log_in(page: Page, token: str) -> None:
    """Fill in the login form that is open."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def in_the_ui(page: Page, tenant: Seen) -> None:
    """Open a tenant's UI with its token."""
    page.goto(f"{tenant.host}/.mlfleet/login")
    log_in(page, tenant.token)
    expect(page.get_by_text("Recent Experiments")).to_be_visible()


def test_a_sleeping_tenants_ui_opens_after_a_login(page: Page, tenant: Seen, fleet: Any) -> None:
    fleet.command("sleep", "viewer")
    page.goto(f"{tenant.host}/")
    assert "/.mlfleet/login" in page.url
    screenshot(page, "login")
    log_in(page, "mlf_wrong")
    expect(page.get_by_role("alert")).to_contain_text("not (or no longer) valid")
    screenshot(page, "login-refused")
    log_in(page, tenant.token)
    expect(page.get_by_text("Recent Experiments")).to_be_visible()
    expect(page.get_by_role("link", name="browser", exact=True)).to_be_visible()
    [cookie] = page.context.cookies()
    seen = cookie["httpOnly"], cookie["sameSite"], cookie["domain"]
    assert seen == (True, "Lax", "viewer.localhost")


def test_a_run_shows_its_parameters_and_its_chart(page: Page, tenant: Seen) -> None:
    in_the_ui(page, tenant)
    page.goto(f"{tenant.host}/{tenant.run_page}")
    expect(page.get_by_text("seen-in-a-browser").first).to_be_visible()
    expect(page.get_by_text("optimizer")).to_be_visible()
    screenshot(page, "run")
    page.goto(f"{tenant.host}/{tenant.run_page}/model-metrics")
    line = page.locator(".js-plotly-plot .scatterlayer path.js-line").first
    expect(line).to_be_visible()
    # As many corners as the metric has steps: the chart is of these values, not a frame.
    assert (line.get_attribute("d") or "").count("L") > STEPS // 2
    screenshot(page, "chart")


def test_text_image_and_page_are_previewed(page: Page, tenant: Seen) -> None:
    in_the_ui(page, tenant)
    page.goto(f"{tenant.host}/{tenant.run_page}/artifacts")
    page.get_by_text("words.txt").first.click()
    expect(page.get_by_text("plain words")).to_be_visible()
    page.get_by_text("page.html").first.click()
    frame = page.frame_locator("iframe").first
    expect(frame.get_by_role("heading", name="from the tenant")).to_be_visible()
    page.get_by_text("waves.png").first.click()
    page.wait_for_function("[...document.images].some(one => one.naturalWidth === 240)")
    screenshot(page, "artifact")


def test_the_registry_and_the_traces_are_shown(page: Page, tenant: Seen) -> None:
    in_the_ui(page, tenant)
    page.goto(f"{tenant.host}/#/models/house-prices")
    expect(page.get_by_role("link", name="Version 1")).to_be_visible()
    screenshot(page, "model")
    page.goto(f"{tenant.host}/#/experiments/{tenant.experiment}/traces")
    with contextlib.suppress(Exception):
        page.get_by_role("button", name="Got it").click(timeout=4_000)
    expect(page.get_by_text("how deep?").first).to_be_visible()
    screenshot(page, "traces")


def test_a_session_ends_with_a_logout_and_with_its_token(
    page: Page, tenant: Seen, fleet: Any
) -> None:
    in_the_ui(page, tenant)
    page.goto(f"{tenant.host}/.mlfleet/logout")
    screenshot(page, "logout")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.goto(f"{tenant.host}/")
    expect(page.get_by_label("Token")).to_be_visible()
    # A token that is younger than the gateway's cache is taken at once.
    made = fleet.command("token", "create", "viewer", "guest")
    log_in(page, made["token"])
    expect(page.get_by_text("Recent Experiments")).to_be_visible()
    page.goto("about:blank")  # or the open UI fills the console with refusals
    fleet.command("token", "revoke", "viewer", "guest")

    page.wait_for_timeout(5_000)  # the promise: within 5 s
    page.goto(f"{tenant.host}/")
    expect(page.get_by_label("Token")).to_be_visible()


def test_a_slow_wake_shows_a_page_that_becomes_the_ui(page: Page, tenant: Seen, fleet: Any) -> None:
    in_the_ui(page, tenant)
    page.goto("about:blank")
    fleet.command("sleep", "viewer")
    zygote = cell_admin_status(fleet)["zygote_pid"]
    os.kill(zygote, signal.SIGSTOP)
    goes_on = threading.Timer(3.0, os.kill, (zygote, signal.SIGCONT))
    goes_on.start()
    try:
        page.goto(f"{tenant.host}/")
        expect(page.get_by_role("heading", name="viewer is waking")).to_be_visible()
        screenshot(page, "waiting")
        expect(page.get_by_text("Recent Experiments")).to_be_visible()
    finally:
        goes_on.join()


def cell_admin_status(fleet: Any) -> dict[str, Any]:
    """Return what the cell says of itself."""
    cells = json.loads(DataFolder(fleet.data).fleet_file.read_text())["cells"]
    [(name, cell)] = cells.items()
    return cell_admin.CellAdmin(name, cell).status()


def test_under_a_path_the_token_is_the_password(browser: Browser, tenant: Seen) -> None:
    credentials = {"username": "any", "password": tenant.token}
    with new_page(browser, http_credentials=credentials) as page:
        page.goto(f"{tenant.path}/{tenant.run_page}")
        expect(page.get_by_text("seen-in-a-browser").first).to_be_visible()
        assert page.context.cookies() == []


@pytest.mark.parametrize("place", ["host", "path"])
def test_an_uploaded_page_cannot_run_as_the_site(
    browser: Browser, tenant: Seen, fleet: Any, place: str
) -> None:
    put_evil(tenant)
    credentials = {"username": "any", "password": tenant.token} if place == "path" else None
    expected = ("/get-artifact?path=evil.html", "/experiments/create")
    with new_page(browser, *expected, http_credentials=credentials) as page:
        if place == "host":
            in_the_ui(page, tenant)
        address = f"{getattr(tenant, place)}/{tenant.evil}"
        # Stock's "attachment" is the first fence; it is taken down here to try the second.
        assert open_uploaded(page, address, without={"content-disposition"}) == "harmless"
        # And without the second, the page does run: this test can fail.
        both = {"content-disposition", "content-security-policy"}
        assert open_uploaded(page, address, without=both).startswith(("ran", "answered"))


def put_evil(tenant: Seen) -> None:
    """Upload a page that wants to act as whoever looks at it."""
    code = f"import mlflow; mlflow.MlflowClient().log_text({tenant.run!r}, {EVIL!r}, 'evil.html')"
    variables = {"MLFLOW_TRACKING_URI": tenant.path, "MLFLOW_TRACKING_TOKEN": tenant.token}
    subprocess.run([sys.executable, "-c", code], env=os.environ | variables, check=True, timeout=90)


def open_uploaded(page: Page, address: str, without: set[str]) -> str:
    """Open an address, less some headers of its answer; return the title it ends with."""

    devtools = page.context.new_cdp_session(page)

    def strip(paused: dict[str, Any]) -> None:
        headers = [h for h in paused["responseHeaders"] if h["name"].lower() not in without]
        request = {"requestId": paused["requestId"]}
        body = devtools.send("Fetch.getResponseBody", request)
        content = (
            body["body"] if body["base64Encoded"] else b64encode(body["body"].encode()).decode()
        )
        answer = {"responseCode": paused["responseStatusCode"], "responseHeaders": headers}
        # Not continueResponse: by then the browser has read the policy from the true headers.
        devtools.send("Fetch.fulfillRequest", {**request, **answer, "body": content})

    devtools.on("Fetch.requestPaused", strip)
    pattern = {"urlPattern": "*/get-artifact*", "requestStage": "Response"}
    devtools.send("Fetch.enable", {"patterns": [pattern]})
    # A name of its own, or the browser would take the headers from its cache.
    page.goto(f"{address}&without={len(without)}")
    expect(page.get_by_role("heading", name="from the tenant")).to_be_visible()
    page.wait_for_timeout(300)  # for what must not happen
    title = page.title()
    devtools.detach()
    return title


def test_errors_are_pages_with_a_sentence(browser: Browser, tenant: Seen, fleet: Any) -> None:
    for scheme in ("light", "dark"):
        with new_page(browser, color_scheme=scheme) as page:
            page.goto(fleet.url)
            expect(page.get_by_role("heading", name="mlfleet")).to_be_visible()
            screenshot(page, f"front-{scheme}")
            # A browser without a window gives up at a Basic challenge, so it is asked for here.
            answer = page.request.get(f"{tenant.path}/", headers={"Accept": "text/html"})
            assert answer.status == 401
            page.set_content(answer.text())
            expect(page.get_by_role("heading", name="A token is needed")).to_be_visible()
            screenshot(page, f"no-token-{scheme}")
            page.goto(f"{tenant.host}/")
            screenshot(page, f"login-{scheme}")
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        missing = page.goto(f"{fleet.url}/nobody/")
        assert missing is not None and missing.status == 404
        expect(page.get_by_text("mlfleet tenant create nobody")).to_be_visible()
        screenshot(page, "unknown-tenant")


def test_a_page_of_another_tenant_cannot_use_the_session(
    page: Page, tenant: Seen, fleet: Any
) -> None:
    in_the_ui(page, tenant)
    page.goto("about:blank")
    page.set_content(
        f"""<form method="post" enctype="text/plain" target="_self"
        action="{tenant.host}/ajax-api/2.0/mlflow/experiments/create">
        <input name='{{"name": "forged", "x": "' value='"}}'><button>Win a prize</button></form>"""
    )
    page.get_by_role("button").click()
    # SameSite: the cookie did not even come along. Foreign origins are refused besides.
    expect(page.get_by_text("This tenant needs a token")).to_be_visible()
    names = fleet.call("viewer", tenant.token, "experiments/search", {"max_results": 100})[1]
    assert "forged" not in json.dumps(names)
    assert "browser" in json.dumps(names)
