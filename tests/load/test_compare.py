"""Finding the highest rate within a bound, and the verdict on two sides."""

from hypothesis import given
from hypothesis import strategies as st

from mlfleet.load import compare
from mlfleet.load.compare import Probe, Side

BOUND_S = 0.5


def serve(users: int, capacity: float) -> Probe:
    """What a server of this capacity answers to users of one request a second: late above it."""
    is_well = users <= capacity
    return Probe(
        users, users, min(users, capacity), 0.01, 0.1 if is_well else 3.0, answers=1000, errors=0
    )


def search(capacity: float, first: int) -> list[Probe]:
    probes: list[Probe] = []
    while (users := compare.next_users(probes, first, BOUND_S)) is not None:
        probes.append(serve(users, capacity))
    return probes


@given(capacity=st.integers(20, 10_000), first=st.integers(5, 1000))
def test_the_search_ends_close_below_what_a_server_can_do(capacity: int, first: int) -> None:
    probes = search(capacity, first)
    found = compare.best(probes, BOUND_S)
    assert found is not None
    assert capacity / compare.EXACT - 1 <= found.users <= capacity
    assert len(probes) <= 25


@given(capacity=st.integers(2, 20))
def test_the_search_ends_for_a_server_that_bears_a_few_users(capacity: int) -> None:
    assert len(search(capacity, 300)) <= 25


def test_a_server_that_bears_nobody_ends_the_search_too() -> None:
    probes = search(0.5, 50)
    assert compare.best(probes, BOUND_S) is None
    assert len(probes) < 12


@given(rate=st.floats(1, 1000))
def test_a_rate_with_errors_or_a_growing_queue_is_not_borne(rate: float) -> None:
    assert Probe(9, rate, rate, 0.01, BOUND_S, 1000, 0).is_within(BOUND_S)
    assert Probe(9, rate, rate, 0.01, BOUND_S, 1000, 10).is_within(BOUND_S)
    assert not Probe(9, rate, rate, 0.01, BOUND_S, 1000, 11).is_within(BOUND_S)
    assert not Probe(9, rate, rate / 2, 0.01, BOUND_S, 1000, 0).is_within(BOUND_S)
    assert not Probe(9, rate, rate, 0.01, BOUND_S * 1.01, 1000, 0).is_within(BOUND_S)


def test_one_bad_moment_does_not_end_the_search_below_what_was_borne() -> None:
    probes = [Probe(50, 50, 50, 0.01, 3.0, 9, 0), Probe(100, 100, 100, 0.01, 0.1, 9, 0)]
    assert compare.next_users(probes, 50, BOUND_S) == 160


def side(name: str, rate: int, missing: int = 0) -> Side:
    return Side(name, name.startswith("stock"), (serve(rate, rate),), missing)


def test_the_better_stock_side_is_the_one_to_beat() -> None:
    sides = [side("stock", 100), side("stock, one worker", 120), side("fleet", 600)]
    assert compare.ratio(sides) == 5
    assert compare.is_met(sides, 5) and not compare.is_met(sides, 5.1)


def test_a_fleet_that_lost_a_row_or_was_not_checked_met_nothing() -> None:
    assert not compare.is_met([side("stock", 100), side("fleet", 900, missing=1)], 5)
    assert not compare.is_met([side("stock", 100), side("fleet", 900, missing=-1)], 5)
    assert compare.is_met([side("stock", 100, missing=7), side("fleet", 900)], 5)


def test_an_error_is_forgiven_to_stock_only() -> None:
    wrong = Probe(9, 1000, 1000, 0.01, 0.1, 1000, errors=1)
    assert compare.is_met([Side("stock", True, (wrong,), 0), side("fleet", 6000)], 5)
    assert not compare.is_met([side("stock", 100), Side("fleet", False, (wrong,), 0)], 5)


def test_the_table_has_a_line_for_a_side_that_bore_nothing() -> None:
    text = compare.markdown([side("stock", 100), Side("fleet", False, (), 0)])
    assert "no user was borne" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1
