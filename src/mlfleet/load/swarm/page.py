"""The fleet in Locust's own page, live: a tab with figures, and charts at /fleet.

Locust's documented ways: `extended_tabs` and `extended_tables` in the arguments of its template,
`extended_stats` in the answer that its page asks for every two seconds, a blueprint of routes, and
the events by which workers report to their master.
"""

import json
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any

import flask
import gevent  # type: ignore[import-untyped]
from locust.runners import MasterRunner, WorkerRunner

from mlfleet.load import units
from mlfleet.load.live import POINT_S, Live
from mlfleet.load.requests import Line, Recorder
from mlfleet.load.roles import ROLES

KEY = "mlfleet"
LAG_S = 3
"""Workers report every three seconds."""


def install(environment: Any, recorder: Recorder | None) -> Live:
    """Let a process tell what it sees, and the page of the master show it.

    Call it once in each process, in Locust's `init` event; `Live.begin` when a run starts.

    Args:
        environment: of this process.
        recorder: of this process; None in a master, which has no users.

    Returns:
        what is known of the run now; in a worker of nothing but its own part.
    """
    runner = environment.runner
    live = Live(LAG_S if isinstance(runner, MasterRunner) else 0)
    if recorder is not None:
        recorder.subscribe(live.take)
    if isinstance(runner, WorkerRunner) and recorder is not None:
        _report(environment, recorder)
    elif isinstance(runner, MasterRunner):
        environment.events.worker_report.add_listener(_taking(live))
    if environment.web_ui:
        _extend(environment.web_ui, live, environment)
    return live


def _report(environment: Any, recorder: Recorder) -> None:
    """Send each line to the master once, with the worker's next report."""
    waiting: list[Line] = []

    def report(data: dict[str, Any], **_: Any) -> None:
        data[KEY] = waiting[:]
        waiting.clear()

    recorder.subscribe(waiting.extend)
    environment.events.report_to_master.add_listener(report)


def _taking(live: Live) -> Callable[..., None]:
    def take(data: dict[str, Any], **_: Any) -> None:
        live.take(data.get(KEY, ()))

    return take


def _extend(web_ui: Any, live: Live, environment: Any) -> None:
    web_ui.template_args |= {
        "extended_tabs": [{"title": "Fleet", "key": KEY}],
        "extended_tables": [
            {
                "key": KEY,
                "structure": [
                    {"key": "figure", "title": "Figure"},
                    {"key": "now", "title": "Now"},
                    {"key": "more", "title": "More"},
                ],
            }
        ],
        "extended_csv_files": [{"href": "./fleet", "title": "Fleet: charts of this run, live"}],
    }

    def extend_stats(response: flask.Response) -> flask.Response:
        # Locust remembers its answer for two seconds: what was added to it is replaced.
        if flask.request.endpoint == "locust.request_stats" and response.is_json:
            stats = {"extended_stats": [{"key": KEY, "data": list(rows(live.document()))}]}
            response.set_data(json.dumps({**(response.get_json() or {}), **stats}))
        return response

    web_ui.app.after_request(extend_stats)
    web_ui.app.register_blueprint(_routes(web_ui, live), url_prefix=_base_path(environment))
    gevent.spawn(_note_points, live, environment)


def _base_path(environment: Any) -> str | None:
    path: str | None = getattr(environment.parsed_options, "web_base_path", None)
    return path or None


def _note_points(live: Live, environment: Any) -> None:
    while True:
        gevent.sleep(POINT_S)
        if environment.runner.state in ("running", "spawning", "stopping"):
            live.point()


def _routes(web_ui: Any, live: Live) -> flask.Blueprint:
    routes = flask.Blueprint(KEY, __name__)

    @routes.route("/fleet")
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def page() -> str:
        return resources.files("mlfleet.load.swarm").joinpath("fleet.html").read_text()

    @routes.route("/fleet/data")
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def data() -> flask.Response:
        return flask.jsonify(live.document())

    return routes


def rows(document: dict[str, Any]) -> Iterable[dict[str, str]]:
    """Return the table of Locust's tab, of what `Live.document` returns."""
    if not document["points"]:
        yield _row("no run yet", "-", "charts are at /fleet")
        return
    now = document["points"][-1]
    missed = ", ".join(document["missed"]) or "none"
    yield _row("limits exceeded", missed, "--max-p99, --max-errors")
    yield _row("answered", units.rate(now["rate"]), f"{units.count(now['failed'])} failed so far")
    for word in ("warm", "cold"):
        p50 = units.latency(now[f"{word}_p50_s"])
        yield _row(f"{word} p99", units.latency(now[f"{word}_p99_s"]), f"p50 {p50}, last 5 s")
    held = units.count(now["held"])
    yield _row("awake instances", units.count(now["awake"]), f"{held} requests held for a wake")
    yield _row("wakes", units.count(now["wakes"]), "since the gateway started")
    yield _row("machine", units.share(now["busy"]), "of all cores")
    for role in ROLES:
        if role in now["cpu"] or role in now["memory"]:
            memory = f"{units.size(now['memory'].get(role))} of memory"
            yield _row(role, units.cores(now["cpu"].get(role)), memory)
    yield _row("Postgres connections", units.count(now["connections"]), "charts are at /fleet")


def _row(figure: str, now: str, more: str) -> dict[str, str]:
    return {"figure": figure, "now": now, "more": more}
