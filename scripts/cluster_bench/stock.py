"""The stock `mlflow server` as Knative Services: its defaults, and one worker without job runner.

Each has a claim of its own for the SQLite file, so that a cold start finds the schema made: what is
compared is a start, not a migration.
"""

from cluster_bench.kube import Document

IMAGE = "dev.local/mlfleet-stock:test"
DEFAULTS = "stock-defaults"
ONE_WORKER = "stock-one-worker"
COPIES = ("stock-copy-1", "stock-copy-2", "stock-copy-3")
"""The defaults thrice, for their memory: these stay up."""
WINDOW = "6s"
"""The shortest that Knative allows: what happens between two cold starts is not measured."""


def documents(namespace: str, name: str) -> list[Document]:
    """Return a claim and the Service that stands on it."""
    one_worker = name == ONE_WORKER
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    if one_worker:
        variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = ["mlflow", "server", "--host", "0.0.0.0", "--port", "8080", "--allowed-hosts", "*"]
    container = {
        "name": "mlflow",
        "image": IMAGE,
        "command": command + ["--workers", "1"] * one_worker,
        "workingDir": "/data",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "readinessProbe": {"httpGet": {"path": "/health"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    annotations = {
        "autoscaling.knative.dev/window": WINDOW,
        "autoscaling.knative.dev/min-scale": "1" if name in COPIES else "0",
        "autoscaling.knative.dev/max-scale": "1",
        # As in a cell: the activator stays in the path.
        "autoscaling.knative.dev/target-burst-capacity": "-1",
    }
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"containers": [container], "volumes": [volume]},
            }
        },
    }
    return [claim, service]
