"""Who works on a plan: the newest attempt owns it, and the earlier ones stop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, PlaceLostError, files, numbers

if TYPE_CHECKING:
    from airflow_provider_heapbraze.membership.entries import Plan, Settled
    from airflow_provider_heapbraze.membership.ledger import TargetLedger


def begin_attempt(ledger: TargetLedger, plan: Plan) -> Attempt:
    """Become the one who works on a plan; an earlier attempt at it stops.

    :raises PlaceLostError: another attempt began at the same moment.
    """
    # Where the file of an attempt is lost, what it recorded still has its number.
    traces = [*files(ledger.path(f"{plan.folder}/attempts")), *files(ledger.path(f"{plan.folder}/settled"))]
    number = max((int(path.name[:8]) for path in traces), default=0) + 1
    try:
        ledger.write(
            f"{plan.folder}/attempts/{number:08d}.json",
            {"attempt": number, "id": uuid4().hex, "at": time.time()},
        )
    except FileExistsError:
        raise PlaceLostError(
            f"Another attempt at plan {plan.plan_id} began at the same moment; this one stops. It sent "
            "nothing. Wait for the other attempt."
        ) from None
    return Attempt(ledger, plan, number)


class Attempt:
    """One process at work on a plan: records answers, and looks whether the plan is still its own."""

    def __init__(self, ledger: TargetLedger, plan: Plan, number: int) -> None:
        self._ledger = ledger
        self._plan = plan
        self._number = number
        self._flushes = 0

    def check(self) -> None:
        """Make sure that this attempt still owns the target.

        :raises PlaceLostError: a later entry, or a later attempt at the plan, took it over.
        """
        self._ledger.check_last(self._plan.number)
        attempts = self._ledger.path(f"{self._plan.folder}/attempts")
        storage.refresh(attempts)
        if (attempts / f"{self._number + 1:08d}.json").exists():
            raise PlaceLostError(
                f"A later attempt of run {self._plan.run_id} goes on with plan {self._plan.plan_id}; this "
                "one stops. Nothing is to be done."
            )

    def others_may_be_at_work(self) -> bool:
        """Tell whether another attempt at the plan has not said that it ended."""
        return may_be_at_work(self._ledger, self._plan.plan_id, but_for=self._number)

    def record(self, settled: Settled) -> None:
        """Write answers down; called after :meth:`check`."""
        self._flushes += 1
        name = f"{self._plan.folder}/settled/{self._number:08d}-{self._flushes:08d}.json"
        record = {
            "acknowledged": settled.acknowledged,
            "rejected": sorted(settled.rejected.items()),
            "named": settled.named,
            "at": time.time(),
        }
        self._ledger.write(name, record)

    def end(self) -> None:
        """Write down that nothing more comes from this attempt, so that nobody has to wait for it."""
        name = f"{self._plan.folder}/attempts/{self._number:08d}-ended.json"
        self._ledger.write(name, {"attempt": self._number, "at": time.time()})


def may_be_at_work(ledger: TargetLedger, plan_id: str, *, but_for: int = 0) -> bool:
    """Tell whether an attempt at a plan has not said that it ended; one that was killed never does.

    :param but_for: the number of an attempt that does not count.
    """
    names = [path.name for path in files(ledger.path(f"plans/{plan_id}/attempts"))]
    begun = {int(name.removesuffix(".json")) for name in names if "-" not in name}
    ended = {int(name.removesuffix("-ended.json")) for name in names if "-" in name}
    return bool(begun - ended - {but_for})


def last_sign_of_life(ledger: TargetLedger, plan_id: str) -> float | None:
    """Return when somebody was last at work on a plan, UTC epoch seconds; None where nobody can be."""
    folder = f"plans/{plan_id}/attempts"
    newest = max(numbers(ledger.path(folder)), default=0)
    if not newest or ledger.path(f"{folder}/{newest:08d}-ended.json").exists():
        return None
    settled = files(ledger.path(f"plans/{plan_id}/settled"))[-1:]
    signs = [f"{folder}/{newest:08d}.json", *(f"plans/{plan_id}/settled/{path.name}" for path in settled)]
    try:
        return max(float(ledger.read(name)["at"]) for name in signs)
    except LedgerDamagedError:
        return time.time()  # nobody knows: it is not taken for dead
