"""A person with a browser: the login, a sleeping tenant's UI, a run, its chart and artifacts."""

import json
import os
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing (apt-get install chromium)"),
    # Playwright's own event loop, at its end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

LOG_A_RUN = """
import mlflow
mlflow.set_experiment("browser")
with mlflow.start_run(run_name="seen-in-a-browser") as run:
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    page = "<h1>from the tenant</h1><script>document.title='scripted '+document.cookie</script>"
    mlflow.log_text(page, "page.html")
    mlflow.log_text("plain words", "words.txt")
print(run.info.experiment_id, run.info.run_id)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    yield page
    context.close()


@pytest.fixture(scope="module")
def tenant(fleet: Any) -> dict[str, str]:
    """A tenant with one run, asleep, and where it is."""
    made = fleet.command("tenant", "create", "viewer")
    done = subprocess.run(
        [sys.executable, "-c", LOG_A_RUN],
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"{fleet.url}/viewer",
            "MLFLOW_TRACKING_TOKEN": made["token"],
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    experiment, run = done.stdout.split()[-2:]
    fleet.command("sleep", "viewer")
    port = urllib.parse.urlsplit(fleet.url).port
    return {
        "token": made["token"],
        "host": f"http://viewer.localhost:{port}",
        "path": f"{fleet.url}/viewer",
        "experiment": experiment,
        "run": run,
    }


def screenshot(page: Page, name: str) -> None:
    """Keep a picture when asked to (MLFLEET_SCREENSHOTS names a folder)."""
    if folder := os.environ.get("MLFLEET_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_a_sleeping_tenants_ui_opens_after_a_login(
    page: Page, tenant: dict[str, str], fleet: Any
) -> None:
    page.goto(f"{tenant['host']}/")
    assert "/.mlfleet/login" in page.url
    screenshot(page, "login")
    page.get_by_label("Token").fill("mlf_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not (or no longer) valid")
    page.get_by_label("Token").fill(tenant["token"])
    page.get_by_role("button", name="Log in").click()
    run = f"#/experiments/{tenant['experiment']}/runs/{tenant['run']}"
    page.goto(f"{tenant['host']}/{run}")
    expect(page.get_by_text("seen-in-a-browser").first).to_be_visible()
    screenshot(page, "run")
    page.goto(f"{tenant['host']}/{run}/model-metrics")
    expect(page.locator(".js-plotly-plot, svg.main-svg").first).to_be_visible()
    screenshot(page, "chart")
    page.goto(f"{tenant['host']}/{run}/artifacts")
    page.get_by_text("words.txt").first.click()
    expect(page.get_by_text("plain words")).to_be_visible()
    page.get_by_text("page.html").first.click()
    frame = page.frame_locator("iframe").first
    expect(frame.get_by_role("heading", name="from the tenant")).to_be_visible()
    screenshot(page, "artifact")
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["domain"]) == (
        True,
        "Lax",
        "viewer.localhost",
    )
    page.evaluate("fetch('/.mlfleet/logout', {method: 'POST'})")
    page.goto(f"{tenant['host']}/")
    assert "/.mlfleet/login" in page.url


def test_under_a_path_the_browser_asks_for_the_token_as_password(
    browser: Browser, tenant: dict[str, str]
) -> None:
    credentials = {"username": "any", "password": tenant["token"]}
    context = browser.new_context(http_credentials=credentials)
    page = context.new_page()
    page.goto(f"{tenant['path']}#/experiments/{tenant['experiment']}/runs/{tenant['run']}")
    expect(page.get_by_text("seen-in-a-browser").first).to_be_visible(timeout=30_000)
    assert context.cookies() == []
    context.close()


def test_a_page_of_another_tenant_cannot_use_the_session(
    page: Page, tenant: dict[str, str], fleet: Any
) -> None:
    page.goto(f"{tenant['host']}/.mlfleet/login")
    page.get_by_label("Token").fill(tenant["token"])
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_title("MLflow")
    page.goto("about:blank")
    page.set_content(
        f"""<form method="post" enctype="text/plain" target="_self"
        action="{tenant["host"]}/ajax-api/2.0/mlflow/experiments/create">
        <input name='{{"name": "forged", "x": "' value='"}}'><button>Win a prize</button></form>"""
    )
    page.get_by_role("button").click()
    # SameSite: the cookie did not even come along. Foreign origins are refused besides.
    expect(page.get_by_text("This tenant needs a token")).to_be_visible()
    names = fleet.call("viewer", tenant["token"], "experiments/search", {"max_results": 100})[1]
    assert "forged" not in json.dumps(names)
    assert "browser" in json.dumps(names)
