"""The sensor for Heap Connect's dumps as Airflow calls it."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_heapbraze.sensors.heap_connect import HeapConnectDumpSensor
from airflow_provider_heapbraze.triggers.heap_connect import HeapConnectDumpTrigger


@pytest.fixture
def dumps(tmp_path):
    folder = tmp_path / "dumps"
    (folder / "manifests").mkdir(parents=True)
    return folder


def put(dumps, dump_id, *tables):
    held = [{"name": name, "files": [], "incremental": True} for name in tables or ("users",)]
    manifest = {"dump_id": dump_id, "tables": held}
    (dumps / "manifests" / f"sync_{dump_id}.json").write_text(json.dumps(manifest))


def sensor(dumps, **arguments):
    return HeapConnectDumpSensor(
        task_id="wait", path=f"file://{dumps}", ledger=f"file://{dumps.parent}/ledger", **arguments
    )


def context(run="night-1", map_index=-1):
    return {"ti": SimpleNamespace(dag_id="heap", run_id=run, task_id="wait", map_index=map_index)}


def looked(task, run="night-1", **where):
    found = task.poke(context(run, **where))
    return found.xcom_value if found.is_done else None


def deferred(task, run="night-1"):
    """Run a task that has to wait; return its trigger as another triggerer makes it anew."""
    with pytest.raises(TaskDeferred) as waiting:
        task.execute(context(run))
    assert waiting.value.method_name == "execute_complete"
    assert not waiting.value.kwargs
    path, arguments = waiting.value.trigger.serialize()
    assert path == "airflow_provider_heapbraze.triggers.heap_connect.HeapConnectDumpTrigger"
    return HeapConnectDumpTrigger(**json.loads(json.dumps(arguments)))


def fired(trigger):
    return asyncio.run(anext(aiter(trigger.run()))).payload


def test_each_run_takes_a_newer_dump_and_a_cleared_one_its_own(dumps):
    put(dumps, 9)
    put(dumps, 10, "users", "purchase")
    task = sensor(dumps)
    assert looked(task) == {"dump_id": 10, "tables": 2}
    assert looked(task, "night-2") is None
    put(dumps, 11)
    assert looked(task) == {"dump_id": 10, "tables": 2}
    assert looked(task, "night-2") == {"dump_id": 11, "tables": 1}


def test_mapped_tasks_wait_for_themselves(dumps):
    put(dumps, 10)
    task = sensor(dumps)
    assert looked(task, map_index=0) == looked(task, map_index=1) == {"dump_id": 10, "tables": 1}
    assert looked(task, "night-2", map_index=0) is None


@pytest.mark.parametrize("deferrable", [True, False])
def test_it_returns_at_once_where_a_dump_waits(dumps, deferrable):
    put(dumps, 10)
    assert sensor(dumps, deferrable=deferrable).execute(context()) == {"dump_id": 10, "tables": 1}


def test_it_waits_in_the_triggerer_and_survives_its_restart(dumps):
    put(dumps, 9)
    task = sensor(dumps, deferrable=True, poke_interval=0.01)
    task.execute(context())
    trigger = deferred(task, "night-2")
    assert trigger.after == 9
    put(dumps, 10)
    assert task.execute_complete(context("night-2"), fired(trigger)) == {"dump_id": 10, "tables": 1}
    assert task.execute(context("night-2")) == {"dump_id": 10, "tables": 1}, "cleared"


def test_the_trigger_goes_on_looking_until_there_is_one(dumps, monkeypatch):
    trigger = HeapConnectDumpTrigger(f"file://{dumps}", "purchase", -1, 0, time.time() + 100)
    looks = iter([lambda: put(dumps, 9), lambda: put(dumps, 10), lambda: put(dumps, 11, "purchase")])

    async def meanwhile(_):
        next(looks)()

    monkeypatch.setattr("airflow_provider_heapbraze.triggers.heap_connect.sleep", meanwhile)
    assert fired(trigger)["status"] == "new dump"
    assert list(looks) == []


def test_a_dump_without_the_table_does_not_count(dumps):
    put(dumps, 9)
    task = sensor(dumps, table="purchase", deferrable=True)
    trigger = deferred(task)
    assert (trigger.table, trigger.after) == ("purchase", 9), "what was looked at is not read again"
    put(dumps, 10, "users", "purchase")
    put(dumps, 11)
    assert task.execute_complete(context(), fired(trigger)) == {"dump_id": 10, "tables": 2}


def test_where_another_run_was_faster_it_waits_on_no_longer_than_it_would_have(dumps):
    task = sensor(dumps, deferrable=True)
    trigger = deferred(task)
    put(dumps, 10)
    event = fired(trigger)
    assert looked(task, "night-2") == {"dump_id": 10, "tables": 1}
    with pytest.raises(TaskDeferred) as waiting:
        task.execute_complete(context(), event)
    assert (waiting.value.trigger.after, waiting.value.trigger.until) == (10, trigger.until)


@pytest.mark.parametrize(
    ("on_timeout", "error"), [("fail", AirflowSensorTimeout), ("skip", AirflowSkipException)]
)
class TestTimeout:
    def test_in_the_triggerer(self, dumps, on_timeout, error):
        task = sensor(dumps, deferrable=True, timeout=0, on_timeout=on_timeout)
        event = fired(deferred(task))
        with pytest.raises(error, match="No new dump has come"):
            task.execute_complete(context(), event)

    def test_what_has_come_while_no_triggerer_ran_counts(self, dumps, on_timeout, error):
        task = sensor(dumps, deferrable=True, timeout=0, on_timeout=on_timeout)
        event = fired(deferred(task))
        put(dumps, 10)
        assert task.execute_complete(context(), event) == {"dump_id": 10, "tables": 1}

    def test_in_a_worker(self, dumps, on_timeout, error):
        task = sensor(
            dumps, table="users", deferrable=False, timeout=0, poke_interval=0.01, on_timeout=on_timeout
        )
        with pytest.raises(error, match="No new dump with the table users has come"):
            task.execute(context())


@pytest.fixture
def meanwhile(monkeypatch):
    """Let something happen in the trigger's waits, one after the other; no time passes."""

    def happens(*steps):
        left = iter(steps)

        async def wait(_):
            next(left)()

        monkeypatch.setattr("airflow_provider_heapbraze.triggers.heap_connect.sleep", wait)
        return left

    return happens


