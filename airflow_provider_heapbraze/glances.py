"""What a page shows of every record, in one folder: one listing says what has changed.

::

    glances/<group>~<record>~<entry>~<time>~known.json    the record, as of that entry of its log
    glances/<group>~<record>~<entry>~<time>~begun.json    somebody is about to write: its log has the word

The newest counts: the highest entry, and of one entry the latest time. Whoever writes to a record writes
*begun* before, and *known* after. So where the newest is *known*, its log has nothing newer, whoever was
killed and whenever; where it is *begun*, or there is none, the log is read.

None of this is the truth, which is the log: the folder may be removed at any time.

Beside the layers, like :mod:`.ledger_folder`: both engines say here that they begin.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import FORMAT, LedgerDamagedError, LedgerFolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER = "glances"
NAME = re.compile(
    r"^((targets|sources)~([A-Za-z0-9_.-]+)~[0-9]{8}~[0-9]{20}~(?:begun|known)\.json)$", re.MULTILINE
)
KNOWN = "~known.json"

Key = tuple[str, str]


def announce(folder: Path, number: int) -> None:
    """Say that an entry of a record's log, or what belongs to it, is about to be written.

    :param folder: of the record; a path with pathlib's interface.
    :param number: of the entry.
    :raises OSError: it cannot be said, and must not be done.
    """
    _write(folder.parent.parent / FOLDER / f"{_prefix(folder)}{number:08d}~{now()}~begun.json", {})


def keep(folder: Path, number: int, at: str, record: Mapping[str, Any]) -> None:
    """Write down how a record is, and remove what was said of it before.

    :param number: of its newest entry.
    :param at: when it was looked at: :func:`now` of the moment before.
    :raises OSError: it cannot be written.
    """
    glances = folder.parent.parent / FOLDER
    name = f"{_prefix(folder)}{number:08d}~{at}{KNOWN}"
    _write(glances / name, record)
    for other in storage.names(glances):
        if other.startswith(_prefix(folder)) and other < name:
            (glances / other).unlink(missing_ok=True)


def newest(root: Path) -> dict[Key, str]:
    """Return the name of the newest of each record, by one listing.

    :param root: folder of all ledgers.
    """
    found: dict[Key, str] = {}
    # In one go: there are thousands. Of one record's names, the later one is the greater one.
    for name, group, record in NAME.findall("\n".join(sorted(storage.names(root / FOLDER)))):
        found[group, record] = name
    return found


def is_known(name: str) -> bool:
    """Tell whether this says how a record is; else its log has the word."""
    return name.endswith(KNOWN)


def read(root: Path, name: str) -> dict[str, Any] | None:
    """Return how a record was; None where its log has the word."""
    if not is_known(name):
        return None
    # Removed since it was listed, for a newer one; or damaged.
    with suppress(LedgerDamagedError):
        return LedgerFolder(root / FOLDER, way_on="").read(name)
    return None


def now() -> str:
    """Return the present moment as it stands in names: nanoseconds since 1970."""
    return f"{time.time_ns():020d}"


def _write(path: Path, record: Mapping[str, Any]) -> None:
    """Write by a name that nobody else writes: nothing has to be taken."""
    storage.write(path, json.dumps({"format": FORMAT, **record}, separators=(",", ":")).encode())


def _prefix(folder: Path) -> str:
    return f"{folder.parent.name}~{folder.name}~"
