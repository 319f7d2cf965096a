"""Nothing private leaks: every kind of request, with every kind of answer, through a recording server."""

from __future__ import annotations

import logging
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from requests.cookies import create_cookie

from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, CohortChange
from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.clients.heap import HeapClient

REST_KEY, PARTNER_KEY, IMPORT_KEY = "secret-rest-key-001", "secret-partner-key-002", "secret-import-key-003"
HEAP_KEY = "secret-heap-key-004"
HEAP_BASIC = b64encode(f"secret-app-id-005:{HEAP_KEY}".encode()).decode()
PERSON, DEVICE, ALIAS, LABEL = (
    "person-external-006",
    "person-device-007",
    "person-alias-008",
    "person-label-009",
)
STRANGERS = ("session-password-010", "session-header-011", "session-cookie-012", "netrc-password-013")
KEYS = (REST_KEY, PARTNER_KEY, IMPORT_KEY, HEAP_KEY, HEAP_BASIC)
PEOPLE = (PERSON, DEVICE, ALIAS, LABEL)
PRIVATE = (*KEYS, *PEOPLE, *STRANGERS)


@dataclass(frozen=True)
class Kind:
    """A kind of request, and which private things it may hold where."""

    call: object
    authorization: str | None
    body: frozenset[str] = field(default=frozenset())


CHANGES = [
    CohortChange([PERSON], [], [], should_remove=False),
    CohortChange([], [DEVICE], [(ALIAS, LABEL)], should_remove=True),
]
ATTRIBUTES = [{"external_id": PERSON, "a": True}, {"user_alias": {"alias_name": ALIAS, "alias_label": LABEL}}]
KINDS = {
    "name a cohort": Kind(
        lambda braze, _: braze.name_cohort("c", "n", datetime.now(UTC)),
        None,
        frozenset({PARTNER_KEY, IMPORT_KEY}),
    ),
    "change a cohort": Kind(
        lambda braze, _: braze.change_cohort("c", CHANGES),
        None,
        frozenset({PARTNER_KEY, IMPORT_KEY, *PEOPLE}),
    ),
    "set attributes": Kind(
        lambda braze, _: braze.set_attributes(ATTRIBUTES),
        f"Bearer {REST_KEY}",
        frozenset({PERSON, ALIAS, LABEL}),
    ),
    "check the partner keys": Kind(
        lambda braze, _: braze.check_partner_keys(), None, frozenset({PARTNER_KEY, IMPORT_KEY})
    ),
    "check the REST key": Kind(lambda braze, _: braze.check_rest_key(), f"Bearer {REST_KEY}"),
    "read segments": Kind(lambda braze, _: list(braze.reads.segments()), f"Bearer {REST_KEY}"),
    "start an export": Kind(
        lambda braze, _: braze.reads.start_export("segment", ["external_id"]), f"Bearer {REST_KEY}"
    ),
    "read profiles": Kind(
        lambda braze, _: braze.reads.profiles([PERSON], [(ALIAS, LABEL)], ["external_id"]),
        f"Bearer {REST_KEY}",
        frozenset({PERSON, ALIAS, LABEL}),
    ),
    "set user properties": Kind(
        lambda _, heap: heap.set_user_properties([(PERSON, {"in segment": ALIAS})]),
        None,
        frozenset({PERSON, ALIAS}),
    ),
    "check the Heap key": Kind(lambda _, heap: heap.check_api_key(), f"Basic {HEAP_BASIC}"),
    "check that Heap is there": Kind(lambda _, heap: heap.check_reachable(), None),
}
QUOTE = " ".join(PRIVATE)
ANSWERS = {
    "success": {"status": 200, "body": {"message": "success", "access_token": "token"}},
    "unclear": {"status": 200, "body": {"message": QUOTE, "errors": [QUOTE]}},
    "no JSON": {"status": 200, "body": QUOTE.encode()},
    "redirect": {"status": 307, "body": QUOTE.encode()},
    "refused": {"status": 400, "body": {"message": QUOTE}},
    "key refused": {
        "status": 401,
        "body": {"message": f"Partner not enabled for client with client secret: {QUOTE}"},
    },
    "not allowed": {"status": 403, "body": {"message": QUOTE}},
    "too large": {"status": 413, "body": {"message": QUOTE}},
    "locked": {"status": 423, "body": {"message": QUOTE}},
    "too many": {"status": 429, "body": {"message": QUOTE}, "headers": {"Retry-After": "3000"}},
    "failed": {"status": 500, "body": {"message": QUOTE}},
    "cut": {"status": 200, "cut": True},
    "cut in the body": {"status": 200, "body": QUOTE.encode(), "missing": 10},
    "odd headers": {
        "status": 500,
        "headers": {"Retry-After": QUOTE, "X-RateLimit-Reset": QUOTE, "X-Quote": QUOTE},
    },
}


