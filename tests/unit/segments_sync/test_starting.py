"""From where on it is known who is in a segment: its first sync, a drain, or a time that the user names."""

from __future__ import annotations

import shutil

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError, PermanentError
from airflow_provider_heapbraze.segments_sync.errors import FirstSyncMissingError, IncompleteSyncError
from tests.unit.segments_sync.pushing import BEFORE, HOUR, HeldClock, drain, moment, page, warnings

MISSING = r"removes {} people whom it never added.* Nothing was sent.*sync anew in Heap.*set full_since"


def test_what_was_said_before_full_since_has_no_effect(pushed):
    pushed.land(page("first", ["ann", "bob"]), at=0)
    pushed.land(page("before", ["cid"], total=2), at=99.999)
    pushed.land(page("everybody", ["bob", "dan"]), at=100)
    pushed.land(page("before", ["cid"], number=2, total=2), at=110)
    assert pushed.fold(full_since=moment(100)) == (["bob", "dan"], 100)


def test_the_same_time_in_the_dag_changes_nothing_any_more(pushed):
    pushed.land(page("first", ["ann", "bob"]), at=0)
    pushed.members()
    pushed.land(page("everybody", ["bob", "dan"]), at=100)
    for _ in range(2):
        assert pushed.fold(full_since=moment(50)) == (["bob", "dan"], 100)
        before = pushed.record()
    assert pushed.record() == before
    for night in range(3):
        pushed.land(page(f"night {night}", [f"user-{night}"]), at=HOUR * (24 * night + 1))
        shutil.rmtree(pushed.folder) if night == 1 and pushed.members(full_since=moment(50)) else None
    assert pushed.members(full_since=moment(50)) == ["bob", "dan", "user-0", "user-1", "user-2"]
    assert pushed.members() == ["bob", "dan", "user-0", "user-1", "user-2"], "nor does leaving it out"
    assert len(pushed.members(full_since=moment(1))) == 5, "nor an earlier time"


def test_everybody_may_have_been_folded_before_the_time_is_named(pushed):
    pushed.land(page("first", ["ann", "bob"]), at=0)
    pushed.land(page("everybody", ["bob", "dan"]), at=100)
    assert pushed.members() == ["ann", "bob", "dan"]
    shutil.rmtree(pushed.folder)
    assert pushed.fold(full_since=moment(50)) == (["bob", "dan"], 100)
    pushed.land(page("next", ["cid"], ["dan"]), at=200)
    assert pushed.fold(full_since=moment(50)) == (["bob", "cid"], 200)


@pytest.mark.parametrize("folded_before", [False, True])
@pytest.mark.parametrize("since", [1, 10**9])
def test_a_time_since_which_nothing_landed_is_not_an_empty_segment(pushed, folded_before, since):
    pushed.land(page("first", ["ann"]), at=0)
    if folded_before:
        pushed.members()
    for _ in range(2):
        with pytest.raises(
            IncompleteSyncError, match=r"No sync .*full_since.*not an empty.*Nothing was sent"
        ):
            pushed.members(full_since=moment(since))
    assert pushed.members() == ["ann"], "nothing was given up for it"


def test_nor_is_one_since_which_only_pages_of_an_older_sync_landed(pushed):
    pushed.land(page("first", ["ann"], total=2), at=0)
    pushed.land(page("first", ["bob"], number=2, total=2), at=10)
    with pytest.raises(IncompleteSyncError, match="full_since"):
        pushed.members(full_since=moment(5))


def test_everybody_may_be_nobody(pushed):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.land(page("everybody"), at=100)
    for _ in range(2):
        assert pushed.fold(full_since=moment(50)) == ([], 100)


def test_a_drain_after_it_counts(pushed):
    pushed.land(page("everybody", ["ann"]), at=100)
    pushed.land(drain(), at=200)
    assert pushed.fold(full_since=moment(50)) == ([], 200)
    assert pushed.fold(full_since=moment(50)) == ([], 200)


