"""One large artifact up and down through the proxy: how much each process of the fleet grows.

Growth is the kernel's peak of resident memory (VmHWM, counted anew before each transfer) less the
resident memory before. A small transfer goes first, so that code which is loaded at first use is
not taken for growth.
"""

import http.client
import time
import zlib
from collections.abc import Callable, Iterator

from benchmarks import client
from benchmarks.bench import Bench
from benchmarks.fleet import Fleet
from benchmarks.report import Goal, Row
from benchmarks.wire import Target
from mlfleet.load import processes
from mlfleet.load.processes import MIB

_BLOCK = bytes(range(256)) * 4096
"""1 MiB."""
_PATH = "/api/2.0/mlflow-artifacts/artifacts/0/bench"
ALLOWED_MIB = 50


def measure(bench: Bench, fleet: Fleet) -> list[Row]:
    """Send and fetch the artifact and read every process of the fleet."""
    (tenant,) = fleet.create(["artifacts"])
    client.create_run(tenant)
    _upload(tenant, "small", 4)
    _download(tenant, "small")
    size = bench.effort.artifact_mib
    expected = _checksum(_blocks(size))
    up_s, up = _growth(fleet, lambda: _upload(tenant, "large", size))
    sums: list[tuple[int, int]] = []
    down_s, down = _growth(fleet, lambda: sums.append(_download(tenant, "large")))
    is_whole = sums == [(size * MIB, expected)]
    most_up, most_down = max(up.values()), max(down.values())
    bench.say(f"artifact: up {up_s:.1f} s {up}, down {down_s:.1f} s {down}, whole {is_whole}")
    return [
        Row(
            what=f"{size} MiB artifact up and down: growth of any process",
            measured=f"up {most_up:.0f} MiB ({size / up_s:.0f} MiB/s), down {most_down:.0f} MiB "
            f"({size / down_s:.0f} MiB/s), {'bytes equal' if is_whole else 'BYTES DIFFER'}",
            reach=Goal(
                f"≤ {ALLOWED_MIB} MiB, 2 GiB",
                None
                if size < 2048 and is_whole
                else is_whole and max(most_up, most_down) <= ALLOWED_MIB,
            ),
            figures={"up_s": up_s, "down_s": down_s, "up_growth_mib": up, "down_growth_mib": down},
        )
    ]


def _growth(fleet: Fleet, act: Callable[[], None]) -> tuple[float, dict[str, float]]:
    """Return the seconds of a transfer, and the growth in MiB of each process, by role."""
    roles = fleet.roles()
    before = {}
    for process in roles:
        processes.reset_peak(process.pid)
        before[process] = processes.resident_bytes(process.pid)
    started = time.perf_counter()
    act()
    seconds = time.perf_counter() - started
    grown: dict[str, float] = {}
    for process, role in roles.items():
        growth = (processes.peak_bytes(process.pid) - before[process]) / MIB
        grown[role] = round(max(growth, grown.get(role, 0.0)), 1)
    return seconds, grown


def _blocks(mib: int) -> Iterator[bytes]:
    """Yield blocks of 1 MiB, no two alike."""
    for number in range(mib):
        yield number.to_bytes(8, "big") + _BLOCK[8:]


def _checksum(blocks: Iterator[bytes]) -> int:
    total = 0
    for block in blocks:
        total = zlib.crc32(block, total)
    return total


def _upload(tenant: Target, name: str, mib: int) -> None:
    connection = http.client.HTTPConnection(*tenant.address, timeout=600)
    headers = {"Authorization": f"Bearer {tenant.token}", "Content-Length": str(mib * MIB)}
    connection.request("PUT", f"{tenant.prefix}{_PATH}/{name}", _blocks(mib), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        raise client.BenchError(f"upload of {mib} MiB: {answer.status} {text[:300]!r}")


def _download(tenant: Target, name: str) -> tuple[int, int]:
    """Return size and checksum of what came."""
    connection = http.client.HTTPConnection(*tenant.address, timeout=600)
    headers = {"Authorization": f"Bearer {tenant.token}"}
    connection.request("GET", f"{tenant.prefix}{_PATH}/{name}", headers=headers)
    answer = connection.getresponse()
    size, total = 0, 0
    while block := answer.read(MIB):
        size, total = size + len(block), zlib.crc32(block, total)
    connection.close()
    if answer.status != 200:
        raise client.BenchError(f"download: {answer.status} after {size} bytes")
    return size, total
