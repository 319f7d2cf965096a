"""Old runs of a ledger go, as Airflow calls the task."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_heapbraze.operators._work import ledger as ledger_work
from airflow_provider_heapbraze.operators.ledger import HeapBrazeLedgerPruneOperator
from tests.airflow.cohorts import PEOPLE, Pipeline, context


class InTwoMonths(datetime):
    @classmethod
    def now(cls, tz=UTC):
        return datetime.now(tz) + timedelta(days=60)


@pytest.fixture
def nights(tmp_path, sandbox, monkeypatch):
    pipeline = Pipeline(tmp_path)
    for night in range(3):
        pipeline.run(PEOPLE[night : night + 10], night=context(f"night-{night}"))
    monkeypatch.setattr(ledger_work, "datetime", InTwoMonths)
    return pipeline


def files(pipeline):
    root = Path(pipeline.ledger.removeprefix("file://"))
    return {path for path in root.rglob("*") if path.is_file()}


def pruned(pipeline, **arguments):
    operator = HeapBrazeLedgerPruneOperator(task_id="prune", ledger=pipeline.ledger, **arguments)
    return operator.execute(context(task_id="prune"))


def test_what_is_older_goes(nights, sandbox):
    before = files(nights)
    found = pruned(nights, keep_days="59")  # as a template makes it
    assert (found["runs"], found["matches"], found["tables"]) == (2, 2, 0)
    assert len(before - files(nights)) == found["files"]
    nights.run(PEOPLE[3:20], night=context("night-4"))
    assert set(sandbox.cohort("cohort-1")["members"]) == set(PEOPLE[3:20])


def test_what_is_younger_stays(nights):
    before = files(nights)
    assert pruned(nights)["files"] == 0
    assert files(nights) == before


def test_what_cannot_be_read_fails_the_task_once_the_rest_is_gone(nights):
    root = Path(nights.ledger.removeprefix("file://"))
    (root / "targets" / "broken" / "log").mkdir(parents=True)
    (root / "targets" / "broken" / "log" / "00000001.json").write_text("{")
    before = files(nights)
    with pytest.raises(AirflowFailException, match=r"what is old of broken, and all matches.*--deep"):
        pruned(nights, keep_days=59)
    assert len(files(nights)) < len(before)


def test_where_there_is_no_ledger_it_says_so(nights, tmp_path):
    nights.ledger = tmp_path.as_uri()
    with pytest.raises(AirflowFailException, match="There is no ledger at"):
        pruned(nights)


@pytest.mark.parametrize("days", [0, -1, "", "soon", 1.5, None, 800_000, 10**9])
def test_days_that_are_none_remove_nothing(nights, days):
    before = files(nights)
    with pytest.raises(AirflowFailException, match="keep_days"):
        pruned(nights, keep_days=days)
    assert files(nights) == before
