"""What a task read and wrote, for OpenLineage: which datasets, and how many rows.

============================  ===============================  ==========================================
dataset                       namespace                        name
============================  ===============================  ==========================================
files, and the ledger's       ``s3://bucket``, or ``file``     their path, up to the first wildcard
what Segments Sync pushed     the same                         ``<path>#segment=<segment id>``
a warehouse's table           as its provider has it           ``database.schema.table``
a query of unknown tables     ``airflow://connection``         the connection's id
a cohort, attribute, segment  ``braze://<REST endpoint>``      ``cohort/<cohort id>``, …
a property, all events        ``heap://<environment's hash>``  ``property/<name>``, ``events``
============================  ===============================  ==========================================

Names stay the same from run to run, so that runs meet in one graph, and those of files and tables are the
ones that other tools give them. Nothing private is in them: no connection of a location, no app id, and no
query: what it compares with may be a person's, so its text is not sent either.

``apache-airflow-providers-openlineage`` need not be installed: it is imported where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_heapbraze.members import SqlMembers


@dataclass(frozen=True)
class Place:
    """A dataset.

    :param rows: how many were read there, or written; None where nobody knows.
    :param files: how many files were read.
    """

    namespace: str
    name: str
    rows: int | None = None
    files: int | None = None


@dataclass(frozen=True)
class Flow:
    """What a task reads and what it writes."""

    reads: tuple[Place, ...] = ()
    writes: tuple[Place, ...] = ()

    def counted(self, read: int, *written: int | None) -> Flow:
        """Return it with the rows that were read in all, and those that were written to each dataset.

        Of a dataset with None, for example the ledger after a verification, there are no rows to tell.

        Which of several datasets how many rows came from, nobody knows.
        """
        reads = (
            tuple(replace(place, rows=read) for place in self.reads) if len(self.reads) == 1 else self.reads
        )
        counts = zip(self.writes, written, strict=True)
        return Flow(reads, tuple(replace(place, rows=rows) for place, rows in counts))


def located(uri: str) -> Place:
    """Return the dataset at a location, without the connection that may be in it."""
    scheme, _, rest = uri.partition("://") if "://" in uri else ("file", "", uri)
    fixed = re.split(r"/[^/]*[*?\[]", rest, maxsplit=1)[0]
    if scheme in {"file", "local"}:
        return Place("file", fixed)
    bucket, _, key = fixed.partition("/")
    return Place(f"{scheme}://{bucket.rpartition('@')[2]}", key.strip("/") or "/")


def in_braze(base_url: str, kind: str, name: str) -> Place:
    """Return the dataset of a cohort, an attribute or a segment in Braze."""
    return Place(f"braze://{urlsplit(base_url).netloc}", f"{kind}/{quote(name, safe='')}")


def in_heap(environment: str, kind: str, name: str = "") -> Place:
    """Return the dataset of a property or of all events in Heap.

    :param environment: the hash that names it.
    """
    return Place(f"heap://{environment}", f"{kind}/{quote(name, safe='')}" if name else kind)


def sources_of(members: Any) -> tuple[Place, ...]:
    """Return the datasets that members come from."""
    from airflow_provider_heapbraze.members import SegmentSyncMembers, SqlMembers

    if isinstance(members, SqlMembers):
        return _tables(members) or (Place("airflow://connection", members.conn_id),)
    path = str(getattr(members, "path", ""))
    if not path:  # a source of the user's own
        return ()
    place = located(path)
    if isinstance(members, SegmentSyncMembers):
        place = replace(place, name=f"{place.name.rstrip('/')}#segment={members.segment_id}")
    return (place,)


def as_xcom(sources: Sequence[Place]) -> list[dict[str, str]]:
    """Return datasets as small JSON, for the tasks that work with what was read there."""
    return [{"namespace": place.namespace, "name": place.name} for place in sources]


def of_xcom(xcom: Any) -> tuple[Place, ...]:
    """Return the datasets that another task's return value names; none where it was an older version's."""
    named = xcom.get("sources") if isinstance(xcom, Mapping) else None
    return tuple(Place(source["namespace"], source["name"]) for source in named or ())


def lineage(flow: Flow) -> OperatorLineage[Any, Any] | None:
    """Return a flow as Airflow's OpenLineage provider takes it; None without that provider."""
    try:
        from airflow.providers.common.compat.openlineage.facet import (
            InputDataset,
            OutputDataset,
            OutputStatisticsOutputDatasetFacet,
        )
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics
    except ImportError:
        return None
    inputs = []
    for place in flow.reads:
        read = statistics.InputStatisticsInputDatasetFacet(rowCount=place.rows, fileCount=place.files)
        known: dict[str, Any] = {} if place.rows is None else {"inputStatistics": read}
        inputs.append(InputDataset(namespace=place.namespace, name=place.name, inputFacets=known))
    outputs = []
    for place in flow.writes:
        written = OutputStatisticsOutputDatasetFacet(rowCount=place.rows)
        known = {} if place.rows is None else {"outputStatistics": written}
        outputs.append(OutputDataset(namespace=place.namespace, name=place.name, outputFacets=known))
    return OperatorLineage(inputs=inputs, outputs=outputs)


def _tables(members: SqlMembers) -> tuple[Place, ...]:
    """Return the tables that a query names, as its database's provider and OpenLineage have them.

    None where a table is without its schema: which one is meant, only the database could tell, and lineage
    opens no connection of its own.
    """
    try:
        from airflow.providers.openlineage.sqlparser import SQLParser
        from airflow.sdk import BaseHook

        connection = BaseHook.get_connection(members.conn_id)
        hook = BaseHook.get_hook(members.conn_id)
        parser = SQLParser(dialect=hook.get_openlineage_database_dialect(connection))
        parsed = parser.parse(members.sql)
        if parsed is None or not all(table.schema for table in parsed.in_tables):
            return ()
        named = parser.generate_openlineage_metadata_from_sql(
            sql=members.sql,
            hook=hook,
            database_info=hook.get_openlineage_database_info(connection),
            use_connection=False,
        )
    except Exception:  # noqa: BLE001 - lineage must not fail what it tells of; the query itself will
        return ()
    return tuple(Place(table.namespace, table.name) for table in named.inputs)
