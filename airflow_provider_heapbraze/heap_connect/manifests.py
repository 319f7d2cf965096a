"""Which dumps there are, and what each says it holds.

A manifest is the only sign that a dump is complete::

    <root>/manifests/sync_<dump_id>.json
    <root>/sync_<dump_id>/<table>/part-00000-<guid>-c000.avro
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import TransientError

if TYPE_CHECKING:
    from pathlib import Path

NAME = re.compile(r"sync_(\d{1,18})\.json")
# About the tables, not of them: Heap's own.
NOT_A_TABLE = "_event_metadata"


class Table(msgspec.Struct, frozen=True):
    """A table of a dump.

    :param files: where Heap wrote its parts.
    :param incremental: whether it adds to the dumps before; else it takes the place of all of them.
    :param columns: what its rows may have.
    """

    name: str
    files: tuple[str, ...]
    incremental: bool
    columns: tuple[str, ...] = ()


class _Content(msgspec.Struct):
    tables: list[Table]


@dataclass(frozen=True)
class Manifest:
    """What a dump holds.

    :param dump_id: grows from dump to dump, with gaps.
    :param path: of the manifest itself.
    """

    dump_id: int
    path: Path

    def tables(self) -> list[Table]:
        """Read which tables the dump has.

        :raises TransientError: it is gone, or is not a manifest of Heap Connect; one that is still being
            copied will be.
        """
        content = None
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, FileNotFoundError):
            content = msgspec.json.decode(self.path.read_bytes(), type=_Content)
        if content is None:
            raise TransientError(
                f"{storage.uri(self.path)} is no manifest of Heap Connect, or not all of it is there. "
                "Nothing was sent. If the dump is still being copied, a later try finds it whole; else copy "
                "it again from Heap's bucket."
            )
        return [table for table in content.tables if not table.name.endswith(NOT_A_TABLE)]


def find_manifests(root: Path) -> list[Manifest]:
    """Return the manifests of all complete dumps, oldest first: by number, not by name.

    :param root: folder that holds ``manifests``.
    """
    found = [(NAME.fullmatch(path.name), path) for path, _ in storage.listed(root / "manifests")]
    return sorted(
        (Manifest(int(match[1]), path) for match, path in found if match),
        key=lambda manifest: manifest.dump_id,
    )
