"""What every user does: wait for its time, ask as a stock client asks, account for each try."""

import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NoReturn

import gevent  # type: ignore[import-untyped]
import orjson
from geventhttpclient.client import HTTPClientPool
from locust import FastHttpUser, constant, task
from locust.exception import StopUser
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING

from mlfleet.load import facts
from mlfleet.load.entries import Entry, ExperimentCreate
from mlfleet.load.ledger import Ledger
from mlfleet.load.retries import pause_s
from mlfleet.load.swarm.run import Run, clock
from mlfleet.load.swarm.wire import Answer, Connection, Server

API = "/api/2.0/mlflow"
DEFAULT_EXPERIMENT = "0"
OWN_EXPERIMENT = 0.1
NOTHING_LEFT_S = 10.0
"""A user whose trace or storm is over waits, until the run is."""
_JSON = "Content-Type: application/json\r\n"
Made = Callable[[Answer], str]


class GaveUpError(Exception):
    """A request failed for good: the user's session ends, as a person's script would."""


class FailedTryError(Exception):
    """How a try ended that was no success, as Locust's table of failures shows it."""


class LoadUser(FastHttpUser):
    """A user of one tenant. Subclasses say what a session is.

    `self.client` is Locust's own session and is not used by ours; tasks of your own may.
    """

    abstract = True
    wait_time = constant(0)
    client_pool = HTTPClientPool(concurrency=1)
    key: ClassVar[str] = ""
    """Its name in --mix."""
    think_s: ClassVar[float | None] = None
    """Its own think time; None: the run's."""
    connection: Connection | None = None
    asks = 0
    """Requests in flight: a sweep has several."""
    leaves = False
    """Locust stops this user: it asks no more, whatever its clock says meanwhile."""

    def on_start(self) -> None:
        """Take a number, a tenant and a pace."""
        run: Run | None = getattr(self.environment, "mlfleet_run", None)
        if run is None:
            raise StopUser
        self.run_of_load = run
        self.number = run.new_user()
        self.draw = random.Random(f"{run.seed} user {self.number}")
        self.pace = run.pace(self.number, self.think_s)
        self.runs_made = self._experiments = 0
        self.experiment_id = ""
        self.move()

    def on_stop(self) -> None:
        """Hang up."""
        if self.connection is not None:
            self.connection.close()

    def move(self) -> None:
        """Work with the tenant that is this user's now."""
        self.target = self.run_of_load.target(self.number)
        self.experiment_id = ""
        self.server = Server(self.target.url, self.target.token)
        if self.connection is not None:
            self.connection.close()
        self.connection = Connection(self.server)

    def stop(self, force: bool = False) -> bool:
        """Leave, after the answers in flight unless forced."""
        self.leaves = True
        stopped: bool = super().stop(force)
        return stopped

    @task
    def one_session(self) -> None:
        """Work until the session is over; one that failed is followed by the next."""
        try:
            if self.run_of_load.shape == "storm":
                self.storm()
            else:
                self.session()
        except GaveUpError:
            pass
        if self.run_of_load.shape == "diurnal":
            self.move()

    def session(self) -> None:
        """Do what such a user does, once."""
        raise NotImplementedError

    def storm(self) -> None:
        """Make the one call of a wake storm, then only be there."""
        raise NotImplementedError

    # Calls

    def paced(self, name: str, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """Make a call that the user thinks about first; `more` as in `call`."""
        return self.call(self.pace.paced(clock()), name, method, path, body, **more)

    def chained(self, name: str, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """Make a call that follows the last answer at once; `more` as in `call`."""
        return self.call(self.pace.chained(clock()), name, method, path, body, **more)

    def call(
        self,
        intended: float | None,
        name: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        entry: Entry | None = None,
        made: Made | None = None,
        headers: str = _JSON,
        connection: Connection | None = None,
    ) -> Answer:
        """Send at the intended time, again as a stock client would, and account for each try.

        Args:
            entry: what a write asks the tenant to keep.
            made: tells from the answer what a create made.
            connection: another one than this user's.

        Raises:
            GaveUpError: it failed for good.
        """
        intended = self.due(intended, name)
        self.until(intended)
        payload = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        connection = connection or self.connection
        assert connection is not None
        lines = "" if body is None else headers
        ask = functools.partial(connection.ask, method, path, payload, lines)
        failures = 0
        while not (answer := self._try(ask, entry, made)).ok:
            self.record(name, method, answer, intended)
            failures += 1
            pause = pause_s(answer.status, failures, answer.retry_after_s, self.draw)
            if pause is None:
                self.give_up(name, reason(answer))
            self.until(clock() + pause)
        self.record(name, method, answer, intended)
        return answer

    def _try(self, ask: Callable[[], Answer], entry: Entry | None, made: Made | None) -> Answer:
        if entry is None:
            with self.asking():
                return ask()
        with self.asking(), self.ledger.claim(entry) as claim:
            answer = ask()
            claim.settle(answer.status, made(answer) if made and answer.ok else None)
        return answer

    def due(self, intended: float | None, name: str) -> float:
        """Return when a call is due; a user whose trace or storm is over waits and ends it."""
        if intended is None:
            self.sleep(NOTHING_LEFT_S)
            raise GaveUpError(name)
        return intended

    def give_up(self, name: str, why: str) -> NoReturn:
        """End the session: a request failed for good."""
        self.run_of_load.note("gave up", f"{self.target.tenant} {name}: {why}")
        raise GaveUpError(name)

    def record(self, name: str, method: str, answer: Answer, intended: float) -> None:
        """Tell the run's recorder and Locust's statistics how long it took since the intent."""
        now = clock()
        latency_s = now - intended
        self.run_of_load.recorder.add(
            name, answer.wake_s is None, answer.status, latency_s, now, answer.wake_s
        )
        self.environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=latency_s * 1000,
            response_length=len(answer.body),
            exception=None if answer.ok else FailedTryError(reason(answer)),
            context={},
            response=None,
            start_time=intended,
            url=name,
        )

    # Time

    def until(self, moment: float) -> None:
        """Wait for a moment; one that is past already makes what follows late, not forgotten."""
        if (wait_s := moment - clock()) > 0 and not self.leaves:
            self.sleep(wait_s)
        if self.leaves:
            raise StopUser
        self.run_of_load.intended += 1

    def sleep(self, seconds: float) -> None:
        """Wait; Locust stops a user that only waits at once."""
        self._tell_locust()
        gevent.sleep(seconds)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Let an answer in flight come in before Locust stops the user."""
        self.asks += 1
        self._tell_locust()
        try:
            yield
        finally:
            self.asks -= 1
            self._tell_locust()

    def _tell_locust(self) -> None:
        if self._state != LOCUST_STATE_STOPPING:
            self._state = LOCUST_STATE_RUNNING if self.asks else LOCUST_STATE_WAITING

    # What sessions share

    @property
    def ledger(self) -> Ledger:
        """Of this process."""
        return self.run_of_load.ledger

    def new_run_name(self) -> str:
        """Return the name of this user's next run."""
        self.runs_made += 1
        start_ms = time.time_ns() // 1_000_000
        return facts.run_name(self.run_of_load.load, self.number, self.runs_made, start_ms)

    def experiment(self) -> str:
        """Return the id of the experiment that this user's runs go to.

        One user of ten makes one of its own, the others use Default: ten thousand users who all
        make one in their first minute would be a load that no fleet has.
        """
        if not self.experiment_id and self.draw.random() >= OWN_EXPERIMENT:
            self.experiment_id = DEFAULT_EXPERIMENT
        return self.experiment_id or self.new_experiment()

    def new_experiment(self) -> str:
        """Make an experiment of this user's own and return its id."""
        self._experiments += 1
        name = f"{self.run_of_load.load}-{self.number}-{self._experiments}"
        entry = ExperimentCreate(self.target.tenant, name)
        answer = self.paced(
            "experiments/create", "POST", f"{API}/experiments/create", {"name": name},
            entry=entry, made=experiment_id_of,
        )  # fmt: skip
        self.experiment_id = experiment_id_of(answer)
        return self.experiment_id


def experiment_id_of(answer: Answer) -> str:
    """Return the id in the answer to `experiments/create`."""
    made: str = orjson.loads(answer.body)["experiment_id"]
    return made


def reason(answer: Answer) -> str:
    """Return why a try failed, short enough for a table and the same for the same reason."""
    if answer.status == 0:
        return answer.problem or "no answer"
    try:
        fields = orjson.loads(answer.body)
        return f"{answer.status} {fields.get('error_code')}: {str(fields.get('message'))[:120]}"
    except (ValueError, AttributeError):
        return f"{answer.status}"
