"""Braze segments in Heap, as Airflow calls the operators, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import time
from importlib import import_module
from pathlib import Path

import pytest
import requests
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk import Asset, AssetAlias

from airflow_provider_heapbraze.members import Guards
from airflow_provider_heapbraze.operators.segment import BrazeSegmentSizeOperator, BrazeSegmentToHeapOperator
from airflow_provider_heapbraze.segments import arrival
from airflow_provider_heapbraze.triggers.segment import PauseTrigger
from tests.airflow.cohorts import PEOPLE, context, glance

SEGMENT = "segment-one"
PROPERTY = "braze_segment_lapsed_buyers"
ANYTHING = Guards(max_removed_share=None)


class Refresh:
    """One segment in Braze, and the property that it becomes in Heap."""

    def __init__(self, sandbox, folder):
        self.sandbox = sandbox
        self.ledger = (folder / "ledger").as_uri()
        self.folder = folder
        sandbox.add_segments([{"id": SEGMENT, "name": "Lapsed buyers", "attribute": "lapsed"}])

    def members(self, people):
        """Say who is in the segment."""
        now = [{"external_id": person, "lapsed": True} for person in people]
        others = [
            {"external_id": person, "lapsed": False}
            for person in self.sandbox.attribute("lapsed")["true"]
            if person not in set(people)
        ]
        self.track([*now, *others])

    def track(self, rows):
        for start in range(0, len(rows), 75):
            answer = requests.post(
                f"{self.sandbox.url}/users/track",
                json={"attributes": rows[start : start + 75]},
                headers={"Authorization": "Bearer sandbox-rest-api-key"},
                timeout=10,
            )
            assert answer.status_code == 201

    def operator(self, **arguments):
        arguments = {"segment_id": SEGMENT, "poll_interval": 0.02, "guards": ANYTHING, **arguments}
        return BrazeSegmentToHeapOperator(task_id="refresh", ledger=self.ledger, **arguments)

    def run(self, night="night-1", **arguments):
        return self.operator(**arguments).execute(context(night, task_id="refresh"))

    def values(self, name=PROPERTY):
        return {
            user["identity"]: user["properties"][name]
            for user in self.sandbox.heap_users()
            if name in user["properties"]
        }

    def not_there_yet(self, looks=1):
        """Let so many looks find no export, however late they come."""
        self.sandbox.faults(next=[{"endpoint": "segment-export-file", "status": 404, "count": looks}])

    def sent(self, endpoint):
        return [entry["status"] for entry in self.sandbox.requests() if entry["endpoint"] == endpoint]


@pytest.fixture
def refresh(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr(arrival, "QUIET_SECONDS", 0.3)
    return Refresh(sandbox, tmp_path)


@pytest.fixture
def bucket(refresh):
    """Give the folder that Braze writes exports to."""
    folder = refresh.folder / "bucket"
    folder.mkdir()
    refresh.sandbox.settings(export_folder=str(folder))
    return folder


def test_members_get_true_and_leavers_false(refresh):
    refresh.members(PEOPLE[:60])
    alias, asset, night = AssetAlias("segments"), Asset("one", uri=f"heap://property/{PROPERTY}"), context()
    first = refresh.operator(outlets=[alias, asset]).execute(night)
    assert refresh.values() == dict.fromkeys(PEOPLE[:60], "true")
    assert set(first) == {
        *("run_id", "adds", "removes", "acknowledged", "rejected", "requests", "size", "report_uri"),
        "waterfall",
    }
    extra = {"size": 60, "adds": 60, "removes": 0}
    assert night["outlet_events"][asset].extra == extra
    ((added, told),) = night["outlet_events"][alias].events
    assert (added.uri, told) == (asset.uri, extra)

    refresh.members(PEOPLE[10:70])
    second = refresh.run("night-2")
    assert (second["adds"], second["removes"]) == (10, 10)
    assert second["requests"] == 2, "removals have to be answered before somebody is added"
    values = dict.fromkeys(PEOPLE[10:70], "true") | dict.fromkeys(PEOPLE[:10], "false")
    assert refresh.values() == values
    assert "private-person" not in json.dumps([first, second])


def test_the_next_step_is_in_the_first_report(refresh):
    refresh.members(PEOPLE[:3])
    first, second = (read(refresh.run(day)["report_uri"]) for day in ("night-1", "night-2"))
    assert f'"{PROPERTY}" is "true"' in first["next_step"]
    assert "next_step" not in second


def read(uri):
    return json.loads(Path(uri.removeprefix("file://")).read_text())


def test_a_property_of_another_name_from_aliases(refresh):
    refresh.sandbox.add_users(
        [
            {"external_id": PEOPLE[0], "aliases": [{"alias_name": "private-alias-0", "alias_label": "heap"}]},
            {
                "aliases": [
                    {"alias_name": "private-mail-1", "alias_label": "email"},
                    {"alias_name": "private-alias-1", "alias_label": "heap"},
                ]
            },
        ]
    )
    refresh.sandbox.add_segments([{"id": "everybody", "name": "Everybody"}])
    result = refresh.run(
        segment_id=None, segment_name="Everybody", property_name="In Braze", alias_label="heap"
    )
    assert refresh.values("In Braze") == {"private-alias-0": "true", "private-alias-1": "true"}
    assert result["waterfall"]["unmatched"] == {"blank": 99}


def test_identities_are_exact(refresh):
    odd = [" private person ", "PRIVATE-PERSON-0001", "ü" * 255, "x" * 256]
    refresh.sandbox.add_users([{"external_id": person} for person in odd])
    refresh.members(odd)
    result = refresh.run()
    assert set(refresh.values()) == set(odd[:3])
    assert result["waterfall"]["unmatched"] == {"too_long": 1}


def test_a_segment_that_is_renamed_keeps_its_property(refresh):
    refresh.members(PEOPLE[:3])
    refresh.run()
    refresh.sandbox.add_segments([{"id": SEGMENT, "name": "Lapsed!", "attribute": "lapsed"}])
    refresh.members(PEOPLE[:2])
    refresh.run("night-2")
    assert refresh.values()[PEOPLE[2]] == "false"


def test_a_segment_that_is_not_there_claims_no_property(refresh):
    refresh.members(PEOPLE[:3])
    with pytest.raises(AirflowFailException):
        refresh.run(segment_id="mistyped", property_name=PROPERTY)
    assert refresh.run(property_name=PROPERTY)["size"] == 3


def test_one_property_has_one_segment(refresh):
    refresh.members(PEOPLE[:3])
    refresh.run()
    refresh.sandbox.add_segments([{"id": "segment-two", "name": "lapsed  buyers"}])
    with pytest.raises(AirflowFailException, match="is fed by segment segment-one"):
        refresh.run("night-2", segment_id="segment-two")
    with pytest.raises(AirflowFailException, match="alias_label 'heap'"):
        refresh.run("night-2", alias_label="heap")
    assert len(refresh.values()) == 3


def test_an_empty_segment_is_stopped_unless_allowed(refresh):
    refresh.members(PEOPLE[:3])
    refresh.run()
    refresh.members([])
    with pytest.raises(AirflowFailException, match="allow_empty"):
        refresh.run("night-2")
    with pytest.raises(AirflowSkipException, match="allow_empty"):
        refresh.run("night-2", on_breach="skip")
    refresh.run("night-2", guards=Guards(allow_empty=True))
    assert set(refresh.values().values()) == {"false"}


def test_after_a_guard_the_segment_is_read_anew(refresh):
    """Whoever mended the segment in Braze and clears the task wants it to be looked at again."""
    refresh.members(PEOPLE[:10])
    refresh.run()
    refresh.members(PEOPLE[:2])
    with pytest.raises(AirflowFailException, match="max_removed_share"):
        refresh.run("night-2", guards=Guards())
    refresh.members(PEOPLE[:9])
    refresh.run("night-2", guards=Guards())
    assert list(refresh.values().values()).count("true") == 9


def test_a_run_that_has_begun_to_send_goes_on_with_the_same_members(refresh):
    refresh.sandbox.add_users(count=2500)
    refresh.sandbox.add_segments([{"id": "everybody", "name": "Everybody"}])
    taken = {"count": 1, "status": 204, "applied": True, "endpoint": "heap-user-properties"}
    refused = {"count": 50, "status": 401, "endpoint": "heap-user-properties"}
    refresh.sandbox.faults(next=[taken, refused])
    with pytest.raises(AirflowFailException, match="401"):
        refresh.run(segment_id="everybody")
    assert len(refresh.values("braze_segment_everybody")) == 1000
    refresh.sandbox.faults()
    result = refresh.run(segment_id="everybody")
    assert len(refresh.values("braze_segment_everybody")) == result["size"] == 2600
    assert refresh.sent("segment-export") == [201], "one export was made"
    bodies = [e["body_sha256"] for e in refresh.sandbox.requests() if e["status"] == 204]
    assert len(bodies) == len(set(bodies)) == 3, "no accepted batch was sent again"


def test_an_export_without_the_field_that_is_needed_is_not_taken(refresh):
    """Somebody mends alias_label and clears the task: the export that is under way has no aliases."""
    alias = {"alias_name": "private-alias-0", "alias_label": "heap"}
    refresh.sandbox.add_users([{"external_id": PEOPLE[0], "aliases": [alias]}])
    refresh.not_there_yet()
    refresh.members(PEOPLE[:5])
    deferred(refresh.operator(deferrable=True))
    assert refresh.run(alias_label="heap")["size"] == 1
    assert refresh.values() == {"private-alias-0": "true"}


def test_what_was_seen_to_be_there_may_have_been_another_export(refresh):
    refresh.not_there_yet()
    refresh.members(PEOPLE[:5])
    left = deferred(refresh.operator(deferrable=True))
    event = event_of(left.trigger)
    refresh.run()  # another attempt has read it
    refresh.members(PEOPLE[:6])
    refresh.not_there_yet()
    again = refresh.operator(deferrable=True)
    with pytest.raises(TaskDeferred):
        resumed(again, left, event)


def test_a_finished_run_that_is_cleared_refreshes(refresh):
    refresh.members(PEOPLE[:3])
    refresh.run()
    refresh.members(PEOPLE[:4])
    assert refresh.run()["size"] == 4


def test_files_in_a_bucket(refresh, bucket, monkeypatch):
    monkeypatch.setattr(arrival, "QUIET_SECONDS", 2.0)  # thirty times as long as from one file to the next
    refresh.sandbox.settings(export_users_per_file=7, export_delay=0.5)
    refresh.members(PEOPLE[:50])
    with pytest.raises(AirflowFailException, match="bucket="):
        refresh.run()
    # However often it is looked: files come for longer than a few looks take.
    assert refresh.run(bucket=bucket.as_uri(), poll_interval=0.01)["size"] == 50
    assert refresh.sent("segment-export") == [201], "the export that was under way is taken"
    assert len(list(bucket.glob("segment-export/*/*/*/*.zip"))) >= 8


def test_a_bucket_that_is_not_there(refresh, bucket):
    with pytest.raises(AirflowFailException, match="There is no bucket at"):
        refresh.run(bucket=bucket.as_uri() + "s")
    assert refresh.sent("segment-export") == []


def test_a_bucket_in_which_nothing_comes(refresh, bucket):
    with pytest.raises(AirflowException, match="by e-mail only") as caught:
        refresh.run(bucket=bucket.as_uri(), timeout=0.05)
    assert not isinstance(caught.value, AirflowFailException), "a later try may find it"


def test_a_foreign_file_in_the_bucket_is_refused_and_the_next_try_makes_a_new_export(refresh, bucket):
    refresh.members(PEOPLE[:50])
    operator = refresh.operator(bucket=bucket.as_uri(), deferrable=True)
    left = deferred(operator)
    wait_for(lambda: list(bucket.glob("segment-export/*/*/*/*.zip")))
    next(bucket.glob("segment-export/*/*/*")).joinpath("private-person-9999.csv").write_text(
        "identity\nprivate-person-9999\n"
    )
    with pytest.raises(
        AirflowFailException, match=r"File \d of \d of export .* is neither ZIP nor gzip"
    ) as caught:
        resumed(operator, left, {"ready": True, "state": left.trigger.state})
    assert "private-person" not in str(caught.value)
    assert refresh.run(bucket=bucket.as_uri())["size"] == 50
    assert refresh.sent("segment-export") == [201, 201]


def wait_for(what):
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def deferred(operator, night=None):
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(night or context(task_id="refresh"))
    return caught.value


def event_of(trigger):
    """Run a trigger as another triggerer would, from what is kept in the database."""
    path, arguments = trigger.serialize()
    module, name = path.rsplit(".", 1)
    again = getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))

    async def first():
        async for event in again.run():
            return event.payload
        raise AssertionError("no event")

    return asyncio.run(first())


def resumed(operator, left, event, night=None):
    """Go on as another worker does: with nothing but the event, as in ``dag.test()``."""
    return getattr(operator, left.method_name)(
        night or context(task_id="refresh"), event=json.loads(json.dumps(event))
    )


def test_it_waits_without_a_worker(refresh):
    refresh.not_there_yet()
    refresh.members(PEOPLE[:5])
    left = deferred(refresh.operator(deferrable=True))
    kept = json.dumps(left.trigger.serialize())
    assert "sandbox-rest-api-key" not in kept
    assert "/exports/" not in kept.replace(left.trigger.export, ""), "the URL opens the file to anybody"
    result = resumed(refresh.operator(deferrable=True), left, event_of(left.trigger))
    assert result["size"] == 5
    assert refresh.sent("segment-export") == [201]


def test_a_retry_adopts_the_export_that_is_under_way(refresh):
    """The worker died after it had asked; or the task was cleared while it waited."""
    refresh.not_there_yet(looks=2)
    refresh.members(PEOPLE[:5])
    deferred(refresh.operator(deferrable=True))
    left = deferred(refresh.operator(deferrable=True))
    assert resumed(refresh.operator(deferrable=True), left, event_of(left.trigger))["size"] == 5
    assert refresh.sent("segment-export") == [201]


def test_another_run_waits_for_its_turn(refresh):
    refresh.sandbox.settings(export_delay=2.0)
    refresh.members(PEOPLE[:5])
    deferred(refresh.operator(deferrable=True))
    left = deferred(refresh.operator(deferrable=True), context("night-2", task_id="refresh"))
    assert isinstance(left.trigger, PauseTrigger)
    result = refresh.run("night-2")
    assert result["size"] == 5
    statuses = refresh.sent("segment-export")
    assert statuses.count(201) == 2
    assert 429 in statuses


@pytest.mark.parametrize("away", ["segments.exports.read_export", "segments.arrival.bucket_files"])
def test_the_trigger_outlasts_storage_that_is_away(refresh, bucket, monkeypatch, caplog, away):
    refresh.sandbox.settings(export_delay=0.3)
    refresh.members(PEOPLE[:5])
    left = deferred(refresh.operator(deferrable=True, bucket=bucket.as_uri()))
    with monkeypatch.context() as patched:

        def refuse(*_):
            patched.undo()
            raise OSError("https://bucket/?signature=private-signature")

        patched.setattr(f"airflow_provider_heapbraze.{away}", refuse)
        event = event_of(left.trigger)
    assert resumed(refresh.operator(deferrable=True, bucket=bucket.as_uri()), left, event)["size"] == 5
    assert "1 times in a row so far: Storage answered with an error (OSError)" in caplog.text
    assert "private" not in caplog.text


def test_a_triggerer_that_does_not_see_the_ledger_says_so(refresh):
    refresh.not_there_yet()
    refresh.members(PEOPLE[:5])
    left = deferred(refresh.operator(deferrable=True))
    left.trigger.ledger = (refresh.folder / "another machine").as_uri()
    with pytest.raises(AirflowFailException, match="Give a ledger that workers and triggerers reach"):
        resumed(refresh.operator(deferrable=True), left, event_of(left.trigger))
    assert refresh.run()["size"] == 5
    assert refresh.sent("segment-export") == [201]


def test_the_deadline_is_absolute(refresh):
    refresh.sandbox.settings(export_delay=60)
    left = deferred(refresh.operator(deferrable=True, timeout=0.1))
    event = event_of(left.trigger)
    assert event["ready"] is False
    with pytest.raises(AirflowException, match="is not there after 0 s"):
        resumed(refresh.operator(deferrable=True, timeout=0.1), left, event)


def test_a_late_export_that_braze_still_makes_is_waited_for(refresh):
    refresh.sandbox.settings(export_delay=1.5)
    refresh.members(PEOPLE[:5])
    with pytest.raises(AirflowException, match="is not there after"):
        refresh.run(timeout=0.001)
    assert refresh.run(timeout=60)["size"] == 5
    assert refresh.sent("segment-export").count(201) == 1


def test_an_export_that_failed_is_made_again(refresh, bucket):
    (bucket / "segment-export").write_text("Braze cannot write here")
    refresh.members(PEOPLE[:5])
    with pytest.raises(AirflowException, match="is not there after"):
        refresh.run(bucket=bucket.as_uri(), timeout=0.1)
    (bucket / "segment-export").unlink()
    assert refresh.run(bucket=bucket.as_uri())["size"] == 5
    assert refresh.sent("segment-export").count(201) == 2


def test_an_export_that_comes_late_is_taken_by_the_next_try(refresh):
    refresh.sandbox.settings(export_delay=1.0)
    refresh.members(PEOPLE[:5])
    with pytest.raises(AirflowException, match="is not there after"):
        refresh.run(timeout=0.001)
    wait_for(lambda: refresh.sandbox.exports()[0]["ready"])
    assert refresh.run(timeout=0.001)["size"] == 5
    assert refresh.sent("segment-export") == [201]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"segment_id": None}, "either segment_id or segment_name"),
        ({"segment_name": "Lapsed buyers"}, "either segment_id or segment_name"),
        ({"segment_id": None, "segment_name": "Lapsed buyer"}, "Do you mean 'Lapsed buyers'"),
        ({"segment_id": None, "segment_name": "Twice"}, "segment-3, segment-4"),
        ({"segment_id": "no-such-segment"}, "no segment with that id"),
        ({"property_name": "ID"}, "cannot be the name of a user property"),
        ({"property_name": "x" * 1024}, "cannot be the name of a user property"),
        ({"on_breach": "ask"}, "on_breach must be"),
        ({"poll_interval": 0}, "poll_interval must be a number of seconds"),
        ({"timeout": "long"}, "timeout must be a number of seconds"),
    ],
)
def test_bad_arguments_are_said_before_anything_is_sent(refresh, arguments, says):
    refresh.sandbox.add_segments([{"id": f"segment-{n}", "name": "Twice"} for n in (3, 4)])
    with pytest.raises(AirflowFailException, match=says):
        refresh.run(**arguments)
    assert refresh.sandbox.heap_users() == []
    assert refresh.sent("segment-export") == []


def test_a_segment_is_found_on_any_page(refresh):
    refresh.sandbox.add_segments([{"id": f"more-{n}", "name": f"More {n}"} for n in range(250)])
    refresh.run(segment_id=None, segment_name="More 249")
    assert len(refresh.values("braze_segment_more_249")) == len(PEOPLE)


def size_of(refresh, night=None, **arguments):
    operator = BrazeSegmentSizeOperator(
        task_id="size", **{"segment_id": SEGMENT, "ledger": refresh.ledger, **arguments}
    )
    return operator.execute(night or context(task_id="size"))


def test_sizes_over_time(refresh):
    refresh.sandbox.add_segments(
        [{"id": SEGMENT, "name": "Lapsed buyers", "attribute": "lapsed", "sizes": [90, 4, 110, 100]}]
    )
    refresh.members(PEOPLE)
    asset, night = Asset("one", uri=f"braze://segment/{SEGMENT}"), context()
    result = size_of(refresh, night, outlets=[asset])
    assert (result["size"], result["usual"], result["change"]) == (100, 95.0, 0.0526)
    assert list(result["series"].values()) == [90, 4, 110, 100, 100]
    assert night["outlet_events"][asset].extra == {"size": 100, "day": result["day"], "change": 0.0526}
    assert read(result["report_uri"])["series"] == result["series"]


def test_a_sudden_change_fails(refresh):
    refresh.sandbox.add_segments(
        [{"id": SEGMENT, "name": "Lapsed buyers", "attribute": "lapsed", "sizes": [50, 50, 50]}]
    )
    refresh.members(PEOPLE[:20])
    with pytest.raises(AirflowFailException, match=r"60\.0% fewer people than usual \(max_drop_share=0\.5\)"):
        size_of(refresh)
    assert size_of(refresh, max_drop_share=0.6)["size"] == 20
    refresh.members(PEOPLE)
    assert size_of(refresh)["change"] == 1.0
    with pytest.raises(AirflowFailException, match="more people than usual"):
        size_of(refresh, max_rise_share="0.9")
    with pytest.raises(AirflowFailException, match="max_rise_share must be"):
        size_of(refresh, max_rise_share="a lot")


def test_a_kill_is_heeded(refresh):
    class Killing(Guards):
        """Airflow's signal handler only calls on_kill(); here it comes while the plan is looked at."""

        def breaches(self, *plan):
            operator.on_kill()
            return super().breaches(*plan)

    operator = refresh.operator(guards=Killing())
    refresh.members(PEOPLE[:5])
    with pytest.raises(AirflowException):
        operator.execute(context(task_id="refresh"))
    assert refresh.values() == {}
    assert refresh.run()["size"] == 5


def test_what_counts_is_when_the_members_were_read(refresh):
    """Whichever run it was for: an older export does not undo a newer one, and a newer one follows."""
    refresh.members(PEOPLE[:10])
    refresh.not_there_yet()
    left = deferred(refresh.operator(deferrable=True), context("night-2", task_id="refresh"))
    event = event_of(left.trigger)
    time.sleep(1.1)  # the ledger's times are whole seconds
    refresh.members(PEOPLE[:12])
    assert refresh.run("night-1")["size"] == 12
    with pytest.raises(AirflowFailException, match="is of a later time"):
        resumed(refresh.operator(deferrable=True), left, event, context("night-2", task_id="refresh"))
    assert refresh.run("night-2")["size"] == 12, "a cleared task reads the segment anew"


def test_a_size_without_a_past_is_not_judged(refresh, capsys):
    refresh.members(PEOPLE[:5])
    assert size_of(refresh)["usual"] is None
    assert "not judged" in capsys.readouterr().out


def test_a_refresh_says_how_its_property_is_for_the_overview(refresh):
    refresh.members(PEOPLE[:10])
    refresh.run()
    assert (glance(refresh.ledger)["kind"], glance(refresh.ledger)["size"]) == ("property", 10)
