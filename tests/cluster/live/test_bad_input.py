"""What a person gets wrong in a cluster is said in one line, and nothing half made stays.

Each test breaks a fleet of its own, in a namespace of its own: the overlay's objects, moved there.
"""

import base64
import copy
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from .conftest import ROOT, Tenant, get, kubectl, mlfleet, until

Document = dict[str, Any]
NewTenant = Callable[..., Tenant]

NOWHERE = "postgresql://fleet:secret@127.0.0.1:1/postgres"
DATABASES = "SELECT datname FROM pg_database WHERE datname LIKE 'mlfleet%'"


class Fleet:
    """The test overlay's objects in another namespace, applied piece by piece."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        text = (ROOT / "tests" / "golden" / "test.yaml").read_text()
        self._documents: list[Document] = list(yaml.safe_load_all(text))

    def __getitem__(self, what: str) -> Document:
        """Return an object by "Kind/name", to be changed and applied."""
        [found] = [d for d in self._documents if f"{d['kind']}/{d['metadata']['name']}" == what]
        found = copy.deepcopy(found)
        found["metadata"]["namespace"] = self.namespace
        return found

    def of_kind(self, *kinds: str) -> list[Document]:
        """Return all objects of these kinds."""
        names = [f"{d['kind']}/{d['metadata']['name']}" for d in self._documents]
        return [self[name] for name in names if name.partition("/")[0] in kinds]

    def apply(self, *documents: Document, check: bool = True) -> str:
        """Apply objects; return what kubectl said."""
        text = "---\n".join(map(yaml.safe_dump, documents))
        return self.kubectl("apply", "--server-side", "-f", "-", stdin=text, check=check)

    def apply_accounts(self) -> None:
        """Apply what every pod here needs: accounts, rights, settings."""
        kinds = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap")
        documents = self.of_kind(*kinds)
        for one in documents:
            for subject in one.get("subjects", []):
                subject["namespace"] = self.namespace
        self.apply(*documents)

    def apply_postgres(self, max_connections: int = 200) -> None:
        """Start a Postgres of the fleet's own; its password comes from the Job's first step."""
        configuration = next(
            d
            for d in self.of_kind("ConfigMap")
            if d["metadata"]["name"].startswith("postgres-configuration")
        )
        conf = configuration["data"]["postgresql.conf"]
        changed = conf.replace(
            "\nmax_connections = 200\n", f"\nmax_connections = {max_connections}\n"
        )
        configuration["data"]["postgresql.conf"] = changed
        self.apply(configuration, self["Service/postgres"], self["StatefulSet/postgres"])

    def apply_cell(self) -> None:
        """Make the cell and its claim."""
        self.apply(self["PersistentVolumeClaim/mlfleet-artifacts"], self.cell)

    @property
    def cell(self) -> Document:
        return self["Service/cell-0"]

    @property
    def job(self) -> Document:
        return self["Job/database-prepare"]

    def kubectl(self, *arguments: object, **options: Any) -> str:
        return kubectl(f"--namespace={self.namespace}", *arguments, **options)

    def doctor(self) -> list[str]:
        """Return what doctor finds, each as one line."""
        found = mlfleet("doctor", "--namespace", self.namespace, check=False)
        return [f"{one['verdict']} {one['check']} {one['message']}" for one in found["findings"]]

    def said(self, *sentences: str) -> str:
        """Wait until one line of doctor's has all the sentences, and return it."""

        def line() -> str | None:
            lines = self.doctor()
            return next((x for x in lines if all(part in x for part in sentences)), None)

        found: str = until(f"doctor says {sentences}", line, 150)
        assert "\n" not in found
        return found

    def sql(self, statement: str, check: bool = True) -> list[str]:
        """Return the rows of a query, asked inside Postgres' own pod."""
        secret = json.loads(self.kubectl("get", "secret", "mlfleet-postgres", "-o", "json"))
        password = base64.b64decode(secret["data"]["password"]).decode()
        return self.kubectl(
            "exec", "postgres-0", "-c", "postgres", "--", "env", f"PGPASSWORD={password}",
            "psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc", statement, check=check,
        ).split()  # fmt: skip


