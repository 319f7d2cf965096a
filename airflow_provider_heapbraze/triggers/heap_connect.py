"""Look for new dumps of Heap Connect from the triggerer."""

from __future__ import annotations

import time
from asyncio import sleep
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.triggers._patience import PatientLook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_heapbraze.heap_connect.seen import Look

NEW_DUMP, NOTHING_NEW = "new dump", "nothing new"


class HeapConnectDumpTrigger(BaseTrigger):
    """Fires as soon as there is a dump that counts, or at its time; storage may be away meanwhile.

    :param path: location of the folder that holds ``manifests``.
    :param table: only a dump with this table counts; None: any.
    :param after: only dumps after this one count.
    :param poke_interval: seconds between two looks.
    :param until: UTC epoch seconds after which nobody looks any more.
    """

    def __init__(
        self, path: str, table: str | None, after: int, poke_interval: float, until: float, **_later: Any
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path = path
        self.table = table
        self.after = after
        self.poke_interval = poke_interval
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger anew, in another triggerer."""
        return (
            "airflow_provider_heapbraze.triggers.heap_connect.HeapConnectDumpTrigger",
            {
                "path": self.path,
                "table": self.table,
                "after": self.after,
                "poke_interval": self.poke_interval,
                "until": self.until,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is something new."""
        status, problem = NOTHING_NEW, None
        try:
            if await self._has_come():
                status = NEW_DUMP
        except HeapBrazeError as error:
            problem = str(error)
        # The task that goes on may have to wait again, no longer than this one.
        event = {"status": status, "problem": problem, "until": self.until}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _has_come(self) -> bool:
        look, after = PatientLook(look_for_dump, "dumps"), self.after
        while time.time() < self.until:
            seen = await look(self.path, self.table, after)
            if seen is not None:
                if seen.dump is not None:
                    return True
                after = seen.after
            await sleep(self.poke_interval)
        return False


def look_for_dump(path: str, table: str | None, after: int) -> Look:
    """Look for the newest dump that counts.

    :raises TransientError: a manifest that matters cannot be read.
    """
    from airflow_provider_heapbraze.heap_connect.seen import newest_dump
    from airflow_provider_heapbraze.locations import path_of

    return newest_dump(path_of(path), table, after)
