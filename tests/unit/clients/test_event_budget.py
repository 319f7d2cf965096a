"""Heap's limits are kept: in any minute, by all who send on this machine, whenever Heap counts."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import ConfigurationError, InterruptedCallError
from airflow_provider_heapbraze.clients.event_budget import (
    LONGEST_REQUEST,
    SLACK,
    EventBudget,
    EventLimits,
)

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

APP = "https://heap.example secret-app-id-0001"
TEN = EventLimits(10, 6, 60.0)
ANN, BOB, EVE = "person-ann-000001", "person-bob-000002", "person-eve-000003"
PERIOD = 60.0 * SLACK


@pytest.fixture
def make_budget(clock):
    """Make a budget; all of them are closed at the end."""
    made = []

    def make(limits=TEN, *, app=APP, folder=None, clock=clock):
        made.append(EventBudget(app, limits, folder=folder, clock=clock))
        return made[-1]

    yield make
    for budget in made:
        budget.close()


@pytest.fixture
def budget(make_budget):
    return make_budget()


def by_identity(budget, **events):
    return {budget.identity(name): count for name, count in events.items()}


def take(budget, **events):
    """Take room for a request; return its ticket."""
    with budget.turn() as turn:
        return turn.take(by_identity(budget, **events))


def left(budget, identity=None):
    with budget.turn() as turn:
        return turn.room.left if identity is None else turn.room.of(budget.identity(identity))


def test_room_is_taken_in_all_and_per_identity(budget):
    assert (left(budget), left(budget, ANN)) == (10, 6)
    take(budget, **{ANN: 4, BOB: 1})
    assert (left(budget), left(budget, ANN), left(budget, BOB), left(budget, EVE)) == (5, 2, 5, 6)


def test_environments_have_budgets_of_their_own(make_budget, tmp_path):
    take(make_budget(folder=tmp_path), ann=6)
    assert left(make_budget(folder=tmp_path, app="another")) == 10


def test_a_budget_without_a_folder_is_its_own(make_budget):
    take(make_budget(), ann=6)
    assert left(make_budget()) == 10


@pytest.mark.parametrize("seconds", [0.0, 1.5, LONGEST_REQUEST])
def test_room_comes_back_a_period_after_the_answer(budget, clock, seconds):
    ticket = take(budget, ann=6)
    clock.sleep(seconds)
    budget.answered(ticket)
    clock.sleep(PERIOD - 0.001)
    assert left(budget) == 4
    clock.sleep(0.002)
    assert left(budget) == 10


def test_what_gets_no_answer_counts_until_it_surely_was_counted(budget, clock):
    take(budget, ann=6)
    clock.sleep(PERIOD + LONGEST_REQUEST - 0.001)
    assert left(budget) == 4
    clock.sleep(0.002)
    assert left(budget) == 10


def test_room_tells_when_there_is_more(budget, clock):
    with budget.turn() as turn:
        assert turn.room.seconds == 0
    for events in (4, 6):
        budget.answered(take(budget, **{f"person-{events}": events}))
        clock.sleep(7)
    with budget.turn() as turn:
        assert turn.room.left == 0
        seconds = turn.room.seconds
    assert seconds == pytest.approx(PERIOD - 14)
    clock.sleep(seconds + 0.001)
    assert left(budget) == 4


def test_a_turn_that_fails_takes_nothing(budget):
    with suppress(ZeroDivisionError), budget.turn() as turn:
        turn.take({b"somebody": 5})
        raise ZeroDivisionError
    assert left(budget) == 10


def test_another_try_waits_for_room(budget, clock):
    first = take(budget, ann=6)
    budget.answered(first)
    started = clock.monotonic()
    second = budget.take_again(by_identity(budget, ann=6))
    assert clock.monotonic() - started == pytest.approx(PERIOD, abs=0.01)
    assert second != first
    assert left(budget) == 4


def test_another_try_goes_at_once_where_there_is_room(budget, clock):
    budget.answered(take(budget, ann=3))
    started = clock.monotonic()
    budget.take_again(by_identity(budget, ann=3))
    assert clock.monotonic() == started
    assert left(budget) == 4, "Heap may have counted both"


def test_another_try_waits_for_room_in_all(budget, clock):
    budget.answered(take(budget, ann=4, bob=4))
    started = clock.monotonic()
    budget.take_again(by_identity(budget, eve=3))
    assert clock.monotonic() - started == pytest.approx(PERIOD, abs=0.01)


def test_a_wait_for_room_can_be_interrupted(budget, clock):
    take(budget, ann=6)
    looks = []

    def interrupted():
        looks.append(1)
        return len(looks) == 3

    started = clock.monotonic()
    with pytest.raises(InterruptedCallError):
        budget.take_again(by_identity(budget, ann=6), interrupted)
    assert clock.monotonic() - started == 2 * 0.5
    assert left(budget) == 4, "the interrupted one took nothing"


def test_a_wait_is_not_interrupted_where_there_is_room(budget):
    budget.take_again(by_identity(budget, ann=1), lambda: True)
    assert left(budget) == 9


@dataclass
class Counted:
    """A request that Heap counts at any moment from ``first`` to ``last``."""

    events: Counter
    ticket: int
    first: float
    last: float


def most_in_any_window(counted, period, identity=None):
    """Count the events in the fullest window, whenever within its span Heap counts each request.

    A window that is fullest can be moved to begin where a request's span ends.
    """
    most = 0
    for begin in {one.last for one in counted}:
        inside = [one for one in counted if one.first < begin + period and one.last >= begin]
        most = max(most, sum(one.events[identity] if identity else one.events.total() for one in inside))
    return most


steps = st.one_of(
    st.tuples(
        st.just("take"), st.dictionaries(st.sampled_from([ANN, BOB, EVE]), st.integers(1, 12), min_size=1)
    ),
    st.tuples(st.just("answer"), st.integers(0, 20)),
    st.tuples(st.just("retry"), st.integers(0, 20)),
    st.tuples(st.just("pass"), st.floats(0, 1.2)),
    st.tuples(st.just("pass"), st.sampled_from([0.25, 0.5, 0.999, 1.0])),
)


class Senders:
    """Who share a budget, and note when Heap may have counted what they sent."""

    def __init__(self, clock, period):
        self.clock = clock
        self.period = period
        self.counted = []
        self._under_way = []

    def step(self, budget, kind, value):
        if kind == "pass":
            self.clock.sleep(value * self.period)
        elif kind == "take":
            taken = take_what_fits(budget, value)
            if taken:
                self._begin(*taken)
        elif self._under_way:
            ended = self._end(budget, value)
            if kind == "retry":
                self._begin(ended.events, budget.take_again(by_identity(budget, **ended.events)))

    def _begin(self, events, ticket):
        now = self.clock.monotonic()
        one = Counted(Counter(events), ticket, now, now + LONGEST_REQUEST)
        self.counted.append(one)
        self._under_way.append(one)

    def _end(self, budget, which):
        one = self._under_way.pop(which % len(self._under_way))
        budget.answered(one.ticket)
        one.last = min(self.clock.monotonic(), one.last)
        return one


@quick
@given(
    limits=st.builds(EventLimits, st.integers(1, 12), st.integers(1, 8), st.sampled_from([1.0, 60.0])),
    steps=st.lists(st.tuples(steps, st.integers(0, 1)), min_size=5, max_size=60),
    shared=st.booleans(),
)
def test_no_window_holds_more_than_the_limits(make_budget, late_clock, tmp_path, limits, steps, shared):
    """Two who share a file, or one alone, with answers that are early, late or never come."""
    clock, folder = late_clock(0.0), tmp_path / uuid4().hex
    folder.mkdir()
    budgets = [make_budget(limits, folder=folder if shared else None, clock=clock) for _ in range(1 + shared)]
    senders = Senders(clock, limits.period)
    for (kind, value), who in steps:
        senders.step(budgets[who % len(budgets)], kind, value)
    assert most_in_any_window(senders.counted, limits.period) <= limits.events
    for identity in (ANN, BOB, EVE):
        assert most_in_any_window(senders.counted, limits.period, identity) <= limits.events_per_identity
    for budget in budgets:
        budget.close()


def take_what_fits(budget, wanted):
    with budget.turn() as turn:
        events, room = {}, turn.room.left
        for name, count in wanted.items():
            fits = min(count, room, turn.room.of(budget.identity(name)))
            if fits > 0:
                events[name] = fits
                room -= fits
        if not events:
            return None
        return events, turn.take({budget.identity(name): count for name, count in events.items()})


def test_two_share_a_file(make_budget, tmp_path, clock):
    one, other = make_budget(folder=tmp_path), make_budget(folder=tmp_path)
    ticket = take(one, ann=4)
    assert (left(other), left(other, "ann")) == (6, 2)
    take(other, ann=2)
    assert (left(one), left(one, "ann")) == (4, 0)
    other.answered(ticket)
    clock.sleep(PERIOD + 0.001)
    assert left(one) == 8, "anybody may note an answer"


def test_what_was_sent_counts_on_for_those_who_come_later(make_budget, tmp_path):
    earlier = make_budget(folder=tmp_path)
    earlier.answered(take(earlier, ann=4))
    earlier.close()
    assert left(make_budget(folder=tmp_path)) == 6


@pytest.mark.parametrize("budgets", [1, 2])
def test_threads_together_take_no_more_than_there_is(make_budget, tmp_path, budgets):
    limits = EventLimits(200, 40, 60.0)
    shared = [make_budget(limits, folder=tmp_path) for _ in range(budgets)]
    taken, start = Counter(), threading.Barrier(6)

    def go(number):
        budget, name = shared[number % budgets], f"person-{number % 2}"
        start.wait()
        for _ in range(30):
            events = take_what_fits(budget, {name: 3})
            if events:
                taken[number, name] += events[0][name]

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(go, number) for number in range(6)]:
            future.result()
    assert taken.total() == 2 * 40
    assert left(shared[0]) == 200 - 80


OTHER_PROCESS = """
import os, sys
from pathlib import Path
from airflow_provider_heapbraze.clients.event_budget import EventBudget, EventLimits

