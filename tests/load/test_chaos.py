"""The plan of what is broken under load."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mlfleet.load import chaos
from mlfleet.load.chaos import Harm

seeds = st.integers(0, 2**32)
lengths = st.floats(1, 7200)
harms = st.builds(Harm, st.integers(0, 300), st.integers(0, 5), st.integers(0, 20))
picks = st.floats(0, 1, exclude_max=True)


@given(seed=seeds, seconds=lengths, harm=harms)
def test_a_seed_repeats_its_plan(seed: int, seconds: float, harm: Harm) -> None:
    assert chaos.plan(seed, seconds, harm) == chaos.plan(seed, seconds, harm)


def test_another_seed_makes_another_plan() -> None:
    harm = Harm(kills=100, restarts=2)
    assert chaos.plan(1, 900, harm) != chaos.plan(2, 900, harm)


@given(seed=seeds, seconds=lengths, harm=harms)
def test_the_plan_breaks_exactly_what_was_asked_for(seed: int, seconds: float, harm: Harm) -> None:
    counted = chaos.kinds(chaos.plan(seed, seconds, harm))
    assert sum(counted.get(kind, 0) for kind in chaos.KILLED) == harm.kills
    assert sum(counted.get(kind, 0) for kind in chaos.RESTARTED) == harm.restarts
    assert counted.get("connections", 0) + counted.get("sessions", 0) == harm.cuts


def test_a_hundred_kills_are_mostly_of_instances() -> None:
    counted = chaos.kinds(chaos.plan(7, 900, Harm(kills=100, restarts=2)))
    kills = {"instance": 85, "zygote": 10, "gateway": 5}
    assert counted == kills | {"postgres stop": 1, "postgres kill": 1}


@given(seed=seeds, seconds=lengths, harm=harms)
def test_strikes_are_in_order_and_leave_the_end_in_peace(
    seed: int, seconds: float, harm: Harm
) -> None:
    times = [strike.at_s for strike in chaos.plan(seed, seconds, harm)]
    assert times == sorted(times)
    assert all(0 <= at_s <= 0.95 * seconds + 0.001 for at_s in times)


@given(seed=seeds, kills=st.integers(2, 200))
def test_there_is_no_long_rest_between_kills(seed: int, kills: int) -> None:
    times = [strike.at_s for strike in chaos.plan(seed, 900, Harm(kills, 0))]
    part = (900 * 0.95 - chaos.LEAD_S) / kills
    rests = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert max(rests) <= 2 * part + 0.01


@given(pick=picks, among=st.lists(st.integers(), min_size=1))
def test_a_strike_always_means_one_that_is_there(pick: float, among: list[int]) -> None:
    assert chaos.picked(pick, among) in among


@given(pick=picks, count=st.integers(1, 500), share=st.floats(0, 1))
def test_a_cut_takes_its_share_and_nobody_twice(pick: float, count: int, share: float) -> None:
    taken = chaos.cut(pick, range(count), share)
    assert len(taken) == len(set(taken)) == max(1, round(share * count))


def test_nothing_is_cut_where_nothing_is() -> None:
    assert chaos.cut(0.5, []) == []
