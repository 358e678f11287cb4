"""Whether a fleet stays the size it was."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

from mlfleet.cli.load_soak import soak as command
from mlfleet.load import soak
from mlfleet.load.soak import MEMORY, Series

MIB = 1024 * 1024
SECONDS = 45 * 60
levels = st.floats(20 * MIB, 2000 * MIB)


def line(level: float, per_s: float, seconds: int = SECONDS) -> Series:
    return Series(
        "gateway", MEMORY, tuple((1e9 + t, level + per_s * t) for t in range(0, seconds, 5))
    )


@given(level=levels)
def test_what_does_not_move_is_flat(level: float) -> None:
    found = soak.growth(line(level, 0))
    assert found and found.is_flat and found.share == 0


@given(level=levels, share=st.floats(0.08, 3))
def test_a_leak_is_found(level: float, share: float) -> None:
    assume(share * level > 2 * MIB)
    found = soak.growth(line(level, share * level / (SECONDS - soak.SETTLE_S)))
    assert found and not found.is_flat


@given(level=levels, share=st.floats(-0.9, 0.04))
def test_a_little_growth_and_any_shrinking_are_flat(level: float, share: float) -> None:
    found = soak.growth(line(level, share * level / SECONDS))
    assert found and found.is_flat


@given(level=levels, at=st.integers(0, 119))
def test_what_happens_before_it_has_settled_does_not_count(level: float, at: int) -> None:
    points = list(line(level, 0).points)
    points[at] = (points[at][0], level * 50)
    found = soak.growth(Series("gateway", MEMORY, tuple(points)))
    assert found and found.share == 0


@given(level=levels, at=st.integers(0, 539), height=st.floats(0, 100))
def test_a_short_peak_is_no_leak(level: float, at: int, height: float) -> None:
    points = list(line(level, 0).points)
    for sample in range(at, min(at + 6, len(points))):
        points[sample] = (points[sample][0], level * (1 + height))
    found = soak.growth(Series("gateway", MEMORY, tuple(points)))
    assert found and found.is_flat


@given(level=levels, share=st.floats(0.2, 3))
def test_a_step_that_stays_is_found(level: float, share: float) -> None:
    points = line(level, 0).points
    half = len(points) * 2 // 3
    risen = tuple((t, v * (1 + share)) for t, v in points[half:])
    found = soak.growth(Series("gateway", MEMORY, points[:half] + risen))
    assert found and not found.is_flat


def test_one_descriptor_more_of_a_few_is_no_leak() -> None:
    points = tuple((float(t), 8.0 if t < 1500 else 9.0) for t in range(0, SECONDS, 5))
    found = soak.growth(Series("supervisor", soak.FILES, points))
    assert found and found.is_flat and found.share > soak.LIMIT


def test_a_run_that_is_too_short_says_nothing() -> None:
    assert soak.growth(line(MIB, 1, seconds=610)) is None
    assert soak.growth(Series("gateway", MEMORY, ())) is None


def _resources(t: int, awake: int, leak: int) -> dict[str, Any]:
    return {
        "t": t,
        "connections": 20,
        "roles": {
            "instance": {"count": awake, "pss_bytes": awake * (20 * MIB + leak * t), "fds": awake},
            "zygote": {"count": 1, "pss_bytes": 30 * MIB, "fds": 8},
            "gateway": {"count": 1, "pss_bytes": None if t % 5 else 60 * MIB, "fds": 300},
            "Postgres": {"count": 30, "pss_bytes": (100 + t // 10) * MIB, "fds": 600 + t},
            "locust": {"count": 2, "pss_bytes": t * MIB, "fds": t},
        },
    }


def test_more_instances_are_no_growth_but_bigger_ones_are() -> None:
    more = [_resources(t, awake=10 + t // 100, leak=0) for t in range(SECONDS)]
    assert all(one.is_flat for one in soak.judge(soak.of_resources(more)))
    bigger = [_resources(t, awake=10, leak=2000) for t in range(SECONDS)]
    grown = [one for one in soak.judge(soak.of_resources(bigger)) if not one.is_flat]
    assert [(one.name, one.unit) for one in grown] == [("instances and zygote", "bytes")]


def test_what_instances_and_their_zygote_stop_sharing_is_no_growth() -> None:
    rows = [_resources(t, awake=10, leak=0) for t in range(SECONDS)]
    for t, row in enumerate(rows):
        row["roles"]["zygote"]["pss_bytes"] += 2000 * t
        row["roles"]["instance"]["pss_bytes"] -= 2000 * t
    assert all(one.is_flat for one in soak.judge(soak.of_resources(rows)))


def test_the_load_generator_is_not_the_fleet() -> None:
    rows = [_resources(t, awake=10, leak=0) for t in range(SECONDS)]
    assert "locust" not in {one.name for one in soak.of_resources(rows)}


def test_one_leaking_process_among_many_is_found() -> None:
    rows = [
        {
            "t": t,
            "processes": {
                str(pid): {
                    "role": "instance",
                    "pss_bytes": 20 * MIB + (2000 * t if pid == 7 else 0),
                    "shmem_bytes": 0,
                    "fds": 20,
                }
                for pid in range(1, 60)
            },
        }
        for t in range(0, SECONDS, 30)
    ]
    grown = [one.name for one in soak.judge(soak.of_processes(rows)) if not one.is_flat]
    assert grown == ["instance 7"]


def test_a_process_that_was_not_there_to_the_end_is_not_judged() -> None:
    seen = {"role": "instance", "pss_bytes": MIB, "shmem_bytes": 0, "fds": 2}
    rows = [{"t": t, "processes": {"1": seen} if t < 900 else {}} for t in range(0, SECONDS, 30)]
    assert soak.of_processes(rows) == []


def _postgres(own: int, buffers: int, fds: int) -> list[dict[str, Any]]:
    def seen(t: int) -> dict[str, Any]:
        return {
            "role": "Postgres",
            "pss_bytes": 9 * MIB + (own + buffers) * t,
            "shmem_bytes": buffers * t,
            "fds": 6 + fds * t // SECONDS,
        }

    return [{"t": t, "processes": {"1": seen(t)}} for t in range(0, SECONDS, 30)]


def test_postgres_may_fill_its_buffers_and_keep_files_open_but_not_grow_itself() -> None:
    def grown(own: int, buffers: int, fds: int) -> list[str]:
        found = soak.judge(soak.of_processes(_postgres(own, buffers, fds)))
        assert len(found) == 2
        return [one.unit for one in found if not one.is_flat]

    assert grown(own=0, buffers=30_000, fds=990) == []
    assert grown(own=2000, buffers=0, fds=0) == ["bytes"]
    assert grown(own=0, buffers=0, fds=3000) == ["descriptors"]


@pytest.mark.parametrize(("leak", "code"), [(0, 0), (2000, 1)])
def test_the_command_fails_when_something_grew(tmp_path: Path, leak: int, code: int) -> None:
    rows = (json.dumps(_resources(t, awake=10, leak=leak)) for t in range(SECONDS))
    (tmp_path / "resources.jsonl").write_text("\n".join(rows))
    done = CliRunner().invoke(command, [str(tmp_path)])
    assert done.exit_code == code
    assert ("grew" in done.output) is bool(code)


def test_the_command_fails_when_the_run_is_too_short_to_say(tmp_path: Path) -> None:
    (tmp_path / "resources.jsonl").write_text(json.dumps(_resources(0, awake=1, leak=0)))
    assert CliRunner().invoke(command, [str(tmp_path)]).exit_code == 1
