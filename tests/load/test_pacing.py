"""Intended starts do not wait for the server."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from mlfleet.load.pacing import Once, Slots, Thinking
from mlfleet.load.trace import burst, trace_of

means = st.floats(0.01, 1000)


@given(mean_s=means, seed=st.integers(), stalls=st.lists(st.floats(0, 1e6), max_size=20))
def test_a_server_that_stalls_moves_no_intended_start(
    mean_s: float, seed: int, stalls: list[float]
) -> None:
    quick = Thinking(0.0, mean_s, random.Random(seed))
    slow = Thinking(0.0, mean_s, random.Random(seed))
    now = 0.0
    for stall in stalls:
        now += stall
        assert slow.paced(now) == quick.paced(0.0)


@given(mean_s=means, seed=st.integers())
def test_waits_are_spread_around_the_mean(mean_s: float, seed: int) -> None:
    pace = Thinking(0.0, mean_s, random.Random(seed))
    starts = [pace.paced(0.0) for _ in range(50)]
    waits = [b - a for a, b in itertools.pairwise(starts)]
    slack = 1e-9 * starts[-1]
    assert all(0.5 * mean_s - slack <= wait <= 1.5 * mean_s + slack for wait in waits)
    assert 0 <= starts[0] <= mean_s
    assert max(waits) - min(waits) > 0.1 * mean_s


def test_a_call_that_follows_an_answer_begins_with_it() -> None:
    assert Thinking(0.0, 1.0, random.Random(1)).chained(17.0) == 17.0


@given(users=st.integers(1, 60), seed=st.integers(0, 5))
def test_the_users_of_a_trace_together_make_each_of_its_calls_once(users: int, seed: int) -> None:
    trace = burst(2, 9, calm_s=20, jump_s=2, hold_s=20, fall_s=20)
    starts: list[float] = []
    for user in range(users):
        pace = Slots(100.0, trace, user, users, seed)
        while (start := pace.paced(0.0)) is not None:
            starts.append(start)
    assert abs(len(starts) - trace.calls) <= 1
    starts.sort()
    for second in range(0, int(trace.length_s) - 5, 5):
        made = sum(100 + second <= start < 100 + second + 5 for start in starts)
        meant = sum(trace.rate(second + tick / 10) for tick in range(50)) / 10
        assert abs(made - meant) <= 2


def test_a_slot_is_the_same_for_every_number_of_processes() -> None:
    trace = trace_of("t_s,rate\n0,5\n10,5\n", "x")
    assert Slots(0, trace, 3, 4, 1).paced(0) == Slots(0, trace, 3, 8, 1).paced(0)


@given(seed=st.integers())
def test_a_storm_is_one_call_inside_its_window(seed: int) -> None:
    pace = Once(50.0, 1.0, random.Random(seed))
    start = pace.paced(0.0)
    assert start is not None
    assert 50 <= start <= 51
    assert pace.paced(60.0) is None
    assert pace.chained(60.0) is None
