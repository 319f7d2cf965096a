"""What a person decided about a plan that guards stop."""

from __future__ import annotations

import pytest

from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.decisions import decide, plan_folder
from airflow_provider_heapbraze.membership.entries import Approval
from airflow_provider_heapbraze.membership.errors import GuardBreachedError
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.planning import make_plan

FIRST = [f"user-{number}" for number in range(20)]


@pytest.fixture
def risky(nightly):
    """Draft a plan that removes half of the people."""
    nightly.run(FIRST)
    return make_plan(nightly.ledger, nightly.ledger.last(), nightly.request(FIRST[:10], "run-2"))


def approve(nightly, plan, guards):
    decide(plan_folder(nightly.ledger.path(plan.folder)), Approval(True, guards, "ann", "2026-11-25"))


def apply(nightly, plan, guards=None):
    with nightly.client() as client:
        return nightly.sync(client).apply(plan.plan_id, "run-2", guards or Guards())


def test_what_was_approved_is_carried_out(nightly, risky):
    approve(nightly, risky, {"max_removed_share": 0.5})
    report = apply(nightly, risky)
    assert nightly.members() == set(FIRST[:10])
    assert report["approval"]["by"] == "ann"


@pytest.mark.parametrize("seen", [{}, {"max_removed": 10}, {"max_removed_share": 0.4}])
def test_what_nobody_saw_is_not(nightly, risky, seen):
    approve(nightly, risky, seen)
    with pytest.raises(GuardBreachedError, match="max_removed_share"):
        apply(nightly, risky)
    assert nightly.members() == set(FIRST)


def test_more_protected_people_than_were_seen(nightly, risky, tmp_path):
    file = tmp_path / "protected.csv"
    file.write_text("id\nuser-15\nuser-16\n")
    approve(nightly, risky, {"protected": 1})
    with pytest.raises(GuardBreachedError, match="protected"):
        apply(nightly, risky, Guards(max_removed_share=None, protected=str(file)))


def test_members_grow_older_while_a_person_thinks(nightly, risky):
    approve(nightly, risky, {"max_removed_share": 0.5, "max_members_age_hours": 0})
    apply(nightly, risky, Guards(max_members_age_hours=0))
    assert nightly.members() == set(FIRST[:10])


@pytest.mark.parametrize("content", ['{"format": 1, "appro', '{"format": 1, "approved": true, "by": "ann"}'])
def test_a_torn_decision_stops_before_anything_is_sent(nightly, risky, content):
    approve(nightly, risky, {"max_removed_share": 0.5})
    [file] = nightly.ledger.path(f"{risky.folder}/decisions").iterdir()
    file.write_text(content)
    with pytest.raises(LedgerDamagedError, match=r"decisions/.*approval task"):
        apply(nightly, risky)
    assert nightly.members() == set(FIRST)


def test_a_decision_that_is_torn_later_is_not_needed(nightly, risky):
    """It was read once, before the first request; a re-run of the same plan goes on."""
    approve(nightly, risky, {"max_removed_share": 0.5})
    assert apply(nightly, risky)["approval"]["by"] == "ann"
    [file] = nightly.ledger.path(f"{risky.folder}/decisions").iterdir()
    file.write_text("{")
    assert apply(nightly, risky)["approval"]["by"] == "ann"
