"""The link from a task to what it did: the view of its run on the plugin's page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

    from airflow_provider_heapbraze.operators._airflow import HeapBrazeOperator

PAGE = "/heapbraze/page"


class HeapBrazeRunLink(BaseOperatorLink):
    """Opens the report of a task's run, also while it is under way and after it failed."""

    name = "Heap and Braze report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the link that the task pushed; empty where it did not come so far.

        Airflow asks for it when a task has ended, and then keeps the answer in the place of what was pushed.
        For one that was deferred another process may have pushed it.
        """
        return getattr(operator, "run_link", "") or XCom.get_value(key=self.xcom_key, ti_key=ti_key) or ""


def push_run_link(
    operator: HeapBrazeOperator, context: Context, group: str, folder: str, run_id: str
) -> None:
    """Make the link known; called before the work begins, so that a run that fails has it, too.

    :param group: ``targets`` or ``sources``.
    :param folder: of the target or the source in the ledger.
    :param run_id: as the ledger has it.
    """
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    query = urlencode({"id": run_id})
    operator.run_link = f"{base}{PAGE}/{group}/{quote(folder, safe='')}/run?{query}"
    context["ti"].xcom_push(key=HeapBrazeRunLink().xcom_key, value=operator.run_link)
