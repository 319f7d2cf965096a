"""The durable record of one source, in the user's own storage: where an export stopped, exactly.

Per source, environment and range of hours there is a folder::

    source.json                  what this is about
    log/00000001.json            numbered entries: a claim by a run, or a commit
    progress/<entry>-<n>.json    what happened under an entry: rows about to be sent, rows settled
    states/<entry>-*.json        with a commit, the sum of all that: the files that are not done
    done/<entry>-*.parquet       … and keys of those that are
    ids/<entry>-*.parquet        … and ids of events that Heap has, an hour each
    aside/<entry>-*.jsonl        events that were not sent, as far as Heap would have got them
    reports/<entry>-*.json       what each run did

A commit sums up what came before it; progress after it is added when the record is read. Nothing is
rewritten; what two commits have summed up is removed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from pyroaring import BitMap

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.events.keys import DamagedKeysError, read_keys, write_keys
from airflow_provider_heapbraze.events.progress import FileState, Progress
from airflow_provider_heapbraze.glances import announce
from airflow_provider_heapbraze.ledger_folder import LedgerFolder, PlaceLostError, files, log_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from airflow_provider_heapbraze.events.keys import Keys

log = logging.getLogger(__name__)

T = TypeVar("T")
SUMMED_UP = ("progress", "states", "done", "ids")


@dataclass(frozen=True)
class ExportTarget:
    """What a record is about.

    :param source: location of the files.
    :param environment: whom the events go to; see :attr:`.HeapClient.environment`.
    :param hours: the range of a backfill, for example ``2026-01-01-00/2026-02-01-00``; empty without one.
    """

    source: str
    environment: str
    hours: str = ""

    @property
    def folder(self) -> str:
        """Return the folder's name: readable, and different for every target."""
        source = self.source.rstrip("/")
        digest = hashlib.sha256(json.dumps([source, self.environment, self.hours]).encode()).hexdigest()[:12]
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.rpartition("/")[2])[:60]
        return f"currents-{readable}-{digest}"


@dataclass(frozen=True)
class Claim:
    """A run takes the source."""

    number: int
    run_id: str


@dataclass(frozen=True)
class Commit:
    """The sum of all that is known.

    :param state: file with the files that are not done.
    :param done: file with the keys of those that are.
    :param ids: files with ids, by hour since 1970.
    :param counts: of runs that have no report yet, by run.
    :param report: of the run, where it is at its end; else empty.
    """

    number: int
    run_id: str
    state: str
    done: str
    ids: dict[int, str]
    counts: dict[str, dict[str, int]]
    report: str


