"""Nothing private leaks from a segment that is read: in no log line, error, result or name of a file."""

from __future__ import annotations

import json
import logging
import traceback
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.membership.identity import HeapIdentity
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.tables import workspace
from airflow_provider_heapbraze.sandbox import connections
from airflow_provider_heapbraze.segments.arrival import ReadyCheck
from airflow_provider_heapbraze.segments.comparison import compare
from airflow_provider_heapbraze.segments.existence import (
    check_attribute_values,
    check_existence,
    draw,
    draw_leavers,
)
from airflow_provider_heapbraze.segments.exported import ExportedMembers, export_archives, load_exported
from airflow_provider_heapbraze.segments.exports import RunExports
from airflow_provider_heapbraze.segments.verification import Tolerance, failed, write_verification
from tests.unit.segments.holding import (
    BASE_URL,
    EXPORT,
    alias,
    archives_of,
    device,
    external,
    findings,
    holding,
    planned,
    zipped,
)

PERSON, ALIAS, LABEL, DEVICE, BRAZE_ID = (
    "private-person-0001",
    "private-alias-0002",
    "private-label-0003",
    "private-device-0004",
    "private-braze-0005",
)
STRANGER, BY_HAND = "private-stranger-06", "private-by-hand-0007"
PRIVATE = [PERSON, ALIAS, LABEL, DEVICE, BRAZE_ID, STRANGER, BY_HAND, connections.REST_API_KEY]
HELD = [external(PERSON), alias(ALIAS, LABEL), external(STRANGER), device(DEVICE)]
ATTRIBUTE = "in_cohort_one"


class Seen:
    """Everything that people get to see."""

    def __init__(self, caplog):
        self._caplog = caplog
        self._said = []
        self.private = [*PRIVATE]

    def note(self, value):
        self._said.append(f"{value!r} {value!s}")

    @contextmanager
    def errors(self, expected=HeapBrazeError):
        with pytest.raises(expected) as caught:
            yield caught
        error = caught.value
        self._said.extend(traceback.format_exception(error))
        while error is not None:
            self._said.append(f"{error!r} {error.args!r}")
            error = error.__cause__ or error.__context__

    def check(self):
        lines = [
            f"{record.getMessage()} {record.args!r} {record.exc_info!r}" for record in self._caplog.records
        ]
        for text in (*self._said, *lines):
            assert [secret for secret in self.private if secret in text] == []
        return lines


@pytest.fixture
def seen(caplog):
    caplog.set_level(logging.DEBUG)
    seen = Seen(caplog)
    yield seen
    seen.check()


@pytest.fixture
def people(braze):
    braze.add_users(
        [
            {"external_id": PERSON, "aliases": [{"alias_name": ALIAS, "alias_label": LABEL}]},
            {"external_id": BY_HAND, "device_ids": [DEVICE]},
        ]
    )


@pytest.fixture
def archive(tmp_path):
    return zipped(tmp_path / "export.zip", [{"external_id": BY_HAND, "braze_id": BRAZE_ID}])


def test_a_comparison(reads, people, archive, seen, tmp_path):
    ledger, commit = holding(tmp_path / "ledger", HELD)
    found = compare(ledger, commit, archives_of(archive), reads)
    result = write_verification(ledger, commit, found)
    complaints = Tolerance(0.0, 0.0).complaints(result)
    assert len(complaints) == 2
    assert len(findings(result)) == 4, "the file in the ledger is where they are named"
    for value in (found, result, complaints, json.dumps(result)):
        seen.note(value)
    with seen.errors():
        raise failed(ledger, result, complaints)
    for path in tmp_path.rglob("*"):
        seen.note(path)
    assert any("4" in line or "missing" in line for line in seen.check()), "lines are captured"


