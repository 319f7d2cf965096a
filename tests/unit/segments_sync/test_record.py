"""What is known is kept in the ledger: pages may go, runs may meet, and damage is told."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.segments_sync.record import SNAPSHOTS_KEPT, SegmentLedger
from tests.unit.segments_sync.pushing import BEFORE, HOUR, NIGHT, HeldClock, drain, moment, page, warnings


def files_of(pushed, kind):
    return sorted(Path(pushed.ledger).glob(f"segment-syncs/*/{kind}"))


def hours_read(pushed, monkeypatch):
    """Return the list that the names of listed folders will be put in."""
    from airflow_provider_heapbraze import storage

    listed, seen = storage.listed, []

    def watched(folder):
        seen.append(folder.name)
        return listed(folder)

    monkeypatch.setattr(storage, "listed", watched)
    return seen


def test_folded_pages_may_be_deleted(pushed):
    pushed.land(page("first", ["ann", "bob"]), at=0)
    pushed.land(page("second", ["cid"], ["ann"]), at=HOUR)
    before = pushed.fold()
    shutil.rmtree(pushed.folder)
    assert pushed.fold() == before == (["bob", "cid"], HOUR)
    pushed.land(page("third", ["ann"], ["cid"]), at=2 * HOUR)
    assert pushed.fold() == (["ann", "bob"], 2 * HOUR)


def test_what_was_folded_is_not_read_again(pushed):
    file = pushed.land(page("first", ["ann"]), at=0)
    pushed.members()
    file.write_bytes(b"nobody could read this")
    pushed.land(page("second", ["bob"]), at=1)
    assert pushed.members() == ["ann", "bob"]


def test_a_run_without_anything_new_writes_nothing(pushed):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.members()
    before = pushed.record()
    assert pushed.members() == ["ann"]
    assert pushed.record() == before


def test_old_hours_are_not_even_listed(pushed, monkeypatch):
    for day in range(3):
        pushed.land(page(f"day {day}", [f"user-{day}"]), at=24 * HOUR * day)
    pushed.clock = HeldClock(now=100 * HOUR)
    pushed.members()
    seen = hours_read(pushed, monkeypatch)
    pushed.land(page("late", ["late"]), at=24 * HOUR)  # as late as it may be
    assert pushed.members() == ["late", "user-0", "user-1", "user-2"]
    hours = [datetime.fromtimestamp(NIGHT / 1000 + 24 * HOUR * day, UTC) for day in range(3)]
    assert {f"date={hour:%Y-%m-%d-%H}" for hour in hours} - set(seen) == {f"date={hours[0]:%Y-%m-%d-%H}"}


def test_a_page_that_lands_late_does_not_undo_what_was_said_after_it(pushed):
    pushed.land(page("first", ["ann", "bob"]), at=0)
    pushed.land(page("third", ["bob"], ["ann"]), at=2 * HOUR)
    assert pushed.members() == ["bob"]
    pushed.land(page("second", ["ann"], ["bob"]), at=HOUR)
    assert pushed.fold() == (["bob"], 2 * HOUR)


def test_a_drain_is_remembered_when_its_page_is_gone(pushed):
    pushed.land(drain(), at=2 * HOUR)
    pushed.members()
    shutil.rmtree(pushed.folder)
    pushed.land(page("before", ["ann"]), at=HOUR)
    pushed.land(page("after", ["bob"]), at=3 * HOUR)
    assert pushed.fold() == (["bob"], 3 * HOUR)


def test_who_was_removed_is_forgotten_after_a_day(pushed, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    pushed.clock = HeldClock(now=100 * HOUR)
    pushed.land(page("first", ["ann"], ["bob"]), at=0)
    pushed.members(full_since=BEFORE)
    rows = [pq.read_table(file).num_rows for file in files_of(pushed, "snapshots/*-members.parquet")]
    pushed.land(page("second", ["cid"]), at=26 * HOUR)
    pushed.members()
    rows += [
        pq.read_table(file).num_rows for file in files_of(pushed, "snapshots/00000002-*-members.parquet")
    ]
    assert rows == [2, 2]
    names = pq.read_table(files_of(pushed, "snapshots/00000002-*-files.parquet")[0]).num_rows
    assert names == 1, "only files that would still be listed"


def test_a_landing_whose_clock_is_ahead_does_not_hide_what_others_land(pushed):
    pushed.clock = HeldClock(now=0)
    pushed.land(page("ahead", ["ann"]), at=30 * 24 * HOUR)
    assert pushed.members() == ["ann"]
    pushed.land(page("in time", ["bob"]), at=1)
    assert pushed.members() == ["ann", "bob"]


def test_each_landing_path_and_segment_has_a_record_of_its_own(pushed, tmp_path):
    names = {
        SegmentLedger(tmp_path, landing, segment).folder.name
        for landing in ("s3://a", "s3://b")
        for segment in (1, 2)
    }
    assert len(names) == 4
    assert {name.partition("-")[0] for name in names} == {"1", "2"}


def test_the_newest_snapshots_are_kept_and_all_of_the_log(pushed):
    for night in range(SNAPSHOTS_KEPT + 3):
        pushed.land(page(f"night {night}", [f"user-{night}"]), at=night)
        pushed.members()
    (folder,) = files_of(pushed, "")
    kept = sorted({file.name[:8] for file in (folder / "snapshots").iterdir()})
    assert kept == [f"{number:08d}" for number in range(4, SNAPSHOTS_KEPT + 4)]
    assert len(list((folder / "log").iterdir())) == SNAPSHOTS_KEPT + 3
    assert len(pushed.members()) == SNAPSHOTS_KEPT + 3


def test_runs_that_meet_come_to_the_same(pushed):
    for number in range(20):
        pushed.land(page("first", [f"user-{number:02d}"], number=number + 1, total=20), at=number)
    pushed.members()
    for night in range(4):
        pushed.land(page(f"night {night}", [f"new-{night}"], [f"user-{night:02d}"]), at=100 + night)
    start, results = threading.Barrier(4), []

    def run():
        start.wait()
        results.append(pushed.fold())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [f"new-{n}" for n in range(4)] + [f"user-{n:02d}" for n in range(4, 20)]
    assert results == [(expected, 103)] * 4
    (folder,) = files_of(pushed, "")
    assert len(list((folder / "log").iterdir())) == 2
    assert len(list((folder / "snapshots").iterdir())) == 6, "whoever came second left nothing behind"


def test_a_run_that_came_second_goes_on_from_what_the_first_wrote(pushed, monkeypatch):
    """The first has read less: it folded before a page that the second has seen."""
    pushed.land(page("first", ["ann"]), at=0)
    keep = SegmentLedger.keep

    def late(ledger, snapshot, tables):
        monkeypatch.setattr(SegmentLedger, "keep", keep)
        hidden = pushed.land(page("second", ["bob"]), at=1).rename(pushed.root / "hidden")
        pushed.members()
        hidden.rename(next(pushed.folder.iterdir()) / "0-0-2.ndjson")
        pushed.land(page("third", [], ["ann"]), at=2)
        return keep(ledger, snapshot, tables)

    monkeypatch.setattr(SegmentLedger, "keep", late)
    assert pushed.fold() == (["bob"], 2)
    assert pushed.fold() == (["bob"], 2)


def as_of_an_older_version(pushed):
    """Take away from the newest entry what older versions did not write."""
    entry = files_of(pushed, "log/*.json")[-1]
    record = json.loads(entry.read_text())
    for name in ("full_since", "told_at", "left_out_at"):
        del record[name]
    entry.write_text(json.dumps(record))


def test_an_entry_of_an_older_version_is_gone_on_from(pushed):
    pushed.land(page("first", ["ann", "bob"]), at=0)
    pushed.members()
    as_of_an_older_version(pushed)
    assert pushed.fold() == (["ann", "bob"], 0)
    pushed.land(page("second", ["cid"], ["ann"]), at=60)
    assert pushed.fold() == (["bob", "cid"], 60)


def test_an_older_version_may_have_folded_everybody_already(pushed):
    for number, person in enumerate(("gone", "ann", "bob")):
        pushed.land(page(f"sync {number}", [person]), at=60 * number)
    pushed.members()
    as_of_an_older_version(pushed)
    assert pushed.members(full_since=moment(60)) == ["ann", "bob"]


def test_an_older_version_knew_that_a_segment_is_empty(pushed):
    pushed.clock = HeldClock(now=100 * HOUR)
    pushed.land(page("first", ["ann"]), at=0)
    pushed.land(page("second", [], ["ann"]), at=1)
    pushed.land(page("third"), at=50 * HOUR)
    pushed.members()
    as_of_an_older_version(pushed)
    assert pushed.fold() == ([], 50 * HOUR)


def test_what_an_older_version_left_out_is_warned_of(pushed, caplog):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.land(page("second", [], ["ann"], total=2), at=10)
    pushed.members(on_incomplete="skip")
    as_of_an_older_version(pushed)
    caplog.clear()
    assert pushed.members() == ["ann"]
    assert ["may not be what it is in Heap" in text for text in warnings(caplog)] == [True]


def damage_record(file, **changed):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


DAMAGES = {
    "a snapshot is gone": ("snapshots/*-members.parquet", Path.unlink),
    "a snapshot is cut off": (
        "snapshots/*-tasks.parquet",
        lambda file: file.write_bytes(file.read_bytes()[:40]),
    ),
    "an entry is no JSON": ("log/*.json", lambda file: file.write_bytes(b"{")),
    "an entry of another version": ("log/*.json", lambda file: damage_record(file, format=2)),
    "an entry with another number": ("log/*.json", lambda file: damage_record(file, number=7)),
    "an entry with other rows": ("log/*.json", lambda file: damage_record(file, rows={})),
    "an entry with something else": ("log/*.json", lambda file: damage_record(file, other=1)),
    "rows are missing": (
        "log/*.json",
        lambda file: damage_record(file, rows={"members": 9, "tasks": 1, "files": 1}),
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_record_is_told_with_the_way_on(pushed, case):
    pattern, damage = DAMAGES[case]
    pushed.land(page("first", ["ann"]), at=0)
    pushed.members()
    damage(files_of(pushed, pattern)[0])
    with pytest.raises(LedgerDamagedError, match=r"Nothing was sent.*take the folder away"):
        pushed.members()
    shutil.rmtree(files_of(pushed, "")[0])
    assert pushed.members() == ["ann"]
