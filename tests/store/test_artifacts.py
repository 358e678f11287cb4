"""Artifacts through a real instance: whole files under one root, limits, and nothing outside."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.conftest import Instance

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
MEGABYTE = 1024 * 1024


def files(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def served(new_instance: Callable[..., Instance], root: Path) -> Instance:
    return new_instance(root=root, artifact_bytes=20 * MEGABYTE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk that fills up needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_comes_back_as_it_went(served: Instance, root: Path) -> None:
    data = os.urandom(3 * MEGABYTE + 17)
    assert served.call("PUT", f"{PROXY}/0/a/artifacts/x/m%20%C3%BC.bin", data).status == 200
    answer = served.call("GET", f"{PROXY}/0/a/artifacts/x/m%20%C3%BC.bin")
    assert (answer.status, answer.body) == (200, data)
    assert files(root)["0/a/artifacts/x/m ü.bin"] == len(data)
    listed = served.call("GET", "/api/2.0/mlflow-artifacts/artifacts?path=0/a/artifacts/x").json()
    assert [(f["path"], f["file_size"]) for f in listed["files"]] == [("m ü.bin", len(data))]
    assert served.call("PUT", f"{PROXY}/0/a/artifacts/x/m%20%C3%BC.bin", b"new").status == 200
    assert served.call("DELETE", f"{PROXY}/0/a/artifacts/x").status == 200
    assert served.call("GET", f"{PROXY}/0/a/artifacts/x/m%20%C3%BC.bin").status == 404


def test_an_upload_that_breaks_off_leaves_nothing(served: Instance, root: Path) -> None:
    before = files(root)
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        head = (
            f"PUT {PROXY}/0/b/half.bin HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000000\r\n"
        )
        client.sendall(head.encode() + b"\r\n" + b"x" * 2_000_000)
        deadline = time.monotonic() + 10
        while len(files(root)) == len(before) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert all(".artifact.uploading." in name for name in files(root).keys() - before.keys())
        assert served.call("GET", f"{PROXY}/0/b/half.bin").status == 404
    deadline = time.monotonic() + 10
    while files(root) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert files(root) == before


def test_past_the_quota_is_413_and_deleting_helps(served: Instance, root: Path) -> None:
    assert served.call("PUT", f"{PROXY}/0/q/one", b"x" * 15 * MEGABYTE).status == 200
    before = files(root)
    refused = served.call("PUT", f"{PROXY}/0/q/two", b"x" * 9 * MEGABYTE)
    assert refused.status == 413
    assert "20971520 bytes" in refused.json()["message"]
    assert files(root) == before
    assert served.call("DELETE", f"{PROXY}/0/q/one").status == 200
    assert served.call("PUT", f"{PROXY}/0/q/two", b"x" * 9 * MEGABYTE).status == 200
    # Replacing a file frees the old one.
    for _ in range(4):
        assert served.call("PUT", f"{PROXY}/0/q/two", b"x" * 9 * MEGABYTE).status == 200
    served.call("DELETE", f"{PROXY}/0/q/two")


def test_a_full_disk_is_507_and_shows_no_half_file(
    new_instance: Callable[..., Instance], small_disk: Path
) -> None:
    instance = new_instance(root=small_disk)
    refused = instance.call("PUT", f"{PROXY}/0/big", b"x" * 5 * MEGABYTE)
    assert (refused.status, files(small_disk)) == (507, {})
    assert "full" in refused.json()["message"]
    assert instance.call("PUT", f"{PROXY}/0/small", b"x" * 1000).status == 200
    assert instance.call("GET", f"{PROXY}/0/small").status == 200
    instance.stop()


def test_large_files_stream_in_flat_memory(
    new_instance: Callable[..., Instance], tmp_path: Path
) -> None:
    instance = new_instance(root=tmp_path)
    served_kb = lambda: int(  # noqa: E731
        Path(f"/proc/{instance.process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
    )
    instance.call("PUT", f"{PROXY}/0/warm", b"x" * 3 * MEGABYTE)
    instance.call("GET", f"{PROXY}/0/warm")
    before = served_kb()
    with socket.create_connection(("127.0.0.1", instance.port)) as client:
        size = 256 * MEGABYTE
        head = f"PUT {PROXY}/0/large HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n"
        client.sendall(head.encode())
        for _ in range(256):
            client.sendall(b"x" * MEGABYTE)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.sendall(f"GET {PROXY}/0/large HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        received = 0
        while received < size:
            received += len(client.recv(MEGABYTE))
    assert served_kb() - before < 50 * 1024
    shutil.rmtree(tmp_path / "0")


@pytest.mark.parametrize(
    "path", ["../x", "%2e%2e/x", "0/%2e%2e/%2e%2e/x", "%2fetc%2fpasswd", "0/..%2f..%2fx", "link/x"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_path_leads_outside(served: Instance, root: Path, path: str, method: str) -> None:
    outside = root.parent / f"{root.name}-outside"
    outside.mkdir(exist_ok=True)
    (outside / "x").write_text("secret")
    (root.parent / "x").write_text("secret")
    if not (root / "link").is_symlink():
        (root / "link").symlink_to(outside)
    answer = served.call(method, f"{PROXY}/{path}", b"new" if method == "PUT" else None)
    assert answer.status in (308, 400, 404)  # 308: "//etc" is "etc", inside
    assert b"secret" not in answer.body
    assert (outside / "x").read_text() == "secret"
    assert (root.parent / "x").read_text() == "secret"
    (root / "link").unlink()


@pytest.mark.parametrize(
    "location", ["file:///etc", "/etc", "s3://other/x", "gs://other", "dbfs:/x", "{root}/../b"]
)
def test_an_experiment_outside_the_root_is_refused(
    served: Instance, root: Path, location: str
) -> None:
    location = location.replace("{root}", str(root))
    name = f"outside {location}"
    answer = served.post("experiments/create", {"name": name, "artifact_location": location})
    assert (answer.status, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "outside this tenant's artifact root" in answer.json()["message"]


def test_locations_that_reached_rows_another_way_are_not_read(
    served: Instance, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    run_id = served.new_run()
    for uri in (f"file://{tmp_path}", "mlflow-artifacts:/../../.." + str(tmp_path)):
        served.query(
            "UPDATE runs SET artifact_uri = %s WHERE run_uuid = %s RETURNING 1", uri, run_id
        )
        for path in (
            f"/get-artifact?run_id={run_id}&path=secret",
            f"/api/2.0/mlflow/artifacts/list?run_id={run_id}",
        ):
            answer = served.call("GET", path)
            assert answer.status >= 400
            assert b"secret" not in answer.body.replace(b"path=secret", b"")


def test_locations_inside_the_root_work(served: Instance, root: Path) -> None:
    for location in (None, "mlflow-artifacts:/mine", f"file://{root}/mine"):
        fields = {"name": f"inside {location}", "artifact_location": location}
        answer = served.post("experiments/create", {k: v for k, v in fields.items() if v})
        assert answer.status == 200, answer.body


def test_no_mode_or_time_is_set_by_path(tmp_path: Path) -> None:
    """What an instance's seccomp filter forbids must not be tried."""
    script = """
import sys, os
from mlfleet.store import artifacts
from pathlib import Path
root, source = Path(sys.argv[1], "root"), Path(sys.argv[1], "source")
root.mkdir(); source.mkdir(); (source / "f").write_text("x"); (source / "d").mkdir()
(source / "d" / "g").write_text("y")
artifacts.install(str(root), 0)
def refuse(event, args):
    by_path = event in ("os.chmod", "os.chown", "os.utime", "os.setxattr")
    if by_path and not isinstance(args[0], int):
        raise PermissionError(f"{event} {args}")
sys.addaudithook(refuse)
repo = artifacts.FleetArtifactRepository(f"file://{root}")
repo.log_artifact(str(source / "f"), "a/b")
repo.log_artifacts(str(source), "c")
with open(source / "f", "rb") as stream:
    repo.log_artifact_from_stream(stream, "s", "a")
down = Path(sys.argv[1], "down"); down.mkdir()
repo.download_artifacts("c", str(down))
assert (down / "c" / "d" / "g").read_text() == "y"
repo.delete_artifacts("c")
print(sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()))
"""
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['a/b/f', 'a/s']"


