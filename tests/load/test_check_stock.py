"""The checker reads a stock server's database and artifact folder as it reads a tenant's."""

import contextlib
import time

from mlfleet.database.connect import connect
from mlfleet.load.check import check
from mlfleet.load.ledger import Ledger
from tests.differential.servers import stock_server
from tests.load.session import LOAD, Session, write_run


def test_a_stock_server_is_checked_by_the_same_accounts(postgres, tmp_path):
    began_s, run = time.time(), tmp_path / "run"
    run.mkdir()
    with stock_server(postgres, tmp_path, "accounts_stock") as stock:
        ledger = Ledger(run, LOAD)
        made = Session(ledger, "stock", stock.url, None).everything()
        ledger.close()
        target = {"tenant": "stock", "url": stock.url, "database_uri": stock.database_uri,
                  "artifacts": stock.places[0]}  # fmt: skip
        write_run(run, [target], began_s)
    good = check(run, tmp_path)
    assert good.findings == []
    assert good.unchecked == {"outbox row"}
    assert good.counts["metric"].found == 101
    assert good.counts["artifact"].found == 3
    assert good.counts["span"].found == 3
    with (
        contextlib.closing(connect(stock.database_uri)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("DELETE FROM metrics WHERE run_uuid = %(run)s AND step = 3", made)
    bad = check(run, tmp_path)
    assert sorted((f.problem, f.key, f.detail) for f in bad.findings) == [
        ("missing", "accuracy", "step 3"),
        ("missing", "loss", "step 3"),
    ]
