"""What the operator for the ledger does when its task runs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.locations import ledger_root
from airflow_provider_heapbraze.membership.pruning import prune
from airflow_provider_heapbraze.operators._access import AirflowAccess
from airflow_provider_heapbraze.operators._airflow import airflow_errors, whole_number

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_heapbraze.operators.ledger import HeapBrazeLedgerPruneOperator


def prune_ledger(operator: HeapBrazeLedgerPruneOperator, context: Context) -> dict[str, Any]:
    """Remove what is old, and return what was removed in numbers."""
    with airflow_errors():
        kept = timedelta(days=whole_number(operator.keep_days, "keep_days"))
        root = ledger_root(operator.ledger)
        pruned = prune(root, datetime.now(UTC) - kept, AirflowAccess(root, context))
    operator.log.info(
        "Removed: %s runs, %s matches, %s files with %.1f MB, %s tables in warehouses.",
        f"{pruned.runs:,}",
        f"{pruned.matches:,}",
        f"{pruned.files:,}",
        pruned.bytes / 1e6,
        f"{pruned.tables:,}",
    )
    return asdict(pruned)
