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
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_heapbraze.clients.errors import (
    ConfigurationError,
    DownloadTooLargeError,
    ExportGoneError,
    PermanentError,
    TransientError,
)
from airflow_provider_heapbraze.ledger_folder import LedgerFolder, PlaceLostError, log_name
from airflow_provider_heapbraze.segments.archives import UnusableExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

STARTED, ENDED = "started", "ended"
# A URL is valid for a few hours; files in a bucket stay, but what they say grows old.
ADOPTED_WITHIN = 12 * 3600.0
# What says that the files are at fault; a line that is no JSON is a ConfigurationError.
UNUSABLE = (UnusableExportError, DownloadTooLargeError, ConfigurationError)


class ExportLateError(TransientError):
    """Braze has not made the export in time, or it is gone; a later try may have one."""


@dataclass(frozen=True)
class Export:
    """An export that Braze was asked for; the repr shows no URL.

    :param number: its entry in the run's log.
    :param url: where Braze leaves the archive; None where it writes to the customer's bucket.
    :param fields: of each user that it brings.
    :param until: UTC epoch seconds after which it is late.
    """

    number: int
    segment_id: str
    fields: list[str]
    object_prefix: str
    url: str | None = field(repr=False)
    started_at: float
    until: float

    @property
    def started(self) -> str:
        """Return when Braze was asked for it, ISO 8601, UTC."""
        return datetime.fromtimestamp(self.started_at, UTC).isoformat(timespec="seconds")


class RunExports(LedgerFolder):
    """The exports of one segment that one run asked for.

    :param root: folder of all ledgers.
    :param base_url: the workspace's REST endpoint.
    """

    def __init__(self, root: Path, base_url: str, segment_id: str, run_id: str) -> None:
        self.name = f"{segment_folder(base_url, segment_id)}/exports/{_digest(run_id)}"
        super().__init__(root / self.name, way_on="remove the folder: the export is made again.")

    def under_way(self, fields: Sequence[str], now: float) -> Export | None:
        """Return the export that was asked for and not read yet, if it is still of use.

        :param fields: what it has to bring.
        :param now: UTC epoch seconds.
        :raises LedgerDamagedError: an entry is missing or cannot be read.
        """
        export = read_export(self)
        if export is None or set(export.fields) != set(fields):
            return None
        return export if now < max(export.until, export.started_at + ADOPTED_WITHIN) else None

    def started(self, export: Export) -> None:
        """Write down that Braze took the request.

        :raises PlaceLostError: another attempt of this run wrote first.
        """
        try:
            self.take_place(export.number, {"kind": STARTED, **asdict(export)})
        except FileExistsError:
            raise _place_lost() from None

    def ended(self, export: Export, how: str) -> None:
        """Write down that the export is of no more use; another attempt of this run may have said so already.

        :param how: ``read``, or what was wrong with it.
        :raises PlaceLostError: another attempt has asked for another export.
        """
        try:
            # An entry that is the same as another attempt's would be taken for that one's.
            self.take_place(export.number + 1, {"kind": ENDED, "how": how, "id": uuid4().hex})
        except FileExistsError:
            if self.read(log_name(export.number + 1)).get("kind") != ENDED:
                raise _place_lost() from None

    @contextmanager
    def looking(self, export: Export) -> Iterator[None]:
        """Look whether an export's files are there: it is of no more use where they are refused.

        :raises PermanentError: as it came; a cleared task makes a new export.
        """
        try:
            yield
        except PermanentError as error:
            self.ended(export, type(error).__name__)
            raise

    @contextmanager
    def reading(self, export: Export) -> Iterator[None]:
        """Read an export's files: it is of no more use afterwards, nor where they turn out to be unusable.

        Where something else goes wrong, a key that may not do something too, a retry reads them again.

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
        except UNUSABLE as error:
            self.ended(export, type(error).__name__)
            raise
        self.ended(export, "read")

    def next_number(self) -> int:
        """Return the number of the next entry."""
        return self.last_number() + 1


def _place_lost() -> PlaceLostError:
    return PlaceLostError(
        "Another attempt of this run is at work on the segment's export; this one stops. Nothing is to be "
        "done, unless that one fails."
    )


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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
