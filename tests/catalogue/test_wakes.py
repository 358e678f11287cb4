"""Last wakes in the catalogue: noted in batches, read by what changed."""

import datetime

from mlfleet.catalogue.catalogue import Catalogue


def made(catalogue: Catalogue, *names: str) -> dict[str, int]:
    return {str(one.name): one.id for one in catalogue.create_tenants(names)}


def test_a_wake_is_noted_by_its_age_and_never_goes_back(catalogue: Catalogue) -> None:
    ids = made(catalogue, "wakes-a", "wakes-b")
    before = datetime.datetime.now(datetime.UTC)
    catalogue.note_wakes({ids["wakes-a"]: 0.0, ids["wakes-b"]: 3600.0, 2**31 - 1: 0.0})
    found, _ = catalogue.woken_since(0)
    assert abs((found["wakes-a"] - before).total_seconds()) < 30
    assert abs((before - found["wakes-b"]).total_seconds() - 3600) < 30
    catalogue.note_wakes({ids["wakes-a"]: 60.0})  # a cell whose note came late
    again, _ = catalogue.woken_since(0)
    assert again["wakes-a"] == found["wakes-a"]


def test_only_what_was_noted_since_is_read_again(catalogue: Catalogue) -> None:
    ids = made(catalogue, "wakes-c", "wakes-d")
    catalogue.note_wakes({ids["wakes-c"]: 0.0})
    found, cursor = catalogue.woken_since(0)
    assert "wakes-c" in found
    catalogue.set_state("wakes-c", "ready")  # some transaction passes
    catalogue.note_wakes({ids["wakes-d"]: 0.0})
    found, cursor = catalogue.woken_since(cursor)
    assert set(found) & set(ids) == {"wakes-d"}


def test_a_wake_makes_no_gateway_read_its_tenant_again(catalogue: Catalogue) -> None:
    ids = made(catalogue, "wakes-e")
    _, cursor = catalogue.changed_since(None)
    names = frozenset({"wakes-e"})
    while "wakes-e" in names:
        names, cursor = catalogue.changed_since(cursor)
    catalogue.note_wakes({ids["wakes-e"]: 0.0})
    names, _ = catalogue.changed_since(cursor)
    assert "wakes-e" not in names


def test_the_note_of_a_tenant_goes_with_it(catalogue: Catalogue) -> None:
    ids = made(catalogue, "wakes-f")
    catalogue.note_wakes({ids["wakes-f"]: 0.0})
    catalogue.forget(ids["wakes-f"])
    assert "wakes-f" not in catalogue.woken_since(0)[0]
    assert catalogue.states(["wakes-f", "wakes-e"]) == {"wakes-e": "registered"}
