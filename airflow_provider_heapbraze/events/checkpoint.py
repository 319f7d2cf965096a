"""What is known of a source, and the claim of the run that goes on from there."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.events.keys import contains, merged
from airflow_provider_heapbraze.events.progress import FileState, Progress
from airflow_provider_heapbraze.events.seen import SeenIds
from airflow_provider_heapbraze.events.source_ledger import Claim, Commit
from airflow_provider_heapbraze.events.sources import find_files
from airflow_provider_heapbraze.ledger_folder import PlaceLostError

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.events.keys import Keys
    from airflow_provider_heapbraze.events.source_ledger import SourceLedger
    from airflow_provider_heapbraze.events.sources import SourceFile

HOUR = 3600
LOOKS = 5
MOST_RUNS = 100


class Checkpoint:
    """Which files are done, how far the others are, and which events Heap has.

    :param ledger: of the source.
    :param window: hours for which ids are kept.

    ``counts`` are those of the claiming run, earlier attempts included; ``doubtful_ids`` are keys of events
    that were sent without an answer.
    """

    def __init__(self, ledger: SourceLedger, *, window: int) -> None:
        self._ledger = ledger
        self._window = window
        self._load()

    def _load(self) -> None:
        for _ in range(LOOKS):
            unknown = self._load_once()
            if unknown is None:
                return
            # A run may be at work, and have gone on since the log was read.
        raise self._ledger.damaged(f"entry {unknown} of the log is missing")

    def _load_once(self) -> int | None:
        """Read everything; return the number of an entry that something is of, and that is not there."""
        self.counts: Counter[str] = Counter()
        self.records_since_commit = 0
        self.doubtful_ids: set[int] = set()
        self._run_id = ""
        self._records = 0
        self._files: dict[int, FileState] = {}
        self._done: Keys[int] = array("q")
        self._newly_done: set[int] = set()
        self._counts_by_run: dict[str, Counter[str]] = {}
        entries = self._ledger.entries()
        self._number = entries[-1].number if entries else 0
        last_commit = entries[0] if entries and isinstance(entries[0], Commit) else None
        self._last_commit = last_commit
        ids = last_commit.ids if last_commit else {}
        present = int(time.time()) // HOUR
        self.seen = SeenIds(ids, self._ledger.read_keys, window=self._window, present=present)
        if last_commit:
            self._load_commit(last_commit)
        runs = {entry.number: entry.run_id for entry in entries}
        for number, progress in self._ledger.progress_since(min(runs, default=0)):
            if number not in runs:
                return number
            self._add(progress, runs[number])
        return None

    def state(self, file: SourceFile) -> FileState | None:
        """Return what is known of a file; None where it is done."""
        key = file.key
        if key in self._newly_done or contains(self._done, key):
            return None
        return self._files.get(key) or FileState(key, file.name, file.size)

    def bad_files(self) -> list[FileState]:
        """Return the files that were set aside."""
        return [state for state in self._files.values() if state.bad]

    @property
    def has_sent(self) -> bool:
        """Tell whether anything was ever accepted."""
        return bool(self.seen.files) or any(counts["sent"] for counts in self._counts_by_run.values())

    def claim(self, run_id: str) -> None:
        """Take the source: whoever worked on it stops.

        :raises PlaceLostError: another run took it at the same moment.
        """
        number = self._take_place(run_id)
        self._load()  # whoever had the source may have gone on until this moment
        self._number, self._run_id = number, run_id
        self.counts = self._counts_by_run.get(run_id, Counter())

    def _take_place(self, run_id: str) -> int:
        number = self._number + 1
        while True:
            try:
                self._ledger.claim(number, run_id)
            except PlaceLostError:
                if isinstance(self._ledger.entry(number), Claim):
                    raise
                number += 1  # a commit of the run that is at work: the place after it, then
            else:
                return number

    def check(self) -> None:
        """Make sure that the source is still this run's.

        :raises PlaceLostError: another run took it.
        """
        self._ledger.check_last(self._number)

    def record(self, progress: Progress) -> None:
        """Write progress down, after a look whether the source is still this run's.

        :raises PlaceLostError: another run took it.
        """
        self.check()
        self._ledger.write_progress(self._number, self._records + 1, progress)
        self._records += 1
        self.records_since_commit += 1
        self.counts.update(progress.counts)

    def keep_aside(self, lines: list[bytes]) -> str:
        """Write down events that are not sent; return the location's name."""
        return self._ledger.keep_aside(self._number, lines)

    def write_report(self, report: dict[str, Any]) -> str:
        """Write a run's report down; return the name."""
        return self._ledger.write_report(self._number + 1, report)

    def keep(self, state: FileState) -> None:
        """Note a file that is not done, or no longer."""
        if state.is_settled and not state.bad:
            self._files.pop(state.key, None)
            self._newly_done.add(state.key)
        else:
            self._files[state.key] = state

    def commit(self, *, report: str = "", listed: Keys[int] | None = None) -> None:
        """Sum up all that is known; from here on it is read instead of the progress.

        :param report: name of the run's report, where the run is at its end.
        :param listed: keys of all files that there are, rising, where every row is settled: all others are
            forgotten.
        :raises PlaceLostError: another run took the source.
        """
        self.check()
        number, before = self._number + 1, self._last_commit.number if self._last_commit else 0
        done = merged(self._done, self._newly_done)
        if listed is not None:
            done = array("q", (key for key in done if contains(listed, key)))
            self._files = {key: state for key, state in self._files.items() if contains(listed, key)}
            self.doubtful_ids = set()
        self.seen.save(lambda keys: self._ledger.write_keys("ids", number, keys))
        commit = Commit(
            number=number,
            run_id=self._run_id,
            state=self._ledger.write_state(number, self._files.values(), self.doubtful_ids),
            done=self._ledger.write_keys("done", number, done),
            ids=self.seen.files,
            counts=self._counts_without_report(done=bool(report)),
            report=report,
        )
        self._ledger.commit(commit)
        self._begin_entry(self._run_id)
        self._last_commit = commit
        self._done, self._newly_done = done, set()
        self.records_since_commit = 0
        self._ledger.prune(before, kept=set(commit.ids.values()))

    def _counts_without_report(self, *, done: bool) -> dict[str, dict[str, int]]:
        """Return what runs did that have not said so yet: each may come back."""
        self._counts_by_run[self._run_id] = self.counts
        if done:
            del self._counts_by_run[self._run_id]
        newest = list(self._counts_by_run)[-MOST_RUNS:]
        return {run_id: dict(self._counts_by_run[run_id]) for run_id in newest}

    def _begin_entry(self, run_id: str) -> None:
        self._number += 1
        self._records = 0
        self._run_id = run_id

    def _load_commit(self, commit: Commit) -> None:
        self._done = self._ledger.read_keys(commit.done)
        states, self.doubtful_ids = self._ledger.read_state(commit.state)
        self._files = {state.key: state for state in states}
        self._counts_by_run = {run_id: Counter(counts) for run_id, counts in commit.counts.items()}

    def _add(self, progress: Progress, run_id: str) -> None:
        for key, change in progress.files.items():
            state = self._files.get(key) or FileState(key, change.name, change.size)
            state.doubtful |= change.sending
            state.settled |= change.settled
            state.doubtful -= state.settled
            if change.rows is not None:
                state.rows, state.bad, state.bad_run = change.rows, change.bad, run_id if change.bad else ""
            self.keep(state)
        self.doubtful_ids.update(progress.sending_ids)
        for hour, keys in progress.ids.items():
            self.doubtful_ids.difference_update(keys)
            for key in keys:
                self.seen.add(hour, key)
        self._counts_by_run.setdefault(run_id, Counter()).update(progress.counts)


def is_anything_new(source: Path, ledger: SourceLedger) -> bool:
    """Tell whether a source has files that are not exported to the end.

    :raises ConfigurationError: there is no such source.
    :raises LedgerDamagedError: the record cannot be read.
    """
    known = Checkpoint(ledger, window=0)
    states = (known.state(file) for file in find_files(source))
    return any(state is not None and not state.is_known_bad for state in states)
