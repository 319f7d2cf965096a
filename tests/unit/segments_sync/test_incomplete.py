"""A sync whose pages have not all landed: waited for, then told or left out, never applied in part."""

from __future__ import annotations

import hashlib
import re

import pytest

from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.segments_sync.errors import IncompleteSyncError
from tests.unit.segments_sync.pushing import HOUR, HeldClock, drain, moment, page, warnings


@pytest.fixture
def three_of_five(pushed):
    """Ann and Bob are members; a sync from 100 s on has three of its five pages, the newest at 102 s."""
    pushed.land(page("first", ["ann", "bob"]), at=0)
    for number in (1, 4, 5):
        pushed.land(page("second", [f"user-{number}"], ["ann"], number=number, total=5), at=100 + number % 3)
    return pushed


def rest(pushed, *, at):
    for number in (2, 3):
        pushed.land(page("second", [f"user-{number}"], number=number, total=5), at=at)


def test_it_is_told_and_nothing_of_it_is_applied(three_of_five):
    pushed = three_of_five
    pushed.clock = HeldClock(now=102 + 2 * HOUR)
    (folder,) = pushed.folder.iterdir()
    message = (
        "^Sync second of segment 1338065 is incomplete: 3 of 5 pages have landed, the newest 2 h ago, the "
        f"first one in file://{re.escape(str(folder))}; missing, counted from 1: 2, 3. Nothing was sent.*"
        "without it the segment has 2 members.*set full_since .* on_incomplete='skip'"
    )
    for _ in range(2):
        with pytest.raises(IncompleteSyncError, match=message) as raised:
            pushed.members()
    assert isinstance(raised.value, TransientError), "Airflow tries again"
    rest(pushed, at=103)
    assert pushed.members() == ["bob", "user-1", "user-2", "user-3", "user-4", "user-5"]


def test_it_is_waited_for_since_its_newest_page(three_of_five):
    pushed = three_of_five
    pushed.clock = HeldClock(now=702)
    with pytest.raises(IncompleteSyncError):
        pushed.members(wait_seconds=900)
    assert pushed.clock.slept == 300


def test_what_comes_in_that_time_is_applied(three_of_five):
    pushed = three_of_five
    pushed.clock = HeldClock(now=102)
    pushed.clock.meanwhile = [
        (500, lambda: pushed.land(page("second", number=2, total=5), at=602)),
        (1200, lambda: pushed.land(page("second", number=3, total=5), at=1302)),
    ]
    assert pushed.fold(wait_seconds=900) == (["bob", "user-1", "user-4", "user-5"], 1302)
    assert pushed.clock.slept == 1200


def test_a_repeated_page_does_not_make_the_wait_longer(three_of_five):
    pushed = three_of_five
    pushed.clock = HeldClock(now=102)
    again = page("second", ["user-1"], ["ann"], number=1, total=5)
    pushed.clock.meanwhile = [(500, lambda: pushed.land(again, at=602))]
    with pytest.raises(IncompleteSyncError):
        pushed.members(wait_seconds=900)
    assert pushed.clock.slept == 900


def test_a_landing_whose_clock_is_ahead_does_not_make_the_wait_longer(three_of_five):
    pushed = three_of_five
    pushed.clock = HeldClock(now=-24 * HOUR)
    with pytest.raises(IncompleteSyncError, match="the newest 0 s ago"):
        pushed.members(wait_seconds=900)
    assert pushed.clock.slept == 900


def test_it_can_be_left_out_for_good(three_of_five, caplog):
    pushed = three_of_five
    pushed.land(page("third", ["cid"]), at=200)
    assert pushed.fold(on_incomplete="skip") == (["ann", "bob", "cid"], 200)
    assert "Segment 1338065: incomplete syncs were left out for good: second" in caplog.text
    assert pushed.members() == ["ann", "bob", "cid"], "it is not missed any more"
    rest(pushed, at=300)
    assert pushed.fold() == (["ann", "bob", "cid"], 200)
    assert "2 pages came of syncs that had been left out" in caplog.text


def test_since_it_was_left_out_every_run_warns(three_of_five, caplog):
    pushed = three_of_five
    for _ in range(2):
        pushed.members(on_incomplete="skip")
    pushed.land(page("third", ["cid"]), at=200)
    pushed.members()
    told = [text for text in warnings(caplog) if "may not be what it is in Heap" in text]
    assert len(told) == 3
    assert "a sync that began at 2026-09-21T14:15:01" in told[0]
    assert "start the segment's sync anew in Heap, and set full_since" in told[0]


@pytest.mark.parametrize("how", ["a drain", "full_since"])
def test_a_new_start_ends_the_warning(three_of_five, caplog, how):
    pushed = three_of_five
    pushed.members(on_incomplete="skip")
    if how == "a drain":
        pushed.land(drain(), at=200)
    pushed.land(page("everybody", ["bob", "cid"]), at=300)
    caplog.clear()
    start = {"full_since": moment(200)} if how == "full_since" else {}
    for _ in range(2):
        assert pushed.fold(**start) == (["bob", "cid"], 300)
    assert pushed.fold() == (["bob", "cid"], 300), "it is remembered"
    assert warnings(caplog) == []


def test_an_older_drain_does_not_end_the_warning(three_of_five, caplog):
    pushed = three_of_five
    pushed.members(on_incomplete="skip")
    pushed.land(drain(), at=50)
    caplog.clear()
    pushed.members()
    assert any("may not be what it is in Heap" in text for text in warnings(caplog))


