"""Which segment is meant, and which property it feeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.segments.exports import segment_folder
from airflow_provider_heapbraze.segments.names import check_only_source, find_segment, usual_property
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
    assert said.count(" or ") == 2, "three at most"
    assert "Quite another" not in said


@pytest.mark.parametrize("names", [[], ["Quite another"]])
def test_a_name_that_is_like_none(braze, reads, names):
    named(braze, *names)
    with pytest.raises(ConfigurationError, match=f"None of the {len(names)} ") as caught:
        find_segment(reads, "Lapsed buyers")
    assert "Do you mean" not in str(caught.value)


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


def test_a_property_has_one_segment(tmp_path):
    for _ in range(2):
        check_only_source(property_ledger(tmp_path), "segment-one")
    with pytest.raises(ConfigurationError, match="fed by segment segment-one; segment segment-two would"):
        check_only_source(property_ledger(tmp_path), "segment-two")
    check_only_source(property_ledger(tmp_path, "Another"), "segment-two")


@pytest.fixture
def nothing_is_seen(monkeypatch):
    """Let whoever looks for a file look the moment before another task wrote it."""
    monkeypatch.setattr(Path, "exists", lambda *_, **__: False)


def test_two_segments_at_the_same_moment(tmp_path, nothing_is_seen):
    check_only_source(property_ledger(tmp_path), "segment-one")
    with pytest.raises(ConfigurationError, match="is fed by segment segment-one"):
        check_only_source(property_ledger(tmp_path), "segment-two")


def test_two_tasks_that_name_a_property_at_the_same_moment(braze, reads, tmp_path, nothing_is_seen):
    named(braze, "Lapsed buyers")
    first = usual_property(tmp_path, reads, BASE_URL, "segment-0")
    named(braze, "Renamed")
    assert usual_property(tmp_path, reads, BASE_URL, "segment-0") == first
