"""One run: set up, measure, write the page, clean up."""

import argparse
import contextlib
import dataclasses
import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster_bench import figures, fleet, memory, stock
from cluster_bench.figures import ColdStart, Figures, Memory
from cluster_bench.fleet import NAMESPACE, Target
from cluster_bench.kube import BenchError, Cluster, Document
from mlfleet.cluster.cells import FIRST

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks-cluster.md"
MEASURE_S, CLEAN_S = 660.0, 60.0
NAME = "app.kubernetes.io/name"
LONG_WINDOW, SHORT_WINDOW = "60s", "6s"
SETTLE_S = 3.0
"""Between "at zero" and the next cold start, for what ends in the background."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much a run tries."""

    tenants: int
    cold_starts: int
    stock_starts: int


FULL = Effort(figures.TENANTS, 5, 3)
QUICK = Effort(6, 1, 1)
"""Only to see whether everything works: what it prints says nothing."""


class Run:
    """The objects of one run, named after its time so that runs never meet."""

    def __init__(self, cluster: Cluster, effort: Effort) -> None:
        self.effort = effort
        self.failures: list[str] = []
        stamp = time.strftime("%H%M%S")
        self.cluster = cluster
        self.cell = f"cell-b{stamp}"
        self.tenant_prefix = f"bench-{stamp}"
        self.stock_namespace = f"mlfleet-bench-{stamp}"

    def measure(self) -> Figures:
        """Set everything up and measure it, the fleet first."""
        say("setting up: overlay, a cell, tenants, stock servers")
        fleet.ensure(self.cluster)
        tenants = self._make_cell()
        servers = self._make_stock([stock.DEFAULTS, stock.ONE_WORKER])
        fleet.write_all([*tenants, *servers.values()])
        url = self.cluster.url(NAMESPACE, self.cell)
        self._wait_for_zero(cells=(FIRST,))
        # Last, because the question keeps the cell up, or starts it again.
        self.cluster.until("all tenants sleep", lambda: fleet.awake(url) == 0, 120)
        say("memory of our parts, cell asleep")
        plane_asleep = self._memory(self._parts())
        say(f"waking {len(tenants)} tenants of a running cell")
        warm = [tenant.first_write() for tenant in tenants]
        say(f"median {statistics.median(warm) * 1000:.0f} ms")
        awake, cell_awake = fleet.awake(url), self._memory(self._cell_pods())
        self.cluster.apply(fleet.cell(self.cluster, self.cell, figures.TENANTS, SHORT_WINDOW))
        self._wait_ready(NAMESPACE, self.cell)
        self._wait_for_zero()
        say("memory of our parts, cell at zero")
        parts = self._parts()
        plane_at_zero = self._memory(parts)
        return Figures(
            cold=list(self._cold_starts(tenants[0])),
            stock_defaults_s=list(self._stock_starts(servers, stock.DEFAULTS)),
            stock_one_worker_s=list(self._stock_starts(servers, stock.ONE_WORKER)),
            warm_s=warm,
            awake=awake,
            cell_awake=cell_awake,
            stock=list(self._stock_memory()),
            parts=sorted(name_of(pod) for pod in parts),
            plane_at_zero=plane_at_zero,
            plane_asleep=plane_asleep,
            failures=self.failures,
        )

    def clean(self) -> None:
        """Remove what this and broken earlier runs made; pods end in the background."""
        kubectl = self.cluster.kubectl
        label = f"{fleet.LABEL}=true"
        kubectl("delete", "namespace", "-l", label, "--wait=false")
        kubectl("-n", NAMESPACE, "delete", "tenant", "-l", label, "--wait=false")
        kubectl("-n", NAMESPACE, "delete", "ksvc", "-l", label, "--wait=false")

    # The fleet.

    def _make_cell(self) -> list[Target]:
        self.cluster.apply(fleet.cell(self.cluster, self.cell, figures.TENANTS, LONG_WINDOW))
        self._wait_ready(NAMESPACE, self.cell)
        count = self.effort.tenants
        return fleet.make_tenants(self.cluster, self.tenant_prefix, self.cell, count)

    def _cell_pods(self) -> list[Document]:
        return self.cluster.pods(NAMESPACE, self.cell)

    def _cold_starts(self, tenant: Target) -> Iterator[ColdStart]:
        for _ in times(self.effort.cold_starts, "cold start of the cell"):
            self._wait_for_zero()
            sent = time.time()
            total_s = tenant.first_write()
            pod = max(self._cell_pods(), key=lambda one: one["metadata"]["creationTimestamp"])
            stamps = fleet.stamps(self.cluster, pod["metadata"]["name"])
            listening, ready = (
                datetime.datetime.fromisoformat(stamps[event]).timestamp()
                for event in ("listening", "ready")
            )
            start = ColdStart(listening - sent, ready - listening, total_s - (ready - sent))
            say(f"{total_s:.2f} s: {start}")
            yield start

    def _parts(self) -> list[Document]:
        """Return all our pods: Postgres, operator and the like, and the cell's if there is one."""
        pods = self.cluster.get("-n", NAMESPACE, "pods", "--field-selector=status.phase=Running")
        return [pod for pod in pods["items"] if "deletionTimestamp" not in pod["metadata"]]

    # The stock server.

    def _make_stock(self, names: Sequence[str]) -> dict[str, Target]:
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.stock_namespace, "labels": {fleet.LABEL: "true"}},
        }
        documents = [one for name in names for one in stock.documents(self.stock_namespace, name)]
        self.cluster.apply(namespace, *documents)
        for name in names:
            self._wait_ready(self.stock_namespace, name)
        return {name: Target(self.cluster.url(self.stock_namespace, name)) for name in names}

    def _stock_starts(self, servers: dict[str, Target], name: str) -> Iterator[float]:
        with self._may_fail(f"cold starts of {name}"):
            for _ in times(self.effort.stock_starts, f"cold start of {name}"):
                self._wait_for_zero()
                took_s = servers[name].first_write()
                say(f"{took_s:.2f} s")
                yield took_s

    def _stock_memory(self) -> Iterator[Memory]:
        say("memory of three stock servers")
        with self._may_fail("memory of three stock servers"):
            fleet.write_all(list(self._make_stock(stock.COPIES).values()))
            for name in stock.COPIES:
                yield self._memory(self.cluster.pods(self.stock_namespace, name))

    @contextlib.contextmanager
    def _may_fail(self, what: str) -> Iterator[None]:
        """Keep what was measured before when a part about stock servers fails; the page says so."""
        try:
            yield
        except BenchError as exc:
            say(f"{what}: {exc}")
            self.failures.append(f"{what}: {exc}")

    # Both.

    def _memory(self, pods: list[Document]) -> Memory:
        if not pods:
            raise BenchError("a pod whose memory was to be measured is gone")
        used = memory.used_bytes(self.cluster, pods)
        return Memory(used / 2**20, sum(map(memory.requested_bytes, pods)) / 2**20)

    def _wait_ready(self, namespace: str, name: str) -> None:
        is_ready = self.cluster.service_is_ready
        self.cluster.until(f"{name} is ready", lambda: is_ready(namespace, name), 180)

    def _wait_for_zero(self, cells: Sequence[str] | None = None) -> None:
        """Wait until no stock server and no cell (or none of these) has a pod that serves."""
        named = (self.cell, FIRST) if cells is None else cells
        services = [(self.stock_namespace, name) for name in (stock.DEFAULTS, stock.ONE_WORKER)]
        for namespace, name in [*services, *((NAMESPACE, cell) for cell in named)]:
            self._wait_for_no_pod(namespace, name)
        time.sleep(SETTLE_S)

    def _wait_for_no_pod(self, namespace: str, name: str) -> None:
        pods = self.cluster.pods
        self.cluster.until(f"{name} is at zero", lambda: not pods(namespace, name), 180)


