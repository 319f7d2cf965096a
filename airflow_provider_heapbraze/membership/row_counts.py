"""How many rows a Parquet file of the ledger has, without reading them, or by reading them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.membership.table_records import SUFFIX, read_record
from airflow_provider_heapbraze.membership.tables import digest, digest_in

if TYPE_CHECKING:
    from pathlib import Path


def rows_in(path: Path, *, every_row: bool = False, expected: str = "") -> int | None:
    """Return how many rows a Parquet file has, by its end; None where it is missing or damaged.

    Of a table in a warehouse it says what is written down of it.

    :param every_row: read them all, and compare the digest: slow, and sees what is damaged within.
    :param expected: the file's digest, where it is known; else its name may end with it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == SUFFIX:
        record = read_record(path, expected or digest_in(path.name))
        return None if record is None else record.rows
    try:
        if every_row:
            return _rows_read(path, expected or digest_in(path.name))
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            return int(file.metadata.num_rows)
    except PermissionError:
        raise
    except (OSError, pa.ArrowException):
        return None


def _rows_read(path: Path, expected: str) -> int | None:
    import pyarrow.parquet as pq

    with storage.local_copy(path) as copy:
        if expected and digest(copy) != expected:
            return None
        with pq.ParquetFile(copy) as file:
            return int(sum(batch.num_rows for batch in file.iter_batches()))
