"""What the gateway adds to a request: CPU of its process, and time on the client's clock.

CPU is read from /proc over a few seconds of load. Time is the difference of two medians, of the
same call on one connection: through the gateway, and straight to an instance. The call is the
instance's cheapest, so that little else is in the difference.
"""

import socket
import time
import urllib.parse

from benchmarks import client, direct, load, wire
from benchmarks.bench import Bench
from benchmarks.fleet import Fleet
from benchmarks.report import Goal, Row
from benchmarks.wire import Target
from mlfleet.database.access import DatabaseAccess
from mlfleet.load import processes

CONNECTIONS = 8
PATH = "/version"
BLOCK = 200
"""Requests in a turn."""


def measure(bench: Bench, fleet: Fleet) -> list[Row]:
    """Measure CPU on two kinds of calls, then latency in turns."""
    (tenant,) = fleet.create(["forwarded"])
    run_id = client.create_run(tenant)
    rows = []
    calls: dict[str, tuple[wire.Requests, str]] = {
        "log-metric": (wire.log_metric, run_id),
        "experiments/get": (wire.get_experiment, "0"),
    }
    cpu_ms = {
        name: _cpu_ms(fleet, tenant, make, key, bench.effort.seconds)
        for name, (make, key) in calls.items()
    }
    bench.say(f"gateway CPU per request: {cpu_ms}")
    most = max(cpu_ms.values())
    rows.append(
        Row(
            what="gateway: CPU per forwarded request",
            measured=", ".join(f"{value:.2f} ms (`{name}`)" for name, value in cpu_ms.items()),
            reach=Goal("≤ 0.3 ms", most <= 0.3),
            stretch=Goal("≤ 0.15 ms", most <= 0.15),
            figures=cpu_ms,
        )
    )
    rows.append(_latency_row(bench, fleet, tenant))
    return rows


def _cpu_ms(fleet: Fleet, tenant: Target, make: wire.Requests, key: str, seconds: float) -> float:
    gateway = fleet.gateway()
    streams = [make(tenant, key) for _ in range(CONNECTIONS)]
    seen = load.run(tenant.address, streams, seconds, warm_s=0)
    after = processes.read(gateway.pid)
    assert after is not None
    spent_ms = 1000 * (after.cpu_s - gateway.cpu_s)
    return float(round(spent_ms / max(1, sum(seen.statuses.values())), 4))


def _latency_row(bench: Bench, fleet: Fleet, tenant: Target) -> Row:
    postgres = fleet.postgres
    database = postgres.value("SELECT datname FROM pg_database WHERE datname ~ '^mlfleet_template'")
    postgres.create("bench_direct", str(database))
    uri = urllib.parse.urlsplit(postgres.uri("bench_direct"))
    assert uri.hostname and uri.port and uri.username and uri.password
    password = urllib.parse.unquote(uri.password)
    access = DatabaseAccess(uri.hostname, uri.port, "bench_direct", uri.username, password)
    with (
        direct.connected(access, bench.folder / "direct") as straight,
        socket.create_connection(tenant.address) as through,
    ):
        through.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = {
            "through": (through, tenant.request("GET", PATH)),
            "straight": (straight, Target("localhost", 80).request("GET", PATH)),
        }
        for way in ways.values():
            _ask(*way)
        waits: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(4 * bench.effort.rounds):
            for name, way in ways.items():
                waits[name] += _ask(*way)
    p50_ms = {name: 1000 * load.median(values) for name, values in waits.items()}
    added_ms = p50_ms["through"] - p50_ms["straight"]
    bench.say(f"latency: {p50_ms}")
    return Row(
        what="gateway: added latency p50, one connection",
        measured=f"{added_ms:.2f} ms ({p50_ms['through']:.2f} ms through the gateway, "
        f"{p50_ms['straight']:.2f} ms straight to an instance)",
        reach=Goal("≤ 0.5 ms", added_ms <= 0.5),
        figures=p50_ms,
    )


def _ask(connection: socket.socket, request: bytes) -> list[float]:
    """Send the request `BLOCK` times, one after the other, and return the waits."""
    waits = []
    for _ in range(BLOCK):
        started = time.perf_counter()
        connection.sendall(request)
        answer, parsed = b"", None
        while parsed is None:
            if not (data := connection.recv(65536)):
                raise client.BenchError(f"connection closed within an answer to GET {PATH}")
            answer += data
            parsed = load.parse(answer)
        waits.append(time.perf_counter() - started)
        if parsed[0] != 200:
            raise client.BenchError(f"GET {PATH}: {answer[:200]!r}")
    return waits