def test_a_sample(reads, people, seen, tmp_path):
    ledger, commit = holding(tmp_path / "ledger", HELD)
    sample = draw(ledger, commit, 2)
    planned(tmp_path, ledger, [], [external(BY_HAND)])
    leavers = draw_leavers(ledger, commit, 2)
    seen.note(sample)
    for result in (
        check_existence(sample, reads),
        check_attribute_values(sample, leavers, reads, ATTRIBUTE),
    ):
        seen.note(result)
        seen.note(write_verification(ledger, commit, result))


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 401, "body": {"message": f"Invalid API Key {connections.REST_API_KEY} {PERSON}"}},
        {"status": 400, "body": {"message": f"{PERSON} {ALIAS}"}},
        {"status": 500, "body": {"message": PERSON}},
        {"status": 201, "body": {"message": "success", "users": [PERSON]}},
        {"status": 201, "body": {"message": "success", "users": [{"user_aliases": [PERSON]}]}},
        {"status": 201, "body": {"errors": [PERSON]}},
        {"kind": "cut-after"},
    ],
    ids=lambda fault: str(fault.get("status", "cut")),
)
def test_profiles_that_cannot_be_read(braze, reads, people, archive, seen, tmp_path, fault):
    ledger, commit = holding(tmp_path / "ledger", HELD)
    braze.faults(next=[{"count": 9, "endpoint": "users-export-ids", **fault}])
    with seen.errors():
        compare(ledger, commit, archives_of(archive), reads)
    with seen.errors():
        check_attribute_values(draw(ledger, commit, 9), [], reads, ATTRIBUTE)


@pytest.mark.parametrize(
    "line",
    [
        '{"external_id":{"id":"%s"}}',
        '{"external_id":"%s"',
        '"%s"',
        '{"external_id":"%s","external_id":"b"}',
        '{"user_aliases":["%s"]}',
    ],
)
def test_an_export_that_cannot_be_read(reads, seen, tmp_path, line):
    file = zipped(tmp_path / "export.zip", [{"external_id": BY_HAND}, line % PERSON])
    exports = RunExports(tmp_path / "ledger", BASE_URL, EXPORT.segment_id, "run-1")
    exports.started(EXPORT)
    label = "crm" if "aliases" in line else None
    with seen.errors(), exports.reading(EXPORT):
        match(ExportedMembers(archives_of(file), label), HeapIdentity(label), None, tmp_path / "ledger")
    assert exports.under_way(EXPORT.fields, EXPORT.started_at) is None
    ledger, commit = holding(tmp_path / "ledger", HELD)
    with seen.errors():
        compare(ledger, commit, archives_of(file), reads)


@pytest.fixture
def behind_url(braze, reads, people, seen):
    """An export whose URL is a secret."""
    braze.add_segments([{"id": EXPORT.segment_id, "name": "One"}])
    started = reads.start_export(EXPORT.segment_id, ["external_id"])
    seen.private.append(started.url.rpartition("/")[2])
    seen.note(started)
    return replace(EXPORT, url=started.url)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 403, "body": {"message": PERSON}},
        {"status": 404},
        {"status": 302, "headers": {"Location": "https://elsewhere.example/"}},
        {"status": 500, "body": PERSON},
        {"status": 200, "body": [{"external_id": PERSON}]},
        {"kind": "cut-after"},
    ],
    ids=lambda fault: str(fault.get("status", "cut")),
)
def test_a_url_that_gives_no_archive(braze, reads, behind_url, seen, fault):
    seen.note(behind_url)
    seen.note(ReadyCheck(behind_url, None).is_ready(reads))
    braze.faults(next=[{"count": 9, "endpoint": "segment-export-file", **fault}])
    with suppress(HeapBrazeError):
        seen.note(ReadyCheck(behind_url, None).is_ready(reads))
    with workspace() as space, seen.errors():
        load_exported(space, export_archives(behind_url, reads, None))


@pytest.mark.parametrize(
    "url", ["http://files.example/{}", "https://{}@files.example/", "ftp://x/{}", "{}", "https://[{}"]
)
def test_a_url_that_goes_nowhere(reads, seen, url):
    token = "private-signature-0123"
    seen.private.append(token)
    export = replace(EXPORT, url=url.format(token))
    with workspace() as space, seen.errors():
        load_exported(space, export_archives(export, reads, None))
    with seen.errors():
        ReadyCheck(export, None).is_ready(reads)


def test_an_archive_behind_a_url(reads, behind_url, seen):
    with workspace() as space:
        assert load_exported(space, export_archives(behind_url, reads, None)) == 2
        assert space.ask("SELECT count(*) FROM exported") == [(2,)]


def test_a_place_that_is_lost_and_a_log_that_is_damaged(behind_url, seen, tmp_path):
    ours, theirs = (RunExports(tmp_path, BASE_URL, EXPORT.segment_id, "run-1") for _ in range(2))
    theirs.started(behind_url)
    with seen.errors():
        ours.started(replace(behind_url, object_prefix="prefix-0002"))
    record = ours.path("log/00000001.json")
    for damaged in (record.read_text()[:-9], record.read_text().replace('"until"', '"untill"')):
        record.write_text(damaged)
        with seen.errors():
            ours.under_way(EXPORT.fields, EXPORT.started_at)
