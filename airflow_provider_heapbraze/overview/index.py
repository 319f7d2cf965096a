"""Everything in a ledger at a glance, kept in memory and brought up to date at each look.

A ledger of 1,000 cohorts and 365 runs each has a million files. A look lists three folders, and reads what is
new since the last one: a small file of each record that a run has changed, see :mod:`..glances`. The log of a
record is read only where somebody is at work, or died; and of each now and then, at leisure: for what was
damaged since, and for what came without a word, as from a backup.

A look waits a moment for that to end, and else shows what was known before: an object store takes its time.
Only the very first look waits to the end.

The state of a record is that of its newest entry and of the files that this one names; what else a run needs
is looked at for one record at a time, see :mod:`..ledger_check`.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import glances
from airflow_provider_heapbraze.ledger_check.account import UNFINISHED, WAITS, WHOLE
from airflow_provider_heapbraze.ledger_check.sources import GROUP as SOURCES
from airflow_provider_heapbraze.ledger_check.sources import check_source
from airflow_provider_heapbraze.ledger_check.targets import GROUP as TARGETS
from airflow_provider_heapbraze.ledger_check.targets import check_target
from airflow_provider_heapbraze.ledger_folder import folders
from airflow_provider_heapbraze.membership.ledger import found_target
from airflow_provider_heapbraze.overview import sources, targets
from airflow_provider_heapbraze.overview.records import summarise
from airflow_provider_heapbraze.overview.summary import Run, Summary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airflow_provider_heapbraze.glances import Key
    from airflow_provider_heapbraze.ledger_check.account import Account

log = logging.getLogger(__name__)

# An object store answers many as fast as one.
AT_ONCE = 16
FRESH_SECONDS = 2.0
PATIENCE_SECONDS = 0.4
RUNS_SHOWN = 100
# Every log is read so often, with a pause before each, while somebody looks.
LOG_SECONDS = 3600.0
PAUSE_SECONDS = 0.01
GROUPS = (TARGETS, SOURCES)
RECORD = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Detail:
    """One record, as its own page shows it.

    :param account: what is wrong and what happens next.
    :param runs: the newest first.
    """

    summary: Summary
    account: Account
    runs: list[Run]


@dataclass(frozen=True)
class _Known:
    """What is known of a record.

    :param glance: name of the newest that was said of it by then; empty for none.
    :param found_at: when it was found out, by a clock of this process.
    """

    summary: Summary
    glance: str
    found_at: float


class Index:
    """The summaries of all records; used by many threads.

    :param root: folder of all ledgers; a path with pathlib's interface.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._readers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="heapbraze-overview")
        self._lock = threading.Lock()
        # What all looks found, and what a closer look at one record did.
        self._known: Mapping[Key, _Known] | None = None
        self._closer: Mapping[Key, _Known] = {}
        self._reading: Future[None] | None = None
        self._read_at = -inf
        self._logs_read_at = -inf

    def summaries(self) -> list[Summary]:
        """Return every record, in the order of their names.

        :raises OSError: the ledger cannot be read.
        """
        reading = self._begin_to_read()
        if self._known is not None:
            wait([reading], PATIENCE_SECONDS)
        if self._known is None or reading.done():
            reading.result()
        self._begin_to_read_logs()
        return [known.summary for known in self._all_known().values()]

    def detail(self, summary: Summary) -> Detail:
        """Look at one record closely, as it is now.

        :param summary: of the record.
        :raises OSError: the ledger cannot be read.
        """
        folder = summary.folder
        if summary.group == TARGETS:
            account = check_target(self.root, folder, deep=False)
            runs = targets.runs(self.root, folder, 2 * RUNS_SHOWN, self._readers)
        else:
            account = check_source(self.root, folder, deep=False)
            runs = sources.runs(self.root, folder, RUNS_SHOWN, self._readers)
        summary = replace(summary, state=_state(summary, account))
        self._learn(summary)
        return Detail(summary, account, runs)

    def summary(self, group: str, folder: str) -> Summary | None:
        """Return one record as its log has it now; None where there is none.

        :raises OSError: the ledger cannot be read.
        """
        # What is asked for becomes a path.
        if group not in GROUPS or not RECORD.fullmatch(folder) or not (self.root / group / folder).is_dir():
            return None
        return summarise(self.root, group, folder)

    def run(self, group: str, folder: str, run_id: str) -> Run | None:
        """Return the newest that a run did to a record; None where it did nothing, or never came so far.

        :raises OSError: the ledger cannot be read.
        """
        run_of = targets.run_of if group == TARGETS else sources.run_of
        return run_of(self.root, folder, run_id, self._readers)

    def read_logs(self) -> None:
        """Look closer at every record that nobody looked closer at for long, one after the other."""
        for key in self._known or {}:
            before = self._closer.get(key)
            if before is None or time.monotonic() - before.found_at >= LOG_SECONDS:
                time.sleep(PAUSE_SECONDS)
                try:
                    self._learn(summarise(self.root, *key))
                except OSError as error:
                    log.warning("%s/%s in the ledger cannot be read (%s).", *key, type(error).__name__)

    def _all_known(self) -> dict[Key, _Known]:
        """Join what all looks found with what closer looks did; of a record, the later one counts."""
        with self._lock:
            found = dict(self._known or {})
            for key, closer in self._closer.items():
                known = found.get(key)
                if known and known.glance == closer.glance and known.found_at < closer.found_at:
                    found[key] = closer
            return found

    def _learn(self, summary: Summary) -> None:
        """Take over what a closer look at a record found."""
        key = (summary.group, summary.folder)
        with self._lock:
            known = (self._known or {}).get(key)
            glance = known.glance if known else ""
            self._closer = {**self._closer, key: _Known(summary, glance, time.monotonic())}

    def _begin_to_read(self) -> Future[None]:
        with self._lock:
            if self._reading is None or (
                self._reading.done() and time.monotonic() - self._read_at >= FRESH_SECONDS
            ):
                self._reading = Future()
                threading.Thread(target=self._read, args=(self._reading,), daemon=True).start()
            return self._reading

    def _begin_to_read_logs(self) -> None:
        with self._lock:
            if time.monotonic() - self._logs_read_at >= LOG_SECONDS:
                self._logs_read_at = time.monotonic()
                threading.Thread(target=self.read_logs, daemon=True).start()

    def _read(self, done: Future[None]) -> None:
        try:
            # Before the folders: a record that comes meanwhile is one of which nothing was said.
            newest = glances.newest(self.root)
            known = self._all_known()
            keys = [
                (group, name)
                for group in GROUPS
                for name in folders(self.root / group)
                if RECORD.fullmatch(name)
            ]
            looks = self._readers.map(
                lambda key: _looked_at(self.root, key, known.get(key), newest.get(key, "")), keys
            )
            found = dict(zip(keys, looks, strict=True))
            with self._lock:
                self._known, self._read_at = found, time.monotonic()
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for the result
            done.set_exception(error)
        else:
            done.set_result(None)


