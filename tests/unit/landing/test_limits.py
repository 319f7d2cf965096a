"""What is too large, too many, too deep, too slow or compressed is not taken; nothing of it is written."""

from __future__ import annotations

import gzip

import pytest

from airflow_provider_heapbraze.landing import bodies
from tests.unit.landing.receiving import answer_of, batch, bearer, files, head, landed, page, signed


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
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.05)
    with receiver.connect() as sock:
        sock.sendall(head("/heap/segments", signed(page()), len(page())) + page()[:-1])
        assert answer_of(sock) == (408, True)
    assert files(tmp_path) == []


@pytest.mark.parametrize(("levels", "status"), [(64, 200), (65, 413), (500, 413), (100_000, 503)])
def test_depth(receiver, tmp_path, levels, status):
    assert receiver.braze(nested(levels)).status_code == status
    assert len(files(tmp_path)) == (status == 200)


@pytest.mark.parametrize(("items", "status"), [(100_000, 200), (100_001, 413)])
def test_number_of_items(receiver, tmp_path, items, status):
    events = b'{"events":[' + b",".join([b"{}"] * items) + b"]}"
    assert receiver.braze(events).status_code == status
    members = b'{"data":{"segment":{"id":1},"add":[' + b",".join([b"{}"] * items) + b"]}}"
    assert receiver.heap(members).status_code == status
    assert len(files(tmp_path)) == (2 if status == 200 else 0)


@pytest.mark.parametrize("encoding", ["gzip", "identity, gzip", "br"])
def test_a_compressed_body_is_not_taken(receiver, tmp_path, encoding):
    packed = gzip.compress(page())
    encoded = {"Content-Encoding": encoding}
    assert receiver.heap(packed, {**signed(packed), **encoded}).status_code == 415
    assert receiver.braze(packed, {**bearer(), **encoded}).status_code == 415
    assert files(tmp_path) == []


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


def test_who_is_a_stranger_takes_no_place(receiving, tmp_path):
    receiver = receiving(tmp_path, most_open=0)
    assert receiver.braze(batch("id-1"), bearer("some-wrong-token")).status_code == 401
    assert receiver.heap(page(), {}).status_code == 400
    assert receiver.heap(page(), signed(page(), 1)).status_code == 403
    assert [receiver.heap(page()).status_code, receiver.braze(batch("id-1")).status_code] == [503, 503]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_other_methods_are_not_allowed(receiver, tmp_path, method):
    for path in ("/heap/segments", "/braze/currents/main"):
        assert receiver.client.request(method, path, headers=bearer()).status_code == 405
    assert files(tmp_path) == []
