"""The stand-in's Heap, held against Heap's documentation: Track, Add user properties."""

from __future__ import annotations

import json

import pytest

from airflow_provider_heapbraze.sandbox import connections


def event(**changes):
    whole = {"identity": "ann", "event": "Email opened", "timestamp": "2026-01-01T00:00:00Z", **changes}
    return {name: value for name, value in whole.items() if value is not ...}


def track(caller, *events, **body):
    return caller.heap("/api/track", events=list(events), **body)


def test_single_and_bulk_events_arrive(caller, heapbraze_sandbox):
    single = caller.heap("/api/track", **event(properties={"n": 1, "f": 1.5, "t": "text", "list": ["a", 2]}))
    bulk = track(caller, event(identity="bob"), event(identity=..., user_id="9007199254740991"))

    assert [(a.status_code, a.content) for a in (single, bulk)] == [(204, b"")] * 2
    events = heapbraze_sandbox.heap_events()
    assert [(e["identity"], e["user_id"]) for e in events] == [
        ("ann", None),
        ("bob", None),
        (None, "9007199254740991"),
    ]
    assert events[0]["properties"] == {"n": 1, "f": 1.5, "t": "text", "list": "a||2"}
    assert heapbraze_sandbox.state()["heap"]["users"] == 3


def test_of_events_with_one_idempotency_key_the_first_stays(caller, heapbraze_sandbox):
    first = event(idempotency_key="key-00000001", properties={"n": 1})
    track(caller, first, event(idempotency_key="key-00000001", properties={"n": 2}), event(), event())
    track(caller, first)

    assert [e["properties"] for e in heapbraze_sandbox.heap_events()] == [{"n": 1}, {}, {}]
    assert heapbraze_sandbox.state()["heap"] == {"users": 1, "events": 3, "duplicates": 2}


def test_1000_events_are_taken_and_1001_refused(caller, heapbraze_sandbox):
    events = [event(identity=f"user-{n}") for n in range(1001)]
    assert track(caller, *events[:1000]).status_code == 204
    assert track(caller, *events).status_code == 400
    assert heapbraze_sandbox.state()["heap"]["events"] == 1000


@pytest.mark.parametrize(
    "bad",
    [
        event(user_id="1"),
        event(identity=...),
        event(identity=""),
        event(identity=7),
        event(identity="x" * 256),
        event(identity=..., user_id=7),
        event(identity=..., user_id="-1"),
        event(identity=..., user_id="9007199254740992"),
        event(event=...),
        event(event=""),
        event(event="x" * 1025),
        event(timestamp="yesterday"),
        event(timestamp="2026-01-01T00:00:00"),
        event(timestamp=1_700_000_000),
        event(idempotency_key=""),
        event(idempotency_key=12345678),
        event(properties=[]),
        event(properties={"p": True}),
        event(properties={"p": None}),
        event(properties={"p": {"nested": 1}}),
        event(properties={"p": ["a", None]}),
        event(properties={"p": "x" * 1024}),
        event(properties={"p" * 1024: "x"}),
        "event",
    ],
)
def test_one_bad_event_refuses_the_whole_request(caller, heapbraze_sandbox, bad):
    assert track(caller, event(), bad).status_code == 400
    assert heapbraze_sandbox.state()["heap"] == {"users": 0, "events": 0, "duplicates": 0}


def test_the_longest_texts_that_are_taken(caller, heapbraze_sandbox):
    answer = track(
        caller,
        event(
            identity="x" * 255, event="x" * 1024, properties={"p" * 1023: "x" * 1023, "list": ["x" * 800] * 2}
        ),
    )
    assert answer.status_code == 204
    assert len(heapbraze_sandbox.heap_events()[0]["properties"]["list"]) == 1024


