"""Locust's way in: `locust -f loadtest/locustfile.py`. All of it is in `mlfleet.load.swarm`."""

from mlfleet.load.swarm.locustfile import *  # noqa: F403
