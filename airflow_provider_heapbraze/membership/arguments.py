"""Limits that a DAG's author gives as numbers, also where a template made texts of them."""

from __future__ import annotations

import math
from typing import Any

from airflow_provider_heapbraze.clients.errors import ConfigurationError


def limit(value: Any, name: str) -> float | None:
    """Return a number of at least 0; None where nothing is given, which is no limit.

    :raises ConfigurationError: it is none.
    """
    if value is None or str(value).strip() in {"", "None"}:
        return None
    number = _number(value)
    if not number >= 0:
        raise ConfigurationError(f"{name} must be a number of at least 0. Nothing was sent.")
    return number


def share(value: Any, name: str) -> float:
    """Return a number from 0 to 1.

    :raises ConfigurationError: it is none.
    """
    number = _number(value)
    if not 0 <= number <= 1:
        raise ConfigurationError(f"{name} must be a share, from 0 to 1. Nothing was sent.")
    return number


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
