"""Sources of Currents files: the newest of each, and the runs of one."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.events.report import OUTCOMES
from airflow_provider_heapbraze.events.source_ledger import Commit
from airflow_provider_heapbraze.ledger_check.account import DAMAGED, UNFINISHED, WHOLE, as_time
from airflow_provider_heapbraze.ledger_check.sources import GROUP, found_source
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, files, log_name, numbers
from airflow_provider_heapbraze.overview.summary import FINISHED, OPEN, Past, Run, Summary

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from airflow_provider_heapbraze.events.source_ledger import SourceLedger

RUNS_IN_TREND = 10
# What a page reads of a report.
OF_A_REPORT = {
    *("run_id", "finished_at", "seconds", "requests", "events", "files", "filtered_by", "rejected_by"),
    *OUTCOMES,
}


def summarise(root: Path, name: str) -> Summary:
    """Look at the newest entry of a source, and at its newest reports.

    :param root: folder of all ledgers.
    """
    ledger = found_source(root, name)
    reports = [report for path in _newest_reports(ledger, RUNS_IN_TREND) if (report := _report(ledger, path))]
    newest = reports[-1] if reports else {}
    about = _read(ledger, "source.json") or {}
    source = str(about.get("source", ""))
    run_id, state = _newest_run(ledger)
    found = numbers(ledger.path("log"))
    return Summary(
        group=GROUP,
        folder=name,
        number=found[-1] if found else 0,
        state=state,
        kind="source",
        name=" ".join(filter(None, (source.rstrip("/").rpartition("/")[2] or name, about.get("hours")))),
        key=source,
        run_id=run_id or str(newest.get("run_id", "")),
        at=_at(ledger, newest, run_id, found),
        past=[Past(report["run_id"], report["sent"]) for report in reports],
        events=_events(newest) if newest else None,
    )


def runs(root: Path, name: str, limit: int, pool: Executor) -> list[Run]:
    """Return the newest runs of a source, the newest first; without those that cannot be read.

    :param root: folder of all ledgers.
    :param limit: how many that ended are read.
    :param pool: reads several at once.
    """
    ledger = found_source(root, name)
    names = _newest_reports(ledger, limit)[::-1]
    reports = zip(names, pool.map(lambda path: _report(ledger, path), names), strict=True)
    ended = [
        Run(int(path[8:16]), report["run_id"], FINISHED, report["finished_at"], report)
        for path, report in reports
        if report
    ]
    run_id, state = _newest_run(ledger)
    if state == UNFINISHED:
        found = numbers(ledger.path("log"))
        ended.insert(0, Run(found[-1], run_id, OPEN, _at(ledger, {}, run_id, found)))
    return ended


def run_of(root: Path, name: str, run_id: str, pool: Executor) -> Run | None:
    """Return the newest that a run did; None where it did nothing, or never came so far.

    :param root: folder of all ledgers.
    :param pool: reads several at once.
    """
    return next((run for run in runs(root, name, sys.maxsize, pool) if run.run_id == run_id), None)


def _newest_run(ledger: SourceLedger) -> tuple[str, str]:
    """Return the newest run and the state of the record."""
    try:
        entries = ledger.entries()
    except LedgerDamagedError:
        return "", DAMAGED
    if not entries:
        return "", UNFINISHED
    ended = isinstance(entries[-1], Commit) and entries[-1].report
    return entries[-1].run_id, WHOLE if ended else UNFINISHED


def _newest_reports(ledger: SourceLedger, limit: int) -> list[str]:
    """Return the names of the newest reports, oldest first."""
    return [f"reports/{path.name}" for path in files(ledger.path("reports"))[-limit:]]


def _events(report: dict[str, Any]) -> dict[str, int]:
    counts = {name: int(report.get(name, 0)) for name in ("events", *OUTCOMES, "files")}
    return {**counts, "set_aside": len(report.get("set_aside", []))}


def _at(ledger: SourceLedger, newest: dict[str, Any], run_id: str, found: list[int]) -> str:
    """Return when the newest run ended, or was last at work."""
    if newest.get("finished_at") and newest.get("run_id") == run_id:
        return str(newest["finished_at"])
    if not found:
        return ""
    entry = log_name(found[-1])
    at = as_time(ledger, entry, "at") or storage.changed_at(ledger.path(entry))
    return at.isoformat(timespec="seconds")


def _report(ledger: SourceLedger, name: str) -> dict[str, Any] | None:
    """Read a report; None where a page could not show it."""
    report = _read(ledger, name)
    return report if report and report.keys() >= OF_A_REPORT else None


def _read(ledger: SourceLedger, name: str) -> dict[str, Any] | None:
    """Read a record; None where it is missing or damaged."""
    with suppress(LedgerDamagedError):
        return ledger.read(name)
    return None
