"""What goes wrong on order: a table of faults, and the seeded plan that deals them out."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.sandbox.exchange import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_heapbraze.sandbox.models import EndpointName, FaultKind, Faults, NextFault


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    :param statuses: the answer's status is one of these; none cuts the connection.
    :param applies: whether the request takes effect all the same.
    :param headers: from the number of seconds to wait.
    """

    statuses: tuple[int, ...] = ()
    applies: bool = False
    headers: Callable[[float], dict[str, str]] = lambda _: {}
    body: Any = None


def _whole(seconds: float) -> str:
    return str(math.ceil(seconds))


def _later(seconds: float) -> int:
    return math.ceil(time.time() + seconds)


_WAIT = {"message": "Rate limit exceeded"}
_FAILED = {"message": "Internal server error"}
_ERRORS = {"message": "success", "errors": [{"type": "<unknown>"}]}
_NO_JSON = b"<html><body>OK</body></html>"
_5XX = (500, 502, 503, 504)

FAULTS: dict[FaultKind, Fault] = {
    "429-retry-after-seconds": Fault((429,), headers=lambda s: {"Retry-After": _whole(s)}, body=_WAIT),
    "429-retry-after-date": Fault(
        (429,), headers=lambda s: {"Retry-After": formatdate(_later(s), usegmt=True)}, body=_WAIT
    ),
    "429-reset-epoch": Fault(
        (429,),
        headers=lambda s: {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(_later(s))},
        body=_WAIT,
    ),
    "429-reset-delta": Fault(
        (429,), headers=lambda s: {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": _whole(s)}, body=_WAIT
    ),
    "429-ratelimit-retry-after": Fault(
        (429,), headers=lambda s: {"X-Ratelimit-Retry-After": _whole(s)}, body=_WAIT
    ),
    "429-bare": Fault((429,), body=_WAIT),
    "423": Fault((423,), body={"message": "Resource locked"}),
    "5xx-before": Fault(_5XX, body=_FAILED),
    "5xx-after": Fault(_5XX, applies=True, body=_FAILED),
    "cut-before": Fault(),
    "cut-after": Fault(applies=True),
    "errors-before": Fault((201,), body=_ERRORS),
    "errors-after": Fault((201,), applies=True, body=_ERRORS),
    "unclear-before": Fault((201,), body=_NO_JSON),
    "unclear-after": Fault((201,), applies=True, body=_NO_JSON),
    "message-before": Fault((201,), body={"message": "not processed"}),
}


@dataclass(frozen=True)
class Trouble:
    """What one request meets.

    :param delay: seconds until the answer.
    :param name: of the fault, for the log; None where there is none.
    :param reply: the answer in place of the endpoint's own.
    """

    delay: float = 0.0
    name: str | None = None
    reply: Reply | None = None
    applies: bool = False


@dataclass
class _Pending:
    fault: NextFault
    left: int


class FaultPlan:
    """Deals faults out, the same ones whenever the same requests come in the same order."""

    def __init__(self, faults: Faults) -> None:
        self.poison = faults.poison
        self._faults = faults
        self._random = random.Random(faults.seed)
        self._pending = [_Pending(fault, fault.count) for fault in faults.next]

    def meet(self, endpoint: EndpointName, *, overlap: bool) -> Trouble:
        """Say what the next request of an endpoint meets."""
        delay, kind = self._draw(endpoint)
        exact = self._take_pending(endpoint)
        if exact is not None and exact.kind is None:
            reply = Reply(exact.status, exact.body, exact.headers)
            return Trouble(delay, f"next-{exact.status}", reply, applies=exact.applied)
        if exact is not None:
            kind = exact.kind
        elif overlap and self._faults.lock_overlapping:
            kind = "423"
        return self._trouble(delay, kind) if kind else Trouble(delay)

    def _draw(self, endpoint: EndpointName) -> tuple[float, FaultKind | None]:
        faults = self._faults
        if faults.endpoints is not None and endpoint not in faults.endpoints:
            return 0.0, None
        # Two draws for every request, used or not: what it meets depends only on its place in the order.
        slow, at = self._random.random() < faults.slow_share, self._random.random()
        delay = faults.latency + (faults.slow_seconds if slow else 0.0)
        for kind, rate in faults.rates.items():
            if at < rate:
                return delay, kind
            at -= rate
        return delay, None

    def _take_pending(self, endpoint: EndpointName) -> NextFault | None:
        for pending in self._pending:
            if pending.left and pending.fault.endpoint in (None, endpoint):
                pending.left -= 1
                return pending.fault
        return None

    def _trouble(self, delay: float, kind: FaultKind) -> Trouble:
        fault = FAULTS[kind]
        status = self._random.choice(fault.statuses) if fault.statuses else None
        return Trouble(
            delay, kind, Reply(status, fault.body, fault.headers(self._faults.wait)), fault.applies
        )
