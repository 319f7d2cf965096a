"""Wait until Braze Currents has left files that are not exported yet."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    conf,
)

from airflow_provider_heapbraze.clients.errors import PermanentError
from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.locations import ledger_uri
from airflow_provider_heapbraze.operators._airflow import airflow_errors, choice, required
from airflow_provider_heapbraze.triggers.currents import NEW_FILES, BrazeCurrentsTrigger, has_new_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

# The trigger ends by itself; where it does not, for example in a triggerer that is down, Airflow ends it.
LATE_SECONDS = 600


class BrazeCurrentsSensor(BaseSensorOperator):
    """Wait for Currents files that :class:`BrazeCurrentsToHeapOperator` has not exported to the end.

    It reads the operator's checkpoint, so that a file counts as new until every event of it is settled; a
    late file of an older hour counts, one that was set aside as unreadable does not.

    :param source: as the operator's.
    :param heap_conn_id: as the operator's.
    :param ledger: as the operator's.
    :param on_timeout: what becomes of the task where nothing new has come: ``fail`` or ``skip``. (Airflow's
        own ``soft_fail`` would skip errors, too.)
    :param deferrable: wait in the triggerer, without a worker; default ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("source", "heap_conn_id", "ledger")
    ui_color = "#ffe9d6"

    def __init__(
        self,
        *,
        source: str,
        heap_conn_id: str = HeapHook.default_conn_name,
        ledger: str | None = None,
        on_timeout: Literal["fail", "skip"] = "fail",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.heap_conn_id = heap_conn_id
        self.ledger = ledger
        self.on_timeout = on_timeout
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look once; then wait, in the triggerer where that is wanted."""
        with airflow_errors():
            choice(self.on_timeout, "on_timeout", ("fail", "skip"))
        if not self.deferrable:
            try:
                return super().execute(context)
            except AirflowSensorTimeout:
                self._end_without_files()
        if not self.poke(context):
            until = time.time() + self.timeout
            self.defer(
                trigger=BrazeCurrentsTrigger(**self._place(), poke_interval=self.poke_interval, until=until),
                method_name="execute_complete",
                timeout=timedelta(seconds=self.timeout + LATE_SECONDS),
            )
        return None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """Go on: the triggerer has seen new files, or has looked for them long enough."""
        if event.get("problem"):
            with airflow_errors():
                raise PermanentError(event["problem"])
        # At the end it is looked once more: the triggerer, or the storage, may have been away.
        if event["status"] != NEW_FILES and not self.poke(context):
            self._end_without_files()
        self.log.info("There are new files.")

    def _end_without_files(self) -> NoReturn:
        said = f"No new files have come in {self.timeout:,.0f} s."
        if self.on_timeout == "skip":
            raise AirflowSkipException(said)
        raise AirflowSensorTimeout(said)

    def poke(self, context: Context) -> bool:  # noqa: ARG002 - Airflow's signature
        """Tell whether there are new files."""
        with airflow_errors():
            return has_new_files(**self._place())

    def _place(self) -> dict[str, str]:
        with HeapHook(self.heap_conn_id).get_conn() as client:
            environment = client.environment
        return {
            "source": required(self.source, "source"),
            "ledger": ledger_uri(self.ledger),
            "environment": environment,
        }
