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
from airflow_provider_heapbraze.membership.table_records import SUFFIX, read_record
from airflow_provider_heapbraze.membership.tables import digest_in

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

    def begun_since_commit(self, plan: Plan) -> list[str]:
        """Return the ids of plans before this one whose outcome no commit has settled."""
        entries = self.recent_entries(plan.number)
        committed = next((entry.number for entry in entries if isinstance(entry, Commit)), 0)
        begun = self.begun_plans(after=committed)
        return [plan_id for plan_id in begun if plan_id != plan.plan_id]

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

    def not_as_logged(self, name: str) -> LedgerDamagedError:
        """Return the error for a file, or the table that it stands for, that is not what the log says."""
        record = read_record(self.path(name), digest_in(name)) if name.endswith(SUFFIX) else None
        if record is None:
            return super().not_as_logged(name)
        return self.damaged(
            f"the table heapbraze.{record.table} of connection {record.engine!r}, for which {name} stands, "
            f"is missing, cannot be read, or has not the {record.rows:,} rows that it had",
            restore="Restore the table in the warehouse",
        )

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


def _entry_dict(entry: Entry | Abandon) -> dict[str, Any]:
    return {"kind": entry.kind, **asdict(entry)}


def _number_of(plan_id: str) -> int:
    return int(plan_id[:8])
