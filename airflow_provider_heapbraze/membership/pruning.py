"""Remove what is old from a ledger, but for what the present state and the undo of newer runs need.

Of each target the log is cut before the oldest run that is kept: with the entries go their plans, snapshots
and findings. Reports stay: they are small, and name nobody. Of the matches those go that no kept entry was
made from. A target whose log cannot be read is left as it is, and so are all matches then.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import HeapBrazeError
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

log = logging.getLogger(__name__)

# An object store answers many as fast as one.
AT_ONCE = 16
# Files of an entry are in these folders, and their names begin with its number.
NUMBERED = ("snapshots", "verifications")
# Folders of a plan in which no file stands for a table.
OF_ATTEMPTS = frozenset({"attempts", "decisions", "judgements", "settled"})

File = tuple[Path, int]


@dataclass(frozen=True)
class Old:
    """What nothing needs any more.

    :param folders: of plans or of a match; a file that stays may be in one.
    :param files: all that go, with their sizes.
    """

    folders: Sequence[Path]
    files: Sequence[File]


@dataclass(frozen=True)
class OldRuns:
    """What nothing needs any more of a target.

    :param first: the entry that its log is to begin with.
    :param runs: how many of its runs ended before that.
    :param fingerprints: of the matches that what is kept was made from.
    """

    ledger: TargetLedger
    first: int
    runs: int
    fingerprints: Collection[str]
    old: Old


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    :param runs: whose state cannot be restored any more.
    :param bytes: of the files.
    :param tables: in warehouses.
    :param left: targets that were left as they are, since their logs cannot be read.
    """

    runs: int
    matches: int
    files: int
    bytes: int
    tables: int
    left: Sequence[str]


