"""What cannot be understood stops the run, says where, and quotes nobody."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError
from airflow_provider_heapbraze.segments_sync.errors import (
    IncompleteSyncError,
    LostPagesError,
    UnusablePageError,
)
from tests.unit.segments_sync.pushing import BEFORE, SEGMENT, moment, page

SECRET = "private-person-0001"
PAGE = page("private-task-0001", [SECRET], number=1, total=2)


def changed(**data):
    return {**PAGE, "data": {**PAGE["data"], **data}}


def with_info(**info):
    return changed(sync_info={**PAGE["data"]["sync_info"], **info})


def without(*keys):
    return {**PAGE, "data": {key: value for key, value in PAGE["data"].items() if key not in keys}}


UNKNOWN = {
    "another action": {**PAGE, "action_type": f"segment.users.{SECRET}"},
    "no action": {"data": PAGE["data"]},
    "an action that is no text": {**PAGE, "action_type": {"a": SECRET}},
    "another segment": changed(segment={"id": SEGMENT + 1}),
    "a segment that is a text": changed(segment={"id": str(SEGMENT)}),
    "no segment": without("segment"),
    "no sync_info": without("sync_info"),
    "sync_info is null": changed(sync_info=None),
    "no task": with_info(sync_task_id=None),
    "an empty task": with_info(sync_task_id=""),
    "a task that is no text": with_info(sync_task_id=[SECRET]),
    "page before the first": with_info(page_number=-1),
    "page after the last": with_info(page_number=3),
    "page that is a text": with_info(page_number="1"),
    "page that is no whole number": with_info(page_number=0.5),
    "page of no number": with_info(page_number=2**65, total_pages=2**66),
    "no page": with_info(page_number=None),
    "no total": with_info(total_pages=None),
    "a total of nothing": with_info(page_number=0, total_pages=0),
    "neither added nor removed": without("add", "remove"),
    "a list that is none": changed(add=SECRET),
    "an object for a list": changed(remove={"id": SECRET}),
    "a member that is a text": changed(add=[{"id": "ann"}, SECRET]),
    "a member without id": changed(remove=[{"ID": SECRET}]),
    "a member that is null": changed(add=[None]),
}
UNREADABLE = {
    "cut off": b'{"received_at":1,"sent_at":1,"body":{"id":"%s' % SECRET.encode(),
    "no object": b'["%s"]' % SECRET.encode(),
    "not text": b'{"received_at":1,"sent_at":1,"body":{"id":"\xff%s"}}' % SECRET.encode(),
    "half a character": b'{"received_at":1,"sent_at":1,"body":{"id":"\\ud800 %s"}}' % SECRET.encode(),
    "no time": b'{"received_at":"%s","sent_at":1,"body":{}}' % SECRET.encode(),
    "another body": b'{"received_at":1,"sent_at":1,"body":"%s"}' % SECRET.encode(),
    "another data": b'{"received_at":1,"sent_at":1,"body":{"data":"%s"}}' % SECRET.encode(),
}


def tells_nothing(error):
    told = "".join(traceback.format_exception(error))
    assert SECRET not in told
    assert "private-task-0001" not in told
    while error is not None:
        assert SECRET not in repr(vars(error))
        error = error.__cause__ or error.__context__
    return True


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_webhook_that_is_not_known(pushed, case):
    pushed.land(page("first", ["ann"]), at=1)
    file = pushed.land(UNKNOWN[case], at=2)
    with pytest.raises(UnusablePageError, match=r"Nothing was sent\. Nothing of the file") as raised:
        pushed.members()
    assert f"landed file file://{file} " in str(raised.value)
    assert tells_nothing(raised.value)
    assert not list(Path(pushed.ledger).glob("segment-syncs/*/log")), "nothing was folded"


def test_without_the_file_it_goes_on(pushed):
    pushed.land(page("first", ["ann"]), at=1)
    file = pushed.land(UNKNOWN["no task"], at=2)
    with pytest.raises(UnusablePageError):
        pushed.members()
    file.unlink()
    with pytest.raises(LostPagesError):
        pushed.members()
    pushed.land(page("everybody", ["ann", "bob"]), at=60)
    assert pushed.members(full_since=moment(30)) == ["ann", "bob"]


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_line_that_cannot_be_read(pushed, case):
    pushed.land(page("first", ["ann"]), at=0)
    file = pushed.land_bytes(UNREADABLE[case] + b"\n", at=1)
    with pytest.raises(ConfigurationError, match=r"cannot be read near line .* Nothing was sent") as raised:
        pushed.members()
    assert f"The landed file file://{file} cannot be read" in str(raised.value)
    assert tells_nothing(raised.value)


def test_a_line_without_times(pushed):
    pushed.land_bytes(b'{"body":%s}\n' % json.dumps(PAGE).encode(), at=0)
    with pytest.raises(UnusablePageError, match="does not say when it came"):
        pushed.members()


@pytest.mark.parametrize(
    "second",
    [
        page("private-task-0001", [SECRET], number=2, total=3),
        page("private-task-0001", [SECRET], number=0, total=2),
    ],
    ids=["on how many there are", "on where they begin"],
)
def test_pages_of_a_task_that_do_not_agree(pushed, second):
    pushed.land(page("private-task-0001", [SECRET], number=2, total=2), at=0)
    pushed.land(second, at=1)
    with pytest.raises(UnusablePageError, match="does not agree with other pages of its sync") as raised:
        pushed.members()
    assert tells_nothing(raised.value)


def test_a_page_that_does_not_agree_with_a_task_that_was_folded(pushed):
    pushed.land(page("first", ["ann"]), at=0)
    pushed.members()
    pushed.land(page("first", ["bob"], number=2, total=2), at=1)
    with pytest.raises(UnusablePageError, match="does not agree"):
        pushed.members()


def test_lists_that_are_empty_null_or_left_out(pushed):
    pushed.land(page("first", ["ann", "bob"]), at=0)
    pushed.land(page("second", remove=["ann"]), at=1)
    bare = page("third", ["cid"])
    del bare["data"]["remove"]
    pushed.land(bare, at=2)
    nothing = page("fourth")
    nothing["data"]["add"] = None
    pushed.land(nothing, at=3)
    assert pushed.members() == ["bob", "cid"]


def test_keys_that_are_not_known_do_not_matter(pushed):
    new = page("first", ["ann"])
    for place in (new, new["data"], new["data"]["sync_info"], new["data"]["add"][0]):
        place["new"] = {"id": SECRET}
    pushed.land(new, at=0)
    assert pushed.members() == ["ann"]


def test_nobody_is_told_by_what_is_missing_nor_in_the_log_nor_in_the_ledgers_names(pushed, caplog):
    caplog.set_level("DEBUG")
    pushed.land(page("done", [SECRET], [SECRET, "ann"]), at=0)
    pushed.land(page("private task 0001", [SECRET], number=1, total=2), at=1)
    pushed.land(page("next", [], ["somebody"]), at=2)
    with pytest.raises(IncompleteSyncError) as raised:
        pushed.members(full_since=BEFORE)
    assert isinstance(raised.value, HeapBrazeError)
    assert tells_nothing(raised.value)
    pushed.members(on_incomplete="skip", full_since=BEFORE)
    names_and_records = [
        (name, content if name.endswith(".json") else b"") for name, content in pushed.record().items()
    ]
    for text in (caplog.text, repr(names_and_records), repr(pushed.source()), str(raised.value)):
        assert SECRET not in text
        assert "private task 0001" not in text