class StorageError(Exception):
    """What a storage's client raises, which is no OSError; it quotes what it was called with."""


@pytest.mark.parametrize("error", [OSError, PermissionError, StorageError])
def test_the_trigger_outlasts_storage_that_is_away(dumps, monkeypatch, meanwhile, caplog, error):
    trigger = deferred(sensor(dumps, deferrable=True))
    with monkeypatch.context() as away:

        def refuse(*_):
            raise error("https://bucket/?signature=private-signature")

        away.setattr("airflow_provider_heapbraze.storage.listed", refuse)
        left = meanwhile(lambda: None, away.undo, lambda: put(dumps, 10))
        event = fired(trigger)
    assert event["status"] == "new dump"
    assert list(left) == []
    assert f"2 times in a row so far: Storage answered with an error ({error.__name__})" in caplog.text
    assert "private" not in caplog.text


def test_a_manifest_that_is_still_being_copied_is_waited_for(dumps, meanwhile, caplog):
    task = sensor(dumps, deferrable=True)
    trigger = deferred(task)
    (dumps / "manifests" / "sync_10.json").write_text('{"private-person')
    meanwhile(lambda: put(dumps, 10))
    assert task.execute_complete(context(), fired(trigger)) == {"dump_id": 10, "tables": 1}
    assert "sync_10.json is no manifest" in caplog.text
    assert "private-person" not in caplog.text


def test_what_no_wait_mends_goes_to_the_task_at_once(dumps):
    """Only the triggerer has no provider for the storage."""
    task = sensor(dumps, deferrable=True)
    trigger = deferred(task)
    trigger.path = "nosuch://bucket"
    with pytest.raises(AirflowFailException, match="install the provider"):
        task.execute_complete(context(), fired(trigger))


def test_a_killed_triggerer_is_followed_by_one_that_goes_on(dumps, meanwhile):
    task = sensor(dumps, deferrable=True, table="purchase", timeout=3600)
    first = deferred(task)

    async def killed():
        waiting = asyncio.ensure_future(anext(aiter(first.run())))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(killed())
    second = HeapConnectDumpTrigger(**json.loads(json.dumps(first.serialize()[1])))
    assert second.serialize() == first.serialize(), "it looks for the same, no longer than the first"
    meanwhile(lambda: put(dumps, 10), lambda: put(dumps, 11, "purchase"))
    assert task.execute_complete(context(), fired(second)) == {"dump_id": 11, "tables": 1}


def test_a_manifest_that_cannot_be_read_fails_the_task_with_what_to_do(dumps):
    task = sensor(dumps, deferrable=True, timeout=0)
    trigger = deferred(task)
    (dumps / "manifests" / "sync_10.json").write_text('{"private-person')
    event = fired(trigger)
    with pytest.raises(AirflowException, match=r"sync_10\.json is no manifest") as raised:
        task.execute_complete(context(), event)
    assert not isinstance(raised.value, AirflowFailException), "it may be on its way: Airflow tries again"
    assert "private-person" not in str(raised.value)


def test_a_folder_without_manifests_is_waited_for_and_said_once(dumps, capsys):
    (dumps / "manifests").rmdir()
    task = sensor(dumps, deferrable=True)
    trigger = deferred(task)
    (dumps / "manifests").mkdir()
    put(dumps, 10)
    assert task.execute_complete(context(), fired(trigger)) == {"dump_id": 10, "tables": 1}
    assert capsys.readouterr().out.count("There is no manifest in ") == 1


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [("path", " ", "path is empty"), ("on_timeout", "wait", "on_timeout must be one of")],
)
def test_bad_arguments_are_refused_before_anybody_waits(dumps, argument, value, message):
    task = sensor(dumps, deferrable=True)
    setattr(task, argument, value)
    with pytest.raises(AirflowFailException, match=message):
        task.execute(context())


def test_what_the_ledger_and_the_trigger_hold_is_small_and_names_nobody(dumps):
    put(dumps, 10)
    task = sensor(dumps, table="users", deferrable=True)
    task.execute(context())
    files = list((dumps.parent / "ledger").rglob("*.json"))
    assert {file.name for file in files} >= {"task.json", "10.json"}
    assert all(file.stat().st_size < 300 for file in files)
    _, arguments = deferred(task, "night-2").serialize()
    assert set(arguments) == {"path", "table", "after", "poke_interval", "until"}
