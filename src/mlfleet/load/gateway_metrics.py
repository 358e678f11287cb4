"""What a gateway's /metrics say that matters to a load run."""

import contextlib
import http.client
import urllib.request
from typing import Any

PATIENCE_S = 2.0
BUCKET = "mlfleet_wake_seconds_bucket"
NAMES = {
    "awake": "mlfleet_awake",
    "held": "mlfleet_held_requests",
    "in_flight": "mlfleet_requests_in_flight",
    "wakes": "mlfleet_wakes_total",
    "wake_failures": "mlfleet_wake_failures_total",
    "crashes": "mlfleet_instance_crashes_total",
    "wake_sum_s": "mlfleet_wake_seconds_sum",
}


def read(url: str) -> dict[str, Any]:
    """Return the samples of a gateway by our names, nothing while it does not answer."""
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        urllib.request.urlopen(url, timeout=PATIENCE_S) as page,
    ):
        return parse(page.read().decode(errors="replace"))
    return {}


def parse(text: str) -> dict[str, Any]:
    """Return the samples of Prometheus' text format by our names.

    `wake_buckets` has the cumulative counts of the wake histogram by their upper bound in seconds.
    """
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    samples = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
    found: dict[str, Any] = {
        ours: samples[theirs] for ours, theirs in NAMES.items() if theirs in samples
    }
    buckets = {
        name[len(BUCKET) + 5 : -2]: count
        for name, count in samples.items()
        if name.startswith(BUCKET + '{le="')
    }
    return found | ({"wake_buckets": buckets} if buckets else {})