def everything_of(error):
    """Return an exception and all that hangs on it, as text."""
    seen = []
    while error is not None:
        seen.append(f"{error} {error!r} {error.args} {vars(error)} {getattr(error, '__notes__', '')}")
        assert error.__cause__ is None or error.__cause__ is error.__context__
        error = error.__context__
    return " ".join(seen)


def assert_silent(text, *, but=()):
    assert [secret for secret in PRIVATE if secret in text and secret not in but] == []


@pytest.fixture
def clients(session, make_transport, clock, server, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password netrc-password-013\n")
    monkeypatch.setenv("NETRC", str(netrc))
    session.auth = ("somebody", "session-password-010")
    session.headers["X-Extra"] = "session-header-011"
    session.cookies.set_cookie(create_cookie("c", "session-cookie-012", domain="127.0.0.1"))
    keys = BrazeKeys(REST_KEY, "heap", PARTNER_KEY, IMPORT_KEY)
    braze = BrazeClient(make_transport(), keys, clock=clock)
    return braze, HeapClient(make_transport(), "secret-app-id-005", HEAP_KEY, clock=clock)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_secrets_are_only_where_they_must_be(server, clients, reply, caplog, kind, answer):
    caplog.set_level(logging.DEBUG)
    answer = {**answer, "headers": {**answer.get("headers", {}), "Set-Cookie": "c=session-cookie-012"}}
    if answer["status"] == 307:
        answer["headers"]["Location"] = f"{server.url}/elsewhere"
    server.default = reply(**answer)
    try:
        kind.call(*clients)
    except HeapBrazeError as error:
        assert_silent(everything_of(error))
    assert server.recorded
    for request in server.recorded:
        headers = dict(request.headers)
        assert headers.pop("Authorization", None) == kind.authorization
        assert "Cookie" not in headers
        assert_silent(f"{request.method} {request.path} {headers}")
        assert_silent(request.content.decode(), but=kind.body)
        assert request.path != "/elsewhere"
    for record in caplog.records:
        assert_silent(f"{record.getMessage()} {record.__dict__}")


@pytest.mark.parametrize("answer", ["success", "unclear", "key refused", "failed"])
def test_the_recording_does_see_what_is_sent(server, clients, reply, answer):
    """Else the test above would pass for a client that sends nothing."""
    server.default = reply(**ANSWERS[answer])
    for kind in KINDS.values():
        with suppress(HeapBrazeError):
            kind.call(*clients)
        sent = server.recorded[-1].content.decode()
        assert {secret for secret in PRIVATE if secret in sent} == kind.body


def test_no_object_shows_what_it_holds(server, clients, reply):
    braze, heap = clients
    server.script(reply(200, {"message": "success", "quote": QUOTE}, {"X-Quote": QUOTE}))
    answer = braze._transport.send(braze._segments, "GET", "/segments/list")
    assert PERSON in answer.text
    objects = [
        *(braze, braze.keys, braze.limits, braze.statistics(), braze.cohort_budget, braze._transport),
        *(braze._members, braze._track, braze._transport.statistics, answer),
        *(heap, heap._transport, heap._token),
        *CHANGES,
    ]
    for one in objects:
        assert_silent(f"{one!r} {one!s}")
    assert repr(braze.keys) == "BrazeKeys(partner_name='heap')"
    assert repr(answer) == "Answer(status=200)"


def test_what_hangs_on_an_exception_is_seen():
    inner = ValueError(PERSON)
    outer = HeapBrazeError("harmless")
    outer.__context__ = inner
    with pytest.raises(AssertionError):
        assert_silent(everything_of(outer))