def prune(root: Path, before: datetime, access: Access) -> Pruned:
    """Remove runs that began before a moment, and matches that nothing needs.

    May be stopped at any moment, and begun again; runs of the targets may go on meanwhile.

    :param root: folder of all ledgers; a path with pathlib's interface.
    :param access: to the warehouses that hold tables of the ledger.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = [name for name in folders(root / TARGETS) if not name.startswith(".")]
        looked = dict(zip(names, pool.map(partial(_old_runs, root, before), names), strict=True))
        left = [name for name, found in looked.items() if found is None]
        targets = [found for found in looked.values() if found is not None]
        needed = {fingerprint for target in targets for fingerprint in target.fingerprints}
        unused = [] if left else [name for name in folders(root / MATCHES) if name not in needed]
        matches = [found for found in pool.map(partial(_old_match, root, before), unused) if found]
        list(pool.map(_cut, targets))
        old = [*(target.old for target in targets), *matches]
        files = [file for each in old for file in each.files]
        tables = {path: record for path, record in pool.map(_record_of, files) if record is not None}
        kept = _drop_tables(tables, access)
        gone = [(path, size) for path, size in files if path not in kept]
        list(pool.map(_remove, gone))
    for folder in (folder for each in old for folder in each.folders):
        _remove_if_empty(folder)
    return Pruned(
        runs=sum(target.runs for target in targets),
        matches=sum(bool(match.files) for match in matches),
        files=len(gone),
        bytes=sum(size for _, size in gone),
        tables=len(tables) - len(kept),
        left=left,
    )


def _old_runs(root: Path, before: datetime, name: str) -> OldRuns | None:
    """Find what nothing needs of a target; None where its log cannot be read."""
    ledger = found_target(root, name)
    try:
        last = ledger.last()
        entries = [ledger.entry(number) for number in numbers(ledger.path("log"))]
    except LedgerDamagedError as damage:
        log.warning("%s is left as it is: %s", name, damage)
        return None
    first = max(_first_to_keep(entries, before.timestamp()), ledger.first_kept())
    kept = [entry for entry in entries if entry.number >= first]
    named = {str(ledger.path(file)) for entry in kept for file in _files_named(entry)}
    repeated = last.memory.plans if last else ()  # their removals may be
    plans = [
        ledger.path(f"plans/{plan_id}")
        for plan_id in ledger.drafts()
        if int(plan_id[:8]) < first and plan_id not in repeated
    ]
    files = [file for file in _files_before(ledger, first, plans) if str(file[0]) not in named]
    runs = sum(isinstance(entry, Commit) for entry in entries if entry.number < first)
    return OldRuns(ledger, first, runs, {*_fingerprints(ledger, kept, first)}, Old(plans, files))


def _first_to_keep(entries: Sequence[Entry | Abandon], before: float) -> int:
    """Return the number of the plan that the log is to begin with; 1 where nothing is to go."""
    plans = {entry.plan_id: entry for entry in entries if isinstance(entry, Plan)}
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


def _files_before(ledger: TargetLedger, first: int, plans: Iterable[Path]) -> Iterator[File]:
    """Give the files of some plans, and of entries before one."""
    for plan in plans:
        yield from _files_in(plan)
    for folder in NUMBERED:
        for path, size in storage.listed(ledger.path(folder)):
            if path.name[:8].isdigit() and int(path.name[:8]) < first:
                yield path, size


def _fingerprints(ledger: TargetLedger, kept: Iterable[Entry | Abandon], first: int) -> Iterator[str]:
    opened = set()
    for entry in kept:
        if not isinstance(entry, Abandon):
            opened.add(entry.plan_id)
            yield entry.fingerprint
    for plan_id in ledger.drafts(after=first - 1):
        if plan_id not in opened:
            with suppress(LedgerDamagedError):  # its import would stop, too
                yield ledger.read_draft(plan_id).fingerprint


def _old_match(root: Path, before: datetime, fingerprint: str) -> Old | None:
    """Find the files of a match that was made before a moment; None where it was not."""
    folder = root / MATCHES / fingerprint
    files = storage.listed(folder)
    # An empty folder that is new is about to be written to.
    if all(storage.changed_at(path) < before for path in ([path for path, _ in files] or [folder])):
        return Old([folder], files)
    return None


def _files_in(folder: Path) -> Iterator[File]:
    files = storage.listed(folder)
    yield from files
    for name in {*storage.names(folder)} - {path.name for path, _ in files}:
        yield from _files_in(folder / name)


def _cut(target: OldRuns) -> None:
    """Let a target's log begin later: nothing names what is removed after that."""
    before = [number for number in numbers(target.ledger.path("log")) if number < target.first]
    if before:
        target.ledger.say_pruned(target.first)
    for number in before:  # one by one: a log has no gaps
        target.ledger.path(log_name(number)).unlink(missing_ok=True)


def _record_of(file: File) -> tuple[Path, TableRecord | None]:
    """Return what a file says about a table, if it stands for one."""
    path, _ = file
    may_be = path.name.endswith(SUFFIX) and path.parent.name not in OF_ATTEMPTS
    return path, read_record(path) if may_be else None


def _remove(file: File) -> None:
    file[0].unlink(missing_ok=True)


def _drop_tables(tables: Mapping[Path, TableRecord], access: Access) -> set[Path]:
    """Drop the tables that files stand for; return the files of those that could not be."""
    of_engine = defaultdict(list)
    for path, record in tables.items():
        of_engine[record.engine].append((path, record.table))
    kept: set[Path] = set()
    for engine, theirs in of_engine.items():
        left = list(theirs)
        try:
            with access.database(engine) as database:
                while left:
                    drop(database, left[-1][1])
                    left.pop()
        except HeapBrazeError as error:
            log.warning(
                "%s of %s old tables in connection %s are kept until the next time: %s",
                f"{len(left):,}",
                f"{len(theirs):,}",
                engine,
                error,
            )
        kept.update(path for path, _ in left)
    return kept


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder in which no file is left, from a disk: stores have none."""
    here = storage.local(folder)
    for path, _, _ in () if here is None else os.walk(here, topdown=False):
        with suppress(OSError):  # it holds something
            Path(path).rmdir()
