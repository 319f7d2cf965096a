"""Whether an export's files have arrived: behind a URL, or in the customer's bucket."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads
    from airflow_provider_heapbraze.segments.exports import Export

# Braze: "Generally, we will create 1 file per 5,000 users": none of them says that it is the last.
QUIET_SECONDS = 120.0
FIRST_WAIT = 1.0


class ReadyCheck:
    """Whether an export's files are all there; to be asked again and again.

    Behind a URL there is one archive, whole or not at all. In a bucket files come one by one, and nothing
    says which is the last: they count as complete once nothing has changed for two minutes.

    :param bucket: folder in which Braze leaves exports, or None.
    :param monotonic: seconds on a clock that only runs forward.
    :raises ConfigurationError: Braze gave no URL, and no bucket is known.
    """

    def __init__(
        self, export: Export, bucket: Path | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if export.url is None and bucket is None:
            raise ConfigurationError(
                "Braze writes this export to your own bucket, since your workspace has storage credentials: "
                "give bucket= in the DAG, the place that Braze writes to, for example "
                'bucket="s3://aws_default@my-bucket". The export goes on; clear the task to read it.'
            )
        self._export = export
        self._bucket = bucket
        self._monotonic = monotonic
        self._seen: list[tuple[str, int]] = []
        self._since = monotonic()

    def is_ready(self, reads: BrazeReads) -> bool:
        """Look once.

        :raises HeapBrazeError: as :meth:`BrazeReads.is_ready`.
        """
        if self._export.url is not None:
            return reads.is_ready(self._export.url)
        seen = [(str(path), size) for path, size in bucket_files(self._export, self._bucket)]
        if seen != self._seen:
            self._seen, self._since = seen, self._monotonic()
        return bool(seen) and self._monotonic() - self._since >= QUIET_SECONDS

    def waits(self, poll_interval: float) -> Iterator[float]:
        """Give the seconds from each look to the next: small segments are often exported after seconds."""
        seconds = FIRST_WAIT
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


def bucket_files(export: Export, bucket: Any) -> list[tuple[Any, int]]:
    """Return the files of an export in a bucket with their sizes, in the order of their names.

    They lie under ``segment-export/<segment id>/<day>/<object prefix>/``; the day is that of the export's
    end, which may be a later one than that of its start.
    """
    folder = bucket / "segment-export" / export.segment_id
    # Years of exports may lie there; the day before is for a clock in another time zone.
    first = (datetime.fromtimestamp(export.started_at, UTC) - timedelta(days=1)).date().isoformat()
    storage.refresh(folder)
    try:
        days = [day for day in folder.iterdir() if day.name >= first and _counts(day)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [
        entry for day in days for entry in storage.listed(day / export.object_prefix) if _counts(entry[0])
    ]
    return sorted(found, key=lambda entry: str(entry[0]))


def check_bucket(bucket: Any) -> None:
    """Make sure that a bucket is there, before an export is asked for that nobody would find.

    :raises ConfigurationError: it is not.
    """
    here = storage.local(bucket)
    # What is below a bucket need not be there yet: Braze makes it with its first export.
    there = here.exists() if here else bucket.fs.exists(bucket.path.strip("/").partition("/")[0])
    if not there:
        raise ConfigurationError(
            f"There is no bucket at {storage.uri(bucket)}. Nothing was sent. Look at bucket= in the DAG, "
            "and at the connection that it names."
        )


def _counts(path: Any) -> bool:
    return not path.name.startswith((".", "_"))
