"""Exports of Braze segments: which one is under way for which run, so that a retry adopts it.

Braze allows one export per segment at a time, says nothing of how far it is, and tells of a failure by e-mail
only (Braze: Export users by segment). The answer to its start is the only thing that leads to its files: it
is written down at once, in the ledger, since the URL in it opens them to whoever has it.

Per run there is a folder ``segments/<segment>/exports/<run>``, whose log has two kinds of entries: an export
was ``started``; an export has ``ended``, because it was read or cannot be.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import (
    ConfigurationError,
    ExportGoneError,
    PermanentError,
    TransientError,
)
from airflow_provider_heapbraze.ledger_folder import LedgerFolder, PlaceLostError, log_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads

STARTED, ENDED = "started", "ended"
# Braze: "Generally, we will create 1 file per 5,000 users": the last of them says nothing of being the last.
SAME_LOOKS = 3
FIRST_WAIT = 1.0


class ExportLateError(TransientError):
    """Braze has not made the export in time."""


@dataclass(frozen=True)
class Export:
    """An export that Braze was asked for; the repr shows no URL.

    :param number: its entry in the run's log.
    :param url: where Braze leaves the archive; None where it writes to the customer's bucket.
    :param until: UTC epoch seconds after which nobody waits for it.
    """

    number: int
    segment_id: str
    object_prefix: str
    url: str | None = field(repr=False)
    started_at: float
    until: float


class RunExports(LedgerFolder):
    """The exports of one segment that one run asked for.

    :param root: folder of all ledgers.
    :param base_url: the workspace's REST endpoint.
    """

    def __init__(self, root: Path, base_url: str, segment_id: str, run_id: str) -> None:
        self.name = f"{segment_folder(base_url, segment_id)}/exports/{_digest(run_id)}"
        super().__init__(root / self.name, way_on="remove the folder: the export is made again.")

    def under_way(self) -> Export | None:
        """Return the export that was asked for and not read yet, however long ago that was.

        :raises LedgerDamagedError: an entry is missing or cannot be read.
        """
        return read_export(self)

    def started(self, export: Export) -> None:
        """Write down that Braze took the request.

        :raises PlaceLostError: another attempt of this run wrote first.
        """
        self._append(export.number, {"kind": STARTED, **asdict(export)})

    def ended(self, export: Export, how: str) -> None:
        """Write down that the export is of no more use.

        :param how: ``read``, or what was wrong with it.
        :raises PlaceLostError: another attempt of this run wrote first.
        """
        # An entry that is the same as another attempt's would be taken for that one's.
        self._append(export.number + 1, {"kind": ENDED, "how": how, "id": uuid4().hex})

    @contextmanager
    def reading(self, export: Export) -> Iterator[None]:
        """Read an export's files: it is of no more use afterwards, nor where it turns out to be unusable.

        Where something else goes wrong, a retry reads it again.

        :raises ExportLateError: it is gone; a retry makes a new export.
        """
        try:
            yield
        except ExportGoneError:
            self.ended(export, "expired")
            raise ExportLateError(
                f"The export of segment {export.segment_id} was there, and was gone before it was read: its "
                "URL has expired, or its files were removed. Nothing was sent. The next try makes a new one."
            ) from None
        except PermanentError as error:
            self.ended(export, type(error).__name__)
            raise
        self.ended(export, "read")

    def next_number(self) -> int:
        """Return the number of the next entry."""
        return self.last_number() + 1

    def _append(self, number: int, entry: dict[str, Any]) -> None:
        try:
            self.take_place(number, entry)
        except FileExistsError:
            raise PlaceLostError(
                "Another attempt of this run is at work on the segment's export; this one stops. Nothing is "
                "to be done, unless that one fails."
            ) from None


def read_export(record: LedgerFolder) -> Export | None:
    """Return the newest export of a run's folder, if it is neither read nor given up.

    :raises LedgerDamagedError: an entry is missing or cannot be read.
    """
    number = record.last_number()
    if not number:
        return None
    entry = record.read(log_name(number))
    kind = entry.pop("kind", None)
    if kind == ENDED:
        return None
    with suppress(TypeError):
        if kind == STARTED:
            return Export(**entry)
    raise record.damaged(f"{log_name(number)} is of a form that this version does not know")


def export_folder(root: Path, name: str) -> LedgerFolder:
    """Return a run's folder by its name, for somebody who only looks."""
    return LedgerFolder(root / name, way_on="clear the task.")


def segment_folder(base_url: str, segment_id: str) -> str:
    """Return the name of the folder in which all that is known of one segment is kept."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", segment_id)[:60]
    return f"segments/{readable}-{_digest(json.dumps([base_url, segment_id]))}"


class ReadyCheck:
    """Whether an export's files are all there; to be asked again and again.

    Behind a URL there is one archive, whole or not at all. In a bucket files come one by one, and nothing
    says which is the last: they count as complete once three looks in a row have found the same.

    :param bucket: folder in which Braze leaves exports, or None.
    :raises ConfigurationError: Braze gave no URL, and no bucket is known.
    """

    def __init__(self, export: Export, bucket: Path | None) -> None:
        if export.url is None and bucket is None:
            raise ConfigurationError(
                "Braze writes this export to your own bucket, since your workspace has storage credentials: "
                "give bucket= in the DAG, the place that Braze writes to, for example "
                'bucket="s3://aws_default@my-bucket". The export goes on; clear the task to read it.'
            )
        self._export = export
        self._bucket = bucket
        self._seen: list[tuple[str, int]] = []
        self._looks = 0

    def is_ready(self, reads: BrazeReads) -> bool:
        """Look once.

        :raises HeapBrazeError: as :meth:`BrazeReads.is_ready`.
        """
        if self._export.url is not None:
            return reads.is_ready(self._export.url)
        seen = [(str(path), path.stat().st_size) for path in bucket_files(self._export, self._bucket)]
        self._looks = self._looks + 1 if seen == self._seen else 1
        self._seen = seen
        return bool(seen) and self._looks >= SAME_LOOKS

    def waits(self, poll_interval: float) -> Iterator[float]:
        """Give the seconds from each look to the next.

        An archive behind a URL is often there after seconds: looks begin close together. In a bucket they
        must not, since three of them have to tell that nothing comes any more.
        """
        seconds = FIRST_WAIT if self._export.url is not None else poll_interval
        while True:
            yield min(seconds, poll_interval)
            seconds *= 2

    def is_anything_there(self, reads: BrazeReads) -> bool:
        """Tell whether the export has begun to come.

        :raises HeapBrazeError: as :meth:`BrazeReads.is_ready`.
        """
        if self._export.url is not None:
            return reads.is_ready(self._export.url)
        return bool(bucket_files(self._export, self._bucket))


def bucket_files(export: Export, bucket: Any) -> Sequence[Any]:
    """Return the files of an export in a bucket, in the order of their names.

    They lie under ``segment-export/<segment id>/<day>/<object prefix>/``; the day is that of the export's
    end, which may be a later one than that of its start.
    """
    folder = bucket / "segment-export" / export.segment_id
    # Years of exports may lie there; the day before is for a clock in another time zone.
    first = (datetime.fromtimestamp(export.started_at, UTC) - timedelta(days=1)).date().isoformat()
    days = [day for day in _listed(folder) if day.name >= first]
    files = [path for day in days for path in _listed(day / export.object_prefix) if path.is_file()]
    return sorted(files, key=str)


def _listed(folder: Any) -> list[Any]:
    storage.refresh(folder)
    try:
        return [path for path in folder.iterdir() if not path.name.startswith((".", "_"))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