class SourceLedger(LedgerFolder):
    """The record of one source.

    :param root: folder of all ledgers; a path with pathlib's interface.
    """

    def __init__(self, root: Path, target: ExportTarget) -> None:
        super().__init__(
            root / "sources" / target.folder,
            way_on="remove the folder: the export then begins anew, and Heap passes over the events that it "
            "has.",
        )
        self._target = target

    def entries(self) -> list[Claim | Commit]:
        """Return the last commit and the claims after it, oldest first.

        :raises LedgerDamagedError: an entry is missing or cannot be read.
        """
        found: list[Claim | Commit] = []
        number = self.last_number()
        while number and not (found and isinstance(found[0], Commit)):
            found.insert(0, self.entry(number))
            number -= 1
        return found

    def claim(self, number: int, run_id: str) -> None:
        """Take a place in the log for a run.

        :raises PlaceLostError: another run has it.
        """
        self.describe("source.json", {"source": self._target.source, "hours": self._target.hours})
        announce(self.folder, number)
        self._append(number, {"kind": "claim", "run_id": run_id})

    def commit(self, commit: Commit) -> None:
        """Take a place in the log for the sum of all that is known.

        :raises PlaceLostError: another run has it.
        """
        ids = {str(hour): name for hour, name in commit.ids.items()}
        self._append(commit.number, {"kind": "commit", **vars(commit), "ids": ids})

    def check_last(self, number: int) -> None:
        """Make sure that no later entry has been taken.

        :raises PlaceLostError: there is one; it is named.
        """
        if self.is_taken(number + 1):
            raise self._lost(number + 1)

    def write_progress(self, number: int, count: int, progress: Progress) -> None:
        """Write down what happened under an entry."""
        self.write(f"progress/{number:08d}-{count:08d}.json", progress.as_record())

    def progress_since(self, number: int) -> Iterator[tuple[int, Progress]]:
        """Give what happened under an entry and under later ones, with the entry's number.

        :raises LedgerDamagedError: a record cannot be read.
        """
        for path in files(self.path("progress")):
            under = _number_in(path)
            if under is not None and under >= number:
                yield under, self._read_as(f"progress/{path.name}", Progress.from_record)

    def write_state(self, number: int, states: Iterable[FileState], doubtful_ids: Iterable[int]) -> str:
        """Write down the files that are not done, and ids of events in doubt; return the name."""
        name = f"states/{number:08d}-{uuid4().hex[:8]}.json"
        files = [_state_record(state) for state in states]
        self.write(name, {"files": files, "doubtful_ids": sorted(doubtful_ids)})
        return name

    def read_state(self, name: str) -> tuple[list[FileState], set[int]]:
        """Read what :meth:`write_state` wrote.

        :raises LedgerDamagedError: it is missing or damaged.
        """
        return self._read_as(
            name,
            lambda record: (
                [_state_from(state) for state in record["files"]],
                set(record["doubtful_ids"]),
            ),
        )

    def write_keys(self, folder: str, number: int, keys: Keys[int]) -> str:
        """Write keys down; return the name."""
        name = f"{folder}/{number:08d}-{uuid4().hex[:8]}.parquet"
        write_keys(self.path(name), keys)
        return name

    def read_keys(self, name: str) -> Keys[int]:
        """Read what :meth:`write_keys` wrote.

        :raises LedgerDamagedError: it is missing or damaged.
        """
        try:
            return read_keys(self.path(name))
        except (DamagedKeysError, FileNotFoundError, NotADirectoryError):
            raise self.not_as_logged(name) from None

    def keep_aside(self, number: int, lines: Iterable[bytes]) -> str:
        """Write down events that are not sent; return the name."""
        name = f"aside/{number:08d}-{uuid4().hex[:8]}.jsonl"
        storage.write_new(self.path(name), b"\n".join(lines) + b"\n")
        return name

    def write_report(self, number: int, report: dict[str, Any]) -> str:
        """Write a run's report down; return the name."""
        name = f"reports/{number:08d}-{uuid4().hex[:8]}.json"
        self.write(name, {**report, "report_uri": self.uri(name)})
        return name

    def prune(self, before: int, kept: Collection[str]) -> None:
        """Remove what was summed up before an entry.

        :param kept: names that are still needed.
        """
        for folder in SUMMED_UP:
            root = self.path(folder)
            storage.refresh(root)
            for path in list(root.iterdir()) if root.exists() else []:
                number = _number_in(path)
                if number is not None and number < before and f"{folder}/{path.name}" not in kept:
                    _remove(path)

    def entry(self, number: int) -> Claim | Commit:
        """Read an entry of the log.

        :raises LedgerDamagedError: it is missing or cannot be read.
        """
        return self._read_as(log_name(number), lambda record: _entry_from(number, record))

    def _read_as(self, name: str, form: Callable[[dict[str, Any]], T]) -> T:
        record = self.read(name)
        try:
            return form(record)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise self.damaged(f"{name} is of a form that this version does not know") from None

    def _append(self, number: int, entry: dict[str, Any]) -> None:
        try:
            self.take_place(number, {**entry, "id": uuid4().hex, "at": time.time()})
        except FileExistsError:
            raise self._lost(number) from None

    def _lost(self, number: int) -> PlaceLostError:
        return PlaceLostError(
            f"Run {self.entry(number).run_id} took {self._target.folder} over with entry {number} of its "
            "log; this run stops. What it had sent without an answer is known to that run. Nothing is to be "
            "done, unless that run fails."
        )


def _remove(path: Path) -> None:
    """Remove a file that is not needed any more; one that may not be removed harms nobody."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s is not needed any more and cannot be removed (%s).", path.name, type(error).__name__)


def _entry_from(number: int, record: dict[str, Any]) -> Claim | Commit:
    if record["kind"] == "claim":
        return Claim(number, record["run_id"])
    ids = {int(hour): file for hour, file in record["ids"].items()}
    fields = {name: record[name] for name in ("run_id", "state", "done", "counts", "report")}
    return Commit(number=number, ids=ids, **fields)


def _number_in(path: Path) -> int | None:
    """Return the number of the entry that a file belongs to; None where it is none of ours."""
    found = re.match(r"(\d{8})-", path.name)
    return int(found[1]) if found else None


def _state_record(state: FileState) -> dict[str, Any]:
    return {
        "key": state.key,
        "name": state.name,
        "size": state.size,
        "rows": state.rows,
        "bad": state.bad,
        "bad_run": state.bad_run,
        "reported": state.reported,
        "settled": _packed(state.settled),
        "doubtful": _packed(state.doubtful),
    }


def _state_from(record: dict[str, Any]) -> FileState:
    settled, doubtful = _unpacked(record.pop("settled")), _unpacked(record.pop("doubtful"))
    return FileState(settled=settled, doubtful=doubtful, **record)


def _packed(rows: BitMap) -> str:
    """Return rows as a Roaring bitmap of the portable format, in base64."""
    return base64.b64encode(rows.serialize()).decode()


def _unpacked(text: str) -> BitMap:
    return BitMap.deserialize(base64.b64decode(text, validate=True))
