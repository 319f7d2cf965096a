"""Remove what is old from a ledger, but for what the present state and the undo of newer runs need.

Of each target the log is cut before the oldest run that is kept: with the entries go their plans, snapshots
and findings. Reports stay: they are small, and name nobody. Of the matches those go that no kept entry was
made from, and that no task has used lately. A target whose log cannot be read is left as it is, and so are
all matches then.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, folders, log_name, numbers
from airflow_provider_heapbraze.membership.entries import Abandon, Commit, Plan
from airflow_provider_heapbraze.membership.ledger import TARGETS, TargetLedger, found_target
from airflow_provider_heapbraze.membership.matching import MATCHES
from airflow_provider_heapbraze.membership.table_records import SUFFIX, read_record
from airflow_provider_heapbraze.membership.warehouse import drop

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_heapbraze.membership.entries import Entry
    from airflow_provider_heapbraze.membership.members import Access
    from airflow_provider_heapbraze.membership.table_records import TableRecord
    from airflow_provider_heapbraze.membership.warehouse import Database

log = logging.getLogger(__name__)

# An object store answers many as fast as one.
AT_ONCE = 16
# Files of an entry are in these folders, and their names begin with its number.
NUMBERED = ("snapshots", "verifications")
# Folders of a plan in which no file stands for a table.
OF_ATTEMPTS = frozenset({"attempts", "decisions", "judgements", "settled"})
# Of an old plan whose removals may be repeated, this stays.
REPEATED = frozenset({"plan.json", "changes.parquet", f"changes{SUFFIX}"})

File = tuple[Path, int]


@dataclass(frozen=True)
class OldRuns:
    """What nothing needs any more of a target.

    :param first: the entry that its log is to begin with.
    :param runs: how many of its runs ended before that.
    :param plans: their ids; a file that stays may be in the folder of one.
    :param files: all that go, with their sizes.
    :param fingerprints: of the matches that what is kept was made from.
    """

    ledger: TargetLedger
    first: int
    runs: int
    plans: Sequence[str]
    files: Sequence[File]
    fingerprints: Collection[str]


@dataclass(frozen=True)
class Removed:
    """Files, and the tables that some of them stood for."""

    files: int
    bytes: int
    tables: int
    tables_left: int


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    :param runs: whose state cannot be restored any more.
    :param files: entries of logs among them.
    :param bytes: of the files.
    :param tables: in warehouses.
    :param left: targets that were left as they are, since their logs cannot be read.
    :param tables_left: in warehouses: old tables that could not be dropped; their files stay, too.
    """

    runs: int
    matches: int
    files: int
    bytes: int
    tables: int
    left: Sequence[str]
    tables_left: int