@pytest.fixture
def broken(fleet: str) -> Iterator[Fleet]:
    """A fleet with accounts and settings and nothing else, in a new namespace."""
    made = Fleet(f"mlfleet-bad-{uuid.uuid4().hex[:6]}")
    kubectl("create", "namespace", made.namespace)
    try:
        made.apply_accounts()
        yield made
    finally:
        kubectl("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture
def flag_off(fleet: str) -> Iterator[str]:
    """Switch one of Knative's feature flags off for a test."""
    flag = "kubernetes.podspec-persistent-volume-claim"

    def switch(value: str) -> None:
        kubectl(
            "patch", "configmap", "config-features", "--namespace=knative-serving", "--type=merge",
            "-p", json.dumps({"data": {flag: value}}),
        )  # fmt: skip

    switch("disabled")
    yield flag
    switch("enabled")


def test_a_cell_without_its_feature_flag_is_refused_and_doctor_says_which(
    broken: Fleet, flag_off: str
) -> None:
    def refused() -> str | None:
        said = broken.apply(broken.cell, check=False)
        return said if "persistentVolumeClaim" in said else None

    until("Knative refuses the cell", refused, 30)
    broken.kubectl("delete", "ksvc", "cell-0", "--ignore-not-found")  # of a try before the switch
    assert "persistentVolumeClaim" in broken.apply(broken.cell, check=False)
    assert "NotFound" in broken.kubectl("get", "ksvc", "cell-0", check=False)
    assert flag_off in broken.said("problem flag", "kubectl patch configmap config-features")
    assert "kubectl apply -k" in broken.said("problem cell there is no cell")


def test_a_claim_of_a_class_that_is_not_there_is_named_with_the_classes_that_are(
    broken: Fleet,
) -> None:
    claim = broken["PersistentVolumeClaim/mlfleet-artifacts"]
    claim["spec"]["storageClassName"] = "gold"
    broken.apply(claim)
    said = broken.said("problem claim mlfleet-artifacts of class 'gold' is Pending")
    present = {one["metadata"]["name"] for one in get("storageclasses")["items"]}
    assert "mlfleet-shared" in present
    for name in present:
        assert name in said.partition("this cluster has")[2]


def test_a_postgres_that_cannot_be_reached_is_said_by_the_job_and_by_the_cell(
    broken: Fleet,
) -> None:
    broken.kubectl(
        "create", "secret", "generic", "mlfleet-postgres",
        f"--from-literal=admin-uri={NOWHERE}", "--from-literal=password=secret",
    )  # fmt: skip
    broken.apply(broken.job)
    broken.apply_cell()
    job = broken.said("pod database-prepare-", "prepare: waiting: Postgres:", "Connection refused")
    cell = broken.said("pod cell-0-", "cell: ", "Connection refused")
    assert "secret" not in job + cell, "the address's password is told to nobody"
    assert broken.said("problem database", "its pod below says why")


def test_too_few_connections_are_refused_by_the_job_before_it_makes_anything(
    broken: Fleet,
) -> None:
    broken.apply_postgres(max_connections=120)
    broken.apply(broken.job)
    broken.said(
        "pod database-prepare-", "Postgres allows 120 connections and the fleet is set to 200"
    )
    assert broken.sql(DATABASES) == []
    # Mended in Postgres, and nothing else is touched: the Job goes on by itself.
    broken.apply_postgres(max_connections=200)
    broken.kubectl("delete", "pod", "postgres-0")
    until("the Job is done", lambda: "mlfleet_catalogue" in broken.sql(DATABASES, check=False), 300)


def test_a_template_of_another_mlflow_version_keeps_the_cell_from_serving_and_says_so(
    broken: Fleet,
) -> None:
    broken.apply_postgres()
    broken.apply(broken.job)
    broken.kubectl("wait", "--for=condition=Complete", "job/database-prepare", "--timeout=240s")
    [template] = [name for name in broken.sql(DATABASES) if "template" in name]
    other = "mlfleet_template_2_0_0_00000000"
    broken.sql(f"ALTER DATABASE {template} RENAME TO {other}")
    broken.apply_cell()
    said = broken.said("pod cell-0-", f"the template {template} is missing")
    assert "database prepare" in said
    broken.kubectl("delete", "job", "database-prepare", "--ignore-not-found")
    broken.apply(broken.job)
    broken.kubectl("wait", "--for=condition=Ready", "ksvc/cell-0", "--timeout=240s")
    assert {template, other} <= set(broken.sql(DATABASES)), "the other version's is left alone"
    assert not [line for line in broken.doctor() if line.startswith("problem pod")]


def test_a_tenant_with_the_name_of_a_deleted_one_starts_empty_at_once(
    new_tenant: NewTenant,
) -> None:
    tenant = new_tenant()
    run = tenant.create_run()
    mlfleet("tenant", "delete", tenant.name, "--yes")
    row = mlfleet("tenant", "create", tenant.name)  # its old Secret may still be there
    fresh = Tenant(tenant.name, row["url"], row["token"])
    assert fresh.token != tenant.token
    until(
        "the new token opens it",
        lambda: fresh.call("GET", "runs/get", run_id=run).status_code == 404,
        30,
    )
    fresh.create_run()


def test_a_tenant_of_a_cell_that_is_not_there_says_so_until_there_is_one(fleet: str) -> None:
    name = f"t-{uuid.uuid4().hex[:10]}"
    document = {
        "apiVersion": "mlfleet.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {"cell": "cell-late"},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(document))
    try:
        until("its condition says so", lambda: ready(name).get("reason") == "UnknownCell", 30)
        assert ready(name)["status"] == "False"
        assert "there is no cell cell-late" in ready(name)["message"]
        assert "NotFound" in kubectl("get", "secret", f"{name}-mlflow", check=False)
        mlfleet("cell", "add", "cell-late", "--max-awake", "2", "--max-replicas", "1")
        until("it has seen the cell", lambda: ready(name).get("status") == "True", 120)
    finally:
        kubectl("delete", "tenant", name)
        kubectl("delete", "ksvc", "cell-late", "--wait=false", "--ignore-not-found")


def ready(tenant: str) -> Document:
    found = get(f"tenant/{tenant}").get("status", {}).get("conditions", [])
    return next((one for one in found if one["type"] == "Ready"), {})
