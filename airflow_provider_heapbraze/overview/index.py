"""Everything in a ledger at a glance, kept in memory and brought up to date at each look.

A ledger of 1,000 cohorts and 365 runs each has a million files: they are not read at each look, and most are
never read. Entries of a log are never changed, so a record whose newest entry is the one that is known needs
one question: is there a next one? Only a record that is unfinished, or has one, is read anew.

A look waits a moment for that to end, and else shows what was known before: an object store takes seconds to
answer a thousand questions. Only the very first look waits to the end.

The state of a record is that of its newest entry and of the files that this one names; what else a run needs
is looked at for one record at a time, see :mod:`..ledger_check`.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.ledger_check.sources import GROUP as SOURCES
from airflow_provider_heapbraze.ledger_check.sources import check_source
from airflow_provider_heapbraze.ledger_check.targets import GROUP as TARGETS
from airflow_provider_heapbraze.ledger_check.targets import check_target, found_target
from airflow_provider_heapbraze.ledger_folder import folders
from airflow_provider_heapbraze.overview import sources, targets
from airflow_provider_heapbraze.overview.summary import UNFINISHED, Run, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airflow_provider_heapbraze.ledger_check.account import Account

# An object store answers many as fast as one.
AT_ONCE = 16
FRESH_SECONDS = 2.0
PATIENCE_SECONDS = 0.4
RUNS_SHOWN = 100

Key = tuple[str, str]


@dataclass(frozen=True)
class Detail:
    """One record, as its own page shows it.

    :param account: what is wrong and what happens next.
    :param runs: the newest first.
    """

    summary: Summary
    account: Account
    runs: list[Run]


class Index:
    """The summaries of all records; used by many threads.

    :param root: folder of all ledgers; a path with pathlib's interface.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._readers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="heapbraze-overview")
        self._lock = threading.Lock()
        self._known: Mapping[Key, Summary] | None = None
        self._reading: Future[None] | None = None
        self._read_at = 0.0

    def summaries(self) -> list[Summary]:
        """Return every record, in the order of their names.

        :raises OSError: the ledger cannot be read.
        """
        reading = self._begin_to_read()
        if self._known is not None:
            wait([reading], PATIENCE_SECONDS)
        if self._known is None or reading.done():
            reading.result()
        return list((self._known or {}).values())

    def detail(self, group: str, folder: str, *, shown: int = RUNS_SHOWN) -> Detail | None:
        """Look at one record closely, as it is now; None where there is none.

        :param shown: how many of its runs.
        :raises OSError: the ledger cannot be read.
        """
        self.summaries()
        if (group, folder) not in (self._known or {}):
            return None
        if group == TARGETS:
            account = check_target(self.root, folder, deep=False)
            runs = targets.runs(self.root, folder, 2 * shown, self._readers)
        else:
            account = check_source(self.root, folder, deep=False)
            runs = sources.runs(self.root, folder, shown, self._readers)
        summary = replace(_summarise(self.root, group, folder), state=account.state)
        with self._lock:
            self._known = {**(self._known or {}), (group, folder): summary}
        return Detail(summary, account, runs)

    def run(self, group: str, folder: str, run_id: str) -> Run | None:
        """Return the newest that a run did to a record; None where it did nothing, or never came so far.

        :raises OSError: the ledger cannot be read.
        """
        runs_of = targets.runs if group == TARGETS else sources.runs
        for limit in (2 * RUNS_SHOWN, sys.maxsize):
            for run in runs_of(self.root, folder, limit, self._readers):
                if run.run_id == run_id:
                    return run
        return targets.drafted(self.root, folder, run_id) if group == TARGETS else None

    def _begin_to_read(self) -> Future[None]:
        with self._lock:
            if self._reading is None or (
                self._reading.done() and time.monotonic() - self._read_at >= FRESH_SECONDS
            ):
                self._reading = Future()
                threading.Thread(target=self._read, args=(self._reading,), daemon=True).start()
            return self._reading

    def _read(self, done: Future[None]) -> None:
        try:
            known = self._known or {}
            keys = [
                (group, name)
                for group in (TARGETS, SOURCES)
                for name in folders(self.root / group)
                if not name.startswith(".")
            ]
            look: Callable[[Key], Summary] = partial(_looked_at, self.root, known)
            found = dict(zip(keys, self._readers.map(look, keys), strict=True))
            with self._lock:
                self._known, self._read_at = found, time.monotonic()
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for the result
            done.set_exception(error)
        else:
            done.set_result(None)


def _looked_at(root: Path, known: Mapping[Key, Summary], key: Key) -> Summary:
    """Return what is known of a record, if that is still so; else what is found now."""
    before = known.get(key)
    if before is None or before.state == UNFINISHED or before.group == SOURCES:
        return _summarise(root, *key)
    ledger = found_target(root, before.folder)
    if ledger.is_taken(before.number + 1):
        return _summarise(root, *key)
    if before.verified is None or before.verified.number < before.number:
        return replace(before, verified=targets.newest_verification(ledger))
    return before


def _summarise(root: Path, group: str, name: str) -> Summary:
    return targets.summarise(root, name) if group == TARGETS else sources.summarise(root, name)
