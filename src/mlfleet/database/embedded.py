"""The Postgres that comes along: initialised, started and stopped as our own child process.

Listens on 127.0.0.1 only, has no Unix socket (a tenant could reach one by its path), takes SCRAM
passwords only. Durability stays on: fsync, full pages and synchronous commit are Postgres'
defaults. Ends with its parent even when that is killed with -9 (see launch.py); a left-over one of
the same folder is stopped before a new one starts.
"""

import contextlib
import logging
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

from mlfleet.database import launch
from mlfleet.database.binaries import postgres_binary
from mlfleet.errors import FleetError

log = logging.getLogger(__name__)

RECOVERY_S = 900.0
"""Replaying `max_wal_size` takes seconds on a quiet machine, and minutes on a busy one."""
LEFTOVER_S = 10.0
ADMIN_USER = "postgres"
_HOST = "127.0.0.1"
_PASSWORD_FILE = "mlfleet_admin_password"
_SETTINGS = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # A tenant's statements are short: compiling and forking for them costs more than it gives.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    # Full pages dominate the WAL of a fresh clone.
    "wal_compression": "pglz",
    # Processes that a fleet has no use for: I/O workers, the logical replication launcher.
    "io_method": "sync",
    "max_logical_replication_workers": "0",
    # The launcher visits every database once per naptime; a minute is too short for thousands.
    "autovacuum_naptime": "5min",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "logging_collector": "off",
}


