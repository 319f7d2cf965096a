"""What can go wrong, as types.

::

    HeapBrazeError
    ├── PermanentError              the same call fails again: no retry
    │   ├── ConfigurationError      bad input; nothing was changed
    │   ├── AuthenticationError     401: a key is wrong, or the instance is
    │   ├── PermissionDeniedError   403: the key may not do this
    │   ├── RequestRejectedError    400 and other 4xx: this body is refused
    │   │   └── PayloadTooLargeError    413: a smaller body may pass
    │   ├── ExportRunningError      429 of a segment export: the caller waits, not the call
    │   ├── ExportGoneError         403, 404 of an export's file: not ready, or expired
    │   └── DownloadTooLargeError   a file is larger than it may be
    └── TransientError              a later call may pass; ``retry_after`` says when
        ├── RateLimitedError        429
        ├── ResourceLockedError     423
        ├── ServerError             5xx
        ├── NoAnswerError           cut, refused or timed out: nobody knows whether it was applied
        ├── UnclearAnswerError      2xx that reports errors or cannot be understood
        ├── BudgetAwayError         the shared budget cannot be used: nothing was sent
        └── InterruptedCallError    the caller asked every wait to end; nothing was sent

Messages say what happened, what was kept and what to do next. They never hold an identifier, a key or a
body: Braze's 401 answers quote the secret that was sent.
"""

from __future__ import annotations

# The repository shows the page with the same anchors as the site of the documentation.
RUNBOOK = "https://github.com/heapbraze/airflow-provider-heapbraze/blob/main/docs/runbook.md"


class HeapBrazeError(Exception):
    """Everything that this package raises on purpose."""

    @property
    def section(self) -> str:
        """Return the anchor of what the runbook says about it."""
        return type(self).__name__.lower()


class PermanentError(HeapBrazeError):
    """The same call would fail again; whoever retries wastes time."""


class ConfigurationError(PermanentError):
    """A setting or an argument is wrong; nothing was changed."""


class AuthenticationError(PermanentError):
    """A key was refused (401); a wrong instance looks the same."""


class PermissionDeniedError(PermanentError):
    """The key is right but may not do this (403)."""


class RequestRejectedError(PermanentError):
    """The other side refuses this body (400 and other 4xx).

    :param status: HTTP status of the answer.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class PayloadTooLargeError(RequestRejectedError):
    """The body is too large (413); a smaller one may pass."""


class ExportRunningError(PermanentError):
    """An export of this segment is running, and Braze runs one at a time (429).

    It ends in minutes or hours: whoever started this call waits for that, and holds no worker in the call.
    """


class ExportGoneError(PermanentError):
    """An export's file is not ready yet, or its URL has expired (403, 404); the two look the same."""


class DownloadTooLargeError(PermanentError):
    """A file is larger than the caller said it may be; nothing of it was kept."""


class TransientError(HeapBrazeError):
    """A later try may pass.

    :param retry_after: seconds that the other side asked to wait, or None where it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(TransientError):
    """Too many requests (429)."""


class ResourceLockedError(TransientError):
    """The resource is locked by another request (423)."""


class ServerError(TransientError):
    """The other side failed (5xx); whether the request was applied is not known."""


class NoAnswerError(TransientError):
    """No answer came; whether the request was applied is not known."""


class UnclearAnswerError(TransientError):
    """A 2xx that reports errors or cannot be understood: not a success."""


class BudgetAwayError(TransientError):
    """What is sent is counted in a store that cannot be used now; without it nothing is sent."""


class InterruptedCallError(TransientError):
    """The caller asked every wait to end; this request was not sent again."""


def own_error(exception: BaseException | None) -> HeapBrazeError | None:
    """Return the error of this package that an exception was made from; operators raise Airflow's."""
    while exception is not None and not isinstance(exception, HeapBrazeError):
        exception = exception.__cause__
    return exception
