"""What a ledger knows of the segments that Heap pushes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.ledger_check.account import Account
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, LedgerFolder
from airflow_provider_heapbraze.membership.tables import workspace
from airflow_provider_heapbraze.segments_sync.record import SegmentLedger

if TYPE_CHECKING:
    from pathlib import Path

GROUP = "segment-syncs"


def check_segment_sync(root: Path, name: str) -> Account:
    """Look at one pushed segment.

    :param root: folder of all ledgers.
    """
    account = Account(GROUP, name)
    ledger: LedgerFolder = LedgerFolder(
        root / GROUP / name, way_on="remove segment.json: the next run writes it anew."
    )
    try:
        about = ledger.read("segment.json")
        ledger = SegmentLedger(root, about["landing"], about["segment_id"])
        if ledger.folder.name != name:
            raise ledger.damaged("segment.json is about another folder")
        with workspace() as space:
            snapshot = ledger.newest(space)
            ledger.pending(space)
    except LedgerDamagedError as damage:
        account.find_damage(ledger, damage)
        return account
    except KeyError:
        account.find("segment.json is of a form that this version does not know", ledger.way_on)
        return account
    account.size, account.runs = snapshot.present, snapshot.number
    if snapshot.as_of:
        account.at = datetime.fromtimestamp(snapshot.as_of / 1000, UTC)
    return account
