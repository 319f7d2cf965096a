"""The ids of events that Heap has, for some days back, by the hour of the event.

The same event has the same id and the same time in every file. So only ids of one hour are compared, and
eight bytes of a hash tell them apart: in an hour of a million events, one in 18 million million is taken for
another. An hour is a sorted list, written as differences: under six bytes an event.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.events.keys import contains, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_heapbraze.events.keys import Keys

HOURS_IN_MEMORY = 12
# Times that are wrong must neither move the window nor pile up.
EARLY_HOURS = 24
MOST_EARLY_HOURS = 72


def id_key(event_id: str) -> int:
    """Return the number that stands for an event's id."""
    digest = hashlib.blake2b(event_id.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class SeenIds:
    """The ids of a window of hours; those of an hour are read when one of its events comes.

    :param files: of the hours, by hour since 1970.
    :param read: reads such a file.
    :param window: hours.
    :param present: the present hour; what claims to be of much later does not move the window.
    """

    def __init__(
        self, files: Mapping[int, str], read: Callable[[str], Keys[int]], *, window: int, present: int
    ) -> None:
        self.files = dict(files)
        self._read = read
        self._window = window
        self._latest = present + EARLY_HOURS
        self._newest = max((hour for hour in files if hour <= self._latest), default=0)
        self._loaded: OrderedDict[int, Keys[int]] = OrderedDict()
        self._fresh: dict[int, set[int]] = {}

    def __contains__(self, event: tuple[int, int]) -> bool:
        """Tell whether an event, by its hour and its key, is known."""
        hour, key = event
        return key in self._fresh.get(hour, ()) or contains(self._hour(hour), key)

    def add(self, hour: int, key: int) -> None:
        """Note an event that Heap has."""
        if hour <= self._latest:
            self._newest = max(self._newest, hour)
        self._fresh.setdefault(hour, set()).add(key)

    def save(self, write: Callable[[Keys[int]], str]) -> None:
        """Write the hours that changed, and forget those that the window has left.

        :param write: writes an hour's keys; returns the file's name.
        """
        first = self._newest - self._window
        for hour, keys in self._fresh.items():
            if hour > first:
                self.files[hour] = write(merged(self._hour(hour), keys))
            self._loaded.pop(hour, None)
        self._fresh = {}
        early = sorted(hour for hour in self.files if hour > self._latest)
        forgotten = set(early[MOST_EARLY_HOURS:])
        self.files = {
            hour: name for hour, name in self.files.items() if hour > first and hour not in forgotten
        }

    def _hour(self, hour: int) -> Keys[int]:
        if hour not in self._loaded:
            self._loaded[hour] = self._read(self.files[hour]) if hour in self.files else array("q")
            if len(self._loaded) > HOURS_IN_MEMORY:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(hour)
        return self._loaded[hour]
