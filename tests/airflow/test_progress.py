"""The progress of a running task, in Airflow's task state store where there is one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from airflow_provider_heapbraze import pace
from airflow_provider_heapbraze.operators.currents import BrazeCurrentsToHeapOperator
from tests.airflow.cohorts import PEOPLE, context
from tests.currents import samples


class Store:
    """What Airflow 3.3 hands to a task as ``task_state_store``."""

    def __init__(self):
        self.values = []

    def set(self, key, value):
        assert key == "progress"
        self.values.append(json.loads(json.dumps(value)))


@pytest.fixture
def night(monkeypatch):
    """Give a run that every moment is long enough for."""
    monkeypatch.setattr(pace, "SECONDS_BETWEEN", 0.0)
    return {**context(), "task_state_store": Store()}


def test_an_import_shows_how_far_it_is(pipeline, sandbox, night):
    sandbox.faults(latency=1.2)  # longer than a second: answers are recorded in between
    pipeline.run(PEOPLE, night)
    shown = night["task_state_store"].values
    assert shown[-1].keys() == {"done", "total", "share", "per_second", "seconds_left"}
    assert (shown[-1]["done"], shown[-1]["total"]) == (100, 100)
    assert "private-person" not in str(shown)


def test_an_export_shows_how_far_it_is(sandbox, night, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "source").mkdir()
    schema = samples.schema("users.behaviors.CustomEvent")
    samples.write_avro(tmp_path / "source" / "a.avro", schema, list(samples.numbered(1500)), "snappy")
    BrazeCurrentsToHeapOperator(
        task_id="export", source=(tmp_path / "source").as_uri(), ledger=(tmp_path / "ledger").as_uri()
    ).execute(night)
    shown = night["task_state_store"].values
    assert shown[-1].keys() == {"done", "sent", "per_second"}
    assert (shown[-1]["done"], shown[-1]["sent"]) == (1500, 1500)


def test_without_a_store_and_in_a_short_run_there_is_no_progress(pipeline, sandbox, caplog):
    pipeline.run(PEOPLE, {**context(), "task_state_store": SimpleNamespace()})  # nothing may be called on it
    pipeline.run(PEOPLE[:90], context("night-2"))
    assert "are settled" not in caplog.text
