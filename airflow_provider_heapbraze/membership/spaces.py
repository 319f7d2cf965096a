"""Where the set work of a ledger is done."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.membership.tables import workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from airflow_provider_heapbraze.membership.members import Access
    from airflow_provider_heapbraze.membership.space import Space
    from airflow_provider_heapbraze.membership.tables import Workspace


@dataclass(frozen=True)
class Spaces:
    """DuckDB in this process, or a warehouse.

    :param access: to databases; None where nothing is read from one.
    :param engine: the Airflow connection of the warehouse; empty for DuckDB.
    """

    access: Access | None = None
    engine: str = ""

    @contextmanager
    def open(self) -> Iterator[Space]:
        """Open the place where the set work is done; its tables are gone at the end, but for what is kept."""
        with self.local() as local:
            if self.access is None or not self.engine:
                yield local
                return
            # What works with DuckDB loads nothing that writes other SQL.
            from airflow_provider_heapbraze.membership.warehouse import WarehouseSpace

            with self.access.database(self.engine) as database:
                space = WarehouseSpace(database, local, partial(self.access.database, self.engine))
                try:
                    space.prepare()
                    yield space
                finally:
                    space.clear()

    def local(self) -> AbstractContextManager[Workspace]:
        """Open DuckDB, which can read tables that are in a warehouse, too."""
        return workspace(self.access)
