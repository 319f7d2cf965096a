"""What stops the reading of a pushed segment, beside what every source raises.

::

    PermanentError
    └── UnusablePageError      a landed webhook cannot be understood
    TransientError
    └── IncompleteSyncError    pages of a sync have not arrived
"""

from __future__ import annotations

from airflow_provider_heapbraze.clients.errors import PermanentError, TransientError


class UnusablePageError(PermanentError):
    """A landed webhook is none that this version understands; nothing of it was guessed."""


class IncompleteSyncError(TransientError):
    """Not all pages of a sync have landed; they may still come."""
