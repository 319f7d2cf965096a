from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.budget import Budget
from airflow_provider_heapbraze.clients.errors import ConfigurationError, InterruptedCallError

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def most_in_any_window(times, period):
    """Count the requests in the fullest window [t, t + period)."""
    times = sorted(times)
    end = most = 0
    for start, began in enumerate(times):
        while end < len(times) and times[end] < began + period:
            end += 1
        most = max(most, end - start)
    return most


@quick
@given(
    limit=st.integers(1, 1200),
    period=st.sampled_from([1.0, 3.0, 60.0]),
    gaps=st.lists(st.tuples(st.integers(1, 600), st.floats(0, 2)), min_size=1, max_size=3),
    late=st.sampled_from([0.0, 0.0007, 0.03]),
)
def test_no_window_holds_more_than_the_limit(late_clock, limit, period, gaps, late):
    clock = late_clock(late)
    budget = Budget(limit, period, clock=clock)
    times = []
    for requests, idle_periods in gaps:
        for _ in range(requests):
            budget.acquire()
            times.append(clock.monotonic())
        clock.sleep(idle_periods * period)
    assert most_in_any_window(times, period) <= limit


@pytest.mark.parametrize(("limit", "period"), [(1, 1.0), (2, 60.0), (50, 1.0), (250, 60.0), (3000, 3.0)])
def test_a_long_delivery_uses_the_limit(clock, limit, period):
    budget = Budget(limit, period, clock=clock)
    started = clock.monotonic()
    requests = 20 * limit
    for _ in range(requests):
        budget.acquire()
    assert requests / limit >= 0.99 * (clock.monotonic() - started) / period


def test_requests_are_paced_evenly_after_the_first_burst(clock):
    budget = Budget(600, 60.0, clock=clock)
    times = []
    for _ in range(300):
        budget.acquire()
        times.append(clock.monotonic())
    distances = [after - before for before, after in pairwise(times)]
    assert distances[:2] == [0.0, 0.0]
    assert min(distances[3:]) > 0.09
    assert max(distances) < 0.11


def test_threads_share_it(late_clock):
    clock = late_clock(0.004)
    budget = Budget(100, 1.0, clock=clock)
    times = []

    def go():
        for _ in range(25):
            budget.acquire()
            times.append(clock.monotonic())

    with ThreadPoolExecutor(18) as pool:
        for future in [pool.submit(go) for _ in range(18)]:
            future.result()
    assert len(times) == 450
    assert most_in_any_window(times, 1.0) <= 100


def test_it_returns_the_seconds_waited(clock):
    budget = Budget(1, 10.0, clock=clock)
    assert budget.acquire() == 0.0
    assert budget.acquire() == pytest.approx(10.0, rel=0.01)


def test_a_pause_holds_everybody(clock):
    budget = Budget(1000, 1.0, clock=clock)
    budget.pause(30.0)
    budget.pause(5.0)
    assert budget.acquire() == pytest.approx(30.0)


def test_a_pause_holds_those_who_wait_already(clock):
    budget = Budget(1, 10.0, clock=clock)
    budget.acquire()
    asked = []

    def pause_at_the_third_look():
        asked.append(1)
        if len(asked) == 3:
            budget.pause(100.0)
        return False

    waited = budget.acquire(pause_at_the_third_look)
    assert waited == pytest.approx(100.0 + 2 * 0.5)


def test_a_wait_can_be_interrupted(clock):
    budget = Budget(1, 10.0, clock=clock)
    budget.acquire()
    with pytest.raises(InterruptedCallError):
        budget.acquire(lambda: True)
    assert budget.acquire() == pytest.approx(10.0, rel=0.01), "the interrupted one took no place"


def test_an_interrupted_head_of_the_queue_lets_the_next_one_look():
    budget = Budget(1, 600.0)
    budget.acquire()
    stopped = threading.Event()
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(budget.acquire, stopped.is_set) for _ in range(5)]
        stopped.set()
        for future in futures:
            with pytest.raises(InterruptedCallError):
                future.result(timeout=20)


