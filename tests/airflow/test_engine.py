"""A cohort whose members, match, plan and snapshot stay in the warehouse, as Airflow calls its tasks."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_heapbraze.ledger_check.check import check, conclusion
from airflow_provider_heapbraze.members import FileMembers, Guards, SqlMembers
from airflow_provider_heapbraze.operators._work import ledger as ledger_work
from airflow_provider_heapbraze.operators.cohort import (
    BrazeCohortImportOperator,
    BrazeCohortPlanOperator,
    BrazeCohortRestoreOperator,
)
from airflow_provider_heapbraze.operators.ledger import HeapBrazeLedgerPruneOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator
from tests.airflow.cohorts import COHORT, PEOPLE, context

ANYTHING_GOES = Guards(max_removed_share=None, max_size_factor=None)


class InWarehouse:
    """One cohort's tasks, night after night, on a segment in Postgres."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.ledger = (folder / "ledger").as_uri()
        self._nights = count(1)

    def match(self, people, **arguments):
        self.server.execute(
            "DROP TABLE IF EXISTS public.segment; CREATE TABLE public.segment (identity text)"
        )
        self.server.execute("INSERT INTO public.segment SELECT unnest(%s::text[])", list(people))
        members = SqlMembers("warehouse", "SELECT identity FROM public.segment")
        arguments = {"members": members, "engine": "warehouse", **arguments}
        operator = HeapUserMatchOperator(task_id="match", ledger=self.ledger, **arguments)
        return operator.execute(context(task_id="match"))

    def plan(self, people):
        operator = BrazeCohortPlanOperator(
            task_id="plan", **COHORT, match=self.match(people), ledger=self.ledger
        )
        return operator.execute(context(task_id="plan"))

    def run(self, people=None, night=None, **arguments):
        if people is not None:
            arguments["match"] = self.match(people)
        operator = BrazeCohortImportOperator(
            task_id="import", **COHORT, ledger=self.ledger, guards=ANYTHING_GOES, **arguments
        )
        return operator.execute(context(night or f"night-{next(self._nights)}"))

    def restore(self, run_id):
        operator = BrazeCohortRestoreOperator(
            task_id="restore",
            cohort_id=COHORT["cohort_id"],
            run_id=run_id,
            ledger=self.ledger,
            guards=ANYTHING_GOES,
        )
        return operator.execute(context("undo", task_id="restore"))

    def parquet_files(self):
        """Return the files of the ledger that hold people."""
        root = Path(self.ledger.removeprefix("file://"))
        return sorted(path.name for path in root.rglob("*.parquet"))


@pytest.fixture
def warehouse(postgres, monkeypatch, tmp_path, sandbox, caplog):
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(postgres.connection))
    caplog.set_level(logging.DEBUG)
    yield InWarehouse(postgres, tmp_path)
    left = "SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'work_%'"
    assert not postgres.execute(left)
    postgres.execute("DROP SCHEMA IF EXISTS heapbraze CASCADE")
    assert "private-person" not in caplog.text


def test_only_changes_come_out(warehouse, sandbox):
    first = warehouse.run(PEOPLE[:50])
    assert (first["adds"], first["size"]) == (50, 50)
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[:50])
    second = warehouse.run(PEOPLE[2:53])
    assert (second["adds"], second["removes"], second["size"]) == (3, 2, 51)
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[2:53])
    assert warehouse.parquet_files() == ["changes.parquet", "changes.parquet"]
    root = Path(warehouse.ledger.removeprefix("file://"))
    sizes = sorted(len(pq.read_table(file)) for file in root.rglob("*.parquet"))
    assert sizes == [5, 50]


def test_what_the_tasks_return(warehouse):
    matched = warehouse.match(PEOPLE[:3])
    assert matched["engine"] == "warehouse"
    assert warehouse.plan(PEOPLE[:3])["engine"] == "warehouse"
    assert "private-person" not in json.dumps(matched)


def test_a_plan_is_carried_out_there(warehouse, sandbox):
    warehouse.run(PEOPLE[:10])
    assert warehouse.run(plan=warehouse.plan(PEOPLE[:11]))["adds"] == 1
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[:11])


def test_a_task_that_died_goes_on(warehouse, sandbox):
    sandbox.faults(next=[{"status": 401, "endpoint": "cohort-users"}])
    matched = warehouse.match(PEOPLE[:10])
    with pytest.raises(AirflowFailException):
        warehouse.run(match=matched, night="night-1")
    sandbox.faults()
    assert warehouse.run(match=matched, night="night-1")["acknowledged"] == 10
    assert warehouse.run(match=matched, night="night-1")["acknowledged"] == 10
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[:10])


def test_it_is_undone_and_verified_there(warehouse, sandbox):
    warehouse.run(PEOPLE[:10])
    warehouse.run(PEOPLE[5:12])
    undone = warehouse.restore("night-1")
    assert undone["size"] == 10
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[:10])
    verified = BrazeCohortVerifyOperator(
        task_id="verify", cohort_id=COHORT["cohort_id"], ledger=warehouse.ledger, max_lag=0
    ).execute(context(task_id="verify"))
    assert verified["unknown"] == 0
    assert verified["sample"] == 10


def test_a_table_that_is_gone_stops_the_run(warehouse, sandbox):
    warehouse.run(PEOPLE[:10])
    tables = "SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'held_%'"
    for (table,) in warehouse.server.execute(tables):
        warehouse.server.execute(f'DROP TABLE heapbraze."{table}"')
    with pytest.raises(AirflowFailException, match=r"the table heapbraze\.held_.* stands, is missing"):
        warehouse.run(PEOPLE[:11])
    with pytest.raises(
        AirflowFailException, match=r"What run .*night-1.* left cannot be restored: the table"
    ):
        warehouse.restore("night-1")
    assert warehouse.run(PEOPLE[:11], force_full=True)["size"] == 11


