"""The users in an export's files: the same ones wherever a step ends, and none lost in silence."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from uuid import uuid4

import pytest
from upath import UPath

from airflow_provider_heapbraze.clients.errors import ConfigurationError, ExportGoneError
from airflow_provider_heapbraze.membership.identity import HeapIdentity
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.tables import workspace
from airflow_provider_heapbraze.segments import archives, exported
from airflow_provider_heapbraze.segments.archives import UnusableExportError
from airflow_provider_heapbraze.segments.exported import (
    COLUMNS,
    EXPORT_FIELDS,
    ExportedMembers,
    export_archives,
    load_exported,
    steps,
)
from airflow_provider_heapbraze.segments.exports import ExportLateError
from tests.unit.segments.holding import DAY, EXPORT, archives_of, zipped

SECRET = "private-person-0001"
LONG = random.Random(1).randbytes(1_000_000).hex()


def user(number):
    """Return a user's line; among seven there is one of every kind."""
    line = {"braze_id": f"braze-{number:08}"}
    if number % 7:
        line["external_id"] = f"person-{number:08}" + "x" * (number * 37 % 90)
    aliases = [
        {"alias_name": f"alias-{number:08}-{label}", "alias_label": label}
        for label in ("email", "crm")[: number % 3]
    ]
    return {**line, "user_aliases": aliases} if aliases else line


USERS = [user(number) for number in range(50)]


def rows_of(users):
    """Return what is to be in the table, without the persons' numbers: nobody relies on those."""
    rows = []
    for one in users:
        found = [("external_id", one["external_id"], "")] if "external_id" in one else []
        found += [("alias", a["alias_name"], a["alias_label"]) for a in one.get("user_aliases", [])]
        rows.append(sorted(found or [("braze_id", one["braze_id"], "")]))
    return sorted(rows)


def loaded(*files):
    """Return every person's identifiers, sorted, and how many people there are."""
    with workspace() as space:
        persons = load_exported(space, archives_of(*files))
        rows = {}
        for person, *row in space.ask("SELECT person, kind, value, label FROM exported"):
            rows.setdefault(person, []).append(tuple(row))
        return sorted(map(sorted, rows.values())), persons


def matched(folder, *files, label=None):
    members = ExportedMembers(archives_of(*files), label)
    return match(members, HeapIdentity(label), None, folder / "ledger")


@pytest.fixture
def files(tmp_path):
    return [
        zipped(tmp_path / "one.zip", USERS[:30], [], USERS[30:31]),
        zipped(tmp_path / "none.zip"),
        zipped(tmp_path / "two.zip", USERS[31:]),
    ]


@pytest.mark.parametrize(
    ("block", "step"), [(64, 300), (64, 1500), (1000, 700), (1000, 128 << 20), (1 << 20, 1)]
)
def test_it_makes_no_difference_where_a_step_ends(monkeypatch, tmp_path, files, block, step):
    whole = [matched(tmp_path, *files, label=label) for label in (None, "crm")]
    monkeypatch.setattr(archives, "BLOCK", block)
    monkeypatch.setattr(exported, "STEP_BYTES", step)
    assert loaded(*files) == (rows_of(USERS), len(USERS))
    assert [matched(tmp_path, *files, label=label) for label in (None, "crm")] == whole
    ids = sum("external_id" in one for one in USERS)
    by_alias = sum(len(one.get("user_aliases", [])) == 2 for one in USERS)
    assert [result.counts["matched"] for result in whole] == [ids, by_alias]
    assert [result.counts["unmatched"] for result in whole] == [{"blank": 50 - ids}, {"blank": 50 - by_alias}]


def test_a_step_is_not_taken_for_the_one_before(monkeypatch, tmp_path):
    """Steps of the same size, one after the other in the same file."""
    monkeypatch.setattr(archives, "BLOCK", 1)
    monkeypatch.setattr(exported, "STEP_BYTES", 1)
    users = [{"external_id": f"person-{n:08}"} for n in range(40)]
    file = zipped(tmp_path / "a.zip", *([one] for one in users))
    with workspace() as space:
        parts = [
            space.ask(f"SELECT external_id FROM {part}") for part in steps(archives_of(file), space.folder)
        ]
    assert parts == [*([(one["external_id"],)] for one in users), []]