@pytest.mark.parametrize("number", ["1e999", "NaN"])
def test_numbers_are_finite(caller, number):
    whole = event(app_id=connections.HEAP_APP_ID, properties={"p": 0})
    body = json.dumps(whole).replace("0}", f"{number}}}")
    assert caller.session.post(f"{caller.url}/api/track", data=body, timeout=10).status_code == 400


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "utf-16"])
def test_any_json_is_read(caller, encoding):
    whole = {"app_id": connections.HEAP_APP_ID, **event(identity="änn", properties={"half": "HALF"})}
    body = json.dumps(whole, ensure_ascii=encoding == "ascii").replace("HALF", r"\ud83d").encode(encoding)
    assert caller.session.post(f"{caller.url}/api/track", data=body, timeout=10).status_code == 204


@pytest.mark.parametrize(
    "body", [{"events": []}, {"events": "x"}, {"app_id": "not-the-app-id", **event()}, {"app_id": None}]
)
def test_requests_without_events_or_app_id_are_refused(caller, body):
    assert caller.heap("/api/track", **body).status_code == 400
    assert caller.post("/api/track", []).status_code == 400


def test_user_properties_are_merged_by_identity(caller, heapbraze_sandbox):
    path = "/api/add_user_properties"
    assert caller.heap(path, identity="ann", properties={"plan": "trial", "vip": "true"}).status_code == 204
    users = [{"identity": "ann", "properties": {"vip": "false"}}, {"identity": "Ann", "properties": {"n": 1}}]
    assert caller.heap(path, users=users).status_code == 204

    assert heapbraze_sandbox.heap_users() == [
        {"identity": "ann", "user_id": None, "properties": {"plan": "trial", "vip": "false"}},
        {"identity": "Ann", "user_id": None, "properties": {"n": 1}},
    ]


@pytest.mark.parametrize(
    "user",
    [
        {"properties": {"a": 1}},
        {"identity": "ann"},
        {"identity": "ann", "properties": {"ID": 1}},
        {"identity": "ann", "properties": {"vip": True}},
        {"identity": "ann", "properties": {"vip": "x" * 1024}},
    ],
)
def test_bad_user_properties_are_refused(caller, heapbraze_sandbox, user):
    good = {"identity": "bob", "properties": {"a": 1}}
    assert caller.heap("/api/add_user_properties", users=[good, user]).status_code == 400
    assert heapbraze_sandbox.heap_users() == []


def test_1001_users_are_refused(caller):
    user = {"identity": "ann", "properties": {"a": 1}}
    assert caller.heap("/api/add_user_properties", users=[user] * 1000).status_code == 204
    assert caller.heap("/api/add_user_properties", users=[user] * 1001).status_code == 400


def test_an_access_token_is_given_for_app_id_and_api_key(caller):
    url = f"{caller.url}/api/public/v0/auth_token"
    right = caller.session.post(url, auth=(connections.HEAP_APP_ID, connections.HEAP_API_KEY), timeout=10)
    wrong = caller.session.post(url, auth=(connections.HEAP_APP_ID, "not-the-api-key"), timeout=10)

    assert right.status_code == 200
    assert len(right.json()["access_token"]) > 20
    assert wrong.status_code == 401
    assert caller.session.post(url, timeout=10).status_code == 401


