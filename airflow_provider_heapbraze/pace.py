"""How far a long run is: a line in the log every ten seconds, and the same numbers for whoever shows them.

Beside the layers, like :mod:`.storage`: both engines tell it the same way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

# A run that ends sooner says nothing.
SECONDS_BETWEEN = 10.0
# The pace is that of the last minute.
SPAN = 60.0
# How long the end of a run waits for its last numbers to be shown.
END_SECONDS = 5.0
NOT_SHOWN = "The progress cannot be shown; it goes on in the log."
MINUTE, HOUR = 60, 3600


class Pace:
    """Tells how far one run is; used by one thread.

    :param what: what is counted, in the plural.
    :param total: how many there are; None where that is not known.
    :param done: how many were settled before.
    :param show: given the numbers each time: ``done``, ``per_second``, and with a total ``total``, ``share``
        and ``seconds_left``. It is called in a thread of its own, and may be slow or fail: the run goes on.
    :param monotonic: seconds on a clock that only runs forward.
    """

    def __init__(
        self,
        what: str,
        *,
        total: int | None = None,
        done: int = 0,
        show: Callable[[dict[str, Any]], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._total = total
        self._showing = None if show is None else _Showing(show)
        self._monotonic = monotonic
        self._moments = deque([(monotonic(), done)])

    def at(self, done: int, **more: int) -> None:
        """Tell how many are settled by now, where it is time to.

        :param more: other counts, by what they are.
        """
        if self._monotonic() - self._moments[-1][0] >= SECONDS_BETWEEN:
            numbers = self._numbers(done) | more
            log.info("%s", self._line(numbers, more))
            if self._showing is not None:
                self._showing.hand_over(numbers)

    def end(self, done: int, **more: int) -> None:
        """Show the last numbers, where any were shown: else the run would look as if it hung."""
        if self._showing is not None and len(self._moments) > 1:
            self._showing.hand_over(self._numbers(done) | more)
            self._showing.wait(END_SECONDS)

    def _numbers(self, done: int) -> dict[str, Any]:
        now = self._monotonic()
        while len(self._moments) > 1 and now - self._moments[1][0] >= SPAN:
            self._moments.popleft()
        since, before = self._moments[0]
        self._moments.append((now, done))
        per_second = (done - before) / (now - since) if now > since else 0.0
        numbers: dict[str, Any] = {"done": done, "per_second": round(per_second, 1)}
        if self._total:
            left = self._total - done
            numbers |= {
                "total": self._total,
                "share": round(done / self._total, 4),
                "seconds_left": round(left / per_second) if per_second else None,
            }
        return numbers

    def _line(self, numbers: dict[str, Any], more: dict[str, int]) -> str:
        of_total = f" of {self._total:,}" if self._total else ""
        share = f" ({numbers['share']:.1%})" if self._total else ""
        parts = "".join(f", {count:,} of them {name}" for name, count in more.items())
        left = f"; {_left(numbers['seconds_left'])}" if self._total else ""
        rate = f"{numbers['per_second']:,.0f} a second"
        return f"{numbers['done']:,}{of_total} {self._what} are settled{share}{parts}: {rate}{left}."


class _Showing:
    """Shows the newest numbers in a thread of its own: whoever records what was settled waits for nobody.

    There is such a thread only while there is something to show: a run that breaks off leaves none behind.

    :param show: given the numbers. Where it fails, it is not asked again.
    """

    def __init__(self, show: Callable[[dict[str, Any]], None]) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._newest: dict[str, Any] | None = None
        self._thread: threading.Thread | None = None
        self._failed = False

    def hand_over(self, numbers: dict[str, Any]) -> None:
        """Have numbers shown soon, in the place of those that wait."""
        with self._lock:
            self._newest = numbers
            if self._thread is not None or self._failed:
                return
            # What shows them finds what is known of the task, as in the run's own thread.
            work = copy_context().run
            self._thread = threading.Thread(target=work, args=(self._work,), name="progress", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # there are too many threads
                self._failed = True
                log.warning(NOT_SHOWN, exc_info=True)

    def wait(self, seconds: float) -> None:
        """Wait until all is shown, but no longer than this."""
        with self._lock:
            thread = None if self._failed else self._thread
        if thread is not None:
            thread.join(seconds)

    def _work(self) -> None:
        while (numbers := self._taken()) is not None:
            try:
                self._show(numbers)
            except Exception:  # whoever shows it is not who delivers
                self._failed = True
                log.warning(NOT_SHOWN, exc_info=True)
                return

    def _taken(self) -> dict[str, Any] | None:
        with self._lock:
            numbers, self._newest = self._newest, None
            if numbers is None:
                self._thread = None
            return numbers


def _left(seconds: int | None) -> str:
    if seconds is None:
        return "nobody knows how long it takes"
    if seconds < MINUTE:
        return f"about {seconds} s left"
    if seconds < HOUR:
        return f"about {seconds / MINUTE:.0f} min left"
    return f"about {seconds / HOUR:.1f} h left"
