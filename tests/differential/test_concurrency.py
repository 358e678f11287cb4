"""Writers at once: both databases must end with the same rows, and every acknowledgement count.

The calls of one case are sent by sixteen threads to one side, then to the other. Where the rows
cannot depend on who comes first they are compared as they are; where they can (two values for one
param), what is compared is the verdict: how many calls won, and that the row is the winner's.
Stock loses races that are none (two first values of one metric at once are a unique violation and
a 400), so its lost calls are sent again one by one; the other side has to need no second try.
"""

import contextlib
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2

from tests.differential.inputs import Literal, render
from tests.differential.made import API, new_run
from tests.differential.pair import Pair
from tests.differential.side import Answer, Call, Side
from tests.differential.test_traps import TIME, metric, pair_of, read_back

WRITERS = 16
TABLES = {
    "metrics": "key, value, timestamp, step, is_nan",
    "latest_metrics": "key, value, timestamp, step, is_nan",
    "params": "key, value",
    "tags": "key, value",
    "runs": "status, end_time, lifecycle_stage, user_id, source_type, source_name, start_time",
}


def rows(side: Side, run: str, but: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return a run's rows in every table; run names that a server made up are left out."""
    found = {}
    with contextlib.closing(psycopg2.connect(side.database_uri)) as connection:
        cursor = connection.cursor()
        for table, columns in TABLES.items():
            cursor.execute(
                f"SELECT {columns} FROM {table} WHERE run_uuid = %s ORDER BY {columns}",
                (side.real[run],),
            )
            found[table] = [row for row in cursor.fetchall() if row[0] != "mlflow.runName"]
    return {table: found[table] for table in TABLES if table not in but}


def send_all(side: Side, calls: Sequence[Call]) -> list[Answer]:
    """Send the calls by all writers to one side."""
    with ThreadPoolExecutor(WRITERS) as writers:
        answers = list(writers.map(side.send, calls))
    side.close()
    return answers


def race(pair: Pair, calls: Sequence[Call]) -> tuple[Counter[int], Counter[int]]:
    """Send the calls by all writers, to one side after the other; return the statuses."""
    pair.steps += len(calls)
    left, right = (send_all(side, calls) for side in (pair.stock, pair.other))
    return Counter(answer.status for answer in left), Counter(answer.status for answer in right)


def race_without_losers(pair: Pair, calls: Sequence[Call]) -> None:
    """Send calls that all are right; what stock lost is sent to it again."""
    _, other = race(pair, calls)
    assert other == {200: len(calls)} or pair.other.name == "again"
    for call in calls:
        assert pair.stock.send(call).status == 200


def write(route: str, run: str, **fields: Any) -> Call:
    """Return a call to one of the routes below `runs/`."""
    return Call("POST", f"{API}/runs/{route}", render({"run_id": run, **fields}))


def shuffled(calls: list[Call]) -> list[Call]:
    """Return the calls in an order that is mixed, and the same in every session."""
    return random.Random(3).sample(calls, len(calls))


def test_an_acknowledged_write_can_be_seen_by_others(pair: Pair) -> None:
    run = new_run(pair)
    pair.call(write("log-metric", run, **metric("m", 1)))
    assert rows(pair.other, run)["metrics"] == [("m", 1.0, TIME, 0, False)]
    pair.call(write("log-parameter", run, key="p", value="x"))
    assert rows(pair.other, run)["params"] == [("p", "x")]
    pair.call(write("set-tag", run, key="t", value="x"))
    assert rows(pair.other, run)["tags"] == [("t", "x")]
    pair.call(write("log-batch", run, metrics=[metric("m", 2, step=1)], tags=[pair_of("u", "")]))
    assert len(rows(pair.other, run)["metrics"]) == len(rows(pair.other, run)["tags"]) == 2
    pair.call(write("update", run, status="FAILED", end_time=TIME))
    assert rows(pair.other, run)["runs"][0][:2] == ("FAILED", TIME)
    assert rows(pair.stock, run) == rows(pair.other, run)


def test_all_writers_log_to_the_same_keys(pair: Pair) -> None:
    run = new_run(pair)
    calls = shuffled(
        [
            write("log-metric", run, **metric(f"m{n % 3}", n * 37 % 11, TIME + n % 5, n % 7))
            for n in range(320)
        ]
    )
    race_without_losers(pair, calls)
    assert rows(pair.stock, run) == rows(pair.other, run)
    read_back(pair, run, "m0", "m1", "m2")


def test_all_writers_log_the_very_same_metric(pair: Pair) -> None:
    run = new_run(pair)
    values = (1.5, Literal('"NaN"'), Literal('"-Infinity"'), 0)
    calls = [write("log-metric", run, **metric("m", value, step=4)) for value in values] * 24
    race_without_losers(pair, calls)
    # NaN is 0 in Postgres: which of the two is the latest depends on who came first.
    assert rows(pair.stock, run, ["latest_metrics"]) == rows(pair.other, run, ["latest_metrics"])
    for side in (pair.stock, pair.other):
        assert rows(side, run)["latest_metrics"] == [("m", 1.5, TIME, 4, False)]


def test_all_writers_log_batches_that_overlap(pair: Pair) -> None:
    run = new_run(pair)
    calls = [
        write(
            "log-batch",
            run,
            metrics=[metric(f"m{k}", n % 9 + k, TIME, n % 4) for k in range(20)],
            params=[pair_of(f"p{k}", f"v{k}") for k in range(8)],
            tags=[pair_of(f"t{n % 5}", "same")],
        )
        for n in range(96)
    ]
    race_without_losers(pair, shuffled(calls))
    assert rows(pair.stock, run) == rows(pair.other, run)


def test_one_param_with_equal_values_at_once(pair: Pair) -> None:
    run = new_run(pair)
    calls = [write("log-parameter", run, key=f"p{n % 4}", value=f"v{n % 4}") for n in range(128)]
    race_without_losers(pair, calls)
    assert rows(pair.stock, run) == rows(pair.other, run)


def test_one_param_with_many_values_at_once_has_one_winner(pair: Pair) -> None:
    run = new_run(pair)
    calls = [write("log-parameter", run, key="p", value=f"v{n}") for n in range(64)]
    for statuses in race(pair, calls):
        assert statuses == {200: 1, 400: 63}
    for side in (pair.stock, pair.other):
        ((key, value),) = rows(side, run)["params"]
        assert side.send(write("log-parameter", run, key=key, value=value)).status == 200
        for route, fields in (
            ("log-parameter", {"key": key, "value": "x"}),
            ("log-batch", {"params": [pair_of(key, "x")]}),
        ):
            refused = side.send(write(route, run, **fields))
            assert refused.status == 400
            assert "Changing param values is not allowed" in refused.json["message"]


def test_batches_with_contradicting_params_leave_nothing_of_the_losers(pair: Pair) -> None:
    run = new_run(pair)
    calls = [
        write(
            "log-batch",
            run,
            params=[pair_of("winner", f"v{n}")],
            metrics=[metric("m", n, step=n)],
            tags=[pair_of(f"t{n}", "x")],
        )
        for n in range(32)
    ]
    race(pair, calls)
    for side in (pair.stock, pair.other):
        found = rows(side, run)
        ((_, winner),) = found["params"]
        number = int(winner[1:])
        assert found["metrics"] == [("m", float(number), TIME, number, False)]
        assert found["tags"] == [(f"t{number}", "x")]


def test_tags_set_at_once_end_with_one_of_the_values(pair: Pair) -> None:
    run = new_run(pair)
    calls = [write("set-tag", run, key=f"t{n % 2}", value=f"v{n}") for n in range(128)]
    _, other = race(pair, calls)
    assert other == {200: len(calls)} or pair.other.name == "again"
    for side in (pair.stock, pair.other):
        assert [key for key, _ in rows(side, run)["tags"]] == ["t0", "t1"]
        assert all(int(value[1:]) % 2 == int(key[1:]) for key, value in rows(side, run)["tags"])
    for key in ("t0", "t1"):
        pair.call(write("set-tag", run, key=key, value="last"))
    assert rows(pair.stock, run) == rows(pair.other, run)


def test_updates_at_once_end_with_one_whole_update(pair: Pair) -> None:
    run = new_run(pair)
    statuses = ("RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED")
    calls = [
        write("update", run, status=statuses[n % 5], end_time=TIME + n % 5, run_name=f"name{n % 5}")
        for n in range(100)
    ]
    _, other = race(pair, calls)
    assert other == {200: len(calls)} or pair.other.name == "again"
    for side in (pair.stock, pair.other):
        ((status, end, *_),) = rows(side, run)["runs"]
        assert statuses[end - TIME] == status
        answer = side.send(Call("GET", f"{API}/runs/get", query=(("run_id", run),)))
        data = answer.json["run"]
        tags = {each["key"]: each["value"] for each in data["data"]["tags"]}
        assert data["info"]["run_name"] == f"name{end - TIME}" == tags["mlflow.runName"]


def test_good_calls_among_bad_ones_all_count(pair: Pair) -> None:
    run = new_run(pair)
    bad = [
        write("log-metric", run, **metric("a//b", 1)),
        write("set-tag", run, key="t", value="a\u0000b"),
        write("log-metric", "f" * 32, **metric("m", 1)),
        write("log-metric", run, **metric("m", 1, step=2**63)),
        write("log-batch", run, metrics=[metric("m", 1)], params=[pair_of("fixed", "other")]),
        write("log-parameter", run, key="fixed", value="other"),
    ]
    pair.call(write("log-parameter", run, key="fixed", value="first"))
    good = [write("log-metric", run, **metric(f"g{n}", n)) for n in range(60)]
    good += [write("set-tag", run, key=f"t{n}", value="x") for n in range(60)]
    left, right = race(pair, shuffled(good + bad * 10))
    assert left == right
    assert rows(pair.stock, run) == rows(pair.other, run)
    found = rows(pair.other, run)
    assert len([row for row in found["metrics"] if row[0].startswith("g")]) == 60
    assert len(found["tags"]) == 60


def test_nothing_is_written_after_the_run_was_deleted(pair: Pair) -> None:
    run = new_run(pair)
    calls = [write("log-metric", run, **metric("m", n, step=n)) for n in range(200)]
    calls.insert(100, Call("POST", f"{API}/runs/delete", {"run_id": run}))
    for side in (pair.stock, pair.other):
        answers = send_all(side, calls)
        acknowledged = Counter(answer.status for answer in answers)
        assert set(acknowledged) == {200, 400}
        assert len(rows(side, run)["metrics"]) == acknowledged[200] - 1
        refused = answers[-1]
        assert refused.status == 400
        assert "must be in the 'active' state" in refused.json["message"]


def test_runs_made_at_once_are_all_there(pair: Pair) -> None:
    run = new_run(pair)
    read = pair.call(Call("GET", f"{API}/runs/get", query=(("run_id", run),)))
    assert read.status == 200
    for side in (pair.stock, pair.other):
        body = side.send(Call("GET", f"{API}/runs/get", query=(("run_id", run),))).json
        experiment = body["run"]["info"]["experiment_id"]
        calls = [
            Call(
                "POST",
                f"{API}/runs/create",
                {"experiment_id": experiment, "start_time": n, "tags": [pair_of("n", str(n))]},
            )
            for n in range(1, 65)
        ]
        answers = send_all(side, calls)
        assert {answer.status for answer in answers} == {200}
        made = {answer.json["run"]["info"]["run_id"] for answer in answers}
        search = {"experiment_ids": [experiment], "max_results": 100, "order_by": ["start_time"]}
        found = side.send(Call("POST", f"{API}/runs/search", search)).json["runs"]
        assert len(made) == 64
        assert made < {each["info"]["run_id"] for each in found}
        assert [
            tag["value"] for each in found for tag in each["data"]["tags"] if tag["key"] == "n"
        ] == [str(n) for n in range(1, 65)]
