"""What stops a membership run, beside what the clients raise.

::

    PermanentError
    ├── GuardBreachedError    a guard stopped the plan before anything was sent
    ├── PlaceLostError        another run took this target over
    ├── StalePlanError        the target moved on since the plan was made
    ├── LedgerDamagedError    the ledger does not hold what it says
    └── UnbalancedError       rows are unaccounted for
"""

from __future__ import annotations

from airflow_provider_heapbraze.clients.errors import PermanentError


class GuardBreachedError(PermanentError):
    """A guard stopped the plan; nothing was sent."""


class PlaceLostError(PermanentError):
    """Another run took this target over; this one stops before its next batch."""


class StalePlanError(PermanentError):
    """The target has moved on since the plan was made; it may no longer be applied."""


class LedgerDamagedError(PermanentError):
    """The ledger does not hold what its log says; nothing may be sent on its word."""


class UnbalancedError(PermanentError):
    """The numbers of a report do not add up: rows are unaccounted for."""
