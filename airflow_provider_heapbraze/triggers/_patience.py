"""Looks that outlast trouble: a wait of hours must not end because storage is away for a minute."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asgiref.sync import sync_to_async

from airflow_provider_heapbraze.clients.errors import HeapBrazeError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

log = logging.getLogger(__name__)


class PatientLook(Generic[T]):
    """Looks, in a thread: storage and HTTP block. Connections are asked for in the triggerer's own loop.

    :param look: what to call.
    :param what: what it looks for, as the log calls it.
    """

    def __init__(self, look: Callable[..., T], what: str) -> None:
        self._look = sync_to_async(look, thread_sensitive=False)
        self._what = what
        self._failures = 0

    async def __call__(self, *arguments: Any) -> T | None:
        """Look once; return None where that was not possible, but may be the next time.

        :raises HeapBrazeError: another look would meet the same.
        """
        try:
            found = await self._look(*arguments)
        except TransientError as error:
            self._warn(str(error))
        except HeapBrazeError:
            raise
        except Exception as error:  # noqa: BLE001 - every storage's client has its own, and they may quote keys
            self._warn(f"Storage answered with an error ({type(error).__name__}).")
        else:
            self._failures = 0
            return found
        return None

    def _warn(self, problem: str) -> None:
        self._failures += 1
        log.warning(
            "Looking for %s failed, %s times in a row so far: %s It is looked again.",
            self._what,
            self._failures,
            problem,
        )
