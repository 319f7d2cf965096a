"""Wait until Heap Connect has left a dump that no run of this task has taken yet."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_heapbraze.clients.errors import PermanentError
from airflow_provider_heapbraze.locations import ledger_root, path_of
from airflow_provider_heapbraze.operators._airflow import airflow_errors, choice, required, run_id, text
from airflow_provider_heapbraze.triggers.heap_connect import NEW_DUMP, HeapConnectDumpTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_heapbraze.heap_connect.seen import Dump, Look

# The trigger ends by itself; where it does not, for example in a triggerer that is down, Airflow ends it.
LATE_SECONDS = 600


class HeapConnectDumpSensor(BaseSensorOperator):
    """Wait for a complete dump of Heap Connect that no run of this task has taken; take the newest.

    The ledger keeps which run took which dump. So every dump lets one run pass; a run that is cleared or
    tried again gets the dump that it took before, at once. The first run of all takes the newest dump there
    is. The XCom says which one it is: ``{"dump_id", "tables"}``, the number of its tables.

    :param path: location of the dumps: the folder that holds ``manifests``, as for ``HeapConnectMembers``.
    :param table: wait for a dump that has this table: Heap may sync a table less often than others.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    :param on_timeout: what becomes of the task where nothing new has come: ``fail`` or ``skip``. (Airflow's
        own ``soft_fail`` would skip errors, too.)
    :param deferrable: wait in the triggerer, without a worker; default ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("path", "table", "ledger")
    ui_color = "#f2e7fe"

    def __init__(
        self,
        *,
        path: str,
        table: str | None = None,
        ledger: str | None = None,
        on_timeout: Literal["fail", "skip"] = "fail",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.table = table
        self.ledger = ledger
        self.on_timeout = on_timeout
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look once; then wait, in the triggerer where that is wanted."""
        self._look_at_arguments()
        if self.deferrable:
            return self._take_or_defer(context, until=time.time() + self.timeout)
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            self._end_without_dump()

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, int]:
        """Go on: the triggerer has seen a new dump, or has looked for one long enough."""
        look = self._look(context)  # also at the end: the triggerer may have been away
        if look.dump is not None:
            return self._taken(look.dump)
        if event.get("problem"):  # which only the triggerer has
            with airflow_errors():
                raise PermanentError(event["problem"])
        if event["status"] != NEW_DUMP:
            self._end_without_dump()
        # Another run has taken that dump.
        return self._take_or_defer(context, until=event["until"])

    def poke(self, context: Context) -> PokeReturnValue:
        """Tell whether there is a dump for this run, and which."""
        dump = self._look(context).dump
        return PokeReturnValue(is_done=dump is not None, xcom_value=dump and self._taken(dump))

    def _take_or_defer(self, context: Context, until: float) -> dict[str, int]:
        look = self._look(context)
        if look.dump is None:
            self.defer(
                trigger=HeapConnectDumpTrigger(
                    path=required(self.path, "path"),
                    table=text(self.table) or None,
                    after=look.after,
                    poke_interval=self.poke_interval,
                    until=until,
                ),
                method_name="execute_complete",
                timeout=timedelta(seconds=max(until - time.time(), 0) + LATE_SECONDS),
            )
        return self._taken(look.dump)

    def _look(self, context: Context) -> Look:
        # Parsing a DAG file must not load what reads manifests.
        from airflow_provider_heapbraze.heap_connect.seen import SeenDumps, take_dump

        ti = context["ti"]
        with airflow_errors():
            path = required(self.path, "path")
            seen = SeenDumps(ledger_root(self.ledger), path, f"{ti.dag_id}/{ti.task_id}/{ti.map_index}")
            return take_dump(path_of(path), text(self.table) or None, seen, run_id(context))

    def _taken(self, dump: Dump) -> dict[str, int]:
        self.log.info("This run takes dump %s. Number of its tables: %s.", dump.dump_id, dump.tables)
        return {"dump_id": dump.dump_id, "tables": dump.tables}

    def _look_at_arguments(self) -> None:
        """Refuse what cannot be meant; of a path without dumps nobody knows, so it is only told."""
        from airflow_provider_heapbraze.heap_connect.manifests import find_manifests

        with airflow_errors():
            choice(self.on_timeout, "on_timeout", ("fail", "skip"))
            if not find_manifests(path_of(required(self.path, "path"))):
                self.log.warning(
                    "There is no manifest in %s/manifests yet. If Heap has written dumps, look at path.",
                    self.path.rstrip("/"),
                )

    def _end_without_dump(self) -> NoReturn:
        wanted = f"dump with the table {self.table}" if text(self.table) else "dump"
        said = f"No new {wanted} has come in {self.timeout:,.0f} s."
        if self.on_timeout == "skip":
            raise AirflowSkipException(said)
        raise AirflowSensorTimeout(said)
