"""Everything else a stock server answers: pages, artifacts, less used doors, and the exceptions.

Fixed sequences instead of random ones: these routes have no hot path, so what can differ is
whether they are there at all, and the artifacts, whose repository is ours.
"""

import os
import urllib.parse
from typing import Any

import pytest

from tests.differential.made import new_experiment, new_run
from tests.differential.pair import NUMBERS, Pair
from tests.differential.side import Call

V2, V3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts"

READS = (
    "/", "/health", "/version", "/static-files/nothing.js", "/nothing", "/graphql",
    f"{V2}/nothing", f"{V2}/experiments/get", f"{V2}/experiments/get?experiment_id=0",
    f"{V2}/experiments/search", f"{V2}/experiments/search?max_results=x", f"{V2}/runs/get",
    f"{V2}/runs/search", f"{V2}/metrics/get-history", f"{V2}/metrics/get-history-bulk-interval",
    "/ajax-api/2.0/mlflow/metrics/get-history-bulk", f"{V2}/artifacts/list", "/get-artifact",
    "/get-artifact?path=x&run_uuid=x", "/model-versions/get-artifact",
    f"{V2}/registered-models/get", "/model-versions/get-artifact?name=x&version=1&path=x",
    f"{V2}/webhooks/x",
    "/ajax-api/2.0/mlflow/get-trace-artifact", "/ajax-api/2.0/mlflow/gateway-proxy",
    f"{V3}/server-info", "/ajax-api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/ui-telemetry",
    "/ajax-api/3.0/jobs/x", f"{V3}/workspaces", f"{V3}/datasets/search", f"{V3}/scorers/list",
    f"{V3}/scorers/list?experiment_id=0", f"{V3}/scorers/online-configs", f"{V2}/unified-traces",
    f"{V3}/gateway/secrets/list", f"{V3}/gateway/endpoints/list", f"{V3}/gateway/budgets/list",
    f"{V3}/gateway/model-definitions/list", f"{V3}/gateway/guardrails/list",
    f"{V3}/label-schemas/list?experiment_id=0", f"{V3}/review-queues/list?experiment_id=0",
    f"{V3}/prompt-optimization/jobs/x", f"{V3}/prompt-optimization/jobs/search", f"{V3}/issues/x",
    f"{V3}/mcp-servers", f"{V3}/mcp-servers/endpoints", f"{V3}/mcp-servers/x", "/v1/traces",
    f"{ARTIFACTS}/artifacts", f"{ARTIFACTS}/artifacts?path=../x", f"{ARTIFACTS}/artifacts/nothing",
    f"{ARTIFACTS}/artifacts/..%2f..%2fx", f"{ARTIFACTS}/artifacts/%2fetc%2fpasswd",
    f"{ARTIFACTS}/artifacts/a%00b", f"{ARTIFACTS}/presigned/x", "/api/2.0/preview/mlflow/runs/get",
)  # fmt: skip
POSTS: tuple[tuple[str, Any], ...] = (
    ("/ajax-api/3.0/jobs/", {}),
    ("/ajax-api/3.0/jobs/", {"job_name": "x", "params": {}}),
    ("/ajax-api/3.0/jobs/search", {}),
    ("/ajax-api/3.0/jobs/search", {"statuses": ["nothing"]}),
    ("/ajax-api/2.0/mlflow/runs/create-promptlab-run", {}),
    ("/ajax-api/2.0/mlflow/experiments/search-datasets", {"experiment_ids": ["0"]}),
    ("/ajax-api/2.0/mlflow/upload-artifact?run_uuid=x&path=y", b"z"),
    ("/ajax-api/2.0/mlflow/gateway-proxy", {"gateway_path": "x"}),
    ("/ajax-api/3.0/mlflow/ui-telemetry", {"records": []}),
    (f"{V2}/artifacts/presigned-upload-url", {"run_id": "x", "path": "y"}),
    (f"{V2}/traces", {"experiment_id": "0", "timestamp_ms": 5}),
    (f"{V3}/traces/metrics", {"experiment_ids": ["0"]}),
    (f"{V3}/traces/calculate-filter-correlation", {"experiment_ids": ["0"]}),
    (f"{V3}/traces/batchGetInfos", {"trace_ids": ["x"]}),
    (f"{V3}/workspaces", {"name": "x"}),
    (f"{V3}/prompt-optimization/jobs", {"experiment_id": "0"}),
    (f"{V3}/issues", {"name": "x"}),
    (f"{V3}/issues/search", {"experiment_id": "0"}),
    (f"{V3}/scorers/register", {"experiment_id": "0", "name": "x", "serialized_scorer": "{}"}),
    (f"{V3}/gateway/secrets/create", {}),
    (f"{V3}/mcp-servers", {}),
    (f"{V3}/label-schemas/create", {"experiment_id": "0", "name": "x"}),
    (f"{V3}/review-queues/create", {"experiment_id": "0", "name": "x"}),
    (f"{ARTIFACTS}/mpu/create/x", {"path": "x", "num_parts": 2}),
    (f"{ARTIFACTS}/mpu/complete/x", {"path": "x", "upload_id": "y", "parts": []}),
    (f"{ARTIFACTS}/mpu/abort/x", {"path": "x", "upload_id": "y"}),
    ("/graphql", {"query": "{ nothing }"}),
    ("/graphql", {"query": "{ test(inputString: \"x\") { output } }"}),
    ("/graphql", {"query": "broken {"}),
    ("/graphql", {}),
    ("/graphql", "x"),
)  # fmt: skip


