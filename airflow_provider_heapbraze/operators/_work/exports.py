"""How the operators that read a Braze segment come by its export."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.clients.errors import ConfigurationError, ExportRunningError
from airflow_provider_heapbraze.locations import ledger_root, ledger_uri, path_of
from airflow_provider_heapbraze.operators._airflow import text
from airflow_provider_heapbraze.segments.arrival import ReadyCheck, check_bucket
from airflow_provider_heapbraze.segments.exports import Export, ExportLateError, RunExports
from airflow_provider_heapbraze.segments.names import find_segment
from airflow_provider_heapbraze.triggers.segment import BrazeSegmentExportTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.clients.braze import BrazeClient
    from airflow_provider_heapbraze.operators._exports import SegmentExportOperator


class SegmentExports:
    """Exports of the segment that an operator's arguments mean.

    :param operator: says which segment, from where, and how long to wait.
    :param client: of the workspace.
    :param state: small JSON that is kept while waiting.
    """

    def __init__(self, operator: SegmentExportOperator, client: BrazeClient, state: dict[str, Any]) -> None:
        self._operator = operator
        self._client = client
        self._state = state

    def segment_id(self) -> str:
        """Return the segment's id; found once, it stays."""
        if "segment_id" not in self._state:
            given = self._operator.segment_id, self._operator.segment_name
            self._state["segment_id"] = chosen_segment(self._client, *given)
        return str(self._state["segment_id"])

    def of_run(self, run: str) -> RunExports:
        """Return what is known of the exports that a run has asked for."""
        root = ledger_root(self._operator.ledger)
        return RunExports(root, self._client.base_url, self.segment_id(), run)

    def bucket(self) -> Path | None:
        """Return the folder in which Braze leaves exports, where there is one."""
        bucket = text(self._operator.bucket)
        return path_of(bucket) if bucket else None

    def exported(self, exports: RunExports, fields: Sequence[str], *, ready: bool) -> Export | None:
        """Return an export whose files are there; None where Braze has to end another one first.

        One that this run has asked for already is adopted, not made again: Braze makes one at a time.

        :param ready: whether the export's files have been seen to be there.
        """
        state = self._state
        export = exports.under_way(fields, time.time())
        if export is None:
            export = self._ask_for(exports, fields)
        elif time.time() < export.until:
            state["until"] = export.until
        elif time.time() < state["until"] and not self._has_begun_to_come(export, exports):
            # Late, and this is a new attempt: where Braze makes none it has failed; else it is that one.
            export = self._ask_for(exports, fields) or export
        # What was seen to be there may have been another one.
        if export is not None and not (ready and state.get("awaited") == export.object_prefix):
            self._wait_for(export, exports)
        return export

    def _has_begun_to_come(self, export: Export, exports: RunExports) -> bool:
        with exports.looking(export):
            return ReadyCheck(export, self.bucket()).is_anything_there(self._client.reads)

    def _ask_for(self, exports: RunExports, fields: Sequence[str]) -> Export | None:
        operator, state, segment_id, bucket = self._operator, self._state, self.segment_id(), self.bucket()
        if bucket is not None:
            check_bucket(bucket)
        try:
            started = self._client.reads.start_export(segment_id, fields)
        except ExportRunningError:
            if time.time() >= state["until"]:
                raise ExportLateError(
                    f"Another export of segment {segment_id} has been running for {operator.timeout:,.0f} s, "
                    "and Braze makes one at a time. Nothing was sent. Clear the task to try again."
                ) from None
            operator.log.info(
                "Braze is making an export of this segment already, for another run or task, and makes one "
                "at a time (and a hundred of a company): this one has to wait."
            )
            return None
        now = time.time()
        state["until"] = now + operator.timeout
        export = Export(
            number=exports.next_number(),
            segment_id=segment_id,
            fields=list(fields),
            object_prefix=started.object_prefix,
            url=started.url,
            started_at=now,
            until=state["until"],
        )
        exports.started(export)
        operator.log.info("Braze exports segment %s as %s.", segment_id, export.object_prefix)
        return export

    def _wait_for(self, export: Export, exports: RunExports) -> None:
        """Return when the files are there; leave the worker meanwhile, where that is wanted."""
        operator, state = self._operator, self._state
        check = ReadyCheck(export, self.bucket())
        for wait in check.waits(operator.poll_interval):
            with exports.looking(export):
                if check.is_ready(self._client.reads):
                    return
            if time.time() >= state["until"]:
                raise ExportLateError(
                    f"The export of segment {export.segment_id} is not there after {operator.timeout:,.0f} "
                    f"s{self._where(export)}. Braze tells of a failed one by e-mail only. Nothing was sent. "
                    "Clear the task: it takes the export if it has come, waits for it if Braze is at it, "
                    "else makes a new one."
                )
            if operator.deferrable:
                state["awaited"] = export.object_prefix
                operator.wait_without_worker(self._trigger(exports), state["until"] - time.time())
            time.sleep(wait)

    def _where(self, export: Export) -> str:
        """Say where an export was looked for; a URL is nobody's business."""
        if export.url is not None:
            return ""
        bucket = text(self._operator.bucket)
        place = f"{bucket}/segment-export/{export.segment_id}/<day>/{export.object_prefix}/"
        return f" in {place} (an empty segment may leave no file there)"

    def _trigger(self, exports: RunExports) -> BrazeSegmentExportTrigger:
        return BrazeSegmentExportTrigger(
            braze_conn_id=self._operator.braze_conn_id,
            ledger=ledger_uri(self._operator.ledger),
            export=exports.name,
            bucket=text(self._operator.bucket) or None,
            poll_interval=self._operator.poll_interval,
            until=self._state["until"],
            state=self._state,
        )


def chosen_segment(client: BrazeClient, segment_id: Any, segment_name: Any) -> str:
    """Return the id of the segment that an operator's arguments mean.

    :raises ConfigurationError: they mean none, or more than one.
    """
    given, name = text(segment_id), text(segment_name)
    if bool(given) == bool(name):
        raise ConfigurationError("Give either segment_id or segment_name. Nothing was sent.")
    return given or find_segment(client.reads, name)
