"""Look for new Currents files from the triggerer."""

from __future__ import annotations

import time
from asyncio import sleep
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.triggers._patience import PatientLook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEW_FILES, NOTHING_NEW = "new files", "nothing new"


class BrazeCurrentsTrigger(BaseTrigger):
    """Fires as soon as a source has files that are not exported to the end, or at its time.

    Storage may be away meanwhile.

    :param source: location of the files.
    :param ledger: location of the ledger.
    :param environment: a hash that names Heap's environment.
    :param poke_interval: seconds between two looks.
    :param until: UTC epoch seconds after which nobody looks any more.
    """

    def __init__(
        self, source: str, ledger: str, environment: str, poke_interval: float, until: float, **_later: Any
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = source
        self.ledger = ledger
        self.environment = environment
        self.poke_interval = poke_interval
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger anew, in another triggerer."""
        return (
            "airflow_provider_heapbraze.triggers.currents.BrazeCurrentsTrigger",
            {
                "source": self.source,
                "ledger": self.ledger,
                "environment": self.environment,
                "poke_interval": self.poke_interval,
                "until": self.until,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is something new."""
        status, problem = NOTHING_NEW, None
        try:
            if await self._have_come():
                status = NEW_FILES
        except HeapBrazeError as error:
            problem = str(error)
        yield TriggerEvent({"status": status, "problem": problem})  # type: ignore[no-untyped-call]

    async def _have_come(self) -> bool:
        look = PatientLook(has_new_files, "Currents files")
        while time.time() < self.until:
            if await look(self.source, self.ledger, self.environment):
                return True
            await sleep(self.poke_interval)
        return False


def has_new_files(source: str, ledger: str, environment: str) -> bool:
    """Tell whether a source has files that are not exported to the end.

    :raises ConfigurationError: there is no such source.
    :raises LedgerDamagedError: the checkpoint cannot be read.
    """
    from airflow_provider_heapbraze.events.checkpoint import is_anything_new
    from airflow_provider_heapbraze.events.source_ledger import ExportTarget, SourceLedger
    from airflow_provider_heapbraze.locations import path_of

    record = SourceLedger(path_of(ledger), ExportTarget(source, environment))
    return is_anything_new(path_of(source), record)