class Clock:
    def monotonic(self):
        return float(sys.argv[2])

budget = EventBudget(sys.argv[3], EventLimits(10, 6, 60.0), folder=Path(sys.argv[1]), clock=Clock())
with budget.turn() as turn:
    print(turn.room.left, turn.room.of(budget.identity("ann")), flush=True)
    turn.take({budget.identity("ann"): 3})
sys.stdin.read()
os._exit(9)
"""


@pytest.fixture
def other_process(tmp_path, clock):
    """Start a process that looks, takes 3 of Ann's, and dies when it is told to, with no answer noted."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, str(tmp_path), repr(clock.monotonic()), APP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().split()

    yield start
    for process in started:
        process.communicate(timeout=20)


def test_processes_share_the_limits(make_budget, tmp_path, other_process):
    budget = make_budget(folder=tmp_path)
    take(budget, ann=2, bob=3)
    _, seen = other_process()
    assert seen == ["5", "4"]
    assert (left(budget), left(budget, "ann")) == (2, 1)


def test_what_a_dead_process_had_under_way_counts_on_for_a_period(
    make_budget, tmp_path, clock, other_process
):
    budget = make_budget(folder=tmp_path)
    process, _ = other_process()
    clock.sleep(50)
    assert left(budget) == 7
    process.communicate(timeout=20)
    assert process.returncode == 9
    assert left(budget) == 7
    clock.sleep(PERIOD - 0.001)
    assert left(budget) == 7, "it may have been counted in its last moment"
    clock.sleep(0.002)
    assert left(budget) == 10, "and not for as long as a living one's"


