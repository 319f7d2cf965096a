"""Currents batches: what Braze is answered, and how they land."""

from __future__ import annotations

import json

import pytest
from pyroaring import BitMap

from airflow_provider_heapbraze.events.reading import read_events
from airflow_provider_heapbraze.events.sources import find_files
from tests.unit.landing.receiving import HOUR, TOKEN, batch, bearer, files, landed, quarantined


def test_a_batch_lands_as_it_came(receiver, tmp_path):
    body = json.dumps(json.loads(batch("id-1", "id-2")), indent=2).encode()
    assert receiver.braze(body, source="prod_1-eu").status_code == 200
    [file] = files(tmp_path)
    assert file.parent == tmp_path / "landing" / "braze" / "prod_1-eu" / HOUR
    assert landed(tmp_path) == [json.loads(body)]


def test_the_export_reads_what_landed(receiver, tmp_path):
    for number in range(3):
        receiver.braze(batch(f"id-{number}-a", f"id-{number}-b"))
    ids = [
        event.fields["id"]
        for file in find_files(tmp_path / "landing" / "braze" / "main")
        for _, event in read_events(file.path, file.event_type, BitMap())
    ]
    assert sorted(ids) == sorted(f"id-{number}-{letter}" for number in range(3) for letter in "ab")


@pytest.mark.parametrize("body", [b"", b" \r\n", b"{}", b'{"events": []}', b"[]", b"null"])
def test_nothing_in_it_is_a_checked_no_op(receiver, tmp_path, body):
    assert receiver.braze(body).status_code == 200
    assert receiver.braze(body, bearer("some-wrong-token")).status_code == 401
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "body",
    [
        b'[{"id": "private-id"}]',
        b'{"events": {"id": "private-id"}}',
        b'{"events": ["text", 1, null]}',
        b'{"something": "new"}',
        b'{"events": [], "more": 1}',
        b'{"events": [{"id": "\\ud800"}]}',
    ],
)
def test_json_that_is_not_known_is_kept_not_lost(receiver, tmp_path, body):
    assert receiver.braze(body).status_code == 200
    assert landed(tmp_path) == [json.loads(body)]


@pytest.mark.parametrize("body", [batch("id-1")[:-1], b"no JSON", b'{"events": [{"id": "\xff"}]}', b"\0"])
def test_what_is_no_json_is_kept_as_it_came_and_not_asked_for_again(receiver, tmp_path, body):
    assert receiver.braze(body).status_code == 200
    assert quarantined(tmp_path / "landing") == [("quarantine/braze/main", body)]
    assert receiver.metric("heapbraze_landing_deliveries_total", route="braze", outcome="quarantined") == 1


def test_what_is_no_json_is_kept_of_nobody_else(receiver, tmp_path):
    assert receiver.braze(b"no JSON", bearer("some-wrong-token")).status_code == 401
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("some-wrong-token"),
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "x"),
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": b"Bearer \xff\xfe"},
        [("Authorization", f"Basic {TOKEN}"), ("Authorization", "Bearer some-wrong-token")],
    ],
)
def test_a_wrong_or_missing_token_is_refused(receiver, tmp_path, headers):
    assert receiver.braze(batch("id-1"), headers).status_code == 401
    assert files(tmp_path) == []


def test_a_header_that_airflow_adds_is_passed_over(receiver, tmp_path):
    twice = [*bearer().items(), ("Authorization", "Bearer a-token-of-airflow")]
    assert receiver.braze(batch("id-1"), twice).status_code == 200
    assert len(landed(tmp_path)) == 1


def test_old_and_new_token_are_taken_while_they_are_rotated(receiving, tmp_path):
    receiver = receiving(tmp_path, braze_tokens=("the-new-braze-token", TOKEN))
    for token in (TOKEN, "the-new-braze-token"):
        assert receiver.braze(batch(token), {"Authorization": f"bearer {token}"}).status_code == 200
    assert len(landed(tmp_path)) == 2


@pytest.mark.parametrize("source", ["a.b", "..", "%2e%2e", "a%2Fb", "a%00", "a" * 65, "ä", "a b", "a%0A", ""])
def test_a_source_of_another_name_is_not_found(receiver, tmp_path, source):
    assert receiver.braze(batch("id-1"), source=source).status_code == 404
    assert files(tmp_path) == []


def test_without_a_token_braze_is_asked_to_come_again(receiving, tmp_path):
    receiver = receiving(tmp_path, braze_tokens=())
    answer = receiver.braze(batch("id-1"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "token" in answer.text
    assert "HEAPBRAZE_LANDING_BRAZE_TOKENS" in answer.text
    assert "currents_token in the extra of the connection braze_default" in answer.text
    assert files(tmp_path) == []
