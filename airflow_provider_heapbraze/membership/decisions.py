"""What a person decided about a plan that a guard stopped; the last word counts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.ledger_folder import LedgerFolder, numbers
from airflow_provider_heapbraze.membership.entries import Approval

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.membership.ledger import TargetLedger


def plan_folder(path: Path) -> LedgerFolder:
    """Return the folder of a plan that was written down, for whoever knows its location alone.

    :raises LedgerDamagedError: there is no plan.
    """
    folder = LedgerFolder(path, way_on="clear the planning task to make a new plan.")
    folder.read("plan.json")
    return folder


def decide(plan: LedgerFolder, approval: Approval) -> None:
    """Write down what a person decided about a plan; the last word counts.

    :param plan: its folder.
    """
    number = max(numbers(plan.path("decisions")), default=0) + 1
    plan.write(f"decisions/{number:08d}.json", asdict(approval))


def approval_of(ledger: TargetLedger, plan_id: str) -> Approval | None:
    """Return a person's approval of a plan; None where nobody approved it.

    :raises LedgerDamagedError: the decision cannot be read.
    """
    folder = LedgerFolder(
        ledger.path(f"plans/{plan_id}"), way_on="clear the approval task, and decide again."
    )
    number = max(numbers(folder.path("decisions")), default=0)
    if not number:
        return None
    name = f"decisions/{number:08d}.json"
    try:
        decision = Approval(**folder.read(name))
    except TypeError:
        raise folder.damaged(f"{name} is of a form that this version does not know") from None
    return decision if decision.approved else None