@pytest.mark.parametrize("path", READS)
def test_a_read(pair: Pair, path: str) -> None:
    pair.call(Call("GET", path))


@pytest.mark.parametrize(("path", "body"), POSTS)
def test_a_post(pair: Pair, path: str, body: Any) -> None:
    pair.call(Call("POST", path, body))


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path",
    ["/", "/health", f"{V2}/runs/create", f"{V2}/experiments/get", f"{ARTIFACTS}/artifacts/x"],
)
def test_another_method(pair: Pair, method: str, path: str) -> None:
    pair.call(Call(method, path, b"" if method in ("PUT", "PATCH") else None))


def test_a_named_workspace_is_refused(pair: Pair) -> None:
    headers = {"x-mlflow-workspace": "elsewhere"}
    pair.call(Call("GET", f"{V2}/experiments/search?max_results=1", headers=headers))
    body = {"run_id": "f" * 32, "key": "k", "value": "v"}
    pair.call(Call("POST", f"{V2}/runs/set-tag", body, headers=headers))


def new_place(pair: Pair) -> str:
    """Make an experiment and a run in it; return both symbols, as in an artifact's path."""
    experiment = new_experiment(pair)
    return f"{experiment}/{new_run(pair, experiment)}"


CONTENTS = {
    "a.txt": b"hello\n", "empty.bin": b"", "page.html": b"<script>alert(1)</script>",
    "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "deep/er/x.json": b'{"a": 1}',
    "MLmodel": b"flavors: {}\n", "no ending": b"\x00\xff", "\u03bb.csv": b"a,b\n", "a+b%20c": b"x",
    "big.bin": os.urandom(3_000_000), "x.svg": b"<svg/>", "style.css": b"a{}", "x.js": b"1",
    "x.parquet": b"PAR1", "x.unknownending": b"?", "x.tar.gz": b"\x1f\x8b", "x.yaml": b"a: 1",
}  # fmt: skip


def test_artifacts_go_up_and_down(pair: Pair) -> None:
    place = new_place(pair)
    run = place.split("/")[1]
    root = f"{ARTIFACTS}/artifacts/{place}/artifacts"
    for name, content in CONTENTS.items():
        path = f"{root}/{_quoted(name)}"
        octets = {"Content-Type": "application/octet-stream"}
        assert pair.call(Call("PUT", path, content, headers=octets)).status == 200
        assert pair.call(Call("GET", path)).body == content
        pair.call(Call("HEAD", path))
        pair.call(Call("GET", path, headers={"Range": "bytes=1-2"}))
        query = (("path", name), ("run_uuid", run))
        assert pair.call(Call("GET", "/get-artifact", query=query)).body == content
    for path in (None, "deep", "deep/er", "nothing", "a.txt", "../x", "/etc", "%2e%2e"):
        query = (("run_id", run), *((("path", path),) if path is not None else ()))
        pair.call(Call("GET", f"{V2}/artifacts/list", query=query, unordered=("files",)))
        pair.call(Call("GET", "/get-artifact", query=(("path", str(path)), ("run_uuid", run))))
    pair.call(Call("GET", f"{ARTIFACTS}/artifacts?path={place}/artifacts", unordered=("files",)))


