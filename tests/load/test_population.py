"""Users are spread over tenants by a heavy tail, and everybody agrees on who works where."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.catalogue.names import tenant_name
from mlfleet.errors import FleetError
from mlfleet.load.population import Population, tenant_names


@given(tenants=st.integers(1, 3000), seed=st.integers(), user=st.integers(0, 10**6))
def test_a_users_tenant_exists_and_depends_on_seed_and_number_only(
    tenants: int, seed: int, user: int
) -> None:
    tenant = Population(tenants, seed).tenant(user)
    assert 0 <= tenant < tenants
    assert tenant == Population(tenants, seed).tenant(user)


def test_the_first_tenant_has_twice_the_users_of_the_second_and_ten_times_the_tenths() -> None:
    population = Population(1000, seed=5)
    counted = collections.Counter(population.tenant(user) for user in range(40_000))
    assert counted[0] / counted[1] == pytest.approx(2, rel=0.15)
    assert counted[0] / counted[9] == pytest.approx(10, rel=0.25)
    assert len(counted) > 990


def test_with_exponent_0_all_tenants_are_alike() -> None:
    counted = collections.Counter(Population(10, 1, exponent=0).tenant(u) for u in range(20_000))
    assert max(counted.values()) / min(counted.values()) < 1.2


def test_another_seed_gives_other_tenants() -> None:
    first, second = ([Population(100, seed).tenant(user) for user in range(100)] for seed in (1, 2))
    assert first != second


@given(tenants=st.integers(1, 300), seed=st.integers(0, 9))
def test_visits_reach_every_tenant_before_any_is_visited_again(tenants: int, seed: int) -> None:
    population = Population(tenants, seed)
    turns = [population.visited(turn) for turn in range(2 * tenants)]
    assert sorted(turns[:tenants]) == list(range(tenants))
    assert turns[tenants:] == turns[:tenants]


def test_names_are_names_that_the_catalogue_takes() -> None:
    names = tenant_names(10_000)
    assert [tenant_name(name) for name in names] == names
    assert len(set(names)) == 10_000


@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_a_number_of_tenants_that_is_not_possible_is_refused(count: int) -> None:
    with pytest.raises(FleetError, match="choose 1 to 10000"):
        tenant_names(count)