class Warehouses:
    """Drops tables; a warehouse that cannot be reached is not asked again.

    :param access: to the warehouses that hold tables of the ledger.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._away: set[str] = set()
        # Airflow 3.1 takes no lock where several threads ask it for connections: answers would be mixed up.
        self._one_connection = Lock()

    def drop(self, tables: Mapping[Path, TableRecord]) -> set[Path]:
        """Drop the tables that files stand for; return the files of those that could not be."""
        of_engine = defaultdict(list)
        for path, record in tables.items():
            of_engine[record.engine].append((path, record.table))
        kept = set(tables)
        for engine, theirs in of_engine.items():
            with self._one_connection:
                kept -= self._dropped(engine, theirs)
        return kept

    def _dropped(self, engine: str, tables: Sequence[tuple[Path, str]]) -> set[Path]:
        gone: set[Path] = set()
        if engine in self._away:
            return gone
        try:
            with self._access.database(engine) as database:
                gone.update(path for path, table in tables if _dropped(database, table))
        except HeapBrazeError as error:
            self._away.add(engine)
            log.warning("Old tables in connection %s are kept until the next time: %s", engine, error)
        return gone


def prune(root: Path, before: datetime, access: Access) -> Pruned:
    """Remove runs that began before a moment, and matches that nothing needs.

    May be stopped at any moment, and begun again; runs of the targets may go on meanwhile.

    :param root: folder of all ledgers; a path with pathlib's interface.
    :param access: to the warehouses that hold tables of the ledger.
    """
    warehouses = Warehouses(access)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = [name for name in folders(root / TARGETS) if not name.startswith(".")]
        looked = dict(zip(names, pool.map(partial(_old_runs, root, before), names), strict=True))
        left = [name for name, found in looked.items() if found is None]
        targets = [found for found in looked.values() if found is not None]
        of_targets = [*pool.map(partial(_remove_runs, warehouses), targets)]
        needed = {fingerprint for target in targets for fingerprint in target.fingerprints}
        unused = [] if left else [name for name in folders(root / MATCHES) if name not in needed]
        of_matches = [*pool.map(partial(_remove_match, root, before, warehouses), unused)]
    removed = [*of_targets, *of_matches]
    return Pruned(
        runs=sum(target.runs for target in targets),
        matches=sum(match.files > 0 and not match.tables_left for match in of_matches),
        files=sum(each.files for each in removed),
        bytes=sum(each.bytes for each in removed),
        tables=sum(each.tables for each in removed),
        left=left,
        tables_left=sum(each.tables_left for each in removed),
    )


def _old_runs(root: Path, before: datetime, name: str) -> OldRuns | None:
    """Find what nothing needs of a target; None where its log cannot be read."""
    ledger = found_target(root, name)
    try:
        last = ledger.last()
        entries = _entries(ledger, before.timestamp())
    except LedgerDamagedError as damage:
        log.warning("%s is left as it is: %s", name, damage)
        return None
    first = max(_first_to_keep(entries, before.timestamp()), ledger.first_kept())
    kept = [entry for entry in entries if entry.number >= first]
    plans = list(_old_plans(ledger, first, last.number if last else 0, before))
    keep = {file for entry in kept for file in _files_named(entry)}
    for plan_id in last.memory.plans if last else ():
        keep |= {f"plans/{plan_id}/{file}" for file in REPEATED}
    return OldRuns(
        ledger,
        first,
        sum(isinstance(entry, Commit) for entry in entries if entry.number < first),
        plans,
        list(_files_of(ledger, plans, first, keep)),
        set(_fingerprints(ledger, kept, {*ledger.drafts()} - {*plans})),
    )


def _entries(ledger: TargetLedger, before: float) -> list[Entry | Abandon]:
    """Read the log, without entries that cannot be read and are surely old: they are to go.

    :param before: what is older is old, UTC epoch seconds.
    :raises LedgerDamagedError: an entry cannot be read, and may be needed.
    """
    entries: list[Entry | Abandon] = []
    damaged: dict[int, LedgerDamagedError] = {}
    for number in ledger.log_numbers():
        try:
            entries.append(ledger.entry(number))
        except LedgerDamagedError as damage:
            damaged[number] = damage
    newest_old = max((plan.number for plan in _plans(entries) if plan.opened_at < before), default=0)
    first = min(_first_to_keep(entries, before), newest_old)
    needed = [number for number in damaged if number >= first]
    if needed:
        raise damaged[needed[0]]
    return entries


def _plans(entries: Iterable[Entry | Abandon]) -> list[Plan]:
    return [entry for entry in entries if isinstance(entry, Plan)]


def _first_to_keep(entries: Sequence[Entry | Abandon], before: float) -> int:
    """Return the number of the plan that the log is to begin with; 1 where nothing is to go."""
    plans = {plan.plan_id: plan for plan in _plans(entries)}
    commits = [entry for entry in entries if isinstance(entry, Commit)]
    if not commits:
        return 1
    # What is held is known from the newest commit on.
    newest = plans.get(commits[-1].plan_id, commits[-1])
    young = (plan.number for plan in plans.values() if plan.opened_at >= before)
    return min([newest.number, *young])


def _files_named(entry: Entry | Abandon) -> Iterator[str]:
    """Give the files that an entry names."""
    if isinstance(entry, Abandon):
        return
    yield from entry.memory.carried.values()
    state = entry.base if isinstance(entry, Plan) else entry.snapshot
    if state is not None:
        yield state


def _old_plans(ledger: TargetLedger, first: int, last: int, before: datetime) -> Iterator[str]:
    """Give the ids of plans before an entry, and of drafts that nobody has carried out for long."""
    for plan_id in ledger.drafts():
        place = ledger.place_of(plan_id)
        if place < first or (place > last and _is_older(ledger.path(f"plans/{plan_id}/plan.json"), before)):
            yield plan_id


def _files_of(
    ledger: TargetLedger, plans: Iterable[str], first: int, keep: Collection[str]
) -> Iterator[File]:
    """Give the files of some plans, and of entries before one, but for those to keep."""
    for plan_id in plans:
        folder = f"plans/{plan_id}"
        repeated = f"{folder}/plan.json" in keep
        for path, size in _files_in(ledger.path(folder)):
            of_attempts = repeated and path.parent.name == "attempts"  # recovery goes by them
            if f"{folder}/{path.name}" not in keep and not of_attempts:
                yield path, size
    for folder in NUMBERED:
        for path, size in storage.listed(ledger.path(folder)):
            number = path.name[:8]
            if number.isdigit() and int(number) < first and f"{folder}/{path.name}" not in keep:
                yield path, size


def _fingerprints(
    ledger: TargetLedger, kept: Iterable[Entry | Abandon], drafts: Collection[str]
) -> Iterator[str]:
    """Give the fingerprints of the matches that entries and drafts were made from."""
    opened = set()
    for entry in kept:
        if not isinstance(entry, Abandon):
            opened.add(entry.plan_id)
            yield entry.fingerprint
    for plan_id in {*drafts} - opened:
        with suppress(LedgerDamagedError):  # its import would stop, too
            yield ledger.read_draft(plan_id).fingerprint


def _is_older(path: Path, moment: datetime) -> bool:
    with suppress(FileNotFoundError):
        return storage.changed_at(path) < moment
    return False


def _files_in(folder: Path) -> Iterator[File]:
    files = storage.listed(folder)
    yield from files
    for name in {*storage.names(folder)} - {path.name for path, _ in files}:
        yield from _files_in(folder / name)


def _cut(target: OldRuns) -> int:
    """Let a target's log begin later: nothing names what is removed after that; return how many went."""
    before = [number for number in numbers(target.ledger.path("log")) if number < target.first]
    if before:
        target.ledger.say_pruned(target.first)
    for number in before:  # one by one: a log has no gaps
        target.ledger.path(log_name(number)).unlink(missing_ok=True)
    return len(before)


