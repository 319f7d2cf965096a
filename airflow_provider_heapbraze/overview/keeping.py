"""A run keeps what is shown of its record at a glance up to date."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import glances
from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.ledger_check.account import UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_heapbraze.ledger_folder import LedgerFolder

log = logging.getLogger(__name__)


@contextmanager
def kept_in_view(ledger: LedgerFolder) -> Iterator[None]:
    """Write down how a record is when what is done to it has ended, or was stopped by a guard.

    :param ledger: of the record.
    """
    try:
        yield
    except HeapBrazeError:
        keep_in_view(ledger)
        raise
    keep_in_view(ledger)


def keep_in_view(ledger: LedgerFolder) -> None:
    """Write down how a record is; a run that has done its work does not fail for want of it."""
    # Parsing a DAG file must not load what reads both kinds of records.
    from airflow_provider_heapbraze.overview.records import summarise

    try:
        at = glances.now()
        folder = ledger.folder
        summary = summarise(folder.parent.parent, folder.parent.name, folder.name)
        # Whoever is at work, or died, said so: its log has the word.
        if summary.state != UNFINISHED:
            glances.keep(folder, summary.number, at, asdict(summary))
    except Exception:
        log.exception("What the overview shows is read from the log instead; nothing else is missing.")
