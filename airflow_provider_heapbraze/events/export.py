"""One run: read what is new, map it, send it, and know at every moment what is done.

The thread that runs this reads, maps and keeps the account; a few others send (:mod:`.delivery`). Files are
read in their order. Rows that cannot be held (their identity has used up its share, and too many wait
already) stay open, and their files are read again; rows that a dead process may have sent come last, so that
no row is sent a third time unless a process dies once more at that very row.
"""

from __future__ import annotations

import logging
import math
import time
from array import array
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import InterruptedCallError
from airflow_provider_heapbraze.events.account import EventAccount
from airflow_provider_heapbraze.events.checkpoint import Checkpoint
from airflow_provider_heapbraze.events.currents import epoch_seconds
from airflow_provider_heapbraze.events.delivery import EventDelivery
from airflow_provider_heapbraze.events.errors import BadFilesError, FileSetAsideError
from airflow_provider_heapbraze.events.mapping import EPOCH, NotSent
from airflow_provider_heapbraze.events.reading import GONE, read_events
from airflow_provider_heapbraze.events.report import as_table, notes, numbers
from airflow_provider_heapbraze.events.sources import find_files
from airflow_provider_heapbraze.ledger_folder import PlaceLostError, UnbalancedError
from airflow_provider_heapbraze.pace import Pace
from airflow_provider_heapbraze.pages.reports import export_report, keep_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_heapbraze.clients.event_budget import EventBudget
    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.events.currents import CurrentsEvent
    from airflow_provider_heapbraze.events.keys import Keys
    from airflow_provider_heapbraze.events.mapping import EventMapping
    from airflow_provider_heapbraze.events.progress import FileState
    from airflow_provider_heapbraze.events.source_ledger import SourceLedger
    from airflow_provider_heapbraze.events.sources import HourRange, SourceFile

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
LIST_SECONDS = 60.0
ROWS_BETWEEN_LOOKS = 500
DAY_HOURS = 24
SHOWN_FILES = 5


@dataclass(frozen=True)
class ExportRequest:
    """What a run is to do.

    :param source: a folder, or a file; a path with pathlib's interface.
    :param run_id: who asks; the same run coming back goes on with its own numbers.
    :param hours: of a backfill, by Braze's folders; where a path tells no hour, by the time of the event.
    :param max_bad_files: files that may be set aside without an error.
    :param window_days: for how many days ids of events are kept, to know an event that comes again.
    """

    source: Any
    run_id: str
    hours: HourRange | None = None
    max_bad_files: int = 0
    window_days: float = 3.0


