"""The durable record of what was planned, sent and accepted, in the user's own storage.

Per target there is a folder::

    target.json                      whom this is about
    log/00000001.json                numbered entries: a plan, or the commit of a plan
    plans/<plan id>/plan.json        a plan as drafted
    plans/<plan id>/changes.parquet  kind, value, label, remove: adds first; a row's place is its number
    plans/<plan id>/attempts/1.json  who works on the plan: the newest attempt owns it
    plans/<plan id>/settled/*.json   which rows were acknowledged or rejected
    snapshots/*.parquet              kind, value, label
    reports/*.json                   what each run did

Nothing is rewritten. A place in the log, and an attempt, are taken by create-if-absent: whoever comes second
gets :class:`PlaceLostError`.
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerFolder, PlaceLostError, files, log_name, numbers
from airflow_provider_heapbraze.membership.entries import Commit, Entry, Plan, Settled, Target

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ENTRIES: dict[str, type[Plan | Commit]] = {"plan": Plan, "commit": Commit}


class TargetLedger(LedgerFolder):
    """The ledger of one target.

    :param root: folder of all ledgers; a path with pathlib's interface.
    :param target: whom it is about.
    """

    def __init__(self, root: Path, target: Target) -> None:
        super().__init__(
            root / "targets" / target.folder,
            way_on="start anew under another cohort_id, attribute or property, since nobody can be removed "
            "of whom nothing is known.",
        )
        self.target = target

    def last(self) -> Entry | None:
        """Read the newest entry.

        :raises LedgerDamagedError: an entry is missing or cannot be read.
        """
        number = self.last_number()
        return self._read_entry(log_name(number)) if number else None

    def was_committed_before(self, number: int) -> bool:
        """Tell whether there is a commit before an entry.

        :raises LedgerDamagedError: an entry is missing or cannot be read.
        """
        # The first commit is among the first entries: unfinished plans alone come before it.
        entries = (self._read_entry(log_name(n)) for n in numbers(self.path("log")) if n < number)
        return any(isinstance(entry, Commit) for entry in entries)

    def append(self, entry: Entry) -> None:
        """Take the entry's place in the log.

        :raises PlaceLostError: another run has taken it.
        """
        try:
            self.take_place(entry.number, _entry_dict(entry))
        except FileExistsError:
            raise self._lost(entry.number) from None

    def check_last(self, number: int) -> None:
        """Make sure that no later entry has been taken.

        :raises PlaceLostError: there is one; it is named.
        """
        if self.is_taken(number + 1):
            raise self._lost(number + 1)

    def draft(self, plan: Plan) -> None:
        """Write a plan down without taking a place in the log; its change set must be there."""
        self.write(f"{plan.folder}/plan.json", _entry_dict(plan))

    def read_draft(self, plan_id: str) -> Plan:
        """Read a plan that was written down.

        :raises LedgerDamagedError: there is no such plan here.
        """
        if not re.fullmatch(r"[0-9]{8}-[0-9a-f]{12}", plan_id):
            raise self.damaged("the plan's id is not one of this ledger's")
        plan = self._read_entry(f"plans/{plan_id}/plan.json")
        if not isinstance(plan, Plan):
            raise self.damaged(f"plan {plan_id} is not a plan")
        return plan

    def settled(self, plan_id: str) -> Settled:
        """Read which rows of a plan have an answer, from every attempt.

        :raises LedgerDamagedError: a record cannot be read.
        """
        whole = Settled()
        for path in files(self.path(f"plans/{plan_id}/settled")):
            record = self.read(f"plans/{plan_id}/settled/{path.name}")
            whole.merge(
                Settled(
                    acknowledged=[(start, end) for start, end in record["acknowledged"]],
                    rejected=dict(record["rejected"]),
                    named=record["named"],
                )
            )
        return whole

    def begin_attempt(self, plan: Plan) -> Attempt:
        """Become the one who works on a plan; an earlier attempt at it stops.

        :raises PlaceLostError: another attempt began at the same moment.
        """
        number = max(numbers(self.path(f"{plan.folder}/attempts")), default=0) + 1
        try:
            self.write(
                f"{plan.folder}/attempts/{number:08d}.json",
                {"attempt": number, "id": uuid4().hex, "at": time.time()},
            )
        except FileExistsError:
            raise PlaceLostError(
                f"Another attempt at plan {plan.plan_id} began at the same moment; this one stops. It sent "
                "nothing. Wait for the other attempt."
            ) from None
        return Attempt(self, plan, number)

    def last_sign_of_life(self, plan_id: str) -> float | None:
        """Return when somebody was last at work on a plan, UTC epoch seconds; None where nobody can be."""
        folder = f"plans/{plan_id}/attempts"
        newest = max(numbers(self.path(folder)), default=0)
        if not newest or self.path(f"{folder}/{newest:08d}-ended.json").exists():
            return None
        settled = files(self.path(f"plans/{plan_id}/settled"))[-1:]
        signs = [f"{folder}/{newest:08d}.json", *(f"plans/{plan_id}/settled/{path.name}" for path in settled)]
        return max(float(self.read(name)["at"]) for name in signs)

    def describe_target(self) -> None:
        """Write down once whom this folder is about."""
        self.describe("target.json", {"kind": self.target.kind, **self.target.place})

    def write_report(self, name: str, report: Mapping[str, Any]) -> None:
        """Write a run's report down."""
        self.write(name, report)

    def read_report(self, name: str) -> dict[str, Any]:
        """Read a run's report.

        :raises LedgerDamagedError: it cannot be read.
        """
        return self.read(name)

    def _read_entry(self, name: str) -> Entry:
        record = self.read(name)
        try:
            return _ENTRIES[record.pop("kind")](**record)
        except (KeyError, TypeError):
            raise self.damaged(f"{name} is of a form that this version does not know") from None

    def _lost(self, number: int) -> PlaceLostError:
        entry = self._read_entry(log_name(number))
        return PlaceLostError(
            f"Run {entry.run_id} took {self.target.folder} over with entry {entry.number} of its log; this "
            "run stops. What it had sent is in that run's plan. Nothing is to be done, unless that run "
            "fails."
        )


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


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {"kind": entry.kind, **asdict(entry)}
