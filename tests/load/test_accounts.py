"""Accounts: whatever is wrong is named, and nothing else is."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlfleet.load import facts
from mlfleet.load.accounts import compare
from mlfleet.load.entries import (
    AliasSet,
    ArtifactPut,
    Log,
    ModelCreate,
    RunCreate,
    RunFinish,
    TracePut,
    VersionCreate,
)
from mlfleet.load.findings import Account
from mlfleet.load.holdings import Holdings, Run, Version
from mlfleet.load.ledger import Line
from mlfleet.load.promises import NAME_TAG, PARENT_TAG, outcome, promises

KEYS = ("loss", "accuracy", "lr")
unhurried = settings(deadline=None)


@dataclasses.dataclass
class World:
    """A tenant that keeps what it is sent, unless it is told to lose it."""

    lines: list[Line] = dataclasses.field(default_factory=list)
    found: Holdings = dataclasses.field(
        default_factory=lambda: Holdings(metrics=[], artifacts={}, changes=set())
    )
    runs: int = 0

    @property
    def rows(self) -> dict[tuple[str, str, int], tuple[int, float]]:
        """The metrics by run, key and step."""
        return {(r, k, s): (ms, v) for r, k, s, ms, v in self.found.metrics}

    def say(self, entry: Any, status: int, made: str | None = None, resent: int = 0) -> None:
        self.lines.append(Line(status, made, resent, entry))

    def create(self, status: int = 200, kept: bool = True, parent: str | None = None) -> str:
        """Create a run; return its id, whether somebody was told or not."""
        self.runs += 1
        run_id, name = f"r{self.runs:02}", facts.run_name("c0ffee00", "u", self.runs, 10**12)
        self.say(RunCreate("t", name, parent), status, run_id if status == 200 else None)
        if kept:
            self.found.runs[run_id] = Run(name, "RUNNING", 10**12, None, "active")
            self.found.tags[run_id, NAME_TAG] = name
            if parent:
                self.found.tags[run_id, PARENT_TAG] = parent
        return run_id

    def name(self, run_id: str) -> str:
        return facts.run_name("c0ffee00", "u", int(run_id[1:]), 10**12)

    def log(self, entry: Log, status: int = 200, kept: bool = True) -> None:
        self.say(entry, status)
        if not kept:
            return
        assert isinstance(self.found.metrics, list)
        run_id, name = entry.run_id, entry.name
        for key in entry.metrics:
            for step in range(entry.first_step, entry.last_step + 1):
                ms, value = facts.metric_ms(name, step), facts.metric(name, key, step)
                row = (run_id, key, step, ms, value)
                if row not in self.found.metrics:
                    self.found.metrics.append(row)
                newest = (step, ms, value)
                self.found.latest[run_id, key] = max(
                    newest, self.found.latest.get((run_id, key), newest)
                )
        for key in entry.params:
            self.found.params[run_id, key] = facts.param(name, key)
        for key, edition in entry.tags:
            self.found.tags[run_id, key] = facts.tag(name, key, edition)

    def account(self) -> Account:
        return compare("t", promises(self.lines), self.found)

    def problems(self) -> list[tuple[str, str, str, str]]:
        return [(f.problem, f.kind, f.run_id, f.key) for f in self.account().findings]


STATUSES = st.sampled_from([200, 200, 200, 0, 429, 500, 408, 400])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Some runs and logs, each acknowledged, refused or unknown, kept as the outcome allows."""
    world = World()
    for _ in range(draw(st.integers(1, 4))):
        run_id = world.create()
        step = 0
        for edition in range(draw(st.integers(1, 4))):
            status = draw(STATUSES)
            last = step + draw(st.integers(0, 4))
            keys = tuple(draw(st.sets(st.sampled_from(KEYS), min_size=1)))
            params = tuple(f"p{edition}-{i}" for i in range(draw(st.integers(0, 2))))
            tags = (("phase", edition),) if draw(st.booleans()) else ()
            entry = Log("t", run_id, world.name(run_id), keys, step, last, params, tags)
            result = outcome(status)
            kept = result == "acknowledged" or (result == "unknown" and draw(st.booleans()))
            world.log(entry, status, kept)
            if result == "unknown" and draw(st.booleans()):
                world.log(entry)
            step = last + 1
    for _ in range(draw(st.integers(0, 2))):
        world.create(draw(st.sampled_from([0, 429, 500])), kept=draw(st.booleans()))
    return world


def acknowledged(world: World) -> list[tuple[str, str, int]]:
    """Return the metric rows that somebody was promised."""
    return sorted(
        (line.entry.run_id, key, step)
        for line in world.lines
        if isinstance(line.entry, Log) and line.status == 200
        for key in line.entry.metrics
        for step in range(line.entry.first_step, line.entry.last_step + 1)
    )


