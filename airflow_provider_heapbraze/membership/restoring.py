"""What an earlier run left, as a match that can be planned for like any other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.ledger_folder import LedgerDamagedError
from airflow_provider_heapbraze.membership.carried import load_carried
from airflow_provider_heapbraze.membership.entries import Commit
from airflow_provider_heapbraze.membership.holding import KEY, load_snapshot
from airflow_provider_heapbraze.membership.matching import keep_identifiers, load_others, match_folder
from airflow_provider_heapbraze.membership.one_person import NO_LINKS, OWNER
from airflow_provider_heapbraze.membership.table_records import SUFFIX, read_record
from airflow_provider_heapbraze.membership.tables import digest_in

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.matching import MatchResult

log = logging.getLogger(__name__)

RUNS_SHOWN = 10


def find_run(ledger: TargetLedger, run_id: str) -> Commit:
    """Return how a run ended.

    :param run_id: as an import returns it, ``<DAG>/<run>/<task>``; or the DAG run's alone.
    :raises ConfigurationError: no run of this name has ended here, or several have.
    """
    commits = []
    for entry in ledger.recent_entries(ledger.next_number()):
        if isinstance(entry, Commit):
            if entry.run_id == run_id:
                return entry
            commits.append(entry)
    found = [commit for commit in commits if run_id in commit.run_id.split("/")[1:2]]
    if found and len({commit.run_id for commit in found}) == 1:
        return found[0]
    first = ledger.first_kept()
    pruned = f" What came before entry {first} of its log was pruned, and is gone." if first > 1 else ""
    shown = "; ".join(f"{commit.run_id} ({commit.size:,} people)" for commit in commits[:RUNS_SHOWN])
    problem = "Several runs" if found else "No run"
    raise ConfigurationError(
        f"{problem} of {ledger.target.folder} that ended is called {run_id}. Nothing was sent.{pruned} "
        f"Give one of: {shown or 'none has ended yet'}."
    )


def engine_of_run(ledger: TargetLedger, commit: Commit) -> str:
    """Return the warehouse that has a run's snapshot; empty where it is a file."""
    if commit.snapshot is None or not commit.snapshot.endswith(SUFFIX):
        return ""
    record = read_record(ledger.path(commit.snapshot), digest_in(commit.snapshot))
    if record is None:
        raise ledger.not_as_logged(commit.snapshot)
    return record.engine


def match_of_run(ledger: TargetLedger, commit: Commit, root: Path) -> MatchResult:
    """Write down whom a run left, as a match.

    :param root: folder of all ledgers.
    :raises LedgerDamagedError: the snapshot cannot be read.
    """
    with ledger.spaces.open() as space:
        try:
            load_snapshot(space, ledger, commit.snapshot, commit.size, "held")
        except LedgerDamagedError as damage:
            raise LedgerDamagedError(
                f"What run {commit.run_id} left cannot be restored: {damage.what}. Nothing was sent. Restore "
                "that from a backup, or name another run.",
                what=damage.what,
            ) from None
        # Other identifiers of the same people: removing one of them would remove the person.
        load_carried(space, ledger, commit, "links", NO_LINKS)
        links = f"SELECT {KEY}, {OWNER} FROM links_before"
        if load_others(space, "others_then", match_folder(root, commit.fingerprint)):
            links += f" UNION SELECT {KEY}, {OWNER} FROM others_then"
        else:
            log.warning(
                "The match of run %s is not in the ledger any more, or damaged: which identifiers were of "
                "one person that night is only known of those that were held.",
                commit.run_id,
            )
        return keep_identifiers(space, f"SELECT {KEY} FROM held", links, root)
