"""A run's report as a file that needs nothing else."""

from __future__ import annotations

import os
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from airflow_provider_heapbraze.pages import charts, rendering
from airflow_provider_heapbraze.pages.rendering import number, percent, when
from airflow_provider_heapbraze.pages.reports import export_report, keep_beside, membership_report
from airflow_provider_heapbraze.pages.waterfall import events, membership

HOSTILE = '<script>alert("1")</script>'
COUNTS = {
    "members": 100,
    "unmatched": {"no usable value": 8, "too long": 0},
    "duplicates": 2,
    "matched": 90,
    "undeliverable": 5,
    "wanted": 85,
    "held": 80,
    "unchanged": 75,
    "adds": 10,
    "removes": 5,
    "leaving": 0,
    "asserted_again": 0,
    "planned": 15,
    "acknowledged": 14,
    "rejected": {"refused_400": 1},
}
REQUESTS = {"requests": 3, "waits": 0, "seconds_waited": 0, "by_status": {"201": 3}}
ENDED = {
    "requests": REQUESTS,
    "seconds": 1.5,
    "finished_at": "2026-11-24T02:30:00+00:00",
    "report_uri": "file:///r",
}
REPORT = {
    "run_id": f"dag/{HOSTILE}/import",
    "plan_id": "00000001-000000000000",
    "target": {"kind": "cohort", "braze": "https://rest.iad-01.braze.com", "cohort_id": HOSTILE},
    "name": HOSTILE,
    "waterfall": COUNTS,
    "size": 85,
    "settled_by_earlier_attempts": 0,
    "rejected_rows": None,
    **ENDED,
}
EXPORT = {
    "run_id": "dag/run/export",
    "source": "s3://bucket/<b>currents</b>",
    "events": 10,
    "sent": 6,
    "duplicates": 1,
    "anonymous": 1,
    "filtered": 1,
    "rejected": 1,
    "cut": 0,
    "files": 2,
    "filtered_by": {"type": 1},
    "rejected_by": {"too_old": 1},
    "set_aside": [{"file": "s3://bucket/<i>", "reason": "<u>cut off</u>"}],
    "notes": ["<b>a note</b>"],
    "kept_aside": "s3://bucket/ledger/aside",
    **ENDED,
}


