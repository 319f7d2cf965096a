"""What stops the reading of a pushed segment, beside what every source raises.

::

    PermanentError
    ├── UnusablePageError        a landed webhook cannot be understood
    ├── LostPagesError           pages went before they were folded
    └── FirstSyncMissingError    people were removed who had never been added
    TransientError
    └── IncompleteSyncError      pages of a sync, or the sync that sends everybody, have not arrived
"""

from __future__ import annotations

from airflow_provider_heapbraze.clients.errors import PermanentError, TransientError


class UnusablePageError(PermanentError):
    """A landed webhook is none that this version understands; nothing of it was guessed."""


class LostPagesError(PermanentError):
    """A failed run had seen pages that are gone now; nobody knows what they said."""


class FirstSyncMissingError(PermanentError):
    """What has landed does not begin with everybody: it removes people whom it never added."""


class IncompleteSyncError(TransientError):
    """Not all pages have landed that are needed to know who is in the segment; they may still come."""