def _remove_runs(warehouses: Warehouses, target: OldRuns) -> Removed:
    entries = _cut(target)
    folders_of_plans = [target.ledger.path(f"plans/{plan_id}") for plan_id in target.plans]
    removed = _remove(target.files, folders_of_plans, warehouses)
    return replace(removed, files=removed.files + entries)


def _remove_match(root: Path, before: datetime, warehouses: Warehouses, fingerprint: str) -> Removed:
    """Remove a match that no task has used since a moment."""
    folder = root / MATCHES / fingerprint
    files = storage.listed(folder)
    # An empty folder that is new is about to be written to.
    paths = [path for path, _ in files] or [folder]
    if all(_is_older(path, before) for path in paths):
        return _remove(files, [folder], warehouses)
    return Removed(0, 0, 0, 0)


def _remove(files: Sequence[File], folders_of_theirs: Iterable[Path], warehouses: Warehouses) -> Removed:
    """Drop the tables that files stand for, and remove the files; and folders in which nothing is left."""
    tables = {path: record for path, _ in files if (record := _record_of(path)) is not None}
    kept = warehouses.drop(tables)
    gone = [(path, size) for path, size in files if path not in kept]
    for path, _ in gone:
        path.unlink(missing_ok=True)
    for folder in folders_of_theirs:
        _remove_if_empty(folder)
    return Removed(len(gone), sum(size for _, size in gone), len(tables) - len(kept), len(kept))


def _record_of(path: Path) -> TableRecord | None:
    """Return what a file says about a table, if it stands for one."""
    may_be = path.name.endswith(SUFFIX) and path.parent.name not in OF_ATTEMPTS
    return read_record(path) if may_be else None


def _dropped(database: Database, table: str) -> bool:
    """Drop a table; return False where that is refused: it may be somebody else's by now."""
    try:
        drop(database, table)
    except ConfigurationError as error:
        log.warning("The table %s in connection %s is kept: %s", table, database.conn_id, error)
        return False
    return True


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder in which no file is left, from a disk: stores have none."""
    here = storage.local(folder)
    for path, _, _ in () if here is None else os.walk(here, topdown=False):
        with suppress(OSError):  # it holds something
            Path(path).rmdir()
