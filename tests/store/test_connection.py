"""One connection per instance: turns, nesting, idle close, and Postgres going away."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
import sqlalchemy

from mlfleet.database.access import DatabaseAccess
from mlfleet.database.admin import Admin
from mlfleet.database.embedded import EmbeddedPostgres
from mlfleet.errors import DatabaseAwayError
from mlfleet.store.connection import FairLock, StoreConnection
from mlfleet.store.pool import make_engine
from tests.fixtures_fleet import descendants
from tests.store.conftest import Instance, connect

SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'mlfleet'"
)


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def sessions(access: DatabaseAccess) -> int:
    with contextlib.closing(connect(access)) as other, other.cursor() as cursor:
        cursor.execute(SESSIONS, (access.name,))
        count: int = cursor.fetchone()[0]
        return count


def test_turns_are_given_in_the_order_of_asking() -> None:
    lock, order, threads = FairLock(), list[int](), list[threading.Thread]()
    assert lock.acquire(1)

    def take(n: int) -> None:
        assert lock.acquire(10)
        order.append(n)
        lock.release()

    for n in range(20):
        threads.append(threading.Thread(target=take, args=(n,)))
        threads[-1].start()
        wait_for(lambda: len(lock._waiting) == len(threads))
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_a_turn_that_does_not_come_is_given_up() -> None:
    lock = FairLock()
    assert lock.acquire(0)
    assert not lock.acquire(0)
    assert not lock.acquire(0.05)
    lock.release()
    assert lock.acquire(0)


def test_the_connection_comes_lazily_and_goes_when_idle(
    new_database: Callable[[], DatabaseAccess],
) -> None:
    access, connection = new_database(), StoreConnection()
    connection.configure(access, idle_s=0.3, wait_s=5)
    assert not connection.is_open
    with connection.lease() as raw:
        assert sessions(access) == 1
        time.sleep(0.5)  # in use: the watcher must leave it
        assert not raw.closed
    assert connection.is_open
    wait_for(lambda: not connection.is_open)
    wait_for(lambda: sessions(access) == 0)
    with connection.lease() as raw, raw.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()
    assert "connection-watch" not in {thread.name for thread in threading.enumerate()}


def test_a_connection_that_is_missed_soon_is_kept_longer(
    new_database: Callable[[], DatabaseAccess],
) -> None:
    connection = StoreConnection()
    connection.configure(new_database(), idle_s=0.2, wait_s=5)

    def use_and_wait() -> float:
        with connection.lease():
            pass
        wait_for(lambda: not connection.is_open)
        return connection._kept_s

    assert [use_and_wait() for _ in range(3)] == [0.2, 0.4, 0.8]
    connection._given_back -= 4  # it is not missed for some time
    assert use_and_wait() == 0.2
    connection._kept_s = 50
    with connection.lease():
        assert connection._kept_s == 60
    connection.close()


def test_a_connection_cut_while_idle_is_replaced_before_use(
    new_database: Callable[[], DatabaseAccess],
) -> None:
    access, connection = new_database(), StoreConnection()
    connection.configure(access, idle_s=60, wait_s=5)
    with connection.lease() as raw:
        pid = raw.get_backend_pid()
    with contextlib.closing(connect(access)) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))
    wait_for(lambda: sessions(access) == 0)
    with connection.lease() as raw, raw.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()


def test_nested_sessions_share_the_connection_and_others_wait(
    new_database: Callable[[], DatabaseAccess],
) -> None:
    access, connection = new_database(), StoreConnection()
    connection.configure(access, idle_s=60, wait_s=5)
    engine = make_engine(connection)
    insert = sqlalchemy.text("INSERT INTO registered_models (name, workspace) VALUES (:n, :n)")
    waited = threading.Event()

    def other_thread() -> None:
        with engine.connect() as mine:
            mine.execute(sqlalchemy.text("SELECT 1"))
            waited.set()

    thread = threading.Thread(target=other_thread)
    with engine.connect() as outer:
        outer.execute(insert, {"n": "outer"})
        thread.start()
        with engine.connect() as inner:
            assert inner.connection.dbapi_connection is outer.connection.dbapi_connection
            inner.execute(insert, {"n": "inner"})
            inner.commit()
        with contextlib.closing(connect(access)) as judge, judge.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM registered_models")
            assert cursor.fetchone()[0] == 2
        outer.execute(insert, {"n": "after"})
        with engine.connect() as inner:  # closed without a commit: its work is undone, only its
            inner.execute(insert, {"n": "undone"})
        with contextlib.suppress(sqlalchemy.exc.IntegrityError), engine.connect() as inner:
            inner.execute(insert, {"n": "after"})
        assert not waited.is_set()
        outer.commit()
    thread.join(10)
    assert waited.is_set()
    with contextlib.closing(connect(access)) as judge, judge.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM registered_models")
        assert cursor.fetchone()[0] == 3
    connection.close()


def test_sixteen_clients_on_stock_routes_need_one_connection(instance: Instance) -> None:
    run_id, most = instance.new_run(), 0

    def send(n: int) -> int:
        tags = [{"key": "mlflow.runName", "value": f"n{n}"}, {"key": "t", "value": str(n)}]
        metrics = [{"key": "m", "value": n, "timestamp": 1, "step": n}]
        fields = {"run_id": run_id, "metrics": metrics, "tags": tags}
        return instance.post("runs/log-batch", fields, stock=True).status

    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(send, n) for n in range(64)]
        while not all(answer.done() for answer in answers):
            most = max(most, sessions(instance.access))
    assert {answer.result() for answer in answers} == {200}
    assert most == 1
    found = instance.query("SELECT count(*) FROM metrics WHERE run_uuid = %s", run_id)
    assert found == [(64,)]


def test_busy_or_absent_postgres_is_said_in_time() -> None:
    connection = StoreConnection()
    connection.configure(DatabaseAccess("127.0.0.1", 1, "d", "u", "p"), idle_s=1, wait_s=0.4)
    begun = time.monotonic()
    with pytest.raises(DatabaseAwayError, match="try again"):
        connection.acquire()
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("stock", [False, True])
def test_a_connection_cut_during_a_call_is_no_400(instance: Instance, stock: bool) -> None:
    run_id = instance.new_run()
    with contextlib.closing(connect(instance.access)) as other, other.cursor() as cursor:
        other.autocommit = False
        cursor.execute("SELECT FROM runs WHERE run_uuid = %s FOR UPDATE", (run_id,))
        with ThreadPoolExecutor(1) as pool:
            fields = {"run_id": run_id, "status": "FINISHED"}
            answer = pool.submit(instance.post, "runs/update", fields, stock)
            blocked = (
                "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND datname = current_database()"
            )
            wait_for(lambda: bool(instance.query(blocked)))
            instance.query("SELECT pg_terminate_backend(%s)", instance.query(blocked)[0][0])
            time.sleep(0.2)
            other.rollback()
            result = answer.result(30)
    if stock:
        assert (result.status, result.headers["retry-after"]) == (429, "1")
        assert result.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    else:
        assert (result.status, result.route) == (200, "hot")


def test_postgres_restarts_and_the_calls_are_held_then_told_to_come_again(
    postgres_factory: Callable[..., EmbeddedPostgres], new_instance: Callable[..., Instance]
) -> None:
    server = postgres_factory(max_connections=30)
    admin = Admin(server.admin_uri)
    admin.prepare()
    admin.clone(1, "secret")
    instance = new_instance(admin.access(1, "secret"), wait_s=3.0)
    run_id = instance.new_run()
    tag = {"run_id": run_id, "key": "t", "value": "1"}
    server.stop()
    for name, fields, stock in [
        ("runs/set-tag", tag, False),
        ("runs/set-tag", tag, True),
        ("experiments/create", {"name": "e"}, False),
        ("registered-models/create", {"name": "m"}, False),
    ]:
        answer = instance.post(name, fields, stock)
        assert (answer.status, answer.headers.get("retry-after")) == (429, "1"), (name, stock)
    answer = instance.call("GET", "/api/2.0/mlflow/runs/search")
    answer = instance.call("GET", "/ajax-api/3.0/mlflow/server-info")
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(instance.post, "runs/set-tag", tag, stock) for stock in (False, True)]
        server.start()
        assert [answer.result(30).status for answer in held] == [200, 200]
    admin.close()


@contextlib.contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Stop every process of a Postgres without ending it: its sockets stay open."""
    postmaster = int((server.data_dir / "postmaster.pid").read_text().split()[0])
    stopped = [postmaster, *descendants(postmaster)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_a_call_to_a_frozen_postgres_ends_and_a_long_one_to_a_living_does_not(
    postgres_factory: Callable[..., EmbeddedPostgres],
) -> None:
    server = postgres_factory(max_connections=40)
    admin = Admin(server.admin_uri)
    admin.prepare()
    admin.clone(1, "secret")
    admin.close()
    connection = StoreConnection()
    connection.configure(admin.access(1, "secret"), idle_s=0.5, wait_s=1.0)
    with connection.lease() as raw, raw.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(4)")
    with (
        frozen(server),
        connection.lease() as raw,
        raw.cursor() as cursor,
        pytest.raises(psycopg2.OperationalError),
    ):
        began = time.monotonic()
        cursor.execute("SELECT 1")
    assert time.monotonic() - began < 15
    with connection.lease() as raw, raw.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()