@unhurried
@given(world=worlds())
def test_a_tenant_that_keeps_what_it_acknowledges_is_good(world):
    account = world.account()
    assert account.findings == []
    metric = account.counts["metric"]
    assert metric.found == len(world.rows)
    assert metric.acknowledged == len(set(acknowledged(world)))
    assert metric.missing == metric.altered == metric.unexplained == 0


@unhurried
@given(world=worlds(), data=st.data())
def test_a_metric_that_is_gone_is_named(world, data):
    if not (rows := acknowledged(world)):
        return
    run_id, key, step = data.draw(st.sampled_from(rows))
    world.found.metrics = [row for row in world.found.metrics if row[:3] != (run_id, key, step)]
    account = world.account()
    (finding,) = account.findings
    assert finding[:2] == ("missing", "metric")
    assert (finding.run_id, finding.key, finding.detail) == (run_id, key, f"step {step}")
    assert account.counts["metric"].missing == 1


@unhurried
@given(
    world=worlds(),
    data=st.data(),
    change=st.sampled_from([(1, 0.0), (0, 1e-9), (0, -1e-9), (-1, 0.0), (0, float("nan"))]),
)
def test_a_metric_that_is_altered_is_named(world, data, change):
    if not world.rows:
        return
    place = data.draw(st.sampled_from(sorted(world.rows)))
    world.found.metrics = [
        (*row[:3], row[3] + change[0], row[4] + change[1]) if row[:3] == place else row
        for row in world.found.metrics
    ]
    (finding,) = world.account().findings
    assert finding[:2] == ("altered", "metric")
    assert (finding.run_id, finding.key, finding.detail) == (*place[:2], f"step {place[2]}")


@unhurried
@given(world=worlds(), key=st.sampled_from([*KEYS, "other"]), step=st.integers(30, 40))
def test_a_metric_that_nobody_sent_is_named(world, key, step):
    world.found.metrics = [*world.found.metrics, ("r01", key, step, 1, 1.0)]
    (finding,) = world.account().findings
    assert finding[:2] == ("unexplained", "metric")
    assert (finding.run_id, finding.key, finding.detail) == ("r01", key, f"step {step}")


@unhurried
@given(world=worlds(), data=st.data())
def test_a_second_row_at_a_step_is_unexplained(world, data):
    if not world.rows:
        return
    run_id, key, step = data.draw(st.sampled_from(sorted(world.rows)))
    world.found.metrics = [*world.found.metrics, (run_id, key, step, 1, 1.0)]
    (finding,) = world.account().findings
    assert (finding.problem, finding.key, finding.detail) == ("unexplained", key, f"step {step}")


def test_of_two_wrong_rows_at_a_step_one_was_altered_and_one_came_from_nowhere():
    world = World()
    run_id = world.create()
    world.log(Log("t", run_id, world.name(run_id), ("loss",), 3, 3))
    world.found.metrics = [(run_id, "loss", 3, 1, 1.0), (run_id, "loss", 3, 2, 1.0)]
    account = world.account()
    assert [(f.problem, f.kind, f.rows) for f in account.findings] == [
        ("altered", "metric", 1),
        ("unexplained", "metric", 1),
    ]


@unhurried
@given(world=worlds(), data=st.data())
def test_a_newest_row_that_is_not_the_newest_is_named(world, data):
    if not world.found.latest:
        return
    key = data.draw(st.sampled_from(sorted(world.found.latest)))
    step, ms, value = world.found.latest[key]
    world.found.latest[key] = (step - 1, ms, value)
    assert world.problems() == [("altered", "latest metric", *key)]


@unhurried
@given(world=worlds(), data=st.data())
def test_params_and_tags_that_are_gone_or_altered_are_named(world, data):
    promised = promises(world.lines)
    sure = [
        (kind, key, table)
        for kind, table, rows in (
            ("param", world.found.params, promised.params),
            ("tag", world.found.tags, promised.tags),
        )
        for key, promise in rows.items()
        if promise.acknowledged
    ]
    if not sure:
        return
    kind, key, table = data.draw(st.sampled_from(sure))
    if data.draw(st.booleans()):
        del table[key]
        assert world.problems() == [("missing", kind, *key)]
    else:
        table[key] += "x"
        assert world.problems() == [("altered", kind, *key)]


