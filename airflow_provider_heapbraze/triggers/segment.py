"""Wait from the triggerer until Braze has exported a segment."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_heapbraze.clients.errors import HeapBrazeError, PermanentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_heapbraze.segments.exports import ReadyCheck

log = logging.getLogger(__name__)


class BrazeSegmentExportTrigger(BaseTrigger):
    """Fires as soon as an export's files are all there, or at its time; it asks Braze for nothing.

    What leads to the files is read from the ledger: its URL opens them, and an argument of a trigger is kept
    in Airflow's database.

    :param braze_conn_id: the Braze connection.
    :param ledger: location of the ledger.
    :param export: name of the run's folder in it.
    :param bucket: location in which Braze leaves exports, or None.
    :param poll_interval: seconds between two looks.
    :param until: UTC epoch seconds after which nobody looks any more.
    """

    def __init__(
        self,
        *,
        braze_conn_id: str,
        ledger: str,
        export: str,
        bucket: str | None,
        poll_interval: float,
        until: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.braze_conn_id = braze_conn_id
        self.ledger = ledger
        self.export = export
        self.bucket = bucket
        self.poll_interval = poll_interval
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger anew, in another triggerer."""
        return (
            "airflow_provider_heapbraze.triggers.segment.BrazeSegmentExportTrigger",
            {
                "braze_conn_id": self.braze_conn_id,
                "ledger": self.ledger,
                "export": self.export,
                "bucket": self.bucket,
                "poll_interval": self.poll_interval,
                "until": self.until,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the files are there; the task itself finds out what else may be."""
        # Storage and HTTP block: they have a thread. Connections are asked for in the triggerer's own loop.
        check = await sync_to_async(self._check, thread_sensitive=False)()
        look = sync_to_async(self._look, thread_sensitive=False)
        ready = False
        while check is not None and not ready and time.time() < self.until:
            try:
                ready = await look(check)
            except PermanentError:
                break
            except HeapBrazeError as error:
                log.warning("%s It is looked again.", error)
            if not ready:
                await asyncio.sleep(self.poll_interval)
        yield TriggerEvent({"ready": ready})  # type: ignore[no-untyped-call]

    def _check(self) -> ReadyCheck | None:
        from airflow_provider_heapbraze.locations import path_of
        from airflow_provider_heapbraze.segments.exports import ReadyCheck, export_folder, read_export

        export = read_export(export_folder(path_of(self.ledger), self.export))
        return ReadyCheck(export, path_of(self.bucket) if self.bucket else None) if export else None

    def _look(self, check: ReadyCheck) -> bool:
        from airflow_provider_heapbraze.hooks.braze import BrazeHook

        with BrazeHook(self.braze_conn_id).get_conn() as client:
            return check.is_ready(client.reads)
