"""How much a source holds, and how long it takes at Heap's limit, without reading all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyroaring import BitMap

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.events.errors import FileSetAsideError
from airflow_provider_heapbraze.events.reading import read_events
from airflow_provider_heapbraze.events.sources import find_files

if TYPE_CHECKING:
    from airflow_provider_heapbraze.events.sources import HourRange, SourceFile

SAMPLE = 20
MINUTE, HOUR_MINUTES = 60, 60


@dataclass(frozen=True)
class Estimate:
    """What a source holds.

    :param events: from the size of all files, and from the events in a few of them.
    :param seconds: at the limit.
    """

    files: int
    size: int
    events: int
    seconds: float

    def __str__(self) -> str:
        """Say it as people do: ``about 10.2 M events in 412 files, 11 h 20 min at Heap's limit``."""
        held = f"about {_count(self.events)} events in {self.files:,} file{'' if self.files == 1 else 's'}"
        return f"{held}, {_duration(self.seconds)} at Heap's limit"


def estimate(source: Any, hours: HourRange | None, *, events_per_second: float) -> Estimate:
    """Count the files of a source, and the events of a few of them.

    :param hours: only files of these hours, and those that tell none.
    :raises ConfigurationError: there is no such source.
    """
    files = size = 0
    sample = _Sample()
    for file in find_files(source):
        if hours is None or file.hour is None or file.hour in hours:
            files, size = files + 1, size + file.size
            sample.offer(file)
    events = sample.events_in(size)
    return Estimate(files, size, events, events / events_per_second)


class _Sample:
    """A few files, evenly spread over all of them, however many there are."""

    def __init__(self) -> None:
        self._files: list[SourceFile] = []
        self._step = 1
        self._offered = 0

    def offer(self, file: SourceFile) -> None:
        if self._offered % self._step == 0:
            self._files.append(file)
        self._offered += 1
        if len(self._files) == 2 * SAMPLE:
            self._files = self._files[::2]
            self._step *= 2

    def events_in(self, size: int) -> int:
        """Extend the events of the sample to files of so many bytes."""
        chosen = self._files[:: -(-len(self._files) // SAMPLE) or 1]
        sampled = sum(file.size for file in chosen)
        events = sum(map(_events_in, chosen))
        return round(events * size / sampled) if sampled else 0


def _events_in(file: SourceFile) -> int:
    try:
        with storage.local_copy(file.path) as local:
            return sum(1 for _ in read_events(local, "", BitMap()))
    except FileSetAsideError as error:
        return error.rows
    except FileNotFoundError:
        return 0


def _count(number: int) -> str:
    for unit, name in ((1_000_000_000, " G"), (1_000_000, " M")):
        if number >= unit:
            return f"{number / unit:.1f}{name}"
    return f"{number:,}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / MINUTE)
    if minutes < 1:
        return f"{round(seconds)} s"
    if minutes < HOUR_MINUTES:
        return f"{minutes} min"
    return f"{minutes // HOUR_MINUTES:,} h {minutes % HOUR_MINUTES} min"
