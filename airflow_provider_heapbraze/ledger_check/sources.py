"""The sources of a ledger: folders of Currents files, and how far each was carried over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.events.checkpoint import Checkpoint
from airflow_provider_heapbraze.events.source_ledger import Commit, ExportTarget, SourceLedger
from airflow_provider_heapbraze.ledger_check.account import Account, as_time, files_in
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, files, log_name

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from airflow_provider_heapbraze.events.source_ledger import Claim

GROUP = "sources"


@dataclass(frozen=True)
class _Found(ExportTarget):
    """A source of which the folder is known, and perhaps nothing else."""

    name: str = ""

    @property
    def folder(self) -> str:
        return self.name


def found_source(root: Path, name: str) -> SourceLedger:
    """Return the record of a source of which the folder is known, and perhaps nothing else.

    :param root: folder of all ledgers.
    """
    return SourceLedger(root, _Found("", "", "", name))


def check_source(root: Path, name: str, *, deep: bool) -> Account:
    """Look at one source.

    :param root: folder of all ledgers.
    :param deep: at every report, too.
    """
    ledger = found_source(root, name)
    account = Account(GROUP, name)
    reports = [path.name for path in files(ledger.path("reports"))]
    account.runs = len({report[:8] for report in reports})
    _read(ledger, account, "source.json")
    try:
        entries = ledger.entries()
        if entries:
            account.newest_run = entries[-1].run_id
            account.at = _at(ledger, entries[-1])
        # What a run reads when it begins; it stops where anything of it is damaged.
        known = Checkpoint(ledger, window=0)
        if entries and isinstance(entries[0], Commit):
            _check_commit(ledger, account, entries[0])
        _say_what_is_next(account, entries, len(known.bad_files()))
    except LedgerDamagedError as damage:
        account.find_damage(ledger, damage)
    if deep:
        for report in reports:
            _read(ledger, account, f"reports/{report}")
    return account


def _at(ledger: SourceLedger, entry: Claim | Commit) -> datetime | None:
    """Return when the newest run ended; of one that did not, when it wrote its entry."""
    report = entry.report if isinstance(entry, Commit) else ""
    return as_time(ledger, report, "finished_at") or as_time(ledger, log_name(entry.number), "at")


def _read(ledger: SourceLedger, account: Account, name: str) -> None:
    try:
        ledger.read(name)
    except LedgerDamagedError as damage:
        account.find(
            damage.what, "Runs do not need it; to look it up, restore it from a backup of the ledger."
        )


def _check_commit(ledger: SourceLedger, account: Account, commit: Commit) -> None:
    account.size = len(ledger.read_state(commit.state)[0])
    for ids in commit.ids.values():
        ledger.read_keys(ids)


def _say_what_is_next(account: Account, entries: list[Claim | Commit], bad: int) -> None:
    newest = entries[-1] if entries else None
    if newest is not None and not (isinstance(newest, Commit) and newest.report):
        account.next.append(
            f"Run {newest.run_id} has not come to its end (or is at work now). A re-run, or any other run, "
            "goes on where its record ends: what is settled is not sent again, and what was under way is "
            "sent once more, which Heap drops as a repeat."
        )
    if bad:
        account.next.append(
            f"{files_in(bad, 'file')} could not be read and {'was' if bad == 1 else 'were'} set aside: once "
            "mended, the next run reads it."
        )
