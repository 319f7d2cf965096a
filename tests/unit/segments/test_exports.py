"""Which export is under way for a run, and when its files are all there."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from uuid import uuid4

import pytest
from upath import UPath

from airflow_provider_heapbraze.clients.errors import (
    ConfigurationError,
    ExportGoneError,
    PermanentError,
    TransientError,
)
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError
from airflow_provider_heapbraze.segments.exports import (
    ExportLateError,
    ReadyCheck,
    RunExports,
    bucket_files,
    export_folder,
    read_export,
    segment_folder,
)
from tests.unit.segments.holding import BASE_URL, DAY, EXPORT

TOKEN = "private-signature-0123"
URL = f"https://files.example/segment.zip?X-Amz-Signature={TOKEN}"
BEHIND_URL = replace(EXPORT, url=URL)


@pytest.fixture(params=["local", "object store"])
def folder(request, tmp_path):
    return tmp_path if request.param == "local" else UPath(f"memory://bucket-{uuid4().hex}")


@pytest.fixture
def exports(folder):
    return RunExports(folder, BASE_URL, EXPORT.segment_id, "run-1")


def again(exports):
    """Return the same run's exports, as another attempt sees them."""
    root = exports.folder.parents[3]
    return RunExports(root, BASE_URL, EXPORT.segment_id, "run-1")


def test_an_export_is_under_way_until_it_is_read(exports):
    assert exports.under_way() is None
    assert exports.next_number() == 1
    exports.started(BEHIND_URL)
    assert again(exports).under_way() == BEHIND_URL
    with exports.reading(BEHIND_URL):
        assert again(exports).under_way() == BEHIND_URL
    assert again(exports).under_way() is None
    assert exports.next_number() == 3


def test_a_late_export_is_followed_by_another(exports):
    exports.started(EXPORT)
    later = replace(EXPORT, number=exports.next_number(), object_prefix="prefix-0002")
    exports.started(later)
    assert again(exports).under_way() == later


@pytest.mark.parametrize(
    ("error", "how"), [(PermanentError("no"), True), (TransientError("later"), False), (OSError(), False)]
)
def test_an_export_that_cannot_be_used_is_given_up_and_only_that(exports, error, how):
    exports.started(EXPORT)
    with pytest.raises(type(error)), exports.reading(EXPORT):
        raise error
    assert (again(exports).under_way() is None) == how


def test_an_export_that_is_gone_is_made_again_by_the_next_try(exports):
    exports.started(BEHIND_URL)
    gone = pytest.raises(ExportLateError, match="was gone before it was read")
    with gone as caught, exports.reading(BEHIND_URL):
        raise ExportGoneError("gone")
    assert isinstance(caught.value, TransientError)
    assert again(exports).under_way() is None


def test_every_run_and_segment_has_exports_of_its_own(folder):
    ids = (
        "segment-one",
        "segment one",
        "segment/one",
        "segment-One",
        "sègment-one",
        "..",
        "a" * 80,
        "a" * 81,
    )
    keys = [(BASE_URL, one, "run-1") for one in ids]
    keys += [("https://rest.iad-02.braze.com", "segment-one", "run-1"), (BASE_URL, "segment-one", "run-1@7")]
    keys += [(BASE_URL, "segment-one", "../../run-1")]
    everybody = [RunExports(folder, *key) for key in keys]
    for number, one in enumerate(everybody):
        one.started(replace(EXPORT, object_prefix=f"prefix-{number}"))
    assert [one.under_way().object_prefix for one in everybody] == [f"prefix-{n}" for n in range(len(keys))]
    for one in everybody:
        first, segment, second, run = one.name.split("/")
        assert (first, second) == ("segments", "exports")
        assert not {segment, run} & {"", ".", ".."}
        assert len(segment) < 80
    assert len({segment_folder(BASE_URL, one) for one in ids}) == len(ids)


def test_of_two_attempts_one_has_its_export_written_down(exports):
    ours, theirs = EXPORT, replace(EXPORT, object_prefix="prefix-0002")
    again(exports).started(theirs)
    with pytest.raises(PlaceLostError, match="Another attempt of this run"):
        exports.started(ours)
    assert exports.under_way() == theirs


@pytest.mark.parametrize("how", ["read", "UnusableExportError"])
def test_of_two_attempts_that_read_one_export_one_goes_on(exports, how):
    exports.started(EXPORT)
    again(exports).ended(EXPORT, "read")
    with pytest.raises(PlaceLostError, match="this one stops"):
        exports.ended(EXPORT, how)


def test_an_attempt_that_was_overtaken_while_it_read_stops(exports):
    exports.started(EXPORT)
    with pytest.raises(PlaceLostError), exports.reading(EXPORT):
        again(exports).started(replace(EXPORT, number=2, object_prefix="prefix-0002"))
    assert exports.under_way().object_prefix == "prefix-0002"


ENTRY = {"format": 1, "kind": "started", **BEHIND_URL.__dict__}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ENTRY)[:-20],
        "",
        "[]",
        json.dumps({**ENTRY, "format": 2}),
        json.dumps({name: value for name, value in ENTRY.items() if name != "kind"}),
        json.dumps({**ENTRY, "kind": "paused"}),
        json.dumps({name: value for name, value in ENTRY.items() if name != "url"}),
        json.dumps({**ENTRY, "color": "red"}),
    ],
)
def test_a_damaged_entry(exports, content):
    exports.started(BEHIND_URL)
    exports.path("log/00000001.json").write_text(content)
    for read in (
        exports.under_way,
        lambda: read_export(export_folder(exports.folder.parent, exports.folder.name)),
    ):
        with pytest.raises(LedgerDamagedError, match=r"00000001\.json") as caught:
            read()
        assert TOKEN not in str(caught.value)
        # Of a broken record the reader's error holds all, the URL as well.
        assert not isinstance(caught.value.__context__, ValueError)


