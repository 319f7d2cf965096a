"""Which of some identifiers Braze knows."""

from __future__ import annotations

import pytest

from airflow_provider_heapbraze.clients.errors import UnclearAnswerError
from airflow_provider_heapbraze.segments.lookup import look_up
from tests.unit.segments.holding import alias, external

PERSON = external("person-00000001")


def answer_with(braze, *profiles):
    body = {"message": "success", "users": profiles}
    braze.faults(
        next=[{"count": 9, "status": 201, "endpoint": "users-export-ids", "body": body}],
    )


def test_a_kind_a_value_and_a_label_are_one_identifier(braze, reads):
    same = "person-00000001"
    braze.add_users(
        [
            {"external_id": same, "aliases": [{"alias_name": "person-alias-1", "alias_label": "crm"}]},
            {"aliases": [{"alias_name": same, "alias_label": "email"}]},
        ]
    )
    asked = [
        external("person-alias-1"),
        external("PERSON-00000001"),
        alias(same, "email"),
        alias(same, "crm"),
        alias("person-alias-1", "crm"),
        external(same),
    ]
    found = look_up(reads, asked)
    assert list(found) == [alias(same, "email"), alias("person-alias-1", "crm"), external(same)]
    assert found[external(same)] == found[alias("person-alias-1", "crm")]


def test_fifty_are_asked_for_at_a_time(braze, reads):
    people = [external(f"person-{n:08}") for n in range(101)]
    assert look_up(reads, people) == {}
    asked = [entry["ids"]["get"]["external_id"] for entry in braze.requests()]
    assert asked == [50, 50, 1]
    assert look_up(reads, []) == {}
    assert len(braze.requests()) == 3


def test_values_come_along_and_are_not_shown(braze, reads):
    profile = {"external_id": PERSON[1], "custom_attributes": {"plan": "private-plan-1"}}
    answer_with(braze, profile)
    found = look_up(reads, [PERSON], attributes=True)[PERSON]
    assert found.attributes == {"plan": "private-plan-1"}
    assert "private" not in repr(found)


@pytest.mark.parametrize(
    "profile",
    [
        {"user_aliases": {"alias_name": "private-alias-1", "alias_label": "email"}},
        {"user_aliases": "private-alias-1"},
        {"user_aliases": ["private-alias-1"]},
        {"user_aliases": [None]},
        {"external_id": PERSON[1], "custom_attributes": ["private-plan-1"]},
    ],
)
def test_a_profile_that_cannot_be_understood_is_no_answer(braze, reads, profile):
    answer_with(braze, profile)
    with pytest.raises(UnclearAnswerError, match="not what Braze documents") as caught:
        look_up(reads, [PERSON], attributes=True)
    assert "private" not in f"{caught.value!r} {caught.value.__context__!r}"


@pytest.mark.parametrize(
    "profile",
    [{}, {"external_id": None, "user_aliases": None, "custom_attributes": None}, {"external_id": 7}],
)
def test_a_profile_of_somebody_else_is_no_answer(braze, reads, profile):
    answer_with(braze, profile)
    with pytest.raises(UnclearAnswerError, match="not asked for"):
        look_up(reads, [PERSON], attributes=True)


def test_silence_does_not_mean_that_nobody_is_there(braze, reads):
    answer_with(braze)
    with pytest.raises(UnclearAnswerError, match="says nothing of 1 of 2 people"):
        look_up(reads, [PERSON, alias("person-alias-1")])


def test_an_external_id_may_be_a_number(braze, reads):
    answer_with(braze, {"external_id": 7})
    assert list(look_up(reads, [external("7")])) == [external("7")]
