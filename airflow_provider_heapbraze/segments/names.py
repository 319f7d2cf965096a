"""Which segment is meant, and which Heap property it feeds."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
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
SOURCE = "segment.json"


def find_segment(reads: BrazeReads, name: str) -> str:
    """Return the id of the one segment that has this name, among all of the workspace.

    :raises ConfigurationError: there is none, or more than one.
    :raises HeapBrazeError: as :meth:`BrazeReads.segments`.
    """
    # A segment that is made or removed meanwhile moves others to another page: one may be seen twice, or not.
    ids_by_name = _ids_by_name(reads)
    ids = ids_by_name.get(name) or _ids_by_name(reads).get(name, set())
    if len(ids) == 1:
        return next(iter(ids))
    if ids:
        raise ConfigurationError(
            f"{len(ids)} segments in Braze are called {name!r}: {', '.join(sorted(ids))}. Nothing was sent. "
            "Give the one that you mean as segment_id."
        )
    close = get_close_matches(name, ids_by_name, n=3)
    hint = f" Do you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ConfigurationError(
        f"None of the {len(ids_by_name):,} segments in Braze is called {name!r}.{hint} Nothing was sent. "
        "A name is taken exactly as it is; or give the segment's API identifier as segment_id."
    )


def _ids_by_name(reads: BrazeReads) -> dict[str, set[str]]:
    ids: dict[str, set[str]] = {}
    for segment in reads.segments():
        ids.setdefault(segment.name, set()).add(segment.id)
    return ids


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


@dataclass(frozen=True)
class PropertySource:
    """What feeds a property.

    :param alias_label: whose alias is the identity; None is the external id.
    """

    segment_id: str
    alias_label: str | None

    def check(self, ledger: TargetLedger) -> None:
        """Make sure that nothing else feeds the property: the two would undo each other every day.

        :raises ConfigurationError: something does.
        """
        known = ledger.read(SOURCE) if ledger.path(SOURCE).exists() else asdict(self)
        if known != asdict(self):
            raise ConfigurationError(
                f"The property of {ledger.target.folder} is fed by segment {known['segment_id']} "
                f"(alias_label {known['alias_label']!r}); segment {self.segment_id} (alias_label "
                f"{self.alias_label!r}) would undo it. Nothing was sent. Give property_name, another one "
                f"for each; or, to put the new one in the place of the old one, remove {ledger.uri(SOURCE)}."
            )

    def claim(self, ledger: TargetLedger) -> None:
        """Write down that this feeds the property, right before the first of it is sent.

        :raises ConfigurationError: something else was first.
        """
        with suppress(FileExistsError):  # another task was first
            ledger.describe(SOURCE, asdict(self))
        self.check(ledger)
