"""The ledger's size: what is old goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.operators._airflow import LabelledOperator, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class HeapBrazeLedgerPruneOperator(LabelledOperator):
    """Remove old runs from the ledger: their plans, snapshots, matches, and their tables in warehouses.

    What the present state of a target needs stays, however old it is, and so does what restoring one of the
    runs that are kept needs. Reports stay, too. An older run cannot be restored any more. May run beside
    imports, and be killed and cleared at any moment.

    Where a target's log cannot be read, or a table cannot be dropped, the rest is removed and the task fails.

    Returns what was removed in numbers: ``{"runs", "matches", "files", "bytes", "tables"}``.

    :param keep_days: runs of so many days are kept; at least 1.
    :param ledger: location of the ledger; default ``[heapbraze] ledger`` of Airflow's configuration.
    """

    template_fields: Sequence[str] = ("keep_days", "ledger")

    def __init__(self, *, keep_days: int = 90, ledger: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep_days = keep_days
        self.ledger = ledger

    @property
    def label(self) -> str:
        """Say which ledger."""
        return text(self.ledger)

    def execute(self, context: Context) -> dict[str, Any]:
        """Remove what is old."""
        # Parsing a DAG file must not load what reads the ledger.
        from airflow_provider_heapbraze.operators._work.ledger import prune_ledger

        return prune_ledger(self, context)
