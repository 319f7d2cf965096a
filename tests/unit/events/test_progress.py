"""What happened since the last record is written as JSON and read again, exactly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from airflow_provider_heapbraze.events.progress import FileProgress, FileState, Progress

MOST_ROW = 2**32 - 1
rows = st.one_of(
    st.sets(st.integers(0, 40)),
    st.sets(st.integers(0, MOST_ROW), max_size=5),
    st.builds(range, st.integers(0, 100), st.integers(0, 5_000)),
).map(BitMap)
texts = st.text(max_size=20)
file_progress = st.builds(
    FileProgress, texts, st.integers(0), rows, rows, st.none() | st.integers(0, MOST_ROW), texts
)
keys = st.integers(-(2**63), 2**63 - 1)


def through_json(progress):
    return Progress.from_record(json.loads(json.dumps(progress.as_record())))


@given(
    files=st.dictionaries(keys, file_progress, max_size=4),
    ids=st.dictionaries(st.integers(-5, 500_000), st.lists(keys, max_size=5), max_size=3),
    counts=st.dictionaries(texts, st.integers(0), max_size=4),
    aside=texts,
)
def test_it_is_read_as_it_was_written(files, ids, counts, aside):
    progress = Progress(files=files, aside=aside)
    progress.counts.update(counts)
    for hour, some in ids.items():
        progress.ids[hour] += some
    again = through_json(progress)
    assert again == progress
    assert list(again.files) == list(files)


@pytest.mark.parametrize(
    ("settled", "ranges"),
    [
        ([], []),
        ([0], [[0, 1]]),
        ([0, 1, 2], [[0, 3]]),
        ([1, 3, 4, 9], [[1, 2], [3, 5], [9, 10]]),
        ([MOST_ROW], [[MOST_ROW, MOST_ROW + 1]]),
        (range(1_000_000), [[0, 1_000_000]]),
    ],
)
def test_rows_are_written_as_ranges(settled, ranges):
    progress = Progress()
    progress.of(FileState(1, "a", 1)).settled |= BitMap(settled)
    assert progress.as_record()["files"]["1"]["settled"] == ranges
    assert through_json(progress) == progress


def test_what_was_read_can_be_added_to():
    progress = through_json(Progress())
    progress.ids[7].append(1)
    progress.counts["sent"] += 1
    assert (progress.ids, progress.counts) == ({7: [1]}, {"sent": 1})


def test_a_file_is_noted_once():
    progress, state = Progress(), FileState(-5, "a.avro", 100)
    progress.of(state).settled.add(1)
    progress.of(state).sending.add(2)
    assert progress.files == {-5: FileProgress("a.avro", 100, BitMap([1]), BitMap([2]))}


def test_it_tells_whether_anything_happened():
    assert not Progress()
    assert not Progress(aside="aside/1.jsonl")
    progress = Progress()
    progress.of(FileState(1, "a", 1))
    assert progress
    counted = Progress()
    counted.counts["events"] += 1
    assert counted


@pytest.mark.parametrize(
    ("rows", "settled", "expected"),
    [
        (None, range(5), False),
        (0, [], True),
        (3, [0, 1], False),
        (3, [0, 1, 2], True),
    ],
)
def test_a_file_is_settled_when_all_its_rows_are(rows, settled, expected):
    assert FileState(1, "a", 1, settled=BitMap(settled), rows=rows).is_settled is expected


def test_states_share_nothing():
    one, other = FileState(1, "a", 1), FileState(2, "b", 1)
    one.settled.add(1)
    one.doubtful.add(2)
    one.held.add(3)
    assert not (other.settled | other.doubtful | other.held)
