"""The fleet in Locust's own page, live: a tab with figures, and a page with charts at /fleet."""

from locust.env import Environment

from mlfleet.load.live import Live
from mlfleet.load.requests import Recorder
from mlfleet.load.resources import Sampler


def install(environment: Environment, recorder: Recorder | None, sampler: Sampler | None) -> Live:
    """Let the processes of a run tell the master what they see, and its page show it.

    Call once in each process, in Locust's `init` event. Workers send their lines to the master with
    Locust's own reports; the web page is extended where there is one.

    Args:
        environment: of this process.
        recorder: of this process; None in a master, which has no users.
        sampler: of the fleet; None in a worker, or where the fleet is on other machines.

    Returns:
        what is known of the run now: `live.line(now)` is for the terminal.
    """
    raise NotImplementedError
