"""One limit for many: it is kept in any window, used to the full, and small deliveries are done first."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients import shared_budget
from airflow_provider_heapbraze.clients.errors import (
    BudgetAwayError,
    ConfigurationError,
    InterruptedCallError,
)
from airflow_provider_heapbraze.clients.shared_budget import AWAY_SECONDS, SharedBudget
from airflow_provider_heapbraze.clients.sharing import FORGOTTEN_AFTER, Sharing
from tests.unit.clients.conftest import FakeClock
from tests.unit.clients.lanes import Delivery, MemoryStore, run
from tests.unit.clients.test_budget import most_in_any_window

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HOURLY = 250_000, 3600.0


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
def make_budget(store, clock):
    def make(limit=1000, period=1.0, *, name="name", store=store, clock=clock):
        return SharedBudget(store, name, limit, period, clock=clock)

    return make


def at_work(budget, clock, seconds):
    """Let a budget's lane send for so many seconds; return how many requests went."""
    began, sent = clock.time, 0
    while clock.time < began + seconds:
        budget.acquire()
        sent += 1
    return sent


def used(times, limit, period, *, since, until):
    """Return the share of the limit that was used in a time."""
    inside = [time for time in times if since <= time < until]
    return len(inside) / (until - since) * period / limit


lanes = st.builds(
    Delivery,
    requests=st.integers(1, 100),
    connections=st.sampled_from([1, 4, 24]),
    latency=st.sampled_from([0.01, 0.25, 2.0]),
    starts=st.floats(0, 8),
    dies=st.one_of(st.just(float("inf")), st.floats(0, 12)),
)


@quick
@given(
    limit=st.sampled_from([1, 2, 5, 50, 400, 1200]),
    period=st.sampled_from([1.0, 3.0, 10.0]),
    deliveries=st.lists(lanes, min_size=1, max_size=8),
    took=st.sampled_from([0.0, 0.0005, 0.005]),
    offset=st.sampled_from([0.0, -5e8, 1234.5]),
)
def test_no_window_holds_more_than_the_limit(limit, period, deliveries, took, offset):
    """Lanes join, die and fall silent, and the store takes its time."""
    clock = FakeClock()
    store = MemoryStore(clock, offset=offset, took=took)
    fresh = [Delivery(one.requests, one.connections, one.latency, one.starts, one.dies) for one in deliveries]
    times = run(clock, store, limit, period, fresh, until=40.0 + 3 * len(fresh) * period / limit)
    assert most_in_any_window(times, period) <= limit
    assert all(one.sent for one in fresh if one.dies == float("inf"))


