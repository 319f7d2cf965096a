"""Which segment is meant, and which property it feeds."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from airflow_provider_heapbraze.clients.braze_reads import SegmentInfo
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.segments.exports import segment_folder
from airflow_provider_heapbraze.segments.names import PropertySource, find_segment, usual_property
from tests.unit.segments.holding import BASE_URL


def named(braze, *names):
    braze.add_segments([{"id": f"segment-{n}", "name": name} for n, name in enumerate(names)])


def test_a_name_is_exact(braze, reads):
    named(braze, "Lapsed buyers", "lapsed buyers", "Lapsed buyers ", "Käufer 🙂", 'It\'s "quoted"')
    assert [find_segment(reads, name) for name in ("Lapsed buyers", "lapsed buyers", "Lapsed buyers ")] == [
        "segment-0",
        "segment-1",
        "segment-2",
    ]
    assert find_segment(reads, "Käufer 🙂") == "segment-3"
    assert find_segment(reads, 'It\'s "quoted"') == "segment-4"


def test_a_name_that_several_have(braze, reads):
    named(braze, "Twice", "Once", "Twice", "Twice")
    with pytest.raises(ConfigurationError, match=r"3 segments .* segment-0, segment-2, segment-3\. Nothing"):
        find_segment(reads, "Twice")
    assert find_segment(reads, "Once") == "segment-1"


def test_a_name_that_is_nearly_right(braze, reads):
    named(braze, "Lapsed buyers", "Lapsed buyer", "Lapsed buyers EU", "Lapsed bayers", "Quite another")
    with pytest.raises(ConfigurationError) as caught:
        find_segment(reads, "Lapsd buyers")
    said = str(caught.value)
    assert "None of the 5 segments" in said
    assert "Do you mean 'Lapsed buyers' or " in said
    assert said.partition("Nothing was sent")[0].count(" or ") == 2, "three at most"
    assert "Quite another" not in said


@pytest.mark.parametrize("names", [[], ["Quite another"]])
def test_a_name_that_is_like_none(braze, reads, names):
    named(braze, *names)
    with pytest.raises(ConfigurationError, match=f"None of the {len(names)} ") as caught:
        find_segment(reads, "Lapsed buyers")
    assert "Do you mean" not in str(caught.value)


class Listings:
    """Lists segments that are made and removed meanwhile: each time something else."""

    def __init__(self, *listings):
        self._listings = iter(listings)

    def segments(self):
        yield from (SegmentInfo(*one) for one in next(self._listings))


ONE, TWO = ("segment-1", "Lapsed buyers"), ("segment-2", "Another")


def test_a_segment_that_moved_to_the_next_page_is_one():
    assert find_segment(Listings([ONE, TWO, ONE]), "Lapsed buyers") == "segment-1"


def test_a_segment_that_was_passed_over_is_found_the_second_time():
    assert find_segment(Listings([TWO], [TWO, ONE]), "Lapsed buyers") == "segment-1"
    with pytest.raises(ConfigurationError, match="None of the 1 segments"):
        find_segment(Listings([TWO], [TWO], [ONE]), "Lapsed buyers")


def test_a_name_that_is_found_is_listed_once(braze, reads):
    named(braze, "Lapsed buyers")
    find_segment(reads, "Lapsed buyers")
    assert len(braze.requests()) == 1


@pytest.mark.parametrize(
    ("name", "property_name"),
    [
        ("Lapsed buyers", "braze_segment_lapsed_buyers"),
        ("  --Lapsed   (buyers)!  ", "braze_segment_lapsed_buyers"),
        ("lapsed_buyers_", "braze_segment_lapsed_buyers"),
        ("Käufer: früher & größer", "braze_segment_käufer_früher_größer"),
        ("漢字 🙂 ABC", "braze_segment_漢字_abc"),
        ("100 %", "braze_segment_100"),
        ("🙂 !?", "braze_segment_segment-0"),
        ("", "braze_segment_segment-0"),
        ("../../etc/passwd", "braze_segment_etc_passwd"),
    ],
)
def test_the_usual_property(braze, reads, tmp_path, name, property_name):
    named(braze, name)
    assert usual_property(tmp_path, reads, BASE_URL, "segment-0") == property_name


def test_the_first_name_stays(braze, reads, tmp_path):
    named(braze, "Lapsed buyers")
    first = usual_property(tmp_path, reads, BASE_URL, "segment-0")
    named(braze, "Renamed")
    asked = len(braze.requests())
    assert usual_property(tmp_path, reads, BASE_URL, "segment-0") == first
    assert len(braze.requests()) == asked, "Braze is not asked again"
    other = usual_property(tmp_path, reads, "https://rest.iad-02.braze.com", "segment-0")
    assert other == "braze_segment_renamed", "another workspace has another one"


def test_a_segment_that_there_is_not_leaves_nothing_behind(reads, tmp_path):
    with pytest.raises(ConfigurationError, match="no segment with that id"):
        usual_property(tmp_path, reads, BASE_URL, "no-such-segment")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record(reads, tmp_path):
    record = tmp_path / segment_folder(BASE_URL, "segment-0") / "property.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    with pytest.raises(LedgerDamagedError, match=r"property\.json .* it is made again"):
        usual_property(tmp_path, reads, BASE_URL, "segment-0")


def property_ledger(folder, name="In Braze"):
    return TargetLedger(folder, Target("property", {"heap": "environment", "property": name}))


FIRST, SECOND = PropertySource("segment-one", None), PropertySource("segment-two", None)
BY_ALIAS = PropertySource("segment-one", "crm")


def test_a_property_has_one_source(tmp_path):
    for _ in range(2):
        FIRST.claim(property_ledger(tmp_path))
        FIRST.check(property_ledger(tmp_path))
    for step in (SECOND.check, SECOND.claim):
        with pytest.raises(
            ConfigurationError, match=r"fed by segment segment-one .*segment-two .*would undo"
        ):
            step(property_ledger(tmp_path))
    for step in (BY_ALIAS.check, BY_ALIAS.claim):
        with pytest.raises(ConfigurationError, match=r"\(alias_label None\); .* \(alias_label 'crm'\)"):
            step(property_ledger(tmp_path))
    SECOND.claim(property_ledger(tmp_path, "Another"))


def test_who_only_looks_claims_nothing(tmp_path):
    for source in (FIRST, SECOND):
        source.check(property_ledger(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_new_source_takes_the_place_of_one_whose_record_is_removed(tmp_path):
    ledger = property_ledger(tmp_path)
    FIRST.claim(ledger)
    with pytest.raises(ConfigurationError) as caught:
        SECOND.claim(ledger)
    place = ledger.uri("segment.json")
    assert str(caught.value).endswith(f"remove {place}.")
    Path(place.removeprefix("file://")).unlink()
    SECOND.claim(ledger)
    with pytest.raises(ConfigurationError, match="fed by segment segment-two"):
        FIRST.check(ledger)


@pytest.fixture
def unseen(monkeypatch):
    """Return what lets the next so many looks for a file be the moment before another task wrote it."""

    def begin(times):
        looks, exists = count(), Path.exists
        monkeypatch.setattr(Path, "exists", lambda path: next(looks) >= times and exists(path))

    return begin


def test_two_sources_at_the_same_moment(tmp_path, unseen):
    FIRST.claim(property_ledger(tmp_path))
    unseen(2)
    SECOND.check(property_ledger(tmp_path))
    with pytest.raises(ConfigurationError, match="is fed by segment segment-one"):
        SECOND.claim(property_ledger(tmp_path))


def test_two_tasks_that_name_a_property_at_the_same_moment(braze, reads, tmp_path, unseen):
    named(braze, "Lapsed buyers")
    first = usual_property(tmp_path, reads, BASE_URL, "segment-0")
    named(braze, "Renamed")
    unseen(2)
    assert usual_property(tmp_path, reads, BASE_URL, "segment-0") == first
