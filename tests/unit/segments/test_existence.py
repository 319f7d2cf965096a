"""Whom a sample draws, what Braze says of them, and what that proves."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import cache

import pytest
import requests

from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.sandbox import connections
from airflow_provider_heapbraze.segments.bounds import upper_bound
from airflow_provider_heapbraze.segments.existence import (
    CONFIDENCE,
    _Finding,
    check_attribute_values,
    check_existence,
    draw,
    draw_leavers,
)
from tests.unit.segments.holding import alias, device, external, holding, planned

ATTRIBUTE = "in_cohort_one"
PEOPLE = [
    *(external(f"person-{n:08}") for n in range(80)),
    *(alias(f"person-{n:08}", label) for n in range(30) for label in ("email", "o'clock")),
]
DEVICES = [device(f"device-{n:08}") for n in range(40)]


def plan_id(number):
    return f"00000006-{number:012x}"


def test_a_commit_has_one_sample(tmp_path):
    ledger, commit = holding(tmp_path / "a", [*PEOPLE, *DEVICES])
    first = draw(ledger, commit, 50)
    assert (first.population, first.not_checkable) == (140, 40)
    assert len(set(first.identifiers)) == 50
    assert set(first.identifiers) <= set(PEOPLE)
    assert draw(ledger, commit, 50) == first
    assert draw(ledger, commit, 20).identifiers == first.identifiers[:20]
    # The order of the snapshot's rows says nothing.
    assert draw(*holding(tmp_path / "b", reversed([*PEOPLE, *DEVICES])), 50) == first


def test_another_commit_has_another_sample(tmp_path):
    ledger, commit = holding(tmp_path, PEOPLE)
    drawn = [
        frozenset(draw(ledger, replace(commit, plan_id=plan_id(number)), 50).identifiers)
        for number in range(5)
    ]
    assert len(set(drawn)) == 5


def test_everybody_is_drawn_about_as_often(tmp_path):
    people = [external("person-00000001"), *PEOPLE[-9:], alias("person-00000001", "external_id")]
    ledger, commit = holding(tmp_path, people)
    times = Counter()
    for number in range(30):
        times.update(draw(ledger, replace(commit, plan_id=plan_id(number)), 5).identifiers)
    assert set(times) == set(people)
    # 30 draws of 5 of 11: 14 times each, and hardly ever fewer than 4 or more than 26.
    assert 4 < min(times.values()) <= max(times.values()) < 26


def test_a_sample_that_is_larger_than_all_is_all(tmp_path):
    sample = draw(*holding(tmp_path, [*PEOPLE, *DEVICES]), 10_000)
    assert sorted(sample.identifiers) == sorted(PEOPLE)
    assert sample.population == 140


@pytest.mark.parametrize("held", [[], DEVICES], ids=["nobody", "devices"])
def test_nobody_can_be_drawn(reads, braze, tmp_path, held):
    sample = draw(*holding(tmp_path, held), 50)
    assert (sample.identifiers, sample.population, sample.not_checkable) == ([], 0, len(held))
    result = check_attribute_values(sample, [], reads, ATTRIBUTE)
    assert [result[name] for name in ("sample", "unknown", "missing", "leavers", "surplus")] == [0] * 5
    assert (result["unknown_at_most"], result["missing_at_most"]) == (0.0, 0.0)
    assert braze.requests() == []


def test_a_sample_shows_nobody(tmp_path):
    assert "person-" not in repr(draw(*holding(tmp_path, PEOPLE), 50))


def known_to(braze, identifiers):
    aliases = [
        {"aliases": [{"alias_name": value, "alias_label": label}]}
        for kind, value, label in identifiers
        if kind == "alias"
    ]
    braze.add_users([{"external_id": value} for kind, value, _ in identifiers if kind != "alias"] + aliases)


def track(braze, rows):
    answer = requests.post(
        f"{braze.url}/users/track",
        json={"attributes": rows},
        headers={"Authorization": f"Bearer {connections.REST_API_KEY}"},
        timeout=10,
    )
    assert answer.status_code == 201


def test_who_exists_is_counted(reads, braze, tmp_path):
    sample = draw(*holding(tmp_path, [*PEOPLE, *DEVICES]), 70)
    known_to(braze, sample.identifiers[:66])
    # Others who have the same value, as something else.
    known_to(braze, [alias(sample.identifiers[69][1], "other"), alias("person-" + "9" * 8)])
    result = check_existence(sample, reads)
    bound = upper_bound(4, 70, CONFIDENCE)
    assert {key: value for key, value in result.items() if key != "claim"} == {
        "check": "existence",
        "population": 140,
        "not_checkable": 40,
        "sample": 70,
        "unknown": 4,
        "unknown_at_most": bound,
    }
    assert result["claim"] == (
        "4 of 70 do not exist in Braze: fewer than 13 % of who can be checked, with 95 % confidence. Whether "
        "they are in the cohort was not checked: only a segment on it shows that."
    )
    assert 0.12 < bound < 0.13


def test_the_attribute_is_true_or_it_is_missing(reads, braze, tmp_path):
    people = [external(f"person-{n:08}") for n in range(9)]
    values = [True, True, False, "true", 1, ["x"], None]
    sample = draw(*holding(tmp_path, people), 20)
    known_to(braze, people[:8])
    rows = zip(people, values, strict=False)
    track(braze, [{"external_id": value, ATTRIBUTE: is_in} for (_, value, _), is_in in rows])
    result = check_attribute_values(sample, [], reads, ATTRIBUTE)
    assert (result["sample"], result["unknown"], result["missing"]) == (9, 1, 6)
    assert (result["unknown_at_most"], result["missing_at_most"]) == (1 / 9, 6 / 8)
    assert result["claim"] == (
        "1 of 9 do not exist in Braze: that is everybody who can be checked. Of those who exist, 6 of 8 do "
        "not have the attribute: that is everybody who can be checked."
    )
    assert check_attribute_values(sample, [], reads, "another")["missing"] == 8


def test_who_left_has_the_attribute_no_more_or_is_surplus(reads, braze, tmp_path):
    stays, *left = (external(f"person-{n:08}") for n in range(7))
    sample = draw(*holding(tmp_path, [stays]), 20)
    known_to(braze, [stays, *left[:5]])
    values = [True, False, None, "true", True]
    rows = [
        {"external_id": value, ATTRIBUTE: is_in} for (_, value, _), is_in in zip(left, values, strict=False)
    ]
    track(braze, [{"external_id": stays[1], ATTRIBUTE: True}, *rows])
    result = check_attribute_values(sample, left, reads, ATTRIBUTE)
    assert [result[name] for name in ("missing", "leavers", "surplus", "sample")] == [0, 6, 2, 1]
    assert result["claim"].endswith(" Of 6 who left, 2 have it still.")


def test_a_sample_of_strangers_proves_no_limit(reads, tmp_path):
    """ "Fewer than 100 %" would be more than is known: it may be everybody."""
    result = check_attribute_values(draw(*holding(tmp_path, PEOPLE), 5), [], reads, ATTRIBUTE)
    assert (result["unknown_at_most"], result["missing_at_most"]) == (1.0, 1.0)
    assert result["claim"] == (
        "5 of 5 do not exist in Braze: it may be so of all. Of those who exist, 0 of 0 do not have the "
        "attribute: it may be so of all."
    )


def test_those_who_left_are_drawn(tmp_path):
    ledger, commit = holding(tmp_path, PEOPLE[:10])
    planned(tmp_path, ledger, PEOPLE[:5], [*PEOPLE[10:], *DEVICES])
    first = draw_leavers(ledger, commit, 50)
    assert len(set(first)) == 50
    assert set(first) <= set(PEOPLE[10:]), "nobody by a device id, which Braze does not show"
    assert draw_leavers(ledger, commit, 50) == first
    assert draw_leavers(ledger, commit, 20) == first[:20]
    assert sorted(draw_leavers(ledger, commit, 10_000)) == sorted(PEOPLE[10:])


def test_whose_removal_was_refused_has_not_left(tmp_path):
    """They are held as before, and are to have the attribute."""
    ledger, commit = holding(tmp_path, PEOPLE[:10])
    planned(tmp_path, ledger, [], PEOPLE[8:12])
    assert sorted(draw_leavers(ledger, commit, 50)) == sorted(PEOPLE[10:12])


def test_nobody_left(tmp_path):
    ledger, commit = holding(tmp_path, [])
    planned(tmp_path, ledger, [], [])
    assert draw_leavers(ledger, commit, 50) == []


def test_a_plan_that_is_not_as_logged(tmp_path):
    ledger, commit = holding(tmp_path, [])
    with pytest.raises(LedgerDamagedError, match=r"plan\.json is missing"):
        draw_leavers(ledger, commit, 50)
    planned(tmp_path, ledger, [], PEOPLE)
    ledger.path(f"plans/{commit.plan_id}/changes.parquet").unlink()
    with pytest.raises(LedgerDamagedError, match=r"changes\.parquet is missing"):
        draw_leavers(ledger, commit, 50)


@cache
def claimed(found, sample):
    """Return the share that a claim excludes, read from its words; None where it excludes none."""
    said = re.search(r"fewer than ([0-9.]+) % of who", _Finding(found, sample, sample + 1).claim("x"))
    return Fraction(said[1]) / 100 if said else None


@pytest.mark.parametrize("sample", [1, 2, 10, 59, 60, 600])
def test_a_claim_says_no_more_than_the_bound(sample):
    for found in {0, 1, sample // 2, sample - 1, sample}:
        share, bound = claimed(found, sample), upper_bound(found, sample, CONFIDENCE)
        if share is None:
            assert bound == 1
        else:
            assert bound <= share <= Fraction(bound) * Fraction(11, 10)


def test_claims_are_false_in_one_of_twenty_cases_at_most():
    """Every population up to 24, every number of strangers, every sample: exact, without replacement."""
    worst = Fraction(0)
    for population in range(2, 25):
        for sample in range(1, population):
            for strangers in range(population + 1):
                false = sum(
                    math.comb(strangers, found) * math.comb(population - strangers, sample - found)
                    for found in range(min(sample, strangers) + 1)
                    if (share := claimed(found, sample)) is not None
                    and Fraction(strangers, population) >= share
                )
                worst = max(worst, Fraction(false, math.comb(population, sample)))
    assert 0 < worst <= Fraction(1, 20)