def test_artifacts_can_be_replaced_and_deleted(pair: Pair) -> None:
    root = f"{ARTIFACTS}/artifacts/{new_place(pair)}/artifacts"
    for content in (b"first", b"second, longer", b""):
        pair.call(Call("PUT", f"{root}/x.txt", content))
        assert pair.call(Call("GET", f"{root}/x.txt")).body == content
    pair.call(Call("PUT", f"{root}/folder/y.txt", b"y"))
    pair.call(Call("PUT", f"{root}/folder", b"a file over a folder"))
    pair.call(Call("PUT", f"{root}/x.txt/z", b"a file below a file"))
    pair.call(Call("GET", f"{root}/folder"))
    for path in ("x.txt", "x.txt", "folder", "nothing", "../../../x", "%2e%2e/%2e%2e"):
        pair.call(Call("DELETE", f"{root}/{path}"))
        pair.call(Call("GET", f"{root}/{path}"))


@pytest.mark.parametrize(
    "name",
    ["..", "%2e%2e%2fx", "a/../b", "/x", "//x", "a%5cb", "x" * 300, ".hidden", "%00", "a:b", "~"],
)
def test_an_odd_artifact_name(pair: Pair, name: str) -> None:
    root = f"{ARTIFACTS}/artifacts/{new_place(pair)}/artifacts"
    for method in ("PUT", "GET", "DELETE"):
        pair.call(Call(method, f"{root}/{name}", b"x" if method == "PUT" else None))


def test_the_ui_uploads_and_reads_by_run(pair: Pair) -> None:
    run = new_run(pair)
    upload = "/ajax-api/2.0/mlflow/upload-artifact"
    query = (("run_uuid", run), ("path", "from/ui.txt"))
    pair.call(Call("POST", upload, b"text", query=query, headers={"Content-Type": "text/plain"}))
    pair.call(Call("GET", "/get-artifact", query=query))
    pair.call(Call("POST", upload, b"", query=query))
    pair.call(Call("POST", upload, b"x", query=(("run_uuid", run), ("path", "../x"))))
    pair.call(Call("POST", upload, b"x", query=query[:1]))


LOCATIONS = (
    "/tmp/x", "file:///tmp/x", "file:/etc", "s3://bucket/x", "gs://bucket/x", "ftp://host/x",
    "http://host/x", "file://localhost/tmp/x", "/",
)  # fmt: skip


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_location_outside_the_root_is_refused(pair: Pair, location: str) -> None:
    body = {"name": f"outside-{next(NUMBERS)}", "artifact_location": location}
    pair.call(Call("POST", f"{V2}/experiments/create", body))


NOT_MOUNTED = ("/ajax-api/3.0/mlflow/assistant/config", "/gateway/mlflow/v1/models")


@pytest.mark.parametrize("path", NOT_MOUNTED)
def test_what_is_not_mounted(pair: Pair, path: str) -> None:
    pair.call(Call("GET", path))


def test_every_written_exception_is_needed(pair: Pair) -> None:
    if pair.other.name not in ("fleet", "hot"):
        pytest.skip("stock against stock needs no exception")
    for path in NOT_MOUNTED:
        test_what_is_not_mounted(pair, path)
    test_a_location_outside_the_root_is_refused(pair, LOCATIONS[0])
    assert [entry.name for entry in pair.written.entries if not entry.was_used] == []


def _quoted(name: str) -> str:
    return urllib.parse.quote(name)
