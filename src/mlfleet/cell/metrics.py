"""What a cell tells Prometheus. Label sets are bounded: no tenant is ever a label."""

from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

WAKE_BUCKETS_S = (0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100)

# One line less per series; Prometheus' text format has no use for the time of creation.
disable_created_metrics()  # type: ignore[no-untyped-call]

STATES = ("registered", "ready", "upgrading", "deleting")


class Metrics:
    """The counters of one gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.wakes = self._counter("wakes", "Instances woken.")
        self.wake_failures = self._counter("wake_failures", "Wakes that came to nothing.")
        self.wake_seconds = Histogram(
            "mlfleet_wake_seconds",
            "From the wish to wake to the instance's ready message.",
            buckets=WAKE_BUCKETS_S,
            registry=self.registry,
        )
        self.awake = self._gauge("awake", "Instances with a process.")
        self.held = self._gauge("held_requests", "Requests waiting for a waking instance.")
        self.in_flight = self._gauge(
            "requests_in_flight", "Requests accepted and not yet answered."
        )
        self.requests = Counter(
            "mlfleet_requests",
            "Requests of tenants answered, by class of status; probes do not count.",
            ["status"],
            registry=self.registry,
        )
        self.by_class = {n: self.requests.labels(f"{n}xx") for n in range(1, 6)}
        self.writes = Counter(
            "mlfleet_write_calls",
            "Write calls by the route that answered: hot, or fallen through to stock MLflow.",
            ["route"],
            registry=self.registry,
        )
        self.by_route = {r: self.writes.labels(r) for r in ("hot", "stock")}
        self.refused = self._counter("bad_requests", "Connections whose HTTP could not be parsed.")
        self.handed_over = self._counter(
            "handed_over", "Requests handed over to the cell that their tenant lives in."
        )
        self.handover_failures = self._counter(
            "handover_failures", "Requests that the other cell did not answer."
        )
        self.crashes = self._counter("instance_crashes", "Instances that ended unasked.")
        self.zygote_starts = self._counter("zygote_starts", "Zygotes started.")
        self.tenants = Gauge(
            "mlfleet_tenants",
            "Tenants by state: registered, ready, upgrading, deleting, as the catalogue says.",
            ["state"],
            registry=self.registry,
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"mlfleet_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"mlfleet_{name}", text, registry=self.registry)

    def show_tenants(self, by_state: Mapping[str, int]) -> None:
        """Show the catalogue's numbers."""
        for state in STATES:
            self.tenants.labels(state).set(by_state.get(state, 0))

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
