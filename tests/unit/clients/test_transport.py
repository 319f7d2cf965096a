from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from requests.adapters import HTTPAdapter
from requests_toolbelt.adapters.socket_options import TCPKeepAliveAdapter

from airflow_provider_heapbraze import __version__
from airflow_provider_heapbraze.clients.answers import BASIC_RULES, Answer, Endpoint
from airflow_provider_heapbraze.clients.budget import Budget
from airflow_provider_heapbraze.clients.concurrency import AdaptiveConcurrency
from airflow_provider_heapbraze.clients.errors import (
    ConfigurationError,
    InterruptedCallError,
    NoAnswerError,
    PermanentError,
    RateLimitedError,
    RequestRejectedError,
    ResourceLockedError,
    ServerError,
    TransientError,
)
from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport


@pytest.fixture
def endpoint(clock):
    return Endpoint("Somewhere", Budget(1_000_000, 1.0, clock=clock), BASIC_RULES)


@pytest.fixture
def send(make_transport, endpoint):
    transport = make_transport()
    return lambda **settings: transport.send(endpoint, "POST", "/place", json={"a": [1, 2]}, **settings)


def test_a_success_is_returned(server, send, reply):
    server.script(reply(200, {"answer": 42}, {"X-Thing": "yes"}))
    answer = send(headers={"X-Ours": "1"})
    assert (answer.status, answer.body, answer.headers["x-thing"]) == (200, {"answer": 42}, "yes")
    request = server.only
    assert (request.method, request.path, request.content) == ("POST", "/place", b'{"a":[1,2]}')
    assert {name: value for name, value in request.headers.items() if name != "Host"} == {
        "User-Agent": f"airflow-provider-heapbraze/{__version__}",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "Content-Type": "application/json",
        "Content-Length": "11",
        "X-Ours": "1",
    }


def test_a_body_that_is_no_json_is_none():
    for content in (b"", b"<html>", b"\xff", b"[" * 100_000):
        assert Answer(200, {}, content).body is None


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 599])
def test_a_failing_server_is_tried_again_and_then_given_up(server, send, reply, clock, status):
    server.default = reply(status)
    started = clock.now()
    with pytest.raises(ServerError, match=str(status)):
        send()
    assert len(server.recorded) == 3
    assert clock.now() - started == pytest.approx(0.5 * (0.5 + 1.0), abs=0.01), (
        "half of the backoff of two waits"
    )


def test_a_failing_server_may_say_when_to_come_back(server, send, reply, clock):
    server.script(reply(503, headers={"Retry-After": "30"}))
    started = clock.now()
    assert send().status == 201
    assert clock.now() - started == pytest.approx(30.25, abs=0.01)


def test_the_reset_of_a_limit_is_no_wait_for_a_failing_server(server, send, reply, clock):
    server.script(reply(503, headers={"X-RateLimit-Reset": "3000", "X-RateLimit-Remaining": "99999"}))
    started = clock.now()
    send()
    assert clock.now() - started < 1.0


