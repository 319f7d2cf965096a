"""Whole runs against the sandbox: what Braze holds afterwards, and what was sent for it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.braze import BrazeLimits, Limit
from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    HeapBrazeError,
    InterruptedCallError,
    PermanentError,
    TransientError,
    UnclearAnswerError,
)
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.ledger_folder import PlaceLostError
from airflow_provider_heapbraze.membership.entries import Commit, Plan
from airflow_provider_heapbraze.membership.errors import GuardBreachedError, StalePlanError
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.planning import make_plan

ANYTHING_GOES = Guards(max_removed_share=None, allow_empty=True)


def people(*ranges):
    return [f"user-{number}" for numbers in ranges for number in numbers]


def test_first_import_then_changes_only(nightly):
    first = nightly.run(people(range(2500)))
    assert nightly.members() == set(people(range(2500)))
    assert nightly.sent() == [("cohort", 201), *[("cohort-users", 201)] * 3]
    assert first["waterfall"]["acknowledged"] == first["size"] == 2500

    seen = len(nightly.sent())
    second = nightly.run(people(range(100, 2600)), "run-2")
    assert nightly.members() == set(people(range(100, 2600)))
    assert nightly.sent(since=seen) == [("cohort-users", 201)] * 2, "who leaves, then who enters"
    assert (second["waterfall"]["adds"], second["waterfall"]["removes"]) == (100, 100)
    assert second["waterfall"]["unchanged"] == 2400


def test_nothing_changed_sends_nothing(nightly):
    nightly.run(people(range(50)))
    seen = len(nightly.sent())
    report = nightly.run(people(range(50)), "run-2")
    assert nightly.sent(since=seen) == []
    assert report["requests"]["requests"] == 0
    assert report["size"] == 50


def test_a_rename_alone_sends_one_request(nightly):
    nightly.run(people(range(50)))
    seen = len(nightly.sent())
    nightly.run(people(range(50)), "run-2", name="New name")
    assert nightly.sent(since=seen) == [("cohort", 201)]
    assert nightly.sandbox.cohort("cohort-under-test")["name"] == "New name"


def test_batches_are_cut_to_the_combined_thousand(nightly):
    rows = people(range(400))
    rows += [["", f"mail-{n}", "", "true"] for n in range(400)] + [
        ["", "", f"phone-{n}", ""] for n in range(201)
    ]
    nightly.run(rows)
    sizes = [
        sum(kinds.values())
        for entry in nightly.sandbox.requests()
        if entry["endpoint"] == "cohort-users"
        for kinds in entry["ids"].values()
    ]
    assert sorted(sizes) == [1, 1000]  # they are sent at the same time


def test_a_segment_without_anybody_makes_no_cohort(nightly):
    report = nightly.run([["", "", "", ""]])
    assert nightly.sent() == []
    assert report["waterfall"]["unmatched"] == {"blank": 1}


def test_emptying_is_stopped_unless_allowed(nightly):
    nightly.run(people(range(10)))
    with pytest.raises(GuardBreachedError, match=r"Guards\(allow_empty=True\)"):
        nightly.run([], "run-2", guards=Guards())
    assert len(nightly.members()) == 10
    nightly.run([], "run-2", guards=Guards(allow_empty=True))
    assert nightly.members() == set()


@pytest.mark.parametrize(
    ("guards", "wanted", "named"),
    [
        (Guards(), range(7), "max_removed_share=0.3"),
        (Guards(max_removed=1), range(8), "max_removed=2"),
        (Guards(max_added_share=0.5), range(16), "max_added_share=0.6"),
    ],
)
def test_a_guard_says_which_parameter_allows_it(nightly, guards, wanted, named):
    nightly.run(people(range(10)))
    seen = len(nightly.sent())
    with pytest.raises(GuardBreachedError, match=rf"Nothing was sent.*|{named}") as caught:
        nightly.run(people(wanted), "run-2", guards=guards)
    assert named in str(caught.value)
    assert nightly.sent(since=seen) == []


def test_match_rate_guard(nightly):
    rows = people(range(5)) + [["", "", "", ""]] * 5
    with pytest.raises(GuardBreachedError, match="min_match_rate"):
        nightly.run(rows, guards=Guards(min_match_rate=0.9))


def test_force_full_sends_everybody_again(nightly):
    nightly.run(people(range(10)))
    seen = len(nightly.sent())
    report = nightly.run(people(range(10)), "run-2", force_full=True)
    assert nightly.sent(since=seen) == [("cohort-users", 201)]
    assert report["waterfall"]["acknowledged"] == 10
    nightly.run(people(range(10)), "run-2", force_full=True)
    assert nightly.sent(since=seen) == [("cohort-users", 201)], "the same run again sends nothing twice"


def test_a_failed_run_goes_on_where_it_stopped(nightly):
    nightly.retry = RetryPolicy(attempts=1)
    # The name and some batches pass, then Braze fails for good.
    nightly.sandbox.faults(next=[{"count": 2, "status": 500, "endpoint": "cohort-users"}])
    with pytest.raises(TransientError):
        nightly.run(people(range(3000)))
    nightly.sandbox.faults()
    before = nightly.sent()
    nightly.run(people(range(3000)))
    after = nightly.sent()[len(before) :]
    assert ("cohort", 201) not in after, "the name was acknowledged"
    accepted = [status for _, status in before + after].count(201)
    assert accepted == 4, "the name and three batches, each accepted once"
    assert len(nightly.members()) == 3000
    assert len(set(nightly.bodies())) == len(nightly.bodies()), "no acknowledged batch was sent again"


def test_a_wrong_key_stops_at_once_and_nothing_is_lost(nightly):
    nightly.sandbox.settings(data_import_key="another-data-import-key")
    with pytest.raises(AuthenticationError) as caught:
        nightly.run(people(range(3000)))
    assert "data_import_key" in str(caught.value)
    assert "sandbox-data-import-key" not in repr(caught.value.__dict__) + str(caught.value)
    assert len(nightly.sent()) == 1
    nightly.sandbox.settings(data_import_key="sandbox-data-import-key")
    nightly.run(people(range(3000)))
    assert len(nightly.members()) == 3000


def test_one_refused_person_is_found_and_kept_aside(nightly):
    nightly.sandbox.faults(poison=["user-7"])
    report = nightly.run(people(range(1000)))
    assert report["waterfall"]["rejected"] == {"refused_400": 1}
    assert nightly.members() == set(people(range(1000))) - {"user-7"}
    assert nightly.ledger.path(report["rejected_rows"]).exists()
    assert "user-7" not in json.dumps(report)
    nightly.sandbox.faults()
    nightly.run(people(range(1000)), "run-2")
    assert nightly.members() == set(people(range(1000))), "wanted again the next time"


def test_everybody_refused_is_a_setting_not_a_thousand_requests(nightly):
    nightly.sandbox.faults(poison=people(range(3000)))
    with pytest.raises(PermanentError, match="refuses everybody"):
        nightly.run(people(range(3000)))
    assert len(nightly.sent()) < 3000


def test_a_wrong_cohort_is_not_split(nightly):
    body = {"message": "cohort_id must be a valid string"}
    nightly.sandbox.faults(next=[{"count": 5000, "status": 400, "body": body, "endpoint": "cohort-users"}])
    with pytest.raises(PermanentError, match="cohort_id"):
        nightly.run(people(range(2)))
    assert nightly.sent().count(("cohort-users", 400)) == 1


def test_requests_that_meet_are_sent_one_at_a_time(nightly):
    nightly.sandbox.faults(lock_overlapping=True, latency=0.01)
    report = nightly.run(people(range(3000)))
    assert len(nightly.members()) == 3000
    assert report["waterfall"]["acknowledged"] == 3000


MANY = [f"user-{number}" for number in range(60_000)]
TWENTY_A_SECOND = BrazeLimits(cohort=Limit(20, 1.0))


def opened(plan):
    """Return the plan as its run enters it in the log."""
    return replace(plan, opened_at=time.time())


def wait_for_the_first_batch(nightly):
    while ("cohort-users", 201) not in nightly.sent():
        time.sleep(0.01)


def test_a_later_run_takes_over_and_the_first_stops_before_its_next_batch(nightly):
    nightly.limits = TWENTY_A_SECOND
    failures: list[BaseException] = []

    def first():
        try:
            nightly.run(MANY, "run-first")
        except HeapBrazeError as error:
            failures.append(error)

    later = nightly.request(people(range(10)), "run-second")
    thread = threading.Thread(target=first)
    thread.start()
    wait_for_the_first_batch(nightly)
    with nightly.client() as client:
        nightly.ledger.append(opened(make_plan(nightly.ledger, nightly.ledger.last(), later)))
        thread.join()
        assert isinstance(failures[0], PlaceLostError)
        assert "run-second" in str(failures[0])
        assert nightly.sent().count(("cohort-users", 201)) < 60
        nightly.sync(client).run(later, ANYTHING_GOES)
    assert nightly.members() == set(people(range(10)))


def test_a_takeover_that_died_while_it_waited_waits_again(nightly):
    """Of the first run a request is under way still; who took over died right after its entry in the log."""
    nightly.sandbox.faults(endpoints=["cohort-users"], latency=3)

    def first():
        with suppress(PlaceLostError):
            nightly.run(people(range(20)), "run-first")

    thread = threading.Thread(target=first)
    thread.start()
    while ("cohort-users", None) not in nightly.sent():
        time.sleep(0.01)
    nightly.sandbox.faults()
    later = nightly.request(people(range(10)), "run-second")
    nightly.ledger.append(opened(make_plan(nightly.ledger, nightly.ledger.last(), later)))
    nightly.run(people(range(10)), "run-second")
    thread.join()
    assert nightly.members() == set(people(range(10))), "nothing of the first run came after it"


def test_a_stopped_run_records_what_was_accepted(nightly):
    nightly.limits = TWENTY_A_SECOND
    with nightly.client() as client:
        sync = nightly.sync(client)

        def kill():
            wait_for_the_first_batch(nightly)
            sync.stop()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(InterruptedCallError):
            sync.run(nightly.request(MANY), ANYTHING_GOES)
        killer.join()
    accepted = nightly.sent().count(("cohort-users", 201))
    assert 0 < accepted < 60
    settled = nightly.ledger.settled(nightly.ledger.last().plan_id)
    assert settled.acknowledged_rows == accepted * 1000


def test_a_drafted_plan_is_carried_out_as_it_is_or_refused(nightly):
    plan = make_plan(nightly.ledger, nightly.ledger.last(), nightly.request(people(range(10)), "plan"))
    with nightly.client() as client:
        sync = nightly.sync(client)
        report = sync.apply(plan.plan_id, "import", ANYTHING_GOES)
        assert report["run_id"] == "import"
        assert nightly.members() == set(people(range(10)))
        assert sync.apply(plan.plan_id, "import", ANYTHING_GOES) == report, (
            "a cleared task finds its work done"
        )
        stale = make_plan(nightly.ledger, nightly.ledger.last(), nightly.request(people(range(20)), "plan"))
        nightly.run(people(range(5)), "somebody else")
        with pytest.raises(StalePlanError, match="Nothing was sent"):
            sync.apply(stale.plan_id, "import", ANYTHING_GOES)
    assert nightly.members() == set(people(range(5)))


def test_attribute_delivery(nightly_attribute):
    nightly = nightly_attribute
    rows = [*people(range(160)), "nobody-knows-me", ["", "", "phone-1", ""]]
    report = nightly.run(rows)
    assert nightly.members() == set(people(range(160)))
    assert nightly.sandbox.state()["created_users"] == 0
    assert report["waterfall"]["undeliverable"] == 1
    assert nightly.sent() == [("users-track", 201)] * 3
    nightly.run(people(range(100, 160)), "run-2")
    assert nightly.members() == set(people(range(100, 160)))
    assert set(nightly.sandbox.attribute("in_cohort_under_test")["false"]) == set(people(range(100)))


@pytest.mark.parametrize(
    ("errors", "rejected"),
    [
        ([{"type": "EXTERNAL_USER_ID_TOO_LARGE", "input_array": "attributes", "index": 1}], 1),
        (
            [{"type": "'external_id' must be fewer than 988 bytes", "input_array": "attributes", "index": 1}],
            1,
        ),
        ([{"type": "BLACKLISTED_EXTERNAL_USER_ID", "input_array": "attributes", "index": 0}], 1),
        ([{"type": "<unknown>", "input_array": "attributes", "index": 0}], 0),
        ([{"type": "user not found for external_id", "input_array": "attributes", "index": 0}], 0),
        ([{"type": "<no index>"}], 0),
        ([{"type": "EXTERNAL_USER_ID_TOO_LARGE", "input_array": "attributes", "index": 0}, {"type": "?"}], 1),
    ],
)
def test_row_errors_of_attribute_delivery(nightly_attribute, errors, rejected):
    nightly = nightly_attribute
    body = {"message": "success", "attributes_processed": 2, "errors": errors}
    nightly.sandbox.faults(next=[{"status": 201, "body": body}])
    report = nightly.run(people(range(3)))
    assert sum(report["waterfall"]["rejected"].values()) == rejected
    assert report["waterfall"]["acknowledged"] == 3 - rejected


def test_an_error_that_stays_unclear_fails_after_everybody_else_is_settled(nightly_attribute):
    nightly = nightly_attribute
    body = {"message": "success", "errors": [{"type": "?", "input_array": "attributes", "index": 0}]}
    nightly.sandbox.faults(next=[{"count": 5, "status": 201, "body": body}])
    with pytest.raises(UnclearAnswerError, match="1 people"):
        nightly.run(people(range(75)))
    assert nightly.ledger.settled(nightly.ledger.last().plan_id).acknowledged_rows == 74
    assert isinstance(nightly.ledger.last(), Plan)
    nightly.run(people(range(75)))
    assert isinstance(nightly.ledger.last(), Commit)


def test_the_ledger_grows_and_is_never_rewritten(nightly):
    for night in range(3):
        nightly.run(people(range(night, 50 + night)), f"run-{night}")
    log = sorted(path.name for path in nightly.ledger.path("log").iterdir())
    assert log == [f"{number:08d}.json" for number in range(1, 7)]
    assert all(int(one[:8]) + 1 == int(two[:8]) for one, two in pairwise(log))


FAULTS = st.fixed_dictionaries(
    {},
    optional={
        "5xx-before": st.just(0.1),
        "5xx-after": st.just(0.1),
        "cut-before": st.just(0.1),
        "cut-after": st.just(0.1),
        "423": st.just(0.1),
        "429-reset-epoch": st.just(0.05),
        "429-retry-after-seconds": st.just(0.05),
        "429-bare": st.just(0.1),
    },
)
NIGHT = st.fixed_dictionaries(
    {
        "wanted": st.sets(st.integers(0, 60)),
        "faults": FAULTS,
        "lock": st.booleans(),
        "attempts": st.integers(1, 3),
    }
)


@pytest.mark.parametrize("delivery", ["cohort", "attribute"])
@settings(
    phases=[Phase.generate],
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(nights=st.lists(NIGHT, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_every_finished_night_is_exact(make_nightly, delivery, nights, seed):
    """Random segments over random nights, with random faults: Braze holds the segment, within its limits."""
    nightly = make_nightly(delivery, users=50)
    for number, night in enumerate(nights):
        nightly.sandbox.faults(
            seed=seed + number, rates=night["faults"], wait=0, lock_overlapping=night["lock"]
        )
        nightly.retry = RetryPolicy(attempts=night["attempts"], first=0.001, cap=0.002)
        wanted = people(night["wanted"])
        try:
            report = nightly.run(wanted, f"night-{number}")
        except TransientError:
            continue  # it gave up; the next night has to make up for it
        assert nightly.members() == set(wanted) & known_people()
        assert report["size"] == len(wanted)
    nightly.sandbox.faults()
    nightly.run(wanted, "the last")
    state = nightly.sandbox.state()
    assert nightly.members() == set(wanted) & known_people()
    assert not any(state["limits_broken"].values())
    assert state["conflicts"] == 0
    assert state["created_users"] == 0


def known_people():
    return set(people(range(50)))


def test_somebody_who_gains_an_external_id_stays(make_nightly):
    """To Braze the alias and the external id are one person: removing the one would remove the other."""
    nightly = make_nightly(users=0)
    nightly.sandbox.add_users(count=3, alias_label="email", alias_prefix="mail-")
    nightly.run([["", "mail-1", "", "true"], "user-2"])
    nightly.run([["user-1", "mail-1", "", "true"], "user-2"], "run-2")
    assert nightly.members() == {"user-1", "user-2"}
    assert nightly.sandbox.state()["conflicts"] == 0
    nightly.run(["user-2"], "run-3")
    assert nightly.members() == {"user-2"}


def test_a_takeover_waits_for_the_loser(nightly):
    nightly.limits = TWENTY_A_SECOND

    def first():
        with suppress(PlaceLostError):
            nightly.run(MANY, "run-first")

    request = nightly.request(people(range(10)), "run-second")
    thread = threading.Thread(target=first)
    thread.start()
    wait_for_the_first_batch(nightly)
    with nightly.client() as client:
        nightly.sync(client).run(request, ANYTHING_GOES)
    assert nightly.members() == set(people(range(10)))
    thread.join()
    assert nightly.members() == set(people(range(10))), "nothing of the first run came after it"


def test_answers_that_could_not_be_recorded_are_recorded_later(nightly, monkeypatch):
    failed = []

    def fails_once(path, data):
        if path.parent.name == "settled" and not failed:
            failed.append(path)
            raise TimeoutError("the store does not answer")
        write_new(path, data)

    write_new = storage.write_new
    monkeypatch.setattr(storage, "write_new", fails_once)
    with pytest.raises(TimeoutError):
        nightly.run(people(range(10)))
    seen = len(nightly.sent())
    nightly.run(people(range(10)))
    assert nightly.sent(since=seen) == [("cohort-users", 201)], (
        "the name's answer was recorded on the way out"
    )


def test_a_kill_before_the_first_request_sends_nothing(nightly):
    with nightly.client() as client:
        sync = nightly.sync(client)
        sync.stop()
        with pytest.raises(InterruptedCallError):
            sync.run(nightly.request(people(range(10))), ANYTHING_GOES)
    assert nightly.sent() == []


def test_a_mended_setting_leaves_nobody_rejected(nightly):
    nightly.sandbox.faults(poison=people(range(3000)))
    with pytest.raises(PermanentError):
        nightly.run(people(range(3000)))
    nightly.sandbox.faults()
    report = nightly.run(people(range(3000)))
    assert report["waterfall"]["rejected"] == {}
    assert len(nightly.members()) == 3000


def test_force_full_on_a_failed_run_forces(nightly):
    nightly.run(people(range(10)))
    nightly.sandbox.faults(next=[{"count": 1, "status": 401}])
    with pytest.raises(AuthenticationError):
        nightly.run(people(range(11)), "run-2")
    report = nightly.run(people(range(11)), "run-2", force_full=True)
    assert report["waterfall"]["acknowledged"] == 11


def test_an_older_night_does_not_undo_a_newer_one(nightly):
    nightly.run(people(range(10)), "newer", as_of="2026-11-24")
    with pytest.raises(StalePlanError, match="newer"):
        nightly.run(people(range(5)), "older", as_of="2026-11-23")
    assert len(nightly.members()) == 10


def test_the_value_that_a_guard_names_lets_the_plan_pass(nightly):
    nightly.run(people(range(115)))
    with pytest.raises(GuardBreachedError) as caught:
        nightly.run(people(range(50)), "run-2", guards=Guards())
    allowed = float(str(caught.value).split("max_removed_share=")[1].split(")")[0])
    nightly.run(people(range(50)), "run-2", guards=Guards(max_removed_share=allowed))
    assert len(nightly.members()) == 50


def test_nobody_twice_makes_no_cohort(nightly):
    for night in range(2):
        nightly.run([], f"run-{night}")
    assert nightly.sent() == []
