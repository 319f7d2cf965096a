"""What the other side lost is sent again, slice by slice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.reassertion import Slice

LOST = {"status": 201, "body": {"message": "success"}, "applied": False, "endpoint": "cohort-users"}
EVERYBODY = [f"user-{number}" for number in range(60)]


def nights(nightly, number, wanted=EVERYBODY, share=0.25):
    """Run so many nights; return the reports."""
    reports = []
    for _ in range(number):
        nightly.night = getattr(nightly, "night", 0) + 1
        reports.append(nightly.run(wanted, f"night-{nightly.night}", reassert_share=share))
    return reports


@given(st.integers(0, 50), st.floats(0.001, 1))
def test_slices_come_in_turn(last, share):
    """So many plans in a row take every slice once."""
    seen = set()
    for _ in range(Slice.after(last, share, everybody=False).of):
        slice_ = Slice.after(last, share, everybody=False)
        last = slice_.number
        seen.add(last)
    assert seen == set(range(slice_.of))


def test_without_a_share_nothing_is_sent_again(nightly):
    nights(nightly, 2, share=0)
    assert nightly.sent().count(("cohort-users", 201)) == 1


def test_members_whom_braze_lost_are_back_within_the_slices(nightly):
    nights(nightly, 1)
    nightly.sandbox.faults(next=[LOST])
    nightly.run([*EVERYBODY, "user-100", "user-101", "user-102"], "loses", reassert_share=0.25)
    lost = {*EVERYBODY, "user-100", "user-101", "user-102"} - nightly.members()
    assert lost >= {"user-100", "user-101", "user-102"}
    reports = nights(nightly, 4, [*EVERYBODY, "user-100", "user-101", "user-102"])
    assert nightly.members() == {*EVERYBODY, "user-100", "user-101", "user-102"}
    assert sum(report["waterfall"]["asserted_again"] for report in reports) == 63, "each once"
    assert all(report["waterfall"]["removes"] == 0 for report in reports)


def test_removals_that_braze_lost_heal(nightly):
    nights(nightly, 1)
    nightly.sandbox.faults(next=[LOST])
    nightly.run(EVERYBODY[10:], "loses", reassert_share=0)
    assert nightly.members() == set(EVERYBODY)
    nights(nightly, 4, EVERYBODY[10:])
    assert nightly.members() == set(EVERYBODY[10:])


def test_removals_of_a_run_that_died_heal_too(nightly):
    nights(nightly, 1)
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[LOST, {"status": 500, "endpoint": "cohort-users"}])
    with pytest.raises(HeapBrazeError):
        nights(nightly, 1, [*EVERYBODY[10:], "user-100"])
    nightly.retry = usual
    nights(nightly, 1, EVERYBODY[10:])
    assert nightly.members() == set(EVERYBODY[10:])


def test_force_full_removes_them_at_once(nightly):
    nights(nightly, 1)
    nightly.sandbox.faults(next=[LOST])
    nightly.run(EVERYBODY[10:], "loses")
    report = nightly.run(EVERYBODY[10:], "heals", force_full=True)
    assert nightly.members() == set(EVERYBODY[10:])
    assert report["waterfall"]["asserted_again"] == 60


def test_who_came_back_is_not_removed_again(nightly):
    nights(nightly, 1)
    nights(nightly, 1, EVERYBODY[10:])
    nights(nightly, 5, EVERYBODY)
    assert nightly.members() == set(EVERYBODY)


def test_removed_aliases_are_left_alone(nightly):
    """By now an alias may be of somebody who is wanted under another identifier."""
    rows = [["", "mail-1", "", "true"], ["", "mail-2", "", "true"]]
    nightly.run(rows, "first")
    nightly.run(rows[:1], "second")
    report = nightly.run(rows[:1], "third", force_full=True)
    assert (report["waterfall"]["adds"], report["waterfall"]["removes"]) == (1, 0)


def test_guards_do_not_count_what_is_asserted_again(nightly):
    strict = Guards(max_removed=0, max_added=0)
    nights(nightly, 1)
    nightly.run(EVERYBODY[30:], "half of them leave")
    report = nightly.run(EVERYBODY[30:], "again", force_full=True, guards=strict)
    assert report["waterfall"]["removes"] == 30


@pytest.mark.parametrize("share", [1, 1 / 3])
def test_a_died_run_does_not_break_the_cycle(nightly, share):
    nights(nightly, 1, share=share)
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"count": 1, "status": 500, "endpoint": "cohort-users"}])
    with pytest.raises(HeapBrazeError):
        nightly.run(EVERYBODY, "dies", reassert_share=share)
    nightly.sandbox.faults()
    nightly.retry = usual
    reports = nights(nightly, 3, share=share)
    assert sum(report["waterfall"]["adds"] for report in reports) >= 60