def test_an_entry_that_is_missing(exports):
    for number in (1, 2, 3):
        exports.started(replace(EXPORT, number=number))
    exports.path("log/00000002.json").unlink()
    with pytest.raises(LedgerDamagedError, match="entry 2 of the log is missing"):
        exports.under_way()


def test_an_export_does_not_show_its_url():
    for shown in (repr(BEHIND_URL), str(BEHIND_URL), f"{[BEHIND_URL]}"):
        assert TOKEN not in shown
        assert "files.example" not in shown


class Bucket:
    """What Braze writes to, and one export's files in it."""

    def __init__(self, root):
        self.root = root

    def put(self, name, content=b"zip", *, prefix=EXPORT.object_prefix, day=DAY, segment=EXPORT.segment_id):
        path = self.root / "segment-export" / segment / day / prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def names(self):
        return [path.name for path in bucket_files(EXPORT, self.root)]


@pytest.fixture
def bucket(folder):
    return Bucket(folder / "bucket")


@pytest.fixture
def look(bucket):
    check = ReadyCheck(EXPORT, bucket.root)
    return lambda: check.is_ready(None)


def test_nothing_is_there_however_often_it_is_looked(look, bucket):
    assert [look() for _ in range(5)] == [False] * 5
    assert not ReadyCheck(EXPORT, bucket.root).is_anything_there(None)
    (bucket.root / "segment-export" / EXPORT.segment_id / DAY / EXPORT.object_prefix).mkdir(parents=True)
    assert [look() for _ in range(5)] == [False] * 5


def test_three_looks_that_find_the_same_are_enough(look, bucket):
    bucket.put("a.zip")
    assert ReadyCheck(EXPORT, bucket.root).is_anything_there(None)
    assert [look() for _ in range(4)] == [False, False, True, True]


@pytest.mark.parametrize(
    "change",
    [
        lambda bucket: bucket.put("b.zip"),
        lambda bucket: bucket.put("a.zip", b"a longer zip"),
        lambda bucket: bucket.put("a.zip", day="2026-11-25"),
    ],
    ids=["a new file", "a file grows", "a new day"],
)
def test_what_changes_starts_anew(look, bucket, change):
    bucket.put("a.zip")
    assert [look(), look()] == [False, False]
    change(bucket)
    assert [look() for _ in range(3)] == [False, False, True]


def test_what_is_hidden_or_of_others_is_not_looked_at(look, bucket):
    bucket.put("a.zip")
    look()
    for number, other in enumerate(
        (
            {"name": ".a.zip.part"},
            {"name": "_SUCCESS"},
            {"name": "b.zip", "prefix": f"{EXPORT.object_prefix}-2"},
            {"name": "b.zip", "prefix": "prefix"},
            {"name": "b.zip", "segment": "segment-two"},
            {"name": "b.zip", "day": "_temporary"},
        )
    ):
        bucket.put(**other)
        assert look() == (number >= 1)
    assert bucket.names() == ["a.zip"]


def test_the_day_is_that_of_the_end(bucket):
    for day in ("2026-11-22", "2026-11-23", "2026-11-24", "2026-11-25", "2027-01-01"):
        bucket.put(f"{day}.zip", day=day)
    # The day before may be today in another time zone; what is older is of another export.
    assert bucket.names() == ["2026-11-23.zip", "2026-11-24.zip", "2026-11-25.zip", "2027-01-01.zip"]


def test_files_beside_the_days_are_nothing(bucket):
    bucket.put("a.zip")
    stray = bucket.root / "segment-export" / EXPORT.segment_id / "zzz.txt"
    stray.write_bytes(b"stray")
    assert bucket.names() == ["a.zip"]


def test_a_segment_that_was_never_exported(folder):
    assert bucket_files(EXPORT, folder / "no-such-bucket") == []


def test_braze_writes_to_a_bucket_that_nobody_named():
    with pytest.raises(ConfigurationError, match="bucket="):
        ReadyCheck(EXPORT, None)


def test_behind_a_url_there_is_all_or_nothing(braze, reads):
    braze.add_segments([{"id": EXPORT.segment_id, "name": "One"}])
    braze.settings(export_delay=60)
    started = reads.start_export(EXPORT.segment_id, ["external_id"])
    check = ReadyCheck(replace(EXPORT, url=started.url), None)
    assert not check.is_ready(reads)
    assert not check.is_anything_there(reads)


def test_a_url_is_looked_at_soon_and_a_bucket_at_the_pace_that_was_asked_for():
    assert list(islice(ReadyCheck(BEHIND_URL, None).waits(10), 6)) == [1, 2, 4, 8, 10, 10]
    assert list(islice(ReadyCheck(BEHIND_URL, None).waits(0.5), 3)) == [0.5, 0.5, 0.5]
    assert list(islice(ReadyCheck(EXPORT, "bucket").waits(60), 3)) == [60, 60, 60]
