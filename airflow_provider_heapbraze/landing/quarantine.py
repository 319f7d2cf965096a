"""What one of our senders sent and nobody understands: kept as it came, where nothing reads it.

Asked to send it again, the sender would only say the same again; and Braze gives a connector up after five
days of that. So it is taken, and left to a person::

    <path>/quarantine/heap/<hash of the body>.body
    <path>/quarantine/braze/<source>/<hash of the body>.body
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.landing.answers import QUARANTINE_FULL, RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.landing.store import Store

FOLDER = "quarantine"
MOST_BYTES = 1 << 30  # in a folder: a sender that is misunderstood for weeks must not fill the disk


class Quarantine:
    """The folder of one landing path.

    :param path: of all that has landed.
    :param store: the one that it is in.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self._path = path
        self._store = store

    def keep(self, stream: tuple[str, ...], body: bytes) -> None:
        """Write a body; return when it is durable. One that comes again is the same file.

        :param stream: names of folders.
        :raises RefusedError: there is too much already.
        :raises Exception: whatever the disk or the store's client raises.
        """
        folder, name = (FOLDER, *stream), name_of(body)
        others = sum(size for path, size in storage.listed(self._path.joinpath(*folder)) if path.name != name)
        if others + len(body) > MOST_BYTES:
            raise RefusedError(QUARANTINE_FULL)
        self._store.write(folder, name, body)


def name_of(body: bytes) -> str:
    """Return the name of a body's file."""
    return f"{hashlib.sha256(body).hexdigest()[:32]}.body"
