"""What a check found, judged and written down."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import ConfigurationError, TransientError
from airflow_provider_heapbraze.membership.arguments import share
from airflow_provider_heapbraze.segments.verification import (
    NotYetError,
    Tolerance,
    check_still_last,
    describe,
    failed,
    last_commit,
    write_verification,
)
from tests.unit.segments.holding import COMMIT, ledger_in, planned

NOTHING = {
    "check": "segment",
    "not_checkable": 0,
    "missing": 0,
    "surplus": 0,
    "unknown": 0,
    "not_looked_up": 0,
    "aside": None,
}
EXISTENCE = {"check": "existence", "not_checkable": 0, "unknown": 0, "claim": "0 of 1: that is everybody."}


def segment(held, **counts):
    return {**NOTHING, "held": held, "in_segment": held, **counts}


def complains(found, wrong=0.0, unknown=0.5):
    return Tolerance(wrong, unknown).complaints(found)


def test_nobody_is_held():
    assert complains(segment(0), unknown=0.0) == []
    assert complains({**EXISTENCE, "sample": 0}, unknown=0.0) == []
    (said,) = complains(segment(0, surplus=1))
    assert said.startswith("0 are missing and 1 are surplus, of 0 who were checked")
    assert complains(segment(0, surplus=1), wrong=1.0) == []


@given(st.integers(1, 100), st.integers(0, 100), st.sampled_from(["missing", "surplus", "unknown"]))
def test_what_is_just_at_the_limit_passes(percent, checked_hundreds, kind):
    checked = 100 * (checked_hundreds + 1)
    at_limit = percent * checked // 100
    limit = float(f"{percent / 100:.2f}")
    assert complains(segment(checked, **{kind: at_limit}), limit, limit) == []
    assert len(complains(segment(checked, **{kind: at_limit + 1}), limit, limit)) == 1


def test_missing_and_surplus_count_together_and_device_ids_do_not():
    found = segment(110, not_checkable=10, missing=3, surplus=12, unknown=50)
    assert complains(found, 0.05, 0.5) == []
    (said,) = complains(found, 0.049, 0.5)
    assert said == "3 are missing and 2 are surplus, of 100 who were checked (tolerance: a share of 0.049)"
    assert len(complains(found, 0.0, 0.1)) == 2


@pytest.mark.parametrize(
    "found", [segment(9, not_checkable=9), {**EXISTENCE, "sample": 0, "not_checkable": 9}]
)
def test_where_nobody_can_be_checked_nothing_is_verified(found):
    (said,) = complains(found, 1.0, 1.0)
    assert said.startswith("nobody could be checked: all are held by a device id")
    assert Tolerance(0.0, 0.0).about_wrong(found) == [], "no later look can help"


def test_whoever_was_a_device_may_be_somebody_by_now():
    assert complains(segment(110, not_checkable=10, surplus=10)) == []
    (said,) = complains(segment(110, not_checkable=10, surplus=12))
    assert said.startswith("0 are missing and 2 are surplus, of 100 who were checked")


def test_whoever_left_and_has_the_attribute_still_was_asked_for_by_name():
    """No device that is held is an excuse for them."""
    found = {**EXISTENCE, "sample": 20, "not_checkable": 1000, "missing": 0, "leavers": 5, "surplus": 5}
    (said,) = complains(found)
    assert said.startswith("0 are missing and 5 are surplus, of 20 who were checked")


def test_those_who_were_not_looked_up_count_as_those_who_were():
    """Else a cohort that Braze does not know at all would pass, if only it is large enough."""
    strangers = segment(10_000_000, unknown=25_000, not_looked_up=9_975_000)
    (said,) = complains(strangers)
    assert said.startswith("about 10,000,000 of 10,000,000 who were checked do not exist in Braze")
    lost = segment(10_000_000, missing=10_000, unknown=15_000, not_looked_up=4_975_000)
    (said,) = complains(lost, wrong=0.1)
    assert said.startswith("about 2,000,000 are missing and 0 are surplus, of 10,000,000 who were checked")
    assert complains(lost, wrong=0.2) == []
    assert complains(segment(10_000_000, unknown=25_000, not_looked_up=4_975_000)) == []


def test_existence_counts_the_sample():
    found = {**EXISTENCE, "sample": 20, "unknown": 10, "not_checkable": 1000}
    assert complains(found) == []
    (said,) = complains(found, unknown=0.49)
    assert said.startswith("10 of 20 who were checked do not exist in Braze (limit: a share of 0.49)")
    (said,) = complains({**found, "missing": 1})
    assert said.startswith("1 are missing and 0 are surplus, of 20")


@pytest.mark.parametrize(
    ("value", "number"), [(0, 0.0), (1, 1.0), ("0.5", 0.5), (" 1e-3 ", 0.001), ("1.0", 1.0), (-0.0, 0.0)]
)
def test_a_share_may_come_from_a_template(value, number):
    assert share(value, "tolerance") == number


@pytest.mark.parametrize(
    "value", ["nan", math.nan, "inf", "-inf", 1.0001, -1e-9, "", None, "5%", "half", [], "1,0"]
)
def test_a_share_that_is_none(value):
    with pytest.raises(ConfigurationError, match="tolerance must be a share, from 0 to 1"):
        share(value, "tolerance")


def test_what_is_verified_is_the_last_import(tmp_path):
    ledger = ledger_in(tmp_path)
    with pytest.raises(ConfigurationError, match="Nothing was imported"):
        last_commit(ledger)
    commit = replace(COMMIT, number=1)
    ledger.append(commit)
    assert last_commit(ledger) == commit
    check_still_last(ledger, commit)
    ledger.append(replace(commit, number=2, run_id="run-2"))
    with pytest.raises(NotYetError, match="while run run-1 was verified"):
        check_still_last(ledger, commit)


def test_an_import_that_has_not_ended_may_end(tmp_path):
    ledger = ledger_in(tmp_path / "ledger")
    planned(tmp_path, ledger, [], [])
    ledger.append(replace(ledger.read_draft(COMMIT.plan_id), number=1))
    with pytest.raises(NotYetError, match=r"run run-1 into .* has not ended: there is nothing to verify yet"):
        last_commit(ledger)
    assert issubclass(NotYetError, TransientError)


def test_a_result_is_written_down_each_time(tmp_path):
    ledger, found = ledger_in(tmp_path), segment(3)
    first, second = (write_verification(ledger, COMMIT, found) for _ in range(2))
    assert first["report_uri"] != second["report_uri"]
    written = {
        ledger.uri(f"verifications/{path.name}"): json.loads(path.read_text())
        for path in ledger.path("verifications").iterdir()
    }
    assert written == {result["report_uri"]: {"format": 1, **result} for result in (first, second)}
    assert first.items() >= {**found, "verified_run_id": "run-1"}.items()


def test_what_is_said():
    found = segment(1200, in_segment=1100, missing=2, surplus=1, unknown=101, not_checkable=7)
    assert describe(found) == (
        "The segment has 1,100 people, the ledger 1,200: 2 missing, 1 surplus, 101 unknown to Braze. 7 of "
        "the ledger's are held by a device id, which Braze does not show: they were not checked."
    )
    assert describe({**EXISTENCE, "claim": "0 of 9."}) == "Existence: 0 of 9."


@pytest.mark.parametrize(
    ("at_most", "claim"),
    [
        (0.000119, "with 95 % confidence fewer than 0.012 % of all who are not in it are missing."),
        (1.0, "all of them may be missing."),
    ],
)
def test_what_is_said_of_those_who_were_not_looked_up(at_most, claim):
    found = segment(90_000, in_segment=0, unknown=25_000, not_looked_up=65_000, missing_at_most=at_most)
    assert describe(found) == (
        "The segment has 0 people, the ledger 90,000: 0 missing, 0 surplus, 25,000 unknown to Braze. 65,000 "
        f"more are not in it and were not looked up: {claim}"
    )


def test_an_error_leads_to_those_who_differ(tmp_path):
    ledger = ledger_in(tmp_path)
    error = failed(ledger, {**segment(1), "aside": "file:///aside.parquet"}, ["one", "two"])
    assert "not verified: one; two. Who they are: file:///aside.parquet. The import stays" in str(error)
    assert "Who they are" not in str(failed(ledger, segment(1), ["one"]))
