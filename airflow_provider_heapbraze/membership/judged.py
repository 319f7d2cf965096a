"""What guards found about a plan, kept beside it: whoever looks at the plan later does not know the guards.

``plans/<plan id>/judgements/*.json`` hold the breaches, in counts and shares alone; the last one counts. A
plan that passes no guard has none.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, numbers
from airflow_provider_heapbraze.membership.guards import Breach, argument_that_allows
from airflow_provider_heapbraze.membership.judgement import breaches_of

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Plan
    from airflow_provider_heapbraze.membership.guards import Guards
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.members import Access

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judgement:
    """What the guards found about a plan.

    :param at: when, ISO 8601, UTC; empty where nobody wrote it down.
    """

    at: str = ""
    breaches: list[Breach] = field(default_factory=list)

    @property
    def allowance(self) -> str:
        """Return the argument of the operator that lets the plan pass."""
        return argument_that_allows(self.breaches)

    def shown(self) -> list[dict[str, Any]]:
        """Return the breaches for a program, each with the argument that allows it."""
        return [{**breach.as_dict(), "allowance": breach.allowance} for breach in self.breaches]


def judge(plan: Plan, ledger: TargetLedger, guards: Guards, access: Access) -> list[Breach]:
    """Name every limit that a plan passes, and keep that beside the plan.

    :raises ConfigurationError: as :func:`.judgement.breaches_of` does; so is ``LedgerDamagedError``.
    """
    breaches = breaches_of(plan, ledger, guards, access)
    if breaches:
        _keep(ledger, plan.plan_id, breaches)
    return breaches


def _keep(ledger: TargetLedger, plan_id: str, breaches: list[Breach]) -> None:
    """Write breaches down; the guards stop the plan all the same where that fails."""
    folder = _folder(plan_id)
    try:
        number = max(numbers(ledger.path(folder)), default=0) + 1
        record = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "breaches": [breach.as_dict() for breach in breaches],
        }
        ledger.write(f"{folder}/{number:08d}.json", record)
    except OSError:
        log.exception("Which guards the plan passes is not kept beside it; nothing else is missing.")


def judgement_of(ledger: TargetLedger, plan_id: str) -> Judgement:
    """Return what guards found last about a plan; nothing where nobody kept it, or it cannot be read."""
    folder = _folder(plan_id)
    number = max(numbers(ledger.path(folder)), default=0)
    if number:
        with suppress(LedgerDamagedError, AttributeError, LookupError, TypeError, ValueError):
            record = ledger.read(f"{folder}/{number:08d}.json")
            return _readable(Judgement(record["at"], [Breach(**breach) for breach in record["breaches"]]))
    return Judgement()


def _readable(judgement: Judgement) -> Judgement:
    """Return a judgement that can be shown.

    :raises AttributeError, TypeError, ValueError: it cannot.
    """
    if datetime.fromisoformat(judgement.at).tzinfo is None:
        raise ValueError
    for breach in judgement.breaches:
        str(breach)
    return judgement


def _folder(plan_id: str) -> str:
    return f"plans/{plan_id}/judgements"
