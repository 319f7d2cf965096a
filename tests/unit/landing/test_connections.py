"""Connections of the standalone server: who does not finish a head is cut off, and so is a crowd."""

from __future__ import annotations

import socket

import pytest

from airflow_provider_heapbraze.landing import connections
from airflow_provider_heapbraze.landing.server import make_server
from tests.unit.landing.receiving import (
    answer_of,
    batch,
    bearer,
    head,
    landed,
    serving,
    settings,
    wait_until,
)

HEALTH = b"GET /health HTTP/1.1\r\nHost: receiver\r\n\r\n"


@pytest.fixture
def connect(tmp_path):
    """Connect to the server that ``python -m`` runs."""
    with serving(make_server(settings(tmp_path))) as port:
        yield lambda: socket.create_connection(("127.0.0.1", port), timeout=60)


def closed(sock):
    """Tell, when it happens, that the other side closed a connection without a word."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("begun", [b"", b"P", head("/braze/currents/main", bearer(), 2)[:-1]])
def test_who_does_not_finish_a_head_is_cut_off(connect, monkeypatch, begun):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    with connect() as sock:
        sock.sendall(begun)
        assert closed(sock)


def test_who_does_not_finish_the_next_head_is_cut_off(connect, monkeypatch):
    with connect() as sock:
        sock.sendall(HEALTH)
        assert answer_of(sock) == (200, False)
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
        sock.sendall(HEALTH[:10])
        assert closed(sock)


def test_who_goes_on_with_a_body_that_was_refused_is_cut_off(connect, monkeypatch):
    with connect() as sock:
        sock.sendall(head("/braze/currents/main", bearer("some-wrong-token"), 1_000))
        assert answer_of(sock) == (401, False)
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
        sock.sendall(b"x")
        assert closed(sock)


def test_a_body_has_a_time_of_its_own(connect, monkeypatch, tmp_path):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    with connect() as slow:
        slow.sendall(head("/braze/currents/main", {**bearer(), "Expect": "100-continue"}, len(batch("id-1"))))
        assert slow.recv(100).startswith(b"HTTP/1.1 100")
        with connect() as later:
            assert closed(later), "so the time for a head is over"
        slow.sendall(batch("id-1"))
        assert answer_of(slow)[0] == 200
    assert len(landed(tmp_path)) == 1


def test_more_connections_than_there_may_be_are_not_taken(connect, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 2)
    with connect() as first:
        with connect() as second:
            for sock in (first, second):
                sock.sendall(HEALTH)
                assert answer_of(sock)[0] == 200
            with connect() as third:
                assert closed(third)

        def taken():
            with connect() as sock:
                sock.sendall(HEALTH)
                return not closed(sock)

        wait_until(taken)
        first.sendall(HEALTH)
        assert answer_of(first)[0] == 200
