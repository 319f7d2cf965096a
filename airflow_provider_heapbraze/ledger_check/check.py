"""Look at a whole ledger, and lay out what was found for a terminal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.ledger_check import segment_syncs, sources, targets
from airflow_provider_heapbraze.ledger_check.account import WAITS, files_in
from airflow_provider_heapbraze.ledger_folder import folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from airflow_provider_heapbraze.ledger_check.account import Account

# An object store answers many as fast as one.
AT_ONCE = 16
GROUPS = {
    targets.GROUP: ("TARGET", "HELD"),
    sources.GROUP: ("CURRENTS SOURCE", "OPEN FILES"),
    segment_syncs.GROUP: ("PUSHED SEGMENT", "MEMBERS"),
}

NUMBERS = {2, 3}  # columns to be read from their end


def check(root: Path, *, deep: bool = False) -> list[Account]:
    """Look at every record of a ledger; nothing is written.

    :param root: folder of all ledgers; a path with pathlib's interface.
    :param deep: at every run that there was and every row, not only at what the next run needs.
    :returns: what was found out about each, in the order of their names.
    :raises ConfigurationError: there is no ledger.
    """
    must_be_a_ledger(root)
    looks: list[Callable[[], Account]] = [
        *(partial(targets.check_target, root, name, deep=deep) for name in _names(root, targets.GROUP)),
        *(partial(sources.check_source, root, name, deep=deep) for name in _names(root, sources.GROUP)),
        *(
            partial(segment_syncs.check_segment_sync, root, name)
            for name in _names(root, segment_syncs.GROUP)
        ),
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda look: look(), looks))


def must_be_a_ledger(root: Path) -> None:
    """Make sure that there is a ledger.

    :raises ConfigurationError: there is none.
    """
    if not set(GROUPS) & set(folders(root)):
        raise ConfigurationError(
            f"There is no ledger at {storage.uri(root)}: it has none of the folders {', '.join(GROUPS)}. "
            "Give the location that the operators have as ledger=, or Airflow's configuration as [heapbraze] "
            "ledger."
        )


def _names(root: Path, group: str) -> list[str]:
    return [name for name in folders(root / group) if not name.startswith(".")]


def as_text(root: Path, accounts: Iterable[Account]) -> str:
    """Lay accounts out for a person: tables, then what happens next, then what is wrong."""
    accounts = list(accounts)
    lines = [f"Ledger {storage.uri(root)}"]
    for group, (title, size) in GROUPS.items():
        members = [account for account in accounts if account.group == group]
        if members:
            head = (title, "STATE", size, "RUNS", "WHEN (UTC)", "NEWEST RUN")
            lines += ["", *_table([head, *map(_row, members)])]
    lines += _section("What happens next", _next(accounts))
    lines += _section("What is wrong", _wrong(accounts))
    return "\n".join([*lines, "", conclusion(accounts)])


def conclusion(accounts: Iterable[Account]) -> str:
    """Say the whole in a sentence."""
    accounts = list(accounts)
    damaged = [account for account in accounts if account.findings]
    unfinished = sum(bool(account.next) for account in accounts)
    waiting = sum(account.state == WAITS for account in accounts)
    open_ones = f" {unfinished:,} unfinished." if unfinished else ""
    open_ones += f" {waiting:,} with a plan that waits." if waiting else ""
    if warehouses := sorted({name for account in accounts for name in account.warehouses}):
        open_ones += f" Not looked at: tables in the warehouse of {', '.join(map(repr, warehouses))}."
    if damaged:
        found = sum(len(account.findings) for account in damaged)
        where = f"{len(damaged):,} of {files_in(len(accounts), 'record')}"
        return f"DAMAGED: {files_in(found, 'finding')} in {where}.{open_ones}"
    return f"Healthy: {files_in(len(accounts), 'record')}, nothing is damaged.{open_ones}"


def _row(account: Account) -> tuple[str, ...]:
    return (
        account.name,
        account.state,
        "?" if account.size is None else f"{account.size:,}",
        f"{account.runs:,}",
        f"{account.at:%Y-%m-%d %H:%M}" if account.at else "-",
        account.newest_run or "-",
    )


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if column in NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _section(title: str, paragraphs: Iterable[str]) -> list[str]:
    paragraphs = list(paragraphs)
    return ["", f"{title}:", *paragraphs] if paragraphs else []


def _next(accounts: Iterable[Account]) -> Iterator[str]:
    for account in accounts:
        for sentence in account.all_next:
            yield f"- {account.group}/{account.name}:\n  {sentence}"


def _wrong(accounts: Iterable[Account]) -> Iterator[str]:
    for account in accounts:
        for finding in account.findings:
            yield f"- {finding.where}: {finding.what}.\n  {finding.to_do}"


def as_record(accounts: Iterable[Account]) -> list[dict[str, Any]]:
    """Return accounts as JSON has them."""
    return [
        {
            **vars(account),
            "at": account.at.isoformat(timespec="seconds") if account.at else None,
            "state": account.state,
            "warehouses": sorted(account.warehouses),
            "waiting": vars(account.waiting) if account.waiting else None,
            "next": account.all_next,
            "findings": [vars(finding) for finding in account.findings],
        }
        for account in accounts
    ]
