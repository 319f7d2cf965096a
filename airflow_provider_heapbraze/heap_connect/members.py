"""Members that a query finds in Heap Connect's dumps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_heapbraze.membership.members import Access, Part
    from airflow_provider_heapbraze.membership.tables import Workspace


@dataclass
class HeapConnectMembers:
    """Members that a query finds in Heap Connect's dumps in S3, or in a copy of them.

    The query is one ``SELECT``, as DuckDB has it, over the dumps' tables: ``users``, ``sessions``,
    ``pageviews`` and one for each event. For example, who began checkout and did not buy in 30 days::

        SELECT identity FROM users
        WHERE user_id IN (SELECT user_id FROM begin_checkout WHERE time > now() - INTERVAL 30 DAY)
        AND NOT EXISTS (
            FROM purchase p WHERE p.user_id = users.user_id AND p.time > now() - INTERVAL 30 DAY
        )

    A table is its newest full dump and every later incremental one. Users are there once, with the newest
    ``last_modified``, and events once by ``event_id``; both under the id that Heap's user migrations give
    them in the end. A column that a dump does not have is ``NULL`` there.

    ``joindate``, ``last_modified``, ``time``, ``session_time`` and whatever a dump marks as a timestamp are
    ``TIMESTAMP`` in UTC, whether text, seconds, milli-, micro- or nanoseconds were dumped. 0 is ``NULL``, and
    so is what cannot be read: of the columns that the query names it is counted in the log, and where one has
    nothing else the members are refused. What has several types in one file is text.

    Only tables and columns that the query names are read; ``*`` is all columns of the tables it stands for.
    It cannot read or write anything else. The members are those of the time when the newest manifest of what
    it reads was written: a copy that does not keep that time makes them look newer.

    :param path: the folder that holds ``manifests`` and the dumps' folders, for example
        ``s3://conn_id@heap-rs3-acme``. Where the manifests name another place, files are looked for here.
    :param sql: the query; its rows are the members.
    """

    template_fields: ClassVar[Sequence[str]] = ("path", "sql")

    path: str
    sql: str

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:
        """Give one part; see :class:`~airflow_provider_heapbraze.membership.members.Members`."""
        from airflow_provider_heapbraze.heap_connect.finding import find_members

        yield find_members(self.path.strip(), self.sql, space, access, columns)
