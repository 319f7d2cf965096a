"""Every guard names its value, its limit and the argument that allows it once."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.errors import GuardBreachedError
from airflow_provider_heapbraze.membership.guards import ChangeCounts, Guards

USUAL = ChangeCounts(members=1000, match_rate=0.9, wanted=900, held=900, adds=0, removes=0)
PAST = [[900.0, 0.9], [910.0, 0.91], [890.0, 0.92]]


def ago(**time):
    return (datetime.now(UTC) - timedelta(**time)).isoformat()


CASES = [
    (
        {"wanted": 0, "removes": 900},
        {},
        "900 people would be removed: the segment is empty; the limit is 0",
        "allow_empty=True",
    ),
    (
        {"removes": 200},
        {},
        "22.23 % of the people held would be removed (200 of 900); the limit is 20 %",
        "max_removed_share=0.2223",
    ),
    ({"removes": 11}, {"max_removed": 10}, "11 people would be removed; the limit is 10", "max_removed=11"),
    (
        {"adds": 100},
        {"max_added_share": 0.1},
        "11.12 % of the people held would be added (100 of 900); the limit is 10 %",
        "max_added_share=0.1112",
    ),
    ({"adds": 51}, {"max_added": 50}, "51 people would be added; the limit is 50", "max_added=51"),
    (
        {"match_rate": 0.5},
        {"min_match_rate": 0.6, "max_match_rate_drop": None},
        "50 % of the members are matched; the limit is 60 %",
        "min_match_rate=0.5",
    ),
    (
        {"match_rate": 0.7},
        {},
        "21 % of the members are matched less than usual (70 %, usually 91 %); the limit is 20 %",
        "max_match_rate_drop=0.21",
    ),
    (
        {"wanted": 4501},
        {},
        "5.0012 times larger than usual is the segment (4,501 people, usually 900); the limit is 5",
        "max_size_factor=5.0012",
    ),
    ({"wanted": 100}, {"max_size_factor": 8}, None, None),
    (
        {"taken_at": ago(hours=50)},
        {"max_members_age_hours": 24},
        "51 hours old are the members, of ",
        "max_members_age_hours=51",
    ),
]


@pytest.mark.parametrize(
    ("change", "guards", "said", "allowance"), CASES, ids=[case[3] or "few people" for case in CASES]
)
def test_what_the_person_on_call_reads(change, guards, said, allowance):
    breaches = Guards(**guards).breaches(replace(USUAL, **change), PAST)
    if said is None:
        assert breaches == []
        return
    [breach] = breaches
    assert str(breach).startswith(said)
    assert breach.allowance == allowance
    assert json.dumps(breach.as_dict())


@pytest.mark.parametrize(
    ("change", "guards", "said", "allowance"),
    [case for case in CASES if case[3]],
    ids=[case[3] for case in CASES if case[3]],
)
def test_what_it_says_allows_it(change, guards, said, allowance):
    name, _, value = allowance.partition("=")
    allowed = Guards(**{**guards, name: json.loads(value.lower())})
    assert [
        breach.guard for breach in allowed.breaches(replace(USUAL, **change), PAST) if breach.guard == name
    ] == []


def test_protected_people():
    [breach] = Guards().breaches(USUAL, PAST, protected=2)
    assert str(breach).startswith("2 protected people would be removed; the limit is 0")
    assert breach.allowance == "protected=None"


def test_a_shrunken_segment_is_out_of_its_band():
    past = [[9000.0, 1.0]] * 3
    [breach] = Guards(max_removed_share=None).breaches(replace(USUAL, held=9000), past)
    assert str(breach).startswith("10.0 times smaller than usual is the segment (900 people, usually 9,000)")


@pytest.mark.parametrize("past", [[], PAST[:2]])
def test_two_runs_are_no_history(past):
    assert Guards().breaches(replace(USUAL, wanted=100_000, match_rate=0.1), past) == []


def test_small_segments_may_flutter():
    assert Guards().breaches(replace(USUAL, wanted=999), [[5.0, 0.9]] * 3) == []


def test_a_first_import_passes():
    assert Guards(max_added_share=0.1).breaches(replace(USUAL, held=0, adds=900)) == []


def test_nobody_knows_how_old_the_members_are():
    assert Guards(max_members_age_hours=1).breaches(USUAL) == []


@pytest.mark.parametrize("value", ["three", -1, "nan"])
@pytest.mark.parametrize(
    "name", ["max_added", "max_size_factor", "max_members_age_hours", "max_match_rate_drop"]
)
def test_a_limit_that_is_none_is_refused(name, value):
    with pytest.raises(ConfigurationError, match=name):
        Guards(**{name: value}).breaches(USUAL, PAST)


@pytest.mark.parametrize("value", ["", " \n"])
@pytest.mark.parametrize("name", Guards.template_fields)
def test_a_template_that_gives_nothing_switches_no_guard_off(name, value):
    said = f"Guards: {name} is empty.*Nothing was sent.*Give "
    with pytest.raises(ConfigurationError, match=said):
        Guards(**{name: value}).breaches(USUAL, PAST)


@pytest.mark.parametrize("value", [None, "None", " None "])
@pytest.mark.parametrize("name", sorted(set(Guards.template_fields) - {"allow_empty"}))
def test_none_switches_a_guard_off_also_as_a_template_writes_it(name, value):
    off = Guards(max_removed_share=None, max_match_rate_drop=None, max_size_factor=None)
    change = replace(USUAL, match_rate=0.1, held=5000, adds=900, removes=5000, taken_at=ago(days=9))
    assert replace(off, **{name: value}).breaches(change, PAST) == []


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000), st.floats(0, 1))
def test_no_guard_breaks_on_any_numbers(wanted, held, removes, rate):
    change = ChangeCounts(
        members=wanted, match_rate=rate, wanted=wanted, held=held, adds=wanted, removes=min(removes, held)
    )
    strict = Guards(max_removed=0, max_added=0, max_added_share=0, max_size_factor=1, max_match_rate_drop=0)
    for breach in strict.breaches(change, [[0.0, 0.0], [float(held), 1.0], [1.0, 0.5]]):
        assert breach.value > breach.limit or breach.guard == "min_match_rate"
        assert str(breach)


@pytest.mark.parametrize(
    ("name", "text"),
    [("people.csv", "id\nuser-3\n ghost \n"), ("people.ndjson", '{"id": "user-3"}\n{"id": 7}\n')],
)
def test_protected_people_stop_a_plan_and_nobody_is_named(nightly, name, text):
    (nightly.folder / name).write_text(text)
    guards = Guards(max_removed_share=None, protected=str(nightly.folder / name))
    nightly.run([f"user-{number}" for number in range(10)])
    with pytest.raises(GuardBreachedError, match="1 protected people would be removed") as caught:
        nightly.run(["user-1"], "run-2", guards=guards)
    assert "user-3" not in str(caught.value)
    assert len(nightly.members()) == 10
    nightly.run([f"user-{number}" for number in range(1, 10)], "run-3", guards=guards)
    assert len(nightly.members()) == 9


def test_protected_people_who_cannot_be_read_are_an_error(nightly):
    nightly.run(["user-1"])
    for text, said in [("id\n", "names nobody"), ("name\nuser-1\n", "no column 'id'")]:
        file = nightly.folder / "protected.csv"
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=said):
            nightly.run(["user-2"], "run-2", guards=Guards(max_removed_share=None, protected=str(file)))
    assert nightly.members() == {"user-1"}


def test_protected_people_are_not_switched_off_by_a_template_that_gives_nothing(nightly):
    nightly.run(["user-1"])
    for nothing in ("", " "):
        guards = Guards(max_removed_share=None, protected=nothing)
        with pytest.raises(ConfigurationError, match=r"protected is empty.* Nothing was sent\. .*location"):
            nightly.run(["user-2"], "run-2", guards=guards)
    assert nightly.members() == {"user-1"}
    for nobody in (None, "None"):
        nightly.run(["user-2"], "run-3", guards=Guards(max_removed_share=None, protected=nobody))
    assert nightly.members() == {"user-2"}
