"""Batches reach Heap, bad events are found, and no answer is lost, whatever else happens."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import sys
import threading
import time
from collections import Counter

import pytest
import requests

from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.clients.errors import (
    InterruptedCallError,
    PermanentError,
    PermissionDeniedError,
    RequestRejectedError,
    ServerError,
)
from airflow_provider_heapbraze.clients.event_budget import EventBudget, EventLimits
from airflow_provider_heapbraze.clients.heap import HeapClient
from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport
from airflow_provider_heapbraze.events.mapping import HeapEvent
from airflow_provider_heapbraze.events.outbox import Waiting
from airflow_provider_heapbraze.events.progress import FileState
from airflow_provider_heapbraze.events.sending import REFUSED_WITHOUT_SUCCESS, Answered, EventSender
from airflow_provider_heapbraze.sandbox.connections import HEAP_APP_ID
from tests.unit.clients.conftest import FakeClock, RecordingServer, Reply

STATE = FileState(1, "file", 1)
QUICK = RetryPolicy(attempts=3, first=0.005, cap=0.02)
HEAPS_LIMITS = EventLimits()


class Sending:
    """A sender, and the budget that it takes room from."""

    def __init__(self, url, *, app_id=HEAP_APP_ID, limits=HEAPS_LIMITS, clock=SYSTEM_CLOCK, connections=4):
        self.clock = clock
        self.budget = EventBudget("environment", limits, clock=clock)
        session = requests.Session()
        session.trust_env = False
        self.client = HeapClient(Transport(session, url, retry=QUICK, clock=clock), app_id, clock=clock)
        self.sender = EventSender(self.client, self.budget, connections=connections)

    def close(self):
        self.sender.stop()
        self.sender.close()
        self.client.close()
        self.budget.close()

    def event(self, number, identity=None):
        identity = identity or f"person-identity-{number}"
        body = {
            "identity": identity,
            "event": "Email opened",
            "timestamp": "2026-11-24T10:00:00+00:00",
            "idempotency_key": key(number),
            "properties": {},
        }
        mapped = HeapEvent(identity, key(number), 1, 0, json.dumps(body).encode())
        return Waiting(STATE, number, mapped, self.budget.identity(identity), number)

    def events(self, first, end):
        return [self.event(number) for number in range(first, end)]

    def take(self, batch):
        with self.budget.turn() as turn:
            return turn.take(Counter(waiting.identity for waiting in batch))

    def send(self, batch):
        self.sender.send(batch, self.take(batch))

    def left(self):
        with self.budget.turn() as turn:
            return turn.room.left

    def collect_all(self):
        whole = Answered()
        while not self.sender.is_idle:
            answered = self.sender.collect(60)
            whole.accepted += answered.accepted
            whole.refused += answered.refused
        return whole

    def wait_for_all(self):
        """Wait until every answer is there, and take none."""
        concurrent.futures.wait(self.sender._under_way, timeout=60)


def key(number):
    return f"key-{number:08d}"


def rows(events):
    return sorted(waiting.row for waiting in events)


@pytest.fixture
def make_sending():
    made = []

    def make(url, **how):
        made.append(Sending(url, **how))
        return made[-1]

    yield make
    for sending in made:
        sending.close()


@pytest.fixture
def sending(heapbraze_sandbox, make_sending):
    """Give a sender to the sandbox."""
    return make_sending(heapbraze_sandbox.url)


@pytest.fixture
def server():
    """Give a server that answers as told; 204 where nothing is told."""
    with RecordingServer() as running:
        running.default = Reply(204, b"")
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def one_by_one(server, make_sending):
    """Give a sender to that server, with one connection: answers come in the order of the batches."""
    return make_sending(server.url, connections=1)


def test_what_is_accepted_comes_back(sending, heapbraze_sandbox):
    for first in range(0, 500, 100):
        sending.send(sending.events(first, first + 100))
    answered = sending.collect_all()
    assert rows(answered.accepted) == list(range(500))
    assert answered.refused == []
    sending.sender.check_something_passes()
    assert heapbraze_sandbox.heap_sends() == {1: 500}


def test_it_is_busy_and_idle(server, make_sending):
    sending, hold = make_sending(server.url, connections=2), threading.Event()
    server.before_answer = lambda: hold.wait(60)
    seen = []
    for number in range(3):
        seen.append((sending.sender.is_idle, sending.sender.is_busy))
        if number < 2:
            sending.send(sending.events(number, number + 1))
    assert seen == [(True, False), (False, False), (False, True)]
    hold.set()
    sending.collect_all()
    assert (sending.sender.is_idle, sending.sender.is_busy) == (True, False)


def test_it_waits_no_longer_than_it_is_told(server, one_by_one):
    hold = threading.Event()
    server.before_answer = lambda: hold.wait(60)
    one_by_one.send(one_by_one.events(0, 1))
    started = time.monotonic()
    assert one_by_one.sender.collect(0.05) == Answered()
    assert time.monotonic() - started < 30
    hold.set()
    assert rows(one_by_one.sender.collect(60).accepted) == [0]


@pytest.mark.parametrize("bad", [{0}, {31}, {3, 4, 20}, set(range(16))])
def test_bad_events_are_found_and_the_others_accepted(sending, heapbraze_sandbox, bad):
    heapbraze_sandbox.faults(poison=[key(number) for number in bad])
    sending.send(sending.events(0, 32))
    answered = sending.collect_all()
    assert rows(answered.accepted) == sorted(set(range(32)) - bad)
    assert sorted((waiting.row, reason) for waiting, reason in answered.refused) == [
        (number, "refused_400") for number in sorted(bad)
    ]
    held = {event["idempotency_key"] for event in heapbraze_sandbox.heap_events()}
    assert held == {key(number) for number in range(32) if number not in bad}


def test_every_part_that_is_sent_again_has_room_of_its_own(sending, heapbraze_sandbox):
    heapbraze_sandbox.faults(poison=[key(3), key(12)])
    sending.send(sending.events(0, 16))
    sending.collect_all()
    sent = sum(times * events for times, events in heapbraze_sandbox.heap_sends().items())
    assert sent > 16
    assert sending.left() == HEAPS_LIMITS.events - sent


def test_a_part_waits_for_its_room(server, make_sending):
    """Heap may have counted what it refused."""
    clock, times = FakeClock(), []
    sending = make_sending(server.url, limits=EventLimits(10, 10, 60.0), clock=clock, connections=1)
    server.script(Reply(400), Reply(204, b""), Reply(204, b""))
    server.before_answer = lambda: times.append(clock.monotonic())
    sending.send(sending.events(0, 8))
    assert rows(sending.collect_all().accepted) == list(range(8))
    assert [len(request.body["events"]) for request in server.recorded] == [8, 4, 4]
    assert 60 <= times[1] - times[0] < 62


@pytest.mark.parametrize(
    "trouble", [{"status": 503}, {"cut": True}, {"status": 429, "headers": {"Retry-After": "0"}}]
)
def test_another_try_has_room_of_its_own(server, one_by_one, trouble):
    server.script(Reply(**trouble))
    one_by_one.send(one_by_one.events(0, 10))
    assert rows(one_by_one.collect_all().accepted) == list(range(10))
    assert len(server.recorded) == 2
    assert one_by_one.left() == HEAPS_LIMITS.events - 20


def test_a_batch_that_goes_late_has_room_all_the_same(server, make_sending):
    """A 429 holds every request back, for an hour if Heap says so; room is taken before that."""
    clock, times = FakeClock(), []
    sending = make_sending(server.url, limits=EventLimits(10, 10, 60.0), clock=clock)
    server.before_answer = lambda: times.append(clock.monotonic())
    batch = sending.events(0, 6)
    ticket = sending.take(batch)
    clock.sleep(300)
    others = clock.monotonic()
    sending.budget.answered(sending.take(sending.events(10, 20)))
    sending.sender.send(batch, ticket)
    assert rows(sending.collect_all().accepted) == list(range(6))
    assert times[0] - others >= 60, "16 events in a minute that has room for 10"


def test_too_large_a_request_is_split(sending, heapbraze_sandbox):
    heapbraze_sandbox.faults(next=[{"status": 413, "count": 1, "endpoint": "heap-track"}])
    sending.send(sending.events(0, 10))
    assert rows(sending.collect_all().accepted) == list(range(10))
    assert [entry["status"] for entry in heapbraze_sandbox.requests()] == [413, 204, 204]


def test_an_event_that_is_too_large_alone_is_refused(server, one_by_one):
    server.script(Reply(413), Reply(413), Reply(204, b""))
    one_by_one.send(one_by_one.events(0, 2))
    answered = one_by_one.collect_all()
    assert rows(answered.accepted) == [1]
    assert [(waiting.row, reason) for waiting, reason in answered.refused] == [(0, "refused_413")]


@pytest.mark.parametrize("events", [1, 5, REFUSED_WITHOUT_SUCCESS - 1])
def test_where_everything_is_refused_no_event_is_to_blame(heapbraze_sandbox, make_sending, events):
    sending = make_sending(heapbraze_sandbox.url, app_id="wrong-app-id-000001")
    sending.send(sending.events(0, events))
    assert sending.collect_all() == Answered()
    with pytest.raises(PermanentError, match="look at the login and the region") as caught:
        sending.sender.check_something_passes()
    assert f"{events} events were refused" in str(caught.value)
    assert "wrong-app-id-000001" not in str(caught.value)
    assert "person-identity" not in str(caught.value)


def test_many_refusals_end_it_at_once(heapbraze_sandbox, make_sending):
    sending = make_sending(heapbraze_sandbox.url, app_id="wrong-app-id-000001")
    sending.send(sending.events(0, REFUSED_WITHOUT_SUCCESS))
    with pytest.raises(PermanentError, match="refuses everything"):
        sending.collect_all()
    assert sending.sender.arrived() == []


def test_refused_events_are_held_until_another_is_accepted(sending, heapbraze_sandbox):
    heapbraze_sandbox.faults(poison=[key(0)])
    sending.send(sending.events(0, 1))
    assert sending.collect_all() == Answered()
    sending.send(sending.events(1, 2))
    answered = sending.collect_all()
    assert [(waiting.row, reason) for waiting, reason in answered.refused] == [(0, "refused_400")]
    assert rows(answered.accepted) == [1]
    sending.sender.check_something_passes()


@pytest.mark.parametrize(
    ("status", "error"), [(403, PermissionDeniedError), (404, RequestRejectedError), (503, ServerError)]
)
def test_an_error_surfaces_and_later_answers_are_still_returned(server, one_by_one, status, error):
    hold = threading.Event()
    server.script(*[Reply(status)] * (3 if status == 503 else 1))
    server.before_answer = lambda: hold.wait(60) if len(server.recorded[-1].body["events"]) == 3 else None
    one_by_one.send(one_by_one.events(0, 2))
    one_by_one.send(one_by_one.events(2, 5))
    with pytest.raises(error):
        one_by_one.sender.collect(60)
    while len(server.recorded[-1].body["events"]) != 3:
        time.sleep(0.01)  # what is not under way yet would not be sent any more
    hold.set()
    one_by_one.sender.close()
    assert rows(one_by_one.sender.arrived()) == [2, 3, 4]
    assert one_by_one.sender.is_idle


def test_an_error_does_not_hide_an_answer_that_came_with_it(server, one_by_one):
    server.script(Reply(204, b""), Reply(403))
    one_by_one.send(one_by_one.events(0, 2))
    one_by_one.send(one_by_one.events(2, 4))
    one_by_one.wait_for_all()
    with pytest.raises(PermissionDeniedError):
        one_by_one.sender.collect(0)
    assert rows(one_by_one.sender.arrived()) == [0, 1]


def test_an_error_does_not_hide_what_a_part_of_its_batch_had_accepted(server, one_by_one):
    server.script(Reply(400), Reply(204, b""), Reply(403))
    one_by_one.send(one_by_one.events(0, 4))
    one_by_one.wait_for_all()
    with pytest.raises(PermissionDeniedError):
        one_by_one.sender.collect(0)
    assert rows(one_by_one.sender.arrived()) == [0, 1]


def test_an_answer_that_comes_while_others_are_collected_is_not_lost(server, one_by_one, monkeypatch):
    hold, arrived = threading.Event(), one_by_one.sender.arrived

    def arrived_and_one_more():
        accepted = arrived()
        hold.set()
        one_by_one.wait_for_all()
        return accepted

    server.before_answer = lambda: hold.wait(60)
    one_by_one.send(one_by_one.events(0, 2))
    monkeypatch.setattr(one_by_one.sender, "arrived", arrived_and_one_more)
    accepted = one_by_one.sender.collect(0).accepted
    hold.set()
    accepted += one_by_one.sender.collect(60).accepted
    assert rows(accepted) == [0, 1]


def test_a_wait_for_room_ends_when_it_is_stopped(server, make_sending):
    sending = make_sending(server.url, limits=EventLimits(10, 10, 600.0))
    server.default = Reply(500)
    sending.send(sending.events(0, 8))
    until(lambda: server.recorded)
    assert_stops_soon(sending)
    assert len(server.recorded) == 1


def test_a_wait_that_heap_asks_for_ends_when_it_is_stopped(server, one_by_one):
    server.default = Reply(429, headers={"Retry-After": "600"})
    one_by_one.send(one_by_one.events(0, 2))
    until(lambda: server.recorded)
    assert_stops_soon(one_by_one)
    assert len(server.recorded) == 1


def assert_stops_soon(sending):
    started = time.monotonic()
    sending.sender.stop()
    with pytest.raises(InterruptedCallError):
        sending.collect_all()
    sending.sender.close()
    assert time.monotonic() - started < 30


def until(reached):
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_nothing_is_sent_after_a_stop(server, one_by_one):
    one_by_one.sender.stop()
    one_by_one.send(one_by_one.events(0, 2))
    with pytest.raises(InterruptedCallError, match="a re-run sends only the rest"):
        one_by_one.sender.collect(60)
    assert server.recorded == []


def test_what_was_under_way_at_a_stop_is_waited_for(server, one_by_one):
    hold = threading.Event()
    server.before_answer = lambda: hold.wait(60)
    for first in (0, 2):
        one_by_one.send(one_by_one.events(first, first + 2))
    until(lambda: server.recorded)
    one_by_one.sender.stop()
    hold.set()
    one_by_one.sender.close()
    assert rows(one_by_one.sender.arrived()) == [0, 1]
    assert len(server.recorded) == 1


def test_a_stop_may_come_while_one_is_under_way(one_by_one):
    """Of two signals, the second comes at any moment within the handler of the first."""
    sender = EventSender(one_by_one.client, one_by_one.budget)

    def stop_within():
        sys.setprofile(lambda *_: sender.stop())  # at every call and return
        sender.stop()
        sys.setprofile(None)

    thread = threading.Thread(target=stop_within, daemon=True)
    thread.start()
    thread.join(2)
    assert not thread.is_alive(), "it waits for a lock that it holds itself"


def test_nothing_private_is_shown(server, make_sending, caplog):
    caplog.set_level(logging.DEBUG)
    sending = make_sending(server.url, app_id="secret-app-id-0001", connections=1)
    quote = b"secret-app-id-0001 person-identity-0 key-00000000"
    server.script(Reply(500, quote), Reply(cut=True), Reply(400, quote), Reply(400, quote), Reply(403, quote))
    sending.send(sending.events(0, 2))
    with pytest.raises(PermissionDeniedError) as caught:
        sending.collect_all()
    shown = [repr(caught.value), repr(sending.sender)]
    shown += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert len(server.recorded) == 5
    secrets = quote.decode().split()
    assert [text for text in shown if any(secret in text for secret in secrets)] == []