def test_a_drain_before_it_does_not_say_who_is_there(pushed):
    pushed.land(drain(), at=0)
    with pytest.raises(IncompleteSyncError, match="full_since"):
        pushed.members(full_since=moment(50))
    assert pushed.members() == []


@pytest.mark.parametrize("value", [None, "", "None", " "])
def test_what_a_template_made_nothing_of_is_no_time(pushed, value):
    pushed.land(page("first", ["ann"]), at=0)
    assert pushed.members(full_since=value) == ["ann"]


@pytest.mark.parametrize(
    "value",
    [
        moment(100),
        moment(100).replace(tzinfo=None),
        moment(100).isoformat(),
        f" {moment(100):%Y-%m-%dT%H:%M:%SZ} ",
        f"{moment(100 + 2 * HOUR):%Y-%m-%d %H:%M:%S}+02:00",
        f"{moment(100):%Y-%m-%d %H:%M:%S}",
    ],
    ids=repr,
)
def test_times_are_with_an_offset_or_in_utc(pushed, value):
    pushed.land(page("first", ["ann"]), at=99.999)
    pushed.land(page("everybody", ["bob"]), at=100)
    assert pushed.members(full_since=value) == ["bob"]


def test_changes_without_a_first_sync_are_not_everybody(pushed):
    pushed.land(page("second", ["cid"], ["ann", "bob"]), at=0)
    pushed.land(page("third", ["bob", "dan"], ["cid", "eve"]), at=10)
    for _ in range(2):
        with pytest.raises(FirstSyncMissingError, match=MISSING.format(2)) as raised:
            pushed.members()
    assert isinstance(raised.value, PermanentError)
    pushed.land(page("everybody", ["eve"]), at=20)
    assert pushed.members(full_since=moment(15)) == ["eve"]


def test_unless_the_user_says_that_they_are(pushed, caplog):
    pushed.land(page("second", ["cid"], ["ann"]), at=0)
    assert pushed.members(full_since=BEFORE) == ["cid"]
    assert ["1 people were removed who had never been added" in text for text in warnings(caplog)] == [True]
    caplog.clear()
    assert pushed.members(full_since=BEFORE) == ["cid"]
    assert warnings(caplog) == []


def test_or_a_drain_came_before(pushed):
    pushed.land(drain(), at=0)
    pushed.land(page("second", ["cid"], ["ann"]), at=10)
    assert pushed.members() == ["cid"]


@pytest.mark.parametrize("order", [(0, 10), (10, 0)])
def test_removals_of_people_who_were_added_are_no_sign(pushed, caplog, order):
    """Also where one sync says both, or the removal came first."""
    pushed.land(page("first", ["ann", "bob"], ["bob"]), at=0)
    pushed.land(page("second", ["cid"]), at=order[0])
    pushed.land(page("third", [], ["ann", "cid"]), at=order[1])
    pushed.members()
    assert warnings(caplog) == []


def test_later_they_are_warned_of_each_time(pushed, caplog):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.members()
    for night, people in enumerate((["x", "y"], ["z"])):
        pushed.land(page(f"night {night}", [], people), at=HOUR * (1 + night))
        caplog.clear()
        assert pushed.members() == ["ann"]
        (told,) = warnings(caplog)
        assert f"{len(people)} people were removed who had never been added" in told
        assert "set full_since" in told


def test_who_was_removed_again_within_a_day_is_no_sign(pushed, caplog):
    pushed.clock = HeldClock(now=100 * HOUR)
    pushed.land(page("first", ["ann", "bob"]), at=0)
    pushed.members()
    for hours in (10, 20):
        pushed.land(page(f"hour {hours}", [], ["ann"]), at=hours * HOUR)
        assert pushed.members() == ["bob"]
    assert warnings(caplog) == []


def test_an_empty_file_says_nothing(pushed):
    pushed.land_bytes(b"", at=0)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="No sync of segment 1338065 has landed as a whole"):
            pushed.members()
