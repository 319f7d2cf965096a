"""Ids of events are known for a window of hours, in little room; and the sorted numbers they are kept as."""

from __future__ import annotations

import random
from array import array
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from airflow_provider_heapbraze.events.keys import contains, merged, read_keys, write_keys
from airflow_provider_heapbraze.events.seen import EARLY_HOURS, HOURS_IN_MEMORY, SeenIds, id_key

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

LOWEST, HIGHEST = -(2**63), 2**63 - 1
numbers = st.one_of(st.integers(LOWEST, HIGHEST), st.integers(-5, 5), st.sampled_from([LOWEST, HIGHEST]))


def keys_of(values):
    return array("q", sorted(values))


class Store:
    """Files of hours, in memory."""

    def __init__(self):
        self.files = {}
        self.reads = []

    def read(self, name):
        self.reads.append(name)
        return self.files[name]

    def write(self, keys):
        name = f"ids-{len(self.files)}"
        self.files[name] = keys
        return name

    def open(self, files=None, *, window=72, present=1_000):
        return SeenIds(files or {}, self.read, window=window, present=present)


@pytest.fixture
def store():
    return Store()


def test_the_number_of_an_id_is_always_the_same():
    assert id_key("a-b-c") == id_key("a-b-c") != id_key("A-b-c")
    assert all(LOWEST <= id_key(f"id-{number}") <= HIGHEST for number in range(1_000))
    assert len({id_key(f"id-{number}") for number in range(1_000)}) == 1_000
    assert id_key("half a character \ud83d") != id_key("")


def test_an_event_is_known_in_its_hour_only(store):
    seen = store.open()
    seen.add(990, 7)
    assert (990, 7) in seen
    assert (990, 8) not in seen
    assert (991, 7) not in seen


def test_what_was_saved_is_known_to_the_next_one(store):
    seen = store.open()
    seen.add(990, 7)
    seen.add(991, -3)
    seen.save(store.write)
    for known in (seen, store.open(seen.files)):
        assert (990, 7) in known
        assert (991, -3) in known
        assert (990, -3) not in known


def test_an_hour_grows(store):
    seen = store.open()
    for key in (5, 1, 9, 5):
        seen.add(990, key)
        seen.save(store.write)
    assert list(store.files[seen.files[990]]) == [1, 5, 9]


def test_only_hours_that_changed_are_written(store):
    seen = store.open()
    seen.add(990, 1)
    seen.add(991, 1)
    seen.save(store.write)
    before = dict(seen.files)
    seen.add(991, 2)
    seen.save(store.write)
    assert seen.files[990] == before[990]
    assert seen.files[991] != before[991]
    seen.save(store.write)
    assert len(store.files) == 3


def test_the_window_forgets(store):
    seen = store.open(window=3)
    for hour in (990, 991, 992):
        seen.add(hour, 1)
    seen.save(store.write)
    assert sorted(seen.files) == [990, 991, 992]
    seen.add(993, 1)
    seen.save(store.write)
    assert sorted(seen.files) == [991, 992, 993]
    assert (990, 1) not in store.open(seen.files, window=3)


def test_what_is_too_old_is_not_written(store):
    seen = store.open(window=3)
    seen.add(993, 1)
    seen.add(900, 1)
    assert (900, 1) in seen
    seen.save(store.write)
    assert sorted(seen.files) == [993]


def test_no_window_keeps_nothing(store):
    seen = store.open(window=0)
    seen.add(990, 1)
    assert (990, 1) in seen
    seen.save(store.write)
    assert (seen.files, store.files) == ({}, {})


def test_what_claims_to_be_of_the_future_does_not_move_the_window(store):
    seen = store.open(window=30, present=1_000)
    seen.add(999, 1)
    seen.add(1_000 + EARLY_HOURS + 1, 1)
    seen.add(50_000, 1)
    seen.save(store.write)
    again = store.open(seen.files, window=30, present=1_000)
    again.save(store.write)
    assert sorted(again.files) == [999, 1_000 + EARLY_HOURS + 1, 50_000]
    again.add(1_000 + EARLY_HOURS, 1)
    again.save(store.write)
    assert 999 in again.files


def test_an_hour_is_read_when_one_of_its_events_comes(store):
    files = {hour: store.write(keys_of([hour])) for hour in (990, 991)}
    seen = store.open(files)
    assert store.reads == []
    assert (990, 990) in seen
    assert (990, 991) not in seen
    assert store.reads == [files[990]]
    assert (500, 1) not in seen
    assert store.reads == [files[990]]


def test_the_hours_that_were_not_used_for_longest_leave_memory(store):
    hours = range(900, 900 + HOURS_IN_MEMORY)
    files = {hour: store.write(keys_of([hour])) for hour in range(899, 900 + HOURS_IN_MEMORY)}
    seen = store.open(files)
    for hour in (*hours, 900, 899):  # 901 is the one not used for longest
        assert (hour, hour) in seen
    store.reads.clear()
    for hour in (900, 899, 902):
        assert (hour, hour) in seen
    assert store.reads == []
    assert (901, 901) in seen
    assert store.reads == [files[901]]


