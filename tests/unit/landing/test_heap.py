"""Segments Sync webhooks: who may send them, and how they land."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.unit.landing.receiving import (
    HOUR,
    NOW,
    SAMPLES,
    SECRET,
    files,
    folded,
    landed,
    page,
    quarantined,
    signed,
)


@pytest.mark.parametrize("name", ["segments-sync.json", "segments-drain.json"])
def test_heaps_own_samples_land_as_they_came(receiver, tmp_path, name):
    if not SAMPLES.is_dir():
        pytest.skip("Heap's samples are not here")
    body = (SAMPLES / name).read_bytes()
    assert receiver.heap(body, signed(body, NOW - 5)).status_code == 200
    assert landed(tmp_path) == [{"received_at": NOW, "sent_at": NOW - 5, "body": json.loads(body)}]


def test_a_page_lands_in_its_segments_folder_of_the_hour(receiver, tmp_path):
    assert receiver.heap(page(1338065)).status_code == 200
    digest = hashlib.blake2b(b"1338065", digest_size=8).hexdigest()
    [file] = files(tmp_path)
    assert file.parent == tmp_path / "landing" / "heap" / f"segment={digest}" / HOUR
    milliseconds, process, number = file.stem.split("-")
    assert (milliseconds, number, file.suffix) == (str(NOW), "00000001", ".ndjson")
    assert len(process) == 8


def test_the_hour_is_that_of_receipt(receiver, tmp_path):
    receiver.clock.milliseconds = NOW - NOW % 3_600_000 - 1
    receiver.heap(page(), signed(page(), NOW - NOW % 3_600_000))
    receiver.clock.milliseconds += 1
    receiver.heap(page(), signed(page(), NOW - NOW % 3_600_000))
    assert [file.parent.name for file in files(tmp_path)] == ["date=2026-11-25-08", HOUR]


def test_a_body_of_many_lines_lands_as_one(receiver, tmp_path):
    body = json.dumps(json.loads(page()), indent=1).replace("\n", "\r\n").encode()
    assert receiver.heap(body).status_code == 200
    assert [line["body"] for line in landed(tmp_path)] == [json.loads(page())]


@pytest.mark.parametrize("age", [0, 59_999, 60_000, -1, -1_000])
def test_a_signature_of_the_last_minute_is_taken(receiver, tmp_path, age):
    assert receiver.heap(page(), signed(page(), NOW - age)).status_code == 200
    assert len(landed(tmp_path)) == 1


@pytest.mark.parametrize("age", [60_001, 4_000_000, -1_001, -9_000_000_000_000])
def test_an_older_and_a_future_signature_are_refused(receiver, tmp_path, age):
    assert receiver.heap(page(), signed(page(), NOW - age)).status_code == 403
    assert files(tmp_path) == []


@pytest.mark.parametrize("place", [0, 40, -1])
def test_an_altered_byte_is_refused(receiver, tmp_path, place):
    altered = bytearray(page())
    altered[place] ^= 1
    assert receiver.heap(bytes(altered), signed(page())).status_code == 403
    assert files(tmp_path) == []


def test_an_altered_time_is_refused(receiver, tmp_path):
    header = signed(page(), NOW)["Heap-Hash"].replace(str(NOW), str(NOW - 1))
    assert receiver.heap(page(), {"Heap-Hash": header}).status_code == 403
    assert files(tmp_path) == []


def test_the_raw_bytes_are_signed_not_what_they_mean(receiver, tmp_path):
    assert receiver.heap(page() + b" ", signed(page())).status_code == 403
    assert files(tmp_path) == []


def test_a_wrong_secret_is_refused(receiver, tmp_path):
    assert receiver.heap(page(), signed(page(), secret="some-other-secret")).status_code == 403
    assert files(tmp_path) == []


def test_old_and_new_secret_are_taken_while_they_are_rotated(receiving, tmp_path):
    receiver = receiving(tmp_path, heap_secrets=("the-new-webhook-secret", SECRET))
    for secret in (SECRET, "the-new-webhook-secret"):
        assert receiver.heap(page(), signed(page(), secret=secret)).status_code == 200
    assert len(landed(tmp_path)) == 2


def test_a_replay_is_a_delivery_like_any_other(receiver, tmp_path):
    header = signed(page())
    assert [receiver.heap(page(), header).status_code for _ in range(2)] == [200, 200]
    first, second = landed(tmp_path)
    assert first == second


@pytest.mark.parametrize(
    "header",
    [
        "",
        "ts:1,hmac:",
        "hmac:" + "A" * 43 + "=",
        f"ts:{NOW}",
        f"ts:{NOW},hmac:{'A' * 44}",
        f"ts:{NOW},hmac:{'A' * 42}==",
        f"ts:-{NOW},hmac:{'A' * 43}=",
        f"ts:{NOW}.0,hmac:{'A' * 43}=",
        f"ts:{'9' * 400},hmac:{'A' * 43}=",
        f"ts:{NOW},hmac:{'A' * 43}=,ts:{NOW}",
    ],
)
def test_a_malformed_signature_is_a_bad_request(receiver, tmp_path, header):
    assert receiver.heap(page(), {"Heap-Hash": header}).status_code == 400
    assert files(tmp_path) == []


def test_no_signature_and_two_are_bad_requests(receiver, tmp_path):
    twice = [*signed(page()).items(), *signed(page()).items()]
    assert [receiver.heap(page(), headers).status_code for headers in ({}, twice)] == [400, 400]
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"no JSON",
        page()[:-1],
        page() + b"}",
        b'{"data":{"segment":{"id":"1338065"}}}',
        b'{"data":{"segment":{"id":9223372036854775808}}}',
        b'{"data":{"segment":{"id":1}},"other":"\xff"}',
        # The fold cannot read these; in a file with others, the others would be lost to it as well.
        page(members=["LONE"]).replace(b"LONE", b"\\ud800"),
        b'{"data":{"segment":{"id":1}},"other":NaN}',
    ],
)
def test_what_is_no_webhook_is_kept_as_it_came_and_not_asked_for_again(receiver, tmp_path, body):
    assert receiver.heap(body).status_code == 200
    assert quarantined(tmp_path / "landing") == [("quarantine/heap", body)]
    assert receiver.metric("heapbraze_landing_deliveries_total", route="heap", outcome="quarantined") == 1


def test_what_is_no_webhook_is_kept_of_nobody_else(receiver, tmp_path):
    assert receiver.heap(b"no JSON", signed(b"no JSON", secret="some-other-secret")).status_code == 403
    assert files(tmp_path) == []


def test_a_page_that_is_not_understood_does_not_spoil_the_others(receiver, tmp_path):
    bodies = [page(task="a task"), page(task="\ud800"), page(task="another task")]
    assert [receiver.heap(body).status_code for body in bodies] == [200, 200, 200]
    assert folded(tmp_path / "landing", 1338065) == ["private-person-1"]


def test_a_kind_that_is_not_known_yet_lands(receiver, tmp_path):
    body = b'{"action_type":"segment.users.new","data":{"segment":{"id":-5}}}'
    assert receiver.heap(body).status_code == 200
    assert [line["body"] for line in landed(tmp_path)] == [json.loads(body)]


def test_without_a_secret_heap_is_asked_to_come_again(receiving, tmp_path):
    receiver = receiving(tmp_path, heap_secrets=())
    answer = receiver.heap(page())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "secret" in answer.text
    assert "HEAPBRAZE_LANDING_HEAP_SECRETS" in answer.text
    assert "webhook_secret in the extra of the connection heap_default" in answer.text
    assert receiver.client.get("/ready").status_code == 200
    assert files(tmp_path) == []
