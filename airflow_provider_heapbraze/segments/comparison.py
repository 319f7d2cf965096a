"""Whether a Braze segment holds exactly those whom the ledger holds, person by person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import UnbalancedError
from airflow_provider_heapbraze.membership.holding import KEY, ON_KEY, load_snapshot
from airflow_provider_heapbraze.membership.tables import literal
from airflow_provider_heapbraze.segments.bounds import upper_bound
from airflow_provider_heapbraze.segments.existence import CONFIDENCE
from airflow_provider_heapbraze.segments.exported import load_exported
from airflow_provider_heapbraze.segments.lookup import KINDS, look_up

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.braze_reads import BrazeReads
    from airflow_provider_heapbraze.membership.entries import Commit
    from airflow_provider_heapbraze.membership.ledger import TargetLedger
    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.segments.exported import Archives

# What an export must have of each user; Braze's own id names those who have nothing else.
COMPARED_FIELDS = ("external_id", "user_aliases", "braze_id")
# 500 requests: two minutes at Braze's limit.
MOST_LOOKED_UP = 25_000
EXPORTED = f"EXISTS (SELECT 1 FROM exported b WHERE {ON_KEY})"


def compare(ledger: TargetLedger, commit: Commit, archives: Archives, reads: BrazeReads) -> dict[str, Any]:
    """Compare an export with the snapshot of a commit.

    Whoever is held and not in the segment is looked up: Braze ignores people whom it does not know, so these
    are *unknown*; the others are *missing*. Of more than 25,000 a random sample is looked up; the others are
    *not looked up*, and ``missing_at_most`` is the share of all of these, looked up or not, that can be
    missing, with 95 % confidence.

    Whoever is in the segment under no identifier that is held is *surplus*. Device ids are in no export:
    people held by one are not checkable, and where there are any, nobody without an external id and an alias
    counts as surplus.

    :returns: counts, and as ``aside`` the file of the ledger that names those who differ.
    :raises LedgerDamagedError: the snapshot does not hold what the log says.
    :raises UnbalancedError: somebody who is held is unaccounted for.
    :raises UnusableExportError: a file of the export is none of Braze's.
    :raises HeapBrazeError: what reading the export and the profiles raises.
    """
    with ledger.spaces.local() as space:
        held = load_snapshot(space, ledger, commit.snapshot, commit.size, "held")
        persons = load_exported(space, archives)
        kinds = ", ".join(map(literal, KINDS))
        not_checkable = space.count(f"held WHERE kind NOT IN ({kinds})")
        _find_surplus(space, anonymous_too=not not_checkable)
        looked_up = _find_absent(space, commit, reads)
        counts = dict(space.ask("SELECT finding, count(*) FROM finding GROUP BY finding"))
        result = {
            "check": "segment",
            "held": held,
            "found": space.count(f"held a WHERE kind IN ({kinds}) AND {EXPORTED}"),
            "not_checkable": not_checkable,
            "in_segment": persons,
            **{name: counts.get(name, 0) for name in ("missing", "surplus", "unknown", "not_looked_up")},
        }
        _check_balance(result)
        if result["not_looked_up"]:
            result["missing_at_most"] = upper_bound(result["missing"], looked_up, CONFIDENCE)
        return {**result, "aside": _keep_aside(space, ledger, commit) if counts else None}


def _check_balance(result: dict[str, Any]) -> None:
    parts = ("found", "missing", "unknown", "not_looked_up", "not_checkable")
    if result["held"] != sum(result[name] for name in parts):
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


def _find_absent(space: Workspace, commit: Commit, reads: BrazeReads) -> int:
    """Add those who are held and not in the segment; return how many of them were looked up.

    In a cohort that arrived they are those whom Braze does not know: there may be millions, and fifty can be
    asked for at a time.
    """
    kinds, seed = ", ".join(map(literal, KINDS)), literal(commit.plan_id)
    space.sql(
        f"CREATE TABLE absent AS SELECT {KEY}, row_number() OVER "
        f"(ORDER BY md5(concat_ws(chr(31), {seed}, kind, value, label))) AS place "
        f"FROM held a WHERE kind IN ({kinds}) AND NOT {EXPORTED}"
    )
    asked = space.ask(f"SELECT {KEY} FROM absent WHERE place <= {MOST_LOOKED_UP}")
    known = look_up(reads, asked)
    space.rows(
        "looked_up",
        "finding VARCHAR, kind VARCHAR, value VARCHAR, label VARCHAR",
        {
            "finding": ["missing" if identifier in known else "unknown" for identifier in asked],
            **{name: [row[place] for row in asked] for place, name in enumerate(("kind", "value", "label"))},
        },
    )
    space.sql(
        f"INSERT INTO finding SELECT finding, {KEY} FROM looked_up "
        f"UNION ALL SELECT 'not_looked_up', {KEY} FROM absent WHERE place > {MOST_LOOKED_UP}"
    )
    return len(asked)


def _keep_aside(space: Workspace, ledger: TargetLedger, commit: Commit) -> str:
    name = f"verifications/{commit.number:08d}-{uuid4().hex[:8]}-findings.parquet"
    local = space.folder / "findings.parquet"
    space.write(f"SELECT finding, {KEY} FROM finding ORDER BY finding", local)
    storage.write_whole(ledger.path(name), local)
    return ledger.uri(name)
