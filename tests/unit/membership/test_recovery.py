"""A damaged ledger stops a run; ``force_full`` and restoring go on from whatever is still there."""

from __future__ import annotations

import shutil

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.restoring import find_run

ANYTHING_GOES = Guards(max_removed_share=None, allow_empty=True, max_size_factor=None)


def people(*numbers):
    return {f"user-{number}" for number in numbers}


EVERYBODY = people(*range(30))


def newest(nightly, pattern):
    return max(nightly.ledger.folder.glob(pattern))


def tear(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.fixture
def three_nights(nightly):
    """A cohort with a past: ``user-0`` came and went, ``user-1`` is held, ``user-2`` never was."""
    nightly.run(sorted(EVERYBODY - people(2)), "dag/night-1/import")
    nightly.run(sorted(EVERYBODY - people(0, 2)), "dag/night-2/import")
    nightly.run(sorted(EVERYBODY - people(0, 2, 3)), "dag/night-3/import")
    return nightly


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "snapshot flipped": lambda nightly: flip_a_bit(newest(nightly, "snapshots/*")),
    "snapshot torn": lambda nightly: tear(newest(nightly, "snapshots/*")),
    "snapshot gone": lambda nightly: newest(nightly, "snapshots/*").unlink(),
    "last entry torn": lambda nightly: tear(newest(nightly, "log/*.json")),
    "an entry gone": lambda nightly: nightly.ledger.path("log/00000004.json").unlink(),
    "last entries gone": lambda nightly: [
        nightly.ledger.path(f"log/0000000{number}.json").unlink() for number in (5, 6)
    ],
    "the whole log gone": lambda nightly: [file.unlink() for file in nightly.ledger.path("log").iterdir()],
}


@pytest.fixture(params=DAMAGES)
def damaged(request, three_nights):
    DAMAGES[request.param](three_nights)
    return three_nights


def test_a_run_stops_and_says_the_ways_on(damaged):
    seen = len(damaged.sent())
    with pytest.raises(LedgerDamagedError, match="Nothing was sent") as caught:
        damaged.run(sorted(EVERYBODY), "night-4")
    assert "force_full=True" in str(caught.value)
    assert "BrazeCohortRestoreOperator" in str(caught.value)
    assert damaged.sent(since=seen) == []


def test_force_full_makes_it_exact_and_whole(damaged):
    wanted = people(1, 2, *range(6, 30))
    report = damaged.run(sorted(wanted), "night-4", force_full=True)
    assert damaged.members() == wanted
    assert report["recovery"]["lost"] == 0
    assert report["size"] == len(wanted)
    seen = len(damaged.sent())
    assert damaged.run(sorted(wanted), "night-5")["size"] == len(wanted)
    assert damaged.sent(since=seen) == [], "from here on the ledger is whole again"


def test_only_whom_we_added_is_removed(damaged):
    seen = len(damaged.sandbox.requests())
    damaged.run(sorted(people(1)), "night-4", force_full=True)
    entries = [entry for entry in damaged.sandbox.requests()[seen:] if entry["endpoint"] == "cohort-users"]
    removed = sum(entry["ids"].get("removed", {}).get("user_ids", 0) for entry in entries)
    assert removed <= len(EVERYBODY - people(1, 2))


def test_a_run_before_is_restored_all_the_same(damaged):
    if not damaged.ledger.path("log/00000002.json").exists():
        with pytest.raises(ConfigurationError, match="none has ended yet"):
            find_run(damaged.ledger, "night-1")
        return
    damaged.restore("night-1")
    assert damaged.members() == EVERYBODY - people(2)


def test_guards_compare_with_the_newest_snapshot_that_is_left(damaged):
    """Whoever was removed long ago is removed again: that is no rash removal."""
    wanted = sorted(EVERYBODY - people(0, 2, 3))
    damaged.run(wanted, "night-4", force_full=True, guards=Guards(max_removed_share=0.1))
    assert damaged.members() == set(wanted)


def test_guards_stop_it_like_any_other(three_nights):
    newest(three_nights, "log/*.json").write_text("{")
    seen = len(three_nights.sent())
    with pytest.raises(HeapBrazeError, match="max_removed_share"):
        three_nights.run(sorted(people(1)), "night-4", force_full=True, guards=Guards())
    assert three_nights.sent(since=seen) == []