class Tags(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text.append(data)


REPORTS = {"membership": membership_report(REPORT), "export": export_report(EXPORT)}


@pytest.mark.parametrize("kind", REPORTS)
def test_it_stands_alone(kind):
    html = REPORTS[kind]
    found = Tags(html.decode())
    assert not {"script", "link", "img", "iframe", "b", "i", "u", "a"} & set(found.tags)
    names = {name for name, _ in found.attributes}
    assert not {"src", "href", "style"} & names
    assert not [name for name in names if name.startswith("on")]
    assert "url(" not in html.decode()
    policy = next(value for _, value in found.attributes if value and value.startswith("default-src"))
    assert "'none'" in policy


def test_it_is_kept_beside_the_report(tmp_path):
    keep_beside(tmp_path / "reports" / "00000002-abcd.json", REPORT, membership_report)
    assert (tmp_path / "reports" / "00000002-abcd.html").read_bytes() == membership_report(REPORT)


def test_a_run_does_not_fail_for_want_of_it(tmp_path, caplog):
    keep_beside(tmp_path / "00000002-abcd.json", {"run_id": "dag/run/import"}, membership_report)
    assert list(tmp_path.iterdir()) == []
    assert "The report has no HTML beside it" in caplog.text


def test_a_hostile_name_is_text():
    found = Tags(membership_report(REPORT).decode())
    assert f"{HOSTILE} – Heap ↔ Braze" in found.text  # noqa: RUF001
    assert f"dag/{HOSTILE}/import" in found.text


def test_every_number_is_in_it():
    text = " ".join(" ".join(Tags(membership_report(REPORT).decode()).text).split())
    for said in ("unmatched: no usable value −8", "matched 90", "wanted 85", "to add 10", "to remove 5",  # noqa: RUF001
                 "rejected: refused_400 −1", "acknowledged 14", "201: 3"):  # fmt: skip  # noqa: RUF001
        assert said in text


def test_notes_of_a_run_are_said():
    report = {
        **REPORT,
        "next_step": "Make the segment.",
        "settled_by_earlier_attempts": 4,
        "rejected_rows": "file:///ledger/rejected.parquet",
        "approval": {
            "approved": True,
            "guards": ["max_removed"],
            "by": "Ann",
            "at": "2026-11-24T02:00:00+00:00",
        },
        "recovery": {"plans": 3, "lost": 1},
    }
    text = " ".join(" ".join(Tags(membership_report(report).decode()).text).split())
    assert "Make the segment." in text
    assert "by Ann, 2026-11-24 02:00 UTC; guards passed: max_removed" in text
    assert "1 of them lost" in text


def test_the_waterfall_goes_down_to_what_was_accepted():
    members, changes = membership(COUNTS)
    assert [(step.label, step.count) for step in members.steps] == [
        ("members in the segment", 100),
        ("unmatched: no usable value", -8),
        ("duplicates", -2),
        ("matched", 90),
        ("not deliverable this way", -5),
        ("wanted", 85),
        ("unchanged", -75),
    ]
    assert [(step.label, step.start, step.end) for step in changes.steps] == [
        ("to add", 0, 10),
        ("to remove", 10, 15),
        ("planned", 0, 15),
        ("rejected: refused_400", 14, 15),
        ("acknowledged", 0, 14),
    ]


def test_the_waterfall_of_a_plan_that_was_not_carried_out():
    planned = {name: COUNTS[name] for name in COUNTS if name not in {"planned", "acknowledged", "rejected"}}
    _, changes = membership({**planned, "leaving": 3})
    assert [step.label for step in changes.steps] == ["to add", "to remove", "absent, not removed yet"]


def test_the_waterfall_of_events_ends_with_what_was_sent():
    (fall,) = events(EXPORT)
    assert (fall.steps[-1].label, fall.steps[-1].count) == ("sent to Heap", 6)


@pytest.mark.parametrize("values", [[], [0], [5], [0, 0], [1, 1_000_000], list(range(400))])
def test_pictures_are_well_formed(values):
    said = [f"<{value}>" for value in values]
    drawn = [charts.sparkline(values)]
    if values:
        drawn += [
            charts.sizes(values, said, said, "<caption>"),
            charts.changes(values, values[::-1], said, said, "<caption>"),
        ]
    for svg in drawn:
        if svg:
            numbers = re.findall(r'(?:width|height)="(-?[\d.]+)"', svg)
            assert ET.fromstring(svg) is not None  # noqa: S314 - it is ours
            assert all(float(found) >= 0 for found in numbers)


def test_a_little_is_seen_and_nothing_is_not():
    assert 'width="0.40"' in charts.share_bar(0, 1, 1_000_000, "adds")
    assert 'width="0.00"' in charts.share_bar(0, 0, 1_000_000, "adds")
    assert 'width="0.00"' in charts.share_bar(0, 0, 0, "adds")


def test_numbers_for_people():
    assert (number(1234567), number(None)) == ("1,234,567", "–")  # noqa: RUF001
    assert (percent(1), percent(0.99999), percent(0.5), percent(0.123)) == ("100%", "> 99.9%", "50%", "12.3%")
    assert (percent(0.001), percent(0.00001), percent(0)) == ("0.1%", "< 0.1%", "0%")
    assert when("2026-11-24T02:30:00+01:00") == "2026-11-24 01:30 UTC"


@pytest.mark.parametrize("state", ["gone", "in the way"])
def test_a_page_does_not_need_the_place_where_templates_are_kept(tmp_path, monkeypatch, state):
    """Something else cleans temporary folders while a server runs."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rendering._environment.cache_clear()
    try:
        if state == "in the way":
            (tmp_path / f"_jinja2-cache-{os.getuid()}").write_text("a file")
        environment = rendering._environment()
        if state == "gone":
            shutil.rmtree(environment.bytecode_cache.directory)
        assert b"<html" in membership_report(REPORT)
    finally:
        rendering._environment.cache_clear()
