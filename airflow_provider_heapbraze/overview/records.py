"""Cohorts, attributes, properties and sources alike: what the log says of one record."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.ledger_check.account import DAMAGED
from airflow_provider_heapbraze.ledger_check.targets import GROUP as TARGETS
from airflow_provider_heapbraze.overview.summary import Summary

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


def summarise(root: Path, group: str, name: str) -> Summary:
    """Look at a record; one that says what this version does not understand is damaged.

    :param root: folder of all ledgers.
    :param group: ``targets`` or ``sources``.
    :raises OSError: the ledger cannot be read.
    """
    try:
        return _summarise(root, group, name)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # One record that somebody wrote by hand must not take all others away.
        log.warning("%s/%s in the ledger cannot be understood (%s).", group, name, type(error).__name__)
        return Summary(group, name, 0, DAMAGED)


def _summarise(root: Path, group: str, name: str) -> Summary:
    # A task of one engine does not load the other.
    if group == TARGETS:
        from airflow_provider_heapbraze.overview import targets

        return targets.summarise(root, name)
    from airflow_provider_heapbraze.overview import sources

    return sources.summarise(root, name)
