"""Which process is what, and whether CPU time of short lives is counted."""

from dataclasses import replace

import pytest

from mlfleet.load.processes import Process
from mlfleet.load.roles import Effort, Roles


def process(pid, parent, command="", name="python", cpu_s=0.0, waited_cpu_s=0.0):
    return Process(pid, parent, name, command, cpu_s, waited_cpu_s, started_s=pid)


ZYGOTE = "python -m mlfleet.cell.zygote"
FLEET = [
    process(10, 1, "mlfleet up"),
    process(11, 10, "postgres -D x", name="postgres"),
    process(12, 11, "postgres: user", name="postgres"),
    process(13, 10, "python -m mlfleet.cell"),
    process(14, 13, ZYGOTE),
    process(15, 14, ZYGOTE),
    process(99, 1, "somebody else"),
]


def by_pid(roles):
    return {process.pid: role for process, role in roles.items()}


def test_a_fleet_is_told_apart_and_others_are_left_out():
    assert by_pid(Roles({10: "fleet"}).of(FLEET)) == {
        10: "supervisor",
        11: "Postgres",
        12: "Postgres",
        13: "gateway",
        14: "zygote",
        15: "instance",
    }


def test_the_nearest_root_decides():
    roles = Roles({10: "locust", 13: "stock"}).of(FLEET)
    assert by_pid(roles)[15] == "stock"
    assert by_pid(roles)[12] == "locust"


@pytest.mark.parametrize("parent", [1, 10])
def test_an_instance_that_outlives_its_zygote_stays_an_instance(parent):
    roles = Roles({10: "fleet"})
    roles.of(FLEET)
    orphan = replace(FLEET[5], parent=parent)
    assert by_pid(roles.of([*FLEET[:4], orphan]))[15] == "instance"


def test_a_pid_given_anew_is_somebody_else():
    roles = Roles({10: "fleet"})
    roles.of(FLEET)
    stranger = replace(FLEET[5], parent=1, started_s=777.0, command="vim")
    assert 15 not in by_pid(roles.of([*FLEET[:4], stranger]))


def stepped(*samples):
    roles, effort = Roles({10: "fleet"}), Effort()
    for sample in samples:
        effort.step(roles.of(sample))
    return effort.seconds


def test_what_was_used_before_the_first_sample_does_not_count():
    before = [process(10, 1, cpu_s=50.0)]
    assert stepped(before, [replace(before[0], cpu_s=52.0)]) == {"supervisor": 2.0}


def test_an_instance_that_ended_between_samples_is_counted_by_its_zygote():
    zygote, instance = process(14, 10, ZYGOTE, cpu_s=1.0), process(15, 14, ZYGOTE, cpu_s=3.0)
    root = process(10, 1)
    seconds = stepped(
        [root, zygote, instance],
        # It used 3.0 before the first sample, and another 0.5 before it ended.
        [root, replace(zygote, waited_cpu_s=3.5)],
        # One came and went: no sample saw it.
        [root, replace(zygote, waited_cpu_s=3.75)],
    )
    assert seconds["instance"] == pytest.approx(0.75)
    assert seconds["zygote"] == 0.0


def test_a_new_process_counts_from_its_start():
    root = process(10, 1)
    assert stepped([root], [root, process(14, 10, ZYGOTE, cpu_s=0.4)])["zygote"] == 0.4
