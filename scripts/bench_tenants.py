#!/usr/bin/env python3
"""Measure the operator with many Tenants: `scripts/bench_tenants.py [N] [--json]`.

Needs KUBECONFIG and a fleet that runs (`kubectl apply -k knative/overlays/…`). Makes N Tenants that
never wake, waits until each is Ready, restarts the operator, and deletes them again. Says how long
each took, what the operator used, and whether a restart wrote anything.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlfleet.cluster.api import PODS, SECRETS, TENANTS, AbsentError, Api, Document

KUBECTL = Path(sys.executable).with_name("kubectl")
PREFIX = "bench-tenant-"
THREADS = 8
POLL_S = 2.0
IDLE_S = 5.0
IDLE_CPU = 0.1
"""Cores below which the operator counts as idle."""
PROCESS = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    arguments = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
    if b"mlfleet.cluster.operator" in arguments and arguments[0].endswith(b"python"):
        ticks = sum(map(int, open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[11:13]))
        status = dict(l.split(":", 1) for l in open(f"/proc/{pid}/status") if ":" in l)
        kib = [int(status[key].split()[0]) for key in ("VmRSS", "VmHWM")]
        print(ticks / os.sysconf("SC_CLK_TCK"), *kib)
"""
"""Prints CPU seconds, resident and peak KiB of the operator; runs inside its pod."""


@dataclasses.dataclass
class Figures:
    """What was measured; seconds and MiB."""

    tenants: int
    created_s: float = 0.0
    all_ready_s: float = 0.0
    ready_cpu_s: float = 0.0
    ready_peak_mib: float = 0.0
    restart_until_idle_s: float = 0.0
    restart_cpu_s: float = 0.0
    restart_peak_mib: float = 0.0
    restart_changed_tenants: int = 0
    restart_changed_secrets: int = 0
    idle_cores: float = 0.0
    deleted_s: float = 0.0


def main() -> int:
    """Measure, print, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tenants", nargs="?", type=int, default=2000)
    parser.add_argument("--limit-s", type=float, default=600.0, help="of each phase")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(Api(), options.tenants, options.limit_s)
    if options.json:
        print(json.dumps(dataclasses.asdict(figures), indent=2))
    else:
        for name, value in dataclasses.asdict(figures).items():
            print(f"{name:26} {value:>10.2f}" if isinstance(value, float) else f"{name:26} {value}")
    return 0


def measure(api: Api, count: int, limit_s: float = 600.0) -> Figures:
    """Return the figures for so many tenants; whatever happens, they are deleted."""
    figures = Figures(count)
    names = [f"{PREFIX}{number:05}" for number in range(count)]
    try:
        _register(api, names, figures, limit_s)
        _restart(api, figures, limit_s)
    finally:
        _delete(api, names, figures, limit_s)
    return figures


def _register(api: Api, names: list[str], figures: Figures, limit_s: float) -> None:
    cpu_s, _, _ = operator(api)
    began = time.monotonic()
    _each(lambda name: api.create(TENANTS, {"kind": "Tenant", "metadata": {"name": name},
                                            "spec": {}}), names)  # fmt: skip
    figures.created_s = time.monotonic() - began
    until(lambda: sum(map(_is_ready, ours(api))) == len(names), limit_s, "all are ready")
    figures.all_ready_s = time.monotonic() - began
    after_s, _, figures.ready_peak_mib = operator(api)
    figures.ready_cpu_s = after_s - cpu_s


def _restart(api: Api, figures: Figures, limit_s: float) -> None:
    _wait_until_idle(api, limit_s)
    tenants, secrets = _versions(ours(api)), _versions(_secrets(api))
    began = time.monotonic()
    for pod in api.list(PODS, labels="app.kubernetes.io/name=operator"):
        api.delete(PODS, pod["metadata"]["name"])
    kubectl(api, "rollout", "status", "deployment/operator", f"--timeout={limit_s:.0f}s")
    cpu_s = _wait_until_idle(api, limit_s)
    figures.restart_until_idle_s = time.monotonic() - began - IDLE_S
    figures.restart_cpu_s = cpu_s
    figures.restart_peak_mib = operator(api)[2]
    before_s = operator(api)[0]
    time.sleep(IDLE_S * 4)
    figures.idle_cores = (operator(api)[0] - before_s) / (IDLE_S * 4)
    figures.restart_changed_tenants = len(tenants ^ _versions(ours(api))) // 2
    figures.restart_changed_secrets = len(secrets ^ _versions(_secrets(api))) // 2


def _delete(api: Api, names: list[str], figures: Figures, limit_s: float) -> None:
    began = time.monotonic()

    def delete(name: str) -> None:
        try:
            api.delete(TENANTS, name)
        except AbsentError:
            return

    _each(delete, names)
    until(lambda: not ours(api), limit_s, "all are gone")
    figures.deleted_s = time.monotonic() - began


def ours(api: Api) -> list[Document]:
    """Return the Tenants of this script."""
    return [one for one in api.list(TENANTS) if one["metadata"]["name"].startswith(PREFIX)]


def operator(api: Api) -> tuple[float, float, float]:
    """Return the operator's CPU seconds so far, its memory and its peak in MiB."""
    said = kubectl(api, "exec", "deployment/operator", "--", "python", "-c", PROCESS)
    cpu_s, now_kib, peak_kib = map(float, said.split())
    return cpu_s, now_kib / 1024, peak_kib / 1024


def kubectl(api: Api, *arguments: str) -> str:
    """Return what kubectl prints."""
    command = [str(KUBECTL), "--namespace", api.namespace, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def until(is_so: Callable[[], bool], limit_s: float, what: str) -> None:
    """Wait for something, or give up."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench_tenants: not within {limit_s:.0f} s: {what}")
        time.sleep(POLL_S)


def _wait_until_idle(api: Api, limit_s: float) -> float:
    """Return the operator's CPU seconds once it uses hardly any more."""
    deadline = time.monotonic() + limit_s
    before_s = operator(api)[0]
    while True:
        time.sleep(IDLE_S)
        now_s = operator(api)[0]
        if now_s - before_s < IDLE_CPU * IDLE_S:
            return now_s
        if time.monotonic() > deadline:
            raise SystemExit(f"bench_tenants: the operator was not idle within {limit_s:.0f} s")
        before_s = now_s


def _secrets(api: Api) -> list[Document]:
    return api.list(SECRETS, labels="mlfleet.dev/tenant")


def _versions(documents: Iterable[Document]) -> set[tuple[str, str]]:
    return {
        (one["metadata"]["name"], one["metadata"]["resourceVersion"])
        for one in documents
        if one["metadata"]["name"].startswith(PREFIX)
    }


def _is_ready(one: Document) -> bool:
    conditions = one.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _each(work: Callable[[str], Any], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(work, names):
            pass


if __name__ == "__main__":
    sys.exit(main())
