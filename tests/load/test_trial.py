"""What a probe says, from what its run's folder holds."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mlfleet.load import trial
from mlfleet.load.histogram import Histogram, bucket
from mlfleet.load.requests import Key, Tally

START, LENGTH, WINDOW_S = 1_000, 17, 10


def tally(count: int, latency_s: float, errors: int = 0) -> Tally:
    found = Tally(count, Histogram({bucket(latency_s): count}))
    found.errors.update({500: errors} if errors else {})
    return found


def run(latencies: list[float], errors: dict[int, int]) -> tuple[dict[Key, Tally], list[Any]]:
    """A run of 17 s with 100 answers a second; the last second is cut short."""
    tallies = {
        (START + second, "runs/create", True): tally(100, latencies[second], errors.get(second, 0))
        for second in range(LENGTH - 1)
    }
    tallies[START + LENGTH - 1, "runs/create", True] = tally(3, 9.0)
    lines = [{"t": START + n, "pid": 1, "users": 200, "intended": 100} for n in range(LENGTH)]
    return tallies, lines


def test_only_the_window_is_measured_but_every_error_counts() -> None:
    latencies = [5.0] * 6 + [0.01] * 10
    tallies, lines = run(latencies, errors={0: 2})
    probe = trial.measured(200, tallies, lines, [], WINDOW_S)
    assert probe.answered_per_s == probe.offered_per_s == 100
    assert 0.0095 < probe.p99_s < 0.0105
    assert probe.errors == 2 and probe.answers == 1603


@given(slow=st.integers(6, 15))
def test_one_slow_second_of_the_window_is_in_its_p99(slow: int) -> None:
    latencies = [0.01] * 16
    latencies[slow] = 2.0
    tallies, lines = run(latencies, errors={})
    assert trial.measured(200, tallies, lines, [], WINDOW_S).p99_s > 1.9


def test_answers_that_are_errors_are_no_throughput() -> None:
    tallies, lines = run([0.01] * 16, errors=dict.fromkeys(range(16), 40))
    assert trial.measured(200, tallies, lines, [], WINDOW_S).answered_per_s == 60


def test_a_run_without_an_answer_bears_nothing() -> None:
    lines = [{"t": START + n, "pid": 1, "users": 200, "intended": 0} for n in range(LENGTH)]
    assert not trial.measured(200, {}, lines, [], WINDOW_S).is_within(0.5)


def resources(second: int, role: str, cpu_s: float, pss_bytes: int | None) -> dict[str, Any]:
    roles = {
        role: {"cpu_s": cpu_s, "pss_bytes": pss_bytes},
        "Postgres": {"cpu_s": cpu_s, "pss_bytes": 500 << 20},
        "locust": {"cpu_s": 99 * cpu_s, "pss_bytes": 900 << 20},
    }
    return {"t": START + second, "roles": roles, "machine": {"busy": 0.5}}


def test_the_cost_is_the_servers_and_its_postgres_without_the_load_generator() -> None:
    tallies, lines = run([0.01] * 16, errors={})
    rows = [resources(n, "stock", 0.1 * n, None if n % 5 else 100 << 20) for n in range(LENGTH)]
    figures = trial.measured(200, tallies, lines, rows, WINDOW_S).figures
    assert figures["cpu_s"] == 3.2
    assert figures["cpu_ms"] == round(3200 / 1603, 2)
    assert figures["pss_mib"] == 100
