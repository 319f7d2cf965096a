"""Tables of the ledger that are in a warehouse: a small file stands for each."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUFFIX = ".json"


@dataclass(frozen=True)
class TableRecord:
    """Where a table is.

    :param engine: the Airflow connection of the warehouse.
    :param table: its name, in the schema of ours.
    :param columns: names of its columns.
    :param rows: how many rows it has.
    :param digest: of the Parquet file that has the same rows; empty where there is none.
    """

    engine: str
    table: str
    columns: Sequence[str]
    rows: int
    digest: str = ""

    def written(self) -> bytes:
        """Return what the file holds."""
        return json.dumps(asdict(self), indent=1).encode()

    def own_digest(self) -> str:
        """Return the digest of the file."""
        return _digest(self.written())


def read_record(path: Path, expected: str = "") -> TableRecord | None:
    """Read the file of a table; None where it is missing or damaged.

    :param expected: the file's digest, where it is known.
    """
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        data = path.read_bytes()
        if not expected or _digest(data) == expected:
            return TableRecord(**json.loads(data))
    return None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
