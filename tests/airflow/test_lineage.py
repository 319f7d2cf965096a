"""What the operators tell OpenLineage: which datasets, how many rows, and nothing private."""

from __future__ import annotations

import json
import sys
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.locations import path_of
from airflow_provider_heapbraze.members import (
    FileMembers,
    Guards,
    HeapConnectMembers,
    SegmentSyncMembers,
    SqlMembers,
    heap_segment_query,
)
from airflow_provider_heapbraze.operators._lineage import Place, located, sources_of
from airflow_provider_heapbraze.operators.cohort import (
    BrazeCohortImportOperator,
    BrazeCohortPlanOperator,
    BrazeCohortRestoreOperator,
)
from airflow_provider_heapbraze.operators.currents import BrazeCurrentsToHeapOperator
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.segment import BrazeSegmentSizeOperator, BrazeSegmentToHeapOperator
from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator
from airflow_provider_heapbraze.segments import arrival
from tests.airflow.cohorts import COHORT, PEOPLE, context
from tests.currents import samples

SEGMENT = "segment-one"


def told(operator):
    """Return what an operator tells once its task has ended, as (namespace, name, rows)."""
    lineage = operator.get_openlineage_facets_on_complete(None)
    assert (lineage.run_facets, lineage.job_facets) == ({}, {})
    reads = [
        (read.namespace, read.name, rows(read.inputFacets, "inputStatistics")) for read in lineage.inputs
    ]
    writes = [(to.namespace, to.name, rows(to.outputFacets, "outputStatistics")) for to in lineage.outputs]
    assert "private-person" not in json.dumps([reads, writes])
    return reads, writes


def rows(facets, name):
    return facets[name].rowCount if facets else None


class Cohort:
    """The tasks of one cohort, which can be asked after they have run."""

    def __init__(self, sandbox, pipeline, folder):
        self.braze = f"braze://{urlsplit(sandbox.url).netloc}"
        self.file = ("file", str(folder / "members.csv"))
        self.pipeline = pipeline
        self.ledger = pipeline.ledger
        self._root = folder / "ledger"

    def run(self, operator_class, **arguments):
        task_id = operator_class.__name__
        operator = operator_class(task_id=task_id, ledger=self.ledger, **arguments)
        return operator.execute(context(task_id=task_id)), operator

    def folder(self):
        """Return the dataset that the cohort's part of the ledger is."""
        (folder,) = self._root.glob("*/cohort-*")
        return ("file", str(folder))


@pytest.fixture
def cohort(sandbox, pipeline, tmp_path):
    return Cohort(sandbox, pipeline, tmp_path)


def test_a_cohort_from_its_file_to_braze_and_back(cohort, sandbox):
    matched = cohort.pipeline.match([*PEOPLE[:10], " "])
    _, match = cohort.run(HeapUserMatchOperator, members=FileMembers(cohort.pipeline.file.as_uri()))
    assert told(match) == ([(*cohort.file, 11)], [("file", f"{path_of(cohort.ledger)}/matches", 10)])

    planned, plan = cohort.run(BrazeCohortPlanOperator, **COHORT, match=matched)
    assert told(plan) == ([(*cohort.file, 11)], [(*cohort.folder(), 10)])

    imported, operator = cohort.run(BrazeCohortImportOperator, **COHORT, plan=planned)
    in_braze = (cohort.braze, "cohort/cohort-1")
    assert told(operator) == ([(*cohort.file, 11)], [(*in_braze, 10), (*cohort.folder(), 10)])

    _, restore = cohort.run(BrazeCohortRestoreOperator, cohort_id="cohort-1", run_id=imported["run_id"])
    assert told(restore) == ([(*cohort.folder(), 10)], [(*in_braze, 0), (*cohort.folder(), 10)])

    _, verify = cohort.run(BrazeCohortVerifyOperator, cohort_id="cohort-1", sample=5)
    assert told(verify) == ([(*in_braze, 5)], [(*cohort.folder(), None)])


def test_a_failed_task_tells_which_cohort_it_was_about(cohort):
    matched = cohort.pipeline.match(PEOPLE)
    cohort.pipeline.run(match=matched)
    few = cohort.pipeline.match(PEOPLE[:2])
    operator = BrazeCohortImportOperator(task_id="import", **COHORT, match=few, ledger=cohort.ledger)
    with pytest.raises(AirflowFailException):
        operator.execute(context("night-2"))
    in_braze = (cohort.braze, "cohort/cohort-1", None)
    assert told(operator) == ([(*cohort.file, None)], [in_braze, (*cohort.folder(), None)])


def test_a_task_that_did_not_begin_tells_nothing():
    operator = BrazeCohortImportOperator(task_id="import", **COHORT, braze_conn_id="no-such-connection")
    with pytest.raises(AirflowException):
        operator.execute(context())
    assert told(operator) == ([], [])


