"""Cohorts, attributes and properties: the newest of each, and the runs of one."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_check.account import DAMAGED, UNFINISHED, WHOLE
from airflow_provider_heapbraze.ledger_check.targets import GROUP
from airflow_provider_heapbraze.ledger_check.waiting import newest_draft
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, log_name
from airflow_provider_heapbraze.membership.entries import RUNS_COMPARED
from airflow_provider_heapbraze.membership.ledger import found_target
from airflow_provider_heapbraze.overview.summary import (
    DRAFTED,
    FINISHED,
    OPEN,
    TAKEN_OVER,
    Past,
    Run,
    Summary,
    Verified,
    Waiting,
    as_iso,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Executor
    from pathlib import Path

    from airflow_provider_heapbraze.ledger_check.waiting import Draft
    from airflow_provider_heapbraze.membership.ledger import TargetLedger

Record = dict[str, Any]
RECORD = re.compile(r"^[0-9]{8}-.*\.json$", re.MULTILINE)
# What a page reads of a report.
OF_A_REPORT = {"waterfall", "size", "requests", "seconds", "finished_at", "run_id"}
AT_A_TIME = 64


def summarise(root: Path, name: str) -> Summary:
    """Look at the newest entry of a target, and at what it names.

    :param root: folder of all ledgers.
    """
    ledger = found_target(root, name)
    found = ledger.log_numbers()
    last = found[-1] if found else 0
    number, entry = _newest_entry(ledger, found)
    draft = newest_draft(ledger, last + 1)
    if not found and draft:
        number, entry = 0, draft.plan
    ended = entry.get("kind") == "commit"
    report = _read(ledger, entry["report"]) if ended else None
    plan = _read(ledger, log_name(number - 1)) if ended else entry or None
    about = (report or {}).get("target") or _read(ledger, "target.json") or {}
    run = Run(number, entry.get("run_id", ""), "", "", report, plan)
    place = {key: value for key, value in about.items() if key != "kind"}
    key = next(reversed(place.values()), "")
    whole = number == last and _has_no_gap(found) and _is_there(ledger, entry, report)
    return Summary(
        group=GROUP,
        folder=name,
        number=last,
        state=_state(entry) if whole else DAMAGED,
        kind=about.get("kind", ""),
        name=entry.get("name") or key or name,
        key=key,
        host=next(iter(place.values()), ""),
        run_id=run.run_id,
        at=_at(ledger, entry, report, number),
        size=entry.get("size", entry.get("held")),
        adds=run.adds if report else None,
        removes=run.removes if report else None,
        match_rate=run.match_rate,
        past=_past(ledger, found),
        verified=newest_verification(ledger),
        waiting=Waiting(draft.plan.get("run_id", ""), draft.at) if draft else None,
    )


def newest_verification(ledger: TargetLedger) -> Verified | None:
    """Return what the newest look found; None where nobody looked, or its record cannot be read."""
    names = _records(ledger, "verifications")
    last = max(names, default="")[:8]
    return _verified(ledger, [name for name in names if name.startswith(last)]) if names else None


def runs(root: Path, name: str, limit: int, pool: Executor) -> list[Run]:
    """Return the newest runs of a target, the newest first; without those that cannot be read.

    :param root: folder of all ledgers.
    :param limit: how many entries of the log are read; a run that ended has two.
    :param pool: reads several at once.
    """
    ledger = found_target(root, name)
    found = ledger.log_numbers()[::-1]
    entries = _entries(ledger, found[:limit], pool)
    draft = newest_draft(ledger, (found[0] if found else 0) + 1)
    drafted = [_drafted(draft)] if draft else []
    return [*drafted, *_runs(ledger, entries, found[0] if found else 0, pool)]


def run_of(root: Path, name: str, run_id: str, pool: Executor) -> Run | None:
    """Return the newest that a run did to a target; None where it did nothing, or never came so far.

    :param root: folder of all ledgers.
    :param pool: reads several at once.
    """
    ledger = found_target(root, name)
    found = ledger.log_numbers()[::-1]
    draft = newest_draft(ledger, (found[0] if found else 0) + 1, run_id)
    if draft:
        return _drafted(draft)
    for start in range(0, len(found), AT_A_TIME):
        # One more: the plan of the oldest commit among them.
        entries = _entries(ledger, found[start : start + AT_A_TIME + 1], pool)
        own = {number: entry for number, entry in entries.items() if entry.get("run_id") == run_id}
        if own:
            of_a_run = {number: own[number] for number in sorted(own, reverse=True)[:2]}
            return next(iter(_runs(ledger, of_a_run, found[0], pool)), None)
    return None


def _runs(ledger: TargetLedger, entries: Mapping[int, Record], newest: int, pool: Executor) -> Iterator[Run]:
    """Give the run of every commit, and of every plan that was not carried out."""
    commits = {number: entry for number, entry in entries.items() if entry.get("kind") == "commit"}
    reports = pool.map(lambda entry: _read_report(ledger, entry), commits.values())
    reported = dict(zip(commits, reports, strict=True))
    verified = _verifications(ledger, commits, pool)
    for number, entry in entries.items():
        run_id = str(entry.get("run_id", ""))
        if number in commits:
            report = reported[number]
            at = str((report or {}).get("finished_at", ""))
            plan = entries.get(number - 1)
            yield Run(number, run_id, FINISHED, at, report, plan, verified.get(number))
        elif entry.get("kind") == "plan" and number + 1 not in commits:
            state = OPEN if number == newest else TAKEN_OVER
            yield Run(number, run_id, state, as_iso(entry.get("opened_at", 0)), plan=entry)


def _drafted(draft: Draft) -> Run:
    plan = draft.plan
    run_id = str(plan.get("run_id", ""))
    return Run(plan["number"], run_id, DRAFTED, draft.at, plan=plan, judgement=draft.judgement)


def _entries(ledger: TargetLedger, wanted: Iterable[int], pool: Executor) -> dict[int, Record]:
    """Read entries of the log, without those that cannot be read."""
    wanted = list(wanted)
    read = pool.map(lambda number: _read(ledger, log_name(number)), wanted)
    return {number: entry for number, entry in zip(wanted, read, strict=True) if entry}


def _verifications(ledger: TargetLedger, commits: Iterable[int], pool: Executor) -> dict[int, Verified]:
    """Return the last verification of each entry that has one."""
    names: dict[int, list[str]] = {number: [] for number in commits}
    for name in _records(ledger, "verifications"):
        names.get(int(name[:8]), []).append(name)
    wanted = {number: found for number, found in names.items() if found}
    read = pool.map(lambda found: _verified(ledger, found), wanted.values())
    return {number: verified for number, verified in zip(wanted, read, strict=True) if verified}


def _verified(ledger: TargetLedger, names: list[str]) -> Verified | None:
    """Return what the last one of some verifications of one entry found; None where it cannot be read."""
    name = names[0]
    if len(names) > 1:  # which the names do not tell
        name = max(names, key=lambda name: storage.changed_at(ledger.path(f"verifications/{name}")))
    record = _read(ledger, f"verifications/{name}")
    return Verified.of(int(name[:8]), record) if record else None


def _newest_entry(ledger: TargetLedger, found: list[int]) -> tuple[int, Record]:
    """Return the newest entry of a run that can be read, with its number; nothing where there is none."""
    for number in reversed(found):
        entry = _read(ledger, log_name(number))
        if entry and entry.get("kind") in {"plan", "commit"}:
            return number, entry
    return 0, {}


def _past(ledger: TargetLedger, found: list[int]) -> list[Past]:
    """Return what the last runs left, oldest first; of many unfinished plans, fewer."""
    past: list[Past] = []
    plans = set()
    for number in reversed(found[-2 * RUNS_COMPARED :]):
        # Before a commit is its plan: it need not be read.
        entry = None if number in plans else _read(ledger, log_name(number))
        if entry and entry.get("kind") == "commit":
            past.insert(0, Past(entry["run_id"], entry["size"]))
            plans.add(number - 1)
    return past


def _has_no_gap(found: list[int]) -> bool:
    return not found or found[-1] - found[0] + 1 == len(found)


def _is_there(ledger: TargetLedger, entry: Record, report: Record | None) -> bool:
    """Tell whether the files are there that a commit names."""
    if entry.get("kind") != "commit":
        return True
    snapshot = entry["snapshot"]
    return report is not None and (snapshot is None or ledger.path(snapshot).exists())


def _state(entry: Record) -> str:
    return WHOLE if entry.get("kind") == "commit" else UNFINISHED


def _at(ledger: TargetLedger, entry: Record, report: Record | None, number: int) -> str:
    at = (report or {}).get("finished_at") or as_iso(entry.get("opened_at", 0))
    if at or not number:
        return str(at)
    return storage.changed_at(ledger.path(log_name(number))).isoformat(timespec="seconds")


def _records(ledger: TargetLedger, folder: str) -> list[str]:
    """Return the names of the records in a folder that belong to an entry, in no order."""
    return RECORD.findall("\n".join(storage.names(ledger.path(folder))))


def _read_report(ledger: TargetLedger, commit: Record) -> Record | None:
    """Read the report of a commit; None where a page could not show it."""
    report = _read(ledger, str(commit.get("report", "")))
    return report if report and report.keys() >= OF_A_REPORT else None


def _read(ledger: TargetLedger, name: str) -> Record | None:
    """Read a record; None where it is missing or damaged."""
    with suppress(LedgerDamagedError):
        return ledger.read(name)
    return None
