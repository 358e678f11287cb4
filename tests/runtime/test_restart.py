"""How long to wait before a crashed process is started again."""

from hypothesis import given
from hypothesis import strategies as st

from mlfleet.runtime.restart import LONGEST_S, STEADY_S, Crashes

runs = st.lists(st.floats(0, STEADY_S, exclude_max=True), max_size=50)


def test_the_first_crash_is_mended_at_once():
    assert Crashes().after(ran_s=1).delay_s == 0


@given(runs)
def test_the_wait_never_shrinks_while_it_keeps_crashing_and_has_an_end(ran):
    crashes, last = Crashes(), 0.0
    for ran_s in ran:
        crashes = crashes.after(ran_s)
        assert last <= crashes.delay_s <= LONGEST_S
        last = crashes.delay_s


@given(runs)
def test_a_long_run_makes_the_next_crash_the_first(ran):
    crashes = Crashes()
    for ran_s in ran:
        crashes = crashes.after(ran_s)
    assert crashes.after(STEADY_S).delay_s == 0
