"""Whether an export's files have arrived: behind a URL, or in a bucket."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from uuid import uuid4

import pytest
from upath import UPath

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.segments.arrival import QUIET_SECONDS, ReadyCheck, bucket_files, check_bucket
from tests.unit.segments.holding import DAY, EXPORT

BEHIND_URL = replace(EXPORT, url="https://files.example/segment.zip")


@pytest.fixture(params=["local", "object store"])
def folder(request, tmp_path):
    return tmp_path if request.param == "local" else UPath(f"memory://bucket-{uuid4().hex}")


class Bucket:
    """What Braze writes to, and one export's files in it."""

    def __init__(self, root):
        self.root = root

    def put(self, name, content=b"zip", *, prefix=EXPORT.object_prefix, day=DAY, segment=EXPORT.segment_id):
        path = self.root / "segment-export" / segment / day / prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def names(self):
        return [path.name for path, _ in bucket_files(EXPORT, self.root)]


class Looks:
    """Looks at a bucket, on a clock of its own."""

    def __init__(self, bucket):
        self.now = 1000.0
        self._check = ReadyCheck(EXPORT, bucket.root, lambda: self.now)

    def after(self, *seconds):
        """Look so many seconds after the last look, each time."""
        seen = []
        for some in seconds:
            self.now += some
            seen.append(self._check.is_ready(None))
        return seen


@pytest.fixture
def bucket(folder):
    return Bucket(folder / "bucket")


@pytest.fixture
def looks(bucket):
    return Looks(bucket)


def test_nothing_is_there_however_long_it_is_looked(looks, bucket):
    assert looks.after(0, QUIET_SECONDS, 10 * QUIET_SECONDS) == [False] * 3
    assert not ReadyCheck(EXPORT, bucket.root).is_anything_there(None)
    (bucket.root / "segment-export" / EXPORT.segment_id / DAY / EXPORT.object_prefix).mkdir(parents=True)
    assert looks.after(QUIET_SECONDS, QUIET_SECONDS) == [False] * 2


def test_files_are_all_there_when_nothing_has_changed_for_a_while(looks, bucket):
    bucket.put("a.zip")
    assert ReadyCheck(EXPORT, bucket.root).is_anything_there(None)
    assert looks.after(500, QUIET_SECONDS - 1, 1, 1) == [False, False, True, True]


def test_many_looks_at_once_say_no_more_than_one(looks, bucket):
    bucket.put("a.zip")
    assert looks.after(*[0] * 10) == [False] * 10


@pytest.mark.parametrize(
    "change",
    [
        lambda bucket: bucket.put("b.zip"),
        lambda bucket: bucket.put("a.zip", b"a longer zip"),
        lambda bucket: bucket.put("a.zip", day="2026-11-25"),
    ],
    ids=["a new file", "a file grows", "a new day"],
)
def test_what_changes_starts_anew(looks, bucket, change):
    bucket.put("a.zip")
    assert looks.after(0, QUIET_SECONDS - 1) == [False, False]
    change(bucket)
    assert looks.after(1, QUIET_SECONDS - 1, 1) == [False, False, True]


@pytest.mark.parametrize(
    "other",
    [
        {"name": ".a.zip.part"},
        {"name": "_SUCCESS"},
        {"name": "b.zip", "prefix": f"{EXPORT.object_prefix}-2"},
        {"name": "b.zip", "prefix": "prefix"},
        {"name": "b.zip", "segment": "segment-two"},
        {"name": "b.zip", "day": "_temporary"},
    ],
    ids=str,
)
def test_what_is_hidden_or_of_others_is_not_looked_at(looks, bucket, other):
    bucket.put("a.zip")
    assert looks.after(0, QUIET_SECONDS - 1) == [False, False]
    bucket.put(**other)
    assert looks.after(1) == [True]
    assert bucket.names() == ["a.zip"]


def test_files_have_their_sizes(bucket):
    bucket.put("b.zip", b"four")
    bucket.put("a.zip", b"")
    assert [(path.name, size) for path, size in bucket_files(EXPORT, bucket.root)] == [
        ("a.zip", 0),
        ("b.zip", 4),
    ]


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


@pytest.mark.parametrize("export", [BEHIND_URL, EXPORT], ids=["URL", "bucket"])
def test_it_is_looked_soon_and_then_at_the_pace_that_was_asked_for(export):
    check = ReadyCheck(export, "bucket")
    assert list(islice(check.waits(60), 8)) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert list(islice(check.waits(0.5), 3)) == [0.5, 0.5, 0.5]
    assert list(islice(check.waits(60), 2000, 2001)) == [60]


def test_a_bucket_that_is_there(folder):
    (folder / "anything").write_bytes(b"")
    check_bucket(folder)


def test_what_is_below_a_bucket_need_not_be_there_yet():
    bucket = UPath(f"memory://bucket-{uuid4().hex}")
    (bucket / "anything").write_bytes(b"")
    check_bucket(bucket / "exports" / "of-braze")


def test_a_bucket_that_is_not_there(folder):
    missing = folder / "missing" if folder.exists() else folder
    with pytest.raises(ConfigurationError, match=f"no bucket at .*{missing.name}. Nothing was sent"):
        check_bucket(missing)