@quick
@given(
    limit=st.integers(50_000, 300_000),
    others=st.lists(lanes, max_size=8),
    connections=st.sampled_from([2, 8, 24]),
    took=st.sampled_from([0.0, 0.0005]),
)
def test_what_there_is_is_used_as_long_as_somebody_wants_it(limit, others, connections, took):
    """However many are there, come, die or use less than their share."""
    clock = FakeClock()
    busy = [Delivery(100_000, connections) for _ in range(1 + 30 // connections)]
    fresh = [Delivery(one.requests, one.connections, one.latency, one.starts, one.dies) for one in others]
    began = clock.time
    times = run(clock, MemoryStore(clock, took=took), limit, 3600.0, busy + fresh, until=60.0)
    demand = sum(one.connections / one.latency for one in busy) * 3600
    # Slow lanes that soon end keep a part for seconds: of the lowest limit a tenth of the first minute.
    assert used(times, limit, 3600.0, since=began + 2, until=began + 60) >= 0.85 * min(1, demand / limit)


def test_forty_cohorts_use_the_limit_and_small_ones_are_done_first(clock, store):
    cohorts = [Delivery(250) for _ in range(40)]
    small = [Delivery(10, starts=20.0), Delivery(25, starts=40.0)]
    large = Delivery(10_000)
    began = clock.time
    times = run(clock, store, *HOURLY, [*cohorts, *small, large], until=160.0)
    assert used(times, *HOURLY, since=began + 1, until=began + 140) >= 0.98
    assert [one.ended - one.starts < 6 for one in small] == [True, True]
    assert all(one.ended < 155 for one in cohorts)
    assert large.ended is None
    assert len(large.sent) > 20, "it goes on meanwhile"


@pytest.mark.parametrize(
    ("limit", "period"), [(1, 1.0), (2, 60.0), (250, 60.0), (2_500, 60.0), (250_000, 3600.0)]
)
def test_one_alone_uses_the_limit(clock, store, limit, period):
    requests = min(20 * limit, 3_000)
    times = run(clock, store, limit, period, [Delivery(requests)])
    assert requests / limit * period >= 0.95 * (times[-1] - times[0])


def test_equal_lanes_get_equal_shares(clock, store):
    lanes = [Delivery(100_000, connections) for connections in (24, 24, 12, 12)]
    run(clock, store, *HOURLY, lanes, until=60.0)
    sent = [len(one.sent) for one in lanes]
    assert max(sent) < 1.15 * min(sent)


def test_a_lane_that_is_slow_leaves_its_share_to_the_others(clock, store):
    slow, fast = Delivery(10_000, connections=1), Delivery(10_000)
    run(clock, store, *HOURLY, [slow, fast], until=60.0)
    assert len(slow.sent) / 60 == pytest.approx(4.0, rel=0.1)
    assert len(fast.sent) / 60 >= 0.95 * (250_000 / 3600 - 4.0)


def test_a_killed_lane_is_forgotten(clock, store):
    killed, other = Delivery(10_000, dies=10.0), Delivery(10_000)
    began = clock.time
    times = run(clock, store, *HOURLY, [killed, other], until=30.0)
    after = began + 10 + FORGOTTEN_AFTER
    assert used(times, *HOURLY, since=after + 1, until=began + 30) >= 0.98
    assert len(Sharing.read(store.documents["name"], clock.time).lanes) == 1


def test_requests_are_paced_evenly(make_budget, clock):
    budget = make_budget(600, 60.0)
    at_work(budget, clock, 10)
    times = []
    for _ in range(100):
        budget.acquire()
        times.append(clock.time)
    distances = [after - before for before, after in pairwise(times)]
    assert min(distances) > 0.04
    assert max(distances) < 0.2


def test_it_asks_the_store_once_for_many_requests(make_budget, store, clock):
    sent = at_work(make_budget(*HOURLY), clock, 60)
    assert sent > 4000
    assert store.calls < sent / 7


def test_names_are_apart(make_budget, clock):
    one, other = make_budget(10, 1.0), make_budget(10, 1.0, name="other")
    one.pause(30.0)
    other.acquire()
    assert clock.time < 1_700_000_001


def test_a_pause_holds_who_was_told_of_it(make_budget, clock):
    one, other = make_budget(), make_budget()
    one.acquire()
    other.acquire()
    other.pause(30.0)
    began = clock.time
    other.acquire()
    assert clock.time - began == pytest.approx(30.0, abs=0.1)


def test_a_pause_holds_the_others(make_budget, clock):
    one, other = make_budget(), make_budget()
    one.acquire()
    other.pause(30.0)
    began = clock.time
    clock.sleep(1.0)
    one.acquire()
    assert clock.time - began == pytest.approx(30.0, abs=0.1), "what it was granted before is too old"


def test_none_left_is_a_pause_for_all(make_budget, clock):
    one, other = make_budget(1000, 60.0), make_budget(1000, 60.0)
    other.acquire()
    one.acquire()
    one.observe({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "25"})
    began, looks = clock.time, []

    def never_again():
        looks.append(1)
        return len(looks) == 2

    with pytest.raises(InterruptedCallError):
        one.acquire(never_again)
    clock.sleep(1.0)
    other.acquire()
    assert clock.time - began == pytest.approx(25.0, abs=0.1)


def test_a_smaller_limit_is_adopted_by_all(make_budget, clock):
    one, other = make_budget(), make_budget()
    one.acquire()
    one.observe({"X-RateLimit-Limit": "10"})
    clock.sleep(1)
    one.acquire()
    assert at_work(other, clock, 20) <= 10 * 21


def test_a_larger_limit_is_adopted_only_up_to_what_was_set(make_budget, clock):
    budget = make_budget(10, 1.0)
    budget.observe({"X-RateLimit-Limit": "1000"})
    assert at_work(budget, clock, 20) <= 10 * 21


def test_those_who_were_set_a_smaller_limit_keep_to_it(make_budget, clock):
    at_work(make_budget(1000, 1.0), clock, 1)
    assert at_work(make_budget(10, 1.0), clock, 20) <= 10 * 21


def test_few_requests_left_last_until_the_reset(make_budget, clock):
    budget = make_budget(6000, 60.0)
    at_work(budget, clock, 2)
    budget.observe({"X-RateLimit-Remaining": "20", "X-RateLimit-Reset": "40"})
    assert at_work(budget, clock, 20) <= 12
    assert 20.0 <= budget.seconds_for(10) <= 40.0


@pytest.mark.parametrize("share_of_others", [0.0, 0.5])
def test_a_limit_on_the_clock_is_kept_and_used(clock, store, share_of_others):
    """A server that counts per window of the clock, where others take a share of each at its start."""
    limit, period, begin, counts, broken = 1000, 10.0, clock.time, {}, []

    def answer(one):
        window = clock.time // period
        counts[window] = counts.get(window, 0) + 1
        taken = counts[window] + int(share_of_others * limit)
        broken.extend([window] if taken > limit else [])
        reset = str(window * period + period)
        left = str(max(0, limit - taken))
        one.budget.observe(
            {
                "X-RateLimit-Limit": str(limit),
                "X-RateLimit-Remaining": left,
                "X-RateLimit-Reset": reset,
            }
        )

    lanes = [Delivery(100_000, connections) for connections in (24, 24, 8)]
    times = run(clock, store, limit, period, lanes, until=100.0, on_send=answer)
    assert not broken
    assert used(times, limit, period, since=begin, until=begin + 100) >= 0.95 * (1 - share_of_others)


def test_where_the_stores_clock_goes_back_nobody_waits_for_it(clock):
    store = MemoryStore(clock)
    lanes = [Delivery(100_000) for _ in range(3)]
    began = clock.time

    def step(one):
        if clock.time > began + 10:
            store.offset = -7200.0

    times = run(clock, store, 1000, 10.0, lanes, until=40.0, on_send=step)
    assert most_in_any_window(times, 10.0) <= 1000
    assert used(times, 1000, 10.0, since=began + 5, until=began + 40) >= 0.95


@pytest.mark.parametrize("document", [None, "", "{", "[]", '{"at": 1}', "null", '{"at":"x","lanes":{}}'])
def test_where_nothing_is_known_of_the_past_there_is_no_burst(clock, store, make_budget, document):
    store.documents["name"] = document
    times = []
    budget = make_budget(1000, 10.0)
    for _ in range(20):
        budget.acquire()
        times.append(clock.time)
    assert times[-1] - times[0] >= 0.15


def test_a_store_that_is_away_for_a_moment_is_waited_for(make_budget, store, clock, caplog):
    budget = make_budget()
    store.away = True
    began = clock.time

    def back_later():
        store.away = clock.time < began + 20
        return False

    budget.acquire(back_later)
    assert clock.time - began == pytest.approx(20.0, abs=1.1)
    assert len(caplog.records) == 1


def test_without_the_store_nothing_goes(make_budget, store, clock):
    budget = make_budget()
    budget.acquire()
    store.away = True
    began = clock.time
    with pytest.raises(BudgetAwayError):
        at_work(budget, clock, 1_000)
    assert clock.time - began == pytest.approx(AWAY_SECONDS, abs=2.5)
    budget.close()


def test_a_grant_that_comes_too_late_is_not_used(clock, store, make_budget):
    store.took = 1.0
    with pytest.raises(BudgetAwayError, match=r"took 2\.00 s"):
        make_budget(*HOURLY).acquire()


def test_a_wait_can_be_interrupted(make_budget):
    budget = make_budget(1, 600.0)
    budget.acquire()
    with pytest.raises(InterruptedCallError):
        budget.acquire(lambda: True)


def test_who_closes_gives_back_what_is_left(make_budget, store, clock):
    budget = make_budget(*HOURLY)
    at_work(budget, clock, 2)
    before = Sharing.read(store.documents["name"], clock.time)
    budget.close()
    after = Sharing.read(store.documents["name"], clock.time)
    assert not after.lanes
    assert after.earned_until < before.earned_until


def test_what_is_given_back_is_taken_back_once(make_budget, store, clock):
    """The store's answer is lost after it took the step; the step is taken again."""
    budget = make_budget(*HOURLY)
    at_work(budget, clock, 5)
    before = Sharing.read(store.documents["name"], clock.time).earned_until
    replace, answers = store.replace, iter([False])

    def answer_lost(*values):
        return replace(*values) and next(answers, True)

    store.replace = answer_lost
    budget._drop_places()
    unused = budget._places.number - budget._places.used
    assert unused > 1
    budget._tell(budget._ask()._replace(wanted=0))
    after = Sharing.read(store.documents["name"], clock.time).earned_until
    assert before - after == pytest.approx(unused * budget._cost)


def test_a_pause_holds_us_without_the_store(make_budget, store, clock):
    budget = make_budget()
    budget.acquire()
    store.away = True
    budget.pause(10.0)
    store.away = False
    began = clock.time
    budget.acquire()
    assert clock.time - began == pytest.approx(10.0, abs=0.1)


def test_who_never_took_part_leaves_no_trace(make_budget, store):
    make_budget().close()
    assert not store.calls


def test_the_estimate_is_the_time_at_the_limit(make_budget, store):
    assert make_budget(*HOURLY).seconds_for(250_000) == pytest.approx(3600.0, rel=0.01)
    assert not store.calls


@pytest.mark.parametrize(("limit", "period"), [(0, 1.0), (-1, 1.0), (1, 0.0)])
def test_a_limit_must_allow_something(make_budget, limit, period):
    with pytest.raises(ConfigurationError):
        make_budget(limit, period)


def test_others_who_are_always_faster_are_an_error(make_budget, store, monkeypatch):
    monkeypatch.setattr(shared_budget, "AWAY_SECONDS", 0.0)
    store.replace = lambda *_: False
    with pytest.raises(BudgetAwayError, match="too fast"):
        make_budget().acquire()
