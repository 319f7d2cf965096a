"""Which files a table's content is in: the newest full dump and every later incremental one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.heap_connect.manifests import find_manifests

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from airflow_provider_heapbraze.heap_connect.manifests import Manifest, Table

MIGRATIONS = "user_migrations"
DUMP_FOLDER = re.compile(r"sync_\d+")
PART = re.compile(r"part-(\d+)")


@dataclass
class Content:
    """Where a table's rows are.

    :param dumps: that the rows are from, newest first.
    :param files: oldest first: by number of the dump, then of the part.
    :param columns: that the manifests name; a table without rows may have no file that does.
    :param complete: whether the oldest of the dumps is a full one.
    """

    name: str
    dumps: list[Manifest] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    complete: bool = False

    def add(self, dump: Manifest, table: Table, root: Path) -> None:
        """Add a dump that is older than those before.

        :raises ConfigurationError: the dump has this table already.
        """
        if dump in self.dumps:
            raise ConfigurationError(
                f"{storage.uri(dump.path)} has the table {table.name} twice; capital letters make no "
                "difference here. Nothing was sent. Have one of them renamed in Heap."
            )
        self.dumps.append(dump)
        self.files[:0] = [_resolved(root, uri, dump) for uri in sorted(table.files, key=_part)]
        self.columns += [column for column in table.columns if column not in self.columns]
        self.complete = not table.incremental


def find_contents(root: Path, tables: Collection[str], perhaps: Collection[str]) -> dict[str, Content]:
    """Find where tables are, by their names in lower case; and the user migrations, where there are any.

    Dumps are read from the newest back, only as far as needed.

    :param root: folder of the dumps and of ``manifests``.
    :param tables: names in lower case.
    :param perhaps: more names, which may be no tables at all.
    :raises ConfigurationError: there is no dump, no such table, or none that was ever dumped in full.
    """
    manifests = find_manifests(root)
    if not manifests:
        raise ConfigurationError(
            f"There is no dump of Heap Connect at {storage.uri(root)}: no manifests/sync_<number>.json. "
            "Nothing was sent. Give HeapConnectMembers the folder that holds manifests, and look whether "
            "Heap has made its first dump."
        )
    found: dict[str, Content] = {}
    for manifest in reversed(manifests):
        _look_into(manifest, root, found)
        wanted = {*tables, MIGRATIONS, *found.keys() & set(perhaps)}
        if all(name in found and found[name].complete for name in wanted):
            break
    contents = {name: found[name] for name in wanted if name in found}
    if contents.keys().isdisjoint({*tables, *perhaps}) and not tables:
        raise ConfigurationError(
            "The query of HeapConnectMembers names no table of the dumps. Nothing was sent. Mend the query."
        )
    _check(root, found, contents, tables)
    return contents


def _look_into(manifest: Manifest, root: Path, found: dict[str, Content]) -> None:
    done = {name for name, content in found.items() if content.complete}
    for table in manifest.tables():
        key = table.name.lower()
        if key not in done:
            found.setdefault(key, Content(table.name)).add(manifest, table, root)


def _check(
    root: Path, found: dict[str, Content], contents: dict[str, Content], tables: Collection[str]
) -> None:
    missing = sorted(set(tables) - contents.keys())
    if missing:
        names = ", ".join(sorted(content.name for content in found.values()))
        raise ConfigurationError(
            f"No dump at {storage.uri(root)} has the table {', '.join(missing)}, which the query of "
            f"HeapConnectMembers names. Its tables: {names or 'none'}. Nothing was sent. Mend the query, or "
            "have the table synced in Heap."
        )
    partial = sorted(content.name for content in contents.values() if not content.complete)
    if partial:
        raise ConfigurationError(
            f"No dump at {storage.uri(root)} has the table {', '.join(partial)} in full, only changes to it: "
            "who is in the segment cannot be known. Nothing was sent. Copy the older dumps there, too, or "
            "ask Heap for a full one."
        )


def _part(uri: str) -> tuple[float, str]:
    name = uri.rpartition("/")[2]
    number = PART.match(name)
    return (int(number[1]) if number else float("inf"), name)


def _resolved(root: Path, uri: str, dump: Manifest) -> Path:
    """Return where a file is here: below the root as it was below the bucket that Heap wrote to."""
    steps = uri.split("/")
    starts = [place for place, step in enumerate(steps[:-2]) if DUMP_FOLDER.fullmatch(step)]
    if not starts or {"", ".", ".."} & set(steps[starts[-1] :]):
        raise ConfigurationError(
            f"{storage.uri(dump.path)} names a file that is not in the folder of a dump, sync_<number>. "
            "Nothing was sent. Copy the manifest again from Heap's bucket."
        )
    return root.joinpath(*steps[starts[-1] :])