@unhurried
@given(world=worlds(), data=st.data())
def test_a_run_that_is_gone_is_one_finding_and_its_rows_are_counted(world, data):
    told = sorted({line.made for line in world.lines if line.made})
    run_id = data.draw(st.sampled_from(told))
    del world.found.runs[run_id]
    rows = [row for row in acknowledged(world) if row[0] == run_id]
    world.found.metrics = [row for row in world.found.metrics if row[0] != run_id]
    for table in (world.found.params, world.found.tags, world.found.latest):
        for key in [key for key in table if key[0] == run_id]:
            del table[key]
    account = world.account()
    assert [(f.problem, f.kind, f.run_id) for f in account.findings] == [("missing", "run", run_id)]
    assert account.counts["metric"].missing == len(set(rows))


@unhurried
@given(world=worlds(), extra=st.integers(1, 3), unanswered=st.integers(0, 3))
def test_a_create_without_an_answer_explains_one_run_and_no_more(world, extra, unanswered):
    name = world.name("r01")
    for _ in range(unanswered):
        world.say(RunCreate("t", name), 0)
    for number in range(extra):
        world.found.runs[f"x{number}"] = Run(name, "RUNNING", 10**12, None, "active")
        world.found.tags[f"x{number}", NAME_TAG] = name
    account = world.account()
    explained = min(extra, unanswered)
    listed = [r for r in account.repeats if r.name == name]
    assert [r.extra for r in listed] == ([[f"x{i}" for i in range(explained)]] if explained else [])
    assert all(r.told == ["r01"] for r in listed)
    assert [f.run_id for f in account.findings] == [f"x{i}" for i in range(explained, extra)]
    assert account.counts["run"].unexplained == extra - explained


def test_a_client_that_sent_a_create_again_by_itself_explains_a_run_too():
    world = World()
    world.create()
    world.lines = [line._replace(resent=1) for line in world.lines]
    world.found.runs["x"] = world.found.runs["r01"]
    world.found.tags["x", NAME_TAG] = world.name("r01")
    account = world.account()
    assert account.findings == []
    assert [repeat.extra for repeat in account.repeats] == [["x"]]


def test_rows_in_a_run_that_nobody_was_told_of_are_unexplained():
    world = World()
    run_id = world.create(0)
    world.found.params[run_id, "lr"] = "1"
    assert world.problems() == [("unexplained", "param", run_id, "lr")]


@pytest.mark.parametrize(
    ("status", "is_good"), [(0, True), (429, True), (400, False), (404, False)]
)
def test_a_refused_create_leaves_nothing(status, is_good):
    world = World()
    world.create(status, kept=True)
    assert (world.problems() == []) == is_good


@pytest.mark.parametrize(("status", "is_good"), [(0, True), (429, True), (503, True), (413, False)])
@pytest.mark.parametrize(
    "rows", [{"metrics": ("loss",)}, {"params": ("lr",)}, {"tags": (("a", 1),)}]
)
def test_a_refused_log_leaves_nothing(status, is_good, rows):
    world = World()
    run_id = world.create()
    world.log(Log("t", run_id, world.name(run_id), **rows), status)
    assert (world.problems() == []) == is_good


def test_what_was_acknowledged_stays_so_when_it_is_sent_again():
    world = World()
    run_id = world.create()
    entry = Log("t", run_id, world.name(run_id), ("loss",), 0, 0)
    world.log(entry, 200)
    world.log(entry, 0)
    world.found.metrics, world.found.latest = [], {}
    assert ("missing", "metric", run_id, "loss") in world.problems()


def partial(world: World, run_id: str) -> Iterator[Log]:
    """Let half of a request without an answer be there."""
    name = world.name(run_id)
    yield Log("t", run_id, name, ("loss",), 0, 0)
    yield Log("t", run_id, name, ("loss",), 0, 3, ("lr",), (("phase", 1),))


def test_a_request_without_an_answer_is_there_as_a_whole_or_not_at_all():
    world = World()
    run_id = world.create()
    part, whole = partial(world, run_id)
    world.log(whole, 0, kept=False)
    assert world.problems() == []
    world.log(part, 200)
    assert world.problems() == []
    world.lines.pop()
    assert world.problems() == [("altered", "whole request", run_id, "loss, lr, phase steps 0-3")]
    world.log(whole, 0)
    assert world.problems() == []


def test_rows_that_two_unanswered_requests_share_say_nothing_about_either():
    world = World()
    run_id = world.create()
    name = world.name(run_id)
    world.log(Log("t", run_id, name, ("loss",), 0, 3), 0)
    world.log(Log("t", run_id, name, ("loss",), 2, 5), 0, kept=False)
    assert world.problems() == []