def test_what_a_living_process_has_under_way_counts_until_an_answer_must_be_there(
    make_budget, tmp_path, clock, other_process
):
    budget = make_budget(folder=tmp_path)
    other_process()
    clock.sleep(PERIOD + LONGEST_REQUEST - 0.001)
    assert left(budget) == 7
    clock.sleep(0.002)
    assert left(budget) == 10


def test_what_was_sent_before_a_restart_of_the_machine_blocks_nobody(make_budget, tmp_path, late_clock):
    before, after = late_clock(0.0), late_clock(0.0)
    before.time, after.time = 5_000_000.0, 12.0
    earlier = make_budget(folder=tmp_path, clock=before)
    take(earlier, ann=6)
    earlier.answered(take(earlier, bob=4))
    earlier.close()
    assert left(make_budget(folder=tmp_path, clock=after)) == 10


def the_file(folder):
    (file,) = folder.glob("*.sqlite")
    return file


def filled_file(make_budget, folder):
    """Return a budget's file with many rows, and close the budget."""
    budget = make_budget(EventLimits(), folder=folder)
    with budget.turn() as turn:
        turn.take({budget.identity(f"person-{number}"): 1 for number in range(1_000)})
    budget.close()
    return the_file(folder)


@pytest.mark.parametrize("damage", ["garbage", "cut", "a page"])
def test_a_damaged_file_is_told_with_a_way_on(make_budget, tmp_path, damage):
    file = filled_file(make_budget, tmp_path)
    content = file.read_bytes()
    damaged = {
        "garbage": b"garbage " * 2_000,
        "cut": content[: len(content) // 2],
        "a page": content[:4096] + b"\xff" * 4096 + content[8192:],
    }
    file.write_bytes(damaged[damage])
    with pytest.raises(ConfigurationError, match="Remove it") as caught:
        left(make_budget(EventLimits(), folder=tmp_path))
    assert file.name in str(caught.value)


def test_a_file_that_another_is_just_making_is_waited_for(make_budget, tmp_path):
    """Two tasks start at the same moment on a new machine."""
    make_budget(folder=tmp_path).close()
    file = the_file(tmp_path)
    file.unlink()
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    commit = threading.Timer(0.2, other.execute, ["COMMIT"])
    commit.start()
    try:
        assert left(make_budget(folder=tmp_path)) == 10
    finally:
        commit.join()
        other.close()


def test_nothing_that_is_kept_is_readable(make_budget, tmp_path):
    budget = make_budget(app="secret-app-id-0001", folder=tmp_path)
    ticket = take(budget, **{ANN: 4, BOB: 2})
    budget.answered(ticket)
    budget.take_again(by_identity(budget, **{EVE: 1}))
    files = sorted(tmp_path.iterdir())
    budget.close()
    files += sorted(tmp_path.iterdir())
    kept = [(file.name, file.read_bytes()) for file in files if file.exists()]
    assert kept
    for name, content in kept:
        for secret in ("secret-app-id-0001", ANN, BOB, EVE):
            assert secret not in name
            assert secret.encode() not in content


def test_an_identity_stands_for_another_number_in_another_environment(make_budget):
    one, same, other = make_budget(), make_budget(), make_budget(app="another")
    assert one.identity(ANN) == same.identity(ANN)
    assert len({one.identity(ANN), other.identity(ANN), one.identity(ANN.upper())}) == 3
    assert one.identity("half a character \ud83d")


@pytest.mark.parametrize("limits", [(0, 1, 60.0), (-1, 1, 60.0), (1, 0, 60.0), (1, -5, 60.0), (1, 1, 0.0)])
def test_limits_must_allow_something(limits):
    with pytest.raises(ConfigurationError):
        EventBudget(APP, EventLimits(*limits))


def test_the_estimate_is_the_time_at_the_limit(make_budget):
    assert make_budget(EventLimits()).events_per_second == pytest.approx(250.0)


def test_room_that_is_given_back_is_free_at_once(make_budget):
    budget = make_budget(EventLimits(10, 10, 60.0))
    ticket = take(budget, **{ANN: 7})
    budget.give_back(ticket)
    assert left(budget) == 10
