"""Requests are sent again when, and as often as, the stock client sends them again."""

import http.server
import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_BACKOFF_JITTER,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
)
from mlflow.exceptions import MlflowException
from mlflow.utils.request_utils import _get_request_session
from urllib3.util import Retry

from mlfleet.load.retries import MOST, TRANSIENT, pause_s


def stock_retry() -> Retry:
    """Return what the stock client decides with, at its defaults."""
    session = _get_request_session(
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(),
        MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get(),
        MLFLOW_HTTP_REQUEST_BACKOFF_JITTER.get(),
        frozenset(TRANSIENT - {0}),
        True,
        True,
    )
    retry: Retry = session.get_adapter("http://x").max_retries
    return retry


@given(seed=st.integers())
def test_pauses_are_the_stock_clients_give_or_take_its_jitter(seed: int) -> None:
    retry, draw = stock_retry(), random.Random(seed)
    for failures in range(1, MOST + 1):
        retry = retry.increment("POST", "/x", error=None, response=None)
        stock = retry.get_backoff_time()
        ours = pause_s(500, failures, None, draw)
        assert ours is not None
        assert abs(ours - stock) <= 1
        assert (ours == 0) == (failures == 1) == (stock == 0)


@given(status=st.sampled_from(sorted(TRANSIENT)), failures=st.integers(1, 20), seed=st.integers())
def test_seven_times_and_no_more(status: int, failures: int, seed: int) -> None:
    pause = pause_s(status, failures, None, random.Random(seed))
    assert (pause is None) == (failures > 7)


@given(status=st.sampled_from([400, 401, 403, 404, 409, 413, 501, 507]))
def test_what_is_final_is_not_sent_again(status: int) -> None:
    assert pause_s(status, 1, 1.0, random.Random(0)) is None


def test_retry_after_goes_first() -> None:
    assert pause_s(429, 1, 3.0, random.Random(0)) == 3.0
    assert pause_s(429, 4, 0.0, random.Random(0)) == 0.0


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers with the statuses of the server's script, in turn; 0 hangs up."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        script: Iterator[int] = self.server.script  # type: ignore[attr-defined]
        self.server.asked += 1  # type: ignore[attr-defined]
        if (status := next(script)) == 0:
            self.close_connection = True
            return
        body = b'{"run": {"info": {"run_id": "a", "experiment_id": "0"}, "data": {}}}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(*statuses: int) -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        server.script = itertools.chain(statuses)  # type: ignore[attr-defined]
        server.asked = 0  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", sorted(TRANSIENT))
def test_the_stock_client_resends_a_create_after_what_we_call_transient(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with scripted(status, 200) as server:
        client = mlflow.MlflowClient(f"http://127.0.0.1:{server.server_port}")
        assert client.create_run("0").info.run_id == "a"
        assert server.asked == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [400, 404, 409, 501, 507])
def test_the_stock_client_does_not_resend_after_what_we_call_final(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with scripted(status, 200) as server:
        client = mlflow.MlflowClient(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(MlflowException):
            client.create_run("0")
        assert server.asked == 1  # type: ignore[attr-defined]
