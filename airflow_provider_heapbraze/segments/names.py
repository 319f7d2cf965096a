"""Which segment is meant, and which Heap property it feeds."""

from __future__ import annotations

import re
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.ledger_folder import LedgerFolder
from airflow_provider_heapbraze.segments.exports import segment_folder

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads
    from airflow_provider_heapbraze.membership.ledger import TargetLedger

PREFIX = "braze_segment_"
WAY_ON = "remove the file: it is made again."


def find_segment(reads: BrazeReads, name: str) -> str:
    """Return the id of the one segment that has this name, among all of the workspace.

    :raises ConfigurationError: there is none, or more than one.
    :raises HeapBrazeError: as :meth:`BrazeReads.segments`.
    """
    ids_by_name: dict[str, list[str]] = {}
    for segment in reads.segments():
        ids_by_name.setdefault(segment.name, []).append(segment.id)
    ids = ids_by_name.get(name, [])
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise ConfigurationError(
            f"{len(ids)} segments in Braze are called {name!r}: {', '.join(ids)}. Nothing was sent. Give "
            "the one that you mean as segment_id."
        )
    close = get_close_matches(name, ids_by_name, n=3)
    hint = f" Do you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ConfigurationError(
        f"None of the {len(ids_by_name):,} segments in Braze is called {name!r}.{hint} Nothing was sent."
    )


def usual_property(root: Path, reads: BrazeReads, base_url: str, segment_id: str) -> str:
    """Return the property that a segment feeds where nobody says: ``braze_segment_<its name>``.

    It is the name that the segment had at first: one that is renamed goes on feeding the same property, since
    the old one would stay as it is for good.

    :param root: folder of all ledgers.
    :raises ConfigurationError: there is no such segment.
    """
    record = LedgerFolder(root / segment_folder(base_url, segment_id), way_on=WAY_ON)
    if not record.path("property.json").exists():
        slug = re.sub(r"\W+", "_", reads.segment_name(segment_id).lower()).strip("_") or segment_id
        with suppress(FileExistsError):  # another task was first
            record.describe("property.json", {"property": f"{PREFIX}{slug}"})
    return str(record.read("property.json")["property"])


def check_only_source(ledger: TargetLedger, segment_id: str) -> None:
    """Make sure that a property is fed by one segment only: two would undo each other every day.

    :raises ConfigurationError: another segment feeds it.
    """
    with suppress(FileExistsError):  # another task was first
        ledger.describe("segment.json", {"segment_id": segment_id})
    known = str(ledger.read("segment.json")["segment_id"])
    if known != segment_id:
        raise ConfigurationError(
            f"The property of {ledger.target.folder} is fed by segment {known}; segment {segment_id} would "
            "undo it. Nothing was sent. Give property_name, another one for each segment."
        )