def test_the_last_acknowledged_tag_wins_and_an_unknown_one_after_it_may_have_won():
    world = World()
    run_id = world.create()
    name = world.name(run_id)
    world.log(Log("t", run_id, name, tags=(("phase", 1),)))
    world.log(Log("t", run_id, name, tags=(("phase", 2),)))
    world.log(Log("t", run_id, name, tags=(("phase", 3),)), 0)
    for edition, is_good in ((1, False), (2, True), (3, True)):
        world.found.tags[run_id, "phase"] = facts.tag(name, "phase", edition)
        assert (world.problems() == []) == is_good
    world.log(Log("t", run_id, name, tags=(("phase", 4),)))
    world.found.tags[run_id, "phase"] = facts.tag(name, "phase", 3)
    assert world.problems() == [("altered", "tag", run_id, "phase")]


def test_a_finish_without_an_answer_may_have_happened():
    world = World()
    run_id = world.create()
    world.say(RunFinish("t", run_id, world.name(run_id), "FINISHED", 5), 0)
    for status, end_ms, is_good in (("RUNNING", None, True), ("FINISHED", 5, True),
                                    ("FINISHED", 6, False), ("FAILED", 5, False)):  # fmt: skip
        world.found.runs[run_id] = world.found.runs[run_id]._replace(status=status, end_ms=end_ms)
        assert (world.problems() == []) == is_good


def test_an_artifact_is_judged_by_its_bytes():
    world = World()
    run_id = world.create()
    name = world.name(run_id)
    world.say(ArtifactPut("t", run_id, name, "a.bin", 10), 200)
    assert world.problems() == [("missing", "artifact", run_id, "a.bin")]
    assert world.found.artifacts is not None
    world.found.artifacts[run_id, "a.bin"] = (10, facts.artifact_sha256(name, "a.bin", 10))
    assert world.problems() == []
    world.found.artifacts[run_id, "a.bin"] = (10, facts.artifact_sha256(name, "b.bin", 10))
    assert world.problems() == [("altered", "artifact", run_id, "a.bin")]
    world.found.artifacts = None
    account = world.account()
    assert account.findings == []
    assert account.unchecked == {"artifact"}


def test_a_version_that_nobody_was_told_of_needs_a_create_without_an_answer():
    world = World()
    world.say(ModelCreate("t", "m"), 200)
    world.found.models["m"] = None
    world.found.changes = None
    for status, made in ((200, "1"), (0, None)):
        world.say(VersionCreate("t", "m", "r1", "s"), status, made)
    world.found.versions["m", "1"] = Version("r1", "s", "READY")
    assert world.problems() == []
    world.found.versions["m", "2"] = Version("r1", "s", "READY")
    assert world.problems() == []
    world.found.versions["m", "3"] = Version("r1", "s", "READY")
    account = world.account()
    assert [f[:2] for f in account.findings] == [("unexplained", "version")]
    assert [(r.told, r.extra) for r in account.repeats] == [(["1"], ["2"])]
    count = account.counts["version"]
    assert (count.sent, count.acknowledged, count.found, count.unexplained) == (2, 1, 2, 1)
    del world.found.versions["m", "1"]
    assert ("missing", "version", "", "1") in world.problems()


def test_an_alias_follows_the_last_acknowledged_request():
    world = World()
    world.found.changes = None
    for version, status in (("1", 200), ("2", 200), ("3", 0)):
        world.say(AliasSet("t", "m", "champion", version), status)
    for version, is_good in (("1", False), ("2", True), ("3", True), ("4", False)):
        world.found.aliases["m", "champion"] = version
        assert (world.problems() == []) == is_good


def test_of_an_export_without_an_answer_all_spans_are_there_or_none():
    world = World()
    world.say(TracePut("t", "0", "n", 0, 3), 0)
    trace = facts.trace_id("n", 0)
    spans = [facts.span_id("n", 0, i) for i in range(3)]
    assert world.problems() == []
    world.found.traces[trace] = frozenset(spans)
    assert world.problems() == []
    world.found.traces[trace] = frozenset(spans[:2])
    assert [p[:2] for p in world.problems()] == [("altered", "trace")]
    world.say(TracePut("t", "0", "n", 0, 3), 200)
    assert [p[:2] for p in world.problems()] == [("missing", "span")]
    world.found.traces = {}
    account = world.account()
    assert [f[:2] for f in account.findings] == [("missing", "trace")]
    assert account.counts["span"].missing == 3


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, "acknowledged"), (201, "acknowledged"), (0, "unknown"), (302, "unknown"),
     (400, "refused"), (404, "refused"), (408, "unknown"), (413, "refused"), (429, "unknown"),
     (500, "unknown"), (503, "unknown"), (507, "unknown")],
)  # fmt: skip
def test_only_a_final_answer_says_what_happened(status, expected):
    assert outcome(status) == expected
