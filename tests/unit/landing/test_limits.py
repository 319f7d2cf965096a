"""What is too large, too many, too deep, too slow or compressed is not taken; nothing of it is written."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from airflow_provider_heapbraze.landing import doors
from airflow_provider_heapbraze.landing.answers import TOO_SLOW, RefusedError
from tests.unit.landing.receiving import (
    Clock,
    answer_of,
    batch,
    bearer,
    files,
    head,
    landed,
    page,
    quarantined,
    signed,
)


def nested(levels):
    return b'{"events":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_a_body_is_taken_up_to_the_limit(receiving, tmp_path):
    receiver = receiving(tmp_path, most_bytes=2_000)
    fitting, larger = (batch("x" * (size - len(batch("")))) for size in (2_000, 2_001))
    assert [receiver.braze(body).status_code for body in (fitting, larger)] == [200, 413]
    assert len(landed(tmp_path)) == 1


def test_a_page_over_the_limit_is_not_taken(receiving, tmp_path):
    receiver = receiving(tmp_path, most_bytes=100)
    assert receiver.heap(page()).status_code == 413
    assert files(tmp_path) == []


def test_chunks_are_read_no_further_than_to_the_limit(receiving, tmp_path):
    receiver = receiving(tmp_path, most_bytes=100_000)
    with receiver.connect() as sock:
        lines = ["POST /braze/currents/main HTTP/1.1", "Host: receiver", "Transfer-Encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in bearer().items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        for _ in range(20):  # of a body that does not end
            sock.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert answer_of(sock)[0] == 413
    assert files(tmp_path) == []


def test_a_length_that_lies_is_not_waited_for(receiving, tmp_path):
    receiver = receiving(tmp_path, most_bytes=1_000)
    with receiver.connect() as sock:
        sock.sendall(head("/braze/currents/main", bearer(), 10**12) + b"x" * 1_001)
        assert answer_of(sock)[0] == 413
    assert files(tmp_path) == []


def test_a_body_that_ends_too_early_is_not_taken(receiver, tmp_path):
    with receiver.connect() as sock:
        sock.sendall(head("/braze/currents/main", bearer(), 1_000) + batch("id-1"))
        receiver.wait_until_open(1)
    receiver.wait_until_open(0)
    assert receiver.metric("heapbraze_landing_deliveries_total", route="braze", outcome="gone") == 1
    assert files(tmp_path) == []


def test_a_body_that_comes_too_slowly_is_not_waited_for(receiver, tmp_path, monkeypatch):
    monkeypatch.setattr(doors, "READ_SECONDS", 0.05)
    with receiver.connect() as sock:
        sock.sendall(head("/heap/segments", signed(page()), len(page())) + page()[:-1])
        assert answer_of(sock) == (408, True)
    assert files(tmp_path) == []


def test_depth_up_to_the_limit(receiver, tmp_path):
    assert receiver.braze(nested(64)).status_code == 200
    assert landed(tmp_path) == [json.loads(nested(64))]


@pytest.mark.parametrize("levels", [65, 500, 100_000])
def test_what_is_too_deep_and_cannot_be_split_is_kept_as_it_came(receiver, tmp_path, levels):
    page_of_depth = b'{"data":{"segment":{"id":1},"x":' + nested(levels) + b"}}"
    assert receiver.braze(nested(levels)).status_code == 200
    assert receiver.heap(page_of_depth).status_code == 200
    assert quarantined(tmp_path / "landing") == [
        ("quarantine/braze/main", nested(levels)),
        ("quarantine/heap", page_of_depth),
    ]


def test_what_is_too_deep_among_others_is_left_to_braze_to_split(receiver, tmp_path):
    events = b'{"events":[{"id":"id-1"},' + nested(64) + b"]}"
    assert receiver.braze(events).status_code == 413
    assert files(tmp_path) == []


@pytest.mark.parametrize(("items", "status"), [(100_000, 200), (100_001, 413)])
def test_number_of_events(receiver, tmp_path, items, status):
    events = b'{"events":[' + b",".join([b"{}"] * items) + b"]}"
    assert receiver.braze(events).status_code == status
    assert len(landed(tmp_path)) == (status == 200)


@pytest.mark.parametrize(("items", "folder"), [(100_000, "heap"), (100_001, "quarantine")])
def test_number_of_members(receiver, tmp_path, items, folder):
    members = b'{"data":{"segment":{"id":1},"add":[' + b",".join([b"{}"] * items) + b"]}}"
    assert receiver.heap(members).status_code == 200
    [file] = files(tmp_path / "landing")
    assert file.relative_to(tmp_path / "landing").parts[0] == folder


@pytest.mark.parametrize("encoding", ["gzip", "identity, gzip", "br"])
def test_a_compressed_body_is_kept_as_it_came(receiver, tmp_path, encoding):
    packed = gzip.compress(page(), mtime=0)
    encoded = {"Content-Encoding": encoding}
    assert receiver.heap(packed, {**signed(packed), **encoded}).status_code == 200
    assert receiver.braze(packed, {**bearer(), **encoded}).status_code == 200
    assert quarantined(tmp_path / "landing") == [
        ("quarantine/braze/main", packed),
        ("quarantine/heap", packed),
    ]


def test_a_crowd_at_one_door_is_told_to_come_again_and_does_not_shut_the_other(receiving, tmp_path):
    receiver = receiving(tmp_path, most_open=2)
    with receiver.connect() as first, receiver.connect() as second:
        for sock in (first, second):
            sock.sendall(head("/heap/segments", signed(page()), len(page())) + page()[:-1])
        receiver.wait_until_open(2)
        answer = receiver.heap(page())
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        assert receiver.braze(batch("id-1")).status_code == 200
        first.sendall(page()[-1:])
        assert answer_of(first)[0] == 200
        assert receiver.heap(page()).status_code == 200
        second.sendall(page()[-1:])
        assert answer_of(second)[0] == 200
    assert len(landed(tmp_path)) == 4


def test_who_is_slow_makes_room_where_there_is_none(receiving, tmp_path):
    receiver = receiving(tmp_path, most_open=1)
    with receiver.connect() as slow:
        # Nobody knows yet that this is a stranger.
        headers = signed(page(), secret="some-other-secret")
        slow.sendall(head("/heap/segments", headers, len(page())) + page()[:-1])
        receiver.wait_until_open(1)
        assert receiver.heap(page()).status_code == 503
        receiver.clock.milliseconds += 2_000
        assert receiver.heap(page()).status_code == 200
        assert answer_of(slow) == (408, True)
    receiver.wait_until_open(0)
    assert len(landed(tmp_path)) == 1


def test_who_is_being_cut_off_at_that_very_moment_makes_room_all_the_same(monkeypatch):
    monkeypatch.setattr(doors, "READ_SECONDS", 0.0)
    clock = Clock()
    place = doors.Doors(1, clock)

    async def read():
        with place.entered(doors.HEAP):
            async with place.reading(doors.HEAP):
                await asyncio.Event().wait()

    async def come_when_its_time_is_over():
        slow = asyncio.create_task(read())
        await asyncio.sleep(0)  # it has begun
        await asyncio.sleep(0)  # its time is over, and it does not know yet
        clock.milliseconds += 2_000
        with place.entered(doors.HEAP):
            assert place.open(doors.HEAP) == 2
        with pytest.raises(RefusedError) as refused:
            await slow
        assert refused.value.answer is TOO_SLOW

    asyncio.run(come_when_its_time_is_over())
    assert place.open(doors.HEAP) == 0


def test_who_is_a_stranger_takes_no_place(receiving, tmp_path):
    receiver = receiving(tmp_path, most_open=0)
    assert receiver.braze(batch("id-1"), bearer("some-wrong-token")).status_code == 401
    assert receiver.heap(page(), {}).status_code == 400
    assert receiver.heap(page(), signed(page(), 1)).status_code == 403
    assert [receiver.heap(page()).status_code, receiver.braze(batch("id-1")).status_code] == [503, 503]


def test_what_says_that_it_is_too_large_takes_no_place(receiving):
    receiver = receiving("/nowhere", most_open=0, most_bytes=1_000)
    for path, headers in (("/heap/segments", signed(page())), ("/braze/currents/main", bearer())):
        with receiver.connect() as sock:
            sock.sendall(head(path, headers, 1_001))
            assert answer_of(sock)[0] == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_other_methods_are_not_allowed(receiver, tmp_path, method):
    for path in ("/heap/segments", "/braze/currents/main"):
        assert receiver.client.request(method, path, headers=bearer()).status_code == 405
    assert files(tmp_path) == []
