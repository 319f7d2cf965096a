"""The targets of a ledger: cohorts, attributes and properties."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.ledger_check.account import Account, WaitingPlan, as_time
from airflow_provider_heapbraze.ledger_check.waiting import newest_draft, what_waits
from airflow_provider_heapbraze.ledger_folder import (
    LedgerDamagedError,
    UnbalancedError,
    files,
    log_name,
)
from airflow_provider_heapbraze.membership.attempts import last_sign_of_life
from airflow_provider_heapbraze.membership.decisions import approval_of
from airflow_provider_heapbraze.membership.entries import Commit, Plan, Target
from airflow_provider_heapbraze.membership.ledger import TARGETS, found_target
from airflow_provider_heapbraze.membership.matching import IDENTIFIERS, find_match, match_folder
from airflow_provider_heapbraze.membership.report import waterfall
from airflow_provider_heapbraze.membership.row_counts import rows_in
from airflow_provider_heapbraze.membership.table_records import SUFFIX, read_record

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.membership.entries import Abandon, Entry, Settled
    from airflow_provider_heapbraze.membership.ledger import TargetLedger

GROUP = TARGETS
# Whoever is at work writes down what was answered every second, where anything was.
AT_WORK_WITHIN = 60.0


def check_target(root: Path, name: str, *, deep: bool) -> Account:
    """Look at one target.

    :param root: folder of all ledgers.
    :param deep: at every run that there was, and at every row; else at what the next run needs.
    """
    ledger = found_target(root, name)
    account = Account(GROUP, name)
    _check_description(ledger, account)
    found = ledger.log_numbers()
    account.runs = len(set(_reported(ledger)) & set(found))
    _describe_newest(ledger, account, found)
    try:
        last = ledger.last()
        _describe_waiting(ledger, account, last.number if last else 0)
        if last is None and account.waiting is None:
            account.next.append(
                "A plan was drafted, or a run died before its first entry: nothing was sent. The next run "
                "begins anew."
            )
        elif isinstance(last, Commit):
            _check_commit(ledger, account, last, every_row=deep)
        elif last is not None:
            _check_open_plan(root, ledger, account, last, every_row=deep)
        _check_decisions(ledger, account, last)
    except LedgerDamagedError as damage:
        account.find_damage(ledger, damage)
    if deep:
        _check_every_run(ledger, account, found[:-1])
    return account


def _check_description(ledger: TargetLedger, account: Account) -> None:
    try:
        place = ledger.read("target.json")
        described = Target(place.pop("kind", ""), place).folder if place else ""
    except LedgerDamagedError as damage:
        described, what = "", damage.what
    else:
        what = "target.json is about another target"
    if described != account.name:
        account.find(what, "Runs do not need it. Remove it: the next run writes it anew.")


def _reported(ledger: TargetLedger) -> list[int]:
    """Return the numbers of entries that have a report."""
    names = (path.name[:8] for path in files(ledger.path("reports")))
    return [int(name) for name in names if name.isdigit()]


def _describe_newest(ledger: TargetLedger, account: Account, found: list[int]) -> None:
    """Say who ran last, as far as the log can be read."""
    for number in reversed(found):
        entry = _entry(ledger, number)
        if entry is not None:
            account.newest_run = entry.run_id
            account.at = _at(ledger, entry)
            return


def _at(ledger: TargetLedger, entry: Entry | Abandon) -> datetime | None:
    """Return when a run ended; of one that did not, when it opened its plan."""
    if isinstance(entry, Commit):
        ended = as_time(ledger, entry.report, "finished_at")
        return ended or as_time(ledger, log_name(entry.number - 1), "opened_at")
    return as_time(ledger, log_name(entry.number), "opened_at")


def _describe_waiting(ledger: TargetLedger, account: Account, last: int) -> None:
    """Say which plan waits: its run is newer than the log."""
    draft = newest_draft(ledger, last + 1)
    if draft is None:
        return
    try:
        plan = ledger.read_draft(draft.plan["plan_id"])
    except (KeyError, LedgerDamagedError):
        return  # its import would stop, and a new plan is made by the next run
    said = what_waits(plan, draft.judgement)
    account.waiting = WaitingPlan(plan.plan_id, plan.run_id, said, draft.judgement.shown())
    account.newest_run, account.at = plan.run_id, datetime.fromisoformat(draft.at)


def _entry(ledger: TargetLedger, number: int) -> Entry | Abandon | None:
    try:
        return ledger.entry(number)
    except LedgerDamagedError:
        return None


def _check_commit(ledger: TargetLedger, account: Account, commit: Commit, *, every_row: bool) -> None:
    account.size = commit.size
    _check_table(ledger, account, commit.snapshot, commit.size, every_row=every_row)
    _check_carried(ledger, account, commit, every_row=every_row)
    try:
        report = ledger.read_report(commit.report)
    except LedgerDamagedError as damage:
        what = damage.what
    else:
        whole = report.get("size") == commit.size and report.get("plan_id") == commit.plan_id
        what = "" if whole else f"{commit.report} and {log_name(commit.number)} do not say the same"
    if what:
        account.find(
            what,
            f"The next run does not need it. Before you clear run {commit.run_id}, which would read it, "
            "restore it from a backup of the ledger.",
        )


def _check_open_plan(
    root: Path, ledger: TargetLedger, account: Account, plan: Plan, *, every_row: bool
) -> None:
    settled = ledger.settled(plan.plan_id)
    account.size, account.planned, account.settled = plan.held, plan.rows, settled.rows
    _check_table(ledger, account, plan.base, plan.held, every_row=every_row)
    _check_table(ledger, account, plan.changes, plan.rows, every_row=every_row, digest=plan.digest)
    _check_carried(ledger, account, plan, every_row=every_row)
    _check_settled(ledger, account, plan, settled)
    if not account.findings:
        account.next.append(_what_is_next(ledger, plan, settled))
        _check_match(root, account, plan, every_row=every_row)


def _rows_in(account: Account, path: Path, *, every_row: bool, expected: str = "") -> int | None:
    """Count the rows of a table; of one in a warehouse, as they are written down, and note where it is."""
    if path.suffix == SUFFIX and (record := read_record(path)):
        account.warehouses.add(record.engine)
    return rows_in(path, every_row=every_row, expected=expected)


def _check_carried(ledger: TargetLedger, account: Account, entry: Entry, *, every_row: bool) -> None:
    """Look whether what a run hands on to the next one is there."""
    for file in entry.memory.carried.values():
        if _rows_in(account, ledger.path(file), every_row=every_row) is None:
            account.find_damage(ledger, ledger.damaged(f"{file} is missing or cannot be read"))


def _check_decisions(ledger: TargetLedger, account: Account, last: Entry | None) -> None:
    """Look whether what was decided about plans that may still be carried out can be read."""
    for plan_id in ledger.drafts(after=last.number if last else 0):
        try:
            approval_of(ledger, plan_id)
        except LedgerDamagedError as damage:
            account.find(damage.what, "Its import stops, and sends nothing. Clear the approval task.")


def _check_table(
    ledger: TargetLedger,
    account: Account,
    name: str | None,
    rows: int,
    *,
    every_row: bool,
    digest: str = "",
) -> None:
    """Look whether a file has as many rows as its entry says; None stands for nobody."""
    there = 0 if name is None else _rows_in(account, ledger.path(name), every_row=every_row, expected=digest)
    if there is None:
        account.find_damage(ledger, ledger.damaged(f"{name} is missing or cannot be read"))
    elif there != rows:
        said = f"{name or 'no snapshot'} has {there:,} rows, the log says {rows:,}"
        account.find_damage(ledger, ledger.damaged(said))


def _check_settled(ledger: TargetLedger, account: Account, plan: Plan, settled: Settled) -> None:
    end = max([stop for _, stop in settled.acknowledged] + [row + 1 for row in settled.rejected], default=0)
    if end > plan.rows:
        said = f"{plan.folder}/settled has answers for {end:,} changes, the plan has {plan.rows:,}"
        account.find_damage(ledger, ledger.damaged(said))


def _what_is_next(ledger: TargetLedger, plan: Plan, settled: Settled) -> str:
    rejected = f" ({len(settled.rejected):,} rejected)" if settled.rejected else ""
    left = plan.rows - settled.rows
    sign = last_sign_of_life(ledger, plan.plan_id)
    if sign is not None and time.time() - sign < AT_WORK_WITHIN:
        begun = f"Run {plan.run_id} may be at work now: it gave a sign of life within the last minute."
        clear = "If it has died, clear its task"
    else:
        begun = f"Run {plan.run_id} has stopped, and left plan {plan.plan_id} unfinished."
        clear = "Clear its task"
    again = f"goes on with the remaining {left:,}" if left else "sends nothing: it writes down what is held"
    return (
        f"{begun} {settled.rows:,} of {plan.rows:,} changes are settled{rejected}. {clear}: with the "
        f"same match it {again}. Any other run takes the plan over, and leaves nobody behind."
    )


def _check_match(root: Path, account: Account, plan: Plan, *, every_row: bool) -> None:
    """Look whether a re-run finds the match that the plan was made from."""
    folder = match_folder(root, plan.fingerprint)
    match = find_match(folder)
    whole = False
    if match is not None:
        rows = {
            name: _rows_in(account, folder / name, every_row=every_row, expected=digest)
            for name, digest in match.digests.items()
        }
        matched = rows.get(match.file_of(IDENTIFIERS) or "")
        whole = None not in rows.values() and matched == match.counts["matched"]
    if not whole:
        account.find(
            f"matches/{plan.fingerprint}, of which run {plan.run_id} made its plan, is missing or damaged",
            f"Clear the match task of run {plan.run_id} before its import: it makes the match again.",
        )


def _check_every_run(ledger: TargetLedger, account: Account, found: list[int]) -> None:
    """Look at what the present state does not need: whoever wants to go back to a run does."""
    for number in found:
        entry = _entry(ledger, number)
        if isinstance(entry, Plan):
            _check_old_plan(ledger, account, entry)
        elif isinstance(entry, Commit):
            _check_old_commit(ledger, account, entry)
        elif entry is None:
            account.find(f"{log_name(number)} cannot be read", _only_for_undo("that run"))


def _check_old_commit(ledger: TargetLedger, account: Account, commit: Commit) -> None:
    _check_old_table(ledger, account, commit.snapshot, commit.size, commit.run_id)
    try:
        ledger.read_report(commit.report)
    except LedgerDamagedError as damage:
        account.find(damage.what, _only_for_undo(f"run {commit.run_id}"))


def _check_old_plan(ledger: TargetLedger, account: Account, plan: Plan) -> None:
    _check_old_table(ledger, account, plan.base, plan.held, plan.run_id)
    _check_old_table(ledger, account, plan.changes, plan.rows, plan.run_id, digest=plan.digest)
    try:
        if isinstance(_entry(ledger, plan.number + 1), Commit):
            waterfall(plan, ledger.settled(plan.plan_id))
    except LedgerDamagedError as damage:
        account.find(damage.what, _only_for_undo(f"run {plan.run_id}"))
    except UnbalancedError as error:
        account.find(f"the numbers of run {plan.run_id} do not add up", str(error))


def _check_old_table(
    ledger: TargetLedger, account: Account, name: str | None, rows: int, run_id: str, *, digest: str = ""
) -> None:
    there = 0 if name is None else _rows_in(account, ledger.path(name), every_row=True, expected=digest)
    if there != rows:
        said = "is missing or cannot be read" if there is None else f"has {there:,} rows, not {rows:,}"
        account.find(f"{name or 'no snapshot'} {said}", _only_for_undo(f"run {run_id}"))


def _only_for_undo(whose: str) -> str:
    return (
        f"The next run does not need it; to go back to what {whose} left, or to look it up, restore the file "
        "from a backup of the ledger."
    )
