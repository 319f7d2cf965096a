"""What guards found about a plan is kept beside it."""

from __future__ import annotations

import pytest

from airflow_provider_heapbraze.membership import judged
from airflow_provider_heapbraze.membership.errors import GuardBreachedError
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.judged import Judgement, judge, judgement_of
from airflow_provider_heapbraze.membership.planning import make_plan
from tests.unit.membership.conftest import LocalAccess, Nightly

EVERYBODY = [f"user-{number}" for number in range(30)]
STRICT = Guards(max_removed_share=None, max_removed=5)


@pytest.fixture
def nightly(heapbraze_sandbox, tmp_path):
    heapbraze_sandbox.add_users(count=30)
    nightly = Nightly(heapbraze_sandbox, tmp_path)
    nightly.run(EVERYBODY, "run-1")
    return nightly


def draft(nightly):
    return make_plan(nightly.ledger, nightly.ledger.last(), nightly.request(EVERYBODY[:20], "run-2"))


def test_the_last_word_counts(nightly):
    plan = draft(nightly)
    assert judgement_of(nightly.ledger, plan.plan_id) == Judgement()
    judge(plan, nightly.ledger, STRICT, LocalAccess())
    breaches = judge(plan, nightly.ledger, Guards(max_removed_share=0.1), LocalAccess())
    found = judgement_of(nightly.ledger, plan.plan_id)
    assert (found.breaches, found.allowance) == (breaches, "guards=Guards(max_removed_share=0.3334)")


def test_of_a_plan_that_passes_no_guard_nothing_is_kept(nightly):
    plan = draft(nightly)
    assert judge(plan, nightly.ledger, Guards(max_removed_share=None), LocalAccess()) == []
    assert not nightly.ledger.path(f"{plan.folder}/judgements").exists()


def test_nobody_is_named(nightly, tmp_path):
    protected = tmp_path / "the-board.csv"
    protected.write_text("id\nuser-29\n")
    plan = draft(nightly)
    guards = Guards(max_removed_share=None, protected=str(protected))
    assert [breach.guard for breach in judge(plan, nightly.ledger, guards, LocalAccess())] == ["protected"]
    kept = nightly.ledger.path(f"{plan.folder}/judgements/00000001.json").read_text()
    assert "user-" not in kept
    assert "the-board" not in kept


def test_what_cannot_be_kept_stops_the_plan_all_the_same(nightly, monkeypatch, caplog):
    def no_space(_folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(judged, "numbers", no_space)
        with pytest.raises(GuardBreachedError, match="10 people would be removed"):
            nightly.run(EVERYBODY[:20], "run-2", STRICT)
    assert "nothing else is missing" in caplog.text
    assert len(nightly.members()) == 30