def test_a_complete_one_after_it_is_applied_only_once_it_is_decided(three_of_five):
    pushed = three_of_five
    pushed.land(page("third", ["cid"]), at=200)
    with pytest.raises(IncompleteSyncError, match="without it the segment has 3 members"):
        pushed.members()
    rest(pushed, at=300)
    assert pushed.fold() == (["bob", "cid", "user-1", "user-2", "user-3", "user-4", "user-5"], 300)


def test_before_a_drain_it_is_not_missed(three_of_five):
    pushed = three_of_five
    pushed.land(drain(), at=200)
    assert pushed.fold() == ([], 200)
    rest(pushed, at=300)
    assert pushed.fold() == ([], 200)


def test_a_drain_in_the_meantime_ends_the_wait(three_of_five):
    pushed = three_of_five
    pushed.clock = HeldClock(now=102)
    pushed.clock.meanwhile = [(100, lambda: pushed.land(drain(), at=202))]
    assert pushed.members(wait_seconds=900) == []
    assert pushed.clock.slept == 100


def test_several_are_counted(three_of_five):
    three_of_five.land(page("third", number=1, total=2), at=200)
    with pytest.raises(IncompleteSyncError, match=r"\(And 1 more like it\.\)"):
        three_of_five.members()


UNKNOWN = "the segment is not known at all.*start the segment's sync anew.*full_since.*It cannot be left out"


@pytest.mark.parametrize("on_incomplete", ["fail", "skip"])
def test_a_first_sync_is_never_left_out(pushed, on_incomplete):
    """Whoever comes later is not everybody."""
    pushed.land(page("first", ["ann"], number=1, total=2), at=0)
    for _ in range(2):
        with pytest.raises(IncompleteSyncError, match=UNKNOWN):
            pushed.members(on_incomplete=on_incomplete)
    pushed.land(page("second", ["bob"]), at=10)
    with pytest.raises(IncompleteSyncError, match=UNKNOWN):
        pushed.members(on_incomplete=on_incomplete)
    pushed.land(page("first", ["cid"], number=2, total=2), at=20)
    assert pushed.members() == ["ann", "bob", "cid"]


@pytest.mark.parametrize("start", ["a drain", "full_since"])
def test_nor_is_the_first_one_after_a_new_start(pushed, start):
    pushed.land(page("first", ["ann"]), at=0)
    assert pushed.members() == ["ann"]
    if start == "a drain":
        pushed.land(drain(), at=5)
        assert pushed.members() == []
    how = {"full_since": moment(5)} if start == "full_since" else {}
    pushed.land(page("second", ["bob"], total=2), at=10)
    pushed.land(page("third", ["cid"]), at=20)
    with pytest.raises(IncompleteSyncError, match=UNKNOWN):
        pushed.members(on_incomplete="skip", **how)
    pushed.land(page("fourth", ["dan"]), at=30)
    assert pushed.members(full_since=moment(30)) == ["dan"]


def test_a_new_start_replaces_a_first_sync_that_never_came_whole(pushed):
    pushed.land(page("first", ["ann"], total=2), at=0)
    pushed.land(page("anew", ["bob"]), at=100)
    with pytest.raises(IncompleteSyncError):
        pushed.members()
    assert pushed.members(full_since=moment(50)) == ["bob"]


@pytest.mark.parametrize(
    ("numbers", "total", "text"),
    [
        ((2,), 5, "counted from 1: 1, 3, 4 and 1 more"),
        ((0,), 2, "counted from 0: 1"),
        ((0, 1, 5), 2**62, "counted from 0: 2, 3, 4 and 4,611,686,018,427,387,898 more"),
    ],
)
def test_missing_pages_are_named_the_first_few(pushed, numbers, total, text):
    for number in numbers:
        pushed.land(page("first", number=number, total=total), at=0)
    with pytest.raises(IncompleteSyncError, match=rf"missing, {text}\."):
        pushed.members()


def digest(task):
    return rf"{hashlib.sha256(f'task {task}'.encode()).hexdigest()[:8]} \(a digest\)"


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        ("Free_Customers.Sync:2026-11", "Free_Customers.Sync:2026-11"),
        (42, "42"),
        ("x" * 64, "x" * 64),
        ("x" * 65, digest("x" * 65)),
        ("ann@example.com", digest("ann@example.com")),
        ("two words", digest("two words")),
        ("line\nfeed", digest("line\nfeed")),
        ("é", digest("é")),
    ],
)
def test_a_sync_is_called_as_heap_calls_it_where_that_is_safe_to_show(pushed, task, shown):
    pushed.land(page(task, total=2), at=0)
    with pytest.raises(IncompleteSyncError, match=f"^Sync {shown} of segment"):
        pushed.members()


@pytest.mark.parametrize(
    ("seconds", "text"), [(59, "59 s"), (60, "1 min"), (2 * HOUR - 1, "1 h"), (50 * HOUR, "2 d")]
)
def test_how_long_ago_is_said_for_people(pushed, seconds, text):
    pushed.land(page("first", number=1, total=2), at=0)
    pushed.clock = HeldClock(now=seconds)
    with pytest.raises(IncompleteSyncError, match=f"the newest {text} ago"):
        pushed.members()
