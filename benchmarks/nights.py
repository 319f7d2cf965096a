"""Nights of a cohort without a network: what is wanted is written down, and what is held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Plan
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.planning import Request

YESTERDAY, TODAY = "2026-11-24", "2026-11-25"


def commit(ledger: TargetLedger, plan: Plan) -> None:
    """Make a plan what is held, as if all of it had been accepted."""
    from airflow_provider_heapbraze.membership.entries import Commit, Settled
    from airflow_provider_heapbraze.membership.holding import write_snapshot

    ledger.append(plan)
    snapshot, size = write_snapshot(ledger, plan, Settled(acknowledged=[(0, plan.rows)]))
    ledger.append(
        Commit(
            number=plan.number + 1,
            plan_id=plan.plan_id,
            run_id=plan.run_id,
            fingerprint=plan.fingerprint,
            snapshot=snapshot,
            size=size,
            forced=False,
            name=None,
            report="",
            as_of=plan.as_of,
            memory=plan.handed_on,
        )
    )


def request_for(match: Any, root: Path, day: str, kind: str) -> Request:
    """Ask for what a match says."""
    from airflow_provider_heapbraze.membership.matching import match_folder
    from airflow_provider_heapbraze.membership.planning import Request

    return Request(
        run_id=day,
        match=match,
        match_folder=match_folder(root, match.fingerprint),
        kinds=(kind,),
        name=None,
        force_full=False,
        as_of=day,
    )


def write_match(root: Path, day: str, people: range) -> None:
    """Write down people who are matched: ``customer-…``, in no order."""
    from airflow_provider_heapbraze.membership.matching import keep_identifiers
    from airflow_provider_heapbraze.membership.tables import workspace

    with workspace() as space:
        wanted = (
            "SELECT 'external_id' AS kind, 'customer-' || (n * 7919 % 1000000007) AS value, '' AS label "
            f"FROM range({people.start}, {people.stop}) t(n)"
        )
        nobody = f"SELECT *, '' AS of_kind, '' AS of_value, '' AS of_label FROM ({wanted}) WHERE false"
        found = keep_identifiers(space, wanted, nobody, root)
    (root / f"{day}.json").write_text(json.dumps(found.fingerprint))


def night(root: Path, day: str, *, target: Path | None = None) -> tuple[TargetLedger, Request]:
    """Return the ledger, and the request of a day whose match is written down.

    :param target: where the cohort's own ledger is, if elsewhere.
    """
    from airflow_provider_heapbraze.membership.matching import match_folder, read_match

    match = read_match(match_folder(root, json.loads((root / f"{day}.json").read_text())))
    return cohort_ledger(target or root), request_for(match, root, day, "external_id")


def cohort_ledger(root: Path) -> TargetLedger:
    """Return a cohort's ledger."""
    from airflow_provider_heapbraze.membership.entries import Target
    from airflow_provider_heapbraze.membership.ledger import TargetLedger

    return TargetLedger(root, Target("cohort", {"braze": "benchmark", "cohort": "in_segment"}))