def test_a_match_of_an_older_version_is_imported_without_its_sources(cohort):
    matched = cohort.pipeline.match(PEOPLE[:3])
    del matched["sources"]
    _, operator = cohort.run(BrazeCohortImportOperator, **COHORT, match=matched)
    reads, writes = told(operator)
    assert (reads, writes[0]) == ([], (cohort.braze, "cohort/cohort-1", 3))


def test_a_segment_from_braze_to_heap(cohort, sandbox, monkeypatch):
    monkeypatch.setattr(arrival, "QUIET_SECONDS", 0.3)
    cohort.pipeline.run(PEOPLE[:4], delivery="attribute", attribute="lapsed")
    sandbox.add_segments([{"id": SEGMENT, "name": "Lapsed buyers", "attribute": "lapsed"}])
    source = (cohort.braze, f"segment/{SEGMENT}")
    arguments = {"segment_id": SEGMENT, "guards": Guards(max_removed_share=None), "poll_interval": 0.02}
    _, refresh = cohort.run(BrazeSegmentToHeapOperator, **arguments)
    reads, (in_heap, ledger) = told(refresh)
    with HeapHook("heap_default").get_conn() as heap:
        environment = heap.environment
    assert reads == [(*source, 4)]
    assert in_heap == (f"heap://{environment}", "property/braze_segment_lapsed_buyers", 4)
    assert ledger[2] == 4

    result, size = cohort.run(BrazeSegmentSizeOperator, segment_id=SEGMENT)
    assert told(size) == ([(*source, result["size"])], [])


def test_events_from_braze_to_heap(cohort, tmp_path):
    folder = tmp_path / "currents"
    folder.mkdir()
    (folder / "part.avro").write_bytes(samples.avro_path(samples.TYPES[0]).read_bytes())
    result, export = cohort.run(BrazeCurrentsToHeapOperator, source=folder.as_uri())
    (source,), (events,) = told(export)
    assert source == ("file", str(folder), result["events"])
    assert events[1:] == ("events", result["sent"])
    assert (
        export.get_openlineage_facets_on_complete(None).inputs[0].inputFacets["inputStatistics"].fileCount
        == 1
    )


def test_names_of_locations():
    """Without connections and wildcards, and as other tools name the same place."""
    assert located("s3://aws_default@exports/heap/trial/*.csv") == Place("s3://exports", "heap/trial")
    assert located("s3://exports/heap/trial.csv") == Place("s3://exports", "heap/trial.csv")
    assert located("gs://exports") == Place("gs://exports", "/")
    assert located("file:///data/heap/part-[0-9].csv") == Place("file", "/data/heap")
    assert located("/data/heap/trial.csv") == Place("file", "/data/heap/trial.csv")


def test_names_of_sources(monkeypatch):
    pushed = SegmentSyncMembers("s3://aws_default@bucket/landed/", 1338065)
    assert sources_of(pushed) == (Place("s3://bucket", "landed#segment=1338065"),)
    dumped = HeapConnectMembers("s3://aws_default@heap-rs3-acme", "SELECT identity FROM users")
    assert sources_of(dumped) == (Place("s3://heap-rs3-acme", "/"),)
    assert sources_of(object()) == ()


@pytest.fixture
def warehouse(monkeypatch):
    """Give a warehouse that is not there: nobody may ask it anything."""
    connection = {"conn_type": "postgres", "host": "dwh.acme.test", "port": 5432, "schema": "analytics"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    return "warehouse"


def test_tables_of_a_query_are_named_as_the_warehouse_has_them(warehouse):
    sql = "SELECT u.identity FROM main.users u JOIN main.trials t USING (user_id) WHERE u.email <> 'a@b.test'"
    assert sources_of(SqlMembers(warehouse, sql)) == (
        Place("postgres://dwh.acme.test:5432", "analytics.main.trials"),
        Place("postgres://dwh.acme.test:5432", "analytics.main.users"),
    )
    ready = SqlMembers(warehouse, heap_segment_query("segment_power_users", schema="main"))
    assert {place.name for place in sources_of(ready)} == {
        "analytics.main.segment_power_users",
        "analytics.main.users",
    }


@pytest.mark.parametrize(
    ("conn_id", "sql"),
    [
        ("warehouse", "SELECT identity FROM users_of_some_schema"),
        ("warehouse", "is no SQL 'a@b.test'"),
        ("no-such-connection", "SELECT identity FROM main.users"),
        ("braze_default", "SELECT identity FROM main.users"),
    ],
)
def test_a_query_of_unknown_tables_is_named_by_its_connection(warehouse, sandbox, conn_id, sql):
    assert sources_of(SqlMembers(conn_id, sql)) == (Place("airflow://connection", conn_id),)


def test_without_openlineage_nothing_is_told(cohort, monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.extractors", None)
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.sqlparser", None)
    _, match = cohort.run(HeapUserMatchOperator, members=FileMembers(write(cohort)))
    assert match.get_openlineage_facets_on_complete(None) is None
    assert sources_of(SqlMembers("warehouse", "SELECT 1")) == (Place("airflow://connection", "warehouse"),)


def write(cohort):
    cohort.pipeline.match(PEOPLE[:2])
    return cohort.pipeline.file.as_uri()
