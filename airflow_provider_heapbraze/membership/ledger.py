"""The durable record of what was planned, sent and accepted, in the user's own storage.

Per target there is a folder::

    target.json                      whom this is about
    log/00000001.json                numbered entries: a plan, or the commit of a plan; or an entry was lost
    plans/<plan id>/plan.json        a plan as drafted
    plans/<plan id>/changes.parquet  kind, value, label, remove: removals first; a row's place is its number
    plans/<plan id>/leaving-*.parquet who is absent and not removed yet
    plans/<plan id>/links-*.parquet  identifiers held that are of one person
    plans/<plan id>/unsure-*.parquet changes of whom a change had no answer before
    plans/<plan id>/judgements/*.json which guards it passes, where it passes any
    plans/<plan id>/decisions/*.json what a person decided about it, where a guard was passed
    plans/<plan id>/attempts/1.json  who works on the plan: the newest attempt owns it
    plans/<plan id>/settled/*.json   which rows were acknowledged or rejected
    snapshots/*.parquet              kind, value, label; the name ends with the digest of what is in it
    reports/*.json                   what each run did
    pruned/00000001.json             the entries before this one were removed, as they were old

Nothing is rewritten. A place in the log, and an attempt, are taken by create-if-absent: whoever comes second
gets :class:`PlaceLostError`.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import (
    LedgerDamagedError,
    LedgerFolder,
    PlaceLostError,
    files,
    folders,
    log_name,
    numbers,
)
from airflow_provider_heapbraze.membership.entries import (
    Abandon,
    Approval,
    Commit,
    Entry,
    Last,
    Memory,
    Plan,
    Settled,
    Target,
    Unknown,
)
from airflow_provider_heapbraze.membership.spaces import Spaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

TARGETS = "targets"
PLAN_ID = re.compile(r"[0-9]{8}-[0-9a-f]{12}")
_ENTRIES: dict[str, type[Plan | Commit | Abandon]] = {"plan": Plan, "commit": Commit, "abandon": Abandon}


class TargetLedger(LedgerFolder):
    """The ledger of one target.

    :param root: folder of all ledgers; a path with pathlib's interface.
    :param target: whom it is about.
    :param spaces: where its set work is done; by default with DuckDB.
    """

    def __init__(self, root: Path, target: Target, spaces: Spaces | None = None) -> None:
        super().__init__(
            root / TARGETS / target.folder,
            way_on="clear the task with force_full=True, or restore what an earlier run left with "
            "BrazeCohortRestoreOperator: either asserts everybody who is wanted, removes everybody else whom "
            "any plan of this ledger added, and goes on from there.",
        )
        self.target = target
        self.spaces = spaces or Spaces()

    def last(self) -> Entry | None:
        """Read the newest entry.

        :raises LedgerDamagedError: an entry is missing or cannot be read.
        """
        number = self.last_number()
        if not number and self.first_kept() > 1:
            raise self.damaged(f"the log is missing from entry {self.first_kept()} on")
        entry = self.entry(number) if number else None
        if isinstance(entry, Abandon):
            raise self.damaged(f"entry {number} of the log was lost, and run {entry.run_id} did not go on")
        begun = map(_number_of, self.begun_plans(after=number))
        lost = [later for later in begun if not self.is_taken(later)]
        if lost:
            raise self.damaged(f"entry {max(lost)} of the log is missing, whose plan had begun")
        return entry

    def entry(self, number: int) -> Entry | Abandon:
        """Read an entry of the log.

        :raises LedgerDamagedError: it cannot be read.
        """
        return self._read_entry(log_name(number))

    def last_or_unknown(self) -> Last | None:
        """Read the newest entry; where the log is damaged, return where it ends."""
        try:
            return self.last()
        except LedgerDamagedError as damage:
            log.warning("%s", damage)
            known = [*self.log_numbers(), *map(_number_of, self.begun_plans()), self.first_kept() - 1]
            return Unknown(max(known))

    def next_number(self) -> int:
        """Return a place in the log after all that are taken."""
        return max(self.log_numbers(), default=0) + 1

    def mend_log(self, before: int, run_id: str) -> None:
        """Fill the gaps of the log up to a place that a run is about to take.

        :raises PlaceLostError: another run is doing so.
        """
        found = self.log_numbers()
        for number in sorted(set(range(min(found, default=before), before)) - set(found)):
            try:
                self.take_place(number, _entry_dict(Abandon(number, run_id)))
            except FileExistsError:
                raise self._lost(number) from None

    def log_numbers(self) -> list[int]:
        """Return the numbers of the entries of the log, rising.

        Those that are being pruned do not count, nor one that was written by who had slept until then.
        """
        # In this order: while entries are removed, a listing may miss some of them and not others.
        found, first = super().log_numbers(), self.first_kept()
        return [number for number in found if number >= first]

    def first_kept(self) -> int:
        """Return the entry that the log begins with, since those before it were removed; else 1."""
        return max(numbers(self.path("pruned")), default=1)

    def say_pruned(self, before: int) -> None:
        """Write down that the entries before one are about to be removed."""
        with suppress(FileExistsError):
            self.write(f"pruned/{before:08d}.json", {"at": time.time()})

    def drafts(self, *, after: int = 0) -> list[str]:
        """Return the ids of plans that were written down, rising.

        :param after: only those for a later place in the log.
        """
        ids = (name for name in folders(self.path("plans")) if PLAN_ID.fullmatch(name))
        return [plan_id for plan_id in ids if _number_of(plan_id) > after]

    def begun_plans(self, *, after: int = 0) -> list[str]:
        """Return the ids of plans that somebody worked on, rising.

        :param after: only those for a later place in the log.
        """
        drafts = self.drafts(after=after)
        return [plan_id for plan_id in drafts if files(self.path(f"plans/{plan_id}/attempts"))]

    def recent_entries(self, before: int) -> Iterator[Entry]:
        """Read the entries before a place in the log, the newest first; without those that cannot be read."""
        for number in reversed(self.log_numbers()):
            if number < before:
                with suppress(LedgerDamagedError):
                    entry = self.entry(number)
                    if not isinstance(entry, Abandon):
                        yield entry

    def abandoned_numbers(self) -> set[int]:
        """Return the places of the log that a run filled, since their entries were lost."""
        found = set()
        for number in self.log_numbers():
            with suppress(LedgerDamagedError):
                if isinstance(self.entry(number), Abandon):
                    found.add(number)
        return found

    def was_committed_before(self, number: int) -> bool:
        """Tell whether there is a commit before an entry."""
        # The entry before a plan is mostly a commit.
        return any(isinstance(entry, Commit) for entry in self.recent_entries(number))

    def append(self, entry: Entry) -> None:
        """Take the entry's place in the log.

        :raises PlaceLostError: another run has taken it.
        """
        self._check_not_pruned(entry.number)
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
        self._check_not_pruned(number + 1)

    def draft(self, plan: Plan) -> None:
        """Write a plan down without taking a place in the log; its change set must be there."""
        self.write(f"{plan.folder}/plan.json", _entry_dict(plan))

    def place_of(self, plan_id: str) -> int:
        """Return the place in the log that a plan has, or would take.

        :raises LedgerDamagedError: this is no plan's id.
        """
        if not PLAN_ID.fullmatch(plan_id):
            raise self.damaged("the plan's id is not one of this ledger's")
        return _number_of(plan_id)

    def read_draft(self, plan_id: str) -> Plan:
        """Read a plan that was written down.

        :raises LedgerDamagedError: there is no such plan here.
        """
        self.place_of(plan_id)
        plan = self._read_entry(f"plans/{plan_id}/plan.json")
        if not isinstance(plan, Plan):
            raise self.damaged(f"plan {plan_id} is not a plan")
        return plan

    def approval_of(self, plan_id: str) -> Approval | None:
        """Return a person's approval of a plan; None where nobody approved it.

        :raises LedgerDamagedError: the decision cannot be read.
        """
        folder = LedgerFolder(
            self.path(f"plans/{plan_id}"), way_on="clear the approval task, and decide again."
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
        # Where the file of an attempt is lost, what it recorded still has its number.
        traces = [*files(self.path(f"{plan.folder}/attempts")), *files(self.path(f"{plan.folder}/settled"))]
        number = max((int(path.name[:8]) for path in traces), default=0) + 1
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

    def begun_since_commit(self, plan: Plan) -> list[str]:
        """Return the ids of plans before this one whose outcome no commit has settled."""
        entries = self.recent_entries(plan.number)
        committed = next((entry.number for entry in entries if isinstance(entry, Commit)), 0)
        begun = self.begun_plans(after=committed)
        return [plan_id for plan_id in begun if plan_id != plan.plan_id]

    def may_be_at_work(self, plan_id: str, *, but_for: int = 0) -> bool:
        """Tell whether an attempt at a plan has not said that it ended; one that was killed never does.

        :param but_for: the number of an attempt that does not count.
        """
        names = [path.name for path in files(self.path(f"plans/{plan_id}/attempts"))]
        begun = {int(name.removesuffix(".json")) for name in names if "-" not in name}
        ended = {int(name.removesuffix("-ended.json")) for name in names if "-" in name}
        return bool(begun - ended - {but_for})

    def last_sign_of_life(self, plan_id: str) -> float | None:
        """Return when somebody was last at work on a plan, UTC epoch seconds; None where nobody can be."""
        folder = f"plans/{plan_id}/attempts"
        newest = max(numbers(self.path(folder)), default=0)
        if not newest or self.path(f"{folder}/{newest:08d}-ended.json").exists():
            return None
        settled = files(self.path(f"plans/{plan_id}/settled"))[-1:]
        signs = [f"{folder}/{newest:08d}.json", *(f"plans/{plan_id}/settled/{path.name}" for path in settled)]
        try:
            return max(float(self.read(name)["at"]) for name in signs)
        except LedgerDamagedError:
            return time.time()  # nobody knows: it is not taken for dead

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

    def _read_entry(self, name: str) -> Entry | Abandon:
        record = self.read(name)
        try:
            if "memory" in record:
                record["memory"] = Memory(**record["memory"])
            return _ENTRIES[record.pop("kind")](**record)
        except (KeyError, TypeError):
            raise self.damaged(f"{name} is of a form that this version does not know") from None

    def _check_not_pruned(self, number: int) -> None:
        """Make sure that a place in the log was not taken so long ago that its entry was removed.

        :raises PlaceLostError: it was.
        """
        if number < self.first_kept():
            raise PlaceLostError(
                f"Other runs took {self.target.folder} over, and that is long ago: entry {number} of its log "
                "is pruned. This run stops. Nothing is to be done."
            )

    def _lost(self, number: int) -> PlaceLostError:
        entry = self.entry(number)
        return PlaceLostError(
            f"Run {entry.run_id} took {self.target.folder} over with entry {entry.number} of its log; this "
            "run stops. What it had sent is in that run's plan. Nothing is to be done, unless that run "
            "fails."
        )


@dataclass(frozen=True)
class _Found(Target):
    """A target of which the folder is known, and perhaps nothing else."""

    name: str = ""

    @property
    def folder(self) -> str:
        return self.name


def found_target(root: Path, name: str) -> TargetLedger:
    """Return the ledger of a target of which the folder is known, and perhaps nothing else.

    :param root: folder of all ledgers.
    """
    return TargetLedger(root, _Found("", {}, name))


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
        return self._ledger.may_be_at_work(self._plan.plan_id, but_for=self._number)

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


def _entry_dict(entry: Entry | Abandon) -> dict[str, Any]:
    return {"kind": entry.kind, **asdict(entry)}


def _number_of(plan_id: str) -> int:
    return int(plan_id[:8])
