"""An operator that reads who is in a Braze segment: it asks for an export once, and waits for its files."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_heapbraze.clients.errors import PermanentError
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.operators._airflow import HeapBrazeOperator, airflow_errors, seconds, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

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

    def wait_without_worker(self, trigger: BaseTrigger, longest: float) -> None:
        """Leave the worker until a trigger fires; the task goes on in :meth:`resume`.

        :param longest: seconds that the trigger may take.
        """
        self.defer(
            trigger=trigger, method_name="resume", timeout=timedelta(seconds=max(longest, 0) + LATE_SECONDS)
        )

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
        from airflow_provider_heapbraze.triggers.segment import PauseTrigger

        wait = min(self.poll_interval * 2 ** state.get("pauses", 0), LONGEST_PAUSE)
        state["pauses"] = state.get("pauses", 0) + 1
        if self.deferrable:
            self.wait_without_worker(PauseTrigger(until=time.time() + wait, state=state), wait)
        time.sleep(wait)
