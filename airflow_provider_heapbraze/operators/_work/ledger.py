"""What the operator for the ledger does when its task runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.ledger_check.check import must_be_a_ledger
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.locations import ledger_root
from airflow_provider_heapbraze.membership.errors import PruningUnfinishedError
from airflow_provider_heapbraze.membership.pruning import prune
from airflow_provider_heapbraze.operators._access import AirflowAccess
from airflow_provider_heapbraze.operators._airflow import airflow_errors, whole_number

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_heapbraze.membership.pruning import Pruned
    from airflow_provider_heapbraze.operators.ledger import HeapBrazeLedgerPruneOperator


def prune_ledger(operator: HeapBrazeLedgerPruneOperator, context: Context) -> dict[str, Any]:
    """Remove what is old, and return what was removed in numbers."""
    with airflow_errors():
        root = ledger_root(operator.ledger)
        must_be_a_ledger(root)
        pruned = prune(root, _days_ago(operator.keep_days), AirflowAccess(root, context))
        _show(operator, pruned)
        if pruned.left:
            raise LedgerDamagedError(_about(pruned))
        if pruned.tables_left:
            raise PruningUnfinishedError(_about(pruned))
    return {name: getattr(pruned, name) for name in ("runs", "matches", "files", "bytes", "tables")}


def _days_ago(days: Any) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(days=whole_number(days, "keep_days"))
    except OverflowError:
        raise ConfigurationError("keep_days is more days than there were. Nothing was removed.") from None


def _show(operator: HeapBrazeLedgerPruneOperator, pruned: Pruned) -> None:
    operator.log.info(
        "Removed: %s runs, %s matches, %s files with %.1f MB, %s tables in warehouses.",
        f"{pruned.runs:,}",
        f"{pruned.matches:,}",
        f"{pruned.files:,}",
        pruned.bytes / 1e6,
        f"{pruned.tables:,}",
    )


def _about(pruned: Pruned) -> str:
    """Say what is old, and still there."""
    there = []
    if pruned.left:
        there.append(
            f"what is old of {', '.join(pruned.left)}, and all matches, since these logs cannot be read "
            "(heapbraze ledger check --deep says what is wrong)"
        )
    if pruned.tables_left:
        there.append(f"tables in warehouses: {pruned.tables_left:,} (the warnings above say why)")
    return (
        f"Not all that is old could be removed. Still there: {'; '.join(there)}. The rest is removed. Mend "
        "what is in the way, then clear the task."
    )
