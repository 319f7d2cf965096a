"""How much a source holds, and how long it takes."""

from __future__ import annotations

import gzip
import json
from uuid import uuid4

import pytest
from upath import UPath

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.events import estimate as module
from airflow_provider_heapbraze.events.estimate import Estimate, estimate
from airflow_provider_heapbraze.events.sources import HourRange
from tests.currents import samples

CUSTOM = "users.behaviors.CustomEvent"


def lines(count):
    """Make events that are all of one length."""
    event = {"id": "event-0001", "time": 5, "event_type": CUSTOM}
    return f"{json.dumps(event)}\n".encode() * count


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def put(source, name, content):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).write_bytes(content)


@pytest.mark.parametrize("files", [1, 2, 19, 20, 21, 39, 40, 41, 79, 80, 100, 333])
def test_equal_files_are_counted_exactly(files, source):
    for number in range(files):
        put(source, f"{number:03}.json", lines(7))
    found = estimate(source, None, events_per_second=250)
    assert found == Estimate(files, files * len(lines(7)), files * 7, files * 7 / 250)


def test_events_of_one_length_are_counted_exactly_in_files_of_any_size(source):
    for number in range(250):
        put(source, f"{number:03}.json", lines(1 + number % 5))
    assert estimate(source, None, events_per_second=1).events == 250 * 3


def test_few_files_are_counted_whatever_their_sizes(source):
    put(source, "a.json", lines(3))
    put(source, "b.json.gz", gzip.compress(lines(500)))
    samples.write_avro(source / "c.avro", samples.schema(CUSTOM), samples.numbered(40), "deflate")
    assert estimate(source, None, events_per_second=1).events == 543


def test_few_files_are_read(source, monkeypatch):
    for number in range(1000):
        put(source, f"{number:04}.json", lines(1))
    opened = []
    plain_read = module.read_events

    def counted(file, *rest):
        opened.append(file.name)
        return plain_read(file, *rest)

    monkeypatch.setattr(module, "read_events", counted)
    assert estimate(source, None, events_per_second=1).events == 1000
    assert 10 <= len(opened) <= 20
    assert opened[0] < "0100.json", "they are spread over all files"
    assert opened[-1] > "0800.json"


def test_over_an_object_store():
    store = UPath(f"memory://bucket-{uuid4().hex}/currents")
    for number in range(25):
        path = store / f"event_type={CUSTOM}" / f"{number}.json"
        path.write_bytes(lines(4))
    found = estimate(store, None, events_per_second=10)
    assert found == Estimate(25, 25 * len(lines(4)), 100, 10.0)


def test_a_single_file(source):
    put(source, "a.json", lines(4))
    assert estimate(source / "a.json", None, events_per_second=2) == Estimate(1, len(lines(4)), 4, 2.0)


def test_only_some_hours(source):
    """What tells no hour may be of any."""
    for hour in ("02", "03", "04", "05"):
        put(source, f"date=2026-01-02-{hour}/a.json", lines(2))
    put(source, "late.json", lines(2))
    hours = HourRange("2026-01-02-03", "2026-01-02-05")
    assert estimate(source, hours, events_per_second=1).files == 3
    assert estimate(source, hours, events_per_second=1).events == 6
    nothing = HourRange("2027-01-01-00", "2027-01-02-00")
    assert estimate(source, nothing, events_per_second=1).events == 2


def test_nothing(source):
    assert estimate(source, None, events_per_second=250) == Estimate(0, 0, 0, 0.0)
    put(source, "empty.json", b"")
    assert estimate(source, None, events_per_second=250) == Estimate(1, 0, 0, 0.0)


def test_there_is_no_such_source(source):
    with pytest.raises(ConfigurationError, match="There is no folder"):
        estimate(source / "nothing", None, events_per_second=250)


def test_files_that_cannot_be_read_count_as_far_as_they_can(source):
    put(source, "a.json", lines(10))
    put(source, "b.json", lines(10)[:-20])
    put(source, "c.json", b"something else")
    assert estimate(source, None, events_per_second=1).events == 19


def test_a_file_that_goes_meanwhile_counts_as_nothing(source, monkeypatch):
    for name in ("a.json", "b.json"):
        put(source, name, lines(10))
    plain_read = module.read_events

    def read_where_it_is(file, *rest):
        if file.name == "a.json":
            file.unlink(missing_ok=True)
        return plain_read(file, *rest)

    monkeypatch.setattr(module, "read_events", read_where_it_is)
    assert estimate(source, None, events_per_second=1).events == 10


@pytest.mark.parametrize(
    ("events", "files", "seconds", "said"),
    [
        (10_200_000, 412, 40_800, "about 10.2 M events in 412 files, 11 h 20 min at Heap's limit"),
        (0, 0, 0, "about 0 events in 0 files, 0 s at Heap's limit"),
        (120, 3, 0.48, "about 120 events in 3 files, 0 s at Heap's limit"),
        (7_000, 3, 28, "about 7,000 events in 3 files, 28 s at Heap's limit"),
        (15_000, 3, 60, "about 15,000 events in 3 files, 1 min at Heap's limit"),
        (37_500, 10, 150, "about 37,500 events in 10 files, 2 min at Heap's limit"),
        (885_000, 10, 3540, "about 885,000 events in 10 files, 59 min at Heap's limit"),
        (900_000, 10, 3600, "about 900,000 events in 10 files, 1 h 0 min at Heap's limit"),
        (999_999, 1_234, 4000, "about 999,999 events in 1,234 files, 1 h 7 min at Heap's limit"),
        (1_000_000, 10, 4000, "about 1.0 M events in 10 files, 1 h 7 min at Heap's limit"),
        (
            5_250_000_000,
            1_000_000,
            21e6,
            "about 5.2 G events in 1,000,000 files, 5,833 h 20 min at Heap's limit",
        ),
    ],
)
def test_it_is_said_as_people_do(events, files, seconds, said):
    assert str(Estimate(files, 1, events, seconds)) == said
