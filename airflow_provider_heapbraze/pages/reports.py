"""What a run did as one HTML file that needs nothing else: to keep, to send, to read without Airflow."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.pages.rendering import render
from airflow_provider_heapbraze.pages.waterfall import events, membership

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)


def keep_beside(path: Path, report: Mapping[str, Any], page: Callable[[Mapping[str, Any]], bytes]) -> None:
    """Write the page of a report beside it; a run that has done its work does not fail for want of it.

    :param path: of the report.
    :param page: makes the page of the report.
    """
    try:
        storage.write_new(path.with_suffix(".html"), page(report))
    except Exception:
        log.exception("The report has no HTML beside it; nothing else is missing.")


def membership_report(report: Mapping[str, Any]) -> bytes:
    """Return the page of a membership run.

    :param report: as the ledger has it.
    """
    title = report.get("name") or next(reversed(report["target"].values()))
    return _page(title, report, membership(report["waterfall"]), report["waterfall"])


def export_report(report: Mapping[str, Any]) -> bytes:
    """Return the page of an export.

    :param report: as the ledger has it.
    """
    title = report["source"].rstrip("/").rpartition("/")[2]
    return _page(title, report, events(report), None)


def _page(title: str, report: Mapping[str, Any], falls: list[Any], counts: Any) -> bytes:
    return render("report.html", title=title, report=report, falls=falls, counts=counts).encode()
