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

import json
import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.membership.entries import Commit, Entry, Plan, Settled, Target
from airflow_provider_heapbraze.membership.errors import LedgerDamagedError, PlaceLostError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
_ENTRIES: dict[str, type[Plan | Commit]] = {"plan": Plan, "commit": Commit}


class TargetLedger:
    """The ledger of one target.

    :param root: folder of all ledgers; a path with pathlib's interface.
    :param target: whom it is about.
    """

    def __init__(self, root: Path, target: Target) -> None:
        self.target = target
        self.folder = root / "targets" / target.folder

    def path(self, name: str) -> Path:
        """Return the path of a file that an entry names."""
        return self.folder / name

    def uri(self, name: str) -> str:
        """Return the location of a file, for people and for XCom."""
        return storage.uri(self.path(name))

    def last(self) -> Entry | None:
        """Read the newest entry.

        :raises LedgerDamagedError: an entry is missing or cannot be read.
        """
        numbers = sorted(_numbers(self.path("log")))
        if not numbers:
            return None
        if numbers != list(range(numbers[0], numbers[-1] + 1)):
            gap = next(n for n in range(numbers[0], numbers[-1]) if n not in set(numbers))
            raise self._damaged(f"entry {gap} of the log is missing")
        return self._read_entry(f"log/{numbers[-1]:08d}.json")

    def append(self, entry: Entry) -> None:
        """Take the entry's place in the log.

        :raises PlaceLostError: another run has taken it.
        """
        name = f"log/{entry.number:08d}.json"
        try:
            storage.write_new(self.path(name), _json(_entry_dict(entry)))
        except FileExistsError:
            raise self._lost(name) from None

    def check_last(self, number: int) -> None:
        """Make sure that no later entry has been taken.

        :raises PlaceLostError: there is one; it is named.
        """
        name = f"log/{number + 1:08d}.json"
        storage.refresh(self.path("log"))
        if self.path(name).exists():
            raise self._lost(name)

    def draft(self, plan: Plan) -> None:
        """Write a plan down without taking a place in the log; its change set must be there."""
        storage.write_new(self.path(f"{plan.folder}/plan.json"), _json(_entry_dict(plan)))

    def read_draft(self, plan_id: str) -> Plan:
        """Read a plan that was written down.

        :raises LedgerDamagedError: there is no such plan here.
        """
        if not re.fullmatch(r"[0-9]{8}-[0-9a-f]{12}", plan_id):
            raise self._damaged("the plan's id is not one of this ledger's")
        plan = self._read_entry(f"plans/{plan_id}/plan.json")
        if not isinstance(plan, Plan):
            raise self._damaged(f"plan {plan_id} is not a plan")
        return plan

    def settled(self, plan_id: str) -> Settled:
        """Read which rows of a plan have an answer, from every attempt.

        :raises LedgerDamagedError: a record cannot be read.
        """
        whole = Settled()
        for path in _files(self.path(f"plans/{plan_id}/settled")):
            record = self._read(f"plans/{plan_id}/settled/{path.name}")
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
        number = max(_numbers(self.path(f"{plan.folder}/attempts")), default=0) + 1
        try:
            name = f"{plan.folder}/attempts/{number:08d}.json"
            storage.write_new(
                self.path(name), _json({"attempt": number, "id": uuid4().hex, "at": time.time()})
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
        newest = max(_numbers(self.path(folder)), default=0)
        if not newest or self.path(f"{folder}/{newest:08d}-ended.json").exists():
            return None
        settled = _files(self.path(f"plans/{plan_id}/settled"))[-1:]
        signs = [f"{folder}/{newest:08d}.json", *(f"plans/{plan_id}/settled/{path.name}" for path in settled)]
        return max(float(self._read(name)["at"]) for name in signs)

    def describe_target(self) -> None:
        """Write down once whom this folder is about."""
        path = self.path("target.json")
        if not path.exists():
            storage.write_new(path, _json({"kind": self.target.kind, **self.target.place}))

    def write_report(self, name: str, report: Mapping[str, Any]) -> None:
        """Write a run's report down."""
        storage.write_new(self.path(name), _json(report))

    def read_report(self, name: str) -> dict[str, Any]:
        """Read a run's report.

        :raises LedgerDamagedError: it cannot be read.
        """
        return self._read(name)

    def damaged(self, name: str) -> LedgerDamagedError:
        """Return the error for a file that does not hold what the log says."""
        return self._damaged(f"{name} is missing or does not hold what the log says")

    def _read_entry(self, name: str) -> Entry:
        record = self._read(name)
        try:
            return _ENTRIES[record.pop("kind")](**record)
        except (KeyError, TypeError):
            raise self._damaged(f"{name} is of a form that this version does not know") from None

    def _read(self, name: str) -> dict[str, Any]:
        try:
            record = json.loads(self.path(name).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise self._damaged(f"{name} is missing or cannot be read") from None
        if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
            raise self._damaged(f"{name} is of a form that this version does not know")
        return record

    def _lost(self, name: str) -> PlaceLostError:
        entry = self._read_entry(name)
        return PlaceLostError(
            f"Run {entry.run_id} took {self.target.folder} over with entry {entry.number} of its log; this "
            "run stops. What it had sent is in that run's plan. Nothing is to be done, unless that run "
            "fails."
        )

    def _damaged(self, what: str) -> LedgerDamagedError:
        return LedgerDamagedError(
            f"The ledger of {self.target.folder} is damaged: {what}. "
            "Nothing was sent on its word. Restore the file from a backup of the ledger; or start anew under "
            "another cohort_id, since nobody can be removed of whom nothing is known."
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
        storage.write_new(self._ledger.path(name), _json(record))

    def end(self) -> None:
        """Write down that nothing more comes from this attempt, so that nobody has to wait for it."""
        name = f"{self._plan.folder}/attempts/{self._number:08d}-ended.json"
        storage.write_new(self._ledger.path(name), _json({"attempt": self._number, "at": time.time()}))


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {"kind": entry.kind, **asdict(entry)}


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps({"format": FORMAT, **record}, indent=1).encode()


def _files(folder: Path) -> list[Path]:
    storage.refresh(folder)
    try:
        return sorted(
            (path for path in folder.iterdir() if path.name.endswith(".json")), key=lambda p: p.name
        )
    except (FileNotFoundError, NotADirectoryError):  # universal-pathlib says the latter
        return []


def _numbers(folder: Path) -> list[int]:
    return [int(path.name[:-5]) for path in _files(folder) if path.name[:-5].isdigit()]
