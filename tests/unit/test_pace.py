"""What a long run says of itself; its clock is handed in."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from airflow_provider_heapbraze import pace
from airflow_provider_heapbraze.pace import Pace


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


class Run:
    """A run that settles so many in so many seconds."""

    def __init__(self, what="changes", *, done=0, **how):
        self.clock = Clock()
        self.done = done
        self._shown = []
        self.pace = Pace(what, done=done, show=self._shown.append, monotonic=self.clock, **how)

    @property
    def shown(self):
        """Return what was shown, when all of it was."""
        wait_until_shown()
        return self._shown

    def goes_on(self, seconds, done, **more):
        self.clock.seconds += seconds
        self.done += done
        self.pace.at(self.done, **more)


class SlowStore:
    """Shows nothing before it is let go."""

    def __init__(self):
        self.asked = threading.Event()
        self.go = threading.Event()
        self.shown = []

    def __call__(self, numbers):
        self.asked.set()
        assert self.go.wait(60)
        self.shown.append(numbers["done"])


def showing():
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


def wait_until_shown():
    for thread in showing():
        thread.join(60)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def slow():
    """Give a store that is slow, and a run of 1,000 that shows its progress there."""
    store, clock = SlowStore(), Clock()
    pace = Pace("changes", total=1000, show=store, monotonic=clock)

    def goes_on(done):
        clock.seconds += 10
        pace.at(done)

    yield store, pace, goes_on
    store.go.set()
    wait_until_shown()


def test_a_short_run_says_nothing(lines):
    run = Run(total=1000)
    for _ in range(99):
        run.goes_on(0.1, 10)
    run.pace.end(1000)
    assert (lines(), run.shown) == ([], [])


def test_a_long_run_says_every_ten_seconds_how_far_it_is(lines):
    run = Run(total=100_000)
    for _ in range(25):
        run.goes_on(1, 1000)
    assert lines() == [
        "10,000 of 100,000 changes are settled (10.0%): 1,000 a second; about 2 min left.",
        "20,000 of 100,000 changes are settled (20.0%): 1,000 a second; about 1 min left.",
    ]
    assert run.shown[-1] == {
        "done": 20_000,
        "total": 100_000,
        "share": 0.2,
        "per_second": 1000.0,
        "seconds_left": 80,
    }


def test_the_pace_is_that_of_the_last_minute(lines):
    run = Run(total=1_000_000)
    for _ in range(12):
        run.goes_on(10, 10_000)
    for _ in range(6):
        run.goes_on(10, 1000)
    assert "100 a second; about 2.4 h left" in lines()[-1]


def test_what_was_settled_before_is_no_pace_of_this_run(lines):
    run = Run(total=100_000, done=90_000)
    run.goes_on(10, 100)
    assert lines() == ["90,100 of 100,000 changes are settled (90.1%): 10 a second; about 16 min left."]


def test_a_run_that_stands_still_does_not_know_how_long_it_takes(lines):
    run = Run(total=100_000)
    run.goes_on(10, 0)
    assert lines() == ["0 of 100,000 changes are settled (0.0%): 0 a second; nobody knows how long it takes."]
    assert run.shown[-1]["seconds_left"] is None


def test_the_last_seconds_are_seconds(lines):
    run = Run(total=1000)
    run.goes_on(10, 500)
    assert lines()[-1].endswith("50 a second; about 10 s left.")


def test_where_nobody_knows_the_total_the_count_and_the_pace_are_told(lines):
    run = Run("events")
    run.goes_on(10, 2500, sent=2400)
    assert lines() == ["2,500 events are settled, 2,400 of them sent: 250 a second."]
    assert run.shown == [{"done": 2500, "sent": 2400, "per_second": 250.0}]


def test_the_end_of_a_long_run_is_shown(lines):
    run = Run(total=1000)
    run.goes_on(10, 500)
    run.clock.seconds += 5
    run.pace.end(1000)
    assert len(lines()) == 1
    assert (run.shown[-1]["share"], run.shown[-1]["seconds_left"]) == (1.0, 0)


def test_a_run_goes_on_where_its_progress_cannot_be_shown(lines):
    clock, asked = Clock(), []

    def refuse(numbers):
        asked.append(numbers)
        raise ConnectionError

    pace = Pace("changes", total=1000, show=refuse, monotonic=clock)
    for done in (100, 200, 300):
        clock.seconds += 10
        pace.at(done)
        wait_until_shown()
    pace.end(1000)
    assert len(asked) == 1
    assert sum("are settled" in line for line in lines()) == 3
    assert sum("cannot be shown" in line for line in lines()) == 1


def test_a_slow_store_holds_up_nobody_and_is_given_the_newest_numbers(slow, lines):
    store, _, goes_on = slow
    goes_on(100)
    assert store.asked.wait(60)
    for done in (200, 300, 400):
        goes_on(done)
    assert store.shown == []
    assert len(lines()) == 4, "the log waits for nobody, either"
    store.go.set()
    wait_until_shown()
    assert store.shown == [100, 400]


def test_what_shows_the_progress_ends_with_the_run(slow):
    store, pace, goes_on = slow
    store.go.set()
    goes_on(100)
    pace.end(1000)
    assert store.shown[-1] == 1000
    wait_until_shown()
    assert showing() == []


def test_a_run_that_breaks_off_leaves_nothing_that_shows_it(slow):
    store, _, goes_on = slow
    goes_on(100)
    [thread] = showing()
    assert thread.daemon, "the process does not wait for it"
    store.go.set()
    thread.join(60)
    assert showing() == []


def test_the_end_of_a_run_does_not_wait_for_a_store_that_hangs(slow, monkeypatch):
    monkeypatch.setattr(pace, "END_SECONDS", 0.0)
    store, run, goes_on = slow
    goes_on(100)
    assert store.asked.wait(60)
    run.end(1000)
    assert store.shown == []


class NoThread(threading.Thread):
    """A thread on a machine that has too many."""

    def start(self):
        raise RuntimeError("can't start new thread")


def test_a_run_goes_on_where_no_thread_can_be_started(lines, monkeypatch):
    run = Run(total=1000)
    with monkeypatch.context() as crowded:
        # Not in threading itself: servers of other tests start threads in this process, too.
        crowded.setattr(pace, "threading", SimpleNamespace(Thread=NoThread))
        run.goes_on(10, 100)
    run.goes_on(10, 100)
    assert run.shown == []
    assert sum("cannot be shown" in line for line in lines()) == 1
