"""What the figures of a run do not say: a reader who is not told would take them for more.

Pure. Some remarks are true of every run, some of what this run's figures show.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mlfleet.load import units

BUSY_SHARE = 0.9
"""Of all cores: from here on waiting for a core is part of every latency."""


def remarks(figures: Mapping[str, Any]) -> list[str]:
    """Return the remarks, those of this run first."""
    return [*_of_this_run(figures), *_ALWAYS]


def _of_this_run(figures: Mapping[str, Any]) -> Iterator[str]:
    machine, roles = figures["machine"], {role["role"]: role for role in figures["roles"]}
    if machine and machine["busy_mean"] >= BUSY_SHARE:
        yield (
            f"The machine was {units.share(machine['busy_mean'])} busy on average. Latencies"
            " are those of a full machine: with fewer users, or more cores, they would be shorter."
        )
    if (locust := roles.get("locust")) and machine:
        yield (
            f"The load generator ran on the same machine and took {units.cores(locust['cores'])}"
            f" of {machine['cores']} on average. What it took the servers could not have."
        )
    if figures["accounts"] is None:
        yield "The accounts were not checked: nothing here says that what was acknowledged is kept."
    elif unchecked := figures["accounts"]["unchecked"]:
        yield f"The accounts did not look at: {', '.join(unchecked)}."
    if figures["fleet"] is None:
        yield "No gateway was asked: who was awake, and what wakes took, is not known."
    if any(role["pss_most_bytes"] is None for role in figures["roles"]):
        yield "Memory of some roles could not be read: that needs root, or the same user."


_ALWAYS = (
    "Latency runs from the moment at which a user meant to ask, so it holds waits in the load"
    " generator, too. It can be longer than a client's own clock would say, not shorter.",
    "Percentiles come from buckets 5 % wide and are right within 2.5 %; the longest is exact.",
    "A failed try is an answer of 400 or more, or none. Users resend as stock clients do; a try"
    " that failed and then worked is a failed try and an acknowledged request.",
    "Cold is an answer that waited for a waking instance; it holds the wake and the request.",
    "Who is awake is asked once a second: what woke and slept in between is in the wakes only.",
    "Memory is proportional (shared pages are divided among those who share them) and is weighed in"
    " turns; with hundreds of instances a weight can be half a minute old.",
    "Clients and servers spoke over the addresses above: on loopback there is no network to wait"
    " for, and no TLS.",
)
