"""Pages that a failed run saw must not go before they are folded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError, PermanentError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.segments_sync.errors import (
    IncompleteSyncError,
    LostPagesError,
    UnusablePageError,
)
from tests.unit.segments_sync.pushing import HOUR, drain, moment, page

UNKNOWN = {**page("odd", ["dan"]), "action_type": "segment.users.other"}


def pending(pushed):
    return sorted(Path(pushed.ledger).glob("segment-syncs/*/pending/*"))


@pytest.fixture
def failed(pushed):
    """Ann is a member; a run has seen a page of two, and of a whole sync, and failed."""
    pushed.land(page("first", ["ann"]), at=0)
    pushed.members()
    pushed.files = [
        pushed.land(page("second", ["bob"], ["ann"], total=2), at=HOUR),
        pushed.land(page("third", ["cid"]), at=3 * HOUR),
    ]
    with pytest.raises(IncompleteSyncError):
        pushed.members()
    return pushed


def test_without_them_nothing_is_known(failed):
    for file in failed.files:
        file.unlink()
    message = (
        "2 landed files of segment 1338065 are gone.* from 2026-09-21T15:00:00.* to 2026-09-21T18:00:00.* "
        f"in file://{failed.folder}.* Nothing was sent.*set full_since"
    )
    for _ in range(2):
        with pytest.raises(LostPagesError, match=message) as raised:
            failed.members()
    assert isinstance(raised.value, PermanentError)
    with pytest.raises(LostPagesError):
        failed.members(on_incomplete="skip")


def test_those_that_went_are_counted(failed):
    failed.files[1].unlink()
    with pytest.raises(LostPagesError, match=r"1 landed files .* from 2026-09-21T17:00:00"):
        failed.members()


def test_once_they_are_back_it_goes_on_and_nothing_is_pending(failed):
    hidden = [file.rename(failed.root / file.name) for file in failed.files]
    with pytest.raises(LostPagesError):
        failed.members()
    for file, place in zip(hidden, failed.files, strict=True):
        file.rename(place)
    failed.land(page("second", ["dan"], number=2, total=2), at=4 * HOUR)
    assert failed.members() == ["bob", "cid", "dan"]
    assert pending(failed) == []
    shutil.rmtree(failed.folder)
    assert failed.members() == ["bob", "cid", "dan"], "folded pages may go"


def test_left_out_for_good_they_are_not_pending(failed):
    assert failed.members(on_incomplete="skip") == ["ann", "cid"]
    assert pending(failed) == []
    shutil.rmtree(failed.folder)
    assert failed.members() == ["ann", "cid"]


def test_the_same_pages_in_other_files_are_as_good(failed):
    for file in failed.files:
        file.unlink()
    failed.land(page("third", ["cid"]), at=5 * HOUR)
    failed.land(page("second", ["dan"], number=2, total=2), at=5 * HOUR)
    with pytest.raises(LostPagesError, match="1 landed files"):
        failed.members()
    failed.land(page("second", ["bob"], ["ann"], total=2), at=5 * HOUR)
    assert failed.members() == ["bob", "cid", "dan"]


@pytest.mark.parametrize("start", ["a drain", "full_since"])
def test_before_a_new_start_they_are_not_missed(failed, start):
    shutil.rmtree(failed.folder)
    if start == "a drain":
        failed.land(drain(), at=4 * HOUR)
    failed.land(page("everybody", ["eve"]), at=5 * HOUR)
    how = {"full_since": moment(4 * HOUR)} if start == "full_since" else {}
    assert failed.members(**how) == ["eve"]
    assert pending(failed) == []


def test_a_start_before_them_does_not_help(failed):
    shutil.rmtree(failed.folder)
    failed.land(page("everybody", ["eve"]), at=5 * HOUR)
    with pytest.raises(LostPagesError):
        failed.members(full_since=moment(2 * HOUR))


def test_runs_that_see_nothing_new_write_nothing_new(failed):
    before = failed.record()
    with pytest.raises(IncompleteSyncError):
        failed.members()
    assert failed.record() == before
    failed.land(page("fourth", ["eve"]), at=4 * HOUR)
    for _ in range(2):
        with pytest.raises(IncompleteSyncError):
            failed.members()
        assert len(pending(failed)) == 2, "what is new is written beside it"
    assert before.items() <= failed.record().items(), "nothing is rewritten"
    shutil.rmtree(failed.folder)
    with pytest.raises(LostPagesError, match="3 landed files"):
        failed.members()


def test_before_the_first_fold_they_are_missed_too(pushed):
    pushed.land(page("first", ["ann"], total=2), at=0)
    with pytest.raises(IncompleteSyncError):
        pushed.members()
    shutil.rmtree(pushed.folder)
    with pytest.raises(LostPagesError):
        pushed.members()
    pushed.land(page("second", ["bob"]), at=60)
    with pytest.raises(LostPagesError):
        pushed.members()


def test_a_drain_that_went_is_missed(pushed):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.members()
    pushed.land(page("odd", ["bob"]), at=10)
    file = pushed.land(drain(), at=20)
    odd = pushed.land(UNKNOWN, at=30)
    with pytest.raises(UnusablePageError):
        pushed.members()
    file.unlink()
    odd.unlink()
    with pytest.raises(LostPagesError, match="2 landed files"):
        pushed.members()


@pytest.mark.parametrize(
    ("content", "error"), [(b"nobody can read this", ConfigurationError), (None, UnusablePageError)]
)
def test_what_could_not_be_read_is_missed_once_it_is_moved_out(pushed, content, error):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.members()
    file = pushed.land_bytes(content, at=HOUR) if content else pushed.land(UNKNOWN, at=HOUR)
    with pytest.raises(error):
        pushed.members()
    file.unlink()
    with pytest.raises(LostPagesError, match="1 landed files"):
        pushed.members()
    pushed.land(page("everybody", ["bob"]), at=3 * HOUR)
    assert pushed.members(full_since=moment(2 * HOUR)) == ["bob"]


def test_other_pages_of_a_sync_that_was_folded_are_missed(pushed):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.members()
    file = pushed.land(page("first", ["bob"]), at=10)
    with pytest.raises(UnusablePageError, match="says something else"):
        pushed.members()
    file.unlink()
    with pytest.raises(LostPagesError):
        pushed.members()


def test_repeats_of_what_was_folded_are_not_missed(failed):
    again = failed.land(page("first", ["ann"]), at=4 * HOUR)
    with pytest.raises(IncompleteSyncError):
        failed.members()
    again.unlink()
    failed.land(page("second", number=2, total=2), at=5 * HOUR)
    assert failed.members() == ["bob", "cid"]


def test_a_run_that_was_killed_before_it_cleaned_up(failed):
    (file,) = pending(failed)
    content = file.read_bytes()
    failed.land(page("second", number=2, total=2), at=4 * HOUR)
    failed.members()
    file.write_bytes(content)
    shutil.rmtree(failed.folder)
    assert failed.members() == ["bob", "cid"]
    failed.land(page("fourth", ["dan"]), at=5 * HOUR)
    assert failed.members() == ["bob", "cid", "dan"]
    assert pending(failed) == []


def test_a_record_of_them_that_is_damaged_is_told(failed):
    (file,) = pending(failed)
    file.write_bytes(b"x")
    with pytest.raises(LedgerDamagedError, match=r"pending/.* cannot be read"):
        failed.members()


def test_in_an_object_store(pushed_to_a_store):
    pushed = pushed_to_a_store
    pushed.land(page("first", ["ann"], total=2), at=0)
    file = pushed.land(page("second", ["bob"]), at=1)
    with pytest.raises(IncompleteSyncError, match="first one in memory://bucket"):
        pushed.members()
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(LostPagesError):
        pushed.members()
    file.write_bytes(content)
    pushed.land(page("first", ["cid"], number=2, total=2), at=2)
    assert pushed.members() == ["ann", "bob", "cid"]
    (folder,) = (pushed.ledger / "segment-syncs").iterdir()
    assert list((folder / "pending").iterdir()) == []