def test_changes_that_are_damaged_are_not_delivered(warehouse, sandbox):
    plan = warehouse.plan(PEOPLE[:10])
    [changes] = Path(warehouse.ledger.removeprefix("file://")).rglob("changes.parquet")
    changes.write_bytes(changes.read_bytes()[:-1])
    with pytest.raises(AirflowFailException, match=r"changes\.parquet is missing or does not hold"):
        warehouse.run(plan=plan)
    assert sandbox.requests() == []


def test_members_of_elsewhere_are_refused(warehouse, tmp_path):
    (tmp_path / "members.csv").write_text("identity\nprivate-person-0001\n")
    members = FileMembers((tmp_path / "members.csv").as_uri())
    with pytest.raises(
        AirflowFailException, match=r"engine='warehouse' matches members that are there already"
    ):
        warehouse.match([], members=members)


def test_a_database_of_another_kind_is_refused(warehouse, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LITE", json.dumps({"conn_type": "sqlite", "host": ":memory:"}))
    with pytest.raises(AirflowFailException, match="type 'sqlite', in which nothing can be matched"):
        warehouse.match([], members=SqlMembers("lite", "SELECT 1 AS identity"), engine="lite")


def test_a_user_who_may_not_make_the_schema(warehouse, monkeypatch):
    warehouse.server.execute("DROP SCHEMA IF EXISTS heapbraze CASCADE")
    warehouse.server.execute(
        "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 'only for reading'"
    )
    reader = {**warehouse.server.connection, "login": "reader", "password": "only for reading"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(reader))
    with pytest.raises(
        AirflowFailException, match=r"The schema heapbraze is not in the database .* Create it"
    ):
        warehouse.match(PEOPLE[:1])
    warehouse.server.execute("CREATE SCHEMA heapbraze; GRANT ALL ON SCHEMA heapbraze TO reader")
    warehouse.server.execute(
        "DROP TABLE public.segment; CREATE TABLE public.segment (identity text); "
        "GRANT SELECT ON public.segment TO reader"
    )
    operator = HeapUserMatchOperator(
        task_id="match",
        ledger=warehouse.ledger,
        members=SqlMembers("warehouse", "SELECT identity FROM public.segment"),
        engine="warehouse",
    )
    assert operator.execute(context(task_id="match"))["counts"]["members"] == 0
    warehouse.server.execute("DROP SCHEMA heapbraze CASCADE; DROP TABLE public.segment; DROP ROLE reader")


class NextYear(datetime):
    @classmethod
    def now(cls, tz=UTC):
        return datetime.now(tz) + timedelta(days=366)


def tables_kept(warehouse):
    return {
        name
        for (name,) in warehouse.server.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'heapbraze'"
        )
    }


def test_tables_of_old_runs_are_dropped_once_their_warehouse_is_there(
    warehouse, sandbox, monkeypatch, caplog
):
    for night in range(3):
        warehouse.run(PEOPLE[night : night + 10])
    monkeypatch.setattr(ledger_work, "datetime", NextYear)
    prune = HeapBrazeLedgerPruneOperator(task_id="prune", ledger=warehouse.ledger)
    before = tables_kept(warehouse)
    with monkeypatch.context() as patched:
        patched.delenv("AIRFLOW_CONN_WAREHOUSE")
        with pytest.raises(AirflowException, match=r"Still there: tables in warehouses: 7"):
            prune.execute(context(task_id="prune"))
    assert tables_kept(warehouse) == before
    assert caplog.text.count("are kept until the next time") == 1
    found = prune.execute(context(task_id="prune"))
    assert (found["runs"], found["matches"]) == (0, 2)
    said = conclusion(check(Path(warehouse.ledger.removeprefix("file://"))))
    assert (
        said
        == "Healthy: 1 record, nothing is damaged. Not looked at: tables in the warehouse of 'warehouse'."
    )
    # Of the last run the match's three, its snapshot and that before it; and the changes of all three, since
    # removals of thirty plans may be repeated.
    assert len(tables_kept(warehouse)) == len(before) - found["tables"] == 8
    warehouse.restore("night-3")
    warehouse.run(PEOPLE[3:13])
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[3:13])


def test_a_table_that_cannot_be_dropped_keeps_no_other(warehouse, monkeypatch, caplog):
    warehouse.run(PEOPLE[:10])
    (theirs,) = (name for name in tables_kept(warehouse) if name.startswith("unmatched_"))
    for night in (1, 2):
        warehouse.run(PEOPLE[night : night + 10])
    monkeypatch.setattr(ledger_work, "datetime", NextYear)
    warehouse.server.execute(
        f'DROP TABLE heapbraze."{theirs}"; CREATE VIEW heapbraze."{theirs}" AS SELECT 1 AS one'
    )
    prune = HeapBrazeLedgerPruneOperator(task_id="prune", ledger=warehouse.ledger)
    with pytest.raises(AirflowException, match=r"Still there: tables in warehouses: 1"):
        prune.execute(context(task_id="prune"))
    assert f"The table {theirs} in connection warehouse is kept" in caplog.text
    warehouse.server.execute(f'DROP VIEW heapbraze."{theirs}"')
    assert prune.execute(context(task_id="prune"))["tables"] == 1
