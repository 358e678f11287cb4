"""A run folder as a load run leaves it, made up on a seed: for tests, and to look at a report."""

import json
import math
import random
from pathlib import Path
from typing import Any

from mlfleet.load.requests import Recorder

START = 1_795_800_000
NAMES = {
    "runs/create": (0.020, 0.08),
    "runs/log-batch": (0.009, 0.5),
    "runs/set-tag": (0.006, 0.1),
    "runs/search": (0.040, 0.2),
    "artifacts PUT": (0.080, 0.02),
    "registered-models/create": (0.030, 0.01),
    "v1/traces": (0.015, 0.09),
}


def make_run(
    folder: Path, seconds: int = 120, seed: int = 1, slower: float = 1.0, is_chaotic: bool = False
) -> None:
    """Write everything that a run leaves; the same arguments always write the same."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    stop = seconds * 0.5 if is_chaotic else -100.0
    _write(folder / "run.json", _run(seconds, seed))
    recorder = Recorder(folder)
    rows = []
    wakes = awake = 0
    cpu = dict.fromkeys(("gateway", "instance", "Postgres", "zygote", "locust", "sampler"), 0.0)
    for second in range(seconds):
        now, users = START + second + 0.5, round(2000 * min(1.0, second / (seconds * 0.2) + 0.05))
        is_away = stop <= second < stop + 8
        rate = round(users / 30 * 4 * draw.uniform(0.85, 1.15))
        recorder.populate(users, rate, now + 1)
        new = max(0, round(240 * min(1.0, second / (seconds * 0.25) + 0.05)) - awake)
        awake, wakes = awake + new, wakes + new + draw.randrange(3)
        for _ in range(0 if is_away else rate):
            _answer(recorder, draw, now, slower * (4 if stop + 8 <= second < stop + 16 else 1))
        for _ in range(new + 2):
            wake_s = slower * draw.lognormvariate(math.log(0.12), 0.5)
            recorder.add("runs/create", False, 200, wake_s + 0.02, now, wake_s=wake_s)
        if is_away:
            recorder.add("runs/log-batch", True, 429 if draw.random() < 0.8 else 0, 1.2, now)
        busy = 0.05 if is_away else rate / 400 * slower
        for role, part in (
            ("gateway", 0.3),
            ("instance", 0.8),
            ("Postgres", 0.5),
            ("zygote", 0.03),
            ("locust", 0.5),
            ("sampler", 0.04),
        ):
            cpu[role] += part * busy * draw.uniform(0.9, 1.1)
        rows.append(_row(second, now, awake, wakes, cpu, slower))
    recorder.close()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "resources.jsonl").write_text(lines)
    if is_chaotic:
        _chaos(folder, seconds, stop, draw)
    _write(folder / "check.json", _check())


def _answer(recorder: Recorder, draw: random.Random, now: float, slower: float) -> None:
    (name,) = draw.choices(list(NAMES), [weight for _, weight in NAMES.values()])
    latency_s = draw.lognormvariate(math.log(NAMES[name][0] * slower), 0.7)
    recorder.add(name, True, 200, latency_s, now)


def _row(
    second: int, now: float, awake: int, wakes: int, cpu: dict[str, float], slower: float
) -> dict[str, Any]:
    counts = {"gateway": 1, "zygote": 1, "instance": awake, "Postgres": 10 + awake, "locust": 3}
    each = {"gateway": 60e6, "zygote": 20e6, "instance": 16e6 * slower, "Postgres": 3e6}
    roles = {
        role: {
            "count": counts.get(role, 1),
            "cpu_s": round(used, 3),
            "pss_bytes": round(each.get(role, 40e6) * counts.get(role, 1))
            if second % 5 == 4
            else None,
            "fds": 20 + 12 * counts.get(role, 1),
        }
        for role, used in cpu.items()
    }
    return {
        "t": now,
        "awake": awake,
        "held": wakes % 4,
        "wakes": wakes,
        "wake_failures": 0,
        "crashes": 0,
        "connections": awake + 8,
        "connections_by": {"tenants": awake, "fleet": 8},
        "max_connections": 516,
        "machine": {"busy": 0.7, "cores": 2, "available_bytes": 12 << 30},
        "roles": roles,
    }


def _run(seconds: int, seed: int) -> dict[str, Any]:
    return {
        "run": "0a1b2c3d",
        "kind": "fleet",
        "started_at": START,
        "ended_at": START + seconds,
        "command": "mlfleet load run --users 2000 --tenants 1000 --run-time 2m --max-p99 0.5",
        "host": "http://127.0.0.1:8080",
        "seed": seed,
        "users": 2000,
        "shape": "ramp",
        "mix": "training=6,dashboard=3,registry=1",
        "tenants": 1000,
        "processes": 2,
        "machine": {
            "cpu": "Example CPU @ 2.40GHz",
            "cores": 2,
            "memory_bytes": 24 << 30,
            "kernel": "6.18.0",
            "python": "3.11.7",
            "mlflow": "3.17.2",
            "commit": "abcdef0",
        },
        "limits": {"p99_s": 0.5, "errors": 0.0},
    }


def _check() -> dict[str, Any]:
    def count(sent: int) -> dict[str, int]:
        row = {"sent": sent, "acknowledged": sent - 3, "found": sent - 1}
        return row | {"missing": 0, "altered": 0, "unexplained": 0}

    return {
        "run": "0a1b2c3d",
        "is_good": True,
        "tenants": 1000,
        "requests": {"acknowledged": 20500, "refused": 0, "unknown": 12},
        "counts": {"run": count(1520), "metric": count(408230), "param": count(15200)},
        "findings": [],
        "findings_in_all": 0,
        "unanswered_creates": 3,
        "repeats": [],
        "unchecked": ["outbox row"],
        "remarks": [],
    }


def _chaos(folder: Path, seconds: int, stop: float, draw: random.Random) -> None:
    strikes = [(draw.uniform(5, seconds - 5), "instance") for _ in range(40)]
    strikes += [(draw.uniform(5, seconds - 5), "zygote") for _ in range(4)]
    strikes += [(seconds * 0.8, "gateway"), (stop, "postgres stop")]
    (folder / "events.jsonl").write_text(
        "".join(
            json.dumps({"t": START + at, "kind": kind, "detail": f"{kind} was struck"}) + "\n"
            for at, kind in strikes
        )
    )


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document))
