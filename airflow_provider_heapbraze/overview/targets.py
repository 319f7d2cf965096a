"""Cohorts, attributes and properties: the newest of each, and the runs of one."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_check.targets import GROUP, found_target
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError, log_name, numbers
from airflow_provider_heapbraze.overview.summary import (
    DAMAGED,
    DRAFTED,
    FINISHED,
    OPEN,
    TAKEN_OVER,
    UNFINISHED,
    WHOLE,
    Run,
    Summary,
    Verified,
    as_iso,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from airflow_provider_heapbraze.membership.ledger import TargetLedger

Record = dict[str, Any]
RECORD = re.compile(r"^[0-9]{8}-.*\.json$", re.MULTILINE)


def summarise(root: Path, name: str) -> Summary:
    """Look at the newest entry of a target, and at what it names.

    :param root: folder of all ledgers.
    """
    ledger = found_target(root, name)
    found = numbers(ledger.path("log"))
    number = found[-1] if found else 0
    entry, damaged = _newest_entry(ledger, found)
    if entry is None:
        entry = _newest_draft(ledger) or {}
    ended = entry.get("kind") == "commit"
    report = _read(ledger, entry["report"]) if ended else None
    plan = _read(ledger, log_name(entry["number"] - 1)) if ended else entry or None
    about = (report or {}).get("target") or _read(ledger, "target.json") or {}
    run = Run(number, entry.get("run_id", ""), "", "", report, plan)
    place = {key: value for key, value in about.items() if key != "kind"}
    key = next(reversed(place.values()), "")
    return Summary(
        group=GROUP,
        folder=name,
        number=number,
        state=DAMAGED if damaged or not _is_there(ledger, entry, report) else _state(entry),
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
        trend=[size for size, _ in entry.get("past", [])],
        verified=newest_verification(ledger),
    )


def newest_verification(ledger: TargetLedger) -> Verified | None:
    """Return what the newest look found; None where nobody looked, or its record cannot be read."""
    found = max(_records(ledger, "verifications"), default="")
    record = _read(ledger, f"verifications/{found}") if found else None
    return Verified.of(int(found[:8]), record) if record else None


def runs(root: Path, name: str, limit: int, pool: Executor) -> list[Run]:
    """Return the newest runs of a target, the newest first; without those that cannot be read.

    :param root: folder of all ledgers.
    :param limit: how many entries of the log are read; a run that ended has two.
    :param pool: reads several at once.
    """
    ledger = found_target(root, name)
    newest = numbers(ledger.path("log"))[::-1][:limit]
    entries = dict(zip(newest, pool.map(lambda number: _read(ledger, log_name(number)), newest), strict=True))
    commits = {n: entry for n, entry in entries.items() if entry and entry.get("kind") == "commit"}
    reports = dict(
        zip(commits, pool.map(lambda entry: _read(ledger, entry["report"]), commits.values()), strict=True)
    )
    verified = _verifications(ledger, commits, pool)
    found = []
    for number, entry in entries.items():
        if number in commits:
            report = reports[number]
            at = (report or {}).get("finished_at", "")
            plan = entries.get(number - 1)
            found.append(
                Run(number, commits[number]["run_id"], FINISHED, at, report, plan, verified.get(number))
            )
        elif entry and entry.get("kind") == "plan" and number + 1 not in commits:
            state = TAKEN_OVER if number != newest[0] else OPEN
            found.append(Run(number, entry["run_id"], state, as_iso(entry.get("opened_at", 0)), plan=entry))
    return found


def drafted(root: Path, name: str, run_id: str) -> Run | None:
    """Return the newest plan of a run that has no place in the log: a guard stopped it, or it waits."""
    ledger = found_target(root, name)
    number = max(numbers(ledger.path("log")), default=0) + 1
    for plan_id in sorted(storage.names(ledger.path("plans")), reverse=True):
        if not plan_id.startswith(f"{number:08d}-"):
            continue
        plan = _read(ledger, f"plans/{plan_id}/plan.json")
        if plan and plan.get("run_id") == run_id:
            return Run(number, run_id, DRAFTED, "", plan=plan)
    return None


def _verifications(ledger: TargetLedger, commits: dict[int, Record], pool: Executor) -> dict[int, Verified]:
    """Return the last verification of each entry that has one."""
    names = {int(name[:8]): name for name in sorted(_records(ledger, "verifications"))}
    wanted = {number: name for number, name in names.items() if number in commits}
    records = pool.map(lambda name: _read(ledger, f"verifications/{name}"), wanted.values())
    return {n: Verified.of(n, record) for n, record in zip(wanted, records, strict=True) if record}


def _newest_entry(ledger: TargetLedger, found: list[int]) -> tuple[Record | None, bool]:
    """Return the newest entry that can be read, and whether the log is damaged."""
    damaged = bool(found) and found[-1] - found[0] + 1 != len(found)
    for number in reversed(found):
        entry = _read(ledger, log_name(number))
        if entry and entry.get("kind") in {"plan", "commit"}:
            return entry, damaged
        damaged = True
    return None, damaged


def _newest_draft(ledger: TargetLedger) -> Record | None:
    newest = max(storage.names(ledger.path("plans")), default="")
    return _read(ledger, f"plans/{newest}/plan.json") if newest else None


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


def _read(ledger: TargetLedger, name: str) -> Record | None:
    """Read a record; None where it is missing or damaged."""
    with suppress(LedgerDamagedError):
        return ledger.read(name)
    return None
