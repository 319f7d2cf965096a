"""What a source of members may reach: files and databases, through Airflow's connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze.locations import path_of
from airflow_provider_heapbraze.operators._queries import query_tag, streamed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from airflow.sdk import Context

    from airflow_provider_heapbraze.membership.members import Chunk
    from airflow_provider_heapbraze.operators._warehouse import AirflowDatabase


class AirflowAccess:
    """Files through object storage paths, rows through database hooks.

    :param ledger: folder of all ledgers.
    :param context: of the task that reads.
    """

    def __init__(self, ledger: Path, context: Context) -> None:
        self.ledger = ledger
        self._tag = query_tag(context)

    def path(self, uri: str) -> Path:
        """Return the path of a file."""
        return path_of(uri)

    def query(self, conn_id: str, sql: str) -> AbstractContextManager[tuple[list[str], Iterator[Chunk]]]:
        """Run a query, marked with the task's names, and stream its rows; see :func:`streamed`."""
        return streamed(conn_id, sql, self._tag)

    def database(self, conn_id: str) -> AbstractContextManager[AirflowDatabase]:
        """Open a warehouse; its statements are marked, too."""
        from airflow_provider_heapbraze.operators._warehouse import opened

        return opened(conn_id, self._tag)