def test_an_hour_that_left_memory_keeps_what_is_new(store):
    seen = store.open(window=100)
    for hour in range(900, 900 + 2 * HOURS_IN_MEMORY):
        seen.add(hour, hour)
    assert all((hour, hour) in seen for hour in range(900, 900 + 2 * HOURS_IN_MEMORY))
    seen.save(store.write)
    assert all((hour, hour) in seen for hour in range(900, 900 + 2 * HOURS_IN_MEMORY))


hours = st.integers(990, 1_030)
steps = st.lists(
    st.one_of(st.tuples(hours, st.integers(0, 5)), st.sampled_from(["save", "open"])), max_size=40
)


def newest(hours):
    return max((hour for hour in hours if hour <= 1_000 + EARLY_HOURS), default=0)


@quick
@given(steps, st.integers(0, 30))
def test_it_knows_what_a_set_knows(steps, window):
    store, expected = Store(), {}
    seen = store.open(window=window)
    for step in steps:
        if step == "save":
            seen.save(store.write)
            first = newest(expected) - window
            expected = {hour: keys for hour, keys in expected.items() if hour > first}
        elif step == "open":
            seen = store.open(seen.files, window=window)
            expected = {hour: set(store.files[name]) for hour, name in seen.files.items()}
        else:
            seen.add(*step)
            expected.setdefault(step[0], set()).add(step[1])
        assert all((hour, key) in seen for hour, keys in expected.items() for key in keys)
    seen.save(store.write)
    again = store.open(seen.files, window=window)
    first = newest(expected) - window
    for hour in range(990, 1_031):
        known = {key for key in range(6) if (hour, key) in again}
        assert known == (expected.get(hour, set()) if hour > first else set())


@given(st.sets(numbers), st.lists(numbers, max_size=20), numbers)
def test_sorted_numbers_do_what_sets_do(some, more, asked):
    keys = keys_of(some)
    whole = merged(keys, more)
    assert list(whole) == sorted(some | set(more))
    assert (whole.typecode, list(keys)) == ("q", sorted(some))
    assert contains(keys, asked) == (asked in some)
    assert all(contains(whole, key) for key in (*some, *more))


@pytest.fixture(params=["local", "object store"])
def folder(request, tmp_path):
    return tmp_path if request.param == "local" else UPath(f"memory://bucket-{uuid4().hex}")


@pytest.mark.parametrize(
    "values",
    [
        [],
        [0],
        [-1],
        [LOWEST],
        [HIGHEST],
        [LOWEST, HIGHEST],
        [LOWEST, LOWEST + 1, -1, 0, 1, HIGHEST],
        range(100_000),
        range(LOWEST, HIGHEST, 2**52),
    ],
)
def test_what_is_written_is_read(folder, values):
    path = folder / "ids" / "some.parquet"
    write_keys(path, array("q", values))
    assert read_keys(path) == array("q", values)


@quick
@given(st.sets(numbers, max_size=50))
def test_any_numbers_are_read_as_they_were_written(tmp_path, values):
    path = tmp_path / f"{uuid4().hex}.parquet"
    write_keys(path, keys_of(values))
    assert read_keys(path) == keys_of(values)


def test_a_million_ids_take_little_room(tmp_path):
    keys = array("q")
    keys.frombytes(random.Random(1).randbytes(8_000_000))
    keys = keys_of(keys)
    write_keys(tmp_path / "ids", keys)
    assert (tmp_path / "ids").stat().st_size < 6.5 * 1_000_000
    assert read_keys(tmp_path / "ids") == keys


def test_a_missing_file_is_told(folder):
    with pytest.raises(OSError, match="nothing"):
        read_keys(folder / "nothing")


@pytest.fixture
def written(tmp_path):
    """Give a file of 300 keys, and its bytes."""
    path = tmp_path / "ids.parquet"
    write_keys(path, keys_of(random.Random(1).sample(range(2**62), 300)))
    return path, path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_told(written, share):
    path, content = written
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(OSError):  # noqa: PT011 - Arrow's own, or ours
        read_keys(path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"garbage " * 1_000, b"PAR1" * 100, b"{}"])
def test_a_file_of_something_else_is_told(written, content):
    path, _ = written
    path.write_bytes(content)
    with pytest.raises(OSError):  # noqa: PT011 - Arrow's own, or ours
        read_keys(path)


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_a_number_that_was_changed_on_the_disk_is_told(written, share):
    path, content = written
    place = int(share * len(content))
    path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
    with pytest.raises(OSError):  # noqa: PT011 - Arrow's own, or ours
        read_keys(path)
