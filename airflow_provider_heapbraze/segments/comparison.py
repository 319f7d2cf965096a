"""Whether a Braze segment holds exactly those whom the ledger holds, person by person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import UnbalancedError
from airflow_provider_heapbraze.membership.planning import KEY, ON_KEY, load_snapshot
from airflow_provider_heapbraze.membership.tables import literal, workspace
from airflow_provider_heapbraze.segments.exported import load_exported
from airflow_provider_heapbraze.segments.lookup import KINDS, look_up

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads
    from airflow_provider_heapbraze.membership.entries import Commit
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.segments.exported import Archives

# What an export must have of each user; Braze's own id names those who have nothing else.
FIELDS = ("external_id", "user_aliases", "braze_id")
EXPORTED = f"EXISTS (SELECT 1 FROM exported b WHERE {ON_KEY})"


def compare(ledger: TargetLedger, commit: Commit, archives: Archives, reads: BrazeReads) -> dict[str, Any]:
    """Compare an export with the snapshot of a commit.

    Whoever is held and not in the segment is looked up: Braze ignores people whom it does not know, so these
    are *unknown*; the others are *missing*. Whoever is in the segment under no identifier that is held is
    *surplus*. Device ids are in no export: people held by one are not checkable, and where there are any,
    nobody without an external id and an alias counts as surplus.

    :returns: counts, and as ``aside`` the file of the ledger that names those who differ.
    :raises LedgerDamagedError: the snapshot does not hold what the log says.
    :raises UnbalancedError: somebody who is held is unaccounted for.
    :raises UnusableExportError: a file of the export is none of Braze's.
    :raises HeapBrazeError: what reading the export and the profiles raises.
    """
    with workspace() as space:
        held = load_snapshot(space, ledger, commit.snapshot, commit.size, "held")
        persons = load_exported(space, archives)
        kinds = ", ".join(map(literal, KINDS))
        not_checkable = space.count(f"held WHERE kind NOT IN ({kinds})")
        _find_surplus(space, anonymous_too=not not_checkable)
        _find_absent(space, kinds, reads)
        counts = dict(space.ask("SELECT finding, count(*) FROM finding GROUP BY finding"))
        result = {
            "check": "segment",
            "held": held,
            "found": space.count(f"held a WHERE kind IN ({kinds}) AND {EXPORTED}"),
            "not_checkable": not_checkable,
            "in_segment": persons,
            **{name: counts.get(name, 0) for name in ("missing", "surplus", "unknown")},
        }
        _check_balance(result)
        return {**result, "aside": _keep_aside(space, ledger, commit) if counts else None}


def _check_balance(result: dict[str, Any]) -> None:
    if result["held"] != sum(result[name] for name in ("found", "missing", "unknown", "not_checkable")):
        raise UnbalancedError(
            f"The comparison does not add up: {result}. Nothing was sent. This is a fault of this package: "
            "report it with these numbers."
        )


def _find_surplus(space: Workspace, *, anonymous_too: bool) -> None:
    """Make the table ``finding`` with those who are in the segment and not held; each person once."""
    judged = "true" if anonymous_too else "kind <> 'braze_id'"
    space.sql(f"CREATE TABLE expected AS SELECT DISTINCT person FROM exported a JOIN held b ON {ON_KEY}")
    space.sql(
        f"CREATE TABLE finding AS SELECT 'surplus' AS finding, {KEY} FROM ("
        f"SELECT * FROM exported WHERE {judged} AND person NOT IN (SELECT person FROM expected) "
        "QUALIFY row_number() OVER (PARTITION BY person ORDER BY kind DESC, value, label) = 1) "
        # Whoever has no id at all cannot be told from another such one: each counts.
        f"QUALIFY value = '' OR row_number() OVER (PARTITION BY {KEY}) = 1"
    )


def _find_absent(space: Workspace, kinds: str, reads: BrazeReads) -> None:
    """Add those who are held and not in the segment: unknown to Braze, or missing."""
    # Those alone are asked for: in a cohort that arrived they are the ones whom Braze does not know.
    absent = space.ask(f"SELECT {KEY} FROM held a WHERE kind IN ({kinds}) AND NOT {EXPORTED}")
    known = look_up(reads, absent)
    space.rows(
        "absent",
        "finding VARCHAR, kind VARCHAR, value VARCHAR, label VARCHAR",
        {
            "finding": ["missing" if identifier in known else "unknown" for identifier in absent],
            **{name: [row[place] for row in absent] for place, name in enumerate(("kind", "value", "label"))},
        },
    )
    space.sql(f"INSERT INTO finding SELECT finding, {KEY} FROM absent")


def _keep_aside(space: Workspace, ledger: TargetLedger, commit: Commit) -> str:
    name = f"verifications/{commit.number:08d}-{uuid4().hex[:8]}-findings.parquet"
    local = space.folder / "findings.parquet"
    space.write(f"SELECT finding, {KEY} FROM finding ORDER BY finding", local)
    storage.write_whole(ledger.path(name), local)
    return ledger.uri(name)
