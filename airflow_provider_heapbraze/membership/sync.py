"""One run: plan, deliver, commit, report."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze.clients.transport import TIMEOUT
from airflow_provider_heapbraze.membership.delivery import CHECK_SECONDS, Delivery
from airflow_provider_heapbraze.membership.entries import Commit, Plan
from airflow_provider_heapbraze.membership.errors import GuardBreachedError, StalePlanError
from airflow_provider_heapbraze.membership.guards import ChangeCounts
from airflow_provider_heapbraze.membership.planning import (
    finished_before,
    make_plan,
    own_open_plan,
    write_rejected,
    write_snapshot,
)
from airflow_provider_heapbraze.membership.report import as_table, waterfall

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_heapbraze.membership.delivery import Sender
    from airflow_provider_heapbraze.membership.entries import Entry, Settled
    from airflow_provider_heapbraze.membership.guards import Guards
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.planning import Request

log = logging.getLogger(__name__)

# A run looks every five seconds whether its place is still its own; a request that it has under way by then
# ends within the transport's timeouts.
LOSER_STOPS_WITHIN = CHECK_SECONDS + sum(TIMEOUT)


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
        self._stopped = threading.Event()

    def run(self, request: Request, guards: Guards) -> dict[str, Any]:
        """Make the target equal to the request's match.

        :param guards: limits that stop a new plan.
        :returns: the run's report; of its earlier attempt where that did the same already.
        :raises GuardBreachedError: a guard stopped the plan; nothing was sent.
        :raises StalePlanError: a later night was imported already.
        :raises PlaceLostError: another run took the target over.
        :raises LedgerDamagedError: the ledger does not hold what its log says.
        :raises HeapBrazeError: what the client raised; what was accepted is recorded.
        """
        last = self._ledger.last()
        done = finished_before(last, request)
        if done is not None:
            report = self._ledger.read_report(done.report)
            if not report["waterfall"]["rejected"]:
                log.info("This run has done its work already: nothing is sent.")
                return report
        plan = own_open_plan(last, request)
        if plan is None:
            plan = make_plan(self._ledger, last, request)
            self._open(plan, last, guards)
        return self._finish(plan)

    def apply(self, plan_id: str, run_id: str, guards: Guards) -> dict[str, Any]:
        """Carry out a plan that was drafted before.

        :param guards: limits that stop it.
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
        self._open(plan, last, guards)
        return self._finish(plan)

    def stop(self) -> None:
        """End soon, with what was accepted recorded. Safe in a signal handler."""
        self._stopped.set()
        self._sender.interrupt()
        if self._delivery is not None:
            self._delivery.stop()

    def _open(self, plan: Plan, last: Entry | None, guards: Guards) -> None:
        """Take the place in the log: from here on the plan may reach the other side."""
        breaches = guards.breaches(ChangeCounts(**plan.change))
        if breaches:
            said = "; ".join(map(str, breaches))
            raise GuardBreachedError(
                f"A guard stopped the plan for {self._ledger.target.folder}: {said}. Nothing was sent. The "
                f"plan is kept as {plan.plan_id}."
            )
        self._ledger.append(plan)
        log.info(
            "Plan %s of %s: %s to add, %s to remove, %s unchanged.%s%s%s",
            plan.plan_id,
            self._ledger.target.folder,
            f"{plan.adds:,}",
            f"{plan.removes:,}",
            f"{plan.counts['unchanged']:,}",
            " Everybody is sent again (force_full)." if plan.forced else "",
            " Its name is sent." if plan.name is not None and not plan.name_known else "",
            f" It takes over what run {last.run_id} left unfinished." if isinstance(last, Plan) else "",
        )
        if isinstance(last, Plan):
            self._wait_for_the_loser(last)

    def _wait_for_the_loser(self, closed: Plan) -> None:
        """Wait until a run that lost its place has surely stopped: what it has under way may still arrive."""
        sign = self._ledger.last_sign_of_life(closed.plan_id)
        seconds = 0.0 if sign is None else min(sign + LOSER_STOPS_WITHIN - time.time(), LOSER_STOPS_WITHIN)
        if seconds > 0:
            log.info("Run %s may be at work still: waiting up to %.0f s for its end.", closed.run_id, seconds)
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._ledger.last_sign_of_life(closed.plan_id) is not None:
            self._stopped.wait(0.5)
            if self._stopped.is_set():
                return

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
        if size and not self._ledger.was_committed_before(plan.number):
            report["next_step"] = self._sender.next_step(plan.name)
            log.info("Next step: %s", report["next_step"])
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
                as_of=plan.as_of,
            )
        )
        log.info("What happened to every member:\n%s", as_table(steps))
        return report


def now() -> str:
    """Return the present time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
