"""Send a plan in batches, and keep account of every row.

One thread reads the change set and keeps the account; a pool of threads sends. How many of them send at a
time finds its own level: Braze answers 423 where requests of one cohort meet, without saying when.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_heapbraze.clients.concurrency import AdaptiveConcurrency
from airflow_provider_heapbraze.clients.errors import (
    InterruptedCallError,
    RequestRejectedError,
)
from airflow_provider_heapbraze.clients.transport import TIMEOUT
from airflow_provider_heapbraze.membership.account import FLUSH_SECONDS, Account
from airflow_provider_heapbraze.membership.attempts import begin_attempt
from airflow_provider_heapbraze.membership.batches import read_batches
from airflow_provider_heapbraze.membership.entries import Settled
from airflow_provider_heapbraze.membership.holding import load_changes
from airflow_provider_heapbraze.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_heapbraze.membership.batches import Batch, Refusals
    from airflow_provider_heapbraze.membership.entries import Plan
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace

log = logging.getLogger(__name__)

# 18 connections reach 69.4 requests/s at 250 ms; the rest is for slower answers, and to make up for pauses.
CONNECTIONS = 32
CHECK_SECONDS = 5.0
# A run looks every five seconds whether its place is still its own; a request that it has under way by then
# ends within the transport's timeouts.
LOSER_STOPS_WITHIN = CHECK_SECONDS + sum(TIMEOUT)
# Whoever ends a task waits a few seconds before the process is killed: it is noticed much sooner.
LOOK_SECONDS = 0.2
UNSURE_ROUNDS = 4
UNSURE_SECONDS = 0.2
SPLITTABLE = frozenset({400, 413})


class Sender(Protocol):
    """How batches reach one target.

    :param destination: whose system it is in; messages name it.
    """

    destination: str
    rows_per_request: int

    def next_step(self, name: str | None) -> str:
        """Say what a person has to do once, after the first delivery, so that it can be used."""

    def name(self, name: str, *, check: Callable[[], None]) -> None:
        """Give the target its name."""

    def send(self, batch: Batch, *, lane: AdaptiveConcurrency, check: Callable[[], None]) -> Refusals:
        """Send one batch; raise what the client raises."""

    def expect(self, rows: int) -> None:
        """Hear how many rows are left: where deliveries share a limit, small ones are done first."""

    def interrupt(self) -> None:
        """End every wait of every request at once."""


class Delivery:
    """One attempt at sending what has no answer yet.

    :param show: given the progress of a long delivery; see :class:`.pace.Pace`.
    :param connections: requests under way at the same time, at most.
    :param monotonic: seconds on a clock that only runs forward.
    """

    def __init__(
        self,
        ledger: TargetLedger,
        plan: Plan,
        sender: Sender,
        *,
        show: Callable[[dict[str, Any]], None] | None = None,
        connections: int = CONNECTIONS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._plan = plan
        self._sender = sender
        self._connections = connections
        self._monotonic = monotonic
        self._lane = AdaptiveConcurrency(connections)
        # A plain flag: it is set in signal handlers, where taking a lock may never end.
        self._stopped = False
        self._account = Account(monotonic, sender.destination)
        self._attempt = begin_attempt(ledger, plan)
        self._checked_at = monotonic()
        self._settled = ledger.settled(plan.plan_id)
        self._removals_were_open = any(self._settled.open_ranges(0, plan.removes))
        self._alone_from = monotonic() + LOSER_STOPS_WITHIN
        self._unrecorded = Settled()
        self._pace = Pace("changes", total=plan.rows, done=self._settled.rows, show=show, monotonic=monotonic)

    @property
    def settled(self) -> Settled:
        """Return what is recorded: by earlier attempts and by this one."""
        return self._settled

    def stop(self) -> None:
        """End soon: nothing more is sent, what was accepted is recorded. Safe in a signal handler."""
        self._stopped = True
        self._sender.interrupt()

    def run(self) -> Settled:
        """Send the target's name and every row that has no answer.

        :returns: what is known now: every row is acknowledged or rejected.
        :raises PlaceLostError: another run took the target over.
        :raises InterruptedCallError: it was told to stop.
        :raises HeapBrazeError: what the client raised; answers that came are recorded.
        """
        try:
            self._check_owner()  # since it took the place it may have slept
            self._send_name()
            self._send_rows()
            self._account.check_none_left_open()
            self._flush(final=True)
            self._pace.end(self._settled.rows)
        except BaseException:
            self._record_at_the_end()
            raise
        finally:
            self._end_attempt()
        return self._settled

    def _send_name(self) -> None:
        if self._plan.name is None or self._plan.name_known or self._settled.named:
            return
        self._sender.name(self._plan.name, check=self._check)
        self._account.named()
        self._flush()

    def _send_rows(self) -> None:
        """Send the removals, and once each has its answer the additions.

        Somebody may leave under one identifier and enter under another: to the other side it is one person.
        """
        if self._settled.rows == self._plan.rows:
            return
        self._expect()
        with self._ledger.spaces.local() as space:
            load_changes(space, self._ledger, self._plan)
            self._send_range(space, 0, self._plan.removes)
            self._account.check_none_left_open()
            self._wait_for_earlier_attempts()
            self._send_range(space, self._plan.removes, self._plan.rows)

    def _wait_for_earlier_attempts(self) -> None:
        """Wait until removals that an earlier attempt had under way have surely arrived."""
        if not (self._removals_were_open and self._plan.adds):
            return
        if self._attempt.others_may_be_at_work():
            log.info(
                "An earlier attempt may have removals under way still: nobody is added for up to %.0f s.",
                max(0.0, self._alone_from - self._monotonic()),
            )
        while self._attempt.others_may_be_at_work() and self._monotonic() < self._alone_from:
            self._check()
            time.sleep(LOOK_SECONDS)

    def _send_range(self, space: Workspace, first: int, last: int) -> None:
        under_way: set[Future[None]] = set()
        with ThreadPoolExecutor(self._connections, thread_name_prefix="deliver") as pool:
            try:
                for batch in self._open_batches(space, first, last):
                    under_way.add(pool.submit(self._deliver, batch))
                    while len(under_way) >= 2 * self._connections:
                        self._collect(under_way)
                while under_way:
                    self._collect(under_way)
            except BaseException:
                self.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                self._record_what_still_comes(under_way)
                raise

    def _open_batches(self, space: Workspace, first: int, last: int) -> Iterator[Batch]:
        open_ranges = list(self._settled.open_ranges(first, last))
        if open_ranges:
            yield from read_batches(space, open_ranges, self._sender.rows_per_request)

    def _collect(self, under_way: set[Future[None]]) -> None:
        """Wait for an answer, for the time to record, or for the end; take out what is answered."""
        done, _ = wait(under_way, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
        under_way -= done
        for future in done:
            future.result()
        self._check_stopped()
        if self._account.due():
            self._flush()
            self._expect()
            self._pace.at(self._settled.rows)

    def _expect(self) -> None:
        self._sender.expect(self._plan.rows - self._settled.rows)

    def _record_what_still_comes(self, under_way: set[Future[None]]) -> None:
        """Record at once, and then every second: requests may take a minute to end, a kill does not wait."""
        self._record_at_the_end()
        left = {future for future in under_way if not future.cancelled()}
        while left:
            left = wait(left, timeout=FLUSH_SECONDS).not_done
            self._record_at_the_end()

    def _flush(self, *, final: bool = False) -> None:
        self._check_owner()
        self._record(final=final)

    def _record(self, *, final: bool = False) -> None:
        self._unrecorded.merge(self._account.take(final=final))
        if self._unrecorded:
            self._attempt.record(self._unrecorded)
            self._settled.merge(self._unrecorded)
            self._unrecorded = Settled()

    def _record_at_the_end(self) -> None:
        try:
            self._record()
        except Exception:  # the error that ends the run is the one to see
            log.exception("The last acknowledgements could not be recorded; the next run sends them again.")

    def _end_attempt(self) -> None:
        try:
            self._attempt.end()
        except Exception:  # as above; whoever comes next waits a little longer
            log.exception("The end of this attempt could not be recorded.")

    def _check(self) -> None:
        """Make sure that the next request may go; every sending thread asks before each."""
        self._check_stopped()
        if self._monotonic() - self._checked_at >= CHECK_SECONDS:
            self._check_owner()

    def _check_stopped(self) -> None:
        if self._stopped:
            raise InterruptedCallError(
                "The delivery was told to stop. What was accepted is recorded; a re-run sends only the rest."
            )

    def _check_owner(self) -> None:
        self._attempt.check()
        self._checked_at = self._monotonic()

    def _deliver(self, batch: Batch, rounds: int = 0) -> None:
        """Send a batch; where single rows are at fault, find them and go on.

        :param rounds: how often an answer has left the fate of these rows open.
        """
        try:
            refusals = self._sender.send(batch, lane=self._lane, check=self._check)
        except RequestRejectedError as error:
            if error.status not in SPLITTABLE:
                raise
            if len(batch.rows) > 1:
                for half in batch.halves():
                    self._deliver(half)
            else:
                self._reject({batch.numbers[0]: f"refused_{error.status}"}, str(error))
            return
        self._account.acknowledge(batch, refusals)
        rejected = {batch.numbers[index]: reason for index, reason in refusals.rejected.items()}
        self._reject(rejected, "The rows of a request were refused.")
        if refusals.unsure:
            self._resolve(batch.only(refusals.unsure), rounds)

    def _resolve(self, unsure: Batch, rounds: int) -> None:
        """Send rows again whose fate an answer left open: together first, then in halves, then alone."""
        time.sleep(UNSURE_SECONDS)
        if rounds and len(unsure.rows) > 1:
            for half in unsure.halves():
                self._deliver(half, rounds)
        elif rounds < UNSURE_ROUNDS:
            self._deliver(unsure, rounds + 1)
        else:
            self._account.leave_open(unsure)
            self._account.check_somebody_passes("It reports errors of no documented kind.")

    def _reject(self, rejected: dict[int, str], answer: str) -> None:
        if rejected:
            self._account.reject(rejected)
            self._account.check_somebody_passes(answer)