class Export:
    """One run's work on one source.

    :param budget: of Heap's environment; shared.
    :param show: given the progress of a long export; see :class:`.pace.Pace`.
    """

    def __init__(
        self,
        request: ExportRequest,
        ledger: SourceLedger,
        mapping: EventMapping,
        client: HeapClient,
        budget: EventBudget,
        *,
        show: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._request = request
        self._ledger = ledger
        self._mapping = mapping
        self._client = client
        self._checkpoint = Checkpoint(ledger, window=int(request.window_days * DAY_HOURS))
        self._account = EventAccount(self._checkpoint)
        self._delivery = EventDelivery(
            self._checkpoint, self._account, client, budget, answered=self._close_where_settled
        )
        self._open_files: dict[int, SourceFile] = {}
        self._tried_again: set[int] = set()
        self._listed: Keys[int] = array("q")
        self._listed_at = -math.inf
        self._show = show

    def stop(self) -> None:
        """End soon, with what was accepted recorded. Safe in a signal handler."""
        self._delivery.stop()

    def run(self) -> dict[str, Any]:
        """Export everything that is not done.

        :returns: the run's report.
        :raises BadFilesError: more files were set aside than allowed; everything else was exported.
        :raises PlaceLostError: another run took the source over.
        :raises HeapBrazeError: what the client raised; what was accepted is recorded.
        """
        started = time.monotonic()
        self._checkpoint.claim(self._request.run_id)
        self._pace = Pace("events", done=self._checkpoint.counts["events"], show=self._show)
        self._delivery.begin(self._pace)
        try:
            self._export()
        except PlaceLostError:
            raise  # what it knows beyond its records is the other run's to find out
        except InterruptedCallError:
            self._delivery.end_early()
            raise InterruptedCallError(self._how_far()) from None
        except BaseException:
            self._delivery.end_early()
            log.error("%s", self._how_far())  # noqa: TRY400 - the error itself is logged by whoever called
            raise
        finally:
            self._delivery.close()
        return self._finish(time.monotonic() - started)

    def _export(self) -> None:
        self._read_new_files()
        self._read_open_files(with_doubtful=False)
        self._read_open_files(with_doubtful=True)
        self._delivery.check_something_passes()
        if self._open_files:
            raise UnbalancedError(
                f"{len(self._open_files)} files have events that are neither sent nor set aside. What was "
                "sent is recorded. This is a fault of this package: please report it."
            )

    def _read_open_files(self, *, with_doubtful: bool) -> None:
        """Read files again until every row of theirs is settled, but for those in doubt."""
        while True:
            self._delivery.send_until(lambda: self._delivery.has_room_aside or self._is_time_to_list)
            if self._is_time_to_list:
                self._read_new_files()
            elif not self._read_wanted(with_doubtful):
                self._delivery.send_until(lambda: self._delivery.is_drained or self._is_time_to_list)
                # What was turned away on the way is open again.
                if self._delivery.is_drained and not self._read_wanted(with_doubtful):
                    return

    @property
    def _is_time_to_list(self) -> bool:
        """Tell whether to look for files that came meanwhile: only events of hot identities wait."""
        return self._delivery.only_hot_ones_wait and time.monotonic() - self._listed_at >= LIST_SECONDS

    def _read_wanted(self, with_doubtful: bool) -> bool:  # noqa: FBT001
        """Read the files with open rows once; tell whether there were any."""
        wanted = [file for file in self._open_files.values() if self._has_open_rows(file, with_doubtful)]
        for file in wanted:
            self._read(file, with_doubtful=with_doubtful)
        return bool(wanted)

    def _has_open_rows(self, file: SourceFile, with_doubtful: bool) -> bool:  # noqa: FBT001
        state = self._checkpoint.state(file)
        if state is None or state.rows is None:
            return False
        taken = state.settled | state.held
        return len(taken if with_doubtful else taken | state.doubtful) < state.rows

    def _read_new_files(self) -> None:
        """Read the files that are not done and not open, in their order; remember all that there are."""
        self._listed, self._listed_at = array("q"), time.monotonic()
        for file in find_files(self._request.source):
            self._delivery.look_up()
            if self._request.hours and file.hour and file.hour not in self._request.hours:
                continue
            self._listed.append(file.key)
            state = self._checkpoint.state(file)
            if state is None or file.key in self._open_files or state.key in self._tried_again:
                continue
            if not state.is_known_bad or state.bad_run == self._request.run_id:
                self._begin(file, state)
        self._listed_at = time.monotonic()

    def _begin(self, file: SourceFile, state: FileState) -> None:
        if state.bad:  # it is tried again, whatever was known of it
            self._tried_again.add(state.key)
            state.rows, state.bad, state.bad_run, state.reported = None, "", "", False
        self._read(file, with_doubtful=False)

    def _read(self, file: SourceFile, *, with_doubtful: bool) -> None:
        state = self._checkpoint.state(file)
        if state is None:
            return
        self._open_files[file.key] = file
        self._checkpoint.keep(state)
        reason = ""
        try:
            rows = self._read_rows(file, state, with_doubtful)
        except FileSetAsideError as error:
            reason, rows = str(error), max(error.rows, len(state.settled | state.held))
        if not reason and state.rows not in {None, rows}:
            reason, rows = "it changed while it was read", len(state.settled | state.held)
        if state.rows is None or reason != state.bad:
            self._note_end(state, rows, reason)
        self._close_where_settled(state)

    def _note_end(self, state: FileState, rows: int, reason: str) -> None:
        """Note how many events a file has, and whether it could be read to its end."""
        state.rows, state.bad, state.bad_run = rows, reason, self._request.run_id if reason else ""
        self._account.end_of_file(state, rows, reason)
        if reason:
            self._tried_again.add(state.key)
            log.warning("%s is set aside: %s.", self._uri(state), reason)

    def _read_rows(self, file: SourceFile, state: FileState, with_doubtful: bool) -> int:  # noqa: FBT001
        done = state.settled | state.held
        if not with_doubtful:
            done |= state.doubtful
        with ExitStack() as stack:
            try:
                local = stack.enter_context(self._local_copy(file.path))
            except FileNotFoundError:
                raise FileSetAsideError(GONE) from None
            reader = read_events(local, file.event_type, done)
            since_look = 0
            while True:
                try:
                    row, event = next(reader)
                except StopIteration as end:
                    return int(end.value)
                self._take(file, state, row, event, with_doubtful=with_doubtful)
                since_look += 1
                if since_look >= ROWS_BETWEEN_LOOKS:
                    self._delivery.look_up()
                    since_look = 0
                if self._delivery.is_full:
                    self._delivery.send_until(lambda: not self._delivery.is_full)

    @contextmanager
    def _local_copy(self, path: Any) -> Iterator[Path]:
        """Give a file on the local disk; while it is copied, answers are taken and a stop is noticed."""
        with ExitStack() as stack, ThreadPoolExecutor(1, thread_name_prefix="copy") as thread:
            copying = thread.submit(stack.enter_context, storage.local_copy(path))
            while wait([copying], timeout=LOOK_SECONDS).not_done:
                self._delivery.look_up()
            yield copying.result()

    def _take(
        self, file: SourceFile, state: FileState, row: int, event: CurrentsEvent, *, with_doubtful: bool
    ) -> None:
        """Map an event, and put it where it belongs."""
        if self._is_out_of_range(file, event):
            self._settle_unsent(state, row, NotSent("filtered", "hours"))
            return
        mapped = self._mapping.map(event)
        if isinstance(mapped, NotSent):
            self._settle_unsent(state, row, mapped)
            return
        self._delivery.offer(state, row, mapped, with_doubtful=with_doubtful)

    def _is_out_of_range(self, file: SourceFile, event: CurrentsEvent) -> bool:
        if self._request.hours is None or file.hour is not None:
            return False
        seconds = epoch_seconds(event.fields.get("time"))
        if seconds is None:
            return False
        return f"{EPOCH + timedelta(seconds=seconds[0]):%Y-%m-%d-%H}" not in self._request.hours

    def _settle_unsent(self, state: FileState, row: int, not_sent: NotSent) -> None:
        if not_sent.outcome != "filtered":
            self._account.keep_aside(state, row, not_sent.reason, not_sent.body)
        # There is one reason to be anonymous.
        reason = "" if not_sent.outcome == "anonymous" else f":{not_sent.reason}"
        self._account.settle(state, row, f"{not_sent.outcome}{reason}")

    def _close_where_settled(self, state: FileState) -> None:
        if state.is_settled and state.key in self._open_files:
            del self._open_files[state.key]
            self._account.close(state)

    def _how_far(self) -> str:
        counts = self._checkpoint.counts
        return (
            f"Run {self._request.run_id} stopped: {counts['events']:,} events are settled, "
            f"{counts['sent']:,} of them sent; all that is recorded, and a re-run goes on with the rest."
        )

    def _finish(self, seconds: float) -> dict[str, Any]:
        self._account.record()
        counts = self._checkpoint.counts
        self._pace.end(counts["events"], sent=counts["sent"])
        bad = [state for state in self._checkpoint.bad_files() if state.bad_run == self._request.run_id]
        for state in bad:
            state.reported = True
        report = {
            "run_id": self._request.run_id,
            "source": storage.uri(self._request.source),
            **numbers(counts),
            "set_aside": [{"file": self._uri(state), "reason": state.bad} for state in bad],
            "notes": notes(counts),
            "kept_aside": self._ledger.uri("aside"),
            "requests": self._client.statistics(),
            "seconds": round(seconds, 3),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        name = self._checkpoint.write_report(report)
        self._checkpoint.commit(report=name, listed=array("q", sorted(self._listed)))
        keep_beside(self._ledger.path(name), report, export_report)
        log.info(
            "What happened to every event:\n%s\nin %s requests and %.1f s; the report: %s",
            as_table(report),
            f"{report['requests']['requests']:,}",
            seconds,
            self._ledger.uri(name),
        )
        for note in report["notes"]:
            log.warning("%s", note)
        if len(bad) > self._request.max_bad_files:
            raise BadFilesError(self._about(bad))
        return {**report, "report_uri": self._ledger.uri(name)}

    def _about(self, bad: list[FileState]) -> str:
        shown = "; ".join(f"{self._uri(state)}: {state.bad}" for state in bad[:SHOWN_FILES])
        more = f"; and {len(bad) - SHOWN_FILES} more, see the report" if len(bad) > SHOWN_FILES else ""
        those = "1 file was" if len(bad) == 1 else f"{len(bad):,} files were"
        return (
            f"{those} set aside, {self._request.max_bad_files} are allowed (max_bad_files). "
            f"{shown}{more}. Everything that could be read was sent and is recorded. Mend a file, and the "
            "next run reads it (clear this task where its size is the same); or leave it: later runs pass "
            "over it."
        )

    def _uri(self, state: FileState) -> str:
        source = self._request.source
        return storage.uri(source if source.is_file() else source / state.name)
