"""Fork many instances, let each do one log-batch and one runs/search, and weigh them.

The experiment behind the figures of an instance's memory and wake time in docs/architecture.md:
a real zygote, real Postgres, confined instances, no gateway. Usage:

    python scripts/experiment_fork.py [--instances 200] [--tenants 8]
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlfleet.cell.instance import memory_of
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.database.admin import Admin
from mlfleet.database.embedded import EmbeddedPostgres
from tests.cell.zygotes import TestInstance, TestZygote, running_zygote
from tests.fixtures_postgres import free_port

API = "/api/2.0/mlflow/runs"
MIB = 1024 * 1024


def wake_and_work(
    zygote: TestZygote, config: InstanceConfig, log: Path
) -> tuple[TestInstance, float]:
    """Return an awake instance after its two calls, and the seconds to its first runs/create."""
    began = time.monotonic()
    instance = zygote.fork(config, log)
    status, _, body = instance.call("POST", f"{API}/create", {"experiment_id": "0"})
    wake_s = time.monotonic() - began
    assert status == 200, body
    run_id = json.loads(body)["run"]["info"]["run_id"]
    metrics = [{"key": f"m{n}", "value": n, "timestamp": 1, "step": 0} for n in range(10)]
    batch = {"run_id": run_id, "metrics": metrics, "params": [{"key": "depth", "value": "3"}]}
    assert instance.call("POST", f"{API}/log-batch", batch)[0] == 200
    search = {"experiment_ids": ["0"], "max_results": 10}
    assert instance.call("POST", f"{API}/search", search)[0] == 200
    return instance, wake_s


def weigh(instances: Sequence[TestInstance], wakes: Sequence[float]) -> dict[str, float]:
    """Return the figures: medians over all instances, all of them awake."""
    memory = [memory_of(str(instance.pid)) for instance in instances]
    ordered = sorted(wakes)
    return {
        "instances": len(instances),
        "wake_ms_median": round(statistics.median(wakes) * 1000, 1),
        "wake_ms_p99": round(ordered[int(len(ordered) * 0.99)] * 1000, 1),
        "proportional_mib": round(
            statistics.median(m["proportional_bytes"] for m in memory) / MIB, 2
        ),
        "private_mib": round(statistics.median(m["private_bytes"] for m in memory) / MIB, 2),
    }


def main() -> None:
    """Run the experiment and print its figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--tenants", type=int, default=8, help="databases that instances share")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlfleet-fork-")))
        server = EmbeddedPostgres(folder / "data", free_port(), 300, folder / "postgres.log")
        admin = Admin(server.start())
        stack.callback(server.stop)
        stack.callback(admin.close)
        admin.prepare()
        for tenant in range(options.tenants):
            admin.clone(tenant, "password")
        throwaway = stack.enter_context(admin.throwaway())
        zygote, ready = stack.enter_context(running_zygote(throwaway, folder / "zygote.log"))
        instances, wakes = [], []
        for number in range(options.instances):
            tenant = number % options.tenants
            root = folder / "artifacts" / str(tenant)
            root.mkdir(parents=True, exist_ok=True)
            config = InstanceConfig(
                f"t{number}", admin.access(tenant, "password"), str(root), "secret", 0, 0, 1.0, 20.0
            )
            instance, wake_s = wake_and_work(zygote, config, folder / "tenant.log")
            stack.callback(instance.control.close)
            instances.append(instance)
            wakes.append(wake_s)
        print(json.dumps({"warm_s": ready["warm_s"], **weigh(instances, wakes)}))


if __name__ == "__main__":
    main()
