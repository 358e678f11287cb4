"""The page of `make bench-cluster`: verdicts as measured; old or foreign ones never count."""

import dataclasses
import datetime
import time

import pytest

from cluster_bench import memory
from cluster_bench.figures import ColdStart, Figures, Memory, markdown
from cluster_bench.kube import BenchError, Cluster

GOOD = Figures(
    cold=[ColdStart(0.8, 1.2, 0.4), ColdStart(0.9, 1.1, 0.4), ColdStart(1.0, 9.0, 0.5)],
    stock_defaults_s=[10.0, 10.5, 11.0],
    stock_one_worker_s=[7.5, 7.6, 7.7],
    warm_s=[0.09, 0.1, 0.9],
    awake=50,
    cell_awake=Memory(700, 384),
    stock=[Memory(900, 0), Memory(950, 0), Memory(1000, 0)],
    parts=["operator", "postgres"],
    plane_at_zero=Memory(200, 300),
    plane_asleep=Memory(400, 700),
)


def row(figures: Figures, beginning: str) -> str:
    lines = markdown(figures, ["a machine"]).splitlines()
    [found] = [line for line in lines if line.startswith(f"| {beginning}")]
    return found


def test_medians_decide():
    assert "2.40 s" in row(GOOD, "cell at zero")
    assert "**met**; stretch **met**" in row(GOOD, "cell at zero")
    assert "4.4 ×: **met**" in row(GOOD, "stock server as")
    assert "3.2 ×: **met**" in row(GOOD, "the same with one worker")
    assert "100 ms" in row(GOOD, "sleeping tenant") and "**met**" in row(GOOD, "sleeping tenant")
    assert "not met" not in markdown(GOOD, [])


@pytest.mark.parametrize(
    ("change", "beginning"),
    [
        ({"cold": [ColdStart(1.0, 2.0, 0.6)]}, "cell at zero"),
        ({"stock_defaults_s": [7.0]}, "stock server as"),
        ({"stock_one_worker_s": [7.0]}, "the same with one worker"),
        ({"warm_s": [0.1, 0.151, 0.2]}, "sleeping tenant"),
        ({"cell_awake": Memory(1537, 384)}, "cell pod"),
        ({"awake": 49}, "cell pod"),
        ({"plane_at_zero": Memory(100, 1025)}, "our parts"),
        ({"plane_asleep": Memory(1025, 100)}, "the same with a cell pod"),
    ],
)
def test_what_misses_its_aim_says_so(change, beginning):
    assert "**not met**" in row(dataclasses.replace(GOOD, **change), beginning)


def test_fifty_stock_servers_are_computed_from_the_mean_of_those_measured():
    assert "47,500 MiB" in row(GOOD, "50 of them")


def test_what_was_not_measured_has_no_verdict_and_says_why():
    figures = dataclasses.replace(
        GOOD, stock_defaults_s=[], stock=[], failures=["memory: no pod came"]
    )
    assert "met" not in row(figures, "stock server as").replace("not measured", "")
    assert "not measured" in row(figures, "stock Knative Services")
    assert "Not measured: memory: no pod came" in markdown(figures, [])


@pytest.mark.parametrize(
    ("text", "size"), [("384Mi", 384 * 2**20), ("1.5Gi", 3 * 2**29), ("64M", 64_000_000), ("7", 7)]
)
def test_a_quantity_is_read_in_its_unit(text, size):
    assert memory.quantity_bytes(text) == size


def test_a_quantity_in_no_unit_of_memory_is_refused():
    with pytest.raises(ValueError, match="5 apples"):
        memory.quantity_bytes("5 apples")


NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
OURS = {("mlfleet", "cell")}


def pod(name: str, *working_sets: int, at: datetime.datetime = NOW):
    container = {"memory": {"time": at.isoformat(), "workingSetBytes": 0}}
    found = [{"memory": container["memory"] | {"workingSetBytes": size}} for size in working_sets]
    return {"podRef": {"namespace": "mlfleet", "name": name}, "containers": found}


@pytest.mark.parametrize(
    ("pods", "counted"),
    [
        ([pod("cell", 5, 7), pod("other", 100)], [5, 7]),
        ([pod("other", 100)], None),
        ([pod("cell")], None),
        ([pod("cell", 5, at=NOW - datetime.timedelta(seconds=1))], None),
    ],
    ids=["all containers of ours", "not there yet", "no container yet", "measured before"],
)
def test_only_a_fresh_measurement_of_the_pods_asked_for_counts(monkeypatch, pods, counted):
    monkeypatch.setattr(memory, "_summary", lambda cluster: pods)
    assert memory._measured(None, OURS, NOW) == counted


def test_no_wait_outlives_the_run():
    cluster = Cluster(most_s=0.05)
    began = time.monotonic()
    with pytest.raises(BenchError, match=r"time is over.*the moon is full"):
        cluster.until("the moon is full", lambda: False, wait_s=60)
    assert time.monotonic() - began < 5
    with pytest.raises(BenchError, match="time is over"):
        cluster.until("it is late", lambda: True)
