"""Which export is under way for a run, and which is of no more use."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import uuid4

import pytest
from upath import UPath

from airflow_provider_heapbraze.clients.errors import (
    ConfigurationError,
    DownloadTooLargeError,
    ExportGoneError,
    PermanentError,
    PermissionDeniedError,
    TransientError,
)
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError
from airflow_provider_heapbraze.segments.archives import UnusableExportError
from airflow_provider_heapbraze.segments.exports import (
    ADOPTED_WITHIN,
    ExportLateError,
    RunExports,
    export_folder,
    read_export,
    segment_folder,
)
from tests.unit.segments.holding import BASE_URL, EXPORT

TOKEN = "private-signature-0123"
URL = f"https://files.example/segment.zip?X-Amz-Signature={TOKEN}"
BEHIND_URL = replace(EXPORT, url=URL)
SOON = EXPORT.started_at + 60


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


def under_way(exports, now=SOON):
    return exports.under_way(EXPORT.fields, now)


def test_an_export_is_under_way_until_it_is_read(exports):
    assert under_way(exports) is None
    assert exports.next_number() == 1
    exports.started(BEHIND_URL)
    assert under_way(again(exports)) == BEHIND_URL
    with exports.reading(BEHIND_URL):
        assert under_way(again(exports)) == BEHIND_URL
    assert under_way(again(exports)) is None
    assert exports.next_number() == 3


def test_a_late_export_is_followed_by_another(exports):
    exports.started(EXPORT)
    later = replace(EXPORT, number=exports.next_number(), object_prefix="prefix-0002")
    exports.started(later)
    assert under_way(again(exports)) == later


@pytest.mark.parametrize(
    ("fields", "is_adopted"),
    [
        (("user_aliases", "external_id"), True),
        (("external_id", "user_aliases", "external_id"), True),
        (("external_id",), False),
        (("external_id", "user_aliases", "braze_id"), False),
    ],
)
def test_an_export_that_brings_something_else_is_not_adopted(exports, fields, is_adopted):
    exports.started(EXPORT)
    assert (exports.under_way(fields, SOON) is not None) == is_adopted


@pytest.mark.parametrize("until", [60.0, ADOPTED_WITHIN, 2 * ADOPTED_WITHIN])
def test_an_export_is_of_use_for_half_a_day_or_as_long_as_it_is_waited_for(exports, until):
    exports.started(replace(EXPORT, until=EXPORT.started_at + until))
    last = EXPORT.started_at + max(until, ADOPTED_WITHIN)
    assert under_way(exports, last - 1)
    assert under_way(exports, last) is None


@pytest.mark.parametrize(
    ("error", "is_given_up"),
    [
        (UnusableExportError("cut off"), True),
        (DownloadTooLargeError("too large"), True),
        (ConfigurationError("no JSON"), True),
        (PermissionDeniedError("the key may not look people up"), False),
        (PermanentError("no"), False),
        (TransientError("later"), False),
        (ExportLateError("still written"), False),
        (OSError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_export_whose_files_are_unusable_is_given_up_and_only_that(exports, error, is_given_up):
    exports.started(EXPORT)
    with pytest.raises(type(error)), exports.reading(EXPORT):
        raise error
    assert (under_way(again(exports)) is None) == is_given_up


@pytest.mark.parametrize(
    ("error", "is_given_up"), [(PermanentError("no"), True), (TransientError("later"), False)]
)
def test_an_export_that_may_not_be_looked_at_is_given_up(exports, error, is_given_up):
    exports.started(BEHIND_URL)
    with exports.looking(BEHIND_URL):
        pass
    assert under_way(again(exports)) == BEHIND_URL
    with pytest.raises(type(error)) as caught, exports.looking(BEHIND_URL):
        raise error
    assert caught.value is error
    assert (under_way(again(exports)) is None) == is_given_up


def test_an_export_that_is_gone_is_made_again_by_the_next_try(exports):
    exports.started(BEHIND_URL)
    gone = pytest.raises(ExportLateError, match="was gone before it was read")
    with gone as caught, exports.reading(BEHIND_URL):
        raise ExportGoneError("gone")
    assert isinstance(caught.value, TransientError)
    assert under_way(again(exports)) is None


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
    assert [under_way(one).object_prefix for one in everybody] == [f"prefix-{n}" for n in range(len(keys))]
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
    assert under_way(exports) == theirs


@pytest.mark.parametrize("how", ["read", "UnusableExportError"])
def test_two_attempts_may_read_one_export(exports, how):
    exports.started(EXPORT)
    again(exports).ended(EXPORT, "read")
    exports.ended(EXPORT, how)
    assert under_way(exports) is None
    assert exports.next_number() == 3


def test_an_attempt_that_ends_an_older_export_does_not_end_the_next(exports):
    exports.started(EXPORT)
    again(exports).ended(EXPORT, "read")
    later = replace(EXPORT, number=3, object_prefix="prefix-0002")
    again(exports).started(later)
    exports.ended(EXPORT, "read")
    assert under_way(exports) == later


def test_an_attempt_that_was_overtaken_while_it_read_stops(exports):
    exports.started(EXPORT)
    with pytest.raises(PlaceLostError, match="this one stops"), exports.reading(EXPORT):
        again(exports).started(replace(EXPORT, number=2, object_prefix="prefix-0002"))
    assert under_way(exports).object_prefix == "prefix-0002"


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
        lambda: under_way(exports),
        lambda: read_export(export_folder(exports.folder.parent, exports.folder.name)),
    ):
        with pytest.raises(LedgerDamagedError, match=r"00000001\.json") as caught:
            read()
        assert TOKEN not in str(caught.value)
        # Of a broken record the reader's error holds all, the URL as well.
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_an_entry_that_is_missing(exports):
    for number in (1, 2, 3):
        exports.started(replace(EXPORT, number=number))
    exports.path("log/00000002.json").unlink()
    with pytest.raises(LedgerDamagedError, match="entry 2 of the log is missing"):
        under_way(exports)


def test_an_export_does_not_show_its_url():
    for shown in (repr(BEHIND_URL), str(BEHIND_URL), f"{[BEHIND_URL]}"):
        assert TOKEN not in shown
        assert "files.example" not in shown