def test_the_space_of_dead_uploads_is_found_again(tmp_path: Path) -> None:
    from mlfleet.store.artifact_quota import TEMPORARY_PREFIX, count_bytes

    old, new = tmp_path / f"{TEMPORARY_PREFIX}old", tmp_path / f"{TEMPORARY_PREFIX}new"
    for path in (old, new):
        path.write_text("1234")
    os.utime(old, (1, 1))
    assert count_bytes(tmp_path) == 4
    assert [path.name for path in tmp_path.iterdir()] == [new.name]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A moto server with the bucket `fleet`."""
    from tests.fixtures_postgres import free_port

    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = {
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    import boto3

    client: Any = boto3.client(
        "s3",
        endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket="fleet")
            break
        except Exception:
            assert time.monotonic() < deadline, "moto did not start"
            time.sleep(0.2)
    client.put_object(Bucket="fleet", Key="tenants/2/secret", Body=b"secret")
    yield environment
    client.close()
    process.terminate()
    process.wait()


def test_s3_roots_keep_to_their_prefix(
    new_instance: Callable[..., Instance], s3: dict[str, str]
) -> None:
    instance = new_instance(root="s3://fleet/tenants/1", s3_environment=s3)
    assert instance.call("PUT", f"{PROXY}/0/r/artifacts/f", b"data").status == 200
    assert instance.call("GET", f"{PROXY}/0/r/artifacts/f").body == b"data"
    start = instance.call(
        "POST",
        "/api/2.0/mlflow-artifacts/mpu/create/0/r/artifacts",
        json.dumps({"path": "big", "num_parts": 2}).encode(),
        content_type="application/json",
    )
    assert start.status == 200, start.body
    assert len(start.json()["credentials"]) == 2
    for location, status in (
        ("s3://fleet/tenants/1/more", 200),
        ("s3://fleet/tenants/2", 400),
        ("s3://fleet/tenants/10", 400),
        ("s3://fleet/tenants/1/../2", 400),
        ("file:///etc", 400),
    ):
        fields = {"name": f"at {location}", "artifact_location": location}
        assert instance.post("experiments/create", fields).status == status, location
    run_id = instance.new_run()
    instance.query(
        "UPDATE runs SET artifact_uri = 's3://fleet/tenants/2' WHERE run_uuid = %s RETURNING 1",
        run_id,
    )
    answer = instance.call("GET", f"/get-artifact?run_id={run_id}&path=secret")
    assert answer.status >= 400
    assert b"secret" not in answer.body
