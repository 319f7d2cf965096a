"""How long the other side asks to wait, in every form that its headers take.

Braze documents ``X-RateLimit-Reset`` as UTC epoch seconds and some senders see seconds left; plans by
monthly active users get ``X-Ratelimit-Retry-After`` in seconds. ``Retry-After`` is not documented, and costs
nothing to read. Names come in any case.
"""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Every limit resets within the hour; a little more, because two clocks differ.
LONGEST_WAIT = 3700.0
# A number from here on (2001) is a time, a smaller one is a number of seconds.
FIRST_EPOCH = 1e9


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Read the wait that any answer may ask for.

    :param headers: names in any case.
    :param now: UTC epoch seconds.
    :returns: seconds from 0 to 3,700; None where no readable header says it.
    """
    lowered = lower_case(headers)
    asked = _seconds_or_date(lowered.get("retry-after", ""), now)
    return asked if asked is not None else _seconds(lowered.get("x-ratelimit-retry-after", ""))


def told_wait(headers: Mapping[str, str], *, now: float) -> float | None:
    """Read the wait of an answer that says too many requests (429): if nothing else, until the limit resets.

    :param headers: names in any case.
    :param now: UTC epoch seconds.
    :returns: seconds from 0 to 3,700; None where no readable header says it.
    """
    asked = retry_after(headers, now=now)
    return asked if asked is not None else seconds_to_reset(lower_case(headers), now=now)


def seconds_to_reset(headers: Mapping[str, str], *, now: float) -> float | None:
    """Read when the limit resets.

    :param headers: names in lower case.
    :param now: UTC epoch seconds.
    :returns: seconds from 0 to 3,700; None where the header is missing or garbage.
    """
    value = number(headers.get("x-ratelimit-reset", ""))
    if value is None:
        return None
    return _clamp(value - now if value >= FIRST_EPOCH else value)


def lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def number(text: str) -> float | None:
    """Read a finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _seconds(text: str) -> float | None:
    value = number(text)
    return None if value is None else _clamp(value)


def _seconds_or_date(text: str, now: float) -> float | None:
    seconds = _seconds(text)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
        return _clamp((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _clamp(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT)
