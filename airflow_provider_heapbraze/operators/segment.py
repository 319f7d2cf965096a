"""Braze segments in Heap: their members as a user property, and their sizes over time."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.hooks.heap import HeapHook
from airflow_provider_heapbraze.links import HeapBrazeRunLink
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.operators._airflow import HeapBrazeOperator, text
from airflow_provider_heapbraze.operators._exports import SegmentExportOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class BrazeSegmentToHeapOperator(SegmentExportOperator):
    """Make a Heap user property equal to the members of a Braze segment.

    Members get ``"true"``, those who leave ``"false"``; only changes are sent, each once: a retry or a
    cleared task goes on exactly where the last attempt stopped. It adopts an export that is under way, and
    makes a new one where nothing was sent yet. Returns what :class:`BrazeCohortImportOperator` returns.
    Outlets get the asset ``heap://property/<name>`` with the size and the change.

    :param segment_id: the segment's id in Braze (Segment API Identifier); or give ``segment_name``.
    :param segment_name: its name; where several have it, the error lists their ids.
    :param property_name: the property in Heap; default ``braze_segment_<name>``, from the name that the
        segment had at first. One property has one segment.
    :param alias_label: people's Heap identity is their alias with this label; default: their external id.
    :param braze_conn_id: the Braze connection; its REST API key needs ``users.export.segment``, and
        ``segments.list`` or ``segments.details`` to find names.
    :param heap_conn_id: the Heap connection.
    :param guards: limits that stop a refresh before anything is sent.
    :param on_breach: what a breached guard does to the task: ``fail`` (without retries) or ``skip``.
    :param force_full: send everybody again, not only the changes; also where the ledger is damaged.
    :param bucket: location in which Braze leaves exports, where the workspace has storage credentials.
    :param timeout: seconds to wait for an export; 20 million people can take an hour or more.
    :param poll_interval: seconds between two looks, at most.
    :param deferrable: wait in the triggerer, without a worker; default ``[operators] default_deferrable``.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    operator_extra_links = (HeapBrazeRunLink(),)
    template_fields: Sequence[str] = (
        *SegmentExportOperator.template_fields,
        "property_name",
        "alias_label",
        "heap_conn_id",
        "guards",
        "on_breach",
        "force_full",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"guards": "py"}

    def __init__(
        self,
        *,
        property_name: str | None = None,
        alias_label: str | None = None,
        heap_conn_id: str = HeapHook.default_conn_name,
        guards: Guards | None = None,
        on_breach: Literal["fail", "skip"] = "fail",
        force_full: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.property_name = property_name
        self.alias_label = alias_label
        self.heap_conn_id = heap_conn_id
        self.guards = copy(guards) if guards else Guards()
        self.on_breach = on_breach
        self.force_full = force_full

    @property
    def label(self) -> str:
        """Say which property."""
        return text(self.property_name) or super().label

    def look(self, context: Context, state: dict[str, Any], *, ready: bool) -> dict[str, Any] | None:
        """Refresh the property once the export is there; return what happened in numbers."""
        from airflow_provider_heapbraze.operators._work.segment import refresh

        return refresh(self, context, state, ready=ready)


class BrazeSegmentSizeOperator(HeapBrazeOperator):
    """Record a Braze segment's size, and fail where it changed suddenly.

    An operator and not a sensor: a size is a fact of the day, there is nothing to wait for. The present size
    is compared with the median of the days before; both are Braze's estimates. Returns ``{"segment_id",
    "size", "day", "usual", "change", "series", "report_uri"}``. Outlets get the asset
    ``braze://segment/<segment id>`` with size, day and change.

    :param segment_id: the segment's id in Braze (Segment API Identifier); or give ``segment_name``.
    :param segment_name: its name; where several have it, the error lists their ids.
    :param days: how many days are looked at, 2 to 100.
    :param max_drop_share: largest share of the usual size that may be gone; None for any.
    :param max_rise_share: largest share of the usual size that may have come; None for any.
    :param braze_conn_id: the Braze connection; its REST API key needs ``segments.data_series``.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    template_fields: Sequence[str] = (
        "segment_id",
        "segment_name",
        "days",
        "max_drop_share",
        "max_rise_share",
        "braze_conn_id",
        "ledger",
    )
    ui_color = "#ffe9d6"

    def __init__(
        self,
        *,
        segment_id: str | None = None,
        segment_name: str | None = None,
        days: int = 8,
        max_drop_share: float | None = 0.5,
        max_rise_share: float | None = None,
        braze_conn_id: str = BrazeHook.default_conn_name,
        ledger: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.segment_id = segment_id
        self.segment_name = segment_name
        self.days = days
        self.max_drop_share = max_drop_share
        self.max_rise_share = max_rise_share
        self.braze_conn_id = braze_conn_id
        self.ledger = ledger

    @property
    def label(self) -> str:
        """Say which segment."""
        return text(self.segment_name) or text(self.segment_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask for the sizes, and return them."""
        from airflow_provider_heapbraze.operators._work.segment import record_size

        return record_size(self, context)