def seconds_for_all(budget, clock, requests):
    started = clock.monotonic()
    for _ in range(requests):
        budget.acquire()
    return clock.monotonic() - started


@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_a_smaller_limit_is_adopted(clock, case):
    budget = Budget(1000, 1.0, clock=clock)
    budget.observe({case("X-RateLimit-Limit"): "10"})
    assert seconds_for_all(budget, clock, 31) == pytest.approx(3.0, rel=0.01)


def test_a_larger_limit_is_adopted_only_up_to_what_was_set(clock):
    budget = Budget(10, 1.0, clock=clock)
    budget.observe({"X-RateLimit-Limit": "5"})
    budget.observe({"X-RateLimit-Limit": "1000"})
    assert seconds_for_all(budget, clock, 31) == pytest.approx(3.0, rel=0.01)


def test_few_requests_left_last_until_the_reset(clock):
    budget = Budget(1000, 60.0, clock=clock)
    reset = str(int(clock.now()) + 40)
    budget.observe({"X-RateLimit-Remaining": "20", "X-RateLimit-Reset": reset})
    assert seconds_for_all(budget, clock, 20) > 20.0


def test_none_left_is_a_pause_until_the_reset(clock):
    budget = Budget(1000, 60.0, clock=clock)
    budget.observe({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "25"})
    assert budget.acquire() == pytest.approx(25.0)


def test_a_reset_that_cannot_be_true_is_held_to_the_period(clock):
    budget = Budget(1000, 60.0, clock=clock)
    budget.observe({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(clock.now() + 3000)})
    assert budget.acquire() == pytest.approx(60.0)


def test_without_a_reset_the_clock_knows_it(clock):
    budget = Budget(1000, 3600.0, clock=clock)
    budget.observe({"X-RateLimit-Remaining": "0"})
    budget.acquire()
    assert clock.now() % 3600 == pytest.approx(0.0, abs=0.01)


def test_after_the_reset_the_pace_is_the_old_one(clock):
    budget = Budget(1000, 60.0, clock=clock)
    budget.observe({"X-RateLimit-Remaining": "2", "X-RateLimit-Reset": "30"})
    assert budget.seconds_for(100) == pytest.approx(1500.0)
    clock.sleep(31)
    assert budget.seconds_for(100) == pytest.approx(6.0, rel=0.01)


@pytest.mark.parametrize("value", ["", "many", "nan", "-1", "0"])
def test_a_limit_that_is_garbage_changes_nothing(clock, value):
    budget = Budget(10, 1.0, clock=clock)
    budget.observe({"X-RateLimit-Limit": value})
    assert budget.seconds_for(10) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(("limit", "period"), [(60, 60.0), (1000, 1.0), (250, 10.0)])
@pytest.mark.parametrize("others", [0.0, 0.5])
def test_a_limit_on_the_clock_is_kept_and_used(clock, limit, period, others):
    """A server that counts per window of the clock, where others take a share of each window at its start."""
    budget = Budget(limit, period, clock=clock)
    used = Counter()
    started, requests = clock.now(), 20 * limit
    for _ in range(requests):
        budget.acquire()
        window = clock.now() // period
        used[window] += 1
        taken = used[window] + int(others * limit)
        assert taken <= limit
        headers = {"X-RateLimit-Limit": limit, "X-RateLimit-Remaining": limit - taken}
        budget.observe(
            {n: str(v) for n, v in {**headers, "X-RateLimit-Reset": (window + 1) * period}.items()}
        )
    share = requests / limit / ((clock.now() - started) / period)
    assert share >= 0.97 * (1 - others)


def test_the_estimate_is_the_time_at_the_limit(clock):
    assert Budget(250_000, 3600.0, clock=clock).seconds_for(250_000) == pytest.approx(3600.0, rel=0.01)


@pytest.mark.parametrize(("limit", "period"), [(0, 1.0), (-1, 1.0), (1, 0.0)])
def test_a_limit_must_allow_something(limit, period):
    with pytest.raises(ConfigurationError):
        Budget(limit, period)
