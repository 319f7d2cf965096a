"""What stops an event export, beside what the clients and the ledger raise.

::

    HeapBrazeError
    ├── FileSetAsideError     a file cannot be read, or not to its end; the export goes on without it
    └── PermanentError
        └── BadFilesError     more files were set aside than allowed; everything else was delivered
"""

from __future__ import annotations

from airflow_provider_heapbraze.clients.errors import HeapBrazeError, PermanentError


class FileSetAsideError(HeapBrazeError):
    """A file cannot be read, or not to its end. The message is a reason: what is wrong with it.

    :param rows: events that could be read all the same.
    """

    def __init__(self, reason: str, *, rows: int = 0) -> None:
        super().__init__(reason)
        self.rows = rows


class BadFilesError(PermanentError):
    """More files were set aside than allowed; everything else was delivered and committed."""
