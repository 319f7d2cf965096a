"""Match the members of a Heap segment to the people that Braze knows."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_heapbraze.locations import ledger_root
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.operators._airflow import HeapBrazeOperator, airflow_errors, text
from airflow_provider_heapbraze.operators._lineage import Flow, as_xcom, located, sources_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_heapbraze.membership.members import Members


class HeapUserMatchOperator(HeapBrazeOperator):
    """Give every member of a Heap segment one identifier in Braze, or a reason why there is none.

    Nothing is sent. The result is written to the ledger; the XCom holds its location and counts::

        {"uri", "fingerprint", "taken_at", "counts": {"members", "matched", "external_id", "alias",
                                                      "device_id", "duplicates", "unmatched": {reason: n}},
         "engine", "sources": [{"namespace", "name"}]}

    ``taken_at`` (ISO 8601, UTC) says when they were the segment's members, ``sources`` which datasets they
    come from, as OpenLineage names them; planning and importing go on with the same ``engine``.

    :param members: where the members come from: ``FileMembers``, ``SqlMembers``, ``SegmentSyncMembers`` or
        ``HeapConnectMembers``.
    :param mapping: which column holds which identifier. Default: Heap's ``identity`` is Braze's external id.
    :param engine: the Airflow connection of a warehouse: what outgrows a worker is matched, and planned,
        where it is, and only changes come out. ``members`` are then ``SqlMembers`` of the same connection.
        Tables are made in its schema ``heapbraze``. Default: DuckDB, in the task's process.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    template_fields: Sequence[str] = ("members", "mapping", "engine", "ledger")
    template_fields_renderers: ClassVar[dict[str, str]] = {"members": "py", "mapping": "py"}
    ui_color = "#f2e7fe"

    def __init__(
        self,
        *,
        members: Members,
        mapping: IdentityMapping | None = None,
        engine: str | None = None,
        ledger: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.members = copy(members)
        self.mapping = copy(mapping) if mapping else IdentityMapping()
        self.engine = engine
        self.ledger = ledger

    @property
    def label(self) -> str:
        """Say where the members come from; the place of a query says too little, and the query too much."""
        if hasattr(self.members, "sql"):
            return ""
        return text(getattr(self.members, "segment_id", None)) or text(getattr(self.members, "path", None))

    def execute(self, context: Context) -> dict[str, Any]:
        """Match, and return where the result is and what became of every member."""
        # Parsing a DAG file must not load what matches.
        from airflow_provider_heapbraze import storage
        from airflow_provider_heapbraze.membership.matching import match
        from airflow_provider_heapbraze.operators._access import AirflowAccess

        with airflow_errors():
            ledger = ledger_root(self.ledger)
            sources = sources_of(self.members)
            self.flow = Flow(sources, (located(storage.uri(ledger / "matches")),))
            access = AirflowAccess(ledger, context)
            result = match(self.members, self.mapping, access, ledger, text(self.engine))
        self.flow = self.flow.counted(result.counts["members"], result.counts["matched"])
        counts, taken_at = result.counts, result.taken_at.isoformat(timespec="seconds")
        self.log.info(
            "%s members as of %s%s: %s matched, %s duplicates, unmatched: %s",
            f"{counts['members']:,}",
            taken_at,
            f", matched in the warehouse of connection {result.engine}" if result.engine else "",
            f"{counts['matched']:,}",
            f"{counts['duplicates']:,}",
            counts["unmatched"] or "none",
        )
        return {
            "uri": result.uri,
            "fingerprint": result.fingerprint,
            "taken_at": taken_at,
            "counts": counts,
            "engine": result.engine,
            "sources": as_xcom(sources),
        }