def test_events_above_the_rate_are_429_without_headers(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(limits={"heap": {"limit": 3, "seconds": 1e9}})

    assert track(caller, event(), event()).status_code == 204
    answer = track(caller, event(), event())

    assert answer.status_code == 429
    assert not [name for name in answer.headers if "ratelimit" in name.lower()]
    assert track(caller, event()).status_code == 204
    assert heapbraze_sandbox.state()["limits_broken"] == {"heap": 1}


def test_events_above_the_rate_of_one_person_are_429_and_use_nothing(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(
        limits={"heap": {"limit": 5, "seconds": 1e9}, "heap_identity": {"limit": 2, "seconds": 1e9}}
    )
    ann, bob, device = event(), event(identity="bob"), event(identity=..., user_id="7")

    assert track(caller, ann).status_code == 204
    assert track(caller, bob, ann, ann).status_code == 429
    assert track(caller, device, device, device).status_code == 429
    assert heapbraze_sandbox.state()["heap"] == {"users": 1, "events": 1, "duplicates": 0}
    assert [track(caller, ann, bob).status_code, track(caller, bob, device).status_code] == [204, 204]
    assert heapbraze_sandbox.state()["limits_broken"] == {"heap_identity": 2}


def test_a_request_above_both_rates_counts_for_both(caller, heapbraze_sandbox):
    one = {"limit": 1, "seconds": 1e9}
    heapbraze_sandbox.settings(limits={"heap": one, "heap_identity": one})
    assert track(caller, event(), event()).status_code == 429
    assert heapbraze_sandbox.state()["limits_broken"] == {"heap": 1, "heap_identity": 1}


def test_one_person_gets_1000_events_a_minute(caller, heapbraze_sandbox):
    assert [track(caller, *[event()] * n).status_code for n in (999, 1, 1)] == [204, 204, 429]
    assert track(caller, event(identity="Ann")).status_code == 204
    assert heapbraze_sandbox.state()["limits_broken"] == {"heap_identity": 1}


def test_the_rate_comes_before_the_contract(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(limits={"heap_identity": {"limit": 1, "seconds": 1e9}})
    odd = [event(identity=["ann"]), event(identity=...), "event"]
    answers = [track(caller, event(event=""), *odd), track(caller, event(event=""), *odd)]
    assert [answer.status_code for answer in answers] == [400, 429]


def test_only_events_count_toward_the_rate_of_one_person(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(limits={"heap_identity": {"limit": 1, "seconds": 1e9}})
    path, ann = "/api/add_user_properties", {"identity": "ann", "properties": {"a": 1}}
    assert [caller.heap(path, users=[ann, ann]).status_code for _ in range(2)] == [204, 204]
    assert track(caller, event()).status_code == 204


def keyed(*numbers, **changes):
    return [event(idempotency_key=f"key-{n:08}", **changes) for n in numbers]


def test_it_is_counted_how_often_each_event_was_sent(caller, heapbraze_sandbox):
    assert heapbraze_sandbox.heap_sends() == {}
    track(caller, *keyed(1, 2, 3), event())
    track(caller, *keyed(2, 3, 3))
    caller.heap("/api/track", **keyed(4)[0])
    assert heapbraze_sandbox.heap_sends() == {1: 2, 2: 1, 3: 1}

    heapbraze_sandbox.reset()
    assert heapbraze_sandbox.heap_sends() == {}


def test_sent_is_also_what_met_a_fault_or_a_limit_but_not_what_is_not_valid(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(limits={"heap_identity": {"limit": 4, "seconds": 1e9}})
    heapbraze_sandbox.faults(
        next=[{"kind": "5xx-before"}, {"kind": "5xx-after"}, {"kind": "429-bare"}], poison=["bob"]
    )
    answers = [track(caller, *keyed(1)) for _ in range(5)]
    answers.append(track(caller, *keyed(2, identity="bob")))
    assert [answer.status_code // 100 for answer in answers] == [5, 5, 4, 2, 4, 4]
    assert [answer.status_code for answer in answers[4:]] == [429, 400]
    expected = {1: 1, 5: 1}
    assert heapbraze_sandbox.heap_sends() == expected

    bad = [
        track(caller, *keyed(1), event(event="")),
        track(caller, *keyed(1, identity="cid"), event(identity="cid", event="")),
        track(caller, *keyed(1), app_id="not-the-app-id"),
    ]
    assert [answer.status_code for answer in bad] == [429, 400, 400]
    assert heapbraze_sandbox.heap_sends() == expected


def test_full_requests_are_taken(caller, heapbraze_sandbox):
    properties = {f"property_{n}": n if n % 5 == 0 else f"a text of usual length, {n}" for n in range(25)}
    for first in range(0, 10_000, 1000):
        numbers = range(first, first + 1000)
        track(caller, *(keyed(n, identity=f"user-{n}", properties=properties)[0] for n in numbers))

    assert heapbraze_sandbox.heap_sends() == {1: 10_000}


def test_60_000_events_are_listed(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(limits={"heap": {"limit": 60_000, "seconds": 60}})
    for first in range(0, 60_000, 1000):
        track(caller, *(event(identity=f"user-{n}") for n in range(first, first + 1000)))

    events = heapbraze_sandbox.heap_events()
    assert [e["identity"] for e in events] == [f"user-{n}" for n in range(60_000)]
