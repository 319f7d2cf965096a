"""Leavers are removed only after they were absent for a while."""

from __future__ import annotations

import pytest

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.damping import Damping

EVERYBODY = {f"user-{number}" for number in range(20)}
LEAVERS = {"user-0", "user-1"}
THREE_RUNS = Damping(runs=3)


def night(nightly, day, wanted, damping=THREE_RUNS, run_id=None):
    return nightly.run(
        sorted(wanted), run_id or f"night-{day}", as_of=f"2026-11-{day:02d}T03:00:00+00:00", damping=damping
    )["waterfall"]


def test_a_leaver_goes_in_the_third_run(nightly):
    night(nightly, 1, EVERYBODY)
    for day in (2, 3):
        steps = night(nightly, day, EVERYBODY - LEAVERS)
        assert (steps["leaving"], steps["removes"]) == (2, 0)
        assert nightly.members() == EVERYBODY
    steps = night(nightly, 4, EVERYBODY - LEAVERS)
    assert (steps["leaving"], steps["removes"]) == (0, 2)
    assert nightly.members() == EVERYBODY - LEAVERS


def test_who_comes_back_begins_anew(nightly):
    night(nightly, 1, EVERYBODY)
    for day in (2, 3):
        night(nightly, day, EVERYBODY - LEAVERS)
    night(nightly, 4, EVERYBODY)
    for day in (5, 6):
        night(nightly, day, EVERYBODY - LEAVERS)
    assert nightly.members() == EVERYBODY
    assert nightly.sent().count(("cohort-users", 201)) == 1, "flapping sent nothing"


def test_by_hours(nightly):
    damping = Damping(hours=48)
    night(nightly, 1, EVERYBODY, damping)
    night(nightly, 2, EVERYBODY - LEAVERS, damping)
    night(nightly, 3, EVERYBODY - LEAVERS, damping)
    assert nightly.members() == EVERYBODY
    night(nightly, 4, EVERYBODY - LEAVERS, damping)
    assert nightly.members() == EVERYBODY - LEAVERS


def test_a_run_that_makes_its_plan_anew_counts_once(nightly):
    night(nightly, 1, EVERYBODY)
    for extra in range(4):  # the same night, cleared again and again with other members
        night(nightly, 2, EVERYBODY - LEAVERS | {f"user-{100 + extra}"})
    assert nightly.members() >= EVERYBODY
    night(nightly, 3, EVERYBODY - LEAVERS)
    night(nightly, 4, EVERYBODY - LEAVERS)
    assert nightly.members() == EVERYBODY - LEAVERS | {"user-103"}


def test_without_damping_they_go_at_once(nightly):
    night(nightly, 1, EVERYBODY)
    night(nightly, 2, EVERYBODY - LEAVERS)
    night(nightly, 3, EVERYBODY - LEAVERS, Damping())
    assert nightly.members() == EVERYBODY - LEAVERS


def test_a_removal_without_an_answer_is_not_taken_back(nightly):
    """Nobody knows whether they are gone: taken for held, nobody would add them when they are back."""
    night(nightly, 1, EVERYBODY)
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"kind": "cut-after", "endpoint": "cohort-users"}])
    with pytest.raises(HeapBrazeError):
        night(nightly, 2, EVERYBODY - LEAVERS, Damping())
    nightly.retry = usual
    assert nightly.members() == EVERYBODY - LEAVERS
    night(nightly, 3, EVERYBODY - LEAVERS)
    night(nightly, 4, EVERYBODY)
    assert nightly.members() == EVERYBODY


def test_whom_a_died_run_only_asserted_again_leaves_like_anybody(nightly):
    night(nightly, 1, EVERYBODY)
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"status": 500, "endpoint": "cohort-users"}])
    with pytest.raises(HeapBrazeError):
        nightly.run(sorted(EVERYBODY), "dies", as_of="2026-11-02T01:00:00+00:00", force_full=True)
    nightly.retry = usual
    steps = night(nightly, 2, EVERYBODY - LEAVERS)
    assert (steps["leaving"], steps["removes"]) == (2, 0)
    assert nightly.members() == EVERYBODY


def test_lost_leavers_stop_the_run(nightly):
    night(nightly, 1, EVERYBODY)
    night(nightly, 2, EVERYBODY - LEAVERS)
    [file] = nightly.ledger.path("plans").glob("*/leaving-*")
    file.unlink()
    seen = len(nightly.sent())
    with pytest.raises(LedgerDamagedError, match=r"leaving-"):
        night(nightly, 3, EVERYBODY - LEAVERS)
    assert nightly.sent(since=seen) == []
