"""A tenant whose artifacts are in S3, through a whole fleet and a stock client."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.fixtures_postgres import free_port

KEYS = {
    "region_name": "eu-central-1",
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "a-secret-of-the-fleet",
}
ROUND_TRIP = """
import mlflow
with mlflow.start_run() as run:
    mlflow.log_text("kept in a bucket", "notes/words.txt")
print(mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/words.txt"))
"""


@pytest.fixture
def s3() -> Iterator[str]:
    """An S3 server's address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.filterwarnings("ignore")  # of boto3 and moto
def test_artifacts_of_a_tenant_on_s3_land_in_its_prefix(
    s3: str, fleet_starter: Any, tmp_path: Any
) -> None:
    bucket = boto3.client("s3", endpoint_url=s3, **KEYS)
    bucket.create_bucket(
        Bucket="fleet", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    environment = {
        "MLFLEET_S3_ENDPOINT_URL": s3,
        "MLFLEET_S3_REGION": KEYS["region_name"],
        "MLFLEET_S3_ACCESS_KEY_ID": KEYS["aws_access_key_id"],
        "MLFLEET_S3_SECRET_ACCESS_KEY": KEYS["aws_secret_access_key"],
    }
    fleet = fleet_starter(tmp_path / "data", environment=environment)
    uri = "s3://fleet/tenants/far"
    token = fleet.command("tenant", "create", "far", "--artifact-uri", uri)["token"]
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP],
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"{fleet.url}/far",
            "MLFLOW_TRACKING_TOKEN": token,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "kept in a bucket" in done.stdout, done.stderr
    [stored] = bucket.list_objects_v2(Bucket="fleet")["Contents"]
    assert stored["Key"].startswith("tenants/far/")
    assert stored["Key"].endswith("notes/words.txt")
    assert KEYS["aws_secret_access_key"] not in (fleet.data / "fleet.json").read_text()