def _looked_at(root: Path, key: Key, before: _Known | None, glance: str) -> _Known:
    """Return what is known of a record, if that is still so; else what is found now.

    :param glance: name of the newest that was said of it; empty for none.
    """
    if before and before.glance == glance:
        if before.summary.state != UNFINISHED and (still := _still(root, before)):
            return still
    elif summary := _said(root, glance):
        return _Known(summary, glance, time.monotonic())
    found_at = time.monotonic()
    try:
        return _Known(summarise(root, *key), glance, found_at)
    except OSError:
        if before is None:
            raise
        return before  # a store that is away for a moment does not take away what was known


def _state(summary: Summary, account: Account) -> str:
    """Return the state of a record's log; that a plan waits is none of it."""
    if account.state == WAITS:
        return WHOLE if summary.number else UNFINISHED
    return account.state


def _said(root: Path, glance: str) -> Summary | None:
    """Return what was said of a record; None where its log has the word."""
    record = glances.read(root, glance)
    if record is None:
        return None
    try:
        return Summary.of(record)
    except (LookupError, TypeError, ValueError):  # by another version
        return None


def _still(root: Path, before: _Known) -> _Known | None:
    """Return what is known of a record, if nobody has written to it since."""
    if glances.is_known(before.glance):
        return before
    summary = before.summary
    if summary.group == SOURCES:
        return None
    ledger = found_target(root, summary.folder)
    if ledger.is_taken(summary.number + 1) or ledger.first_kept() > summary.number:
        return None
    if summary.verified is None or summary.verified.number < summary.number:
        return replace(before, summary=replace(summary, verified=targets.newest_verification(ledger)))
    return before
