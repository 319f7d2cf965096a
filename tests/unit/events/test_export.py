"""Event export, end to end against the sandbox."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    InterruptedCallError,
    PermanentError,
    TransientError,
)
from airflow_provider_heapbraze.clients.event_budget import EventLimits
from airflow_provider_heapbraze.events.errors import BadFilesError
from airflow_provider_heapbraze.events.mapping import MappingRules
from airflow_provider_heapbraze.events.outbox import Outbox
from airflow_provider_heapbraze.events.source_ledger import SourceLedger
from airflow_provider_heapbraze.ledger_folder import PlaceLostError
from tests.currents import samples
from tests.unit.events.exporting import Place

CUSTOM = "users.behaviors.CustomEvent"
PARTS = ("sent", "duplicates", "anonymous", "filtered", "rejected")


@pytest.fixture
def place(heapbraze_sandbox, tmp_path):
    (tmp_path / "source").mkdir()
    return Place(heapbraze_sandbox.url, tmp_path)


def put(place, name, records, codec="null"):
    samples.write_avro(place.source / name, samples.schema(CUSTOM), records, codec)


def ids(records):
    return {record["id"] for record in records}


def in_heap(sandbox):
    return Counter(event["idempotency_key"] for event in sandbox.heap_events())


def wait_until(reached):
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def wait_for_more_than(events, sandbox):
    wait_until(lambda: sandbox.state()["heap"]["events"] > events)


@contextmanager
def stopped_after(events, export, sandbox):
    """Stop an export once more than so many events are in Heap, however long that takes."""

    def stop():
        wait_for_more_than(events, sandbox)
        export.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_every_event_arrives_once_and_the_numbers_add_up(place, heapbraze_sandbox):
    records = list(samples.numbered(2500))
    put(place, "a.avro", records[:1300], "snappy")
    put(place, "b.avro", records[1300:], "deflate")
    report = place.run()
    assert in_heap(heapbraze_sandbox) == Counter(ids(records))
    assert report["events"] == report["sent"] == 2500
    assert report["files"] == 2
    assert report["requests"]["requests"] == 3, "requests are full"


def test_a_second_run_sends_nothing(place, heapbraze_sandbox):
    put(place, "a.avro", samples.numbered(100))
    place.run()
    report = place.run("run-2")
    assert (report["files"], report["events"]) == (0, 0)
    assert heapbraze_sandbox.heap_sends() == {1: 100}


def test_the_same_event_in_two_files_is_sent_once(place, heapbraze_sandbox):
    records = list(samples.numbered(300))
    put(place, "a.avro", records[:200])
    put(place, "b.avro", records[100:])
    report = place.run()
    assert (report["sent"], report["duplicates"]) == (300, 100)
    put(place, "later.avro", records[:50])
    report = place.run("run-2")
    assert (report["sent"], report["duplicates"]) == (0, 50)
    assert heapbraze_sandbox.heap_sends() == {1: 300}


def test_an_event_that_left_the_window_is_left_to_heap(place, heapbraze_sandbox):
    place.options["window_days"] = 1
    old, new = list(samples.numbered(20)), list(samples.numbered(20, start=20))
    for record in new:
        record["time"] += 5 * 86_400
    put(place, "a.avro", old)
    place.run()
    put(place, "b.avro", new)
    place.run("run-2")
    put(place, "c.avro", old)
    assert place.run("run-3")["sent"] == 20
    assert heapbraze_sandbox.state()["heap"]["events"] == 40
    assert heapbraze_sandbox.heap_sends() == {1: 20, 2: 20}


def test_anonymous_and_bad_events_are_kept_aside_with_their_reason(place):
    good, no_id, no_time, nobody = samples.numbered(4)
    no_id["id"] = " "
    no_time["time"] = 0
    nobody["external_user_id"] = None
    put(place, "a.avro", [good, no_id, no_time, nobody])
    report = place.run()
    assert report["rejected_by"] == {"no_id": 1, "no_time": 1}
    assert (report["sent"], report["anonymous"]) == (1, 1)
    assert sum(report[part] for part in PARTS) == report["events"] == 4
    assert "1 events were kept aside: each has no time, or one that is zero or negative." in report["notes"]
    (aside,) = place.ledger.glob("sources/*/aside/*.jsonl")
    kept = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [(line["row"], line["reason"]) for line in kept] == [
        (1, "no_id"),
        (2, "no_time"),
        (3, "anonymous"),
    ]
    assert kept[0]["event"]["identity"] == no_id["external_user_id"]


def test_anonymous_events_go_by_braze_id_when_asked(place, heapbraze_sandbox):
    place.rules = MappingRules(anonymous="braze_id")
    (nobody,) = samples.numbered(1)
    nobody["external_user_id"] = None
    put(place, "a.avro", [nobody])
    assert place.run()["sent"] == 1
    assert heapbraze_sandbox.heap_events()[0]["identity"] == nobody["user_id"]


def test_milliseconds_are_read_as_such_and_said(place, heapbraze_sandbox):
    (record,) = samples.numbered(1)
    moment = record["time"]
    (place.source / "a.json").write_text(json.dumps({**record, "time": moment * 1000, "event_type": CUSTOM}))
    report = place.run()
    assert heapbraze_sandbox.heap_events()[0]["timestamp"].startswith("2025-11-24T")
    assert report["notes"] == ["1 events had their time in milliseconds or finer; it was read as such."]


def test_what_heap_refuses_is_found_and_kept_aside(place, heapbraze_sandbox):
    records = list(samples.numbered(1000))
    poison = {records[17]["id"], records[640]["id"], records[641]["id"]}
    heapbraze_sandbox.faults(poison=sorted(poison))
    put(place, "a.avro", records)
    report = place.run()
    assert set(in_heap(heapbraze_sandbox)) == ids(records) - poison
    assert report["rejected_by"] == {"refused_400": 3}
    (aside,) = place.ledger.glob("sources/*/aside/*.jsonl")
    assert {json.loads(line)["event"]["idempotency_key"] for line in aside.read_text().splitlines()} == poison


def test_a_single_bad_event_is_known_to_be_at_fault_where_heap_took_others_before(place, heapbraze_sandbox):
    first, second = samples.numbered(2)
    put(place, "a.avro", [first])
    place.run()
    heapbraze_sandbox.faults(poison=[second["id"]])
    put(place, "b.avro", [second])
    assert place.run("run-2")["rejected_by"] == {"refused_400": 1}


def test_where_everything_is_refused_no_event_is_blamed(place, heapbraze_sandbox):
    records = list(samples.numbered(3))
    put(place, "a.avro", records)
    heapbraze_sandbox.settings(heap_app_id="another-heap-app-id")
    with pytest.raises(PermanentError, match="3 events were refused"):
        place.run()
    heapbraze_sandbox.settings(heap_app_id="sandbox-heap-app-id")
    report = place.run()
    assert (report["sent"], report["rejected"]) == (3, 0)


@pytest.mark.parametrize(
    "fault", ["5xx-before", "5xx-after", "cut-before", "cut-after", "429-retry-after-seconds", "429-bare"]
)
def test_faults_are_waited_out(place, heapbraze_sandbox, fault):
    records = list(samples.numbered(3000))
    put(place, "a.avro", records)
    heapbraze_sandbox.faults(next=[{"kind": fault, "count": 3}], wait=0)
    assert place.run()["sent"] == 3000
    assert set(in_heap(heapbraze_sandbox)) == ids(records)


def test_a_run_that_fails_goes_on_where_it_stopped(place, heapbraze_sandbox):
    records = list(samples.numbered(5000))
    put(place, "a.avro", records)
    taken = {"count": 2, "status": 204, "applied": True}
    heapbraze_sandbox.faults(next=[taken, {"count": 99, "status": 401}])
    with pytest.raises(AuthenticationError):
        place.run()
    settled = heapbraze_sandbox.state()["heap"]["events"]
    heapbraze_sandbox.faults()
    report = place.run()
    assert report["events"] == report["sent"] == 5000, "the run's numbers are those of both attempts"
    assert set(in_heap(heapbraze_sandbox)) == ids(records)
    accepted = [entry for entry in heapbraze_sandbox.requests() if entry["status"] == 204]
    assert sum(entry["ids"]["set"]["identity"] for entry in accepted) == 5000, f"{settled} went once"


def test_rows_in_doubt_come_last(place, heapbraze_sandbox):
    """What was sent without an answer is sent again only when everything else is."""
    plenty = {"limit": 1_000_000, "seconds": 1}
    heapbraze_sandbox.settings(limits={"heap": plenty, "heap_identity": plenty})
    place.limits = EventLimits(1_000_000, 1_000_000, 1.0)
    records = list(samples.numbered(8000))
    put(place, "a.avro", records)
    heapbraze_sandbox.faults(rates={"cut-after": 1.0})
    with pytest.raises(TransientError):
        place.run()
    doubtful = set(in_heap(heapbraze_sandbox))
    assert 0 < len(doubtful) < 8000
    put(place, "0.avro", [record for record in records if record["id"] in doubtful][:500])  # in doubt, too
    again = heapbraze_sandbox.state()["heap"]["duplicates"]
    fresh = (8000 - len(doubtful)) // 1000
    taken = {"count": fresh, "status": 204, "applied": True}
    heapbraze_sandbox.faults(next=[taken, {"count": 99, "status": 401}])
    with pytest.raises(AuthenticationError):
        place.run()
    assert heapbraze_sandbox.state()["heap"]["events"] == 8000
    assert heapbraze_sandbox.state()["heap"]["duplicates"] == again, "nothing in doubt went before the rest"
    heapbraze_sandbox.faults()
    place.run()
    assert set(in_heap(heapbraze_sandbox)) == ids(records)
    assert heapbraze_sandbox.state()["heap"]["duplicates"] == again + len(doubtful)


def test_another_run_takes_over_and_the_first_one_stops(place, heapbraze_sandbox):
    records = list(samples.numbered(4000))
    put(place, "a.avro", records)
    heapbraze_sandbox.faults(latency=0.4)
    place.limits = EventLimits(1000, 1000, 1.0)
    first = place.open("run-1")
    outcome = []

    def run():
        try:
            first.run()
        except PlaceLostError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    wait_for_more_than(0, heapbraze_sandbox)
    place.run("run-2")
    thread.join(30)
    assert "Run run-2 took" in outcome[0]
    assert set(in_heap(heapbraze_sandbox)) == ids(records)
    assert heapbraze_sandbox.state()["limits_broken"] == {}


def test_a_kill_records_what_was_accepted(place, heapbraze_sandbox):
    records = list(samples.numbered(4000))
    put(place, "a.avro", records)
    place.limits = EventLimits(1000, 1000, 1.0)
    export = place.open()
    said = "sent; all that is recorded, and a re-run goes on"
    with stopped_after(0, export, heapbraze_sandbox), pytest.raises(InterruptedCallError, match=said):
        export.run()
    assert 0 < heapbraze_sandbox.state()["heap"]["events"] < 4000
    place.run()
    assert heapbraze_sandbox.heap_sends() == {1: 4000}


def test_a_stop_is_noticed_while_a_file_is_copied(place, monkeypatch):
    """A copy from an object store may take long: what is settled by then is recorded before it ends."""
    nobody = list(samples.numbered(300))
    for record in nobody:
        record["external_user_id"] = None
    put(place, "a.avro", nobody)
    put(place, "b.avro", samples.numbered(10))
    export, local_copy = place.open(), storage.local_copy
    recorded = []

    @contextmanager
    def slow_copy(path):
        if path.name == "b.avro":
            export.stop()
            until = time.monotonic() + 60
            while not recorded and time.monotonic() < until:
                files = place.ledger.glob("sources/*/progress/*.json")
                recorded.extend(file for file in files if json.loads(file.read_text())["counts"])
                time.sleep(0.05)
        with local_copy(path) as local:
            yield local

    monkeypatch.setattr(storage, "local_copy", slow_copy)
    with pytest.raises(InterruptedCallError, match="300 events are settled, 0 of them sent"):
        export.run()
    assert recorded


def test_what_is_settled_is_recorded_while_files_are_read(place, monkeypatch):
    """Every second: here every second is over at once."""
    nobody = list(samples.numbered(2500))
    for record in nobody:
        record["external_user_id"] = None
    put(place, "a.avro", nobody)
    monkeypatch.setattr("airflow_provider_heapbraze.events.account.FLUSH_SECONDS", 0.0)
    assert place.run()["anonymous"] == 2500
    assert len(list(place.ledger.glob("sources/*/progress/*.json"))) >= 5
    kept = [path.read_text().splitlines() for path in place.ledger.glob("sources/*/aside/*.jsonl")]
    assert sorted(map(len, kept)) == [500] * 5


def test_commits_in_the_middle_of_a_run_change_nothing(place, heapbraze_sandbox, monkeypatch):
    monkeypatch.setattr("airflow_provider_heapbraze.events.delivery.RECORDS_BETWEEN_COMMITS", 2)
    plenty = {"limit": 1_000_000, "seconds": 1}
    heapbraze_sandbox.settings(limits={"heap": plenty, "heap_identity": plenty})
    place.limits = EventLimits(1000, 1000, 0.5)
    put(place, "a.avro", samples.numbered(6000))
    for events in (0, 2000):
        export = place.open()
        with stopped_after(events, export, heapbraze_sandbox), pytest.raises(InterruptedCallError):
            export.run()
    report = place.run()
    assert report["events"] == report["sent"] == 6000
    assert heapbraze_sandbox.state()["heap"]["events"] == 6000
    entries = [json.loads(path.read_text()) for path in place.ledger.glob("sources/*/log/*.json")]
    assert [entry for entry in entries if entry.get("report") == ""], "not only at the end"


def test_files_that_come_while_only_a_hot_identity_waits_are_not_held_back(
    place, heapbraze_sandbox, monkeypatch
):
    monkeypatch.setattr("airflow_provider_heapbraze.events.export.LIST_SECONDS", 0.3)
    place.limits = EventLimits(2000, 50, 600.0)
    hot = list(samples.numbered(400, hot="hot-private-person", share=1.0))
    put(place, "a.avro", hot)
    others = list(samples.numbered(500, start=1000))
    export = place.open()

    def run():
        with pytest.raises(InterruptedCallError):
            export.run()

    runner = threading.Thread(target=run)
    runner.start()
    wait_for_more_than(49, heapbraze_sandbox)
    put(place, "b.avro", others)
    wait_until(lambda: ids(others) <= set(in_heap(heapbraze_sandbox)))
    hot_ones_then = len(ids(hot) & set(in_heap(heapbraze_sandbox)))
    export.stop()
    runner.join()
    assert hot_ones_then == 50, "they went while the hot one still waited"
    place.limits = EventLimits(2000, 1000, 0.5)
    place.run()
    assert heapbraze_sandbox.heap_sends() == {1: 900}


def test_a_record_that_was_written_without_an_answer_counts_once(place, heapbraze_sandbox, monkeypatch):
    write, failures = SourceLedger.write_progress, [OSError("no answer from the store")]

    def write_and_fail(self, number, count, progress):
        write(self, number, count, progress)
        if progress.counts and failures:
            raise failures.pop()

    monkeypatch.setattr(SourceLedger, "write_progress", write_and_fail)
    put(place, "a.avro", samples.numbered(3000))
    with pytest.raises(OSError, match="no answer"):
        place.run()
    report = place.run()
    assert (report["events"], report["sent"]) == (3000, 3000)


def test_a_hot_identity_that_does_not_fit_into_memory_is_read_again(place, heapbraze_sandbox, monkeypatch):
    monkeypatch.setitem(Outbox.__init__.__kwdefaults__, "most_bytes_aside", 20_000)
    place.limits = EventLimits(2000, 100, 0.5)
    heapbraze_sandbox.settings(
        limits={"heap": {"limit": 2000, "seconds": 0.5}, "heap_identity": {"limit": 100, "seconds": 0.5}}
    )
    records = list(samples.numbered(3000, hot="hot-private-person", share=1 / 3))
    put(place, "a.avro", records[:1500])
    put(place, "b.avro", records[1500:])
    report = place.run()
    assert report["sent"] == 3000
    assert heapbraze_sandbox.heap_sends() == {1: 3000}
    assert heapbraze_sandbox.state()["limits_broken"] == {}


def test_the_limits_are_never_broken(place, heapbraze_sandbox):
    """30,000 events, a third of one identity; that the limits are used, too, is for the benchmark to show."""
    place.limits = EventLimits(7_500, 2_500, 2.0)
    heapbraze_sandbox.settings(
        limits={"heap": {"limit": 7_500, "seconds": 2}, "heap_identity": {"limit": 2_500, "seconds": 2}}
    )
    records = samples.numbered(30_000, hot="hot-private-person", share=1 / 3)
    for number in range(6):
        put(place, f"{number}.avro", [next(records) for _ in range(5_000)])
    assert place.run()["sent"] == 30_000
    assert heapbraze_sandbox.state()["limits_broken"] == {}


class TestBadFiles:
    def test_everything_else_is_delivered_and_committed_first(self, place, heapbraze_sandbox):
        put(place, "a.avro", samples.numbered(10))
        whole = place.source / "whole.avro"
        put(place, "whole.avro", samples.numbered(3000, start=10))
        (place.source / "torn.avro").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        (place.source / "notes.txt").write_text("not of Currents")
        with pytest.raises(BadFilesError) as raised:
            place.run()
        assert "2 files were set aside, 0 are allowed (max_bad_files)" in str(raised.value)
        assert "notes.txt: it is neither Avro nor JSON" in str(raised.value)
        assert "torn.avro: it is cut off or damaged after" in str(raised.value)
        assert heapbraze_sandbox.heap_sends() == {1: 3010}
        (report,) = [json.loads(path.read_text()) for path in place.ledger.glob("sources/*/reports/*.json")]
        assert len(report["set_aside"]) == 2
        assert report["duplicates"] > 0, "the good part of a torn file was read"

    def test_as_many_as_allowed_are_no_error(self, place):
        place.options["max_bad_files"] = 1
        (place.source / "empty.avro").write_bytes(b"")
        report = place.run()
        assert [item["reason"] for item in report["set_aside"]] == [
            "it is empty; Braze writes no empty file, so it may be cut off, or still being written"
        ]

    def test_a_run_that_dies_leaves_its_bad_files_to_the_next(self, place, heapbraze_sandbox):
        put(place, "whole.avro", samples.numbered(3000))
        whole = (place.source / "whole.avro").read_bytes()
        (place.source / "whole.avro").unlink()
        (place.source / "torn.avro").write_bytes(whole[: len(whole) // 2])
        heapbraze_sandbox.faults(next=[{"count": 99, "status": 401}])
        with pytest.raises(AuthenticationError):
            place.run("run-1")
        heapbraze_sandbox.faults()
        with pytest.raises(BadFilesError, match="1 file was set aside"):
            place.run("run-2")
        assert heapbraze_sandbox.state()["heap"]["events"] > 1000
        assert place.run("run-3")["set_aside"] == []

    def test_a_file_mended_to_the_same_size_is_read_when_the_run_is_cleared(self, place, heapbraze_sandbox):
        put(place, "a.avro", samples.numbered(3000))
        whole = (place.source / "a.avro").read_bytes()
        middle = len(whole) // 2
        (place.source / "a.avro").write_bytes(whole[:middle] + b"\xff" * 4000 + whole[middle + 4000 :])
        with pytest.raises(BadFilesError):
            place.run()
        (place.source / "a.avro").write_bytes(whole)
        place.run()
        assert heapbraze_sandbox.heap_sends() == {1: 3000}

    def test_the_same_run_tries_again_and_a_later_one_passes_over(self, place):
        (place.source / "empty.avro").write_bytes(b"")
        for _ in range(2):
            with pytest.raises(BadFilesError):
                place.run("run-1")
        assert place.run("run-2")["set_aside"] == []

    def test_a_file_that_grows_whole_is_read_and_sent_once(self, place, heapbraze_sandbox):
        lines = [json.dumps({**record, "event_type": CUSTOM}) for record in samples.numbered(20)]
        packed = gzip.compress("\n".join(lines).encode())
        (place.source / "a.json.gz").write_bytes(packed[:-20])
        with pytest.raises(BadFilesError, match="its compressed content is cut off or damaged"):
            place.run()
        (place.source / "a.json.gz").write_bytes(packed)
        place.run("run-2")
        assert heapbraze_sandbox.state()["heap"]["events"] == 20
        assert max(heapbraze_sandbox.heap_sends()) == 1


def test_nothing_personal_is_logged_or_named(place, heapbraze_sandbox, caplog):
    caplog.set_level("DEBUG")
    for event_type in samples.TYPES:
        (place.source / f"{event_type}.avro").write_bytes(samples.avro_path(event_type).read_bytes())
    (place.source / "bad.json").write_text('{"id": "private-0123456789" "email": "private@private.example"}')
    heapbraze_sandbox.faults(next=[{"kind": "5xx-before"}])
    with pytest.raises(BadFilesError) as raised:
        place.run()
    names = " ".join(str(path) for path in place.ledger.rglob("*"))
    assert "private" not in caplog.text + str(raised.value) + names
    assert "sandbox-heap-app-id" not in caplog.text + str(raised.value) + names
    for path in place.ledger.rglob("*.json"):
        assert "sandbox-heap-app-id" not in path.read_text()
        assert "@private.example" not in path.read_text()
