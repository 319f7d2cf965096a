"""A sync whose pages have not all landed: waited for, then told or left out, never applied in part."""

from __future__ import annotations

import hashlib
import logging

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError, TransientError
from airflow_provider_heapbraze.segments_sync.errors import IncompleteSyncError
from tests.unit.segments_sync.pushing import HOUR, HeldClock, drain, page


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
    task = hashlib.sha256(b"task second").hexdigest()[:8]
    message = (
        rf"Sync task {task} \(a digest\) of segment 1338065 is incomplete: 3 of 5 pages have landed, the "
        r"newest 2 h ago\. Nothing was sent.*without it the segment has 2 members.*on_incomplete='skip'"
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
    assert "1 incomplete tasks were left out for good" in caplog.text
    caplog.clear()
    assert pushed.members() == ["ann", "bob", "cid"], "it is not missed any more"
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    rest(pushed, at=300)
    assert pushed.fold() == (["ann", "bob", "cid"], 200)
    assert "2 pages came of tasks that had been left out" in caplog.text


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


def test_the_only_task_is_incomplete_which_is_not_an_empty_segment(pushed, caplog):
    pushed.land(page("first", ["ann"], number=1, total=2), at=0)
    with pytest.raises(IncompleteSyncError, match="the segment is not known at all"):
        pushed.members()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="No sync of segment 1338065 has landed as a whole"):
            pushed.members(on_incomplete="skip")
    with caplog.at_level(logging.INFO):
        pushed.land(page("anew", ["bob"]), at=10)
        assert pushed.members() == ["bob"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(59, "59 s"), (60, "1 min"), (2 * HOUR - 1, "1 h"), (50 * HOUR, "2 d")]
)
def test_how_long_ago_is_said_for_people(pushed, seconds, text):
    pushed.land(page("first", number=1, total=2), at=0)
    pushed.clock = HeldClock(now=seconds)
    with pytest.raises(IncompleteSyncError, match=f"the newest {text} ago"):
        pushed.members()
