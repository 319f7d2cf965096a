"""What is shown of a ledger: all of it at a glance, and the runs of one record."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace

import pytest

from airflow_provider_heapbraze.membership.errors import GuardBreachedError
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.overview import targets
from airflow_provider_heapbraze.overview.index import Index
from airflow_provider_heapbraze.segments.verification import last_commit, write_verification
from tests.unit.ledger_check.test_check import make_source
from tests.unit.overview import ledgers
from tests.unit.overview.conftest import people

pytestmark = pytest.mark.usefixtures("at_once")


def only(index):
    (summary,) = index.summaries()
    return summary


def detail(index):
    return index.detail(only(index))


def test_a_cohort_at_a_glance(nightly):
    nightly.run(people(range(5, 33)), "cohorts/run-2/import")
    summary = only(Index(nightly.folder / "ledger"))
    assert (summary.kind, summary.name, summary.key) == ("cohort", "Cohort", "cohort-under-test")
    assert (summary.state, summary.number, summary.dag_id) == ("whole", 4, "cohorts")
    assert (summary.size, summary.adds, summary.removes, summary.trend) == (28, 3, 5, [30, 28])
    assert (summary.match_rate, summary.verified) == (1.0, None)
    assert summary.at


def test_the_runs_of_a_cohort(nightly):
    nightly.run(people(range(5, 33)), "cohorts/run-2/import")
    found = detail(Index(nightly.folder / "ledger"))
    assert [(run.run_id, run.state) for run in found.runs] == [
        ("cohorts/run-2/import", "finished"),
        ("cohorts/run-1/import", "finished"),
    ]
    newest, first = found.runs
    assert (newest.size, newest.adds, newest.removes, newest.match_rate) == (28, 3, 5, 1.0)
    assert (first.size, first.adds, first.removes) == (30, 30, 0)
    assert first.match_rate == 30 / 31
    assert first.requests_per_second > 0


def test_people_who_are_only_sent_again_do_not_count_as_change(nightly):
    nightly.run(people(range(31)), "cohorts/run-2/import", force_full=True)
    summary = only(Index(nightly.folder / "ledger"))
    assert (summary.size, summary.adds, summary.removes) == (31, 1, 0)


def test_nobody_is_named(nightly):
    index = Index(nightly.folder / "ledger")
    found = detail(index)
    shown = json.dumps([asdict(found.summary), [asdict(run) for run in found.runs]])
    assert "user-" not in shown


def test_an_unfinished_plan(nightly, leave_unfinished):
    leave_unfinished()
    index = Index(nightly.folder / "ledger")
    summary, found = only(index), detail(index)
    assert (summary.state, summary.name) == ("unfinished", "Another name")
    assert summary.run_id == "cohorts/run-2/import"
    assert [run.state for run in found.runs] == ["open", "finished"]
    assert (found.runs[0].adds, found.runs[0].removes, found.runs[0].report) == (5, 5, None)
    assert "0 of 10 changes are settled" in found.account.next[0]


def test_a_run_that_was_taken_over(nightly, leave_unfinished):
    leave_unfinished()
    nightly.run(people(range(40)), "cohorts/run-3/import")
    found = detail(Index(nightly.folder / "ledger"))
    assert [run.state for run in found.runs] == ["finished", "taken over", "finished"]


def test_the_next_look_sees_what_has_come(nightly, leave_unfinished):
    index = Index(nightly.folder / "ledger")
    assert only(index).size == 30
    leave_unfinished()
    assert only(index).state == "unfinished"
    nightly.run(people(range(5, 35)), "cohorts/run-2/import", name="Another name")
    assert (only(index).state, only(index).adds) == ("whole", 5)
    ledgers.cohort(index.root, "another-cohort")
    assert len(index.summaries()) == 2


def test_what_is_known_is_not_read_again(nightly):
    index = Index(nightly.folder / "ledger")
    before = only(index)
    shutil.rmtree(nightly.ledger.path("reports"))
    assert only(index) == before


def test_a_verification(nightly):
    index = Index(nightly.folder / "ledger")
    assert only(index).verified is None
    found = {"check": "segment", "in_segment": 29, "held": 30, "found": 28, "missing": 1, "surplus": 1}
    found |= {"unknown": 1, "not_checkable": 0, "not_looked_up": 0}
    write_verification(nightly.ledger, last_commit(nightly.ledger), found)
    verified = only(index).verified
    assert (verified.number, verified.checked, verified.wrong, verified.unknown) == (2, 30, 2, 1)
    assert detail(index).runs[0].verified == verified


def test_of_several_verifications_the_last_one_counts(nightly):
    """Their names do not tell."""
    found = {"check": "existence", "unknown": 0, "not_checkable": 0, "claim": "All exist."}
    for sample in range(1, 9):
        write_verification(nightly.ledger, last_commit(nightly.ledger), {**found, "sample": sample})
    index = Index(nightly.folder / "ledger")
    assert only(index).verified.checked == detail(index).runs[0].verified.checked == 8


@pytest.mark.parametrize("lost", ["log/00000002.json", "log/00000003.json", "reports", "snapshots"])
def test_damage_is_seen_at_a_glance(nightly, lost):
    nightly.run(people(range(5, 33)), "cohorts/run-2/import")
    path = nightly.ledger.path(lost)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    summary = only(Index(nightly.folder / "ledger"))
    assert (summary.state, summary.dag_id) == ("damaged", "cohorts")


def test_damage_that_only_a_close_look_finds_stays_known(nightly, leave_unfinished):
    leave_unfinished()
    index = Index(nightly.folder / "ledger")
    next(nightly.ledger.path("plans").glob("00000003-*/changes.parquet")).unlink()
    found = detail(index)
    assert "changes.parquet is missing" in found.account.findings[0].what
    assert only(index).state == "damaged"


def test_a_plan_that_a_guard_stopped(nightly):
    with pytest.raises(GuardBreachedError):
        nightly.run(people(range(3)), "cohorts/run-2/import", Guards(max_removed_share=0.1))
    index = Index(nightly.folder / "ledger")
    run = index.run("targets", only(index).folder, "cohorts/run-2/import")
    assert (run.state, run.removes) == ("not carried out", 27)
    (breach,) = run.shown()["breaches"]
    assert (breach["guard"], breach["allowance"]) == ("max_removed_share", "max_removed_share=0.9")
    assert index.run("targets", only(index).folder, "cohorts/run-9/import") is None


def test_a_plan_that_waits_is_seen_until_a_later_run_has_its_place(nightly):
    with pytest.raises(GuardBreachedError):
        nightly.run(people(range(3)), "cohorts/run-2/import", Guards(max_removed_share=0.1))
    index = Index(nightly.folder / "ledger")
    for summary in (only(index), detail(index).summary, only(index)):
        assert (summary.state, summary.waiting.run_id) == ("whole", "cohorts/run-2/import")
        assert (summary.shown_state, summary.shown()["state"]) == ("a plan waits", "a plan waits")
        assert summary.seen_by(["another"]).shown_state == "whole"
    assert [run.state for run in detail(index).runs] == ["not carried out", "finished"]
    nightly.run(people(range(3)), "cohorts/run-3/import")
    assert only(Index(index.root)).waiting is None
    assert [run.state for run in detail(index).runs] == ["finished", "finished"]


@pytest.mark.parametrize("folder", ["..", ".", "", "../targets", "a/b", ".hidden", "nothing"])
def test_what_is_asked_for_is_a_record_or_nothing(nightly, folder):
    (nightly.folder / "ledger" / "targets" / ".hidden").mkdir()
    index = Index(nightly.folder / "ledger")
    assert index.summary("targets", folder) is None
    assert index.summary("matches", next((nightly.folder / "ledger" / "matches").iterdir()).name) is None


def test_two_requests_are_one_gap(nightly):
    (run,) = detail(Index(nightly.folder / "ledger")).runs
    sent = {"requests": 21}
    assert replace(run, report={"requests": sent, "seconds": 20.0}).requests_per_second == 1
    assert replace(run, report={"requests": {"requests": 1}, "seconds": 0.1}).requests_per_second is None


def test_a_store_that_is_away_for_a_moment_takes_nothing_away(nightly, leave_unfinished):
    """Of a record that cannot be read now, what was known is shown."""
    leave_unfinished()
    index = Index(nightly.folder / "ledger")
    before = only(index)
    log = nightly.ledger.path("log")
    log.rename(log.with_name("away"))
    log.symlink_to(log)
    assert only(index) == before
    log.unlink()
    log.with_name("away").rename(log)
    nightly.run(people(range(5, 35)), "cohorts/run-2/import", name="Another name")
    assert only(index).state == "whole"


def test_a_run_of_long_ago_is_found(tmp_path):
    folder = ledgers.cohort(tmp_path, "old", nights=150)
    index = Index(tmp_path)
    assert len(detail(index).runs) == 100
    run = index.run("targets", folder.name, "heap_cohorts/scheduled__2026-06-28/import")
    assert (run.number, run.state) == (2, "finished")


def test_a_source(tmp_path):
    counts = {"events": 3, "sent": 2, "duplicates": 1, "anonymous": 0, "filtered": 0, "rejected": 0}
    counts |= {"files": 1}
    report = {**counts, "finished_at": "2026-11-24T02:30:00+00:00", "set_aside": [], "filtered_by": {}}
    report |= {"rejected_by": {}, "seconds": 1.5, "requests": {"requests": 1}}
    make_source(tmp_path, "events/run-1/export", report_more=report)
    index = Index(tmp_path)
    summary, found = only(index), detail(index)
    assert (summary.kind, summary.name, summary.dag_id) == ("source", "currents", "events")
    assert (summary.state, summary.trend) == ("whole", [2])
    assert summary.events == {**counts, "set_aside": 0}
    assert [(run.run_id, run.state) for run in found.runs] == [("events/run-1/export", "finished")]


def test_a_source_whose_run_did_not_end(tmp_path):
    make_source(tmp_path, "events/run-1/export", report=False)
    index = Index(tmp_path)
    for path in tmp_path.glob("sources/*/log/*"):
        os.utime(path, (1, 1))  # as a copy of the ledger has another
    assert (only(index).state, only(index).events) == ("unfinished", None)
    (run,) = detail(index).runs
    assert run.state == "open"
    assert run.at == only(index).at > "2026"


def test_an_empty_ledger(tmp_path):
    index = Index(tmp_path / "nothing")
    assert index.summaries() == []
    assert index.summary("targets", "nothing") is None


def test_a_ledger_that_cannot_be_read_is_said_and_tried_again(nightly, tmp_path):
    root = tmp_path / "mounted"
    root.symlink_to(root)
    index = Index(root)
    with pytest.raises(OSError, match="symbolic links"):
        index.summaries()
    root.unlink()
    root.symlink_to(nightly.folder / "ledger")
    assert only(index).size == 30


def test_a_target_without_an_entry_belongs_to_its_draft(nightly):
    shutil.rmtree(nightly.ledger.path("log"))
    summary = targets.summarise(nightly.folder / "ledger", nightly.ledger.folder.name)
    assert (summary.number, summary.state, summary.dag_id) == (0, "unfinished", "cohorts")
    assert summary.shown_state == "a plan waits"