class EmbeddedPostgres:
    """One Postgres server over one data folder.

    Args:
        data_dir: PGDATA; created at the first start. Its parent must exist.
        port: on 127.0.0.1; below 32768, so that outgoing connections cannot take it.
        max_connections: hard limit of the server, three of them for superusers only.
        log: file that the server's messages are appended to.
    """

    def __init__(self, data_dir: Path, port: int, max_connections: int, log: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.max_connections = max_connections
        self.log = log.absolute()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def admin_uri(self) -> str:
        """The superuser's address, password included; never log it."""
        try:
            password = (self.data_dir / _PASSWORD_FILE).read_text().strip()
        except FileNotFoundError:
            raise FleetError(
                f"{self.data_dir} was not made by mlfleet ({_PASSWORD_FILE} is missing): "
                "move it away, or give its server's address in MLFLEET_ADMIN_URI"
            ) from None
        quoted = urllib.parse.quote(password, safe="")
        return f"postgresql://{ADMIN_USER}:{quoted}@{_HOST}:{self.port}/postgres"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def is_running(self) -> bool:
        """Return whether the server process is there."""
        return self.pid is not None

    def start(self, wait_s: float = RECOVERY_S) -> str:
        """Initialise the folder if it is new, start the server, wait until it answers.

        Args:
            wait_s: longest wait; replaying the log after a crash counts, and what is stopped in the
                middle of that begins again the next time.

        Returns:
            The superuser's address, as `admin_uri`.

        Raises:
            FleetError: with the reason and the last lines of the server's log.
        """
        if self.is_running():
            return self.admin_uri
        deadline = time.monotonic() + wait_s
        self._initialise_if_new(_identity(self.data_dir))
        uri = self.admin_uri
        began = time.monotonic()
        self._launch(deadline)
        self._wait_until_ready(deadline)
        log.info("postgres_ready", extra={"port": self.port, "pid": self.pid,
                 "start_s": round(time.monotonic() - began, 3)})  # fmt: skip
        return uri

    def launch(self) -> None:
        """Start the server of a folder that is not new, and return before it answers.

        For who has other things to watch: replaying the log can take minutes, and nobody stops it.

        Raises:
            FleetError: it cannot be started now.
        """
        if not self.is_running():
            self._launch(time.monotonic() + LEFTOVER_S)

    def _launch(self, deadline: float) -> None:
        self._check_version()
        self._end_leftover(deadline)
        self._check_port()
        self._run(_identity(self.data_dir))

    def initialise(self) -> str:
        """Initialise the folder if it is new, so that the address is known before the start."""
        self._initialise_if_new(_identity(self.data_dir))
        return self.admin_uri

    def stop(self, wait_s: float = 15.0) -> None:
        """Shut down fast: sessions are cut off, everything committed is on disk."""
        if not (process := self._process) or process.poll() is not None:
            return
        for order, patience_s in ((signal.SIGINT, wait_s), (signal.SIGQUIT, 5.0)):
            process.send_signal(order)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
                return
            log.warning("postgres_stop_slow", extra={"signal": order.name})
        process.kill()
        process.wait()

    def _initialise_if_new(self, identity: str) -> None:
        if not self.data_dir.exists() or not any(self.data_dir.iterdir()):
            self._initialise(identity)

    def _initialise(self, identity: str) -> None:
        """Make the folder under another name first: a half-made one is never taken for data."""
        fresh = self.data_dir.with_name(self.data_dir.name + ".new")
        password_file = self.data_dir.with_name(self.data_dir.name + ".password")
        shutil.rmtree(fresh, ignore_errors=True)
        password = secrets.token_urlsafe(24)
        _write_private(password_file, password, identity)
        if identity.startswith("user:"):
            fresh.mkdir(mode=0o700)
            os.chown(fresh, int(identity[5:]), -1)
        # C.UTF-8 is built in: the same order everywhere, whatever locales the machine has.
        made = subprocess.run(
            _command(identity, "initdb", "-D", str(fresh), "-U", ADMIN_USER, "-E", "UTF8",
                     "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-instructions",
                     "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            capture_output=True, text=True, cwd=self.data_dir.parent, check=False,
        )  # fmt: skip
        if made.returncode != 0:
            password_file.unlink()
            shutil.rmtree(fresh, ignore_errors=True)
            raise FleetError(f"initdb failed in {self.data_dir.parent}: {_last(made.stderr)}")
        _write_private(fresh / _PASSWORD_FILE, password, identity)
        if self.data_dir.exists():
            self.data_dir.rmdir()
        fresh.rename(self.data_dir)
        password_file.unlink()

    def _check_version(self) -> None:
        ours = subprocess.run(
            [postgres_binary("postgres"), "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[2]
        theirs = (self.data_dir / "PG_VERSION").read_text().strip()
        if ours.split(".")[0] != theirs:
            raise FleetError(
                f"{self.data_dir} holds data of Postgres {theirs}, the installed one is {ours}: "
                f"install Postgres {theirs} to run it, or carry the data over with pg_upgrade"
            )

    def _end_leftover(self, deadline: float) -> None:
        """Stop a server that a killed parent left on this folder; drop a stale pid file.

        Postgres itself takes any living process with the noted number for a server, which goes
        wrong when numbers are reused (always in a container).
        """
        pid_file = self.data_dir / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        if not _serves(pid, self.data_dir):
            pid_file.unlink(missing_ok=True)
            return
        log.warning("postgres_leftover_stopped", extra={"pid": pid})
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        while _serves(pid, self.data_dir):
            if time.monotonic() > deadline:
                raise FleetError(f"another Postgres (pid {pid}) keeps using {self.data_dir}")
            time.sleep(0.02)

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, self.port))
            except OSError as exc:
                raise FleetError(
                    f"Postgres cannot listen on {_HOST}:{self.port}: {exc.strerror}; "
                    "end what uses the port or choose another one"
                ) from exc

    def _run(self, identity: str) -> None:
        settings = {
            **_SETTINGS, "port": str(self.port), "max_connections": str(self.max_connections)
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = _command(identity, "postgres", "-D", str(self.data_dir), *options)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        started, failure = threading.Event(), list[OSError]()

        # The kernel's parent-death signal follows the thread that forked, not the process, so a
        # thread that lives as long as the server does the forking.
        def keep() -> None:
            try:
                with self.log.open("ab") as out:
                    self._process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                        cwd="/", start_new_session=True,
                    )  # fmt: skip
            except OSError as exc:
                failure.append(exc)
                return
            finally:
                started.set()
            self._process.wait()

        self._log_from = self.log.stat().st_size if self.log.exists() else 0
        threading.Thread(target=keep, name="postgres-parent", daemon=True).start()
        started.wait()
        if failure:
            raise FleetError(f"Postgres could not be started: {failure[0]}")

    def _wait_until_ready(self, deadline: float) -> None:
        while not self._is_ready():
            if not self.is_running():
                raise FleetError(f"Postgres ended while starting: {self._complaint()}")
            if time.monotonic() > deadline:
                self.stop()
                raise FleetError(f"Postgres is not ready in time: {self._complaint()}")
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"
        return False

    def _complaint(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self._log_from)
            return f"{_last(file.read().decode(errors='replace'))} (log: {self.log})"


def _command(identity: str, program: str, *arguments: str) -> list[str]:
    return [
        sys.executable, "-I", "-S", launch.__file__, identity, str(os.getpid()),
        str(postgres_binary(program)), *arguments,
    ]  # fmt: skip


def _identity(data_dir: Path) -> str:
    """Choose who Postgres runs as; see launch.py for the forms."""
    if os.geteuid() != 0:
        return "plain"
    owner = data_dir.stat().st_uid if data_dir.exists() else 0
    if owner != 0:
        return _real_user(data_dir, owner)
    # initdb looks its user up, so the uid inside must have a name.
    inside = next((user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0), 65534)
    namespace = f"namespace:{inside}"
    probe = subprocess.run(
        [*_command(namespace, "postgres", "--version")], capture_output=True, check=False
    )
    if probe.returncode == 0:
        return namespace
    return _real_user(data_dir, inside)


def _real_user(data_dir: Path, uid: int) -> str:
    program = Path(postgres_binary("postgres"))
    for path in (*data_dir.parents, *program.parents):
        status = path.stat()
        if not status.st_mode & 0o001 and status.st_uid != uid:
            raise FleetError(
                f"Postgres never runs as root, and as uid {uid} it cannot pass {path}: "
                f"run mlfleet as an ordinary user, or `chmod o+x {path}`"
            )
    return f"user:{uid}"


def _serves(pid: int, data_dir: Path) -> bool:
    """Return whether process `pid` is a server over this folder: Postgres changes into it."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == data_dir.resolve()
    except OSError:
        return False


def _write_private(path: Path, text: str, identity: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
        if identity.startswith("user:"):
            os.fchown(file.fileno(), int(identity[5:]), -1)


def _last(text: str) -> str:
    """Return the line that says why: the last FATAL or error, else the last of all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    telling = [line for line in lines if any(w in line for w in ("FATAL:", "error:", "PANIC:"))]
    return (telling or lines)[-1]
