"""Faults on order, as a client sees them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import pytest
import requests

# A timer may go off a little early.
EARLY = 0.01


@pytest.fixture(autouse=True)
def people(heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=100)


def size(sandbox) -> int:
    return sandbox.state()["cohorts"].get("cohort-1", {"size": 0})["size"]


@pytest.mark.parametrize(
    ("kind", "header", "seconds"),
    [
        ("429-retry-after-seconds", "Retry-After", int),
        (
            "429-retry-after-date",
            "Retry-After",
            lambda value: parsedate_to_datetime(value).timestamp() - time.time(),
        ),
        ("429-reset-epoch", "X-RateLimit-Reset", lambda value: int(value) - time.time()),
        ("429-reset-delta", "X-RateLimit-Reset", int),
        ("429-ratelimit-retry-after", "X-Ratelimit-Retry-After", int),
    ],
)
def test_a_429_tells_how_long_to_wait_in_the_form_that_was_asked_for(
    caller, heapbraze_sandbox, kind, header, seconds
):
    heapbraze_sandbox.faults(rates={kind: 1}, wait=20)

    answer = caller.add("user-0")

    assert answer.status_code == 429
    assert seconds(answer.headers[header]) == pytest.approx(20, abs=2)
    told = {name for name in answer.headers if name.lower().startswith(("retry-after", "x-ratelimit"))}
    assert told - {"x-ratelimit-remaining"} == {header.lower()}
    assert size(heapbraze_sandbox) == 0


def test_a_bare_429_tells_nothing(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(rates={"429-bare": 1})
    answer = caller.add("user-0")
    assert answer.status_code == 429
    assert not {name for name in answer.headers if name.lower().startswith(("retry-after", "x-ratelimit"))}


@pytest.mark.parametrize(
    ("kind", "statuses", "applied"),
    [
        ("423", {423}, 0),
        ("5xx-before", {500, 502, 503, 504}, 0),
        ("5xx-after", {500, 502, 503, 504}, 1),
        ("errors-before", {201}, 0),
        ("errors-after", {201}, 1),
        ("unclear-before", {201}, 0),
        ("unclear-after", {201}, 1),
        ("message-before", {201}, 0),
    ],
)
def test_a_fault_answers_and_applies_as_its_name_says(caller, heapbraze_sandbox, kind, statuses, applied):
    heapbraze_sandbox.faults(rates={kind: 1})

    answer = caller.add("user-0")

    assert answer.status_code in statuses
    assert size(heapbraze_sandbox) == applied
    entry = heapbraze_sandbox.requests()[-1]
    assert (entry["fault"], entry["applied"], entry["status"]) == (kind, bool(applied), answer.status_code)


@pytest.mark.parametrize("kind", ["unclear-before", "unclear-after"])
def test_an_unclear_answer_is_no_json(caller, heapbraze_sandbox, kind):
    heapbraze_sandbox.faults(rates={kind: 1})
    with pytest.raises(requests.exceptions.JSONDecodeError):
        caller.add("user-0").json()


def test_an_answer_with_errors_says_success_and_names_no_row(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(rates={"errors-after": 1})
    answer = caller.track({"external_id": "user-0", "_update_existing_only": True, "vip": True}).json()
    assert answer["message"] == "success"
    assert [error.keys() for error in answer["errors"]] == [{"type"}]
    assert heapbraze_sandbox.attribute("vip")["true"] == ["user-0"]


def test_another_message_means_that_nothing_was_done(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(rates={"message-before": 1})
    assert caller.add("user-0").json()["message"] != "success"


@pytest.mark.parametrize(("kind", "applied"), [("cut-before", 0), ("cut-after", 1)])
def test_a_cut_connection_gives_no_answer(caller, heapbraze_sandbox, kind, applied):
    heapbraze_sandbox.faults(rates={kind: 1})

    with pytest.raises(requests.exceptions.ConnectionError):
        caller.add("user-0")

    heapbraze_sandbox.faults()
    assert size(heapbraze_sandbox) == applied
    assert caller.add("user-1").status_code == 201
    assert heapbraze_sandbox.state()["requests"]["cohort-users"] == {"cut": 1, "201": 1}
    assert heapbraze_sandbox.requests()[0]["status"] is None


def statuses(caller, number):
    def one(_):
        try:
            return caller.add("user-0").status_code
        except requests.exceptions.ConnectionError:
            return "cut"

    return [one(n) for n in range(number)]


def test_the_same_seed_gives_the_same_faults(caller, heapbraze_sandbox):
    plan = {"rates": {"423": 0.2, "5xx-before": 0.2, "cut-after": 0.2}}
    runs = []
    for seed in (1, 1, 2):
        heapbraze_sandbox.faults(seed=seed, **plan)
        runs.append(statuses(caller, 60))

    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert {201, 423, "cut"} < set(runs[0])


def test_rates_are_shares_of_the_requests(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(seed=3, rates={"423": 0.5, "429-bare": 0.25})
    seen = statuses(caller, 200)
    assert 80 < seen.count(423) < 120
    assert 35 < seen.count(429) < 65


def test_faults_keep_to_their_endpoints(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(rates={"5xx-before": 1}, endpoints=["cohort-users"])
    assert caller.name().status_code == 201
    assert caller.add("user-0").status_code >= 500


def test_the_next_requests_fail_exactly_as_told(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(
        next=[
            {"count": 2, "endpoint": "cohort-users", "status": 503, "headers": {"Retry-After": "7"}},
            {"endpoint": "cohort-users", "kind": "423"},
            {"endpoint": "cohort-users", "status": 202, "body": {"odd": True}, "applied": True},
        ]
    )

    assert caller.name().status_code == 201
    answers = [caller.add("user-0") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 423]
    assert answers[0].headers["Retry-After"] == "7"
    assert size(heapbraze_sandbox) == 0

    odd = caller.add("user-0")
    assert (odd.status_code, odd.json(), size(heapbraze_sandbox)) == (202, {"odd": True}, 1)
    assert caller.add("user-1").status_code == 201


def test_overlapping_requests_of_one_cohort_are_locked(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(lock_overlapping=True, latency=0.3)
    others = [{"cohort_id": "cohort-1"}, {"cohort_id": "cohort-1"}, {"cohort_id": "cohort-2"}]

    with ThreadPoolExecutor(3) as threads:
        seen = list(
            threads.map(lambda body: caller.change({"user_ids": ["user-0"]}, **body).status_code, others)
        )

    assert sorted(seen[:2]) == [201, 423]
    assert seen[2] == 201
    assert sum(entry["overlap"] for entry in heapbraze_sandbox.requests()) == 1
    assert caller.add("user-1").status_code == 201


def test_overlap_is_logged_where_it_is_not_locked(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(latency=0.3)
    with ThreadPoolExecutor(2) as threads:
        seen = list(threads.map(lambda n: caller.add(f"user-{n}").status_code, range(2)))
    assert seen == [201, 201]
    assert sorted(entry["overlap"] for entry in heapbraze_sandbox.requests()) == [False, True]


def test_latency_and_a_slow_tail(caller, heapbraze_sandbox):
    def seconds():
        caller.add("user-0")
        return heapbraze_sandbox.requests()[-1]["seconds"]

    heapbraze_sandbox.faults(latency=0.2)
    assert seconds() >= 0.2 - EARLY
    heapbraze_sandbox.faults(latency=0.1, slow_share=1, slow_seconds=0.2)
    assert seconds() >= 0.3 - EARLY
    heapbraze_sandbox.faults()
    assert seconds() < 0.2


def test_the_slow_tail_is_a_share(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(seed=1, slow_share=0.2, slow_seconds=0.05)
    for _ in range(50):
        caller.add("user-0")
    slow = sum(entry["seconds"] >= 0.05 - EARLY for entry in heapbraze_sandbox.requests())
    assert 4 <= slow <= 20


def test_a_client_that_gave_up_may_have_been_heard(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(latency=0.2)
    with pytest.raises(requests.exceptions.ReadTimeout):
        caller.session.post(
            f"{caller.url}/partners/heap/cohorts/users",
            json={
                "partner_api_key": "sandbox-partner-api-key",
                "client_secret": "sandbox-data-import-key",
                "cohort_id": "cohort-1",
                "cohort_changes": [{"user_ids": ["user-0"]}],
            },
            headers={"User-Agent": "partner-Heap-Test/1.0"},
            timeout=0.05,
        )
    deadline = time.monotonic() + 5
    while size(heapbraze_sandbox) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_poisoned_person_refuses_the_cohort_request_and_only_the_row_in_track(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(poison=["user-7"])

    assert caller.add("user-6", "user-7").status_code == 400
    refused = heapbraze_sandbox.requests()[-1]
    assert (refused["applied"], refused["ids"]) == (False, {"add": {"external_id": 2}})
    assert size(heapbraze_sandbox) == 0
    assert caller.add("user-6").status_code == 201
    rows = [{"external_id": f"user-{n}", "_update_existing_only": True, "vip": True} for n in (6, 7)]
    answer = caller.track(*rows).json()

    assert [(error["type"], error["index"]) for error in answer["errors"]] == [
        ("BLACKLISTED_EXTERNAL_USER_ID", 1)
    ]
    assert heapbraze_sandbox.attribute("vip")["true"] == ["user-6"]


def test_a_poisoned_identity_or_idempotency_key_refuses_the_request_to_heap(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(poison=["user-7", "key-00000009", "5"])
    good = [
        {"identity": "user-6", "event": "Opened", "idempotency_key": "key-00000006"},
        {"user_id": "5", "event": "Opened"},
    ]
    bad = [
        {"identity": "user-7", "event": "Opened"},
        {"user_id": "9", "event": "Opened", "idempotency_key": "key-00000009"},
    ]

    assert [caller.heap("/api/track", events=[*good, one]).status_code for one in bad] == [400, 400]
    assert caller.heap("/api/track", **bad[0]).status_code == 400
    assert heapbraze_sandbox.state()["heap"] == {"users": 0, "events": 0, "duplicates": 0}
    assert not any(entry["applied"] for entry in heapbraze_sandbox.requests())
    assert caller.heap("/api/track", events=good).status_code == 204
    assert heapbraze_sandbox.state()["heap"]["events"] == 2


@pytest.mark.parametrize(
    "plan",
    [
        {"rates": {"423": 0.6, "429-bare": 0.6}},
        {"rates": {"423": -0.1}},
        {"rates": {"no-such-kind": 1}},
        {"next": [{}]},
        {"next": [{"kind": "423", "status": 500}]},
        {"latency": -1},
        {"latencie": 1},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(heapbraze_sandbox, plan):
    with pytest.raises(ValueError, match="422"):
        heapbraze_sandbox.faults(**plan)


def test_a_write_can_be_acknowledged_and_lost(caller, heapbraze_sandbox):
    lost = {"status": 201, "body": {"message": "success"}, "applied": False}
    heapbraze_sandbox.faults(next=[{"endpoint": name, **lost} for name in ("cohort-users", "users-track")])
    row = {"external_id": "user-0", "_update_existing_only": True, "vip": True}

    answers = [caller.add("user-0"), caller.track(row)]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(201, {"message": "success"})] * 2
    assert size(heapbraze_sandbox) == 0
    assert heapbraze_sandbox.attribute("vip")["true"] == []
    assert [entry["applied"] for entry in heapbraze_sandbox.requests()] == [False, False]
    caller.add("user-0")
    caller.track(row)
    assert (size(heapbraze_sandbox), heapbraze_sandbox.attribute("vip")["true"]) == (1, ["user-0"])
