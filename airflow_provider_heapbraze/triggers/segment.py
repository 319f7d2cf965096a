"""Wait from the triggerer until Braze has exported a segment, or until it is time to look again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_heapbraze.clients.errors import ConfigurationError, PermanentError
from airflow_provider_heapbraze.triggers._patience import PatientLook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_heapbraze.segments.arrival import ReadyCheck


class BrazeSegmentExportTrigger(BaseTrigger):
    """Fires as soon as an export's files are all there, or at its time; it asks Braze for nothing.

    What leads to the files is read from the ledger: its URL opens them, and an argument of a trigger is kept
    in Airflow's database.

    :param braze_conn_id: the Braze connection.
    :param ledger: location of the ledger.
    :param export: name of the run's folder in it.
    :param bucket: location in which Braze leaves exports, or None.
    :param poll_interval: seconds between two looks, at most.
    :param until: UTC epoch seconds after which nobody looks any more.
    :param state: what the task has to remember, as small JSON; the event brings it back. (``dag.test()``
        drops what a task asks Airflow itself to keep.)
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
        state: dict[str, Any],
        **_later: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.braze_conn_id = braze_conn_id
        self.ledger = ledger
        self.export = export
        self.bucket = bucket
        self.poll_interval = poll_interval
        self.until = until
        self.state = state

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
                "state": self.state,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the files are there, or until it cannot go on; the event tells of the problem."""
        ready, problem = False, None
        try:
            ready = await self._wait()
        except PermanentError as error:
            problem = str(error)
        event = {"ready": ready, "problem": problem, "state": self.state}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _wait(self) -> bool:
        find = PatientLook(self._check, "what leads to the export")
        look = PatientLook(self._look, "the export's files")
        while (check := await find()) is None:
            if time.time() >= self.until:
                return False
            await asyncio.sleep(self.poll_interval)
        waits = check.waits(self.poll_interval)
        while not await look(check):
            if time.time() >= self.until:
                return False
            await asyncio.sleep(next(waits))
        return True

    def _check(self) -> ReadyCheck:
        from airflow_provider_heapbraze.locations import path_of
        from airflow_provider_heapbraze.segments.arrival import ReadyCheck
        from airflow_provider_heapbraze.segments.exports import export_folder, read_export

        export = read_export(export_folder(path_of(self.ledger), self.export))
        if export is None:
            raise ConfigurationError(
                "The triggerer does not find the export that the worker has asked for in the ledger "
                f"{self.ledger}. Nothing was sent. Give a ledger that workers and triggerers reach, in "
                "object storage for example; then clear the task: it takes the export."
            )
        return ReadyCheck(export, path_of(self.bucket) if self.bucket else None)

    def _look(self, check: ReadyCheck) -> bool:
        from airflow_provider_heapbraze.hooks.braze import BrazeHook

        with BrazeHook(self.braze_conn_id).get_quick_conn() as client:
            return check.is_ready(client.reads)


class PauseTrigger(BaseTrigger):
    """Fires at its time.

    :param until: UTC epoch seconds.
    :param state: as :class:`BrazeSegmentExportTrigger`'s.
    """

    def __init__(self, *, until: float, state: dict[str, Any], **_later: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until
        self.state = state

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger anew, in another triggerer."""
        return (
            "airflow_provider_heapbraze.triggers.segment.PauseTrigger",
            {"until": self.until, "state": self.state},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and bring the state back."""
        await asyncio.sleep(max(self.until - time.time(), 0))
        yield TriggerEvent({"ready": False, "state": self.state})  # type: ignore[no-untyped-call]
