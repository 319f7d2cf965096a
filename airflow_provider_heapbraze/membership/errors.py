"""What stops a membership run, beside what the clients and the ledger raise.

::

    PermanentError
    ├── GuardBreachedError    a guard stopped the plan before anything was sent
    └── StalePlanError        the target moved on since the plan was made
    TransientError
    └── PruningUnfinishedError  old tables could not be dropped
"""

from __future__ import annotations

from airflow_provider_heapbraze.clients.errors import PermanentError, TransientError


class GuardBreachedError(PermanentError):
    """A guard stopped the plan; nothing was sent.

    :param guard: the parameter of ``Guards``; the first one where there are several.
    """

    def __init__(self, message: str, *, guard: str) -> None:
        super().__init__(message)
        self.guard = guard

    @property
    def section(self) -> str:
        """Return the anchor of what the runbook says about the guard."""
        return self.guard


class StalePlanError(PermanentError):
    """The target has moved on since the plan was made; it may no longer be applied."""


class PruningUnfinishedError(TransientError):
    """Old tables could not be dropped from a warehouse; all else that is old was removed."""