def test_backoff_doubles_up_to_its_cap(server, make_transport, endpoint, reply, clock):
    server.default = reply(500)
    seen = []
    server.before_answer = lambda: seen.append(clock.now())
    transport = make_transport(retry=RetryPolicy(attempts=7, first=1.0, cap=8.0), random=lambda: 1.0)
    with pytest.raises(ServerError):
        transport.send(endpoint, "GET", "/")
    waits = [round(after - before, 2) for before, after in pairwise(seen)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@pytest.mark.parametrize("cut", [{"cut": True}, {"missing": 50}])
def test_a_cut_connection_is_tried_again(server, send, reply, cut):
    server.script(reply(201, **cut))
    assert send().status == 201
    assert len(server.recorded) == 2


def test_a_server_that_is_not_there_gives_no_answer(session, clock, endpoint):
    transport = Transport(session, "http://127.0.0.1:9", clock=clock, retry=RetryPolicy(attempts=2))
    with pytest.raises(NoAnswerError, match=r"Somewhere gave no answer \(ConnectionError\)"):
        transport.send(endpoint, "GET", "/")
    assert transport.statistics.as_dict()["by_status"] == {"no answer": 2}


def test_silence_is_no_answer(server, make_transport, endpoint):
    over = threading.Event()
    server.before_answer = lambda: over.wait(10)
    transport = make_transport(timeout=(1.0, 0.05), retry=RetryPolicy(attempts=1))
    with pytest.raises(NoAnswerError, match="ReadTimeout"):
        transport.send(endpoint, "POST", "/", json={})
    over.set()


@pytest.mark.parametrize(("status", "error"), [(429, RateLimitedError), (423, ResourceLockedError)])
def test_waits_use_up_no_tries_but_patience(server, make_transport, endpoint, reply, clock, status, error):
    server.default = reply(status, headers={"Retry-After": "60"})
    transport = make_transport(retry=RetryPolicy(attempts=1, patience=600.0))
    started = clock.now()
    with pytest.raises(error) as caught:
        transport.send(endpoint, "POST", "/", json={})
    assert caught.value.retry_after == 60.0
    assert len(server.recorded) == 10
    assert 540 < clock.now() - started <= 600


@pytest.mark.parametrize("status", [429, 423])
def test_a_wait_without_a_time_backs_off(server, send, reply, status):
    server.script(*[reply(status)] * 5)
    assert send().status == 201


def test_too_many_requests_hold_everybody_who_uses_the_budget(server, send, reply, endpoint, clock):
    server.script(reply(429, headers={"Retry-After": "100"}))
    waited = []
    server.before_answer = lambda: waited.append(clock.now())
    send()
    held_until = endpoint.budget._paused_until
    assert held_until == pytest.approx(waited[0] + 100.25)
    assert waited[1] >= held_until


def test_who_gives_up_holds_nobody(server, make_transport, reply, endpoint):
    server.script(reply(429, headers={"Retry-After": "3600"}))
    with pytest.raises(RateLimitedError):
        make_transport(retry=RetryPolicy(patience=1.0)).send(endpoint, "POST", "/place", json={})
    assert endpoint.budget.acquire() == pytest.approx(0.0, abs=0.01)


def test_headers_of_every_answer_reach_the_budget(server, send, reply, endpoint):
    server.script(reply(200, headers={"X-RateLimit-Limit": "10"}))
    send()
    assert endpoint.budget.seconds_for(10) == pytest.approx(1.0, rel=0.01)


def test_waiting_narrows_the_lane_and_success_widens_it(server, send, reply):
    lane = AdaptiveConcurrency(8)
    server.script(reply(423), reply(423), reply(423), reply(429))  # a 429 says nothing of how many at once
    send(lane=lane)
    assert lane.level == 1
    for _ in range(10):
        send(lane=lane)
    assert lane.level == 2


def test_errors_leave_the_lane_as_it_is(server, send, reply):
    lane = AdaptiveConcurrency(8)
    server.script(reply(500), reply(cut=True), reply(400))
    with pytest.raises(RequestRejectedError):
        send(lane=lane)
    assert lane.level == 8


def test_the_place_in_the_lane_is_free_while_waiting(server, send, reply):
    lane = AdaptiveConcurrency(1)
    server.script(reply(423, headers={"Retry-After": "50"}))
    seen = []

    def look():
        seen.append(lane._busy)

    send(lane=lane, check=look)
    assert seen == [1, 1]
    assert lane._busy == 0


@pytest.mark.parametrize("place", ["{url}/elsewhere", "http://[", ""])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(server, send, reply, status, place):
    server.script(reply(status, headers={"Location": place.format(url=server.url)}))
    with pytest.raises(PermanentError, match=str(status)):
        send()
    assert [request.path for request in server.recorded] == ["/place"]


@pytest.mark.parametrize("status", [400, 402, 404, 405, 409, 410, 411, 415, 422, 451])
def test_what_is_refused_is_not_sent_again(server, send, reply, status):
    server.script(reply(status))
    with pytest.raises(RequestRejectedError) as caught:
        send()
    assert caught.value.status == status
    assert len(server.recorded) == 1


def test_a_status_that_nobody_knows_is_a_failing_server(server, send, reply):
    server.script(reply(700))
    assert send().status == 201


def test_check_runs_before_each_try_and_can_stop_it(server, send, reply):
    server.default = reply(500)
    calls = []

    def check():
        calls.append(len(server.recorded))
        if len(calls) == 3:
            raise PermissionError("the place is lost")

    with pytest.raises(PermissionError):
        send(check=check)
    assert calls == [0, 1, 2]
    assert len(server.recorded) == 2


def test_an_interrupt_ends_a_wait_and_sends_nothing_more(server, make_transport, endpoint, reply):
    server.script(reply(503, headers={"Retry-After": "600"}))
    transport = make_transport()
    server.before_answer = transport.interrupt
    with pytest.raises(InterruptedCallError):
        transport.send(endpoint, "POST", "/", json={})
    with pytest.raises(InterruptedCallError):
        transport.send(endpoint, "POST", "/", json={})
    assert len(server.recorded) == 1


def test_an_interrupt_ends_a_wait_of_real_time(server, session, reply):
    server.script(reply(429, headers={"Retry-After": "600"}))
    transport = Transport(session, server.url)
    answered = threading.Event()
    server.before_answer = answered.set
    endpoint = Endpoint("Somewhere", Budget(1000, 1.0), BASIC_RULES)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(transport.send, endpoint, "POST", "/", json={})
        answered.wait(10)
        transport.interrupt()
        with pytest.raises(InterruptedCallError):
            future.result(timeout=10)


def test_statistics_tell_what_happened(server, make_transport, endpoint, reply):
    server.script(reply(429, headers={"Retry-After": "10"}), reply(500), reply(cut=True))
    transport = make_transport(retry=RetryPolicy(attempts=4))
    transport.send(endpoint, "POST", "/", json={})
    assert transport.statistics.as_dict() == {
        "requests": 4,
        "waits": 3,
        "seconds_waited": pytest.approx(10.25 + 0.25 + 0.5, abs=0.01),
        "by_status": {"201": 1, "429": 1, "500": 1, "no answer": 1},
    }


def test_a_wait_is_logged_by_name_and_a_success_is_silent(server, send, reply, caplog):
    caplog.set_level(logging.INFO)
    send()
    assert caplog.messages == []
    server.script(reply(429, headers={"Retry-After": "9"}))
    send()
    assert caplog.messages == ["Somewhere answered 429: too many requests. Next try in 9.2 s."]


@pytest.mark.parametrize("address", ["http://rest.example.com", "http://10.1.2.3:80", "nonsense://x"])
def test_keys_do_not_travel_readable(session, address):
    with pytest.raises(ConfigurationError):
        Transport(session, address)


def test_a_proxy_of_the_environment_does_not_get_what_is_readable(
    server, make_transport, endpoint, monkeypatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert make_transport().send(endpoint, "POST", "/place", json={}).status == 201
    assert server.only.path == "/place"


class SpyAdapter(HTTPAdapter):
    """Notes what requests is told, and sends."""

    def __init__(self):
        super().__init__()
        self.settings = []

    def send(self, request, **settings):
        self.settings.append(settings)
        return super().send(request, **settings)


def test_every_request_has_a_timeout_and_the_settings_of_the_session(
    server, session, make_transport, endpoint
):
    spy = SpyAdapter()
    session.mount("http://", spy)
    session.verify = "/some/bundle.pem"
    session.cert = __file__
    session.stream = True
    make_transport().send(endpoint, "POST", "/", json={})
    assert spy.settings == [
        {
            "timeout": (10.0, 60.0),
            "verify": "/some/bundle.pem",
            "cert": __file__,
            "proxies": {},
            "stream": False,
        }
    ]


@pytest.mark.parametrize("adapter", [HTTPAdapter, TCPKeepAliveAdapter])
def test_eighteen_threads_keep_their_connections(server, session, endpoint, caplog, adapter):
    caplog.set_level(logging.DEBUG, logger="urllib3")
    together = threading.Barrier(18)
    server.before_answer = lambda: together.wait(20)
    mounted = adapter()
    session.mount("http://", mounted)
    transport = Transport(session, server.url)

    def go():
        for _ in range(5):
            assert transport.send(endpoint, "POST", "/place", json={"a": 1}).status == 201

    with ThreadPoolExecutor(18) as pool:
        for future in [pool.submit(go) for _ in range(18)]:
            future.result(timeout=30)
    assert len(server.recorded) == 90
    assert len({request.connection for request in server.recorded}) == 18
    assert not [message for message in caplog.messages if "pool is full" in message]
    options = mounted.poolmanager.connection_pool_kw.get("socket_options")
    assert options == getattr(mounted, "socket_options", None)


def test_every_transient_error_says_when_to_come_back_if_told(server, make_transport, endpoint, reply):
    transport = make_transport(retry=RetryPolicy(attempts=1, patience=0.0))
    for status in (429, 423, 500):
        server.script(reply(status, headers={"Retry-After": "5"}))
        with pytest.raises(TransientError) as caught:
            transport.send(endpoint, "POST", "/", json={})
        assert caught.value.retry_after == 5.0
