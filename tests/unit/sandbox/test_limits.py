"""Rate limits: Braze's headers and windows of the clock, Heap's rolling ones, one budget per group."""

from __future__ import annotations

import math

import pytest

from airflow_provider_heapbraze.sandbox.limits import Limits
from airflow_provider_heapbraze.sandbox.models import Limit

AGES = 1e9  # seconds: no test sees the end of the window


def headers(answer):
    return {name: int(answer.headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset")}


def test_every_answer_tells_the_limit(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(limits={"cohorts": {"limit": 3, "seconds": AGES}})
    end = 2 * int(AGES)

    told = [headers(answer) for answer in (caller.name(), caller.add("a"), caller.change("wrong"))]

    assert told == [{"limit": 3, "remaining": n, "reset": end} for n in (2, 1, 0)]


def test_above_the_limit_is_429_and_counted_and_changes_nothing(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(limits={"cohorts": {"limit": 1, "seconds": AGES}})
    caller.name()

    answers = [caller.add("a"), caller.name(name="Renamed")]

    assert [answer.status_code for answer in answers] == [429, 429]
    assert headers(answers[0])["remaining"] == 0
    state = heapbraze_sandbox.state()
    assert state["limits_broken"] == {"cohorts": 2}
    assert state["cohorts"]["cohort-1"]["name"] == "Power users"


def test_groups_have_limits_of_their_own(caller, heapbraze_sandbox):
    one = {"limit": 1, "seconds": AGES}
    heapbraze_sandbox.settings(limits={"cohorts": one, "track": one, "pool": one})
    row = {"external_id": "a", "_update_existing_only": True, "vip": True}

    assert [
        caller.name().status_code,
        caller.track(row).status_code,
        caller.get("/segments/list").status_code,
    ] == [
        201,
        201,
        200,
    ]
    assert [
        caller.name().status_code,
        caller.track(row).status_code,
        caller.get("/segments/list").status_code,
    ] == [429] * 3


def test_a_refused_key_uses_nothing(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(limits={"cohorts": {"limit": 1, "seconds": AGES}})
    assert caller.change(client_secret="not-the-secret").status_code == 401
    assert caller.change().status_code == 201


def test_the_default_limits_are_brazes(caller):
    assert headers(caller.change())["limit"] == 250_000
    assert headers(caller.get("/segments/list"))["limit"] == 250_000
    track = caller.track({"external_id": "a", "_update_existing_only": True})
    assert headers(track)["limit"] == 3_000
    assert headers(caller.people(external_ids=["a"]))["limit"] == 250


@pytest.mark.parametrize("seconds", [3, 60, 0.5])
def test_a_limit_resets_on_the_clock_not_on_a_rolling_window(seconds):
    now = [seconds * 1000 + seconds * 0.9]
    limits = Limits({"cohorts": Limit(limit=2, seconds=seconds)}, now=lambda: now[0])

    first, second, third = (limits.spend("cohorts", 1) for _ in range(3))
    assert [first.broken, second.broken, third.broken] == [False, False, True]
    assert third.reset == seconds * 1001
    assert third.headers()["X-RateLimit-Reset"] == str(math.ceil(seconds * 1001))

    now[0] = seconds * 1001
    assert limits.spend("cohorts", 1).remaining == 1


@pytest.mark.parametrize("seconds", [64, 0.5])  # no rounding
def test_heaps_windows_roll(seconds):
    now = [seconds * 1000 + seconds * 0.9]
    limits = Limits({"heap": Limit(limit=5, seconds=seconds)}, now=lambda: now[0])
    assert not limits.spend("heap", 3).broken

    now[0] = seconds * 1001  # where a window of the clock begins
    assert limits.spend("heap", 3).broken
    assert limits.spend("heap", 2).remaining == 0
    now[0] = seconds * 1001.9 - 0.001
    assert limits.spend("heap", 1).broken
    now[0] = seconds * 1001.9  # the first 3 are as old as the window is long
    last = limits.spend("heap", 3)
    assert (last.broken, last.remaining, last.reset) == (False, 0, seconds * 1002.9)
    now[0] = seconds * 1002
    assert limits.spend("heap", 2).remaining == 0
    assert limits.broken == {"heap": 2}


def person_limits(now, heap=100):
    heaps = {"heap": Limit(limit=heap, seconds=60), "heap_identity": Limit(limit=2, seconds=60)}
    return Limits(heaps, now=lambda: now[0])


def test_each_person_has_a_rolling_window():
    now = [59.0]
    limits = person_limits(now)
    ann, device = ("identity", "7"), ("user_id", "7")

    assert not limits.spend("heap", 2, {ann: 2}).broken
    now[0] = 61.0  # where a window of the clock has begun
    assert limits.spend("heap", 1, {ann: 1}).broken
    assert not limits.spend("heap", 2, {device: 2}).broken
    now[0] = 119.0
    assert not limits.spend("heap", 1, {ann: 1}).broken
    assert limits.spend("heap", 2, {ann: 1, device: 1}).broken
    assert limits.broken == {"heap_identity": 2}


@pytest.mark.parametrize(
    ("persons", "broken"),
    [({"ann": 1, "bob": 3}, {"heap_identity": 1}), ({"ann": 2, "bob": 2, "cid": 2}, {"heap": 1})],
)
def test_above_either_of_heaps_limits_nothing_of_both_is_used(persons, broken):
    limits = person_limits([0.0], heap=5)
    assert limits.spend("heap", sum(persons.values()), persons).remaining == 5
    assert limits.broken == broken
    assert limits.spend("heap", 5, {"ann": 2, "bob": 2, "cid": 1}).remaining == 0


def test_what_has_left_a_rolling_window_is_forgotten():
    now = [0.0]
    limits = person_limits(now)
    for second in range(1000):
        now[0] = float(second)
        limits.spend("heap", 1, {f"person-{second}": 1})

    window = limits._windows["heap_identity"]
    assert len(window.used) == len(window._uses) == 60


def test_a_change_starts_only_the_changed_group_anew():
    old = {"cohorts": Limit(limit=2, seconds=AGES), "track": Limit(limit=2, seconds=AGES)}
    limits = Limits(old, now=lambda: 5.0)
    limits.spend("cohorts", 1)
    limits.spend("track", 1)

    limits.change({**old, "cohorts": Limit(limit=10, seconds=AGES)})

    assert limits.spend("cohorts", 1).remaining == 9
    assert limits.spend("track", 1).remaining == 0


def test_a_change_of_one_of_heaps_limits_starts_only_that_one_anew():
    limits = person_limits([0.0], heap=3)
    old = dict(limits._limits)
    limits.spend("heap", 2, {"ann": 2})

    limits.change({**old, "heap_identity": Limit(limit=1, seconds=60)})

    assert limits.spend("heap", 1, {"ann": 1}).remaining == 0
    assert limits.spend("heap", 1, {"bob": 1}).broken
    assert limits.broken == {"heap": 1}
