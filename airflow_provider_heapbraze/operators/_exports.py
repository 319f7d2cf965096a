"""An operator that reads who is in a Braze segment: it asks for an export once, and waits for its files."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_heapbraze.clients.errors import (
    ConfigurationError,
    ExportRunningError,
    PermanentError,
)
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.locations import ledger_root, ledger_uri, path_of
from airflow_provider_heapbraze.operators._airflow import HeapBrazeOperator, airflow_errors, seconds, text
from airflow_provider_heapbraze.segments.arrival import ReadyCheck, check_bucket
from airflow_provider_heapbraze.segments.exports import Export, ExportLateError, RunExports
from airflow_provider_heapbraze.segments.names import find_segment
from airflow_provider_heapbraze.triggers.segment import BrazeSegmentExportTrigger, PauseTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow.sdk import Context

    from airflow_provider_heapbraze.clients.braze import BrazeClient

# A trigger ends by itself; where it does not, for example in a triggerer that is down, Airflow ends it.
LATE_SECONDS = 600
LONGEST_PAUSE = 300.0


class SegmentExportOperator(HeapBrazeOperator):
    """What reading a segment's members takes: which segment, from where, and how long to wait for it.

    A subclass does its work in :meth:`look`, which is called again where it returns nothing: after a wait
    without a worker, in which only ``state`` is kept.
    """

    template_fields: Sequence[str] = ("segment_id", "segment_name", "braze_conn_id", "bucket", "ledger")
    ui_color = "#ffe9d6"

    def __init__(
        self,
        *,
        segment_id: str | None = None,
        segment_name: str | None = None,
        braze_conn_id: str = BrazeHook.default_conn_name,
        bucket: str | None = None,
        timeout: float = 3 * 3600,
        poll_interval: float = 60,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        ledger: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.segment_id = segment_id
        self.segment_name = segment_name
        self.braze_conn_id = braze_conn_id
        self.bucket = bucket
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self.ledger = ledger

    @property
    def label(self) -> str:
        """Say which segment."""
        return text(self.segment_name) or text(self.segment_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Do the work, and return what came of it."""
        return self._go_on(context, {}, ready=False)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after a wait in the triggerer."""
        if event.get("problem"):
            with airflow_errors():
                raise PermanentError(event["problem"])
        return self._go_on(context, event["state"], ready=event["ready"])

    def look(self, context: Context, state: dict[str, Any], *, ready: bool) -> dict[str, Any] | None:
        """Do the work, or return None where it has to be looked again later.

        :param state: small JSON that is kept while waiting.
        :param ready: whether the export's files have been seen to be there.
        """
        raise NotImplementedError

    def _go_on(self, context: Context, state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
        with airflow_errors():
            self.timeout = seconds(self.timeout, "timeout")
            self.poll_interval = seconds(self.poll_interval, "poll_interval")
            state.setdefault("until", time.time() + self.timeout)
            while (result := self.look(context, state, ready=ready)) is None:
                ready = False
                self._pause(state)
        return result

    def _pause(self, state: dict[str, Any]) -> None:
        """Wait before it is looked again, longer each time: a look may cost an export."""
        wait = min(self.poll_interval * 2 ** state.get("pauses", 0), LONGEST_PAUSE)
        state["pauses"] = state.get("pauses", 0) + 1
        if self.deferrable:
            self.defer(
                trigger=PauseTrigger(until=time.time() + wait, state=state),
                method_name="resume",
                timeout=timedelta(seconds=wait + LATE_SECONDS),
            )
        time.sleep(wait)

    def _segment(self, client: BrazeClient, state: dict[str, Any]) -> str:
        """Return the segment's id; found once, it stays."""
        if "segment_id" not in state:
            state["segment_id"] = chosen_segment(client, self.segment_id, self.segment_name)
        return str(state["segment_id"])

    def _exports(self, client: BrazeClient, segment_id: str, run: str) -> RunExports:
        return RunExports(ledger_root(self.ledger), client.base_url, segment_id, run)

    def _bucket_path(self) -> Path | None:
        bucket = text(self.bucket)
        return path_of(bucket) if bucket else None

    def _exported(
        self,
        exports: RunExports,
        client: BrazeClient,
        fields: Sequence[str],
        state: dict[str, Any],
        *,
        ready: bool,
    ) -> Export | None:
        """Return an export whose files are there; None where Braze has to end another one first.

        One that this run has asked for already is adopted, not made again: Braze makes one at a time.
        """
        export = exports.under_way(fields, time.time())
        if export is None:
            export = self._ask_for(exports, client, fields, state)
        elif time.time() < export.until:
            state["until"] = export.until
        elif time.time() < state["until"] and not self._has_begun_to_come(export, exports, client):
            # Late, and this is a new attempt: where Braze makes none it has failed; else it is that one.
            export = self._ask_for(exports, client, fields, state) or export
        # What was seen to be there may have been another one.
        if export is not None and not (ready and state.get("awaited") == export.object_prefix):
            self._wait_for(export, exports, client, state)
        return export

    def _has_begun_to_come(self, export: Export, exports: RunExports, client: BrazeClient) -> bool:
        with exports.looking(export):
            return ReadyCheck(export, self._bucket_path()).is_anything_there(client.reads)

    def _ask_for(
        self, exports: RunExports, client: BrazeClient, fields: Sequence[str], state: dict[str, Any]
    ) -> Export | None:
        segment_id, bucket = state["segment_id"], self._bucket_path()
        if bucket is not None:
            check_bucket(bucket)
        try:
            started = client.reads.start_export(segment_id, fields)
        except ExportRunningError:
            if time.time() >= state["until"]:
                raise ExportLateError(
                    f"Another export of segment {segment_id} has been running for {self.timeout:,.0f} s, and "
                    "Braze makes one at a time. Nothing was sent. Clear the task to try again."
                ) from None
            self.log.info(
                "Braze is making an export of this segment already, for another run or task, and makes one "
                "at a time (and a hundred of a company): this one has to wait."
            )
            return None
        now = time.time()
        state["until"] = now + self.timeout
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
        self.log.info("Braze exports segment %s as %s.", segment_id, export.object_prefix)
        return export

    def _wait_for(
        self, export: Export, exports: RunExports, client: BrazeClient, state: dict[str, Any]
    ) -> None:
        """Return when the files are there; leave the worker meanwhile, where that is wanted."""
        check = ReadyCheck(export, self._bucket_path())
        for wait in check.waits(self.poll_interval):
            with exports.looking(export):
                if check.is_ready(client.reads):
                    return
            if time.time() >= state["until"]:
                raise ExportLateError(
                    f"The export of segment {export.segment_id} is not there after {self.timeout:,.0f} "
                    f"s{self._where(export)}. Braze tells of a failed one by e-mail only. Nothing was sent. "
                    "Clear the task: it takes the export if it has come, waits for it if Braze is at it, "
                    "else makes a new one."
                )
            if self.deferrable:
                state["awaited"] = export.object_prefix
                self._defer_until_ready(exports, state)
            time.sleep(wait)

    def _where(self, export: Export) -> str:
        """Say where an export was looked for; a URL is nobody's business."""
        if export.url is not None:
            return ""
        place = f"{text(self.bucket)}/segment-export/{export.segment_id}/<day>/{export.object_prefix}/"
        return f" in {place} (an empty segment may leave no file there)"

    def _defer_until_ready(self, exports: RunExports, state: dict[str, Any]) -> None:
        until = state["until"]
        self.defer(
            trigger=BrazeSegmentExportTrigger(
                braze_conn_id=self.braze_conn_id,
                ledger=ledger_uri(self.ledger),
                export=exports.name,
                bucket=text(self.bucket) or None,
                poll_interval=self.poll_interval,
                until=until,
                state=state,
            ),
            method_name="resume",
            timeout=timedelta(seconds=max(until - time.time(), 0) + LATE_SECONDS),
        )


def chosen_segment(client: BrazeClient, segment_id: Any, segment_name: Any) -> str:
    """Return the id of the segment that an operator's arguments mean.

    :raises ConfigurationError: they mean none, or more than one.
    """
    given, name = text(segment_id), text(segment_name)
    if bool(given) == bool(name):
        raise ConfigurationError("Give either segment_id or segment_name. Nothing was sent.")
    return given or find_segment(client.reads, name)
