"""Pages become members: later tasks win, repeats change nothing, a drain empties."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.segments_sync.errors import UnusablePageError
from airflow_provider_heapbraze.segments_sync.members import SegmentSyncMembers
from airflow_provider_heapbraze.segments_sync.record import SNAPSHOTS_KEPT
from tests.unit.membership.members_conformance import outcome
from tests.unit.segments_sync.pushing import BEFORE, HOUR, drain, page, warnings

SAMPLES = Path(__file__).parents[3].parent / "shared" / "data" / "heap"


def test_the_first_sync_adds_and_the_next_ones_change(pushed):
    pushed.land(page("first", ["ann", "bob", "cid"]), at=0)
    assert pushed.fold() == (["ann", "bob", "cid"], 0)
    pushed.land(page("second", ["dan"], ["ann", "nobody"]), at=60)
    assert pushed.fold() == (["bob", "cid", "dan"], 60)
    pushed.land(page("third", ["ann"]), at=120)
    assert pushed.fold() == (["ann", "bob", "cid", "dan"], 120)


def test_pages_come_in_any_order_and_the_task_is_of_its_first_arrival(pushed):
    pushed.land(page("long", ["ann"], number=2, total=2), at=0)
    pushed.land(page("short", [], ["ann", "bob"]), at=10)
    pushed.land(page("long", ["bob", "cid"], number=1, total=2), at=20)
    assert pushed.fold() == (["cid"], 20)


@pytest.mark.parametrize("first_page", [0, 1])
def test_pages_are_counted_from_one_or_from_zero(pushed, first_page):
    for number in range(3):
        pushed.land(page("first", [f"user-{number}"], number=first_page + number, total=3), at=number)
    assert pushed.members() == ["user-0", "user-1", "user-2"]


def test_a_repeated_page_changes_nothing_in_the_same_run_and_days_later(pushed):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.land(page("second", [], ["ann"]), at=10)
    pushed.land(page("first", ["ann"]), at=20)
    assert pushed.fold() == ([], 10)
    pushed.land(page("first", ["ann"]), at=9 * 24 * HOUR)
    assert pushed.fold() == ([], 10)


@pytest.mark.parametrize("folded_before", [False, True])
def test_a_page_that_says_something_else_is_no_repeat(pushed, folded_before):
    """Should Heap give every sync the same id, nobody is forgotten in silence."""
    pushed.land(page("first", ["ann", "bob"]), at=0)
    if folded_before:
        assert pushed.members() == ["ann", "bob"]
    pushed.land(page("first", ["bob", "ann"]), at=10)
    pushed.land(page("first", ["private-person"]), at=20)
    with pytest.raises(UnusablePageError, match=r"says something else .* Nothing was sent") as caught:
        pushed.fold()
    assert "private-person" not in str(caught.value)


def test_removal_wins_where_one_task_says_both_and_that_is_told(pushed, caplog):
    pushed.land(page("first", ["ann", "bob"], ["ann"], number=1, total=2), at=0)
    pushed.land(page("first", ["cid"], ["bob"], number=2, total=2), at=1)
    with caplog.at_level(logging.INFO):
        assert pushed.members() == ["cid"]
    assert "1 syncs folded, 1 members" in caplog.text
    assert "; 2 changes said both" in caplog.text


def test_a_drain_empties_and_what_comes_after_it_counts(pushed):
    pushed.land(page("first", ["ann", "bob"]), at=0)
    pushed.land(drain(), at=10)
    assert pushed.fold() == ([], 10), "emptied, which is not unreadable"
    pushed.land(page("second", ["bob"]), at=20)
    assert pushed.fold() == (["bob"], 20)


def test_a_drain_that_comes_twice_counts_from_its_first_arrival(pushed):
    pushed.land(drain(), at=10, sent_at=9)
    pushed.land(page("first", ["ann"]), at=20)
    pushed.land(drain(), at=30, sent_at=9)
    assert pushed.fold() == (["ann"], 20)
    pushed.land(drain(), at=40, sent_at=9)
    assert pushed.fold() == (["ann"], 20)


def test_a_drain_that_heap_signs_anew_is_the_same_for_four_hours(pushed, caplog):
    """Its answer was lost; who was added in between is not dropped."""
    pushed.land(drain(), at=10)
    pushed.land(drain(), at=15)
    assert pushed.fold() == ([], 10)
    assert warnings(caplog) == [], "nothing came in between"
    pushed.land(page("first", ["ann"]), at=20)
    pushed.land(drain(), at=70)
    assert pushed.fold() == (["ann"], 20)
    (told,) = warnings(caplog)
    assert "emptied it again within four hours" in told
    assert "set full_since" in told
    caplog.clear()
    pushed.land(drain(), at=10 + 4 * HOUR - 1)
    assert pushed.fold() == (["ann"], 20)
    pushed.land(drain(), at=10 + 4 * HOUR)
    caplog.clear()
    assert pushed.fold() == ([], 10 + 4 * HOUR), "counted from the drain that emptied"
    assert warnings(caplog) == []


def test_drains_in_one_run_are_told_apart_as_in_several(pushed):
    for hours in range(9):
        pushed.land(drain(), at=hours * HOUR)
        pushed.land(page(f"sync {hours}", [f"user-{hours}"]), at=hours * HOUR + 1)
    assert pushed.members() == ["user-8"]


def test_a_drain_wins_over_a_task_of_the_same_time_and_one_that_began_before(pushed):
    pushed.land(page("same", ["ann"]), at=10)
    pushed.land(page("before", ["bob"], number=1, total=2), at=9)
    pushed.land(drain(), at=10)
    pushed.land(page("before", ["cid"], number=2, total=2), at=20)
    pushed.land(page("after", ["dan"]), at=10.001)
    assert pushed.fold() == (["dan"], 10.001)


def test_tasks_of_the_same_time_are_decided_alike_in_any_order(tmp_path, pushed):
    for tasks in (("a", ["ann"], []), ("b", [], ["ann"])), (("b", [], ["ann"]), ("a", ["ann"], [])):
        shutil.rmtree(tmp_path)
        for task in tasks:
            pushed.land(page(*task), at=5)
            result = pushed.members(full_since=BEFORE)
        assert result == [], "the digest of 'b' is the greater one"


def test_a_segment_whose_members_all_left_is_empty(pushed):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.land(page("second", remove=["ann"]), at=1)
    assert pushed.members() == []


def test_ids_are_what_json_says_however_it_is_written(pushed):
    ids = ["é", "x" * 255, "「フェイ」\n\u0000", 42, 2**63 + 5, 0.5, None, {"nested": 1}, "42", ""]
    pushed.land(page("first", ids), at=0)
    assert pushed.members() == sorted(ids, key=json.dumps)
    body = json.dumps(page("second", remove=ids), ensure_ascii=False).replace("x", "\\u0078")
    pushed.land_bytes(b'{"received_at":1790000001000,"sent_at":1,"body":%s}' % body.encode(), at=1)
    assert pushed.members() == []


def test_the_rules_of_matching_apply(pushed, tmp_path):
    ids = [" ann\u00a0", "ann", 42, 42.0, 1e300, ["x"], None, "  ", "e" * 988]
    pushed.land(page("first", ids), at=0)
    result = match(pushed.source(), IdentityMapping(), pushed.access(), pushed.ledger)
    identifiers, unmatched = outcome(result, pushed.ledger)
    assert sorted(value for _, value, _ in identifiers) == ["42", "ann"]
    assert sorted(row["reason"] for row in unmatched) == ["blank", "blank", "imprecise", "nested", "too_long"]
    assert result.counts["duplicates"] == 2
    assert result.taken_at.timestamp() == 1_790_000_000


def test_a_column_has_the_name_that_was_given(pushed):
    pushed.land(page("first", ["ann@example.com"]), at=0)
    mapping = IdentityMapping(external_id=None, alias_name="email", alias_label="email address")
    counts = match(pushed.source(id_column="email"), mapping, pushed.access(), pushed.ledger).counts
    assert counts["alias"] == 1
    with pytest.raises(ConfigurationError, match=r"no column 'email'.* Its columns: identity\."):
        match(pushed.source(), mapping, pushed.access(), pushed.ledger)


def test_nobody_is_told_by_numbers_that_templates_made_texts_of(pushed):
    pushed.land(page("first", ["ann"]), at=0)
    assert pushed.members(segment_id=" 1338065 ", wait_seconds="900") == ["ann"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"segment_id": "Free Customers"}, "segment_id of SegmentSyncMembers must be"),
        ({"segment_id": 2**63}, "segment_id of SegmentSyncMembers must be"),
        ({"wait_seconds": "soon"}, "wait_seconds of SegmentSyncMembers must be"),
        ({"wait_seconds": "inf"}, "wait_seconds of SegmentSyncMembers must be"),
        ({"wait_seconds": None}, "wait_seconds of SegmentSyncMembers must be"),
        ({"on_incomplete": "ignore"}, "on_incomplete of SegmentSyncMembers must be"),
        ({"full_since": "last week"}, "full_since of SegmentSyncMembers must be"),
        ({"full_since": 7}, "full_since of SegmentSyncMembers must be"),
        ({"full_since": "0001-01-01T00:00:00+01:00"}, "full_since of SegmentSyncMembers must be"),
    ],
)
def test_arguments_that_cannot_be(pushed, how, message):
    pushed.land(page("first", ["ann"]), at=0)
    with pytest.raises(ConfigurationError, match=f"{message}.*Nothing was sent"):
        pushed.members(**how)


def test_an_empty_path(pushed):
    with pytest.raises(ConfigurationError, match="path of SegmentSyncMembers is empty"):
        match(SegmentSyncMembers(" ", 1), IdentityMapping(), pushed.access(), pushed.ledger)


def test_a_segment_of_which_nothing_landed_is_not_an_empty_one(pushed):
    message = "Nothing has landed for segment 1338065.*not an empty segment.*landing path.*webhooks"
    (pushed.root / "landed").mkdir()
    with pytest.raises(ConfigurationError, match=message):
        pushed.members()
    pushed.land(page("first", ["ann"]), at=0)
    with pytest.raises(ConfigurationError, match="Nothing has landed for segment 7"):
        pushed.members(segment_id=7)


def test_a_landing_path_that_is_gone_is_not_a_segment_without_news(pushed):
    pushed.land(page("first", ["ann"]), at=0)
    assert pushed.members() == ["ann"]
    shutil.rmtree(pushed.root / "landed")
    with pytest.raises(ConfigurationError, match=r"There is no landing path .* Nothing was sent"):
        pushed.members()


def test_files_that_are_not_finished_or_not_of_the_landing_are_passed_over(pushed):
    file = pushed.land(page("first", ["ann"]), at=0)
    file.with_name(".half.tmp").write_bytes(b"{")
    file.with_name(".half.ndjson").write_bytes(b"{")
    (pushed.folder / "notes").mkdir()
    (pushed.folder / "notes" / "x.ndjson").write_bytes(b"{")
    assert pushed.members() == ["ann"]


@pytest.mark.skipif(not SAMPLES.exists(), reason="the project's shared folder is not here")
def test_samples_of_heap(pushed):
    sync, emptied = (
        json.loads((SAMPLES / f"segments-{name}.json").read_bytes()) for name in ("sync", "drain")
    )
    pushed.land(sync, at=0)
    assert pushed.members(full_since=BEFORE) == ["user3@email.com", "user4@email.com"]
    pushed.land(emptied, at=1)
    assert pushed.members() == []


def test_in_an_object_store(pushed_to_a_store):
    pushed = pushed_to_a_store
    pushed.land(page("first", ["ann", "bob"], number=1, total=2), at=0)
    pushed.land(page("first", ["cid"], number=2, total=2), at=1)
    assert pushed.members() == ["ann", "bob", "cid"]
    for night in range(SNAPSHOTS_KEPT + 1):
        pushed.land(page(f"night {night}", [], ["bob"]), at=HOUR * (1 + night))
        assert pushed.members() == ["ann", "cid"]
    (folder,) = (pushed.ledger / "segment-syncs").iterdir()
    kept = {path.name[:8] for path, _ in storage.listed(folder / "snapshots")}
    assert kept == {f"{number:08d}" for number in range(3, SNAPSHOTS_KEPT + 3)}