@pytest.mark.parametrize("contents", [[], [[]], [[], [""]]], ids=["no file", "an empty file", "blank lines"])
def test_nobody_is_in_the_segment(tmp_path, contents):
    file = zipped(tmp_path / "a.zip", *contents)
    assert loaded(file) == ([], 0)
    result = matched(tmp_path, file)
    assert result.counts == {"members": 0, "matched": 0, "identity": 0, "duplicates": 0, "unmatched": {}}


def test_no_archive_at_all():
    assert loaded() == ([], 0)


def test_the_same_user_twice_is_one_member(tmp_path):
    file = zipped(tmp_path / "a.zip", USERS[1:3], USERS[1:2])
    assert loaded(file)[1] == 3
    counts = matched(tmp_path, file).counts
    assert (counts["members"], counts["matched"], counts["duplicates"]) == (3, 2, 1)


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ('{"external_id":12345678901234567,"braze_id":"b"}', [("external_id", "12345678901234567", "")]),
        ('{"external_id":null,"braze_id":"b"}', [("braze_id", "b", "")]),
        ('{"external_id":"null"}', [("external_id", "null", "")]),
        ('{"user_aliases":null,"braze_id":"b"}', [("braze_id", "b", "")]),
        ('{"user_aliases":[],"braze_id":"b"}', [("braze_id", "b", "")]),
        ('{"user_aliases":[null],"braze_id":"b"}', [("braze_id", "b", "")]),
        ('{"user_aliases":[{"alias_name":"a"}],"braze_id":"b"}', [("braze_id", "b", "")]),
        ('{"user_aliases":[{"alias_name":"a","alias_label":null}],"braze_id":"b"}', [("braze_id", "b", "")]),
        ('{"user_aliases":[{"alias_label":"crm"}],"braze_id":"b"}', [("braze_id", "b", "")]),
        ('{"user_aliases":[{"alias_name":"a","alias_label":7}]}', [("alias", "a", "7")]),
        ("{}", [("braze_id", "", "")]),
        ('{"external_id":"\\u0061\\"\\n\\ud83d\\ude42\\u0000"}', [("external_id", 'a"\n🙂\x00', "")]),
        ('{"EXTERNAL_ID":"a","external_id":"b"}', [("external_id", "b", "")]),
        ('{"other":{"external_id":"a"},"external_id":"b"}', [("external_id", "b", "")]),
        ('{"external_id":"2026-01-01"}', [("external_id", "2026-01-01", "")]),
        ('{"external_id":"0012"}', [("external_id", "0012", "")]),
        (json.dumps({"external_id": LONG}), [("external_id", LONG, "")]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_odd_lines_that_are_somebody(tmp_path, line, rows):
    file = zipped(tmp_path / "a.zip", [line])
    assert loaded(file) == ([rows], 1)
    counts = matched(tmp_path, file).counts
    has_id = rows[0][0] == "external_id"
    is_too_long = len(rows[0][1]) > 255
    assert counts["matched"] == (has_id and not is_too_long)
    assert counts["unmatched"] == ({"too_long": 1} if is_too_long else {} if has_id else {"blank": 1})


BAD_IDS = [
    '{"external_id":{"id":"%s"}}',
    '{"external_id":["%s"]}',
    '{"external_id":true,"note":"%s"}',
    '{"external_id":1.50,"note":"%s"}',
    '{"external_id":"%s","external_id":"b"}',
    '{"external_id":"%s"} {"external_id":"b"}',
    '{"external_id":"%s"}{"external_id":"b"}',
    '{"external_id":"%s"]}',
    '{"external_id":"%s\\ud83d"}',
    '{"external_id":"%s\ra"}',
    '{"external_id":"%s}',
]
BAD_ALIASES = [
    '{"user_aliases":"%s"}',
    '{"user_aliases":{"alias_name":"%s","alias_label":"crm"}}',
    '{"user_aliases":["%s"]}',
    '{"user_aliases":[["%s"]]}',
    '{"user_aliases":[{"alias_name":{"a":"%s"},"alias_label":"crm"}]}',
    '{"user_aliases":[{"alias_name":"%s","alias_label":["crm"]}]}',
]


@pytest.mark.parametrize("line", [*BAD_IDS, *BAD_ALIASES])
def test_odd_lines_that_are_nobody_are_refused_and_not_quoted(tmp_path, line):
    text = line % SECRET
    file = zipped(tmp_path / "a.zip", [USERS[1], text, USERS[2]])
    label = None if line in BAD_IDS else "crm"
    for read in (lambda: loaded(file), lambda: matched(tmp_path, file, label=label)):
        with pytest.raises((ConfigurationError, UnusableExportError), match="Nothing was sent") as caught:
            read()
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert SECRET not in str(caught.value)
    assert not (tmp_path / "ledger").exists()


@pytest.fixture(params=["local", "object store"])
def bucket(request, tmp_path):
    return tmp_path / "bucket" if request.param == "local" else UPath(f"memory://bucket-{uuid4().hex}")


def put(bucket, name, content, day=DAY):
    path = bucket / "segment-export" / EXPORT.segment_id / day / EXPORT.object_prefix / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_files_of_a_bucket_are_read_in_turn(bucket, tmp_path):
    put(bucket, "b.zip", zipped(tmp_path / "b", USERS[:30]).read_bytes())
    put(bucket, "a.gz", gzip.compress(b"".join(json.dumps(one).encode() + b"\n" for one in USERS[30:40])))
    put(bucket, "c.zip", zipped(tmp_path / "c", USERS[40:]).read_bytes(), day="2026-11-25")
    give = export_archives(EXPORT, None, bucket)
    with workspace() as space:
        assert load_exported(space, give) == len(USERS)
        assert list(space.folder.glob("*zip")) == [], "no copy stays"
        names = []
        for file, name in give(space.folder):
            names.append(name)
            assert file.stat().st_size
            assert len(list(space.folder.glob("*-*"))) <= 1, "one copy at a time"
    assert names == [f"File {number} of 3 of export {EXPORT.object_prefix}" for number in (1, 2, 3)]
    assert len(list(bucket.glob("segment-export/*/*/*/*"))) == 3, "nothing of the bucket is taken away"


def test_a_damaged_file_of_a_bucket_is_told_by_its_place(bucket, tmp_path):
    """A name is not shown: whose file it is, and what its name says, is not known."""
    put(bucket, "a.zip", zipped(tmp_path / "a", USERS[:40]).read_bytes())
    put(bucket, f"b-{SECRET}.zip", zipped(tmp_path / "b", [{"external_id": SECRET}]).read_bytes()[:-9])
    with (
        workspace() as space,
        pytest.raises(UnusableExportError, match=r"^File 2 of 2 of export prefix-0001 is cut") as caught,
    ):
        load_exported(space, export_archives(EXPORT, None, bucket))
    assert SECRET not in str(caught.value)


def test_files_that_are_gone_are_not_an_empty_segment(bucket):
    """They were seen. A rule of the bucket has removed them, or somebody."""
    put(bucket, ".hidden", b"")
    other = replace(EXPORT, object_prefix="other-prefix")
    for export in (EXPORT, other):
        with workspace() as space, pytest.raises(ExportGoneError, match="not in the bucket any more"):
            load_exported(space, export_archives(export, None, bucket))


@pytest.mark.parametrize(
    "change",
    [
        lambda bucket, zip_: put(bucket, "b.zip", zip_),
        lambda bucket, zip_: put(bucket, "a.zip", zip_ + b"more"),
        lambda bucket, _: put(bucket, "a.zip", b"").unlink(),
    ],
    ids=["a new file", "a file grows", "a file goes"],
)
def test_an_export_that_changes_while_it_is_read_is_read_again(bucket, tmp_path, change):
    content = zipped(tmp_path / "a", USERS[:40]).read_bytes()
    put(bucket, "a.zip", content)
    give = export_archives(EXPORT, None, bucket)
    with workspace() as space:
        files = give(space.folder)
        next(files)
        change(bucket, content)
        with pytest.raises(ExportLateError, match="was still writing"):
            next(files)
    put(bucket, "a.zip", content)
    with workspace() as space:
        assert load_exported(space, give) == 40 * len(list(bucket.glob("segment-export/*/*/*/*")))


def test_a_file_that_comes_too_late_is_no_silent_loss(bucket, tmp_path):
    content = zipped(tmp_path / "a", USERS[:40]).read_bytes()
    put(bucket, "a.zip", content)

    def give(folder):
        for archive in export_archives(EXPORT, None, bucket)(folder):
            yield archive
            put(bucket, "b.zip", content)

    with pytest.raises(ExportLateError):
        match(ExportedMembers(give), HeapIdentity(), None, tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()


def test_what_is_asked_for_is_what_is_read():
    assert set(EXPORT_FIELDS.values()) < set(COLUMNS)
    assert set(EXPORT_FIELDS) == {*HeapIdentity().columns().values(), *HeapIdentity("crm").columns().values()}
