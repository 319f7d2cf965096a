"""A test per row of the status tables: what Braze answers, and what that means here."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, CohortChange, TrackResult
from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    NoAnswerError,
    PayloadTooLargeError,
    PermanentError,
    PermissionDeniedError,
    RateLimitedError,
    RequestRejectedError,
    ResourceLockedError,
    ServerError,
    UnclearAnswerError,
)
from airflow_provider_heapbraze.clients.transport import RetryPolicy

KEYS = BrazeKeys("rest-key-abcdef", "heap", "partner-key-abcdef", "import-key-abcdef")
PEOPLE = [{"external_id": name, "in_spring": True} for name in ("anna", "ben", "cleo")]
COHORT_CALLS = {
    "name": lambda client: client.name_cohort("c", "n", datetime.now(UTC)),
    "members": lambda client: client.change_cohort(
        "c", [CohortChange(["anna"], [], [], should_remove=False)]
    ),
}
TRACK_CALLS = {"track": lambda client: client.set_attributes(PEOPLE)}
every_cohort_call = pytest.mark.parametrize("call", COHORT_CALLS.values(), ids=COHORT_CALLS)
every_call = pytest.mark.parametrize(
    "call", [*COHORT_CALLS.values(), *TRACK_CALLS.values()], ids=[*COHORT_CALLS, *TRACK_CALLS]
)


@pytest.fixture
def client(make_transport, clock):
    return BrazeClient(make_transport(retry=RetryPolicy(attempts=3, patience=600.0)), KEYS, clock=clock)


@every_cohort_call
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (201, {"message": "success"}),
        (202, b"OK"),
        (204, b""),
        (201, {"errors": []}),
        (200, b"[1]"),
    ],
)
def test_cohort_2xx_is_taken_since_no_body_is_documented(server, client, reply, call, status, body):
    server.script(reply(status, body))
    call(client)
    assert len(server.recorded) == 1


@every_cohort_call
def test_cohort_2xx_with_errors_is_no_success(server, client, reply, call):
    server.default = reply(201, {"message": "success", "errors": ["some of them"]})
    with pytest.raises(UnclearAnswerError):
        call(client)
    assert len(server.recorded) == 3


@every_cohort_call
@pytest.mark.parametrize(
    ("says", "expected", "error"),
    [
        ("cohort_id must be a valid string", "cohort_id must be a valid string", PermanentError),
        (
            "cohort_changes must be an array of objects with user_ids and/or device_ids arrays of strings",
            "cohort_changes is not",
            RequestRejectedError,
        ),
        (
            "Only 1,000 user_ids, device_ids and aliases per request",
            "too much in one request",
            PayloadTooLargeError,
        ),
        ("only 1000 ids allowed per request", "too much in one request", PayloadTooLargeError),
        ("name must be a non-empty string", "name must not be empty", PermanentError),
        ("created_at must be a valid ISO 8601 time", "created_at must be", PermanentError),
        ("alias_name must be a string", "one of the people", RequestRejectedError),
        ("user_ids must hold strings, not username", "one of the people", RequestRejectedError),
        ("device_ids must hold strings", "one of the people", RequestRejectedError),
        ("something new about a name", "not known here", RequestRejectedError),
    ],
)
@pytest.mark.parametrize("form", [lambda text: {"message": text}, lambda text: text.upper().encode()])
def test_cohort_400_is_not_sent_again(server, client, reply, call, says, expected, error, form):
    server.script(reply(400, form(says)))
    with pytest.raises(PermanentError, match=expected) as caught:
        call(client)
    assert type(caught.value) is error
    assert getattr(caught.value, "status", 400) == 400
    assert len(server.recorded) == 1


@every_cohort_call
@pytest.mark.parametrize(
    ("says", "look_at"),
    [
        ("Invalid Partner API key", "the partner_api_key was refused"),
        ("Invalid client secret", "the data_import_key was refused"),
        (
            "Partner not enabled for client with client secret: import-key-abcdef",
            "not enabled for the customer whose data_import_key",
        ),
        ("Unauthorized access", "access is not authorized. Look at the partner_api_key"),
        ("something new", "the partner_api_key or the data_import_key"),
    ],
)
@pytest.mark.parametrize("form", [lambda text: {"message": text}, lambda text: {"error": text}, str.encode])
def test_cohort_401_says_which_key_to_look_at(server, client, reply, call, says, look_at, form):
    server.script(reply(401, form(says)))
    with pytest.raises(AuthenticationError, match=look_at) as caught:
        call(client)
    assert "wrong instance looks the same" in str(caught.value)
    assert "import-key-abcdef" not in str(caught.value)
    assert len(server.recorded) == 1


def test_cohort_404_points_to_the_partner_name(server, client, reply):
    server.script(reply(404))
    with pytest.raises(RequestRejectedError, match="partner_name") as caught:
        COHORT_CALLS["members"](client)
    assert caught.value.status == 404


@every_call
def test_403_is_final(server, client, reply, call):
    server.script(reply(403))
    with pytest.raises(PermissionDeniedError):
        call(client)
    assert len(server.recorded) == 1


@every_call
def test_413_asks_for_a_smaller_body(server, client, reply, call):
    server.script(reply(413))
    with pytest.raises(PayloadTooLargeError) as caught:
        call(client)
    assert caught.value.status == 413
    assert len(server.recorded) == 1


@every_call
@pytest.mark.parametrize(("status", "error"), [(423, ResourceLockedError), (429, RateLimitedError)])
def test_423_and_429_are_waited_out(server, client, reply, call, clock, status, error):
    server.script(*[reply(status, headers={"Retry-After": "20"})] * 5)
    started = clock.now()
    call(client)
    assert len(server.recorded) == 6
    assert clock.now() - started >= 100.0
    server.default = reply(status, headers={"Retry-After": "20"})
    with pytest.raises(error):
        call(client)


@every_call
@pytest.mark.parametrize(
    "failure", [{"status": 500}, {"status": 502}, {"status": 503}, {"status": 504}, {"cut": True}]
)
def test_5xx_and_no_answer_are_tried_again(server, client, reply, call, failure):
    server.script(reply(**failure), reply(**failure))
    call(client)
    assert len(server.recorded) == 3
    assert len({request.content for request in server.recorded}) == 1
    server.default = reply(**failure)
    with pytest.raises(NoAnswerError if "cut" in failure else ServerError):
        call(client)
    assert len(server.recorded) == 6


def test_track_401_names_the_key_and_the_instance(server, client, reply):
    server.script(reply(401, {"message": "Invalid API key: rest-key-abcdef"}))
    with pytest.raises(AuthenticationError, match=r"REST API key was refused.*wrong instance") as caught:
        client.set_attributes(PEOPLE)
    assert "rest-key-abcdef" not in str(caught.value)


def test_track_403_names_the_permission(server, client, reply):
    server.script(reply(403))
    with pytest.raises(PermissionDeniedError, match=r"users\.track"):
        client.set_attributes(PEOPLE)


def test_track_400_is_not_sent_again(server, client, reply):
    server.script(reply(400, {"message": "Valid data must be provided"}))
    with pytest.raises(RequestRejectedError) as caught:
        client.set_attributes(PEOPLE)
    assert type(caught.value) is RequestRejectedError
    assert caught.value.status == 400
    assert len(server.recorded) == 1


@pytest.mark.parametrize("status", [400, 201])
def test_track_asks_for_fewer_objects(server, client, reply, status):
    server.script(reply(status, {"message": "Max Input Length Exceeded"}))
    with pytest.raises(PayloadTooLargeError) as caught:
        client.set_attributes(PEOPLE)
    assert caught.value.status == status
    assert len(server.recorded) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>OK</html>",
        {"message": "queued"},
        {},
        [],
        "success",
        {"message": None},
        {"message": ["success"]},
    ],
)
def test_track_2xx_that_does_not_say_success_is_tried_again(server, client, reply, body):
    server.script(reply(201, body), reply(201, body))
    assert client.set_attributes(PEOPLE) == TrackResult()
    assert len(server.recorded) == 3
    server.default = reply(201, body)
    with pytest.raises(UnclearAnswerError):
        client.set_attributes(PEOPLE)


TOO_LARGE = {"type": "EXTERNAL_USER_ID_TOO_LARGE", "input_array": "attributes", "index": 1}


@pytest.mark.parametrize(
    ("errors", "rejected", "unsure"),
    [
        (None, {}, set()),
        ([], {}, set()),
        ([TOO_LARGE], {1: "external_id_too_large"}, set()),
        ([{"type": "EXTERNAL_USER_ID_TOO_LARGE", "index": 1}], {1: "external_id_too_large"}, set()),
        (
            [{"type": "'external_id' must be fewer than 988 bytes", "index": 0}],
            {0: "external_id_too_large"},
            set(),
        ),
        ([{"type": "BLACKLISTED_EXTERNAL_USER_ID", "index": 2}], {2: "external_id_blocked"}, set()),
        ([{"type": "external_id is blacklisted", "index": 2}], {2: "external_id_blocked"}, set()),
        ([{"type": "<unknown>", "index": 0}], {}, {0}),
        ([{"type": "user not found for external_id", "index": 0}], {}, {0}),
        ([{"type": "could not look up 'external_id' must be fewer than 988 bytes", "index": 0}], {}, {0}),
        ([{"type": None, "index": 0}], {}, {0}),
        ([{"index": 0}], {}, {0}),
        ([{"type": "EXTERNAL_USER_ID_TOO_LARGE"}], {}, {0, 1, 2}),
        ([{"type": "<no index>"}], {}, {0, 1, 2}),
        ([TOO_LARGE, {"type": "<no index>"}], {1: "external_id_too_large"}, {0, 2}),
        ([{"type": "<no index>"}, TOO_LARGE], {1: "external_id_too_large"}, {0, 2}),
        ([TOO_LARGE, {"type": "<unknown>", "index": 1}], {1: "external_id_too_large"}, set()),
        ([{**TOO_LARGE, "index": 3}], {}, {0, 1, 2}),
        ([{**TOO_LARGE, "index": -1}], {}, {0, 1, 2}),
        ([{**TOO_LARGE, "index": "1"}], {}, {0, 1, 2}),
        ([{**TOO_LARGE, "index": True}], {}, {0, 1, 2}),
        ([{**TOO_LARGE, "input_array": "events"}], {}, {0, 1, 2}),
        (["some trouble"], {}, {0, 1, 2}),
        ("some trouble", {}, {0, 1, 2}),
        ({"type": "EXTERNAL_USER_ID_TOO_LARGE", "index": 1}, {1: "external_id_too_large"}, set()),
    ],
)
def test_track_errors_of_single_rows(server, client, reply, errors, rejected, unsure):
    body = {"message": "success", "attributes_processed": 3}
    server.script(reply(201, body if errors is None else {**body, "errors": errors}))
    assert client.set_attributes(PEOPLE) == TrackResult(rejected, frozenset(unsure))
    assert len(server.recorded) == 1
