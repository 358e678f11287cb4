"""Which servers a run speaks with: read from a file, or registered with the fleet that runs."""

import json
from pathlib import Path

import pytest

from mlfleet.errors import FleetError, NotRunningError
from mlfleet.load.targets import Target, find_fleet, read_targets, same_address, write_targets
from mlfleet.runtime.cell_admin import CellAdmin
from mlfleet.runtime.folder import DataFolder
from tests.fixtures_fleet import RunningFleet, eventually


def test_what_is_written_is_read_again_and_is_for_its_owner_only(tmp_path: Path) -> None:
    targets = [Target("a", "http://h/a", "secret"), Target("b", "https://h/b", None, "uri", "/x")]
    write_targets(tmp_path / "targets.json", targets)
    assert read_targets(tmp_path / "targets.json") == targets
    assert (tmp_path / "targets.json").stat().st_mode & 0o077 == 0
    assert "secret" not in repr(targets)
    assert "uri'" not in repr(targets)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no list of targets"),
        ("7", "is no list of targets"),
        ("[7]", "is no list of targets"),
        ('[{"tenant": "a"}]', "is no list of targets"),
        ('[{"tenant": "a", "url": "http://h", "colour": "red"}]', "is no list of targets"),
        ('[{"tenant": "a", "url": "ftp://h"}]', "'ftp://h' is no address"),
        ('[{"tenant": "a", "url": "http://"}]', "'http://' is no address"),
        ("[]", "names no target"),
    ],
)
def test_a_bad_file_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(FleetError, match=r"t\.json") as refused:
        read_targets(tmp_path / "t.json")
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://127.0.0.1:8080", "http://localhost:8080/team-a", True),
        ("http://h", "http://h:80/", True),
        ("https://h", "https://h:443", True),
        ("http://h", "https://h", False),
        ("http://h:1", "http://h:2", False),
        ("http://a", "http://b", False),
    ],
)
def test_addresses_are_compared_without_their_paths(one: str, other: str, same: bool) -> None:
    assert same_address(one, other) is same


def test_tenants_are_kept_and_their_tokens_are_new_in_each_run(fleet: RunningFleet) -> None:
    found = find_fleet(fleet.data, None, None)
    (first, _) = found.register(2)
    (second, other) = found.register(2)
    assert first.tenant == second.tenant == "load-0000"
    assert second.url == f"{fleet.url}/load-0000"
    assert second.token != other.token
    assert eventually(
        lambda: fleet.call("load-0000", first.token, "experiments/get?experiment_id=0")[0] == 401
    )
    assert fleet.call("load-0000", second.token, "experiments/get?experiment_id=0")[0] == 200


def test_before_a_storm_every_tenant_has_a_database_and_sleeps(fleet: RunningFleet) -> None:
    found = find_fleet(fleet.data, None, None)
    targets = found.register(3)
    fleet.call("load-0000", targets[0].token, "experiments/get?experiment_id=0")
    found.put_to_sleep(targets)
    tenants = {row["name"]: row for row in fleet.command("tenant", "list")}
    assert {tenants[target.tenant]["state"] for target in targets} == {"ready"}
    (cell,) = found.cells.values()
    awake = {row["tenant"] for row in CellAdmin("cell-0", cell).status()["awake"]}
    assert not awake & {target.tenant for target in targets}


def test_a_fleet_on_other_machines_is_known_by_its_address_and_its_postgres(
    tmp_path: Path,
) -> None:
    found = find_fleet(tmp_path, "http://cell.example.test/", "postgresql://x")
    assert (found.url, found.is_here) == ("http://cell.example.test", False)
    for host, uri in ((None, "postgresql://x"), ("http://h", None), (None, None)):
        with pytest.raises(NotRunningError):
            find_fleet(tmp_path, host, uri)


def test_a_fleet_that_runs_here_goes_before_one_that_the_environment_names(
    fleet: RunningFleet,
) -> None:
    found = find_fleet(fleet.data, "http://elsewhere", "postgresql://x")
    assert found.url == fleet.url
    assert found.admin_uri == DataFolder(fleet.data).read().admin_uri
    assert json.dumps(found.cells) != "{}"
