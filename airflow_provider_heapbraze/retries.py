"""A retry policy for Airflow 3.3 and later: what failed decides whether, and when, a task is tried again.

For every task of a DAG::

    default_args={"retries": 4, "retry_policy": HeapBrazeRetryPolicy()}

Below Airflow 3.3 there are no retry policies. There the class can be imported and made all the same, and
Airflow passes over it in ``default_args``: one DAG file fits both. This package's operators stop the retries
of a permanent error by themselves on every version; the wait is then the task's ``retry_delay``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import PermanentError, TransientError, own_error

if TYPE_CHECKING:
    from airflow.sdk import Context, RetryDecision, RetryPolicy
else:
    try:
        from airflow.sdk import RetryDecision, RetryPolicy
    except ImportError:  # Airflow before 3.3: nobody asks a policy
        RetryPolicy = object

# A wait that ends at once would only meet the same limit again.
SHORTEST = timedelta(seconds=1)


class HeapBrazeRetryPolicy(RetryPolicy):
    """Fail at once where a retry cannot help; wait as long as the other side asked; else ever longer.

    - A permanent error, such as a refused key or a wrong setting, fails the task now.
    - An error for which Braze or Heap said how long to wait is tried again after that time.
    - Every other error is tried again after ``first``, then twice that, and so on up to ``longest``.

    The task's ``retries`` stays the limit. It serves this package's operators, and tasks of your own that
    call its hooks.

    :param first: wait after the first failure, where nobody said how long.
    :param longest: such a wait at most.
    """

    def __init__(
        self, *, first: timedelta = timedelta(minutes=1), longest: timedelta = timedelta(minutes=30)
    ) -> None:
        self.first = first
        self.longest = longest

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,  # noqa: ARG002 - Airflow counts the tries itself
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide what becomes of a task that failed; called by Airflow."""
        error = own_error(exception)
        kind = type(error or exception).__name__
        if isinstance(error, PermanentError):
            return RetryDecision.fail(reason=f"{kind}: the same would fail again.")
        if isinstance(error, TransientError) and error.retry_after is not None:
            told = max(timedelta(seconds=error.retry_after), SHORTEST)
            return RetryDecision.retry(told, reason=f"{kind}: the other side asked for this wait.")
        return RetryDecision.retry(
            self._backoff(try_number), reason=f"{kind}: a later try may pass; each wait is twice the last."
        )

    def _backoff(self, try_number: int) -> timedelta:
        # Doubled in steps: a power of a large number of tries would be no timedelta any more.
        wait = self.first
        for _ in range(1, try_number):
            if wait >= self.longest:
                break
            wait *= 2
        return min(wait, self.longest)
