"""Plans that are newer than the log: guards stopped them, or they wait for approval or for their import."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.judged import Judgement, judgement_of

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Plan
    from airflow_provider_heapbraze.membership.ledger import TargetLedger


@dataclass(frozen=True)
class Draft:
    """A plan that has no place in the log.

    :param plan: its record.
    :param at: when guards looked at it last, ISO 8601, UTC; where nobody wrote that down, when its file was
        written.
    """

    plan: dict[str, Any]
    at: str
    judgement: Judgement


def newest_draft(ledger: TargetLedger, number: int, run_id: str = "") -> Draft | None:
    """Return the newest plan that would take a place in the log; None where there is none that can be read.

    :param run_id: of one run; empty for any.
    """
    prefix = f"{number:08d}-"
    drafts = []
    for plan_id in storage.names(ledger.path("plans")):
        plan = _read(ledger, plan_id) if plan_id.startswith(prefix) else None
        if plan and (not run_id or plan.get("run_id") == run_id):
            judgement = judgement_of(ledger, plan_id)
            drafts.append(Draft(plan, judgement.at or _written_at(ledger, plan_id), judgement))
    return max(drafts, key=lambda draft: draft.at, default=None)


def what_waits(plan: Plan, judgement: Judgement) -> str:
    """Say which plan waits, why, and what happens next."""
    begun = (
        f"Plan {plan.plan_id} of run {plan.run_id} waits: {plan.adds:,} to add, {plan.removes:,} to remove; "
        "nothing of it was sent. "
    )
    if not judgement.breaches:
        return (
            f"{begun}It waits for its import or for approval, or a guard stopped it: its task's log says "
            "which. Else the next run makes a new plan."
        )
    guards = ", ".join(f"{breach.guard} ({breach})" for breach in judgement.breaches)
    return (
        f"{begun}It was stopped, or waits for approval, for it passes {guards}. Look at the segment first. "
        f"To let the plan pass once, give the operator {judgement.allowance} in the DAG, then clear its "
        "task; or have it approved. Else the next run makes a new plan."
    )


def _read(ledger: TargetLedger, plan_id: str) -> dict[str, Any] | None:
    with suppress(LedgerDamagedError):
        return ledger.read(f"plans/{plan_id}/plan.json")
    return None


def _written_at(ledger: TargetLedger, plan_id: str) -> str:
    return storage.changed_at(ledger.path(f"plans/{plan_id}/plan.json")).isoformat(timespec="milliseconds")
