"""Times that a DAG's author gives, also where a template made texts of them.

Beside the layers, like :mod:`.storage`: whoever takes a time reads it the same way.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from airflow_provider_heapbraze.clients.errors import ConfigurationError


def moment(value: Any, name: str) -> datetime | None:
    """Return a time in UTC, which also counts where it says no offset; None where a template made nothing.

    :param value: a time, or its text as ISO 8601.
    :param name: of the argument.
    :raises ConfigurationError: it is no time, or one that UTC does not reach.
    """
    if value is None or str(value).strip() in {"", "None"}:
        return None
    with suppress(ValueError, OverflowError):
        given = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    raise ConfigurationError(
        f"{name} must be a time like 2026-01-31 or 2026-01-31T10:00:00+00:00. Nothing was sent."
    )
