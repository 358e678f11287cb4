"""A cell notes its tenants' wakes in the catalogue: seldom, all at once, and before it ends."""

import asyncio
from collections.abc import Callable

from mlfleet.cell import wakes
from mlfleet.cell.wakes import Wakes
from mlfleet.errors import DatabaseAwayError
from tests.fixtures_gateway import EchoCell


class Notes:
    def __init__(self) -> None:
        self.taken: list[dict[int, float]] = []
        self.is_away = False
        self.now = 100.0

    async def take(self, ages_s: dict[int, float]) -> None:
        if self.is_away:
            raise DatabaseAwayError("away")
        self.taken.append(ages_s)

    def wakes(self) -> Wakes:
        return Wakes(self.take, lambda: self.now)


def test_many_wakes_are_one_note_with_the_age_of_each_last_one() -> None:
    notes = Notes()
    kept = notes.wakes()
    for tenant, at in ((1, 100.0), (2, 110.0), (1, 130.0)):
        notes.now = at
        kept.add(tenant)
    notes.now = 150.0
    asyncio.run(kept.flush())
    asyncio.run(kept.flush())
    assert notes.taken == [{1: 20.0, 2: 40.0}]


def test_a_note_that_failed_is_taken_with_the_next_and_a_newer_wake_counts() -> None:
    notes = Notes()
    kept = notes.wakes()
    notes.is_away = True
    kept.add(1)
    kept.add(2)
    asyncio.run(kept.flush())
    notes.now, notes.is_away = 160.0, False
    kept.add(2)
    asyncio.run(kept.flush())
    assert notes.taken == [{1: 60.0, 2: 0.0}]


def test_a_catalogue_that_hangs_does_not_keep_a_cell_from_ending() -> None:
    async def never(ages_s: dict[int, float]) -> None:
        await asyncio.Event().wait()

    async def end() -> None:
        kept = Wakes(never)
        kept.add(1)
        async with asyncio.timeout(wakes.LAST_S + 5):
            await kept.close()

    asyncio.run(end())


def test_a_cell_that_ends_has_noted_who_woke(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells()
    token = cell.catalogue.put("demo")
    cell.catalogue.put("asleep")
    assert cell.get("/demo/x", token).status == 200
    woken = cell.catalogue.tenants["demo"].id
    assert cell.catalogue.noted == [], "not with each wake"
    cell.stop()
    [note] = cell.catalogue.noted
    assert list(note) == [woken]
    assert 0 <= note[woken] < 30
