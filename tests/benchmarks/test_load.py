"""The load generator tells the truth: it counts, times and judges what a real server answers."""

import socketserver
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import load, wire

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
CLOSING = b"HTTP/1.1 429 Later\r\nconnection: close\r\ncontent-length: 5\r\n\r\nlater"


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1))
def test_a_percentile_is_not_exceeded_by_that_share_and_none_smaller_is(values, share):
    found = load.percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(PLAIN, (200, False)), (CHUNKED, (404, False)), (CLOSING, (429, True))],
)
def test_an_answer_is_complete_only_with_its_last_byte(answer, expected):
    assert [load.parse(answer[:size]) for size in range(len(answer))] == [None] * len(answer)
    assert load.parse(answer) == expected


class Server(socketserver.ThreadingTCPServer):
    """Answers the n-th request of each connection with the n-th of its answers, then hangs up."""

    allow_reuse_address = daemon_threads = True
    answers: tuple[bytes, ...] = ()


class Handler(socketserver.StreamRequestHandler):
    """Reads requests without a body."""

    server: Server

    def handle(self) -> None:
        for answer in self.server.answers:
            while (line := self.rfile.readline()) != b"\r\n":
                if not line:
                    return
            self.wfile.write(answer)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def drive(server: Server, warm_s: float = 0.1) -> load.Load:
    host, port = server.server_address[:2]
    target = wire.Target(str(host), port)
    streams = [wire.get_experiment(target, "0") for _ in range(3)]
    return load.run(target.address, streams, seconds=0.3, warm_s=warm_s)


def test_every_answer_is_counted_by_its_status_and_only_good_ones_are_timed(server):
    server.answers = (PLAIN, CHUNKED, CLOSING)
    seen = drive(server)
    counts = [seen.statuses[status] for status in (200, 404, 429)]
    assert max(counts) - min(counts) <= 3
    assert seen.errors == sum(counts[1:])
    assert 0 < len(seen.latencies) <= counts[0]
    assert sum(len(stream) for stream in seen.answers) == sum(counts)
    assert seen.first_error.startswith("HTTP/1.1 404")


def test_answers_before_the_window_are_checked_but_not_measured(server):
    server.answers = (PLAIN,) * 100_000
    seen = drive(server, warm_s=0.6)
    assert 0 < len(seen.latencies) < 0.7 * seen.statuses[200]
    assert seen.errors == 0


def test_a_connection_that_ends_before_the_answer_is_an_error(server):
    server.answers = (PLAIN[:-1],)
    seen = drive(server)
    assert set(seen.statuses) == {load.LOST}
    assert seen.errors == seen.statuses[load.LOST] > 0


def test_steps_count_up_and_the_length_of_a_request_stays():
    requests = wire.log_batch(wire.Target("h", 1), "a" * 32, first_step=7)
    first, second = next(requests), next(requests)
    assert len(first) == len(second)
    assert first.count(b'"step":          7') == second.count(b'"step":          8') == wire.METRICS
