"""Nobody waits behind an identity that may not go, nobody is lost, and memory stays bounded."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.event_budget import EventLimits, Room
from airflow_provider_heapbraze.events.mapping import HeapEvent
from airflow_provider_heapbraze.events.outbox import MOST_BYTES, Outbox, Waiting
from airflow_provider_heapbraze.events.progress import FileState

thorough = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

MEGABYTE = 1 << 20
STATE = FileState(1, "file", 1)


@cache
def body(size):
    return b"x" * size


def event(number, identity="ann", size=10):
    mapped = HeapEvent(identity=identity, id=str(number), hour=1, cuts=0, body=body(size))
    return Waiting(STATE, number, mapped, identity.encode(), number)


def room(events=1_000, per_identity=1_000, **used):
    """Make room: limits, and what is used up of them."""
    return Room(
        EventLimits(events, per_identity), {name.encode(): count for name, count in used.items()}, 0.0
    )


def filled(events, *, fewest=1, **how):
    outbox = Outbox(fewest=fewest, **how)
    for waiting in events:
        assert outbox.offer(waiting)
    return outbox


def rows(events):
    return [waiting.row for waiting in events]


def take(outbox, of, most=1_000):
    """Take a batch from an outbox that turns nobody away; return its rows."""
    batch, turned_away = outbox.take(of, most)
    assert turned_away == []
    return rows(batch)


def test_what_comes_first_goes_first():
    outbox = filled([event(number, f"person-{number % 3}") for number in range(10)])
    assert len(outbox) == outbox.ready == 10
    assert take(outbox, room(), most=4) == [0, 1, 2, 3]
    assert take(outbox, room()) == [4, 5, 6, 7, 8, 9]
    assert take(outbox, room()) == []
    assert not outbox


def test_an_identity_without_room_does_not_hold_the_rest_back():
    outbox = filled([event(n, "ann") for n in range(5)] + [event(n, "bob") for n in range(5, 8)])
    assert take(outbox, room(per_identity=6, ann=4)) == [0, 1, 5, 6, 7]
    assert (len(outbox), outbox.ready) == (3, 0)


def test_what_waits_aside_goes_first_once_there_is_room():
    outbox = filled([event(0), event(1)])
    assert take(outbox, room(per_identity=1, ann=1)) == []
    for number in (2, 3):
        assert outbox.offer(event(number, "bob"))
    assert take(outbox, room(), most=3) == [0, 1, 2]


def test_those_of_an_identity_keep_their_order():
    outbox = filled([event(n) for n in range(4)])
    assert take(outbox, room(per_identity=1)) == [0]
    outbox.offer(event(4))
    outbox.offer(event(5, "bob"))
    assert take(outbox, room(per_identity=3, bob=3)) == [1, 2, 3]
    assert take(outbox, room(per_identity=1)) == [4, 5]


def test_a_batch_holds_no_more_than_there_is_room():
    outbox = filled([event(n, f"person-{n}") for n in range(10)])
    assert take(outbox, room(7, eve=3)) == [0, 1, 2, 3]
    assert take(outbox, room(7, eve=7)) == []
    assert take(outbox, room(7, eve=9)) == []


def test_a_batch_is_bounded_in_bytes():
    outbox = filled([event(n, f"person-{n}", MOST_BYTES // 4) for n in range(6)])
    assert take(outbox, room()) == [0, 1, 2, 3]
    assert take(outbox, room()) == [4, 5]


def test_an_event_that_is_larger_than_a_batch_goes_alone():
    outbox = filled([event(0), event(1, size=MOST_BYTES + 1), event(2)])
    assert [take(outbox, room()) for _ in range(3)] == [[0], [1], [2]]


def test_what_waits_aside_is_bounded_in_bytes():
    outbox = filled([event(n, size=1_000) for n in range(10)], most_bytes_aside=4_999)
    batch, turned_away = outbox.take(room(2_000, 1_000, ann=1_000), 1_000)
    assert (batch, rows(turned_away)) == ([], [4, 5, 6, 7, 8, 9])
    assert (len(outbox), outbox.ready) == (4, 0)
    assert outbox.offer(event(10, size=999))
    assert not outbox.offer(event(11, size=1))
    assert outbox.offer(event(12, "bob", size=1_000)), "nobody else is turned away"


def test_room_aside_comes_back():
    outbox = filled([event(n, size=1_000) for n in range(4)], most_bytes_aside=4_000)
    assert outbox.has_room_aside
    assert take(outbox, room(per_identity=1, ann=1)) == []
    assert not outbox.has_room_aside
    assert take(outbox, room(per_identity=2)) == [0, 1]
    assert not outbox.has_room_aside
    assert take(outbox, room(per_identity=1)) == [2]
    assert outbox.has_room_aside


@pytest.mark.parametrize(
    ("ready", "left", "taken"),
    [(20, 9, 0), (20, 10, 10), (20, 15, 15), (3, 2, 0), (3, 3, 3), (3, 9, 3), (0, 9, 0)],
)
def test_a_request_waits_until_it_is_worth_it(ready, left, taken):
    outbox = filled([event(n, f"person-{n}") for n in range(ready)], fewest=10)
    assert len(take(outbox, room(left))) == taken


def test_a_request_of_the_largest_size_is_always_worth_it():
    outbox = filled([event(n, f"person-{n}") for n in range(20)], fewest=100)
    assert len(take(outbox, room(5), most=5)) == 5


sizes = st.sampled_from([1, 1_000, MEGABYTE, 3 * MEGABYTE, MOST_BYTES, 5 * MEGABYTE])
names = st.sampled_from(["ann", "bob", "eve"])
rooms = st.builds(
    room, st.integers(1, 12), st.integers(1, 8), ann=st.integers(0, 8), bob=st.integers(0, 4), eve=st.just(0)
)
steps = st.lists(
    st.one_of(
        st.lists(st.tuples(names, sizes), min_size=1, max_size=8),
        st.tuples(rooms, st.integers(1, 10)),
    ),
    max_size=25,
)
bounds = st.sampled_from([0, 1_500, 4 * MEGABYTE, 12 * MEGABYTE])


class Run:
    """Steps with an outbox, and what became of every event."""

    def __init__(self, steps, *, fewest=1, **bound):
        self.outbox = Outbox(fewest=fewest, **bound)
        self.most_aside_seen = 0
        self.batches = []
        self.turned_away = []
        self.inside = {}
        self.offered = 0
        for step in steps:
            if isinstance(step, list):
                for identity, size in step:
                    self.offer(event(self.offered, identity, size))
            else:
                self.take(*step)

    def offer(self, waiting):
        self.offered += 1
        if self.outbox.offer(waiting):
            self.inside[waiting.row] = waiting
        else:
            self.turned_away.append(waiting)

    def take(self, of, most):
        batch, turned_away = self.outbox.take(of, most)
        self.check(batch, of, most)
        self.batches.append(batch)
        self.turned_away += turned_away
        for waiting in (*batch, *turned_away):
            del self.inside[waiting.row]  # a KeyError is an event that came twice
        if self.outbox.ready == 0:
            aside = sum(len(waiting.event.body) for waiting in self.inside.values())
            self.most_aside_seen = max(self.most_aside_seen, aside)
        return batch

    def check(self, batch, of, most):
        assert len(batch) <= min(most, of.left)
        assert len(batch) <= 1 or sum(len(waiting.event.body) for waiting in batch) <= MOST_BYTES
        for identity, count in Counter(waiting.identity for waiting in batch).items():
            assert count <= of.of(identity)

    def empty(self):
        """Take until nothing is left."""
        while self.take(room(1_000, 1_000), 1_000):
            pass


@thorough
@given(steps, st.integers(1, 4), bounds)
def test_nothing_is_lost_or_doubled(steps, fewest, bound):
    run = Run(steps, fewest=fewest, most_bytes_aside=bound)
    assert len(run.outbox) == len(run.inside)
    run.empty()
    assert (len(run.outbox), run.inside) == (0, {})
    came_out = [waiting.row for batch in [*run.batches, run.turned_away] for waiting in batch]
    assert sorted(came_out) == list(range(run.offered))


@thorough
@given(steps, bounds)
def test_no_more_waits_aside_than_may(steps, bound):
    assert Run(steps, most_bytes_aside=bound).most_aside_seen <= bound


@thorough
@given(steps)
def test_nobody_is_turned_away_where_there_is_a_place(steps):
    assert Run(steps, most_bytes_aside=1 << 40).turned_away == []
