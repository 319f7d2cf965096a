"""The export of Currents events as Airflow calls it, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import httpx
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk import Asset, AssetAlias

from airflow_provider_heapbraze.hooks import _connection
from airflow_provider_heapbraze.landing.app import make_app
from airflow_provider_heapbraze.landing.settings import Settings
from airflow_provider_heapbraze.operators.currents import BrazeCurrentsToHeapOperator
from airflow_provider_heapbraze.sensors.currents import BrazeCurrentsSensor
from airflow_provider_heapbraze.triggers.currents import BrazeCurrentsTrigger
from tests.airflow.cohorts import OutletEvents, glance
from tests.currents import samples

TOKEN = "token-of-the-connector"
SALT = "private-salt-of-the-connection"


@pytest.fixture
def exporting(heapbraze_sandbox, tmp_path, monkeypatch):
    """Give a place with a source, a ledger and the sandbox's connection."""
    connection = heapbraze_sandbox.heap_connection()
    connection["extra"]["pii_salt"] = SALT
    monkeypatch.setenv("AIRFLOW_CONN_HEAP_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    source = tmp_path / "currents"
    source.mkdir()
    return SimpleNamespace(
        sandbox=heapbraze_sandbox, source=source, ledger=f"file://{tmp_path}/ledger", home=tmp_path
    )


def operator(exporting, **arguments):
    return BrazeCurrentsToHeapOperator(
        task_id="export", source=f"file://{exporting.source}", ledger=exporting.ledger, **arguments
    )


def context(run="hour-1", **params):
    ti = SimpleNamespace(dag_id="currents", run_id=run, task_id="export", map_index=-1, pushed={})
    ti.xcom_push = lambda key, value: ti.pushed.update({key: value})
    return {"ti": ti, "outlet_events": OutletEvents(), "params": params}


def put(exporting, *event_types, hour="2026-11-24-10"):
    for event_type in event_types:
        folder = exporting.source / f"event_type={event_type}" / f"date={hour}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(samples.avro_path(event_type), folder / "part.avro")


def test_an_hour_and_the_next(exporting):
    put(exporting, *samples.TYPES[:10])
    asset, alias, here = Asset("any of the user's"), AssetAlias("events"), context()
    first = operator(exporting, outlets=[asset, alias]).execute(here)
    assert {name: first[name] for name in ("files", "events", "sent", "anonymous", "set_aside")} == {
        "files": 10,
        "events": 30,
        "sent": 20,
        "anonymous": 10,
        "set_aside": 0,
    }
    counts = here["outlet_events"][asset].extra
    assert (counts["files"], counts["sent"]) == (10, 20)
    ((added, told),) = here["outlet_events"][alias].events
    assert (added.uri, told) == ("heap://events/braze", counts)
    put(exporting, samples.TYPES[10], hour="2026-11-23-01")
    second = operator(exporting).execute(context("hour-2"))
    assert (second["files"], second["sent"]) == (1, 2), "a late file is found"
    assert exporting.sandbox.heap_sends() == {1: 22}
    assert len(json.dumps(second)) < 600


def test_what_the_landing_service_took_is_exported_as_it_is(exporting):
    """Batches as Braze posts them, and one of them once more."""
    landed = exporting.home / "landed"
    app = make_app(Settings(path=landed, braze_tokens=(TOKEN,)))
    types = [event_type for event_type in samples.TYPES if samples.http_events(event_type)][:10]
    batches = [samples.http_batch(samples.http_events(event_type)) for event_type in types]

    async def post():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://landing") as braze:
            for batch in [*batches, batches[0]]:
                headers = {"Authorization": f"Bearer {TOKEN}"}
                answer = await braze.post("/braze/currents/production", json=batch, headers=headers)
                assert answer.status_code == 200

    asyncio.run(post())
    exporting.source = landed / "braze" / "production"
    result = operator(exporting).execute(context())
    once_more = len(batches[0]["events"])
    assert (result["files"], result["events"]) == (11, sum(len(b["events"]) for b in batches) + once_more)
    put(exporting, *types)
    again = operator(exporting).execute(context("hour-2"))
    assert (again["sent"], again["duplicates"]) == (0, result["sent"]), "the same events, in Avro"


def test_the_xcom_adds_up_and_names_nobody(exporting):
    put(exporting, *samples.TYPES)
    result = operator(exporting, exclude_events=["users.messages.sms.*"]).execute(context())
    parts = ("sent", "duplicates", "anonymous", "filtered", "rejected")
    assert result["events"] == sum(result[name] for name in parts) == 150
    assert result["filtered"] == 15
    assert "private" not in json.dumps({**result, "report_uri": ""})


def test_an_unreadable_file_fails_the_task_for_good_after_everything_else(exporting):
    put(exporting, samples.TYPES[0])
    (exporting.source / "torn.avro").write_bytes(b"Obj\x01torn")
    with pytest.raises(AirflowFailException, match="1 file was set aside, 0 are allowed"):
        operator(exporting).execute(context())
    assert exporting.sandbox.heap_sends() == {1: 2}
    with pytest.raises(AirflowFailException, match="its header cannot be read"):
        operator(exporting).execute(context())
    assert operator(exporting).execute(context("hour-2"))["set_aside"] == 0, "it was said once"
    shutil.copy(samples.avro_path(samples.TYPES[1]), exporting.source / "torn.avro")
    assert operator(exporting).execute(context("hour-3"))["sent"] == 2, "mended, it is read"


def test_a_wrong_app_id_says_where_to_look_and_loses_nothing(exporting, monkeypatch, caplog):
    put(exporting, *samples.TYPES[:3])
    exporting.sandbox.settings(heap_app_id="another-heap-app-id")
    with pytest.raises(AirflowFailException, match="look at the login and the region") as raised:
        operator(exporting).execute(context())
    assert "sandbox-heap-app-id" not in f"{raised.value} {caplog.text}"
    exporting.sandbox.settings(heap_app_id="sandbox-heap-app-id")
    assert operator(exporting).execute(context())["sent"] == 6


def test_personal_data_is_dropped_hashed_or_kept(exporting):
    put(exporting, "users.messages.email.Open")

    def addresses(run, **arguments):
        exporting.sandbox.reset()
        shutil.rmtree(exporting.home / "ledger", ignore_errors=True)
        operator(exporting, **arguments).execute(context(run))
        return [event["properties"].get("email_address") for event in exporting.sandbox.heap_events()]

    assert addresses("drop") == [None, None]
    assert all("@private.example" in address for address in addresses("keep", pii="keep"))
    hashed = addresses("hash", pii="hash")
    assert all(len(address) == 64 for address in hashed)
    assert len(set(hashed)) == 2


def test_hashes_need_a_salt(exporting, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_HEAP_DEFAULT", json.dumps(exporting.sandbox.heap_connection()))
    with pytest.raises(AirflowFailException, match="pii_salt"):
        operator(exporting, pii="hash").execute(context())


def test_a_backfill_has_its_own_checkpoint_and_says_how_long_it_takes(exporting, capsys):
    put(exporting, samples.TYPES[0], hour="2026-01-31-23")
    put(exporting, samples.TYPES[1], hour="2026-02-01-00")
    put(exporting, samples.TYPES[2], hour="2026-02-02-00")
    days = {"start": "2026-02-01", "end": datetime(2026, 2, 2, tzinfo=UTC)}
    assert operator(exporting, **days).execute(context("backfill"))["events"] == 3
    assert "The backfill holds about 3 events in 1 file, 0 s at Heap's limit." in capsys.readouterr().out
    assert operator(exporting).execute(context("hour-1"))["files"] == 3
    assert exporting.sandbox.heap_sends() == {1: 4, 2: 2}, "Heap passes over what it has"
    assert exporting.sandbox.state()["heap"]["events"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pii": "hide"}, "pii must be one of"),
        ({"start": "yesterday"}, "start must be a time"),
        ({"start": "0001-01-01T00:00:00+01:00"}, "start must be a time"),
        ({"start": "2026-02-02", "end": "2026-02-01"}, "end is not after start"),
        ({"include_events": "users.*"}, "include_events must be a list"),
        ({"identity_field": " "}, "identity_field is empty"),
        ({"sample": 0}, "sample must be above 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(exporting, arguments, message):
    put(exporting, samples.TYPES[0])
    with pytest.raises(AirflowFailException, match=message):
        operator(exporting, **arguments).execute(context())
    assert exporting.sandbox.state()["heap"]["events"] == 0


def test_a_missing_folder_is_no_empty_source(exporting):
    exporting.source.rmdir()
    with pytest.raises(AirflowFailException, match="There is no folder"):
        operator(exporting).execute(context())


def test_a_server_that_fails_for_long_leaves_the_task_to_be_retried(exporting, monkeypatch):
    put(exporting, samples.TYPES[0])
    exporting.sandbox.faults(rates={"5xx-before": 1.0})
    one_try = partial(_connection.open_transport, once=True)
    monkeypatch.setattr("airflow_provider_heapbraze.hooks._clients.open_transport", one_try)
    with pytest.raises(AirflowException, match="the server failed") as raised:
        operator(exporting).execute(context())
    assert not isinstance(raised.value, AirflowFailException), "Airflow tries again"
    exporting.sandbox.faults()
    assert operator(exporting).execute(context())["sent"] == 2


class TestSensor:
    def sensor(self, exporting, **arguments):
        return BrazeCurrentsSensor(
            task_id="wait", source=f"file://{exporting.source}", ledger=exporting.ledger, **arguments
        )

    def test_it_waits_for_files_that_are_not_exported(self, exporting):
        sensor = self.sensor(exporting, deferrable=False)
        assert not sensor.poke(context())
        put(exporting, samples.TYPES[0])
        assert sensor.poke(context())
        operator(exporting).execute(context())
        assert not sensor.poke(context())

    def test_a_file_that_was_set_aside_is_not_new(self, exporting):
        (exporting.source / "torn.avro").write_bytes(b"Obj\x01torn")
        with pytest.raises(AirflowFailException):
            operator(exporting).execute(context())
        assert not self.sensor(exporting).poke(context())

    def test_it_defers_with_arguments_that_hold_no_secret(self, exporting):
        with pytest.raises(TaskDeferred) as deferred:
            self.sensor(exporting, deferrable=True, poke_interval=1).execute(context())
        path, arguments = deferred.value.trigger.serialize()
        assert path == "airflow_provider_heapbraze.triggers.currents.BrazeCurrentsTrigger"
        assert "sandbox-heap-app-id" not in json.dumps(arguments)
        assert deferred.value.timeout.total_seconds() > 0
        again = BrazeCurrentsTrigger(**arguments)
        put(exporting, samples.TYPES[0])
        event = asyncio.run(anext(aiter(again.run())))
        assert event.payload == {"status": "new files", "problem": None}

    def waiting(self, exporting, **arguments):
        """Return a task that has deferred, and its trigger."""
        sensor = self.sensor(exporting, deferrable=True, **arguments)
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute(context())
        return sensor, deferred.value.trigger

    def test_its_trigger_outlasts_storage_that_is_away(self, exporting, monkeypatch, caplog):
        sensor, trigger = self.waiting(exporting)
        with monkeypatch.context() as away:

            def refuse(*_):
                raise OSError("https://bucket/?signature=private-signature")

            async def wait(_):
                away.undo()
                put(exporting, samples.TYPES[0])

            away.setattr("airflow_provider_heapbraze.triggers.currents.sleep", wait)
            away.setattr("airflow_provider_heapbraze.events.checkpoint.is_anything_new", refuse)
            event = asyncio.run(anext(aiter(trigger.run())))
        sensor.execute_complete(context(), event.payload)
        assert "1 times in a row so far: Storage answered with an error (OSError)" in caplog.text
        assert "private" not in caplog.text

    def test_what_no_wait_mends_goes_to_the_task_at_once(self, exporting):
        sensor, trigger = self.waiting(exporting)
        exporting.source.rmdir()
        event = asyncio.run(anext(aiter(trigger.run())))
        with pytest.raises(AirflowFailException, match="There is no folder"):
            sensor.execute_complete(context(), event.payload)

    def test_what_has_come_while_no_triggerer_ran_counts(self, exporting):
        sensor, trigger = self.waiting(exporting, timeout=0)
        event = asyncio.run(anext(aiter(trigger.run())))
        put(exporting, samples.TYPES[0])
        sensor.execute_complete(context(), event.payload)

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_a_bad_on_timeout_is_refused_before_anybody_waits(self, exporting, deferrable):
        with pytest.raises(AirflowFailException, match="on_timeout must be one of"):
            self.sensor(exporting, deferrable=deferrable, on_timeout="wait").execute(context())

    @pytest.mark.parametrize(
        ("on_timeout", "error"), [("fail", AirflowSensorTimeout), ("skip", AirflowSkipException)]
    )
    def test_it_ends_by_itself_where_nothing_comes(self, exporting, on_timeout, error):
        sensor = self.sensor(exporting, deferrable=True, poke_interval=1, timeout=0, on_timeout=on_timeout)
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute(context())
        event = asyncio.run(anext(aiter(deferred.value.trigger.run())))
        with pytest.raises(error, match="No new files"):
            sensor.execute_complete(context(), event.payload)

    def test_it_does_not_defer_where_files_wait_already(self, exporting):
        put(exporting, samples.TYPES[0])
        self.sensor(exporting, deferrable=True).execute(context())


def test_an_export_says_how_its_source_is_for_the_overview(exporting):
    put(exporting, *samples.TYPES[:3])
    sent = operator(exporting).execute(context())["sent"]
    said = glance(exporting.ledger)
    assert (said["state"], said["events"]["sent"], said["past"][-1]["value"]) == ("whole", sent, sent)
