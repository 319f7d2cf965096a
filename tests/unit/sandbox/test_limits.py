"""Rate limits: Braze's headers, windows of the clock, one budget per group."""

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


def test_a_change_starts_only_the_changed_group_anew():
    old = {"cohorts": Limit(limit=2, seconds=AGES), "track": Limit(limit=2, seconds=AGES)}
    limits = Limits(old, now=lambda: 5.0)
    limits.spend("cohorts", 1)
    limits.spend("track", 1)

    limits.change({**old, "cohorts": Limit(limit=10, seconds=AGES)})

    assert limits.spend("cohorts", 1).remaining == 9
    assert limits.spend("track", 1).remaining == 0
