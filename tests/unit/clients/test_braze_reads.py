"""What is asked of a Braze workspace, and what its answers mean."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import date

import pytest

from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, BrazeLimits, Limit
from airflow_provider_heapbraze.clients.braze_reads import (
    PROFILES_PER_REQUEST,
    SegmentInfo,
    SizeOfDay,
    StartedExport,
)
from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    ConfigurationError,
    ExportGoneError,
    ExportRunningError,
    HeapBrazeError,
    NoAnswerError,
    PermanentError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    UnclearAnswerError,
)

REST_KEY, PARTNER_KEY, IMPORT_KEY = "secret-rest-key-001", "secret-partner-key-002", "secret-import-key-003"
PERSON, ALIAS, LABEL, SIGNATURE = (
    "person-external-006",
    "person-alias-008",
    "person-label-009",
    "signature-0123456789",
)
PRIVATE = (REST_KEY, PARTNER_KEY, IMPORT_KEY, PERSON, ALIAS, LABEL, SIGNATURE)
SEGMENT = "5f6b1c2d-segment"
PREFIX = "bb8e2a91-c4aa-478b-b3f2-a4ee91731ad1-1464728599"
URL = f"https://files.example/{PREFIX}.zip?X-Amz-Signature={SIGNATURE}"

CALLS = {
    "segments": lambda reads: list(reads.segments()),
    "segment_name": lambda reads: reads.segment_name(SEGMENT),
    "sizes": lambda reads: reads.sizes(SEGMENT, 14),
    "start_export": lambda reads: reads.start_export(SEGMENT, ["external_id"]),
    "profiles": lambda reads: reads.profiles([PERSON], [(ALIAS, LABEL)], ["external_id"]),
}
PERMISSIONS = {
    "segments": "segments.list",
    "segment_name": "segments.details",
    "sizes": "segments.data_series",
    "start_export": "users.export.segment",
    "profiles": "users.export.ids",
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def client(make_transport, clock):
    keys = BrazeKeys(REST_KEY, "heap", PARTNER_KEY, IMPORT_KEY)
    return BrazeClient(make_transport(), keys, clock=clock)


@pytest.fixture
def reads(client):
    return client.reads


@pytest.fixture
def success(reply):
    return lambda **body: reply(200, {"message": "success", **body})


def listed(*numbers):
    return [
        {"id": f"id-{n}", "name": f"Segment {n}", "analytics_tracking_enabled": True, "tags": []}
        for n in numbers
    ]


def infos(*numbers):
    return [SegmentInfo(f"id-{n}", f"Segment {n}") for n in numbers]


@pytest.mark.parametrize("last", [0, 1, 99])
def test_all_pages_of_segments_are_listed(server, reads, success, last):
    pages = [range(100), range(100, 200), range(200, 200 + last)]
    server.script(*[success(segments=listed(*page)) for page in pages])
    assert list(reads.segments()) == infos(*range(200 + last))
    assert [(request.method, request.path) for request in server.recorded] == [
        ("GET", f"/segments/list?page={page}") for page in (0, 1, 2)
    ]
    assert {request.headers["Authorization"] for request in server.recorded} == {f"Bearer {REST_KEY}"}


@pytest.mark.parametrize("few", [0, 1, 99])
def test_a_short_page_is_the_last(server, reads, success, few):
    server.script(success(segments=listed(*range(few))))
    assert list(reads.segments()) == infos(*range(few))
    assert len(server.recorded) == 1


def test_a_page_is_asked_for_when_it_is_come_to(server, reads, success):
    server.default = success(segments=listed(*range(100)))
    segments = reads.segments()
    assert server.recorded == []
    assert next(segments) == SegmentInfo("id-0", "Segment 0")
    assert len(server.recorded) == 1


def test_a_list_that_repeats_a_page_has_no_end(server, reads, success):
    server.default = success(segments=listed(*range(100)))
    with pytest.raises(UnclearAnswerError, match="one page twice"):
        list(reads.segments())
    assert len(server.recorded) == 2


def test_a_segment_has_a_name(server, reads, success):
    server.script(success(name="Winter buyers", description=None, tags=[]))
    assert reads.segment_name("a segment/1") == "Winter buyers"
    assert (server.only.method, server.only.path) == (
        "GET",
        "/segments/details?segment_id=a+segment%2F1",
    )


@pytest.mark.parametrize("status", [400, 404])
def test_a_segment_that_is_not_there_is_a_wrong_setting(server, reads, reply, status):
    server.default = reply(status, {"message": f"no {SEGMENT}"})
    with pytest.raises(
        ConfigurationError, match=r"no segment with that id.*Segment API Identifier"
    ) as caught:
        reads.segment_name(SEGMENT)
    assert "Settings > APIs and Identifiers" in str(caught.value)
    assert len(server.recorded) == 1


def test_sizes_come_oldest_first(server, reads, success):
    data = [
        {"time": "2026-03-02", "size": 7},
        {"time": "2026-03-01T00:00:00Z", "size": 0},
        {"time": "2026-02-28", "size": 12_000_000},
    ]
    server.script(success(data=data))
    assert reads.sizes(SEGMENT, 3) == [
        SizeOfDay(date(2026, 2, 28), 12_000_000),
        SizeOfDay(date(2026, 3, 1), 0),
        SizeOfDay(date(2026, 3, 2), 7),
    ]
    assert (server.only.method, server.only.path) == (
        "GET",
        f"/segments/data_series?segment_id={SEGMENT}&length=3",
    )


@pytest.mark.parametrize("days", [1, 100])
def test_so_many_days_may_be_asked_for(reads, server, success, days):
    server.script(success(data=[]))
    assert reads.sizes(SEGMENT, days) == []


@pytest.mark.parametrize("days", [-1, 0, 101])
def test_other_numbers_of_days_are_not_sent(server, reads, days):
    with pytest.raises(ConfigurationError, match="1 to 100 days"):
        reads.sizes(SEGMENT, days)
    assert server.recorded == []


def test_an_export_is_started(server, reads, success):
    server.script(success(object_prefix=PREFIX, url=URL))
    started = reads.start_export(SEGMENT, ["external_id", "user_aliases"])
    assert started == StartedExport(PREFIX, URL)
    assert repr(started) == f"StartedExport(object_prefix='{PREFIX}')"
    assert (server.only.method, server.only.path) == ("POST", "/users/export/segment")
    assert server.only.headers["Authorization"] == f"Bearer {REST_KEY}"
    assert server.only.body == {
        "segment_id": SEGMENT,
        "fields_to_export": ["external_id", "user_aliases"],
        "output_format": "zip",
    }


@pytest.mark.parametrize("more", [{}, {"url": None}, {"url": ""}])
def test_a_workspace_with_a_storage_of_its_own_gives_no_url(server, reads, success, more):
    server.script(success(object_prefix=PREFIX, **more))
    assert reads.start_export(SEGMENT, ["external_id"]) == StartedExport(PREFIX, None)


@pytest.mark.parametrize("prefix", ["a", "A-1_2.b", "-", "_", "a..b"])
def test_a_prefix_is_a_plain_name(server, reads, success, prefix):
    server.script(success(object_prefix=prefix))
    assert reads.start_export(SEGMENT, ["external_id"]).object_prefix == prefix


@pytest.mark.parametrize(
    "prefix", ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a b", "a\n", "ä", "a%2Fb", 7, None, ["a"]]
)
def test_a_prefix_that_is_none_is_not_used_and_not_asked_for_again(server, reads, success, prefix):
    server.default = success(object_prefix=prefix, url=URL)
    with pytest.raises(UnclearAnswerError, match="was started"):
        reads.start_export(SEGMENT, ["external_id"])
    assert len(server.recorded) == 1


@pytest.mark.parametrize(
    "body", [{}, {"object_prefix": PREFIX, "url": 7}, {"object_prefix": PREFIX, "errors": [1]}]
)
def test_other_odd_answers_to_a_start_are_no_success(server, reads, success, body):
    server.default = success(**body)
    with pytest.raises(UnclearAnswerError, match="was started"):
        reads.start_export(SEGMENT, ["external_id"])
    assert len(server.recorded) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-RateLimit-Remaining": "1"},
        {"x-ratelimit-remaining": "249999", "X-RateLimit-Limit": "250000", "X-RateLimit-Reset": "1700000900"},
        {"X-RateLimit-Remaining": "many"},
    ],
)
def test_a_429_with_the_limit_not_used_up_is_a_running_export(server, reads, reply, headers):
    server.default = reply(429, {"message": "running"}, headers)
    with pytest.raises(ExportRunningError, match="an export of this segment is running") as caught:
        reads.start_export(SEGMENT, ["external_id"])
    assert isinstance(caught.value, PermanentError)
    assert len(server.recorded) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"},
        {"x-ratelimit-remaining": "0"},
        {"Retry-After": "60"},
        {"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT", "X-RateLimit-Remaining": "5"},
        {"X-Ratelimit-Retry-After": "60"},
    ],
)
def test_a_429_with_the_limit_used_up_is_a_wait(server, reads, reply, success, headers):
    server.script(reply(429, {"message": "slow down"}, headers), success(object_prefix=PREFIX))
    assert reads.start_export(SEGMENT, ["external_id"]) == StartedExport(PREFIX, None)
    assert len(server.recorded) == 2


def test_a_limit_that_stays_used_up_stays_a_limit(server, make_transport, clock, reply):
    server.default = reply(429, {}, {"Retry-After": "3000"})
    client = BrazeClient(make_transport(), BrazeKeys(REST_KEY), clock=clock)
    with pytest.raises(RateLimitedError) as caught:
        client.reads.start_export(SEGMENT, ["external_id"])
    assert caught.value.retry_after == 3000.0


@pytest.mark.parametrize("trouble", [{"status": 500}, {"cut": True}, {"missing": 5}])
def test_a_start_whose_answer_is_lost_ends_as_a_running_export(server, reads, reply, trouble):
    server.script(reply(**trouble), reply(429, {"message": "running"}))
    with pytest.raises(ExportRunningError):
        reads.start_export(SEGMENT, ["external_id"])
    assert len(server.recorded) == 2


def test_a_running_export_holds_nobody_else(server, reads, reply, success, clock):
    server.script(reply(429), success(name="Winter buyers"))
    with suppress(ExportRunningError):
        reads.start_export(SEGMENT, ["external_id"])
    before = clock.now()
    reads.segment_name(SEGMENT)
    assert clock.now() - before < 1


def test_a_refused_export_is_told_at_once(server, reads, reply):
    server.default = reply(400, {"message": "no such segment"})
    with pytest.raises(ConfigurationError, match="no segment with that id"):
        reads.start_export(SEGMENT, ["external_id"])
    assert len(server.recorded) == 1


def test_profiles_are_those_that_braze_found(server, reads, success):
    users = [{"external_id": "anna", "in_spring": True}, {"user_aliases": []}]
    server.script(success(users=users, invalid_user_ids=["ben"]))
    profiles = reads.profiles(["anna", "ben"], [("cleo", "crm")], ["external_id", "user_aliases"])
    assert (profiles.users, profiles.unknown) == (users, {"ben"})
    assert "anna" not in repr(profiles)
    assert "ben" not in repr(profiles)
    assert (server.only.method, server.only.path) == ("POST", "/users/export/ids")
    assert server.only.body == {
        "external_ids": ["anna", "ben"],
        "user_aliases": [{"alias_name": "cleo", "alias_label": "crm"}],
        "fields_to_export": ["external_id", "user_aliases"],
    }


@pytest.mark.parametrize(
    ("external_ids", "aliases", "sent"),
    [
        (["anna"], [], {"external_ids": ["anna"]}),
        ([], [("cleo", "crm")], {"user_aliases": [{"alias_name": "cleo", "alias_label": "crm"}]}),
    ],
)
def test_an_empty_side_is_left_out(server, reads, success, external_ids, aliases, sent):
    server.script(success(users=[]))
    assert reads.profiles(external_ids, aliases, ["external_id"]).users == []
    assert server.only.body == {**sent, "fields_to_export": ["external_id"]}


@pytest.mark.parametrize(
    ("answer", "unknown"),
    [
        ({}, set()),
        ({"invalid_user_ids": None}, set()),
        ({"invalid_user_ids": []}, set()),
        ({"invalid_user_ids": ["anna", 7]}, {"anna", "7"}),
    ],
)
def test_who_is_unknown_is_who_braze_says(server, reads, success, answer, unknown):
    server.script(success(users=[], **answer))
    assert reads.profiles(["anna", "7"], [], ["external_id"]).unknown == unknown


def test_fifty_profiles_are_one_request(server, reads, success):
    people = [f"person-{number}" for number in range(PROFILES_PER_REQUEST)]
    server.script(success(users=[]))
    reads.profiles(people, [], ["external_id"])
    assert server.only.body["external_ids"] == people
    assert PROFILES_PER_REQUEST == 50


def test_there_is_a_check_before_each_try(server, reads, reply, success):
    server.script(reply(500), success(users=[]))
    sent_before = []
    reads.profiles(["anna"], [], ["external_id"], check=lambda: sent_before.append(len(server.recorded)))
    assert sent_before == [0, 1]


ODD = {
    "segments": [
        {},
        {"segments": None},
        {"segments": {}},
        {"segments": ["id"]},
        {"segments": [{"id": "a"}]},
        {"segments": [{"id": 7, "name": "a"}]},
        {"segments": [], "errors": ["half of it"]},
    ],
    "segment_name": [{}, {"name": None}, {"name": ["a"]}],
    "sizes": [
        {},
        {"data": {"2026-03-01": 7}},
        {"data": [7]},
        {"data": [{"time": "2026-03-01"}]},
        {"data": [{"time": "yesterday", "size": 7}]},
        {"data": [{"time": 1_700_000_000, "size": 7}]},
        {"data": [{"time": "2026-03-01", "size": "7"}]},
        {"data": [{"time": "2026-03-01", "size": True}]},
        {"data": [{"time": "2026-03-01", "size": -1}]},
        {"data": [{"time": "2026-03-01", "size": None}]},
    ],
    "profiles": [
        {},
        {"users": None},
        {"users": {}},
        {"users": ["anna"]},
        {"users": [None]},
        {"users": [], "invalid_user_ids": "anna"},
        {"users": [], "invalid_user_ids": {"anna": True}},
    ],
}


@pytest.mark.parametrize(("name", "body"), [(name, body) for name, bodies in ODD.items() for body in bodies])
def test_a_success_that_cannot_be_read_is_asked_for_again_and_is_none(server, reads, success, name, body):
    server.default = success(**body)
    with pytest.raises(UnclearAnswerError, match="not with what Braze documents") as caught:
        CALLS[name](reads)
    assert len(server.recorded) == 3
    assert caught.value.__context__ is None


@every_call
@pytest.mark.parametrize("body", [b"", b"<html>", [], "success", {}, {"message": "queued"}])
def test_a_2xx_without_success_is_none(server, reads, reply, call, body):
    server.default = reply(200, body)
    with pytest.raises(UnclearAnswerError, match="without saying success"):
        call(reads)
    assert len(server.recorded) == 3


@every_call
@pytest.mark.parametrize(
    ("trouble", "error"), [({"status": 503}, ServerError), ({"cut": True}, NoAnswerError)]
)
def test_tries_are_used_up(server, reads, reply, call, trouble, error):
    server.default = reply(**trouble)
    with pytest.raises(error):
        call(reads)
    assert len(server.recorded) == 3


@pytest.mark.parametrize("name", CALLS)
def test_a_key_that_may_not_is_told_which_permission_it_lacks(server, reads, reply, name):
    server.default = reply(403)
    with pytest.raises(PermissionDeniedError, match=rf"permission {PERMISSIONS[name]}, "):
        CALLS[name](reads)
    assert len(server.recorded) == 1


@every_call
def test_a_refused_key_is_told_at_once(server, reads, reply, call):
    server.default = reply(401, {"message": f"Invalid API key: {REST_KEY}"})
    with pytest.raises(AuthenticationError, match="host or instance"):
        call(reads)
    assert len(server.recorded) == 1


@every_call
def test_without_a_rest_key_nothing_is_sent(server, make_transport, call):
    with pytest.raises(ConfigurationError, match="REST API key"):
        call(BrazeClient(make_transport(), BrazeKeys()).reads)
    assert server.recorded == []


def test_segments_share_the_pool_and_profiles_have_a_limit_of_their_own(
    server, make_transport, clock, success
):
    limits = BrazeLimits(pool=Limit(1, 1000.0), ids=Limit(1, 10.0))
    client = BrazeClient(make_transport(), BrazeKeys(REST_KEY), limits, clock=clock)
    server.default = success(users=[], name="n", data=[], object_prefix=PREFIX)
    started = clock.now()
    client.check_rest_key()
    client.reads.profiles(["anna"], [], ["external_id"])
    assert clock.now() == started
    client.reads.profiles(["anna"], [], ["external_id"])
    assert clock.now() - started == pytest.approx(10.0, rel=0.01)
    for turn, name in enumerate(("segment_name", "sizes", "start_export"), 1):
        CALLS[name](client.reads)
        assert clock.now() - started == pytest.approx(1000.0 * turn, rel=0.01)


def test_an_interrupted_client_reads_nothing(server, client):
    client.interrupt()
    for call in CALLS.values():
        with pytest.raises(HeapBrazeError, match="interrupted"):
            call(client.reads)
    assert server.recorded == []


def test_a_file_goes_from_its_url_to_the_disk_without_our_key(server, client, reply, tmp_path):
    url, file = f"{server.url}/{PREFIX}.zip?{SIGNATURE}", tmp_path / "export.zip"
    server.script(reply(404), reply(200, b"content"), reply(200, b"content"), reply(403))
    assert not client.reads.is_ready(url)
    assert client.reads.is_ready(url)
    client.reads.download(url, file, most_bytes=7)
    assert file.read_bytes() == b"content"
    with pytest.raises(ExportGoneError, match="Braze export file answered 403"):
        client.reads.download(url, file, most_bytes=7)
    for request in server.recorded:
        assert not [key for key in (REST_KEY, PARTNER_KEY, IMPORT_KEY) if key in str(request)]
    assert client.statistics()["requests"] == 4


QUOTE = " ".join(PRIVATE)
ANSWERS = {
    "success": {
        "status": 200,
        "body": {
            "message": "success",
            "segments": [],
            "name": "n",
            "data": [],
            "users": [{"external_id": PERSON}],
            "object_prefix": PREFIX,
            "url": URL,
        },
    },
    "unclear": {"status": 200, "body": {"message": QUOTE, "errors": [QUOTE]}},
    "unreadable": {
        "status": 200,
        "body": {
            "message": "success",
            "segments": [QUOTE],
            "name": [QUOTE],
            "data": [{"time": QUOTE, "size": QUOTE}],
            "users": [QUOTE],
            "object_prefix": QUOTE,
            "url": URL,
        },
    },
    "no JSON": {"status": 200, "body": QUOTE.encode()},
    "redirect": {"status": 307, "headers": {"Location": "/elsewhere"}},
    "refused": {"status": 400, "body": {"message": QUOTE}},
    "key refused": {"status": 401, "body": {"message": QUOTE}},
    "not there": {"status": 404, "body": {"message": QUOTE}},
    "running": {"status": 429, "body": {"message": QUOTE}},
    "too many": {"status": 429, "body": {"message": QUOTE}, "headers": {"Retry-After": "3000"}},
    "failed": {"status": 500, "body": {"message": QUOTE}, "headers": {"X-RateLimit-Reset": QUOTE}},
    "cut in the body": {"status": 200, "body": QUOTE.encode(), "missing": 10},
}


def everything_of(error):
    """Return an exception and all that hangs on it, as text."""
    seen = []
    while error is not None:
        seen.append(f"{error} {error!r} {error.args} {vars(error)} {getattr(error, '__notes__', '')}")
        error = error.__context__
    return " ".join(seen)


@every_call
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_nothing_private_is_shown(server, reads, reply, caplog, call, answer):
    caplog.set_level(logging.DEBUG)
    server.default = reply(**answer)
    shown = [repr(reads), repr(vars(reads))]
    try:
        found = call(reads)
        if isinstance(found, StartedExport):
            shown.append(repr(found))
    except HeapBrazeError as error:
        shown.append(everything_of(error))
    shown += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    for request in server.recorded:
        assert request.headers.pop("Authorization") == f"Bearer {REST_KEY}"
        assert request.path != "/elsewhere"
        shown.append(f"{request.method} {request.path} {request.headers}")
    assert server.recorded
    assert [secret for secret in PRIVATE if secret in " ".join(shown)] == []
