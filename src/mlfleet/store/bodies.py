"""The JSON of answers, as stock's `message_to_json` writes it; fields that are unset are left out.

Only what JSON lets differ does: characters beyond ASCII stay what they are in a long answer.
"""

import json
from collections.abc import Iterable
from typing import Any

import orjson

from mlfleet.store import calls


def encode(answer: dict[str, Any]) -> bytes:
    """Return an answer of any length."""
    return orjson.dumps(answer, option=orjson.OPT_INDENT_2)


def created(call: calls.CreateRun, row: tuple[Any, ...]) -> bytes:
    """Return the body of `runs/create`, to the byte what stock makes."""
    info = run_info(
        call.run_id,
        call.experiment_id,
        call.run_name,
        call.user_id,
        "RUNNING",
        call.start_time,
        None,
        row[1],
        "active",
    )
    run = {"run": {"info": info, "data": {"tags": pairs(call.tags.items())}, "inputs": {}}}
    return json.dumps(run, indent=2).encode()


def updated(row: tuple[Any, ...]) -> bytes:
    """Return the body of `runs/update`, to the byte what stock makes."""
    return json.dumps({"run_info": run_info(*row[1:])}, indent=2).encode()


def run_info(
    run_id: str,
    experiment_id: int | str,
    name: str | None,
    user_id: str,
    status: str,
    start_time: int,
    end_time: int | None,
    artifact_uri: str | None,
    stage: str,
) -> dict[str, Any]:
    """Return a run's `info` from the columns of its row."""
    return {
        "run_uuid": run_id,
        "experiment_id": str(experiment_id),
        **({"run_name": name} if name is not None else {}),
        "user_id": user_id,
        "status": status,
        "start_time": start_time,
        **({"end_time": end_time} if end_time else {}),
        **({"artifact_uri": artifact_uri} if artifact_uri else {}),
        "lifecycle_stage": stage,
        "run_id": run_id,
    }


def pairs(items: Iterable[tuple[str, str | None]]) -> list[dict[str, str]]:
    """Return params or tags."""
    return [{"key": key} if value is None else {"key": key, "value": value} for key, value in items]
