"""One run: plan, deliver, commit, report."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze.membership.delivery import Delivery
from airflow_provider_heapbraze.membership.entries import Commit, Plan
from airflow_provider_heapbraze.membership.errors import GuardBreachedError, StalePlanError
from airflow_provider_heapbraze.membership.guards import describe
from airflow_provider_heapbraze.membership.planning import (
    make_plan,
    own_open_plan,
    write_rejected,
    write_snapshot,
)
from airflow_provider_heapbraze.membership.report import as_table, waterfall

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_heapbraze.membership.delivery import Sender
    from airflow_provider_heapbraze.membership.entries import Settled
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.planning import Request

log = logging.getLogger(__name__)


class Sync:
    """One run's work on one target.

    :param ledger: the target's ledger.
    :param sender: how batches reach the target.
    :param statistics: gives the transport's counters: requests, waits, seconds waited.
    """

    def __init__(
        self, ledger: TargetLedger, sender: Sender, statistics: Callable[[], dict[str, Any]]
    ) -> None:
        self._ledger = ledger
        self._sender = sender
        self._statistics = statistics
        self._delivery: Delivery | None = None

    def run(self, request: Request) -> dict[str, Any]:
        """Make the target equal to the request's match.

        :returns: the run's report.
        :raises GuardBreachedError: a guard stopped the plan; nothing was sent.
        :raises PlaceLostError: another run took the target over.
        :raises LedgerDamagedError: the ledger does not hold what its log says.
        :raises HeapBrazeError: what the client raised; what was accepted is recorded.
        """
        last = self._ledger.last()
        plan = own_open_plan(last, request)
        if plan is None:
            plan = make_plan(self._ledger, last, request)
            self._open(plan)
        return self._finish(plan)

    def apply(self, plan_id: str, run_id: str) -> dict[str, Any]:
        """Carry out a plan that was drafted before.

        :returns: the run's report; of the earlier run where the plan was carried out already.
        :raises StalePlanError: the target has moved on since.
        :raises GuardBreachedError: the plan passes a guard.
        """
        last = self._ledger.last()
        if last is not None and last.plan_id == plan_id:
            return self._ledger.read_report(last.report) if isinstance(last, Commit) else self._finish(last)
        draft = self._ledger.read_draft(plan_id)
        if draft.number != (last.number if last else 0) + 1:
            raise StalePlanError(
                f"Plan {plan_id} of {self._ledger.target.folder} is out of date: the target has moved on "
                "since it was made. Nothing was sent. Clear the planning task to make a new one."
            )
        plan = replace(draft, run_id=run_id)
        self._open(plan)
        return self._finish(plan)

    def stop(self) -> None:
        """End soon, with what was accepted recorded. Safe in a signal handler."""
        if self._delivery is not None:
            self._delivery.stop()

    def _open(self, plan: Plan) -> None:
        """Take the place in the log: from here on the plan may reach the other side."""
        if plan.breaches:
            raise GuardBreachedError(
                f"A guard stopped the plan for {self._ledger.target.folder}: {describe(plan.breaches)}. "
                f"Nothing was sent. The plan is kept as {plan.plan_id}."
            )
        self._ledger.append(plan)
        log.info(
            "Plan %s of %s: %s to add, %s to remove, %s unchanged.",
            plan.plan_id,
            self._ledger.target.folder,
            f"{plan.adds:,}",
            f"{plan.removes:,}",
            f"{plan.counts['unchanged']:,}",
        )

    def _finish(self, plan: Plan) -> dict[str, Any]:
        started = time.monotonic()
        self._delivery = Delivery(self._ledger, plan, self._sender)
        earlier = self._delivery.settled.rows
        if earlier:
            log.info("%s of %s changes were settled by an earlier attempt.", f"{earlier:,}", f"{plan.rows:,}")
        try:
            settled = self._delivery.run()
        except Exception:
            log.error(  # noqa: TRY400 - the error itself is logged by whoever called
                "Run %s stopped: %s of %s changes are settled and recorded; a re-run goes on with the rest.",
                plan.run_id,
                f"{self._delivery.settled.rows:,}",
                f"{plan.rows:,}",
            )
            raise
        return self._commit(plan, settled, earlier, time.monotonic() - started)

    def _commit(self, plan: Plan, settled: Settled, earlier: int, seconds: float) -> dict[str, Any]:
        steps = waterfall(plan, settled)
        snapshot, size = write_snapshot(self._ledger, plan, settled)
        name = f"reports/{plan.number + 1:08d}-{uuid4().hex[:8]}.json"
        report = {
            "run_id": plan.run_id,
            "plan_id": plan.plan_id,
            "target": {"kind": self._ledger.target.kind, **self._ledger.target.place},
            "name": plan.name,
            "waterfall": steps,
            "size": size,
            "settled_by_earlier_attempts": earlier,
            "rejected_rows": write_rejected(self._ledger, plan, settled),
            "requests": self._statistics(),
            "seconds": round(seconds, 3),
            "report_uri": self._ledger.uri(name),
            "finished_at": now(),
        }
        self._ledger.write_report(name, report)
        self._ledger.append(
            Commit(
                number=plan.number + 1,
                plan_id=plan.plan_id,
                run_id=plan.run_id,
                fingerprint=plan.fingerprint,
                snapshot=snapshot,
                size=size,
                forced=plan.forced,
                name=plan.name,
                report=name,
                made_at=now(),
            )
        )
        log.info("What happened to every member:\n%s", as_table(steps))
        return report


def now() -> str:
    """Return the present time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