def test_a_plan_that_nobody_can_read_is_told_of(three_nights):
    for file in [
        *three_nights.ledger.path("snapshots").iterdir(),
        newest(three_nights, "plans/*/changes.parquet"),
    ]:
        file.unlink()
    report = three_nights.run(sorted(EVERYBODY), "night-4", force_full=True)
    assert report["recovery"] == {"plans": 3, "lost": 1}
    assert three_nights.members() == EVERYBODY


def test_a_plan_of_which_nothing_is_left_is_told_of(three_nights):
    [folder] = three_nights.ledger.path("plans").glob("00000005-*")
    shutil.rmtree(folder)
    for name in ("log/00000005.json", "log/00000006.json"):
        three_nights.ledger.path(name).unlink()
    for snapshot in three_nights.ledger.path("snapshots").glob("00000005-*"):
        snapshot.unlink()
    # Somebody began the next plan all the same.
    three_nights.ledger.take_place(7, {"kind": "plan"})
    report = three_nights.run(sorted(EVERYBODY), "night-4", force_full=True)
    assert report["recovery"] == {"plans": 5, "lost": 3}, "each place may have been a plan's"
    assert three_nights.members() == EVERYBODY


def test_the_first_plan_is_lost_and_the_newest_snapshot_tells(three_nights):
    [folder] = three_nights.ledger.path("plans").glob("00000001-*")
    shutil.rmtree(folder)
    for snapshot in three_nights.ledger.path("snapshots").glob("00000001-*"):
        snapshot.unlink()
    for name in ("log/00000001.json", "log/00000003.json"):
        three_nights.ledger.path(name).unlink()
    wanted = people(1, 10)
    report = three_nights.run(sorted(wanted), "night-4", force_full=True)
    assert report["recovery"]["lost"] == 1
    assert three_nights.members() == wanted


def test_guards_know_the_runs_before_all_the_same(three_nights):
    newest(three_nights, "snapshots/*").unlink()
    three_nights.run(sorted(EVERYBODY), "night-4", force_full=True)
    assert [size for size, _ in three_nights.ledger.last().memory.past] == [29, 28, 27, 30]


def test_it_dies_and_goes_on(damaged):
    wanted = sorted(people(1, *range(10, 30)))
    usual, damaged.retry = damaged.retry, RetryPolicy(attempts=1)
    damaged.sandbox.faults(next=[{"count": 9, "status": 500, "endpoint": "cohort-users"}])
    with pytest.raises(HeapBrazeError):
        damaged.run(wanted, "night-4", force_full=True)
    damaged.sandbox.faults()
    damaged.retry = usual
    damaged.run(wanted, "night-5")
    assert damaged.members() == set(wanted)


def test_undo(three_nights):
    report = three_nights.restore("dag/night-1/import")
    assert three_nights.members() == EVERYBODY - people(2)
    assert (report["waterfall"]["adds"], report["waterfall"]["removes"]) == (2, 0)
    three_nights.restore("night-3", "undo the undo", as_of="2026-11-26")
    assert three_nights.members() == EVERYBODY - people(0, 2, 3)


def test_undo_passes_guards(three_nights):
    three_nights.run(sorted(people(*range(100))), "dag/night-4/import", as_of="2026-11-25")
    with pytest.raises(HeapBrazeError, match="max_removed_share"):
        three_nights.restore("night-1", guards=Guards(), as_of="2026-11-26")
    assert len(three_nights.members()) == 100


def test_undo_of_nothing_sends_nothing(three_nights):
    seen = len(three_nights.sent())
    three_nights.restore("night-3")
    assert three_nights.sent(since=seen) == []


def test_an_unknown_run_is_answered_with_those_that_are_known(three_nights):
    with pytest.raises(ConfigurationError, match=r"No run .* dag/night-3/import \(27 people\)"):
        find_run(three_nights.ledger, "night-9")


def test_one_name_of_several_runs_is_refused(three_nights):
    three_nights.run(sorted(EVERYBODY), "dag/night-3/another_task", as_of="2026-11-25")
    with pytest.raises(ConfigurationError, match="Several runs"):
        find_run(three_nights.ledger, "night-3")


def test_another_identifier_of_the_same_person_stays(nightly):
    """Were it removed, Braze would take the person out of the cohort."""
    nightly.run([["", "mail-1", "", "true"]], "dag/night-1/import")
    nightly.run([["user-1", "mail-1", "", "true"]], "dag/night-2/import")
    nightly.run([["user-2", "", "", "true"]], "dag/night-3/import")
    report = nightly.restore("night-2")
    assert (report["waterfall"]["adds"], report["waterfall"]["removes"]) == (2, 1)
