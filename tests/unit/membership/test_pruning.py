"""What is old goes; what the present and the undo of newer runs need stays."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from uuid import uuid4

import pytest
from upath import UPath

from airflow_provider_heapbraze import ledger_folder
from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.ledger_check.check import check
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError, log_name
from airflow_provider_heapbraze.membership import pruning, sync
from airflow_provider_heapbraze.membership.attempts import begin_attempt
from airflow_provider_heapbraze.membership.damping import Damping
from airflow_provider_heapbraze.membership.delivery import Delivery
from airflow_provider_heapbraze.membership.dialects import dialect_of
from airflow_provider_heapbraze.membership.errors import StalePlanError
from airflow_provider_heapbraze.membership.ledger import found_target
from airflow_provider_heapbraze.membership.planning import make_plan
from airflow_provider_heapbraze.membership.pruning import prune
from airflow_provider_heapbraze.membership.restoring import find_run
from airflow_provider_heapbraze.membership.table_records import TableRecord
from airflow_provider_heapbraze.overview import targets
from tests.unit.membership.conftest import ANYTHING_GOES

NIGHTS = 5


def people(*numbers):
    return {f"user-{number}" for number in numbers}


def root_of(nightly):
    return nightly.folder / "ledger"


def wanted(night):
    """Give who is wanted: each night somebody leaves, and somebody comes."""
    return people(*range(night, night + 10))


def let_nights_pass(nightly, nights=NIGHTS):
    """Give the moments after each night."""
    moments = []
    for night in range(1, nights + 1):
        nightly.run(sorted(wanted(night)), f"dag/night-{night}/import")
        moments.append(datetime.now(UTC))
    return moments


def findings(nightly):
    return [finding for account in check(root_of(nightly), deep=True) for finding in account.findings]


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def fingerprints(nightly):
    return {path.name for path in (root_of(nightly) / "matches").iterdir()}


@pytest.fixture
def pruned(nightly):
    """Five nights, of which the last two are kept."""
    moments = let_nights_pass(nightly)
    before = files_of(root_of(nightly))
    nightly.found = prune(root_of(nightly), moments[2], nightly.access)
    nightly.gone = before - files_of(root_of(nightly))
    return nightly


def test_old_runs_are_gone_and_counted(pruned):
    assert (pruned.found.runs, pruned.found.matches, pruned.found.left) == (3, 3, [])
    assert pruned.found.files >= len({name for name in pruned.gone if "/log/" not in name})
    assert pruned.found.bytes > 0
    log = sorted(path.name for path in pruned.ledger.path("log").iterdir())
    assert log == [f"{number:08d}.json" for number in (7, 8, 9, 10)]
    plans = {path.name for path in pruned.ledger.path("plans").iterdir()}
    assert {plan[:8] for plan in plans} >= {"00000007", "00000009"}
    assert len(list(pruned.ledger.path("snapshots").iterdir())) == 3  # the first that is kept began from one
    assert len(fingerprints(pruned)) == 2


def test_what_is_left_is_whole(pruned):
    assert findings(pruned) == []


def test_reports_of_old_runs_stay(pruned):
    assert len(list(pruned.ledger.path("reports").glob("*.json"))) == NIGHTS


def test_the_next_night_is_exact_and_sends_only_what_changed(pruned):
    seen = len(pruned.sent())
    report = pruned.run(sorted(wanted(6)), "dag/night-6/import")
    assert pruned.members() == wanted(6)
    assert (report["waterfall"]["adds"], report["waterfall"]["removes"]) == (1, 1)
    assert len(pruned.sent(since=seen)) == 2


def test_runs_that_are_kept_can_be_undone_and_older_ones_are_refused(pruned):
    pruned.restore("dag/night-4/import")
    assert pruned.members() == wanted(4)
    with pytest.raises(
        ConfigurationError, match=r"No run .* was pruned, and is gone\. Give one of: .*dag/night-5"
    ):
        find_run(pruned.ledger, "dag/night-3/import")


def test_of_what_is_all_old_the_present_stays(nightly):
    let_nights_pass(nightly)
    prune(root_of(nightly), datetime.now(UTC), nightly.access)
    assert findings(nightly) == []
    assert len(fingerprints(nightly)) == 1
    nightly.run(sorted(wanted(6)), "dag/night-6/import")
    assert nightly.members() == wanted(6)


def test_again_there_is_nothing_to_remove(pruned):
    again = prune(root_of(pruned), datetime.now(UTC) - timedelta(days=1), pruned.access)
    assert (again.runs, again.files, again.matches) == (0, 0, 0)


def test_as_nights_go_on_it_goes_on(pruned):
    moments = [datetime.now(UTC)]
    for night in range(6, 9):
        pruned.run(sorted(wanted(night)), f"dag/night-{night}/import")
        moments.append(datetime.now(UTC))
    assert prune(root_of(pruned), moments[1], pruned.access).runs == 3
    assert findings(pruned) == []
    assert pruned.members() == wanted(8)


def left_unfinished(nightly, run_id):
    """Let a run die, and give its plan."""
    nightly.sandbox.faults(next=[{"kind": "5xx-after", "endpoint": "cohort-users"}])
    usual, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    with pytest.raises(HeapBrazeError):
        nightly.run(sorted(wanted(7)), run_id)
    nightly.retry = usual
    return nightly.ledger.last()


def test_a_run_that_died_goes_on_where_it_stopped(nightly):
    let_nights_pass(nightly, 3)
    plan = left_unfinished(nightly, "dag/night-4/import")
    prune(root_of(nightly), datetime.now(UTC), nightly.access)
    assert nightly.run(sorted(wanted(7)), "dag/night-4/import")["plan_id"] == plan.plan_id
    assert nightly.members() == wanted(7)
    assert findings(nightly) == []


def drafted(nightly, night):
    return make_plan(nightly.ledger, nightly.ledger.last(), nightly.request(sorted(wanted(night)), "plan"))


def test_a_plan_that_waits_for_its_import_stays(nightly):
    let_nights_pass(nightly, 2)
    moment = datetime.now(UTC)
    draft = drafted(nightly, 3)
    prune(root_of(nightly), moment, nightly.access)
    with nightly.client() as client:
        nightly.sync(client).apply(draft.plan_id, "dag/night-3/import", ANYTHING_GOES)
    assert nightly.members() == wanted(3)


def test_of_plans_that_nobody_carries_out_the_old_ones_go(nightly):
    let_nights_pass(nightly, 1)
    drafted(nightly, 2)
    moment = datetime.now(UTC)
    kept = drafted(nightly, 3)
    found = prune(root_of(nightly), moment, nightly.access)
    assert (found.runs, found.matches) == (0, 1)
    assert nightly.ledger.drafts(after=nightly.ledger.last().number) == [kept.plan_id]
    assert findings(nightly) == []


def test_who_lost_the_place_long_ago_does_not_go_on(nightly, monkeypatch):
    """It slept for so long that what took over is pruned."""
    monkeypatch.setattr(sync, "LOSER_STOPS_WITHIN", 0)
    let_nights_pass(nightly, 2)
    plan = left_unfinished(nightly, "dag/sleeper/import")
    attempt = begin_attempt(nightly.ledger, plan)
    let_nights_pass(nightly, 5)
    prune(root_of(nightly), datetime.now(UTC), nightly.access)
    with pytest.raises(PlaceLostError, match="long ago"):
        attempt.check()
    with pytest.raises(PlaceLostError, match="long ago"):
        nightly.ledger.append(replace(plan, number=plan.number + 1))
    nightly.ledger.take_place(plan.number, {"kind": "plan", **asdict(plan)})  # it fell asleep after it looked
    assert findings(nightly) == []
    seen = len(nightly.sent())
    with nightly.client() as client, pytest.raises(PlaceLostError, match="long ago"):
        Delivery(nightly.ledger, plan, nightly.sender(client)).run()
    assert nightly.sent(since=seen) == []
    nightly.run(sorted(wanted(6)), "dag/night-6/import")
    assert nightly.members() == wanted(6)
    prune(root_of(nightly), datetime.now(UTC), nightly.access)
    assert not nightly.ledger.is_taken(plan.number)


def test_a_plan_that_is_pruned_is_out_of_date(nightly):
    draft = make_plan(nightly.ledger, None, nightly.request(sorted(wanted(1)), "plan"))
    let_nights_pass(nightly, 3)
    prune(root_of(nightly), datetime.now(UTC), nightly.access)
    with nightly.client() as client, pytest.raises(StalePlanError, match="out of date"):
        nightly.sync(client).apply(draft.plan_id, "dag/night-9/import", ANYTHING_GOES)


def test_removals_that_are_old_are_still_repeated(nightly):
    let_nights_pass(nightly)
    prune(root_of(nightly), datetime.now(UTC), nightly.access)
    seen = len(nightly.sent())
    report = nightly.run(sorted(wanted(5)), "dag/night-6/import", reassert_share=1)
    assert report["waterfall"]["removes"] == 4  # user-1 to user-4, who left in the nights that are gone
    assert len(nightly.sent(since=seen)) == 2
    assert nightly.members() == wanted(5)


def test_a_match_that_another_target_needs_stays(nightly):
    let_nights_pass(nightly, 2)
    other = type(nightly)(nightly.sandbox, nightly.folder, "attribute")
    other.run(sorted(wanted(1)), "dag/night-1/attribute")
    let_nights_pass(nightly, 3)
    assert prune(root_of(nightly), datetime.now(UTC), nightly.access).matches == 1
    assert findings(nightly) == []
    other.run(sorted(wanted(2)), "dag/night-2/attribute")
    assert other.members() == wanted(2)


def test_a_match_that_is_not_imported_yet_stays(nightly):
    (moment, *_) = let_nights_pass(nightly, 2)
    match = nightly.match(sorted(wanted(9)))
    prune(root_of(nightly), moment, nightly.access)
    assert match.fingerprint in fingerprints(nightly)


def test_of_a_damaged_target_nothing_is_removed_nor_any_match(nightly):
    let_nights_pass(nightly)
    nightly.ledger.path(log_name(2 * NIGHTS - 1)).write_bytes(b"{")
    before = files_of(root_of(nightly))
    found = prune(root_of(nightly), datetime.now(UTC), nightly.access)
    assert found.left == [nightly.ledger.folder.name]
    assert files_of(root_of(nightly)) == before


def test_an_old_entry_that_cannot_be_read_goes_with_the_others(nightly):
    let_nights_pass(nightly)
    nightly.ledger.path(log_name(4)).write_bytes(b"{")
    found = prune(root_of(nightly), datetime.now(UTC), nightly.access)
    assert (found.left, nightly.ledger.log_numbers()) == ([], [2 * NIGHTS - 1, 2 * NIGHTS])
    assert findings(nightly) == []
    nightly.run(sorted(wanted(6)), "dag/night-6/import")
    assert nightly.members() == wanted(6)


def test_a_young_entry_that_cannot_be_read_stays(nightly):
    moments = let_nights_pass(nightly)
    nightly.ledger.path(log_name(4)).write_bytes(b"{")
    found = prune(root_of(nightly), moments[0], nightly.access)
    assert (found.left, found.files) == ([nightly.ledger.folder.name], 0)


def test_a_ledger_without_a_target_is_left_alone(tmp_path):
    (tmp_path / "sources").mkdir()
    assert prune(tmp_path, datetime.now(UTC), None).files == 0


def test_recovery_knows_whom_the_old_runs_had_added(pruned):
    # user-13 came with night 4, user-6 to user-10 with the first, which is gone
    newest = max(pruned.ledger.path("snapshots").iterdir())
    newest.unlink()
    with pytest.raises(LedgerDamagedError):
        pruned.run(["user-5"], "dag/night-6/import")
    report = pruned.run(["user-5"], "dag/night-6/import", force_full=True)
    assert pruned.members() == people(5)
    assert report["recovery"] == {"plans": 2, "lost": 0}


def test_recovery_says_that_nothing_tells_of_the_old_runs(pruned):
    for snapshot in pruned.ledger.path("snapshots").iterdir():
        snapshot.unlink()
    report = pruned.run(["user-5"], "dag/night-6/import", force_full=True)
    assert report["recovery"] == {"plans": 3, "lost": 1}


@pytest.mark.parametrize("pruned", [False, True])
def test_one_damaged_file_of_a_steady_cohort(nightly, pruned):
    """The snapshot is also what the oldest run that is kept began from."""
    let_nights_pass(nightly, 3)
    nightly.run(sorted(wanted(3)), "dag/night-4/import")
    if pruned:
        prune(root_of(nightly), datetime.now(UTC), nightly.access)
    nightly.ledger.path(nightly.ledger.last().snapshot).unlink()
    report = nightly.run(["user-5"], "dag/night-5/import", force_full=True)
    assert nightly.members() == people(5)
    assert report["recovery"]["lost"] == pruned  # it cannot know that what is left says it all


@pytest.mark.parametrize("pruned", [False, True])
def test_recovery_repeats_the_same_removals(nightly, pruned):
    let_nights_pass(nightly)
    if pruned:
        prune(root_of(nightly), datetime.now(UTC), nightly.access)
    nightly.ledger.path(nightly.ledger.last().snapshot).unlink()
    report = nightly.run(sorted(wanted(NIGHTS)), "dag/night-6/import", force_full=True)
    assert report["waterfall"]["removes"] == 4


@pytest.mark.parametrize("lost", ["log", "log plans", "log snapshots", "log plans snapshots"])
def test_who_lost_more_than_a_file_goes_on_by_force(nightly, lost):
    let_nights_pass(nightly, 3)
    prune(root_of(nightly), datetime.now(UTC), nightly.access)
    for folder in lost.split():
        shutil.rmtree(nightly.ledger.path(folder))
    with pytest.raises(LedgerDamagedError, match=r"from entry 5 on|whose plan had begun"):
        nightly.run(sorted(wanted(4)), "dag/night-6/import")
    nightly.run(sorted(wanted(4)), "dag/night-6/import", force_full=True)
    stays = nightly.members() - wanted(4)
    assert not stays or "plans" in lost
    assert nightly.ledger.last().number > 5


def test_a_match_made_again_waits_for_its_import(nightly):
    """People of long ago are wanted again: their match is there, and is not old any more."""
    let_nights_pass(nightly)
    moment = datetime.now(UTC)
    request = nightly.request(sorted(wanted(1)), "dag/tonight/import")
    assert prune(root_of(nightly), moment, nightly.access).matches == 3
    with nightly.client() as client:
        nightly.sync(client).run(request, ANYTHING_GOES)
    assert nightly.members() == wanted(1)


def test_an_import_of_people_of_long_ago_while_it_prunes(nightly, monkeypatch):
    """Who is one person must be known of them, too: it is in the match."""
    both, alias, other, third = (
        [*identifiers, "", "true"]
        for identifiers in (("user-1", "mail-1"), ("", "mail-1"), ("user-2", ""), ("user-3", ""))
    )
    aliases = [{"alias_name": "mail-1", "alias_label": "email"}]
    nightly.sandbox.add_users([{"external_id": "user-1", "aliases": aliases}])

    def run(night, *rows):
        how = {"damping": Damping(runs=2), "as_of": f"2026-11-0{night}"}
        nightly.run(rows, f"dag/night-{night}/import", **how)

    for night, rows in enumerate([(both, other), (other,), (other, third), (other,)], 1):
        run(night, *rows)
    moment, cut = datetime.now(UTC), pruning._cut

    def beside(target):
        run(5, both, other)
        return cut(target)

    monkeypatch.setattr(pruning, "_cut", beside)
    prune(root_of(nightly), moment, nightly.access)
    for night in (6, 7, 8):
        run(night, alias, other)
    assert nightly.members() == people(1, 2)


def test_a_listing_that_is_torn_while_it_prunes_is_no_damage(nightly, monkeypatch):
    """Neither a disk nor a store lists a folder at one moment."""
    moments, real = let_nights_pass(nightly, 6), ledger_folder.numbers

    def once(folder):
        monkeypatch.setattr(ledger_folder, "numbers", real)
        found = real(folder)
        prune(root_of(nightly), moments[3], nightly.access)
        return found[:2] + real(folder)

    monkeypatch.setattr(ledger_folder, "numbers", once)
    assert nightly.ledger.last().run_id == "dag/night-6/import"


def test_on_a_disk_that_is_named_like_a_store(nightly):
    let_nights_pass(nightly, 3)
    nightly.run(sorted(wanted(3)), "dag/night-4/import")
    assert prune(UPath(f"file://{root_of(nightly)}"), datetime.now(UTC), nightly.access).runs == 3
    assert findings(nightly) == []


def test_of_old_plans_whose_removals_are_repeated_nothing_else_stays(nightly):
    let_nights_pass(nightly)
    prune(root_of(nightly), datetime.now(UTC), nightly.access)
    (oldest, *_) = sorted(nightly.ledger.path("plans").iterdir())
    assert {name for name in files_of(oldest) if not name.startswith("attempts/")} == {
        "plan.json",
        "changes.parquet",
    }


class Cut(BaseException):
    """The process is killed."""


@pytest.mark.parametrize("deed", [1, 2, 4, 7, 12, 20])
def test_whenever_it_is_killed_the_record_is_whole_and_the_next_one_ends_it(nightly, monkeypatch, deed):
    moments = let_nights_pass(nightly)
    unlink, done = os.unlink, iter(range(deed))

    def once(path, *args, **kwargs):
        if next(done, None) is None:
            raise Cut
        unlink(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", once)
        with pytest.raises(Cut):
            prune(root_of(nightly), moments[2], nightly.access)
    assert nightly.ledger.last().number == 2 * NIGHTS
    nightly.run(sorted(wanted(6)), "dag/night-6/import")
    assert nightly.members() == wanted(6)
    prune(root_of(nightly), moments[2], nightly.access)
    assert findings(nightly) == []
    assert nightly.ledger.first_kept() == min(
        int(path.name[:8]) for path in nightly.ledger.path("log").iterdir()
    )
    assert len({file.parent for file in (root_of(nightly) / "matches").rglob("*.*")}) == 3


def test_a_new_match_that_has_no_file_yet_keeps_its_folder(pruned):
    new, old = (root_of(pruned) / "matches" / name for name in ("new", "old"))
    new.mkdir()
    old.mkdir()
    os.utime(old, (1_000, 1_000))
    prune(root_of(pruned), datetime.now(UTC) - timedelta(days=1), pruned.access)
    assert new.exists()
    assert not old.exists()


def test_no_folder_is_left_empty(pruned):
    empty = [path for path in root_of(pruned).rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert empty == []


def test_in_an_object_store(nightly):
    moments = let_nights_pass(nightly)
    store = UPath(f"memory://{uuid4().hex}/ledger")
    for path in root_of(nightly).rglob("*"):
        if path.is_file():
            (store / path.relative_to(root_of(nightly)).as_posix()).write_bytes(path.read_bytes())
    found = prune(store, moments[2], None)
    local = prune(root_of(nightly), moments[2], None)
    assert (found.runs, found.left) == (local.runs, [])
    assert [finding for account in check(store, deep=True) for finding in account.findings] == []
    ledger = found_target(store, nightly.ledger.folder.name)
    assert ledger.first_kept() == nightly.ledger.first_kept()
    assert ledger.last() == nightly.ledger.last()


def test_what_is_shown_on_the_page_is_what_is_left(pruned):
    with ThreadPoolExecutor(1) as pool:
        runs = targets.runs(root_of(pruned), pruned.ledger.folder.name, 100, pool)
        assert [run.run_id for run in runs] == ["dag/night-5/import", "dag/night-4/import"]
        gone = targets.run_of(root_of(pruned), pruned.ledger.folder.name, "dag/night-1/import", pool)
    assert gone is None
    assert Path(runs[-1].report["report_uri"].removeprefix("file://")).exists()


class OneAtATime:
    """A warehouse that notices who opens it while it is open: Airflow 3.1 mixes up what threads ask it."""

    def __init__(self):
        self.open = Lock()
        self.times = 0

    @contextmanager
    def database(self, conn_id):
        assert self.open.acquire(blocking=False), "somebody else is asking for a connection"
        self.times += 1
        time.sleep(0.02)
        try:
            yield SimpleNamespace(conn_id=conn_id, dialect=dialect_of("postgres", conn_id), run=lambda _: [])
        finally:
            self.open.release()


def test_connections_are_asked_for_one_after_the_other(tmp_path):
    for number in range(8):
        file = tmp_path / "matches" / f"match-{number}" / f"identifiers-{number}.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(TableRecord("warehouse", f"identifiers_{number}", ["kind"], 1).written())
        os.utime(file, (1_000, 1_000))
    access = OneAtATime()
    assert prune(tmp_path, datetime.now(UTC), access).tables == access.times == 8
