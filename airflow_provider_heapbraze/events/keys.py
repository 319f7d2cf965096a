"""Many numbers in little room: sorted lists of eight bytes each, in memory and in files."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from heapq import merge
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Keys = array  # of type "q", rising


class DamagedKeysError(OSError):
    """A file does not hold what was written."""


def contains(keys: Keys[int], key: int) -> bool:
    """Tell whether a number is among sorted ones."""
    place = bisect_left(keys, key)
    return place < len(keys) and keys[place] == key


def merged(keys: Keys[int], more: Iterable[int]) -> Keys[int]:
    """Return sorted numbers with some more, each once."""
    whole: Keys[int] = array("q")
    for key in merge(keys, sorted(more)):
        if not whole or key != whole[-1]:
            whole.append(key)
    return whole


def write_keys(path: Path, keys: Keys[int]) -> None:
    """Write sorted numbers as a Parquet file of one column, as differences."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with scratch_folder() as folder:
        file = folder / "keys"
        pq.write_table(
            pa.table({"key": pa.array(keys, pa.int64())}),
            file,
            use_dictionary=False,
            compression="none",
            column_encoding={"key": "DELTA_BINARY_PACKED"},
            write_page_checksum=True,
        )
        storage.write_whole(path, file)


def read_keys(path: Path) -> Keys[int]:
    """Read what :func:`write_keys` wrote.

    :raises DamagedKeysError: it does not hold what was written.
    :raises OSError: it is missing, or cannot be read now.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys: Keys[int] = array("q")
    with storage.local_copy(path) as file:
        whole = file.read_bytes()
    try:
        table = pq.read_table(pa.BufferReader(whole), page_checksum_verification=True)
        chunks = table.column("key").cast(pa.int64()).chunks
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DamagedKeysError(f"{path.name} is damaged ({type(error).__name__})") from None
    for chunk in chunks:
        values = chunk.buffers()[1]
        if values is not None:
            start = chunk.offset * keys.itemsize
            keys.frombytes(memoryview(values)[start : start + len(chunk) * keys.itemsize])
    return keys
