"""An upgrade while tasks wait: what a version left in Airflow's database, every later one goes on with.

``deferred/<version>.json`` has what a version stores of each trigger, where its task goes on, and an event. A
version that changes any of it gets a file of its own; the files of those before stay.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_heapbraze.get_provider_info import get_provider_info
from tests.airflow.cohorts import context

FILES = sorted((Path(__file__).parent / "deferred").glob("*.json"))
STORED = [(file.stem, stored) for file in FILES for stored in json.loads(file.read_text())]
ARGUMENTS = {
    "BrazeCurrentsSensor": {"source": "s3://bucket/currents"},
    "HeapConnectDumpSensor": {"path": "."},
    "BrazeSegmentToHeapOperator": {"segment_id": "segment-one"},
    "BrazeCohortVerifyOperator": {"cohort_id": "cohort-1", "segment_id": "segment-one"},
}
each = pytest.mark.parametrize(
    "stored",
    [pytest.param(one, id=f"{version} {one['trigger'].rpartition('.')[2]}") for version, one in STORED],
)


def named(path):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@each
def test_a_stored_trigger_is_made_anew(stored):
    trigger = named(stored["trigger"])(**stored["arguments"])
    path, arguments = trigger.serialize()
    assert path == stored["trigger"]
    assert {name: arguments[name] for name in stored["arguments"]} == stored["arguments"]


@each
def test_a_triggerer_that_is_not_upgraded_yet_passes_over_new_arguments(stored):
    trigger = named(stored["trigger"])(**stored["arguments"], that_a_later_version_has=1)
    assert "that_a_later_version_has" not in trigger.serialize()[1]


@each
def test_the_task_goes_on_where_it_was_told_to(stored, monkeypatch, tmp_path):
    path, method = stored["goes_on"]
    arguments = ARGUMENTS[path.rpartition(".")[2]]
    operator = named(path)(task_id="one", ledger=tmp_path.as_uri(), **arguments)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AirflowFailException, match="said by the triggerer"):
        getattr(operator, method)(context(), stored["event"])


def test_the_newest_file_has_what_this_version_stores():
    stored = {one["trigger"]: one["arguments"] for one in json.loads(FILES[-1].read_text())}
    modules = [name for group in get_provider_info()["triggers"] for name in group["python-modules"]]
    ours = {f"{name}.{trigger}" for name in modules for trigger in triggers_of(import_module(name))}
    assert set(stored) == ours
    for path, arguments in stored.items():
        assert named(path)(**arguments).serialize() == (path, arguments)


def triggers_of(module):
    return [name for name in vars(module) if name.endswith("Trigger") and name != "BaseTrigger"]
