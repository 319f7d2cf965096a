from __future__ import annotations

from base64 import b64decode

import pytest

from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    ConfigurationError,
    ServerError,
    UnclearAnswerError,
)
from airflow_provider_heapbraze.clients.heap import TOKEN_HOST, HeapClient, region_host


@pytest.fixture
def client(make_transport, clock):
    return HeapClient(make_transport(), "1234567890", "heap-key-abcdef", clock=clock)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us", "https://heapanalytics.com"),
        ("eu", "https://c.eu.heap-api.com"),
        (" EU ", "https://c.eu.heap-api.com"),
    ],
)
def test_regions_have_their_hosts(region, host):
    assert region_host(region) == host


def test_tokens_come_from_the_us():
    assert region_host("us") == TOKEN_HOST


def test_there_are_no_other_regions():
    with pytest.raises(ConfigurationError, match="us and eu"):
        region_host("mars")


def test_a_token_proves_the_key(server, client, reply):
    server.script(reply(200, {"access_token": "token-abcdef"}))
    client.check_api_key()
    assert (server.only.method, server.only.path, server.only.content) == (
        "POST",
        "/api/public/v0/auth_token",
        b"",
    )
    kind, credentials = server.only.headers["Authorization"].split()
    assert (kind, b64decode(credentials)) == ("Basic", b"1234567890:heap-key-abcdef")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_fails(server, client, reply, status):
    server.script(reply(status))
    with pytest.raises(AuthenticationError, match="API key was refused"):
        client.check_api_key()
    assert len(server.recorded) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", {}, [], {"access_token": ""}])
def test_a_success_without_a_token_is_none(server, client, reply, body):
    server.default = reply(200, body)
    with pytest.raises(UnclearAnswerError):
        client.check_api_key()


@pytest.mark.parametrize("status", [200, 204, 301, 403, 404, 405])
def test_any_answer_proves_that_the_host_is_there(server, client, reply, status):
    server.script(reply(status, b"", {"Location": "http://127.0.0.1:9/"} if status == 301 else {}))
    client.check_reachable()
    assert (server.only.method, server.only.path) == ("HEAD", "/")
    assert "Authorization" not in server.only.headers


def test_a_failing_host_is_not_reachable(server, client, reply):
    server.default = reply(503)
    with pytest.raises(ServerError):
        client.check_reachable()


def test_without_a_key_there_is_nothing_to_check(server, make_transport):
    with pytest.raises(ConfigurationError):
        HeapClient(make_transport(), "1234567890").check_api_key()
    assert server.recorded == []
