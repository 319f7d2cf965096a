"""One run: plan, deliver, commit, report."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze.clients.errors import InterruptedCallError
from airflow_provider_heapbraze.glances import announce
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.attempts import may_be_at_work
from airflow_provider_heapbraze.membership.decisions import approval_of
from airflow_provider_heapbraze.membership.delivery import LOSER_STOPS_WITHIN, Delivery
from airflow_provider_heapbraze.membership.entries import Commit, Plan, Unknown
from airflow_provider_heapbraze.membership.errors import GuardBreachedError, StalePlanError
from airflow_provider_heapbraze.membership.guards import argument_that_allows
from airflow_provider_heapbraze.membership.holding import check_files, write_rejected, write_snapshot
from airflow_provider_heapbraze.membership.judged import judge
from airflow_provider_heapbraze.membership.planning import (
    finished_before,
    make_plan,
    own_open_plan,
)
from airflow_provider_heapbraze.membership.report import as_table, waterfall
from airflow_provider_heapbraze.pages.reports import keep_beside, membership_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_heapbraze.membership.delivery import Sender
    from airflow_provider_heapbraze.membership.entries import Last, Settled
    from airflow_provider_heapbraze.membership.guards import Breach, Guards
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.members import Access
    from airflow_provider_heapbraze.membership.planning import Request

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5


def _stopped(plan: Plan, target: str, breaches: Sequence[Breach]) -> GuardBreachedError:
    said = "; ".join(map(str, breaches))
    return GuardBreachedError(
        f"A guard stopped the plan: {said}.\n"
        f"Nothing was sent. To allow it once, give the operator {argument_that_allows(breaches)} in the DAG, "
        "then clear this task; take it out again afterwards.\n"
        f"The plan is kept as {plan.plan_id} of {target}.",
        guard=breaches[0].guard,
    )


class Sync:
    """One run's work on one target.

    :param ledger: the target's ledger.
    :param sender: how batches reach the target.
    :param statistics: gives the transport's counters: requests, waits, seconds waited.
    :param access: to the protected people whom guards name.
    :param show: given the progress of a long delivery; see :class:`.pace.Pace`.
    """

    def __init__(
        self,
        ledger: TargetLedger,
        sender: Sender,
        statistics: Callable[[], dict[str, Any]],
        access: Access,
        *,
        show: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._sender = sender
        self._statistics = statistics
        self._access = access
        self._show = show
        self._delivery: Delivery | None = None
        # A plain flag: it is set in signal handlers, where taking a lock may never end.
        self._stopped = False

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
        last = self._ledger.last_or_unknown() if request.goes_on else self._ledger.last()
        report = self._report_of(finished_before(last, request), goes_on=request.goes_on)
        if report is not None and not report["waterfall"]["rejected"]:
            log.info("This run has done its work already: nothing is sent.")
            return report
        plan = self._whole(own_open_plan(last, request), goes_on=request.goes_on)
        if plan is None:
            plan = self._open(make_plan(self._ledger, last, request), last, guards)
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
            if isinstance(last, Commit):
                return self._ledger.read_report(last.report)
            check_files(self._ledger, last)
            return self._finish(last)
        # By its place: a plan that is out of date may be pruned.
        if self._ledger.place_of(plan_id) != (last.number if last else 0) + 1:
            raise StalePlanError(
                f"Plan {plan_id} of {self._ledger.target.folder} is out of date: the target has moved on "
                "since it was made. Nothing was sent. Clear the planning task to make a new one."
            )
        draft = self._ledger.read_draft(plan_id)
        check_files(self._ledger, draft)
        return self._finish(self._open(replace(draft, run_id=run_id), last, guards))

    def _report_of(self, done: Commit | None, *, goes_on: bool) -> dict[str, Any] | None:
        """Return a finished run's report; None where it cannot be read and the run goes on all the same."""
        try:
            return None if done is None else self._ledger.read_report(done.report)
        except LedgerDamagedError:
            if not goes_on:
                raise
            return None

    def _whole(self, plan: Plan | None, *, goes_on: bool) -> Plan | None:
        """Return a plan if its files are; None where they are not and the run goes on with a new plan."""
        try:
            if plan is not None:
                check_files(self._ledger, plan)
        except LedgerDamagedError:
            if not goes_on:
                raise
            return None
        return plan

    def stop(self) -> None:
        """End soon, with what was accepted recorded. Safe in a signal handler."""
        self._stopped = True
        self._sender.interrupt()
        if self._delivery is not None:
            self._delivery.stop()

    def _open(self, plan: Plan, last: Last | None, guards: Guards) -> Plan:
        """Take the place in the log: from here on the plan may reach the other side."""
        approval = approval_of(self._ledger, plan.plan_id)
        breaches = [
            breach
            for breach in judge(plan, self._ledger, guards, self._access)
            if approval is None or not approval.covers(breach.guard, breach.value)
        ]
        if breaches:
            raise _stopped(plan, self._ledger.target.folder, breaches)
        announce(self._ledger.folder, plan.number)
        if isinstance(last, Unknown) or plan.recovery:
            self._ledger.mend_log(plan.number, plan.run_id)
        plan = replace(plan, opened_at=time.time(), approval=asdict(approval) if approval else None)
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
        return plan

    def _wait_for_losers(self, plan: Plan) -> None:
        """Wait until all who lost the place have surely stopped: what they have under way may still arrive.

        A run that took over and died while it waited is followed by one that waits, too.
        """
        until = plan.opened_at + LOSER_STOPS_WITHIN
        at_work = partial(may_be_at_work, self._ledger)
        losers = [*filter(at_work, self._ledger.begun_since_commit(plan))]
        if losers and time.time() < until:
            log.info(
                "Whoever worked on %s before may be at work still: waiting up to %.0f s for the end.",
                ", ".join(losers),
                until - time.time(),
            )
        while any(map(at_work, losers)) and time.time() < until and not self._stopped:
            time.sleep(LOOK_SECONDS)

    def _finish(self, plan: Plan) -> dict[str, Any]:
        self._wait_for_losers(plan)
        started = time.monotonic()
        self._delivery = Delivery(self._ledger, plan, self._sender, show=self._show)
        earlier = self._delivery.settled.rows
        if earlier:
            log.info("%s of %s changes were settled by an earlier attempt.", f"{earlier:,}", f"{plan.rows:,}")
        try:
            settled = self._delivery.run()
        except Exception as error:
            stopped = (
                f"Run {plan.run_id} stopped: {self._delivery.settled.rows:,} of {plan.rows:,} changes are "
                "settled and recorded; a re-run goes on with the rest."
            )
            if isinstance(error, InterruptedCallError):
                raise InterruptedCallError(stopped) from None
            log.error("%s", stopped)  # noqa: TRY400 - the error itself is logged by whoever called
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
        if plan.approval:
            report["approval"] = plan.approval
        if plan.recovery:
            report["recovery"] = plan.recovery
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
                memory=plan.handed_on,
            )
        )
        keep_beside(self._ledger.path(name), report, membership_report)
        log.info("What happened to every member:\n%s", as_table(steps))
        return report


def now() -> str:
    """Return the present time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