def name_of(pod: Document) -> str:
    """Return what a pod is, without the letters that make its name unique."""
    name: str = pod["metadata"].get("labels", {}).get(NAME, pod["metadata"]["name"])
    return name


def say(what: str) -> None:
    """Tell a person who waits what happens now."""
    print(f"bench-cluster: {time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def times(count: int, what: str) -> Iterator[int]:
    """Count, aloud."""
    for number in range(count):
        say(f"{what}, {number + 1} of {count}")
        yield number


def check(cluster: Cluster) -> None:
    """Raise unless the node has what the run needs."""
    nodes = cluster.get("nodes")["items"]
    images = [image for node in nodes for image in node["status"].get("images", [])]
    names = [name for image in images for name in image.get("names") or []]
    if len(nodes) != 1 or not any(stock.IMAGE in name for name in names):
        raise BenchError(
            f"needs one node with the image {stock.IMAGE} "
            "(scripts/cluster_bench/stock.Dockerfile says how it is built)"
        )


def machine(load_before: float) -> list[str]:
    """Return what has to be known about where and when this was measured."""
    cpu = next(
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    after = os.getloadavg()[0]
    return [
        f"date: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, commit {commit}",
        f"machine: {os.cpu_count()} cores, {cpu}, {memory_gib:.1f} GiB, Linux {platform.release()}",
        f"load average (1 min): {load_before:.1f} before, {after:.1f} after; the run itself makes "
        "about 2 of it",
    ]


def main() -> int:
    """Measure and write; 1 with one line on standard error if that failed."""
    parser = argparse.ArgumentParser(prog="bench-cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try everything once, write nothing")
    is_quick = parser.parse_args().quick
    if not os.environ.get("KUBECONFIG"):
        print("bench-cluster: set KUBECONFIG to a cluster with Knative", file=sys.stderr)
        return 2
    load_before = os.getloadavg()[0]
    cluster = Cluster(MEASURE_S)
    run = Run(cluster, QUICK if is_quick else FULL)
    try:
        check(cluster)
        with cleaning(run):
            page = figures.markdown(run.measure(), machine(load_before))
    except BenchError as exc:
        print(f"bench-cluster: {exc}", file=sys.stderr)
        return 1
    if not is_quick:
        PAGE.write_text(page)
    print(page)
    return 1 if run.failures else 0


@contextlib.contextmanager
def cleaning(run: Run) -> Iterator[None]:
    """Clean up after a run, however it ends."""
    try:
        yield
    finally:
        run.cluster.deadline = time.monotonic() + CLEAN_S
        say("cleaning up")
        run.clean()
