"""What one of our senders sent and nobody understands: kept as it came, where nothing reads it.

Asked to send it again, the sender would only say the same again; and Braze gives a connector up after five
days of that. So it is taken, and left to a person::

    <path>/quarantine/heap/<hash of the body>.body
    <path>/quarantine/braze/<source>/<hash of the body>.body

A folder that is full takes no more: from then on its sender is asked to come again.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.landing.answers import RefusedError, quarantine_full

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.landing.store import Store

FOLDER = "quarantine"
# In a folder: a sender that is misunderstood for weeks must not fill the disk, nor use up its inodes.
MOST_BYTES = 1 << 30
MOST_FILES = 10_000
LOOK_SECONDS = 10.0  # how long a listing is good for: persons move files away, and other processes write some


@dataclass
class _Folder:
    """What a folder holds: the size of each file by its name; and until when that is not looked up again."""

    sizes: dict[str, int]
    good_until: float


class Quarantine:
    """The folder of one landing path; safe to share between threads.

    :param path: of all that has landed.
    :param store: the one that it is in.
    :param clock: time, handed in.
    """

    def __init__(self, path: Path, store: Store, clock: Clock) -> None:
        self._path = path
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._folders: dict[tuple[str, ...], _Folder] = {}

    def keep(self, stream: tuple[str, ...], body: bytes) -> None:
        """Write a body; return when it is durable. One that comes again is the same file.

        :param stream: names of folders.
        :raises RefusedError: there is too much already.
        :raises Exception: whatever the disk or the store's client raises.
        """
        name = name_of(body)
        with self._lock:
            sizes = self._sizes(stream)
            is_new = name not in sizes
            if is_new:
                _check_room(stream, sizes, len(body))
                sizes[name] = len(body)
        try:
            self._store.write((FOLDER, *stream), name, body)
        except BaseException:
            if is_new:
                with self._lock:
                    sizes.pop(name, None)
            raise

    def _sizes(self, stream: tuple[str, ...]) -> dict[str, int]:
        """Return the size of each file of a folder, as it was looked up a moment ago."""
        found = self._folders.get(stream)
        if found is None or self._clock.monotonic() >= found.good_until:
            files = storage.listed(self._path.joinpath(FOLDER, *stream))
            sizes = {path.name: size for path, size in files}
            found = self._folders[stream] = _Folder(sizes, self._clock.monotonic() + LOOK_SECONDS)
        return found.sizes


def _check_room(stream: tuple[str, ...], sizes: dict[str, int], size: int) -> None:
    """Refuse a body for which there is no room; what is said does not name the source.

    :raises RefusedError: there is none.
    """
    held = sum(sizes.values())
    if len(sizes) < MOST_FILES and held + size <= MOST_BYTES:
        return
    most = f"{MOST_BYTES:,} bytes" if len(sizes) < MOST_FILES else f"{MOST_FILES:,} files"
    there = f"{len(sizes):,} files of {held:,} bytes"
    raise RefusedError(quarantine_full(size, f"{FOLDER}/{stream[0]}", there, most))


def name_of(body: bytes) -> str:
    """Return the name of a body's file."""
    return f"{hashlib.sha256(body).hexdigest()[:32]}.body"
